//! Traces of the nodes of regions, and what a check of them accepts and refuses.

#![allow(clippy::disallowed_methods, reason = "a helper waits for real nodes")]

mod trace {
    #![allow(dead_code, unreachable_pub, reason = "helpers")]

    pub mod cluster;
    pub mod edit;
    pub mod irc;
    pub mod judge;
    #[path = "../regions/ports.rs"]
    pub mod ports;
}

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tenure::irc::Party;
use tenure::irc::safeguards::Safeguards;
use tenure::lease::Member;
use tenure::sim::Plan;
use tenure::sim::irc::Regions;
use tenure::trace::check::{Options, Report, Verdict, check};
use trace::cluster::Recorded;
use trace::edit::Mutant;
use trace::irc::{self as changed, WEST};
use trace::judge::{
    assert_accepted, assert_accepted_in_every_order, assert_accepted_up_to_any_moment,
    assert_random_mutants_are_rejected, assert_rejected,
};

fn judge(run: &Recorded, options: Options) -> Report {
    check::<Party>(&run.sources(), options)
}

fn eventful() -> &'static Recorded {
    static RUN: OnceLock<Recorded> = OnceLock::new();
    RUN.get_or_init(changed::recorded)
}

//= SPEC TRACE-8 test
//= SPEC TRACE-9 test
//= SPEC TRACE-10 test
#[test]
fn a_real_run_of_regions_is_accepted_in_every_order() {
    let run = eventful();
    let report = judge(run, Options::default());
    assert_accepted(&report);
    for kind in [
        "start",
        "crash",
        "restore",
        "deliver Ask",
        "deliver Call",
        "deliver Report",
        "own Switched",
        "fire Poll",
        "told Submit",
    ] {
        assert!(report.coverage.contains_key(kind), "no {kind} in {:?}", report.coverage);
    }
    assert_eq!(report.restored, 1);
    let is_measured =
        |(name, took): &(&str, u64)| *name == "longest call of another region" && *took > 0;
    assert!(report.measured.iter().any(is_measured));
    assert_accepted_in_every_order(judge, run);
}

#[test]
fn a_run_of_regions_that_is_seen_up_to_some_moment_is_accepted() {
    assert_accepted_up_to_any_moment(judge, eventful());
}

//= SPEC TRACE-8 test
//= SPEC TRACE-9 test
#[test]
fn every_kind_of_mutant_of_a_run_of_regions_is_rejected() {
    let mutants = changed::one_of_each(eventful());
    assert!(mutants.len() >= 60, "only {} kinds", mutants.len());
    for mutant in &mutants {
        assert_rejected(judge, mutant);
    }
}

#[test]
fn a_send_before_its_save_is_rejected() {
    let mutant = changed::sent_before_its_save(eventful());
    let report = judge(&mutant.run, mutant.options);
    assert_eq!(report.verdict, Verdict::Rejected, "{report:?}");
    let problem = report.problem.unwrap();
    assert!(problem.what.contains("arrives and was never sent"), "{problem:?}");
}

fn draw(seed: u64) -> Option<Mutant> {
    changed::random(eventful(), seed)
}

#[test]
fn hundreds_of_random_mutants_of_a_run_of_regions_are_rejected() {
    let count = assert_random_mutants_are_rejected(judge, 0..400, draw);
    assert!(count >= 250, "only {count} mutants");
}

#[test]
#[ignore = "takes a minute: what 400 seeds do not draw in this run, they may draw in another"]
fn thousands_of_random_mutants_of_a_run_of_regions_are_rejected() {
    let count = assert_random_mutants_are_rejected(judge, 400..5_000, draw);
    assert!(count >= 2_900, "only {count} mutants");
    println!("{count} mutants");
}

//= SPEC TRACE-8 test
#[test]
fn simulated_runs_of_regions_are_accepted() {
    let regions = Regions::default();
    let length = Duration::from_secs(60);
    let mut restored = 0;
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let plan = regions.swarm(seed, length);
        regions.run_traced(seed, plan, length, folder.path()).unwrap();
        let names = (0..regions.nodes()).map(|node| format!("n{node}.ndjson"));
        let report = judge(&changed::read(folder.path(), names), Options::default());
        assert_accepted(&report);
        restored += report.restored;
    }
    assert!(restored > 0, "no seed has put a region back");
}

/// A rule, a seed in which a run without it breaks something, and what that is.
const BROKEN: [(Safeguards, u64, &str); 22] = [
    (Safeguards::I_1_ONLY_A_EXPIRES, 0, "facts_are_of_their_writers"),
    (Safeguards::I_2_FACTS_JOIN, 0, "one_decision"),
    (Safeguards::I_7_PROMISE, 0, "older_lives_change_nothing"),
    (Safeguards::I_9_INCARNATION_UNIQUE, 0, "one_life_to_a_number"),
    (Safeguards::I_12_MERGE_THEN_DECIDE, 0, "thaw_decides"),
    (Safeguards::I_13_TIE_BREAK, 0, "one_live_per_pair"),
    (Safeguards::I_14_DEAD_DOES_NOT_BLOCK, 0, "dead_does_not_block"),
    (Safeguards::I_16_EPOCH_NEVER_RESET, 0, "epochs_only_grow"),
    (Safeguards::I_19_LEASES_EXPIRE, 0, "every_claim_ends"),
    (Safeguards::I_20_EXTEND_BEFORE_CALL, 0, "nobody has just told it that it holds that"),
    (Safeguards::I_24_WAIT_HAS_A_FLOOR, 0, "waits_have_a_floor"),
    (Safeguards::I_26_SPREAD, 0, "claims_end_apart"),
    (Safeguards::I_27_BULKHEAD, 0, "claims_are_limited"),
    (Safeguards::I_29_UNKNOWN_KINDS_LEFT, 0, "set_aside_with_a_reason"),
    (Safeguards::I_31_QUOTAS, 0, "quota_kept"),
    (Safeguards::I_32_DISPOSAL_FENCES, 0, "disposed_is_fenced"),
    (Safeguards::I_33_OWN_HALF_FIRST, 0, "half_is_justified"),
    (Safeguards::I_34_DELETE_IDEMPOTENT, 0, "dead_is_deleted_with_success"),
    (Safeguards::I_36_HALVES_BY_FACTS, 0, "no_half_falls"),
    (Safeguards::I_39_EXPECTED_VERSION, 2, "no_lost_update"),
    (Safeguards::I_41_TOKEN_KEPT, 0, "one_effect_per_token"),
    (Safeguards::I_42_EVERY_CHANGE_AUDITED, 0, "audited"),
];

/// Each of these runs is one of its actors, which lack a rule; what is judged beside the steps tells so.
//= SPEC TRACE-8 test
#[test]
fn a_run_without_a_rule_breaks_what_is_judged() {
    let length = Duration::from_secs(60);
    for (rule, seed, broken) in BROKEN {
        let regions = Regions { safeguards: Safeguards::except(rule), ..Regions::default() };
        let folder = tempfile::tempdir().unwrap();
        let plan = regions.swarm(seed, length);
        regions.run_traced(seed, plan, length, folder.path()).unwrap();
        let names = (0..regions.nodes()).map(|node| format!("n{node}.ndjson"));
        let report = judge(&changed::read(folder.path(), names), Options::default());
        assert_eq!(report.verdict, Verdict::Rejected, "{}", rule.id());
        let what = report.problem.unwrap().what;
        assert!(what.contains(broken), "{}: {what}", rule.id());
    }
}

/// The watch that takes a run down is not in the way of the traces, nor they in its: the same seed is the same run.
//= SPEC SIM-1 test
#[test]
fn a_seed_of_regions_writes_the_same_traces_again() {
    let regions = Regions::default();
    let length = Duration::from_secs(20);
    let traces = || {
        let folder = tempfile::tempdir().unwrap();
        regions.run_traced(3, Plan::none(regions.nodes()), length, folder.path()).unwrap();
        let read = |path| std::fs::read(path).unwrap();
        regions.traces(folder.path()).into_iter().map(read).collect::<Vec<_>>()
    };
    let first = traces();
    assert!(first.iter().all(|trace| !trace.is_empty()));
    assert!(first == traces(), "another run");
}

//= SPEC TRACE-6 test
//= SPEC TRACE-10 test
#[test]
fn a_trace_of_another_protocol_is_told_as_such() {
    let run = eventful();
    let as_lease = check::<Member>(&run.sources(), Options::default());
    assert_eq!(as_lease.verdict, Verdict::Inconclusive);
    let what = as_lease.problem.unwrap().what;
    assert!(what.contains("it is a trace of irc, not of lease"), "{what}");
    let mut missing = run.clone();
    missing.files.remove(WEST + 1);
    let report = judge(&missing, Options::default());
    assert_eq!(report.verdict, Verdict::Inconclusive);
    let what = report.problem.unwrap().what;
    assert!(what.contains("there is no trace of node 5"), "{what}");
}

/// A state of the exported trace.
#[derive(serde::Deserialize)]
struct Shown {
    nodes: std::collections::BTreeMap<i64, ShownNode>,
}

#[derive(serde::Deserialize)]
struct ShownNode {
    kind: String,
}

//= SPEC TRACE-10 test
#[test]
fn the_command_takes_a_run_of_regions_for_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let files = eventful().write_into(directory.path());
    let tenure = |arguments: &[&str], files: &[std::path::PathBuf]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        let output = command.arg("trace").args(arguments).args(files).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = tenure(&["check", "--json"], &files);
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["verdict"], &report["restored"]), (&"accepted".into(), &1.into()));
    assert_eq!(tenure(&["check"], &files[..3]).0, Some(2));
    let out = directory.path().join("run.itf.json");
    let (code, text) = tenure(&["export", "--itf", "--out", out.to_str().unwrap()], &files);
    assert_eq!(code, Some(0), "{text}");
    let trace: itf::Trace<Shown> =
        itf::trace_from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert!(trace.states.len() > 100);
    let last = &trace.states.last().unwrap().value.nodes;
    assert_eq!(last.len(), 8);
    assert_eq!(last[&(WEST as i64)].kind, "control-plane");
}
