//! More peerings than are kept each on its own: they are packed, and nobody can tell.

use tenure::durable::Durable as _;

use super::net::*;

/// Networks of each region. Each pair of them has a peering.
const NETWORKS: u32 = 17;

fn regions() -> Net {
    Net::with(2, &|control| {
        let first = 40 * u32::from(control.region.0);
        let network = |n: u32| (Network(n), (ALICE, block_of(Network(n + first))));
        control.networks = (1..=NETWORKS).map(network).collect();
        control.policy.quota = [1000; 3];
        control.policy.pending = 100;
    })
}

/// What region 0 has on disk, written as differences only.
#[derive(Default)]
struct Disk {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    last: Option<Storage>,
}

impl Disk {
    /// Writes what has changed, and checks that the rows are what was saved.
    fn write(&mut self, net: &Net) -> Storage {
        let saved = net.saved[0].clone().expect("it has saved");
        saved.difference(self.last.as_ref(), &mut |key, value| match value {
            Some(value) => drop(self.rows.insert(key, value)),
            None => assert!(self.rows.remove(&key).is_some(), "it was there"),
        });
        let mut whole = BTreeMap::new();
        saved.difference(None, &mut |key, value| {
            let before = whole.insert(key, value.expect("all is new"));
            assert!(before.is_none(), "one row, one value");
        });
        assert!(self.rows == whole, "differences add up");
        let mut rows = whole.into_iter();
        let read = Storage::restore(&mut rows).expect("they can be read").expect("there are some");
        assert!(read == saved, "what is read is what was saved");
        self.last = Some(saved);
        read
    }
}

//= SPEC IRC-1 test
#[test]
fn many_peerings_are_kept_as_few_are() {
    let mut net = regions();
    let mut disk = Disk::default();
    let mut ids = Vec::new();
    for n in 0..NETWORKS * NETWORKS {
        let (network, other) = (Network(1 + n % NETWORKS), Network(1 + n / NETWORKS));
        let target = Target { region: Region(1), account: ALICE, network: other };
        let wish = Request::Create { network, target, resolve_names: false };
        match net.ask(0, ALICE, wish) {
            Ok(Answer::Done { id, .. }) => ids.push(id),
            other => panic!("{other:?}"),
        }
        if n % 8 == 0 {
            disk.write(&net);
        }
    }
    assert!(ids.len() > 256);
    for part in ids.chunks(30) {
        net.settle();
        for &id in part {
            assert_eq!(net.change(1, id, Verb::Accept), Ok(Label::Provisioning));
        }
        disk.write(&net);
    }
    net.settle();
    assert!(ids.iter().all(|&id| net.labels(id) == both(Label::Active)));
    // It goes on from what was read, as if nothing had happened.
    net.saved[0] = Some(disk.write(&net));
    net.start(0);
    net.settle();
    assert!(ids.iter().all(|&id| net.labels(id) == both(Label::Active)));
    // A call that was made before the crash is known, and its pair has its peering.
    let target = Target { region: Region(1), account: ALICE, network: Network(1) };
    let wish = Request::Create { network: Network(1), target, resolve_names: false };
    let again = net.ask_as(0, ALICE, 1, wish);
    assert_eq!(again, Ok(Answer::Done { id: ids[0], state: Label::InitiatingRequest }));
    assert_eq!(net.ask(0, ALICE, wish), Err(CallError::PairBusy(ids[0])));
    // Two of three end, in no order, and are forgotten.
    let (kept, over): (Vec<OpId>, Vec<OpId>) = ids.iter().partition(|id| id.seq % 3 == 0);
    for (n, &id) in over.iter().enumerate() {
        let region = n % 2;
        assert_eq!(net.change(region, id, Verb::Delete), Ok(Label::Deleting));
        if n % 40 == 0 {
            net.settle();
            disk.write(&net);
        }
    }
    net.settle();
    for _ in 0..3 {
        net.tick(0);
        net.tick(1);
        disk.write(&net);
    }
    for region in 0..2 {
        let ledger = &net.control(region).ledger;
        assert!(ledger.peerings.keys().eq(kept.iter().copied()), "of region {region}");
        assert!(ledger.on.keys().eq(kept.iter().copied()), "of region {region}");
    }
    assert!(kept.iter().all(|&id| net.labels(id) == both(Label::Active)));
}
