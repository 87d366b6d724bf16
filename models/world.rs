//! The world: any stateright actors, a network, crashes, and (in the timed mode) time.
//!
//! `World` is a [`stateright::Model`]: from one state and one action it makes the next state, by the
//! same [`step`] that a node runs. It differs from stateright's own `ActorModel` where that one would
//! lose states or could not say what we need: timers carry durations, a crashed actor has no state, an
//! ignored message is consumed, and crashes, pauses and losses have budgets.
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

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::{Actor, Id};
use stateright::{Model, Property};

use crate::step::{Effect, EffectOf, Input, Machine, step};

/// What passes and what does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Any armed timer may fire at any moment: what holds here needs no clock at all.
    Untimed,
    /// Timers run as long as they were set for.
    Timed {
        /// The length of a tick. Every duration is rounded outwards to whole ticks.
        tick: Duration,
        /// The bound on the error of every clock's rate, in parts per million.
        clock_error_ppm: u32,
        /// The longest time, in ticks, that a host's message to itself is under way: the time S of a
        /// hook.
        local: u16,
    },
}

/// How messages between different nodes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Any delay, any order, and loss, which here is the same as being late for ever. Two equal
    /// messages under way are one.
    Free {
        /// Whether a message may be delivered any number of times.
        repeats: bool,
    },
    /// Every message that is not lost arrives within this many ticks, in any order, once.
    Timely {
        /// The longest delay, in ticks.
        delay: u16,
    },
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Budget {
    /// This often.
    Times(u8),
    /// Without limit.
    Unlimited,
}

impl Budget {
    fn is_left(self) -> bool {
        self != Self::Times(0)
    }

    fn spend(&mut self) {
        if let Self::Times(times) = self {
            *times -= 1;
        }
    }
}

/// What can go wrong, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The nodes that may crash.
    pub may_crash: Vec<usize>,
    /// How often there is a crash.
    pub crashes: Budget,
    /// How many nodes may be down at once.
    pub down_at_once: usize,
    /// Whether a crashed node may come back.
    pub recover: bool,
    /// The nodes that may be paused: they handle nothing, and their timers are not urgent.
    pub may_pause: Vec<usize>,
    /// How often there is a pause.
    pub pauses: Budget,
    /// How many messages may be lost. Only a timely network needs it.
    pub losses: Budget,
    /// How often the surroundings may say something ([`Observer::inputs`]).
    pub inputs: Budget,
    /// How often a timer fires at all: a bound on untimed worlds, where every timer may fire at any
    /// moment and again and again.
    pub fires: Budget,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        may_crash: Vec::new(),
        crashes: Budget::Times(0),
        down_at_once: 0,
        recover: true,
        may_pause: Vec::new(),
        pauses: Budget::Times(0),
        losses: Budget::Times(0),
        inputs: Budget::Times(0),
        fires: Budget::Unlimited,
    };

    /// These nodes may crash this often, one at a time, and come back.
    pub fn crashes(nodes: impl IntoIterator<Item = usize>, crashes: Budget) -> Self {
        Self { may_crash: nodes.into_iter().collect(), crashes, down_at_once: 1, ..Self::NONE }
    }
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
    /// The window of a timer that is set for this range, on this world's clocks.
    //= SPEC TIME-12
    pub fn window(&self, range: &std::ops::Range<Duration>) -> Window {
        match self.time {
            Time::Untimed => Window { earliest: 0, latest: 0 },
            Time::Timed { tick, clock_error_ppm, .. } => Window {
                earliest: earliest_ticks(range.start, tick, clock_error_ppm),
                latest: latest_ticks(range.end, tick, clock_error_ppm),
            },
        }
    }

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

    /// Whether a node is up and handles what comes.
    fn handles(&self, state: &StateOf<A, O>, node: usize) -> bool {
        let node = &state.nodes[node];
        node.state.is_some() && node.condition == Condition::Running
    }

    /// Whether a tick may pass: nothing is due.
    //= SPEC TIME-13
    fn may_elapse(&self, state: &StateOf<A, O>) -> bool {
        let timer_is_due = state.nodes.iter().any(|node| {
            node.condition == Condition::Waking
                || (node.condition == Condition::Running
                    && node.timers.iter().any(|(_, window)| window.latest == 0))
        });
        let message_is_due = state
            .network
            .iter()
            .any(|flight| flight.latest == 0 && self.handles(state, flight.dst.into()));
        !timer_is_due && !message_is_due
    }

    fn elapse(&self, state: &mut StateOf<A, O>) {
        for node in &mut state.nodes {
            for (_, window) in &mut node.timers {
                window.earliest = window.earliest.saturating_sub(1);
                window.latest = window.latest.saturating_sub(1);
            }
        }
        // What is due at a node that is down finds nobody. What is due at a paused one waits there.
        let mut network = std::mem::take(&mut state.network);
        network.retain(|flight| {
            let is_down =
                state.nodes.get(usize::from(flight.dst)).is_none_or(|n| n.state.is_none());
            !(flight.latest == 0 && is_down)
        });
        for flight in &mut network {
            if flight.latest != u16::MAX {
                flight.latest = flight.latest.saturating_sub(1);
            }
        }
        network.sort_unstable();
        state.network = network;
    }

    /// Runs one step of one actor and puts its effects into the state.
    pub(super) fn run(
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
    pub(super) fn flight(&self, src: usize, dst: usize, msg: A::Msg) -> Option<Flight<A::Msg>> {
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
    pub(super) fn is_there(&self, state: &StateOf<A, O>, flight: &Flight<A::Msg>) -> bool {
        self.is_one(flight) && state.network.binary_search(flight).is_ok()
    }

    /// Whether a message is still under way when it has arrived.
    pub(super) fn is_kept(&self, flight: &Flight<A::Msg>) -> bool {
        matches!(self.network, Network::Free { repeats: true }) && flight.src != flight.dst
    }

    /// Delivers what is under way, in its order, until nothing is.
    fn settle(&self, state: &mut StateOf<A, O>) {
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

    pub(super) fn crash(&self, state: &mut StateOf<A, O>, node: usize) {
        state.nodes[node].state = None;
        state.nodes[node].timers.clear();
        state.nodes[node].condition = Condition::Running;
        // What a host tells itself dies with it.
        state
            .network
            .retain(|flight| !(usize::from(flight.src) == node && flight.src == flight.dst));
    }
}

fn is_overdue<T>(timers: &[(T, Window)]) -> bool {
    timers.iter().any(|(_, window)| window.latest == 0)
}

fn narrow(index: usize) -> u16 {
    u16::try_from(index).expect("a world has few nodes and few messages")
}

/// How many whole ticks surely lie within `duration`, measured by a clock that may be too fast.
pub fn earliest_ticks(duration: Duration, tick: Duration, clock_error_ppm: u32) -> u16 {
    let real = duration.as_nanos() * 1_000_000;
    let unit = tick.as_nanos() * (1_000_000 + u128::from(clock_error_ppm));
    u16::try_from(real / unit).expect("a duration is at most 65,535 ticks")
}

/// Within how many whole ticks `duration` surely has passed, by a clock that may be too slow.
pub fn latest_ticks(duration: Duration, tick: Duration, clock_error_ppm: u32) -> u16 {
    let real = duration.as_nanos() * 1_000_000;
    let unit = tick.as_nanos() * (1_000_000 - u128::from(clock_error_ppm));
    u16::try_from(real.div_ceil(unit)).expect("a duration is at most 65,535 ticks")
}

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
