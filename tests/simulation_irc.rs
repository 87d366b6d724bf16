//! Simulated regions: what must hold holds whatever goes wrong, and what goes wrong without a rule is seen.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tenure::irc::safeguards::Safeguards;
use tenure::sim::irc::{Outcome, Regions};
use tenure::sim::{Duties, Fault, Kind, Plan};

const LENGTH: Duration = Duration::from_secs(120);

fn swarm_of(regions: &Regions, seed: u64) -> Plan {
    regions.swarm(seed, LENGTH)
}

fn swarm(regions: &Regions, seed: u64) -> Outcome {
    regions.run(seed, swarm_of(regions, seed), LENGTH)
}

/// What is wrong with one seed and plan.
fn problem(regions: &Regions, seed: u64, plan: &Plan) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| regions.run(seed, plan.clone(), LENGTH))) {
        Err(_) => Some("an assertion of an actor fails".to_owned()),
        Ok(outcome) => outcome.problem,
    }
}

/// The first of so many seeds at which something is wrong, and what.
fn caught(regions: &Regions, seeds: u64) -> Option<(u64, String)> {
    caught_by(regions, seeds, |seed| regions.swarm(seed, LENGTH))
}

fn caught_by(regions: &Regions, seeds: u64, plan: impl Fn(u64) -> Plan) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| Some((seed, problem(regions, seed, &plan(seed))?)))
}

/// A swarm in which all datagrams take up to 400 ms longer.
fn late(regions: &Regions, seed: u64) -> Plan {
    let mut plan = regions.swarm(seed, LENGTH);
    let for_ms = u64::try_from(LENGTH.as_millis()).expect("short");
    let late = |node| Fault { at_ms: 0, for_ms, node, kind: Kind::Delay(400) };
    plan.faults.extend((0..regions.nodes()).map(late));
    plan
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
        .filter_map(|seed| Some((seed, caught_at(&Regions::default(), seed)?)))
        .inspect(|wrong| println!("{wrong:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong with a seed's swarm, and with the same when datagrams are late.
fn caught_at(regions: &Regions, seed: u64) -> Option<String> {
    let swarm = problem(regions, seed, &regions.swarm(seed, LENGTH));
    swarm.or_else(|| problem(regions, seed, &late(regions, seed)))
}

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Requests that a restored region has taken back from its peer, and that are over and forgotten since, rose again
/// with the peer's own restore: nothing told of them that they had ever been.
//= SPEC IRC-10 test
#[test]
fn what_was_given_back_and_forgotten_does_not_rise() {
    for seed in [10, 100] {
        assert_eq!(problem(&Regions::default(), seed, &swarm_of(&Regions::default(), seed)), None);
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
    let found = caught(&Regions { duties, ..Regions::default() }, 16);
    println!("{found:?}");
    assert!(found.is_some());
}

fn without(rule: Safeguards) -> Regions {
    Regions { safeguards: Safeguards::except(rule), ..Regions::default() }
}

/// Within how many seeds each rule is missed, as far as it can be.
const CAUGHT: &[(Safeguards, u64)] = &[
    (Safeguards::I_1_ONLY_A_EXPIRES, 1),
    (Safeguards::I_3_KEPT_UNTIL_ACKNOWLEDGED, 1),
    (Safeguards::I_4_FORGET_AFTER_CONFIRMATION, 2),
    (Safeguards::I_5_WATERMARK, 1),
    (Safeguards::I_6_FREEZE_AFTER_RESTORE, 1),
    (Safeguards::I_7_PROMISE, 1),
    (Safeguards::I_8_FLOOR_LEARNED_BACK, 1),
    (Safeguards::I_9_INCARNATION_UNIQUE, 1),
    (Safeguards::I_10_OLD_PROMISE_VOID, 1),
    (Safeguards::I_11_PROMISE_WHILE_FROZEN, 1),
    (Safeguards::I_12_MERGE_THEN_DECIDE, 1),
    (Safeguards::I_13_TIE_BREAK, 1),
    (Safeguards::I_14_DEAD_DOES_NOT_BLOCK, 1),
    (Safeguards::I_15_CLAIM_EPOCH_CHECKED, 1),
    (Safeguards::I_16_EPOCH_NEVER_RESET, 1),
    (Safeguards::I_17_FRESH_AT_EFFECT, 1),
    (Safeguards::I_19_LEASES_EXPIRE, 1),
    (Safeguards::I_20_EXTEND_BEFORE_CALL, 1),
    (Safeguards::I_21_ONE_TRANSACTION, 1),
    (Safeguards::I_22_NO_CURSOR, 1),
    (Safeguards::I_23_CONSTANT_SWEEP, 1),
    (Safeguards::I_24_WAIT_HAS_A_FLOOR, 1),
    (Safeguards::I_26_SPREAD, 1),
    (Safeguards::I_27_BULKHEAD, 1),
    (Safeguards::I_28_DEAD_LETTER, 4),
    (Safeguards::I_29_UNKNOWN_KINDS_LEFT, 1),
    (Safeguards::I_31_QUOTAS, 1),
    (Safeguards::I_32_DISPOSAL_FENCES, 1),
    (Safeguards::I_33_OWN_HALF_FIRST, 1),
    (Safeguards::I_34_DELETE_IDEMPOTENT, 1),
    (Safeguards::I_35_NOT_YET_VISIBLE, 15),
    (Safeguards::I_36_HALVES_BY_FACTS, 1),
    (Safeguards::I_39_EXPECTED_VERSION, 2),
    (Safeguards::I_41_TOKEN_KEPT, 2),
    (Safeguards::I_42_EVERY_CHANGE_AUDITED, 1),
];

/// The same where every node's datagrams are late and overtake each other all the time.
const CAUGHT_LATE: &[(Safeguards, u64)] = &[(Safeguards::I_2_FACTS_JOIN, 1)];

/// The rules that no plan here has missed yet, and why.
const UNSEEN: &[(Safeguards, &str)] = &[
    (
        Safeguards::I_18_REPLY_OF_CURRENT_LIFE,
        "not within 24 seeds: an answer has half a second to outlive the life that gave it",
    ),
    (
        Safeguards::I_25_BUDGET_AND_BREAKER,
        "not within 24 seeds: there is too little work at one time to send too much of it",
    ),
    (Safeguards::I_30_AUTHORITY, "it cannot be: no server lies here, the mutant has one that does"),
    (
        Safeguards::I_38_DEADLINE_IN_TRANSACTION,
        "not within 24 seeds: a deadline has to pass in a freeze, with a call in the tick after it",
    ),
    (
        Safeguards::I_43_SEAL_WITH_ITS_FACTS,
        "not within 16 seeds: a deletion in a freeze, and a sweep of the peer before that one is over",
    ),
];

fn assert_caught(
    rules: impl Iterator<Item = &'static (Safeguards, u64)>,
    plan: fn(&Regions, u64) -> Plan,
) {
    let mut missed = Vec::new();
    for &(rule, seeds) in rules {
        let regions = without(rule);
        let found = caught_by(&regions, seeds, |seed| plan(&regions, seed));
        println!("{}: {found:?}", rule.id());
        if found.is_none() {
            missed.push(format!("{} within {seeds} seeds", rule.id()));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

//= SPEC SIM-3 test
#[test]
fn a_rule_between_regions_that_is_left_out_is_caught() {
    assert_caught(CAUGHT.iter().filter(|(_, seeds)| *seeds == 1), swarm_of);
}

#[test]
fn every_rule_between_regions_is_caught_or_cannot_be() {
    let caught = CAUGHT.iter().chain(CAUGHT_LATE).map(|one| one.0);
    let named = caught.chain(UNSEEN.iter().map(|one| one.0));
    assert_eq!(named.clone().count(), Safeguards::ALL.iter().count());
    assert_eq!(named.collect::<Safeguards>(), Safeguards::ALL);
}

#[test]
#[ignore = "runs for minutes: every rule in turn"]
fn every_rule_between_regions_that_is_left_out_is_caught() {
    let only = std::env::var("TENURE_RULES").ok();
    let is_wanted = |rule: &Safeguards| {
        only.as_ref().is_none_or(|only| only.split(',').any(|id| id == rule.id()))
    };
    assert_caught(CAUGHT.iter().filter(|(rule, _)| is_wanted(rule)), swarm_of);
    assert_caught(CAUGHT_LATE.iter().filter(|(rule, _)| is_wanted(rule)), late);
}
