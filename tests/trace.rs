//! Traces of real nodes, and what a check of them accepts and refuses.

#![allow(clippy::disallowed_methods, reason = "a test waits for real nodes, and for real time")]

mod trace {
    #![allow(dead_code, unreachable_pub, reason = "helpers")]

    pub mod cluster;
    pub mod edit;
    pub mod judge;
    pub mod lease;
    #[path = "../regions/ports.rs"]
    pub mod ports;
}

use std::path::Path;

use serde_json::Value;
use tenure::lease::Member;
use tenure::trace::check::{Options, Report, Source, Verdict, check};
use trace::cluster::{Cluster, Recorded};
use trace::edit::Mutant;
use trace::judge::{
    assert_accepted, assert_accepted_in_every_order, assert_accepted_up_to_any_moment,
    assert_random_mutants_are_rejected, assert_rejected,
};
use trace::lease as changed;

fn judge(run: &Recorded, options: Options) -> Report {
    check::<Member>(&run.sources(), options)
}

/// A run with a crash of the holder, one of the store, a hand-over and writes all the time.
fn eventful() -> &'static Recorded {
    static RUN: std::sync::OnceLock<Recorded> = std::sync::OnceLock::new();
    RUN.get_or_init(|| {
        let mut cluster = Cluster::start();
        cluster.write(20);
        let first = cluster.holder();
        cluster.kill(first);
        cluster.await_other(first);
        cluster.write(10);
        cluster.start_node(first);
        cluster.await_in_sync(first);
        let second = cluster.hand_over();
        cluster.await_other(second);
        cluster.write(10);
        cluster.restart_store();
        cluster.write(10);
        cluster.step_down();
        cluster.write(5);
        cluster.finish()
    })
}

//= SPEC TRACE-2 test
//= SPEC TRACE-4 test
#[test]
fn a_real_run_is_accepted_in_every_order() {
    let run = eventful();
    let report = judge(run, Options::default());
    assert_accepted(&report);
    for kind in
        ["start", "crash", "deliver Written", "fire Watch(A)", "told HandOver", "own Stopped"]
    {
        assert!(report.coverage.contains_key(kind), "no {kind} in {:?}", report.coverage);
    }
    assert!(report.measured.iter().any(|(name, took)| *name == "longest read" && *took > 0));
    assert_accepted_in_every_order(judge, run);
}

#[test]
fn a_run_that_is_seen_up_to_some_moment_is_accepted() {
    assert_accepted_up_to_any_moment(judge, eventful());
}

//= SPEC TRACE-3 test
//= SPEC TRACE-4 test
//= SPEC TRACE-5 test
#[test]
fn every_kind_of_mutant_is_rejected() {
    let mutants = changed::one_of_each(eventful());
    assert!(mutants.len() >= 20, "only {} kinds", mutants.len());
    for mutant in &mutants {
        assert_rejected(judge, mutant);
    }
}

fn draw(seed: u64) -> Option<Mutant> {
    changed::random(eventful(), seed)
}

#[test]
fn hundreds_of_random_mutants_are_rejected() {
    let count = assert_random_mutants_are_rejected(judge, 0..400, draw);
    assert!(count >= 300, "only {count} mutants");
}

#[test]
#[ignore = "takes a minute: what 400 seeds do not draw in this run, they may draw in another"]
fn thousands_of_random_mutants_are_rejected() {
    let count = assert_random_mutants_are_rejected(judge, 400..10_000, draw);
    assert!(count >= 7_200, "only {count} mutants");
}

/// A crash between a step and its save: the step is undone, and its line does not count.
#[test]
fn a_step_that_a_crash_has_undone_is_left_out_and_counted() {
    let run = changed::with_an_undone_step(eventful());
    let report = judge(&run, Options::default());
    assert_accepted(&report);
    assert!(report.undone > judge(eventful(), Options::default()).undone);
}

#[test]
fn a_last_line_that_is_cut_off_is_counted() {
    let mut run = eventful().until(eventful().latest().1);
    let file = &mut run.files[0];
    let last = file.lines.last_mut().unwrap();
    last.truncate(last.len() / 2);
    let report = judge(&run, Options::default());
    assert_accepted(&report);
    assert_eq!(report.cut, 1);
}

#[track_caller]
fn inconclusive(sources: &[Source], hint: &str) {
    let report = check::<Member>(sources, Options::default());
    assert_eq!(report.verdict, Verdict::Inconclusive, "{:?}", report.problem);
    let problem = report.problem.unwrap();
    assert!(problem.what.contains(hint), "{problem:?} does not say {hint:?}");
}

//= SPEC TRACE-6 test
#[test]
fn what_cannot_be_judged_says_what_to_do() {
    let run = eventful();
    let memory = |text: &str| vec![Source::Memory("x".to_owned(), text.as_bytes().to_vec())];
    inconclusive(&[], "name one file for each node");
    inconclusive(&memory(""), "the file is empty");
    inconclusive(&memory("{\"hello\":1}\n"), "no line of a trace");
    inconclusive(&memory("not json\n"), "no line of a trace");
    inconclusive(&[Source::File("/nowhere/a.ndjson".into())], "cannot be opened");
    let store: Vec<_> = run.sources().into_iter().take(3).collect();
    inconclusive(&store, "there is no trace of node 3");
    let mut headless = run.clone();
    headless.files[1].lines.remove(0);
    inconclusive(&headless.sources(), "the beginning of the file is missing");
    let mut damaged = run.clone();
    damaged.files[1].lines[5].truncate(40);
    inconclusive(&damaged.sources(), "the file is damaged");
    for (key, value, hint) in [
        ("tenure_trace", Value::from(9), "check it with tenure"),
        ("version", Value::from("9.9.9"), "the release that wrote it"),
        ("protocol", Value::from("other"), "not of lease"),
    ] {
        let mut foreign = run.clone();
        let mut header: Value = serde_json::from_str(&foreign.files[0].lines[0]).unwrap();
        header[key] = value;
        foreign.files[0].lines[0] = header.to_string();
        inconclusive(&foreign.sources(), hint);
    }
}

/// The keys of a line may come in any order.
#[test]
fn a_trace_that_another_program_has_written_again_is_accepted() {
    let mut run = eventful().clone();
    for file in &mut run.files {
        for line in &mut file.lines {
            let value: Value = serde_json::from_str(line).unwrap();
            // The map sorts its keys.
            *line = serde_json::to_string(&value).unwrap();
        }
    }
    assert_accepted(&judge(&run, Options::default()));
}

//= SPEC TRACE-7 test
#[test]
fn the_command_says_its_verdict_by_its_exit_code_and_exports() {
    use std::process::Command;
    let directory = tempfile::tempdir().unwrap();
    let tenure = |arguments: &[&str], files: &[String]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
            .arg("trace")
            .args(arguments)
            .args(files)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let write = |run: &Recorded, name: &str| -> Vec<String> {
        let folder = directory.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        run.write_into(&folder).iter().map(|path| path.display().to_string()).collect()
    };
    let good = write(eventful(), "good");
    let (code, text) = tenure(&["check", "--orders", "1"], &good);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("accepted"), "{text}");
    let (code, text) = tenure(&["check", "--json"], &good);
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["verdict"], "accepted");
    assert_eq!(report["taken"].as_u64().map(|n| n > 100), Some(true));
    let bad = write(&changed::one_of_each(eventful()).swap_remove(0).run, "bad");
    assert_eq!(tenure(&["check"], &bad).0, Some(1));
    assert_eq!(tenure(&["check"], &good[..2]).0, Some(2));
    assert_eq!(tenure(&["check"], &[]).0, Some(2));
    let out = directory.path().join("run.itf.json");
    let (code, text) = tenure(&["export", "--itf", "--out", out.to_str().unwrap()], &good);
    assert_eq!(code, Some(0), "{text}");
    assert_itf(&out);
}

/// A state of the exported trace.
#[derive(serde::Deserialize)]
struct Shown {
    nodes: std::collections::BTreeMap<i64, ShownNode>,
}

#[derive(serde::Deserialize)]
struct ShownNode {
    kind: String,
    role: Option<String>,
}

fn assert_itf(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let trace: itf::Trace<Shown> = itf::trace_from_str(&text).unwrap();
    assert_eq!(trace.vars, ["nodes"]);
    assert!(trace.states.len() > 100);
    let last = &trace.states.last().unwrap().value.nodes;
    assert_eq!(last.len(), 5);
    assert_eq!(last[&3].kind, "store");
    let holds =
        |shown: &Shown| shown.nodes.values().any(|it| it.role.as_deref() == Some("holding"));
    assert!(trace.states.iter().any(|state| holds(&state.value)));
}

/// Integers that a double cannot hold become big ones.
#[test]
fn large_integers_survive_the_export() {
    let value = tenure::trace::itf::to_itf(serde_json::json!({"a": u64::MAX, "b": 7, "c": null}));
    assert_eq!(value, serde_json::json!({"a": {"#bigint": "18446744073709551615"}, "b": 7}));
}

/// kill -9 loses no line of anything that somebody has seen.
//= SPEC TRACE-1 test
#[test]
fn a_run_whose_holders_are_killed_is_accepted() {
    let run = trace::cluster::killed_processes(4);
    let report = judge(&run, Options::default());
    assert_accepted(&report);
    assert!(report.coverage["crash"] >= 4, "{:?}", report.coverage);
    println!("{} of {} steps undone", report.undone, report.logged);
}

//= SPEC TRACE-1 test
#[test]
fn nothing_leaves_a_node_before_its_line_is_in_the_file() {
    trace::cluster::a_message_is_never_ahead_of_its_line();
}

/// Without and with a trace by turns, the first of a pair being now this and now that, so that what else the machine
/// does strikes both alike.
#[test]
#[ignore = "measures how much a trace costs a store"]
fn what_a_trace_costs() {
    const PAIRS: usize = 11;
    let beside = tempfile::tempdir().unwrap();
    let memory = Path::new("/dev/shm");
    let apart = tempfile::tempdir_in(if memory.is_dir() { memory } else { beside.path() }).unwrap();
    for (what, folder, durable, count) in [
        ("no disk, the trace in memory", &apart, false, 40_000),
        ("no disk, the trace on disk", &beside, false, 40_000),
        ("its storage on disk, the trace in memory", &apart, true, 8_000),
        ("its storage on disk, the trace on the same disk", &beside, true, 8_000),
    ] {
        let rate = |traced: bool| {
            let file = folder.path().join("s.ndjson");
            let rate = trace::cluster::renewals_per_second(traced.then_some(&file), durable, count);
            let _ = std::fs::remove_file(&file);
            rate
        };
        rate(true);
        let mut pairs: Vec<(f64, f64)> = (0..PAIRS)
            .map(|pair| {
                if pair % 2 == 0 {
                    let without = rate(false);
                    (without, rate(true))
                } else {
                    let with = rate(true);
                    (rate(false), with)
                }
            })
            .collect();
        let loss = |pair: &(f64, f64)| (1.0 - pair.1 / pair.0) * 100.0;
        pairs.sort_by(|one, other| loss(one).total_cmp(&loss(other)));
        let median = pairs[PAIRS / 2];
        println!(
            "{what}: median of {PAIRS} pairs {:.1} % less (from {:.1} to {:.1} %), there {:.0} and {:.0} conditional \
             writes/s without and with",
            loss(&median),
            loss(&pairs[0]),
            loss(&pairs[PAIRS - 1]),
            median.0,
            median.1,
        );
    }
}
