//! Regions of separate processes: a control plane and some IRC servers each, with files of their own.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tenure::config::Config;
use tenure::irc::audit::Entry;
use tenure::irc::facts::SealKey;
use tenure::irc::ledger::Ledger;
use tenure::node::keys;
use tenure::node::restore::{self, Owner};

use super::links::{Joint, Links};
use super::ports::address;

/// How long anything may take that has no bound of its own.
pub const PATIENCE: Duration = Duration::from_secs(60);
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
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the regions shall be.
pub struct Plan {
    pub regions: usize,
    pub servers: usize,
    /// How many networks each region has. Account 1 owns all of them, and no two overlap.
    pub networks: usize,
    /// The section `[region.timing]` of each region, and `[region.quota]`.
    pub numbers: &'static str,
    pub seed: u64,
    /// No links between the regions: they are at each other's own addresses.
    pub is_direct: bool,
}

struct Member {
    name: String,
    address: SocketAddr,
    control: SocketAddr,
    http: SocketAddr,
    file: PathBuf,
    child: Mutex<Option<Child>>,
}

/// Running regions. Members: of each region the control plane, then its servers.
pub struct World {
    pub plan: Plan,
    pub links: Links,
    members: Vec<Member>,
    /// The keys of each region's nodes, by number, with the second since 1970 in which they run out; no region has any
    /// if datagrams are not sealed.
    keys: Mutex<Vec<Vec<(u32, u64)>>>,
    directory: tempfile::TempDir,
}

impl World {
    /// Starts every process, and waits until no region is frozen.
    pub fn start(plan: Plan) -> Self {
        Self::start_with(plan, Vec::new())
    }

    /// The same, with keys for the nodes of each region.
    pub fn start_with(plan: Plan, keys: Vec<Vec<(u32, u64)>>) -> Self {
        let world = Self::prepare(plan, keys);
        for member in 0..world.members.len() {
            world.launch(member);
        }
        let is_open = |region| {
            let report = world.ask(region, &json!({ "op": "report" }));
            report.is_ok_and(|report| report["open"] == true)
        };
        assert!(soon(PATIENCE, || (0..world.plan.regions).all(is_open)), "the regions never met");
        world
    }

    fn prepare(plan: Plan, keys: Vec<Vec<(u32, u64)>>) -> Self {
        let directory = tempfile::Builder::new().prefix("tenure-regions-").tempdir().unwrap();
        let mut members = Vec::new();
        for region in 0..plan.regions {
            for place in 0..=plan.servers {
                let name = match place {
                    0 => format!("r{region}"),
                    server => format!("r{region}-{server}"),
                };
                let file = directory.path().join(format!("{name}.toml"));
                let (address, control, http) = (address(), address(), address());
                let child = Mutex::default();
                members.push(Member { name, address, control, http, file, child });
            }
        }
        let per_region = plan.servers + 1;
        let mut joints = Vec::new();
        for (server, member) in members.iter().enumerate() {
            let from = server / per_region;
            for to in (0..plan.regions).filter(|&to| to != from && server % per_region != 0) {
                if plan.is_direct {
                    continue;
                }
                let control = members[to * per_region].address;
                let server = (server, from, member.address);
                joints.push(Joint { server, control: (to, control) });
            }
        }
        let links = Links::start(joints, plan.regions, plan.seed);
        let world = Self { plan, links, members, keys: Mutex::new(keys), directory };
        world.write_files();
        world
    }

    fn write_files(&self) {
        for member in 0..self.members.len() {
            fs::write(&self.members[member].file, self.file_for(member)).unwrap();
        }
    }

    /// Lists these keys for the nodes of a region, in the file of every node, and lets all of them that run read it.
    pub fn list_keys(&self, region: usize, keys: &[(u32, u64)]) {
        self.keys.lock().unwrap()[region] = keys.to_vec();
        self.write_files();
        for member in &self.members {
            if let Some(child) = &*member.child.lock().unwrap() {
                kill_process(Pid::from_child(child), Signal::HUP)
                    .expect("a child can be signalled");
            }
        }
    }

    /// The sections of a member's keys, whose files are made if they are not there yet.
    fn keys_of(&self, member: usize) -> String {
        let mut text = String::new();
        let keys = self.keys.lock().unwrap();
        for &(number, not_after) in keys.get(member / self.per_region()).into_iter().flatten() {
            let name = format!("{}-{number}.key", self.members[member].name);
            let path = self.path(&name);
            if !path.exists() {
                keys::write_secret(&path, &keys::new_secret().unwrap()).unwrap();
            }
            let public = keys::read_secret(&path).unwrap().public();
            let date = jiff::Timestamp::from_second(not_after as i64).unwrap();
            text += &format!(
                "[[node.key]]\npublic = \"{public}\"\nnot_after = \"{date}\"\nsecret = \"{name}\"\n"
            );
        }
        text
    }

    /// What a member has counted.
    pub fn counts(&self, member: usize) -> Value {
        let mut connection = Connection::to(self.members[member].control).unwrap();
        connection.ask(&json!({ "op": "status" })).unwrap()["counts"].clone()
    }

    fn per_region(&self) -> usize {
        self.plan.servers + 1
    }

    /// The cluster file as this member sees the others.
    fn file_for(&self, reader: usize) -> String {
        let per_region = self.per_region();
        let mut text = String::from("cluster = \"regions\"\n");
        if self.keys.lock().unwrap().is_empty() {
            text += "insecure = true\n";
        }
        for (at, member) in self.members.iter().enumerate() {
            let link = self.links.all.iter().find_map(|link| {
                let control = link.to * per_region;
                match (reader, at) {
                    pair if pair == (link.server, control) => Some(link.for_server),
                    pair if pair == (control, link.server) => Some(link.for_control),
                    _ => None,
                }
            });
            let role = if at % per_region == 0 { "control-plane" } else { "irc-server" };
            text += &format!(
                "[[node]]\nname = \"{0}\"\nroles = [\"{role}\"]\naddress = \"{1}\"\n\
                 control = \"{2}\"\nstorage = \"{0}.redb\"\n",
                member.name,
                link.unwrap_or(member.address),
                member.control
            );
            text += &self.keys_of(at);
        }
        for region in 0..self.plan.regions {
            let servers: Vec<_> =
                (1..per_region).map(|server| format!("\"r{region}-{server}\"")).collect();
            text += &format!(
                "[[region]]\nname = \"r{region}\"\ncontrol_plane = \"r{region}\"\n\
                 servers = [{}]\nseal_key = \"r{region}.seal\"\n",
                servers.join(", ")
            );
            for network in 0..self.plan.networks {
                let block = region * self.plan.networks + network;
                text += &format!(
                    "[[region.network]]\nid = {network}\naccount = 1\ncidr = \"10.{}.{}.0/24\"\n",
                    block / 256,
                    block % 256
                );
            }
            text += self.plan.numbers;
        }
        text
    }

    pub fn control_plane(&self, region: usize) -> usize {
        region * self.per_region()
    }

    /// The region whose control plane a member is.
    pub fn region_of(&self, member: usize) -> Option<usize> {
        member.is_multiple_of(self.per_region()).then(|| member / self.per_region())
    }

    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file of a member: what `--config` names.
    pub fn file(&self, member: usize) -> &Path {
        &self.members[member].file
    }

    /// Starts a member's process and waits until it says that it is ready.
    pub fn launch(&self, member: usize) {
        let Member { name, file, child, http, .. } = &self.members[member];
        let (out, log) = (self.path(&format!("{name}.out")), self.path(&format!("{name}.log")));
        for _ in 0..STARTS_MAX {
            let stderr = File::options().create(true).append(true).open(&log).unwrap();
            let process = Command::new(env!("CARGO_BIN_EXE_tenure"))
                .args(["node", "--id", name, "--config"])
                .arg(file)
                .args(["--http", &http.to_string()])
                .env("RUST_LOG", "warn")
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

    /// Starts a member that is to refuse; what it says.
    pub fn refusal(&self, member: usize) -> String {
        let Member { name, file, .. } = &self.members[member];
        let child = Command::new(env!("CARGO_BIN_EXE_tenure"))
            .args(["node", "--id", name, "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the program starts");
        let has_ended = soon(PATIENCE, || child.try_wait().is_ok_and(|status| status.is_some()));
        let _ = child.kill();
        let output = child.wait_with_output().expect("a child can be waited for");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(has_ended && !output.status.success(), "{name} has started: {text}");
        text
    }

    /// Ends a member's process with SIGKILL.
    pub fn kill(&self, member: usize) {
        if let Some(mut child) = self.members[member].child.lock().unwrap().take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Tells a member to end, and expects that it ends well.
    pub fn stop(&self, member: usize) {
        let child = self.members[member].child.lock().unwrap().take();
        if let Some(mut child) = child {
            kill_process(Pid::from_child(&child), Signal::TERM).expect("a child can be signalled");
            let status = child.wait().expect("a child can be waited for");
            assert!(status.success(), "{} ended with {status}", self.members[member].name);
        }
    }

    /// Asks a region's control plane one thing, on a connection of its own.
    pub fn ask(&self, region: usize, question: &Value) -> io::Result<Value> {
        self.connect(region)?.ask(question)
    }

    /// Asks a member over HTTP: the status and the body.
    pub fn get(&self, member: usize, path: &str) -> io::Result<(u16, String)> {
        let http = self.members[member].http;
        let mut stream = TcpStream::connect_timeout(&http, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub fn connect(&self, region: usize) -> io::Result<Connection> {
        Connection::to(self.members[self.control_plane(region)].control)
    }

    /// What a region has on its disk. Its control plane must not be running.
    pub fn ledger(&self, region: usize) -> Ledger {
        let config = Config::load(self.file(self.control_plane(region))).unwrap();
        let node = config.node(&format!("r{region}")).unwrap();
        let owner = Owner::of(&config, &config.regions[region]);
        restore::read(&owner, &node.storage).unwrap().expect("it has a ledger")
    }

    /// The whole audit log on a region's disk. Its control plane must not be running.
    pub fn audit(&self, region: usize) -> Vec<(u64, Entry)> {
        let config = Config::load(self.file(self.control_plane(region))).unwrap();
        let node = config.node(&format!("r{region}")).unwrap();
        let owner = Owner::of(&config, &config.regions[region]);
        restore::read_audit(&owner, &node.storage).unwrap()
    }

    /// What a region seals its facts with.
    pub fn seal_key(&self, region: usize) -> SealKey {
        let text = fs::read_to_string(self.path(&format!("r{region}.seal"))).unwrap();
        let half = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let text = text.trim();
        SealKey([half(&text[..16]), half(&text[16..])])
    }

    /// Runs the program with this region's cluster file; its exit code and what it said.
    pub fn run(&self, region: usize, args: &[&str]) -> (i32, String) {
        let file = self.file(self.control_plane(region));
        let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
            .args(args)
            .arg("--config")
            .arg(file)
            .args(["--region", &format!("r{region}")])
            .output()
            .expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for member in &self.members {
            let child = member.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            if let Some(mut child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for member in &self.members {
                let log = self.path(&format!("{}.log", member.name));
                let text = fs::read_to_string(log).unwrap_or_default();
                for line in text.lines().rev().take(3) {
                    eprintln!("{}: {line}", member.name);
                }
            }
        }
    }
}

/// A connection to a control socket.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn ask(&mut self, question: &Value) -> io::Result<Value> {
        self.0.get_mut().write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }
}
