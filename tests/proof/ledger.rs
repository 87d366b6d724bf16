//! A world of the protocol's own code that remembers every attempt, and what the proof's formulas say of it.
//!
//! This is what keeps the proof and the code together: a state of the Rust model, with a ledger of the past,
//! is a finite structure in which the formulas of `timed.rs` and `epochs.rs` are evaluated as they stand.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use stateright::Property;
use tenure::lease::elector::{ElectorState, Phase, Slot};
use tenure::lease::msg::Msg;
use tenure::lease::record::{Expect, Holder, NodeId, Nonce, Record};
use tenure::lease::safeguards::Safeguards;
use tenure::lease::{Member, MemberState, Timer};
use tenure::models::lease::{Cluster, Keeps, Outside, Ticks};
use tenure::models::world::{
    Action, Budget, Faults, Network, Observer, Said, StateOf, World, earliest_ticks, latest_ticks,
};

use super::eval::{Code, Structure};
use super::{epochs, timed};

pub(crate) type LedgerWorld = World<Member, Ledger>;
type LedgerState = StateOf<Member, Ledger>;

/// What is remembered of one attempt. The first of all is the record that nobody has written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fact {
    nonce: Nonce,
    expects: u64,
    epoch: u64,
    tombstone: bool,
    sent_at: i64,
    deadline: i64,
    /// The version that it made, and when.
    applied: Option<(u64, i64)>,
    shown: bool,
    consented: bool,
}

/// What is remembered of one life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Life {
    grant: usize,
    stops_by: i64,
    /// The record that is watched, and until when.
    watch: Option<(usize, i64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct History {
    now: i64,
    facts: Vec<Fact>,
    lives: BTreeMap<Holder, Life>,
}

/// Writes the ledger. Every duration is in ticks of real time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    hosts: u16,
    hold_max: i64,
    hook_max: i64,
    watch_min: i64,
    step_downs: bool,
    hand_overs: bool,
    requests: u64,
}

fn elector(state: &LedgerState, host: u16) -> Option<&ElectorState> {
    match &state.nodes[usize::from(host)].state {
        Some(MemberState::Host(host)) => Some(&host.elector),
        _ => None,
    }
}

impl Ledger {
    fn record(self, state: &LedgerState) -> &Record {
        match &state.nodes[usize::from(self.hosts)].state {
            Some(MemberState::Store(record)) => record,
            _ => panic!("the store does not crash here"),
        }
    }

    fn observe_host(
        self,
        host: u16,
        before: &LedgerState,
        action: Action,
        after: &mut LedgerState,
    ) {
        let Some(new) = elector(after, host).cloned() else { return };
        let me = new.identity(NodeId(host));
        let old = elector(before, host).filter(|old| old.incarnation == new.incarnation);
        let now = after.ghost.now;
        let place = |after: &LedgerState, nonce: Nonce| {
            after.ghost.facts.iter().position(|fact| fact.nonce == nonce).expect("it was sent")
        };
        let mut life = after.ghost.lives.get(&me).cloned().unwrap_or_default();
        if let Action::Deliver(index) = action
            && let Msg::Written { nonce, .. } | Msg::Conflict { nonce, .. } =
                before.network[usize::from(index)].msg
            && old.is_some_and(|old| old.attempt.is_some_and(|a| a.nonce == nonce))
            && matches!(new.phase, Phase::Holding { .. })
            && old.map(|old| old.phase) != Some(new.phase)
        {
            life.grant = place(after, nonce);
        }
        let stops = |phase| matches!(phase, Phase::Stopping { .. });
        if stops(new.phase) && !old.is_some_and(|old| stops(old.phase)) {
            life.stops_by = now + self.hook_max;
        }
        let armed = |state: &LedgerState| {
            let timers = &state.nodes[usize::from(host)].timers;
            let watch = timers.iter().find(|(timer, _)| *timer == Timer::Watch(Slot::A));
            watch.map(|(_, window)| *window)
        };
        let seen = |elector: &ElectorState| elector.seen.as_ref().map(|seen| seen.nonce);
        let (is, was) = (armed(after), armed(before));
        let moved = action != Action::Elapse && is != was;
        match is {
            None => life.watch = None,
            Some(window) if moved || old.and_then(seen) != seen(&new) => {
                let watched = place(after, seen(&new).expect("it watches what it has seen"));
                life.watch = Some((watched, now + i64::from(window.earliest)));
            }
            Some(_) => {}
        }
        after.ghost.lives.insert(me, life);
    }
}

impl Observer<Member> for Ledger {
    type Ghost = History;

    fn begin(&self, _: &LedgerWorld) -> History {
        let first = Fact {
            nonce: Nonce::NONE,
            expects: 0,
            epoch: 1,
            tombstone: true,
            sent_at: 0,
            deadline: 0,
            applied: Some((0, 0)),
            shown: false,
            consented: false,
        };
        let lives = (0..self.hosts)
            .map(|host| (Holder { node: NodeId(host), incarnation: 1 }, Life::default()));
        History { now: 0, facts: vec![first], lives: lives.collect() }
    }

    fn observe(
        &self,
        _: &LedgerWorld,
        before: &LedgerState,
        action: Action,
        after: &mut LedgerState,
    ) {
        after.ghost.now += i64::from(action == Action::Elapse);
        let now = after.ghost.now;
        let record = self.record(after).clone();
        let facts = &mut after.ghost.facts;
        for flight in &after.network {
            match &flight.msg {
                Msg::Write { nonce, expect, claim } => {
                    if facts.iter().any(|fact| fact.nonce == *nonce) {
                        continue;
                    }
                    let expects = match expect {
                        Expect::Version(version) => *version,
                        Expect::Anything => 0,
                    };
                    facts.push(Fact {
                        nonce: *nonce,
                        expects,
                        epoch: claim.epoch,
                        tombstone: claim.holder.is_none(),
                        sent_at: now,
                        deadline: now + self.hold_max,
                        applied: None,
                        shown: false,
                        consented: false,
                    });
                }
                Msg::ReadOk { record, .. } => {
                    let shown = facts.iter_mut().find(|fact| fact.nonce == record.nonce);
                    shown.expect("somebody has written it").shown = true;
                }
                Msg::Consent { record } => {
                    let consented = facts.iter_mut().find(|fact| fact.nonce == record.nonce);
                    consented.expect("somebody has written it").consented = true;
                }
                _ => {}
            }
        }
        let current = facts.iter_mut().find(|fact| fact.nonce == record.nonce);
        let current = current.expect("somebody has written it");
        if current.applied.is_none_or(|(version, _)| version != record.version) {
            current.applied = Some((record.version, now));
        }
        for host in 0..self.hosts {
            self.observe_host(host, before, action, after);
        }
    }

    fn inputs(&self, _: &LedgerWorld, state: &LedgerState) -> Vec<Said<Member>> {
        let mut said = Vec::new();
        for host in 0..self.hosts {
            let Some(epoch) = elector(state, host).and_then(|elector| elector.phase.holding())
            else {
                continue;
            };
            let mut say = |msg| said.push(Said { dst: host.into(), src: host.into(), msg });
            if self.step_downs {
                say(Msg::StepDown { epoch });
            }
            if self.hand_overs {
                for target in (0..self.hosts).filter(|&target| target != host) {
                    say(Msg::HandOver { target: NodeId(target), epoch });
                }
            }
        }
        said
    }

    fn within(&self, state: &LedgerState) -> bool {
        let sent = |host| elector(state, host).map_or(0, |elector| elector.requests);
        (0..self.hosts).all(|host| sent(host) <= self.requests)
    }

    fn canonical(&self, _: &LedgerWorld, _: &mut LedgerState) {}
}

/// The state as a structure of the proof.
fn structure(world: &LedgerWorld, state: &LedgerState) -> Structure {
    let ledger = world.observer;
    let History { now, facts, lives } = &state.ghost;
    let names: Vec<Holder> = lives.keys().copied().collect();
    let place = |holder: Holder| names.iter().position(|&name| name == holder).unwrap_or(0) as i64;
    let running = |holder: &Holder| {
        elector(state, holder.node.0).filter(|elector| elector.incarnation == holder.incarnation)
    };
    let phase = |holder: &Holder| running(holder).map(|elector| elector.phase);
    let mut tables = BTreeMap::new();
    let mut table = |name: &str, values: Vec<i64>| tables.insert(name.to_owned(), values);
    table("now", vec![*now]);
    table("first", vec![0]);
    let current = ledger.record(state).nonce;
    let current = facts.iter().position(|fact| fact.nonce == current).expect("it was written");
    table("current", vec![current as i64]);
    for (name, value) in [
        ("hold-max", ledger.hold_max),
        ("hook-max", ledger.hook_max),
        ("watch-min", ledger.watch_min),
    ] {
        table(name, vec![value; names.len()]);
    }
    let mut of_fact = |name: &str, value: &dyn Fn(&Fact) -> i64| {
        table(name, facts.iter().map(value).collect());
    };
    of_fact("by", &|fact| place(fact.nonce.by));
    of_fact("expects", &|fact| fact.expects as i64);
    of_fact("epoch", &|fact| fact.epoch as i64);
    of_fact("sent-at", &|fact| fact.sent_at);
    of_fact("deadline", &|fact| fact.deadline);
    of_fact("tombstone", &|fact| fact.tombstone.into());
    of_fact("sent", &|fact| (fact.nonce != Nonce::NONE).into());
    of_fact("applied", &|fact| fact.applied.is_some().into());
    of_fact("version", &|fact| fact.applied.map_or(0, |(version, _)| version as i64));
    of_fact("applied-at", &|fact| fact.applied.map_or(0, |(_, at)| at));
    of_fact("shown", &|fact| fact.shown.into());
    of_fact("consented", &|fact| fact.consented.into());
    of_fact("pending", &|fact| {
        let attempt = running(&fact.nonce.by).and_then(|elector| elector.attempt);
        attempt.is_some_and(|attempt| attempt.nonce == fact.nonce).into()
    });
    let mut of_life = |name: &str, value: &dyn Fn(&Holder, &Life) -> i64| {
        table(name, lives.iter().map(|(holder, life)| value(holder, life)).collect());
    };
    of_life("holding", &|holder, _| {
        phase(holder).is_some_and(|phase| phase.holding().is_some()).into()
    });
    of_life("stopping", &|holder, _| matches!(phase(holder), Some(Phase::Stopping { .. })).into());
    of_life("grant", &|_, life| life.grant as i64);
    of_life("stops-by", &|_, life| life.stops_by);
    of_life("watching", &|holder, life| (phase(holder).is_some() && life.watch.is_some()).into());
    of_life("watched", &|_, life| life.watch.map_or(0, |(watched, _)| watched as i64));
    of_life("watch-ends", &|_, life| life.watch.map_or(0, |(_, ends)| ends));
    let sizes = [("Life", names.len()), ("Att", facts.len())];
    Structure { sizes: sizes.map(|(sort, size)| (sort.to_owned(), size)).into(), tables }
}

/// The formulas that are looked up: all of the timed system, and of the other one what is about records.
fn formulas() -> &'static [(&'static str, Code)] {
    static FORMULAS: OnceLock<Vec<(&'static str, Code)>> = OnceLock::new();
    FORMULAS.get_or_init(|| {
        let of_records = ["raise", "grow", "apart", "unique_holder_per_epoch"];
        let epochs = epochs::system().codes();
        let epochs = epochs.into_iter().filter(|(name, _)| of_records.contains(name));
        timed::system().codes().into_iter().chain(epochs).collect()
    })
}

/// The formulas that do not hold.
pub(crate) fn failing(world: &LedgerWorld, state: &LedgerState) -> Vec<&'static str> {
    let structure = structure(world, state);
    let fails = |(_, code): &&(&str, Code)| code.eval(&structure, &mut Vec::new()) == 0;
    formulas().iter().filter(fails).map(|(name, _)| *name).collect()
}

fn world(cluster: &Cluster) -> LedgerWorld {
    let plain = cluster.world(Vec::new());
    let ticks = |duration| i64::from(latest_ticks(duration, cluster.tick, 0));
    let ppm = cluster.timing.clock_error_ppm;
    let observer = Ledger {
        hosts: cluster.hosts,
        hold_max: latest_ticks(cluster.timing.give_up, cluster.tick, ppm).into(),
        hook_max: ticks(cluster.timing.hook),
        watch_min: earliest_ticks(cluster.timing.lease, cluster.tick, ppm).into(),
        step_downs: cluster.outside.contains(&Outside::StepDown),
        hand_overs: cluster.outside.contains(&Outside::HandOver),
        requests: cluster.keeps.requests.expect("a raw world needs a bound"),
    };
    let holds = |world: &LedgerWorld, state: &LedgerState| failing(world, state).is_empty();
    World {
        actors: plain.actors,
        time: plain.time,
        network: plain.network,
        faults: plain.faults,
        observer,
        settled: Vec::new(),
        canonical: false,
        properties: vec![
            Property::<LedgerWorld>::always("the_invariants_of_the_proof", holds),
            Property::<LedgerWorld>::sometimes("somebody_holds", |_, state| {
                (0..2).any(|host| elector(state, host).is_some_and(|e| e.phase.holding().is_some()))
            }),
        ],
    }
}

fn cluster(requests: u64, ticks: Ticks, network: Network) -> Cluster {
    Cluster {
        hosts: 2,
        timing: ticks.timing(),
        tick: Ticks::TICK,
        timed: true,
        network,
        faults: Faults::NONE,
        safeguards: Safeguards::ALL,
        keeps: Keeps { requests: Some(requests), ..Keeps::default() },
        outside: Vec::new(),
        writes: None,
        hints: false,
        settled: false,
    }
}

/// Hosts that read rarely: takeovers and renewals within few requests.
fn takeover(requests: u64) -> Cluster {
    let ticks = Ticks {
        lease: 3,
        give_up: 2,
        renew: 2,
        retry: 2,
        poll: 6,
        jitter: 0,
        hook: 0,
        clock_error_ppm: 0,
    };
    cluster(requests, ticks, Network::Timely { delay: 1 })
}

/// The smallest time in which a stop hook, a drift and a command have room.
fn hooked(requests: u64) -> Cluster {
    let ticks = Ticks {
        lease: 5,
        give_up: 3,
        renew: 2,
        retry: 2,
        poll: 6,
        jitter: 0,
        hook: 1,
        clock_error_ppm: 0,
    };
    cluster(requests, ticks, Network::Timely { delay: 1 })
}

fn told(cluster: Cluster, outside: Outside) -> Cluster {
    let faults = Faults { inputs: Budget::Times(1), ..cluster.faults };
    Cluster { outside: vec![outside], faults, ..cluster }
}

/// Few requests and any delay.
pub(crate) fn small_world() -> LedgerWorld {
    world(&late(takeover(2)))
}

/// A hundred thousand states and more, each.
pub(crate) fn long_worlds() -> Vec<(&'static str, LedgerWorld)> {
    let faults = Faults::crashes([0, 1], Budget::Times(1));
    vec![
        ("renewals and takeovers", world(&takeover(4))),
        ("a step-down", world(&told(hooked(3), Outside::StepDown))),
        ("a hand-over", world(&told(hooked(3), Outside::HandOver))),
        ("a crash", world(&Cluster { faults, ..hooked(2) })),
    ]
}

fn late(cluster: Cluster) -> Cluster {
    Cluster { network: Network::Free { repeats: false }, ..cluster }
}

/// Any delay, without one rule.
pub(crate) fn without(rule: Safeguards) -> LedgerWorld {
    world(&Cluster { safeguards: Safeguards::except(rule), ..late(takeover(3)) })
}
