//! Replays runs of the lease: the world of a running cluster, and the monitor of its times.

use std::collections::VecDeque;

use super::canonical::{record_of, table_of};
use super::lease::{Keeps, LeaseObserver, LeaseState, LeaseWorld, properties};
use super::replay::{Monitor, Replayed, Seen};
use super::world::{Budget, Faults, Network, Time, World};
use crate::lease::elector::Phase;
use crate::lease::msg::Msg;
use crate::lease::record::{Epoch, NodeSet, Nonce};
use crate::lease::safeguards::Safeguards;
use crate::lease::store::LeaseStore;
use crate::lease::timing::Timing;
use crate::lease::{Member, MemberState};
use crate::trace::format::Heard;

/// How much later than S the end of a stop hook may be seen: the node needs a moment to hear of it.
const HEARING: u64 = 1_000_000;
/// How many requests of a host are remembered.
const REQUESTS: usize = 64;
/// How many terms of a host are remembered.
const TERMS: usize = 16;

fn timing_of(actors: &[Option<Member>]) -> Option<Timing> {
    actors.iter().flatten().find_map(|actor| match actor {
        Member::Host(host) => Some(host.elector.timing),
        _ => None,
    })
}

impl Replayed for Member {
    type Observer = LeaseObserver;
    type Monitor = LeaseMonitor;

    fn world(actors: &[Option<Self>]) -> Result<LeaseWorld, String> {
        let mut hosts = Vec::new();
        let mut store = None;
        let mut has_table = true;
        let mut safeguards = Safeguards::ALL;
        for (node, actor) in actors.iter().enumerate() {
            let Some(Self::Host(host)) = actor else { continue };
            if usize::from(host.elector.me.0) != node {
                return Err(format!("node {node} runs the host of node {}", host.elector.me.0));
            }
            let named = (host.elector.store, host.elector.hosts);
            if *store.get_or_insert(named) != named {
                return Err(format!(
                    "node {node} has other hosts or another store than the others"
                ));
            }
            has_table &= host.replica.is_some();
            safeguards &= host.elector.safeguards;
            hosts.push(node);
        }
        let Some((store, named)) = store else {
            return Err("no host has left a trace".to_owned());
        };
        if let Some(Some(Self::Store(known))) = actors.get(usize::from(store.0))
            && known.hosts != named
        {
            return Err(format!("the store, node {}, has other hosts than they have", store.0));
        }
        // Whoever has no part in the lease never starts, whatever it is.
        let idle = Self::Store(LeaseStore { hosts: NodeSet::EMPTY, hints: Vec::new(), safeguards });
        let mut properties = vec![
            properties::unique_holder_per_epoch(),
            properties::read_only_under_another(),
            properties::holder_has_deadline(),
        ];
        if has_table {
            properties.extend([properties::fenced_effects(), properties::no_lost_ack()]);
        }
        let nodes = actors.len();
        Ok(World {
            actors: actors
                .iter()
                .map(|actor| actor.clone().unwrap_or_else(|| idle.clone()))
                .collect(),
            time: Time::Untimed,
            network: Network::Free { repeats: true },
            faults: Faults {
                down_at_once: nodes + 1,
                ..Faults::crashes(0..nodes, Budget::Unlimited)
            },
            observer: LeaseObserver {
                store: store.0.into(),
                hosts,
                symmetric: false,
                safeguards,
                keeps: Keeps { table: has_table, ..Keeps::default() },
                outside: Vec::new(),
            },
            settled: Vec::new(),
            canonical: false,
            properties,
        })
    }

    fn needed(actors: &[Option<Self>]) -> Vec<u16> {
        let hosts = actors.iter().flatten().find_map(|actor| match actor {
            Self::Host(host) => Some((host.elector.hosts, host.elector.store)),
            _ => None,
        });
        let Some((hosts, store)) = hosts else { return Vec::new() };
        hosts.iter().chain([store]).map(|node| node.0).collect()
    }

    fn before_the_trace(state: &mut LeaseState, node: usize) {
        let Some(record) = record_of(&state.nodes[node]).cloned() else { return };
        state.ghost.epoch = record.claim.epoch;
        state.ghost.holder = record.claim.holder;
        if let Some(holder) = record.claim.holder {
            state.ghost.granted.insert(record.claim.epoch, holder);
        }
    }

    /// An acknowledged write that every host of the in-sync set has committed durably stays there. The
    /// newest such stands for those before it: histories that share an entry agree on all before it.
    fn forget(world: &LeaseWorld, state: &mut LeaseState) {
        if state.ghost.acknowledged.len() > 64
            && let Some(record) = world.observer.record(state)
        {
            let committed = record.claim.in_sync.iter().map(|host| {
                let storage = state.nodes[usize::from(host.0)].storage.as_ref();
                match storage {
                    Some(crate::lease::Storage::Host(host)) => {
                        host.table.as_ref().map_or(0, |table| table.committed)
                    }
                    _ => 0,
                }
            });
            let common = committed.min().unwrap_or(0);
            let newest = state
                .ghost
                .acknowledged
                .iter()
                .filter(|&(_, &seq)| seq <= common)
                .max_by_key(|&(_, &seq)| seq)
                .map(|(&request, _)| request);
            state
                .ghost
                .acknowledged
                .retain(|&request, &mut seq| seq > common || Some(request) == newest);
        }
        if state.ghost.granted.len() > 64 {
            let hosts = world.observer.hosts.iter();
            let fences = hosts.filter_map(|&host| table_of(&state.nodes[host])).map(|t| t.fence);
            if let Some(lowest) = fences.min() {
                state.ghost.granted.retain(|&epoch, _| epoch >= lowest);
            }
        }
    }

    fn monitor(actors: &[Option<Self>]) -> LeaseMonitor {
        LeaseMonitor {
            timing: timing_of(actors),
            hosts: actors.iter().map(|_| Times::default()).collect(),
            read: 0,
            write: 0,
            hook: 0,
            closest: None,
        }
    }
}

/// A spell during which a host was writable, its stop hook included, on the shared clock.
#[derive(Clone, Copy, Debug)]
struct Spell {
    epoch: Epoch,
    begin: u64,
    /// When it ends by itself, at the latest.
    limit: u64,
}

/// What is remembered of one host's times.
#[derive(Debug, Default)]
struct Times {
    /// The first sending of each of the last requests, by the host's clock.
    requests: VecDeque<(Nonce, u64)>,
    stopping_since: Option<u64>,
    deadline: Option<u64>,
    spell: Option<Spell>,
    past: VecDeque<(Epoch, u64, u64)>,
}

/// Judges the times of a lease: that a term counts from the sending of its grant, that the stop hook
/// keeps within S, and, where all nodes share a clock, that no two hosts are writable at once.
#[derive(Debug)]
pub struct LeaseMonitor {
    timing: Option<Timing>,
    hosts: Vec<Times>,
    read: u64,
    write: u64,
    hook: u64,
    closest: Option<u64>,
}

impl LeaseMonitor {
    fn close(&mut self, node: usize, end: u64) -> Result<(), String> {
        let Some(spell) = self.hosts[node].spell.take() else { return Ok(()) };
        let end = end.min(spell.limit).max(spell.begin);
        for (other, times) in self.hosts.iter().enumerate().filter(|&(other, _)| other != node) {
            for &(epoch, begin, until) in &times.past {
                if begin < end && spell.begin < until {
                    return Err(format!(
                        "two hosts are writable at once: node {node} in epoch {} from {} to {end}, node \
                         {other} in epoch {epoch} from {begin} to {until}",
                        spell.epoch, spell.begin
                    ));
                }
                let gap = if begin >= end { begin - end } else { spell.begin - until };
                self.closest = Some(self.closest.map_or(gap, |closest| closest.min(gap)));
            }
        }
        let past = &mut self.hosts[node].past;
        past.push_back((spell.epoch, spell.begin, end));
        if past.len() > TERMS {
            past.pop_front();
        }
        Ok(())
    }

    fn spell(
        &mut self,
        seen: &Seen<'_, Member>,
        phase: Phase,
        timing: Timing,
    ) -> Result<(), String> {
        let Some(now) = seen.shared else { return Ok(()) };
        let hook = nanos(timing.hook);
        let epoch = phase.writable();
        if self.hosts[seen.node].spell.is_some_and(|spell| Some(spell.epoch) != epoch) {
            self.close(seen.node, now)?;
        }
        let Some(epoch) = epoch else { return Ok(()) };
        let spell =
            self.hosts[seen.node].spell.get_or_insert(Spell { epoch, begin: now, limit: 0 });
        match seen.told.deadline {
            // By the host's own clock, which may be slower than the shared one.
            Some(deadline) if deadline < seen.told.at => {
                // It has slept through its deadline, and what it still believes permits nothing.
                let passed = now.saturating_sub(seen.told.at - deadline);
                spell.limit = spell.limit.min(passed.saturating_add(hook));
            }
            Some(deadline) => {
                let left = deadline - seen.told.at;
                let slow = u128::from(left) * 1_000_000
                    / u128::from(1_000_000 - timing.clock_error_ppm.min(900_000));
                let slow = u64::try_from(slow).unwrap_or(u64::MAX).saturating_add(1);
                spell.limit = now.saturating_add(slow).saturating_add(hook);
            }
            None => spell.limit = spell.limit.min(now.saturating_add(hook)),
        }
        Ok(())
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Monitor<Member> for LeaseMonitor {
    //= SPEC TRACE-5
    fn look(&mut self, seen: &Seen<'_, Member>) -> Result<(), String> {
        let (MemberState::Host(host), Some(timing)) = (seen.after, self.timing) else {
            return Ok(());
        };
        let told = seen.told;
        let times = &mut self.hosts[seen.node];
        for sent in &told.sends {
            match &sent.msg {
                Msg::Read { nonce } | Msg::Write { nonce, .. }
                    if !times.requests.iter().any(|(known, _)| known == nonce) =>
                {
                    times.requests.push_back((*nonce, told.at));
                    if times.requests.len() > REQUESTS {
                        times.requests.pop_front();
                    }
                }
                Msg::Stopped { .. } => times.stopping_since = Some(told.at),
                _ => {}
            }
        }
        let sent_at = |nonce: &Nonce| {
            times.requests.iter().find(|(known, _)| known == nonce).map(|&(_, at)| at)
        };
        let mut granted = None;
        match &told.input {
            Heard::Deliver { msg: Msg::ReadOk { nonce, .. }, .. } => {
                let took = sent_at(nonce).map_or(0, |at| told.at - at);
                self.read = self.read.max(took);
            }
            Heard::Deliver {
                msg: Msg::Written { nonce, .. } | Msg::Conflict { nonce, .. },
                ..
            } => {
                let sent = sent_at(nonce);
                self.write = self.write.max(sent.map_or(0, |at| told.at - at));
                granted = sent;
            }
            Heard::Own { msg: Msg::Stopped { .. } } => {
                if let Some(since) = times.stopping_since.take() {
                    let took = told.at - since;
                    self.hook = self.hook.max(took);
                    if took > nanos(timing.hook).saturating_add(HEARING) {
                        return Err(format!(
                            "the stop hook took {took} ns, and S is {} ns",
                            nanos(timing.hook)
                        ));
                    }
                }
            }
            _ => {}
        }
        // A term begins and goes on by the answer to a request alone, and counts from its sending.
        let moved = told.deadline.filter(|_| told.deadline != times.deadline);
        times.deadline = told.deadline;
        if let Some(deadline) = moved {
            let Some(sent) = granted else {
                return Err(format!(
                    "the term is held until {deadline}, and no answer has granted that"
                ));
            };
            let limit = sent.saturating_add(nanos(timing.give_up));
            if deadline > limit {
                return Err(format!(
                    "the term is held until {deadline}, and its grant was sent at {sent}: G ends it at {limit}"
                ));
            }
        }
        self.spell(seen, host.elector.phase, timing)
    }

    fn end_of_life(&mut self, node: usize, shared: Option<u64>) -> Result<(), String> {
        self.hosts[node].stopping_since = None;
        self.hosts[node].deadline = None;
        self.hosts[node].requests.clear();
        match shared {
            Some(end) => self.close(node, end),
            None => {
                self.hosts[node].spell = None;
                Ok(())
            }
        }
    }

    fn clock_error_ppm(&self) -> Option<u32> {
        self.timing.map(|timing| timing.clock_error_ppm)
    }

    fn measured(&self) -> Vec<(&'static str, u64)> {
        let mut measured = vec![
            ("longest read", self.read),
            ("longest conditional write", self.write),
            ("longest stop hook", self.hook),
        ];
        if let Some(closest) = self.closest {
            measured.push(("shortest time between two terms", closest));
        }
        measured
    }
}
