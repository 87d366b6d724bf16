//! After a backup was put back.

use super::net::*;

//= SPEC IRC-14 test
//= SPEC IRC-26 test
//= SPEC IRC-28 test
#[test]
fn an_accepter_that_is_restored_learns_what_it_has_decided() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let backup = net.saved[1].clone().expect("saved");
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    let late = accepted(&mut net, 2);
    net.restore(1, &backup, 2, 7);
    // Frozen: it decides nothing, and switches nothing.
    assert_eq!(net.label(1, id), Some(Label::PendingAcceptance));
    assert!(net.control(1).ledger.on.contains(&id), "the data plane stays as it was");
    assert_eq!(net.change(1, id, Verb::Reject), Err(CallError::Frozen(Region(0))));
    // A promise to another question, or to another life, is none.
    let stale = tenure::irc::msg::Reply {
        tag: (Work::Prepare(Region(0)), ClaimEpoch::default()),
        incarnation: Incarnation { n: 1, life: 0 },
        status: Status::Promise { nonce: 99, to: Incarnation { n: 2, life: 7 }, closed: vec![] },
    };
    net.deliver(3, 1, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let (&work, held) = net.control(1).claims.iter().next().expect("a question");
    let epoch = held.epoch;
    let outcome = Box::new(Outcome::Answered(stale));
    net.queue.clear();
    net.deliver(3, 1, Msg::Report { work, epoch, outcome });
    assert!(matches!(
        net.control(1).ledger.peers.get(&Region(0)).expect("known").link,
        Link::Preparing { .. }
    ));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    assert_eq!(net.labels(late), both(Label::Active));
    let lost = net.control(1).ledger.peers.get(&Region(0)).expect("known").lost.clone();
    assert!(lost.recovered[&id].decision && lost.recovered[&late].existence);
    assert!(lost.refused.is_empty());
}

#[test]
fn own_facts_come_back_under_the_own_seal_only() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let backup = net.saved[1].clone().expect("saved");
    // R says that A has accepted.
    let Some(PartyState::Control(state)) = &mut net.states[0] else { panic!("a control plane") };
    let mut forged = state.ledger.peerings.get(&id).expect("here").clone();
    forged.decided.facts.decision = Some(Decision::Accepted);
    state.ledger.peerings.insert(id, forged);
    state.reindex();
    net.restore(1, &backup, 2, 7);
    net.settle();
    let ledger = &net.control(1).ledger;
    assert_eq!(ledger.peerings.get(&id).expect("here").decided.facts.decision, None);
    assert!(ledger.peers.get(&Region(0)).expect("known").lost.refused.contains(&id));
    assert_eq!(net.change(1, id, Verb::Accept), Err(CallError::Stuck));
}

//= SPEC IRC-21 test
//= SPEC IRC-25 test
#[test]
fn a_promise_is_to_one_life_and_binds() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let body = Body::of(&Bundle::Requester(
        net.control(0).ledger.peerings.get(&id).expect("here").requested,
    ));
    let life = |n, life| Incarnation { n, life };
    let prepare = Errand::Prepare { nonce: 5 };
    let promise = |to| Status::Promise { nonce: 5, to, closed: vec![] };
    assert_eq!(say(&mut net, 0, life(3, 1), prepare.clone()), Some(promise(life(3, 1))));
    let Some(Storage::Control(saved)) = &net.saved[1] else { panic!("saved") };
    assert_eq!(saved.peers.get(&Region(0)).expect("known").floor, Some(life(3, 1)));
    assert_eq!(say(&mut net, 0, life(3, 1), prepare.clone()), Some(promise(life(3, 1))));
    for other in [life(2, 9), life(3, 2)] {
        assert_eq!(say(&mut net, 0, other, prepare.clone()), Some(Status::Stale(life(3, 1))));
        let errand =
            Errand::Apply { kind: Kind::PEERING, id, op: 50, closed_below: 0, body: body.clone() };
        let status = say(&mut net, 0, other, errand);
        assert_eq!(status, Some(Status::StaleIncarnation(life(3, 1))));
    }
    // Frozen itself, it promises nevertheless.
    let backup = net.saved[1].clone().expect("saved");
    net.restore(1, &backup, 2, 8);
    let given = say(&mut net, 0, life(4, 1), prepare);
    assert!(matches!(given, Some(Status::Promise { to, .. }) if to == life(4, 1)), "{given:?}");
}

//= SPEC IRC-27 test
#[test]
fn a_region_that_is_not_its_newest_life_becomes_that() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let backup = net.saved[1].clone().expect("saved");
    net.restore(1, &backup, 2, 7);
    net.settle();
    // Restored again from the same backup, by somebody who does not know of the first time.
    net.restore(1, &backup, 2, 8);
    net.settle();
    let head = &net.control(1).ledger.head;
    assert_eq!(head.incarnation.n, 3, "the number of another life was refused");
    assert_eq!(net.labels(id), both(Label::Active));
}

fn floor(net: &Net, region: usize, of: u16) -> Incarnation {
    let peer = net.control(region).ledger.peers.get(&Region(of)).expect("known").clone();
    peer.floor.expect("promised")
}

#[test]
fn a_restored_region_learns_back_what_it_has_promised() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let backups = [net.saved[0].clone().expect("saved"), net.saved[1].clone().expect("saved")];
    net.restore(1, &backups[1], 2, 7);
    net.settle();
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 2, life: 7 });
    // The promise is lost with everything else that came after the backup.
    net.restore(0, &backups[0], 2, 8);
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 1, life: 0 });
    net.settle();
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 2, life: 7 });
    assert_eq!(net.labels(id), both(Label::Active));
}

#[test]
fn a_promise_of_an_older_life_is_void() {
    let mut net = Net::new(2);
    accepted(&mut net, 1);
    let backups = [net.saved[0].clone().expect("saved"), net.saved[1].clone().expect("saved")];
    net.restore(0, &backups[0], 2, 8);
    net.fire(2, Timer::Poll);
    // The promise of region 1 is under way, and late.
    let mut late = None;
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        match msg {
            Msg::Reply(_) => late = Some((src, dst, msg)),
            msg => net.deliver(src, dst, msg),
        }
    }
    let (src, dst, promise) = late.expect("a promise");
    // Meanwhile region 1 is restored too, has forgotten it, and asks for a promise itself.
    net.restore(1, &backups[1], 2, 9);
    net.fire(3, Timer::Poll);
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if dst != 3 || !matches!(msg, Msg::Reply(_)) {
            net.deliver(src, dst, msg);
        }
    }
    let link = |net: &Net| net.control(0).ledger.peers.get(&Region(1)).expect("known").link.clone();
    let before = link(&net);
    net.deliver(src, dst, promise);
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if matches!(msg, Msg::Report { .. }) {
            net.deliver(src, dst, msg);
        }
    }
    assert_eq!(link(&net), before, "it still waits for a promise of the new life");
    assert!(matches!(before, Link::Preparing { .. }));
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 2, life: 9 });
}

//= SPEC IRC-29 test
#[test]
fn both_are_restored_and_neither_waits_for_the_other() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let backups = [net.saved[0].clone().expect("saved"), net.saved[1].clone().expect("saved")];
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    net.restore(0, &backups[0], 2, 5);
    net.restore(1, &backups[1], 2, 6);
    // Deleted while frozen: taken at once, decided at the thaw.
    assert!(net.change(0, id, Verb::Delete).is_ok());
    assert!(!net.control(0).ledger.on.contains(&id));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    let decided = |region: usize| {
        net.control(region).ledger.peerings.get(&id).expect("here").decided.facts.decision
    };
    assert_eq!([decided(0), decided(1)], [Some(Decision::Cancelled); 2]);
    assert!(net.control(0).ledger.on.is_empty() && net.control(1).ledger.on.is_empty());
}

//= SPEC IRC-30 test
#[test]
fn a_disposed_region_has_no_effect() {
    let mut net = Net::new(3);
    let id = accepted(&mut net, 1);
    net.down = [0, 3].into();
    net.deliver(1, 1, Msg::Operate(Command::Dispose(Region(0))));
    assert_eq!(net.label(1, id), Some(Label::Deleted));
    assert!(net.control(1).ledger.on.is_empty());
    // It comes back, and learns it.
    net.down.clear();
    net.create(0, 1, 2);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Deleted));
    assert_eq!(net.control(1).ledger.peerings.len(), 1);
    assert_eq!(net.control(0).ledger.peers.get(&Region(1)).expect("known").link, Link::Expelled);
    // The third region has seen nothing of it.
    let other = net.create(0, 2, 3);
    net.settle();
    assert_eq!(net.label(2, other), Some(Label::PendingAcceptance));
    // Readmitted, it comes as a newer life.
    net.deliver(1, 1, Msg::Operate(Command::Readmit(Region(0))));
    net.deliver(0, 0, Msg::Operate(Command::Freeze(Region(1))));
    net.deliver(0, 0, Msg::Operate(Command::Thaw));
    for _ in 0..5 {
        net.settle();
    }
    let again = net.create(0, 1, 4);
    net.settle();
    assert_eq!(net.labels(again), both(Label::PendingAcceptance));
}

/// Delivers what is under way, and nothing else happens.
fn drain(net: &mut Net) {
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if !net.down.contains(&src) && !net.down.contains(&dst) {
            net.deliver(src, dst, msg);
        }
    }
}

/// A region that was restored may end what it has forgotten to have accepted. The peer, which compares
/// meanwhile, is told facts of which each of the two has some that the other lacks.
//= SPEC IRC-41 test
#[test]
fn a_region_that_has_gone_another_way_finds_its_facts_under_its_own_seal() {
    let mut net = Net::with(2, &|control| {
        control.policy.sweep = (control.me == NodeId(0)).then_some(Duration::from_secs(1));
    });
    let id = net.create(0, 1, 1);
    net.settle();
    let backup = net.saved[1].clone().expect("saved");
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    net.restore(1, &backup, 2, 7);
    net.change(1, id, Verb::Delete).expect("an end is taken while frozen");
    // It has the promise, and its server stands still.
    net.fire(3, Timer::Poll);
    while floor(&net, 0, 1).n < 2 {
        let (src, dst, msg) = net.queue.pop_front().expect("it asks for a promise");
        net.deliver(src, dst, msg);
    }
    net.down = [3].into();
    drain(&mut net);
    let decided = |net: &Net, region: usize| {
        net.control(region).ledger.peerings.get(&id).expect("here").decided
    };
    let before = decided(&net, 0);
    net.fire(0, Timer::Sweep(Region(1)));
    net.fire(2, Timer::Poll);
    drain(&mut net);
    assert!(net.control(0).ledger.peerings.get(&id).expect("here").confirmed, "it has compared");
    assert_eq!(decided(&net, 0), before, "what is here stays whole");
    net.down.clear();
    for timer in net.armed(3, |timer| matches!(timer, Timer::Call(_))) {
        net.fire(3, timer);
    }
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    for region in [0, 1] {
        assert!(!net.control(region).ledger.peerings.get(&id).expect("here").stuck);
        let facts = decided(&net, region).facts;
        assert!(facts.decision == Some(Decision::Accepted) && facts.deleted, "{facts:?}");
    }
    let lost = &net.control(1).ledger.peers.get(&Region(0)).expect("known").lost;
    assert!(lost.refused.is_empty() && lost.recovered[&id].decision);
}

/// A's facts come back under a seal that it has never made.
fn stuck(net: &mut Net) -> OpId {
    let id = accepted(net, 1);
    let backup = net.saved[1].clone().expect("saved");
    let Some(PartyState::Control(state)) = &mut net.states[0] else { panic!("a control plane") };
    let mut forged = state.ledger.peerings.get(&id).expect("here").clone();
    forged.decided.seal ^= 1;
    state.ledger.peerings.insert(id, forged);
    state.reindex();
    net.restore(1, &backup, 2, 7);
    net.settle();
    assert!(net.control(1).ledger.peerings.get(&id).expect("here").stuck);
    assert!(net.control(1).ledger.on.contains(&id), "nobody has ended it");
    id
}

//= SPEC IRC-42 test
#[test]
fn what_contradicts_itself_is_ended_by_either_owner() {
    for ends in [0, 1] {
        let mut net = Net::new(2);
        let id = stuck(&mut net);
        net.change(ends, id, Verb::Delete).expect("an end is always taken");
        assert!(!net.control(ends).ledger.on.contains(&id), "in that step");
        net.settle();
        assert_eq!(net.labels(id), both(Label::Deleted));
        assert!(net.control(0).ledger.on.is_empty() && net.control(1).ledger.on.is_empty());
        for _ in 0..4 {
            net.tick(0);
            net.tick(1);
        }
        assert!(!net.control(1).ledger.peerings.contains(&id), "it is forgotten like any other");
    }
}

/// Both sides are put back, one after the other, to backups of which each holds options that the other does not: the
/// death that one has learned meanwhile must not wait for a sweep.
//= SPEC IRC-28 test
//= SPEC IRC-41 test
#[test]
fn a_death_is_read_at_the_thaw_from_facts_that_are_not_taken_over() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let old = net.saved[0].clone().expect("saved");
    let expected = Version { n: 1, counter: 0 };
    net.ask(0, ALICE, Request::Modify { id, expected, resolve_names: true }).expect("modified");
    net.settle();
    let newer = net.saved[1].clone().expect("saved");
    net.change(1, id, Verb::Delete).expect("deleted");
    net.settle();
    for region in [0, 1, 0, 1, 0, 1] {
        net.tick(region);
    }
    assert_eq!(net.labels(id), [None, None], "over, and forgotten");
    net.restore(0, &old, 2, 7);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Deleted), "that is all that is left of it");
    net.restore(1, &newer, 2, 8);
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    assert!(net.control(1).ledger.on.is_empty());
    assert!(!net.control(1).ledger.peerings.get(&id).expect("here").stuck);
}

//= SPEC IRC-43 test
#[test]
fn the_report_of_a_restore_lasts_until_the_next_one() {
    let mut net = Net::new(2);
    accepted(&mut net, 1);
    net.tick(1);
    let backup = net.saved[1].clone().expect("saved");
    let late = accepted(&mut net, 2);
    for _ in 0..7 {
        net.tick(1);
    }
    net.restore(1, &backup, 2, 7);
    net.settle();
    let lost = |net: &Net| net.control(1).ledger.peers.get(&Region(0)).expect("known").lost.clone();
    assert_eq!(lost(&net).window, (1, 8), "from the backup to the loss");
    assert!(lost(&net).recovered.contains_key(&late));
    // Frozen again, by whomever: what was said stays.
    net.deliver(1, 1, Msg::Operate(Command::Freeze(Region(0))));
    net.deliver(1, 1, Msg::Operate(Command::Thaw));
    net.settle();
    assert!(lost(&net).recovered.contains_key(&late));
    assert_eq!(lost(&net).window, (1, 8));
    net.restore(1, &backup, 9, 8);
    assert!(lost(&net).recovered.is_empty(), "another restore begins anew");
}

//= SPEC IRC-44 test
#[test]
fn a_region_that_is_gone_is_not_waited_for() {
    let mut net = Net::new(3);
    let id = accepted(&mut net, 1);
    net.down = [0, 3].into();
    net.deliver(1, 1, Msg::Operate(Command::Dispose(Region(0))));
    let backup = net.saved[1].clone().expect("saved");
    let lost = accepted_between(&mut net, 1, 2, 3);
    net.restore(1, &backup, 2, 7);
    // A half that no peering explains, of a request of its own that is lost altogether.
    let stray = OpId { seq: 40, ..lost };
    let Some(PartyState::Control(state)) = &mut net.states[1] else { panic!("a control plane") };
    state.ledger.on.insert(stray, ());
    net.settle();
    let ledger = &net.control(1).ledger;
    assert!(ledger.is_open(), "it has thawed towards all that are there");
    assert!(!ledger.on.contains(&stray) && ledger.on.contains(&lost) && !ledger.on.contains(&id));
}

fn accepted_between(net: &mut Net, from: usize, to: u16, network: u32) -> OpId {
    let id = net.create(from, to, network);
    net.settle();
    net.change(to.into(), id, Verb::Accept).expect("accepted");
    net.settle();
    id
}

//= SPEC IRC-45 test
#[test]
fn a_region_that_is_taken_back_opens_by_itself_in_any_order() {
    let commands = |order: usize| {
        let [dispose, readmit] = [Command::Dispose(Region(0)), Command::Readmit(Region(0))];
        let own = [(0, Command::Freeze(Region(1))), (0, Command::Thaw)];
        let mut all = vec![(1, dispose)];
        match order {
            0 => all.push((1, readmit)),
            1 => all.extend(own.into_iter().chain([(1, readmit)])),
            _ => all.extend([(1, readmit)].into_iter().chain(own)),
        }
        all
    };
    for order in 0..3 {
        let mut net = Net::new(2);
        let id = accepted(&mut net, 1);
        for (node, command) in commands(order) {
            net.deliver(node, node, Msg::Operate(command));
            // It learns that it was declared gone, if it was.
            if let Ok(Answer::Done { .. }) = net.ask(0, ALICE, wish(1, 5 + order as u32)) {
                net.settle();
            }
            net.settle();
        }
        for _ in 0..5 {
            net.settle();
        }
        assert_eq!(net.labels(id), both(Label::Deleted), "order {order}");
        let link =
            |at: usize, of| net.control(at).ledger.peers.get(&Region(of)).unwrap().link.clone();
        assert_eq!([link(0, 1), link(1, 0)], [Link::Open, Link::Open], "order {order}");
        let again = net.create(0, 1, 4);
        net.settle();
        assert_eq!(net.labels(again), both(Label::PendingAcceptance));
    }
}

//= SPEC IRC-46 test
#[test]
fn a_life_that_cannot_be_is_not_believed() {
    let mut net = Net::new(2);
    accepted(&mut net, 1);
    let backup = net.saved[1].clone().expect("saved");
    net.restore(1, &backup, 2, 7);
    net.deliver(3, 1, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let (&work, held) = net.control(1).claims.iter().next().expect("a question");
    let epoch = held.epoch;
    net.queue.clear();
    let far = Incarnation { n: 1 << 40, life: 9 };
    let incarnation = Incarnation { n: 1, life: 0 };
    let reply =
        tenure::irc::msg::Reply { tag: (work, epoch), incarnation, status: Status::Stale(far) };
    let outcome = Box::new(Outcome::Answered(reply));
    net.deliver(3, 1, Msg::Report { work, epoch, outcome });
    assert_eq!(net.control(1).ledger.head.incarnation, Incarnation { n: 2, life: 7 });
}

//= SPEC IRC-16 test
#[test]
fn two_restores_to_one_backup_hand_out_no_claim_twice() {
    let mut net = Net::new(2);
    net.create(0, 1, 1);
    net.settle();
    let backup = net.saved[1].clone().expect("saved");
    let server = net.server(1);
    let mut claim_of = |life| {
        net.restore(1, &backup, 2, life);
        net.queue.clear();
        net.deliver(server, 1, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        let (&work, held) = net.control(1).claims.iter().next().expect("a question");
        (work, held.epoch)
    };
    let (first, second) = (claim_of(7), claim_of(8));
    assert_eq!(first.0, second.0);
    assert_ne!(first.1, second.1, "two lives of one number are told apart");
    // What came of the first life's claim is nothing to the second one.
    let (work, epoch) = first;
    net.deliver(server, 1, Msg::Report { work, epoch, outcome: Box::new(Outcome::TimedOut) });
    assert!(net.control(1).claims.contains_key(&work), "its own claim is out still");
    assert!(matches!(net.queue.pop_back(), Some((.., Msg::Reported { ok: false, .. }))));
}
