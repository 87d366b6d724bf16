//! State graphs, of both sides in one form.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::Path;
use std::process::Command;

use stateright::Model;
use tenure::models::engine::fingerprint;
use tenure::models::lease::{LeaseState, LeaseWorld};

use super::config::{Counts, folder};
use super::project;
use super::value::Value;

/// A state: every variable's value.
type State = BTreeMap<String, Value>;

/// States and edges, by the fingerprints of the states. A step that changes nothing is no edge.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    pub(crate) states: BTreeMap<u64, State>,
    pub(crate) edges: BTreeSet<(u64, u64)>,
}

impl Graph {
    /// The first thing in which two graphs differ.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let missing = |a: &Self, b: &Self| {
            let only = a.states.iter().find(|(print, _)| !b.states.contains_key(print));
            only.map(|(_, state)| format!("{state:#?}"))
        };
        if let Some(state) = missing(self, other) {
            return Some(format!("a state that only the first has: {state}"));
        }
        if let Some(state) = missing(other, self) {
            return Some(format!("a state that only the second has: {state}"));
        }
        let show = |(from, to): &(u64, u64)| {
            format!("{:#?}\n->\n{:#?}", self.states[from], self.states[to])
        };
        if let Some(edge) = self.edges.difference(&other.edges).next() {
            return Some(format!("a step that only the first has: {}", show(edge)));
        }
        let edge = other.edges.difference(&self.edges).next()?;
        Some(format!("a step that only the second has: {}", show(edge)))
    }
}

/// What an exploration of the Rust world meets: every state within the bounds, every step from one, and the
/// counts as TLC counts: a step out of the bounds is generated, but its state is not kept.
fn explore(
    world: &LeaseWorld,
    mut state_met: impl FnMut(&LeaseState),
    mut step_met: impl FnMut(&LeaseState, &LeaseState),
) -> Counts {
    let mut frontier = world.init_states();
    frontier.iter().for_each(&mut state_met);
    let mut seen: BTreeSet<LeaseState> = frontier.iter().cloned().collect();
    let mut generated = frontier.len() as u64;
    let mut depth = 0;
    let mut actions = Vec::new();
    while !frontier.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for state in frontier {
            world.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let Some(successor) = world.next_state(&state, action) else { continue };
                generated += 1;
                if !world.within_boundary(&successor) {
                    continue;
                }
                step_met(&state, &successor);
                if seen.insert(successor.clone()) {
                    state_met(&successor);
                    next.push(successor);
                }
            }
        }
        frontier = next;
    }
    Counts { distinct: seen.len() as u64, generated, depth }
}

/// Counts the Rust world. Two of its states are never one state of TLA+.
pub(crate) fn count(world: &LeaseWorld) -> Counts {
    let mut prints = BTreeSet::new();
    let print = |state: &LeaseState| {
        let new = prints.insert(fingerprint(&project::state(world, state)));
        assert!(new, "two states are one in TLA+: {state:#?}");
    };
    explore(world, print, |_, _| ())
}

/// The graph of the Rust world.
pub(crate) fn of_world(world: &LeaseWorld) -> Graph {
    let mut states = BTreeMap::new();
    let mut edges = BTreeSet::new();
    explore(
        world,
        |state| {
            let state = project::state(world, state);
            states.insert(fingerprint(&state), state);
        },
        |from, to| {
            let print = |state: &LeaseState| fingerprint(&project::state(world, state));
            edges.insert((print(from), print(to)));
        },
    );
    edges.retain(|(from, to)| from != to);
    Graph { states, edges }
}

/// The graph that TLC makes of a configuration, with these rules left out.
pub(crate) fn of_tlc(name: &str, without: &str) -> Graph {
    let fetched = Command::new(folder().join("check.sh")).arg("--jar").output().expect("check.sh");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let jar = String::from_utf8(fetched.stdout).expect("a path").trim().to_owned();
    let work = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(folder().join(name).with_extension("cfg")).expect("there");
    let changed: String = text
        .lines()
        .filter(|line| !line.starts_with("INVARIANTS"))
        .map(|line| match line.trim_start().starts_with("Without =") {
            true => format!("    Without = {without}\n"),
            false => format!("{line}\n"),
        })
        .collect();
    let config = work.path().join("graph.cfg");
    std::fs::write(&config, changed).expect("written");
    let dump = work.path().join("graph.dot");
    let output = Command::new("java")
        .args(["-XX:+UseParallelGC", "-Xmx1g", "-cp", &jar, "tlc2.TLC", "-deadlock"])
        .args(["-workers", "1", "-dump", "dot"])
        .arg(&dump)
        .arg("-metadir")
        .arg(work.path().join("states"))
        .arg("-config")
        .arg(&config)
        .arg("Lease")
        .current_dir(folder())
        .output()
        .expect("java runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let graph = read_dot(&dump);
    let counted = format!("{} distinct states found", graph.states.len());
    assert!(said.contains(&counted), "the dump has {counted}: {said}");
    graph
}

fn read_dot(path: &Path) -> Graph {
    let file = std::io::BufReader::new(std::fs::File::open(path).expect("TLC has written it"));
    let mut by_id = BTreeMap::new();
    let mut edges = Vec::new();
    for line in file.lines() {
        let line = line.expect("UTF-8");
        let id = |text: &str| text.trim().parse::<i64>().ok();
        let Some((head, label)) = line.split_once(" [") else {
            if let Some((from, to)) = line.split_once("->") {
                edges.push((id(from), id(to.trim_end_matches(';'))));
            }
            continue;
        };
        if let Some((from, to)) = head.split_once("->") {
            edges.push((id(from), id(to)));
        } else if let (Some(id), Some(text)) = (id(head), label.strip_prefix("label=\"")) {
            let quotes = text.match_indices('"').map(|(at, _)| at);
            let end = quotes.into_iter().find(|&at| !text[..at].ends_with('\\'));
            let end = end.expect("a label ends");
            by_id.insert(id, read_state(&text[..end]));
        }
    }
    let prints: BTreeMap<i64, u64> =
        by_id.iter().map(|(&id, state)| (id, fingerprint(state))).collect();
    // A step out of the bounds leads to a state that is not there.
    let known = |id: Option<i64>| prints.get(&id?).copied();
    let edges = edges
        .into_iter()
        .filter_map(|(from, to)| Some((known(from)?, known(to)?)))
        .filter(|(from, to)| from != to)
        .collect();
    let states = by_id.into_iter().map(|(id, state)| (prints[&id], state)).collect();
    Graph { states, edges }
}

/// Reads `/\ a = 1\n/\ b = 2`, as it stands in a label.
fn read_state(label: &str) -> State {
    let text = label.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\");
    text.split("/\\ ")
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (name, value) = part.split_once(" = ").expect("a variable and its value");
            (name.trim().to_owned(), Value::parse(value))
        })
        .collect()
}
