//! Hosts that can be cut off: a network namespace for each node, and a hub with a bridge between them.
//!
//! Everything is made with `ip` of iproute2, and nothing of it is seen outside of the namespaces. They are called
//! `tenure-<process>-<lab>-<network>-<node>`. A shell that holds the other end of a pipe removes them, with whatever still
//! runs in them, as soon as the pipe is closed: when the [`Lab`] is dropped, and also when this process is killed.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/var/run/netns";

/// What is removed at the end, whatever the end is.
pub struct Lab {
    prefix: String,
    reaper: Child,
}

impl Lab {
    /// Begins with the one that will clean up.
    ///
    /// # Panics
    ///
    /// If this process may not make network namespaces; it says what is missing.
    pub fn open() -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("tenure-{}-{lab}-", std::process::id());
        // Only those that have our prefix, and only what runs in them.
        let script = format!(
            "trap '' INT TERM HUP; cat; for name in $(ls {NAMES} | grep '^{prefix}'); do \
             for pid in $(ip netns pids \"$name\"); do kill -9 \"$pid\"; done; ip netns del \"$name\"; done"
        );
        let reaper = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A signal to the group of the test does not reach it.
            .process_group(0)
            .spawn()
            .expect("a shell");
        let lab = Self { prefix, reaper };
        let probe = lab.name(0, "probe");
        if let Err(problem) = ip(&["netns", "add", &probe]) {
            panic!(
                "cannot make a network namespace ({problem}): this test needs iproute2 (apt-get install \
                 iproute2) and root with CAP_SYS_ADMIN and CAP_NET_ADMIN; run it as root, in a container that has \
                 both (docker run --privileged)"
            );
        }
        lab
    }

    fn name(&self, network: usize, node: &str) -> String {
        format!("{}{network}-{node}", self.prefix)
    }

    /// The namespaces that are there now.
    pub fn left(&self) -> Vec<String> {
        let Ok(entries) = Path::new(NAMES).read_dir() else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&self.prefix)).collect()
    }

    /// Removes all namespaces, and says which of them are there still.
    pub fn close(mut self) -> Vec<String> {
        self.clean();
        self.left()
    }

    fn clean(&mut self) {
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.clean();
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    run(Command::new("ip").args(arguments), "")
}

fn run(command: &mut Command, input: &str) -> io::Result<()> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().to_owned()))
}

/// Which addresses the nodes and their network have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

/// The namespaces of one cluster, each joined to the hub by a pair of virtual interfaces.
pub struct Network {
    hub: String,
    /// One for each node.
    names: Vec<String>,
    links: Vec<String>,
}

impl Network {
    /// Makes a network for nodes of these names.
    pub fn build(lab: &Lab, number: usize, nodes: &[&str]) -> io::Result<Self> {
        let hub = lab.name(number, "hub");
        let names: Vec<_> = nodes.iter().map(|node| lab.name(number, node)).collect();
        for name in names.iter().chain([&hub]) {
            ip(&["netns", "add", name])?;
        }
        let links: Vec<_> = nodes.iter().map(|node| format!("to-{node}")).collect();
        let network = Self { hub, names, links };
        let mut batch = "link add hub type bridge mcast_snooping 0\nlink set hub up\n".to_owned();
        for (name, link) in network.names.iter().zip(&network.links) {
            writeln!(batch, "link add {link} type veth peer name eth0 netns {name}").unwrap();
            writeln!(batch, "link set {link} master hub up").unwrap();
        }
        network.batch(&network.hub, &batch)?;
        for (node, name) in network.names.iter().enumerate() {
            // No address has to prove that nobody else has it, at no change of a link.
            network.inside(node, || {
                for what in ["default", "eth0"] {
                    let file = format!("/proc/sys/net/ipv6/conf/{what}/accept_dad");
                    std::fs::write(file, "0").expect("a namespace has settings of its own");
                }
            });
            let [v4, v6] = [Family::V4, Family::V6].map(|family| network.address(node, family));
            let batch = format!(
                "link set lo up\nlink set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"
            );
            network.batch(name, &batch)?;
        }
        Ok(network)
    }

    fn batch(&self, namespace: &str, commands: &str) -> io::Result<()> {
        run(Command::new("ip").args(["-n", namespace, "-batch", "-"]), commands)
    }

    /// The address of a node towards the others.
    pub fn address(&self, node: usize, family: Family) -> IpAddr {
        let host = u16::try_from(node + 1).expect("few nodes");
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 77, 0, host.to_be_bytes()[1])),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host)),
        }
    }

    /// Does something in a node's namespace. Sockets and processes that are made there stay there.
    pub fn inside<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> T {
        let name = &self.names[node];
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(name);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The same for a thread of its own.
    pub fn spawn<T: Send + 'static>(
        &self,
        node: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let name = self.names[node].clone();
        std::thread::spawn(move || {
            enter(&name);
            work()
        })
    }

    /// Takes a node's link away, or gives it back: nothing goes in or out meanwhile.
    pub fn link(&self, node: usize, is_up: bool) -> io::Result<()> {
        let state = if is_up { "up" } else { "down" };
        ip(&["-n", &self.hub, "link", "set", &self.links[node], state])
    }

    /// From now on what `from` sends to `to` is thrown away by the system, or no longer.
    pub fn blackhole(
        &self,
        from: usize,
        to: usize,
        family: Family,
        is_hole: bool,
    ) -> io::Result<()> {
        let what = if is_hole { "add" } else { "del" };
        let to = self.address(to, family).to_string();
        ip(&["-n", &self.names[from], "route", what, "blackhole", &to])
    }
}

fn enter(namespace: &str) {
    let file = File::open(Path::new(NAMES).join(namespace)).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("who has made a namespace may go into it");
}
