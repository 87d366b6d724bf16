//! `single_writer`, `unique_holder_per_epoch` and `fenced_effects`, proved for any number of hosts; and
//! `one_decision`, for any number of regions and of peerings.
//!
//! Three transition systems and their inductive invariants are written down in `timed.rs`, `epochs.rs` and
//! `decisions.rs`; z3 discharges what there is to prove. docs/PROOF.md explains them. The tests that need z3 are ignored
//! unless they are asked for: `cargo test --test proof -- --ignored`.

mod arithmetic;
mod decisions;
mod epochs;
mod eval;
mod ledger;
mod mutants;
mod solver;
mod system;
mod term;
mod timed;

use std::collections::BTreeSet;

use solver::{ask, demand, is_any_sat};

use system::{Answer, Query, System};
use tenure::lease::safeguards::Safeguards;
use tenure::models::engine::{Limits, explore};

fn systems() -> [System; 3] {
    [timed::system(), epochs::system(), decisions::system()]
}

#[test]
#[ignore = "needs z3"]
fn the_invariants_are_inductive_and_give_the_properties() {
    for system in systems() {
        let queries = system.obligations();
        let (steps, conjuncts) = (system.actions.len(), system.invariant.len());
        assert_eq!(queries.len(), conjuncts + steps * conjuncts + system.safety.len());
        demand(&system.prelude(), &queries);
        println!("{}: {} obligations unsat", system.name, queries.len());
    }
}

/// What follows from a contradiction is worth nothing.
#[test]
#[ignore = "needs z3"]
fn nothing_is_proved_of_nothing() {
    let worth: [&[(&str, &str)]; 3] = [
        &[
            ("a writer after some writes", "(and (< 2 (version current)) (holding (by current)))"),
            ("somebody stopping", "(stopping (by current))"),
            ("somebody watching", "(watching (by current))"),
        ],
        &[
            ("a primary of a late epoch", "(and (leading (by current)) (< 3 (epoch current)))"),
            ("a changed table", "(< 0 (changed (on (by current))))"),
        ],
        &[
            (
                "a decision that both sides know, after both were restored",
                "(not (forall ((o Op)) (not (and (open (at o)) (open (at-r o)) (distinct (known o) none)
                    (< 2 (n (life (at o)))) (< 2 (n (life (at-r o))))))))",
            ),
            (
                "a decision that nobody knows any more",
                "(not (forall ((m Message)) (not (and (sent m) (distinct (says m) none)
                    (= (decided (about m)) none) (open (at (about m)))))))",
            ),
        ],
    ];
    for (system, worth) in systems().into_iter().zip(worth) {
        let queries = system.vacuity(worth);
        demand(&system.prelude(), &queries);
        println!("{}: {} sat", system.name, queries.len());
    }
}

/// Somebody comes to hold the lease in each of the ways that there are.
#[test]
#[ignore = "needs z3"]
fn what_must_be_possible_can_be_reached_from_the_start() {
    let timed = timed::system();
    let others = "(not (forall ((h Life) (x Att))
        (not (and (holding h) (= (grant h) current) (applied x) (names x (by x))
                  (distinct (by x) h) (distinct x first)))))";
    let runs = [
        (
            "a takeover",
            "TakeFree Apply Granted Show Watch Elapse Stop Stopped Elapse TakeWatched Apply Granted",
            others,
        ),
        (
            "a takeover from one that crashed",
            "TakeFree Apply Granted Show Watch Crash Elapse TakeWatched Apply Granted",
            others,
        ),
        (
            "a release",
            "TakeFree Apply Granted Stop Stopped Release Apply TakeFree Apply Granted",
            others,
        ),
        (
            "a hand-over",
            "TakeFree Apply Granted Stop Stopped Consent TakeConsented Apply Granted",
            others,
        ),
        (
            "a renewal beyond the first deadline",
            "TakeFree Apply Granted Elapse Renew Apply Granted Elapse",
            "(not (forall ((h Life) (x Att)) (not (and (holding h) (applied x) (= (by x) h)
                (distinct x first) (< (deadline x) now)))))",
        ),
        (
            "a term over a record that somebody else has touched",
            "TakeFree Apply Granted Foreign Apply Renew Apply Granted",
            "(holding (by current))",
        ),
    ];
    reach(&timed, &runs);
    let goal = |of: &str| {
        format!(
            "(not (forall ((o Op) (m Message)) (not (and (open (at o)) (open (at-r o)) (sent m)
                (= (about m) o) (distinct (under m) (life (at o))) (distinct (says m) none) {of}))))"
        )
    };
    let (recovers, lost) = (goal("(= (decided o) (says m))"), goal("(= (decided o) none)"));
    let runs = [
        (
            "a decision that A gets back from R",
            "Decide Tell Learn Restore Ask Promise OnPromise Answer Thaw",
            recovers.as_str(),
        ),
        (
            "both sides restored at once, and both thaw",
            "Decide Tell Learn Restore Restore Ask Promise Ask Promise Ask Promise OnPromise OnPromise
             Answer Thaw Answer Thaw",
            lost.as_str(),
        ),
    ];
    reach(&decisions::system(), &runs);
}

fn reach(system: &System, runs: &[(&str, &str, &str)]) {
    let queries: Vec<Query> = runs
        .iter()
        .map(|(name, run, goal)| {
            system.run(name, &run.split_whitespace().collect::<Vec<_>>(), goal, Answer::Sat)
        })
        .collect();
    demand(&system.prelude(), &queries);
}

#[test]
#[ignore = "needs z3"]
fn without_a_rule_a_step_fails_and_a_run_goes_wrong() {
    let mutants = mutants::all();
    for mutant in &mutants {
        let (rule, system) = (mutant.rule, &mutant.system);
        let as_it_is = systems().into_iter().find(|known| known.name == system.name);
        let as_it_is = as_it_is.expect("a change of a system that is there");
        // What the change has left as it was is proved already.
        let proved: BTreeSet<String> =
            as_it_is.obligations().into_iter().map(|query| query.text).collect();
        let is_as_proved = as_it_is.prelude() == system.prelude();
        let mut changed = system.obligations();
        changed.retain(|query| !is_as_proved || !proved.contains(&query.text));
        let failing = ask(&system.prelude(), &changed)
            .into_iter()
            .zip(changed)
            .filter(|(answer, _)| *answer == Answer::Sat)
            .map(|(_, query)| query.name)
            .collect::<Vec<_>>();
        assert!(!failing.is_empty(), "{rule}: every step still holds");
        let wrong = system.violation(mutant.property);
        let run = system.run(rule, &mutant.run, &wrong, Answer::Sat);
        demand(&system.prelude(), &[run]);
        let sound = as_it_is.run(rule, &mutant.run, &wrong, Answer::Unsat);
        demand(&as_it_is.prelude(), &[sound]);
        println!(
            "{rule:9} {:24} {:2} steps; fails: {}",
            mutant.property,
            mutant.run.len(),
            failing.join(", ")
        );
    }
    println!("{} mutants", mutants.len());
}

/// Each conjunct is there because without it something is not inductive.
#[test]
#[ignore = "needs z3"]
fn every_conjunct_is_needed() {
    for system in systems() {
        for dropped in 0..system.invariant.len() {
            let mut less = system.clone();
            let name = less.invariant.remove(dropped).name;
            let is_needed = is_any_sat(&less.prelude(), &less.obligations());
            assert!(is_needed, "{}: {name} is not needed", system.name);
        }
    }
}

#[test]
#[ignore = "needs z3"]
fn clocks_within_rho_give_what_the_systems_assume() {
    demand("", &arithmetic::queries());
}

/// The rules that the mutants leave out are rules of the specification.
#[test]
fn the_mutants_name_rules_of_the_specification() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SPEC.md");
    let spec = std::fs::read_to_string(path).expect("the specification is there");
    let mut names = BTreeSet::new();
    for mutant in mutants::all() {
        let known = [format!("| {} |", mutant.rule), format!("- **{}** (", mutant.rule)];
        assert!(known.iter().any(|known| spec.contains(known)), "{}: not in SPEC.md", mutant.rule);
        assert!(names.insert((mutant.rule, mutant.property)), "{} twice", mutant.rule);
    }
}

/// The very formulas that z3 proves to be inductive hold in every state of these worlds of the protocol's own
/// code. They are read off a ledger of every attempt that was made.
#[test]
fn the_invariants_hold_in_a_model() {
    look_up("any delay, and loss", &ledger::small_world());
}

#[test]
#[ignore = "takes a minute"]
fn the_invariants_hold_in_larger_models() {
    for (name, world) in ledger::long_worlds() {
        look_up(name, &world);
    }
}

fn look_up(name: &str, world: &ledger::LedgerWorld) {
    let report = explore(world, Limits::default(), |_| ());
    assert!(report.exhaustive && report.violated.is_empty(), "{name}: {:?}", report.violated);
    println!("{name}: {} states", report.unique);
}

/// And without a rule they do not: the ledger sees what goes wrong.
#[test]
fn without_a_rule_the_invariants_fail_in_the_models() {
    for (rule, conjunct) in [
        (Safeguards::L_1_DEADLINE_FROM_SEND, "holder"),
        (Safeguards::L_6_NO_WALL_CLOCK, "watch"),
        (Safeguards::L_17_TAKEOVER_CONDITIONAL, "applied"),
        (Safeguards::L_25_TAKEOVER_RAISES_EPOCH, "raise"),
    ] {
        let world = ledger::without(rule);
        let report = explore(&world, Limits::default(), |_| ());
        let violated = report.discoveries.get("the_invariants_of_the_proof");
        let path = violated.unwrap_or_else(|| panic!("{}: nothing fails", rule.id()));
        let last = path.steps.last().map_or(&path.start, |(_, state)| state);
        let failing = ledger::failing(&world, last);
        assert!(failing.contains(&conjunct), "{}: {failing:?}", rule.id());
    }
}
