//! The lease in a world: its history variables, its properties, and how a cluster is put together.

use std::collections::BTreeMap;
use std::time::Duration;

use stateright::Property;

use super::canonical::{canonical, host_of, record_of, table_of};
use super::world::{
    Action, Condition, Faults, Network, Observer, Said, Time, World, WorldState, earliest_ticks,
    latest_ticks,
};
use crate::lease::client::Client;
use crate::lease::elector::{Elector, Phase, Then};
use crate::lease::host::{Host, HostState};
use crate::lease::msg::{Msg, RequestId, Seq};
use crate::lease::record::{Epoch, Expect, Holder, NodeId, NodeSet, Nonce, Record};
use crate::lease::replica::{Replica, Table};
use crate::lease::safeguards::Safeguards;
use crate::lease::store::LeaseStore;
use crate::lease::timing::Timing;
use crate::lease::{Member, MemberState, Storage, Timer};

/// A state of a lease world.
pub type LeaseState = WorldState<MemberState, Storage, Timer, Msg, Ghost>;

/// A lease world.
pub type LeaseWorld = World<Member, LeaseObserver>;

/// What is remembered of the past. Each part is kept only where a property asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ghost {
    /// The epoch of the newest grant.
    pub epoch: Epoch,
    /// To whom it was granted.
    pub holder: Option<Holder>,
    /// How many terms there have been, where a model bounds them.
    pub terms: u8,
    /// What has gone wrong.
    pub wrong: Wrong,
    /// To whom each epoch of which there is still a trace was granted.
    pub granted: BTreeMap<Epoch, Holder>,
    /// For each node, the highest epoch under which its table has been changed.
    pub applied: Vec<Epoch>,
    /// Where each acknowledged write stands.
    pub acknowledged: BTreeMap<RequestId, Seq>,
    /// For how many ticks nobody could write though somebody could have been elected.
    pub leaderless: u16,
    /// The first leader, and its epoch.
    pub first_leader: Option<(NodeId, Epoch)>,
    /// For each node, ticks since the send of its grant, and of its attempt under way.
    pub ages: Vec<(u16, u16)>,
}

impl Ghost {
    /// Takes over what belongs to one host, for another place.
    pub(super) fn move_host(&mut self, from: &Self, old: usize, new: usize) {
        if let Some(&epoch) = from.applied.get(old) {
            self.applied[new] = epoch;
        }
        if let Some(&ages) = from.ages.get(old) {
            self.ages[new] = ages;
        }
    }
}

/// What has gone wrong at some step, and does not show in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wrong {
    /// The store's epoch has gone back.
    pub epoch_went_back: bool,
    /// One epoch has been granted to two holders.
    pub epoch_granted_twice: bool,
    /// A replica has changed under a lower epoch than before.
    pub stale_effect: bool,
    /// A replica has changed under an epoch that was not granted to the writer.
    pub ungranted_effect: bool,
    /// The first leader has stopped leading.
    pub leader_changed: bool,
}

/// Which history a model keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keeps {
    /// The number of terms, of which there are at most this many.
    pub terms: Option<u8>,
    /// Effects on the tables and acknowledgements.
    pub table: bool,
    /// How long nobody has led: counted up to this bound plus one.
    pub leaderless: Option<Leaderless>,
    /// Who led first.
    pub first_leader: bool,
    /// The ages of grants, counted up to this bound plus one.
    pub ages: Option<u16>,
    /// How many requests a life may send: the bound of a raw world, in which they are counted for ever.
    pub requests: Option<u64>,
}

/// How the time without a leader is counted.
#[derive(Clone, Copy, Debug)]
pub struct Leaderless {
    /// How many ticks are allowed.
    pub bound: u16,
    /// Whether the time before the first leader counts.
    pub from_start: bool,
}

/// What the surroundings may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// An operator hands the lease over, to any other host.
    HandOver,
    /// An operator makes the holder step down.
    StepDown,
    /// The store's operator writes the record and changes neither holder nor epoch.
    ForeignField,
    /// A node that has no part in the lease frees it.
    Stranger,
}

/// Watches a lease world.
#[derive(Clone, Debug)]
pub struct LeaseObserver {
    /// The store's node.
    pub store: usize,
    /// The hosts' nodes.
    pub hosts: Vec<usize>,
    /// Whether the hosts may change places in the canonical form.
    pub symmetric: bool,
    /// The rules that the actors keep: the canonical form depends on some.
    pub safeguards: Safeguards,
    /// Which history is kept.
    pub keeps: Keeps,
    /// What the surroundings may do.
    pub outside: Vec<Outside>,
}

impl LeaseObserver {
    /// The store's record.
    pub fn record<'a>(&self, state: &'a LeaseState) -> Option<&'a Record> {
        record_of(&state.nodes[self.store])
    }

    fn phases<'a>(&'a self, state: &'a LeaseState) -> impl Iterator<Item = (usize, Phase)> + 'a {
        // A paused host does nothing: what it believes counts once it has fired what was due.
        self.hosts.iter().filter_map(|&host| {
            let node = &state.nodes[host];
            let phase = host_of(node)?.elector.phase;
            (node.condition == Condition::Running).then_some((host, phase))
        })
    }

    fn leads(&self, state: &LeaseState) -> bool {
        self.phases(state).any(|(_, phase)| phase.holding().is_some())
    }

    fn observe_record(&self, before: &LeaseState, after: &mut LeaseState) {
        let version = |state| self.record(state).map(|record| record.version);
        if version(before) == version(after) {
            return;
        }
        let Some(claim) = self.record(after).map(|record| record.claim.clone()) else { return };
        let ghost = &mut after.ghost;
        ghost.wrong.epoch_went_back |= claim.epoch < ghost.epoch;
        if let Some(holder) = claim.holder {
            let is_new = (claim.epoch, Some(holder)) != (ghost.epoch, ghost.holder);
            ghost.terms += u8::from(is_new && self.keeps.terms.is_some());
            let same = claim.epoch == ghost.epoch;
            ghost.wrong.epoch_granted_twice |=
                same && ghost.holder.is_some_and(|granted| granted != holder);
            ghost.holder = Some(holder);
            if self.keeps.table {
                ghost.granted.insert(claim.epoch, holder);
            }
        } else if claim.epoch != ghost.epoch {
            ghost.holder = None;
        }
        ghost.epoch = claim.epoch;
    }

    fn observe_tables(
        &self,
        before: &LeaseState,
        event: Option<(usize, &Msg)>,
        after: &mut LeaseState,
    ) {
        for &host in &self.hosts {
            let (Some(old), Some(new)) =
                (table_of(&before.nodes[host]), table_of(&after.nodes[host]))
            else {
                continue;
            };
            // What counts as an effect is a new entry; compaction only drops what is replaced.
            let mut is_effect = false;
            new.log.difference(&old.log, |_, entry| is_effect |= entry.is_some());
            let runs = |state: &LeaseState| state.nodes[host].state.is_some();
            if !is_effect || !runs(before) || !runs(after) {
                continue;
            }
            let (writer, epoch) = match event {
                Some((src, Msg::Replicate { epoch, .. })) => (src, *epoch),
                _ => {
                    let state = host_of(&after.nodes[host]).expect("a running host");
                    (host, state.elector.phase.holding().unwrap_or(0))
                }
            };
            let ghost = &mut after.ghost;
            ghost.wrong.stale_effect |= epoch < ghost.applied[host];
            ghost.wrong.ungranted_effect |=
                ghost.granted.get(&epoch).is_none_or(|holder| usize::from(holder.node.0) != writer);
            ghost.applied[host] = ghost.applied[host].max(epoch);
        }
        for flight in &after.network {
            if let Msg::Applied { request, seq, .. } = flight.msg {
                after.ghost.acknowledged.insert(request, seq);
            }
        }
    }

    fn observe_leading(&self, action: Action, after: &mut LeaseState) {
        if let Some(Leaderless { bound, from_start }) = self.keeps.leaderless {
            let could_lead = after.nodes[self.store].state.is_some()
                && self.record(after).is_some_and(|record| {
                    self.hosts.iter().any(|&host| {
                        host_of(&after.nodes[host]).is_some() && record.admits(NodeId(host as u16))
                    })
                });
            let waits = from_start || after.ghost.epoch > 0;
            let disturbed =
                !matches!(action, Action::Deliver(_) | Action::Fire { .. } | Action::Elapse);
            if disturbed || self.leads(after) || !could_lead || !waits {
                after.ghost.leaderless = 0;
            } else if action == Action::Elapse {
                after.ghost.leaderless = (after.ghost.leaderless + 1).min(bound + 1);
            }
        }
        if self.keeps.first_leader {
            let leader = self
                .phases(after)
                .find_map(|(host, phase)| Some((NodeId(host as u16), phase.holding()?)));
            match after.ghost.first_leader {
                None => after.ghost.first_leader = leader,
                Some(first) => after.ghost.wrong.leader_changed |= leader != Some(first),
            }
        }
    }

    fn observe_ages(&self, before: &LeaseState, action: Action, after: &mut LeaseState) {
        let Some(bound) = self.keeps.ages else { return };
        for &host in &self.hosts {
            let old = host_of(&before.nodes[host]).map(|host| &host.elector);
            let Some(new) = host_of(&after.nodes[host]).map(|host| &host.elector) else {
                after.ghost.ages[host] = (0, 0);
                continue;
            };
            let (mut grant, mut attempt) = after.ghost.ages[host];
            if action == Action::Elapse {
                grant = (grant + 1).min(bound + 1);
                attempt = (attempt + 1).min(bound + 1);
            }
            let slot = |phase| match phase {
                Phase::Holding { epoch, slot } => Some((epoch, slot)),
                _ => None,
            };
            if slot(new.phase).is_some() && old.map(|old| slot(old.phase)) != Some(slot(new.phase))
            {
                grant = attempt;
            }
            if new.phase.writable().is_none() {
                grant = 0;
            }
            let nonce = |elector: &crate::lease::elector::ElectorState| {
                elector.attempt.map(|attempt| attempt.nonce)
            };
            if nonce(new).is_none() || old.and_then(nonce) != nonce(new) {
                attempt = 0;
            }
            after.ghost.ages[host] = (grant, attempt);
        }
    }
}

impl Observer<Member> for LeaseObserver {
    type Ghost = Ghost;

    const ONLY_HISTORY: bool = true;

    fn begin(&self, world: &LeaseWorld) -> Ghost {
        let nodes = world.actors.len();
        Ghost {
            applied: if self.keeps.table { vec![0; nodes] } else { Vec::new() },
            ages: if self.keeps.ages.is_some() { vec![(0, 0); nodes] } else { Vec::new() },
            ..Ghost::default()
        }
    }

    fn observe(&self, _: &LeaseWorld, before: &LeaseState, action: Action, after: &mut LeaseState) {
        self.observe_record(before, after);
        if self.keeps.table {
            let event = match action {
                Action::Deliver(index) => {
                    let flight = &before.network[usize::from(index)];
                    Some((usize::from(flight.src), &flight.msg))
                }
                _ => None,
            };
            self.observe_tables(before, event, after);
        }
        self.observe_leading(action, after);
        self.observe_ages(before, action, after);
    }

    fn inputs(&self, world: &LeaseWorld, state: &LeaseState) -> Vec<Said<Member>> {
        let mut said = Vec::new();
        for &outside in &self.outside {
            if matches!(outside, Outside::ForeignField | Outside::Stranger) {
                let Some(record) = self.record(state).filter(|record| !record.is_free()) else {
                    continue;
                };
                if state.nodes[self.store].state.is_none() {
                    continue;
                }
                let mut claim = record.claim.clone();
                let mut src = self.store;
                if outside == Outside::Stranger {
                    (claim.holder, claim.epoch) = (None, claim.epoch + 1);
                    // A node that is not there: its answer goes nowhere.
                    src = world.actors.len();
                }
                let expect = Expect::Version(record.version);
                let msg = Msg::Write { nonce: Nonce::NONE, expect, claim };
                said.push(Said { dst: self.store, src, msg });
                continue;
            }
            for (host, phase) in self.phases(state) {
                let Some(epoch) = phase.holding() else { continue };
                match outside {
                    Outside::HandOver => {
                        said.extend(self.hosts.iter().filter(|&&target| target != host).map(
                            |&target| {
                                let target = NodeId(target as u16);
                                Said { dst: host, src: host, msg: Msg::HandOver { target, epoch } }
                            },
                        ));
                    }
                    Outside::StepDown => {
                        said.push(Said { dst: host, src: host, msg: Msg::StepDown { epoch } });
                    }
                    Outside::ForeignField | Outside::Stranger => {}
                }
            }
        }
        said
    }

    fn within(&self, state: &LeaseState) -> bool {
        self.keeps.terms.is_none_or(|most| state.ghost.terms <= most)
            && self.keeps.requests.is_none_or(|most| {
                let sent = |&host: &usize| host_of(&state.nodes[host]).map_or(0, requests_of);
                self.hosts.iter().all(|host| sent(host) <= most)
            })
    }

    fn canonical(&self, _: &LeaseWorld, state: &mut LeaseState) {
        let hosts = if self.symmetric { self.hosts.as_slice() } else { &[] };
        canonical(state, self.store, self.safeguards, hosts);
    }
}

fn requests_of(host: &HostState) -> u64 {
    host.elector.requests
}

// -------------------------------------------------------------------------------------------------
// Properties
// -------------------------------------------------------------------------------------------------

/// Every property, by the one name that it has everywhere.
pub mod properties {
    use super::*;

    /// At every instant at most one host is writable, its stop hook included. No timer covers a pause
    /// beyond the deadline: models in which hosts are paused have [`single_holder`] instead.
    pub fn single_writer() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("single_writer", |world, state| {
            let writers =
                world.observer.phases(state).filter(|(_, phase)| phase.writable().is_some());
            writers.count() <= 1
        })
    }

    /// At every instant at most one host that is awake accepts new work. This is what remains of
    /// `single_writer` where hosts may be paused beyond their timers: one that wakes up steps down before
    /// it does anything else, but its work still has to be stopped, beside a holder that waited for
    /// none of that. Only the fence at the resource covers what that work may do.
    pub fn single_holder() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("single_holder", |world, state| {
            world.observer.phases(state).filter(|(_, phase)| phase.holding().is_some()).count() <= 1
        })
    }

    /// No epoch is ever granted to two holders, and epochs only grow.
    pub fn unique_holder_per_epoch() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("unique_holder_per_epoch", |_, state| {
            !state.ghost.wrong.epoch_granted_twice && !state.ghost.wrong.epoch_went_back
        })
    }

    /// A host is read-only while the record that it has seen shows another holder or epoch.
    pub fn read_only_under_another() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("read_only_under_another", |world, state| {
            world.observer.phases(state).all(|(host, phase)| {
                let Some(epoch) = phase.holding() else { return true };
                let elector = &host_of(&state.nodes[host]).expect("it has a phase").elector;
                let me = elector.identity(NodeId(host as u16));
                elector
                    .seen
                    .as_ref()
                    .is_some_and(|seen| seen.claim.holder == Some(me) && seen.claim.epoch == epoch)
            })
        })
    }

    /// Whoever holds has an armed deadline.
    pub fn holder_has_deadline() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("holder_has_deadline", |world, state| {
            world.observer.phases(state).all(|(host, phase)| match phase {
                Phase::Holding { slot, .. } => {
                    let timers = &state.nodes[host].timers;
                    timers.iter().any(|(timer, _)| *timer == Timer::Hold(slot))
                }
                _ => true,
            })
        })
    }

    /// A replica that was changed under an epoch is never changed under a lower one, and every change
    /// is under an epoch that the store has granted to its writer.
    pub fn fenced_effects() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("fenced_effects", |_, state| {
            !state.ghost.wrong.stale_effect && !state.ghost.wrong.ungranted_effect
        })
    }

    /// Every acknowledged write is in the history of every node that may take over.
    pub fn no_lost_ack() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("no_lost_ack", |world, state| {
            let Some(record) = world.observer.record(state) else { return true };
            state.ghost.acknowledged.iter().all(|(&request, &seq)| {
                record.claim.in_sync.iter().all(|node| {
                    let table = table_of(&state.nodes[usize::from(node.0)]);
                    table.is_some_and(|table| has(table, request, seq))
                })
            })
        })
    }

    /// Whether the write is in the history, itself or replaced by a later one.
    fn has(table: &Table, request: RequestId, seq: Seq) -> bool {
        match table.log.get(&seq) {
            Some(entry) => entry.request == request,
            None => seq <= table.committed,
        }
    }

    /// A holder that has sent no renewal that was committed is read-only, stop hook included, within
    /// G + S of the send of the last one that was.
    pub fn self_fence() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("self_fence", |world, state| {
            let bound = world.observer.keeps.ages.expect("this model keeps ages");
            let writable =
                world.observer.phases(state).filter(|(_, phase)| phase.writable().is_some());
            writable.map(|(host, _)| state.ghost.ages[host].0).all(|age| age <= bound)
        })
    }

    /// While the store and one host that may take over are up and nothing disturbs them, somebody leads
    /// within the bound.
    pub fn takeover_bound() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("takeover_bound", within_bound)
    }

    /// A hand-over to which the holder consents leaves nobody leading for at most the stop hook, one
    /// message and one write; and never two.
    pub fn handover_gap() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("handover_gap", within_bound)
    }

    fn within_bound(world: &LeaseWorld, state: &LeaseState) -> bool {
        let counted = world.observer.keeps.leaderless.expect("this model counts");
        state.ghost.leaderless <= counted.bound
    }

    /// With delays below the bound, the leader never changes.
    pub fn stable_leader() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::always("stable_leader", |_, state| {
            !state.ghost.wrong.leader_changed
        })
    }

    /// Somebody is elected.
    pub fn elected() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("elected", |world, state| world.observer.leads(state))
    }

    /// A holder's renewal is committed, and it does not know yet.
    pub fn renewed() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("renewed", |world, state| {
            let Some(record) = world.observer.record(state) else { return false };
            world.observer.phases(state).any(|(host, phase)| {
                let elector = &host_of(&state.nodes[host]).expect("it has a phase").elector;
                phase.holding().is_some()
                    && elector.attempt.is_some_and(|attempt| attempt.nonce == record.nonce)
            })
        })
    }

    /// A host holds what another one was last seen to hold.
    pub fn taken_over() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("taken_over", |world, state| {
            let holder = world.observer.phases(state).find(|(_, phase)| phase.holding().is_some());
            holder.is_some_and(|(holder, _)| {
                world.observer.hosts.iter().any(|&host| {
                    let seen =
                        host_of(&state.nodes[host]).and_then(|host| host.elector.seen.as_ref());
                    let named = seen.and_then(|seen| seen.claim.holder);
                    host != holder && named.is_some_and(|named| usize::from(named.node.0) != holder)
                })
            })
        })
    }

    /// A holder has lost its lease and is being stopped.
    pub fn expired() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("expired", |world, state| {
            world
                .observer
                .phases(state)
                .any(|(_, phase)| matches!(phase, Phase::Stopping { then: Then::Watch, .. }))
        })
    }

    /// The record is free again.
    pub fn released() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("released", |world, state| {
            let record = world.observer.record(state);
            record.is_some_and(|record| !record.is_absent() && record.is_free())
        })
    }

    /// The target of a hand-over holds while the old holder still stands back for it.
    pub fn handed_over() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("handed_over", |world, state| {
            world.observer.leads(state)
                && world
                    .observer
                    .phases(state)
                    .any(|(_, phase)| matches!(phase, Phase::Watching { yielding: Some(_), .. }))
        })
    }

    /// A write is acknowledged.
    pub fn acknowledged() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("acknowledged", |_, state| {
            !state.ghost.acknowledged.is_empty()
        })
    }

    /// A node has left the in-sync set.
    pub fn shrunk() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("shrunk", |world, state| {
            let all: NodeSet =
                world.observer.hosts.iter().map(|&host| NodeId(host as u16)).collect();
            let record = world.observer.record(state);
            record.is_some_and(|record| !record.is_absent() && record.claim.in_sync != all)
        })
    }

    /// A paused host wakes up after its deadline.
    pub fn overslept() -> Property<LeaseWorld> {
        Property::<LeaseWorld>::sometimes("overslept", |world, state| {
            world.observer.hosts.iter().any(|&host| {
                let node = &state.nodes[host];
                node.condition == Condition::Waking
                    && host_of(node).is_some_and(|host| host.elector.phase.holding().is_some())
            })
        })
    }
}

// -------------------------------------------------------------------------------------------------
// Putting a cluster together
// -------------------------------------------------------------------------------------------------

/// A cluster to be checked: hosts first, then the store, then a client if there is one.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How many hosts.
    pub hosts: u16,
    /// The timing.
    pub timing: Timing,
    /// The length of a tick.
    pub tick: Duration,
    /// Whether time passes.
    pub timed: bool,
    /// How messages travel.
    pub network: Network,
    /// What goes wrong.
    pub faults: Faults,
    /// The rules that are kept.
    pub safeguards: Safeguards,
    /// What is remembered.
    pub keeps: Keeps,
    /// What the surroundings may do.
    pub outside: Vec<Outside>,
    /// Whether each host has a replica, and what a client writes: keys, each with the value.
    pub writes: Option<Vec<(&'static str, &'static str)>>,
    /// Whether the store hints at changes.
    pub hints: bool,
    /// Whether hosts and store have elected a holder and come to rest before anything else happens.
    pub settled: bool,
}

/// The numbers of a model, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    /// L.
    pub lease: u16,
    /// G.
    pub give_up: u16,
    /// R.
    pub renew: u16,
    /// The retry.
    pub retry: u16,
    /// P.
    pub poll: u16,
    /// The jitter.
    pub jitter: u16,
    /// S.
    pub hook: u16,
    /// rho, in parts per million.
    pub clock_error_ppm: u32,
}

impl Ticks {
    /// One tick. What a tick is in real time does not matter to a model; this one is easy to read.
    pub const TICK: Duration = Duration::from_millis(1);

    /// The smallest L that is safe at this G, S and rho with windows rounded to whole ticks: the first
    /// whose shortest watch is longer than the longest hold and hook. Without L-2 the hook is forgotten.
    #[must_use]
    pub fn with_smallest_lease(mut self, safeguards: Safeguards) -> Self {
        let hook =
            if safeguards.contains(Safeguards::L_2_HOOK_TIME_COUNTS) { self.hook } else { 0 };
        let longest =
            latest_ticks(Self::TICK * self.give_up.into(), Self::TICK, self.clock_error_ppm);
        self.lease = (1..)
            .find(|&lease| {
                let watch =
                    earliest_ticks(Self::TICK * u32::from(lease), Self::TICK, self.clock_error_ppm);
                watch > longest + hook
            })
            .expect("some lease is long enough");
        self
    }

    /// As the actors get it.
    pub fn timing(self) -> Timing {
        let ticks = |ticks: u16| Self::TICK * u32::from(ticks);
        Timing {
            lease: ticks(self.lease),
            give_up: ticks(self.give_up),
            renew: ticks(self.renew),
            retry: ticks(self.retry),
            poll: ticks(self.poll),
            jitter: ticks(self.jitter),
            hook: ticks(self.hook),
            clock_error_ppm: self.clock_error_ppm,
        }
    }
}

impl Cluster {
    /// The longest that a period of the timing can take, in ticks.
    pub fn latest(&self, period: Duration) -> u16 {
        latest_ticks(period, self.tick, self.timing.clock_error_ppm)
    }

    /// Within how many ticks of its send a grant has ended, stop hook included: G + S.
    pub fn self_fence(&self) -> u16 {
        self.latest(self.timing.give_up) + latest_ticks(self.timing.hook, self.tick, 0)
    }

    /// Within how many ticks of a crash somebody leads again, on a network with this delay: one delay
    /// for the holder's last write, which may be under way; then P, a read, L and a write. Where a read may
    /// outlast P, the one under way may have been answered too early: its time is added.
    pub fn takeover(&self, delay: u16) -> u16 {
        let shortest = self.timing.poll.saturating_sub(self.timing.jitter);
        let round_trip = 2 * delay;
        let outlasts =
            round_trip >= earliest_ticks(shortest, self.tick, self.timing.clock_error_ppm);
        let again = if outlasts { round_trip } else { 0 };
        self.latest(self.timing.poll) + self.latest(self.timing.lease) + 5 * delay + again
    }

    /// For how many ticks a consented hand-over leaves nobody leading: S, the consent, and a write. Where
    /// a renewal was under way, the first consent is for a version that is past, and the old holder finds
    /// that out by its next poll: P and a read more.
    pub fn handover_gap(&self, delay: u16) -> u16 {
        latest_ticks(self.timing.hook, self.tick, 0) + self.latest(self.timing.poll) + 5 * delay
    }

    /// The node of the store.
    pub fn store(&self) -> usize {
        self.hosts.into()
    }

    /// The world of this cluster.
    pub fn world(&self, properties: Vec<Property<LeaseWorld>>) -> LeaseWorld {
        let hosts: NodeSet = (0..self.hosts).map(NodeId).collect();
        let store = NodeId(self.hosts);
        let timing = self.timing;
        let mut actors: Vec<Member> = hosts
            .iter()
            .map(|me| {
                let elector = Elector { me, store, hosts, timing, safeguards: self.safeguards };
                let replica = self.writes.as_ref().map(|_| Replica {
                    me,
                    hosts,
                    resend: timing.retry,
                    patience: 1,
                    safeguards: self.safeguards,
                });
                Member::Host(Host { elector, replica })
            })
            .collect();
        let hints = if self.hints { hosts.iter().collect() } else { Vec::new() };
        actors.push(Member::Store(LeaseStore { hosts, hints, safeguards: self.safeguards }));
        if let Some(writes) = &self.writes {
            let script =
                writes.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
            let me = NodeId(self.hosts + 1);
            let hosts = hosts.iter().collect();
            actors.push(Member::Client(Client { me, hosts, retry: timing.retry, script }));
        }
        World {
            actors,
            time: if self.timed {
                Time::Timed {
                    tick: self.tick,
                    clock_error_ppm: timing.clock_error_ppm,
                    local: latest_ticks(timing.hook, self.tick, 0),
                }
            } else {
                Time::Untimed
            },
            network: self.network,
            faults: self.faults.clone(),
            observer: LeaseObserver {
                store: self.store(),
                hosts: (0..usize::from(self.hosts)).collect(),
                symmetric: self.writes.is_none(),
                safeguards: self.safeguards,
                keeps: self.keeps,
                outside: self.outside.clone(),
            },
            settled: if self.settled { (0..=self.store()).collect() } else { Vec::new() },
            canonical: true,
            properties,
        }
    }
}
