//! The registry of operations between regions: what must hold holds in exactly the registered states,
//! and without any one rule the registered property fails.

use tenure::irc::safeguards::Safeguards;
use tenure::models::engine::{End, Limits, explore};
use tenure::models::irc::registry::{mutants, safe};
use tenure::models::irc::timed::registry::without;
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

//= SPEC IRC-40 test
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

/// What untimed models show in a state is shown here by what does not come to pass.
#[test]
fn a_claim_that_never_ends_and_a_record_that_is_lost_are_overdue() {
    for (rule, world) in [
        (Safeguards::I_3_KEPT_UNTIL_ACKNOWLEDGED, "irc-timed-heal"),
        (Safeguards::I_19_LEASES_EXPIRE, "irc-timed-heal"),
        (Safeguards::I_3_KEPT_UNTIL_ACKNOWLEDGED, "irc-timed-delete"),
        (Safeguards::I_19_LEASES_EXPIRE, "irc-timed-delete"),
    ] {
        let world = without(rule, world);
        let report = explore(&world, Limits::default(), |_| ());
        assert_eq!(report.end, End::Violated, "without {}", rule.id());
    }
}
