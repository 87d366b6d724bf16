//! What another region says.

use super::net::*;

//= SPEC IRC-22 test
#[test]
fn a_region_asserts_its_own_facts_only() {
    let mut net = Net::new(3);
    let id = net.create(0, 1, 1);
    net.settle();
    let before = net.control(1).clone();
    let facts = Decided { decision: Some(Decision::Accepted), ..Decided::default() };
    let lie = Body::of(&Bundle::Accepter(Sealed { facts, seal: 0 }));
    assert_eq!(call(&mut net, Kind::PEERING, id, 9, lie), Status::Refused);
    // A server that speaks for another region is not even answered.
    let errand = Errand::Prepare { nonce: 1 };
    assert_eq!(say(&mut net, 2, Incarnation { n: 5, life: 5 }, errand), None);
    assert_eq!(net.control(1), &before);
}

//= SPEC IRC-39 test
#[test]
fn what_cannot_be_read_is_set_aside() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    assert_eq!(call(&mut net, Kind::PEERING, id, 9, Body(vec![9, 9, 9])), Status::Refused);
    // A refusal parks its own record; the peering says so, and a deletion gets through.
    let work = Work::Record(RecordId { n: 1, seq: 0 });
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let epoch = net.control(0).claims[&work].epoch;
    let incarnation = Incarnation { n: 1, life: 0 };
    let reply =
        tenure::irc::msg::Reply { tag: (work, epoch), incarnation, status: Status::Refused };
    let outcome = Box::new(Outcome::Answered(reply));
    net.queue.clear();
    net.deliver(2, 0, Msg::Report { work, epoch, outcome });
    assert!(net.control(0).ledger.records.iter().all(|(_, record)| record.parked));
    let Ok(Answer::Explained { sync, waits_for, .. }) = net.ask(0, ALICE, Request::Explain { id })
    else {
        panic!("explained")
    };
    assert_eq!((sync, waits_for.len()), (SyncLevel::RemoteBehind, 1));
    net.settle();
    assert_eq!(net.labels(id), [Some(Label::InitiatingRequest), None]);
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
}

//= SPEC IRC-23 test
#[test]
fn an_old_operation_has_no_effect() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let old = Body::of(&Bundle::Requester(
        net.control(0).ledger.peerings.get(&id).expect("here").requested,
    ));
    let expected = Version { n: 1, counter: 0 };
    net.ask(0, ALICE, Request::Modify { id, expected, resolve_names: true }).expect("modified");
    net.settle();
    let before = net.control(1).clone();
    assert!(matches!(call(&mut net, Kind::PEERING, id, 0, old), Status::Old(_)));
    assert_eq!(net.control(1), &before);
}

//= SPEC IRC-24 test
#[test]
fn of_two_that_cross_the_lower_id_wins() {
    let mut net = Net::new(2);
    let low = net.create(0, 1, 1);
    let high = net.create(1, 0, 1);
    net.settle();
    assert_eq!(net.labels(low), both(Label::PendingAcceptance));
    assert!(net.labels(high).into_iter().all(|label| label.is_some_and(Label::is_terminal)));
    net.change(1, low, Verb::Accept).expect("accepted");
    net.settle();
    assert_eq!(net.labels(low), both(Label::Active));
}

//= SPEC IRC-18 test
#[test]
fn a_sweep_finds_what_no_record_tells() {
    let mut net = Net::with(2, &|control| control.policy.sweep = Some(Duration::from_secs(5)));
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    // The record is lost, as if the disk had lied.
    let Some(PartyState::Control(state)) = &mut net.states[1] else { panic!("a control plane") };
    state.ledger.records = PersistentMap::default();
    state.reindex();
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::PendingAcceptance));
    net.fire(0, Timer::Sweep(Region(1)));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    assert!(net.timers.contains_key(&(0, Timer::Sweep(Region(1)))), "and again, whatever happens");
}
