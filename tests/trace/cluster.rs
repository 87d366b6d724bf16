//! A cluster of nodes in this process that record what they do.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tenure::config::Config;
use tenure::lease::msg::Msg;
use tenure::lease::record::{Claim, Expect, Holder, NodeId, NodeSet, Nonce};
use tenure::lease::{HostView, Member, Role, View};
use tenure::node::{Bind, Handle, Node, launch, record_into};
use tenure::trace::check::Source;
use tenure::wire::{self, Header, Plain};

use super::ports;

pub const NAMES: [&str; 5] = ["a", "b", "c", "s", "w"];
pub const STORE: usize = 3;
pub const CLIENT: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// One node's trace.
#[derive(Clone, Debug)]
pub struct TraceFile {
    pub name: String,
    pub lines: Vec<String>,
}

/// The traces of a run.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub files: Vec<TraceFile>,
}

/// When a line was written, if it is a step's.
pub fn at(line: &str) -> Option<u64> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("at")?.as_u64()
}

impl Recorded {
    pub fn sources(&self) -> Vec<Source> {
        let text = |file: &TraceFile| file.lines.join("\n").into_bytes();
        self.files.iter().map(|file| Source::Memory(file.name.clone(), text(file))).collect()
    }

    pub fn write_into(&self, folder: &Path) -> Vec<PathBuf> {
        let write = |file: &TraceFile| {
            let path = folder.join(&file.name);
            std::fs::write(&path, file.lines.join("\n") + "\n").unwrap();
            path
        };
        self.files.iter().map(write).collect()
    }

    /// When the last node has begun, and when the last step was.
    pub fn latest(&self) -> (u64, u64) {
        let times =
            |file: &TraceFile| -> Vec<u64> { file.lines.iter().filter_map(|l| at(l)).collect() };
        let all: Vec<_> = self.files.iter().map(times).collect();
        let first = all.iter().map(|times| times[0]).max().unwrap();
        let last = all.iter().filter_map(|times| times.last().copied()).max().unwrap();
        (first, last)
    }

    /// What was recorded up to some moment.
    pub fn until(&self, moment: u64) -> Self {
        let cut = |file: &TraceFile| {
            let is_in = |line: &&String| at(line).is_none_or(|at| at <= moment);
            let mut lines: Vec<_> = file.lines.iter().take_while(is_in).cloned().collect();
            if lines.len() < file.lines.len() {
                while lines.last().is_some_and(|line| at(line).is_none()) && lines.len() > 1 {
                    lines.pop();
                }
            }
            TraceFile { name: file.name.clone(), lines }
        };
        Self { files: self.files.iter().map(cut).collect() }
    }
}

pub struct Cluster {
    config: Config,
    /// The cluster file, for nodes in processes of their own.
    text: String,
    sockets: Vec<UdpSocket>,
    nodes: Vec<Option<Handle<Member>>>,
    directory: tempfile::TempDir,
    written: u64,
}

fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Cluster {
    pub fn start() -> Self {
        let mut cluster = Self::prepare();
        for node in [STORE, 0, 1, 2, CLIENT] {
            cluster.start_node(node);
        }
        cluster
    }

    /// In memory, if the system has a place for that: a disk that stands still for long ends terms that the tests count on.
    fn prepare() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::inside(memory) } else { Self::inside(&std::env::temp_dir()) }
    }

    /// In a directory of this one.
    fn inside(place: &Path) -> Self {
        let directory = tempfile::tempdir_in(place).unwrap();
        let sockets: Vec<_> = NAMES.map(|_| UdpSocket::bind(ports::address()).unwrap()).into();
        let mut file = String::from(
            "cluster = \"traced\"\ninsecure = true\n[timing]\nlease = \"1200ms\"\ngive_up = \"800ms\"\n\
             renew = \"250ms\"\nretry = \"100ms\"\npoll = \"150ms\"\njitter = \"20ms\"\nhook = \"200ms\"\n\
             clock_error_ppm = 200\n",
        );
        for (id, (name, socket)) in NAMES.iter().zip(&sockets).enumerate() {
            let role = match id {
                STORE => "store",
                CLIENT => "client",
                _ => "host",
            };
            write!(
                file,
                "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\naddress = \"{}\"\n\
                 storage = \"{name}.redb\"\nzone = \"z{id}\"\n",
                socket.local_addr().unwrap()
            )
            .unwrap();
        }
        file += "[[lease]]\nname = \"table\"\nhosts = [\"a\", \"b\", \"c\"]\nstore = \"s\"\n";
        let config = Config::parse_in(&file, directory.path()).unwrap();
        let nodes = NAMES.map(|_| None).into();
        Self { config, text: file, sockets, nodes, directory, written: 0 }
    }

    fn trace(&self, id: usize) -> PathBuf {
        self.directory.path().join(format!("{}.ndjson", NAMES[id]))
    }

    pub fn start_node(&mut self, id: usize) {
        let mut spec = launch::spec(&self.config, NAMES[id]).unwrap();
        spec.bind = Bind::Socket(self.sockets[id].try_clone().unwrap());
        record_into(&mut spec, self.trace(id));
        self.nodes[id] = Some(Node::start(spec).unwrap());
    }

    pub fn kill(&mut self, id: usize) {
        self.nodes[id].take().unwrap().kill();
    }

    fn node(&self, id: usize) -> &Handle<Member> {
        self.nodes[id].as_ref().unwrap()
    }

    fn view(&self, id: usize) -> Option<View> {
        let published = self.nodes[id].as_ref()?.views(0)?.borrow().clone();
        published.map(|published| published.view)
    }

    fn host(&self, id: usize) -> Option<HostView> {
        match self.view(id)? {
            View::Host(view) => Some(view),
            _ => None,
        }
    }

    fn held_by(&self) -> Option<usize> {
        (0..3).find(|&id| self.host(id).is_some_and(|view| view.role == Role::Holding))
    }

    pub fn holder(&self) -> usize {
        until("somebody holds", || self.held_by())
    }

    pub fn await_other(&self, old: usize) -> usize {
        until("another holds", || self.held_by().filter(|&id| id != old))
    }

    pub fn await_in_sync(&self, id: usize) {
        until("in sync again", || {
            let view = self.host(self.held_by()?)?;
            view.in_sync.contains(NodeId(id as u16)).then_some(())
        });
    }

    /// Has so many writes acknowledged, one after the other.
    pub fn write(&mut self, count: u64) {
        for _ in 0..count {
            self.written += 1;
            let (key, value) = (format!("k{}", self.written % 7), format!("v{}", self.written));
            self.node(CLIENT).tell(0, Msg::Submit { key, value }).unwrap();
            let written = self.written;
            until("a write is acknowledged", || match self.view(CLIENT) {
                Some(View::Client { acknowledged, .. }) if acknowledged >= written => Some(()),
                _ => None,
            });
        }
    }

    /// Who holds the lease now, and the epoch.
    fn term(&self) -> (usize, u64) {
        until("somebody holds", || {
            let holder = self.held_by()?;
            Some((holder, self.host(holder)?.epoch?))
        })
    }

    /// Has the holder hand over, and gives who that was.
    pub fn hand_over(&self) -> usize {
        let (old, _) = self.term();
        let target = (0..3).find(|&id| id != old && self.nodes[id].is_some()).unwrap();
        self.await_in_sync(target);
        let (holder, epoch) = self.term();
        let target = NodeId(if holder == target { old } else { target } as u16);
        self.node(holder).tell(0, Msg::HandOver { target, epoch }).unwrap();
        holder
    }

    /// Has the holder step down.
    pub fn step_down(&self) {
        let (holder, epoch) = self.term();
        self.node(holder).tell(0, Msg::StepDown { epoch }).unwrap();
    }

    /// Has the store crash right after the answer to a renewal has arrived: what it said last was heard, and nothing is
    /// under way that the crash would undo.
    pub fn restart_store(&mut self) {
        let version = |cluster: &Self| cluster.host(cluster.held_by()?)?.seen_version;
        let before = until("somebody holds", || version(self));
        until("a renewal is answered", || version(self).filter(|&now| now > before));
        self.kill(STORE);
        self.start_node(STORE);
    }

    /// Ends all nodes in order.
    pub fn finish(mut self) -> Recorded {
        for node in &mut self.nodes {
            if let Some(node) = node.take() {
                node.stop();
            }
        }
        let read = |id: usize| {
            let text = std::fs::read_to_string(self.trace(id)).unwrap();
            TraceFile {
                name: format!("{}.ndjson", NAMES[id]),
                lines: text.lines().map(str::to_owned).collect(),
            }
        };
        Recorded { files: (0..NAMES.len()).map(read).collect() }
    }
}

/// Asks a store again and again, and looks for the line of each answer as soon as it has come.
pub fn a_message_is_never_ahead_of_its_line() {
    let mut cluster = Cluster::prepare();
    cluster.start_node(STORE);
    let (host, store) = (&cluster.sockets[0], cluster.sockets[STORE].local_addr().unwrap());
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let by = Holder { node: NodeId(0), incarnation: 1 };
    let trace = cluster.trace(STORE);
    for n in 1..=300 {
        let header = Header {
            source: NodeId(0),
            destination: NodeId(STORE as u16),
            incarnation: 1,
            sequence: n,
        };
        let read = Msg::Read { nonce: Nonce { by, n: n.into() } };
        let datagram = wire::encode(&header, 0, &read, &mut Plain).unwrap();
        host.send_to(&datagram, store).unwrap();
        let mut buffer = [0; 2000];
        let (length, _) = host.recv_from(&mut buffer).unwrap();
        // Before anything else: what the file holds now.
        let text = std::fs::read_to_string(&trace).unwrap();
        let (header, _, _) = wire::decode::<Msg>(NodeId(0), &buffer[..length], &mut Plain).unwrap();
        let sent = format!("\"seq\":{},\"msg\":{{\"ReadOk\"", header.sequence);
        assert!(text.contains(&sent), "datagram {} has no line yet", header.sequence);
    }
    cluster.kill(STORE);
}

/// How many conditional writes a second a store answers, 32 under way at a time. Its trace, if there is one, is
/// written into that file.
pub fn renewals_per_second(trace: Option<&Path>, durable: bool, count: u64) -> f64 {
    let cluster = Cluster::inside(&std::env::temp_dir());
    let mut spec = launch::spec(&cluster.config, NAMES[STORE]).unwrap();
    spec.bind = Bind::Socket(cluster.sockets[STORE].try_clone().unwrap());
    if !durable {
        spec.storage = None;
    }
    if let Some(trace) = trace {
        record_into(&mut spec, trace.to_owned());
    }
    let node = Node::start(spec).unwrap();
    let (host, store) = (&cluster.sockets[0], node.address());
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let by = Holder { node: NodeId(0), incarnation: 1 };
    let begun = Instant::now();
    let mut buffer = [0; 2000];
    let window = 32;
    for n in 0..count + window {
        if n < count {
            let header = Header {
                source: NodeId(0),
                destination: NodeId(STORE as u16),
                incarnation: 1,
                sequence: n as u32,
            };
            let claim = Claim {
                holder: Some(by),
                epoch: 1,
                lease: Duration::from_secs(1),
                in_sync: NodeSet::EMPTY.with(NodeId(0)),
            };
            let nonce = Nonce { by, n: n + 1 };
            let write = Msg::Write { nonce, expect: Expect::Version(n), claim };
            let datagram = wire::encode(&header, 0, &write, &mut Plain).unwrap();
            host.send_to(&datagram, store).unwrap();
        }
        if n >= window {
            host.recv_from(&mut buffer).unwrap();
        }
    }
    let took = begun.elapsed();
    assert_eq!(node.counts().delivered, count);
    node.kill();
    count as f64 / took.as_secs_f64()
}

/// A host in a process of its own. It is killed when this is dropped.
struct Process(std::process::Child);

impl Process {
    fn start(cluster: &Cluster, id: usize) -> Self {
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_tenure"))
            .args(["node", "--id", NAMES[id], "--config"])
            .arg(cluster.directory.path().join("cluster.toml"))
            .arg("--trace")
            .arg(cluster.trace(id))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hosts in processes of their own, of which the holder is killed in the midst of its writes, again and
/// again, and starts at once.
pub fn killed_processes(rounds: u64) -> Recorded {
    let mut cluster = Cluster::prepare();
    std::fs::write(cluster.directory.path().join("cluster.toml"), &cluster.text).unwrap();
    // Their ports are the processes' now.
    for socket in &mut cluster.sockets[..3] {
        *socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    }
    cluster.start_node(STORE);
    let mut hosts: Vec<_> = (0..3).map(|id| Process::start(&cluster, id)).collect();
    cluster.start_node(CLIENT);
    for round in 0..rounds {
        cluster.write(3);
        for n in 0..20 {
            cluster.written += 1;
            let (key, value) = (format!("k{n}"), format!("r{round}"));
            cluster.node(CLIENT).tell(0, Msg::Submit { key, value }).unwrap();
        }
        // Some of them are acknowledged, the others are under way.
        std::thread::sleep(Duration::from_millis(7 + round * 5));
        let holder = until("the store knows a holder", || match cluster.view(STORE) {
            Some(View::Store { holder: Some(holder), .. }) => Some(usize::from(holder.0)),
            _ => None,
        });
        hosts[holder] = {
            hosts[holder].0.kill().unwrap();
            hosts[holder].0.wait().unwrap();
            Process::start(&cluster, holder)
        };
    }
    cluster.write(3);
    drop(hosts);
    cluster.finish()
}
