//! Acquiring and holding.

use super::bench::*;

//= SPEC LEASE-5 test
#[test]
fn an_acquirer_stays_read_only_until_the_commit_is_known() {
    let mut bench = Bench::with_table(2);
    for node in 0..4 {
        bench.start(node);
    }
    let (store, client) = (bench.store(), bench.client());
    bench.deliver(0, store);
    bench.deliver(store, 0);
    bench.deliver(0, store);
    // The store has committed, and the host does not know it yet.
    assert_eq!(bench.record().claim.holder.unwrap().node, NodeId(0));
    assert_eq!(bench.phase(0), Phase::Acquiring);
    let write = bench.write(1);
    let effects = bench.say(client, 0, write.clone());
    assert!(matches!(sends(&effects)[..], [(_, Msg::Refused { .. })]));
    bench.deliver(store, 0);
    assert_eq!(bench.phase(0), HOLDS);
    bench.say(client, 0, write);
    assert_eq!(bench.host(0).replica.as_ref().unwrap().table.log.len(), 1);
}

//= SPEC LEASE-5 test
#[test]
fn an_acquirer_whose_deadline_passes_without_an_answer_watches_again() {
    let mut bench = Bench::new(2).elected();
    bench.fire(1, Timer::Watch(Slot::A));
    assert_eq!(bench.phase(1), Phase::Acquiring);
    let effects = bench.fire(1, Timer::Hold(Slot::A));
    assert_eq!(bench.phase(1), WATCHES);
    assert!(is_read(&effects));
}

//= SPEC LEASE-6 test
#[test]
fn every_attempt_has_a_name_and_a_deadline_of_its_own_from_its_send() {
    let mut bench = Bench::new(2).elected();
    let first = bench.fire(0, Timer::Attempt);
    // Clocks drift: it is given up while the grant still counts.
    bench.fire(0, Timer::Hold(Slot::B));
    let second = bench.fire(0, Timer::Attempt);
    let (one, expect, _) = write_in(&first);
    let (two, expect_again, _) = write_in(&second);
    assert_ne!(one, two);
    assert_eq!([expect, expect_again], [Expect::Version(1); 2]);
    for effects in [first, second] {
        assert_eq!(sets(&effects, Timer::Hold(Slot::B)), Some(G..G));
        assert!(sets(&effects, Timer::Hold(Slot::A)).is_none(), "the grant's deadline stays");
    }
}

//= SPEC LEASE-7 test
#[test]
fn only_the_answer_to_the_attempt_under_way_counts() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    let late = bench.lose(store, 0);
    bench.fire(0, Timer::Hold(Slot::B));
    bench.fire(0, Timer::Attempt);
    let before = bench.elector(0).clone();
    assert_eq!(bench.say(store, 0, late), []);
    assert_eq!(*bench.elector(0), before);
}

//= SPEC LEASE-7 test
#[test]
fn a_committed_renewal_makes_the_deadline_of_its_own_send_the_one_that_counts() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
    assert!(cancels(&effects, Timer::Hold(Slot::A)));
    assert!(sets(&effects, Timer::Hold(Slot::B)).is_none(), "not counted from the answer");
    assert!(bench.is_armed(0, Timer::Hold(Slot::B)));
}

//= SPEC LEASE-8 test
#[test]
fn lost_answer_is_read_back() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    bench.lose(store, 0);
    bench.fire(0, Timer::Hold(Slot::B));
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    // The conflict shows the host's own earlier write: it still holds, and claims over that.
    let effects = bench.deliver(store, 0);
    assert_eq!(bench.phase(0), HOLDS);
    assert_eq!(write_in(&effects).1, Expect::Version(2));
    assert!(bench.is_armed(0, Timer::Hold(Slot::A)), "the deadline has not moved");
    bench.deliver(0, store);
    bench.deliver(store, 0);
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
    assert_eq!(bench.record().version, 3);
}

//= SPEC LEASE-8 test
#[test]
fn a_write_that_the_network_doubles_is_granted_by_either_answer() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    let write = bench.lose(0, store);
    bench.say(0, store, write.clone());
    bench.say(0, store, write);
    assert!(matches!(bench.lose(store, 0), Msg::Written { .. }));
    // Only the refusal of the second copy arrives, and it carries the attempt's own name.
    bench.deliver(store, 0);
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
}

//= SPEC LEASE-8 test
#[test]
fn another_holder_in_the_answer_ends_the_term_at_once() {
    let mut bench = Bench::new(2).elected();
    let other = Holder { node: NodeId(1), incarnation: 1 };
    bench.overwrite(|claim| (claim.holder, claim.epoch) = (Some(other), 2));
    bench.renew(0);
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-8 test
#[test]
fn a_foreign_change_of_another_field_does_not_end_the_term() {
    let mut bench = Bench::new(2).elected();
    bench.overwrite(|claim| claim.lease += Duration::from_secs(1));
    bench.renew(0);
    assert_eq!(bench.phase(0), HOLDS);
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
}

//= SPEC LEASE-9 test
#[test]
fn the_deadline_is_final_even_while_a_renewal_is_in_flight() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Attempt);
    bench.fire(0, Timer::Hold(Slot::A));
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-9 test
#[test]
fn a_holder_that_is_cut_off_asks_nobody() {
    let mut bench = Bench::new(2).elected();
    bench.crash(bench.store());
    bench.fire(0, Timer::Attempt);
    bench.fire(0, Timer::Attempt);
    assert_eq!(bench.phase(0), HOLDS);
    let effects = bench.fire(0, Timer::Hold(Slot::A));
    // What it sends is to itself: stop.
    assert_eq!(sends(&effects), [(0, Msg::Stopped { epoch: 1 })]);
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-10 test
#[test]
fn renewal_arrives_after_expiry() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    // Its own deadline passes before its answer comes, and before that of the grant.
    bench.fire(0, Timer::Hold(Slot::B));
    assert_eq!(bench.phase(0), HOLDS);
    let effects = bench.deliver(store, 0);
    assert_eq!(effects, []);
    assert_eq!(bench.phase(0), HOLDS);
    assert!(bench.is_armed(0, Timer::Hold(Slot::A)), "the holder still has a deadline");
}

//= SPEC LEASE-24 test
#[test]
fn thousand_renewals_keep_holder_and_epoch() {
    let mut bench = Bench::new(2).elected();
    let holder = bench.record().claim.holder;
    for n in 1..=1000 {
        bench.renew(0);
        let record = bench.record();
        assert_eq!((record.claim.holder, record.claim.epoch), (holder, 1));
        assert_eq!(record.version, 1 + n);
    }
}

//= SPEC LEASE-24 test
#[test]
fn each_change_of_holder_raises_the_epoch_once() {
    let mut bench = Bench::new(2).elected();
    // A takeover: the one who takes raises it.
    bench.fire(1, Timer::Watch(Slot::A));
    bench.settle();
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 2, slot: Slot::A });
    // A release: the one who releases raises it, and the successor keeps that.
    bench.say(1, 1, Msg::StepDown { epoch: 2 });
    bench.hook_done(1);
    bench.deliver(1, bench.store());
    assert_eq!(bench.record().claim.epoch, 3);
    bench.renew(0);
    bench.hook_done(0);
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 3, slot: Slot::A });
}

//= SPEC LEASE-24 test
#[test]
fn a_takeover_whose_answer_was_lost_is_found_by_asking_again() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, store);
    bench.lose(store, 1);
    bench.fire(1, Timer::Attempt);
    bench.settle();
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 2, slot: Slot::A });
    assert_eq!(bench.record().version, 2, "one write, sent twice");
}

//= SPEC LEASE-24 test
#[test]
fn a_takeover_that_was_given_up_is_claimed_again_as_a_term_of_its_own() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, store);
    bench.lose(store, 1);
    assert_eq!(bench.record().claim.epoch, 2);
    bench.fire(1, Timer::Hold(Slot::A));
    assert_eq!(bench.phase(1), WATCHES);
    bench.settle();
    // Nobody has ever acted under epoch 2.
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 3, slot: Slot::A });
}

//= SPEC LEASE-37 test
#[test]
fn each_watcher_reports_the_holder_that_the_record_names() {
    let mut bench = Bench::new(3).elected();
    let reported = |bench: &Bench| {
        [0, 1, 2].map(|node: usize| {
            let state = bench.states[node].as_ref().unwrap();
            match bench.members[node].view(Id::from(node), state) {
                View::Host(view) => view.holder.unwrap(),
                other => panic!("a host: {other:?}"),
            }
        })
    };
    assert_eq!(reported(&bench), [NodeId(0); 3]);
    bench.fire(1, Timer::Watch(Slot::A));
    bench.settle();
    bench.fire(0, Timer::Attempt);
    bench.fire(2, Timer::Poll);
    bench.settle();
    assert_eq!(reported(&bench), [NodeId(1); 3]);
}

//= SPEC LEASE-29 test
#[test]
fn the_record_carries_the_configured_period_to_the_nanosecond() {
    let lease = Duration::new(15, 1);
    let bench = Bench::with(2, false, |_, timing| Timing { lease, ..timing });
    assert_eq!(bench.elected().record().claim.lease, lease);
}

//= SPEC LEASE-32 test
//= SPEC TIME-16 test
#[test]
fn an_unanswered_renewal_is_sent_again_and_an_answered_one_is_followed_by_the_next() {
    let mut bench = Bench::new(2).elected();
    let timing = Timing::DEFAULT;
    let due = bench.timers[0][&Timer::Attempt].clone();
    assert_eq!(due, timing.renew - timing.jitter..timing.renew);
    let effects = bench.fire(0, Timer::Attempt);
    let again = timing.retry - timing.jitter..timing.retry;
    assert_eq!(sets(&effects, Timer::Attempt), Some(again.clone()));
    let effects = bench.fire(0, Timer::Attempt);
    assert_eq!(sets(&effects, Timer::Attempt), Some(again));
    bench.lose(0, bench.store());
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    assert_eq!(sets(&effects, Timer::Attempt), Some(due));
}
