//! State graphs, of both sides in one form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::BufRead as _;
use std::path::Path;

use tenure::models::engine::fingerprint;

use super::config::{Config, Counts, folder};
use super::tlc;
use super::value::Value;

/// A state in the words of a specification: every variable's value.
pub(crate) type State = BTreeMap<String, Value>;

/// A world of the Rust model.
pub(crate) trait Twin {
    type State: Clone + Ord + Debug;
    fn begin(&self) -> Vec<Self::State>;
    /// One state for each action that is enabled.
    fn steps(&self, state: &Self::State) -> Vec<Self::State>;
    /// Whether the model goes as far as that.
    fn is_within(&self, state: &Self::State) -> bool;
    /// The state of the specification that it is.
    fn tell(&self, state: &Self::State) -> State;
}

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
fn explore<W: Twin>(
    world: &W,
    mut state_met: impl FnMut(&W::State),
    mut step_met: impl FnMut(&W::State, &W::State),
) -> Counts {
    let mut frontier = world.begin();
    frontier.iter().for_each(&mut state_met);
    let mut seen: BTreeSet<W::State> = frontier.iter().cloned().collect();
    let mut generated = frontier.len() as u64;
    let mut depth = 0;
    while !frontier.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for state in frontier {
            for successor in world.steps(&state) {
                generated += 1;
                if !world.is_within(&successor) {
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
pub(crate) fn count<W: Twin>(world: &W) -> Counts {
    let mut prints = BTreeSet::new();
    let print = |state: &W::State| {
        let new = prints.insert(fingerprint(&world.tell(state)));
        assert!(new, "two states are one in TLA+: {state:#?}");
    };
    explore(world, print, |_, _| ())
}

/// The graph of the Rust world.
pub(crate) fn of_world<W: Twin>(world: &W) -> Graph {
    let mut states = BTreeMap::new();
    let mut edges = BTreeSet::new();
    explore(
        world,
        |state| {
            let state = world.tell(state);
            states.insert(fingerprint(&state), state);
        },
        |from, to| {
            let print = |state: &W::State| fingerprint(&world.tell(state));
            edges.insert((print(from), print(to)));
        },
    );
    edges.retain(|(from, to)| from != to);
    Graph { states, edges }
}

/// The graph that TLC makes of a configuration, with these rules left out.
pub(crate) fn of_tlc(config: &Config, without: &str) -> Graph {
    let name = &config.name;
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
    let changed_file = work.path().join("graph.cfg");
    std::fs::write(&changed_file, changed).expect("written");
    let dump = work.path().join("graph.dot");
    let dumps = ["-dump".into(), "dot".into(), dump.display().to_string()];
    let said = tlc::run(&folder(), &changed_file.display().to_string(), config.module(), &dumps);
    assert_eq!(said.code, 0, "{}", said.text);
    let graph = read_dot(&dump);
    let counted = format!("{} distinct states found", graph.states.len());
    assert!(said.text.contains(&counted), "the dump has {counted}: {}", said.text);
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
