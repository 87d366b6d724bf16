//! The IRC server: carries work from its own region's log to other regions, and the answers back.
//!
//! It decides nothing and remembers nothing that matters. It polls its own control plane for claims,
//! says each to the control plane of the other region, and reports what that one answers, or that it
//! does not. Any number of servers share a log; each may be killed at any moment. What an operation is
//! about it does not know: it polls for the kinds that it was built for, and carries bytes.
//!
//! A call has a deadline that is below half of the claim's lease. So no claim has to be extended: when
//! a server hears nothing it reports that while the claim is still its own, and what comes later
//! finds another epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::actor::Id;

use super::facts::Region;
use super::msg::{ClaimEpoch, Command, Kind, Msg, Outcome, Work};
use super::{Out, Timer};
use crate::lease::record::NodeId;

/// What a server is told at its making.
#[derive(Clone, Debug)]
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
}

/// What a server is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerState {
    /// The claims that it works on.
    pub working: BTreeMap<Work, ClaimEpoch>,
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
                let remote = self.remotes.get(&claim.remote).filter(|_| !state.drained);
                let Some(&remote) = remote else {
                    let outcome = Box::new(Outcome::Released);
                    o.send(src, Msg::Report { work, epoch, outcome });
                    return;
                };
                state.working.insert(work, epoch);
                o.set_timer(Timer::Call(work), self.deadline..self.deadline);
                o.send(remote.into(), Msg::Call(Box::new(claim.call)));
            }
            Msg::Reply(reply) if self.remotes.values().any(|&remote| src == Id::from(remote)) => {
                let (work, epoch) = reply.tag;
                // An answer to a claim that was given up, or to another region's call.
                if state.working.get(&work) != Some(&epoch) {
                    return;
                }
                self.report(state, work, Outcome::Answered(*reply), o);
            }
            // What was asked for is told: there may be a next part at once.
            Msg::Reported { ok, .. } if from_control => {
                state.done += u64::from(ok);
                self.poll(state, o);
            }
            // What it works on it ends; whoever stops it waits for that.
            Msg::Operate(Command::Drain(drained)) if src == me => state.drained = drained,
            _ => {}
        }
    }

    pub(super) fn on_timeout(&self, state: &mut ServerState, timer: Timer, o: &mut Out) {
        match timer {
            Timer::Poll => {
                o.set_timer(Timer::Poll, self.poll / 2..self.poll);
                self.poll(state, o);
            }
            Timer::Call(work) => self.report(state, work, Outcome::TimedOut, o),
            _ => {}
        }
    }

    fn poll(&self, state: &ServerState, o: &mut Out) {
        let busy = u8::try_from(state.working.len()).unwrap_or(u8::MAX);
        let max = self.width.saturating_sub(busy);
        if max > 0 && !state.drained {
            let kinds = self.kinds.iter().copied().collect();
            o.send(self.control.into(), Msg::Poll { kinds, max });
        }
    }

    fn report(&self, state: &mut ServerState, work: Work, outcome: Outcome, o: &mut Out) {
        let Some(epoch) = state.working.remove(&work) else { return };
        o.cancel_timer(Timer::Call(work));
        let outcome = Box::new(outcome);
        o.send(self.control.into(), Msg::Report { work, epoch, outcome });
    }
}
