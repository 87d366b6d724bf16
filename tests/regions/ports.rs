//! Ports that a process which is killed finds free again.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;

/// A free port, below those that the system gives to outgoing connections, and given to nobody else in this process.
pub fn address() -> SocketAddr {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..10_000 {
        let port = rand::random_range(12_000..30_000);
        let address = ("127.0.0.1", port);
        let is_free = UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok();
        if is_free && TAKEN.lock().unwrap().insert(port) {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
    panic!("no port is free");
}
