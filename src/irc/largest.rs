//! The largest message of every kind, under the seal that adds the most: each fits a datagram.
//!
//! Every list has as many members as whoever makes it puts in, and every number takes as many bytes as it can.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::{PAGE, WAITS_MAX};
use super::facts::{
    Account, Block, Bundle, Decided, Decision, Failure, Incarnation, Network, OpId, Options,
    Region, Requested, Sealed, Target, Version, to_bytes,
};
use super::log::DIGESTS_MAX;
use super::msg::{
    Answer, Body, Call, CallError, Claim, ClaimEpoch, Command, Errand, Item, Kind, Msg, Outcome,
    RecordId, RecordVerb, Reply, Request, Shown, Status, SyncLevel, Token, Wait, Work,
};
use super::peering::{Label, Side, Verb};
use super::remote::ITEMS_MAX;
use super::restore::CLOSED_MAX;
use crate::lease::record::NodeId;
use crate::wire::seal::{KEY_LEN, Keyring, Listed, SecretKey};
use crate::wire::{self, COUNT_MAX, DATAGRAM_MAX, Header, Seal as _};

const REGION: Region = Region(u16::MAX);
const ACCOUNT: Account = Account(u32::MAX);
const NETWORK: Network = Network(u32::MAX);
const ID: OpId = OpId { requester: REGION, n: COUNT_MAX, seq: COUNT_MAX };
const RECORD: RecordId = RecordId { n: COUNT_MAX, seq: COUNT_MAX };
const LIFE: Incarnation = Incarnation { n: COUNT_MAX, life: u64::MAX };
const EPOCH: ClaimEpoch = ClaimEpoch { incarnation: LIFE, start: COUNT_MAX, counter: COUNT_MAX };
const TARGET: Target = Target { region: REGION, account: ACCOUNT, network: NETWORK };
const VERSION: Version = Version { n: u64::MAX, counter: COUNT_MAX };
const OPTIONS: Options =
    Options { version: Version { n: u64::MAX, counter: u64::MAX }, resolve_names: true };
const REQUESTED: Requested = Requested {
    account: ACCOUNT,
    network: NETWORK,
    block: Block { address: u32::MAX, prefix: 32 },
    target: TARGET,
    token: u64::MAX,
    deleted: true,
    options: OPTIONS,
};
const DECIDED: Decided = Decided {
    deadline: Some(u64::MAX),
    decision: Some(Decision::Failed(Failure::Impossible)),
    deleted: true,
    options: OPTIONS,
};
const SHOWN: Shown = Shown {
    id: ID,
    side: Side::Accepter,
    state: Label::Rejected,
    requested: REQUESTED,
    decided: DECIDED,
    frozen: true,
    stuck: true,
};

/// These values, which must be one of each variant at least.
fn each<T: Serialize + DeserializeOwned>(values: Vec<T>) -> Vec<T> {
    let is_variant = |number: &u8| {
        let bytes = [*number];
        let read = postcard::take_from_bytes::<T>(&bytes);
        !matches!(read, Err(postcard::Error::SerdeDeCustom))
    };
    let known: BTreeSet<u8> = (0..128).take_while(is_variant).collect();
    let there: BTreeSet<u8> = values.iter().map(|value| to_bytes(value)[0]).collect();
    assert_eq!(there, known, "the variants of {}", std::any::type_name::<T>());
    values
}

fn work() -> Vec<Work> {
    each(vec![Work::Prepare(REGION), Work::Record(RECORD), Work::Sync(REGION)])
}

fn requests() -> Vec<Request> {
    each(vec![
        Request::Create { network: NETWORK, target: TARGET, resolve_names: true },
        Request::Change { id: ID, verb: Verb::Delete },
        Request::Modify { id: ID, expected: VERSION, resolve_names: true },
        Request::Publish { to: REGION, value: u64::MAX },
        Request::Get { id: ID },
        Request::List { after: Some(ID) },
        Request::Explain { id: ID },
    ])
}

fn answers() -> Vec<Answer> {
    let mut waits_for = vec![Wait::Record(RECORD, RecordVerb::Modify); WAITS_MAX];
    waits_for.extend([
        Wait::Frozen(REGION),
        Wait::Silence(REGION),
        Wait::More(u32::MAX),
        Wait::Decision,
        Wait::Half,
        Wait::Parked(RECORD),
    ]);
    each(vec![
        Answer::Done { id: ID, state: Label::Rejected },
        Answer::Version { id: ID, version: VERSION },
        Answer::One(SHOWN),
        Answer::Many { peerings: vec![SHOWN; PAGE], more: true },
        Answer::Explained {
            shown: SHOWN,
            peer_state: Label::Rejected,
            heard: Some(u64::MAX),
            sync: SyncLevel::Both,
            waits_for: each(waits_for),
        },
    ])
}

fn bodies() -> Vec<Body> {
    let bundles = each(vec![
        Bundle::Requester(Sealed { facts: REQUESTED, seal: u64::MAX }),
        Bundle::Accepter(Sealed { facts: DECIDED, seal: u64::MAX }),
    ]);
    let notice = Body(to_bytes(&(REGION, u64::MAX)));
    bundles.iter().map(Body::of).chain([notice]).collect()
}

fn calls() -> Vec<Call> {
    let apply = |body| Errand::Apply {
        kind: Kind(u16::MAX),
        id: ID,
        op: COUNT_MAX,
        closed_below: COUNT_MAX,
        body,
    };
    let mut errands: Vec<Errand> = bodies().into_iter().map(apply).collect();
    errands.push(Errand::Prepare { nonce: COUNT_MAX });
    errands.push(Errand::Sync {
        nonce: COUNT_MAX,
        after: Some(ID),
        digests: vec![(ID, u64::MAX); DIGESTS_MAX],
        more: true,
    });
    let call =
        |(work, errand)| Call { from: REGION, incarnation: LIFE, tag: (work, EPOCH), errand };
    pairs(&work(), &each(errands)).into_iter().map(call).collect()
}

fn replies() -> Vec<Reply> {
    let item = Item {
        id: ID,
        requested: Some(Sealed { facts: REQUESTED, seal: u64::MAX }),
        decided: Some(Sealed { facts: DECIDED, seal: u64::MAX }),
    };
    let mut statuses: Vec<Status> = bodies().into_iter().map(Status::Ok).collect();
    statuses.extend(bodies().into_iter().map(Status::Old));
    statuses.extend([
        Status::Gone,
        Status::Frozen,
        Status::Unsynced,
        Status::StaleIncarnation(LIFE),
        Status::Disposed,
        Status::Unsupported,
        Status::RetryAfter(u32::MAX),
        Status::Refused,
        Status::Promise {
            nonce: COUNT_MAX,
            to: LIFE,
            closed: vec![(COUNT_MAX, COUNT_MAX); CLOSED_MAX],
        },
        Status::Stale(LIFE),
        Status::Synced {
            nonce: COUNT_MAX,
            to: LIFE,
            up_to: Some(ID),
            items: vec![item; ITEMS_MAX],
        },
    ]);
    let reply = |(work, status)| Reply { tag: (work, EPOCH), incarnation: LIFE, status };
    pairs(&work(), &each(statuses)).into_iter().map(reply).collect()
}

fn pairs<A: Clone, B: Clone>(all: &[A], with: &[B]) -> Vec<(A, B)> {
    let pairs = |one: &A| with.iter().map(|other| (one.clone(), other.clone())).collect::<Vec<_>>();
    all.iter().flat_map(pairs).collect()
}

fn messages() -> Vec<Msg> {
    let mut all = vec![
        Msg::Told { n: COUNT_MAX, result: Err(CallError::PairBusy(ID)) },
        Msg::Told { n: COUNT_MAX, result: Err(CallError::VersionConflict(VERSION)) },
        Msg::Poll { kinds: vec![Kind(u16::MAX); 2], max: u8::MAX },
        Msg::Switched(ID),
    ];
    for request in requests() {
        all.push(Msg::Ask { n: COUNT_MAX, caller: ACCOUNT, token: Token(u64::MAX), request });
        all.push(Msg::Submit { caller: ACCOUNT, token: Token(u64::MAX), request });
    }
    for answer in answers() {
        all.push(Msg::Told { n: COUNT_MAX, result: Ok(Box::new(answer)) });
    }
    for call in calls() {
        all.push(Msg::Claimed(Box::new(Claim { remote: REGION, call: call.clone() })));
        all.push(Msg::Call(Box::new(call)));
    }
    let mut outcomes = vec![Outcome::TimedOut, Outcome::Released];
    for reply in replies() {
        outcomes.push(Outcome::Answered(reply.clone()));
        all.push(Msg::Reply(Box::new(reply)));
    }
    for (work, outcome) in pairs(&work(), &each(outcomes)) {
        all.push(Msg::Report { work, epoch: EPOCH, outcome: Box::new(outcome) });
    }
    for work in work() {
        all.push(Msg::Reported { work, epoch: EPOCH, ok: true });
        all.push(Msg::Extend { work, epoch: EPOCH });
        all.push(Msg::Extended { work, epoch: EPOCH, ok: true });
    }
    let commands = each(vec![
        Command::Dispose(REGION),
        Command::Readmit(REGION),
        Command::Redrive(RECORD),
        Command::Discard(RECORD),
        Command::Drain(true),
        Command::Freeze(REGION),
        Command::Thaw,
    ]);
    all.extend(commands.into_iter().map(Msg::Operate));
    each(all)
}

/// The seals of two nodes that know each other.
fn seals() -> [wire::Sealed; 2] {
    let secret = |n: u8| SecretKey::from_random([n + 1; KEY_LEN]);
    let listed = |n: u8| vec![Listed { public: secret(n).public(), not_after: u64::MAX }];
    let book: BTreeMap<_, _> = [0, 1].map(|n| (NodeId(n.into()), listed(n))).into();
    [0_u8, 1].map(|me| {
        let own = [(secret(me), u64::MAX)];
        let ring = Keyring::new("regions", NodeId(me.into()), &own, &book).expect("good keys");
        wire::Sealed::new(ring, [me; 12])
    })
}

//= SPEC SEAL-11 test
#[test]
fn the_largest_message_of_every_kind_fits_a_sealed_datagram() {
    let [mut from, mut to] = seals();
    let mut largest = BTreeMap::new();
    for (sequence, msg) in (0..).zip(messages()) {
        let (source, destination) = (NodeId(0), NodeId(1));
        let header = Header { source, destination, incarnation: u32::MAX, sequence };
        let sealed = wire::encode(&header, u16::MAX, &msg, &mut from);
        let sealed = sealed.unwrap_or_else(|error| panic!("{error}: {msg:?}"));
        // It is what the other side takes: none of its values is out of bounds.
        let opened = wire::decode::<Msg>(destination, &sealed, &mut to);
        assert_eq!(opened, Ok((header, u16::MAX, msg.clone())));
        let kind = format!("{msg:?}").split([' ', '(']).next().expect("a name").to_owned();
        let size = largest.entry(kind).or_insert(0);
        *size = sealed.len().max(*size);
    }
    println!("of {DATAGRAM_MAX} bytes, {} of them the seal's: {largest:?}", from.overhead());
}
