//! Reads stories: what an explorer has written, traces of nodes, counterexamples of `tenure check`, and
//! the Informal Trace Format of other tools.

use serde_json::Value;

use super::export::{Document, State};
use super::nodes;
use super::story::{Clock, FORMAT, Moment, Step, Story};
use crate::models::portrait::Portrait;
use crate::models::space::{Lane, Told};
use crate::models::tree::Tree;

/// A file: its name and what is in it.
pub type Named = (String, String);

/// Reads one story from one file, or from the traces of the nodes of one run.
///
/// # Errors
///
/// Says what is wrong with which file, and what to do.
//= SPEC EXPLORER-13
pub fn import(files: &[Named]) -> Result<Story, String> {
    let Some((name, text)) = files.first() else {
        return Err("name a file: NDJSON or ITF".to_owned());
    };
    let head: Option<Value> = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
    let has = |key: &str| head.as_ref().is_some_and(|head| head.get(key).is_some());
    if has("tenure_trace") {
        return nodes::import(files);
    }
    if files.len() > 1 {
        return Err(format!("{name}: only the traces of nodes are opened several at a time"));
    }
    if has("tenure_story") {
        return ndjson(text).map_err(|error| format!("{name}: {error}"));
    }
    let whole: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "{name}: neither NDJSON of nodes or of an explorer, nor ITF: {error}; `tenure node --trace` and \
             `tenure trace export --itf` write such files"
        )
    })?;
    if whole.pointer("/#meta/tenure").is_some() {
        return own_itf(text).map_err(|error| format!("{name}: {error}"));
    }
    if whole.get("states").is_some() {
        return itf(name, &whole).map_err(|error| format!("{name}: {error}"));
    }
    if whole.get("steps").is_some() {
        return counterexample(&whole).map_err(|error| format!("{name}: {error}"));
    }
    Err(format!("{name}: this JSON has neither `states`, as ITF has, nor `steps`"))
}

fn ndjson(text: &str) -> Result<Story, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let wrong = |(at, error): (usize, serde_json::Error)| format!("line {}: {error}", at + 1);
    let (at, head) = lines.next().ok_or("the file is empty")?;
    let mut story: Story = serde_json::from_str(head).map_err(|error| wrong((at, error)))?;
    for (at, line) in lines {
        story.steps.push(serde_json::from_str(line).map_err(|error| wrong((at, error)))?);
    }
    sound(story)
}

/// A story that the page can draw: every node has a lane.
fn sound(story: Story) -> Result<Story, String> {
    if story.tenure_story != FORMAT {
        return Err(format!(
            "this is form {} of a story, and this release reads form {FORMAT}",
            story.tenure_story
        ));
    }
    let lanes = story.lanes.len();
    let moments = std::iter::once(&story.first).chain(story.steps.iter().map(|step| &step.after));
    for (index, moment) in moments.enumerate() {
        if moment.lanes.len() != lanes {
            return Err(format!(
                "after step {index} there are {} nodes, and the story has {lanes}",
                moment.lanes.len()
            ));
        }
    }
    Ok(story)
}

// -------------------------------------------------------------------------------------------------
// ITF
// -------------------------------------------------------------------------------------------------

fn itf(name: &str, document: &Value) -> Result<Story, String> {
    let states = document["states"].as_array().ok_or("`states` is no list")?;
    if states.is_empty() {
        return Err("there is no state".to_owned());
    }
    let trees: Vec<Tree> = states.iter().map(without_meta).collect();
    let actor = |state: &Value| {
        let node = &state["#meta"]["node"];
        node.as_str()
            .and_then(|node| node.parse().ok())
            .or_else(|| node.as_u64().map(|node| node as u16))
    };
    let most = states.iter().filter_map(actor).max();
    let names: Vec<String> = match most {
        Some(most) => (0..=most).map(|node| format!("n{node}")).collect(),
        None => vec!["state".to_owned()],
    };
    let lanes: Vec<Lane> =
        names.into_iter().map(|name| Lane { name, kind: "node".to_owned(), pace: None }).collect();
    let blank =
        vec![Portrait { condition: "running".to_owned(), ..Portrait::default() }; lanes.len()];
    let moment = |index: usize, changes| Moment {
        at: index.to_string(),
        lanes: blank.clone(),
        properties: Vec::new(),
        tree: Some(trees[index].clone()),
        changes,
        fingerprint: None,
    };
    let steps = states.iter().enumerate().skip(1).map(|(index, state)| {
        let words = ["action", "mbt::actionTaken"]
            .iter()
            .find_map(|key| state["#meta"][*key].as_str().or_else(|| state[*key].as_str()));
        let label = words.map_or_else(|| format!("state {index}"), str::to_owned);
        let changes = trees[index].changes_since(&trees[index - 1]);
        let told = Told { actor: actor(state), ..told("step", label) };
        plain_step(told, changes.is_empty(), moment(index, changes))
    });
    let description = document.pointer("/#meta/description").and_then(Value::as_str);
    Ok(Story {
        tenure_story: FORMAT,
        title: description.unwrap_or(name).to_owned(),
        source: "file".to_owned(),
        clock: Clock {
            unit: "steps".to_owned(),
            common: false,
            about:
                "the file has no clock: what is beside each other need not have been at one time"
                    .to_owned(),
        },
        lanes,
        first: moment(0, Vec::new()),
        steps: steps.collect(),
        back_to: document["loop"].as_u64().and_then(|at| usize::try_from(at).ok()),
        notes: Vec::new(),
        around: None,
    })
}

/// What an explorer has written. Read by itself, because a generic value forgets the order of fields.
fn own_itf(text: &str) -> Result<Story, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let document: Document<Tree> = serde_json::from_str(text).map_err(wrong)?;
    let mut story: Story = serde_json::from_str(&document.meta.tenure).map_err(wrong)?;
    let with_trees = document.states.iter().any(|state| matches!(state.state, Tree::Fields(_)));
    for (index, State { meta, state }) in document.states.into_iter().enumerate() {
        let tree = with_trees.then(|| plain(state));
        match meta.tenure {
            None if index == 0 => story.first.tree = tree,
            None => return Err(format!("state {index} does not say what has led to it")),
            Some(step) => {
                let mut step: Step = serde_json::from_str(&step).map_err(wrong)?;
                step.after.tree = tree;
                story.steps.push(step);
            }
        }
    }
    sound(story)
}

/// A tree without what the format has added to it.
fn plain(tree: Tree) -> Tree {
    match tree {
        Tree::Fields(mut fields) if fields.len() == 1 && fields[0].0 == "#bigint" => {
            fields.remove(0).1
        }
        Tree::Fields(mut fields) if fields.len() == 1 && fields[0].0 == "#map" => {
            let Tree::List(pairs) = fields.remove(0).1 else { return Tree::Fields(Vec::new()) };
            let pair = |pair| match pair {
                Tree::List(mut pair) if pair.len() == 2 => {
                    let value = pair.remove(1);
                    let Tree::Leaf(key) = pair.remove(0) else { return None };
                    Some((key, plain(value)))
                }
                _ => None,
            };
            Tree::Fields(pairs.into_iter().filter_map(pair).collect())
        }
        Tree::Fields(fields) => {
            Tree::Fields(fields.into_iter().map(|(name, field)| (name, plain(field))).collect())
        }
        Tree::List(items) => Tree::List(items.into_iter().map(plain).collect()),
        leaf @ Tree::Leaf(_) => leaf,
    }
}

/// A value of the format as a tree.
fn from_itf(value: &Value) -> Tree {
    match value {
        Value::Object(fields) => {
            let only = fields.iter().next().filter(|_| fields.len() == 1);
            match only {
                Some((key, Value::String(number))) if key == "#bigint" => {
                    Tree::Leaf(number.clone())
                }
                Some((key, Value::Array(items))) if key == "#tup" || key == "#set" => {
                    Tree::List(items.iter().map(from_itf).collect())
                }
                Some((key, Value::Array(pairs))) if key == "#map" => {
                    let pair = |pair: &Value| {
                        let key = match from_itf(&pair[0]) {
                            Tree::Leaf(text) => text,
                            other => serde_json::to_string(&other).expect("a tree is plain data"),
                        };
                        (key, from_itf(&pair[1]))
                    };
                    Tree::Fields(pairs.iter().map(pair).collect())
                }
                _ => {
                    let fields = fields.iter().map(|(name, field)| (name.clone(), from_itf(field)));
                    Tree::Fields(fields.collect())
                }
            }
        }
        Value::Array(items) => Tree::List(items.iter().map(from_itf).collect()),
        Value::String(text) => Tree::Leaf(text.clone()),
        other => Tree::Leaf(other.to_string()),
    }
}

fn without_meta(state: &Value) -> Tree {
    match from_itf(state) {
        Tree::Fields(fields) => {
            Tree::Fields(fields.into_iter().filter(|(name, _)| name != "#meta").collect())
        }
        other => other,
    }
}

// -------------------------------------------------------------------------------------------------
// Counterexamples of `tenure check`
// -------------------------------------------------------------------------------------------------

fn counterexample(document: &Value) -> Result<Story, String> {
    let steps = document["steps"].as_array().ok_or("`steps` is no list")?;
    let nodes = |step: &Value| -> Vec<Tree> {
        let nodes = step["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        nodes.iter().map(|node| Tree::parse(node.as_str().unwrap_or_default())).collect()
    };
    let count = steps.first().map_or(1, |step| nodes(step).len().max(1));
    let lanes = (0..count).map(|node| Lane {
        name: format!("n{node}"),
        kind: "node".to_owned(),
        pace: None,
    });
    let blank = vec![Portrait { condition: "running".to_owned(), ..Portrait::default() }; count];
    let moment = |at: String, tree, changes| Moment {
        at,
        lanes: blank.clone(),
        properties: Vec::new(),
        tree,
        changes,
        fingerprint: None,
    };
    let mut before: Option<Tree> = None;
    let mut told_steps = Vec::new();
    for step in steps {
        let tree = Tree::List(nodes(step));
        let changes = before.as_ref().map(|before| tree.changes_since(before)).unwrap_or_default();
        let at = step["at"].as_u64().unwrap_or_default().to_string();
        let event = &step["event"];
        let (kind, body) = match event {
            Value::Object(fields) => fields
                .iter()
                .next()
                .map(|(kind, body)| (kind.clone(), body.clone()))
                .unwrap_or_default(),
            other => (other.as_str().unwrap_or("step").to_owned(), Value::Null),
        };
        let number = |key: &str| body[key].as_u64().and_then(|number| u16::try_from(number).ok());
        let actor = number("dst")
            .or_else(|| number("node"))
            .or_else(|| body.as_u64().and_then(|node| u16::try_from(node).ok()));
        let words = if body.is_null() { String::new() } else { format!(" {body}") };
        let told = Told { actor, ..told(&kind, format!("{kind}{words}")) };
        let idle = before.is_some() && changes.is_empty();
        told_steps.push(plain_step(told, idle, moment(at, Some(tree.clone()), changes)));
        before = Some(tree);
    }
    Ok(Story {
        tenure_story: FORMAT,
        title: document["model"].as_str().unwrap_or("a counterexample").to_owned(),
        source: "file".to_owned(),
        clock: Clock {
            unit: "ticks".to_owned(),
            common: true,
            about: "the model's own ticks, one clock for all nodes".to_owned(),
        },
        lanes: lanes.collect(),
        first: moment("0".to_owned(), None, Vec::new()),
        steps: told_steps,
        back_to: None,
        notes: Vec::new(),
        around: None,
    })
}

pub(super) fn told(kind: &str, label: String) -> Told {
    Told { kind: kind.to_owned(), label, actor: None, src: None, dst: None, msg: None, full: None }
}

pub(super) fn plain_step(told: Told, idle: bool, after: Moment) -> Step {
    Step {
        told,
        index: None,
        uid: None,
        again: false,
        idle,
        inferred: false,
        impossible: false,
        sends: Vec::new(),
        pace: None,
        after,
    }
}
