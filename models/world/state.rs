//! The state of a world, and its parts.

use std::fmt::Debug;
use std::hash::Hash;

use serde::{Deserialize, Serialize};
use stateright::actor::Actor;

use super::{Budget, Observer};

/// When an armed timer fires, in ticks from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// It may fire once this many ticks have passed.
    pub earliest: u16,
    /// It must have fired before more than this many ticks have passed.
    pub latest: u16,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    /// It handles what comes.
    Running,
    /// It handles nothing; time passes by it.
    Paused,
    /// It has been resumed, and first fires the timers that ran out meanwhile.
    Waking,
}

/// One node of a world's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node<S, St, T> {
    /// The actor's state; none while the node is down.
    pub state: Option<S>,
    /// What the actor last saved.
    pub storage: Option<St>,
    /// The armed timers, sorted.
    pub timers: Vec<(T, Window)>,
    /// Whether it runs.
    pub condition: Condition,
}

/// A message under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight<M> {
    /// From.
    pub src: u16,
    /// To.
    pub dst: u16,
    /// What.
    pub msg: M,
    /// It arrives before more than this many ticks have passed; `u16::MAX` if there is no such bound.
    pub latest: u16,
}

/// What is left of the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budgets {
    /// Crashes.
    pub crashes: Budget,
    /// Pauses.
    pub pauses: Budget,
    /// Losses.
    pub losses: Budget,
    /// Inputs.
    pub inputs: Budget,
    /// Timers that fire.
    pub fires: Budget,
}

/// One state of a world.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorldState<S, St, T, M, G> {
    /// The nodes, by their ids.
    pub nodes: Vec<Node<S, St, T>>,
    /// The messages under way, sorted.
    pub network: Vec<Flight<M>>,
    /// What can still go wrong.
    pub budgets: Budgets,
    /// The history variables.
    pub ghost: G,
}

/// The state type of a world.
pub type StateOf<A, O> = WorldState<
    <A as Actor>::State,
    <A as Actor>::Storage,
    <A as Actor>::Timer,
    <A as Actor>::Msg,
    <O as Observer<A>>::Ghost,
>;

/// Whether one of these timers must fire now.
pub(super) fn is_overdue<T>(timers: &[(T, Window)]) -> bool {
    timers.iter().any(|(_, window)| window.latest == 0)
}

/// A place in a state, or a node, as an action and a message name it.
pub(super) fn narrow(index: usize) -> u16 {
    u16::try_from(index).expect("a world has few nodes and few messages")
}
