//! Loops: whether something can stay away for ever.
//!
//! "It happens sooner or later" and "it happens again and again" are not about one state, so no search for a
//! state can refute them. What refutes them is a *lasso*: a way to a state, and from there a loop back to it, on
//! which it never happens; or a way to a state in which nothing can happen any more. Every loop lies in a
//! strongly connected component of the graph without the states in which it happens (R. Tarjan, "Depth-first
//! search and linear graph algorithms", 1972), so no loop is missed, however its ways join.
//!
//! Nothing is assumed about fairness: that a message may be late for ever is a loop too. In a timed world a loop
//! counts only if time passes in it, because no clock stands still.

#![allow(clippy::disallowed_methods, reason = "it says how long a search took")]
#![allow(
    clippy::disallowed_types,
    reason = "no state is kept in this map, and its hasher is fixed"
)]

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use stateright::Model;

use super::engine::{Identity, Limits, Path, Progress, Reason, TOLD_EVERY, fingerprint};

/// A kind of action.
pub type Kind<'q, M> = &'q dyn Fn(&<M as Model>::Action) -> bool;

/// What is asked.
pub struct Question<'q, M: Model> {
    /// Whether it happens in a state.
    pub happens: &'q dyn Fn(&M::State) -> bool,
    /// Whether it must happen again and again; otherwise once is enough.
    pub again: bool,
    /// The actions of which every loop must have one. With none, a loop must change the state.
    pub needs: Option<Kind<'q, M>>,
}

/// A way on which it does not happen any more.
pub struct Lasso<M: Model> {
    /// The way to the loop, and once around.
    pub path: Path<M>,
    /// After how many steps the loop begins; none if the way ends where nothing can happen.
    pub back_to: Option<usize>,
}

/// What the search has found.
pub struct Report<M: Model> {
    /// A refutation, with the shortest way to any, and the shortest loop there.
    pub lasso: Option<Lasso<M>>,
    /// Why not every state was seen, if so.
    pub incomplete: Option<Reason>,
    /// The number of different states.
    pub unique: u64,
    /// The number of states made.
    pub generated: u64,
    /// The depth of the deepest state; the first is at depth 1.
    pub depth: u32,
    /// How long it took.
    pub elapsed: Duration,
}

/// A state that is known, by its number.
struct Known {
    print: u64,
    /// From which it was first reached: itself, for the first.
    parent: u32,
    /// It does not happen here.
    is_away: bool,
    /// Its successors are known.
    is_expanded: bool,
    /// The model goes on, but beyond its bounds.
    is_cut: bool,
    /// Where its edges begin.
    edges: usize,
}

#[derive(Clone, Copy)]
struct Edge {
    to: u32,
    /// It is one of the actions that a loop needs.
    counts: bool,
}

struct Graph {
    known: Vec<Known>,
    /// The edges out of states in which it does not happen.
    edges: Vec<Edge>,
}

impl Graph {
    /// The edges from one state in which it does not happen to another.
    fn away(&self, from: u32) -> impl Iterator<Item = Edge> + '_ {
        self.out_of(from).iter().copied().filter(|edge| self.known[edge.to as usize].is_away)
    }

    /// All edges of a state in which it does not happen.
    fn out_of(&self, from: u32) -> &[Edge] {
        let from = from as usize;
        let end = self.known.get(from + 1).map_or(self.edges.len(), |next| next.edges);
        &self.edges[self.known[from].edges..end]
    }
}

/// Searches for a lasso from these states on.
///
/// # Panics
///
/// If there are more than 2^32 states.
//= SPEC EXPLORER-16
pub fn search<M>(
    model: &M,
    starts: Vec<M::State>,
    question: &Question<'_, M>,
    limits: Limits,
    on_progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Report<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    let begun = Instant::now();
    let mut report = Report {
        lasso: None,
        incomplete: None,
        unique: 0,
        generated: 0,
        depth: 1,
        elapsed: Duration::ZERO,
    };
    let graph = explore(model, &starts, question, limits, &mut report, on_progress);
    report.unique = graph.known.len() as u64;
    let component = components(&graph);
    let has_loop = loops(&graph, &component);
    let in_loop = |node: u32| has_loop[component[node as usize] as usize];
    // States are numbered in the order of their depth.
    let first = (0..).zip(&graph.known).find(|&(node, known)| {
        let is_end = known.is_expanded && !known.is_cut && graph.out_of(node).is_empty();
        known.is_away && (in_loop(node) || is_end)
    });
    report.lasso = first.map(|(node, _)| {
        let mut path = way_to(model, starts, &graph, node);
        let back_to = in_loop(node).then_some(path.steps.len());
        if back_to.is_some() {
            for Edge { to, counts } in round(&graph, &component, node) {
                let needs = question.needs.filter(|_| counts);
                let print = graph.known[to as usize].print;
                path.walk(model, print, |action| needs.is_none_or(|needs| needs(action)));
            }
        }
        Lasso { path, back_to }
    });
    report.elapsed = begun.elapsed();
    report
}

fn explore<M>(
    model: &M,
    starts: &[M::State],
    question: &Question<'_, M>,
    limits: Limits,
    report: &mut Report<M>,
    mut on_progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Graph
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    let begun = Instant::now();
    let mut numbers: HashMap<u64, u32, BuildHasherDefault<Identity>> = HashMap::default();
    let mut graph = Graph { known: Vec::new(), edges: Vec::new() };
    let mut waiting = VecDeque::new();
    let meet = |graph: &mut Graph, print: u64, parent: Option<u32>, state: &M::State| {
        let number = u32::try_from(graph.known.len()).expect("fewer than 2^32 states");
        graph.known.push(Known {
            print,
            parent: parent.unwrap_or(number),
            is_away: !(question.happens)(state),
            is_expanded: false,
            is_cut: false,
            edges: usize::MAX,
        });
        number
    };
    for state in starts {
        let print = fingerprint(state);
        if model.within_boundary(state) && !numbers.contains_key(&print) {
            let number = meet(&mut graph, print, None, state);
            numbers.insert(print, number);
            waiting.push_back((number, 1, state.clone()));
        }
    }
    report.generated = waiting.len() as u64;
    let mut actions = Vec::new();
    while let Some((from, depth, state)) = waiting.pop_front() {
        report.depth = report.depth.max(depth);
        if (u64::from(from) + 1).is_multiple_of(TOLD_EVERY) {
            let progress = Progress {
                unique: graph.known.len() as u64,
                generated: report.generated,
                depth,
                frontier: waiting.len() as u64,
            };
            report.incomplete = if on_progress(progress).is_break() {
                Some(Reason::Stopped)
            } else if limits.states.is_some_and(|limit| progress.unique >= limit) {
                Some(Reason::States)
            } else if limits.time.is_some_and(|limit| begun.elapsed() >= limit) {
                Some(Reason::Time)
            } else {
                None
            };
            if report.incomplete.is_some() {
                break;
            }
        }
        graph.known[from as usize].edges = graph.edges.len();
        graph.known[from as usize].is_expanded = true;
        let is_away = graph.known[from as usize].is_away;
        if !is_away && !question.again {
            continue;
        }
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let counts = question.needs.is_none_or(|needs| needs(&action));
            let Some(after) = model.next_state(&state, action) else { continue };
            if !model.within_boundary(&after) {
                graph.known[from as usize].is_cut = true;
                continue;
            }
            report.generated += 1;
            let print = fingerprint(&after);
            let to = match numbers.get(&print) {
                Some(&to) => to,
                None => {
                    let to = meet(&mut graph, print, Some(from), &after);
                    numbers.insert(print, to);
                    waiting.push_back((to, depth + 1, after));
                    to
                }
            };
            // What changes nothing is a loop only if that is something: a tick, after which all is the same.
            let is_edge = to != from || (question.needs.is_some() && counts);
            if is_away && is_edge {
                graph.edges.push(Edge { to, counts });
            }
        }
    }
    let end = graph.edges.len();
    for known in graph.known.iter_mut().filter(|known| !known.is_expanded) {
        known.edges = end;
    }
    graph
}

/// The strongly connected component of each state in which it does not happen.
fn components(graph: &Graph) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let count = graph.known.len();
    let mut component = vec![NONE; count];
    let mut index = vec![NONE; count];
    let mut low = vec![NONE; count];
    let mut stack = Vec::new();
    let mut open: Vec<(u32, std::vec::IntoIter<Edge>)> = Vec::new();
    let (mut next_index, mut next_component) = (0, 0);
    let edges = |node: u32| graph.away(node).collect::<Vec<_>>().into_iter();
    for root in 0..count as u32 {
        if !graph.known[root as usize].is_away || index[root as usize] != NONE {
            continue;
        }
        let mut enter = Some(root);
        loop {
            if let Some(node) = enter.take() {
                index[node as usize] = next_index;
                low[node as usize] = next_index;
                next_index += 1;
                stack.push(node);
                open.push((node, edges(node)));
            }
            let Some((node, left)) = open.last_mut() else { break };
            let node = *node;
            if let Some(Edge { to, .. }) = left.next() {
                let (at, to_at) = (node as usize, to as usize);
                if index[to_at] == NONE {
                    enter = Some(to);
                } else if component[to_at] == NONE {
                    low[at] = low[at].min(index[to_at]);
                }
                continue;
            }
            open.pop();
            if let Some((parent, _)) = open.last() {
                let parent = *parent as usize;
                low[parent] = low[parent].min(low[node as usize]);
            }
            if low[node as usize] == index[node as usize] {
                while let Some(member) = stack.pop() {
                    component[member as usize] = next_component;
                    if member == node {
                        break;
                    }
                }
                next_component += 1;
            }
        }
    }
    // Those in which it happens share one component, in which there is no loop.
    component.iter_mut().filter(|it| **it == NONE).for_each(|it| *it = next_component);
    component
}

/// Which components have a loop that counts.
fn loops(graph: &Graph, component: &[u32]) -> Vec<bool> {
    let count = component.iter().max().map_or(0, |most| *most as usize + 1);
    let mut has_loop = vec![false; count];
    for (node, known) in (0..).zip(&graph.known) {
        let here = component[node as usize];
        if known.is_away
            && graph.away(node).any(|edge| edge.counts && component[edge.to as usize] == here)
        {
            has_loop[here as usize] = true;
        }
    }
    has_loop
}

fn way_to<M>(model: &M, starts: Vec<M::State>, graph: &Graph, node: u32) -> Path<M>
where
    M: Model,
    M::State: Clone + Hash,
    M::Action: Clone,
{
    let mut way = vec![node];
    loop {
        let last = way[way.len() - 1];
        let parent = graph.known[last as usize].parent;
        if parent == last {
            break;
        }
        way.push(parent);
    }
    let print = |node: u32| graph.known[node as usize].print;
    let first = way.pop().map(print).expect("never empty");
    let start = starts.into_iter().find(|state| fingerprint(state) == first);
    let mut path = Path { start: start.expect("a way begins at a first state"), steps: Vec::new() };
    for node in way.into_iter().rev() {
        path.walk(model, print(node), |_| true);
    }
    path
}

/// The shortest loop from a state to itself within its component, with an edge that counts.
fn round(graph: &Graph, component: &[u32], root: u32) -> Vec<Edge> {
    type At = (u32, bool);
    let mut from: std::collections::BTreeMap<At, (At, Edge)> = std::collections::BTreeMap::new();
    let mut waiting = VecDeque::from([(root, false)]);
    while let Some(at) = waiting.pop_front() {
        for edge in graph.away(at.0) {
            if component[edge.to as usize] != component[root as usize] {
                continue;
            }
            let next = (edge.to, at.1 || edge.counts);
            if from.contains_key(&next) {
                continue;
            }
            from.insert(next, (at, edge));
            if next == (root, true) {
                let mut edges = Vec::new();
                let mut here = next;
                loop {
                    let (before, edge) = from[&here];
                    edges.push(edge);
                    here = before;
                    if here == (root, false) {
                        break;
                    }
                }
                edges.reverse();
                return edges;
            }
            waiting.push_back(next);
        }
    }
    unreachable!("the component has a loop that counts, and each of its states leads to each")
}
