//! A relay between one host and the store: it passes datagrams on, delays one, or drops them.
//!
//! A node checks that a datagram comes from the address that its file gives to the sender. So the
//! relay has two sockets: the host's file has one of them in the store's place, and the store's file
//! has the other in the host's.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tenure::lease::msg::Msg;
use tenure::lease::record::{NodeId, Nonce};
use tenure::node::clock::BootInstant;
use tenure::wire::{self, Plain};

/// A write that the store has committed, as the relay saw the answer come from the store.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub sent: Option<BootInstant>,
    pub at: BootInstant,
    pub epoch: u64,
    pub version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    /// The next write passes, and nothing after it; its answer takes this long.
    Armed(Duration),
    /// Only the answer to this attempt still passes, late.
    Last(Nonce, Duration),
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// How long every answer takes while the relay is open.
    delay: Duration,
    drops_hints: bool,
    commits: Vec<Commit>,
    asked: Option<(Nonce, BootInstant)>,
    delivered: Option<BootInstant>,
}

pub struct Relay {
    /// Where the host sends to, and where the store does.
    pub for_host: SocketAddr,
    pub for_store: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// How long a thread waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

impl Relay {
    pub fn start(host: usize, host_at: SocketAddr, store: usize, store_at: SocketAddr) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("a socket for a relay");
        let (near, far) = (bind(), bind());
        let (for_host, for_store) = (near.local_addr().unwrap(), far.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            mode: Mode::Open,
            delay: Duration::ZERO,
            drops_hints: false,
            commits: Vec::new(),
            asked: None,
            delivered: None,
        }));
        let ends = Arc::new(AtomicBool::new(false));
        let id = |node: usize| NodeId(u16::try_from(node).unwrap());
        let up = {
            let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (state, ends) = (Arc::clone(&state), Arc::clone(&ends));
            move || to_store(&near, &far, host_at, store_at, id(store), &state, &ends)
        };
        let down = {
            let (state, ends) = (Arc::clone(&state), Arc::clone(&ends));
            move || to_host(&near, &far, host_at, store_at, id(host), &state, &ends)
        };
        let threads = vec![std::thread::spawn(up), std::thread::spawn(down)];
        Self { for_host, for_store, state, ends, threads }
    }

    /// The next write passes and is answered only after `delay`; then the host is cut off.
    pub fn cut_after_next_write(&self, delay: Duration) {
        let mut state = self.state.lock().unwrap();
        state.delivered = None;
        state.mode = Mode::Armed(delay);
    }

    /// From now on the host hears of changes only when it asks.
    pub fn drop_hints(&self) {
        self.state.lock().unwrap().drops_hints = true;
    }

    /// From now on every answer takes this long.
    pub fn slow_down(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().mode = Mode::Open;
    }

    /// Whether the last write has passed and the host is cut off.
    pub fn is_cut(&self) -> bool {
        matches!(self.state.lock().unwrap().mode, Mode::Last(..))
    }

    /// When the last, late answer was given to the host.
    pub fn delivered(&self) -> Option<BootInstant> {
        self.state.lock().unwrap().delivered
    }

    pub fn last_commit(&self) -> Option<Commit> {
        self.state.lock().unwrap().commits.last().copied()
    }

    pub fn commits(&self) -> usize {
        self.state.lock().unwrap().commits.len()
    }

    pub fn first_commit_above(&self, epoch: u64) -> Option<Commit> {
        let state = self.state.lock().unwrap();
        state.commits.iter().find(|commit| commit.epoch > epoch).copied()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn to_store(
    near: &UdpSocket,
    far: &UdpSocket,
    host_at: SocketAddr,
    store_at: SocketAddr,
    store: NodeId,
    state: &Mutex<State>,
    ends: &AtomicBool,
) {
    near.set_read_timeout(Some(LOOK)).unwrap();
    let mut buffer = [0; 2000];
    while !ends.load(Ordering::Relaxed) {
        let Ok((len, from)) = near.recv_from(&mut buffer) else { continue };
        let datagram = &buffer[..len];
        if from != host_at {
            continue;
        }
        let now = BootInstant::now();
        let msg = wire::decode::<Msg>(store, datagram, &mut Plain).map(|(_, _, msg)| msg);
        let mut state = state.lock().unwrap();
        if matches!(state.mode, Mode::Last(..)) {
            continue;
        }
        if let Ok(Msg::Write { nonce, .. }) = msg {
            state.asked = Some((nonce, now));
            if let Mode::Armed(delay) = state.mode {
                state.mode = Mode::Last(nonce, delay);
            }
        }
        drop(state);
        let _ = far.send_to(datagram, store_at);
    }
}

fn to_host(
    near: &UdpSocket,
    far: &UdpSocket,
    host_at: SocketAddr,
    store_at: SocketAddr,
    host: NodeId,
    state: &Mutex<State>,
    ends: &AtomicBool,
) {
    let mut buffer = [0; 2000];
    // What is under way to the host, and whether it is the last that it gets.
    let mut late: BTreeMap<BootInstant, (Vec<u8>, bool)> = BTreeMap::new();
    while !ends.load(Ordering::Relaxed) {
        let mut wait = LOOK;
        while let Some(first) = late.first_entry() {
            let left = first.key().saturating_duration_since(BootInstant::now());
            if !left.is_zero() {
                wait = wait.min(left);
                break;
            }
            let (datagram, is_last) = first.remove();
            let _ = near.send_to(&datagram, host_at);
            if is_last {
                state.lock().unwrap().delivered = Some(BootInstant::now());
            }
        }
        far.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        let Ok((len, from)) = far.recv_from(&mut buffer) else { continue };
        let datagram = &buffer[..len];
        if from != store_at {
            continue;
        }
        let now = BootInstant::now();
        let msg = wire::decode::<Msg>(host, datagram, &mut Plain).map(|(_, _, msg)| msg);
        let mut state = state.lock().unwrap();
        if state.drops_hints && matches!(msg, Ok(Msg::Changed { .. })) {
            continue;
        }
        let mut answers = None;
        if let Ok(Msg::Written { nonce, record }) = &msg {
            answers = Some(*nonce);
            let sent = state.asked.filter(|(asked, _)| asked == nonce).map(|(_, sent)| sent);
            let (epoch, version) = (record.claim.epoch, record.version);
            state.commits.push(Commit { sent, at: now, epoch, version });
        }
        match state.mode {
            Mode::Open | Mode::Armed(_) if state.delay.is_zero() => {
                drop(state);
                let _ = near.send_to(datagram, host_at);
            }
            Mode::Open | Mode::Armed(_) => {
                late.insert(now.saturating_add(state.delay), (datagram.to_vec(), false));
            }
            Mode::Last(nonce, delay) if answers == Some(nonce) => {
                // The answer takes `delay` from the send of the request.
                let sent = state.asked.map_or(now, |(_, sent)| sent);
                late.insert(sent.saturating_add(delay), (datagram.to_vec(), true));
            }
            Mode::Last(..) => {}
        }
    }
}
