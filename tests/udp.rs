//! Nodes over real datagrams on loopback: the runtime's duties, one by one.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use common::*;
use stateright::actor::{Id, Out};
use tenure::lease::record::NodeId;
use tenure::node::clock::BootInstant;
use tenure::node::storage::Store;
use tenure::node::{
    Bind, Direction, Exit, HandBack, Handle, Node, NodeError, Spec, StartError, TellError,
};

fn ping_pong(loopback: &str) {
    fn serve(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        let other = Id::from(1);
        match event {
            Event::Message(_, Say::Text(_)) => o.send(other, Say::Ping(1)),
            Event::Message(src, Say::Pong(n)) => {
                *state = n;
                if n < 100 {
                    o.send(src, Say::Ping(n + 1));
                }
            }
            _ => {}
        }
    }
    let sockets = [(); 2].map(|()| UdpSocket::bind(loopback).unwrap());
    let book: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let [first, second] = sockets;
    let mut spec = Spec::new(CLUSTER, NodeId(0), Bind::Socket(first), book.clone());
    spec.actors.push((7, Toy::new(serve)));
    let server = Node::start(spec).unwrap();
    let mut spec = Spec::new(CLUSTER, NodeId(1), Bind::Socket(second), book);
    spec.actors.push((7, Toy::new(echo)));
    let receiver = Node::start(spec).unwrap();
    server.tell(7, Say::Text("serve".to_owned())).unwrap();
    let seen = |node: &Handle<Toy>| node.views(7).unwrap().borrow().clone().map(|p| p.view);
    until("a hundred pongs", || seen(&server) == Some(100));
    assert_eq!(seen(&receiver), Some(100));
    assert_eq!(server.counts().sent, 100);
    assert_eq!(server.counts().delivered, 100);
    assert_eq!((server.stop(), receiver.stop()), (Exit::Stopped, Exit::Stopped));
}

#[test]
fn two_nodes_talk_over_ipv4() {
    ping_pong("127.0.0.1:0");
}

#[test]
fn two_nodes_talk_over_ipv6() {
    ping_pong("[::1]:0");
}

#[test]
fn what_is_no_message_is_counted_and_the_node_goes_on() {
    let (known, stranger) = (Peer::new(1), Peer::new(1));
    let node = start(Toy::new(echo), &[&known]);
    let to = node.address();
    let good = known.datagram(0, 0, &Say::Ping(5));
    let send = |bytes: &[u8]| known.socket.send_to(bytes, to).unwrap();
    let mut unsupported = good.clone();
    unsupported[3] = 77;
    send(b"");
    send(b"GET / HTTP/1.1\r\n\r\n");
    send(&good[..good.len() - 1]);
    send(&unsupported);
    send(&[good.as_slice(), b"more"].concat());
    send(&known.datagram(0, 0, &Say::Ping(u64::MAX)));
    send(&[b'x'; 1201]);
    send(&[0; 60_000]);
    send(&known.datagram(9, 0, &Say::Ping(1)));
    send(&known.datagram(0, 1, &Say::Ping(1)));
    stranger.socket.send_to(&good, to).unwrap();
    let impostor = Peer { id: NodeId(0), ..Peer::new(0) };
    impostor.say(to, &Say::Ping(1));
    let beyond = Peer { id: NodeId(2), ..Peer::new(2) };
    beyond.say(to, &Say::Ping(1));
    known.say(to, &Say::Ping(6));
    assert_eq!(known.hear().unwrap().1, Say::Pong(6));
    until("all received", || node.counts().received == 14);
    let counts = node.counts();
    assert_eq!(counts.dropped_malformed, 6);
    assert_eq!(counts.dropped_oversize, 2);
    assert_eq!(counts.dropped_misdirected, 1);
    assert_eq!(counts.dropped_unknown_lease, 1);
    assert_eq!(counts.dropped_unknown_peer, 3);
    assert_eq!(counts.delivered, 1);
    assert_eq!(node.stop(), Exit::Stopped);
}

#[test]
fn sends_that_cannot_be_are_counted() {
    fn send_badly(_: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(src, _) = event {
            o.send(src, Say::Text("long".repeat(400)));
            o.send(Id::from(5), Say::Ping(1));
            o.send(Id::from(usize::MAX), Say::Ping(1));
            o.send(src, Say::Pong(1));
        }
    }
    let peer = Peer::new(1);
    let node = start(Toy::new(send_badly), &[&peer]);
    peer.say(node.address(), &Say::Ping(1));
    assert_eq!(peer.hear().unwrap().1, Say::Pong(1));
    let counts = node.counts();
    assert_eq!((counts.dropped_unencodable, counts.dropped_unknown_destination), (1, 2));
}

#[test]
fn a_datagram_of_an_earlier_life_is_delivered_and_counted() {
    let peer = Peer::new(1);
    let node = start(Toy::new(echo), &[&peer]);
    for incarnation in [5, 4, 5, 6] {
        let header = tenure::wire::Header {
            source: NodeId(1),
            destination: NodeId(0),
            incarnation,
            sequence: 0,
        };
        let bytes =
            tenure::wire::encode(&header, 0, &Say::Ping(1), &mut tenure::wire::Plain).unwrap();
        peer.socket.send_to(&bytes, node.address()).unwrap();
        peer.hear().unwrap();
    }
    assert_eq!(node.counts().stale_incarnation, 1);
    assert_eq!(node.counts().delivered, 4);
}

fn slow_with_timer(state: &mut u64, event: Event, o: &mut Out<Toy>) {
    match event {
        Event::Start(_) => o.set_timer("t", 20 * MS..20 * MS),
        Event::Timer(_) => {
            *state += 1;
            o.set_timer("t", 20 * MS..20 * MS);
        }
        Event::Message(..) => std::thread::sleep(2 * MS),
        Event::Chosen(_) => {}
    }
}

#[test]
fn a_flood_does_not_delay_a_timer() {
    let peer = Peer::new(1);
    let toy = Toy::new(slow_with_timer);
    let log = toy.log.clone();
    let node = start(toy, &[&peer]);
    for n in 0..300 {
        peer.say(node.address(), &Say::Ping(n));
    }
    until("the flood is handled", || node.counts().delivered == 300);
    node.kill();
    // The handler that arms the timer begins after the time from which the timer counts. So the
    // timer is due this long after the entry at the latest, and at most the message whose handler
    // the node was just about to call may still come between.
    let mut due = BootInstant::NEVER;
    let mut overtaken = 0;
    let mut fired = 0;
    for (at, text) in log.entries() {
        if text == "timer t" || text.starts_with("start") {
            fired += usize::from(text == "timer t");
            assert!(overtaken <= 1, "{overtaken} messages went before a timer that was due");
            due = at.saturating_add(20 * MS);
            overtaken = 0;
        } else if at > due {
            overtaken += 1;
        }
    }
    assert!(fired >= 20, "600 ms of handlers leave time for it, and it fired {fired} times");
}

//= SPEC TIME-8 test
#[test]
fn after_a_pause_the_timers_go_first() {
    let peer = Peer::new(1);
    let toy = Toy::new(slow_with_timer);
    let log = toy.log.clone();
    let node = start(toy, &[&peer]);
    until("it runs", || view(&node).is_some_and(|fired| fired > 0));
    node.pause(2000 * MS);
    std::thread::sleep(200 * MS);
    let paused = log.texts().len();
    for n in 0..20 {
        peer.say(node.address(), &Say::Ping(n));
    }
    std::thread::sleep(50 * MS);
    assert_eq!(log.texts().len(), paused, "it handles nothing");
    until("it goes on", || node.counts().delivered == 20);
    assert_eq!(log.texts()[paused], "timer t");
    assert_eq!(log.texts()[paused + 1], "ping 0 from 1");
}

//= SPEC TIME-8 test
#[test]
fn a_timer_that_is_always_due_does_not_starve_the_socket() {
    fn spin(_: &mut u64, event: Event, o: &mut Out<Toy>) {
        match event {
            Event::Start(_) | Event::Timer(_) => {
                o.set_timer("spin", Duration::ZERO..Duration::ZERO)
            }
            Event::Message(src, Say::Ping(n)) => o.send(src, Say::Pong(n)),
            _ => {}
        }
    }
    let peer = Peer::new(1);
    let node = start(Toy::new(spin), &[&peer]);
    for n in 0..50 {
        peer.say(node.address(), &Say::Ping(n));
        assert_eq!(peer.hear().unwrap().1, Say::Pong(n));
    }
    assert!(node.counts().fired > 50);
    node.tell(0, Say::Ping(1)).unwrap();
    until("a local message gets through", || node.counts().told == 1);
    assert_eq!(node.stop(), Exit::Stopped);
}

//= SPEC TIME-7 test
#[test]
fn an_old_arming_never_fires() {
    fn rearm(_: &mut u64, event: Event, o: &mut Out<Toy>) {
        match event {
            Event::Start(_) => {
                o.set_timer("moved", 1000 * MS..1000 * MS);
                o.set_timer("cancelled", 1000 * MS..1000 * MS);
                o.set_timer("first", 1050 * MS..1050 * MS);
                o.set_timer("second", 1051 * MS..1051 * MS);
            }
            Event::Message(..) => {
                o.set_timer("moved", 10_000 * MS..10_000 * MS);
                o.cancel_timer("cancelled");
            }
            // Both are due when the node resumes; the first takes the second's arming away.
            Event::Timer("first") => o.cancel_timer("second"),
            _ => {}
        }
    }
    let toy = Toy::new(rearm);
    let log = toy.log.clone();
    let node = start(toy, &[]);
    node.tell(0, Say::Ping(1)).unwrap();
    until("told", || node.counts().told == 1);
    node.pause(1200 * MS);
    until("the first", || log.texts().iter().any(|text| text == "timer first"));
    std::thread::sleep(50 * MS);
    assert_eq!(log.texts(), ["start None", "ping 1 from 0", "timer first"]);
}

fn stored(path: &Path) -> u64 {
    let store = Store::open(path, CLUSTER, NodeId(0)).unwrap();
    store.restore::<Number>(0).unwrap().map_or(0, |number| number.0)
}

//= SPEC TIME-10 test
#[test]
fn what_is_acknowledged_or_shown_is_stored_whenever_the_node_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let mut acknowledged = 0;
    for life in 1..=12 {
        let peer = Peer::new(1);
        let mut spec = spec(Toy::new(keep), &[&peer]);
        spec.storage = Some(path.clone());
        let node = Node::start(spec).unwrap();
        assert_eq!(node.incarnation(), life);
        peer.socket.set_read_timeout(Some(MS)).unwrap();
        let end = BootInstant::now().saturating_add(MS * rand::random_range(5..60));
        let mut hear = |deaf: bool| {
            while let Some((header, Say::Pong(n))) = peer.hear() {
                assert_eq!(header.incarnation, life);
                assert!(n > acknowledged, "acknowledgements come in order");
                acknowledged = n;
                if !deaf {
                    break;
                }
            }
        };
        while BootInstant::now() < end {
            for n in 0..20 {
                peer.say(node.address(), &Say::Ping(n));
            }
            hear(false);
        }
        assert_eq!(node.kill(), Exit::Killed);
        hear(true);
        let seen = view(&node).unwrap_or(0);
        let stored = stored(&path);
        assert!(stored >= acknowledged, "{acknowledged} is acknowledged, {stored} is stored");
        assert!(stored >= seen, "{seen} was shown, {stored} is stored");
        acknowledged = stored;
    }
    assert!(acknowledged > 12, "it has done something");
}

#[test]
fn a_stopped_node_has_saved_and_sent_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let peer = Peer::new(1);
    let mut spec = spec(Toy::new(keep), &[&peer]);
    spec.storage = Some(path.clone());
    let node = Node::start(spec).unwrap();
    // Not more than the peer's receive buffer holds.
    for n in 0..150 {
        peer.say(node.address(), &Say::Ping(n));
    }
    until("it has begun", || node.counts().delivered >= 50);
    assert_eq!(node.stop(), Exit::Stopped);
    assert_eq!(node.wait(), Exit::Stopped);
    let handled = node.counts().delivered;
    assert_eq!(stored(&path), handled);
    for n in 1..=handled {
        assert_eq!(peer.hear().unwrap().1, Say::Pong(n));
    }
    assert_eq!(node.tell(0, Say::Ping(1)), Err(TellError::Ended));
    assert!(node.counts().commits < handled, "saves share transactions");
}

//= SPEC TIME-3 test
#[test]
fn a_killed_node_starts_again_on_its_port_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let peer = Peer::new(1);
    let mut first = spec(Toy::new(keep), &[&peer]);
    first.storage = Some(path.clone());
    let book = first.peers.clone();
    let node = Node::start(first).unwrap();
    peer.say(node.address(), &Say::Ping(0));
    assert_eq!(peer.hear().unwrap().1, Say::Pong(1));
    node.kill();
    let mut spec = Spec::new(CLUSTER, NodeId(0), Bind::To(book[0]), book);
    let toy = Toy::new(keep);
    let log = toy.log.clone();
    spec.actors.push((0, toy));
    spec.storage = Some(path);
    let node = Node::start(spec).unwrap();
    peer.say(node.address(), &Say::Ping(0));
    let (header, msg) = peer.hear().unwrap();
    assert_eq!((header.incarnation, header.sequence, msg), (2, 0, Say::Pong(2)));
    assert_eq!(log.texts()[0], "start Some(1)");
}

//= SPEC TIME-15 test
#[test]
fn each_reason_not_to_start_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let start = |me: u16, bind: SocketAddr, peers: Vec<SocketAddr>| {
        Node::start(Spec::<Toy>::new(CLUSTER, NodeId(me), Bind::To(bind), peers)).unwrap_err()
    };
    let error = start(0, address, vec![address]);
    assert_eq!(error, StartError::PortInUse(address));
    assert!(error.to_string().contains(&format!("port {}", address.port())), "{error}");

    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert_eq!(
        start(3, free, vec![address]),
        StartError::NotInAddressBook { me: NodeId(3), nodes: 1 }
    );
    let v6: SocketAddr = "[::1]:9".parse().unwrap();
    assert!(matches!(start(0, free, vec![free, v6]), StartError::AddressFamily { .. }));
    let open: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
    assert!(matches!(start(0, open, vec![free]), StartError::NotLoopback(_)));
    let far: SocketAddr = "192.0.2.1:9".parse().unwrap();
    assert_eq!(start(0, free, vec![free, far]), StartError::NotLoopback(far));
    assert!(matches!(start(0, far, vec![free]), StartError::Bind { .. }));

    let mut twice = spec(Toy::new(echo), &[]);
    twice.actors.push((0, Toy::new(echo)));
    assert_eq!(Node::start(twice).unwrap_err(), StartError::DuplicateLease(0));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    std::fs::write(&path, "somebody's notes").unwrap();
    let mut foreign = spec(Toy::new(echo), &[]);
    foreign.storage = Some(path);
    assert!(matches!(Node::start(foreign).unwrap_err(), StartError::Storage(_)));
}

#[test]
fn too_many_waiting_sends_lose_the_oldest_and_no_save() {
    fn much(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(src, Say::Ping(_)) = event {
            // More than a disk takes in no time, so that all sends have to wait.
            for _ in 0..20_000 {
                *state += 1;
                o.save(Number(*state));
            }
            for n in 0..5000 {
                o.send(src, Say::Pong(n));
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let peer = Peer::new(1);
    let mut spec = spec(Toy::new(much), &[&peer]);
    spec.storage = Some(path.clone());
    let node = Node::start(spec).unwrap();
    peer.say(node.address(), &Say::Ping(1));
    assert_eq!(peer.hear().unwrap().1, Say::Pong(5000 - 4096));
    assert_eq!(node.stop(), Exit::Stopped);
    assert_eq!(node.counts().dropped_overflow, 5000 - 4096);
    assert_eq!(node.counts().sent, 4096);
    assert_eq!(stored(&path), 20_000);
}

#[test]
fn a_cut_is_one_way_or_both_and_heals() {
    let (one, two) = (Peer::new(1), Peer::new(2));
    let node = start(Toy::new(echo), &[&one, &two]);
    // What is cut off is not heard for so long. What is not cut off is waited for.
    let heard = |peer: &Peer| {
        peer.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.say(node.address(), &Say::Ping(1));
        peer.hear().is_some()
    };
    let is_cut_off = |peer: &Peer| {
        peer.socket.set_read_timeout(Some(100 * MS)).unwrap();
        peer.say(node.address(), &Say::Ping(1));
        peer.hear().is_none()
    };
    assert!(heard(&one) && heard(&two));
    node.cut([NodeId(1)], Direction::In);
    assert!(is_cut_off(&one) && heard(&two));
    assert_eq!(node.counts().dropped_cut, 1);
    node.cut([], Direction::In);
    node.cut([NodeId(1)], Direction::Out);
    assert!(is_cut_off(&one) && heard(&two));
    assert_eq!(node.counts().delivered, 5, "the question got through, the answer did not");
    node.cut([], Direction::Both);
    assert!(heard(&one) && heard(&two));
}

#[test]
fn messages_to_itself_come_back_when_the_hook_is_done() {
    fn ask(_: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(_, Say::Text(_)) = event {
            for n in [3, 2, 1] {
                o.send(Id::from(0), Say::Ping(n));
            }
        }
    }
    let toy = Toy::new(ask);
    let log = toy.log.clone();
    let mut spec = spec(toy, &[]);
    spec.hooks = Box::new(|lease: u16, msg: &Say| {
        assert_eq!(lease, 0);
        match msg {
            Say::Ping(1) => HandBack::Now,
            Say::Ping(2) => HandBack::After(30 * MS),
            _ => HandBack::When(Box::pin(tokio::time::sleep(1000 * MS))),
        }
    });
    let node = Node::start(spec).unwrap();
    node.tell(0, Say::Text("go".to_owned())).unwrap();
    until("all are back", || node.counts().handed_back == 3);
    let expected = ["start None", "go", "ping 1 from 0", "ping 2 from 0", "ping 3 from 0"];
    assert_eq!(log.texts(), expected);
    assert_eq!(node.counts().sent, 0);
    assert_eq!(node.tell(9, Say::Ping(1)), Err(TellError::UnknownLease(9)));
    assert_eq!(node.tell(0, Say::Ping(u64::MAX)), Err(TellError::Illegal));
}

/// What ends a term: it goes to the node's hook.
fn end_of_the_term() -> Say {
    Say::Text("end of the term".to_owned())
}

//= SPEC TIME-18 test
#[test]
fn the_end_of_a_term_does_not_wait_for_the_disk_and_is_finished_only_with_it() {
    fn go(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(_, Say::Text(text)) = event
            && text == "go"
        {
            // More than a disk takes in no time.
            for _ in 0..20_000 {
                *state += 1;
                o.save(Number(*state));
            }
            o.send(Id::from(0), Say::Ping(1));
            o.send(Id::from(0), end_of_the_term());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let toy = Toy::new(go);
    let log = toy.log.clone();
    let mut spec = spec(toy, &[]);
    spec.storage = Some(dir.path().join("node.redb"));
    let hooks = log.clone();
    spec.hooks = Box::new(move |_: u16, msg: &Say| {
        hooks.note(if *msg == end_of_the_term() { "its work ends" } else { "hook" });
        HandBack::Now
    });
    let node = Node::start(spec).unwrap();
    node.tell(0, Say::Text("go".to_owned())).unwrap();
    until("both are back", || node.counts().handed_back == 2);
    let expected =
        ["start None", "go", "its work ends", "hook", "ping 1 from 0", "end of the term"];
    assert_eq!(log.texts(), expected);
}

//= SPEC TIME-18 test
#[test]
fn the_end_of_a_term_is_never_dropped() {
    fn go(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(_, Say::Text(text)) = event
            && text == "go"
        {
            for n in 0..5000 {
                o.send(Id::from(0), Say::Ping(n));
            }
            for _ in 0..20_000 {
                *state += 1;
                o.save(Number(*state));
            }
            o.send(Id::from(0), end_of_the_term());
            // These wait for the disk too, and are more than may wait.
            for n in 0..5000 {
                o.send(Id::from(1), Say::Pong(n));
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let toy = Toy::new(go);
    let log = toy.log.clone();
    let peer = Peer::new(1);
    let mut spec = spec(toy, &[&peer]);
    spec.storage = Some(dir.path().join("node.redb"));
    spec.hooks = Box::new(|_: u16, msg: &Say| match msg {
        Say::Ping(_) => HandBack::When(Box::pin(std::future::pending())),
        _ => HandBack::Now,
    });
    let node = Node::start(spec).unwrap();
    node.tell(0, Say::Text("go".to_owned())).unwrap();
    until("it is back", || node.counts().handed_back == 1);
    assert_eq!(log.texts(), ["start None", "go", "end of the term"]);
    assert_eq!(node.counts().dropped_handed_back, 5000 - 4096);
    assert_eq!(node.counts().dropped_overflow, 5000 - 4096);
}

/// What an actor says to itself and nobody would say again comes back, however much it is, and takes no room from
/// the rest.
//= SPEC TIME-19 test
#[test]
fn what_nobody_would_say_again_is_never_dropped() {
    const MANY: u64 = 10_000;
    fn go(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(_, Say::Text(text)) = event
            && text == "go"
        {
            *state = 1;
            o.save(Number(*state));
            for n in 0..MANY {
                o.send(Id::from(0), Say::Pong(n));
            }
            for n in 0..MANY {
                o.send(Id::from(0), Say::Ping(n));
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let toy = Toy::new(go);
    let log = toy.log.clone();
    let mut spec = spec(toy, &[]);
    spec.storage = Some(dir.path().join("node.redb"));
    let node = Node::start(spec).unwrap();
    for round in 1..=2 {
        node.tell(0, Say::Text("go".to_owned())).unwrap();
        until("all are back", || node.counts().handed_back == round * (MANY + 4096));
        assert_eq!(node.counts().dropped_handed_back, round * (MANY - 4096));
    }
    let pongs = log.texts().iter().filter(|text| text.starts_with("pong")).count() as u64;
    assert_eq!(pongs, 2 * MANY);
}

#[test]
fn every_alternative_is_chosen_some_time() {
    fn choose(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Chosen(choice) = event {
            *state |= 1 << choice;
        }
        if *state != 0b111 {
            o.choose_random("never", vec![7]);
            o.remove_random("never");
            o.choose_random("which", vec![0, 1, 2]);
        }
    }
    let node = start(Toy::new(choose), &[]);
    until("all three", || view(&node) == Some(0b111));
}

//= SPEC TIME-11 test
#[test]
fn a_view_permits_no_longer_than_its_timer() {
    fn hold(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        match event {
            Event::Message(_, Say::Ping(n)) => {
                *state += 1;
                o.set_timer("hold", MS * n as u32..MS * n as u32);
                o.save(Number(*state));
            }
            Event::Message(_, Say::Text(_)) => {
                o.cancel_timer("hold");
                // More than a disk takes in no time.
                for _ in 0..20_000 {
                    *state += 1;
                    o.save(Number(*state));
                }
            }
            _ => {}
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let toy = Toy { permission: Some("hold"), ..Toy::new(hold) };
    let mut spec = spec(toy, &[]);
    spec.storage = Some(dir.path().join("node.redb"));
    let node = Node::start(spec).unwrap();
    until("started", || shown(&node).is_some());
    assert_eq!(shown(&node).unwrap().deadline, None);
    let before = BootInstant::now();
    node.tell(0, Say::Ping(10_000)).unwrap();
    until("held", || view(&node) == Some(1));
    let deadline = shown(&node).unwrap().deadline.unwrap();
    assert!(deadline >= before.saturating_add(10_000 * MS));
    assert!(deadline <= BootInstant::now().saturating_add(10_000 * MS));
    // The permission ends while the view that says so still waits for the disk.
    let mut views = node.views(0).unwrap();
    node.tell(0, Say::Text("end".to_owned())).unwrap();
    until("ended", || views.borrow_and_update().as_ref().unwrap().deadline.is_none());
    assert_eq!(view(&node), Some(1));
    until("saved", || view(&node) == Some(20_001));
    node.tell(0, Say::Ping(30_000)).unwrap();
    until("held again", || view(&node) == Some(20_002));
    assert!(shown(&node).unwrap().deadline.is_some());
    node.kill();
    assert_eq!(shown(&node).unwrap().deadline, None, "a node that has ended permits nothing");
}

//= SPEC TIME-9 test
#[test]
fn a_term_is_counted_from_before_its_handler_and_from_after_its_input() {
    fn hold(_: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(..) = event {
            std::thread::sleep(30 * MS);
            o.set_timer("hold", 10_000 * MS..10_000 * MS);
        }
    }
    let toy = Toy { permission: Some("hold"), ..Toy::new(hold) };
    let log = toy.log.clone();
    let node = start(toy, &[]);
    let told = BootInstant::now();
    node.tell(0, Say::Ping(1)).unwrap();
    until("held", || shown(&node).is_some_and(|shown| shown.deadline.is_some()));
    let deadline = shown(&node).unwrap().deadline.unwrap();
    let entries = log.entries();
    let (handled, _) = entries.iter().find(|(_, text)| text.starts_with("ping")).unwrap();
    assert!(deadline >= told.saturating_add(10_000 * MS), "not before the input was there");
    assert!(deadline <= handled.saturating_add(10_000 * MS), "nothing was sent before this");
}

#[test]
fn a_broken_invariant_ends_the_node_before_the_step_has_an_effect() {
    fn count(state: &mut u64, event: Event, o: &mut Out<Toy>) {
        if let Event::Message(src, Say::Ping(n)) = event {
            *state = n;
            o.send(src, Say::Pong(n));
        }
    }
    let peer = Peer::new(1);
    let node = start(Toy::new(count), &[&peer]);
    peer.say(node.address(), &Say::Ping(1));
    assert!(peer.hear().is_some());
    peer.say(node.address(), &Say::Ping(POISON));
    let exit = node.wait();
    assert!(
        matches!(&exit, Exit::Failed(NodeError::Broken(why)) if why.contains("never counts that far")),
        "{exit:?}"
    );
    peer.socket.set_read_timeout(Some(100 * MS)).unwrap();
    assert_eq!(peer.hear(), None);
    assert_eq!(view(&node), Some(1));
}

#[test]
fn a_paused_node_can_be_killed_and_others_run_on() {
    let peer = Peer::new(1);
    let (paused, other) = (start(Toy::new(echo), &[&peer]), start(Toy::new(echo), &[&peer]));
    paused.pause(Duration::from_secs(3600));
    peer.say(other.address(), &Say::Ping(1));
    assert!(peer.hear().is_some());
    assert_eq!(paused.kill(), Exit::Killed);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(paused.ended()), Exit::Killed);
}
