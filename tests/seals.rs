//! Sealed datagrams between real nodes, and the commands for their keys.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use serde_json::Value;
use tenure::config::Config;
use tenure::lease::Member;
use tenure::lease::record::NodeId;
use tenure::node::keys::{keyring, new_secret, renewed, time_of_day, write_secret};
use tenure::node::{Bind, Handle, Node, Spec, launch};
use tenure::wire::seal::{KEY_LEN, Keyring, Listed, SecretKey};
use tenure::wire::{self, HEADER_LEN, Header, Plain, Seal, Sealed};

const LATER: u64 = 4_000_000_000;

fn secret(n: u8) -> SecretKey {
    SecretKey::from_random([n; KEY_LEN])
}

/// The seal of a node whose keys those are; node n is listed with key n + 1, good until then.
fn seal(me: u16, own: u8, not_after: u64) -> Sealed {
    seal_in(CLUSTER, me, own, not_after)
}

fn seal_in(cluster: &str, me: u16, own: u8, not_after: u64) -> Sealed {
    let listed = |n: u16| vec![Listed { public: secret(n as u8 + 1).public(), not_after }];
    let peers: BTreeMap<_, _> = (0..3).map(|n| (NodeId(n), listed(n))).collect();
    let own = [(secret(own), not_after)];
    Sealed::new(Keyring::new(cluster, NodeId(me), &own, &peers).unwrap(), rand::random())
}

fn datagram(seal: &mut dyn Seal, source: u16, destination: u16, n: u64) -> Vec<u8> {
    let header = Header {
        source: NodeId(source),
        destination: NodeId(destination),
        incarnation: 1,
        sequence: n as u32,
    };
    wire::encode(&header, 0, &Say::Ping(n), seal).unwrap()
}

fn with_header(datagram: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (mut header, body) = Header::read(datagram).unwrap();
    change(&mut header);
    [&header.to_bytes(), body].concat()
}

/// Everything that somebody in the network may send to a node from a peer's own address, for want of its key.
//= SPEC SEAL-1 test
//= SPEC SEAL-4 test
//= SPEC SEAL-5 test
#[test]
fn what_no_peer_has_sealed_is_counted_and_has_no_effect() {
    let (peer, other, stranger) = (Peer::new(1), Peer::new(2), Peer::new(1));
    let toy = Toy::new(echo);
    let log = toy.log.clone();
    let mut spec = spec(toy, &[&peer, &other]);
    spec.seal = Box::new(seal(0, 1, LATER));
    let node = Node::start(spec).unwrap();
    let to = node.address();
    let send = |bytes: &[u8]| assert!(peer.socket.send_to(bytes, to).is_ok());
    let mut sealing = seal(1, 2, LATER);

    let good = datagram(&mut sealing, 1, 0, 5);
    send(&good);
    let mut buffer = [0; 2000];
    let (len, _) = peer.socket.recv_from(&mut buffer).unwrap();
    let pong = &buffer[..len];
    let answer = wire::decode::<Say>(NodeId(1), pong, &mut sealing).unwrap();
    assert_eq!(answer.2, Say::Pong(5));

    // Repeated: twice.
    send(&good);
    send(&good);
    // Reflected: the node's own datagram, as it is, and under a peer's name.
    send(pong);
    send(&with_header(pong, |it| (it.source, it.destination) = (NodeId(1), NodeId(0))));
    // One for another node, as it is, and under this node's name.
    let for_other = datagram(&mut sealing, 1, 2, 6);
    send(&for_other);
    send(&with_header(&for_other, |it| it.destination = NodeId(0)));
    // Altered: header, body, tag.
    let fresh = datagram(&mut sealing, 1, 0, 7);
    for at in [8, 14, HEADER_LEN + 2, HEADER_LEN + 20, fresh.len() - 20, fresh.len() - 1] {
        let mut altered = fresh.clone();
        altered[at] ^= 1;
        send(&altered);
    }
    // Cut short, and not sealed at all.
    send(&fresh[..HEADER_LEN + 10]);
    send(&datagram(&mut Plain, 1, 0, 8));
    // By the wrong key; by another peer's, in this one's name; by the right one in another cluster.
    send(&datagram(&mut seal(1, 9, LATER), 1, 0, 9));
    send(&with_header(&datagram(&mut seal(2, 3, LATER), 2, 0, 10), |it| it.source = NodeId(1)));
    send(&datagram(&mut seal_in("another", 1, 2, LATER), 1, 0, 11));
    // From an address that is nobody's: not even looked at.
    stranger.socket.send_to(&datagram(&mut sealing, 1, 0, 12), to).unwrap();
    // A datagram is received a moment before it is counted as what it is.
    until("all are received and judged", || {
        let it = node.counts();
        let dropped = it.dropped_repeated + it.dropped_unknown_peer + it.dropped_misdirected;
        it.received == 19 && dropped + it.dropped_seal + it.delivered == 19
    });
    let counts = node.counts();
    assert_eq!(counts.dropped_repeated, 2);
    // The node's own id is no peer's.
    assert_eq!(counts.dropped_unknown_peer, 1 + 1);
    assert_eq!(counts.dropped_misdirected, 1);
    assert_eq!(counts.dropped_seal, 1 + 1 + 6 + 2 + 3);
    assert_eq!((counts.delivered, log.texts().len()), (1, 2), "its start, and one ping");
    // What it goes by has not been spoiled.
    send(&fresh);
    until("the good one is taken", || node.counts().delivered == 2);
}

//= SPEC SEAL-5 test
#[test]
fn a_node_whose_key_has_run_out_is_neither_heard_nor_spoken_to() {
    fn say_twice(_: &mut u64, event: Event, o: &mut stateright::actor::Out<Toy>) {
        if let Event::Message(..) = event {
            o.send(1.into(), Say::Ping(1));
        }
    }
    let peer = Peer::new(1);
    let mut spec = spec(Toy::new(say_twice), &[&peer]);
    let end = time_of_day() + 2;
    spec.seal = Box::new(seal(0, 1, end));
    let node = Node::start(spec).unwrap();
    let mut sealing = seal(1, 2, end);
    // By the peer's clock the key is good for ever: it does not know the time.
    let early = datagram(&mut sealing, 1, 0, 1);
    peer.socket.send_to(&early, node.address()).unwrap();
    until("it is good until then", || node.counts().sent == 1);
    until("it runs out", || time_of_day() > end);
    let late = datagram(&mut sealing, 1, 0, 2);
    peer.socket.send_to(&late, node.address()).unwrap();
    until("it is refused", || node.counts().dropped_ran_out == 1);
    node.tell(0, Say::Ping(3)).unwrap();
    until("nothing is sent", || node.counts().dropped_no_key == 1);
    let counts = node.counts();
    assert_eq!((counts.sent, counts.delivered, counts.dropped_seal), (1, 1, 0));
    // New keys for both, and all is well: without a start, and with what was heard before still known.
    let ring = |me: u16, own: u8| {
        let listed =
            |n: u16| vec![Listed { public: secret(n as u8 + 1).public(), not_after: LATER }];
        let peers: BTreeMap<_, _> = (0..3).map(|n| (NodeId(n), listed(n))).collect();
        Keyring::new(CLUSTER, NodeId(me), &[(secret(own), LATER)], &peers).unwrap()
    };
    node.renew_keys(ring(0, 1));
    peer.socket.send_to(&late, node.address()).unwrap();
    until("it is taken", || node.counts().sent == 2);
    peer.socket.send_to(&early, node.address()).unwrap();
    until("it is known", || node.counts().dropped_repeated == 1);
}

//= SPEC TIME-15 test
#[test]
fn with_a_seal_a_node_may_talk_to_other_machines() {
    let far: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let mut spec = Spec::new(CLUSTER, NodeId(0), Bind::To(any), vec![any, far]);
    spec.actors.push((0, Toy::new(echo)));
    spec.seal = Box::new(seal(0, 1, LATER));
    // It sends nothing: nobody has said anything to it.
    assert_eq!(Node::start(spec).unwrap().counts().sent, 0);
}

// -------------------------------------------------------------------------------------------------
// A lease
// -------------------------------------------------------------------------------------------------

const NAMES: [&str; 3] = ["a", "b", "s"];

/// A lease of two hosts whose keys are good until then, with one more key for each node if wanted.
fn cluster(directory: &Path, sockets: &[UdpSocket; 3], keys: &[(&str, u64)]) -> Config {
    let mut file = String::from(
        "cluster = \"sealed\"\n[timing]\nlease = \"3s\"\ngive_up = \"2s\"\nrenew = \"500ms\"\n\
         retry = \"100ms\"\npoll = \"100ms\"\njitter = \"20ms\"\nhook = \"100ms\"\n",
    );
    for ((name, role), socket) in NAMES.iter().zip(["host", "host", "store"]).zip(sockets) {
        let address = socket.local_addr().unwrap();
        file += &format!(
            "[[node]]\nname = \"{name}\"\nzone = \"z-{name}\"\nroles = [\"{role}\"]\n\
             address = \"{address}\"\nstorage = \"{name}.redb\"\n"
        );
        for (number, not_after) in keys {
            let path = directory.join(format!("{name}{number}.key"));
            if !path.exists() {
                write_secret(&path, &new_secret().unwrap()).unwrap();
            }
            let public = tenure::node::keys::read_secret(&path).unwrap().public();
            let not_after = jiff_text(*not_after);
            file += &format!(
                "[[node.key]]\npublic = \"{public}\"\nnot_after = \"{not_after}\"\n\
                 secret = \"{name}{number}.key\"\n"
            );
        }
    }
    file += "[[lease]]\nname = \"one\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n";
    Config::parse_in(&file, directory).unwrap()
}

fn jiff_text(seconds: u64) -> String {
    jiff::Timestamp::from_second(seconds as i64).unwrap().to_string()
}

fn permits(host: &Handle<Member>) -> Option<u64> {
    let permit = host.guard(0).unwrap().permit(Duration::ZERO).ok()?;
    Some(permit.epoch())
}

/// A lease is held and renewed under seals, while every node's key is renewed, one node after the other; and when all
/// keys run out, nobody holds it, until there are new ones.
//= SPEC SEAL-6 test
//= SPEC SEAL-10 test
#[test]
fn a_lease_is_held_under_seals_while_keys_are_renewed() {
    // In memory, if the system has a place for that: a disk that stands still for long costs the lease.
    let memory = Path::new("/dev/shm");
    let is_there = memory.is_dir();
    let directory = if is_there { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.unwrap();
    let sockets = NAMES.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let soon = time_of_day() + 7;
    let old = cluster(directory.path(), &sockets, &[("1", soon)]);
    let nodes: [Handle<Member>; 3] = std::array::from_fn(|index| {
        let mut spec = launch::spec(&old, NAMES[index]).unwrap();
        spec.bind = Bind::Socket(sockets[index].try_clone().unwrap());
        Node::start(spec).unwrap()
    });
    let [a, b, _s] = &nodes;
    let held = || permits(a).max(permits(b));
    until("the lease is held", || held().is_some());
    let epoch = held();

    let both = cluster(directory.path(), &sockets, &[("1", soon), ("2", soon + 3)]);
    for (index, node) in nodes.iter().enumerate() {
        let own = both.node(NAMES[index]).unwrap();
        node.renew_keys(renewed(&old, &both, own).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(held(), epoch, "nobody notices");
    }
    // In its last hour a key gives way to the next at once, so some was refused until all had been told.
    let refused = || nodes.iter().map(|node| node.counts().dropped_seal).sum::<u64>();
    let until_told = refused();
    until("the first keys run out", || time_of_day() > soon + 1);
    assert_eq!((held(), refused()), (epoch, until_told), "nor now");
    until("the second, too", || time_of_day() > soon + 3);
    until("a holder that cannot renew ends by itself", || held().is_none());
    let unsent: u64 = nodes.iter().map(|node| node.counts().dropped_no_key).sum();
    assert!(unsent > 0 && refused() == until_told, "{unsent} were not sent");
    let new = cluster(directory.path(), &sockets, &[("3", LATER)]);
    for (index, node) in nodes.iter().enumerate() {
        node.renew_keys(keyring(&new, new.node(NAMES[index]).unwrap()).unwrap());
    }
    until("the lease is held again", || held() > epoch);
}

// -------------------------------------------------------------------------------------------------
// The command line
// -------------------------------------------------------------------------------------------------

fn tenure(directory: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(args)
        .current_dir(directory)
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// From nothing to a cluster file that a node takes, with what the commands print.
//= SPEC SEAL-7 test
//= SPEC SEAL-8 test
//= SPEC SEAL-9 test
#[test]
fn keys_have_commands() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mut file = String::from("cluster = \"keys\"\n");
    for (n, (name, role)) in [("a", "host"), ("b", "host"), ("s", "store")].into_iter().enumerate()
    {
        let path = format!("{name}.key");
        let (code, block, error) = tenure(here, &["keys", "new", "--out", &path]);
        assert_eq!((code, error.as_str()), (0, ""), "{block}");
        let (code, shown, _) = tenure(here, &["keys", "show", &path]);
        assert_eq!(code, 0);
        assert!(block.contains(&format!("public = \"{}\"", shown.trim())), "{block}");
        let secret = fs::read_to_string(here.join(&path)).unwrap();
        assert!(!block.contains(secret.trim().rsplit(':').next().unwrap()), "no secret is printed");
        file += &format!(
            "[[node]]\nname = \"{name}\"\nzone = \"z{n}\"\nroles = [\"{role}\"]\n\
             address = \"192.0.2.{n}:7100\"\nstorage = \"{name}.redb\"\n{block}"
        );
    }
    file += "[[lease]]\nname = \"one\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n";
    fs::write(here.join("cluster.toml"), &file).unwrap();
    let (code, text, _) = tenure(here, &["config", "check", "cluster.toml"]);
    assert_eq!(code, 0, "{text}");
    let status = ["keys", "status", "--config", "cluster.toml"];
    let (code, text, error) = tenure(here, &status);
    assert_eq!(code, 0, "{error}");
    assert_eq!(text.matches("  in use   ").count(), 3, "{text}");
    let (_, text, _) = tenure(here, &[&status[..], &["--json"]].concat());
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(first["expires_in_seconds"].as_u64().unwrap() > 364 * 86_400, "{first}");

    // Never over a key that is there; and none that others can read.
    let before = fs::read(here.join("a.key")).unwrap();
    let (code, _, error) = tenure(here, &["keys", "new", "--out", "a.key"]);
    assert!(code == 1 && error.contains("never overwritten"), "{code} {error}");
    assert_eq!(fs::read(here.join("a.key")).unwrap(), before);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(here.join("a.key"), open).unwrap();
    let (code, _, error) = tenure(here, &["keys", "show", "a.key"]);
    assert!(code == 1 && error.contains("chmod 600"), "{code} {error}");
    let (code, _, error) = tenure(here, &["node", "--config", "cluster.toml", "--id", "a"]);
    assert!(code == 1 && error.contains("chmod 600"), "{code} {error}");
    assert_eq!(tenure(here, &["keys", "new", "--out", "b2.key", "--days", "0"]).0, 2);

    // The key of b runs out in five days; then it has run out.
    let days = |days: u64| jiff_text(time_of_day() + days * 86_400 - 60);
    let of_b = file.split("not_after = \"").nth(2).unwrap().split('"').next().unwrap();
    let with = |date: &str| {
        let at = file.find("name = \"b\"").unwrap();
        let text = format!("{}{}", &file[..at], file[at..].replacen(of_b, date, 1));
        fs::write(here.join("cluster.toml"), text).unwrap();
    };
    with(&days(5));
    let (code, text, _) = tenure(here, &status);
    assert!(code == 1 && text.contains("warning: node \"b\": its last key runs out"), "{text}");
    let (code, text, _) = tenure(here, &["config", "check", "cluster.toml"]);
    assert!(code == 0 && text.contains("runs out at") && text.contains("in 4 d"), "{text}");
    with(&days(0));
    let (code, text, _) = tenure(here, &status);
    assert!(code == 1 && text.contains("  ran out  "), "{text}");
    let (code, text, _) = tenure(here, &["config", "check", "cluster.toml"]);
    assert!(code == 1 && text.contains("node \"b\": its last key has run out"), "{text}");
    let (code, text, _) = tenure(here, &["config", "check", "--json", "cluster.toml"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert!(code == 1 && told["ok"] == false, "{text}");
    assert!(told["errors"][0].as_str().unwrap().contains("has run out"), "{text}");

    // Without keys there is nothing to show, and it is said what to do.
    let at = |line: &str| !line.starts_with("not_after") && !line.starts_with("public");
    let plain: Vec<_> =
        file.lines().filter(|line| at(line) && !line.starts_with("secret")).collect();
    let plain = plain.join("\n").replace("[[node.key]]\n", "");
    fs::write(here.join("cluster.toml"), plain).unwrap();
    let (code, text, _) = tenure(here, &["config", "check", "cluster.toml"]);
    assert!(code == 1 && text.contains("make a key for each with `tenure keys new`"), "{text}");
}
