//! The states around a story: what else can happen there. A picture of them, and what a report lets a reader
//! try without a server.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::models::path_text;
use super::story::Moment;
use super::telling::moment;
use crate::models::space::{Place, Space, Told};

/// How many states there may be in a picture, and in a report.
pub const STATES_MAX: usize = 300;

/// States, and the ways between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Around {
    /// The states, those of the story first.
    pub states: Vec<Near>,
    /// What can happen in those whose successors were looked for.
    pub ways: Vec<Way>,
    /// Whether every state within that many steps is here.
    pub complete: bool,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Near {
    /// A path to it.
    pub path: String,
    /// How many steps it is away from the story.
    pub distance: usize,
    /// What it looks like.
    pub moment: Moment,
}

/// An action that leads from one of the states to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// The state in which it can happen.
    pub from: usize,
    /// The state to which it leads.
    pub to: usize,
    /// Its number there.
    pub index: u32,
    /// It changes nothing.
    pub idle: bool,
    /// What it is.
    #[serde(flatten)]
    pub told: Told,
    /// What the node sends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<Mail>,
}

/// A message that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// To whom.
    pub dst: u16,
    /// In few words.
    pub msg: String,
}

/// The states within so many steps of these, each of which is named by a path, nearest first; at most
/// [`STATES_MAX`], or as many as are given. No state is listed twice.
//= SPEC EXPLORER-18
pub fn around(space: &dyn Space, begin: &[(Vec<u32>, Place)], steps: usize) -> Around {
    let mut found = Around { complete: true, ..Around::default() };
    let mut places: Vec<(Vec<u32>, Place)> = Vec::new();
    let mut known: BTreeMap<u64, usize> = BTreeMap::new();
    let mut waiting = VecDeque::new();
    let mut meet =
        |found: &mut Around, path: Vec<u32>, place: &Place, distance: usize, may_grow: bool| {
            let print = space.picture(place).fingerprint;
            if let Some(&at) = known.get(&print) {
                return Some((at, None));
            }
            if !may_grow {
                return None;
            }
            let at = found.states.len();
            known.insert(print, at);
            let moment = moment(space, place, distance as u64, None, Vec::new());
            found.states.push(Near { path: path_text(&path), distance, moment });
            Some((at, Some((path, place.clone()))))
        };
    for (path, place) in begin {
        if let Some((at, Some(new))) = meet(&mut found, path.clone(), place, 0, true) {
            places.push(new);
            waiting.push_back(at);
        }
    }
    while let Some(from) = waiting.pop_front() {
        let distance = found.states[from].distance + 1;
        if distance > steps {
            break;
        }
        let (path, place) = places[from].clone();
        for (index, told) in space.actions(&place).into_iter().enumerate() {
            let Some(after) = space.take(&place, index) else { continue };
            let index = u32::try_from(index).expect("few actions");
            let mut longer = path.clone();
            longer.push(index);
            let may_grow = found.states.len() < STATES_MAX;
            let Some((to, new)) = meet(&mut found, longer, &after, distance, may_grow) else {
                found.complete = false;
                continue;
            };
            if let Some(new) = new {
                places.push(new);
                waiting.push_back(to);
            }
            let sends = space.sends(&place, index as usize).into_iter();
            let sends = sends.map(|sent| Mail { dst: sent.dst, msg: sent.msg }).collect();
            found.ways.push(Way { from, to, index, idle: to == from, told, sends });
        }
    }
    found
}
