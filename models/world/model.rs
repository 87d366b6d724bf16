//! The world as a [`Model`]: how it begins, what can happen in a state, and what comes of it.

use stateright::actor::Id;
use stateright::{Model, Property};

use super::state::{is_overdue, narrow};
use super::{
    Action, Budgets, Condition, Node, Observer, StateOf, Subject, Time, World, WorldState,
};
use crate::step::Input;

impl<A, O> Model for World<A, O>
where
    A: Subject,
    O: Observer<A>,
{
    type State = StateOf<A, O>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        let node =
            Node { state: None, storage: None, timers: Vec::new(), condition: Condition::Running };
        let mut state = WorldState {
            nodes: vec![node; self.actors.len()],
            network: Vec::new(),
            budgets: Budgets {
                crashes: self.faults.crashes,
                pauses: self.faults.pauses,
                losses: self.faults.losses,
                inputs: self.faults.inputs,
                fires: self.faults.fires,
            },
            ghost: self.observer.begin(self),
        };
        for (index, node) in state.nodes.iter_mut().enumerate() {
            node.storage = self.observer.stored(index);
        }
        let start = |state: &mut Self::State, node: usize| {
            let storage = state.nodes[node].storage.clone();
            self.run(state, node, Input::Start(storage));
        };
        for &node in &self.settled {
            start(&mut state, node);
        }
        self.settle(&mut state);
        for node in 0..self.actors.len() {
            if state.nodes[node].state.is_none() {
                start(&mut state, node);
            }
        }
        if self.canonical {
            self.observer.canonical(self, &mut state);
        }
        vec![state]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Action>) {
        let is_timed = self.time != Time::Untimed;
        for (index, flight) in state.network.iter().enumerate() {
            if self.handles(state, flight.dst.into()) {
                actions.push(Action::Deliver(narrow(index)));
            }
            if state.budgets.losses.is_left() && flight.src != flight.dst {
                actions.push(Action::Lose(narrow(index)));
            }
        }
        for (index, node) in state.nodes.iter().enumerate() {
            let index = narrow(index);
            for (timer, (_, window)) in node.timers.iter().enumerate() {
                let fires = match node.condition {
                    Condition::Running => window.earliest == 0,
                    Condition::Waking => window.latest == 0,
                    Condition::Paused => false,
                };
                if fires && state.budgets.fires.is_left() {
                    actions.push(Action::Fire { node: index, timer: narrow(timer) });
                }
            }
            if node.condition == Condition::Paused {
                actions.push(Action::Resume(index));
            }
            if node.state.is_none() && self.faults.recover {
                actions.push(Action::Recover(index));
            }
        }
        if is_timed && self.may_elapse(state) {
            actions.push(Action::Elapse);
        }
        let down = state.nodes.iter().filter(|node| node.state.is_none()).count();
        if state.budgets.crashes.is_left() && down < self.faults.down_at_once {
            for &node in &self.faults.may_crash {
                if state.nodes[node].state.is_some() {
                    actions.push(Action::Crash(narrow(node)));
                }
            }
        }
        if state.budgets.pauses.is_left() {
            for &node in &self.faults.may_pause {
                if self.handles(state, node) {
                    actions.push(Action::Pause(narrow(node)));
                }
            }
        }
        if state.budgets.inputs.is_left() {
            for index in 0..self.observer.inputs(self, state).len() {
                actions.push(Action::Say(narrow(index)));
            }
        }
        for index in 0..self.observer.interventions(self, state).len() {
            actions.push(Action::Intervene(narrow(index)));
        }
    }

    fn next_state(&self, before: &Self::State, action: Action) -> Option<Self::State> {
        let mut state = before.clone();
        match action {
            Action::Deliver(index) => {
                let index = usize::from(index);
                let flight = if self.is_kept(&state.network[index]) {
                    state.network[index].clone()
                } else {
                    state.network.remove(index)
                };
                let src = Id::from(usize::from(flight.src));
                self.run(&mut state, flight.dst.into(), Input::Deliver { src, msg: flight.msg });
            }
            Action::Lose(index) => {
                state.network.remove(index.into());
                state.budgets.losses.spend();
            }
            Action::Fire { node, timer } => {
                state.budgets.fires.spend();
                let (timer, _) = state.nodes[usize::from(node)].timers.remove(timer.into());
                self.run(&mut state, node.into(), Input::Fire(timer));
            }
            Action::Elapse => self.elapse(&mut state),
            Action::Crash(node) => {
                self.crash(&mut state, node.into());
                state.budgets.crashes.spend();
            }
            Action::Recover(node) => {
                let storage = state.nodes[usize::from(node)].storage.clone();
                self.run(&mut state, node.into(), Input::Start(storage));
            }
            Action::Pause(node) => {
                state.nodes[usize::from(node)].condition = Condition::Paused;
                state.budgets.pauses.spend();
            }
            Action::Resume(node) => {
                let node = &mut state.nodes[usize::from(node)];
                node.condition = if is_overdue(&node.timers) && self.time != Time::Untimed {
                    Condition::Waking
                } else {
                    Condition::Running
                };
            }
            Action::Say(index) => {
                let said = self.observer.inputs(self, before).swap_remove(usize::from(index));
                let src = Id::from(said.src);
                state.budgets.inputs.spend();
                self.run(&mut state, said.dst, Input::Deliver { src, msg: said.msg });
            }
            Action::Intervene(index) => {
                self.observer.intervene(self, &mut state, usize::from(index));
            }
        }
        self.observer.observe(self, before, action, &mut state);
        if self.canonical {
            self.observer.canonical(self, &mut state);
        }
        Some(state)
    }

    fn within_boundary(&self, state: &Self::State) -> bool {
        self.observer.within(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.properties.clone()
    }
}
