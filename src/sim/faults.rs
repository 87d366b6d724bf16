//! What goes wrong: datagrams that are lost, doubled and late, nodes that crash and stand still, disks that go back.

use std::collections::VecDeque;

use rand::RngExt as _;

use super::event::Event;
use super::plan::{Fault, Kind};
use super::run::{MS, Simulation, Waiting, nanos};
use super::setup::{Birth, Simulated, Workload};
use crate::lease::record::NodeId;
use crate::step::Input;
use crate::trace::{Origin, Recorder};
use crate::wire::{self, Headers, Plain};

/// How late a datagram comes once more.
const LATEST: u64 = 60_000 * MS;

impl<A, R, F, L> Simulation<A, R, F, L>
where
    A: Simulated,
    R: Recorder<A>,
    F: FnMut(Birth) -> R,
    L: Workload<A>,
{
    pub(super) fn faults_of(&self, node: u16) -> impl Iterator<Item = Kind> {
        self.active.iter().filter(move |fault| fault.node == node).map(|fault| fault.kind)
    }

    pub(super) fn slowest(&mut self, node: u16) -> u64 {
        let most = self.faults_of(node).filter_map(|kind| match kind {
            Kind::SlowDisk(ms) => Some(u64::from(ms) * MS),
            _ => None,
        });
        let most = most.max().unwrap_or(0);
        if most > 0 { self.disks.random_range(0..=most) } else { 0 }
    }

    pub(super) fn transmit(&mut self, from: u16, to: u16, bytes: Vec<u8>) {
        let mut delay = self.network.random_range(MS / 10..=2 * MS);
        let mut copies = 1;
        let (mut late, mut lie) = (None, None);
        let mut length = bytes.len();
        let from_here: Vec<_> = self.faults_of(from).collect();
        if self.faults_of(to).any(|kind| matches!(kind, Kind::Isolate | Kind::Deaf)) {
            return;
        }
        for kind in from_here {
            match kind {
                Kind::Isolate => return,
                Kind::Loss(often) if self.strikes(often) => return,
                Kind::Double(often) if self.strikes(often) => copies = 2,
                Kind::Lie(often) if self.strikes(often) => lie = self.lie(to, &bytes),
                Kind::Late(often) if self.strikes(often) => {
                    late = Some(self.network.random_range(0..=LATEST));
                }
                Kind::Delay(ms) => delay += self.network.random_range(0..=u64::from(ms) * MS),
                Kind::Truncate(often) if self.strikes(often) => {
                    length = self.network.random_range(0..length.max(1));
                }
                _ => {}
            }
        }
        let errors = self.faults_of(to).find_map(|kind| match kind {
            Kind::Errors(often) => Some(often),
            _ => None,
        });
        if errors.is_some_and(|often| self.strikes(often)) {
            let start = self.nodes[usize::from(from)].start;
            self.at(self.now + 2 * delay, Event::Error { node: from, start });
            return;
        }
        if let Some(after) = late {
            self.at(self.now + delay + after, Event::Arrive(to, bytes[..length].to_vec()));
        }
        if let Some(lie) = lie {
            self.at(self.now + delay + 10 * MS, Event::Arrive(to, lie));
        }
        for _ in 0..copies {
            self.at(self.now + delay, Event::Arrive(to, bytes[..length].to_vec()));
            delay += self.network.random_range(0..=10 * MS);
        }
    }

    /// What a node says that lies, after this datagram.
    fn lie(&mut self, to: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        let (header, lease, said) = wire::decode::<A::Msg>(NodeId(to), bytes, &mut Plain).ok()?;
        let lie = self.workload.lie(&said)?;
        wire::encode(&header, lease, &lie, &mut Plain).ok()
    }

    fn strikes(&mut self, often: u16) -> bool {
        self.network.random_range(0..1000) < often
    }

    /// What a node has asked was answered by an error: it asks again by itself (L-37).
    pub(super) fn erred(&mut self, node: u16, start: u32) {
        let actor = &self.setup.actors[usize::from(node)];
        let it = &mut self.nodes[usize::from(node)];
        let Some(state) = &it.state else { return };
        if it.start == start && !self.setup.duties.errors_are_transient {
            it.timers.retain(|timer, _| actor.renews(state, timer).is_none());
        }
    }

    pub(super) fn begin(&mut self, fault: Fault) {
        let index = usize::from(fault.node);
        let is_stopping = self.nodes[index].own > 0 || self.is_stopping_work(fault.node);
        if matches!(fault.kind, Kind::Suspend | Kind::Blocked) && is_stopping {
            // The bound S on a stop hook holds only while the machine runs, and its end is heard: let it end first.
            let again = Fault { at_ms: self.now / MS + 1, ..fault };
            self.at(self.now + nanos(self.setup.local).max(MS), Event::Begin(again));
            return;
        }
        match fault.kind {
            Kind::Crash => {
                self.nodes[index].down += 1;
                self.crash(fault.node);
            }
            Kind::BackUp => {
                let it = &mut self.nodes[index];
                it.backup.clone_from(&it.disk[0].1);
                self.workload.backed_up(fault.node);
            }
            Kind::Restore => {
                self.nodes[index].down += 1;
                self.crash(fault.node);
                let it = &mut self.nodes[index];
                if let (Some(backup), Some(lost)) = (&it.backup, &it.disk[0].1)
                    && let Some(restored) = self.workload.restored(fault.node, backup, lost)
                {
                    it.disk = VecDeque::from([(0, Some(restored))]);
                }
            }
            Kind::Suspend => {
                let it = &mut self.nodes[index];
                it.suspended += 1;
                if it.suspended == 1 {
                    it.suspended_since = self.now;
                }
            }
            Kind::WorkDies => self.work_dies(fault.node),
            Kind::Blocked => {
                let it = &mut self.nodes[index];
                if it.state.is_some() {
                    it.blocked.push(fault);
                }
            }
            Kind::Meddle => {
                let storage = self.nodes[index].disk[0].1.clone();
                let msg = storage.and_then(|storage| self.workload.meddled(fault.node, &storage));
                if let Some(msg) = msg {
                    self.input(fault.node, Waiting::Told(msg));
                }
            }
            _ => self.active.push(fault),
        }
        self.at(self.now + fault.for_ms * MS, Event::End(fault));
    }

    pub(super) fn end(&mut self, fault: Fault) {
        let index = usize::from(fault.node);
        match fault.kind {
            Kind::Crash | Kind::Restore => {
                self.nodes[index].down -= 1;
                if self.nodes[index].down == 0 {
                    self.start(fault.node);
                }
            }
            Kind::Suspend => {
                self.nodes[index].suspended -= 1;
                if self.nodes[index].suspended == 0 {
                    if !self.setup.duties.clock_never_stops {
                        self.nodes[index].slept += self.now - self.nodes[index].suspended_since;
                    }
                    self.runs_again(fault.node, true);
                    self.wake_up(fault.node);
                    self.look(fault.node);
                }
            }
            Kind::Blocked => {
                let it = &mut self.nodes[index];
                let before = it.blocked.len();
                it.blocked.retain(|blocked| *blocked != fault);
                if before > 0 && it.blocked.is_empty() && it.suspended == 0 {
                    self.runs_again(fault.node, false);
                    self.wake_up(fault.node);
                    self.look(fault.node);
                }
            }
            _ => self.active.retain(|active| *active != fault),
        }
    }

    fn wake_up(&mut self, node: u16) {
        let index = usize::from(node);
        if !self.is_awake(node) {
            return;
        }
        if self.setup.duties.timers_first {
            self.fire_due(node);
        }
        for what in std::mem::take(&mut self.nodes[index].waiting) {
            self.input(node, what);
        }
        self.fire_due(node);
    }

    /// The process of a node ends.
    pub(super) fn crash(&mut self, node: u16) {
        self.process_ends(node);
        self.nodes[usize::from(node)].blocked.clear();
        self.lose(node);
    }

    /// The life of a node ends: all but its disk is gone.
    pub(super) fn lose(&mut self, node: u16) {
        let it = &mut self.nodes[usize::from(node)];
        if it.state.take().is_none() {
            return;
        }
        // Some of what was not synced may have reached the disk, from the front; a save that is torn is
        // known by its checksum and counts as none.
        let kept = self.disks.random_range(0..it.disk.len());
        let (_, storage) = it.disk.remove(kept).expect("it is one of them");
        it.disk = VecDeque::from([(0, storage)]);
        it.held.clear();
        it.timers.clear();
        it.waiting.clear();
        it.own = 0;
        it.wake = None;
        if let Some(mut trace) = it.trace.take() {
            trace.write_out();
        }
    }

    pub(super) fn start(&mut self, node: u16) {
        let index = usize::from(node);
        let clock = self.clock(node);
        let it = &mut self.nodes[index];
        it.start += 1;
        if it.life == 0 || self.setup.duties.new_incarnation {
            it.life += 1;
        }
        it.headers = Headers::new(NodeId(node), it.life);
        it.last_save = 0;
        it.own = 0;
        let birth = Birth {
            node,
            nodes: self.setup.actors.len() as u16,
            incarnation: it.life,
            clock,
            now: self.now,
        };
        it.trace = Some((self.open)(birth));
        let storage = it.disk[0].1.clone();
        self.step(node, Input::Start(storage), Origin::None);
    }
}
