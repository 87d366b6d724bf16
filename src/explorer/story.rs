//! A story: what happened, step by step, and what every node looked like after each. It is what the page
//! draws, whether it comes from a model, from nodes, or from a file of another tool.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::models::portrait::Portrait;
use crate::models::space::{Judged, Lane, Place, Space, Told};
use crate::models::tree::{Change, Tree};

/// The version of the form.
pub const FORMAT: u32 = 1;

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// [`FORMAT`].
    pub tenure_story: u32,
    /// What it is about.
    pub title: String,
    /// Where it comes from: `model`, `nodes` or `file`.
    pub source: String,
    /// Which clock its times are of.
    pub clock: Clock,
    /// The nodes.
    pub lanes: Vec<Lane>,
    /// Before anything has happened.
    pub first: Moment,
    /// What happened.
    pub steps: Vec<Step>,
    /// What follows the last step: the step after which this one came too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<usize>,
    /// What else a reader should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The clock of a story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// `ticks`, `ns` or `steps`.
    pub unit: String,
    /// Whether all nodes share it. Only then is an overlap of two bars certain.
    pub common: bool,
    /// What it is, in words.
    pub about: String,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// The time: a number of the clock's unit.
    pub at: String,
    /// Each node.
    pub lanes: Vec<Portrait>,
    /// Each property, where a model judges them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Judged>,
    /// All of the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
    /// What has changed in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Its fingerprint, as 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What happened.
    #[serde(flatten)]
    pub told: Told,
    /// The number of the action, in a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The name of the message that arrives or is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The message has arrived before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
    /// It has changed nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idle: bool,
    /// Nobody has recorded or planned it: it follows from the rest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inferred: bool,
    /// It could not happen here, though it is in the schedule.
    #[serde(default, skip_serializing_if = "is_false")]
    pub impossible: bool,
    /// What the node sends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<Sent>,
    /// The moment after it.
    pub after: Moment,
}

/// A message that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its name.
    pub uid: String,
    /// To whom.
    pub dst: u16,
    /// In few words.
    pub msg: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A fingerprint as text: JSON's numbers are not that long everywhere.
pub fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

/// Finds the sending of what arrives.
#[derive(Default)]
pub struct Post {
    sent: BTreeMap<(u16, u16, String), Vec<(String, bool)>>,
}

impl Post {
    /// Notes a sending.
    pub fn send(&mut self, uid: String, src: u16, dst: u16, full: &str) {
        self.sent.entry((src, dst, full.to_owned())).or_default().push((uid, false));
    }

    /// The name of what arrives, and whether it has arrived before. `is_kept`: it may arrive again.
    ///
    /// Of several alike the newest that has not arrived yet is taken: it alone cannot be shown to be late.
    pub fn arrive(
        &mut self,
        src: u16,
        dst: u16,
        full: &str,
        is_kept: bool,
    ) -> Option<(String, bool)> {
        let waiting = self.sent.get_mut(&(src, dst, full.to_owned()))?;
        let place = waiting.iter().rposition(|(_, arrived)| !arrived);
        let place = place.or_else(|| waiting.len().checked_sub(1))?;
        let (uid, again) = waiting[place].clone();
        waiting[place].1 = true;
        if !is_kept {
            waiting.clear();
        }
        Some((uid, again))
    }
}

/// Tells a walk through a model.
pub struct Teller<'a> {
    space: &'a dyn Space,
    with_trees: bool,
    post: Post,
    place: Place,
    at: u64,
    tree: Option<Tree>,
    story: Story,
}

impl<'a> Teller<'a> {
    /// Begins at the first state. `with_trees`: all of each state is told, not only what nodes look like.
    pub fn new(title: &str, space: &'a dyn Space, with_trees: bool) -> Self {
        let place = space.start();
        let timed = space.is_timed();
        let clock = Clock {
            unit: if timed { "ticks" } else { "steps" }.to_owned(),
            common: true,
            about: if timed {
                "the model's own ticks, one clock for all nodes: an overlap is certain"
            } else {
                "this model has no clock: bars count steps, and an overlap is certain"
            }
            .to_owned(),
        };
        let mut post = Post::default();
        for (n, (src, sending)) in space.under_way(&place).into_iter().enumerate() {
            post.send(format!("0.{n}"), src, sending.dst, &sending.full);
        }
        let tree = with_trees.then(|| space.tree(&place));
        let first = moment(space, &place, 0, tree.clone(), Vec::new());
        let story = Story {
            tenure_story: FORMAT,
            title: title.to_owned(),
            source: "model".to_owned(),
            clock,
            lanes: space.lanes(),
            first,
            steps: Vec::new(),
            back_to: None,
            notes: Vec::new(),
        };
        Self { space, with_trees, post, place, at: 0, tree, story }
    }

    /// Where the story has come to.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Takes the action of that number; says whether there is one.
    pub fn take(&mut self, index: u32) -> bool {
        let space = self.space;
        let number = index as usize;
        let mut actions = space.actions(&self.place);
        let Some(after) = space.take(&self.place, number) else { return false };
        if number >= actions.len() {
            return false;
        }
        let told = actions.swap_remove(number);
        self.at += u64::from(told.kind == "elapse");
        let n = self.story.steps.len() + 1;
        let (mut uid, mut again) = (None, false);
        if let (Some(src), Some(dst), Some(full)) = (told.src, told.dst, &told.full)
            && matches!(told.kind.as_str(), "deliver" | "lose")
        {
            let is_kept = space.is_kept(&self.place, number, &after);
            (uid, again) = match self.post.arrive(src, dst, full, is_kept) {
                Some((uid, again)) => (Some(uid), again),
                None => (None, false),
            };
        }
        let mut sends = Vec::new();
        let sendings = space.sends(&self.place, number).into_iter();
        let sendings: Vec<_> = match (told.kind.as_str(), told.actor) {
            // Whoever acts from outside may make a node start again: what it says is new on the network.
            ("intervene", _) => {
                let known = space.under_way(&self.place);
                let now = space.under_way(&after).into_iter();
                now.filter(|one| !known.contains(one)).collect()
            }
            (_, Some(actor)) => sendings.map(|sending| (actor, sending)).collect(),
            _ => Vec::new(),
        };
        for (k, (src, sending)) in sendings.into_iter().enumerate() {
            let uid = format!("{n}.{k}");
            self.post.send(uid.clone(), src, sending.dst, &sending.full);
            sends.push(Sent { uid, dst: sending.dst, msg: sending.msg });
        }
        let idle = space.is_same(&self.place, &after);
        let tree = self.with_trees.then(|| space.tree(&after));
        let changes = match (&self.tree, &tree) {
            (Some(old), Some(new)) => new.changes_since(old),
            _ => Vec::new(),
        };
        self.tree.clone_from(&tree);
        let after_ = moment(space, &after, self.at, tree, changes);
        self.place = after;
        self.story.steps.push(Step {
            told,
            index: Some(index),
            uid,
            again,
            idle,
            inferred: false,
            impossible: false,
            sends,
            after: after_,
        });
        true
    }

    /// Notes that the last step was not in the schedule.
    pub fn inferred(&mut self) {
        if let Some(step) = self.story.steps.last_mut() {
            step.inferred = true;
        }
    }

    /// Notes that this was in the schedule and cannot happen.
    pub fn miss(&mut self, told: Told) {
        let after = self.story.steps.last().map_or(&self.story.first, |step| &step.after).clone();
        let after = Moment { changes: Vec::new(), ..after };
        self.story.steps.push(Step {
            told,
            index: None,
            uid: None,
            again: false,
            idle: true,
            inferred: false,
            impossible: true,
            sends: Vec::new(),
            after,
        });
    }

    /// The story so far.
    pub fn end(self) -> Story {
        self.story
    }
}

fn moment(
    space: &dyn Space,
    place: &Place,
    at: u64,
    tree: Option<Tree>,
    changes: Vec<Change>,
) -> Moment {
    let picture = space.picture(place);
    Moment {
        at: at.to_string(),
        lanes: picture.lanes,
        properties: picture.properties,
        tree,
        changes,
        fingerprint: Some(hex(picture.fingerprint)),
    }
}

/// Tells a path. None if one of its actions is not there.
pub fn tell(title: &str, space: &dyn Space, path: &[u32], with_trees: bool) -> Option<Story> {
    let mut teller = Teller::new(title, space, with_trees);
    path.iter().all(|&index| teller.take(index)).then(|| teller.end())
}

/// How many steps that are due may come before one tick.
const DUE_MAX: usize = 8;

/// Takes the schedule of a story through another model: each step is the action there that is called the
/// same, or else the one that is of the same kind between the same nodes; what has none is marked. Where a
/// tick cannot pass because something is due there, that comes first, and is marked too.
pub fn retell(title: &str, space: &dyn Space, schedule: &Story) -> Story {
    let mut teller = Teller::new(title, space, false);
    for step in &schedule.steps {
        let wanted = &step.told;
        for _ in 0..DUE_MAX {
            match (find(space, teller.place(), wanted), due(space, teller.place())) {
                (None, Some(due)) if wanted.kind == "elapse" && teller.take(due) => {
                    teller.inferred()
                }
                _ => break,
            }
        }
        match find(space, teller.place(), wanted) {
            Some(index) if teller.take(index) => {}
            _ => teller.miss(wanted.clone()),
        }
    }
    teller.end()
}

/// The action that comes closest to what is wanted.
fn find(space: &dyn Space, place: &Place, wanted: &Told) -> Option<u32> {
    let actions = space.actions(place);
    let by = |same: &dyn Fn(&Told) -> bool| actions.iter().position(same);
    let is_alike = |told: &Told| {
        let word =
            |told: &Told| told.msg.as_ref().map(|msg| msg.split(' ').next().map(str::to_owned));
        (&told.kind, told.actor, told.src, told.dst, word(told))
            == (&wanted.kind, wanted.actor, wanted.src, wanted.dst, word(wanted))
    };
    let found = by(&|told| told == wanted)
        .or_else(|| by(&|told| (&told.kind, &told.label) == (&wanted.kind, &wanted.label)))
        .or_else(|| by(&is_alike));
    found.and_then(|index| u32::try_from(index).ok())
}

/// Something that keeps a tick from passing: a timer, what a node tells itself, or a message that must have
/// arrived. One after which the tick may pass, if there is one.
fn due(space: &dyn Space, place: &Place) -> Option<u32> {
    let actions = space.actions(place).into_iter().enumerate();
    let mut all: Vec<(bool, usize)> = actions
        .filter(|(_, told)| told.kind == "fire" || told.kind == "deliver")
        .map(|(index, told)| (told.kind == "deliver" && told.src != told.dst, index))
        .collect();
    all.sort_unstable();
    let local: Vec<usize> = all.into_iter().map(|(_, index)| index).collect();
    let frees = |index: &&usize| {
        let after = space.take(place, **index);
        after.is_some_and(|after| space.actions(&after).iter().any(|told| told.kind == "elapse"))
    };
    let found = local.iter().find(frees).or_else(|| local.first());
    found.and_then(|&index| u32::try_from(index).ok())
}
