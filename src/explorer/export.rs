//! Writes stories: NDJSON, the Informal Trace Format (Apalache ADR-015), PlantUML.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize, Serializer};

use super::story::{Moment, Step, Story};
use crate::models::tree::Tree;

/// One line for the story as a whole, then one for each step.
pub fn ndjson(story: &Story) -> String {
    let mut text = line(&story.since(story.steps.len()));
    for step in &story.steps {
        text += &line(step);
    }
    text
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a story is plain data")
}

fn line(value: &impl Serialize) -> String {
    json(value) + "\n"
}

/// A story in the Informal Trace Format. What the format has no place for is in each state's `#meta`.
#[derive(Serialize, Deserialize)]
pub(super) struct Document<T> {
    #[serde(rename = "#meta")]
    pub(super) meta: Head,
    params: [(); 0],
    vars: [String; 1],
    pub(super) states: Vec<State<T>>,
    #[serde(rename = "loop", default, skip_serializing_if = "Option::is_none")]
    back_to: Option<usize>,
}

/// What is said of all states. Here the format wants texts: the story without its steps is JSON in a text.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    format: String,
    #[serde(rename = "format-description")]
    about_format: String,
    description: String,
    pub(super) tenure: String,
}

/// A state.
#[derive(Serialize, Deserialize)]
pub(super) struct State<T> {
    #[serde(rename = "#meta")]
    pub(super) meta: Meta,
    pub(super) state: T,
}

/// What is said of a state: the step that has led to it, as JSON in a text.
#[derive(Serialize, Deserialize)]
pub(super) struct Meta {
    index: usize,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenure: Option<String>,
}

/// One state for each moment.
pub fn itf(story: &Story) -> String {
    let start = Meta { index: 0, action: "start".to_owned(), tenure: None };
    let first = State { meta: start, state: Shown(&story.first) };
    let rest = story.steps.iter().enumerate().map(|(index, step)| {
        let bare = Step { after: bare(&step.after), ..step.clone() };
        let meta =
            Meta { index: index + 1, action: step.told.label.clone(), tenure: Some(json(&bare)) };
        State { meta, state: Shown(&step.after) }
    });
    let head = Story { steps: Vec::new(), first: bare(&story.first), ..story.clone() };
    line(&Document {
        meta: Head {
            format: "ITF".to_owned(),
            about_format: "https://apalache-mc.org/docs/adr/015adr-trace.html".to_owned(),
            description: story.title.clone(),
            tenure: json(&head),
        },
        params: [],
        vars: ["state".to_owned()],
        states: std::iter::once(first).chain(rest).collect(),
        back_to: story.back_to,
    })
}

/// A moment without its tree, which is the state itself.
fn bare(moment: &Moment) -> Moment {
    Moment { tree: None, ..moment.clone() }
}

/// The state as the format wants it: all of it, or else what each node is doing.
struct Shown<'a>(&'a Moment);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.tree {
            Some(tree) => Value(tree).serialize(serializer),
            None => serializer.collect_seq(self.0.lanes.iter().map(|lane| &lane.role)),
        }
    }
}

/// The largest integer that every reader of JSON holds exactly.
const EXACT_MAX: i128 = (1 << 53) - 1;

/// A tree as the format wants it: integers that a double cannot hold are `#bigint`, and what has keys that
/// are no names is a `#map`.
struct Value<'a>(&'a Tree);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Tree::Leaf(text) => match text.parse::<i128>() {
                Ok(number) if number.to_string() == *text => match i64::try_from(number) {
                    Ok(small) if (-EXACT_MAX..=EXACT_MAX).contains(&number) => {
                        serializer.serialize_i64(small)
                    }
                    _ => serializer.collect_map([("#bigint", text)]),
                },
                _ => serializer.serialize_str(text),
            },
            Tree::List(items) => serializer.collect_seq(items.iter().map(Value)),
            Tree::Fields(fields) if fields.iter().all(|(name, _)| is_field(name)) => {
                serializer.collect_map(fields.iter().map(|(name, field)| (name, Value(field))))
            }
            Tree::Fields(fields) => {
                let pairs: Vec<_> =
                    fields.iter().map(|(name, field)| (name, Value(field))).collect();
                serializer.collect_map([("#map", pairs)])
            }
        }
    }
}

fn is_field(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A sequence diagram: one arrow for each message that arrives or is lost, a note for all else.
pub fn plantuml(story: &Story) -> String {
    let mut text = format!("@startuml\ntitle {}\n", words(&story.title));
    for (node, lane) in story.lanes.iter().enumerate() {
        let _ = writeln!(text, "participant \"{}\" as n{node}", words(&lane.name));
    }
    for step in &story.steps {
        let told = &step.told;
        let label = words(told.msg.as_deref().unwrap_or(&told.label));
        let _ = match (told.kind.as_str(), told.src, told.dst, told.actor) {
            ("deliver", Some(src), Some(dst), _) => {
                let again = if step.again { " (again)" } else { "" };
                writeln!(text, "n{src} -> n{dst} : {label}{again}")
            }
            ("lose", Some(src), Some(dst), _) => {
                writeln!(text, "n{src} ->x n{dst} : {label} (lost)")
            }
            ("elapse", ..) => writeln!(text, "... tick {} ...", step.after.at),
            ("crash", _, _, Some(node)) => {
                writeln!(text, "destroy n{node}\nnote over n{node} : crash")
            }
            (_, _, _, Some(node)) => writeln!(text, "note over n{node} : {}", words(&told.label)),
            _ => writeln!(text, "note across : {}", words(&told.label)),
        };
    }
    text + "@enduml\n"
}

/// A text without anything that ends a line or a string.
fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '"' { ' ' } else { c }).collect()
}
