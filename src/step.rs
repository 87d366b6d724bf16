//! The one place that calls an actor.
//!
//! Model, simulator, node and replayer all go through [`step`]: an actor, its state and one input
//! in; the next state and the ordered effects out. Nothing else in the crate calls an actor, so
//! whatever the checker saw an actor do is what a node does. No clock, no socket and no disk is
//! reachable from here.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

use stateright::actor::{Actor, Command, Id, Out};

/// An actor that can be stepped: stateright's trait, what the outside may know of it, and the
/// actor's own assertions.
pub trait Machine: Actor {
    /// What the outside sees of a state: its role, not its innards.
    type View: Clone + Debug + PartialEq;

    /// Projects a state to what the outside may see. A runtime publishes it after each step.
    fn view(&self, id: Id, state: &Self::State) -> Self::View;

    /// The timer at whose firing the permission in the view ends, if it permits anything. A reader of
    /// a published view compares the clock with this timer's deadline, so that a stuck actor cannot
    /// leave a true answer behind (L-12).
    fn deadline(&self, state: &Self::State) -> Option<Self::Timer>;

    /// The epoch under which the permission in the view holds: the fencing token of every effect
    /// (L-28). `None` if it permits nothing, and of an actor whose permissions have no epoch.
    fn epoch(&self, state: &Self::State) -> Option<u64> {
        let _ = state;
        None
    }

    /// The epoch of the term that the firing of this timer would renew, if it would: a runtime lets no error of a
    /// store keep it from firing (L-37).
    fn renews(&self, state: &Self::State, timer: &Self::Timer) -> Option<u64> {
        let _ = (state, timer);
        None
    }

    /// Whether what a message to the actor's own host asks for only takes something away, such as the work of a
    /// term that has ended: a runtime begins that in the step, without waiting for what the step saves. There is
    /// at most one such message of an actor at a time.
    fn is_withdrawal(&self, msg: &Self::Msg) -> bool {
        let _ = msg;
        false
    }

    /// Whether a message to the actor's own host may be dropped when too many of them wait. One that nobody would
    /// send again may not; there must be at most as many of those at a time as there are things that the actor keeps.
    fn may_be_dropped(&self, msg: &Self::Msg) -> bool {
        !self.is_withdrawal(msg)
    }

    /// Asserts what must hold of one actor's state after every step, on its own.
    ///
    /// A failure is a bug of the protocol's code, never of its input: it panics, in release too.
    fn check(&self, id: Id, state: &Self::State);
}

/// What can happen to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<M, T, R, S> {
    /// The actor starts, or starts again after a crash, with what its last `Save` left behind.
    Start(Option<S>),
    /// A message arrives. The source is the node that sent it; the actor's own id for its own host.
    Deliver {
        /// The sender's node id.
        src: Id,
        /// What it says.
        msg: M,
    },
    /// A timer that the actor set runs out.
    Fire(T),
    /// One of the alternatives that the actor asked to have chosen.
    Choose(R),
}

/// The input type of one actor.
pub type InputOf<A> =
    Input<<A as Actor>::Msg, <A as Actor>::Timer, <A as Actor>::Random, <A as Actor>::Storage>;

/// What an actor asks of its surroundings, in the order in which it asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<M, T, R, S> {
    /// Make this durable. Every `Send` of the same step waits for it.
    Save(S),
    /// Send a message to a node.
    Send(Id, M),
    /// Arm a timer, or arm it afresh: it runs out after some time within the range.
    SetTimer(T, Range<Duration>),
    /// Disarm a timer. It must not fire from an earlier arming.
    CancelTimer(T),
    /// Choose one of these and hand it back as [`Input::Choose`].
    Choose(String, Vec<R>),
}

/// The effect type of one actor.
pub type EffectOf<A> =
    Effect<<A as Actor>::Msg, <A as Actor>::Timer, <A as Actor>::Random, <A as Actor>::Storage>;

/// Runs one handler to its end: the only caller of actors.
///
/// `state` is `None` exactly for [`Input::Start`]. A crashed actor has no state, so every other
/// input needs one.
///
/// # Panics
///
/// If `state` and `input` do not belong together, or if the actor's own [`Machine::check`] fails.
//= SPEC TIME-4
pub fn step<A>(
    actor: &A,
    id: Id,
    state: Option<A::State>,
    input: InputOf<A>,
) -> (A::State, Vec<EffectOf<A>>)
where
    A: Machine,
    A::State: Debug,
{
    let mut out = Out::new();
    let next = match (state, input) {
        (None, Input::Start(storage)) => actor.on_start(id, &storage, &mut out),
        (Some(state), Input::Deliver { src, msg }) => {
            let mut state = Cow::Owned(state);
            actor.on_msg(id, &mut state, src, msg, &mut out);
            state.into_owned()
        }
        (Some(state), Input::Fire(timer)) => {
            let mut state = Cow::Owned(state);
            actor.on_timeout(id, &mut state, &timer, &mut out);
            state.into_owned()
        }
        (Some(state), Input::Choose(random)) => {
            let mut state = Cow::Owned(state);
            actor.on_random(id, &mut state, &random, &mut out);
            state.into_owned()
        }
        (Some(_), Input::Start(_)) => panic!("an actor that runs cannot start"),
        (None, _) => panic!("an actor that does not run can only start"),
    };
    actor.check(id, &next);
    let effects = out
        .into_iter()
        .map(|command| match command {
            Command::Save(storage) => Effect::Save(storage),
            Command::Send(dst, msg) => Effect::Send(dst, msg),
            Command::SetTimer(timer, range) => Effect::SetTimer(timer, range),
            Command::CancelTimer(timer) => Effect::CancelTimer(timer),
            Command::ChooseRandom(key, alternatives) => Effect::Choose(key, alternatives),
        })
        .collect();
    (next, effects)
}
