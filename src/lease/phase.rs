//! What an elector knows, and what it is doing: the state of the protocol in [`super::elector`].

use serde::{Deserialize, Serialize};

use super::record::{Epoch, Holder, NodeId, NodeSet, Nonce, Record};

/// What an elector knows. It contains no time: deadlines are armed timers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ElectorState {
    /// This life of the host.
    pub incarnation: u64,
    /// How many requests this life has sent.
    pub requests: u64,
    /// The newest record that an answer has shown.
    pub seen: Option<Record>,
    /// The read that is under way. Only a watcher reads.
    pub reading: Option<Reading>,
    /// The write that is under way, and the slot of its hold timer.
    pub attempt: Option<Attempt>,
    /// Every node that may be in the record's in-sync set: those of the newest record that is known,
    /// and those of every write that may still be committed over it (L-41).
    pub exposed: NodeSet,
    /// Which watch timer counts. Always the first, with L-10.
    pub watch: Slot,
    /// What it is doing.
    pub phase: Phase,
}

/// A read that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reading {
    /// Its name.
    pub nonce: Nonce,
    /// How often it has been sent.
    pub sent: u8,
}

/// A write that may make this host the holder, or keep it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// Its name.
    pub nonce: Nonce,
    /// Which hold timer was armed when it was first sent.
    pub slot: Slot,
    /// The in-sync set that it proposes.
    pub in_sync: NodeSet,
    /// How often it has been sent.
    pub sent: u8,
}

/// Of two timers of one kind, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What an elector is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Not writable; reads the record again and again.
    Watching {
        /// Whether it stands back for others after a release or a hand-over.
        yielding: Option<Yielding>,
        /// Whether the watch has ended and the next read shall be taken over: only without L-23.
        ripe: bool,
    },
    /// Not writable; has written itself into the record and waits for the answer.
    Acquiring,
    /// Writable, under this epoch, until the hold timer in this slot runs out.
    Holding {
        /// The fencing token of the term.
        epoch: Epoch,
        /// The grant's hold timer.
        slot: Slot,
    },
    /// Its work is being stopped; it counts as writable until that is done.
    Stopping {
        /// The term that ends.
        epoch: Epoch,
        /// What comes after.
        then: Then,
    },
    /// Not writable; has asked the store to free the record.
    Releasing {
        /// The term that has ended.
        epoch: Epoch,
        /// The name of the write.
        nonce: Nonce,
        /// How often it has been sent.
        sent: u8,
    },
    /// Never contends again: only without L-38.
    Retired,
}

/// What follows the end of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Then {
    /// Contend again: the term was lost.
    Watch,
    /// Free the record for whoever comes first.
    Release,
    /// Let this host take over.
    HandOver(NodeId),
}

/// For whom an elector stands back, until somebody else holds the lease or L has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Yielding {
    /// Whoever comes first.
    Anybody,
    /// This host, which has our consent.
    To(NodeId),
}

impl Phase {
    pub(super) const WATCHING: Self = Self::Watching { yielding: None, ripe: false };

    /// The epoch under which this host's work may be running, its stopping included.
    pub fn writable(self) -> Option<Epoch> {
        match self {
            Self::Holding { epoch, .. } | Self::Stopping { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// The epoch under which this host may accept new work.
    pub fn holding(self) -> Option<Epoch> {
        match self {
            Self::Holding { epoch, .. } => Some(epoch),
            _ => None,
        }
    }
}

impl ElectorState {
    /// This life of this host, as the record names it.
    pub fn identity(&self, me: NodeId) -> Holder {
        Holder { node: me, incarnation: self.incarnation }
    }
}
