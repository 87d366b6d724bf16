//! Simulated regions: what must hold holds whatever goes wrong, and what goes wrong without a rule is seen.

#[path = "simulation_irc/renewal.rs"]
mod renewal;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tenure::irc::control::Policy;
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

/// Regions that are far apart: an answer may be seconds old when it is reported.
fn far() -> Regions {
    let regions = Regions::default();
    let lease = Duration::from_secs(10);
    let policy = Policy { lease, ..regions.policy.clone() };
    Regions { deadline: Duration::from_secs(4), policy, ..regions }
}

/// The servers of one region are slow, and the other regions are put back again and again to backups that are a
/// second or two old: a report tells of a life that is over.
fn reborn(regions: &Regions, seed: u64) -> Plan {
    let mut plan = Plan::none(regions.nodes());
    let length_ms = u64::try_from(LENGTH.as_millis()).expect("short");
    let region = region_of(regions, seed);
    let mut strike =
        |at_ms, for_ms, node, kind| plan.faults.push(Fault { at_ms, for_ms, node, kind });
    let first = regions.regions + region * regions.servers;
    for server in first..first + regions.servers {
        strike(0, length_ms, server, Kind::Delay(2_000));
    }
    for at_ms in (3_000..length_ms - 10_000).step_by(4_000) {
        let turn = u16::try_from(at_ms / 4_000 % 2).expect("0 or 1");
        let other = (region + 1 + turn) % regions.regions;
        strike(at_ms, 0, other, Kind::BackUp);
        strike(at_ms + 2_000, 20, other, Kind::Restore);
    }
    plan.faults.sort_by_key(|fault| fault.at_ms);
    plan
}

/// A swarm in which one region is in the dark for a minute.
fn dark(regions: &Regions, seed: u64) -> Plan {
    let mut plan = regions.swarm(seed, LENGTH);
    let node = region_of(regions, seed);
    plan.faults.push(Fault { at_ms: 20_000, for_ms: 60_000, node, kind: Kind::Isolate });
    plan
}

/// A swarm in which the servers of one region lie.
fn lying(regions: &Regions, seed: u64) -> Plan {
    let mut plan = regions.swarm(seed, LENGTH);
    let for_ms = u64::try_from(LENGTH.as_millis()).expect("short");
    let region = region_of(regions, seed);
    let first = regions.regions + region * regions.servers;
    let lie = |node| Fault { at_ms: 0, for_ms, node, kind: Kind::Lie(300) };
    plan.faults.extend((first..first + regions.servers).map(lie));
    plan
}

fn region_of(regions: &Regions, seed: u64) -> u16 {
    u16::try_from(seed % u64::from(regions.regions)).expect("few regions")
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
        .filter_map(|seed| Some((seed, caught_at(seed)?)))
        .inspect(|wrong| println!("{wrong:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong with one seed, in the plan of any table.
fn caught_at(seed: u64) -> Option<String> {
    tables().into_iter().find_map(|(rules, regions, plan)| {
        let problem = problem(&regions, seed, &plan(&regions, seed))?;
        Some(format!("in the plan that shows {}: {problem}", rules[0].0.id()))
    })
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

/// What shows a rule is not wrong by itself: with all rules the plans of the tables below are clean.
#[test]
fn with_all_rules_the_plans_that_show_them_are_clean() {
    for (_, regions, plan) in tables() {
        for seed in 0..6 {
            assert_eq!(problem(&regions, seed, &plan(&regions, seed)), None, "seed {seed}");
        }
    }
}

/// A pulse of load: for 8 s customers call twenty times as often as otherwise, and in the second half of that one region
/// is in the dark. Two minutes later nothing of it is left: all that was taken has been said, and no work waits.
#[test]
fn a_pulse_of_load_leaves_nothing_behind() {
    let regions = Regions::default();
    let policy = Policy { quota: [60, 30, 10_000], ..regions.policy.clone() };
    let call_every = regions.call_every / 20;
    let pulse = Regions { networks: 8, customers: 4, call_every, policy, ..regions };
    for seed in 0..3 {
        let mut plan = Plan::none(pulse.nodes());
        let node = region_of(&pulse, seed);
        plan.faults.push(Fault { at_ms: 4_000, for_ms: 4_000, node, kind: Kind::Isolate });
        let outcome = pulse.run(seed, plan, Duration::from_secs(8));
        assert_eq!(outcome.problem, None, "seed {seed}");
        println!("{:?}", outcome.seen);
        assert!(outcome.seen["initiating-request"] > 50, "{:?}", outcome.seen);
    }
}

/// A restored side was open, and active, for as long as a sweep takes, although it had read that the other side has deleted.
#[test]
fn a_death_that_was_read_in_a_freeze_ends_it_at_the_thaw() {
    let regions = Regions::default();
    assert_eq!(problem(&regions, 76, &dark(&regions, 76)), None);
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

/// Within how many seeds each rule is missed, as far as it can be.
const CAUGHT: &[(Safeguards, u64)] = &[
    (Safeguards::I_1_ONLY_A_EXPIRES, 1),
    (Safeguards::I_3_KEPT_UNTIL_ACKNOWLEDGED, 1),
    (Safeguards::I_4_FORGET_AFTER_CONFIRMATION, 2),
    (Safeguards::I_5_WATERMARK, 1),
    (Safeguards::I_6_FREEZE_AFTER_RESTORE, 1),
    (Safeguards::I_7_PROMISE, 1),
    (Safeguards::I_8_FLOOR_LEARNED_BACK, 7),
    (Safeguards::I_9_INCARNATION_UNIQUE, 1),
    (Safeguards::I_10_OLD_PROMISE_VOID, 1),
    (Safeguards::I_11_PROMISE_WHILE_FROZEN, 1),
    (Safeguards::I_12_MERGE_THEN_DECIDE, 1),
    (Safeguards::I_13_TIE_BREAK, 1),
    (Safeguards::I_14_DEAD_DOES_NOT_BLOCK, 1),
    (Safeguards::I_15_CLAIM_EPOCH_CHECKED, 5),
    (Safeguards::I_16_EPOCH_NEVER_RESET, 1),
    (Safeguards::I_17_FRESH_AT_EFFECT, 2),
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
    (Safeguards::I_38_DEADLINE_IN_TRANSACTION, 36),
    (Safeguards::I_39_EXPECTED_VERSION, 1),
    (Safeguards::I_41_TOKEN_KEPT, 1),
    (Safeguards::I_42_EVERY_CHANGE_AUDITED, 1),
    (Safeguards::I_43_SEAL_WITH_ITS_FACTS, 1),
];

/// The same where every node's datagrams are late and overtake each other all the time.
const CAUGHT_LATE: &[(Safeguards, u64)] = &[(Safeguards::I_2_FACTS_JOIN, 1)];

/// The same where a region is in the dark.
const CAUGHT_DARK: &[(Safeguards, u64)] = &[(Safeguards::I_25_BUDGET_AND_BREAKER, 1)];

/// The same where the servers of a region lie.
const CAUGHT_LYING: &[(Safeguards, u64)] = &[(Safeguards::I_30_AUTHORITY, 1)];

/// The same between regions that are far apart, and are put back again and again.
const CAUGHT_REBORN: &[(Safeguards, u64)] = &[(Safeguards::I_18_REPLY_OF_CURRENT_LIFE, 1)];

/// Rules and within how many seeds each is seen, and the regions and the faults of a seed that show them.
type Table = (&'static [(Safeguards, u64)], Regions, fn(&Regions, u64) -> Plan);

/// Each table of rules.
fn tables() -> [Table; 5] {
    [
        (CAUGHT, Regions::default(), swarm_of),
        (CAUGHT_LATE, Regions::default(), late),
        (CAUGHT_DARK, Regions::default(), dark),
        (CAUGHT_LYING, Regions::default(), lying),
        (CAUGHT_REBORN, far(), reborn),
    ]
}

fn assert_caught(is_wanted: impl Fn(&(Safeguards, u64)) -> bool) {
    let mut missed = Vec::new();
    for (rules, regions, plan) in tables() {
        for &(rule, seeds) in rules.iter().filter(|one| is_wanted(one)) {
            let regions = Regions { safeguards: Safeguards::except(rule), ..regions.clone() };
            let found = caught_by(&regions, seeds, |seed| plan(&regions, seed));
            println!("{}: {found:?}", rule.id());
            if found.is_none() {
                missed.push(format!("{} within {seeds} seeds", rule.id()));
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

//= SPEC SIM-3 test
#[test]
fn a_rule_between_regions_that_is_left_out_is_caught() {
    assert_caught(|&(_, seeds)| seeds == 1);
}

#[test]
fn every_rule_between_regions_is_in_a_table() {
    let named = tables().into_iter().flat_map(|(rules, ..)| rules).map(|one| one.0);
    assert_eq!(named.clone().count(), Safeguards::ALL.iter().count());
    assert_eq!(named.collect::<Safeguards>(), Safeguards::ALL);
}

#[test]
#[ignore = "runs for minutes: every rule in turn"]
fn every_rule_between_regions_that_is_left_out_is_caught() {
    let only = std::env::var("TENURE_RULES").ok();
    assert_caught(|(rule, _)| {
        only.as_ref().is_none_or(|only| only.split(',').any(|id| id == rule.id()))
    });
}
