//! The registry: what must hold holds, what must fail fails, and two engines count alike.

use std::process::Command;

use stateright::{Checker, Model};
use tenure::models::check::{Verdict, run};
use tenure::models::engine::{End, Limits, Reason, explore};
use tenure::models::registry::{Expected, Row, mutants, safe};

fn quick() -> impl Iterator<Item = Row> {
    safe().into_iter().filter(|row| row.quick)
}

/// Every row that is small enough for every test run. `tenure check` runs all of them.
#[test]
fn what_must_hold_holds_in_exactly_the_registered_states() {
    for row in quick() {
        let outcome = run(&row, Limits::default(), |_| ());
        let story = outcome.trace.as_ref().map(|trace| trace.narrate()).unwrap_or_default();
        assert!(
            outcome.as_registered,
            "{}: {:?} {:?}, {:?}, registered was {:?}\n{story}",
            row.name, outcome.verdict, outcome.property, outcome.counts, row.expected
        );
    }
}

//= SPEC LEASE-3 test
//= SPEC LEASE-6 test
#[test]
fn without_any_one_rule_the_registered_property_fails_in_the_registered_number_of_steps() {
    for row in mutants() {
        let outcome = run(&row, Limits::default(), |_| ());
        assert!(
            outcome.as_registered,
            "{}: {:?} {:?} in {:?} steps, registered was {:?}",
            row.name, outcome.verdict, outcome.property, outcome.steps, row.expected
        );
        let trace = outcome.trace.expect("a violation has a trace");
        assert_eq!(Some(trace.steps.len()), outcome.steps.map(|steps| steps as usize));
    }
}

#[test]
fn the_engine_and_the_depth_first_search_of_stateright_count_alike() {
    for name in ["timed-2", "timed-2-pause", "untimed-2", "untimed-2-crash", "timely-2-foreign"] {
        let row = safe().into_iter().find(|row| row.name == name).expect("a registered model");
        let ours = explore(&(row.world)(), Limits::default(), |_| ());
        let theirs = (row.world)().checker().spawn_dfs().join();
        assert_eq!(ours.unique, theirs.unique_state_count() as u64, "{name}: unique");
        assert_eq!(ours.generated, theirs.state_count() as u64, "{name}: generated");
        assert_eq!(ours.end, End::Complete, "{name}");
        let discoveries = theirs.discoveries();
        let mut found: Vec<_> = discoveries.keys().copied().collect();
        found.sort_unstable();
        assert!(found.iter().eq(ours.discoveries.keys()), "{name}: {found:?}");
    }
}

#[test]
fn every_row_has_a_name_of_its_own_and_a_witness() {
    let rows: Vec<Row> = safe().into_iter().chain(mutants()).collect();
    let mut names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), rows.len());
    for row in safe() {
        // A model in which nothing can happen must fail.
        let witnesses = (row.world)().properties();
        let sometimes = stateright::Expectation::Sometimes;
        assert!(witnesses.iter().any(|property| property.expectation == sometimes), "{}", row.name);
    }
}

#[test]
fn an_exploration_that_is_stopped_shows_nothing() {
    let row = quick().next().expect("there is a row");
    for (limits, reason) in [
        (Limits { states: Some(1), ..Limits::default() }, Reason::States),
        (Limits { depth: Some(3), ..Limits::default() }, Reason::Depth),
        (Limits { time: Some(std::time::Duration::ZERO), ..Limits::default() }, Reason::Time),
    ] {
        assert_eq!(explore(&(row.world)(), limits, |_| ()).end, End::Incomplete(reason));
        let outcome = run(&row, limits, |_| ());
        assert_eq!(outcome.verdict, Verdict::Incomplete);
        assert!(!outcome.as_registered && !outcome.exhaustive);
    }
}

#[test]
fn the_command_line_says_incomplete_and_exits_with_1() {
    let run = |args: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        Command::new(env!("CARGO_BIN_EXE_tenure"))
            .arg("check")
            .args(args)
            .args(["--json", "--trace-dir"])
            .arg(folder.path())
            .output()
            .expect("the program runs")
    };
    let stopped = run(&["untimed-2-crash", "--states-max", "1000"]);
    assert_eq!(stopped.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_slice(&stopped.stdout).expect("one JSON line");
    assert_eq!(line["verdict"], "incomplete");
    assert_eq!(line["exhaustive"], false);

    let whole = run(&["L-22"]);
    assert_eq!(whole.status.code(), Some(0), "{}", String::from_utf8_lossy(&whole.stderr));
    let line: serde_json::Value = serde_json::from_slice(&whole.stdout).expect("one JSON line");
    assert_eq!(line["verdict"], "violated");
    assert_eq!(line["property"], "unique_holder_per_epoch");

    let unknown = run(&["no-such-model"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--list"));
}

#[test]
fn a_counterexample_is_written_as_it_would_look_to_the_hosts() {
    let row = mutants().into_iter().find(|row| row.name == "L-1").expect("registered");
    assert!(matches!(row.expected, Expected::Violated { property: "single_writer", .. }));
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = run(&row, Limits::default(), |_| ());
    let path = outcome.trace.expect("a trace").write_into(folder.path()).expect("written");
    let text = std::fs::read_to_string(path).expect("readable");
    let trace: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(trace["format"], "tenure-counterexample/1");
    assert_eq!(trace["property"], "single_writer");
    // Time passes in it, and the two holders have different epochs.
    let steps = trace["steps"].as_array().expect("steps");
    assert!(steps.last().expect("a last step")["at"].as_u64().expect("ticks") > 0);
}
