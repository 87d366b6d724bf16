//! Halves that are to go on at once, in a node.

#![allow(clippy::disallowed_methods, reason = "a test waits for a real node")]

use tenure::irc::View;
use tenure::irc::facts::{Options, Requested};
use tenure::irc::ledger::{Ledger, Lost, Peer};
use tenure::irc::peering::{Peering, Side};
use tenure::node::restore::{self, Contents, Owner};
use tenure::node::storage::Legend;
use tenure::node::{Bind, Node, Spec};

use super::net::*;

/// More than messages of other kinds may wait.
const MANY: u64 = 5000;

/// A region that starts with this many peerings that are accepted, and none of whose halves is on.
fn ledger(key: SealKey) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.head.incarnation = Incarnation { n: 1, life: 0 };
    ledger.head.born.insert(1, MANY);
    let (floor, seen, lost) =
        (Some(Incarnation { n: 1, life: 0 }), BTreeMap::new(), Lost::default());
    let peer = Peer { floor, link: Link::Open, seen, disposed: false, lost };
    ledger.peers.insert(Region(1), peer);
    for seq in 0..MANY {
        let id = OpId { requester: Region(0), n: 1, seq };
        let network = Network(u32::try_from(seq).expect("few"));
        let target = Target { region: Region(1), account: BOB, network };
        let requested = Requested {
            account: ALICE,
            network,
            block: block_of(network),
            target,
            token: seq,
            deleted: false,
            options: Options::default(),
        };
        let decided = Decided { decision: Some(Decision::Accepted), ..Decided::default() };
        let mut peering = Peering::new(Side::Requester, key.seal(id, requested));
        peering.decided = Sealed { facts: decided, seal: 1 };
        ledger.peerings.insert(id, peering);
    }
    ledger
}

//= SPEC TIME-19 test
#[test]
fn however_many_halves_are_to_go_on_at_once_all_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("r0.redb");
    let control = control(0, 2, &|_| ());
    let legend = Legend { regions: vec!["r0".into(), "r1".into()], tick: control.policy.tick };
    let owner = Owner { cluster: "halves".into(), node: control.me, legend: legend.clone() };
    let contents = Contents { ledger: ledger(control.key), ..Contents::default() };
    restore::write(&owner, &file, contents).expect("written");
    let own = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut spec = Spec::new("halves", control.me, Bind::To(own), vec![own]);
    spec.storage = Some(file);
    spec.legend = Some(legend);
    spec.actors = vec![(0, Party::Control(control))];
    let node = Node::start(spec).expect("it starts");
    let on = || match node.views(0).expect("it is there").borrow().as_ref().map(|one| &one.view) {
        Some(View::Control(view)) => view.ledger.on.len() as u64,
        _ => 0,
    };
    let begun = std::time::Instant::now();
    while on() < MANY && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(on(), MANY);
    assert_eq!(node.counts().dropped_handed_back, 0);
    node.stop();
}
