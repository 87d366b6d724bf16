//! The node's socket, the addresses of others as it knows them, and what is said about what comes from them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::lease::record::NodeId;
use crate::node::clock::BootInstant;
use crate::node::handle::{Bind, StartError};

/// What the receive buffer should hold: a few thousand datagrams, so that one slow pass loses none.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How often a log line about one kind of dropped datagrams is written at most.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Keeps log lines about dropped datagrams rare, whatever arrives.
#[derive(Default)]
pub(super) struct Warnings {
    last: BTreeMap<&'static str, (BootInstant, u64)>,
}

impl Warnings {
    pub(super) fn warn(
        &mut self,
        me: NodeId,
        reason: &'static str,
        peer: SocketAddr,
        detail: &str,
    ) {
        let now = BootInstant::now();
        let suppressed = match self.last.get_mut(reason) {
            Some((last, suppressed)) if now.saturating_duration_since(*last) < WARN_EVERY => {
                *suppressed += 1;
                return;
            }
            Some((_, suppressed)) => *suppressed,
            None => 0,
        };
        self.last.insert(reason, (now, 0));
        tracing::warn!(node = me.0, %peer, reason, detail, suppressed, "dropped a datagram");
    }
}

pub(super) fn bind_socket(bind: Bind) -> Result<UdpSocket, StartError> {
    let socket = match bind {
        Bind::Socket(socket) => socket,
        Bind::To(address) => {
            let bound = || -> io::Result<Socket> {
                let domain = Domain::for_address(address);
                let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
                if domain == Domain::IPV6 {
                    // [::] serves IPv4 peers too, whatever the system's default is.
                    socket.set_only_v6(false)?;
                }
                socket.bind(&address.into())?;
                Ok(socket)
            };
            bound()
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => StartError::PortInUse(address),
                    _ => StartError::Bind { address, reason: error.to_string() },
                })?
                .into()
        }
    };
    // The system gives what its limit permits, and a smaller buffer only drops earlier.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true).map_err(|error| StartError::System(error.to_string()))?;
    Ok(socket)
}

/// The address book as this socket can use it: IPv4 peers of an IPv6 socket in their mapped form.
pub(super) fn reachable(
    bind: SocketAddr,
    peers: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, StartError> {
    let reach = |peer: SocketAddr| match (bind.ip(), peer.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Ok(peer),
        (IpAddr::V6(any), IpAddr::V4(v4)) if any.is_unspecified() => {
            Ok(SocketAddr::new(v4.to_ipv6_mapped().into(), peer.port()))
        }
        _ => Err(StartError::AddressFamily { bind, peer }),
    };
    peers.into_iter().map(reach).collect()
}

pub(super) fn is_same_address(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_socket_for_both_families_knows_its_ipv4_peers_again() {
        let peer = address("192.0.2.1:4000");
        let book = reachable(address("[::]:1"), vec![peer, address("[2001:db8::1]:5")]).unwrap();
        assert_eq!(book[0], address("[::ffff:192.0.2.1]:4000"));
        assert_eq!(book[1], address("[2001:db8::1]:5"));
        assert!(is_same_address(book[0], peer));
        assert!(!is_same_address(book[0], address("192.0.2.1:4001")));
        assert!(!is_same_address(book[0], address("192.0.2.2:4000")));
        assert!(reachable(address("[::1]:1"), vec![peer]).is_err());
    }

    #[test]
    fn one_log_line_a_second_for_each_reason() {
        let mut warnings = Warnings::default();
        for _ in 0..5 {
            warnings.warn(NodeId(0), "one", address("[::1]:1"), "");
        }
        warnings.warn(NodeId(0), "two", address("[::1]:1"), "");
        let suppressed: Vec<_> = warnings.last.values().map(|(_, count)| *count).collect();
        assert_eq!(suppressed, [4, 0]);
    }
}
