//! Between a node and the network: nodes talk on the loopback of their own namespace only, and what they say is
//! carried from one namespace to the other, and lost, doubled or delayed on the way.
//!
//! A node checks that a datagram comes from the address that its file gives to the sender. So for each pair there is
//! a socket on the loopback of the one that stands for the other. Towards the network each node has one address.
//!
//! What the nodes say is sealed. A relay looks into it with the key of the node that it is for, at both ends of the way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tenure::lease::msg::{Msg, RequestId};
use tenure::lease::record::NodeId;
use tenure::node::clock::BootInstant;
use tenure::wire::{self, Sealed};

use super::cluster::monitor::{Kind, Monitor};
use super::keys::Keys;
use super::network::{Family, Network};

const MS: u64 = 1_000_000;
/// Where the relays of the first cluster listen in the network; those of every next one a port higher. What was said in
/// a cluster may wait in the system until a neighbour is found again, and must not arrive in the next one, whose nodes
/// have the same names and begin with the same incarnations.
static PORT: AtomicU16 = AtomicU16::new(7003);
/// How long it waits before it looks whether it shall end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What happens to the datagrams that a node sends: lost and doubled in a thousand, late by up to so many milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u16,
    pub double: u16,
    pub late_ms: u16,
}

/// What the relays have seen and done.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub carried: u64,
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    /// Datagrams that the system refused to send: a route into nowhere.
    pub refused: u64,
    /// Datagrams of nodes that were sealed for the node that they went to.
    pub sealed: u64,
    /// The epoch of each version that the store has said it committed.
    pub epochs: BTreeMap<u64, u64>,
    /// What must not be.
    pub problems: Vec<String>,
}

#[derive(Default)]
struct State {
    weather: Vec<Weather>,
    tally: Tally,
}

/// The relays of all nodes of a cluster.
pub struct Relays {
    /// For each node, which address stands for which other one.
    pub stands_for: Vec<Vec<Option<SocketAddr>>>,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relays {
    /// Puts them between the nodes and the network. The first `hosts` nodes are the hosts.
    pub fn start(
        network: &Network,
        family: Family,
        hosts: usize,
        nodes: &[SocketAddr],
        keys: &Keys,
        seed: u64,
        monitor: &Arc<Monitor>,
    ) -> io::Result<Self> {
        let count = nodes.len();
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let (mut near, mut far, mut stands_for) = (Vec::new(), Vec::new(), Vec::new());
        for node in 0..count {
            let address = network.address(node, family);
            let (sockets, outside) = network.inside(node, || {
                let bind = |other: usize| {
                    (other != node).then(|| UdpSocket::bind((family.loopback(), 0))).transpose()
                };
                let sockets = (0..count).map(bind).collect::<io::Result<Vec<_>>>()?;
                io::Result::Ok((sockets, UdpSocket::bind((address, port))?))
            })?;
            for socket in sockets.iter().flatten().chain([&outside]) {
                socket.set_nonblocking(true)?;
            }
            let addresses = sockets.iter().map(|socket| socket.as_ref()?.local_addr().ok());
            stands_for.push(addresses.collect());
            near.push(sockets);
            far.push(outside);
        }
        let state = State { weather: vec![Weather::default(); count], tally: Tally::default() };
        let state = Arc::new(Mutex::new(state));
        let ends = Arc::new(AtomicBool::new(false));
        let mut carrier = Carrier {
            near,
            far,
            nodes: nodes.to_vec(),
            outside: (0..count).map(|node| (network.address(node, family), port).into()).collect(),
            hosts,
            leaving: keys.seals(),
            arriving: keys.seals(),
            asked: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            count: 0,
            rng: StdRng::seed_from_u64(seed ^ 0x7265_6c61),
            monitor: Arc::clone(monitor),
            state: Arc::clone(&state),
        };
        let thread = {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    carrier.pass();
                }
            })
        };
        Ok(Self { stands_for, state, ends, thread: Some(thread) })
    }

    /// From now on this is what happens to what the node sends.
    pub fn set(&self, node: usize, weather: Weather) {
        self.state.lock().unwrap().weather[node] = weather;
    }

    /// Ends them.
    pub fn stop(mut self) -> Tally {
        self.join();
        std::mem::take(&mut self.state.lock().unwrap().tally)
    }

    fn join(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let is_good = thread.join().is_ok();
            assert!(is_good || std::thread::panicking(), "the relay has failed");
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.join();
    }
}

/// What goes out later: when, in which order, from whom, to whom, what.
type Late = (u64, u64, usize, usize, Vec<u8>);

struct Carrier {
    near: Vec<Vec<Option<UdpSocket>>>,
    far: Vec<UdpSocket>,
    /// The nodes' own addresses, on their loopback.
    nodes: Vec<SocketAddr>,
    outside: Vec<SocketAddr>,
    hosts: usize,
    /// What opens the datagrams that leave for each node, once each, and what opens those that arrive there.
    leaving: Vec<Sealed>,
    arriving: Vec<Sealed>,
    /// When a host was first asked for a write that it has not acknowledged.
    asked: BTreeMap<(usize, RequestId), BootInstant>,
    under_way: BinaryHeap<Reverse<Late>>,
    count: u64,
    rng: StdRng,
    monitor: Arc<Monitor>,
    state: Arc<Mutex<State>>,
}

impl Carrier {
    fn pass(&mut self) {
        let now = BootInstant::now().as_nanos();
        while self.under_way.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Reverse((_, _, from, to, datagram)) = self.under_way.pop().expect("it was there");
            self.transmit(from, to, &datagram);
        }
        let wait = self.under_way.peek().map_or(LOOK, |Reverse((due, ..))| {
            let left = (due - now).min(20 * MS);
            Timespec { tv_sec: 0, tv_nsec: left.try_into().expect("less than a second") }
        });
        let sockets = self.near.iter().flatten().flatten().chain(&self.far);
        let mut ready: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        if poll(&mut ready, Some(&wait)).unwrap_or(0) == 0 {
            return;
        }
        let is_ready: Vec<bool> = ready.iter().map(|it| !it.revents().is_empty()).collect();
        let mut place = is_ready.into_iter();
        let mut buffer = [0; 2000];
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|&to| to != from) {
                if !place.next().expect("one for each socket") {
                    continue;
                }
                while let Some((length, source)) =
                    receive(self.near[from][to].as_ref(), &mut buffer)
                {
                    if source == self.nodes[from] {
                        self.leaves(from, to, &buffer[..length]);
                    }
                }
            }
        }
        for to in 0..self.nodes.len() {
            if !place.next().expect("one for each socket") {
                continue;
            }
            while let Some((length, source)) = receive(Some(&self.far[to]), &mut buffer) {
                let from = self.outside.iter().position(|address| *address == source);
                if let Some(from) = from.filter(|&from| from != to) {
                    self.arrives(from, to, &buffer[..length]);
                }
            }
        }
    }

    /// A node has said something.
    fn leaves(&mut self, from: usize, to: usize, datagram: &[u8]) {
        self.look(from, to, datagram);
        let now = BootInstant::now();
        let mut state = self.state.lock().unwrap();
        let Weather { loss, double, late_ms } = state.weather[from];
        if self.rng.random_range(0..1000) < loss {
            state.tally.lost += 1;
            return;
        }
        let copies = 1 + usize::from(self.rng.random_range(0..1000) < double);
        state.tally.doubled += copies as u64 - 1;
        state.tally.late += u64::from(late_ms > 0);
        drop(state);
        for _ in 0..copies {
            if late_ms == 0 {
                self.transmit(from, to, datagram);
                continue;
            }
            self.count += 1;
            let late = self.rng.random_range(0..=u64::from(late_ms) * MS);
            let due = now.as_nanos() + late;
            self.under_way.push(Reverse((due, self.count, from, to, datagram.to_vec())));
        }
    }

    fn transmit(&self, from: usize, to: usize, datagram: &[u8]) {
        let sent = self.far[from].send_to(datagram, self.outside[to]);
        let tally = &mut self.state.lock().unwrap().tally;
        match sent {
            Ok(_) => tally.carried += 1,
            Err(_) => tally.refused += 1,
        }
    }

    /// Something has come through the network to a node.
    fn arrives(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let opened = decode(to, datagram, &mut self.arriving);
        if let (true, Some(Msg::Apply { request, .. })) = (to < self.hosts, opened) {
            self.asked.entry((to, request)).or_insert_with(BootInstant::now);
        }
        if let Some(socket) = &self.near[to][from] {
            // Refused while the process is down.
            let _ = socket.send_to(datagram, self.nodes[to]);
        }
    }

    /// What a node says of itself: that it has accepted a write, that it has committed a record.
    fn look(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let now = BootInstant::now();
        let opened = decode(to, datagram, &mut self.leaving);
        let tally = &mut self.state.lock().unwrap().tally;
        match &opened {
            Some(_) => tally.sealed += 1,
            None => tally.problems.push(format!("node {from} has not sealed for {to}")),
        }
        match opened {
            Some(Msg::Applied { request, epoch, .. }) if from < self.hosts => {
                // Without a question that is still open it may have waited since any time.
                if let Some(asked) = self.asked.remove(&(from, request)) {
                    self.monitor.note(Kind::Accepted, from, epoch, asked, now);
                }
            }
            Some(Msg::Written { record, .. }) => {
                let (version, epoch) = (record.version, record.claim.epoch);
                let known = *tally.epochs.entry(version).or_insert(epoch);
                if known != epoch {
                    let what = format!("version {version} has the epochs {known} and {epoch}");
                    tally.problems.push(what);
                }
            }
            _ => {}
        }
    }
}

fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    socket?.recv_from(buffer).ok()
}

fn decode(to: usize, datagram: &[u8], seals: &mut [Sealed]) -> Option<Msg> {
    let node = NodeId(u16::try_from(to).ok()?);
    wire::decode::<Msg>(node, datagram, &mut seals[to]).ok().map(|(_, _, msg)| msg)
}

/// Epochs never become smaller from one version of the record to the next.
pub fn epochs_fall(epochs: &BTreeMap<u64, u64>) -> Option<String> {
    let mut last = (0, 0);
    for (&version, &epoch) in epochs {
        if epoch < last.1 {
            return Some(format!(
                "version {version} has epoch {epoch}, after version {} with epoch {}",
                last.0, last.1
            ));
        }
        last = (version, epoch);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_falls_is_told() {
        let epochs = |epochs: &[u64]| (1..).zip(epochs.iter().copied()).collect::<BTreeMap<_, _>>();
        assert_eq!(epochs_fall(&epochs(&[1, 1, 2, 4])), None);
        assert!(epochs_fall(&epochs(&[1, 3, 2])).expect("told").contains("version 3"));
    }
}
