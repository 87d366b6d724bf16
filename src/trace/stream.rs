//! One trace, read and replayed by a thread of its own, whole or while it is being written.

#![allow(clippy::disallowed_methods, reason = "who follows a file waits for it to grow")]

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::format::Header;
use super::local::Node;
use super::read::{Fault, Item, Left, Logged, Reader};
use crate::models::replay::Replayed;

/// How many steps a reader hands over at once, and how many such parcels may wait.
const PARCEL: usize = 256;
const PARCELS: usize = 4;
/// How often a file that is being written is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long a line waits for earlier ones of traces that are silent. A node writes a line before anything of its
/// step is seen, so this need only cover a busy machine. What comes later still has its place: steps that hear
/// of each other are always in their order.
const PATIENCE: Duration = Duration::from_millis(300);

/// Where a trace is.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// In memory, under this name.
    Memory(String, Vec<u8>),
    /// In a file that a node is still writing.
    Growing(Growing),
}

/// A file that is read on as it grows, until somebody says that it ends.
#[derive(Clone, Debug)]
pub struct Growing {
    /// The file. It need not be there yet.
    pub path: PathBuf,
    /// Whether what is there is all there will be.
    pub ended: Arc<AtomicBool>,
}

struct Tail {
    file: Option<File>,
    growing: Growing,
}

impl Read for Tail {
    /// Waits at the end of the file, so that no line is cut off.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            // In this order: what was written before the end was said is read.
            let has_ended = self.growing.ended.load(Ordering::Acquire);
            match &mut self.file {
                Some(file) => match file.read(buffer)? {
                    0 => {}
                    count => return Ok(count),
                },
                None => {
                    self.file = File::open(&self.growing.path).ok();
                    if self.file.is_some() {
                        continue;
                    }
                }
            }
            if has_ended {
                return Ok(0);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Source {
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(name, _) => name.clone(),
            Self::Growing(growing) => growing.path.display().to_string(),
        }
    }

    /// Says that a file will not grow any more.
    pub(super) fn stop(&self) {
        if let Self::Growing(growing) = self {
            growing.ended.store(true, Ordering::Release);
        }
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::File(path) => Box::new(File::open(path)?),
            Self::Memory(_, bytes) => Box::new(Cursor::new(bytes.clone())),
            Self::Growing(growing) => Box::new(Tail { file: None, growing: growing.clone() }),
        })
    }
}

/// What one trace tells, in its order.
pub(super) enum Told<A: Replayed> {
    /// A life begins, in this line.
    Life(u64, Box<Header<A>>),
    /// A step was taken again as it is told.
    Step(Logged<A>),
    /// The trace has ended.
    End { left: Left, steps: u64, late: u64 },
    /// It is wrong from here on.
    Fault(Fault),
}

/// Reads one trace and replays its node; hands over what is right so far.
fn replay_node<A: Replayed>(input: Box<dyn Read + Send>, size: usize, out: &SyncSender<Parcel<A>>) {
    let mut reader = Reader::<A, _>::new(BufReader::with_capacity(1 << 18, input));
    let mut node: Option<Node<A>> = None;
    let mut parcel = Vec::with_capacity(size);
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
            Ok(Some(Item::Step(logged))) => {
                steps += 1;
                let replayed = node.as_mut().expect("a life has begun").replay(&logged);
                replayed.map_or_else(Told::Fault, |()| Told::Step(logged))
            }
        };
        let is_last = matches!(told, Told::End { .. } | Told::Fault(_));
        parcel.push(told);
        if is_last || parcel.len() == size {
            let full = std::mem::replace(&mut parcel, Vec::with_capacity(size));
            if out.send((Instant::now(), full)).is_err() || is_last {
                return;
            }
        }
    }
}

/// Some of what a trace tells, and when it was read.
type Parcel<A> = (Instant, Vec<Told<A>>);

/// One trace, as the one who merges sees it.
pub(super) struct Stream<A: Replayed> {
    pub(super) file: String,
    pub(super) head: Option<Told<A>>,
    pub(super) node: u16,
    pub(super) clock: String,
    /// What turns the node's time into one that is comparable with other machines'.
    pub(super) offset: i128,
    parcels: Receiver<Parcel<A>>,
    parcel: std::vec::IntoIter<Told<A>>,
    read: Instant,
    is_growing: bool,
    has_ended: bool,
}

/// Reads a trace to its end.
pub(super) type Reading = Box<dyn FnOnce() + Send>;

/// Opens a trace: what reads it, on a thread of its own, and what comes of that.
pub(super) fn stream<A>(source: &Source) -> std::io::Result<(Reading, Stream<A>)>
where
    A: Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send>
        + Send
        + Sync
        + 'static,
{
    let input = source.open()?;
    let is_growing = matches!(source, Source::Growing(_));
    // What is being written is handed over line by line, and never holds up who writes.
    let (size, waiting) = if is_growing { (1, PARCEL * PARCELS) } else { (PARCEL, PARCELS) };
    let (sender, parcels) = sync_channel(waiting);
    let stream = Stream {
        file: source.name(),
        head: None,
        node: 0,
        clock: String::new(),
        offset: 0,
        parcels,
        parcel: Vec::new().into_iter(),
        read: Instant::now(),
        is_growing,
        has_ended: false,
    };
    Ok((Box::new(move || replay_node::<A>(input, size, &sender)), stream))
}

/// A moment in which files may grow.
pub(super) fn rest() {
    std::thread::sleep(LOOK_EVERY / 4);
}

impl<A: Replayed> Stream<A> {
    /// Goes on to the next line, or to nothing yet if the file is still being written.
    pub(super) fn advance(&mut self) {
        if self.is_growing {
            self.head = self.parcel.next();
            self.look();
        } else {
            self.wait();
        }
    }

    /// Goes on to the next line, however long that takes.
    pub(super) fn wait(&mut self) {
        loop {
            if let Some(told) = self.parcel.next() {
                self.head = Some(told);
                return;
            }
            match self.parcels.recv() {
                Ok((read, parcel)) => (self.read, self.parcel) = (read, parcel.into_iter()),
                Err(_) => {
                    self.head = None;
                    self.has_ended = true;
                    return;
                }
            }
        }
    }

    /// Looks whether a file that is being written has more.
    pub(super) fn look(&mut self) {
        while self.head.is_none() && self.is_growing && !self.has_ended {
            match self.parcels.try_recv() {
                Ok((read, parcel)) => {
                    (self.read, self.parcel) = (read, parcel.into_iter());
                    self.head = self.parcel.next();
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.has_ended = true,
            }
        }
    }

    /// Whether there may be more, and nothing of it is there yet.
    pub(super) fn is_silent(&self) -> bool {
        self.head.is_none() && self.is_growing && !self.has_ended
    }

    /// Whether the next line was written so lately that others may still write something earlier.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.head, Some(Told::Step(..))) && self.read.elapsed() < PATIENCE
    }

    pub(super) fn time(&self) -> i128 {
        match &self.head {
            Some(Told::Step(Logged { step, .. })) => match step.sim {
                Some(sim) => sim.into(),
                None => i128::from(step.at) + self.offset,
            },
            _ => i128::MIN,
        }
    }
}
