//! The control socket of nodes that run in this process, on loopback.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenure::config::Config;
use tenure::lease::Member;
use tenure::node::control::{CONNECTIONS_MAX, Control, LINE_BYTES_MAX};
use tenure::node::{Bind, Handle, Node, launch};
use tokio::sync::oneshot;

const NAMES: [&str; 4] = ["a", "b", "s", "w"];
const WAIT: Duration = Duration::from_secs(20);

/// Two hosts, a store and a client, each with its control socket.
struct Cluster {
    _handles: Vec<Arc<Handle<Member>>>,
    controls: Vec<SocketAddr>,
    /// Dropping it ends the thread that serves the sockets.
    _serving: oneshot::Sender<()>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn start(with_faults: bool) -> Self {
        // In memory, if the system has a place for that: a disk that stands still for long costs the lease.
        let memory = std::path::Path::new("/dev/shm");
        let is_there = memory.is_dir();
        let directory = if is_there { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let sockets = NAMES.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let listeners = NAMES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut file = String::from(
            "cluster = \"test\"\ninsecure = true\n[timing]\nlease = \"3s\"\ngive_up = \"2s\"\n\
             renew = \"500ms\"\nretry = \"100ms\"\npoll = \"100ms\"\njitter = \"20ms\"\nhook = \"100ms\"\n",
        );
        for ((name, role), socket) in
            NAMES.iter().zip(["host", "host", "store", "client"]).zip(&sockets)
        {
            file += &format!(
                "[[node]]\nname = \"{name}\"\nzone = \"z-{name}\"\nroles = [\"{role}\"]\n\
                 address = \"{}\"\nstorage = \"{name}.redb\"\n",
                socket.local_addr().unwrap()
            );
        }
        file += "[[lease]]\nname = \"orders\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n";
        let config = Arc::new(Config::parse_in(&file, directory.path()).unwrap());
        let controls = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let (mut handles, mut serve) = (Vec::new(), Vec::new());
        for ((name, socket), listener) in NAMES.iter().zip(sockets).zip(listeners) {
            let mut spec = launch::spec(&config, name).unwrap();
            spec.bind = Bind::Socket(socket);
            let handle = Arc::new(Node::start(spec).unwrap());
            let control = Control::new(Arc::clone(&handle), Arc::clone(&config), with_faults);
            serve.push((control, listener));
            handles.push(handle);
        }
        let (serving, end) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for (control, listener) in serve {
                    tokio::spawn(control.serve(listener));
                }
                // An error, when the cluster is dropped.
                let _ = end.await;
            });
        });
        Self { _handles: handles, controls, _serving: serving, _directory: directory }
    }

    fn talk(&self, name: &str) -> Talk {
        let index = NAMES.iter().position(|known| *known == name).unwrap();
        Talk::to(self.controls[index])
    }

    fn ask(&self, name: &str, request: &Value) -> Value {
        self.talk(name).ask(&request.to_string())
    }

    /// The host that holds the lease, and the other.
    fn holder(&self) -> (&'static str, &'static str) {
        let until = Instant::now() + WAIT;
        loop {
            for (host, other) in [("a", "b"), ("b", "a")] {
                let status = self.ask(host, &json!({ "op": "status" }));
                let lease = &status["leases"][0];
                if lease["view"]["role"] == "holding" && lease["remaining_ms"].is_number() {
                    return (host, other);
                }
            }
            assert!(Instant::now() < until, "nobody holds the lease");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Talk {
    reader: BufReader<TcpStream>,
}

impl Talk {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).unwrap_or(0);
        (read > 0).then(|| serde_json::from_str(&line).expect("an answer is one JSON object"))
    }

    fn ask(&mut self, line: &str) -> Value {
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        self.hear().expect("an answer")
    }
}

fn error(answer: &Value) -> &str {
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"].as_str().expect("an error is a text")
}

#[test]
fn bad_requests_are_answered_and_the_connection_goes_on() {
    let cluster = Cluster::start(false);
    let mut talk = cluster.talk("a");
    let deep = "[".repeat(5000);
    for bad in [
        "garbage",
        "{}",
        "[]",
        "{\"op\":\"nothing\"}",
        "{\"op\":\"put\"}",
        "{\"op\":\"status\",\"more\":1}",
        "{\"op\":\"pause\",\"ms\":-1}",
        "{\"op\":\"heal\"",
        "\u{1F980}",
        deep.as_str(),
    ] {
        assert!(error(&talk.ask(bad)).contains("not a request"), "{bad}");
    }
    talk.reader.get_mut().write_all(b"\n\xff\xfe\n").unwrap();
    assert!(error(&talk.hear().unwrap()).contains("not a request"));
    for (request, expected) in [
        (json!({ "op": "watch", "lease": "x" }), "the leases are orders"),
        (json!({ "op": "get", "lease": "x", "key": "k" }), "the leases are orders"),
        (json!({ "op": "put", "lease": "orders", "key": "k", "value": "v" }), "is no client"),
        (json!({ "op": "pause", "ms": 1 }), "--faults"),
        (json!({ "op": "cut", "nodes": ["b"] }), "--faults"),
        (json!({ "op": "heal" }), "--faults"),
    ] {
        let answer = talk.ask(&request.to_string());
        assert!(error(&answer).contains(expected), "{answer}");
    }
    assert_eq!(talk.ask("{\"op\":\"status\"}")["node"], "a");
    for name in ["s", "w"] {
        let answer = cluster.ask(name, &json!({ "op": "get", "lease": "orders", "key": "k" }));
        assert!(error(&answer).contains("is no host"), "{answer}");
    }
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    let cluster = Cluster::start(false);
    let mut talk = cluster.talk("s");
    let long = vec![b' '; LINE_BYTES_MAX as usize + 1];
    talk.reader.get_mut().write_all(&long).unwrap();
    assert!(error(&talk.hear().unwrap()).contains("at most"));
    assert_eq!(talk.hear(), None);
}

#[test]
fn no_more_connections_than_there_are_places() {
    let cluster = Cluster::start(false);
    let mut talks: Vec<_> = (0..CONNECTIONS_MAX).map(|_| cluster.talk("s")).collect();
    for talk in &mut talks {
        assert_eq!(talk.ask("{\"op\":\"status\"}")["ok"], true);
    }
    let mut extra = cluster.talk("s");
    assert!(error(&extra.hear().unwrap()).contains("connections are open"));
    drop(talks);
    let until = Instant::now() + WAIT;
    loop {
        let mut again = cluster.talk("s");
        let _ = again.reader.get_mut().write_all(b"{\"op\":\"status\"}\n");
        if again.hear().is_some_and(|answer| answer["ok"] == true) {
            break;
        }
        assert!(Instant::now() < until, "the places are not free again");
    }
}

#[test]
fn a_write_is_acknowledged_and_read_back_and_the_lease_moves() {
    let cluster = Cluster::start(true);
    let (holder, other) = cluster.holder();
    let put = |n: u64| {
        let value = format!("v{n}");
        cluster.ask("w", &json!({ "op": "put", "lease": "orders", "key": "k", "value": value }))
    };
    for n in 1..=3 {
        let answer = put(n);
        assert_eq!((&answer["ok"], &answer["seq"]), (&true.into(), &n.into()), "{answer}");
        assert_eq!(answer["acknowledged"], n);
    }
    let get = json!({ "op": "get", "lease": "orders", "key": "k" });
    let row = cluster.ask(holder, &get);
    assert_eq!(
        (&row["value"], &row["seq"], &row["is_holder"]),
        (&"v3".into(), &3.into(), &true.into())
    );
    let table = cluster.ask(holder, &json!({ "op": "table", "lease": "orders" }));
    assert_eq!(table["rows"], json!({ "k": { "value": "v3", "seq": 3 } }));
    let long = json!({ "op": "put", "lease": "orders", "key": "k".repeat(401), "value": "" });
    assert!(error(&cluster.ask("w", &long)).contains("400 bytes"));

    let to = |to: &str| json!({ "op": "hand-over", "lease": "orders", "to": to });
    assert!(error(&cluster.ask(holder, &to(holder))).contains("holds the lease already"));
    assert!(error(&cluster.ask(holder, &to("s"))).contains("is no host"));
    assert!(error(&cluster.ask(holder, &to("x"))).contains("the nodes are"));
    assert!(error(&cluster.ask(other, &to(holder))).contains(&format!("ask {holder}")));
    let stale = json!({ "op": "step-down", "lease": "orders", "epoch": 99 });
    assert!(error(&cluster.ask(holder, &stale)).contains("and not 99"));

    let mut watch = cluster.talk(other);
    let first = watch.ask("{\"op\":\"watch\",\"lease\":\"orders\"}");
    assert_eq!(first["leases"][0]["holder"], holder);
    let answer = cluster.ask(holder, &to(other));
    assert_eq!(answer["ok"], true, "{answer}");
    loop {
        let line = watch.hear().expect("the watch goes on");
        if line["leases"][0]["view"]["role"] == "holding" {
            assert_eq!(line["leases"][0]["holder"], other);
            break;
        }
    }
    assert_eq!(put(4)["seq"], 4);
}

#[test]
fn a_write_that_is_late_blocks_no_later_one() {
    let cluster = Cluster::start(true);
    let (holder, other) = cluster.holder();
    for host in [holder, other] {
        assert_eq!(cluster.ask(host, &json!({ "op": "cut", "nodes": ["w"] }))["ok"], true);
    }
    let put = |key: &str, ms: u64| {
        let request =
            json!({ "op": "put", "lease": "orders", "key": key, "value": "v", "timeout_ms": ms });
        cluster.ask("w", &request)
    };
    let late = put("late", 100);
    assert!(error(&late).contains("may yet be written"), "{late}");
    for host in [holder, other] {
        assert_eq!(cluster.ask(host, &json!({ "op": "heal" }))["ok"], true);
    }
    let answer = put("next", 15_000);
    assert_eq!((&answer["acknowledged"], &answer["seq"]), (&2.into(), &2.into()), "{answer}");
}
