//! Checks the traces of a run: each node by itself, then all of them together.
//!
//! Each file is read and replayed by a thread of its own; one thread puts the steps in an order in which
//! every sending comes before its delivery, and takes them through the world. What is remembered
//! grows with the number of nodes, not with the length of the run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::clocks::{Clocks, Rate};
use super::format::{Header, Heard, StepOf};
use super::local::Node;
use super::read::{Fault, Item, Left, Reader};
use crate::models::replay::{Global, Known, Replayed};

/// How many steps a reader hands over at once, and how many such parcels may wait.
const PARCEL: usize = 256;
const PARCELS: usize = 4;

/// Where a trace is.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// In memory, under this name.
    Memory(String, Vec<u8>),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(name, _) => name.clone(),
        }
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::File(path) => Box::new(File::open(path)?),
            Self::Memory(_, bytes) => Box::new(Cursor::new(bytes.clone())),
        })
    }
}

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether the network may deliver a datagram more than once, as the checked models let it.
    pub repeats: bool,
    /// Draws the order of steps that do not depend on each other; by their times, if none is given.
    pub order: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { repeats: true, order: None }
    }
}

/// What a check has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The run is a behaviour of the model, and every property held along it.
    Accepted,
    /// It is not, or one did not.
    Rejected,
    /// The traces do not say enough.
    Inconclusive,
}

/// Where a check has ended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not accepted.
    pub problem: Option<Problem>,
    /// Steps in the files.
    pub logged: u64,
    /// Steps that the model has taken.
    pub taken: u64,
    /// Steps that a crash has undone: their effects never left their node.
    pub undone: u64,
    /// Last lines of a life that were cut off.
    pub cut: u64,
    /// Lives of nodes.
    pub lives: u64,
    /// Lives that ended in order.
    pub stopped: u64,
    /// Steps that changed and sent nothing.
    pub stutters: u64,
    /// How often each kind of action was taken.
    pub coverage: BTreeMap<String, u64>,
    /// What was measured: name, nanoseconds.
    pub measured: Vec<(&'static str, u64)>,
    /// The rates of the nodes' clocks against each other.
    pub rates: Vec<Rate>,
}

enum Told<A: Replayed> {
    Life(u64, Box<Header<A>>),
    Step(u64, Box<StepOf<A>>),
    End { left: Left, steps: u64, late: u64 },
    Fault(Fault),
}

/// Reads one trace and replays its node; hands over what is right so far.
fn replay_node<A: Replayed>(input: Box<dyn Read + Send>, out: &SyncSender<Vec<Told<A>>>) {
    let mut reader = Reader::<A, _>::new(BufReader::with_capacity(1 << 18, input));
    let mut node: Option<Node<A>> = None;
    let mut parcel = Vec::with_capacity(PARCEL);
    let mut steps = 0;
    loop {
        let told = match reader.next_item() {
            Err(fault) => Told::Fault(fault),
            Ok(None) => {
                let late = node.as_ref().map_or(0, Node::latest_timer);
                Told::End { left: reader.left(), steps, late }
            }
            Ok(Some(Item::Life(header))) => {
                let line = reader.left().lines;
                let begun = match &mut node {
                    None => {
                        node = Some(Node::new((*header).clone()));
                        Ok(())
                    }
                    Some(node) => node.begin_life(line, (*header).clone()),
                };
                begun.map_or_else(Told::Fault, |()| Told::Life(line, header))
            }
            Ok(Some(Item::Step { line, step })) => {
                steps += 1;
                let replayed = node.as_mut().expect("a life has begun").replay(line, &step);
                replayed.map_or_else(Told::Fault, |()| Told::Step(line, step))
            }
        };
        let is_last = matches!(told, Told::End { .. } | Told::Fault(_));
        parcel.push(told);
        if is_last || parcel.len() == PARCEL {
            let full = std::mem::replace(&mut parcel, Vec::with_capacity(PARCEL));
            if out.send(full).is_err() || is_last {
                return;
            }
        }
    }
}

/// One trace, as the one who merges sees it.
struct Stream<A: Replayed> {
    file: String,
    parcels: Receiver<Vec<Told<A>>>,
    parcel: std::vec::IntoIter<Told<A>>,
    head: Option<Told<A>>,
    node: u16,
    clock: String,
    /// What turns the node's time into one that is comparable with other machines'.
    offset: i128,
}

impl<A: Replayed> Stream<A> {
    fn advance(&mut self) {
        loop {
            if let Some(told) = self.parcel.next() {
                self.head = Some(told);
                return;
            }
            match self.parcels.recv() {
                Ok(parcel) => self.parcel = parcel.into_iter(),
                Err(_) => {
                    self.head = None;
                    return;
                }
            }
        }
    }

    fn time(&self) -> i128 {
        match &self.head {
            Some(Told::Step(_, step)) => match step.sim {
                Some(sim) => sim.into(),
                None => i128::from(step.at) + self.offset,
            },
            _ => i128::MIN,
        }
    }
}

/// Called after each step with the lease, the node, the line and the step.
pub type Watcher<'w, A> = &'w mut dyn FnMut(&Global<A>, u16, u64, &StepOf<A>);

struct Merge<'w, A: Replayed> {
    streams: Vec<Stream<A>>,
    globals: BTreeMap<u16, Global<A>>,
    clocks: Clocks,
    report: Report,
    dice: Option<u64>,
    watcher: Option<Watcher<'w, A>>,
}

/// Checks the traces of the nodes of one run.
pub fn check<A>(sources: &[Source], options: Options) -> Report
where
    A: Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send> + Send + Sync,
{
    check_and_watch::<A>(sources, options, None)
}

/// The same, and shows every step to somebody.
pub fn check_and_watch<A>(
    sources: &[Source],
    options: Options,
    watcher: Option<Watcher<'_, A>>,
) -> Report
where
    A: Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send> + Send + Sync,
{
    let report = Report {
        verdict: Verdict::Accepted,
        problem: None,
        logged: 0,
        taken: 0,
        undone: 0,
        cut: 0,
        lives: 0,
        stopped: 0,
        stutters: 0,
        coverage: BTreeMap::new(),
        measured: Vec::new(),
        rates: Vec::new(),
    };
    std::thread::scope(|scope| {
        let mut merge = Merge {
            streams: Vec::new(),
            globals: BTreeMap::new(),
            clocks: Clocks::default(),
            report,
            dice: options.order.map(|seed| seed.wrapping_mul(2).wrapping_add(1)),
            watcher,
        };
        let result = merge.run(sources, options, |input, out| {
            scope.spawn(move || replay_node::<A>(input, &out));
        });
        if let Err((file, fault)) = result {
            let unreadable = fault.unreadable;
            merge.report.verdict =
                if unreadable { Verdict::Inconclusive } else { Verdict::Rejected };
            merge.report.problem = Some(Problem { file, line: fault.line, what: fault.what });
        }
        merge.finish()
    })
}

type Outcome = Result<(), (String, Fault)>;

impl<A: Replayed> Merge<'_, A> {
    fn run(
        &mut self,
        sources: &[Source],
        options: Options,
        spawn: impl Fn(Box<dyn Read + Send>, SyncSender<Vec<Told<A>>>),
    ) -> Outcome {
        let mut headers = Vec::new();
        for source in sources {
            let file = source.name();
            let input = source.open().map_err(|error| {
                (file.clone(), Fault::unreadable(0, format!("the file cannot be opened: {error}")))
            })?;
            let (sender, parcels) = sync_channel(PARCELS);
            spawn(input, sender);
            let mut stream = Stream {
                file: file.clone(),
                parcels,
                parcel: Vec::new().into_iter(),
                head: None,
                node: 0,
                clock: String::new(),
                offset: 0,
            };
            stream.advance();
            match stream.head.take() {
                Some(Told::Life(line, header)) => {
                    stream.node = header.node;
                    stream.head = Some(Told::Life(line, header.clone()));
                    headers.push((file, *header));
                }
                Some(Told::Fault(fault)) => return Err((file, fault)),
                _ => return Err((file, Fault::unreadable(0, "the file holds no life of a node"))),
            }
            self.streams.push(stream);
        }
        self.gather(&headers, options)?;
        while let Some(index) = self.next_stream()? {
            self.take(index)?;
        }
        let Self { streams, globals, .. } = self;
        for stream in streams.iter() {
            for global in globals.values_mut() {
                global.end_of_life(0, stream.node).map_err(|fault| (stream.file.clone(), fault))?;
            }
        }
        let error = self.globals.values().filter_map(Global::clock_error_ppm).max();
        if let Some(rate) = error.and_then(|ppm| self.clocks.beyond(ppm)) {
            let what = format!(
                "the clock of node {} runs {:.0} to {:.0} ppm faster than that of node {}: one of them is \
                 off by more than the {} ppm on which the lease relies",
                rate.against,
                rate.low_ppm,
                rate.high_ppm,
                rate.of,
                error.unwrap_or_default()
            );
            let file = self.streams.first().map(|stream| stream.file.clone());
            return Err((file.unwrap_or_default(), Fault::impossible(0, what)));
        }
        Ok(())
    }

    /// Puts the nodes of each lease together.
    fn gather(&mut self, headers: &[(String, Header<A>)], options: Options) -> Outcome {
        let Some((_, first)) = headers.first() else {
            let what = "no trace was named: name one file for each node";
            return Err((String::new(), Fault::unreadable(0, what)));
        };
        let mut seen = BTreeMap::new();
        let mut leases: BTreeMap<u16, Vec<Option<A>>> = BTreeMap::new();
        for (file, header) in headers {
            let wrong = |what: String| Err((file.clone(), Fault::impossible(1, what)));
            if header.nodes != first.nodes || header.cluster != first.cluster {
                return wrong(format!(
                    "it is of cluster {:?} with {} nodes, and the first file is of {:?} with {}",
                    header.cluster, header.nodes, first.cluster, first.nodes
                ));
            }
            if let Some(other) = seen.insert(header.node, file) {
                return wrong(format!("it is of node {}, and so is {other}", header.node));
            }
            for (lease, actor) in &header.actors {
                let nodes = usize::from(header.nodes);
                let actors = leases.entry(*lease).or_insert_with(|| vec![None; nodes]);
                actors[usize::from(header.node)] = Some(actor.clone());
            }
        }
        for (lease, actors) in leases {
            let missing: Vec<_> = A::needed(&actors)
                .into_iter()
                .filter(|node| !seen.contains_key(node))
                .map(|node| node.to_string())
                .collect();
            let (file, _) = &headers[0];
            if !missing.is_empty() {
                let what = format!(
                    "there is no trace of node {}, which has a part in lease {lease}: name its file too",
                    missing.join(" and ")
                );
                return Err((file.clone(), Fault::unreadable(0, what)));
            }
            let global = Global::new(&actors, options.repeats)
                .map_err(|what| (file.clone(), Fault::impossible(0, what)))?;
            self.globals.insert(lease, global);
        }
        Ok(())
    }

    /// Whether a trace's next line can come now; if not, why.
    fn is_ready(&self, stream: &Stream<A>) -> Result<(), (u64, String)> {
        let Some(Told::Step(line, step)) = &stream.head else { return Ok(()) };
        let Heard::Deliver { src, inc, seq, .. } = step.input else { return Ok(()) };
        let Some(global) = self.globals.get(&step.lease) else { return Ok(()) };
        if global.knows(src, inc, seq) != Known::NotYet {
            return Ok(());
        }
        Err((
            *line,
            format!("datagram {seq} of node {src}, life {inc}, arrives and was never sent"),
        ))
    }

    /// The trace whose next line comes next; none at the end.
    fn next_stream(&mut self) -> Result<Option<usize>, (String, Fault)> {
        let mut best: Option<(i128, usize)> = None;
        let mut ready = 0;
        let mut blocked: Option<(i128, usize, u64, String)> = None;
        for (index, stream) in self.streams.iter().enumerate() {
            if stream.head.is_none() {
                continue;
            }
            let time = stream.time();
            // The check for a sending is the dearest, so it comes last.
            if self.dice.is_none() && best.is_some_and(|(earliest, _)| earliest <= time) {
                continue;
            }
            match self.is_ready(stream) {
                Ok(()) => {
                    ready += 1;
                    let is_next = match &mut self.dice {
                        None => true,
                        Some(dice) => {
                            *dice ^= *dice << 13;
                            *dice ^= *dice >> 7;
                            *dice ^= *dice << 17;
                            *dice % ready == 0
                        }
                    };
                    if is_next {
                        best = Some((time, index));
                    }
                }
                Err((line, what)) => {
                    if blocked.as_ref().is_none_or(|(earliest, ..)| time < *earliest) {
                        blocked = Some((time, index, line, what));
                    }
                }
            }
        }
        match (best, blocked) {
            (Some((_, index)), _) => Ok(Some(index)),
            (None, None) => Ok(None),
            // Everybody waits for something that nobody will say.
            (None, Some((_, index, line, what))) => {
                Err((self.streams[index].file.clone(), Fault::impossible(line, what)))
            }
        }
    }

    fn take(&mut self, index: usize) -> Outcome {
        let stream = &mut self.streams[index];
        let node = stream.node;
        let told = stream.head.take().expect("it was chosen");
        let done = match told {
            Told::Life(line, header) => {
                let clock = &header.clock;
                if stream.clock != clock.name {
                    self.clocks.forget(node);
                }
                stream.clock.clone_from(&clock.name);
                stream.offset = i128::from(clock.wall) - i128::from(clock.at);
                self.globals
                    .values_mut()
                    .try_for_each(|global| global.begin_life(line, node, header.incarnation))
            }
            Told::Step(line, step) => self.step(index, line, &step),
            Told::Fault(fault) => Err(fault),
            Told::End { left, steps, late } => {
                let report = &mut self.report;
                report.logged += steps + left.undone;
                report.undone += left.undone;
                report.cut += left.cut;
                report.lives += left.lives;
                report.stopped += left.stopped;
                match report.measured.iter_mut().find(|(name, _)| *name == LATEST_TIMER) {
                    Some((_, latest)) => *latest = late.max(*latest),
                    None => report.measured.push((LATEST_TIMER, late)),
                }
                Ok(())
            }
        };
        done.map_err(|fault| (self.streams[index].file.clone(), fault))?;
        self.streams[index].advance();
        Ok(())
    }

    fn step(&mut self, index: usize, line: u64, step: &StepOf<A>) -> Result<(), Fault> {
        let Self { streams, globals, clocks, watcher, .. } = self;
        let stream = &streams[index];
        let one_clock =
            streams.iter().all(|other| other.clock.is_empty() || other.clock == stream.clock);
        let shared = step.sim.or_else(|| one_clock.then_some(step.at));
        let node = stream.node;
        let Some(global) = globals.get_mut(&step.lease) else {
            return Err(Fault::impossible(
                line,
                format!("nobody has a part in lease {}", step.lease),
            ));
        };
        if let Heard::Deliver { src, inc, seq, .. } = step.input
            && let Known::Sent(sent) = global.knows(src, inc, seq)
        {
            clocks.message(src, sent, node, step.at);
        }
        global.step(line, node, step, shared)?;
        if let Some(watcher) = watcher {
            watcher(global, node, line, step);
        }
        Ok(())
    }

    fn finish(self) -> Report {
        let Self { globals, clocks, mut report, streams, .. } = self;
        drop(streams);
        for global in globals.values() {
            report.taken += global.steps;
            report.stutters += global.stutters;
            for (kind, count) in &global.coverage {
                *report.coverage.entry(kind.clone()).or_default() += count;
            }
            for (name, value) in global.measured() {
                match report.measured.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, longest)) => *longest = value.max(*longest),
                    None => report.measured.push((name, value)),
                }
            }
        }
        report.rates = clocks.rates();
        // A pass that has looked at nothing is none.
        if report.verdict == Verdict::Accepted && report.taken + report.undone != report.logged {
            report.verdict = Verdict::Inconclusive;
            let what = format!(
                "{} steps were read and {} taken: please report this",
                report.logged, report.taken
            );
            report.problem = Some(Problem { file: String::new(), line: 0, what });
        }
        report
    }
}

const LATEST_TIMER: &str = "latest firing of a timer after its time";
