//! However much a region knows, what it says fits a datagram.

use tenure::irc::msg::Wait;
use tenure::wire::{self, DATAGRAM_MAX, Header, Plain};

use super::net::*;

/// What a seal adds to a datagram.
const SEAL: usize = 40;

fn assert_fits(msg: &Msg) {
    let (source, destination) = (NodeId(0), NodeId(1));
    let header = Header { source, destination, incarnation: u32::MAX, sequence: u32::MAX };
    let size = wire::encode(&header, u16::MAX, msg, &mut Plain).map(|datagram| datagram.len());
    assert!(size.as_ref().is_ok_and(|size| size + SEAL <= DATAGRAM_MAX), "{size:?}: {msg:?}");
}

//= SPEC SEAL-11 test
#[test]
fn a_region_that_has_had_many_lives_gives_a_promise_that_fits() {
    const LIVES: u64 = 1000;
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let backup = net.saved[0].clone().expect("saved");
    let Some(PartyState::Control(state)) = &mut net.states[1] else { panic!("a control plane") };
    state.ledger.head.born = (1..=LIVES).map(|n| (n, 10_000_000)).collect();
    let status = say(&mut net, 0, Incarnation { n: 2, life: 7 }, Errand::Prepare { nonce: 5 });
    let Some(Status::Promise { closed, .. }) = &status else { panic!("{status:?}") };
    assert_eq!(closed.last(), Some(&(LIVES, 10_000_000)), "the newest is there");
    assert!(closed.is_sorted() && closed.len() >= 50, "{closed:?}");
    let tag = (Work::Record(RecordId { n: 900, seq: 9_000_000 }), ClaimEpoch::default());
    let incarnation = Incarnation { n: LIVES, life: u64::MAX };
    let status = status.expect("given");
    let reply = tenure::irc::msg::Reply { tag, incarnation, status };
    assert_fits(&Msg::Reply(Box::new(reply.clone())));
    let outcome = Box::new(Outcome::Answered(reply));
    assert_fits(&Msg::Report { work: tag.0, epoch: tag.1, outcome });
    // And whoever asks for it comes out of its restore.
    net.restore(0, &backup, 3, 8);
    net.settle();
    assert_eq!(net.control(0).ledger.peers.get(&Region(1)).expect("known").link, Link::Open);
    assert_eq!(net.labels(id), both(Label::Active));
}

//= SPEC SEAL-11 test
#[test]
fn a_peering_with_many_records_is_explained_in_one_datagram() {
    const CHANGES: u32 = 500;
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    // The other region is silent, and each change of the options is another record.
    net.down.insert(1);
    for n in 0..CHANGES {
        let Ok(Answer::One(shown)) = net.ask(0, ALICE, Request::Get { id }) else {
            panic!("shown")
        };
        let expected = shown.requested.options.version;
        let change = Request::Modify { id, expected, resolve_names: n % 2 == 0 };
        net.ask(0, ALICE, change).expect("changed");
    }
    assert_eq!(net.control(0).ledger.records.iter().count(), CHANGES as usize);
    let answer = net.ask(0, ALICE, Request::Explain { id }).expect("explained");
    let Answer::Explained { sync, waits_for, .. } = &answer else { panic!("{answer:?}") };
    assert!(*sync == SyncLevel::RemoteBehind && waits_for.len() >= 30, "{answer:?}");
    let named = waits_for.iter().filter(|wait| matches!(wait, Wait::Record(..))).count() as u32;
    assert!(waits_for.contains(&Wait::More(CHANGES - named)), "none is passed over in silence");
    assert_fits(&Msg::Told { n: u64::MAX >> 2, result: Ok(Box::new(answer)) });
    // All of them reach it in the end.
    net.down.clear();
    for _ in 0..20 {
        net.settle();
    }
    assert!(net.is_idle(), "{:?}", net.control(0).ledger.records);
}
