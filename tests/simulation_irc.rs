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

/// What is wrong with one seed.
fn problem(regions: &Regions, seed: u64) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| swarm(regions, seed))) {
        Err(_) => Some("an assertion of an actor fails".to_owned()),
        Ok(outcome) => outcome.problem,
    }
}

/// The first of so many seeds at which something is wrong, and what.
fn caught(regions: &Regions, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| Some((seed, problem(regions, seed)?)))
}

//= SPEC SIM-4 test
#[test]
fn what_must_hold_of_regions_holds_whatever_goes_wrong() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in 0..16 {
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

#[test]
#[ignore = "runs for minutes"]
fn what_must_hold_of_regions_holds_for_many_seeds() {
    let first = number("TENURE_FIRST", 0);
    let all = first..first + number("TENURE_SEEDS", 200);
    let wrong: Vec<_> = all
        .filter_map(|seed| Some(format!("seed {seed}: {}", problem(&Regions::default(), seed)?)))
        .inspect(|wrong| println!("{wrong}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
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
    let found = caught(&Regions { duties, ..Regions::default() }, 16);
    println!("{found:?}");
    assert!(found.is_some());
}

fn without(rule: Safeguards) -> Regions {
    Regions { safeguards: Safeguards::except(rule), ..Regions::default() }
}

#[test]
#[ignore = "runs for minutes: every rule in turn"]
fn every_rule_between_regions_in_turn() {
    let only = std::env::var("TENURE_RULES").ok();
    let mut missed = Vec::new();
    for rule in Safeguards::ALL.iter() {
        if only.as_ref().is_some_and(|only| only.split(',').all(|id| id != rule.id())) {
            continue;
        }
        let found = caught(&without(rule), number("TENURE_SEEDS", 100));
        println!("{}: {found:?}", rule.id());
        if found.is_none() {
            missed.push(rule.id());
        }
    }
    println!("not seen: {}", missed.join(", "));
}
