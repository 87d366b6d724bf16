//! Simulated processes with many leases: what happens to some is nothing to the others, and nothing brings them into
//! step.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;

use super::lease::work_of;
use super::plan::Plan;
use super::run::{Simulation, nanos};
use super::setup::{Birth, Duties, Setup, Work, Workload};
use crate::lease::elector::Elector;
use crate::lease::host::Host;
use crate::lease::msg::Msg;
use crate::lease::record::{NodeId, NodeSet};
use crate::lease::safeguards::Safeguards;
use crate::lease::store::LeaseStore;
use crate::lease::timing::Timing;
use crate::lease::{Member, MemberState, Storage, Timer, View};
use crate::step::{Input, InputOf};
use crate::trace::{Origin, Recorder};

/// Processes that contend for some leases, each lease with a store of its own: first the hosts, lease by lease, then
/// the stores. There are at most 64 hosts.
#[derive(Clone, Copy, Debug)]
pub struct Leases {
    /// How many leases.
    pub leases: u16,
    /// How many processes; each has a host of each lease.
    pub processes: u16,
    /// The timing of all.
    pub timing: Timing,
    /// The duties that the runtime keeps.
    pub duties: Duties,
}

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many terms of each lease have begun.
    pub terms: Vec<u32>,
    /// What must not be of the work of terms, at its first occurrence.
    pub problem: Option<String>,
    /// When requests arrived at any store, in nanoseconds from the beginning.
    pub requests: Vec<u64>,
}

impl Outcome {
    /// The most requests that arrive within any `window` that begins in this span of time.
    pub fn busiest(&self, during: Range<Duration>, window: Duration) -> usize {
        let before = |time: u64| self.requests.partition_point(|&at| at < time);
        let begins = before(nanos(during.start))..before(nanos(during.end));
        let within = |first| before(self.requests[first] + nanos(window)) - first;
        begins.map(within).max().unwrap_or(0)
    }
}

impl Leases {
    /// The node of a lease in a process.
    pub fn host(&self, lease: u16, process: u16) -> u16 {
        lease * self.processes + process
    }

    /// The node that keeps the record of a lease.
    pub fn store(&self, lease: u16) -> u16 {
        self.leases * self.processes + lease
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u16 {
        self.store(self.leases)
    }

    fn hosts(&self, lease: u16) -> Range<u16> {
        self.host(lease, 0)..self.host(lease + 1, 0)
    }

    fn setup(&self) -> Setup<Member> {
        let (timing, safeguards) = (self.timing, Safeguards::ALL);
        let mut actors = Vec::new();
        for lease in 0..self.leases {
            let (hosts, store): (NodeSet, _) =
                (self.hosts(lease).map(NodeId).collect(), NodeId(self.store(lease)));
            actors.extend(self.hosts(lease).map(|me| {
                let elector = Elector { me: NodeId(me), store, hosts, timing, safeguards };
                Member::Host(Host { elector, replica: None })
            }));
        }
        actors.extend((0..self.leases).map(|lease| {
            let hosts = self.hosts(lease).map(NodeId).collect();
            Member::Store(LeaseStore { hosts, hints: Vec::new(), safeguards })
        }));
        let (cluster, local) = ("simulated".to_owned(), timing.hook / 2);
        Setup { cluster, actors, duties: self.duties, local }
    }

    /// Runs them for so long, from this seed.
    pub fn run(&self, seed: u64, plan: Plan, length: Duration) -> Outcome {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let open = |birth: Birth| Counter {
            now: birth.now,
            requests: (birth.node >= self.store(0)).then(|| Arc::clone(&requests)),
        };
        let mut simulation = Simulation::new(self.setup(), seed, plan, Nobody(*self), open);
        simulation.run_until(nanos(length));
        let (begun, problem) = (simulation.terms(), simulation.problem());
        let terms = (0..self.leases).map(|lease| begun.get(&lease).copied().unwrap_or(0)).collect();
        let requests = requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Outcome { terms, problem, requests }
    }
}

/// Nobody says anything to anybody.
struct Nobody(Leases);

impl Workload<Member> for Nobody {
    fn next(&mut self, _: &[Option<View>], _: &mut StdRng) -> (Duration, Option<(u16, Msg)>) {
        (Duration::from_secs(3600), None)
    }

    fn work(&self) -> Option<Work> {
        Some(work_of(&self.0.timing))
    }

    fn lease(&self, node: u16) -> u16 {
        if node < self.0.store(0) { node / self.0.processes } else { node - self.0.store(0) }
    }

    fn process(&self, node: u16) -> u16 {
        // Each store is a process of its own.
        if node < self.0.store(0) { node % self.0.processes } else { node }
    }
}

/// Counts the requests that arrive at a store.
struct Counter {
    now: u64,
    requests: Option<Arc<Mutex<Vec<u64>>>>,
}

impl Recorder<Member> for Counter {
    fn begin(&mut self, _: u16, _: u64, _: u64, input: &InputOf<Member>, _: Origin) {
        if let (Input::Deliver { .. }, Some(requests)) = (input, &self.requests) {
            requests.lock().unwrap_or_else(PoisonError::into_inner).push(self.now);
        }
    }

    fn save(&mut self, _: &Storage, _: Option<u64>) {}

    fn set(&mut self, _: &Timer, _: &Range<Duration>, _: u64) {}

    fn cancel(&mut self, _: &Timer) {}

    fn choose(&mut self, _: &str, _: &[()]) {}

    fn send(&mut self, _: stateright::actor::Id, _: &Msg, _: Option<u32>) {}

    fn end(&mut self, _: &MemberState, _: Option<u64>) {}

    fn write_out(&mut self) {}

    fn stop(&mut self, _: u64) {}

    fn simulated(&mut self, now: u64) {
        self.now = now;
    }
}
