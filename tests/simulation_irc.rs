//! Simulated regions: what must hold holds whatever goes wrong, and what goes wrong without a rule is seen.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tenure::irc::safeguards::Safeguards;
use tenure::sim::irc::{Outcome, Regions};
use tenure::sim::{Duties, Plan};

const LENGTH: Duration = Duration::from_secs(120);

fn swarm(regions: &Regions, seed: u64) -> Outcome {
    regions.run(seed, regions.swarm(seed, LENGTH), LENGTH)
}

/// The first of so many seeds at which something is wrong, and what.
fn caught(regions: &Regions, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| swarm(regions, seed)));
        let problem = match outcome {
            Err(_) => Some("an assertion of an actor fails".to_owned()),
            Ok(outcome) => outcome.problem,
        };
        Some((seed, problem?))
    })
}

//= SPEC SIM-4 test
#[test]
fn what_must_hold_of_regions_holds_whatever_goes_wrong() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in 0..24 {
        let outcome = swarm(&Regions::default(), seed);
        if let Some(problem) = outcome.problem {
            wrong.push(format!("seed {seed}: {problem}"));
        }
        for (what, count) in outcome.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    println!("{seen:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    for what in ["active", "deleted", "rejected", "expired", "failed", "provisioning", "restored"] {
        assert!(seen.contains_key(what), "never: {what}; {seen:?}");
    }
}

//= SPEC SIM-1 test
#[test]
fn one_seed_does_the_same_twice() {
    let of = |seed| {
        let outcome = swarm(&Regions::default(), seed);
        (outcome.steps, outcome.seen)
    };
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}

/// Without faults everything that is accepted becomes active.
#[test]
fn without_faults_regions_come_to_rest() {
    let regions = Regions::default();
    let outcome = regions.run(5, Plan::none(regions.nodes()), LENGTH);
    assert_eq!(outcome.problem, None);
    assert!(outcome.seen["active"] > 2, "{:?}", outcome.seen);
}

//= SPEC SIM-3 test
#[test]
fn a_disk_that_is_not_waited_for_is_caught() {
    let duties = Duties { saves_before_sends: false, ..Duties::ALL };
    let found = caught(&Regions { duties, ..Regions::default() }, QUICK);
    println!("{found:?}");
    assert!(found.is_some());
}

fn without(rule: Safeguards) -> Regions {
    Regions { safeguards: Safeguards::except(rule), ..Regions::default() }
}

/// Within how many seeds each of these rules is missed.
const QUICK: u64 = 4;

//= SPEC SIM-3 test
#[test]
fn a_rule_between_regions_that_is_left_out_is_caught() {
    for rule in [
        Safeguards::I_1_ONLY_A_EXPIRES,
        Safeguards::I_3_KEPT_UNTIL_ACKNOWLEDGED,
        Safeguards::I_6_FREEZE_AFTER_RESTORE,
        Safeguards::I_7_PROMISE,
        Safeguards::I_31_QUOTAS,
        Safeguards::I_33_OWN_HALF_FIRST,
        Safeguards::I_36_HALVES_BY_FACTS,
        Safeguards::I_39_EXPECTED_VERSION,
    ] {
        let found = caught(&without(rule), QUICK);
        println!("{}: {found:?}", rule.id());
        assert!(found.is_some(), "{} is not caught within {QUICK} seeds", rule.id());
    }
}

#[test]
#[ignore = "runs for minutes: every rule in turn, and it tells which ones a simulation does not see"]
fn every_rule_between_regions_in_turn() {
    let seeds = std::env::var("TENURE_SEEDS").map_or(100, |text| text.parse().expect("a number"));
    let only = std::env::var("TENURE_RULES").ok();
    let mut missed = Vec::new();
    for rule in Safeguards::ALL.iter() {
        if only.as_ref().is_some_and(|only| only.split(',').all(|id| id != rule.id())) {
            continue;
        }
        let found = caught(&without(rule), seeds);
        println!("{}: {found:?}", rule.id());
        if found.is_none() {
            missed.push(rule.id());
        }
    }
    println!("not seen within {seeds} seeds: {}", missed.join(", "));
}
