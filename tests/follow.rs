//! Following a run: traces are shown as they grow, and what comes of it is what comes of the whole files.

#![allow(clippy::disallowed_methods, reason = "a test may look at the clock")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenure::explorer::follow::Live;
use tenure::explorer::import;
use tenure::explorer::story::{Step, Story};
use tenure::models::portrait::{Bar, Portrait};
use tenure::models::space::Rate;

/// Simulates 72 seconds of a cluster under this plan, and leaves its traces in the folder.
fn simulate(folder: &Path, plan: &str) {
    let file = folder.join("plan.json");
    std::fs::write(&file, plan).unwrap();
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(["sim", "lease", "--seed", "7", "--hours", "0.02", "--faults"])
        .arg(&file)
        .arg("--trace-dir")
        .arg(folder)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// A simulated run of 72 s, as the lines of each of its files. With a crash, the first host is down from 20 s
/// to 55 s.
fn run(with_crash: bool) -> Vec<(String, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    let crash = r#"{ "at_ms": 20000, "for_ms": 35000, "node": 0, "kind": "crash" }"#;
    let faults = if with_crash { crash } else { "" };
    let plan = format!(r#"{{ "rates_ppm": [0, 0, 0, 0, 0], "faults": [{faults}] }}"#);
    simulate(folder.path(), &plan);
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, text.split_inclusive('\n').map(str::to_owned).collect())
        })
        .collect();
    files.sort();
    files
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn steps(live: &Live) -> usize {
    live.story().map_or(0, |story| story.steps.len())
}

/// The steps of one node, by what they are called: those of several may be in another order.
fn of_node(story: &Story, node: u16) -> Vec<&str> {
    let its = story.steps.iter().filter(|step| step.told.actor == Some(node));
    its.map(|step| step.told.label.as_str()).collect()
}

//= SPEC EXPLORER-14 test
#[test]
fn a_run_is_shown_as_it_grows_and_is_judged_as_the_whole_files_are() {
    let files = run(true);
    let folder = tempfile::tempdir().unwrap();
    let live = Live::follow(vec![folder.path().to_owned()]);
    let mut out: Vec<File> =
        files.iter().map(|(name, _)| File::create(folder.path().join(name)).unwrap()).collect();
    let write = |out: &mut [File], from: f64, to: f64| {
        for (file, (_, lines)) in out.iter_mut().zip(&files) {
            let [from, to] = [from, to].map(|share| (lines.len() as f64 * share) as usize);
            // In the middle of a line too.
            let text = lines[from..to].concat();
            let (first, second) = text.split_at(text.len() / 2);
            file.write_all(first.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            file.write_all(second.as_bytes()).unwrap();
        }
    };
    write(&mut out, 0.0, 0.3);
    until("the first steps are shown", || steps(&live) > 0);
    std::thread::sleep(Duration::from_secs(1));
    let early = live.story().unwrap();
    assert!(!live.is_over() && early.notes.is_empty(), "{:?}", early.notes);
    write(&mut out, 0.3, 1.0);
    until("more steps are shown", || steps(&live) > early.steps.len());
    live.end();
    until("the run is judged", || live.is_over());
    let story = live.story().unwrap();
    assert_eq!(story.steps[..early.steps.len()], early.steps[..], "nothing is taken back");
    assert!(story.notes[0].starts_with("accepted"), "{:?}", story.notes);

    let named: Vec<import::Named> =
        files.iter().map(|(name, lines)| (name.clone(), lines.concat())).collect();
    let whole = import::import(&named).unwrap();
    assert_eq!(story.steps.len(), whole.steps.len());
    for node in 0..files.len() as u16 {
        assert_eq!(of_node(&story, node), of_node(&whole, node), "node {node}");
    }
    let crashes = whole.steps.iter().filter(|step| step.told.kind == "crash");
    assert_eq!(crashes.clone().count(), 1, "one host has crashed");
    assert!(crashes.clone().all(|step| step.inferred), "nobody records its own crash");
    let recorded = whole.steps.iter().filter(|step| step.told.kind != "crash");
    assert!(recorded.clone().all(|step| !step.inferred));
}

#[test]
fn a_run_that_cannot_have_been_is_said_at_once() {
    let mut files = run(false);
    // A step of the store is gone.
    let (_, lines) = files.last_mut().unwrap();
    let gone = lines.len() / 2;
    lines.remove(gone);
    let folder = tempfile::tempdir().unwrap();
    for (name, lines) in &files {
        std::fs::write(folder.path().join(name), lines.concat()).unwrap();
    }
    let live = Live::follow(vec![folder.path().to_owned()]);
    until("the run is judged though nobody has ended it", || live.is_over());
    let notes = live.story().unwrap().notes;
    assert!(notes[0].starts_with("REJECTED"), "{notes:?}");
    assert!(notes[1].contains("ndjson:"), "with the file and the line: {notes:?}");
}

fn silent(story: &Story) -> Vec<usize> {
    let steps = story.steps.iter().enumerate();
    let is_silent = |step: &Step| step.after.lanes.iter().any(|lane| lane.condition == "silent");
    steps.filter(|(_, step)| is_silent(step)).map(|(row, _)| row).collect()
}

/// A process that is killed writes nothing. What it was last may not be taken for what it is.
//= SPEC EXPLORER-14 test
#[test]
fn a_node_that_writes_nothing_any_more_is_silent() {
    let files = run(true);
    let story = |files: &[(String, Vec<String>)]| {
        let named = files.iter().map(|(name, lines)| (name.clone(), lines.concat()));
        import::import(&named.collect::<Vec<_>>()).unwrap()
    };
    assert!(silent(&story(&files)).is_empty(), "its next life says when it has ended");
    // The same, as it was before that life began.
    let time = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["sim"].as_u64()
    };
    let second = files[0].1.iter().rposition(|line| line.contains("tenure_trace")).unwrap();
    assert!(second > 0, "there are two lives");
    let begins = time(&files[0].1[second + 1]).expect("the start of the second life");
    let before: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(node, (name, lines))| {
            let count = if node == 0 { second } else { lines.len() };
            let earlier = lines[..count].iter().filter(|line| time(line) < Some(begins));
            (name.clone(), earlier.cloned().collect())
        })
        .collect();
    let story = story(&before);
    assert!(story.notes[0].starts_with("accepted"), "{:?}", story.notes);
    let rows = silent(&story);
    assert!(rows.len() > 10, "{rows:?}");
    assert_eq!(rows.last(), Some(&(story.steps.len() - 1)), "to the end");
    assert!(rows.windows(2).all(|pair| pair[1] == pair[0] + 1), "{rows:?}");
    // Two that hold at once, as far as anybody can see: one of them is silent by then.
    let writers = |step: &Step| {
        let writes = |lane: &&Portrait| {
            lane.bar.is_some_and(Bar::is_writable) && lane.condition == "running"
        };
        step.after.lanes.iter().filter(writes).count()
    };
    assert!(story.steps.iter().all(|step| writers(step) <= 1), "nothing overlaps for certain");
}

#[test]
fn a_trace_that_is_missing_is_waited_for() {
    let files = run(false);
    let folder = tempfile::tempdir().unwrap();
    let put = |(name, lines): &(String, Vec<String>)| {
        std::fs::write(folder.path().join(name), lines.concat()).unwrap();
    };
    files[..1].iter().for_each(put);
    let live: Arc<Live> = Live::follow(vec![PathBuf::from(folder.path() as &Path)]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(live.story().is_none() && !live.is_over(), "one host alone says nothing");
    files[1..].iter().for_each(put);
    until("all are there", || steps(&live) > 0);
    live.end();
    until("the run is judged", || live.is_over());
    assert!(live.story().unwrap().notes[0].starts_with("accepted"));
}

/// A client that is started when the others have run for long: its datagrams explain what they have heard of it.
//= SPEC EXPLORER-21 test
#[test]
fn a_trace_that_appears_later_is_read_with_the_others() {
    let files = run(false);
    let folder = tempfile::tempdir().unwrap();
    let put = |(name, lines): &(String, Vec<String>)| {
        std::fs::write(folder.path().join(name), lines.concat()).unwrap();
    };
    let (late, early) = files.split_last().unwrap();
    assert!(late.1[0].contains("Client"), "the last node is the client");
    early.iter().for_each(put);
    let live = Live::follow(vec![folder.path().to_owned()]);
    until("the others are shown", || steps(&live) > 0);
    // Neither what is no trace nor what has no line yet changes anything.
    std::fs::write(folder.path().join("exported.ndjson"), "{\"tenure_story\":1}\n").unwrap();
    std::fs::write(folder.path().join("empty.ndjson"), "").unwrap();
    until("what the client has sent was never sent", || live.is_over());
    assert!(live.story().unwrap().notes[0].starts_with("REJECTED"));
    put(late);
    let of_client = |live: &Live| {
        live.story().is_some_and(|story| !of_node(&story, early.len() as u16).is_empty())
    };
    until("the client is shown too", || of_client(&live));
    live.end();
    until("the run is judged", || live.is_over());
    let story = live.story().unwrap();
    assert!(story.notes[0].starts_with("accepted"), "{:?}", story.notes);
    let named: Vec<import::Named> =
        files.iter().map(|(name, lines)| (name.clone(), lines.concat())).collect();
    let whole = import::import(&named).unwrap();
    assert_eq!(story.steps.len(), whole.steps.len());
    assert_eq!(story.lanes, whole.lanes, "with what is known of their clocks");
}

//= SPEC EXPLORER-21 test
#[test]
fn of_a_long_run_the_newest_steps_are_kept() {
    let files = run(false);
    let folder = tempfile::tempdir().unwrap();
    for (name, lines) in &files {
        std::fs::write(folder.path().join(name), lines.concat()).unwrap();
    }
    let all = Live::follow(vec![folder.path().to_owned()]);
    let some = Live::follow_newest(vec![folder.path().to_owned()], 100);
    for live in [&all, &some] {
        live.end();
        until("the run is judged", || live.is_over());
    }
    let [all, some] = [&all, &some].map(|live| live.story().unwrap());
    assert!(all.steps.len() > 200);
    assert!((90..=100).contains(&some.steps.len()), "{}", some.steps.len());
    let gone = all.steps.len() - some.steps.len();
    let said = format!("the first {gone} steps are not kept any more");
    assert!(some.notes[0].starts_with(&said), "{:?}", some.notes);
    assert!(some.notes[1].starts_with("accepted"), "all are checked: {:?}", some.notes);
    assert_eq!(some.steps.last().unwrap().after.at, all.steps.last().unwrap().after.at);
}

//= SPEC EXPLORER-20 test
#[test]
fn the_clocks_of_a_simulated_run_are_told_as_they_were_set() {
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), r#"{ "rates_ppm": [120, -90, 0, 0, 0], "faults": [] }"#);
    let named: Vec<import::Named> = (0..5)
        .map(|node| folder.path().join(format!("n{node}.ndjson")))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let story = import::import(&named).unwrap();
    let told = |node: usize| story.lanes[node].pace.clone().expect("its clock was read");
    assert_eq!((told(0).rate, told(1).rate, told(2).rate), (Rate::Fast, Rate::Slow, Rate::True));
    assert!(told(0).about.starts_with("120 ppm faster"), "{:?}", told(0));
    assert!(told(1).about.starts_with("90 ppm slower"), "{:?}", told(1));
}
