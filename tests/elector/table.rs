//! The table.

use super::bench::*;

fn fence(bench: &Bench, node: u16) -> u64 {
    bench.host(node).replica.as_ref().unwrap().table.fence
}

fn saved_fence(effects: &Effects) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Save(Storage::Host(host)) => host.table.as_ref().map(|table| table.fence),
        _ => None,
    })
}

//= SPEC LEASE-17 test
#[test]
fn the_fence_is_raised_and_saved_in_the_step_that_opens_the_replica() {
    let mut bench = Bench::with_table(2).elected();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, bench.store());
    assert!(!bench.is_primary(1));
    let effects = bench.deliver(bench.store(), 1);
    assert!(bench.is_primary(1));
    assert_eq!((fence(&bench, 1), saved_fence(&effects)), (2, Some(2)));
    assert!(
        sends(&effects).iter().any(|(to, msg)| *to == 0 && matches!(msg, Msg::Replicate { .. })),
        "the others are asked where they stand"
    );
}

//= SPEC LEASE-17 test
#[test]
fn a_host_whose_replica_has_seen_a_higher_epoch_ends_its_term_at_once() {
    let mut bench = Bench::with_table(3).elected();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, bench.store());
    // While the answer is under way, a later primary shows itself.
    let probe = Msg::Replicate { epoch: 3, prev: EntryId::default(), entry: None, committed: 0 };
    bench.say(2, 1, probe);
    bench.deliver(bench.store(), 1);
    assert_eq!(bench.phase(1), Phase::Stopping { epoch: 2, then: Then::Watch });
    assert!(!bench.is_primary(1));
}

//= SPEC LEASE-31 test
#[test]
fn the_replica_is_primary_exactly_while_the_elector_holds() {
    let mut bench = Bench::with_table(2).elected();
    assert_eq!([0, 1].map(|host| bench.is_primary(host)), [true, false]);
    bench.fire(0, Timer::Hold(Slot::A));
    // In the very step that ends the term, while the stop hook still runs.
    assert!(!bench.is_primary(0));
    let write = bench.write(1);
    let effects = bench.say(bench.client(), 0, write);
    assert!(matches!(sends(&effects)[..], [(_, Msg::Refused { .. })]));
}

//= SPEC LEASE-31 test
#[test]
fn a_role_without_a_table_is_elected_by_the_same_protocol() {
    let mut job = Bench::new(2).elected();
    let mut table = Bench::with_table(2).elected();
    for bench in [&mut job, &mut table] {
        bench.fire(1, Timer::Watch(Slot::A));
        bench.settle();
        assert_eq!(bench.phase(1).holding(), Some(2));
    }
    assert_eq!(job.record(), table.record());
}

//= SPEC LEASE-18 test
#[test]
fn a_secondary_refuses_writes_and_names_the_holder() {
    let mut bench = Bench::with_table(2).elected();
    let Msg::Apply { request, .. } = bench.write(1) else { unreachable!() };
    let write = bench.write(1);
    let effects = bench.say(bench.client(), 1, write);
    let refusal = Msg::Refused { request, holder: Some(NodeId(0)) };
    assert_eq!(sends(&effects), [(usize::from(bench.client()), refusal)]);
}

//= SPEC LEASE-18 test
#[test]
fn one_write_asked_for_twice_is_applied_once() {
    let mut bench = Bench::with_table(2).elected();
    let client = bench.client();
    let write = bench.write(1);
    bench.say(client, 0, write.clone());
    bench.say(client, 0, write.clone());
    bench.settle();
    // Also by the next primary, which has it from the first.
    bench.fire(1, Timer::Watch(Slot::A));
    bench.settle();
    let effects = bench.say(client, 1, write);
    bench.settle();
    assert_eq!(bench.host(1).replica.as_ref().unwrap().table.last().seq, 1);
    assert!(sends(&effects).iter().all(|(_, msg)| !matches!(msg, Msg::Refused { .. })));
    // Nobody writes in another's name.
    let forged = bench.write(2);
    assert_eq!(bench.say(0, 1, forged), []);
}

//= SPEC LEASE-19 test
#[test]
fn a_write_is_acknowledged_when_every_in_sync_node_has_it() {
    let mut bench = Bench::with_table(3).elected();
    let client = bench.client();
    let write = bench.write(1);
    let effects = bench.say(client, 0, write);
    let applied = |effects: &Effects| {
        sends(effects).iter().any(|(_, msg)| matches!(msg, Msg::Applied { seq: 1, .. }))
    };
    assert!(!applied(&effects));
    bench.deliver(0, 1);
    assert!(!applied(&bench.deliver(1, 0)), "one of two");
    // The copy is saved before it is confirmed.
    let effects = bench.deliver(0, 2);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Save(_))));
    assert!(matches!(sends(&effects)[..], [(0, Msg::Replicated { .. })]));
    assert!(applied(&bench.deliver(2, 0)));
}

//= SPEC LEASE-20 test
#[test]
fn a_silent_replica_leaves_the_set_by_a_committed_write_before_the_primary_goes_on() {
    let mut bench = Bench::with_table(2).elected();
    let (store, client) = (bench.store(), bench.client());
    let write = bench.write(1);
    bench.say(client, 0, write);
    bench.crash(1);
    let first = bench.fire(0, Timer::Resend);
    assert!(!sends(&first).iter().any(|(_, msg)| matches!(msg, Msg::Write { .. })), "patience");
    let effects = bench.fire(0, Timer::Resend);
    let alone: NodeSet = [NodeId(0)].into_iter().collect();
    assert_eq!(write_in(&effects).2.in_sync, alone);
    bench.deliver(0, store);
    assert_eq!(bench.record().claim.in_sync, alone);
    let is_applied =
        |bench: &Bench| bench.mail.iter().any(|(_, _, msg)| matches!(msg, Msg::Applied { .. }));
    assert!(!is_applied(&bench), "committed, and the primary does not know it yet");
    bench.deliver(store, 0);
    assert!(is_applied(&bench));
    // It comes back, catches up, and is taken in again by the same kind of write.
    bench.start(1);
    bench.fire(0, Timer::Resend);
    bench.settle();
    assert_eq!(bench.record().claim.in_sync, alone.with(NodeId(1)));
}

//= SPEC LEASE-21 test
#[test]
fn a_replica_refuses_what_comes_below_its_fence() {
    let mut bench = Bench::with_table(2).elected();
    // The old primary's copy is under way while the next one takes over.
    let write = bench.write(1);
    bench.say(bench.client(), 0, write);
    let late = bench.lose(0, 1);
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, bench.store());
    bench.deliver(bench.store(), 1);
    let effects = bench.say(0, 1, late);
    assert_eq!(sends(&effects), [(0, Msg::Fenced { epoch: 1, fence: 2 })]);
    assert_eq!(bench.host(1).replica.as_ref().unwrap().table.last().seq, 0);
    // And the refusal ends the old term.
    let refusal =
        bench.mail.iter().position(|(_, to, msg)| *to == 0 && matches!(msg, Msg::Fenced { .. }));
    let (from, to, msg) = bench.mail.remove(refusal.unwrap());
    bench.say(from, to, msg);
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-21 test
#[test]
fn a_replica_takes_an_entry_only_next_to_one_on_which_both_agree() {
    let mut bench = Bench::with_table(2).elected();
    let Msg::Apply { request, key, value } = bench.write(2) else { unreachable!() };
    let entry = Some((2, Entry { epoch: 1, request, key, value }));
    let prev = EntryId { seq: 1, epoch: 1 };
    let effects = bench.say(0, 1, Msg::Replicate { epoch: 1, prev, entry, committed: 0 });
    assert_eq!(sends(&effects), [(0, Msg::Behind { epoch: 1, committed: 0 })]);
}

//= SPEC LEASE-22 test
#[test]
fn each_life_has_a_new_incarnation_that_is_saved_in_its_first_step() {
    let mut bench = Bench::with_table(2);
    for life in 1..=3 {
        let effects = bench.start(0);
        let saved = effects.iter().find_map(|effect| match effect {
            Effect::Save(Storage::Host(host)) => Some(host.incarnation),
            _ => None,
        });
        assert_eq!(saved, Some(life));
        let [(_, Msg::Read { nonce })] = sends(&effects)[..] else { panic!("one read") };
        assert_eq!((nonce.by, nonce.n), (Holder { node: NodeId(0), incarnation: life }, 1));
        bench.crash(0);
    }
}

//= SPEC LEASE-23 test
#[test]
fn a_client_asks_from_host_to_host_under_one_name() {
    let mut bench = Bench::with_table(2);
    let client = bench.client();
    bench.start(client);
    let submit = Msg::Submit { key: "k".to_owned(), value: "v".to_owned() };
    let mut effects = bench.say(client, client, submit);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let [(to, Msg::Apply { request, .. })] = &sends(&effects)[..] else { panic!("one write") };
        asked.push((*to, *request));
        effects = bench.fire(client, Timer::Retry);
    }
    let request = RequestId { client: NodeId(client), incarnation: 1, n: 1 };
    assert_eq!(asked, [(0, request), (1, request), (0, request)]);
    // The retry has gone to host 1; its refusal names the holder, and the client follows.
    let refused = Msg::Refused { request, holder: Some(NodeId(0)) };
    let effects = bench.say(1, client, refused);
    assert!(matches!(sends(&effects)[..], [(0, Msg::Apply { .. })]));
    let applied = Msg::Applied { request, epoch: 1, seq: 1 };
    let effects = bench.say(0, client, applied.clone());
    assert!(cancels(&effects, Timer::Retry));
    assert_eq!(bench.say(0, client, applied), [], "a second acknowledgement is a stranger");
}

//= SPEC TIME-4 test
#[test]
fn the_same_inputs_make_the_same_steps() {
    let run = || {
        let mut bench = Bench::with_table(3).elected();
        let mut seen = Vec::new();
        let write = bench.write(1);
        seen.push(bench.say(bench.client(), 0, write));
        seen.push(bench.fire(0, Timer::Attempt));
        seen.push(bench.fire(1, Timer::Watch(Slot::A)));
        bench.settle();
        (seen, bench.states)
    };
    let first = run();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(run(), first);
}
