//! Takes down for the watch what each node does.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use stateright::actor::Id;

use super::setup::Birth;
use super::steps::{Taken, control, unasked_calls};
use super::watch::{Shared, Step};
use crate::irc::control::ControlPlane;
use crate::irc::facts::Region;
use crate::irc::ledger::ControlState;
use crate::irc::msg::{Msg, Work};
use crate::irc::{Party, PartyState, Storage, Timer};
use crate::models::irc::Wish;
use crate::step::{Input, InputOf};
use crate::trace::{Origin, Recorder};

/// Whose life it is.
pub(super) enum Role {
    /// A control plane.
    Control(Box<ControlPlane>),
    /// A server of that region.
    Server(u16),
    /// A customer of that region.
    Customer(u16),
}

/// Takes down one life of a node for the watch.
pub(super) struct Ear {
    node: u16,
    role: Role,
    shared: Shared,
    /// When it began, and what time it is, in the simulator's nanoseconds.
    began: u64,
    now: u64,
    /// The state before the step.
    before: Option<ControlState>,
    /// The leases that are armed.
    leases: BTreeSet<Work>,
    /// The step that is under way.
    input: Option<InputOf<Party>>,
    wish: Option<Wish>,
    sent: Vec<Msg>,
    set: Vec<(Timer, Duration, u64)>,
    /// Which life it is, and the call of this customer that is under way: its name, and its number in the history.
    life: u32,
    call: Option<(u64, usize)>,
}

impl Ear {
    /// For a life of a node that begins now.
    pub(super) fn new(birth: Birth, role: Role, shared: Shared) -> Self {
        let Birth { node, incarnation: life, now, .. } = birth;
        let (leases, sent, set) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (before, input, wish, call) = (None, None, None, None);
        let began = now;
        Self { node, role, shared, began, now, before, leases, input, wish, sent, set, life, call }
    }

    /// Takes down what a customer was told, and what it asks.
    fn write_down(&mut self, region: u16, input: &InputOf<Party>) {
        let mut watch = self.shared.lock();
        if let Input::Deliver { msg: Msg::Told { n, result }, .. } = input
            && let Some((_, call)) = self.call.take_if(|(name, _)| name == n)
        {
            watch.history.tell(call, result.clone().map(|answer| *answer));
        }
        for msg in &self.sent {
            let &Msg::Ask { n, caller, token, request } = msg else { continue };
            if self.call.is_none_or(|(name, _)| name != n) {
                let client = (self.node, self.life);
                let call = watch.history.ask(client, Region(region), caller, token, request);
                watch.asked.insert((self.node, n, token), call);
                self.call = Some((n, call));
            }
        }
    }

    fn is_control(&self) -> bool {
        matches!(self.role, Role::Control(_))
    }
}

impl Recorder<Party> for Ear {
    fn begin(&mut self, _: u16, _: u64, _: u64, input: &InputOf<Party>, origin: Origin) {
        self.wish = None;
        self.sent.clear();
        self.set.clear();
        self.input = Some(input.clone());
        if !self.is_control() {
            return;
        }
        let node = usize::from(self.node);
        match input {
            Input::Start(storage) => self.shared.lock().start(node, storage.as_ref()),
            Input::Deliver { src, msg: msg @ Msg::Ask { n, token, .. } } => {
                self.wish = Some(Wish { at: self.node, from: (*src).into(), msg: msg.clone() });
                self.shared.lock().hear(usize::from(*src), *n, *token);
            }
            Input::Deliver { .. } if matches!(origin, Origin::Own) => {
                let own = &mut self.shared.lock().desks[node].own;
                *own = own.saturating_sub(1);
            }
            Input::Fire(Timer::Lease(work)) => {
                self.leases.remove(work);
            }
            _ => {}
        }
    }

    fn save(&mut self, storage: &Storage, number: Option<u64>) {
        if let (true, Some(number)) = (self.is_control(), number) {
            let Storage::Control(ledger) = storage;
            let step = Step { number, ledger: ledger.clone(), wish: self.wish.clone() };
            self.shared.lock().desks[usize::from(self.node)].waiting.push_back(step);
        }
    }

    fn set(&mut self, timer: &Timer, range: &Range<Duration>, due: u64) {
        if let Timer::Lease(work) = timer {
            self.leases.insert(*work);
        }
        self.set.push((*timer, range.start, due));
    }

    fn cancel(&mut self, timer: &Timer) {
        if let Timer::Lease(work) = timer {
            self.leases.remove(work);
        }
    }

    fn choose(&mut self, _: &str, _: &[()]) {}

    fn send(&mut self, to: Id, msg: &Msg, _: Option<u32>) {
        self.sent.push(msg.clone());
        if self.is_control() && usize::from(to) == usize::from(self.node) {
            self.shared.lock().desks[usize::from(self.node)].own += 1;
        }
    }

    fn end(&mut self, state: &PartyState, _: Option<u64>) {
        let Some(input) = self.input.take() else { return };
        match &self.role {
            Role::Control(actor) => {
                let Some(after) = control(state) else { return };
                if let Some(before) = &self.before {
                    let Self { sent, set, leases, .. } = self;
                    let age = Duration::from_nanos(self.now - self.began);
                    let input = &input;
                    let step = Taken { actor, before, input, after, sent, set, leases, age };
                    self.shared.lock().judge_step(self.node, &step);
                }
                self.before = Some(after.clone());
            }
            Role::Server(region) => {
                let calls = unasked_calls(&input, &self.sent);
                self.shared.lock().judge_calls(*region, calls);
            }
            &Role::Customer(region) => self.write_down(region, &input),
        }
    }

    fn write_out(&mut self) {}

    fn stop(&mut self, _: u64) {}

    fn simulated(&mut self, now: u64) {
        self.now = now;
        self.shared.lock().now = now;
    }

    fn durable(&mut self, number: u64) {
        if !self.is_control() {
            return;
        }
        let mut watch = self.shared.lock();
        let node = usize::from(self.node);
        while watch.desks[node].waiting.front().is_some_and(|step| step.number <= number) {
            let step = watch.desks[node].waiting.pop_front().expect("it is there");
            watch.take(node, step);
        }
    }
}
