//! The world: any stateright actors, a network, crashes, and (in the timed mode) time.
//!
//! `World` is a [`stateright::Model`]: from one state and one action it makes the next state, by the
//! same [`step`](crate::step::step) that a node runs. It differs from stateright's own `ActorModel`
//! where that one would lose states or could not say what we need: timers carry durations, a crashed
//! actor has no state, an ignored message is consumed, and crashes, pauses and losses have budgets.
//!
//! What a world is made of is here. Its parts, in the order in which they are best read: `faults` (what
//! passes and what can go wrong), `state`, `action` (what can happen next), `time`, `steps` (what one
//! step of a node does to a state), and `model`, which makes the next state of all of them.
//!
//! # Time
//!
//! A timer that is set for a range `lo..hi` on a clock whose rate may be off by `rho` runs out after
//! between `lo/(1+rho)` and `hi/(1-rho)` of real time. The world counts real time in whole ticks and
//! rounds outwards, so each armed timer is a [`Window`]: it *may* fire once `earliest` ticks have
//! passed and *must* fire before `latest` ticks have. [`Action::Elapse`] lets one tick pass for
//! everything, and is possible only while nothing is due: a due timer is urgent. Nothing else moves
//! time, so any number of steps can happen at one instant, in any order.
//!
//! Whole ticks are enough: all bounds are closed and integral, and for such systems what is reachable
//! over dense time is reachable over integer time (T. Henzinger, Z. Manna, A. Pnueli, "What good are
//! digital clocks?", 1992). Rounding outwards only adds behaviour. No state holds a date, so a run may
//! be as long as it likes.

mod action;
mod faults;
mod model;
mod state;
mod steps;
mod time;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::Property;
use stateright::actor::Actor;

use crate::step::Machine;

pub use self::action::{Action, Event, EventOf};
pub use self::faults::{Budget, Faults, Network, Time};
pub use self::state::{Budgets, Condition, Flight, Node, StateOf, Window, WorldState};
pub use self::time::{earliest_ticks, latest_ticks};

/// Actors and their surroundings.
pub struct World<A: Subject, O: Observer<A> = Blind> {
    /// The actors; the index of each is its node id.
    pub actors: Vec<A>,
    /// How time passes.
    pub time: Time,
    /// How messages travel.
    pub network: Network,
    /// What goes wrong.
    pub faults: Faults,
    /// What is observed.
    pub observer: O,
    /// The nodes that start first, and whose messages are all delivered before the others start and
    /// anything else happens. With none, all start at once and everything can happen from then on.
    pub settled: Vec<usize>,
    /// Whether states are made canonical. Off, the world is the raw one that the canonical form is
    /// tested against, and in which counterexamples are told.
    pub canonical: bool,
    /// What must hold, and what must be possible.
    pub properties: Vec<Property<Self>>,
}

/// An actor whose values can be told apart and put in order, so that a world can hold them.
pub trait Subject:
    Machine<
        State: Clone + Debug + Eq + Hash + Ord,
        Storage: Clone + Debug + Eq + Hash + Ord,
        Timer: Clone + Debug + Eq + Hash + Ord,
        Msg: Clone + Debug + Eq + Hash + Ord,
    >
{
}

impl<A> Subject for A where
    A: Machine<
            State: Clone + Debug + Eq + Hash + Ord,
            Storage: Clone + Debug + Eq + Hash + Ord,
            Timer: Clone + Debug + Eq + Hash + Ord,
            Msg: Clone + Debug + Eq + Hash + Ord,
        >
{
}

/// What a model adds to the actors: history variables, the surroundings, and a canonical form.
pub trait Observer<A: Subject>: Sized {
    /// History variables: part of the state, invisible to the actors.
    type Ghost: Clone + Debug + Eq + Hash + Ord;

    /// Whether [`Observer::observe`] writes nothing but the history.
    const ONLY_HISTORY: bool = false;

    /// The history at the beginning.
    fn begin(&self, world: &World<A, Self>) -> Self::Ghost;

    /// What is on a node's disk at the beginning; usually nothing.
    fn stored(&self, _node: usize) -> Option<A::Storage> {
        None
    }

    /// Writes the history on after an action, before the state is made canonical.
    fn observe(
        &self,
        world: &World<A, Self>,
        before: &StateOf<A, Self>,
        action: Action,
        after: &mut StateOf<A, Self>,
    );

    /// What the surroundings may say to which node in this state.
    fn inputs(&self, world: &World<A, Self>, state: &StateOf<A, Self>) -> Vec<Said<A>>;

    /// What the surroundings may do to the nodes themselves in this state, each in a few words: for
    /// example take a backup, or put it back.
    fn interventions(&self, _: &World<A, Self>, _: &StateOf<A, Self>) -> Vec<String> {
        Vec::new()
    }

    /// Does one of [`Observer::interventions`].
    fn intervene(&self, _: &World<A, Self>, _: &mut StateOf<A, Self>, _: usize) {}

    /// Whether the model goes as far as this state: what lies beyond is outside of its bounds.
    fn within(&self, _: &StateOf<A, Self>) -> bool {
        true
    }

    /// Brings a state to the one form that stands for all states that differ from it only in what
    /// cannot matter.
    fn canonical(&self, world: &World<A, Self>, state: &mut StateOf<A, Self>);
}

/// Something the surroundings say: to a node, in the name of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<A: Actor> {
    /// Who hears it.
    pub dst: usize,
    /// In whose name. The node itself, for what happens inside a host.
    pub src: usize,
    /// What.
    pub msg: A::Msg,
}

/// No history, no surroundings, every state its own canonical form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blind;

impl<A: Subject> Observer<A> for Blind {
    type Ghost = ();
    const ONLY_HISTORY: bool = true;
    fn begin(&self, _: &World<A, Self>) {}
    fn observe(
        &self,
        _: &World<A, Self>,
        _: &StateOf<A, Self>,
        _: Action,
        _: &mut StateOf<A, Self>,
    ) {
    }
    fn inputs(&self, _: &World<A, Self>, _: &StateOf<A, Self>) -> Vec<Said<A>> {
        Vec::new()
    }
    fn canonical(&self, _: &World<A, Self>, _: &mut StateOf<A, Self>) {}
}
