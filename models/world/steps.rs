//! The steps of one node in a world: where its effects go, and what becomes of its messages.

use stateright::actor::Id;

use super::state::{is_overdue, narrow};
use super::{Action, Condition, Flight, Network, Observer, StateOf, Subject, Time, World};
use crate::step::{Effect, EffectOf, Input, step};

impl<A, O> World<A, O>
where
    A: Subject,
    O: Observer<A>,
{
    /// Whether a node is up and handles what comes.
    pub(super) fn handles(&self, state: &StateOf<A, O>, node: usize) -> bool {
        let node = &state.nodes[node];
        node.state.is_some() && node.condition == Condition::Running
    }

    /// Runs one step of one actor and puts its effects into the state.
    pub(in crate::models) fn run(
        &self,
        state: &mut StateOf<A, O>,
        node: usize,
        input: Input<A::Msg, A::Timer, A::Random, A::Storage>,
    ) {
        let before = state.nodes[node].state.take();
        let (after, effects) = step(&self.actors[node], Id::from(node), before, input);
        state.nodes[node].state = Some(after);
        for effect in effects {
            self.apply(state, node, effect);
        }
        let node = &mut state.nodes[node];
        if node.condition == Condition::Waking && !is_overdue(&node.timers) {
            node.condition = Condition::Running;
        }
    }

    fn apply(&self, state: &mut StateOf<A, O>, node: usize, effect: EffectOf<A>) {
        match effect {
            Effect::Save(storage) => state.nodes[node].storage = Some(storage),
            Effect::Send(dst, msg) => self.send(state, node, usize::from(dst), msg),
            Effect::SetTimer(timer, range) => {
                let window = self.window(&range);
                let timers = &mut state.nodes[node].timers;
                match timers.binary_search_by(|(armed, _)| armed.cmp(&timer)) {
                    Ok(index) => timers[index].1 = window,
                    Err(index) => timers.insert(index, (timer, window)),
                }
            }
            Effect::CancelTimer(timer) => {
                state.nodes[node].timers.retain(|(armed, _)| *armed != timer);
            }
            Effect::Choose(..) => panic!("this world does not model random choices yet"),
        }
    }

    fn send(&self, state: &mut StateOf<A, O>, src: usize, dst: usize, msg: A::Msg) {
        let Some(flight) = self.flight(src, dst, msg) else { return };
        match state.network.binary_search(&flight) {
            Ok(_) if self.is_one(&flight) => {}
            Ok(index) | Err(index) => state.network.insert(index, flight),
        }
    }

    /// A message under way. None if nobody is there: the datagram goes nowhere.
    pub(in crate::models) fn flight(
        &self,
        src: usize,
        dst: usize,
        msg: A::Msg,
    ) -> Option<Flight<A::Msg>> {
        let latest = match (self.time, self.network) {
            (Time::Timed { local, .. }, _) if src == dst => local,
            (Time::Timed { .. }, Network::Timely { delay }) => delay,
            _ => u16::MAX,
        };
        let flight = || Flight { src: narrow(src), dst: narrow(dst), msg, latest };
        (dst < self.actors.len()).then(flight)
    }

    /// Whether two messages that are equal to this one are one.
    fn is_one(&self, flight: &Flight<A::Msg>) -> bool {
        matches!(self.network, Network::Free { .. }) || flight.src == flight.dst
    }

    /// Whether this message is under way already, so that sending it changes nothing.
    pub(in crate::models) fn is_there(
        &self,
        state: &StateOf<A, O>,
        flight: &Flight<A::Msg>,
    ) -> bool {
        self.is_one(flight) && state.network.binary_search(flight).is_ok()
    }

    /// Whether a message is still under way when it has arrived.
    pub(in crate::models) fn is_kept(&self, flight: &Flight<A::Msg>) -> bool {
        matches!(self.network, Network::Free { repeats: true }) && flight.src != flight.dst
    }

    /// Delivers what is under way, in its order, until nothing is.
    pub(super) fn settle(&self, state: &mut StateOf<A, O>) {
        for _ in 0..1000 {
            if state.network.is_empty() {
                return;
            }
            let before = state.clone();
            let flight = state.network.remove(0);
            let src = Id::from(usize::from(flight.src));
            self.run(state, flight.dst.into(), Input::Deliver { src, msg: flight.msg });
            self.observer.observe(self, &before, Action::Deliver(0), state);
        }
        panic!("the nodes that start first never come to rest");
    }

    pub(in crate::models) fn crash(&self, state: &mut StateOf<A, O>, node: usize) {
        state.nodes[node].state = None;
        state.nodes[node].timers.clear();
        state.nodes[node].condition = Condition::Running;
        // What a host tells itself dies with it.
        state
            .network
            .retain(|flight| !(usize::from(flight.src) == node && flight.src == flight.dst));
    }
}
