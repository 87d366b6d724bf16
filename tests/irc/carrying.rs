//! The work log, claims, and other kinds of operation.

use super::net::*;

//= SPEC IRC-13 test
#[test]
fn a_deletion_replaces_what_nobody_holds_and_may_overtake() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.change(0, id, Verb::Delete).expect("deleted");
    assert_eq!(net.control(0).ledger.records.len(), 1);
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    // One that is claimed stays, and goes first.
    let id = net.create(0, 1, 2);
    net.fire(2, Timer::Poll);
    let (src, dst, poll) = net.queue.pop_back().expect("a poll");
    net.deliver(src, dst, poll);
    net.change(0, id, Verb::Delete).expect("deleted");
    assert_eq!(net.control(0).ledger.records.len(), 2);
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
}

//= SPEC IRC-34 test
#[test]
fn a_deletion_does_not_wait_behind_what_nobody_delivers() {
    let claimed = |net: &mut Net| {
        net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        let Some((.., Msg::Claimed(claim))) = net.queue.pop_back() else { panic!("a claim") };
        claim.call.tag
    };
    let report = |work, epoch, outcome: Outcome| {
        let outcome = Box::new(outcome);
        Msg::Report { work, epoch, outcome }
    };
    // Its server dies, gives it back, or hears nothing: the deletion is next either way.
    for how in 0..3 {
        let mut net = Net::new(2);
        let id = net.create(0, 1, 1);
        let (work, epoch) = claimed(&mut net);
        net.change(0, id, Verb::Delete).expect("deleted");
        assert_eq!(net.control(0).ledger.records.len(), 2);
        match how {
            0 => net.fire(0, Timer::Lease(work)),
            1 => net.deliver(2, 0, report(work, epoch, Outcome::Released)),
            _ => net.deliver(2, 0, report(work, epoch, Outcome::TimedOut)),
        }
        net.queue.clear();
        assert_eq!(net.control(0).ledger.records.len(), 1);
        let (next, _) = claimed(&mut net);
        assert_eq!(next, Work::Record(RecordId { n: 1, seq: 1 }));
    }
}

//= SPEC IRC-16 test
#[test]
fn a_report_counts_under_its_own_claim() {
    let mut net = Net::new(2);
    net.create(0, 1, 1);
    let poll = || Msg::Poll { kinds: vec![Kind::PEERING], max: 1 };
    let mut epochs = Vec::new();
    let mut claim = |net: &mut Net| {
        net.deliver(2, 0, poll());
        let Some((.., Msg::Claimed(claim))) = net.queue.pop_back() else { panic!("a claim") };
        let (work, epoch) = claim.call.tag;
        assert!(epochs.last().is_none_or(|last| epoch > *last));
        epochs.push(epoch);
        (work, epoch)
    };
    let (work, first) = claim(&mut net);
    net.deliver(2, 0, poll());
    assert!(!net.queue.iter().any(|(.., msg)| matches!(msg, Msg::Claimed(_))), "it is claimed");
    net.fire(0, Timer::Lease(work));
    let (_, second) = claim(&mut net);
    // The first server wakes up.
    let before = net.control(0).clone();
    let report = |epoch| Msg::Report { work, epoch, outcome: Box::new(Outcome::TimedOut) };
    net.deliver(2, 0, report(first));
    assert_eq!(net.control(0), &before);
    // And over a restart.
    net.start(0);
    let (_, third) = claim(&mut net);
    let before = net.control(0).clone();
    net.deliver(2, 0, report(second));
    assert_eq!(net.control(0), &before);
    net.deliver(2, 0, report(third));
    assert_ne!(net.control(0), &before);
    // A server of another region has no say.
    let before = net.control(0).clone();
    net.deliver(3, 0, poll());
    assert_eq!(net.control(0), &before);
}

//= SPEC IRC-17 test
#[test]
fn a_vain_try_waits_longer_each_time() {
    let mut net = Net::new(2);
    net.create(0, 1, 1);
    let work = Work::Record(RecordId { n: 1, seq: 0 });
    let [floor, cap, _] = Policy::default().retry;
    for _ in 0..12 {
        net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        let held = net.control(0).claims[&work];
        let outcome = Box::new(Outcome::TimedOut);
        net.deliver(2, 0, Msg::Report { work, epoch: held.epoch, outcome });
        let low = net.timers[&(0, Timer::Retry(work))];
        assert!(low >= floor && low <= cap);
        net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        assert!(net.control(0).claims.is_empty(), "it waits");
        net.fire(0, Timer::Retry(work));
    }
    assert_eq!(net.control(0).refused[&Region(1)], 5, "one probe at a time is left");
}

//= SPEC IRC-15 test
#[test]
fn a_remote_that_is_down_takes_no_place_of_another() {
    let mut net = Net::new(3);
    for network in 1..=6 {
        net.create(0, 1, network);
    }
    let far = net.create(0, 2, 7);
    // Region 1 is down, and its backlog is older and longer; a server has four places.
    net.down = [1].into();
    net.settle();
    assert_eq!(net.label(0, far), Some(Label::PendingAcceptance));
    net.deliver(3, 0, Msg::Poll { kinds: vec![Kind(9)], max: 9 });
    assert!(!net.queue.iter().any(|(.., msg)| matches!(msg, Msg::Claimed(_))), "unknown kinds");
    // It comes back: what its servers gave up on is delivered.
    net.down.clear();
    let server = net.server(0);
    for timer in net.armed(server, |timer| matches!(timer, Timer::Call(_))) {
        net.fire(server, timer);
    }
    net.settle();
    assert!(net.is_idle());
}

#[test]
fn a_kind_that_a_server_does_not_know_is_left_to_others() {
    let mut net = Net::new(2);
    net.ask(0, ALICE, Request::Publish { to: Region(1), value: 5 }).expect("published");
    let before = net.control(0).clone();
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 4 });
    assert_eq!(net.control(0), &before);
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::NOTICE], max: 4 });
    assert_eq!(net.control(0).claims.len(), 1);
}

//= SPEC IRC-20 test
#[test]
fn a_second_kind_takes_the_same_way() {
    let mut net = Net::new(2);
    let publish = |value| Request::Publish { to: Region(1), value };
    let Ok(Answer::Done { id, .. }) = net.ask(0, ALICE, publish(5)) else { panic!("published") };
    net.settle();
    assert_eq!(net.control(1).ledger.notices.get(&id).map(|one| one.value), Some(5));
    net.ask(0, ALICE, publish(6)).expect("published");
    net.settle();
    assert_eq!(net.control(1).ledger.notices.get(&id).map(|one| one.value), Some(6));
    // An older one that is late has no effect.
    let status = call(&mut net, Kind::NOTICE, id, 0, Body(vec![1, 4]));
    assert_eq!(status, Status::Old(Body(Vec::new())));
    assert_eq!(net.control(1).ledger.notices.get(&id).map(|one| one.value), Some(6));
    assert_eq!(call(&mut net, Kind(77), id, 9, Body(Vec::new())), Status::Unsupported);
}

/// I-26: servers that are started together do not poll together.
#[test]
fn a_server_begins_at_a_random_time() {
    let net = Net::new(2);
    let Party::Server(server) = &net.parties[2] else { panic!("a server") };
    let (_, effects) = step(&net.parties[2], Id::from(2), None, Input::Start(None));
    let all = Duration::ZERO..server.poll;
    assert!(effects.contains(&Effect::SetTimer(Timer::Poll, all)));
}
