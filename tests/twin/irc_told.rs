//! A state of the Rust model of peerings as a state of `tla/Irc.tla`.
//!
//! Three things are numbers in Rust and are what they stand for in TLA+: a seal, the digest of what is known of a
//! peering, and the tag of a life that a region has begun by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tenure::irc::Storage;
use tenure::irc::facts::{
    Bundle, Decided, Decision, Facts, Incarnation, OpId, Options, Region, Requested, SealKey,
    Sealed,
};
use tenure::irc::ledger::{Ledger, Link, Peer, Record};
use tenure::irc::msg::{Body, Errand, Item, Msg, RecordVerb, Status, Work};
use tenure::irc::peering::{Label, Peering, Side};
use tenure::models::irc::{IrcState, first};
use tenure::models::world::{Budget, Condition};
use xxhash_rust::xxh3::xxh3_64;

use super::graph::State;
use super::irc::IrcTwin;
use super::value::Value;

/// What each digest is of.
pub(crate) type Digests = BTreeMap<u64, Value>;

fn digest<T: Serialize>(value: &T) -> u64 {
    xxh3_64(&postcard::to_stdvec(value).expect("memory is the only limit"))
}

/// Notes the digests of all that is known in this state.
pub(crate) fn learn(digests: &mut Digests, state: &IrcState) {
    for node in &state.nodes {
        let Some(Storage::Control(ledger)) = &node.storage else { continue };
        for (id, one) in ledger.peerings.iter() {
            let number = digest(&(id, one.requested, one.decided));
            digests.entry(number).or_insert_with(|| item(id, Some((one.requested, one.decided))));
        }
    }
}

/// The variables of the specification, by name.
pub(crate) fn state(twin: &IrcTwin, digests: &Digests, state: &IrcState) -> State {
    let by_region = |of: &dyn Fn(usize) -> Value| {
        let all = 0..state.nodes.len();
        Value::function(all.map(|region| (Value::from(region as i64), of(region))))
    };
    let disk = |region: usize| {
        let node = &state.nodes[region];
        let Some(Storage::Control(saved)) = &node.storage else { panic!("nothing was saved") };
        if let Some(running) = &node.state {
            assert_eq!(running.ledger, *saved, "what is in memory and not on the disk");
        }
        assert_eq!(node.condition, Condition::Running);
        ledger(saved)
    };
    let Budget::Times(crashes) = state.budgets.crashes else { panic!("crashes are bounded") };
    let ghost = &state.ghost;
    let wrong = ghost.wrong;
    assert!(!wrong.update_lost && !wrong.audit_differs, "neither options nor audit are specified");
    let wrongs = [
        ("rank_fell", wrong.rank_fell),
        ("dead_lives", wrong.dead_lives),
        ("accepted_late", wrong.accepted_late),
        ("decision_changed", wrong.decision_changed),
        ("half_fell", wrong.half_fell),
    ];
    let regions = |regions: &BTreeSet<u16>| {
        Value::Set(regions.iter().map(|&region| i64::from(region).into()).collect())
    };
    let backup = |region: usize| match &ghost.backups[region] {
        Some(Storage::Control(backup)) => ledger(backup),
        None => Value::none(),
    };
    let said = ghost.said.iter().map(|&wish| twin.wishes[usize::from(wish)].as_str().into());
    let ghost = Value::record([
        ("said", Value::Set(said.collect())),
        ("backups", by_region(&backup)),
        ("restored", by_region(&|region| i64::from(ghost.restored[region]).into())),
        ("dead", Value::function(ghost.dead.iter().map(|(&id, back)| (op(id), regions(back))))),
        ("allFrozen", ghost.seen.all_frozen.into()),
        ("thawedTogether", ghost.seen.thawed_together.into()),
        (
            "wrong",
            Value::Set(
                wrongs.iter().filter(|(_, is)| *is).map(|(name, _)| (*name).into()).collect(),
            ),
        ),
    ]);
    let flights = state.network.iter().map(|flight| {
        Value::record([
            ("src", i64::from(flight.src).into()),
            ("dst", i64::from(flight.dst).into()),
            ("msg", message(&flight.msg, digests)),
        ])
    });
    [
        ("ledger", by_region(&disk)),
        ("up", by_region(&|region| state.nodes[region].state.is_some().into())),
        ("armed", by_region(&|region| (!state.nodes[region].timers.is_empty()).into())),
        ("network", Value::Set(flights.collect())),
        ("crashes", i64::from(crashes).into()),
        ("ghost", ghost),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn or_none<T>(value: Option<T>, of: impl FnOnce(T) -> Value) -> Value {
    value.map_or_else(Value::none, of)
}

fn op(id: OpId) -> Value {
    Value::Tuple(vec![i64::from(id.requester.0).into(), id.n.into(), id.seq.into()])
}

fn pair((n, count): (u64, u64)) -> Value {
    Value::Tuple(vec![n.into(), count.into()])
}

fn region(region: Region) -> Value {
    i64::from(region.0).into()
}

fn incarnation(incarnation: Incarnation) -> Value {
    let begun = |life: u64| {
        let all = (0..2_u64)
            .flat_map(|r| (0..10_u64).flat_map(move |n| (0..100).map(move |c| (r, n, c))));
        let mut all = all.filter(|&(r, n, count)| digest(&(r, n, count)) == life);
        let (r, n, count) = all.next().expect("a life that a region has begun");
        10_000 + 1000 * r + 100 * n + count
    };
    let life = if incarnation.life < 10_000 { incarnation.life } else { begun(incarnation.life) };
    Value::record([("n", incarnation.n.into()), ("life", life.into())])
}

fn ledger(ledger: &Ledger) -> Value {
    assert!(ledger.notices.is_empty() && !ledger.head.drained);
    let head = &ledger.head;
    let records = ledger.records.iter().map(|(id, one)| (pair((id.n, id.seq)), record(one)));
    Value::record([
        ("inc", incarnation(head.incarnation)),
        ("start", head.start.into()),
        ("clock", head.clock.into()),
        ("born", Value::function(head.born.iter().map(|(&n, &born)| (n.into(), born.into())))),
        ("nextRecord", head.next_record.into()),
        ("nextNonce", head.next_nonce.into()),
        (
            "peerings",
            Value::function(ledger.peerings.iter().map(|(id, one)| (op(id), peering(id, &one)))),
        ),
        ("records", Value::function(records)),
        ("on", Value::Set(ledger.on.keys().map(op).collect())),
        ("peers", Value::function(ledger.peers.iter().map(|(&one, of)| (region(one), peer(of))))),
    ])
}

fn record(record: &Record) -> Value {
    assert!(!record.parked && record.lost == 0, "no claim is ever lost here");
    let verb = match record.verb {
        RecordVerb::Delete => "Delete",
        RecordVerb::Decide => "Decide",
        RecordVerb::Create => "Create",
        RecordVerb::Modify => "Modify",
    };
    Value::record([
        ("remote", region(record.remote)),
        ("id", op(record.id)),
        ("verb", verb.into()),
        ("op", record.op.into()),
    ])
}

fn peer(peer: &Peer) -> Value {
    assert!(!peer.disposed);
    let link = match &peer.link {
        Link::Open => Value::record([("name", "Open".into())]),
        Link::Preparing { nonce } => {
            Value::record([("name", "Preparing".into()), ("nonce", (*nonce).into())])
        }
        Link::Syncing { nonce, after, closed } => {
            assert_eq!(*after, None, "a comparison has one part here");
            Value::record([
                ("name", "Syncing".into()),
                ("nonce", (*nonce).into()),
                ("closed", closed_below(closed)),
            ])
        }
        Link::Expelled => panic!("nobody is declared gone here"),
    };
    let seen = peer.seen.iter().map(|(&n, mark)| {
        let above = Value::Set(mark.above.iter().map(|&seq| seq.into()).collect());
        (n.into(), Value::record([("low", mark.low.into()), ("above", above)]))
    });
    Value::record([
        ("floor", or_none(peer.floor, incarnation)),
        ("link", link),
        ("seen", Value::function(seen)),
    ])
}

fn closed_below(closed: &[(u64, u64)]) -> Value {
    Value::function(closed.iter().map(|&(n, below)| (n.into(), below.into())))
}

/// Whose seal this is; with two regions the accepter is the one that has not asked.
fn seal<F: Facts>(id: OpId, by: Region, sealed: &Sealed<F>) -> Value {
    if sealed.seal == 0 {
        return "None".into();
    }
    let key = SealKey([by.0.into(), 7]);
    if key.has_sealed(id, sealed) { "Own".into() } else { "Stale".into() }
}

fn requested(id: OpId, sealed: &Sealed<Requested>) -> Value {
    let facts = &sealed.facts;
    assert!(!facts.options.resolve_names, "no options are changed here");
    Value::record([
        ("to", region(facts.target.region)),
        ("deleted", facts.deleted.into()),
        ("seal", seal(id, id.requester, sealed)),
    ])
}

fn decided(id: OpId, sealed: &Sealed<Decided>) -> Value {
    let facts = &sealed.facts;
    assert_eq!(facts.options, Options::default(), "no options are changed here");
    let decision = |decision| match decision {
        Decision::Accepted => "Accepted".into(),
        Decision::Rejected => "Rejected".into(),
        Decision::Expired => "Expired".into(),
        Decision::Cancelled => "Cancelled".into(),
        Decision::Failed(_) => "Failed".into(),
    };
    Value::record([
        ("deadline", or_none(facts.deadline, Value::from)),
        ("decision", or_none(facts.decision, decision)),
        ("deleted", facts.deleted.into()),
        ("seal", seal(id, Region(1 - id.requester.0), sealed)),
    ])
}

fn side(side: Side) -> Value {
    match side {
        Side::Requester => "Requester".into(),
        Side::Accepter => "Accepter".into(),
    }
}

fn label(label: Label) -> Value {
    assert!(label.is_terminal());
    format!("{label:?}").as_str().into()
}

fn peering(id: OpId, one: &Peering) -> Value {
    Value::record([
        ("side", side(one.side)),
        ("requested", requested(id, &one.requested)),
        ("decided", decided(id, &one.decided)),
        ("nextOp", one.next_op.into()),
        ("seen", or_none(one.seen, pair)),
        ("confirmed", one.confirmed.into()),
        ("terminal", or_none(one.terminal, label)),
        ("deadSince", or_none(one.dead_since, Value::from)),
        ("stuck", one.stuck.into()),
    ])
}

fn item(id: OpId, known: Option<(Sealed<Requested>, Sealed<Decided>)>) -> Value {
    Value::record([
        ("id", op(id)),
        ("requested", or_none(known, |(of_r, _)| requested(id, &of_r))),
        ("decided", or_none(known, |(_, of_a)| decided(id, &of_a))),
    ])
}

fn body(id: OpId, body: &Body) -> Value {
    let bundle: Bundle = postcard::from_bytes(&body.0).expect("the facts of one side");
    let (of, facts) = match &bundle {
        Bundle::Requester(sealed) => (Side::Requester, requested(id, sealed)),
        Bundle::Accepter(sealed) => (Side::Accepter, decided(id, sealed)),
    };
    Value::record([("of", side(of)), ("facts", facts)])
}

fn work(work: Work) -> Value {
    let words = match work {
        Work::Prepare(of) => vec!["Prepare".into(), region(of)],
        Work::Sync(of) => vec!["Sync".into(), region(of)],
        Work::Record(id) => vec!["Record".into(), id.n.into(), id.seq.into()],
    };
    Value::Tuple(words)
}

fn errand(errand: &Errand, digests: &Digests) -> Value {
    match errand {
        Errand::Prepare { nonce } => {
            Value::record([("type", "Prepare".into()), ("nonce", (*nonce).into())])
        }
        Errand::Sync { nonce, after, digests: named, more } => {
            assert!(after.is_none() && !more, "a comparison has one part here");
            let known = named.iter().map(|(_, number)| digests[number].clone());
            Value::record([
                ("type", "Sync".into()),
                ("nonce", (*nonce).into()),
                ("digests", Value::Set(known.collect())),
            ])
        }
        Errand::Apply { id, op: number, closed_below, body: said, .. } => Value::record([
            ("type", "Apply".into()),
            ("id", op(*id)),
            ("op", (*number).into()),
            ("closedBelow", (*closed_below).into()),
            ("body", body(*id, said)),
        ]),
    }
}

fn status(status: &Status) -> Value {
    let says = |name: &str| Value::record([("type", name.into())]);
    let told = |name: &str, said: &Body| {
        Value::record([("type", name.into()), ("body", body_of_answer(said))])
    };
    let floor = |name: &str, floor: &Incarnation| {
        Value::record([("type", name.into()), ("floor", incarnation(*floor))])
    };
    match status {
        Status::Ok(said) => told("Ok", said),
        Status::Old(said) => told("Old", said),
        Status::Gone => says("Gone"),
        Status::Frozen => says("Frozen"),
        Status::Unsynced => says("Unsynced"),
        Status::Refused => says("Refused"),
        Status::StaleIncarnation(life) => floor("StaleIncarnation", life),
        Status::Stale(life) => floor("Stale", life),
        Status::Promise { nonce, to, closed } => Value::record([
            ("type", "Promise".into()),
            ("nonce", (*nonce).into()),
            ("to", incarnation(*to)),
            ("closed", closed_below(closed)),
        ]),
        Status::Synced { nonce, to, up_to, items } => {
            assert_eq!(*up_to, None, "a comparison has one part here");
            let known = |one: &Item| item(one.id, one.requested.zip(one.decided));
            Value::record([
                ("type", "Synced".into()),
                ("nonce", (*nonce).into()),
                ("to", incarnation(*to)),
                ("items", Value::Set(items.iter().map(known).collect())),
            ])
        }
        Status::Disposed | Status::Unsupported | Status::RetryAfter(_) => {
            panic!("{status:?} is in no TLA+ state")
        }
    }
}

/// The facts in an answer, whichever operation they are of: their seal names it.
fn body_of_answer(said: &Body) -> Value {
    let candidates = (0..2_u16).flat_map(|requester| {
        (1..6_u64).flat_map(move |n| {
            (0..3_u64).map(move |seq| OpId { requester: Region(requester), n, seq })
        })
    });
    let is_of = |id: &OpId| {
        let seal = match postcard::from_bytes(&said.0).expect("the facts of one side") {
            Bundle::Requester(sealed) => seal(*id, id.requester, &sealed),
            Bundle::Accepter(sealed) => seal(*id, Region(1 - id.requester.0), &sealed),
        };
        seal == "Own".into()
    };
    // Under no seal that is whole it does not matter which.
    body(candidates.into_iter().find(is_of).unwrap_or_else(|| first(0)), said)
}

fn message(msg: &Msg, digests: &Digests) -> Value {
    match msg {
        Msg::Call(call) => {
            let (name, epoch) = call.tag;
            assert_eq!((epoch.start, epoch.counter), (0, 0), "the carrier has the lowest claim");
            Value::record([
                ("type", "Call".into()),
                ("from", region(call.from)),
                ("inc", incarnation(call.incarnation)),
                ("work", work(name)),
                ("epoch", epoch.incarnation.n.into()),
                ("errand", errand(&call.errand, digests)),
            ])
        }
        Msg::Reply(reply) => {
            let (name, epoch) = reply.tag;
            Value::record([
                ("type", "Reply".into()),
                ("work", work(name)),
                ("epoch", epoch.incarnation.n.into()),
                ("inc", incarnation(reply.incarnation)),
                ("status", status(&reply.status)),
            ])
        }
        Msg::Switched(id) => Value::record([("type", "Switched".into()), ("id", op(*id))]),
        other => panic!("{other:?} is in no TLA+ state"),
    }
}
