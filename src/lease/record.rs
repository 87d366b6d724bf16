//! The lease record and the values it is made of.
//!
//! One record per lease, in one linearizable register. It holds no time of day: a lease is judged
//! by how long *a watcher's own clock* has seen one version stand still. Every committed write adds
//! one to the version, so equality of versions means "nothing has happened".

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

/// A node of the cluster, by its index in the address book; the same index in every world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl NodeId {
    /// One more than the largest node id that a [`NodeSet`] can hold.
    pub const LIMIT: u16 = 64;
}

impl From<Id> for NodeId {
    /// # Panics
    ///
    /// If the id is not an index below 65,536: ids come from the address book, never from the wire.
    fn from(id: Id) -> Self {
        Self(u16::try_from(usize::from(id)).expect("node ids are small indices"))
    }
}

impl From<NodeId> for Id {
    fn from(node: NodeId) -> Self {
        Self::from(usize::from(node.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A set of nodes, as bits: at most [`NodeId::LIMIT`] nodes can be hosts of one lease.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeSet(u64);

impl NodeSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Whether the node is a member. A node beyond the limit never is.
    pub fn contains(self, node: NodeId) -> bool {
        node.0 < NodeId::LIMIT && self.0 & (1 << node.0) != 0
    }

    /// Whether nobody is a member.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set with this node in it.
    ///
    /// # Panics
    ///
    /// If the node id is not below [`NodeId::LIMIT`].
    #[must_use]
    pub fn with(self, node: NodeId) -> Self {
        assert!(node.0 < NodeId::LIMIT, "a lease has at most {} hosts", NodeId::LIMIT);
        Self(self.0 | 1 << node.0)
    }

    /// The set without this node.
    #[must_use]
    pub fn without(self, node: NodeId) -> Self {
        if self.contains(node) { Self(self.0 & !(1 << node.0)) } else { self }
    }

    /// Every node that is in one of the two.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The members, in order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let node = (rest != 0).then(|| NodeId(rest.trailing_zeros() as u16))?;
            rest &= rest - 1;
            Some(node)
        })
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// One life of a node: a name alone cannot tell a process from its successor (L-29).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Whose life.
    pub node: NodeId,
    /// Which one: grows at every start, durable before the first send.
    pub incarnation: u64,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.node, self.incarnation)
    }
}

/// The name of one request, never used again by anybody (L-18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Nonce {
    /// Who asks, and in which life.
    pub by: Holder,
    /// Counts the requests of that life, from 1.
    pub n: u64,
}

impl Nonce {
    /// The name of no request: what the record carries that nobody has written.
    pub const NONE: Self = Self { by: Holder { node: NodeId(0), incarnation: 0 }, n: 0 };
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.by, self.n)
    }
}

/// The fencing token: one per term of leadership, growing for ever.
pub type Epoch = u64;

/// How often the record has been written.
pub type Version = u64;

/// What an elector asks the store to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Who shall hold the lease; nobody, for a tombstone.
    pub holder: Option<Holder>,
    /// The epoch of the term.
    pub epoch: Epoch,
    /// The lease period: what a watcher waits over an unchanged version. At full precision (L-4).
    pub lease: Duration,
    /// The nodes that have every acknowledged write, and so may take over (L-41).
    pub in_sync: NodeSet,
}

/// The record as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// Counts the committed writes; 0 as long as nobody has ever written.
    pub version: Version,
    /// The attempt that wrote this version.
    pub nonce: Nonce,
    /// What it wrote.
    pub claim: Claim,
}

impl Record {
    /// The record that nobody has written yet: free to be taken, by anybody, with epoch 1.
    pub fn absent() -> Self {
        Self {
            version: 0,
            nonce: Nonce::NONE,
            claim: Claim { holder: None, epoch: 1, lease: Duration::ZERO, in_sync: NodeSet::EMPTY },
        }
    }

    /// Whether nobody has ever written it.
    pub fn is_absent(&self) -> bool {
        self.version == 0
    }

    /// Whether it is free to be taken without waiting: never written, or released.
    pub fn is_free(&self) -> bool {
        self.claim.holder.is_none()
    }

    /// Whether this node may take it over. Nobody has data that could be lost before the first term.
    pub fn admits(&self, node: NodeId) -> bool {
        self.is_absent() || self.claim.in_sync.contains(node)
    }
}

/// The precondition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Expect {
    /// Only over exactly this version.
    Version(Version),
    /// Over whatever is there. No node sends this: it exists for the models that must fail.
    Anything,
}
