//! The inter-region coordinator: operations that involve two regions, without a shared database and
//! without one region ever waiting for the other.
//!
//! Read [`facts`], then [`peering`], which derives what a customer sees, then [`control`], which is
//! where facts are written; [`log`] and [`server`] carry them, [`remote`] takes them, and [`restore`]
//! says what happens after a backup was put back. [`safeguards`] names every rule.
//!
//! Every operation goes *local, remote, local*: a customer calls its own region; the wish is in that
//! region's work log before the answer; an IRC server of that region carries it to the other control
//! plane, and the answer back.

pub mod audit;
mod calls;
pub mod control;
pub mod counts;
pub mod customer;
mod digest;
pub mod durable;
pub mod facts;
mod index;
#[cfg(test)]
mod largest;
pub mod ledger;
pub mod log;
pub mod msg;
pub mod notice;
pub mod pace;
pub mod peering;
pub mod remote;
pub mod restore;
pub mod results;
pub mod safeguards;
pub mod server;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stateright::actor::{Actor, Id};

use self::control::ControlPlane;
use self::counts::Counts;
use self::customer::{Customer, CustomerState};
use self::facts::{OpId, Region};
use self::ledger::{ControlState, Ledger};
use self::msg::{Answer, CallError, Claim, ClaimEpoch, Msg, Work};
use self::pace::Pace;
use self::peering::Label;
use self::server::{IrcServer, ServerState};
use crate::step::Machine;

pub(crate) type Out = stateright::actor::Out<Party>;

/// One actor of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "there are few actors")]
pub enum Party {
    /// A region's control plane.
    Control(ControlPlane),
    /// One of its IRC servers.
    Server(IrcServer),
    /// A customer.
    Customer(Customer),
}

/// Every timer of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Timer {
    /// When another unit of a region's clock has passed.
    Tick,
    /// When a claim runs out.
    Lease(Work),
    /// When work that was tried in vain may be handed out again.
    Retry(Work),
    /// When to compare with a peer.
    Sweep(Region),
    /// When a server asks for work.
    Poll,
    /// When a server stops waiting for an answer.
    Call(Work),
    /// When a customer asks again.
    Ask,
    /// When there is budget for one more retry, or leave for one more probe.
    Probe(Region),
}

/// The state of one actor.
#[allow(clippy::large_enum_variant, reason = "a box would cost each step")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartyState {
    /// A control plane's.
    Control(ControlState),
    /// A server's.
    Server(ServerState),
    /// A customer's.
    Customer(CustomerState),
}

/// What one actor has on disk. Servers have nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// A control plane's ledger.
    Control(Ledger),
}

impl Actor for Party {
    type Msg = Msg;
    type Timer = Timer;
    type State = PartyState;
    type Storage = Storage;
    type Random = ();

    fn on_start(&self, _: Id, storage: &Option<Storage>, o: &mut Out) -> PartyState {
        match self {
            Self::Control(control) => {
                let ledger = storage.as_ref().map(|Storage::Control(ledger)| ledger);
                PartyState::Control(control.on_start(ledger, o))
            }
            Self::Server(server) => PartyState::Server(server.on_start(o)),
            Self::Customer(_) => PartyState::Customer(CustomerState::default()),
        }
    }

    fn on_msg(&self, me: Id, state: &mut Cow<'_, PartyState>, src: Id, msg: Msg, o: &mut Out) {
        match (self, state.to_mut()) {
            (Self::Control(control), PartyState::Control(state)) => {
                control.on_msg(state, src, msg, o);
            }
            (Self::Server(server), PartyState::Server(state)) => {
                server.on_msg(state, me, src, msg, o);
            }
            (Self::Customer(customer), PartyState::Customer(state)) => {
                customer.on_msg(state, me, src, msg, o);
            }
            _ => panic!("an actor was given the state of another role"),
        }
    }

    fn on_timeout(&self, _: Id, state: &mut Cow<'_, PartyState>, timer: &Timer, o: &mut Out) {
        match (self, state.to_mut()) {
            (Self::Control(control), PartyState::Control(state)) => {
                control.on_timeout(state, *timer, o);
            }
            (Self::Server(server), PartyState::Server(state)) => {
                server.on_timeout(state, *timer, o);
            }
            (Self::Customer(customer), PartyState::Customer(state)) => {
                customer.on_timeout(state, *timer, o);
            }
            _ => panic!("an actor was given the state of another role"),
        }
    }
}

impl ControlPlane {
    /// Everything that this control plane has to say to other regions now, by the work that it is.
    pub fn work(&self, state: &ControlState) -> Vec<Work> {
        let mut state = state.clone();
        let mut out = Out::new();
        let desk = self.desk(&mut state, &mut out);
        desk.work().into_iter().map(|(_, work)| work).collect()
    }

    /// What a server that knows these kinds would be handed out, if every limit were far away.
    pub fn offers(&self, state: &ControlState, kinds: &[msg::Kind]) -> Vec<Work> {
        let mut state = state.clone();
        let mut out = Out::new();
        self.desk(&mut state, &mut out).offers(kinds)
    }

    /// Everything that it has to say now, under the lowest claim of its present life. For models whose
    /// carrier is freer than any set of servers.
    pub fn errands(&self, state: &ControlState) -> Vec<Claim> {
        let mut state = state.clone();
        let mut out = Out::new();
        let epoch =
            ClaimEpoch { incarnation: state.ledger.head.incarnation, ..ClaimEpoch::default() };
        let desk = self.desk(&mut state, &mut out);
        desk.work().into_iter().filter_map(|(_, work)| desk.call(work, epoch)).collect()
    }
}

/// What the outside may know of an actor.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// A control plane.
    Control(Box<ControlView>),
    /// A server.
    Server {
        /// How many claims it works on.
        working: usize,
        /// How many of its reports have counted.
        done: u64,
        /// It takes no more work.
        drained: bool,
        /// How many of its claims are for regions that it does not know.
        unknown: usize,
    },
    /// A customer.
    Customer {
        /// How many calls wait.
        waiting: usize,
        /// What the last call came to, and its number.
        last: Option<(u64, Result<Answer, CallError>)>,
    },
}

/// What the outside may know of a control plane: all that it has. It is cheap to clone and to compare,
/// however many peerings there are.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlView {
    /// What is on disk.
    pub ledger: Ledger,
    /// How many claims towards each region are out.
    pub claimed: BTreeMap<Region, usize>,
    /// The pace of each region of which anything is to be remembered.
    pub paces: BTreeMap<Region, Pace>,
    /// How many pieces of work wait towards each region, because they were tried in vain.
    pub waiting: BTreeMap<Region, usize>,
    /// What was counted since the start.
    pub counts: Counts,
}

impl ControlView {
    /// What the owner of this side of a peering sees; none if it is not here.
    pub fn label(&self, id: OpId) -> Option<Label> {
        self.ledger.label(id)
    }

    /// Whether this region is frozen towards no other.
    pub fn is_open(&self) -> bool {
        self.ledger.is_open()
    }
}

impl Machine for Party {
    type View = View;

    fn view(&self, _: Id, state: &PartyState) -> View {
        match state {
            PartyState::Control(state) => {
                let mut claimed = BTreeMap::new();
                for &work in state.claims.keys() {
                    if let Some(remote) = state.ledger.remote_of(work) {
                        *claimed.entry(remote).or_default() += 1;
                    }
                }
                let mut waiting = BTreeMap::new();
                for &work in state.waits.keys() {
                    if let Some(remote) = state.ledger.remote_of(work) {
                        *waiting.entry(remote).or_default() += 1;
                    }
                }
                View::Control(Box::new(ControlView {
                    ledger: state.ledger.clone(),
                    claimed,
                    paces: state.paces.clone(),
                    waiting,
                    counts: state.counts.clone(),
                }))
            }
            PartyState::Server(state) => {
                let ServerState { working, drained, done } = state;
                let unknown = match self {
                    Self::Server(server) => server.unknown(state),
                    _ => 0,
                };
                View::Server { working: working.len(), done: *done, drained: *drained, unknown }
            }
            PartyState::Customer(state) => {
                View::Customer { waiting: state.queue.len(), last: state.last.clone() }
            }
        }
    }

    fn deadline(&self, _: &PartyState) -> Option<Timer> {
        None
    }

    /// There is one `Switched` for each peering whose half is to go on, and nothing repeats it. An answer to a
    /// customer may get lost: who has no answer asks again under the same token.
    fn may_be_dropped(&self, msg: &Msg) -> bool {
        !matches!(msg, Msg::Switched(_))
    }

    fn check(&self, _: Id, state: &PartyState) {
        if let PartyState::Control(ControlState { ledger, claims, .. }) = state {
            for work in claims.keys() {
                if let Work::Record(id) = work {
                    assert!(ledger.records.contains(id), "a claim is of a record that is there");
                }
            }
        }
    }
}
