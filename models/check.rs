//! Runs a row of the registry and says whether it came out as registered.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use stateright::Model;

use super::engine::{self, End, Limits, Progress};
use super::lease::{LeaseState, LeaseWorld};
use super::registry::{Counts, Expected, Row, TIME_MAX};
use super::world::{Action, Event, EventOf, Observer};
use crate::lease::Member;

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
    pub event: EventOf<Member>,
    /// Each node after it, as Rust prints it.
    pub nodes: Vec<String>,
}

/// The form of a trace file.
pub const TRACE_FORMAT: &str = "tenure-counterexample/1";

/// Explores a row to its end.
pub fn run(row: &Row, limits: Limits, on_progress: impl FnMut(Progress)) -> Outcome {
    let world = (row.world)();
    let limits = Limits { time: limits.time.or(Some(TIME_MAX)), ..limits };
    let report = engine::explore(&world, limits, on_progress);
    let counts = Counts { unique: report.unique, generated: report.generated, depth: report.depth };
    let property = report.violated.first().copied();
    let verdict = match report.end {
        End::Incomplete(_) => Verdict::Incomplete,
        _ if property.is_some() => Verdict::Violated,
        _ => Verdict::Holds,
    };
    let path = property.and_then(|property| report.discoveries.get(property));
    let steps = path.map(|path| u32::try_from(path.steps.len()).expect("a path is short"));
    let as_registered = match row.expected {
        Expected::Safe(expected) => {
            verdict == Verdict::Holds && report.exhaustive && counts == expected
        }
        Expected::Violated { property: expected, steps: least } => {
            verdict == Verdict::Violated && property == Some(expected) && steps == Some(least)
        }
    };
    let trace = path.zip(property).map(|(path, property)| {
        let states = path.steps.iter().map(|(_, state)| state);
        let raw = tell(&world, states);
        Trace { format: TRACE_FORMAT, model: row.name.clone(), property, steps: raw }
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

/// Tells a path through canonical states as a run of the raw world: with the names, epochs and nonces
/// that the hosts themselves would see. At each step some raw action leads to a state whose canonical
/// form is the next one on the path; that there is one is what makes the form a bisimulation.
///
/// # Panics
///
/// If there is none.
pub fn tell<'a>(world: &LeaseWorld, path: impl Iterator<Item = &'a LeaseState>) -> Vec<TraceStep> {
    let mut raw_world = world_like(world);
    raw_world.canonical = false;
    let mut raw = raw_world.init_states().swap_remove(0);
    let mut at = 0;
    let mut steps = Vec::new();
    let canonical = |raw: &LeaseState| {
        let mut state = raw.clone();
        world.observer.canonical(world, &mut state);
        state
    };
    for goal in path {
        let (action, next) = loop {
            let here = canonical(&raw);
            let mut actions = Vec::new();
            raw_world.actions(&raw, &mut actions);
            let mut successors = actions
                .into_iter()
                .filter_map(|action| Some((action, raw_world.next_state(&raw, action)?)))
                .map(|(action, next)| (canonical(&next), action, next))
                .collect::<Vec<_>>();
            if let Some(found) = successors.iter().position(|(form, ..)| form == goal) {
                let (_, action, next) = successors.swap_remove(found);
                break (action, next);
            }
            // In the raw world a dead message is still under way, and on a timely network it is urgent:
            // its arrival changes nothing, and is not worth telling.
            let (_, _, next) = successors
                .into_iter()
                .find(|(form, action, next)| {
                    matches!(action, Action::Deliver(_)) && *form == here && *next != raw
                })
                .expect("every step of the canonical world is one of the raw world");
            raw = next;
        };
        at += u64::from(action == Action::Elapse);
        let event = raw_world.event(&raw, action);
        let nodes = next.nodes.iter().map(|node| format!("{node:?}")).collect();
        steps.push(TraceStep { at, event, nodes });
        raw = next;
    }
    steps
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
            let what = match &step.event {
                Event::Deliver { src, dst, msg } => format!("n{src} -> n{dst}  {msg:?}"),
                Event::Lose { src, dst, msg } => format!("n{src} -x n{dst}  {msg:?}"),
                Event::Fire { node, timer } => format!("n{node} fires {timer:?}"),
                Event::Elapse => "a tick passes".to_owned(),
                Event::Crash(node) => format!("n{node} crashes"),
                Event::Recover(node) => format!("n{node} starts again"),
                Event::Pause(node) => format!("n{node} is paused"),
                Event::Resume(node) => format!("n{node} goes on"),
                Event::Say { src, dst, msg } => format!("n{dst} is told by n{src}  {msg:?}"),
            };
            let _ = writeln!(text, "{:>3}  t={:<3} {what}", index + 1, step.at);
        }
        text
    }
}
