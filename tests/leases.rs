//! Many leases on the same hosts: what happens to some is nothing to the others (A6, L-39).

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::{Duration, Instant};

use tenure::config::Config;
use tenure::lease::Member;
use tenure::node::{Bind, Exit, Handle, Node, launch};

const NAMES: [&str; 4] = ["a", "b", "s", "t"];
/// The leases whose records are in s, and those whose records are in t.
const IN_S: Range<u16> = 0..24;
const IN_T: Range<u16> = 24..32;

fn file(sockets: &[UdpSocket; 4]) -> String {
    let mut file = String::from(
        "cluster = \"test\"\ninsecure = true\n[timing]\nlease = \"3s\"\ngive_up = \"2s\"\n\
         renew = \"500ms\"\nretry = \"100ms\"\npoll = \"100ms\"\njitter = \"20ms\"\nhook = \"100ms\"\n",
    );
    for ((name, role), socket) in NAMES.iter().zip(["host", "host", "store", "store"]).zip(sockets)
    {
        let address = socket.local_addr().unwrap();
        file += &format!(
            "[[node]]\nname = \"{name}\"\nzone = \"z-{name}\"\nroles = [\"{role}\"]\n\
             address = \"{address}\"\nstorage = \"{name}.redb\"\n"
        );
    }
    for (leases, store) in [(IN_S, "s"), (IN_T, "t")] {
        for lease in leases {
            file += &format!(
                "[[lease]]\nname = \"lease-{lease}\"\nhosts = [\"a\", \"b\"]\nstore = \"{store}\"\n"
            );
        }
    }
    file
}

/// Which leases of these have a holder that may act now, with its host and epoch.
fn held(hosts: &[&Handle<Member>], leases: Range<u16>) -> BTreeMap<u16, (usize, u64)> {
    let of = |lease| {
        hosts.iter().enumerate().find_map(|(host, handle)| {
            let permit = handle.guard(lease).unwrap().permit(Duration::ZERO).ok()?;
            Some((lease, (host, permit.epoch())))
        })
    };
    leases.filter_map(of).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn leases_whose_store_is_away_cost_the_others_nothing() {
    // In memory, if the system has a place for that: a disk that stands still for long costs every lease.
    let memory = std::path::Path::new("/dev/shm");
    let is_there = memory.is_dir();
    let directory = if is_there { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.unwrap();
    let sockets = NAMES.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let config = Config::parse_in(&file(&sockets), directory.path()).unwrap();
    let [a, b, _s, t] = std::array::from_fn(|index| {
        let mut spec = launch::spec(&config, NAMES[index]).unwrap();
        spec.bind = Bind::Socket(sockets[index].try_clone().unwrap());
        Node::start(spec).unwrap()
    });
    let hosts = [&a, &b];
    until("every lease is held", || held(&hosts, 0..32).len() == 32);
    let before = held(&hosts, IN_S);

    assert_eq!(t.kill(), Exit::Killed);
    // Longer than L: time enough to lose what waits for the others.
    let away = Instant::now();
    while away.elapsed() < Duration::from_millis(4500) {
        assert_eq!(held(&hosts, IN_S), before, "a lease of the other store has lost its holder");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(held(&hosts, IN_T), BTreeMap::new(), "without its store nobody holds a lease");

    let mut spec = launch::spec(&config, "t").unwrap();
    spec.bind = Bind::Socket(sockets[3].try_clone().unwrap());
    let _t = Node::start(spec).unwrap();
    until("they are held again", || held(&hosts, IN_T).len() == IN_T.len());
    assert_eq!(held(&hosts, IN_S), before);
}
