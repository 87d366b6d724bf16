//! Which actions change nothing, without making the state after each of them.
//!
//! Late in a walk by hand there are hundreds of messages that may arrive once more and mean nothing to anybody. A
//! state for each of them, only to find that it is the old one, costs more than all else that is told of a state.

use stateright::Model as _;
use stateright::actor::Id;

use super::world::{Action, Condition, Flight, Observer, StateOf, Subject, World};
use crate::step::{Effect, Input, step};

/// For each of these actions, whether the state after it is this one.
pub(super) fn idle<A, O>(
    world: &World<A, O>,
    state: &StateOf<A, O>,
    actions: &[Action],
) -> Vec<bool>
where
    A: Subject,
    O: Observer<A>,
{
    // This state once more, for the history to be written on; it is put right again whenever that has changed it.
    let mut scratch = None;
    let mut remembers = |action: Action| {
        let scratch = scratch.get_or_insert_with(|| state.clone());
        world.observer.observe(world, state, action, scratch);
        let is_new = scratch.ghost != state.ghost;
        if is_new {
            scratch.ghost = state.ghost.clone();
        }
        is_new
    };
    let is_idle = |&action: &Action| match change(world, state, action) {
        Change::Some => false,
        Change::HistoryAtMost => !remembers(action),
        Change::Unknown => world.next_state(state, action).is_none_or(|next| next == *state),
    };
    actions.iter().map(is_idle).collect()
}

/// What an action changes, as far as that can be seen without doing it.
enum Change {
    /// Something.
    Some,
    /// Nothing, but perhaps the history.
    HistoryAtMost,
    /// That cannot be seen.
    Unknown,
}

fn change<A, O>(world: &World<A, O>, state: &StateOf<A, O>, action: Action) -> Change
where
    A: Subject,
    O: Observer<A>,
{
    if world.canonical || !O::ONLY_HISTORY {
        return Change::Unknown;
    }
    match action {
        // There is a message less.
        Action::Lose(_) => Change::Some,
        Action::Deliver(index) => arrival(world, state, &state.network[usize::from(index)]),
        _ => Change::Unknown,
    }
}

/// What the arrival of a message changes.
fn arrival<A, O>(world: &World<A, O>, state: &StateOf<A, O>, flight: &Flight<A::Msg>) -> Change
where
    A: Subject,
    O: Observer<A>,
{
    let at = usize::from(flight.dst);
    let node = &state.nodes[at];
    if node.state.is_none() || node.condition != Condition::Running {
        return Change::Unknown;
    }
    let input = Input::Deliver { src: Id::from(usize::from(flight.src)), msg: flight.msg.clone() };
    let (after, effects) = step(&world.actors[at], Id::from(at), node.state.clone(), input);
    if node.state.as_ref() != Some(&after) {
        return Change::Some;
    }
    let is_kept = world.is_kept(flight);
    let mut saved = None;
    let mut has_sent = false;
    for effect in effects {
        match effect {
            Effect::Save(storage) => saved = Some(storage),
            Effect::Send(dst, msg) => {
                let sent = world.flight(at, usize::from(dst), msg);
                let Some(sent) = sent else { continue };
                // What is kept, or was there, stays; so what is new makes one more.
                if is_kept && !world.is_there(state, &sent) {
                    return Change::Some;
                }
                has_sent = true;
            }
            _ => return Change::Unknown,
        }
    }
    if saved.is_some() && saved != node.storage {
        return Change::Some;
    }
    match (is_kept, has_sent) {
        (true, _) => Change::HistoryAtMost,
        (false, false) => Change::Some,
        // It may have sent the very message that has arrived.
        (false, true) => Change::Unknown,
    }
}
