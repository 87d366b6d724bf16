//! Actions: what can happen next in a state, by place, and the same in words.

use serde::{Deserialize, Serialize};
use stateright::actor::Actor;

use super::state::narrow;
use super::{Flight, Observer, StateOf, Subject, World};

/// What can happen next. Messages and timers are named by their place in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A message arrives.
    Deliver(u16),
    /// A message is lost.
    Lose(u16),
    /// A timer fires.
    Fire {
        /// Whose.
        node: u16,
        /// Which of its armed timers.
        timer: u16,
    },
    /// One tick passes.
    Elapse,
    /// A node loses all but its storage.
    Crash(u16),
    /// A crashed node starts again.
    Recover(u16),
    /// A node stops handling anything.
    Pause(u16),
    /// A paused node goes on.
    Resume(u16),
    /// The surroundings say something: which of [`Observer::inputs`].
    Say(u16),
    /// The surroundings do something to a node: which of [`Observer::interventions`].
    Intervene(u16),
}

/// An action in words that do not depend on the state: what a trace holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<M, T> {
    /// A message arrives.
    Deliver {
        /// From.
        src: u16,
        /// To.
        dst: u16,
        /// What.
        msg: M,
    },
    /// A message is lost.
    Lose {
        /// From.
        src: u16,
        /// To.
        dst: u16,
        /// What.
        msg: M,
    },
    /// A timer fires.
    Fire {
        /// Whose.
        node: u16,
        /// Which.
        timer: T,
    },
    /// One tick passes.
    Elapse,
    /// A node loses all but its storage.
    Crash(u16),
    /// A crashed node starts again.
    Recover(u16),
    /// A node stops handling anything.
    Pause(u16),
    /// A paused node goes on.
    Resume(u16),
    /// The surroundings say something.
    Say {
        /// In whose name.
        src: u16,
        /// To whom.
        dst: u16,
        /// What.
        msg: M,
    },
    /// The surroundings do something to a node.
    Intervene(String),
}

/// The event type of an actor's world.
pub type EventOf<A> = Event<<A as Actor>::Msg, <A as Actor>::Timer>;

impl<A, O> World<A, O>
where
    A: Subject,
    O: Observer<A>,
{
    /// Puts an action into words.
    pub fn event(&self, state: &StateOf<A, O>, action: Action) -> EventOf<A> {
        let flight = |index: u16| state.network[usize::from(index)].clone();
        match action {
            Action::Deliver(index) => {
                let Flight { src, dst, msg, .. } = flight(index);
                Event::Deliver { src, dst, msg }
            }
            Action::Lose(index) => {
                let Flight { src, dst, msg, .. } = flight(index);
                Event::Lose { src, dst, msg }
            }
            Action::Fire { node, timer } => {
                let timer = state.nodes[usize::from(node)].timers[usize::from(timer)].0.clone();
                Event::Fire { node, timer }
            }
            Action::Elapse => Event::Elapse,
            Action::Crash(node) => Event::Crash(node),
            Action::Recover(node) => Event::Recover(node),
            Action::Pause(node) => Event::Pause(node),
            Action::Resume(node) => Event::Resume(node),
            Action::Say(index) => {
                let said = self.observer.inputs(self, state).swap_remove(usize::from(index));
                Event::Say { src: narrow(said.src), dst: narrow(said.dst), msg: said.msg }
            }
            Action::Intervene(index) => {
                let mut words = self.observer.interventions(self, state);
                Event::Intervene(words.swap_remove(usize::from(index)))
            }
        }
    }
}
