//! The traces of the nodes of a run as a story: checked against the model, step by step.

use std::collections::BTreeSet;

use serde_json::Value;

use super::import::{Named, plain_step, told};
use super::pace::Readings;
use super::story::{Clock, FORMAT, Moment, Sent, Step, Story};
use super::telling::Post;
use crate::lease::Member;
use crate::models::portrait::{Portrait, Portray as _, portrait};
use crate::models::replay::Global;
use crate::models::space::{Judged, Lane, Told, lanes};
use crate::models::tree::Tree;
use crate::trace::check::{Options, Report, Shown, Source, Verdict, check_and_watch};
use crate::trace::format::{Heard, StepOf};

/// The longest trace whose states are kept in full.
const FULL_MAX: usize = 1_000;

/// Reads the traces of the nodes of one run.
///
/// # Errors
///
/// Says why nothing can be shown.
pub(super) fn import(files: &[Named]) -> Result<Story, String> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(name, text)| Source::Memory(name.clone(), text.clone().into_bytes()))
        .collect();
    let heads: Vec<&str> = files.iter().filter_map(|(_, text)| text.lines().next()).collect();
    let lines: usize = files.iter().map(|(_, text)| text.lines().count()).sum();
    let mut nodes = Nodes::new(&heads, lines <= FULL_MAX);
    let mut steps = Vec::new();
    let mut watch = |global: &Global<Member>, node: u16, _: u64, shown: Shown<'_, Member>| {
        steps.extend(nodes.tell(global, node, &shown));
    };
    let report = check_and_watch::<Member>(&sources, Options::default(), Some(&mut watch));
    let notes = verdict(&report);
    nodes.measure(&report);
    match nodes.head() {
        Some(head) => Ok(Story { steps, notes, ..head }),
        None => Err(notes.join("; ")),
    }
}

/// What a check has come to, in words.
pub(super) fn verdict(report: &Report) -> Vec<String> {
    let verdict = match report.verdict {
        Verdict::Accepted => "accepted: the run is a behaviour of the checked model",
        Verdict::Rejected => "REJECTED: the run cannot have been, or a property did not hold",
        Verdict::Inconclusive => "inconclusive: the traces do not say enough",
    };
    let problem = report.problem.iter();
    let problem = problem.map(|it| format!("{}:{}: {}", it.file, it.line, it.what));
    std::iter::once(verdict.to_owned()).chain(problem).collect()
}

/// Tells what the nodes of one lease have done.
pub(super) struct Nodes {
    cluster: String,
    common: bool,
    with_trees: bool,
    /// The lease of the story: the one that comes first.
    lease: Option<u16>,
    lanes: Vec<Lane>,
    first: Option<Moment>,
    last: Option<Moment>,
    told: usize,
    post: Post,
    /// Which nodes are up, and when each has taken its last step.
    up: Vec<Option<u64>>,
    /// After how long without a step a node is silent, in nanoseconds.
    silent_after: u64,
    /// What the nodes' clocks have read, in a simulated run.
    readings: Readings,
}

impl Nodes {
    /// With the first line of each trace.
    //= SPEC EXPLORER-12
    pub(super) fn new(heads: &[&str], with_trees: bool) -> Self {
        let heads: Vec<Value> =
            heads.iter().filter_map(|head| serde_json::from_str(head).ok()).collect();
        let clocks: BTreeSet<_> =
            heads.iter().map(|head| head["clock"]["name"].to_string()).collect();
        let cluster = heads.first().and_then(|head| head["cluster"].as_str());
        Self {
            cluster: cluster.unwrap_or("a cluster").to_owned(),
            common: clocks.len() == 1,
            with_trees,
            lease: None,
            lanes: Vec::new(),
            first: None,
            last: None,
            told: 0,
            post: Post::default(),
            up: Vec::new(),
            silent_after: u64::MAX,
            readings: Readings::default(),
        }
    }

    /// Says in each lane how its clock has run, now that all is read.
    pub(super) fn measure(&mut self, report: &Report) {
        self.readings.tell(&mut self.lanes, &report.rates);
    }

    /// The nodes.
    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The story without its steps; none before the first.
    pub(super) fn head(&self) -> Option<Story> {
        Some(Story {
            tenure_story: FORMAT,
            title: format!("a run of {}", self.cluster),
            source: "nodes".to_owned(),
            clock: Clock {
                unit: "ns".to_owned(),
                common: self.common,
                about: if self.common {
                    "all nodes read one clock: an overlap of two bars is certain"
                } else {
                    "each node has a clock of its own: steps are in an order in which sending comes first, and \
                     an overlap of two bars is not certain"
                }
                .to_owned(),
            },
            lanes: self.lanes.clone(),
            first: self.first.clone()?,
            steps: Vec::new(),
            back_to: None,
            notes: Vec::new(),
            around: None,
        })
    }

    /// What is to be told of this. The end of a life is recorded by nobody: it is inferred from the next.
    //= SPEC EXPLORER-14
    pub(super) fn tell(
        &mut self,
        global: &Global<Member>,
        node: u16,
        shown: &Shown<'_, Member>,
    ) -> Option<Step> {
        let step = match shown {
            Shown::Life(lease) if self.lease == Some(*lease) => self.end(global, node)?,
            Shown::Step(step) if *self.lease.get_or_insert(step.lease) == step.lease => {
                self.step(global, node, step)
            }
            _ => return None,
        };
        self.told += 1;
        self.last = Some(step.after.clone());
        Some(step)
    }

    fn name(&self, node: u16) -> String {
        let lane = self.lanes.get(usize::from(node));
        lane.map_or_else(|| format!("n{node}"), |lane| lane.name.clone())
    }

    fn end(&mut self, global: &Global<Member>, node: u16) -> Option<Step> {
        self.up[usize::from(node)].take()?;
        self.readings.forget(node);
        let at = self.last.as_ref()?.at.clone();
        let after = self.moment(global, at);
        let label = format!("{} ends: its next life begins", self.name(node));
        let told = Told { actor: Some(node), ..told("crash", label) };
        Some(Step { inferred: true, ..plain_step(told, false, after) })
    }

    fn begin(&mut self, global: &Global<Member>, at: u64) {
        let actors = &global.world().actors;
        self.lanes = lanes(actors);
        self.up = vec![None; actors.len()];
        let timing = actors.iter().find_map(|actor| match actor {
            Member::Host(host) => Some(host.elector.timing),
            _ => None,
        });
        if let Some(timing) = timing {
            // A host that runs reads or renews at least that often.
            let often = timing.renew.max(timing.poll) * 2;
            let silent_after = often.min(timing.give_up).as_nanos();
            self.silent_after = u64::try_from(silent_after).unwrap_or(u64::MAX);
        }
        let down = Portrait {
            role: "down".to_owned(),
            condition: "down".to_owned(),
            ..Portrait::default()
        };
        self.first = Some(Moment {
            at: at.to_string(),
            lanes: vec![down; actors.len()],
            properties: Vec::new(),
            tree: None,
            changes: Vec::new(),
            fingerprint: None,
        });
    }

    fn step(&mut self, global: &Global<Member>, node: u16, step: &StepOf<Member>) -> Step {
        let time = step.sim.unwrap_or(step.at);
        if self.first.is_none() {
            self.begin(global, time);
        }
        self.common |= step.sim.is_some();
        if let Some(sim) = step.sim {
            self.readings.note(node, sim, step.at);
        }
        self.up[usize::from(node)] = Some(time);
        let mut uid = None;
        let mut again = false;
        let told = match &step.input {
            Heard::Start { .. } => told("recover", format!("{} starts", self.name(node))),
            Heard::Deliver { src, seq, msg, .. } => {
                let full = format!("{msg:?}");
                if let Some((found, before)) =
                    self.post.arrive(*src, node, &format!("{seq} {full}"), true)
                {
                    (uid, again) = (Some(found), before);
                }
                let brief = Member::brief(msg);
                let label = format!("{} → {}: {brief}", self.name(*src), self.name(node));
                Told {
                    src: Some(*src),
                    dst: Some(node),
                    msg: Some(brief),
                    full: Some(full),
                    ..told("deliver", label)
                }
            }
            Heard::Own { msg } | Heard::Told { msg } => {
                let brief = Member::brief(msg);
                let full = Some(format!("{msg:?}"));
                let label = format!("{} is told: {brief}", self.name(node));
                Told { dst: Some(node), msg: Some(brief), full, ..told("say", label) }
            }
            Heard::Fire { timer, .. } => {
                let timer = format!("{timer:?}");
                let label = format!("{}: timer {timer}", self.name(node));
                Told { msg: Some(timer), ..told("fire", label) }
            }
            Heard::Choose { .. } => told("choose", format!("{} chooses", self.name(node))),
        };
        let told = Told { actor: Some(node), ..told };
        let n = self.told + 1;
        let mut sends = Vec::new();
        for (k, sent) in step.sends.iter().enumerate() {
            let Some(seq) = sent.seq else { continue };
            let uid = format!("{n}.{k}");
            let full = format!("{seq} {:?}", sent.msg);
            self.post.send(uid.clone(), node, sent.to, &full);
            sends.push(Sent { uid, dst: sent.to, msg: Member::brief(&sent.msg) });
        }
        let after = self.moment(global, time.to_string());
        let idle = step.pre == step.post && sends.is_empty();
        Step { uid, again, sends, ..plain_step(told, idle, after) }
    }

    fn moment(&self, global: &Global<Member>, at: String) -> Moment {
        let (world, state) = (global.world(), global.state());
        let nodes = world.actors.iter().zip(&state.nodes).enumerate();
        let mut lanes: Vec<Portrait> =
            nodes.map(|(id, (actor, node))| portrait(actor, id, node)).collect();
        // The world of a run has no time: a window in it would say nothing.
        let facts = lanes.iter_mut().flat_map(|lane| &mut lane.facts);
        for (_, value) in facts.filter(|(name, _)| name.starts_with("timer ")) {
            "armed".clone_into(value);
        }
        // A process that was killed writes nothing more. Nobody may take what it last was for what it is.
        let time = at.parse().unwrap_or(0_u64);
        for (lane, up) in lanes.iter_mut().zip(&self.up) {
            let silence = up.map_or(0, |last| time.saturating_sub(last));
            if self.common && lane.condition == "running" && silence > self.silent_after {
                lane.condition = "silent".to_owned();
            }
        }
        let properties = world.properties.iter().map(|property| Judged {
            name: property.name.to_owned(),
            always: property.expectation == stateright::Expectation::Always,
            is_true: (property.condition)(world, state),
        });
        let properties = properties.collect();
        let tree = self.with_trees.then(|| Tree::of(&state.nodes));
        let before = self.last.as_ref().and_then(|last| last.tree.as_ref());
        let changes = match (before, &tree) {
            (Some(old), Some(new)) => new.changes_since(old),
            _ => Vec::new(),
        };
        Moment { at, lanes, properties, tree, changes, fingerprint: None }
    }
}
