//! The canonical form of operations between regions against the raw world, as `tests/canonical.rs` does
//! it for the lease: up to some depth, the canonical forms of all raw states must be exactly the states
//! that the canonical world makes.

use std::collections::BTreeSet;

use stateright::Model;
use tenure::models::irc::registry::{Row, claim_rows, rows};
use tenure::models::irc::timed;
use tenure::models::world::{Observer, StateOf, Subject, World};

/// Every state up to this depth.
fn states<A: Subject, O: Observer<A>>(
    world: &World<A, O>,
    depth: usize,
) -> BTreeSet<StateOf<A, O>> {
    let mut frontier = world.init_states();
    let mut seen: BTreeSet<StateOf<A, O>> = frontier.iter().cloned().collect();
    for _ in 1..depth {
        let mut next = Vec::new();
        for state in frontier {
            for successor in world.next_states(&state) {
                if world.within_boundary(&successor) && seen.insert(successor.clone()) {
                    next.push(successor);
                }
            }
        }
        frontier = next;
    }
    seen
}

/// The states of the canonical world up to one depth, those of the raw one up to another, and the
/// canonical forms of these. On each raw state every property is what it is on its form.
struct Compared<A: Subject, O: Observer<A>> {
    canonical: BTreeSet<StateOf<A, O>>,
    made: BTreeSet<StateOf<A, O>>,
}

fn forms<A: Subject, O: Observer<A>>(
    row: &Row<World<A, O>>,
    raw_depth: usize,
    depth: usize,
) -> Compared<A, O> {
    let name = row.name;
    let canonical_world = (row.world)();
    assert!(canonical_world.canonical);
    let mut raw_world = (row.world)();
    raw_world.canonical = false;
    let raw = states(&raw_world, raw_depth);
    let canonical = states(&canonical_world, depth);
    let made: BTreeSet<StateOf<A, O>> = raw
        .iter()
        .map(|state| {
            let mut form = state.clone();
            canonical_world.observer.canonical(&canonical_world, &mut form);
            for (raw_property, property) in
                raw_world.properties.iter().zip(&canonical_world.properties)
            {
                assert_eq!(
                    (raw_property.condition)(&raw_world, state),
                    (property.condition)(&canonical_world, &form),
                    "{name}: {} differs between\n{state:#?}\nand its canonical form\n{form:#?}",
                    property.name
                );
            }
            form
        })
        .collect();
    println!("{name}: {} raw states, {} canonical ones", raw.len(), canonical.len());
    assert!(raw.len() > made.len(), "{name}: nothing was brought together");
    Compared { canonical, made }
}

fn named<W>(rows: Vec<Row<W>>, name: &str) -> Row<W> {
    rows.into_iter().find(|row| row.name == name).expect("a registered model")
}

/// Here each step of one world is one of the other.
fn compare(name: &str, depth: usize) {
    let Compared { canonical, made } = forms(&named(rows(), name), depth, depth);
    is_within(name, "never made by the canonical world", &made, &canonical);
    is_within(name, "in no raw state", &canonical, &made);
}

fn is_within<S: Ord + std::fmt::Debug>(
    name: &str,
    what: &str,
    some: &BTreeSet<S>,
    all: &BTreeSet<S>,
) {
    if let Some(state) = some.difference(all).next() {
        panic!("{name}: {what}: {state:#?}");
    }
}

/// Here the raw world takes more steps for the same: what waits must have waited, and a poll that is
/// under way must be gone before another is. So no raw state of that depth may have a form that the
/// canonical world does not make within it, and each state that that one makes in fewer steps must
/// be the form of one.
fn compare_claims(name: &str, depth: usize, fewer: usize) {
    let row = named(claim_rows(), name);
    let Compared { canonical, made } = forms(&row, depth, depth);
    is_within(name, "never made by the canonical world", &made, &canonical);
    is_within(name, "in no raw state", &states(&(row.world)(), fewer), &made);
}

fn compare_timed(name: &str, depth: usize) {
    let row = named(timed::registry::rows(), name);
    let Compared { canonical, made } = forms(&row, depth, depth);
    is_within(name, "never made by the canonical world", &made, &canonical);
    is_within(name, "in no raw state", &canonical, &made);
}

#[test]
fn one_request() {
    compare("irc-one", 11);
}

#[test]
fn crashes() {
    compare("irc-crash", 8);
}

#[test]
fn what_is_forgotten() {
    compare("irc-forget", 7);
}

#[test]
fn requests_that_cross() {
    compare("irc-crossing", 6);
}

#[test]
fn one_side_is_restored() {
    compare("irc-restore-a", 7);
    compare("irc-restore-r", 7);
}

#[test]
fn one_side_is_restored_twice() {
    compare("irc-restore-a-twice", 7);
}

#[test]
fn both_sides_are_restored() {
    compare("irc-restore-both", 8);
}

#[test]
fn claims() {
    compare_claims("irc-claims-two", 10, 9);
    compare_claims("irc-claims-records", 10, 9);
}

#[test]
fn claims_and_crashes() {
    compare_claims("irc-claims-crash", 10, 9);
}

#[test]
fn time() {
    compare_timed("irc-timed-vain", 30);
    compare_timed("irc-timed-breaker", 40);
    compare_timed("irc-timed-sweep", 26);
}
