//! Clusters of separate processes, each with a file of its own to start from.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tenure::lease::timing::Timing;

use super::ports::address;
use super::relay::Relay;

pub const LEASE: &str = "table";
/// How long anything may take that has no bound of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a process is started again that lost its port to another.
const STARTS_MAX: u32 = 10;

/// Waits until something is so, and says whether it ever was.
pub fn soon(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if begun.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a cluster shall be.
pub struct Plan {
    pub hosts: usize,
    pub writers: usize,
    pub timing: Timing,
    /// Whether each host talks to the store through a relay of the test.
    pub relays: bool,
    /// Whether storage lies in memory, if the system has a place for that.
    pub in_memory: bool,
}

/// One node of the file.
pub struct Member {
    pub name: String,
    pub address: SocketAddr,
    pub control: SocketAddr,
    file: PathBuf,
    child: Mutex<Option<Child>>,
}

/// A cluster. Members: hosts, the store, writers, and one prober for each host, which has no
/// process.
pub struct Cluster {
    pub plan: Plan,
    pub members: Vec<Member>,
    pub relays: Vec<Relay>,
    /// The probers' sockets, by host.
    probers: Mutex<Vec<Option<UdpSocket>>>,
    directory: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts every process and waits until each is ready.
    pub fn start(plan: Plan) -> Self {
        let cluster = Self::prepare(plan);
        // The store first: a host whose first question is lost only asks again a retry later.
        cluster.launch(cluster.store());
        for member in (0..cluster.prober(0)).filter(|&member| member != cluster.store()) {
            cluster.launch(member);
        }
        cluster
    }

    fn prepare(plan: Plan) -> Self {
        plan.timing.validate().expect("the timing is safe");
        let mut builder = tempfile::Builder::new();
        builder.prefix("tenure-cluster-");
        let memory = Path::new("/dev/shm");
        let directory = if plan.in_memory && memory.is_dir() {
            builder.tempdir_in(memory)
        } else {
            builder.tempdir()
        };
        let directory = directory.expect("a directory for the cluster");
        let hosts = plan.hosts;
        let mut names: Vec<(String, &str)> =
            (0..hosts).map(|host| (host_name(host), "host")).collect();
        names.push(("s".to_owned(), "store"));
        names.extend((0..plan.writers).map(|writer| (format!("w{writer}"), "client")));
        names.extend((0..hosts).map(|host| (format!("p{host}"), "client")));
        let mut probers = Vec::new();
        let members: Vec<_> = names
            .iter()
            .map(|(name, _)| {
                let mut address = address();
                if name.starts_with('p') {
                    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket for a prober");
                    address = socket.local_addr().unwrap();
                    probers.push(Some(socket));
                }
                Member {
                    name: name.clone(),
                    address,
                    control: self::address(),
                    file: directory.path().join(format!("{name}.toml")),
                    child: Mutex::default(),
                }
            })
            .collect();
        let relays: Vec<_> = (0..hosts)
            .filter(|_| plan.relays)
            .map(|host| Relay::start(host, members[host].address, hosts, members[hosts].address))
            .collect();
        let cluster = Self {
            plan,
            members,
            relays,
            probers: Mutex::new(probers),
            directory: Some(directory),
        };
        for member in 0..cluster.members.len() {
            let text = cluster.file_for(member, &names);
            fs::write(&cluster.members[member].file, text).expect("the file can be written");
        }
        cluster
    }

    /// The cluster file as this member sees the others: a host sees its relay in the store's place,
    /// and the store sees the relays in the hosts'.
    fn file_for(&self, reader: usize, names: &[(String, &str)]) -> String {
        let Plan { hosts, timing, .. } = self.plan;
        let ms = |duration: Duration| format!("\"{}us\"", duration.as_micros());
        let mut text = format!(
            "cluster = \"test\"\ninsecure = true\n[timing]\nlease = {}\ngive_up = {}\nrenew = {}\n\
             retry = {}\npoll = {}\njitter = {}\nhook = {}\nclock_error_ppm = {}\n",
            ms(timing.lease),
            ms(timing.give_up),
            ms(timing.renew),
            ms(timing.retry),
            ms(timing.poll),
            ms(timing.jitter),
            ms(timing.hook),
            timing.clock_error_ppm
        );
        for (at, (name, role)) in names.iter().enumerate() {
            let member = &self.members[at];
            let address = match self.relays.get(reader.min(at)) {
                Some(relay) if reader < hosts && at == hosts => relay.for_host,
                Some(_) if reader == hosts && at < hosts => self.relays[at].for_store,
                _ => member.address,
            };
            text += &format!(
                "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\naddress = \"{address}\"\n\
                 control = \"{}\"\nstorage = \"{name}.redb\"\n",
                member.control
            );
            if *role == "host" {
                text += &format!("zone = \"zone-{name}\"\n");
            }
        }
        let hosts: Vec<_> = (0..hosts).map(|host| format!("\"{}\"", host_name(host))).collect();
        text + &format!(
            "[[lease]]\nname = \"{LEASE}\"\nhosts = [{}]\nstore = \"s\"\n",
            hosts.join(", ")
        )
    }

    pub fn store(&self) -> usize {
        self.plan.hosts
    }

    pub fn writer(&self, writer: usize) -> usize {
        self.plan.hosts + 1 + writer
    }

    /// The id of the node under which a host is probed.
    pub fn prober(&self, host: usize) -> usize {
        self.plan.hosts + 1 + self.plan.writers + host
    }

    pub fn prober_socket(&self, host: usize) -> UdpSocket {
        self.probers.lock().unwrap()[host].take().expect("a host has one prober")
    }

    /// Starts a member's process and waits until it says that it is ready.
    pub fn launch(&self, member: usize) {
        let Member { name, file, child, .. } = &self.members[member];
        let directory = self.directory();
        let (out, log) =
            (directory.join(format!("{name}.out")), directory.join(format!("{name}.log")));
        for _ in 0..STARTS_MAX {
            let stderr = File::options().create(true).append(true).open(&log).unwrap();
            let process = Command::new(env!("CARGO_BIN_EXE_tenure"))
                .args(["node", "--id", name, "--config"])
                .arg(file)
                .env("RUST_LOG", "info")
                .stdin(Stdio::null())
                .stdout(File::create(&out).unwrap())
                .stderr(stderr)
                .spawn()
                .expect("the program starts");
            let mut slot = child.lock().unwrap();
            assert!(slot.is_none(), "{name} runs already");
            let process = slot.insert(process);
            let mut has_ended = false;
            let is_ready = soon(PATIENCE, || {
                has_ended = process.try_wait().is_ok_and(|status| status.is_some());
                has_ended || fs::read_to_string(&out).is_ok_and(|text| text.contains('\n'))
            });
            if is_ready && !has_ended {
                return;
            }
            let _ = process.kill();
            let _ = process.wait();
            *slot = None;
            let said = fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().last().unwrap_or_default();
            assert!(last.contains("in use"), "{name} does not start: {last}");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{name} never got its port");
    }

    /// Ends a member's process with SIGKILL, and waits until the system has taken back what it had.
    pub fn kill(&self, member: usize) {
        if let Some(mut child) = self.members[member].child.lock().unwrap().take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    pub fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].child.lock().unwrap();
        let pid = child.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Asks a member's control socket one thing.
    pub fn ask(&self, member: usize, question: &Value, patience: Duration) -> io::Result<Value> {
        Control::connect(self.members[member].control)?.ask(question, patience)
    }

    /// What a host shows of the lease; `None` if it does not answer.
    pub fn shown(&self, host: usize) -> Option<Shown> {
        let question = json!({"op": "status", "lease": LEASE});
        let answer = self.ask(host, &question, Duration::from_millis(300)).ok()?;
        Shown::read(&answer)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("it is kept at the end").path()
    }

    /// Keeps the directory, and says where it is.
    pub fn keep(&mut self) {
        if let Some(directory) = self.directory.take() {
            eprintln!("logs and files of the cluster are kept in {}", directory.keep().display());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &self.members {
            let child = member.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            if let Some(mut child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            self.keep();
        }
    }
}

pub fn host_name(host: usize) -> String {
    ["a", "b", "c", "d"][host].to_owned()
}

/// A connection to a control socket.
pub struct Control(BufReader<TcpStream>);

impl Control {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn ask(&mut self, question: &Value, patience: Duration) -> io::Result<Value> {
        let stream = self.0.get_mut();
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::from)
    }
}

/// What a host shows of the lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub role: String,
    pub epoch: Option<u64>,
    pub seen_epoch: Option<u64>,
    pub seen_version: Option<u64>,
    pub in_sync: BTreeSet<String>,
    pub last_seq: u64,
    pub committed_seq: u64,
    pub is_valid: bool,
}

impl Shown {
    pub fn read(answer: &Value) -> Option<Self> {
        let lease = answer.get("leases")?.get(0)?;
        let view = lease.get("view")?;
        Some(Self {
            role: view.get("role")?.as_str()?.to_owned(),
            epoch: view["epoch"].as_u64(),
            seen_epoch: view["seen_epoch"].as_u64(),
            seen_version: view["seen_version"].as_u64(),
            in_sync: lease["in_sync"]
                .as_array()?
                .iter()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            last_seq: view["last_seq"].as_u64()?,
            committed_seq: view["committed_seq"].as_u64()?,
            is_valid: lease["remaining_ms"].as_f64().is_some_and(|left| left > 0.0),
        })
    }

    /// The epoch under which it says that it may write.
    pub fn holding(&self) -> Option<u64> {
        self.epoch.filter(|_| self.role == "holding" && self.is_valid)
    }
}
