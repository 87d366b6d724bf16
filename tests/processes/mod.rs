//! A small cluster of real processes: two hosts, one store, nothing but what the command line offers.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[path = "../regions/ports.rs"]
pub mod ports;

/// How long anything may take that has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two hosts and a store. Every command that starts writes `EPOCH PID` to one file, and `TWO` if another one
/// that wrote there is still running.
pub struct Cluster {
    pub directory: tempfile::TempDir,
    /// Where the nodes' storage is: in memory, if the system has a place for that.
    pub storage: tempfile::TempDir,
    pub children: Vec<Child>,
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
    /// In memory, if the system has a place for that: no test of this is one of the disk, and a disk that many use may
    /// stand still for longer than a term.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::inside(memory) } else { Self::inside(&std::env::temp_dir()) }
    }

    /// In a directory of this one.
    pub fn inside(place: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("tenure-processes-").tempdir_in(place);
        let directory = directory.unwrap();
        let memory = Path::new("/dev/shm");
        let storage = if memory.is_dir() { memory } else { place };
        let storage = tempfile::tempdir_in(storage).unwrap();
        let mut file = String::from(
            "cluster = \"exec\"\ninsecure = true\n[timing]\nlease = \"3s\"\ngive_up = \"1500ms\"\n\
             renew = \"300ms\"\nretry = \"200ms\"\npoll = \"100ms\"\njitter = \"20ms\"\nhook = \"1s\"\n",
        );
        for (name, role) in [("a", "host"), ("b", "host"), ("s", "store")] {
            file += &format!(
                "[[node]]\nname = \"{name}\"\nzone = \"z-{name}\"\nroles = [\"{role}\"]\n\
                 address = \"{}\"\ncontrol = \"{}\"\nstorage = \"{}/{name}.redb\"\n",
                ports::address(),
                ports::address(),
                storage.path().display(),
            );
        }
        file += "[[lease]]\nname = \"job\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n";
        std::fs::write(directory.path().join("cluster.toml"), file).unwrap();
        let mut cluster = Self { directory, storage, children: Vec::new() };
        let mut store = cluster.tenure();
        store.args(["node", "--config", "cluster.toml", "--id", "s"]);
        cluster.children.push(store.spawn().unwrap());
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn tenure(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        command
            .current_dir(self.directory.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts a host with a command, and returns its place among the children.
    pub fn exec(&mut self, id: &str, then: &str) -> usize {
        let script = format!(
            "while read -r epoch pid; do grep -q '^State:.[^ZX]' /proc/$pid/status 2>/dev/null && \
             echo TWO 0 >> log; done < log; \
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
    pub fn started(&self) -> Vec<(u64, i32)> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        assert!(!log.contains("TWO"), "two at once:\n{log}");
        let line = |line: &str| {
            let (epoch, pid) = line.split_once(' ')?;
            Some((epoch.parse().ok()?, pid.parse().ok()?))
        };
        log.lines().filter_map(line).collect()
    }

    pub fn await_start(&self, count: usize) -> (u64, i32) {
        until("the command starts", || self.started().len() >= count);
        let started = self.started();
        assert_eq!(started.len(), count);
        started[count - 1]
    }

    /// Waits until both hosts are in sync: one that was silent has to catch up with the table of the cluster before it may
    /// take over (L-41).
    pub fn await_in_sync(&self) {
        until("both are in sync", || {
            let mut status = self.tenure();
            status.args(["lease", "status", "--json", "--config", "cluster.toml"]);
            let output = status.stdout(Stdio::piped()).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("\"in_sync\":[\"a\",\"b\"]")
        });
    }

    /// Sends a line to the control socket of a host, and expects that it is taken.
    pub fn control(&self, id: &str, line: &str) {
        use std::io::{BufRead as _, Write as _};
        let config = tenure::config::Config::load(self.path("cluster.toml")).unwrap();
        let address = config.node(id).unwrap().control.unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        std::io::BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"ok\":true"), "{answer}");
    }

    pub fn signal(&self, child: usize, signal: Signal) {
        kill_process(Pid::from_child(&self.children[child]), signal).unwrap();
    }

    pub fn code(&mut self, child: usize) -> Option<i32> {
        self.children[child].wait().unwrap().code()
    }
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs: one that has ended and that nobody has waited for does not.
pub fn is_running(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:\t"));
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}
