//! A control plane with the freest carrier that there can be.
//!
//! What IRC servers add to a control plane is loss, delay and repetition: a claim only ever *restricts*
//! who may send what. So the facts can be checked without servers, with a carrier that may say
//! everything that the log has to say, at any moment and any number of times, and that reports every
//! answer of the present life as if it held the claim. Whatever a set of servers does to two control
//! planes, this carrier can do too; what holds here holds with them. Claims have models of their own
//! ([`super::claims`]).
//!
//! All that a control plane has to say at a moment is under way from that moment on, on a network that
//! delivers a message at any time, any number of times or never. So nothing is decided about *when* the
//! carrier speaks: what is never delivered was never said.
//!
//! The control plane is the real one, and is called through [`step`] as everywhere.

use std::borrow::Cow;
use std::collections::BTreeMap;

use stateright::actor::{Actor, Id, Out};

use crate::irc::control::ControlPlane;
use crate::irc::facts::Region;
use crate::irc::ledger::{ControlState, Held};
use crate::irc::msg::{Msg, Outcome};
use crate::irc::{Party, PartyState, Storage, Timer, View};
use crate::step::{Effect, Input, InputOf, Machine, step};

/// A control plane that carries its own work.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The control plane. It takes itself for a server of its region.
    pub control: ControlPlane,
    /// The same, as an actor.
    pub party: Party,
    /// The other control planes.
    pub remotes: BTreeMap<Region, usize>,
}

impl Carried {
    /// One step of the control plane; then everything that only paces is forgotten, and all that there
    /// is to say is under way.
    fn run(
        &self,
        id: Id,
        before: Option<ControlState>,
        input: InputOf<Party>,
        o: &mut Out<Self>,
    ) -> ControlState {
        let (after, effects) = step(&self.party, id, before.map(PartyState::Control), input);
        let PartyState::Control(mut after) = after else { unreachable!("it keeps its role") };
        after.claims.clear();
        after.claimed = 0;
        after.waits.clear();
        after.tries.clear();
        after.paces.clear();
        after.starved.clear();
        after.heard.clear();
        for effect in effects {
            match effect {
                Effect::Save(storage) => o.save(storage),
                Effect::Send(_, Msg::Reported { .. } | Msg::Told { .. }) => {}
                Effect::Send(to, msg) => o.send(to, msg),
                Effect::SetTimer(Timer::Tick, range) => o.set_timer(Timer::Tick, range),
                _ => {}
            }
        }
        for claim in self.control.errands(&after) {
            if let Some(&remote) = self.remotes.get(&claim.remote) {
                o.send(Id::from(remote), Msg::Call(Box::new(claim.call)));
            }
        }
        after
    }
}

impl Actor for Carried {
    type Msg = Msg;
    type Timer = Timer;
    type State = ControlState;
    type Storage = Storage;
    type Random = ();

    fn on_start(&self, id: Id, storage: &Option<Storage>, o: &mut Out<Self>) -> ControlState {
        self.run(id, None, Input::Start(storage.clone()), o)
    }

    fn on_msg(
        &self,
        id: Id,
        state: &mut Cow<'_, ControlState>,
        src: Id,
        msg: Msg,
        o: &mut Out<Self>,
    ) {
        let mut before = state.to_mut().clone();
        let (src, msg) = match msg {
            Msg::Reply(reply) => {
                let (work, epoch) = reply.tag;
                let head = &before.ledger.head;
                // A claim of an older life is void.
                let is_there = self.control.work(&before).contains(&work);
                if epoch.incarnation != head.incarnation || !is_there {
                    return;
                }
                before.claims.insert(work, Held { epoch, server: self.control.me });
                let outcome = Box::new(Outcome::Answered(*reply));
                (id, Msg::Report { work, epoch, outcome })
            }
            msg => (src, msg),
        };
        *state.to_mut() = self.run(id, Some(before), Input::Deliver { src, msg }, o);
    }

    fn on_timeout(
        &self,
        id: Id,
        state: &mut Cow<'_, ControlState>,
        timer: &Timer,
        o: &mut Out<Self>,
    ) {
        let before = state.to_mut().clone();
        *state.to_mut() = self.run(id, Some(before), Input::Fire(*timer), o);
    }
}

impl Machine for Carried {
    type View = View;

    fn view(&self, id: Id, state: &ControlState) -> View {
        self.party.view(id, &PartyState::Control(state.clone()))
    }

    fn deadline(&self, _: &ControlState) -> Option<Timer> {
        None
    }

    fn check(&self, _: Id, _: &ControlState) {}
}
