//! What it costs to seal a datagram and to open it again.
//!
//! `cargo bench --bench seals`. A figure is the time in which one message becomes a datagram and the datagram a message:
//! with `plain` by the codec alone, with `sealed` by a node's seal and that of its peer besides. Every datagram is
//! another one, since a seal opens none twice. `renewal` is the write by which a holder renews its lease; `copy` carries
//! the longest key and value that a table takes to a replica.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tenure::lease::msg::{Entry, EntryId, Msg, RequestId, TEXT_MAX};
use tenure::lease::record::{Claim, Expect, Holder, NodeId, NodeSet, Nonce};
use tenure::wire::seal::{KEY_LEN, Keyring, Listed, SecretKey};
use tenure::wire::{Headers, Plain, Seal, Sealed, decode, encode};

const HOST: NodeId = NodeId(0);
const OTHER: NodeId = NodeId(1);
const EPOCH: u64 = 12;

fn renewal() -> Msg {
    let holder = Holder { node: HOST, incarnation: 3 };
    let in_sync: NodeSet = [HOST, OTHER].into_iter().collect();
    Msg::Write {
        nonce: Nonce { by: holder, n: 40_000 },
        expect: Expect::Version(90_000),
        claim: Claim {
            holder: Some(holder),
            epoch: EPOCH,
            lease: Duration::from_secs(15),
            in_sync,
        },
    }
}

fn copy() -> Msg {
    let request = RequestId { client: NodeId(4), incarnation: 2, n: 70_000 };
    let text = || "t".repeat(TEXT_MAX);
    Msg::Replicate {
        epoch: EPOCH,
        prev: EntryId { seq: 70_000, epoch: EPOCH },
        entry: Some((70_001, Entry { epoch: EPOCH, request, key: text(), value: text() })),
        committed: 70_000,
    }
}

/// The seals of two nodes that know each other.
fn seals() -> [Sealed; 2] {
    let secret = |node: NodeId| SecretKey::from_random([node.0 as u8 + 1; KEY_LEN]);
    let listed = |node| vec![Listed { public: secret(node).public(), not_after: u64::MAX }];
    let book: BTreeMap<_, _> = [HOST, OTHER].map(|node| (node, listed(node))).into();
    [HOST, OTHER].map(|me| {
        let ring = Keyring::new("bench", me, &[(secret(me), u64::MAX)], &book);
        Sealed::new(ring.expect("good keys"), [me.0 as u8; 12])
    })
}

fn seals_and_codec(criterion: &mut Criterion) {
    for (name, msg) in [("renewal", renewal()), ("copy", copy())] {
        let mut group = criterion.benchmark_group(format!("seals/{name}"));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
        let [from, to] = seals();
        let plain: [Box<dyn Seal>; 2] = [Box::new(Plain), Box::new(Plain)];
        let sealed: [Box<dyn Seal>; 2] = [Box::new(from), Box::new(to)];
        for (name, [mut from, mut to]) in [("plain", plain), ("sealed", sealed)] {
            let mut headers = Headers::new(HOST, 3);
            let mut there_and_back = || {
                let sent = encode(&headers.next(OTHER), 0, black_box(&msg), &mut *from);
                let sent = sent.expect("it fits");
                let read = decode::<Msg>(OTHER, black_box(&sent), &mut *to);
                (sent.len(), read.expect("it opens"))
            };
            let (size, (_, _, read)) = there_and_back();
            assert_eq!(read, msg);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(format!("{name}/{size} bytes"), |bencher| {
                bencher.iter(&mut there_and_back);
            });
        }
        group.finish();
    }
}

criterion_group!(benches, seals_and_codec);
criterion_main!(benches);
