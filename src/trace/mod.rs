//! Traces: what each node did, step by step, so that anybody can check afterwards that the run was a
//! behaviour of the checked model.
//!
//! A node writes one line of JSON for each step ([`mod@format`], [`mod@write`]). Checking reads the files of
//! all nodes again: each node by itself goes through [`step`](crate::step::step) ([`local`]), and all
//! of them together go through the model's own world, where every action must be enabled before it is
//! taken. `docs/TRACE.md` has the schema and says what a verdict means.
//!
//! Nothing here knows a socket or an actor's innards, and no verdict depends on a clock of the one who checks: a
//! protocol joins by implementing [`Traced`].

mod backups;
#[cfg(feature = "check")]
pub mod check;
pub mod clocks;
pub mod format;
mod irc;
#[cfg(feature = "check")]
pub mod itf;
mod lease;
pub mod local;
pub mod read;
#[cfg(feature = "check")]
mod stream;
pub mod write;

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stateright::actor::{Actor, Id};
use xxhash_rust::xxh3::Xxh3Default;

use crate::durable::Durable;
use crate::step::{InputOf, Machine};
use crate::wire::Message;

/// An actor whose runs can be recorded and checked: it can be written down itself, so that the header
/// of a trace says how to make it again, and its state has a digest that is cheap to take.
pub trait Traced:
    Machine<
        Msg: Message + Clone + Debug + PartialEq + Hash,
        Timer: Serialize + DeserializeOwned + Ord + Clone + Debug,
        Random: Serialize + DeserializeOwned + Clone + Debug + PartialEq,
        State: Clone + Debug,
        Storage: Durable + Clone + Debug,
    > + Serialize
    + DeserializeOwned
    + Clone
    + PartialEq
{
    /// The protocol's name in the header of a trace.
    const PROTOCOL: &'static str;

    /// A digest of the whole state. Its cost must not grow with what the state holds.
    fn digest(state: &Self::State) -> u64;

    /// A digest of what is saved.
    fn storage_digest(storage: &Self::Storage) -> u64;

    /// The message's kind, in one word.
    fn kind(msg: &Self::Msg) -> &'static str;

    /// The timer's kind, in one word: there are few kinds, however many timers there are.
    fn timer_kind(timer: &Self::Timer) -> String {
        format!("{timer:?}")
    }

    /// Whether somebody inside the node (an operator, a client) may say this to the actor, out of the
    /// blue. Everything else that an actor hears from its own node, it has sent itself.
    fn may_be_told(&self, msg: &Self::Msg) -> bool;

    /// Whether this is the same part in the cluster as that one of an earlier life of the node. What is drawn anew at
    /// each start may differ.
    fn has_same_part(&self, other: &Self) -> bool {
        self == other
    }

    /// What this storage would be known by if somebody put it back. None where nobody does.
    fn as_backup(storage: &Self::Storage) -> Option<Backup> {
        let _ = storage;
        None
    }

    /// By what the backup is known from which somebody has made this storage, and what was kept.
    ///
    /// # Errors
    ///
    /// What shows that nobody has put it back.
    fn put_back(found: &Self::Storage) -> Result<Backup, &'static str> {
        let _ = found;
        Err("nothing of this protocol is put back to a backup")
    }
}

/// What two storages have in common of which one was made from the other, as a backup that is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// A digest of all that comes from the backup.
    pub content: u64,
    /// A digest of what no backup holds: it is taken from the storage that is replaced. 0 if there is nothing.
    pub kept: u64,
}

/// The digest of a value whose `Hash` tells all of it.
pub fn digest_of(value: &impl Hash) -> u64 {
    let mut hasher = Xxh3Default::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a node knows of where an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A datagram: the sender's incarnation, and which of its datagrams.
    Datagram {
        /// The sender's incarnation.
        incarnation: u32,
        /// The datagram's number in it.
        sequence: u32,
    },
    /// The actor has sent it to itself.
    Own,
    /// Somebody inside the node says it.
    Told,
    /// A timer that had to run out at this time of the node's clock.
    Timer(u64),
    /// A start, or a choice.
    None,
}

/// Takes down the steps of one node, in their order. A step is told piece by piece: [`Recorder::begin`],
/// its effects, [`Recorder::end`].
pub trait Recorder<A: Actor>: Send {
    /// A step begins, with this input, at this time of the node's clock (nanoseconds).
    /// `durable` is the number of the newest save that is known to be durable.
    fn begin(&mut self, lease: u16, at: u64, durable: u64, input: &InputOf<A>, origin: Origin);

    /// The step saves this, under this number if it changes what is stored.
    fn save(&mut self, storage: &A::Storage, number: Option<u64>);

    /// The step arms a timer: it runs out at `due`.
    fn set(&mut self, timer: &A::Timer, range: &Range<Duration>, due: u64);

    /// The step disarms a timer.
    fn cancel(&mut self, timer: &A::Timer);

    /// The step asks for a choice.
    fn choose(&mut self, key: &str, alternatives: &[A::Random]);

    /// The step sends this, in the datagram of this number; none if it is for the node itself, or cannot
    /// be sent.
    fn send(&mut self, to: Id, msg: &A::Msg, sequence: Option<u32>);

    /// The step has ended in this state, and its permission ends then.
    fn end(&mut self, state: &A::State, deadline: Option<u64>);

    /// Gives everything that was told to the system. Whatever a step sends, shows or saves must wait
    /// for this.
    fn write_out(&mut self);

    /// The node ends in order.
    fn stop(&mut self, at: u64);

    /// In a simulation: what time it is there, before each step.
    fn simulated(&mut self, now: u64) {
        let _ = now;
    }

    /// In a simulation: everything up to the save of this number has become durable.
    fn durable(&mut self, number: u64) {
        let _ = number;
    }
}
