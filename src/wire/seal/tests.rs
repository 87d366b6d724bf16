use proptest::prelude::*;

use super::*;
use crate::lease::msg::{Entry, EntryId, Msg, RequestId, TEXT_MAX};
use crate::lease::record::{Claim, Expect, Holder, Nonce, Record};
use crate::lease::timing::Timing;
use crate::wire::{
    COUNT_MAX, DATAGRAM_MAX, DecodeError, EncodeError, HEADER_LEN, Headers, decode, encode,
};

const CLUSTER: &str = "orders";
const NOW: u64 = 1_800_000_000;
const LATER: u64 = NOW + 365 * 86_400;

fn secret(n: u8) -> SecretKey {
    SecretKey::from_random([n; KEY_LEN])
}

fn listed(n: u8, not_after: u64) -> Listed {
    Listed { public: secret(n).public(), not_after }
}

/// A node's seal: its own keys by their numbers, and those that its cluster file lists.
fn seal(cluster: &str, me: u16, own: &[(u8, u64)], book: &[(u16, &[(u8, u64)])]) -> Sealed {
    let mut sealed = Sealed::new(ring(cluster, me, own, book), [me as u8; 12]);
    sealed.set_time(NOW);
    sealed
}

fn ring(cluster: &str, me: u16, own: &[(u8, u64)], book: &[(u16, &[(u8, u64)])]) -> Keyring {
    let own: Vec<_> = own.iter().map(|&(n, not_after)| (secret(n), not_after)).collect();
    let all =
        |keys: &[(u8, u64)]| keys.iter().map(|&(n, not_after)| listed(n, not_after)).collect();
    let peers = book.iter().map(|(peer, keys)| (NodeId(*peer), all(keys))).collect();
    Keyring::new(cluster, NodeId(me), &own, &peers).unwrap()
}

/// Three nodes that know each other; node n has key n + 1.
fn three() -> [Sealed; 3] {
    let book: &[(u16, &[(u8, u64)])] =
        &[(0, &[(1, LATER)]), (1, &[(2, LATER)]), (2, &[(3, LATER)])];
    [0, 1, 2].map(|me: u16| seal(CLUSTER, me, &[(me as u8 + 1, LATER)], book))
}

const MSG: Msg = Msg::Changed { version: 77 };

fn say(seal: &mut Sealed, to: u16) -> Vec<u8> {
    say_as(seal, Header { source: seal.keyring.me, destination: NodeId(to), ..HEADER })
}

const HEADER: Header =
    Header { source: NodeId(0), destination: NodeId(1), incarnation: 7, sequence: 9 };

fn say_as(seal: &mut Sealed, header: Header) -> Vec<u8> {
    encode(&header, 3, &MSG, seal).unwrap()
}

fn hear(seal: &mut Sealed, datagram: &[u8]) -> Result<Msg, DecodeError> {
    decode::<Msg>(seal.keyring.me, datagram, seal).map(|(_, _, msg)| msg)
}

fn refused(seal: &mut Sealed, datagram: &[u8]) -> SealError {
    match hear(seal, datagram) {
        Err(DecodeError::Seal(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn with_header(datagram: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (mut header, body) = Header::read(datagram).unwrap();
    change(&mut header);
    [&header.to_bytes(), body].concat()
}

//= SPEC SEAL-1 test
#[test]
fn what_one_node_seals_another_opens_and_nobody_else() {
    let [mut a, mut b, mut c] = three();
    let datagram = say(&mut a, 1);
    assert_eq!(hear(&mut b, &datagram), Ok(MSG));
    // A third node of the same cluster neither reads it, nor can say it in the name of the first.
    let readdressed = with_header(&datagram, |header| header.destination = NodeId(2));
    assert_eq!(refused(&mut c, &readdressed), SealError::UnknownKey);
    let theirs = say(&mut c, 1);
    let in_the_name_of_a = with_header(&theirs, |header| header.source = NodeId(0));
    assert_eq!(refused(&mut b, &in_the_name_of_a), SealError::UnknownKey);
    let body = &datagram[HEADER_LEN..];
    assert!(!body.windows(2).any(|pair| pair == [3, 77]), "the body is not in the open");
}

//= SPEC SEAL-1 test
#[test]
fn a_datagram_that_is_sent_back_is_nobodys() {
    let [mut a, mut b, _] = three();
    let datagram = say(&mut a, 1);
    let back = with_header(&datagram, |header| {
        (header.source, header.destination) = (header.destination, header.source);
    });
    assert_eq!(refused(&mut a, &back), SealError::UnknownKey);
    // Even with the hint of the other direction.
    let mut with_hint = back.clone();
    let answer = say(&mut b, 0);
    with_hint[HEADER_LEN..HEADER_LEN + HINT_LEN]
        .copy_from_slice(&answer[HEADER_LEN..HEADER_LEN + HINT_LEN]);
    assert_eq!(refused(&mut a, &with_hint), SealError::Forged);
}

//= SPEC SEAL-1 test
#[test]
fn the_same_keys_in_another_cluster_or_for_other_ids_open_nothing() {
    let [mut a, ..] = three();
    let datagram = say(&mut a, 1);
    let keys: &[(u16, &[(u8, u64)])] = &[(0, &[(1, LATER)]), (1, &[(2, LATER)])];
    let mut elsewhere = seal("stock", 1, &[(2, LATER)], keys);
    assert_eq!(refused(&mut elsewhere, &datagram), SealError::UnknownKey);
    let moved: &[(u16, &[(u8, u64)])] = &[(5, &[(1, LATER)]), (1, &[(2, LATER)])];
    let mut elsewhere = seal(CLUSTER, 1, &[(2, LATER)], moved);
    let datagram = with_header(&datagram, |header| header.source = NodeId(5));
    assert_eq!(refused(&mut elsewhere, &datagram), SealError::UnknownKey);
}

#[test]
fn who_has_another_key_than_the_file_lists_is_not_heard() {
    let [_, mut b, _] = three();
    let keys: &[(u16, &[(u8, u64)])] = &[(1, &[(2, LATER)])];
    let mut impostor = seal(CLUSTER, 0, &[(9, LATER)], keys);
    let datagram = say(&mut impostor, 1);
    assert_eq!(refused(&mut b, &datagram), SealError::UnknownKey);
    let stranger = with_header(&datagram, |header| header.source = NodeId(40));
    assert_eq!(refused(&mut b, &stranger), SealError::UnknownKey);
    // Nor who seals nothing.
    let plain = encode(&HEADER, 3, &MSG, &mut Plain).unwrap();
    assert_eq!(refused(&mut b, &plain), SealError::Forged);
    let long = Msg::Submit { key: "k".repeat(50), value: String::new() };
    let plain = encode(&HEADER, 3, &long, &mut Plain).unwrap();
    assert_eq!(refused(&mut b, &plain), SealError::UnknownKey);
}

//= SPEC SEAL-4 test
#[test]
fn a_datagram_is_opened_once() {
    let [mut a, mut b, _] = three();
    let datagrams: Vec<_> = (0..100).map(|_| say(&mut a, 1)).collect();
    for datagram in datagrams.iter().rev() {
        assert_eq!(hear(&mut b, datagram), Ok(MSG));
    }
    for datagram in &datagrams {
        assert_eq!(refused(&mut b, datagram), SealError::Repeated);
    }
}

#[test]
fn what_is_not_proved_does_not_move_the_window() {
    let [mut a, mut b, _] = three();
    let mut forged = say(&mut a, 1);
    let counter = HEADER_LEN + HINT_LEN + 12;
    forged[counter..counter + 8].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(refused(&mut b, &forged), SealError::Forged);
    assert_eq!(hear(&mut b, &say(&mut a, 1)), Ok(MSG));
    assert!(b.traffic.contains_key(&NodeId(0)));
    let stranger = with_header(&forged, |header| header.source = NodeId(2));
    assert_eq!(refused(&mut b, &stranger), SealError::UnknownKey);
    assert_eq!(b.traffic.len(), 1, "nothing is kept of who proves nothing");
}

//= SPEC SEAL-2 test
#[test]
fn no_nonce_comes_twice() {
    let [mut a, ..] = three();
    let nonce_of = |datagram: &[u8]| {
        let (header, body) = Header::read(datagram).unwrap();
        let boot: Boot = body[HINT_LEN..HINT_LEN + 12].try_into().unwrap();
        let counter = body[HINT_LEN + 12..FRONT_LEN].try_into().unwrap();
        nonce(&boot, header.incarnation, u64::from_be_bytes(counter))
    };
    // The sequence of the header wraps, or stands still; the seal's own counter does not. With other keys, too.
    let mut nonces = std::collections::BTreeSet::new();
    let mut first = None;
    for n in 0..200_u8 {
        if n == 100 {
            let book: &[(u16, &[(u8, u64)])] = &[(1, &[(2, LATER)])];
            a.renew(ring(CLUSTER, 0, &[(1, LATER)], book));
        }
        let datagram = say(&mut a, 1);
        assert!(nonces.insert(nonce_of(&datagram)), "{n}");
        first.get_or_insert(datagram);
    }
    // A later life has another boot id; and another incarnation, should the boot id be the same.
    let [mut next, ..] = three();
    next.boot = [200; 12];
    assert!(nonces.insert(nonce_of(&say(&mut next, 1))));
    let [mut same, ..] = three();
    assert!(nonces.insert(nonce_of(&say_as(&mut same, Header { incarnation: 8, ..HEADER }))));
    let [mut clone, ..] = three();
    assert_eq!(say(&mut clone, 1), first.unwrap(), "only a copy of a life repeats it");
}

//= SPEC SEAL-5 test
#[test]
fn a_key_that_has_run_out_is_neither_used_nor_believed() {
    let book: &[(u16, &[(u8, u64)])] = &[(0, &[(1, NOW + 10)]), (1, &[(2, LATER)])];
    let mut a = seal(CLUSTER, 0, &[(1, NOW + 10)], book);
    let mut b = seal(CLUSTER, 1, &[(2, LATER)], book);
    let (early, late) = (say(&mut a, 1), say(&mut a, 1));
    b.set_time(NOW + 10);
    assert_eq!(hear(&mut b, &early), Ok(MSG), "its last second");
    b.set_time(NOW + 11);
    assert_eq!(refused(&mut b, &late), SealError::RanOut);
    // Neither side sends any more: each knows both ends.
    let answer = Header { source: NodeId(1), destination: NodeId(0), ..HEADER };
    assert_eq!(encode(&answer, 3, &MSG, &mut b), Err(EncodeError::Seal(SealError::NoKey)));
    a.set_time(NOW + 11);
    assert_eq!(encode(&HEADER, 3, &MSG, &mut a), Err(EncodeError::Seal(SealError::NoKey)));
    // A clock that is set right again makes all good.
    b.set_time(NOW + 9);
    assert_eq!(hear(&mut b, &late), Ok(MSG));
}

//= SPEC SEAL-6 test
#[test]
fn the_key_that_runs_out_first_is_used_until_an_hour_before() {
    let soon = |seconds: u64| NOW + CHANGE_BEFORE + seconds;
    assert_eq!(current([], NOW), None);
    assert_eq!(current([NOW - 1], NOW), None);
    assert_eq!(current([NOW], NOW), Some(0));
    assert_eq!(current([LATER, soon(0)], NOW), Some(1), "an hour is left");
    assert_eq!(current([LATER, soon(0)], NOW + 1), Some(0), "less than an hour");
    assert_eq!(current([NOW + 10, NOW + 20, NOW - 1], NOW), Some(1), "all end soon: the last");
    assert_eq!(current([LATER + 1, LATER, NOW + 20], NOW), Some(1));
}

/// A renewal, node by node and step by step, without a datagram that is lost.
//= SPEC SEAL-6 test
//= SPEC SEAL-10 test
#[test]
fn keys_are_renewed_without_a_moment_in_the_dark() {
    let old = NOW + 30 * 86_400;
    type Book<'a> = &'a [(u16, &'a [(u8, u64)])];
    let before: Book<'_> = &[(0, &[(1, old)]), (1, &[(2, LATER)])];
    let both: Book<'_> = &[(0, &[(1, old), (11, LATER)]), (1, &[(2, LATER)])];
    let after: Book<'_> = &[(0, &[(11, LATER)]), (1, &[(2, LATER)])];
    let mut a = seal(CLUSTER, 0, &[(1, old)], before);
    let mut b = seal(CLUSTER, 1, &[(2, LATER)], before);
    let talk = |a: &mut Sealed, b: &mut Sealed| {
        let said = say(a, 1);
        assert_eq!(hear(b, &said), Ok(MSG));
        assert_eq!(refused(b, &said), SealError::Repeated, "over renewals, too");
        let said = say(b, 0);
        assert_eq!(hear(a, &said), Ok(MSG));
        assert_eq!(refused(a, &said), SealError::Repeated);
        said
    };
    let first = talk(&mut a, &mut b);
    // The owner of the new key is told first, and nobody notices.
    a.renew(ring(CLUSTER, 0, &[(1, old), (11, LATER)], both));
    talk(&mut a, &mut b);
    b.renew(ring(CLUSTER, 1, &[(2, LATER)], both));
    talk(&mut a, &mut b);
    // The clocks differ by half an hour when the old key is about to run out, and when it has.
    for now in [old - CHANGE_BEFORE, old - 60, old + 60, old + 86_400] {
        for (clock_a, clock_b) in [(now - 900, now + 900), (now + 900, now - 900)] {
            a.set_time(clock_a);
            b.set_time(clock_b);
            talk(&mut a, &mut b);
        }
    }
    b.renew(ring(CLUSTER, 1, &[(2, LATER)], after));
    talk(&mut a, &mut b);
    a.renew(ring(CLUSTER, 0, &[(11, LATER)], after));
    talk(&mut a, &mut b);
    assert_eq!(refused(&mut a, &first), SealError::UnknownKey);
}

//= SPEC SEAL-7 test
#[test]
fn no_secret_is_in_what_a_seal_shows() {
    let [mut a, mut b, _] = three();
    let datagram = say(&mut a, 1);
    hear(&mut b, &datagram).unwrap();
    let shown = format!("{a:?} {a:#?} {:?}", a.keyring);
    assert!(!shown.contains("01, 1") && !shown.contains("0101"), "{shown}");
    assert_eq!(format!("{a:?}").len(), format!("{b:?}").len(), "it shows ids alone: {shown}");
}

#[test]
fn the_overhead_is_what_is_added() {
    let [mut a, ..] = three();
    let text = |len: usize| Msg::Submit { key: "k".repeat(len), value: String::new() };
    let plain = encode(&HEADER, 3, &text(9), &mut Plain).unwrap();
    let sealed = encode(&HEADER, 3, &text(9), &mut a).unwrap();
    assert_eq!(sealed.len(), plain.len() + a.overhead());
    // The longest datagram, and one byte more.
    let room = DATAGRAM_MAX - HEADER_LEN - a.overhead();
    let around = room - 10..room;
    let sizes: Vec<_> = around.map(|len| encode(&HEADER, 3, &text(len), &mut a)).collect();
    assert!(sizes.iter().any(|sized| sized.as_ref().is_ok_and(|it| it.len() == DATAGRAM_MAX)));
    assert!(matches!(sizes.last(), Some(Err(EncodeError::Oversize { .. }))));
}

/// Of the lease protocol. Those of regions are in `irc::largest`.
fn largest_messages() -> Vec<Msg> {
    const N: u64 = COUNT_MAX;
    let node = NodeId(NodeId::LIMIT - 1);
    let holder = Holder { node, incarnation: N };
    let nonce = Nonce { by: holder, n: N };
    let in_sync = (0..NodeId::LIMIT).map(NodeId).collect();
    let claim = Claim { holder: Some(holder), epoch: N, lease: Timing::DURATION_MAX, in_sync };
    let record = Record { version: N, nonce, claim: claim.clone() };
    let request = RequestId { client: node, incarnation: N, n: N };
    let text = || "t".repeat(TEXT_MAX);
    let entry = Entry { epoch: N, request, key: text(), value: text() };
    let prev = EntryId { seq: N, epoch: N };
    vec![
        Msg::Read { nonce },
        Msg::ReadOk { nonce, record: record.clone() },
        Msg::Write { nonce, expect: Expect::Version(N), claim },
        Msg::Written { nonce, record: record.clone() },
        Msg::Conflict { nonce, record: record.clone() },
        Msg::Changed { version: N },
        Msg::HandOver { target: node, epoch: N },
        Msg::StepDown { epoch: N },
        Msg::Consent { record },
        Msg::Stopped { epoch: N },
        Msg::Apply { request, key: text(), value: text() },
        Msg::Applied { request, epoch: N, seq: N },
        Msg::Refused { request, holder: Some(node) },
        Msg::Replicate { epoch: N, prev, entry: Some((N, entry)), committed: N },
        Msg::Replicated { epoch: N, matched: N },
        Msg::Behind { epoch: N, committed: N },
        Msg::Fenced { epoch: N, fence: N },
        Msg::Submit { key: text(), value: text() },
    ]
}

//= SPEC SEAL-11 test
#[test]
fn the_largest_message_of_every_kind_fits_a_sealed_datagram() {
    let [mut a, mut b, _] = three();
    let all = largest_messages();
    let mut headers = Headers::new(NodeId(0), u32::MAX);
    for (variant, msg) in (0..).zip(&all) {
        assert_eq!(postcard::to_stdvec(msg).unwrap()[0], variant, "one of each kind, in order");
        let header = headers.next(NodeId(1));
        let sealed = encode(&header, u16::MAX, msg, &mut a).unwrap();
        let opened = decode::<Msg>(NodeId(1), &sealed, &mut b);
        assert_eq!(opened, Ok((header, u16::MAX, msg.clone())));
    }
    let next = [u8::try_from(all.len()).unwrap()];
    let unknown = postcard::take_from_bytes::<Msg>(&next);
    assert_eq!(unknown, Err(postcard::Error::SerdeDeCustom), "there is a kind more");
}

proptest! {
    //= SPEC SEAL-1 test
    //= SPEC SEAL-3 test
    #[test]
    fn any_change_of_a_datagram_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
        let [mut a, mut b, _] = three();
        let datagram = say(&mut a, 1);
        let mut changed = datagram.clone();
        changed[at.index(datagram.len())] ^= 1 << bit;
        prop_assert!(hear(&mut b, &changed).is_err());
        prop_assert_eq!(hear(&mut b, &datagram), Ok(MSG));
    }

    #[test]
    fn a_datagram_that_was_cut_or_prolonged_is_refused(cut: prop::sample::Index, more in 1usize..40) {
        let [mut a, mut b, _] = three();
        let datagram = say(&mut a, 1);
        prop_assert!(hear(&mut b, &datagram[..cut.index(datagram.len())]).is_err());
        let longer = [datagram.as_slice(), &vec![0; more]].concat();
        prop_assert!(hear(&mut b, &longer).is_err());
        prop_assert_eq!(hear(&mut b, &datagram), Ok(MSG));
    }

    //= SPEC TIME-14 test
    #[test]
    fn any_bytes_open_or_not_and_nothing_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..1300),
    ) {
        let [mut a, mut b, _] = three();
        let datagram = say(&mut a, 1);
        let hint = &datagram[HEADER_LEN..HEADER_LEN + HINT_LEN];
        prop_assert!(hear(&mut b, &bytes).is_err());
        let with_header = [&datagram[..HEADER_LEN], &bytes].concat();
        prop_assert!(hear(&mut b, &with_header).is_err());
        let with_hint = [&datagram[..HEADER_LEN], hint, &bytes].concat();
        prop_assert!(hear(&mut b, &with_hint).is_err());
    }

    /// A network that reorders and repeats: each datagram once, whatever comes between.
    //= SPEC SEAL-4 test
    #[test]
    fn each_datagram_counts_once(order in proptest::collection::vec(0usize..60, 0..300)) {
        let [mut a, mut b, _] = three();
        let mut headers = Headers::new(NodeId(0), 7);
        let sent: Vec<_> = (0..60).map(|_| say_as(&mut a, headers.next(NodeId(1)))).collect();
        let mut heard = std::collections::BTreeSet::new();
        for n in order {
            prop_assert_eq!(hear(&mut b, &sent[n]).is_ok(), heard.insert(n));
        }
    }
}
