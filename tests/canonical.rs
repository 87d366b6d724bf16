//! The canonical form against the raw world.
//!
//! Up to some depth every state of the raw world is made; the set of their canonical forms must be
//! exactly the set of states that the canonical world makes up to that depth. One that is missing would
//! be a state that the checker never sees; one too many would be a state that cannot be. The networks are
//! free here: on a timely one a dead message still has to arrive in the raw world, which takes a step.

use std::collections::BTreeSet;

use stateright::Model;
use tenure::models::lease::{LeaseState, LeaseWorld};
use tenure::models::registry::{mutants, safe};
use tenure::models::world::Observer;

/// Every state up to this depth.
fn states(world: &LeaseWorld, depth: usize) -> BTreeSet<LeaseState> {
    let mut frontier = world.init_states();
    let mut seen: BTreeSet<LeaseState> = frontier.iter().cloned().collect();
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

fn compare(name: &str, world: fn() -> LeaseWorld, depth: usize) {
    let canonical_world = world();
    let mut raw_world = world();
    raw_world.canonical = false;
    let raw = states(&raw_world, depth);
    let canonical = states(&canonical_world, depth);
    assert!(raw.len() > canonical.len(), "{name}: nothing was brought together");

    let made: BTreeSet<LeaseState> = raw
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
    let missing = made.difference(&canonical).next();
    assert!(missing.is_none(), "{name}: never made by the canonical world: {missing:#?}");
    let invented = canonical.difference(&made).next();
    assert!(invented.is_none(), "{name}: in no raw state: {invented:#?}");
}

fn compare_named(name: &str, depth: usize) {
    let row = safe()
        .into_iter()
        .chain(mutants())
        .find(|row| row.name == name)
        .expect("a registered model");
    compare(name, row.world, depth);
}

#[test]
fn two_hosts() {
    compare_named("timed-2", 13);
}

#[test]
fn two_hosts_and_the_store_crash() {
    compare_named("timed-2-crash", 8);
}

#[test]
fn clocks_drift() {
    compare_named("timed-2-drift", 10);
}

#[test]
fn a_holder_steps_down() {
    compare_named("timed-2-release", 11);
}

#[test]
fn a_holder_hands_over() {
    compare_named("timed-2-handover", 11);
}

#[test]
fn a_host_is_paused() {
    compare_named("timed-2-pause", 10);
}

#[test]
fn three_hosts() {
    compare_named("timed-3", 7);
}

#[test]
fn without_clocks() {
    compare_named("untimed-2", 9);
}

#[test]
fn with_a_table_and_a_client() {
    compare_named("untimed-2-table", 7);
}

/// The form must not hide what a missing rule lets happen.
#[test]
fn without_a_rule() {
    for name in ["L-15", "L-17", "L-22", "L-25", "L-29"] {
        compare_named(name, 8);
    }
}
