//! The registry of operations between regions: what must hold holds in exactly the registered states,
//! and without any one rule the registered property fails.

use tenure::models::engine::Limits;
use tenure::models::irc::registry::{mutants, safe};
use tenure::models::registry::Entry;

fn compare(row: &Entry) {
    let outcome = (row.explore)(Limits::default(), &mut |_| ());
    let story = outcome.trace.as_ref().map(|trace| trace.narrate()).unwrap_or_default();
    assert!(
        outcome.as_registered,
        "{}: {:?} {:?} in {:?} steps, {:?}, registered was {:?}\n{story}",
        row.name, outcome.verdict, outcome.property, outcome.steps, outcome.counts, row.expected
    );
}

/// Those that take seconds. `tenure check` runs all of them.
#[test]
fn what_must_hold_holds_in_exactly_the_registered_states() {
    for row in safe().iter().filter(|row| row.quick) {
        compare(row);
    }
}

#[test]
fn without_any_one_rule_the_registered_property_fails() {
    for row in mutants().iter().filter(|row| row.quick) {
        compare(row);
    }
}

#[test]
fn every_row_has_a_name_of_its_own() {
    let mut names: Vec<String> = safe().into_iter().chain(mutants()).map(|row| row.name).collect();
    names.extend(tenure::models::registry::safe().into_iter().map(|row| row.name));
    names.extend(tenure::models::registry::mutants().into_iter().map(|row| row.name));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
