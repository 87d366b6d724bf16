//! Runs a row of the registry and says whether it came out as registered.

use std::fmt::{Debug, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use stateright::Model as _;

use super::engine::{self, End, Limits, Progress};
use super::lease::{LeaseState, LeaseWorld};
use super::raw::{RawStep, raw_path};
use super::registry::{Counts, Expected, Row, TIME_MAX};
use super::world::{Action, Event, Observer, Subject, World};

/// What came of a row.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it is what was registered.
    pub as_registered: bool,
    /// What came out.
    pub verdict: Verdict,
    /// The property that decided it: the first that is violated.
    pub property: Option<&'static str>,
    /// Whether every reachable state was seen.
    pub exhaustive: bool,
    /// The size of the exploration.
    pub counts: Counts,
    /// The steps to the violation.
    pub steps: Option<u32>,
    /// How long it took.
    pub elapsed: Duration,
    /// The counterexample, told in the raw world.
    pub trace: Option<Trace>,
}

/// What an exploration has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every property holds in every reachable state, and everything that must be possible is.
    Holds,
    /// Some property is violated.
    Violated,
    /// The exploration was stopped: nothing is shown.
    Incomplete,
}

/// A counterexample: what happened, in order, and the state it led to.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The version of this form.
    pub format: &'static str,
    /// The row's name.
    pub model: String,
    /// The property that the last state violates.
    pub property: &'static str,
    /// What happened.
    pub steps: Vec<TraceStep>,
}

/// One step of a counterexample.
#[derive(Clone, Debug, Serialize)]
pub struct TraceStep {
    /// Ticks since the beginning.
    pub at: u64,
    /// What happened.
    pub event: serde_json::Value,
    /// The same for a reader.
    #[serde(skip)]
    pub line: String,
    /// Each node after it, as Rust prints it.
    pub nodes: Vec<String>,
}

/// The form of a trace file.
pub const TRACE_FORMAT: &str = "tenure-counterexample/1";

/// Explores a row to its end.
pub fn run(row: &Row, limits: Limits, on_progress: impl FnMut(Progress)) -> Outcome {
    run_world(&row.name, row.expected, &(row.world)(), limits, on_progress, |world, path| {
        tell(world, path.steps.iter().map(|(_, state)| state))
    })
}

/// Explores a world to its end, and compares with what is registered. `tell` puts a path into words.
pub fn run_world<A, O>(
    name: &str,
    expected: Expected,
    world: &World<A, O>,
    limits: Limits,
    on_progress: impl FnMut(Progress),
    tell: impl Fn(&World<A, O>, &engine::Path<World<A, O>>) -> Vec<TraceStep>,
) -> Outcome
where
    A: Subject,
    O: Observer<A>,
{
    let limits = Limits { time: limits.time.or(Some(TIME_MAX)), ..limits };
    let report = engine::explore(world, limits, on_progress);
    let counts = Counts { unique: report.unique, generated: report.generated, depth: report.depth };
    let property = report.violated.first().copied();
    let verdict = match report.end {
        End::Incomplete(_) => Verdict::Incomplete,
        _ if property.is_some() => Verdict::Violated,
        _ => Verdict::Holds,
    };
    let path = property.and_then(|property| report.discoveries.get(property));
    let steps = path.map(|path| u32::try_from(path.steps.len()).expect("a path is short"));
    let as_registered = match expected {
        Expected::Safe(expected) => {
            verdict == Verdict::Holds && report.exhaustive && counts == expected
        }
        Expected::Violated { property: expected, steps: least } => {
            verdict == Verdict::Violated && property == Some(expected) && steps == Some(least)
        }
        Expected::Holds => verdict == Verdict::Holds && report.exhaustive,
        Expected::Never { property: expected } => {
            report.exhaustive && verdict == Verdict::Violated && report.violated == [expected]
        }
    };
    let trace = path.zip(property).map(|(path, property)| {
        let steps = tell(world, path);
        Trace { format: TRACE_FORMAT, model: name.to_owned(), property, steps }
    });
    Outcome {
        as_registered,
        verdict,
        property,
        exhaustive: report.exhaustive,
        counts,
        steps,
        elapsed: report.elapsed,
        trace,
    }
}

/// Puts a path through raw states into words.
pub fn tell_raw<A, O>(world: &World<A, O>, path: &engine::Path<World<A, O>>) -> Vec<TraceStep>
where
    A: Subject<Msg: Serialize, Timer: Serialize>,
    O: Observer<A>,
{
    let mut at = 0;
    let mut before = &path.start;
    let mut steps = Vec::new();
    for (action, after) in &path.steps {
        at += u64::from(*action == Action::Elapse);
        steps.push(trace_step(at, &world.event(before, *action), &after.nodes));
        before = after;
    }
    steps
}

fn trace_step<M, T, N>(at: u64, event: &Event<M, T>, nodes: &[N]) -> TraceStep
where
    M: Serialize + Debug,
    T: Serialize + Debug,
    N: Debug,
{
    let line = match event {
        Event::Deliver { src, dst, msg } => format!("n{src} -> n{dst}  {msg:?}"),
        Event::Lose { src, dst, msg } => format!("n{src} -x n{dst}  {msg:?}"),
        Event::Fire { node, timer } => format!("n{node} fires {timer:?}"),
        Event::Elapse => "a tick passes".to_owned(),
        Event::Crash(node) => format!("n{node} crashes"),
        Event::Recover(node) => format!("n{node} starts again"),
        Event::Pause(node) => format!("n{node} is paused"),
        Event::Resume(node) => format!("n{node} goes on"),
        Event::Say { src, dst, msg } => format!("n{dst} is told by n{src}  {msg:?}"),
        Event::Intervene(what) => what.clone(),
    };
    let event = serde_json::to_value(event).expect("an event is plain data");
    let nodes = nodes.iter().map(|node| format!("{node:?}")).collect();
    TraceStep { at, event, line, nodes }
}

/// Tells a path through canonical states as a run of the raw world ([`raw_path`]).
///
/// # Panics
///
/// If there is none.
pub fn tell<'a>(world: &LeaseWorld, path: impl Iterator<Item = &'a LeaseState>) -> Vec<TraceStep> {
    let mut raw_world = world_like(world);
    raw_world.canonical = false;
    let mut at = 0;
    // The arrival of a dead message changes nothing, and is not worth telling.
    let start = raw_world.init_states().swap_remove(0);
    let path = path.map(|state| (None, state));
    let steps = raw_path(world, &raw_world, start, path).into_iter().filter(|step| step.is_step);
    steps
        .map(|RawStep { action, before, after, .. }| {
            at += u64::from(action == Action::Elapse);
            trace_step(at, &raw_world.event(&before, action), &after.nodes)
        })
        .collect()
}

fn world_like(world: &LeaseWorld) -> LeaseWorld {
    LeaseWorld {
        actors: world.actors.clone(),
        time: world.time,
        network: world.network,
        faults: world.faults.clone(),
        observer: world.observer.clone(),
        settled: world.settled.clone(),
        canonical: world.canonical,
        properties: Vec::new(),
    }
}

impl Trace {
    /// Writes the trace into a file of its own in this folder, and returns its path.
    ///
    /// # Errors
    ///
    /// If the folder or the file cannot be written.
    pub fn write_into(&self, folder: &Path) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.model));
        let mut json = serde_json::to_string_pretty(self).expect("a trace is plain data");
        json.push('\n');
        std::fs::write(&path, json)?;
        Ok(path)
    }

    /// The trace for a reader: one line for each step.
    pub fn narrate(&self) -> String {
        let mut text = String::new();
        for (index, step) in self.steps.iter().enumerate() {
            let what = &step.line;
            let _ = writeln!(text, "{:>3}  t={:<3} {what}", index + 1, step.at);
        }
        text
    }
}
