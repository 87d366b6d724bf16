//! What no step of a control plane or of a server may do, beside the replay, and what is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::actor::Id;

use crate::irc::control::ControlPlane;
use crate::irc::ledger::ControlState;
use crate::irc::msg::{ClaimEpoch, Msg, Work};
use crate::irc::{Party, PartyState, Timer};
use crate::models::replay::{Monitor, Seen};
use crate::sim::steps::{Taken, unasked_calls};
use crate::step::{Input, InputOf};
use crate::trace::format::{Heard, StepOf, TimerChange};

/// What is remembered of one life of a node.
#[derive(Debug, Default)]
struct Life {
    /// When it began, by its clock.
    began: Option<u64>,
    /// The claims whose end is armed.
    leases: BTreeSet<Work>,
    /// When each call of a server that is not answered went out.
    calls: BTreeMap<(Work, ClaimEpoch), u64>,
    /// When a customer first asked what it now asks, and its name.
    asked: Option<(u64, u64)>,
}

/// Judges the steps of the nodes of regions by themselves: claims, waits and budgets at a control plane, and that a
/// server calls only when it was just told that its claim is held.
#[derive(Debug)]
pub struct IrcMonitor {
    controls: BTreeMap<usize, ControlPlane>,
    lives: Vec<Life>,
    call: u64,
    answer: u64,
}

impl IrcMonitor {
    pub(super) fn new(actors: &[Option<Party>]) -> Self {
        let controls = super::controls(actors);
        Self {
            controls: controls.map(|(node, one)| (node.into(), one.clone())).collect(),
            lives: actors.iter().map(|_| Life::default()).collect(),
            call: 0,
            answer: 0,
        }
    }

    /// The rules of a step of a control plane.
    fn control(
        &mut self,
        seen: &Seen<'_, Party>,
        input: &InputOf<Party>,
        after: &ControlState,
    ) -> Result<(), String> {
        let told = seen.told;
        let life = &mut self.lives[seen.node];
        if let Input::Fire(Timer::Lease(work)) = input {
            life.leases.remove(work);
        }
        let mut set = Vec::new();
        for change in &told.timers {
            match change {
                TimerChange::Set { timer, lo, due, .. } => {
                    set.push((*timer, Duration::from_nanos(*lo), *due));
                    if let Timer::Lease(work) = timer {
                        life.leases.insert(*work);
                    }
                }
                TimerChange::Cancel(Timer::Lease(work)) => drop(life.leases.remove(work)),
                TimerChange::Cancel(_) => {}
            }
        }
        let Some(PartyState::Control(before)) = seen.before else { return Ok(()) };
        let Some(actor) = self.controls.get(&seen.node) else { return Ok(()) };
        let sent: Vec<Msg> = told.sends.iter().map(|sent| sent.msg.clone()).collect();
        let age = Duration::from_nanos(told.at - life.began.unwrap_or(told.at));
        let (sent, set, leases) = (&sent, &set, &life.leases);
        let step = Taken { actor, before, input, after, sent, set, leases, age };
        match step.broken_by_itself() {
            Some(rule) => Err(format!("no step may do this: the rule {rule} does not hold")),
            None => Ok(()),
        }
    }

    /// A server calls under a claim only in the step in which it is told that the claim is held.
    fn server(&mut self, seen: &Seen<'_, Party>, input: &InputOf<Party>) -> Result<(), String> {
        let told = seen.told;
        let sent: Vec<Msg> = told.sends.iter().map(|sent| sent.msg.clone()).collect();
        if let Some((work, epoch)) = unasked_calls(input, &sent).next() {
            return Err(format!(
                "the server calls about {work:?} under {epoch:?}, and nobody has just told it that it holds that"
            ));
        }
        let life = &mut self.lives[seen.node];
        if let Input::Deliver { msg: Msg::Reply(reply), .. } = input
            && let Some(at) = life.calls.remove(&reply.tag)
        {
            self.call = self.call.max(told.at - at);
        }
        for msg in sent {
            match msg {
                Msg::Call(call) => drop(life.calls.insert(call.tag, told.at)),
                // It waits for the answer no more.
                Msg::Report { work, epoch, .. } => drop(life.calls.remove(&(work, epoch))),
                _ => {}
            }
        }
        Ok(())
    }

    fn customer(&mut self, seen: &Seen<'_, Party>, input: &InputOf<Party>) {
        let told = seen.told;
        let life = &mut self.lives[seen.node];
        if let Input::Deliver { msg: Msg::Told { n, .. }, .. } = input
            && let Some((_, at)) = life.asked.take_if(|(name, _)| name == n)
        {
            self.answer = self.answer.max(told.at - at);
        }
        for sent in &told.sends {
            if let Msg::Ask { n, .. } = sent.msg
                && life.asked.is_none_or(|(name, _)| name != n)
            {
                life.asked = Some((n, told.at));
            }
        }
    }
}

/// The input of a step, as the actor gets it.
fn input_of(node: usize, told: &StepOf<Party>) -> Option<InputOf<Party>> {
    let own = |msg: &Msg| Input::Deliver { src: Id::from(node), msg: msg.clone() };
    Some(match &told.input {
        Heard::Deliver { src, msg, .. } => {
            Input::Deliver { src: Id::from(usize::from(*src)), msg: msg.clone() }
        }
        Heard::Own { msg } | Heard::Told { msg } => own(msg),
        Heard::Fire { timer, .. } => Input::Fire(*timer),
        Heard::Start { .. } | Heard::Choose { .. } => return None,
    })
}

impl Monitor<Party> for IrcMonitor {
    //= SPEC TRACE-8
    fn look(&mut self, seen: &Seen<'_, Party>) -> Result<(), String> {
        self.lives[seen.node].began.get_or_insert(seen.told.at);
        let input = input_of(seen.node, seen.told).unwrap_or(Input::Start(None));
        match seen.after {
            PartyState::Control(after) => self.control(seen, &input, after),
            PartyState::Server(_) => self.server(seen, &input),
            PartyState::Customer(_) => {
                self.customer(seen, &input);
                Ok(())
            }
        }
    }

    fn end_of_life(&mut self, node: usize, _: Option<u64>) -> Result<(), String> {
        self.lives[node] = Life::default();
        Ok(())
    }

    fn clock_error_ppm(&self) -> Option<u32> {
        None
    }

    fn measured(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("longest call of another region", self.call),
            ("longest wait of a customer for an answer", self.answer),
        ]
    }
}
