//! Paths through canonical states, told in the raw world: in which hosts keep their names, and numbers grow as
//! the hosts themselves see them.

use stateright::Model as _;

use super::world::{Action, Observer, StateOf, Subject, World};

/// One step of a path that was told in the raw world.
pub struct RawStep<A: Subject, O: Observer<A>> {
    /// The number of the action among those that are possible.
    pub index: usize,
    /// The action.
    pub action: Action,
    /// The state it is taken in.
    pub before: StateOf<A, O>,
    /// The state that it leads to.
    pub after: StateOf<A, O>,
    /// Whether it is a step of the canonical world too. Otherwise it brings a message to somebody to whom
    /// it means nothing any more: in the canonical world it was gone already.
    pub is_step: bool,
}

impl<A: Subject, O: Observer<A>> RawStep<A, O> {
    /// The number of the action, as paths have it.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 actions.
    pub fn number(&self) -> u32 {
        u32::try_from(self.index).expect("few actions")
    }
}

/// Tells a path through canonical states as one through the raw world, from this raw state on: with the names,
/// epochs and nonces that the hosts themselves would see. At each step some raw action leads to a state whose
/// canonical form is the next one on the path; that there is one is what makes the form a bisimulation. Of
/// several, one is taken that is of the kind of the action on the path, if that is given.
///
/// # Panics
///
/// If there is none.
//= SPEC EXPLORER-4
pub fn raw_path<'a, A, O>(
    world: &World<A, O>,
    raw_world: &World<A, O>,
    start: StateOf<A, O>,
    path: impl Iterator<Item = (Option<Action>, &'a StateOf<A, O>)>,
) -> Vec<RawStep<A, O>>
where
    A: Subject + 'a,
    O: Observer<A> + 'a,
{
    let canonical = |raw: &StateOf<A, O>| canonical(world, raw);
    let mut raw = start;
    let mut steps = Vec::new();
    for (told, goal) in path {
        let mut arrived = false;
        while !arrived {
            let here = canonical(&raw);
            let mut actions = Vec::new();
            raw_world.actions(&raw, &mut actions);
            let mut successors = actions
                .into_iter()
                .enumerate()
                .filter_map(|(index, action)| {
                    let next = raw_world.next_state(&raw, action)?;
                    Some((canonical(&next), index, action, next))
                })
                .collect::<Vec<_>>();
            let is_told = |action: &Action| {
                told.is_none_or(|told| {
                    std::mem::discriminant(&told) == std::mem::discriminant(action)
                })
            };
            let direct = successors
                .iter()
                .position(|(form, _, action, _)| form == goal && is_told(action))
                .or_else(|| successors.iter().position(|(form, ..)| form == goal));
            arrived = direct.is_some();
            // In the raw world a dead message is still under way, and on a timely network it is urgent.
            let found = direct.or_else(|| {
                successors.iter().position(|(form, _, action, next)| {
                    matches!(action, Action::Deliver(_)) && *form == here && *next != raw
                })
            });
            let found = found.expect("every step of the canonical world is one of the raw world");
            let (_, index, action, next) = successors.swap_remove(found);
            let before = std::mem::replace(&mut raw, next.clone());
            steps.push(RawStep { index, action, before, after: next, is_step: arrived });
        }
    }
    steps
}

/// The form in which a world keeps a state.
pub(super) fn canonical<A: Subject, O: Observer<A>>(
    world: &World<A, O>,
    raw: &StateOf<A, O>,
) -> StateOf<A, O> {
    let mut state = raw.clone();
    if world.canonical {
        world.observer.canonical(world, &mut state);
    }
    state
}
