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

//= SPEC IRC-38 test
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
    for _ in 0..9 {
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
}

/// Whether a server calls whose claim was lost before it came to call: it stood still meanwhile.
fn calls_for_a_lost_claim(safeguards: Safeguards) -> bool {
    let mut net = Net::new(2);
    let server = net.server(0);
    let Party::Server(actor) = &mut net.parties[server] else { panic!("a server") };
    actor.safeguards = safeguards;
    net.create(0, 1, 1);
    let poll = || Msg::Poll { kinds: vec![Kind::PEERING], max: 1 };
    net.queue.clear();
    net.deliver(server, 0, poll());
    let Some((.., Msg::Claimed(late))) = net.queue.pop_back() else { panic!("a claim") };
    let (work, epoch) = late.call.tag;
    net.fire(0, Timer::Lease(work));
    net.deliver(server, 0, poll());
    let Some((.., Msg::Claimed(other))) = net.queue.pop_back() else { panic!("a claim") };
    assert_ne!(other.call.tag.1, epoch);
    net.deliver(0, server, Msg::Claimed(late));
    let mut called = false;
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        called |= matches!(&msg, Msg::Call(call) if call.tag.1 == epoch);
        net.deliver(src, dst, msg);
    }
    called
}

//= SPEC IRC-35 test
#[test]
fn a_server_that_stood_still_does_not_call_for_a_claim_that_is_lost() {
    assert!(!calls_for_a_lost_claim(Safeguards::ALL));
    assert!(calls_for_a_lost_claim(Safeguards::except(Safeguards::I_20_EXTEND_BEFORE_CALL)));
}

/// Region 0 with three claims out, whose server has not yet asked whether it may call.
fn three_claims(net: &mut Net) -> Vec<(Work, ClaimEpoch)> {
    for network in 1..=3 {
        net.create(0, 1, network);
    }
    net.queue.clear();
    let server = net.server(0);
    net.deliver(server, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 3 });
    let tags = net.queue.drain(..).map(|(.., msg)| match msg {
        Msg::Claimed(claim) => claim.call.tag,
        other => panic!("{other:?}"),
    });
    tags.collect()
}

//= SPEC IRC-35 test
#[test]
fn a_claim_is_extended_while_it_is_held_and_taken_back_when_a_breaker_opens() {
    let mut net = Net::with(2, &|control| control.policy.pacing.failures = 1);
    let server = net.server(0);
    let claims = three_claims(&mut net);
    let extend = |net: &mut Net, (work, epoch)| {
        net.deliver(server, 0, Msg::Extend { work, epoch });
        match net.queue.pop_back() {
            Some((.., Msg::Extended { ok, .. })) => ok,
            other => panic!("{other:?}"),
        }
    };
    let lease = (0, Timer::Lease(claims[0].0));
    net.timers.remove(&lease);
    assert!(extend(&mut net, claims[0]));
    assert!(net.timers.contains_key(&lease), "it is leased once more");
    let (work, epoch) = claims[0];
    assert!(!extend(&mut net, (work, ClaimEpoch { counter: epoch.counter + 9, ..epoch })));
    // The first call fails, and the breaker opens: one of the two others may still go.
    let outcome = Box::new(Outcome::TimedOut);
    net.deliver(server, 0, Msg::Report { work, epoch, outcome });
    net.queue.clear();
    assert!(!extend(&mut net, claims[1]));
    assert!(!net.control(0).claims.contains_key(&claims[1].0), "it was taken back");
    assert!(extend(&mut net, claims[2]), "that is the one that may be out");
}

#[test]
fn a_server_that_is_told_to_end_gives_back_what_it_has_not_called_for() {
    let mut net = Net::new(2);
    let server = net.server(0);
    net.create(0, 1, 1);
    net.queue.clear();
    net.deliver(server, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let (src, dst, claimed) = net.queue.pop_back().expect("a claim");
    net.deliver(src, dst, claimed);
    net.queue.clear();
    assert_eq!(net.control(0).claims.len(), 1);
    net.deliver(server, server, Msg::Operate(Command::Drain(true)));
    let (src, dst, report) = net.queue.pop_back().expect("a report");
    net.deliver(src, dst, report);
    assert!(net.control(0).claims.is_empty(), "it is anybody's at once");
    assert!(net.control(0).waits.is_empty());
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

/// A server with one place, and a backlog for either remote: the places go round, and where claims
/// stay out they go to whoever has fewer.
//= SPEC IRC-15 test
#[test]
fn however_few_places_there_are_they_go_round() {
    let mut net = Net::new(3);
    for network in 1..=6 {
        net.create(0, 1, network);
        net.create(0, 2, network);
    }
    net.queue.clear();
    let server = net.server(0);
    let mut served = Vec::new();
    for _ in 0..6 {
        net.deliver(server, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        let Some((.., Msg::Claimed(claim))) = net.queue.pop_back() else { panic!("a claim") };
        served.push(claim.remote.0);
        // It gives it back at once, so that no claim stays out.
        let (work, epoch) = claim.call.tag;
        let outcome = Box::new(Outcome::Released);
        net.deliver(server, 0, Msg::Report { work, epoch, outcome });
        net.queue.clear();
    }
    assert!(served.windows(2).all(|two| two[0] != two[1]), "{served:?}");
    net.deliver(server, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let Some((.., Msg::Claimed(held))) = net.queue.pop_back() else { panic!("a claim") };
    for _ in 0..2 {
        net.deliver(server, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        let Some((.., Msg::Claimed(claim))) = net.queue.pop_back() else { panic!("a claim") };
        let (work, epoch) = claim.call.tag;
        assert_ne!(claim.remote, held.remote, "that one has a place already");
        let outcome = Box::new(Outcome::Released);
        net.deliver(server, 0, Msg::Report { work, epoch, outcome });
        net.queue.clear();
    }
}

/// The deletion waits behind the request that a server holds, and for nothing once nobody does.
//= SPEC IRC-38 test
#[test]
fn a_deletion_does_not_wait_behind_what_a_crash_or_a_breaker_has_taken_back() {
    let begin = || {
        let mut net = Net::with(2, &|control| control.policy.pacing.failures = 1);
        let id = net.create(0, 1, 1);
        net.create(0, 1, 2);
        net.create(0, 1, 3);
        net.queue.clear();
        let server = net.server(0);
        net.deliver(server, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 3 });
        let claims: Vec<_> = net
            .queue
            .drain(..)
            .filter_map(|(.., msg)| match msg {
                Msg::Claimed(claim) => Some(claim.call.tag),
                _ => None,
            })
            .collect();
        net.change(0, id, Verb::Delete).expect("deleted");
        assert_eq!(net.control(0).records_of(id).count(), 2, "the first is held");
        (net, id, claims)
    };
    let (mut net, id, _) = begin();
    net.start(0);
    assert_eq!(net.control(0).records_of(id).count(), 1, "nobody holds it after a crash");
    let (mut net, id, claims) = begin();
    let server = net.server(0);
    let (work, epoch) = claims[2];
    net.deliver(server, 0, Msg::Report { work, epoch, outcome: Box::new(Outcome::TimedOut) });
    let (work, epoch) = claims[0];
    net.deliver(server, 0, Msg::Extend { work, epoch });
    assert_eq!(net.control(0).records_of(id).count(), 1, "the breaker has taken it back");
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

/// The control plane's cluster file has a region that the server's has not.
//= SPEC REGION-16 test
#[test]
fn a_server_that_does_not_know_a_region_does_not_spin() {
    let mut net = Net::new(3);
    let server = net.server(0);
    let Party::Server(actor) = &mut net.parties[server] else { panic!("a server") };
    actor.remotes.remove(&Region(2));
    let width = usize::from(actor.width);
    // More of it than the server takes at a time, and behind it something that it can carry.
    for network in 1..=8 {
        net.create(0, 2, network);
    }
    let id = net.create(0, 1, 9);
    net.sent.clear();
    for _ in 0..20 {
        net.fire(server, Timer::Poll);
        while let Some((src, dst, msg)) = net.queue.pop_front() {
            net.deliver(src, dst, msg);
            assert!(net.sent.get(&server).is_none_or(|&sent| sent < 100), "it spins");
        }
    }
    assert_eq!(net.label(0, id), Some(Label::PendingAcceptance), "the rest goes on");
    let kept = net.control(0).claims.len();
    assert_eq!(kept, 8, "and what it cannot carry it keeps for a while");
    assert!(kept > width);
    // 20 polls, and one extension, one call and one report with the poll that follows it.
    assert!(net.sent[&server] <= 20 + 4, "{} messages", net.sent[&server]);
    // Then it gives it back, and another server may have it.
    for timer in net.armed(server, |timer| matches!(timer, Timer::Call(_))) {
        net.fire(server, timer);
    }
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if !matches!(msg, Msg::Poll { .. }) {
            net.deliver(src, dst, msg);
        }
    }
    assert!(net.control(0).claims.is_empty());
    assert!(net.control(0).waits.is_empty(), "nothing was tried in vain");
}
