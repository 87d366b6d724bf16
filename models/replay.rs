//! Replays the traces of all nodes of one lease together, through the world that is explored.
//!
//! A handler touches only its own node and the network, so steps of different nodes can change places
//! unless one hears what the other has said. Any order that keeps each node's own, and puts every
//! sending before its delivery, is therefore as good as the one that has been; and in such an order
//! the steps of the nodes must be actions of the untimed world. Whether an action is enabled is asked of
//! the world *before* it is taken.
//!
//! The world would keep every message for ever. Here a message waits outside of it, by the name of its
//! datagram, and is put into the world's network for the one step that delivers it; it is forgotten when
//! its sender has sent [`WINDOW`] more.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use stateright::{Expectation, Model};

use super::world::{Action, Flight, Observer, StateOf, Subject, World};
use crate::trace::format::{Heard, Hex, StepOf};
use crate::trace::read::{Fault, Logged};
use crate::trace::{Traced, digest_of};

/// How many of its datagrams a sender is remembered by.
pub const WINDOW: usize = 1 << 16;
/// How many lives of a sender are remembered, and how many of their datagrams in all when another one begins.
const LIVES: usize = 64;
const DATAGRAMS: usize = 3 * WINDOW;

/// A protocol whose runs can be replayed through its world.
pub trait Replayed: Traced + Subject {
    /// Whether an actor may say a thing to itself again before it has heard it. To the world equal messages of an actor
    /// to itself are one, so a second one may change nothing.
    const MAY_REPEAT_TO_ITSELF: bool = false;

    /// What the world observes.
    type Observer: Observer<Self>;
    /// What judges times.
    type Monitor: Monitor<Self>;

    /// The untimed world of these actors, by node: none where a node has no part or has left no trace.
    ///
    /// # Errors
    ///
    /// Says what does not fit together.
    fn world(actors: &[Option<Self>]) -> Result<World<Self, Self::Observer>, String>;

    /// The nodes without whose traces nothing can be said about the others.
    fn needed(actors: &[Option<Self>]) -> Vec<u16>;

    /// Begins the history with what a node's storage holds from before the trace.
    fn before_the_trace(state: &mut StateOf<Self, Self::Observer>, node: usize);

    /// Forgets what the history needs no more, so that it does not grow with the trace.
    fn forget(world: &World<Self, Self::Observer>, state: &mut StateOf<Self, Self::Observer>);

    /// Prepares the state for a node, which is down, to be put back to this storage: the world's first intervention
    /// does it then, if it may be. Nothing, where the world knows no such thing.
    fn offer(state: &mut StateOf<Self, Self::Observer>, node: usize, found: Self::Storage) {
        let _ = (state, node, found);
    }

    /// What judges the times of these actors.
    fn monitor(actors: &[Option<Self>]) -> Self::Monitor;
}

/// One step with everything that a monitor may look at.
pub struct Seen<'a, A: Traced> {
    /// Whose.
    pub node: usize,
    /// What the trace tells.
    pub told: &'a StepOf<A>,
    /// The state before, unless the actor starts.
    pub before: Option<&'a A::State>,
    /// The state after.
    pub after: &'a A::State,
    /// The time on a clock that all nodes share, if there is one: the simulator's, or the machine's.
    pub shared: Option<u64>,
}

/// Judges times, beside the replay.
pub trait Monitor<A: Traced> {
    /// Looks at a step.
    ///
    /// # Errors
    ///
    /// Says what took too long, or came too early.
    fn look(&mut self, seen: &Seen<'_, A>) -> Result<(), String>;

    /// A life of a node has ended, with its last step at this shared time.
    ///
    /// # Errors
    ///
    /// As [`Monitor::look`].
    fn end_of_life(&mut self, node: usize, shared: Option<u64>) -> Result<(), String>;

    /// The bound on the error of a clock's rate, in parts per million, if the actors rely on one.
    fn clock_error_ppm(&self) -> Option<u32>;

    /// What was measured: a name, and nanoseconds.
    fn measured(&self) -> Vec<(&'static str, u64)>;
}

/// The datagrams that one life of a node has sent.
struct Outbox {
    incarnation: u32,
    /// The number of the first that is remembered.
    first: u32,
    sent: VecDeque<Datagram>,
}

#[derive(Clone, Copy)]
struct Datagram {
    digest: u64,
    at: u64,
    delivered: bool,
}

/// Whether a datagram can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was sent, at this time of its sender's clock.
    Sent(u64),
    /// It was not sent yet.
    NotYet,
    /// It was sent so long ago that it is forgotten.
    Forgotten,
}

/// The nodes of one lease in replay.
pub struct Global<A: Replayed> {
    world: World<A, A::Observer>,
    state: StateOf<A, A::Observer>,
    monitor: A::Monitor,
    outboxes: Vec<VecDeque<Outbox>>,
    started: Vec<bool>,
    /// What each actor has sent to itself and not heard yet, as often as it was sent.
    own: Vec<Vec<A::Msg>>,
    last_shared: Vec<Option<u64>>,
    repeats: bool,
    /// How often each kind of action was taken.
    pub coverage: BTreeMap<String, u64>,
    /// Deliveries and firings that changed nothing and sent nothing.
    pub stutters: u64,
    /// Steps taken.
    pub steps: u64,
    /// How often a node was put back to a backup.
    pub restored: u64,
}

fn digest<M: std::hash::Hash>(dst: u16, msg: &M) -> u64 {
    digest_of(&(dst, msg))
}

impl<A: Replayed> Global<A> {
    /// The nodes of these actors, of which none has started. `repeats`: whether a datagram may be
    /// delivered more than once.
    ///
    /// # Errors
    ///
    /// If the actors do not fit together.
    pub fn new(actors: &[Option<A>], repeats: bool) -> Result<Self, String> {
        let mut world = A::world(actors)?;
        world.canonical = false;
        // Every node is down until its trace says that it starts.
        let mut state = world.init_states().swap_remove(0);
        for node in &mut state.nodes {
            node.state = None;
            node.storage = None;
            node.timers.clear();
        }
        state.network.clear();
        state.ghost = world.observer.begin(&world);
        let nodes = actors.len();
        Ok(Self {
            monitor: A::monitor(actors),
            world,
            state,
            outboxes: (0..nodes).map(|_| VecDeque::new()).collect(),
            started: vec![false; nodes],
            own: (0..nodes).map(|_| Vec::new()).collect(),
            last_shared: vec![None; nodes],
            repeats,
            coverage: BTreeMap::new(),
            stutters: 0,
            steps: 0,
            restored: 0,
        })
    }

    /// The world that is replayed.
    pub fn world(&self) -> &World<A, A::Observer> {
        &self.world
    }

    /// The state that the nodes are in.
    pub fn state(&self) -> &StateOf<A, A::Observer> {
        &self.state
    }

    /// What was measured.
    pub fn measured(&self) -> Vec<(&'static str, u64)> {
        self.monitor.measured()
    }

    /// The bound on the error of a clock's rate, in parts per million.
    pub fn clock_error_ppm(&self) -> Option<u32> {
        self.monitor.clock_error_ppm()
    }

    /// Whether a datagram was sent.
    pub fn knows(&self, src: u16, incarnation: u32, sequence: u32) -> Known {
        let Some(lives) = self.outboxes.get(usize::from(src)) else { return Known::NotYet };
        let Some(outbox) = lives.iter().find(|outbox| outbox.incarnation == incarnation) else {
            // Lives count from 1: none is older than that.
            return match lives.front() {
                Some(oldest) if (1..oldest.incarnation).contains(&incarnation) => Known::Forgotten,
                _ => Known::NotYet,
            };
        };
        match sequence.checked_sub(outbox.first) {
            None => Known::Forgotten,
            Some(place) => outbox
                .sent
                .get(place as usize)
                .map_or(Known::NotYet, |datagram| Known::Sent(datagram.at)),
        }
    }

    /// Whether this life of a node is over, so that it sends nothing more.
    pub fn is_past(&self, src: u16, incarnation: u32) -> bool {
        let lives = &self.outboxes[usize::from(src)];
        lives.back().is_some_and(|newest| incarnation < newest.incarnation)
    }

    /// A life of a node begins, with this actor, if it has a part in this.
    ///
    /// # Errors
    ///
    /// If the one before has ended as it must not.
    pub fn begin_life(
        &mut self,
        line: u64,
        node: u16,
        incarnation: u32,
        actor: Option<&A>,
    ) -> Result<(), Fault> {
        if let Some(actor) = actor {
            self.world.actors[usize::from(node)] = actor.clone();
        }
        self.own[usize::from(node)].clear();
        let lives = &mut self.outboxes[usize::from(node)];
        lives.push_back(Outbox { incarnation, first: 0, sent: VecDeque::new() });
        let sent =
            |lives: &VecDeque<Outbox>| lives.iter().map(|life| life.sent.len()).sum::<usize>();
        while lives.len() > 1 && (lives.len() > LIVES || sent(lives) > DATAGRAMS) {
            lives.pop_front();
        }
        if self.state.nodes[usize::from(node)].state.is_some() {
            let before = self.state.clone();
            self.state = self.take(line, &before, Action::Crash(node))?;
            *self.coverage.entry("crash".to_owned()).or_default() += 1;
        }
        self.end_of_life(line, node)
    }

    /// No more steps of this life of a node will come.
    ///
    /// # Errors
    ///
    /// If it was writable beside another, on a clock that both share.
    pub fn end_of_life(&mut self, line: u64, node: u16) -> Result<(), Fault> {
        let node = usize::from(node);
        self.monitor
            .end_of_life(node, self.last_shared[node].take())
            .map_err(|what| Fault::impossible(line, what))
    }

    /// Takes an action, if it is enabled.
    fn take(
        &self,
        line: u64,
        before: &StateOf<A, A::Observer>,
        action: Action,
    ) -> Result<StateOf<A, A::Observer>, Fault> {
        let mut enabled = Vec::new();
        self.world.actions(before, &mut enabled);
        if !enabled.contains(&action) {
            return Err(self.refused(line, before, &format!("{action:?} is not enabled")));
        }
        let next = catch_unwind(AssertUnwindSafe(|| self.world.next_state(before, action)));
        match next {
            Ok(Some(next)) => Ok(next),
            Ok(None) => Err(self.refused(line, before, "the model ignores this action")),
            Err(_) => Err(self.refused(line, before, "the model's assertions fail here")),
        }
    }

    /// The refusal of a step, with what could have happened instead.
    fn refused(&self, line: u64, before: &StateOf<A, A::Observer>, what: &str) -> Fault {
        let mut enabled = Vec::new();
        self.world.actions(before, &mut enabled);
        let mut text = what.to_owned();
        let events = enabled
            .into_iter()
            .filter(|action| !matches!(action, Action::Crash(_) | Action::Pause(_)))
            .map(|action| format!("{:?}", self.world.event(before, action)));
        let events: Vec<_> = events.take(12).collect();
        let _ = write!(text, "; enabled besides crashes: {}", events.join(", "));
        Fault::impossible(line, text)
    }

    /// Takes one step of one node.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the model cannot take it here, or leads elsewhere.
    //= SPEC TRACE-4
    pub fn step(
        &mut self,
        node: u16,
        logged: &Logged<A>,
        shared: Option<u64>,
    ) -> Result<(), Fault> {
        let Logged { line, step: told, found } = logged;
        let (line, index) = (*line, usize::from(node));
        let (action, label) = self.prepare(line, node, told, found.as_ref())?;
        let next = self.take(line, &self.state, action)?;
        let before = std::mem::replace(&mut self.state, next);
        let found = Hex(A::digest(self.state.nodes[index].state.as_ref().expect("it runs")));
        if found != told.post {
            let expected = format!("{:?}", self.state.nodes[index].state);
            let what =
                format!("the model comes to {found:?}, the node to {:?}: {expected}", told.post);
            return Err(self.refused(line, &before, &what));
        }
        self.collect_sends(line, node, told)?;
        if told.sends.is_empty() && told.pre == told.post {
            self.stutters += 1;
        }
        self.last_shared[index] = shared;
        let seen = Seen {
            node: index,
            told,
            before: before.nodes[index].state.as_ref(),
            after: self.state.nodes[index].state.as_ref().expect("it runs"),
            shared,
        };
        self.monitor.look(&seen).map_err(|what| Fault::impossible(line, what))?;
        for property in &self.world.properties {
            if property.expectation == Expectation::Always
                && !(property.condition)(&self.world, &self.state)
            {
                let what = format!("the property {} does not hold any more", property.name);
                return Err(Fault::impossible(line, what));
            }
        }
        A::forget(&self.world, &mut self.state);
        self.steps += 1;
        match self.coverage.get_mut(&label) {
            Some(count) => *count += 1,
            None => {
                self.coverage.insert(label, 1);
            }
        }
        Ok(())
    }

    /// Puts what the step needs into the state, and names the action.
    fn prepare(
        &mut self,
        line: u64,
        node: u16,
        told: &StepOf<A>,
        found: Option<&(A::Storage, Hex)>,
    ) -> Result<(Action, String), Fault> {
        let index = usize::from(node);
        let flight =
            |src: u16, msg: &A::Msg| Flight { src, dst: node, msg: msg.clone(), latest: u16::MAX };
        match &told.input {
            Heard::Start { .. } => {
                if !std::mem::replace(&mut self.started[index], true) {
                    self.state.nodes[index].storage = found.map(|(storage, _)| storage.clone());
                    A::before_the_trace(&mut self.state, index);
                } else {
                    self.put_back(line, node, found)?;
                }
                Ok((Action::Recover(node), "start".to_owned()))
            }
            Heard::Deliver { src, inc, seq, msg } => {
                self.check_sent(line, node, (*src, *inc, *seq), msg)?;
                let place = self.put(flight(*src, msg));
                Ok((Action::Deliver(place), format!("deliver {}", A::kind(msg))))
            }
            Heard::Told { msg } => {
                let place = self.put(flight(node, msg));
                Ok((Action::Deliver(place), format!("told {}", A::kind(msg))))
            }
            Heard::Own { msg } => {
                let own = &mut self.own[index];
                let Some(place) = own.iter().position(|own| own == msg) else {
                    let what = format!("nothing like {msg:?} is under way from the node to itself");
                    return Err(self.refused(line, &self.state, &what));
                };
                own.remove(place);
                let wanted = flight(node, msg);
                let is_first = self.state.network.binary_search(&wanted).is_ok();
                let is_idle = told.pre == told.post && told.sends.is_empty();
                let may_repeat = A::MAY_REPEAT_TO_ITSELF && is_idle;
                if !is_first && !may_repeat {
                    let what = format!("{msg:?} comes from the node to itself for the second time");
                    return Err(self.refused(line, &self.state, &what));
                }
                let place = self.put(wanted);
                Ok((Action::Deliver(place), format!("own {}", A::kind(msg))))
            }
            Heard::Fire { timer, .. } => {
                let timers = &self.state.nodes[index].timers;
                let Ok(place) = timers.binary_search_by(|(armed, _)| armed.cmp(timer)) else {
                    let what = format!("timer {timer:?} is not armed");
                    return Err(self.refused(line, &self.state, &what));
                };
                Ok((
                    Action::Fire { node, timer: place as u16 },
                    format!("fire {}", A::timer_kind(timer)),
                ))
            }
            Heard::Choose { .. } => Err(Fault::unreadable(
                line,
                "the world has no random choices: this cannot be replayed",
            )),
        }
    }

    /// A life begins from what the one before has left, or from a backup that was put back.
    //= SPEC TRACE-9
    fn put_back(
        &mut self,
        line: u64,
        node: u16,
        found: Option<&(A::Storage, Hex)>,
    ) -> Result<(), Fault> {
        let index = usize::from(node);
        let known = self.state.nodes[index].storage.as_ref();
        let known = known.map(|storage| Hex(A::storage_digest(storage)));
        let Some((storage, _)) = found.filter(|(_, digest)| Some(*digest) != known) else {
            return Ok(());
        };
        A::offer(&mut self.state, index, storage.clone());
        self.state = self.take(line, &self.state, Action::Intervene(0))?;
        self.restored += 1;
        *self.coverage.entry("restore".to_owned()).or_default() += 1;
        Ok(())
    }

    fn put(&mut self, flight: Flight<A::Msg>) -> u16 {
        let place = match self.state.network.binary_search(&flight) {
            Ok(place) => place,
            Err(place) => {
                self.state.network.insert(place, flight);
                place
            }
        };
        u16::try_from(place).expect("few messages are in the world at once")
    }

    /// The datagram that arrives was sent, to this node, with this content.
    fn check_sent(
        &mut self,
        line: u64,
        node: u16,
        (src, incarnation, sequence): (u16, u32, u32),
        msg: &A::Msg,
    ) -> Result<(), Fault> {
        let name = format!("datagram {sequence} of node {src}, life {incarnation}");
        match self.knows(src, incarnation, sequence) {
            Known::Sent(_) => {}
            Known::NotYet => {
                return Err(Fault::impossible(line, format!("{name} arrives and was never sent")));
            }
            Known::Forgotten => {
                let what = format!(
                    "{name} arrives after its sender has sent {WINDOW} more or has started again several \
                     times: whether it was sent is not known any more"
                );
                return Err(Fault::unreadable(line, what));
            }
        }
        let lives = &mut self.outboxes[usize::from(src)];
        let outbox = lives.iter_mut().find(|outbox| outbox.incarnation == incarnation);
        let outbox = outbox.expect("it was sent");
        let datagram = &mut outbox.sent[(sequence - outbox.first) as usize];
        if datagram.digest != digest(node, msg) {
            let what = format!("{name} arrives at node {node} with another content: {msg:?}");
            return Err(Fault::impossible(line, what));
        }
        if datagram.delivered && !self.repeats {
            let what = format!("{name} arrives twice on a network that is said not to repeat");
            return Err(Fault::impossible(line, what));
        }
        datagram.delivered = true;
        Ok(())
    }

    /// Moves what the step has sent out of the world's network, under the names of the datagrams.
    fn collect_sends(&mut self, line: u64, node: u16, told: &StepOf<A>) -> Result<(), Fault> {
        let nodes = self.state.nodes.len();
        for sent in told.sends.iter().filter(|sent| usize::from(sent.to) < nodes) {
            let flight =
                Flight { src: node, dst: sent.to, msg: sent.msg.clone(), latest: u16::MAX };
            if self.state.network.binary_search(&flight).is_err() {
                return Err(self.refused(line, &self.state, "the model does not send this"));
            }
            if sent.to == node {
                self.own[usize::from(node)].push(sent.msg.clone());
            }
            let Some(sequence) = sent.seq else { continue };
            let outbox = self.outboxes[usize::from(node)].back_mut().expect("its life has begun");
            // Another lease of the node may have sent what lies between.
            let next = outbox.first.wrapping_add(outbox.sent.len() as u32);
            for _ in next..sequence {
                outbox.sent.push_back(Datagram { digest: 0, at: 0, delivered: false });
            }
            let digest = digest(sent.to, &sent.msg);
            outbox.sent.push_back(Datagram { digest, at: told.at, delivered: false });
            while outbox.sent.len() > WINDOW {
                outbox.sent.pop_front();
                outbox.first = outbox.first.wrapping_add(1);
            }
        }
        // What a node says to itself stays in the world until it is heard.
        self.state.network.retain(|flight| flight.src == flight.dst);
        if let Heard::Told { msg } = &told.input {
            self.state.network.retain(|flight| !(flight.dst == node && flight.msg == *msg));
        }
        Ok(())
    }
}
