//! The store.

use super::bench::*;

//= SPEC LEASE-15 test
#[test]
fn a_read_after_a_committed_write_shows_it_also_after_a_crash_of_the_store() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.renew(0);
    let written = bench.record();
    bench.crash(store);
    bench.start(store);
    let nonce = Nonce { by: Holder { node: NodeId(1), incarnation: 1 }, n: 77 };
    let effects = bench.say(1, store, Msg::Read { nonce });
    assert_eq!(sends(&effects), [(1, Msg::ReadOk { nonce, record: written })]);
    // A store has no timer: no time ends a lease there.
    assert!(bench.timers[usize::from(store)].is_empty());
}

//= SPEC LEASE-16 test
#[test]
fn the_store_saves_before_it_answers_and_adds_one_to_the_version() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Attempt);
    let effects = bench.deliver(0, bench.store());
    let [Effect::Save(Storage::Store(saved)), Effect::Send(_, Msg::Written { record, .. })] =
        &effects[..]
    else {
        panic!("a save, then an answer: {effects:?}")
    };
    assert_eq!((saved, record.version), (record, 2));
}

//= SPEC LEASE-16 test
#[test]
fn a_refusal_shows_the_record_and_changes_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let record = bench.record();
    let nonce = Nonce { by: Holder { node: NodeId(1), incarnation: 1 }, n: 77 };
    let claim = Claim { holder: Some(nonce.by), ..record.claim.clone() };
    for version in [0, 2] {
        let (expect, claim) = (Expect::Version(version), claim.clone());
        let effects = bench.say(1, store, Msg::Write { nonce, expect, claim });
        let refusal = Msg::Conflict { nonce, record: record.clone() };
        assert_eq!(effects, [Effect::Send(Id::from(1), refusal)]);
    }
    assert_eq!(bench.record(), record);
}

/// Whoever writes for another, or has no part in the lease, is not heard; the operator of the store is.
//= SPEC LEASE-39 test
#[test]
fn a_host_writes_only_about_itself_and_others_write_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let record = bench.record();
    let life = |node| Holder { node: NodeId(node), incarnation: 1 };
    let write = |by: u16, holder: Option<u16>| {
        let claim = Claim { holder: holder.map(life), epoch: 2, ..record.claim.clone() };
        let nonce = Nonce { by: life(by), n: 77 };
        Msg::Write { nonce, expect: Expect::Version(record.version), claim }
    };
    let client = bench.client();
    for (from, by, holder) in [
        (1, 1, Some(0)),
        (1, 0, Some(0)),
        (client, client, None),
        (client, client, Some(client)),
        (client, 1, Some(1)),
        (60, 60, None),
    ] {
        assert_eq!(bench.say(from, store, write(by, holder)), [], "{from} {holder:?}");
    }
    assert_eq!(bench.record(), record);
    let effects = bench.say(store, store, write(60, None));
    assert!(matches!(&effects[..], [Effect::Save(_)]), "{effects:?}");
    assert!(bench.record().is_free());
    let mut bench = Bench::new(2).elected();
    let effects = bench.say(1, store, write(1, Some(1)));
    assert!(matches!(&effects[..], [Effect::Save(_), Effect::Send(..)]), "{effects:?}");
}

//= SPEC LEASE-28 test
#[test]
fn two_leases_have_different_primaries() {
    // The same two nodes, one bench for each lease: nothing that a member knows is shared.
    let mut orders = Bench::new(2).elected();
    let mut stock = Bench::new(2).elected();
    stock.fire(1, Timer::Watch(Slot::A));
    stock.settle();
    orders.renew(0);
    assert_eq!((orders.phase(0).holding(), orders.phase(1).holding()), (Some(1), None));
    assert_eq!(stock.phase(1).holding(), Some(2));
    assert_eq!(orders.record().claim.holder.unwrap().node, NodeId(0));
    assert_eq!(stock.record().claim.holder.unwrap().node, NodeId(1));
}
