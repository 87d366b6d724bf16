//! `tenure lease exec` over real processes: a command runs only while its host holds the lease, whatever is done to
//! that host's process.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two hosts and a store. Every command that starts writes `EPOCH PID` to one file, and `TWO` if another one
/// that wrote there is still running.
struct Cluster {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Held until all are known, so that no two are the same.
        let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut file = String::from(
            "cluster = \"exec\"\ninsecure = true\n[timing]\nlease = \"3s\"\ngive_up = \"1500ms\"\n\
             renew = \"300ms\"\nretry = \"200ms\"\npoll = \"100ms\"\njitter = \"20ms\"\nhook = \"1s\"\n",
        );
        for (index, (name, role)) in
            [("a", "host"), ("b", "host"), ("s", "store")].iter().enumerate()
        {
            file += &format!(
                "[[node]]\nname = \"{name}\"\nzone = \"z-{name}\"\nroles = [\"{role}\"]\n\
                 address = \"{}\"\ncontrol = \"{}\"\nstorage = \"{name}.redb\"\n",
                sockets[index].local_addr().unwrap(),
                listeners[index].local_addr().unwrap(),
            );
        }
        file += "[[lease]]\nname = \"job\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n";
        std::fs::write(directory.path().join("cluster.toml"), file).unwrap();
        drop((sockets, listeners));
        let mut cluster = Self { directory, children: Vec::new() };
        let mut store = cluster.tenure();
        store.args(["node", "--config", "cluster.toml", "--id", "s"]);
        cluster.children.push(store.spawn().unwrap());
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tenure(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        command
            .current_dir(self.directory.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts a host with a command, and returns its place among the children.
    fn exec(&mut self, id: &str, then: &str) -> usize {
        let script = format!(
            "while read -r epoch pid; do kill -0 $pid 2>/dev/null && echo TWO 0 >> log; done < log; \
             echo \"$TENURE_EPOCH $$\" >> log; {then}"
        );
        std::fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap();
        let mut command = self.tenure();
        command
            .args(["lease", "exec", "--config", "cluster.toml", "--id", id, "--", "sh", "-c"])
            .arg(script);
        self.children.push(command.spawn().unwrap());
        self.children.len() - 1
    }

    /// Epoch and process of every command that has started.
    fn started(&self) -> Vec<(u64, i32)> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        assert!(!log.contains("TWO"), "two at once:\n{log}");
        let line = |line: &str| {
            let (epoch, pid) = line.split_once(' ')?;
            Some((epoch.parse().ok()?, pid.parse().ok()?))
        };
        log.lines().filter_map(line).collect()
    }

    fn await_start(&self, count: usize) -> (u64, i32) {
        until("the command starts", || self.started().len() >= count);
        let started = self.started();
        assert_eq!(started.len(), count);
        started[count - 1]
    }

    fn signal(&self, child: usize, signal: Signal) {
        kill_process(Pid::from_child(&self.children[child]), signal).unwrap();
    }

    fn code(&mut self, child: usize) -> Option<i32> {
        self.children[child].wait().unwrap().code()
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_running(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

#[test]
fn a_command_runs_under_one_host_at_a_time_and_its_exit_code_passes_through() {
    let mut cluster = Cluster::new();
    let a = cluster.exec("a", "exec sleep 600");
    let (first, pid) = cluster.await_start(1);
    let b = cluster.exec("b", "sleep 0.3; exit 7");
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(cluster.started().len(), 1, "b does not hold the lease");
    let told = Instant::now();
    cluster.signal(a, Signal::TERM);
    assert_eq!(cluster.code(a), Some(128 + 15), "what SIGTERM did to the command");
    assert!(!is_running(pid));
    let (second, _) = cluster.await_start(2);
    assert!(second > first);
    assert!(told.elapsed() < Duration::from_millis(2900), "released, not run out");
    assert_eq!(cluster.code(b), Some(7));
}

//= SPEC GUARD-15 test
#[test]
fn a_host_that_is_killed_takes_its_command_with_it() {
    let mut cluster = Cluster::new();
    // One that does not go when it is told to.
    let a = cluster.exec("a", "trap '' TERM; while :; do sleep 0.05; done");
    let (first, pid) = cluster.await_start(1);
    cluster.exec("b", "exec sleep 600");
    let killed = Instant::now();
    cluster.signal(a, Signal::KILL);
    until("the command has ended", || !is_running(pid));
    // S after the end of the warden's input.
    assert!(killed.elapsed() < Duration::from_millis(1000 + 300), "{:?}", killed.elapsed());
    assert!(cluster.await_start(2).0 > first);
}

//= SPEC GUARD-15 test
#[test]
fn a_host_that_is_stopped_loses_its_command_before_another_one_starts() {
    let mut cluster = Cluster::new();
    let a = cluster.exec("a", "trap '' TERM; while :; do sleep 0.05; done");
    let (first, pid) = cluster.await_start(1);
    cluster.exec("b", "exec sleep 600");
    std::thread::sleep(Duration::from_millis(500));
    let stopped = Instant::now();
    cluster.signal(a, Signal::STOP);
    until("the command has ended", || !is_running(pid));
    // G and S, from the last renewal.
    assert!(
        stopped.elapsed() < Duration::from_millis(1500 + 1000 + 300),
        "{:?}",
        stopped.elapsed()
    );
    let (second, _) = cluster.await_start(2);
    assert!(second > first);
    cluster.signal(a, Signal::CONT);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(cluster.started().len(), 2, "when it goes on, it is a watcher");
}

#[test]
fn what_cannot_run_says_so() {
    let cluster = Cluster::new();
    for (args, text) in [
        (&["--id", "x"][..], "not a node"),
        (&["--id", "s"], "no host"),
        (&["--id", "a", "--lease", "x"], "name one lease"),
    ] {
        let mut command = cluster.tenure();
        command.args(["lease", "exec", "--config", "cluster.toml"]).args(args).args(["--", "true"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(text), "{said}");
    }
}
