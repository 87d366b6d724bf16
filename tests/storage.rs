//! The storage file under what cannot be done inside one process: SIGKILL and a full disk.
//!
//! The parent starts this very test binary again as a child that runs [`child`] only.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use tenure::lease::record::NodeId;
use tenure::node::storage::{Progress, Row, StorageError, Store};
use tenure::node::{Exit, Node, NodeError};
use tenure::packed::PackedMap;

const ROLE: &str = "TENURE_TEST_ROLE";
const FILE: &str = "TENURE_TEST_FILE";
/// How many saves the child has under way at most.
const AHEAD: u64 = 100;

/// The child's part. Without a role it is nobody's child, and there is nothing to test.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = PathBuf::from(std::env::var(FILE).unwrap());
    match role.as_str() {
        "saves" => save_until_the_end(&path),
        "node" => run_until_the_end(&path),
        "map" => fill_a_map(&path),
        role => panic!("no such role: {role}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Counts up from where the file is, one save for each number, and says what is durable.
fn save_until_the_end(path: &Path) {
    let mut store = Store::open(path, CLUSTER, NodeId(0)).unwrap();
    store.begin_boot().unwrap();
    let mut last = store.restore::<Number>(0).unwrap();
    let first = last.as_ref().map_or(0, |number| number.0);
    let (mut committer, progress) = store.into_committer().unwrap();
    let mut told = 0;
    loop {
        let Progress { durable, failed, .. } = progress.borrow().clone();
        if durable > told {
            say(&format!("durable {}", first + durable));
            told = durable;
        }
        if let Some(error) = failed {
            assert!(matches!(error, StorageError::Commit { .. }), "{error:?}");
            say(&format!("failed {error}"));
            return;
        }
        if committer.last() < durable + AHEAD {
            let next = Number(last.as_ref().map_or(1, |number| number.0 + 1));
            committer.save(0, Row::difference(last.as_ref(), &next));
            last = Some(next);
        } else {
            std::thread::sleep(MS / 10);
        }
    }
}

/// Runs a node that saves and acknowledges, until it ends by itself, and says what it acknowledged.
fn run_until_the_end(path: &Path) {
    let peer = Peer::new(1);
    peer.socket.set_read_timeout(Some(MS)).unwrap();
    let mut spec = spec(Toy::new(keep), &[&peer]);
    spec.storage = Some(path.to_owned());
    let node = Node::start(spec).unwrap();
    let begin = Instant::now();
    let mut acknowledged = 0;
    while node.tell(0, Say::Ping(0)).is_ok() {
        for n in 0..50 {
            peer.say(node.address(), &Say::Ping(n));
        }
        while let Some((_, Say::Pong(n))) = peer.hear() {
            acknowledged = n;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the disk is never full");
    }
    let Exit::Failed(NodeError::Storage(error)) = node.wait() else {
        panic!("it ended otherwise: {:?}", node.wait())
    };
    // What it sent before it noticed is still to be heard.
    while let Some((_, Say::Pong(n))) = peer.hear() {
        acknowledged = n;
    }
    say(&format!("durable {acknowledged}"));
    say(&format!("durable {}", view(&node).unwrap()));
    say(&format!("failed {error}"));
}

/// Makes a map that is larger than what stays in memory, and says how much of it lies in a file beside the storage.
fn fill_a_map(path: &Path) {
    let store = Store::open(path, CLUSTER, NodeId(0)).unwrap();
    store.restore::<Number>(0).unwrap();
    let text = |n: u32| format!("{n:0100}");
    let map: PackedMap<u32, String> = (0..80_000).map(|n| (n, text(n))).collect();
    let folder = path.parent().unwrap().canonicalize().unwrap();
    let nameless = |file: &Path| {
        let is_it = |target: PathBuf| {
            target.starts_with(&folder) && target.to_string_lossy().ends_with(" (deleted)")
        };
        std::fs::read_link(file).is_ok_and(is_it)
    };
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let scratch: Vec<PathBuf> = open.filter(|file| nameless(file)).collect();
    assert_eq!(scratch.len(), 1, "{scratch:?}");
    assert!(map.iter().all(|(n, read)| *read == text(n)), "all of it is there");
    // What the harness has begun is no line yet.
    say("");
    say(&format!("durable {}", std::fs::metadata(&scratch[0]).unwrap().len()));
}

/// What a child has said.
#[derive(Debug, Default)]
struct Said {
    durable: u64,
    failed: Option<String>,
}

/// Runs a child; kills it after so many lines, if any number is given.
fn run_child(mut command: Command, role: &str, path: &Path, kill_after: Option<u32>) -> Said {
    let mut child = command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Said::default();
    let mut left = kill_after;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("durable ") {
            said.durable = said.durable.max(number.parse().unwrap());
            left = left.map(|left| left.saturating_sub(1));
        }
        if let Some(error) = line.strip_prefix("failed ") {
            said.failed = Some(error.to_owned());
        }
        if left == Some(0) {
            // SIGKILL, somewhere in the middle; what it has still said is read to the end.
            child.kill().unwrap();
            left = None;
        }
    }
    let status = child.wait().unwrap();
    assert_eq!(status.success(), kill_after.is_none(), "{status}: {said:?}");
    said
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// This binary with a limit on the size of files. Any user may set it, and with the signal ignored
/// the system answers a write beyond it with an error, as it does on a full disk.
fn this_binary_on_a_full_disk() -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"trap '' XFSZ && ulimit -f 5000 && exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap());
    command
}

/// The number in the file. That its rows are a prefix, [`Number`] checks itself.
fn stored(path: &Path) -> u64 {
    let store = Store::open(path, CLUSTER, NodeId(0)).unwrap();
    store.restore::<Number>(0).unwrap().map_or(0, |number| number.0)
}

#[test]
fn a_killed_process_leaves_a_prefix_with_everything_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let mut before = 0;
    for boot in 1..=8 {
        let lines = rand::random_range(1..30);
        let said = run_child(this_binary(), "saves", &path, Some(lines));
        let store = Store::open(&path, CLUSTER, NodeId(0)).unwrap();
        assert_eq!(store.boots(), boot);
        drop(store);
        let stored = stored(&path);
        assert!(stored >= said.durable, "{} was acknowledged, {stored} is stored", said.durable);
        assert!(stored <= said.durable + 2 * AHEAD, "{stored} was never saved");
        assert!(said.durable > before, "each life does something");
        before = stored;
    }
}

#[test]
fn a_full_disk_is_reported_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let said = run_child(this_binary_on_a_full_disk(), "saves", &path, None);
    let error = said.failed.expect("the disk was full");
    assert!(error.contains("free space"), "{error}");
    assert!(said.durable > 0);
    let stored = stored(&path);
    assert!(stored >= said.durable, "{} was acknowledged, {stored} is stored", said.durable);
    // With space again, the node starts again.
    let mut store = Store::open(&path, CLUSTER, NodeId(0)).unwrap();
    assert_eq!(store.begin_boot(), Ok(2));
}

#[test]
fn a_node_on_a_full_disk_stops_and_has_sent_nothing_that_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let said = run_child(this_binary_on_a_full_disk(), "node", &path, None);
    assert!(said.failed.is_some());
    assert!(said.durable > 0);
    let stored = stored(&path);
    assert!(stored >= said.durable, "{} was acknowledged, {stored} is stored", said.durable);
}

#[test]
fn two_processes_cannot_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let store = Store::open(&path, CLUSTER, NodeId(0)).unwrap();
    let child = this_binary()
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, "saves")
        .env(FILE, &path)
        .output()
        .unwrap();
    assert!(!child.status.success());
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(stderr.contains("Locked"), "{stderr}");
    drop(store);
}

/// A large map is in memory in part, and without room for the other part it is there as a whole.
#[test]
fn a_large_map_lies_beside_the_storage() {
    let dir = tempfile::tempdir().unwrap();
    let said = run_child(this_binary(), "map", &dir.path().join("roomy.redb"), None);
    assert!(said.durable > 6_000_000, "only {} bytes of 8 MB are in the file", said.durable);
    let said = run_child(this_binary_on_a_full_disk(), "map", &dir.path().join("full.redb"), None);
    assert!((1_000_000..3_000_000).contains(&said.durable), "{}", said.durable);
}
