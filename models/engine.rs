//! A breadth-first engine over any [`stateright::Model`].
//!
//! It does less than stateright's checkers and is strict about it: each state is visited once, level
//! by level, so the first state that violates a property is at the least depth and is the one that is
//! kept; a search that stops for any other reason than having seen everything is *incomplete* and can
//! never be read as a pass. A state is known by a 64-bit fingerprint of all of its content; with n
//! states, two of them share one with a probability of about n^2 / 2^65 (1e-5 at 30 million).

#![allow(clippy::disallowed_methods, reason = "the engine says how long a search took")]
#![allow(
    clippy::disallowed_types,
    reason = "no state is kept in this map, and its hasher is fixed"
)]

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use stateright::{Expectation, Model};

/// When to stop before everything has been seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Stop when this many different states have been found.
    pub states: Option<u64>,
    /// Do not expand states at this depth.
    pub depth: Option<u32>,
    /// Stop after this long.
    pub time: Option<Duration>,
    /// Go on after a violation: to see every violation there is, and to count all states.
    pub past_violations: bool,
    /// Stop as soon as there is a discovery of each property.
    pub until_found: bool,
}

/// Why the search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every reachable state has been seen.
    Complete,
    /// A property is violated.
    Violated,
    /// A limit was reached: nothing follows for the states that were not seen.
    Incomplete(Reason),
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The number of states.
    States,
    /// The depth.
    Depth,
    /// The time.
    Time,
    /// Every property has its discovery, and the search was to stop there.
    Found,
    /// Nobody wants to know any more.
    Stopped,
}

/// What the search has found.
pub struct Report<M: Model> {
    /// Why it ended.
    pub end: End,
    /// Whether every reachable state has been seen.
    pub exhaustive: bool,
    /// The number of different states.
    pub unique: u64,
    /// The number of states made: the initial ones, and one for each transition.
    pub generated: u64,
    /// The depth of the deepest state; initial states are at depth 1, as stateright counts.
    pub depth: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// For each property that has one, the shortest path to a state that violates it (`always`) or
    /// satisfies it (`sometimes`); or, under [`WANTED`], the shortest to a state that is wanted.
    pub discoveries: BTreeMap<&'static str, Path<M>>,
    /// The properties that are violated: an `always` with a discovery, or a `sometimes` without one
    /// in a complete search.
    pub violated: Vec<&'static str>,
}

/// A path: an initial state and what happened then.
pub struct Path<M: Model> {
    /// The first state.
    pub start: M::State,
    /// Each action and the state it led to.
    pub steps: Vec<(M::Action, M::State)>,
}

/// How far the search is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Different states so far.
    pub unique: u64,
    /// States made so far.
    pub generated: u64,
    /// The depth that is being expanded.
    pub depth: u32,
    /// How many states wait to be expanded.
    pub frontier: u64,
}

/// Passes a fingerprint through: it is as random as a hash can be.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed")
    }
    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// Each known state, with the state from which it was first reached (its own, for initial ones).
type Known = HashMap<u64, u64, BuildHasherDefault<Identity>>;

/// What the discovery of a wanted state is called.
pub const WANTED: &str = "wanted";

/// After how many expanded states whoever waits is told: a few milliseconds at most.
pub(super) const TOLD_EVERY: u64 = 32;

/// A state that is looked for.
pub type Wanted<'w, M> = &'w dyn Fn(&<M as Model>::State) -> bool;

/// The fingerprint of a state.
pub fn fingerprint(state: &impl Hash) -> u64 {
    FixedState::with_seed(0x7465_6e75_7265).hash_one(state)
}

/// Explores every reachable state, or as many as the limits allow. `on_progress` is called now and
/// then.
///
/// # Panics
///
/// If a property is an `eventually`: this engine has none, and would have to pretend.
pub fn explore<M>(model: &M, limits: Limits, mut on_progress: impl FnMut(Progress)) -> Report<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    explore_while(model, limits, |progress| {
        on_progress(progress);
        ControlFlow::Continue(())
    })
}

/// The same, until `on_progress` breaks it off.
///
/// # Panics
///
/// As [`explore`].
pub fn explore_while<M>(
    model: &M,
    limits: Limits,
    on_progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Report<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    explore_from(model, model.init_states(), None, limits, on_progress)
}

/// The same from any states on. With `wanted` the properties are left alone, and the search is for a state of
/// that kind.
///
/// # Panics
///
/// As [`explore`].
pub fn explore_from<M>(
    model: &M,
    starts: Vec<M::State>,
    wanted: Option<Wanted<'_, M>>,
    limits: Limits,
    mut on_progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Report<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    let begun = Instant::now();
    let properties = if wanted.is_some() { Vec::new() } else { model.properties() };
    for property in &properties {
        assert!(
            property.expectation != Expectation::Eventually,
            "{}: `eventually` is not checked here; state it as a bound in time",
            property.name
        );
    }

    let mut known = Known::default();
    let mut found: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut violated = false;
    let mut generated = 0_u64;
    let mut depth = 1;
    let mut incomplete = None;

    // Looks at a state when it is first seen, so that what is found is at the least depth.
    let mut inspect = |state: &M::State, print: u64| {
        let mut open = false;
        if let Some(wanted) = wanted {
            if wanted(state) {
                found.insert(WANTED, print);
            } else {
                open = true;
            }
        }
        for property in &properties {
            if found.contains_key(property.name) {
                continue;
            }
            let holds = (property.condition)(model, state);
            if holds == (property.expectation == Expectation::Sometimes) {
                found.insert(property.name, print);
                violated |= property.expectation == Expectation::Always;
            } else {
                open = true;
            }
        }
        (violated && !limits.past_violations) || (limits.until_found && !open)
    };

    let mut frontier = Vec::new();
    let mut stop = false;
    for state in &starts {
        if !model.within_boundary(state) {
            continue;
        }
        generated += 1;
        let print = fingerprint(state);
        if known.insert(print, print).is_none() {
            stop |= inspect(state, print);
            frontier.push(state.clone());
        }
    }

    let mut actions = Vec::new();
    let mut expanded = 0_u64;
    'search: while !frontier.is_empty() && !stop {
        if limits.depth.is_some_and(|limit| depth >= limit) {
            incomplete = Some(Reason::Depth);
            break;
        }
        let mut next = Vec::new();
        for state in frontier.drain(..) {
            let parent = fingerprint(&state);
            model.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let Some(successor) = model.next_state(&state, action) else { continue };
                if !model.within_boundary(&successor) {
                    continue;
                }
                generated += 1;
                let print = fingerprint(&successor);
                if let std::collections::hash_map::Entry::Vacant(entry) = known.entry(print) {
                    entry.insert(parent);
                    if inspect(&successor, print) {
                        stop = true;
                        depth += 1;
                        break 'search;
                    }
                    next.push(successor);
                }
            }
            expanded += 1;
            if expanded.is_multiple_of(TOLD_EVERY) {
                let unique = known.len() as u64;
                let frontier = next.len() as u64;
                if on_progress(Progress { unique, generated, depth, frontier }).is_break() {
                    incomplete = Some(Reason::Stopped);
                    break 'search;
                }
            }
            if expanded.is_multiple_of(1024) {
                let unique = known.len() as u64;
                if limits.states.is_some_and(|limit| unique >= limit) {
                    incomplete = Some(Reason::States);
                    break 'search;
                }
                if limits.time.is_some_and(|limit| begun.elapsed() >= limit) {
                    incomplete = Some(Reason::Time);
                    break 'search;
                }
            }
        }
        if !next.is_empty() {
            depth += 1;
        }
        frontier = next;
    }

    let exhaustive = !stop && incomplete.is_none();
    let end = if violated {
        End::Violated
    } else if let Some(reason) = incomplete {
        End::Incomplete(reason)
    } else if stop {
        End::Incomplete(Reason::Found)
    } else {
        End::Complete
    };
    let violated = properties
        .iter()
        .filter(|property| match property.expectation {
            Expectation::Always => found.contains_key(property.name),
            _ => exhaustive && !found.contains_key(property.name),
        })
        .map(|property| property.name)
        .collect();
    let elapsed = begun.elapsed();
    let discoveries =
        found.iter().map(|(&name, &print)| (name, path_to(model, starts.clone(), &known, print)));
    Report {
        end,
        exhaustive,
        unique: known.len() as u64,
        generated,
        depth,
        elapsed,
        discoveries: discoveries.collect(),
        violated,
    }
}

/// Walks from a first state to the one with this fingerprint, by executing the model again.
fn path_to<M>(model: &M, starts: Vec<M::State>, known: &Known, print: u64) -> Path<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    let mut prints = vec![print];
    loop {
        let last = *prints.last().expect("never empty");
        let parent = known[&last];
        if parent == last {
            break;
        }
        prints.push(parent);
    }
    prints.reverse();
    let start = starts
        .into_iter()
        .find(|state| fingerprint(state) == prints[0])
        .expect("a path begins at a first state");
    let mut path = Path { start, steps: Vec::new() };
    for &print in &prints[1..] {
        path.walk(model, print, |_| true);
    }
    path
}

impl<M> Path<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    /// The last state.
    pub fn end(&self) -> &M::State {
        self.steps.last().map_or(&self.start, |(_, state)| state)
    }

    /// Goes on to the successor with this fingerprint, by an action of this kind.
    pub(super) fn walk(&mut self, model: &M, print: u64, fits: impl Fn(&M::Action) -> bool) {
        let from = self.end();
        let mut actions = Vec::new();
        model.actions(from, &mut actions);
        let step = actions
            .into_iter()
            .filter(|action| fits(action))
            .find_map(|action| {
                let state = model.next_state(from, action.clone())?;
                (fingerprint(&state) == print).then_some((action, state))
            })
            .expect("a known state is a successor of its parent");
        self.steps.push(step);
    }
}
