//! Those who ask the hosts all the time: probers, which try to write, and lookers, which ask what a
//! host shows.
//!
//! A prober is a client node of the cluster, one for each host, so that no two number their writes
//! alike. It tries to write to its host whether that is primary or not. Each attempt has a number of
//! its own and is sent once: an acknowledgement names the very datagram that it answers. While one
//! is unanswered it waits for at most [`GIVE_UP`], so that a stalled primary is not buried.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use tenure::lease::msg::{Msg, RequestId};
use tenure::lease::record::NodeId;
use tenure::node::clock::BootInstant;
use tenure::wire::{self, Headers, Plain};

use super::monitor::{Kind, Monitor};
use super::process::{Cluster, Control, LEASE, Shown};

const GIVE_UP: Duration = Duration::from_millis(60);
/// How long a status may take.
const ANSWER: Duration = Duration::from_millis(300);
/// How many unanswered attempts a prober remembers.
const REMEMBERED: usize = 4096;

/// What all of them share.
pub struct Watch {
    pub monitor: Arc<Monitor>,
    /// The last thing that each host has shown; `None` if it does not answer.
    shown: Arc<Vec<Mutex<Option<Shown>>>>,
    /// The highest number that each prober has an acknowledgement for.
    acknowledged: Arc<Vec<AtomicU64>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Probes every host this often, and looks at it that often.
    pub fn start(cluster: &Cluster, probe: Duration, look: Duration) -> Self {
        let monitor = Arc::new(Monitor::default());
        let hosts = cluster.plan.hosts;
        let shown: Arc<Vec<_>> = Arc::new((0..hosts).map(|_| Mutex::new(None)).collect());
        let acknowledged: Arc<Vec<_>> = Arc::new((0..hosts).map(|_| AtomicU64::new(0)).collect());
        let ends = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for host in 0..hosts {
            let socket = cluster.prober_socket(host);
            let to = cluster.members[host].address;
            let me = NodeId(u16::try_from(cluster.prober(host)).unwrap());
            let (monitor, ends) = (Arc::clone(&monitor), Arc::clone(&ends));
            let acknowledged = Arc::clone(&acknowledged);
            threads.push(std::thread::spawn({
                let (monitor, ends) = (Arc::clone(&monitor), Arc::clone(&ends));
                move || prober(host, me, &socket, to, probe, &monitor, &acknowledged[host], &ends)
            }));
            let control = cluster.members[host].control;
            let shown = Arc::clone(&shown);
            threads.push(std::thread::spawn(move || {
                looker(host, control, look, &monitor, &shown[host], &ends);
            }));
        }
        Self { monitor, shown, acknowledged, ends, threads }
    }

    pub fn shown(&self, host: usize) -> Option<Shown> {
        self.shown[host].lock().unwrap().clone()
    }

    /// The host that says that it holds the lease, and its epoch: the highest, if several do.
    pub fn holder(&self) -> Option<(usize, u64)> {
        (0..self.shown.len())
            .filter_map(|host| Some((host, self.shown(host)?.holding()?)))
            .max_by_key(|&(_, epoch)| epoch)
    }

    /// The holder, once every host is in sync and has seen its epoch.
    pub fn settled(&self) -> Option<(usize, u64)> {
        let (holder, epoch) = self.holder()?;
        let all = self.shown.len();
        let agrees = |host| {
            self.shown(host).is_some_and(|shown| {
                shown.seen_epoch == Some(epoch)
                    && shown.in_sync.len() == all
                    && (host == holder || shown.role == "watching")
            })
        };
        (0..all).all(agrees).then_some((holder, epoch))
    }

    /// Ends all threads; says the highest number acknowledged to each prober.
    pub fn stop(mut self) -> (Arc<Monitor>, Vec<u64>) {
        self.join();
        let numbers = self.acknowledged.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        (Arc::clone(&self.monitor), numbers)
    }

    fn join(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "a watching thread has failed");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.join();
    }
}

/// The key that a prober writes.
pub fn probe_key(host: usize) -> String {
    format!("probe-{host}")
}

#[allow(clippy::too_many_arguments)]
fn prober(
    host: usize,
    me: NodeId,
    socket: &std::net::UdpSocket,
    to: std::net::SocketAddr,
    every: Duration,
    monitor: &Monitor,
    acknowledged: &AtomicU64,
    ends: &AtomicBool,
) {
    let mut headers = Headers::new(me, 1);
    let mut sent: BTreeMap<u64, BootInstant> = BTreeMap::new();
    let mut n = 0;
    let mut waits_since: Option<Instant> = None;
    let mut next = Instant::now();
    let mut buffer = [0; 2000];
    while !ends.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            next = now + every;
            if waits_since.is_none_or(|since| now.duration_since(since) >= GIVE_UP) {
                n += 1;
                let request = RequestId { client: me, incarnation: 1, n };
                let msg = Msg::Apply { request, key: probe_key(host), value: n.to_string() };
                let header = headers.next(NodeId(u16::try_from(host).unwrap()));
                let datagram = wire::encode(&header, 0, &msg, &mut Plain).unwrap();
                sent.insert(n, BootInstant::now());
                if sent.len() > REMEMBERED {
                    sent.pop_first();
                }
                waits_since = Some(now);
                let _ = socket.send_to(&datagram, to);
            }
        }
        let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).unwrap();
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let received = BootInstant::now();
        if from != to {
            continue;
        }
        let Ok((_, _, msg)) = wire::decode::<Msg>(me, &buffer[..len], &mut Plain) else { continue };
        let answered = match msg {
            Msg::Applied { request, epoch, .. } => {
                if let Some(sent) = sent.remove(&request.n) {
                    monitor.note(Kind::Accepted, host, epoch, sent, received);
                    acknowledged.fetch_max(request.n, Ordering::Relaxed);
                }
                request.n
            }
            Msg::Refused { request, .. } => {
                sent.remove(&request.n);
                request.n
            }
            _ => continue,
        };
        if answered == n {
            waits_since = None;
        }
    }
}

pub fn looker(
    host: usize,
    address: std::net::SocketAddr,
    every: Duration,
    monitor: &Monitor,
    shown: &Mutex<Option<Shown>>,
    ends: &AtomicBool,
) {
    let question = json!({"op": "status", "lease": LEASE});
    let mut control: Option<Control> = None;
    while !ends.load(Ordering::Relaxed) {
        if control.is_none() {
            control = Control::connect(address).ok();
        }
        let from = BootInstant::now();
        let answer = control.as_mut().map(|control| control.ask(&question, ANSWER));
        let to = BootInstant::now();
        // Broken or late: the next answer on this connection would be to an old question.
        if !matches!(answer, Some(Ok(_))) {
            control = None;
        }
        let seen = answer.and_then(Result::ok).as_ref().and_then(Shown::read);
        if let Some(epoch) = seen.as_ref().and_then(Shown::holding) {
            monitor.note(Kind::Published, host, epoch, from, to);
        }
        *shown.lock().unwrap() = seen;
        std::thread::sleep(every);
    }
}
