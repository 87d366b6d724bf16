//! A story: what happened, step by step, and what every node looked like after each. It is what the page
//! draws, whether it comes from a model, from nodes, or from a file of another tool.

use serde::{Deserialize, Serialize};

use super::around::Around;
use crate::models::portrait::Portrait;
use crate::models::space::{Judged, Lane, Pace, Told};
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
    /// What else could have happened, in a report: the states of the story first, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<Around>,
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
    /// How the node's clock has run since it set the timer that runs out, where a model's ticks show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
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
//= SPEC EXPLORER-10
pub fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

impl Story {
    /// The same without its first steps.
    pub fn since(&self, step: usize) -> Self {
        Self {
            tenure_story: self.tenure_story,
            title: self.title.clone(),
            source: self.source.clone(),
            clock: self.clock.clone(),
            lanes: self.lanes.clone(),
            first: self.first.clone(),
            steps: self.steps.get(step..).unwrap_or_default().to_vec(),
            back_to: self.back_to,
            notes: self.notes.clone(),
            around: None,
        }
    }

    /// The moment after so many steps.
    pub fn moment(&self, row: usize) -> Option<&Moment> {
        match row.checked_sub(1) {
            None => Some(&self.first),
            Some(step) => self.steps.get(step).map(|step| &step.after),
        }
    }
}
