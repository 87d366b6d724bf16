//! Health and metrics over HTTP, and what a node tells a service manager: over real processes.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "../src/cli/demo/meter.rs"]
mod meter;
mod processes;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use meter::Meter;
use processes::{Cluster, ports, until};
use rustix::process::Signal;
use tenure::http::CONNECTIONS_MAX;

/// Status and body; none if nobody answers.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn status(address: SocketAddr, path: &str) -> Option<u16> {
    get(address, path).map(|(status, _)| status)
}

/// Starts a host with its HTTP service, and gives its place and address.
fn host(cluster: &mut Cluster, id: &str, notify: Option<&std::path::Path>) -> (usize, SocketAddr) {
    let address = ports::address();
    let mut command = cluster.tenure();
    command.args(["node", "--config", "cluster.toml", "--id", id, "--faults"]);
    command.args(["--http", &address.to_string()]);
    if let Some(socket) = notify {
        command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "1600000");
    }
    cluster.children.push(command.spawn().unwrap());
    let place = cluster.children.len() - 1;
    until("it answers", || get(address, "/healthz").is_some());
    (place, address)
}

//= SPEC GUARD-16 test
#[test]
fn who_leads_is_answered_by_the_deadline_and_not_by_what_was_last_heard() {
    let mut cluster = Cluster::new();
    let (_, a) = host(&mut cluster, "a", None);
    until("a leads", || status(a, "/leader") == Some(200));
    let (_, b) = host(&mut cluster, "b", None);
    until("b is ready", || status(b, "/readyz") == Some(200));
    assert_eq!(status(b, "/leader"), Some(503));
    assert_eq!(status(b, "/healthz"), Some(200), "a watcher is healthy");
    assert_eq!(status(a, "/leader/job"), Some(200));
    assert_eq!(status(a, "/leader/none"), Some(404));
    let (_, metrics) = get(a, "/metrics").unwrap();
    assert!(metrics.contains("lease_is_leader{lease=\"job\"} 1"), "{metrics}");
    assert!(metrics.contains("lease_epoch{lease=\"job\"} 1"), "{metrics}");
    assert!(metrics.contains("transitions_total{lease=\"job\",reason=\"holding\"} 1"), "{metrics}");
    let valid =
        metrics.lines().find_map(|line| line.strip_prefix("lease_valid_seconds{lease=\"job\"} "));
    let valid: f64 = valid.unwrap().parse().unwrap();
    assert!(valid > 0.0 && valid <= 1.5, "{valid}");
    // Or it may not take over.
    std::thread::sleep(Duration::from_millis(500));
    cluster.await_in_sync();
    // The protocol stands still, and so does what it has published. The answer changes all the same.
    let meter = Meter::start();
    cluster.control("a", "{\"op\":\"pause\",\"ms\":6000}");
    let paused = Instant::now();
    until("a does not lead", || status(a, "/leader") == Some(503));
    let took = paused.elapsed();
    let withheld = meter.lost();
    assert!(took <= Duration::from_millis(1500 + 300) + withheld, "{took:?} {withheld:?}");
    let (_, metrics) = get(a, "/metrics").unwrap();
    assert!(metrics.contains("lease_is_leader{lease=\"job\"} 0"), "{metrics}");
    assert!(metrics.contains("lease_valid_seconds{lease=\"job\"} 0"), "{metrics}");
    until("b leads", || status(b, "/leader") == Some(200));
    assert_eq!(status(a, "/leader"), Some(503));
    until("a is ready again", || status(a, "/readyz") == Some(200));
    assert_eq!(status(a, "/leader"), Some(503));
}

/// Every name that operators know, of a host that has led, with work, and has stepped down. What their tool finds wrong
/// with them is nothing (Debian: prometheus).
#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let mut cluster = Cluster::new();
    let path = cluster.path("cluster.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let work = "[[work]]\nnode = \"a\"\nlease = \"job\"\n[[work.stop]]\ncommand = [\"true\"]\n";
    writeln!(file, "{work}worst = \"500ms\"").unwrap();
    let (_, a) = host(&mut cluster, "a", None);
    // Before there is another one that could.
    until("a leads", || status(a, "/leader") == Some(200));
    let (_, b) = host(&mut cluster, "b", None);
    std::thread::sleep(Duration::from_millis(500));
    cluster.await_in_sync();
    assert!(get(a, "/metrics").unwrap().1.contains("lease_is_leader{lease=\"job\"} 1"));
    cluster.control("a", "{\"op\":\"cut\",\"nodes\":[\"s\"]}");
    until("b leads", || status(b, "/leader") == Some(200));
    let (_, metrics) = get(a, "/metrics").unwrap();
    for name in [
        "lease_is_leader{lease=\"job\"} 0",
        "lease_epoch{lease=\"job\"} 1",
        "lease_valid_seconds{lease=\"job\"} 0",
        "renew_seconds_bucket{lease=\"job\",le=\"0.001\"}",
        "renew_failures_total{lease=\"job\",kind=\"conflict\"}",
        "renew_failures_total{lease=\"job\",kind=\"timeout\"}",
        "transitions_total{lease=\"job\",reason=\"holding\"} 1",
        "self_fence_total{lease=\"job\"} 1",
        "hook_seconds_count{lease=\"job\"} 1",
        "observed_skew_rate ",
    ] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
    let timeouts = "renew_failures_total{lease=\"job\",kind=\"timeout\"} 0";
    assert!(!metrics.contains(timeouts), "attempts were not answered:\n{metrics}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("install Debian's prometheus");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// Somebody holds all the connections that he gets, and says nothing.
//= SPEC GUARD-31 test
#[test]
fn connections_that_ask_nothing_are_few_and_end() {
    let mut cluster = Cluster::new();
    let (a, http) = host(&mut cluster, "a", None);
    let id = cluster.children[a].id();
    let descriptors = || std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let before = descriptors();
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(http).unwrap()).collect();
    until("some are closed", || {
        let closed = |mut stream: &TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            stream.read(&mut [0]).is_ok_and(|read| read == 0)
        };
        silent.iter().filter(|stream| closed(stream)).count() >= 200 - CONNECTIONS_MAX
    });
    assert!(descriptors() <= before + CONNECTIONS_MAX + 1, "{}", descriptors());
    // They are still open on this side.
    until("it answers again", || status(http, "/healthz") == Some(200));
    drop(silent);
}

//= SPEC GUARD-32 test
#[test]
fn a_node_that_has_nothing_to_do_feeds_the_service_managers_watchdog() {
    let mut cluster = Cluster::new();
    let path = cluster.path("cluster.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let (address, control) = (ports::address(), ports::address());
    writeln!(
        file,
        "[[node]]\nname = \"c\"\nzone = \"z\"\nroles = [\"client\"]\naddress = \"{address}\"\n\
         control = \"{control}\"\nstorage = \"c.redb\""
    )
    .unwrap();
    let path = cluster.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let (_, _) = host(&mut cluster, "c", Some(&path));
    let fed = |within| {
        socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        socket.recv(&mut buffer).ok().map(|len| buffer[..len].starts_with(b"WATCHDOG=1"))
    };
    for _ in 0..3 {
        until("it feeds", || fed(Duration::from_secs(2)) == Some(true));
    }
    // One that is stuck does not.
    cluster.control("c", "{\"op\":\"pause\",\"ms\":60000}");
    while fed(Duration::from_millis(1700)).is_some() {}
    assert_eq!(fed(Duration::from_millis(1700)), None);
}

//= SPEC GUARD-17 test
#[test]
fn the_service_manager_hears_when_it_is_ready_and_that_it_renews() {
    let mut cluster = Cluster::new();
    let path = cluster.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
    let hear = || {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).trim().to_owned())
    };
    let (a, http) = host(&mut cluster, "a", Some(&path));
    until("it leads", || status(http, "/leader") == Some(200));
    let mut said = Vec::new();
    while said.iter().filter(|said| *said == "WATCHDOG=1").count() < 3 {
        said.push(hear().expect("it goes on feeding the watchdog"));
    }
    assert!(said.contains(&"READY=1".to_owned()), "{said:?}");
    assert_eq!(status(http, "/leader"), Some(200));
    // What has waited was said before.
    socket.set_nonblocking(true).unwrap();
    while hear().is_some() {}
    socket.set_nonblocking(false).unwrap();
    // Without the store nothing is committed: a holder that cannot renew does not feed.
    cluster.signal(0, Signal::STOP);
    let stopped = Instant::now();
    let mut fed = 0;
    while status(http, "/leader") == Some(200) {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        fed += u32::from(hear().is_some_and(|said| said == "WATCHDOG=1"));
        assert!(stopped.elapsed() < Duration::from_secs(3));
    }
    assert!(fed <= 1, "fed {fed} times without a renewal");
    cluster.signal(0, Signal::CONT);
    cluster.signal(a, Signal::TERM);
    socket.set_read_timeout(Some(Duration::from_millis(5000))).unwrap();
    while hear().expect("it says that it is stopping") != "STOPPING=1" {}
}
