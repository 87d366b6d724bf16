//! Replays one node's trace by itself: each step is taken again, from the state before and with the
//! input that the trace tells, and must lead to the state and the effects that the trace tells.
//!
//! It finds whatever makes a node differ from its actors: an order that is left to chance, a clock that
//! is read, a state that is written down and read back wrongly, timers that fire when they must not.
//! It needs no other node's trace, and remembers one state, whatever the length of the trace.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use stateright::actor::Id;

use super::Traced;
use super::backups::Backups;
use super::format::{Header, Heard, Hex, StepOf, TimerChange};
use super::read::{Fault, Logged};
use crate::durable::Durable as _;
use crate::step::{Effect, EffectOf, Input, InputOf, step};
use crate::wire::Message as _;

/// How many messages of an actor to itself may be under way.
const OWN_MAX: usize = 1 << 14;

/// An armed timer.
#[derive(Clone, Debug)]
struct Armed<T> {
    timer: T,
    due: u64,
    /// The number of the step that armed it.
    by: u64,
}

/// One actor in replay.
struct Actor<A: Traced> {
    lease: u16,
    machine: A,
    state: Option<A::State>,
    storage: Option<A::Storage>,
    backups: Backups,
    timers: Vec<Armed<A::Timer>>,
    own: VecDeque<A::Msg>,
    choices: Vec<(String, Vec<A::Random>)>,
    digest: Hex,
}

/// One node in replay.
pub struct Node<A: Traced> {
    header: Header<A>,
    actors: Vec<Actor<A>>,
    /// The number of the next datagram of this life, once one was sent.
    sequence: Option<u32>,
    at: u64,
    /// The number of the last save of this life.
    saves: u64,
    /// The number of the last step that was not a timer's.
    last_other: Option<u64>,
    /// How late a timer was fired at most, in nanoseconds.
    late: u64,
}

impl<A: Traced> Node<A> {
    /// A node of which nothing is known but the header of its first life.
    pub fn new(header: Header<A>) -> Self {
        let actors = header
            .actors
            .iter()
            .map(|(lease, machine)| Actor {
                lease: *lease,
                machine: machine.clone(),
                state: None,
                storage: None,
                backups: Backups::new(),
                timers: Vec::new(),
                own: VecDeque::new(),
                choices: Vec::new(),
                digest: Hex(0),
            })
            .collect();
        let at = header.clock.at;
        Self { header, actors, sequence: Some(0), at, saves: 0, last_other: None, late: 0 }
    }

    /// The header of the life that is replayed.
    pub fn header(&self) -> &Header<A> {
        &self.header
    }

    /// How late a timer was fired at most, in nanoseconds of the node's clock.
    pub fn latest_timer(&self) -> u64 {
        self.late
    }

    /// The next life begins: all but the storage is gone.
    ///
    /// # Errors
    ///
    /// If it cannot be a life of the same node.
    pub fn begin_life(&mut self, line: u64, header: Header<A>) -> Result<(), Fault> {
        let old = &self.header;
        if (old.node, old.nodes, &old.cluster) != (header.node, header.nodes, &header.cluster) {
            return Err(Fault::unreadable(
                line,
                "another node's trace begins here: give every node a file of its own",
            ));
        }
        if !header.durable {
            return Err(Fault::impossible(
                line,
                "a node without storage has started twice in one cluster, so names are used twice",
            ));
        }
        if header.incarnation <= old.incarnation {
            return Err(Fault::impossible(
                line,
                format!(
                    "life {} follows life {}: an incarnation is used twice",
                    header.incarnation, old.incarnation
                ),
            ));
        }
        let is_same = header.actors.len() == old.actors.len()
            && header.actors.iter().zip(&old.actors).all(|((lease, one), (other_lease, other))| {
                lease == other_lease && one.has_same_part(other)
            });
        if !is_same {
            return Err(Fault::unreadable(
                line,
                "the node's part in the cluster has changed between two lives: check each configuration \
                 by itself",
            ));
        }
        for (actor, (_, machine)) in self.actors.iter_mut().zip(&header.actors) {
            actor.machine = machine.clone();
            actor.state = None;
            actor.timers.clear();
            actor.own.clear();
            actor.choices.clear();
            actor.digest = Hex(0);
        }
        self.at = if header.clock.name == old.clock.name { self.at } else { 0 };
        self.header = header;
        self.sequence = Some(0);
        self.saves = 0;
        self.last_other = None;
        Ok(())
    }

    /// Takes one step again.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the node cannot have taken it like this.
    //= SPEC TRACE-3
    pub fn replay(&mut self, logged: &Logged<A>) -> Result<(), Fault> {
        let Logged { line, step: told, found } = logged;
        let line = *line;
        let wrong = |what: String| Err(Fault::impossible(line, what));
        if told.at < self.at {
            return wrong(format!("the clock has gone back from {} to {}", self.at, told.at));
        }
        self.at = told.at;
        self.overdue(line, told)?;
        let me = Id::from(usize::from(self.header.node));
        let first_storage = self.header_is_first_start(told);
        let Some(actor) = self.actors.iter_mut().find(|actor| actor.lease == told.lease) else {
            return wrong(format!("the node has no part in lease {}", told.lease));
        };
        if told.pre != actor.digest {
            return wrong(format!(
                "the state before is {:?}, and the step before has left {:?}",
                told.pre, actor.digest
            ));
        }
        let (node, nodes) = (self.header.node, self.header.nodes);
        let input = actor.input(line, told, found.as_ref(), node, nodes, first_storage)?;
        if let Heard::Fire { due, .. } = told.input {
            self.late = self.late.max(told.at - due);
        }
        let taken = {
            let (machine, state) = (&actor.machine, actor.state.take());
            catch_unwind(AssertUnwindSafe(|| step(machine, me, state, input)))
        };
        let Ok((state, effects)) = taken else {
            return wrong("the actor's own assertions fail here".to_owned());
        };
        let post = Hex(A::digest(&state));
        actor.compare(line, told, &effects, self.header.node)?;
        let saves = actor.saves(line, told, &effects, self.header.durable, self.saves)?;
        if told.post != post {
            return wrong(format!("the state after is {post:?}, and not {:?}", told.post));
        }
        let deadline = actor.machine.deadline(&state);
        let due = deadline
            .and_then(|timer| Some(actor.timers.iter().find(|armed| armed.timer == timer)?.due));
        if told.deadline != due {
            return wrong(format!(
                "the permission is said to end at {:?}, and its timer says {due:?}",
                told.deadline
            ));
        }
        actor.state = Some(state);
        actor.digest = post;
        self.saves = saves;
        if told.durable > self.saves {
            return wrong(format!("save {} is durable before it was made", told.durable));
        }
        actor.backups.durable(told.durable);
        self.number_datagrams(line, told)?;
        if !matches!(told.input, Heard::Fire { .. }) {
            self.last_other = Some(told.i);
        }
        Ok(())
    }

    /// The first start of a trace takes its storage as the trace tells it; a later one must find what
    /// was saved.
    fn header_is_first_start(&self, told: &StepOf<A>) -> bool {
        let actor = self.actors.iter().find(|actor| actor.lease == told.lease);
        actor.is_some_and(|actor| actor.state.is_none() && actor.storage.is_none())
    }

    /// Before an input that is no timer's, every timer that is due has fired, unless it was armed only
    /// after the last such input.
    fn overdue(&self, line: u64, told: &StepOf<A>) -> Result<(), Fault> {
        if matches!(told.input, Heard::Fire { .. } | Heard::Start { .. }) {
            return Ok(());
        }
        let armed = self.actors.iter().flat_map(|actor| &actor.timers);
        let mut overdue = armed
            .filter(|armed| armed.due <= told.at && self.last_other.is_some_and(|i| armed.by <= i));
        match overdue.next() {
            None => Ok(()),
            Some(armed) => Err(Fault::impossible(
                line,
                format!(
                    "timer {:?} was due at {} and has not fired before this at {}",
                    armed.timer, armed.due, told.at
                ),
            )),
        }
    }

    fn number_datagrams(&mut self, line: u64, told: &StepOf<A>) -> Result<(), Fault> {
        for sequence in told.sends.iter().filter_map(|sent| sent.seq) {
            if self.sequence.is_some_and(|next| next != sequence) {
                return Err(Fault::impossible(
                    line,
                    format!("datagram {sequence} is sent, and number {:?} is next", self.sequence),
                ));
            }
            self.sequence = Some(sequence.wrapping_add(1));
        }
        Ok(())
    }
}

impl<A: Traced> Actor<A> {
    /// The input that the trace tells, if it can have come now.
    fn input(
        &mut self,
        line: u64,
        told: &StepOf<A>,
        found: Option<&(A::Storage, Hex)>,
        me: u16,
        nodes: u16,
        is_first: bool,
    ) -> Result<InputOf<A>, Fault> {
        let wrong = |what: String| Err(Fault::impossible(line, what));
        if matches!(told.input, Heard::Start { .. }) != self.state.is_none() {
            return wrong("an actor starts once in a life, and before anything else".to_owned());
        }
        let legal = |msg: &A::Msg| {
            if msg.is_legal() {
                return Ok(());
            }
            Err(Fault::impossible(line, "a value in the message is out of its bounds"))
        };
        let own =
            |msg: &A::Msg| Input::Deliver { src: Id::from(usize::from(me)), msg: msg.clone() };
        match &told.input {
            Heard::Start { .. } => {
                let saved = self.storage.as_ref().map(|storage| Hex(A::storage_digest(storage)));
                let found_digest = found.map(|&(_, digest)| digest);
                let found = found.map(|(storage, _)| storage);
                if !is_first && saved != found_digest {
                    self.backups.check::<A>(line, found)?;
                }
                self.backups.start::<A>(found, is_first);
                self.storage = found.cloned();
                Ok(Input::Start(found.cloned()))
            }
            Heard::Deliver { src, msg, .. } => {
                legal(msg)?;
                if *src == me || *src >= nodes {
                    return wrong(format!("no datagram can come from node {src}"));
                }
                Ok(Input::Deliver { src: Id::from(usize::from(*src)), msg: msg.clone() })
            }
            Heard::Own { msg } => {
                legal(msg)?;
                let Some(place) = self.own.iter().position(|own| own == msg) else {
                    return wrong(format!(
                        "the actor hears from itself what it has not said: {msg:?}"
                    ));
                };
                self.own.remove(place);
                Ok(own(msg))
            }
            Heard::Told { msg } => {
                legal(msg)?;
                if !self.machine.may_be_told(msg) {
                    return wrong(format!("nobody but the actor itself can say {msg:?}"));
                }
                Ok(own(msg))
            }
            Heard::Fire { timer, due } => {
                let Some(place) = self.timers.iter().position(|armed| armed.timer == *timer) else {
                    return wrong(format!("timer {timer:?} fires and is not armed"));
                };
                let armed = self.timers.remove(place);
                if armed.due != *due {
                    let what = "timer {timer:?} fires from an old arming";
                    return wrong(format!("{what}: due at {due}, armed for {}", armed.due));
                }
                if told.at < *due {
                    let early = due - told.at;
                    return wrong(format!("timer {timer:?} fires {early} ns before its time"));
                }
                Ok(Input::Fire(timer.clone()))
            }
            Heard::Choose { choice } => {
                let is_asked = |(_, among): &(String, Vec<A::Random>)| among.contains(choice);
                let Some(place) = self.choices.iter().position(is_asked) else {
                    return wrong(format!("{choice:?} is chosen and was not asked for"));
                };
                self.choices.remove(place);
                Ok(Input::Choose(choice.clone()))
            }
        }
    }

    /// Compares the effects with those that the trace tells, and puts them into effect.
    fn compare(
        &mut self,
        line: u64,
        told: &StepOf<A>,
        effects: &[EffectOf<A>],
        me: u16,
    ) -> Result<(), Fault> {
        let wrong = |what: String| Err(Fault::impossible(line, what));
        let mut sends = told.sends.iter();
        let mut timers = told.timers.iter();
        let mut choices = told.choices.iter();
        let nanos =
            |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        for effect in effects {
            match effect {
                Effect::Save(_) => {}
                Effect::Send(to, msg) => {
                    let is_told = sends.next().is_some_and(|sent| {
                        usize::from(sent.to) == usize::from(*to) && sent.msg == *msg
                    });
                    if !is_told {
                        return wrong(format!("the step sends node {} {msg:?}", usize::from(*to)));
                    }
                    if usize::from(*to) == usize::from(me) {
                        if self.own.len() >= OWN_MAX {
                            self.own.pop_front();
                        }
                        self.own.push_back(msg.clone());
                    }
                }
                Effect::SetTimer(timer, range) => {
                    let (low, high) = (nanos(range.start), nanos(range.end));
                    let due = match timers.next() {
                        Some(TimerChange::Set { timer: set, lo, hi, due })
                            if set == timer && (*lo, *hi) == (low, high) =>
                        {
                            *due
                        }
                        _ => {
                            return wrong(format!(
                                "the step arms {timer:?} for {low} to {high} ns"
                            ));
                        }
                    };
                    let window =
                        told.at.saturating_add(low)..=told.at.saturating_add(high.max(low));
                    if !window.contains(&due) {
                        return wrong(format!(
                            "timer {timer:?} is due at {due}, outside of {window:?}: it counts from {}",
                            told.at
                        ));
                    }
                    self.timers.retain(|armed| armed.timer != *timer);
                    self.timers.push(Armed { timer: timer.clone(), due, by: told.i });
                }
                Effect::CancelTimer(timer) => {
                    if timers.next() != Some(&TimerChange::Cancel(timer.clone())) {
                        return wrong(format!("the step disarms {timer:?}"));
                    }
                    self.timers.retain(|armed| armed.timer != *timer);
                }
                Effect::Choose(key, among) => {
                    if choices.next().is_none_or(|asked| (&asked.0, &asked.1) != (key, among)) {
                        return wrong(format!("the step asks for a choice of {key}"));
                    }
                    self.choices.retain(|(known, _)| known != key);
                    if !among.is_empty() {
                        self.choices.push((key.clone(), among.clone()));
                    }
                }
            }
        }
        if sends.len() + timers.len() + choices.len() > 0 {
            return wrong("the trace tells effects that the step does not have".to_owned());
        }
        Ok(())
    }

    /// Compares the saves with what the trace tells, and gives the number of the last save.
    fn saves(
        &mut self,
        line: u64,
        told: &StepOf<A>,
        effects: &[EffectOf<A>],
        is_durable: bool,
        last: u64,
    ) -> Result<u64, Fault> {
        let mut count = 0;
        let mut number = last;
        for effect in effects {
            let Effect::Save(storage) = effect else { continue };
            count += 1;
            let mut rows = 0;
            storage.difference(self.storage.as_ref(), &mut |_, _| rows += 1);
            number += u64::from(rows > 0 && is_durable);
            self.backups.save::<A>(storage, number);
            self.storage = Some(storage.clone());
        }
        let is_right = match (told.save, &self.storage) {
            (None, _) => count == 0,
            (Some(save), Some(storage)) => {
                save.count == count
                    && count > 0
                    && save.digest == Hex(A::storage_digest(storage))
                    && save.number == (number > last).then_some(number)
            }
            (Some(_), None) => false,
        };
        if is_right {
            return Ok(number);
        }
        Err(Fault::impossible(
            line,
            format!(
                "the step saves {count} times, up to number {number}, and the trace tells {:?}",
                told.save
            ),
        ))
    }
}
