//! What is simulated: the actors, what their runtime owes them, and what their surroundings do.

use std::fmt::Debug;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::durable::Durable;
use crate::step::Machine;
use crate::wire::Message;

//= SPEC SIM-3
/// What a node's runtime owes its actors. A simulation without one of these shows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duties {
    /// What a step sends waits until what it saves is durable.
    pub saves_before_sends: bool,
    /// Timers that are due go before a message.
    pub timers_first: bool,
    /// The clock goes on while the machine is suspended.
    pub clock_never_stops: bool,
    /// A timer that is armed afresh or cancelled does not fire from its old arming.
    pub no_stale_timers: bool,
    /// A start has an incarnation that no earlier one had, durable before the first send.
    pub new_incarnation: bool,
    /// A timer does not run out before its time.
    pub never_early: bool,
    /// A message that no honest actor says does not reach an actor.
    pub refuses_illegal: bool,
    /// Timers go off by themselves: nobody looks at them only now and then (L-7).
    pub no_periodic_test: bool,
    /// Deadlines are looked at by a thread of their own, which waits for no other work (L-7).
    pub deadline_thread: bool,
    /// Work runs under the token of its term, which is cancelled when the term ends (L-34).
    pub term_token: bool,
    /// Work that has not ended within S is killed, whatever its hook does (L-35).
    pub kill_switch: bool,
    /// A term whose work gives no sign of life is not renewed (L-36).
    pub renewal_needs_life: bool,
    /// An error of a store ends nothing: what was asked is asked again (L-37).
    pub errors_are_transient: bool,
    /// The leases of one process do not wait for each other's answers (L-39).
    pub leases_apart: bool,
    /// A timer with a range is drawn from it (L-40).
    pub jitter: bool,
}

impl Duties {
    /// What a real node does.
    pub const ALL: Self = Self {
        saves_before_sends: true,
        timers_first: true,
        clock_never_stops: true,
        no_stale_timers: true,
        new_incarnation: true,
        never_early: true,
        refuses_illegal: true,
        no_periodic_test: true,
        deadline_thread: true,
        term_token: true,
        kill_switch: true,
        renewal_needs_life: true,
        errors_are_transient: true,
        leases_apart: true,
        jitter: true,
    };
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup<A> {
    /// The cluster's name.
    pub cluster: String,
    /// The actors, by node.
    pub actors: Vec<A>,
    /// What the runtime keeps to.
    pub duties: Duties,
    /// The longest time that a message of an actor to itself takes: S.
    pub local: Duration,
}

/// An actor that can be simulated: what it says goes through the codec, and what it saves onto a disk.
pub trait Simulated:
    Machine<
        Msg: Message + Clone,
        Timer: Ord + Clone,
        State: Debug,
        Storage: Durable + Clone + Debug,
        Random: Clone,
    >
{
}

impl<A> Simulated for A where
    A: Machine<
            Msg: Message + Clone,
            Timer: Ord + Clone,
            State: Debug,
            Storage: Durable + Clone + Debug,
            Random: Clone,
        >
{
}

/// What the work of a term is like.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// S: how long it may take to end, in real time.
    pub hook: Duration,
    /// How much of that is left before the kill switch, on the host's clock.
    pub stop_within: Duration,
    /// How long it may be silent before its term is not renewed.
    pub alive_within: Duration,
    /// Within what time a term whose work is dead has ended, in real time.
    pub dead_within: Duration,
    /// How long a process that was killed is away, at most.
    pub restart: Duration,
}

/// A life of a node begins.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Which node's.
    pub node: u16,
    /// How many nodes there are.
    pub nodes: u16,
    /// The number in its datagrams.
    pub incarnation: u32,
    /// What its clock reads, in nanoseconds.
    pub clock: u64,
    /// The simulator's time.
    pub now: u64,
}

/// What the surroundings do to the nodes.
pub trait Workload<A: Simulated> {
    /// What is said next: after how long, to which node, and what. `views` are what the nodes show now.
    fn next(
        &mut self,
        views: &[Option<A::View>],
        rng: &mut StdRng,
    ) -> (Duration, Option<(u16, A::Msg)>);

    /// What the work of terms is like; none, if there is none.
    fn work(&self) -> Option<Work> {
        None
    }

    /// Which lease a node belongs to.
    fn lease(&self, node: u16) -> u16 {
        let _ = node;
        0
    }

    /// Which process a node runs in.
    fn process(&self, node: u16) -> u16 {
        node
    }

    /// What a foreign hand that changes some other field of a record does to the node that keeps it, given its disk.
    fn meddled(&mut self, node: u16, storage: &A::Storage) -> Option<A::Msg> {
        let _ = (node, storage);
        None
    }

    /// What a node that lies says besides, under the name under which it has said this. None if it has nothing to say.
    fn lie(&mut self, said: &A::Msg) -> Option<A::Msg> {
        let _ = said;
        None
    }

    /// An operator has taken a backup of a node.
    fn backed_up(&mut self, node: u16) {
        let _ = node;
    }

    /// What an operator makes of a backup for a node that is put back to it, given what is on its disk. None if
    /// nobody would: then it starts with what it has.
    fn restored(
        &mut self,
        node: u16,
        backup: &A::Storage,
        lost: &A::Storage,
    ) -> Option<A::Storage> {
        let _ = (node, backup, lost);
        None
    }
}
