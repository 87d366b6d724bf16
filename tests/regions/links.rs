//! The links between regions: each IRC server reaches the control plane of another region through a
//! relay of the test, which loses datagrams, cuts regions off, and counts.
//!
//! A node takes a datagram only from the address that its file gives to the sender. So each link has two
//! sockets: the server's file has one of them in the control plane's place, and the control plane's file
//! has the other in the server's.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

/// No region.
const NONE: usize = usize::MAX;

/// What the test may turn while the links work.
#[derive(Debug)]
pub struct Knobs {
    /// How many of a thousand datagrams are lost.
    loss: AtomicU32,
    /// The region that nobody reaches, and that reaches nobody.
    dark: AtomicUsize,
    /// Datagrams that servers have sent to each region.
    calls: Vec<AtomicU64>,
}

impl Knobs {
    pub fn lose(&self, per_mille: u32) {
        self.loss.store(per_mille, Ordering::Relaxed);
    }

    pub fn cut_off(&self, region: Option<usize>) {
        self.dark.store(region.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// How many datagrams servers have sent to a region so far, lost or not.
    pub fn calls_to(&self, region: usize) -> u64 {
        self.calls[region].load(Ordering::Relaxed)
    }

    fn loses(&self, ends: [usize; 2], rng: &mut StdRng) -> bool {
        let dark = self.dark.load(Ordering::Relaxed);
        ends.contains(&dark) || rng.random_range(0..1000) < self.loss.load(Ordering::Relaxed)
    }
}

/// One link, as its two ends see it.
pub struct Link {
    /// The server and its region.
    pub server: usize,
    pub from: usize,
    /// The region whose control plane is at the other end.
    pub to: usize,
    /// What the server's file has in the place of the control plane.
    pub for_server: SocketAddr,
    /// What the control plane's file has in the place of the server.
    pub for_control: SocketAddr,
}

pub struct Links {
    pub all: Vec<Link>,
    pub knobs: Arc<Knobs>,
    _end: oneshot::Sender<()>,
}

/// What a link joins: a server with its region and address, and a control plane with its own.
pub struct Joint {
    pub server: (usize, usize, SocketAddr),
    pub control: (usize, SocketAddr),
}

impl Links {
    pub fn start(joints: Vec<Joint>, regions: usize, seed: u64) -> Self {
        let knobs = Arc::new(Knobs {
            loss: AtomicU32::new(0),
            dark: AtomicUsize::new(NONE),
            calls: (0..regions).map(|_| AtomicU64::new(0)).collect(),
        });
        let (end, ended) = oneshot::channel();
        let mut all = Vec::new();
        let mut sockets = Vec::new();
        for Joint { server: (server, from, at), control: (to, control) } in joints {
            let bind = || {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket for a link");
                socket.set_nonblocking(true).expect("a socket can be asked");
                socket
            };
            let (near, far) = (bind(), bind());
            let (for_server, for_control) = (near.local_addr().unwrap(), far.local_addr().unwrap());
            all.push(Link { server, from, to, for_server, for_control });
            sockets.push((near, far, [from, to], at, control));
        }
        let shared = Arc::clone(&knobs);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for (index, (near, far, ends, server, control)) in sockets.into_iter().enumerate() {
                    let near = Arc::new(tokio::net::UdpSocket::from_std(near).unwrap());
                    let far = Arc::new(tokio::net::UdpSocket::from_std(far).unwrap());
                    let knobs = Arc::clone(&shared);
                    let seed = seed ^ (index as u64) << 8;
                    let up = pass(
                        Arc::clone(&near),
                        Arc::clone(&far),
                        (server, control),
                        (ends, true),
                        Arc::clone(&knobs),
                        seed,
                    );
                    let down = pass(far, near, (control, server), (ends, false), knobs, !seed);
                    tokio::spawn(up);
                    tokio::spawn(down);
                }
                // An error, when the links are dropped.
                let _ = ended.await;
            });
        });
        Self { all, knobs, _end: end }
    }
}

/// Passes on what comes from the first address, to the second.
async fn pass(
    from: Arc<tokio::net::UdpSocket>,
    to: Arc<tokio::net::UdpSocket>,
    (source, target): (SocketAddr, SocketAddr),
    (ends, is_call): ([usize; 2], bool),
    knobs: Arc<Knobs>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((length, sender)) = from.recv_from(&mut buffer).await else {
            // A peer that is not there refuses; the next datagram may find it.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        if sender != source {
            continue;
        }
        if is_call {
            knobs.calls[ends[1]].fetch_add(1, Ordering::Relaxed);
        }
        if !knobs.loses(ends, &mut rng) {
            let _ = to.send_to(&buffer[..length], target).await;
        }
    }
}
