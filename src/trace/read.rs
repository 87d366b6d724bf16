//! Reads a trace, line by line, and leaves out the steps that a crash has undone.
//!
//! A step runs ahead of the disk: its line is written at once, its sends wait until its saves are
//! durable. A node that crashes in between starts again from older storage, as if the step had never
//! been, and nobody has ever heard of it. So a step that saves is held back here until a later line
//! says that the save was durable, or until the next life shows what it found in its storage.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::Traced;
use super::format::{FORMAT, Header, Heard, Hex, StepOf, Stop, from_hex};
use crate::durable::Durable as _;

/// The longest line that is read.
const LINE_MAX: usize = 256 << 20;

/// Something is wrong with a trace, in this line of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Fault {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
    /// Whether the file is no trace that can be judged at all, rather than the trace of a run that
    /// cannot have been.
    pub unreadable: bool,
}

impl Fault {
    /// The run cannot have been.
    pub fn impossible(line: u64, what: impl Into<String>) -> Self {
        Self { line, what: what.into(), unreadable: false }
    }

    /// The file cannot be judged.
    //= SPEC TRACE-6
    pub fn unreadable(line: u64, what: impl Into<String>) -> Self {
        Self { line, what: what.into(), unreadable: true }
    }
}

/// What a trace tells next.
#[derive(Clone, Debug)]
pub enum Item<A: Traced> {
    /// A life of the node begins.
    Life(Box<Header<A>>),
    /// A step that counts.
    Step(Logged<A>),
}

/// A step, as a line tells it.
#[derive(Clone, Debug)]
pub struct Logged<A: Traced> {
    /// The line.
    pub line: u64,
    /// What it says.
    pub step: Box<StepOf<A>>,
    /// What a start finds in its storage, with its digest.
    pub found: Option<(A::Storage, Hex)>,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Lines in all.
    pub lines: u64,
    /// Steps that a crash has undone.
    pub undone: u64,
    /// Last lines of a life that are cut off in their middle.
    pub cut: u64,
    /// Lives.
    pub lives: u64,
    /// Lives that ended in order.
    pub stopped: u64,
}

enum Line<A: Traced> {
    Header(Box<Header<A>>),
    Step(Box<StepOf<A>>),
    Stop,
    End,
}

/// The trace of one node.
pub struct Reader<A: Traced, R> {
    input: R,
    text: Vec<u8>,
    line: u64,
    /// A line that was read too early.
    again: Option<Line<A>>,
    out: VecDeque<Item<A>>,
    /// Steps whose saves are not known to be durable, and those behind them.
    held: VecDeque<Logged<A>>,
    durable: u64,
    /// What each actor has saved last, as far as steps were let out.
    saved: Vec<(u16, Option<Hex>)>,
    next_i: u64,
    in_life: bool,
    ended: bool,
    left: Left,
}

impl<A: Traced, R: BufRead> Reader<A, R> {
    /// Reads from here.
    pub fn new(input: R) -> Self {
        Self {
            input,
            text: Vec::new(),
            line: 0,
            again: None,
            out: VecDeque::new(),
            held: VecDeque::new(),
            durable: 0,
            saved: Vec::new(),
            next_i: 0,
            in_life: false,
            ended: false,
            left: Left::default(),
        }
    }

    /// What was left out so far.
    pub fn left(&self) -> Left {
        self.left
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Fault`], with the line.
    pub fn next_item(&mut self) -> Result<Option<Item<A>>, Fault> {
        loop {
            if let Some(item) = self.out.pop_front() {
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            let line = match self.again.take() {
                Some(line) => line,
                None => self.read_line()?,
            };
            match line {
                Line::Step(step) => self.on_step(step)?,
                Line::Stop => {
                    self.left.stopped += 1;
                    self.let_all_out();
                    self.in_life = false;
                }
                Line::Header(header) => self.on_header(header)?,
                Line::End => {
                    if self.left.lives == 0 {
                        return Err(Fault::unreadable(
                            self.line.max(1),
                            "the file is empty: name the trace that a node has written",
                        ));
                    }
                    // Nobody has seen what became of the last saves: they may well be durable.
                    self.let_all_out();
                    self.ended = true;
                }
            }
        }
    }

    fn read_line(&mut self) -> Result<Line<A>, Fault> {
        if !self.fill()? {
            return Ok(Line::End);
        }
        let line = self.line;
        let parsed = parse::<A>(&self.text);
        match parsed {
            Ok(parsed) => Ok(parsed),
            Err(error) if error.is_eof() && self.in_life => {
                // Cut off: right only if the life ends here.
                let next = if self.fill()? { parse::<A>(&self.text).ok() } else { Some(Line::End) };
                match next {
                    Some(next @ (Line::End | Line::Header(_))) => {
                        self.left.cut += 1;
                        Ok(next)
                    }
                    _ => Err(Fault::unreadable(
                        line,
                        "the line is cut off in its middle, and the life goes on: the file is damaged",
                    )),
                }
            }
            Err(error) => Err(match protocol_in(&self.text) {
                Some(other) if other != A::PROTOCOL => other_protocol::<A>(line, &other),
                _ => Fault::unreadable(
                    line,
                    format!(
                        "this is no line of a trace of {} ({error}): check files that `--trace` has \
                         written, with the release that wrote them",
                        A::PROTOCOL
                    ),
                ),
            }),
        }
    }

    /// Reads a line that is not empty. False at the end.
    fn fill(&mut self) -> Result<bool, Fault> {
        loop {
            self.text.clear();
            let mut bounded = io::Read::take(&mut self.input, LINE_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut self.text).map_err(|error| {
                Fault::unreadable(self.line + 1, format!("the file cannot be read: {error}"))
            })?;
            if read == 0 {
                return Ok(false);
            }
            self.line += 1;
            if self.text.len() > LINE_MAX {
                return Err(Fault::unreadable(self.line, "the line is too long for a trace"));
            }
            let length = self.text.trim_ascii_end().len();
            self.text.truncate(length);
            if length > 0 {
                self.left.lines += 1;
                return Ok(true);
            }
        }
    }

    fn on_step(&mut self, step: Box<StepOf<A>>) -> Result<(), Fault> {
        let line = self.line;
        if !self.in_life {
            return Err(Fault::unreadable(
                line,
                "a step comes before the header of its life: the beginning of the file is missing",
            ));
        }
        if step.i != self.next_i {
            return Err(Fault::impossible(
                line,
                format!(
                    "step {} of this life is missing: {} comes in its place",
                    self.next_i, step.i
                ),
            ));
        }
        self.next_i += 1;
        if step.durable < self.durable {
            return Err(Fault::impossible(line, "a save that was durable is so no more"));
        }
        self.durable = step.durable;
        self.held.push_back(Logged { line, step, found: None });
        while let Some(first) = self.held.front()
            && number(&first.step).is_none_or(|number| number <= self.durable)
        {
            self.let_out();
        }
        Ok(())
    }

    fn let_out(&mut self) {
        let Some(logged) = self.held.pop_front() else { return };
        if let Some(save) = logged.step.save {
            self.note_saved(logged.step.lease, Some(save.digest));
        }
        self.out.push_back(Item::Step(logged));
    }

    fn let_all_out(&mut self) {
        while !self.held.is_empty() {
            self.let_out();
        }
    }

    fn note_saved(&mut self, lease: u16, digest: Option<Hex>) {
        match self.saved.iter_mut().find(|(known, _)| *known == lease) {
            Some((_, saved)) => *saved = digest,
            None => self.saved.push((lease, digest)),
        }
    }

    /// The next life begins. What it finds in its storage says how far the one before has come.
    fn on_header(&mut self, header: Box<Header<A>>) -> Result<(), Fault> {
        let line = self.line;
        check_header(line, &header)?;
        self.left.lives += 1;
        let mut starts = Vec::new();
        self.next_i = 0;
        for _ in 0..header.actors.len() {
            match self.read_line()? {
                Line::Step(step) if matches!(step.input, Heard::Start { .. }) => {
                    if step.i != self.next_i {
                        return Err(Fault::impossible(self.line, "a start is missing"));
                    }
                    self.next_i += 1;
                    let (line, mut step) = (self.line, step);
                    let found = stored::<A>(line, &mut step.input)?;
                    starts.push(Logged { line, step, found });
                }
                // A life that ends before its actors have started has had no effect.
                other => {
                    self.again = Some(other);
                    break;
                }
            }
        }
        if self.left.lives > 1 && starts.len() == header.actors.len() {
            self.undo(&starts.iter().map(digest_found).collect::<Vec<_>>());
        } else {
            self.let_all_out();
        }
        self.durable = 0;
        self.in_life = true;
        self.out.push_back(Item::Life(header));
        if self.left.lives == 1 {
            for (lease, digest) in starts.iter().map(digest_found) {
                self.note_saved(lease, digest);
            }
        }
        for logged in starts {
            self.durable = self.durable.max(logged.step.durable);
            self.held.push_back(logged);
        }
        Ok(())
    }

    /// Lets out the held steps that the storage knows of, and drops those behind them.
    fn undo(&mut self, found: &[(u16, Option<Hex>)]) {
        let mut saved = self.saved.clone();
        let is_found = |saved: &[(u16, Option<Hex>)]| {
            found.iter().all(|(lease, digest)| {
                saved.iter().find(|(known, _)| known == lease).and_then(|(_, digest)| *digest)
                    == *digest
            })
        };
        let mut keep = is_found(&saved).then_some(0);
        for (index, Logged { step, .. }) in self.held.iter().enumerate() {
            if let Some(save) = step.save {
                match saved.iter_mut().find(|(known, _)| *known == step.lease) {
                    Some((_, digest)) => *digest = Some(save.digest),
                    None => saved.push((step.lease, Some(save.digest))),
                }
            }
            // Of several that fit, the last: what follows a durable save has happened, too.
            if is_found(&saved) {
                keep = Some(index + 1);
            }
        }
        // A storage that fits nothing is found by whoever replays the start.
        let keep = keep.unwrap_or(self.held.len());
        for _ in 0..keep {
            self.let_out();
        }
        self.left.undone += self.held.len() as u64;
        self.held.clear();
    }
}

fn number<M, T, R>(step: &super::format::Step<M, T, R>) -> Option<u64> {
    step.save.and_then(|save| save.number)
}

/// The digest of what the start of an actor finds.
fn digest_found<A: Traced>(logged: &Logged<A>) -> (u16, Option<Hex>) {
    (logged.step.lease, logged.found.as_ref().map(|&(_, digest)| digest))
}

/// Takes out of a start what it finds in its storage, with its digest.
///
/// # Errors
///
/// If the rows are none that the protocol saves.
fn stored<A: Traced>(
    line: u64,
    input: &mut Heard<A::Msg, A::Timer, A::Random>,
) -> Result<Option<(A::Storage, Hex)>, Fault> {
    let Heard::Start { rows } = input else { return Ok(None) };
    let Some(rows) = rows.take() else { return Ok(None) };
    let bytes: Option<Vec<_>> =
        rows.iter().map(|(key, value)| Some((from_hex(key)?, from_hex(value)?))).collect();
    let bytes =
        bytes.ok_or_else(|| Fault::unreadable(line, "a stored row is not in hexadecimal"))?;
    let storage = A::Storage::restore(&mut bytes.into_iter()).map_err(|error| {
        Fault::impossible(line, format!("it starts from storage where {error}"))
    })?;
    Ok(storage.map(|storage| {
        let digest = Hex(A::storage_digest(&storage));
        (storage, digest)
    }))
}

fn other_protocol<A: Traced>(line: u64, other: &str) -> Fault {
    let what = format!(
        "it is a trace of {other}, not of {}: check the traces of each protocol by themselves",
        A::PROTOCOL
    );
    Fault::unreadable(line, what)
}

/// The protocol that the header of a life names, whatever its actors are; none if the line is no header.
fn protocol_in(text: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        protocol: String,
    }
    serde_json::from_slice::<Named>(text).ok().map(|named| named.protocol)
}

/// The protocol that the first line of a trace names; none if it names none.
///
/// # Errors
///
/// If it cannot be read.
pub fn protocol_of(mut input: impl BufRead) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    io::Read::take(&mut input, LINE_MAX as u64).read_until(b'\n', &mut text)?;
    Ok(protocol_in(&text))
}

fn check_header<A: Traced>(line: u64, header: &Header<A>) -> Result<(), Fault> {
    if header.tenure_trace != FORMAT {
        let what = format!(
            "the trace has form {}, and this release reads form {FORMAT}: check it with tenure {}",
            header.tenure_trace, header.version
        );
        return Err(Fault::unreadable(line, what));
    }
    if header.protocol != A::PROTOCOL {
        return Err(other_protocol::<A>(line, &header.protocol));
    }
    if header.version != env!("CARGO_PKG_VERSION") {
        let what = format!(
            "tenure {} wrote it and this is {}: check it with the release that wrote it",
            header.version,
            env!("CARGO_PKG_VERSION")
        );
        return Err(Fault::unreadable(line, what));
    }
    if header.node >= header.nodes {
        let what = format!("node {} is none of the cluster's {} nodes", header.node, header.nodes);
        return Err(Fault::impossible(line, what));
    }
    Ok(())
}

fn parse<A: Traced>(text: &[u8]) -> Result<Line<A>, serde_json::Error> {
    if text.starts_with(b"{\"i\":") {
        return serde_json::from_slice(text).map(Line::Step);
    }
    if text.starts_with(b"{\"tenure_trace\":") {
        return serde_json::from_slice(text).map(Line::Header);
    }
    // Another program may have put the keys in another order.
    let value: serde_json::Value = serde_json::from_slice(text)?;
    let has = |key: &str| value.get(key).is_some();
    if has("tenure_trace") {
        serde_json::from_value(value).map(Line::Header)
    } else if has("stop") {
        serde_json::from_value::<Stop>(value).map(|_| Line::Stop)
    } else {
        serde_json::from_value(value).map(Line::Step)
    }
}
