//! The canonical form of operations between regions against the raw world, as `tests/canonical.rs` does
//! it for the lease: up to some depth, the canonical forms of all raw states must be exactly the states
//! that the canonical world makes.

use std::collections::BTreeSet;

use stateright::Model;
use tenure::models::irc::registry::rows;
use tenure::models::irc::{IrcState, IrcWorld};
use tenure::models::world::Observer;

/// Every state up to this depth, or none beyond that many.
fn states(world: &IrcWorld, depth: usize) -> BTreeSet<IrcState> {
    let mut frontier = world.init_states();
    let mut seen: BTreeSet<IrcState> = frontier.iter().cloned().collect();
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

fn compare(name: &str, depth: usize) {
    let row = rows().into_iter().find(|row| row.name == name).expect("a registered model");
    let canonical_world = (row.world)();
    assert!(canonical_world.canonical);
    let mut raw_world = (row.world)();
    raw_world.canonical = false;
    let raw = states(&raw_world, depth);
    let canonical = states(&canonical_world, depth);
    assert!(raw.len() > canonical.len(), "{name}: nothing was brought together");
    let made: BTreeSet<IrcState> = raw
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
    let missing = made.difference(&canonical).next();
    assert!(missing.is_none(), "{name}: never made by the canonical world: {missing:#?}");
    let invented = canonical.difference(&made).next();
    assert!(invented.is_none(), "{name}: in no raw state: {invented:#?}");
}

#[test]
fn one_request() {
    compare("irc-one", 9);
}

#[test]
fn crashes() {
    compare("irc-crash", 7);
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
    compare("irc-restore-both", 7);
}
