//! The work of terms: what runs at a host while it leads, and what its process owes it.
//!
//! Work begins with a term. When the term ends its token is cancelled and a hook waits for the work; a sentry looks
//! at deadlines and kills what has not ended within S; a term whose work is dead is given up, as by an embedded
//! elector: a new life begins, which has no part in the old record. What the sentry and the renewals ask is
//! [`Oversight`], as in a real process. Here a kill switch aborts the process, which comes back after a while.
//!
//! Two things are asked after every event. No two pieces of work of one lease run at one moment; and no term goes
//! on for long whose work is dead. Work on a machine that was suspended through the end of its term runs on for
//! up to S when the machine wakes. No lease covers that, so it is not asked of such work until then.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::event::Event;
use super::plan::{Fault, Kind};
use super::run::{MS, Simulation, nanos};
use super::setup::{Birth, Simulated, Work, Workload};
use crate::clock::BootInstant;
use crate::lease::record::Epoch;
use crate::lease::timing::Timing;
use crate::oversight::{self, Look, Oversight};
use crate::trace::Recorder;

/// The work of all hosts.
pub(super) struct Works {
    setup: Work,
    hosts: Vec<Host>,
    running: Vec<Running>,
    /// All that is drawn about work comes from here, so that the rest of a run is the same without it.
    rng: StdRng,
    /// The first thing that must not be.
    pub(super) problem: Option<String>,
    /// How many terms of each lease have begun.
    pub(super) begun: BTreeMap<u16, u32>,
}

/// What a process knows of the work of its terms.
#[derive(Clone, Copy, Default)]
struct Host {
    /// Counts the processes: a new life of a host alone does not change it.
    process: u32,
    /// The term that has not ended.
    term: Option<Epoch>,
    /// The last term, and its last deadline on the host's clock.
    until: Option<(Epoch, BootInstant)>,
    oversight: Oversight,
    wake: Option<u64>,
    /// When the process was last seen to run again, after its machine or its loop had stood still.
    woke: u64,
    /// How many hooks and kills are under way.
    hooks: u32,
}

/// One piece of work.
#[derive(Clone, Copy)]
struct Running {
    node: u16,
    lease: u16,
    epoch: Epoch,
    /// Its token is cancelled.
    is_told: bool,
    /// When it died, by the simulator's time and by the host's clock.
    dead_since: Option<(u64, BootInstant)>,
    /// Until when nothing is asked of it.
    excused_until: u64,
}

impl Works {
    pub(super) fn new(setup: Work, nodes: usize, seed: u64) -> Self {
        Self {
            setup,
            hosts: vec![Host::default(); nodes],
            running: Vec::new(),
            rng: StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9) ^ 0x776f_726b),
            problem: None,
            begun: BTreeMap::new(),
        }
    }

    /// Whether some work is alive, under a term that has not ended.
    pub(super) fn is_any_alive(&self) -> bool {
        self.running.iter().any(|work| !work.is_told && work.dead_since.is_none())
    }
}

impl<A, R, F, L> Simulation<A, R, F, L>
where
    A: Simulated,
    R: Recorder<A>,
    F: FnMut(Birth) -> R,
    L: Workload<A>,
{
    /// The first thing about the work of terms that must not be.
    pub fn problem(&self) -> Option<String> {
        self.works.as_ref().and_then(|works| works.problem.clone())
    }

    /// Whether some work is alive, under a term that has not ended.
    pub fn has_work(&self) -> bool {
        self.works.as_ref().is_some_and(Works::is_any_alive)
    }

    /// How many terms of each lease have begun, if their hosts have work.
    pub fn terms(&self) -> BTreeMap<u16, u32> {
        self.works.as_ref().map(|works| works.begun.clone()).unwrap_or_default()
    }

    fn reading(&self, node: u16) -> BootInstant {
        BootInstant::from_nanos(self.clock(node))
    }

    /// A step has ended: what the host permits now.
    pub(super) fn show(&mut self, node: u16, epoch: Option<Epoch>, deadline: Option<u64>) {
        let Some(works) = &self.works else { return };
        let before = works.hosts[usize::from(node)].term;
        if let Some(ended) = before.filter(|_| before != epoch) {
            self.end_term(node, ended);
        }
        let lease = self.workload.lease(node);
        let Some(works) = &mut self.works else { return };
        let host = &mut works.hosts[usize::from(node)];
        if let (Some(epoch), Some(deadline)) = (epoch, deadline) {
            let is_over = host.until.is_some_and(|(last, _)| last == epoch) && host.term.is_none();
            // Ended behind the elector's back: it does not begin again.
            if !is_over {
                host.until = Some((epoch, BootInstant::from_nanos(deadline)));
                if host.term.replace(epoch).is_none() {
                    *works.begun.entry(lease).or_default() += 1;
                    let (is_told, dead_since, excused_until) = (false, None, 0);
                    let work = Running { node, lease, epoch, is_told, dead_since, excused_until };
                    works.running.push(work);
                }
            }
        }
        self.look(node);
    }

    /// Ends a term in its process: its token is cancelled, and with it all that runs under it is told to end (L-34).
    fn end_term(&mut self, node: u16, epoch: Epoch) {
        let is_under_the_term = self.setup.duties.term_token;
        let Some(works) = &mut self.works else { return };
        works.hosts[usize::from(node)].term = None;
        for work in &mut works.running {
            if work.node == node && work.epoch == epoch {
                work.is_told = is_under_the_term;
            }
        }
    }

    /// The hook of the last term begins.
    pub(super) fn stop_work(&mut self, node: u16) {
        let now = self.reading(node);
        let Some(works) = &mut self.works else { return };
        let host = &mut works.hosts[usize::from(node)];
        let Some((epoch, until)) = host.until else { return };
        let ended = oversight::ended_at(Some(until), now);
        host.oversight.stop(epoch, ended.saturating_add(works.setup.stop_within));
        self.look(node);
    }

    /// The hook of the last term has finished: what was told to end has ended.
    pub(super) fn work_stopped(&mut self, node: u16, epoch: Option<Epoch>) {
        let Some(works) = &mut self.works else { return };
        let host = &mut works.hosts[usize::from(node)];
        let Some(epoch) = epoch.or_else(|| host.until.map(|(epoch, _)| epoch)) else { return };
        host.oversight.stopped(epoch);
        works.running.retain(|work| work.node != node || work.epoch > epoch || !work.is_told);
    }

    /// A hook that the elector's next life does not wait for has finished.
    pub(super) fn hook_ended(&mut self, node: u16, process: u32, epoch: Epoch) {
        let Some(works) = &mut self.works else { return };
        let host = &mut works.hosts[usize::from(node)];
        if host.process == process {
            host.hooks -= 1;
            self.work_stopped(node, Some(epoch));
        }
    }

    /// Whether a hook that begins now never ends.
    pub(super) fn hook_hangs(&self, node: u16) -> bool {
        self.works.is_some() && self.faults_of(node).any(|kind| kind == Kind::HookHangs)
    }

    /// Whether a machine has to run on for what is under way.
    pub(super) fn is_stopping_work(&self, node: u16) -> bool {
        self.works.as_ref().is_some_and(|works| works.hosts[usize::from(node)].hooks > 0)
    }

    /// Gives up the term whose work is dead, before whatever comes could renew it (L-36).
    pub(super) fn gives_up(&mut self, node: u16) -> bool {
        let index = usize::from(node);
        let Some(works) = &self.works else { return false };
        let Some(epoch) = works.hosts[index].term else { return false };
        let is_of_it = |work: &&Running| work.node == node && work.epoch == epoch;
        let last = works.running.iter().find(is_of_it).and_then(|work| work.dead_since);
        let within = works.setup.alive_within;
        let is_alive =
            last.is_none_or(|(_, last)| oversight::is_alive(last, self.reading(node), within));
        if is_alive || !self.setup.duties.renewal_needs_life {
            return false;
        }
        // Nobody knows when its work will have ended: the host begins a new life, and the record stands.
        self.end_term(node, epoch);
        self.stop_work(node);
        if !self.hook_hangs(node) {
            let Some(works) = &mut self.works else { return false };
            let host = &mut works.hosts[index];
            host.hooks += 1;
            let process = host.process;
            let took = works.rng.random_range(0..=nanos(self.setup.local));
            self.at(self.now + took, Event::HookEnded { node, process, epoch });
        }
        self.lose(node);
        self.start(node);
        true
    }

    /// The sentry looks (L-7, L-35): at what it waits for, and after everything that changes that.
    pub(super) fn look(&mut self, node: u16) {
        let index = usize::from(node);
        let it = &self.nodes[index];
        // Without a thread of its own it waits for the loop.
        let is_held_up = !it.blocked.is_empty() && !self.setup.duties.deadline_thread;
        if it.suspended > 0 || is_held_up {
            return;
        }
        loop {
            let now = self.reading(node);
            let Some(works) = &mut self.works else { return };
            let host = &mut works.hosts[index];
            let term = host.until.filter(|(epoch, _)| host.term == Some(*epoch));
            match host.oversight.look(term, now, works.setup.stop_within) {
                Look::Wait(None) => return,
                Look::Wait(Some(next)) => {
                    let time = self.when(node, next.as_nanos()).max(self.now + 1);
                    let Some(works) = &mut self.works else { return };
                    let wake = &mut works.hosts[index].wake;
                    if wake.is_none_or(|wake| time < wake) {
                        *wake = Some(time);
                        self.at(time, Event::Look(node));
                    }
                    return;
                }
                Look::Overdue { kill_at } => {
                    let Some((epoch, _)) = term else { return };
                    host.oversight.stop(epoch, kill_at);
                    self.end_term(node, epoch);
                }
                Look::Kill(epoch) => {
                    host.oversight.killed(epoch);
                    if self.setup.duties.kill_switch {
                        host.hooks += 1;
                        let process = host.process;
                        let took = works.rng.random_range(0..=nanos(Timing::KILL_TAKES));
                        self.at(self.now + took, Event::Killed { node, process });
                    }
                }
            }
        }
    }

    pub(super) fn wait_is_over(&mut self, node: u16) {
        if let Some(works) = &mut self.works {
            works.hosts[usize::from(node)].wake = None;
        }
        self.look(node);
    }

    /// The kill switch has done what the hook has not.
    pub(super) fn killed(&mut self, node: u16, process: u32) {
        let Some(works) = &mut self.works else { return };
        if works.hosts[usize::from(node)].process != process {
            return;
        }
        let away = works.rng.random_range(0..=nanos(works.setup.restart)) / MS + 1;
        self.begin(Fault { at_ms: self.now / MS, for_ms: away, node, kind: Kind::Crash });
    }

    /// The work of a host dies, and does not say so.
    pub(super) fn work_dies(&mut self, node: u16) {
        let (now, reading) = (self.now, self.reading(node));
        let Some(works) = &mut self.works else { return };
        for work in &mut works.running {
            if work.node == node && !work.is_told && work.dead_since.is_none() {
                work.dead_since = Some((now, reading));
            }
        }
    }

    /// A process ends, and all its work with it.
    pub(super) fn process_ends(&mut self, node: u16) {
        let Some(works) = &mut self.works else { return };
        works.running.retain(|work| work.node != node);
        let host = &mut works.hosts[usize::from(node)];
        *host = Host { process: host.process + 1, wake: host.wake, ..Host::default() };
    }

    /// A loop runs again, or with it the whole machine.
    pub(super) fn runs_again(&mut self, node: u16, is_machine: bool) {
        let (now, reading) = (self.now, self.reading(node));
        let Some(works) = &mut self.works else { return };
        let host = &mut works.hosts[usize::from(node)];
        host.woke = now;
        let has_overslept = host.until.is_some_and(|(_, until)| until <= reading);
        if is_machine && has_overslept {
            // The work stood still too, and so did who would have stopped it.
            for work in works.running.iter_mut().filter(|work| work.node == node) {
                work.excused_until = now + nanos(works.setup.hook);
            }
        }
    }

    /// What must not be, after any event.
    //= SPEC SIM-6
    pub(super) fn judge(&mut self) {
        let Some(works) = &mut self.works else { return };
        if works.problem.is_some() {
            return;
        }
        let now = self.now;
        let runs = |work: &&Running| {
            self.nodes[usize::from(work.node)].suspended == 0 && now >= work.excused_until
        };
        for (index, one) in works.running.iter().enumerate().filter(|(_, work)| runs(work)) {
            let beside = |other: &&Running| runs(other) && other.lease == one.lease;
            if let Some(other) = works.running[..index].iter().find(beside) {
                works.problem = Some(format!(
                    "at {} ms the work of epoch {} runs on node {} beside that of epoch {} on node {}",
                    now / MS,
                    other.epoch,
                    other.node,
                    one.epoch,
                    one.node,
                ));
                return;
            }
            let (Some((since, _)), false) = (one.dead_since, one.is_told) else { continue };
            let is_blocked = !self.nodes[usize::from(one.node)].blocked.is_empty();
            let since = since.max(works.hosts[usize::from(one.node)].woke);
            if !is_blocked && now > since + nanos(works.setup.dead_within) {
                works.problem = Some(format!(
                    "at {} ms the work of epoch {} on node {} has been dead for {} ms, and its term goes on",
                    now / MS,
                    one.epoch,
                    one.node,
                    (now - since) / MS,
                ));
                return;
            }
        }
    }
}
