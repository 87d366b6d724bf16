//! Calls of customers, and what becomes of a peering.

use super::net::*;

/// What is over is shown for a while, whatever the customer calls.
//= SPEC IRC-7 test
#[test]
fn no_call_of_a_customer_shows_what_is_hidden() {
    let mut net = Net::with(2, &|control| control.policy.remember = 10_000);
    let shown = |net: &mut Net, region, id| {
        let get = net.ask(region, ALICE, Request::Get { id }).is_ok();
        let explained = net.ask(region, ALICE, Request::Explain { id });
        assert_eq!(explained.is_ok(), get, "{explained:?}");
        assert!(get || explained == Err(CallError::NotFound), "{explained:?}");
        get
    };
    // There is no such network there: the accepter's owner never hears of it.
    let failed = net.create(0, 1, 12);
    let Party::Control(control) = &mut net.parties[1] else { panic!("a control plane") };
    control.networks.remove(&Network(12));
    let rejected = net.create(0, 1, 1);
    net.settle();
    assert_eq!(net.labels(failed), both(Label::Failed));
    assert!(shown(&mut net, 0, failed) && !shown(&mut net, 1, failed));
    net.change(1, rejected, Verb::Reject).expect("rejected");
    net.settle();
    assert!(shown(&mut net, 0, rejected) && shown(&mut net, 1, rejected));
    for _ in 0..120 {
        net.tick(0);
        net.tick(1);
    }
    // Two hours for the one who has rejected it, two days for the other one.
    assert!(shown(&mut net, 0, rejected) && !shown(&mut net, 1, rejected));
    assert!(!shown(&mut net, 0, failed));
}

//= SPEC IRC-1 test
//= SPEC IRC-31 test
#[test]
fn local_remote_local() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    // The record is saved before the answer, and nothing of the other region shows yet.
    let Some(Storage::Control(saved)) = &net.saved[0] else { panic!("saved") };
    assert!(saved.peerings.contains(&id) && saved.records.len() == 1 && saved.tokens.len() == 1);
    assert_eq!(net.labels(id), [Some(Label::InitiatingRequest), None]);
    net.settle();
    assert_eq!(net.labels(id), both(Label::PendingAcceptance));
    assert_eq!(net.change(1, id, Verb::Accept), Ok(Label::Provisioning));
    assert_eq!(net.label(0, id), Some(Label::PendingAcceptance));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    assert_eq!(net.change(0, id, Verb::Delete), Ok(Label::Deleting));
    assert!(!net.control(0).ledger.on.contains(&id), "the own half goes first");
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    // No control plane speaks to another, and no server without a claim.
    let mut stray = net.states[2].clone().expect("a server");
    let reply = tenure::irc::msg::Reply {
        tag: (
            Work::Record(RecordId { n: 1, seq: 0 }),
            ClaimEpoch { incarnation: Incarnation { n: 1, life: 0 }, start: 1, counter: 1 },
        ),
        incarnation: Incarnation { n: 1, life: 0 },
        status: Status::Gone,
    };
    let input = Input::Deliver { src: Id::from(1_usize), msg: Msg::Reply(Box::new(reply)) };
    let (after, effects) = step(&net.parties[2], Id::from(2_usize), Some(stray.clone()), input);
    assert_eq!((&after, effects.len()), (&stray, 0));
    stray = after;
    assert!(matches!(stray, PartyState::Server(_)));
}

//= SPEC IRC-6 test
#[test]
fn what_r_refuses_leaves_nothing_behind() {
    let mut net = Net::new(2);
    let before = net.control(0).clone();
    let target = |region, network| Target {
        region: Region(region),
        account: ALICE,
        network: Network(network),
    };
    let request = |network, target| Request::Create {
        network: Network(network),
        target,
        resolve_names: false,
    };
    for (caller, request, error) in [
        (ALICE, request(1, target(0, 2)), CallError::SelfPeering),
        (ALICE, request(1, target(7, 2)), CallError::UnknownRegion),
        (ALICE, request(40, target(1, 2)), CallError::NotFound),
        (ALICE, request(60, target(1, 2)), CallError::NotOwner),
        (BOB, request(1, target(1, 2)), CallError::NotOwner),
    ] {
        assert_eq!(net.ask(0, caller, request), Err(error));
    }
    assert_eq!(net.control(0), &before);
    let id = net.create(0, 1, 1);
    assert_eq!(net.ask(0, ALICE, wish(1, 1)), Err(CallError::PairBusy(id)));
    // Nobody speaks for an account that is not its own.
    net.deliver(5, 0, Msg::Operate(Command::Drain(true)));
    assert!(!net.control(0).ledger.head.drained);
    let mut net = Net::with(2, &|control| control.policy.quota = [1, 50, 500]);
    net.create(0, 1, 1);
    let other = request(1, target(1, 2));
    assert_eq!(net.ask(0, ALICE, other), Err(CallError::QuotaExceeded));
}

#[test]
fn what_a_refuses_fails_and_says_no_more() {
    let mut net = Net::new(2);
    // Region 1 has no network 40, network 17 would overlap, and 60 is Bob's.
    for network in [40, 60] {
        let target = Target { region: Region(1), account: ALICE, network: Network(network) };
        let request = Request::Create { network: Network(1), target, resolve_names: false };
        let Ok(Answer::Done { id, .. }) = net.ask(0, ALICE, request) else { panic!("taken") };
        net.settle();
        assert_eq!(net.label(0, id), Some(Label::Failed));
        assert!(net.is_idle(), "A knows that R knows");
    }
    let mut net = Net::with(2, &|control| {
        control.networks.insert(Network(1), (ALICE, block_of(Network(1))));
    });
    let id = net.create(0, 1, 1);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Failed), "the addresses overlap");
}

#[test]
fn a_flood_of_requests_meets_the_quota() {
    let mut net = Net::with(2, &|control| control.policy.quota = [50, 1, 500]);
    let target = Target { region: Region(1), account: ALICE, network: Network(1) };
    let ids: Vec<OpId> = (1..=3)
        .map(|own| {
            let request = Request::Create { network: Network(own), target, resolve_names: false };
            match net.ask(0, ALICE, request) {
                Ok(Answer::Done { id, .. }) => id,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    net.settle();
    let labels: Vec<_> = ids.iter().map(|&id| net.label(0, id).expect("here")).collect();
    assert_eq!(labels, [Label::PendingAcceptance, Label::Failed, Label::Failed]);
}

//= SPEC IRC-11 test
#[test]
fn one_effect_for_each_token() {
    let mut net = Net::new(2);
    let first = net.ask_as(0, ALICE, 500, wish(1, 1)).expect("taken");
    let Answer::Done { id, .. } = first else { panic!("done") };
    assert_eq!(net.ask_as(0, ALICE, 500, wish(1, 1)), Ok(first.clone()));
    assert_eq!(net.control(0).ledger.peerings.len(), 1);
    assert_eq!(net.ask_as(0, ALICE, 500, wish(1, 2)), Err(CallError::TokenMismatch));
    net.settle();
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(0);
    }
    assert_eq!(net.label(0, id), None, "forgotten");
    assert_eq!(net.ask_as(0, ALICE, 500, wish(1, 1)), Ok(first), "a late replay creates nothing");
    assert_eq!(net.control(0).ledger.peerings.len(), 0);
}

//= SPEC IRC-12 test
#[test]
fn what_may_still_arrive_is_not_yet_visible() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    assert_eq!(net.change(1, id, Verb::Accept), Err(CallError::NotYetVisible));
    net.settle();
    assert_eq!(net.change(1, id, Verb::Accept), Ok(Label::Provisioning));
    assert_eq!(net.change(0, OpId { seq: 9, ..id }, Verb::Delete), Err(CallError::NotFound));
    net.change(1, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(1);
    }
    assert_eq!(net.change(1, id, Verb::Delete), Err(CallError::NotFound), "it was here");
}

//= SPEC IRC-3 test
#[test]
fn options_change_only_as_expected() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let zero = Version { n: 1, counter: 0 };
    let one = Version { n: 1, counter: 1 };
    let modify = |expected| Request::Modify { id, expected, resolve_names: true };
    assert_eq!(net.ask(0, ALICE, modify(one)), Err(CallError::VersionConflict(zero)));
    assert_eq!(net.ask(0, ALICE, modify(zero)), Ok(Answer::Version { id, version: one }));
    // Each side has its own; at the same time A accepts.
    let own = Version::default();
    let a = net.ask(1, ALICE, modify(own));
    assert_eq!(a, Ok(Answer::Version { id, version: Version { n: 1, counter: 0 } }));
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    for region in [0, 1] {
        let one = net.control(region).ledger.peerings.cloned(&id).expect("here");
        assert!(
            one.requested.facts.options.resolve_names && one.decided.facts.options.resolve_names
        );
    }
}

//= SPEC IRC-8 test
#[test]
fn a_half_depends_on_facts_alone() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    // Everything else ends; the halves stay.
    net.down = [1, 2, 3].into();
    net.start(0);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Active));
    // A deletion needs nobody.
    net.change(0, id, Verb::Delete).expect("deleted");
    assert!(!net.control(0).ledger.on.contains(&id));
    assert_eq!(net.label(0, id), Some(Label::Deleting));
}

//= SPEC IRC-9 test
#[test]
fn a_pair_is_busy_until_its_end_is_confirmed() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Reject).expect("rejected");
    assert_eq!(net.ask(1, ALICE, wish(0, 1)), Err(CallError::PairBusy(id)));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Rejected));
    let next = net.create(1, 0, 1);
    net.settle();
    assert_eq!(net.labels(next), both(Label::PendingAcceptance));
}

//= SPEC IRC-10 test
#[test]
fn a_late_request_does_not_rise() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.fire(2, Timer::Poll);
    // The call is repeated by the network, very late.
    let mut late = None;
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if matches!(msg, Msg::Call(_)) {
            late = Some((src, dst, msg.clone()));
        }
        net.deliver(src, dst, msg);
    }
    net.settle();
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(0);
        net.tick(1);
    }
    assert_eq!(net.labels(id), [None, None]);
    let (src, dst, msg) = late.expect("there was a call");
    net.deliver(src, dst, msg);
    let Some((.., Msg::Reply(reply))) = net.queue.pop_back() else { panic!("a reply") };
    assert_eq!(reply.status, Status::Gone);
    assert_eq!(net.labels(id), [None, None]);
}

#[test]
fn nobody_decides_in_time() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    for _ in 0..2 {
        net.tick(1);
    }
    assert_eq!(net.label(1, id), Some(Label::PendingAcceptance));
    net.tick(1);
    assert_eq!(net.label(1, id), Some(Label::Expired));
    assert!(net.change(1, id, Verb::Accept).is_err());
    net.settle();
    assert_eq!(net.labels(id), both(Label::Expired));
}

//= SPEC IRC-37 test
#[test]
fn the_clock_goes_on_whatever_else_happens() {
    let mut net = Net::new(2);
    net.create(0, 1, 1);
    net.settle();
    // A part of a unit has passed when there is something else to do.
    let left = Policy::default().tick / 2;
    assert!(
        net.timers.insert((1, Timer::Tick), left).is_some(),
        "a request waits for its deadline"
    );
    net.create(1, 0, 2);
    net.settle();
    assert_eq!(net.timers[&(1, Timer::Tick)], left);
    // It comes round, and goes on after a restart.
    for _ in 0..3 {
        net.tick(1);
    }
    net.settle();
    let id = OpId { requester: Region(0), n: 1, seq: 0 };
    assert_eq!(net.labels(id), both(Label::Expired));
    net.start(1);
    assert!(net.timers.contains_key(&(1, Timer::Tick)));
}
