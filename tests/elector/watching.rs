//! Starting and watching.

use super::bench::*;

//= SPEC LEASE-1 test
#[test]
fn a_restarted_holder_resumes_nothing_and_needs_a_new_epoch() {
    let mut bench = Bench::new(2).elected();
    bench.crash(0);
    let effects = bench.start(0);
    assert_eq!(bench.phase(0), WATCHES);
    assert!(is_read(&effects));
    // The record names its earlier life, which is nobody's own: it waits like everybody else.
    bench.settle();
    assert_eq!(bench.phase(0), WATCHES);
    assert!(bench.is_armed(0, Timer::Watch(Slot::A)));
    bench.fire(0, Timer::Watch(Slot::A));
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-2 test
#[test]
fn a_hint_is_a_reason_to_read_and_moves_no_timer() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let before = bench.timers[1][&Timer::Watch(Slot::A)].clone();
    let effects = bench.say(store, 1, Msg::Changed { version: 7 });
    assert!(is_read(&effects));
    assert!(sets(&effects, Timer::Watch(Slot::A)).is_none());
    assert_eq!(bench.timers[1][&Timer::Watch(Slot::A)], before);
    assert_eq!(bench.elector(1).seen.as_ref().unwrap().version, 1);
}

//= SPEC LEASE-2 test
#[test]
fn the_answer_to_a_replaced_read_is_not_looked_at() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Poll);
    bench.deliver(1, store);
    let late = bench.lose(store, 1);
    let first = bench.elector(1).reading.unwrap().nonce;
    while bench.elector(1).reading.unwrap().nonce == first {
        bench.fire(1, Timer::Poll);
    }
    let before = bench.elector(1).clone();
    assert_eq!(bench.say(store, 1, late), []);
    assert_eq!(*bench.elector(1), before);
}

//= SPEC LEASE-2 test
#[test]
fn a_free_record_is_taken_at_once() {
    let mut bench = Bench::new(2);
    bench.start(0);
    bench.start(bench.store());
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    let (_, expect, claim) = write_in(&effects);
    assert_eq!((expect, claim.epoch), (Expect::Version(0), 1));
    assert_eq!(bench.phase(0), Phase::Acquiring);
}

//= SPEC LEASE-2 test
#[test]
fn a_record_in_the_name_of_the_running_life_is_taken_at_once_with_a_new_epoch() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Hold(Slot::A));
    bench.hook_done(0);
    bench.deliver(0, bench.store());
    let (_, expect, claim) = write_in(&bench.deliver(bench.store(), 0));
    assert_eq!((expect, claim.epoch), (Expect::Version(1), 2));
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-3 test
#[test]
fn a_changed_version_starts_the_watch_again_and_an_unchanged_one_does_not() {
    let mut bench = Bench::new(2).elected();
    bench.fire(1, Timer::Poll);
    bench.deliver(1, bench.store());
    let effects = bench.deliver(bench.store(), 1);
    assert!(sets(&effects, Timer::Watch(Slot::A)).is_none());
    bench.renew(0);
    let effects = bench.fire(1, Timer::Poll);
    assert!(sets(&effects, Timer::Watch(Slot::A)).is_none(), "not at the send of the read");
    bench.deliver(1, bench.store());
    let effects = bench.deliver(bench.store(), 1);
    assert_eq!(sets(&effects, Timer::Watch(Slot::A)), Some(L..L));
}

//= SPEC LEASE-3 test
#[test]
fn of_two_periods_the_longer_is_waited_for() {
    for (mine, holders, waited) in [(20, 30, 30), (30, 20, 30)] {
        let lease = |host| Duration::from_secs(if host == 0 { holders } else { mine });
        let bench = Bench::with(2, false, |host, timing| Timing { lease: lease(host), ..timing });
        let waited = Duration::from_secs(waited);
        assert_eq!(bench.elected().timers[1][&Timer::Watch(Slot::A)], waited..waited);
    }
}

//= SPEC LEASE-4 test
#[test]
fn the_watched_version_is_written_over_and_no_newer_one() {
    let mut bench = Bench::new(2).elected();
    // The holder renews in the last moment, and the watcher does not know.
    bench.renew(0);
    let (_, expect, _) = write_in(&bench.fire(1, Timer::Watch(Slot::A)));
    assert_eq!(expect, Expect::Version(1));
    bench.deliver(1, bench.store());
    bench.deliver(bench.store(), 1);
    assert_eq!(bench.phase(1), WATCHES);
    assert_eq!(bench.record().claim.holder.unwrap().node, NodeId(0));
}

//= SPEC LEASE-34 test
//= SPEC LEASE-38 test
#[test]
fn an_unanswered_read_keeps_its_name_until_it_is_as_old_as_the_give_up_time() {
    let mut bench = Bench::new(2).elected();
    let poll = Timing::DEFAULT.poll;
    let times = Timing::DEFAULT.give_up.as_millis() / poll.as_millis();
    let mut nonces: Vec<Nonce> = Vec::new();
    for _ in 0..times {
        let effects = bench.fire(1, Timer::Poll);
        let [(_, Msg::Read { nonce })] = sends(&effects)[..] else { panic!("one read") };
        nonces.push(nonce);
        assert_eq!(sets(&effects, Timer::Poll).unwrap().end, poll, "the wait is always the same");
    }
    let first = nonces[0];
    assert!(nonces.iter().all(|&nonce| nonce == first), "{nonces:?}");
    let effects = bench.fire(1, Timer::Poll);
    let [(_, Msg::Read { nonce })] = sends(&effects)[..] else { panic!("one read") };
    assert_ne!(nonce, first, "what is older than G could do no good");
}

//= SPEC LEASE-38 test
#[test]
fn the_answer_to_the_first_of_many_sendings_counts_and_those_to_the_others_do_not() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Poll);
    bench.fire(1, Timer::Poll);
    bench.deliver(1, store);
    bench.deliver(store, 1);
    assert_eq!(bench.elector(1).reading, None);
    let before = bench.states.clone();
    bench.deliver(1, store);
    assert_eq!(bench.deliver(store, 1), []);
    assert_eq!(bench.states, before);
}

//= SPEC LEASE-38 test
#[test]
fn a_renewal_sent_again_is_the_same_write_with_the_hold_timer_of_the_first() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let first = write_in(&bench.fire(0, Timer::Attempt));
    let effects = bench.fire(0, Timer::Attempt);
    assert_eq!(write_in(&effects), first);
    for slot in [Slot::A, Slot::B] {
        assert_eq!(sets(&effects, Timer::Hold(slot)), None, "the deadline counts from the first");
    }
    // Both copies arrive. The second is refused, because of the first.
    bench.deliver(0, store);
    bench.deliver(0, store);
    bench.deliver(store, 0);
    let before = bench.states.clone();
    assert_eq!(bench.deliver(store, 0), []);
    assert_eq!(bench.states, before);
    assert!(bench.phase(0).holding().is_some());
}

//= SPEC LEASE-38 test
#[test]
fn a_release_sent_again_is_the_same_write() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    let first = write_in(&bench.hook_done(0));
    assert_eq!(write_in(&bench.fire(0, Timer::Attempt)), first);
}

//= SPEC LEASE-36 test
#[test]
fn a_node_outside_the_in_sync_set_never_takes_over() {
    let mut bench = Bench::new(2).elected();
    let me = NodeId(1);
    bench.overwrite(|claim| claim.in_sync = claim.in_sync.without(me));
    bench.fire(1, Timer::Poll);
    bench.settle();
    assert!(!bench.is_armed(1, Timer::Watch(Slot::A)), "it does not even watch");
    // Not when the lease is free, and not when the holder consents.
    let record = bench.record();
    assert_eq!(bench.say(0, 1, Msg::Consent { record }), []);
    bench.overwrite(|claim| claim.holder = None);
    bench.fire(1, Timer::Poll);
    bench.settle();
    assert_eq!(bench.phase(1), WATCHES);
    assert!(bench.record().is_free());
}

//= SPEC LEASE-30 test
#[test]
fn only_the_store_is_believed_about_the_record_and_only_the_own_host_commands() {
    let mut bench = Bench::new(3).elected();
    bench.fire(1, Timer::Poll);
    let nonce = bench.elector(1).reading.unwrap().nonce;
    let before = bench.states.clone();
    let record = Record::absent();
    assert_eq!(bench.say(2, 1, Msg::ReadOk { nonce, record }), []);
    assert_eq!(bench.say(2, 1, Msg::Changed { version: 9 }), []);
    assert_eq!(bench.say(1, 0, Msg::StepDown { epoch: 1 }), []);
    assert_eq!(bench.say(1, 0, Msg::HandOver { target: NodeId(1), epoch: 1 }), []);
    assert_eq!(bench.say(1, 0, Msg::Stopped { epoch: 1 }), []);
    assert_eq!(bench.states, before);
}
