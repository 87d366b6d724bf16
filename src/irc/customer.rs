//! A customer: asks its own region's control plane, again and again under one token until it is told.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::facts::{Account, digest};
use super::msg::{Answer, CallError, Msg, Request, Token};
use super::{Out, Timer};
use crate::lease::record::NodeId;

/// What a customer's node is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// Its region's control plane.
    pub control: NodeId,
    /// After how long it asks again.
    pub retry: Duration,
}

/// One call that waits to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wanted {
    /// In whose name.
    pub caller: Account,
    /// Under which token.
    pub token: Token,
    /// What.
    pub request: Request,
}

/// A customer's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomerState {
    /// The number of the call under way.
    pub n: u64,
    /// What is still to be asked; the first is under way.
    pub queue: VecDeque<Wanted>,
    /// What the last call came to, and its number.
    pub last: Option<(u64, Result<Answer, CallError>)>,
}

impl CustomerState {
    /// The name of the call under way. It holds the token: an earlier life has counted its calls from 0 too, and what
    /// that one is still told must not answer a call of this one. It is a count to whoever reads it (`COUNT_MAX`).
    //= SPEC IRC-48
    fn name(&self) -> Option<u64> {
        self.queue.front().map(|wanted| digest(&(wanted.token, self.n)) >> 2)
    }
}

impl Customer {
    pub(super) fn on_msg(&self, state: &mut CustomerState, me: Id, src: Id, msg: Msg, o: &mut Out) {
        match msg {
            Msg::Submit { caller, token, request } if src == me => {
                state.queue.push_back(Wanted { caller, token, request });
                if state.queue.len() == 1 {
                    self.ask(state, o);
                }
            }
            Msg::Told { n, result } if src == Id::from(self.control) && state.name() == Some(n) => {
                state.queue.pop_front();
                state.last = Some((state.n, result.map(|answer| *answer)));
                state.n += 1;
                o.cancel_timer(Timer::Ask);
                self.ask(state, o);
            }
            _ => {}
        }
    }

    pub(super) fn on_timeout(&self, state: &CustomerState, timer: Timer, o: &mut Out) {
        if timer == Timer::Ask {
            self.ask(state, o);
        }
    }

    fn ask(&self, state: &CustomerState, o: &mut Out) {
        let Some(&Wanted { caller, token, request }) = state.queue.front() else { return };
        let Some(n) = state.name() else { return };
        o.set_timer(Timer::Ask, self.retry..self.retry);
        o.send(self.control.into(), Msg::Ask { n, caller, token, request });
    }
}
