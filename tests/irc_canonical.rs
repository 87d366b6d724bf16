//! The canonical form of operations between regions against the raw world, as `tests/canonical.rs` does
//! it for the lease: up to some depth, the canonical forms of all raw states must be exactly the states
//! that the canonical world makes.

use std::collections::BTreeSet;

use stateright::Model;
use tenure::models::irc::registry::rows;
use tenure::models::irc::{IrcState, IrcWorld};
use tenure::models::world::Observer;

/// Every state up to this depth.
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
    for (what, left, right) in [
        ("never made by the canonical world", &made, &canonical),
        ("in no raw state", &canonical, &made),
    ] {
        if let Some(state) = left.difference(right).next() {
            panic!("{name}: {what}: {}", nearest(state, right));
        }
    }
}

/// Where a state differs from the one that is most like it.
fn nearest(state: &IrcState, others: &BTreeSet<IrcState>) -> String {
    let lines = |state: &IrcState| -> Vec<String> {
        format!("{state:#?}").lines().map(str::to_owned).collect()
    };
    let mine = lines(state);
    let same = |other: &IrcState| other.nodes == state.nodes && other.ghost == state.ghost;
    let Some(near) = others.iter().filter(|other| same(other)).min_by_key(|other| {
        other.network.iter().filter(|flight| !state.network.contains(flight)).count()
            + state.network.iter().filter(|flight| !other.network.contains(flight)).count()
    }) else {
        return format!("no other has these nodes and this history:\n{}", mine.join("\n"));
    };
    let only = |one: &IrcState, other: &IrcState| -> Vec<String> {
        let all = one.network.iter().filter(|flight| !other.network.contains(flight));
        all.map(|flight| format!("{flight:?}")).collect()
    };
    format!("it has {:#?}, the nearest {:#?}", only(state, near), only(near, state))
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
