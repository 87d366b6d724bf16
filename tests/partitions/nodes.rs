//! A cluster of real processes, each in a namespace of its own and with a trace, and those who look on.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tenure::lease::timing::Timing;

use super::cluster::monitor::Monitor;
use super::cluster::process::{PATIENCE, Shown, soon};
use super::cluster::watch::looker;
use super::cluster::writers::{self, Write};
use super::keys::Keys;
use super::network::{Family, Network};
use super::relay::Relays;

/// The cluster's name, which goes into what its datagrams are sealed with.
pub const CLUSTER: &str = "partitions";
/// Hosts first, then the store, then the client that writes.
pub const NAMES: [&str; 5] = ["a", "b", "c", "s", "w"];
pub const HOSTS: usize = 3;
pub const STORE: usize = 3;
const CLIENT: usize = 4;
/// Every node has a loopback to itself, so all have the same ports.
const PORT: u16 = 7001;
const CONTROL: u16 = 7002;

/// Where each node is, on its own loopback.
pub fn addresses(family: Family) -> Vec<SocketAddr> {
    NAMES.iter().map(|_| (family.loopback(), PORT).into()).collect()
}

/// The processes of one schedule.
pub struct Nodes<'n> {
    network: &'n Network,
    folder: PathBuf,
    children: Vec<Option<Child>>,
}

impl<'n> Nodes<'n> {
    /// Starts them all.
    pub fn start(
        network: &'n Network,
        family: Family,
        relays: &Relays,
        keys: &Keys,
        timing: &Timing,
        folder: &Path,
    ) -> Self {
        for (node, name) in NAMES.iter().enumerate() {
            let text = file_of(node, family, relays, keys, timing);
            fs::write(folder.join(format!("{name}.toml")), text).expect("a file");
        }
        let folder = folder.to_owned();
        let mut nodes = Self { network, folder, children: NAMES.map(|_| None).into() };
        for node in [STORE, 0, 1, 2, CLIENT] {
            nodes.launch(node);
        }
        nodes
    }

    fn path(&self, node: usize, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", NAMES[node]))
    }

    /// Starts a node, and waits until it is ready.
    pub fn launch(&mut self, node: usize) {
        let out = self.path(node, "out");
        let log = File::options().create(true).append(true).open(self.path(node, "log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        command
            .args(["node", "--id", NAMES[node], "--config"])
            .arg(self.path(node, "toml"))
            .arg("--trace")
            .arg(self.path(node, "ndjson"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(log);
        // A process belongs to the namespace of the thread that has started it.
        let child = self.network.inside(node, || command.spawn()).expect("the program starts");
        self.children[node] = Some(child);
        let is_ready =
            soon(PATIENCE, || fs::read_to_string(&out).is_ok_and(|text| text.contains('\n')));
        let said = || fs::read_to_string(self.path(node, "log")).unwrap_or_default();
        assert!(is_ready, "{} does not start: {}", NAMES[node], said());
    }

    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.children[node].take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Removes what a node that does not run has stored.
    pub fn empty(&self, node: usize) -> io::Result<()> {
        fs::remove_file(self.path(node, "redb"))
    }

    /// Ends them in order, and gives their traces.
    pub fn finish(mut self) -> Result<Vec<PathBuf>, String> {
        for child in self.children.iter().flatten() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::TERM).expect("a child can be signalled");
        }
        for (child, name) in self.children.iter_mut().zip(NAMES) {
            let Some(running) = child else { continue };
            let mut status = None;
            soon(PATIENCE, || {
                status = running.try_wait().ok().flatten();
                status.is_some()
            });
            if !status.is_some_and(|status| status.success()) {
                return Err(format!("{name} was told to end, and this came of it: {status:?}"));
            }
            *child = None;
        }
        Ok((0..NAMES.len()).map(|node| self.path(node, "ndjson")).collect())
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The cluster file as this node sees the others: where its relay stands for them.
fn file_of(reader: usize, family: Family, relays: &Relays, keys: &Keys, timing: &Timing) -> String {
    let us = |duration: Duration| format!("\"{}us\"", duration.as_micros());
    let mut text = format!(
        "cluster = \"{CLUSTER}\"\n[timing]\nlease = {}\ngive_up = {}\nrenew = {}\nretry = {}\n\
         poll = {}\njitter = {}\nhook = {}\nclock_error_ppm = {}\n",
        us(timing.lease),
        us(timing.give_up),
        us(timing.renew),
        us(timing.retry),
        us(timing.poll),
        us(timing.jitter),
        us(timing.hook),
        timing.clock_error_ppm
    );
    for (node, name) in NAMES.iter().enumerate() {
        let role = match node {
            STORE => "store",
            CLIENT => "client",
            _ => "host",
        };
        let own = (family.loopback(), PORT).into();
        let address: SocketAddr = relays.stands_for[reader][node].unwrap_or(own);
        write!(
            text,
            "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\nzone = \"zone-{name}\"\naddress = \"{address}\"\n\
             storage = \"{name}.redb\"\n"
        )
        .unwrap();
        if node == reader {
            let control: SocketAddr = (family.loopback(), CONTROL).into();
            writeln!(text, "control = \"{control}\"").unwrap();
        }
        text += &keys.section(node);
    }
    text + "[[lease]]\nname = \"table\"\nhosts = [\"a\", \"b\", \"c\"]\nstore = \"s\"\n"
}

/// Those who ask each host all the time what it shows, and one who writes through the client.
pub struct Onlookers {
    shown: Arc<Vec<Mutex<Option<Shown>>>>,
    ends: Arc<AtomicBool>,
    lookers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<Vec<Write>>>,
}

impl Onlookers {
    pub fn start(network: &Network, family: Family, monitor: &Arc<Monitor>) -> Self {
        let shown: Arc<Vec<_>> = Arc::new((0..HOSTS).map(|_| Mutex::new(None)).collect());
        let ends = Arc::new(AtomicBool::new(false));
        let control: SocketAddr = (family.loopback(), CONTROL).into();
        let look = |host: usize| {
            let (shown, ends) = (Arc::clone(&shown), Arc::clone(&ends));
            let monitor = Arc::clone(monitor);
            let every = Duration::from_millis(10);
            network.spawn(host, move || looker(host, control, every, &monitor, &shown[host], &ends))
        };
        let lookers = (0..HOSTS).map(look).collect();
        let writer = {
            let ends = Arc::clone(&ends);
            let pause = Duration::from_millis(10);
            network.spawn(CLIENT, move || writers::write(0, control, pause, &ends))
        };
        Self { shown, ends, lookers, writer: Some(writer) }
    }

    fn shown(&self, host: usize) -> Option<Shown> {
        self.shown[host].lock().unwrap().clone()
    }

    pub fn holder(&self) -> Option<usize> {
        let holding = |host| Some((self.shown(host)?.holding()?, host));
        (0..HOSTS).filter_map(holding).max().map(|(_, host)| host)
    }

    /// Whether one host holds the lease, and all have every write and know who it is.
    pub fn is_settled(&self) -> bool {
        let all: Option<Vec<_>> = (0..HOSTS).map(|host| self.shown(host)).collect();
        let Some(all) = all else { return false };
        let epoch = all.iter().filter_map(Shown::holding).max();
        epoch.is_some() && all.iter().all(|it| it.seen_epoch == epoch && it.in_sync.len() == HOSTS)
    }

    pub fn describe(&self) -> String {
        (0..HOSTS).map(|host| format!("{}: {:?}\n", NAMES[host], self.shown(host))).collect()
    }

    /// Ends them; gives what was written.
    pub fn stop(mut self) -> Vec<Write> {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.lookers.drain(..) {
            thread.join().expect("a looker has failed");
        }
        let writer = self.writer.take().expect("it is joined once");
        writer.join().expect("the writer has failed")
    }
}

impl Drop for Onlookers {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// What `tenure trace check` says of these files: how many steps there were, or what is wrong.
pub fn judge(traces: &[PathBuf]) -> Result<u64, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(["trace", "check", "--json", "--orders", "1"])
        .args(traces)
        .output();
    let output = output.map_err(|error: io::Error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = || format!("tenure trace check: {:?}: {text}", output.status.code());
    let report: serde_json::Value = serde_json::from_str(&text).map_err(|_| said())?;
    match (output.status.success(), report["taken"].as_u64()) {
        (true, Some(taken)) if taken > 0 => Ok(taken),
        _ => Err(said()),
    }
}
