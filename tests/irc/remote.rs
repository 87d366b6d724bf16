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

/// What is known of 70 peerings is more than one part can name.
//= SPEC IRC-18 test
#[test]
fn a_sweep_takes_one_part_in_each_interval() {
    let mut net = Net::with(2, &|control| {
        control.policy.sweep = Some(Duration::from_secs(5));
        control.policy.quota = [usize::MAX; 3];
        let network =
            |n| (Network(n), (ALICE, block_of(Network(n + 500 * u32::from(control.me.0)))));
        control.networks = (1..=70).map(network).collect();
    });
    for network in 1..=70 {
        net.create(0, 1, network);
    }
    net.settle();
    let mut parts = Vec::new();
    for _ in 0..8 {
        net.fire(0, Timer::Sweep(Region(1)));
        let before = net.sent.get(&2).copied().unwrap_or(0);
        net.settle();
        // Between two intervals nothing more is asked for, however often a server polls.
        let calls = net.sent[&2] - before;
        parts.push(net.control(0).sweeps.get(&Region(1)).map(|sweep| (sweep.after, sweep.due)));
        assert!(calls > 0);
    }
    assert!(parts.iter().flatten().all(|(after, due)| after.is_some() && !due), "{parts:?}");
    let ends = parts.iter().filter(|part| part.is_none()).count();
    assert_eq!(ends, 2, "30, 30 and 10, and so on: {parts:?}");
}

/// The answer to a part that a region has asked for.
fn answer_to_sweep(up_to: Option<OpId>, items: Vec<tenure::irc::msg::Item>) -> Net {
    let mut net = Net::with(2, &|control| control.policy.sweep = Some(Duration::from_secs(5)));
    net.create(0, 1, 1);
    net.settle();
    let Some(PartyState::Control(state)) = &mut net.states[0] else { panic!("a control plane") };
    let sweep = tenure::irc::ledger::Sweep { nonce: 99, after: Some(id(0, 1, 4)), due: true };
    state.sweeps.insert(Region(1), sweep);
    net.queue.clear();
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let Some((.., Msg::Claimed(claim))) = net.queue.pop_back() else { panic!("a claim") };
    let (work, epoch) = claim.call.tag;
    let to = net.control(0).ledger.head.incarnation;
    let status = Status::Synced { nonce: 99, to, up_to, items };
    let incarnation = net.control(1).ledger.head.incarnation;
    let reply = tenure::irc::msg::Reply { tag: claim.call.tag, incarnation, status };
    net.deliver(2, 0, Msg::Report { work, epoch, outcome: Box::new(Outcome::Answered(reply)) });
    net
}

fn id(requester: u16, n: u64, seq: u64) -> OpId {
    OpId { requester: Region(requester), n, seq }
}

//= SPEC IRC-47 test
#[test]
fn a_part_of_a_comparison_holds_what_was_asked_for() {
    let gone = |id| tenure::irc::msg::Item { id, requested: None, decided: None };
    let is_there = |net: &Net| !net.control(0).ledger.peerings.get(&id(0, 1, 0)).unwrap().is_dead();
    // It ends where it begins: whoever took it would ask for ever.
    let net = answer_to_sweep(Some(id(0, 1, 4)), vec![]);
    assert_eq!(net.control(0).sweeps[&Region(1)].after, Some(id(0, 1, 4)));
    assert!(!net.control(0).waits.is_empty(), "it is asked for again");
    // It ends above, and tells of what is below its beginning.
    let net = answer_to_sweep(Some(id(0, 1, 9)), vec![gone(id(0, 1, 0))]);
    assert_eq!(net.control(0).sweeps[&Region(1)].after, Some(id(0, 1, 9)));
    assert!(is_there(&net), "nobody has asked for that");
    // Of a life that the peer has never had.
    let mut item =
        net.control(1).ledger.peerings.get(&id(0, 1, 0)).map(|one| tenure::irc::msg::Item {
            id: id(1, 50, 0),
            requested: Some(one.requested),
            decided: Some(one.decided),
        });
    let mut requested = item.as_ref().unwrap().requested.unwrap();
    requested.facts.target.region = Region(0);
    requested.facts.deleted = true;
    item.as_mut().unwrap().requested = Some(requested);
    let net = answer_to_sweep(None, vec![item.unwrap()]);
    assert_eq!(net.control(0).ledger.peerings.len(), 1);
}

/// A call is under way with what was known when it was claimed; an answer tells what is known now.
//= SPEC IRC-2 test
#[test]
fn a_call_that_an_answer_has_overtaken_takes_nothing_back() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let options = |net: &Net, region: usize| {
        net.control(region).ledger.peerings.get(&id).expect("here").decided
    };
    let modify = |net: &mut Net, region: usize, expected: Version| {
        let request = Request::Modify { id, expected, resolve_names: true };
        net.ask(region, ALICE, request).expect("modified");
    };
    let first = options(&net, 1).facts.options.version;
    modify(&mut net, 1, first);
    net.fire(3, Timer::Poll);
    let mut held = None;
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        match msg {
            Msg::Call(call) => held = Some((src, dst, Msg::Call(call))),
            msg => net.deliver(src, dst, msg),
        }
    }
    let second = options(&net, 1).facts.options.version;
    modify(&mut net, 1, second);
    let newest = options(&net, 1);
    modify(&mut net, 0, Version { n: 1, counter: 0 });
    net.fire(2, Timer::Poll);
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        net.deliver(src, dst, msg);
    }
    assert_eq!(options(&net, 0), newest, "an answer has told it");
    let (src, dst, call) = held.expect("a call is under way");
    net.deliver(src, dst, call);
    assert_eq!(options(&net, 0), newest);
}
