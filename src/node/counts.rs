//! What a node has counted. Whatever it drops, it counts.

use serde::Serialize;

/// The counters of one life of a node, all from 0 at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Datagrams taken from the socket, good or bad.
    pub received: u64,
    /// Datagrams whose message an actor has handled.
    pub delivered: u64,
    /// Datagrams given to the socket.
    pub sent: u64,
    /// Messages that came through [`Handle::tell`](super::Handle::tell).
    pub told: u64,
    /// Messages of an actor to itself that were handed back.
    pub handed_back: u64,
    /// Timers that have fired.
    pub fired: u64,
    /// Steps of actors, of whatever kind.
    pub steps: u64,
    /// Saves that had something to write.
    pub saves: u64,
    /// Transactions that made them durable.
    pub commits: u64,
    /// Datagrams of an earlier life of their source. They are delivered: the model's network may
    /// hold a message back for as long as it likes.
    pub stale_incarnation: u64,
    /// Dropped when received: a seal that does not open, or under a key that is not known.
    pub dropped_seal: u64,
    /// Dropped when received: sealed with a key that has run out.
    pub dropped_ran_out: u64,
    /// Dropped when received: it has come before, or is too old to know.
    pub dropped_repeated: u64,
    /// Dropped when received: longer than a datagram may be.
    pub dropped_oversize: u64,
    /// Dropped when received: not a message.
    pub dropped_malformed: u64,
    /// Dropped when received: not from the address of the node that it names as its source.
    pub dropped_unknown_peer: u64,
    /// Dropped when received: for another node.
    pub dropped_misdirected: u64,
    /// Dropped when received: about a lease that this node has no part in.
    pub dropped_unknown_lease: u64,
    /// Dropped by [`Handle::cut`](super::Handle::cut), in either direction.
    pub dropped_cut: u64,
    /// Sends dropped because too many were waiting, the oldest first.
    pub dropped_overflow: u64,
    /// Messages of an actor to itself dropped because too many were waiting.
    pub dropped_handed_back: u64,
    /// Sends dropped because they do not fit a datagram.
    pub dropped_unencodable: u64,
    /// Sends dropped because there is no key for their destination that has not run out.
    pub dropped_no_key: u64,
    /// Sends dropped because the address book has no such node.
    pub dropped_unknown_destination: u64,
    /// Sends that the system has refused.
    pub send_errors: u64,
    /// Receives that the system has refused.
    pub receive_errors: u64,
}
