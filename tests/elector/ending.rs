//! The end of a term.

use super::bench::*;

//= SPEC LEASE-11 test
#[test]
fn a_late_answer_after_the_stop_changes_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    assert_eq!(bench.phase(0), Phase::Stopping { epoch: 1, then: Then::Release });
    assert_eq!(bench.elector(0).attempt, None);
    for timer in [Timer::Attempt, Timer::Hold(Slot::A), Timer::Hold(Slot::B)] {
        assert!(!bench.is_armed(0, timer), "{timer:?}");
    }
    assert_eq!(bench.deliver(store, 0), []);
    assert_eq!(bench.phase(0), Phase::Stopping { epoch: 1, then: Then::Release });
}

//= SPEC LEASE-12 test
#[test]
fn release_waits_for_the_stop_hook() {
    let mut bench = Bench::new(2).elected();
    let effects = bench.say(0, 0, Msg::StepDown { epoch: 1 });
    assert_eq!(sends(&effects), [(0, Msg::Stopped { epoch: 1 })]);
    // The hook of another term says nothing about this one.
    assert_eq!(bench.say(0, 0, Msg::Stopped { epoch: 9 }), []);
    assert_eq!(bench.phase(0).writable(), Some(1));
    let effects = bench.hook_done(0);
    assert_eq!(write_in(&effects).2.holder, None);
    assert_eq!(bench.phase(0).writable(), None);
}

//= SPEC LEASE-12 test
#[test]
fn consent_waits_for_the_stop_hook() {
    let mut bench = Bench::new(2).elected();
    let effects = bench.say(0, 0, Msg::HandOver { target: NodeId(1), epoch: 1 });
    assert_eq!(sends(&effects), [(0, Msg::Stopped { epoch: 1 })]);
    let effects = bench.hook_done(0);
    let record = bench.record();
    assert!(sends(&effects).contains(&(1, Msg::Consent { record })));
    assert_eq!(bench.phase(0).writable(), None);
}

//= SPEC LEASE-13 test
#[test]
fn a_consented_hand_over_needs_no_wait() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::HandOver { target: NodeId(1), epoch: 1 });
    bench.hook_done(0);
    let (_, expect, claim) = write_in(&bench.deliver(0, 1));
    assert_eq!((expect, claim.epoch), (Expect::Version(1), 2));
    bench.settle();
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-13 test
#[test]
fn consent_for_an_old_version_does_no_harm() {
    let mut bench = Bench::new(2).elected();
    let old = bench.record();
    bench.renew(0);
    // The watcher has not seen the renewal: it asks, and the store refuses.
    let (_, expect, _) = write_in(&bench.say(0, 1, Msg::Consent { record: old.clone() }));
    assert_eq!(expect, Expect::Version(1));
    bench.settle();
    assert_eq!((bench.phase(0).holding(), bench.phase(1)), (Some(1), WATCHES));
    // Now it has seen it, and does not even ask.
    assert_eq!(bench.say(0, 1, Msg::Consent { record: old }), []);
}

//= SPEC LEASE-13 test
#[test]
fn nobody_consents_for_another() {
    let mut bench = Bench::new(3).elected();
    let record = bench.record();
    assert_eq!(bench.say(2, 1, Msg::Consent { record: record.clone() }), []);
    assert_eq!(bench.say(1, 1, Msg::Consent { record }), []);
    assert_eq!(bench.say(2, 1, Msg::Consent { record: Record::absent() }), []);
    assert_eq!(bench.phase(1), WATCHES);
}

//= SPEC LEASE-14 test
#[test]
fn a_release_leaves_a_tombstone_that_carries_the_next_epoch() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    let (_, expect, _) = write_in(&bench.hook_done(0));
    assert_eq!(expect, Expect::Version(1));
    bench.deliver(0, bench.store());
    let record = bench.record();
    assert_eq!((record.version, record.claim.holder, record.claim.epoch), (2, None, 2));
    assert_eq!(record.claim.in_sync, [NodeId(0), NodeId(1)].into_iter().collect());
}

//= SPEC LEASE-14 test
#[test]
fn a_renewal_that_landed_unseen_is_released_over() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    bench.lose(store, 0);
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    bench.hook_done(0);
    bench.deliver(0, store);
    // The release conflicts with the renewal, and is repeated over it.
    assert_eq!(write_in(&bench.deliver(store, 0)).1, Expect::Version(2));
    bench.deliver(0, store);
    assert!(bench.record().is_free());
}

//= SPEC LEASE-16 test
#[test]
fn late_duplicate_after_release_changes_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    let renewal = bench.lose(0, store);
    bench.say(0, store, renewal.clone());
    bench.deliver(store, 0);
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    bench.hook_done(0);
    bench.deliver(0, store);
    let released = bench.record();
    let effects = bench.say(0, store, renewal);
    assert_eq!(bench.record(), released);
    assert!(matches!(sends(&effects)[..], [(0, Msg::Conflict { .. })]));
}

//= SPEC LEASE-33 test
#[test]
fn after_a_release_the_host_stands_back_until_somebody_leads_or_the_period_has_passed() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    let effects = bench.hook_done(0);
    assert_eq!(sets(&effects, Timer::Yield), Some(L..L));
    bench.deliver(0, store);
    bench.deliver(store, 0);
    bench.deliver(0, store);
    bench.deliver(store, 0);
    // It sees a free record, and leaves it to others.
    let stands_back = Phase::Watching { yielding: Some(Yielding::Anybody), ripe: false };
    assert_eq!(bench.phase(0), stands_back);
    // Nobody wanted it.
    bench.fire(0, Timer::Yield);
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-33 test
#[test]
fn a_hand_over_whose_consent_was_lost_is_said_again() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::HandOver { target: NodeId(1), epoch: 1 });
    bench.hook_done(0);
    bench.lose(0, 1);
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    assert!(matches!(sends(&effects)[..], [(1, Msg::Consent { .. })]));
    bench.settle();
    assert_eq!(bench.phase(1).holding(), Some(2));
}

//= SPEC LEASE-33 test
#[test]
fn a_host_that_has_lost_its_term_contends_again() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Hold(Slot::A));
    let effects = bench.hook_done(0);
    assert_eq!(bench.phase(0), WATCHES);
    assert!(is_read(&effects));
}

//= SPEC LEASE-35 test
#[test]
fn a_hand_over_is_for_this_term_and_for_a_host_that_has_every_write() {
    let mut bench = Bench::new(3).elected();
    let hand_over = |target, epoch| Msg::HandOver { target: NodeId(target), epoch };
    bench.overwrite(|claim| claim.in_sync = claim.in_sync.without(NodeId(2)));
    bench.renew(0);
    bench.settle();
    // To itself, to a node that is no host, to one outside of the in-sync set, in another term.
    for (target, epoch) in [(0, 1), (9, 1), (2, 1), (1, 2)] {
        assert_eq!(bench.say(0, 0, hand_over(target, epoch)), [], "{target} {epoch}");
    }
    assert_eq!(bench.say(0, 0, Msg::StepDown { epoch: 2 }), []);
    bench.say(0, 0, hand_over(1, 1));
    let then = Then::HandOver(NodeId(1));
    assert_eq!(bench.phase(0), Phase::Stopping { epoch: 1, then });
}
