//! The IRC server: carries work from its own region's log to other regions, and the answers back.
//!
//! It decides nothing and remembers nothing that matters. It polls its own control plane for claims,
//! says each to the control plane of the other region, and reports what that one answers, or that it
//! does not. Any number of servers share a log; each may be killed at any moment. What an operation is
//! about it does not know: it polls for the kinds that it was built for, and carries bytes.
//!
//! Between a claim and its call any time may pass: the server stands still, or has much to do. So it has
//! the claim extended just before it calls, and calls only if the control plane says that the claim is
//! still its own (I-20). Both waits, for that and for the other region, have a deadline below half of the
//! lease, counted from when the question is sent. So a call is over while its claim still holds: when a
//! server hears nothing it reports that in time, and what comes later finds another epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::facts::Region;
use super::msg::{Call, ClaimEpoch, Command, Kind, Msg, Outcome, Work};
use super::safeguards::Safeguards;
use super::{Out, Timer};
use crate::lease::record::NodeId;

/// What a server is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IrcServer {
    /// Its region's control plane.
    pub control: NodeId,
    /// The control planes of all other regions.
    pub remotes: BTreeMap<Region, NodeId>,
    /// The kinds of operation that it carries.
    pub kinds: BTreeSet<Kind>,
    /// How many pieces of work it takes at a time.
    pub width: u8,
    /// How often it polls.
    pub poll: Duration,
    /// How long it waits for an answer: below half of the lease of a claim.
    pub deadline: Duration,
    /// The rules that it keeps.
    pub safeguards: Safeguards,
}

/// A claim that a server works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    /// Its epoch.
    pub epoch: ClaimEpoch,
    /// The call that goes out when the claim is extended; none once it has gone out.
    pub unsent: Option<(Region, Box<Call>)>,
}

/// What a server is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerState {
    /// The claims that it works on.
    pub working: BTreeMap<Work, Job>,
    /// It takes no more work.
    pub drained: bool,
    /// How many reports have counted in this life.
    pub done: u64,
}

impl IrcServer {
    pub(super) fn on_start(&self, o: &mut Out) -> ServerState {
        // Not all at once (I-26).
        o.set_timer(Timer::Poll, Duration::ZERO..self.poll);
        ServerState::default()
    }

    //= SPEC IRC-31
    pub(super) fn on_msg(&self, state: &mut ServerState, me: Id, src: Id, msg: Msg, o: &mut Out) {
        let from_control = src == Id::from(self.control);
        match msg {
            Msg::Claimed(claim) if from_control => {
                let (work, epoch) = claim.call.tag;
                if state.drained {
                    let outcome = Box::new(Outcome::Released);
                    o.send(src, Msg::Report { work, epoch, outcome });
                    return;
                }
                let is_unknown = !self.remotes.contains_key(&claim.remote);
                let unsent = Some((claim.remote, Box::new(claim.call)));
                state.working.insert(work, Job { epoch, unsent });
                if is_unknown {
                    // A region that was added since: given back at once it would come again at once.
                    o.set_timer(Timer::Call(work), self.deadline..self.deadline);
                } else if self.safeguards.contains(Safeguards::I_20_EXTEND_BEFORE_CALL) {
                    o.set_timer(Timer::Call(work), self.deadline..self.deadline);
                    o.send(src, Msg::Extend { work, epoch });
                } else {
                    self.call(state, work, o);
                }
            }
            Msg::Extended { work, epoch, ok } if from_control => {
                let job = state.working.get(&work).filter(|job| job.epoch == epoch);
                // An answer to a claim that was given up.
                if job.is_none_or(|job| job.unsent.is_none()) {
                    return;
                }
                if ok {
                    self.call(state, work, o);
                } else {
                    // It is another's by now.
                    state.working.remove(&work);
                    o.cancel_timer(Timer::Call(work));
                    self.poll(state, o);
                }
            }
            Msg::Reply(reply) if self.remotes.values().any(|&remote| src == Id::from(remote)) => {
                let (work, epoch) = reply.tag;
                // An answer to a claim that was given up, or to another region's call.
                let job = state.working.get(&work).filter(|job| job.epoch == epoch);
                if job.is_none_or(|job| job.unsent.is_some()) {
                    return;
                }
                self.report(state, work, Outcome::Answered(*reply), o);
            }
            // What was asked for is told: there may be a next part at once.
            Msg::Reported { ok, .. } if from_control => {
                state.done += u64::from(ok);
                self.poll(state, o);
            }
            // What it has called about it ends; whoever stops it waits for that. The rest it gives back.
            Msg::Operate(Command::Drain(drained)) if src == me => {
                state.drained = drained;
                let is_unsent = |(&work, job): (&Work, &Job)| job.unsent.is_some().then_some(work);
                let unsent: Vec<Work> = state.working.iter().filter_map(is_unsent).collect();
                for work in unsent.into_iter().filter(|_| drained) {
                    self.report(state, work, Outcome::Released, o);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_timeout(&self, state: &mut ServerState, timer: Timer, o: &mut Out) {
        match timer {
            Timer::Poll => {
                o.set_timer(Timer::Poll, self.poll / 2..self.poll);
                self.poll(state, o);
            }
            Timer::Call(work) => {
                // Nobody was called if the control plane itself has not answered.
                let is_unsent = state.working.get(&work).is_some_and(|job| job.unsent.is_some());
                let outcome = if is_unsent { Outcome::Released } else { Outcome::TimedOut };
                self.report(state, work, outcome, o);
            }
            _ => {}
        }
    }

    /// How many claims it has for regions that it does not know: its cluster file is older than its control plane's.
    /// It can only keep them for the time of a call and give them back.
    //= SPEC REGION-16
    pub(super) fn unknown(&self, state: &ServerState) -> usize {
        let is_unknown = |job: &&Job| {
            let remote = job.unsent.as_ref().map(|(remote, _)| remote);
            remote.is_some_and(|remote| !self.remotes.contains_key(remote))
        };
        state.working.values().filter(is_unknown).count()
    }

    fn poll(&self, state: &ServerState, o: &mut Out) {
        // What it cannot carry takes no room from what it can.
        let busy = u8::try_from(state.working.len() - self.unknown(state)).unwrap_or(u8::MAX);
        let max = self.width.saturating_sub(busy);
        if max > 0 && !state.drained {
            let kinds = self.kinds.iter().copied().collect();
            o.send(self.control.into(), Msg::Poll { kinds, max });
        }
    }

    /// Says a claim's call to the other region.
    fn call(&self, state: &mut ServerState, work: Work, o: &mut Out) {
        let Some(job) = state.working.get_mut(&work) else { return };
        let Some((region, call)) = job.unsent.take() else { return };
        let Some(&remote) = self.remotes.get(&region) else { return };
        o.set_timer(Timer::Call(work), self.deadline..self.deadline);
        o.send(remote.into(), Msg::Call(call));
    }

    fn report(&self, state: &mut ServerState, work: Work, outcome: Outcome, o: &mut Out) {
        let Some(Job { epoch, .. }) = state.working.remove(&work) else { return };
        o.cancel_timer(Timer::Call(work));
        let outcome = Box::new(outcome);
        o.send(self.control.into(), Msg::Report { work, epoch, outcome });
    }
}
