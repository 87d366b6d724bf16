//! Lease election: who may write, decided by a record in a consistent store.
//!
//! No socket, no clock and no disk is in here: actors that take a message or a timer and answer with
//! effects. Read [`record`], then [`elector`], which is the protocol; then [`store`], [`replica`],
//! [`host`] and [`client`]. [`timing`] says which numbers are safe, [`safeguards`] names every rule.

pub mod client;
mod durable;
pub mod elector;
pub mod host;
pub mod msg;
pub mod phase;
pub mod presets;
pub mod record;
pub mod replica;
pub mod safeguards;
pub mod store;
pub mod timing;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use stateright::actor::{Actor, Id};

use self::client::{Client, ClientState};
use self::elector::{Phase, Slot};
use self::host::{Host, HostState, HostStorage};
use self::msg::Msg;
use self::record::{Epoch, NodeId, NodeSet, Record, Version};
use self::replica::Table;
use self::store::LeaseStore;
use crate::step::Machine;

pub(crate) type Out = stateright::actor::Out<Member>;

/// One actor of the lease protocol: every node of a lease is one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Member {
    /// Holds a replica and contends for the lease.
    Host(Host),
    /// Keeps the record.
    Store(LeaseStore),
    /// Writes to the table.
    Client(Client),
}

/// Every timer of the protocol. A fired timer is disarmed; arming it again replaces the old arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Timer {
    /// When to read the record again.
    Poll,
    /// When the watched version has stood still for L. One slot is used; two, without L-10.
    Watch(Slot),
    /// When the attempt in this slot stops counting: G after its send.
    Hold(Slot),
    /// When to send the next attempt: the next renewal, or again if the last was not answered.
    Attempt,
    /// When to contend again after having stood back for others.
    Yield,
    /// When a primary sends again to the replicas that lag.
    Resend,
    /// When a client asks the next host.
    Retry,
}

/// The state of one member.
#[allow(
    clippy::large_enum_variant,
    reason = "most members are hosts, and a box would cost each step"
)]
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberState {
    /// A host's.
    Host(HostState),
    /// A store's: the record.
    Store(Record),
    /// A client's.
    Client(ClientState),
}

/// What one member has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// A host's.
    Host(HostStorage),
    /// A store's: the record.
    Store(Record),
    /// A client's: its incarnation.
    Client(u64),
}

impl Actor for Member {
    type Msg = Msg;
    type Timer = Timer;
    type State = MemberState;
    type Storage = Storage;
    type Random = ();

    fn on_start(&self, _: Id, storage: &Option<Storage>, o: &mut Out) -> MemberState {
        match (self, storage) {
            (Self::Host(host), None) => MemberState::Host(host.on_start(None, o)),
            (Self::Host(host), Some(Storage::Host(storage))) => {
                MemberState::Host(host.on_start(Some(storage), o))
            }
            (Self::Store(_), None) => MemberState::Store(Record::absent()),
            (Self::Store(_), Some(Storage::Store(record))) => MemberState::Store(record.clone()),
            (Self::Client(client), None) => MemberState::Client(client.on_start(None, o)),
            (Self::Client(client), Some(Storage::Client(incarnation))) => {
                MemberState::Client(client.on_start(Some(*incarnation), o))
            }
            _ => panic!("a member was started with the storage of another role"),
        }
    }

    fn on_msg(&self, me: Id, state: &mut Cow<'_, MemberState>, src: Id, msg: Msg, o: &mut Out) {
        match (self, state.to_mut()) {
            (Self::Host(host), MemberState::Host(state)) => host.on_msg(state, src, &msg, o),
            (Self::Store(store), MemberState::Store(record)) => {
                store.on_msg(me, record, src, &msg, o);
            }
            (Self::Client(client), MemberState::Client(state)) => {
                client.on_msg(state, src, &msg, o);
            }
            _ => panic!("a member was given the state of another role"),
        }
    }

    fn on_timeout(&self, _: Id, state: &mut Cow<'_, MemberState>, timer: &Timer, o: &mut Out) {
        match (self, state.to_mut()) {
            (Self::Host(host), MemberState::Host(state)) => host.on_timeout(state, *timer, o),
            (Self::Store(_), MemberState::Store(_)) => {}
            (Self::Client(client), MemberState::Client(state)) => {
                client.on_timeout(state, *timer, o);
            }
            _ => panic!("a member was given the state of another role"),
        }
    }
}

/// What the outside may know of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum View {
    /// A host.
    Host(HostView),
    /// A store.
    Store {
        /// Who holds the lease.
        holder: Option<NodeId>,
        /// The record's epoch.
        epoch: Epoch,
        /// The record's version.
        version: Version,
    },
    /// A client.
    Client {
        /// How many writes have been acknowledged in this life.
        acknowledged: u64,
        /// How many wait, the one under way included.
        waiting: u64,
        /// Where the last acknowledged write stands in the table's history.
        last_seq: Option<u64>,
    },
}

/// What the outside may know of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostView {
    /// What it is doing.
    pub role: Role,
    /// The epoch of its term, while it holds the lease or is stopping.
    pub epoch: Option<Epoch>,
    /// Who holds the lease, as far as this host has seen.
    pub holder: Option<NodeId>,
    /// The epoch of the record that it has seen.
    pub seen_epoch: Option<Epoch>,
    /// The version of the record that it has seen.
    pub seen_version: Option<Version>,
    /// The record's in-sync set.
    pub in_sync: NodeSet,
    /// How many entries its history has, and how many are committed.
    pub last_seq: u64,
    /// Up to where the history is known to be on every in-sync node.
    pub committed_seq: u64,
    /// The table, to read from: committed rows, perhaps not the newest.
    #[serde(skip)]
    pub table: Option<Snapshot>,
}

/// A table as it was after some step. Costs nothing to take, and two are compared by where they end.
#[derive(Clone, Debug)]
pub struct Snapshot(pub Table);

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let end = |table: &Table| (table.fence, table.committed, table.last());
        end(&self.0) == end(&other.0)
    }
}

impl Eq for Snapshot {}

/// What a host is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read-only, follows the record.
    Watching,
    /// Read-only, has asked for the lease.
    Acquiring,
    /// Writable until the deadline.
    Holding,
    /// No new work; what runs is being stopped.
    Stopping,
    /// Read-only, gives the lease back.
    Releasing,
    /// Read-only for good.
    Retired,
}

impl Machine for Member {
    type View = View;

    fn view(&self, _: Id, state: &MemberState) -> View {
        match state {
            MemberState::Host(state) => View::Host(state.view()),
            MemberState::Store(record) => View::Store {
                holder: record.claim.holder.map(|holder| holder.node),
                epoch: record.claim.epoch,
                version: record.version,
            },
            MemberState::Client(state) => View::Client {
                acknowledged: state.begun - u64::from(!state.queue.is_empty()),
                waiting: state.queue.len() as u64,
                last_seq: state.last.map(|(_, _, seq)| seq),
            },
        }
    }

    fn deadline(&self, state: &MemberState) -> Option<Timer> {
        match state {
            MemberState::Host(HostState { elector, .. }) => match elector.phase {
                Phase::Holding { slot, .. } => Some(Timer::Hold(slot)),
                _ => None,
            },
            _ => None,
        }
    }

    fn epoch(&self, state: &MemberState) -> Option<Epoch> {
        match state {
            MemberState::Host(state) => state.elector.phase.holding(),
            _ => None,
        }
    }

    fn renews(&self, state: &MemberState, timer: &Timer) -> Option<Epoch> {
        self.epoch(state).filter(|_| *timer == Timer::Attempt)
    }

    fn is_withdrawal(&self, msg: &Msg) -> bool {
        matches!(msg, Msg::Stopped { .. })
    }

    fn check(&self, _: Id, state: &MemberState) {
        if let MemberState::Host(state) = state {
            state.check();
        }
    }
}

impl HostState {
    //= SPEC LEASE-37
    fn view(&self) -> HostView {
        let seen = self.elector.seen.as_ref();
        let table = self.replica.as_ref().map(|replica| &replica.table);
        HostView {
            role: match self.elector.phase {
                Phase::Watching { .. } => Role::Watching,
                Phase::Acquiring => Role::Acquiring,
                Phase::Holding { .. } => Role::Holding,
                Phase::Stopping { .. } => Role::Stopping,
                Phase::Releasing { .. } => Role::Releasing,
                Phase::Retired => Role::Retired,
            },
            epoch: self.elector.phase.writable(),
            holder: seen.and_then(|seen| seen.claim.holder).map(|holder| holder.node),
            seen_epoch: seen.map(|seen| seen.claim.epoch),
            seen_version: seen.map(|seen| seen.version),
            in_sync: seen.map_or(NodeSet::EMPTY, |seen| seen.claim.in_sync),
            last_seq: table.map_or(0, |table| table.last().seq),
            committed_seq: table.map_or(0, |table| table.committed),
            table: table.cloned().map(Snapshot),
        }
    }

    /// What holds of a host after every step, whatever has happened to it.
    fn check(&self) {
        let elector = &self.elector;
        match elector.phase {
            Phase::Acquiring => assert!(elector.attempt.is_some(), "an acquirer has asked"),
            Phase::Holding { .. } => assert!(elector.seen.is_some(), "a holder knows its record"),
            _ => {}
        }
        if elector.reading.is_some() {
            assert!(matches!(elector.phase, Phase::Watching { .. }), "only a watcher reads");
        }
        if let Some(replica) = &self.replica {
            let serving = replica.primary.as_ref().map(|primary| primary.epoch);
            assert_eq!(serving, elector.phase.holding(), "primary exactly while it holds");
            let table = &replica.table;
            assert!(
                serving.is_none_or(|epoch| epoch == table.fence),
                "a primary has raised its own fence"
            );
        }
    }
}
