//! A state of the Rust model as a state of `tla/Lease.tla`.

use std::collections::BTreeSet;

use stateright::Model;
use tenure::lease::elector::{ElectorState, Phase, Slot, Then, Yielding};
use tenure::lease::msg::Msg;
use tenure::lease::record::{Expect, Holder, NodeSet, Nonce, Record};
use tenure::lease::{MemberState, Storage, Timer};
use tenure::models::lease::{LeaseState, LeaseWorld};
use tenure::models::world::Budget;

use super::graph::{State, Twin};
use super::value::Value;

impl Twin for LeaseWorld {
    type State = LeaseState;

    fn begin(&self) -> Vec<LeaseState> {
        self.init_states()
    }

    fn steps(&self, before: &LeaseState) -> Vec<LeaseState> {
        let mut actions = Vec::new();
        self.actions(before, &mut actions);
        actions.into_iter().filter_map(|action| self.next_state(before, action)).collect()
    }

    fn is_within(&self, state: &LeaseState) -> bool {
        self.within_boundary(state)
    }

    fn tell(&self, told: &LeaseState) -> State {
        state(self, told)
    }
}

/// The timers, by their names in the specification.
const TIMERS: [(&str, Timer); 6] = [
    ("Poll", Timer::Poll),
    ("Watch", Timer::Watch(Slot::A)),
    ("HoldA", Timer::Hold(Slot::A)),
    ("HoldB", Timer::Hold(Slot::B)),
    ("Attempt", Timer::Attempt),
    ("Yield", Timer::Yield),
];

/// The name of a timer.
pub(crate) fn timer(timer: Timer) -> &'static str {
    let known = TIMERS.iter().find(|(_, known)| *known == timer);
    known.unwrap_or_else(|| panic!("{timer:?} is in no TLA+ state")).0
}

/// The variables of the specification, by name.
fn state(world: &LeaseWorld, state: &LeaseState) -> State {
    let hosts = &world.observer.hosts;
    let store = &state.nodes[world.observer.store];
    let by_host = |of: &dyn Fn(usize) -> Value| {
        Value::Function(hosts.iter().map(|&host| (Value::from(host as i64), of(host))).collect())
    };
    let elector_of = |host: usize| match &state.nodes[host].state {
        Some(MemberState::Host(host)) => elector(&host.elector),
        _ => Value::none(),
    };
    let life_of = |host: usize| match &state.nodes[host].storage {
        Some(Storage::Host(storage)) => storage.incarnation.into(),
        _ => panic!("a host saves its life before anything else"),
    };
    let timers_of = |host: usize| {
        let armed = |timer: Timer| {
            let window = state.nodes[host].timers.iter().find(|(armed, _)| *armed == timer);
            window.map_or_else(Value::none, |(_, window)| {
                Value::record([
                    ("lo", i64::from(window.earliest).into()),
                    ("hi", i64::from(window.latest).into()),
                ])
            })
        };
        for (armed, _) in &state.nodes[host].timers {
            assert!(
                TIMERS.iter().any(|(_, known)| known == armed),
                "{armed:?} is in no TLA+ state"
            );
        }
        Value::record(TIMERS.map(|(name, timer)| (name, armed(timer))))
    };
    let durable = match (&store.state, &store.storage) {
        (Some(MemberState::Store(record)), _) | (None, Some(Storage::Store(record))) => {
            record.clone()
        }
        (None, None) => Record::absent(),
        _ => panic!("not a store"),
    };
    let flights: BTreeSet<Value> = state
        .network
        .iter()
        .map(|flight| {
            Value::record([
                ("src", i64::from(flight.src).into()),
                ("dst", i64::from(flight.dst).into()),
                ("msg", message(&flight.msg)),
                ("latest", i64::from(flight.latest).into()),
            ])
        })
        .collect();
    assert_eq!(
        flights.len(),
        state.network.len(),
        "two equal messages: the network is no set here"
    );
    let budgets = &state.budgets;
    let ghost = &state.ghost;
    let variables = [
        ("elector", by_host(&elector_of)),
        ("life", by_host(&life_of)),
        ("timers", by_host(&timers_of)),
        ("record", record(&durable)),
        ("storeUp", store.state.is_some().into()),
        ("network", Value::Set(flights)),
        (
            "budget",
            Value::record([
                ("crashes", budget(budgets.crashes)),
                ("inputs", budget(budgets.inputs)),
                ("fires", budget(budgets.fires)),
            ]),
        ),
        (
            "ghost",
            Value::record([
                ("epoch", ghost.epoch.into()),
                ("holder", ghost.holder.map_or_else(Value::none, holder)),
                ("wentBack", ghost.wrong.epoch_went_back.into()),
                ("grantedTwice", ghost.wrong.epoch_granted_twice.into()),
            ]),
        ),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn budget(budget: Budget) -> Value {
    match budget {
        Budget::Times(times) => i64::from(times).into(),
        Budget::Unlimited => 65_535_i64.into(),
    }
}

fn holder(holder: Holder) -> Value {
    Value::Tuple(vec![i64::from(holder.node.0).into(), holder.incarnation.into()])
}

fn nonce(nonce: Nonce) -> Value {
    Value::Tuple(vec![
        i64::from(nonce.by.node.0).into(),
        nonce.by.incarnation.into(),
        nonce.n.into(),
    ])
}

fn nodes(nodes: NodeSet) -> Value {
    Value::Set(nodes.iter().map(|node| i64::from(node.0).into()).collect())
}

pub(crate) fn record(record: &Record) -> Value {
    Value::record([
        ("version", record.version.into()),
        ("nonce", nonce(record.nonce)),
        ("holder", record.claim.holder.map_or_else(Value::none, holder)),
        ("epoch", record.claim.epoch.into()),
        ("inSync", nodes(record.claim.in_sync)),
    ])
}

fn slot(slot: Slot) -> Value {
    match slot {
        Slot::A => "A".into(),
        Slot::B => "B".into(),
    }
}

pub(crate) fn elector(state: &ElectorState) -> Value {
    assert_eq!(state.watch, Slot::A, "with L-10 one watch timer is used");
    Value::record([
        ("incarnation", state.incarnation.into()),
        ("requests", state.requests.into()),
        ("seen", state.seen.as_ref().map_or_else(Value::none, record)),
        (
            "reading",
            state.reading.map_or_else(Value::none, |reading| {
                let sent = i64::from(reading.sent).into();
                Value::record([("nonce", nonce(reading.nonce)), ("sent", sent)])
            }),
        ),
        (
            "attempt",
            state.attempt.map_or_else(Value::none, |attempt| {
                Value::record([
                    ("nonce", nonce(attempt.nonce)),
                    ("slot", slot(attempt.slot)),
                    ("inSync", nodes(attempt.in_sync)),
                    ("sent", i64::from(attempt.sent).into()),
                ])
            }),
        ),
        ("exposed", nodes(state.exposed)),
        ("phase", phase(state.phase)),
    ])
}

fn phase(phase: Phase) -> Value {
    let named = |name: &str| ("name", Value::from(name));
    match phase {
        Phase::Watching { yielding, ripe } => {
            let yielding = match yielding {
                None => Value::none(),
                Some(Yielding::Anybody) => Value::Model("Anybody".to_owned()),
                Some(Yielding::To(node)) => i64::from(node.0).into(),
            };
            Value::record([named("Watching"), ("yielding", yielding), ("ripe", ripe.into())])
        }
        Phase::Acquiring => Value::record([named("Acquiring")]),
        Phase::Holding { epoch, slot: place } => {
            Value::record([named("Holding"), ("epoch", epoch.into()), ("slot", slot(place))])
        }
        Phase::Stopping { epoch, then } => {
            let (kind, target) = match then {
                Then::Watch => ("Watch", Value::none()),
                Then::Release => ("Release", Value::none()),
                Then::HandOver(target) => ("HandOver", i64::from(target.0).into()),
            };
            let then = Value::record([("kind", kind.into()), ("target", target)]);
            Value::record([named("Stopping"), ("epoch", epoch.into()), ("then", then)])
        }
        Phase::Releasing { epoch, nonce: name, sent } => Value::record([
            named("Releasing"),
            ("epoch", epoch.into()),
            ("nonce", nonce(name)),
            ("sent", i64::from(sent).into()),
        ]),
        Phase::Retired => Value::record([named("Retired")]),
    }
}

pub(crate) fn message(msg: &Msg) -> Value {
    let answer = |name: &str, of: Nonce, shown: &Record| {
        Value::record([("type", name.into()), ("nonce", nonce(of)), ("record", record(shown))])
    };
    match msg {
        Msg::Read { nonce: of } => Value::record([("type", "Read".into()), ("nonce", nonce(*of))]),
        Msg::ReadOk { nonce, record } => answer("ReadOk", *nonce, record),
        Msg::Written { nonce, record } => answer("Written", *nonce, record),
        Msg::Conflict { nonce, record } => answer("Conflict", *nonce, record),
        Msg::Write { nonce: of, expect, claim } => {
            let expect = match expect {
                Expect::Version(version) => (*version).into(),
                Expect::Anything => Value::Int(-1),
            };
            let claim = Value::record([
                ("holder", claim.holder.map_or_else(Value::none, holder)),
                ("epoch", claim.epoch.into()),
                ("inSync", nodes(claim.in_sync)),
            ]);
            Value::record([
                ("type", "Write".into()),
                ("nonce", nonce(*of)),
                ("expect", expect),
                ("claim", claim),
            ])
        }
        Msg::Consent { record: of } => {
            Value::record([("type", "Consent".into()), ("record", record(of))])
        }
        Msg::Stopped { epoch } => {
            Value::record([("type", "Stopped".into()), ("epoch", (*epoch).into())])
        }
        other => panic!("{other:?} is in no TLA+ state"),
    }
}
