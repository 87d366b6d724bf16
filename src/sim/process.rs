//! Processes that several leases share.
//!
//! Each lease of a process asks its store for itself (L-39). Without that duty a process has one loop for all of them,
//! which sends a request, waits for the answer or until it gives up, and only then sends the next.

use std::collections::VecDeque;

use super::event::Event;
use super::run::{MS, Simulation};
use super::setup::{Birth, Simulated, Workload};
use crate::trace::Recorder;

/// How long a loop for all leases waits for an answer.
const PATIENCE: u64 = 1000 * MS;

/// What a loop for all leases of a process does.
#[derive(Default)]
pub(super) struct Line {
    /// Whose request is not answered yet, and its number.
    asked: Option<(u16, u64)>,
    count: u64,
    /// Who waits: of each node the last that it wanted to say.
    waiting: VecDeque<(u16, u16, Vec<u8>)>,
}

impl<A, R, F, L> Simulation<A, R, F, L>
where
    A: Simulated,
    R: Recorder<A>,
    F: FnMut(Birth) -> R,
    L: Workload<A>,
{
    /// A node sends a datagram, when its process comes to it.
    pub(super) fn send(&mut self, from: u16, to: u16, bytes: Vec<u8>) {
        let process = self.workload.process(from);
        let nodes = 0..self.nodes.len() as u16;
        let is_shared =
            || nodes.into_iter().any(|node| node != from && self.workload.process(node) == process);
        if self.setup.duties.leases_apart || !is_shared() {
            self.transmit(from, to, bytes);
            return;
        }
        let line = self.lines.entry(process).or_default();
        match line.waiting.iter_mut().find(|(node, ..)| *node == from) {
            Some(known) => *known = (from, to, bytes),
            None => line.waiting.push_back((from, to, bytes)),
        }
        self.go_on(process);
    }

    fn go_on(&mut self, process: u16) {
        let Some(line) = self.lines.get_mut(&process).filter(|line| line.asked.is_none()) else {
            return;
        };
        let Some((from, to, bytes)) = line.waiting.pop_front() else { return };
        line.count += 1;
        line.asked = Some((from, line.count));
        let request = line.count;
        self.transmit(from, to, bytes);
        self.at(self.now + PATIENCE, Event::GiveUp { process, request });
    }

    /// Something has arrived at a node: the answer that its process may be waiting for.
    pub(super) fn answered(&mut self, node: u16) {
        if self.setup.duties.leases_apart {
            return;
        }
        let process = self.workload.process(node);
        let line = self.lines.get_mut(&process);
        if line.is_some_and(|line| line.asked.take_if(|(asked, _)| *asked == node).is_some()) {
            self.go_on(process);
        }
    }

    /// A request has gone unanswered for too long.
    pub(super) fn unanswered(&mut self, process: u16, request: u64) {
        let line = self.lines.get_mut(&process);
        if line.is_some_and(|line| line.asked.take_if(|(_, asked)| *asked == request).is_some()) {
            self.go_on(process);
        }
    }
}
