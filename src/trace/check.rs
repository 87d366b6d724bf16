//! Checks the traces of a run: each node by itself, then all of them together.
//!
//! Each file is read and replayed by a thread of its own; one thread puts the steps in an order in which
//! every sending comes before its delivery, and takes them through the world. What is remembered
//! grows with the number of nodes, not with the length of the run.

use std::collections::BTreeMap;

use super::clocks::{Clocks, Rate};
use super::format::{Header, Heard, StepOf};
use super::read::{Fault, Logged};
pub use super::stream::{Growing, Source};
use super::stream::{Reading, Stream, Told, rest, stream};
use crate::models::replay::{Global, Known, Replayed};

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
    /// How often a node was put back to a backup.
    pub restored: u64,
    /// Steps that changed and sent nothing.
    pub stutters: u64,
    /// How often each kind of action was taken.
    pub coverage: BTreeMap<String, u64>,
    /// What was measured: name, nanoseconds.
    pub measured: Vec<(&'static str, u64)>,
    /// The rates of the nodes' clocks against each other.
    pub rates: Vec<Rate>,
}

/// What somebody who watches a check is shown.
pub enum Shown<'a, A: Replayed> {
    /// A life of the node begins, which has a part in this lease. The one before has ended.
    Life(u16),
    /// The model has taken this step of the node.
    Step(&'a StepOf<A>),
}

/// Called with the nodes of a lease, the node, the line in its file and what has happened.
pub type Watcher<'w, A> = &'w mut dyn FnMut(&Global<A>, u16, u64, Shown<'_, A>);

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
    A: Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send>
        + Send
        + Sync
        + 'static,
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
    A: Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send>
        + Send
        + Sync
        + 'static,
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
        restored: 0,
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
        let result = merge.run(sources, options, |read| {
            scope.spawn(read);
        });
        // Nobody reads any more, so nobody need wait for more to read.
        sources.iter().for_each(Source::stop);
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

/// What a merge does next.
enum Next {
    /// It takes the next line of this trace.
    Take(usize),
    /// It waits for more of a file that is being written.
    Wait,
    /// It has come to the end of all files.
    End,
}

impl<A: Replayed> Merge<'_, A> {
    fn run(&mut self, sources: &[Source], options: Options, spawn: impl Fn(Reading)) -> Outcome
    where
        A: Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send>
            + Send
            + Sync
            + 'static,
    {
        let mut headers = Vec::new();
        for source in sources {
            let file = source.name();
            let (read, mut stream) = stream::<A>(source).map_err(|error| {
                (file.clone(), Fault::unreadable(0, format!("the file cannot be opened: {error}")))
            })?;
            spawn(read);
            stream.wait();
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
        loop {
            match self.next_stream()? {
                Next::Take(index) => self.take(index)?,
                Next::Wait => rest(),
                Next::End => break,
            }
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
                    "there is no trace of node {}, which has a part in this (index {lease}): name its file too",
                    missing.join(", ")
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
        let Some(Told::Step(Logged { line, step, .. })) = &stream.head else { return Ok(()) };
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

    /// The trace whose next line comes next.
    fn next_stream(&mut self) -> Result<Next, (String, Fault)> {
        for stream in &mut self.streams {
            stream.look();
        }
        let somebody_is_silent = self.streams.iter().any(Stream::is_silent);
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
            // Who is silent now may still have something earlier to say.
            (Some((_, index)), _) if somebody_is_silent && self.streams[index].is_fresh() => {
                Ok(Next::Wait)
            }
            (Some((_, index)), _) => Ok(Next::Take(index)),
            (None, _) if somebody_is_silent => Ok(Next::Wait),
            (None, None) => Ok(Next::End),
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
                let watcher = &mut self.watcher;
                self.globals.iter_mut().try_for_each(|(lease, global)| {
                    let actor = header.actors.iter().find(|(known, _)| known == lease);
                    let actor = actor.map(|(_, actor)| actor);
                    global.begin_life(line, node, header.incarnation, actor)?;
                    if let Some(watcher) = watcher {
                        watcher(global, node, line, Shown::Life(*lease));
                    }
                    Ok(())
                })
            }
            Told::Step(logged) => self.step(index, &logged),
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

    fn step(&mut self, index: usize, logged: &Logged<A>) -> Result<(), Fault> {
        let Logged { line, step, .. } = logged;
        let line = *line;
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
        global.step(node, logged, shared)?;
        if let Some(watcher) = watcher {
            watcher(global, node, line, Shown::Step(step));
        }
        Ok(())
    }

    fn finish(self) -> Report {
        let Self { globals, clocks, mut report, streams, .. } = self;
        drop(streams);
        for global in globals.values() {
            report.taken += global.steps;
            report.stutters += global.stutters;
            report.restored += global.restored;
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
