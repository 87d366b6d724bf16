//! The models that can be explored, and the states that were seen lately.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use super::story::hex;
use crate::models::registry::{Entry, all_mutants, all_safe};
use crate::models::space::{Place, Space};
use crate::models::tree::Tree;

/// How many states are kept. A step needs only the one before it.
const KEPT: usize = 4096;
/// The longest path that is followed.
pub const PATH_MAX: usize = 2_000;
/// What is behind a mutant's name in the name of the same model with its rule.
pub const MENDED: &str = ":mended";

/// How many states are kept as trees: the next step compares with the last.
const TREES: usize = 8;

/// Every registered model.
pub struct Models {
    rows: Vec<Row>,
    places: Mutex<Places>,
    trees: Mutex<VecDeque<(Place, Arc<Tree>)>>,
}

struct Row {
    entry: Entry,
    space: OnceLock<Arc<dyn Space>>,
    mended: OnceLock<Arc<dyn Space>>,
}

/// A state in an explorer's hands.
pub struct Here {
    /// Its model.
    pub space: Arc<dyn Space>,
    /// Itself.
    pub place: Place,
    /// The state before it.
    pub before: Option<Place>,
}

/// Why a state is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nobody knows the model.
    #[error("there is no model {0:?}; the list of models names them")]
    Model(String),
    /// The path is no list of numbers.
    #[error("a path is a list of the numbers of actions such as 0.3.1, not {0:?}")]
    Path(String),
    /// The path is too long.
    #[error("a path has at most {PATH_MAX} actions")]
    Length,
    /// There is no such action.
    #[error(
        "action {index} of the path is the number {number}, and there are only {there}: this link was made for another model"
    )]
    Action {
        /// Its place in the path, from 1.
        index: usize,
        /// Its number.
        number: u32,
        /// How many there are.
        there: usize,
    },
    /// The state is another.
    #[error("this link was made for another model: the path leads to {found} now, not to {wanted}")]
    Fingerprint {
        /// The fingerprint of the state that is there.
        found: String,
        /// The fingerprint in the link.
        wanted: String,
    },
    /// The path does not end in a loop.
    #[error(
        "this link was made for another model: its last state is not that after step {row} again"
    )]
    Loop {
        /// Where the loop should begin.
        row: usize,
    },
}

impl Models {
    /// All of them.
    pub fn new() -> Self {
        let entries = all_safe().into_iter().chain(all_mutants());
        let row = |entry| Row { entry, space: OnceLock::new(), mended: OnceLock::new() };
        Self { rows: entries.map(row).collect(), places: Mutex::default(), trees: Mutex::default() }
    }

    /// The rows of the registry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.iter().map(|row| &row.entry)
    }

    /// The model of that name, or the mutant's of that name with its rule.
    ///
    /// # Errors
    ///
    /// [`Lost::Model`].
    pub fn space(&self, id: &str) -> Result<Arc<dyn Space>, Lost> {
        let (name, mended) = match id.strip_suffix(MENDED) {
            Some(name) => (name, true),
            None => (id, false),
        };
        let found = self.rows.iter().find(|row| row.entry.name == name);
        let space = found.and_then(|row| match (mended, &row.entry.mended) {
            (false, _) => Some(row.space.get_or_init(|| (row.entry.space)())),
            (true, Some(make)) => Some(row.mended.get_or_init(|| make())),
            (true, None) => None,
        });
        space.cloned().ok_or_else(|| Lost::Model(id.to_owned()))
    }

    /// The state at the end of a path. What is not known any more is walked to from the longest part of
    /// the path that is; no lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// [`Lost`], with what to do.
    //= SPEC EXPLORER-1
    pub fn find(&self, id: &str, path: &[u32], fingerprint: Option<&str>) -> Result<Here, Lost> {
        let space = self.space(id)?;
        if path.len() > PATH_MAX {
            return Err(Lost::Length);
        }
        let before = match path.split_last() {
            Some((_, before)) => Some(self.walk(id, &*space, before)?),
            None => None,
        };
        let place = self.walk(id, &*space, path)?;
        if let Some(wanted) = fingerprint {
            let found = hex(space.picture(&place).fingerprint);
            if found != wanted {
                return Err(Lost::Fingerprint { found, wanted: wanted.to_owned() });
            }
        }
        Ok(Here { space, place, before })
    }

    /// All of a state.
    ///
    /// # Panics
    ///
    /// Never: no thread panics with the lock.
    pub fn tree(&self, space: &dyn Space, place: &Place) -> Arc<Tree> {
        let trees = || self.trees.lock().expect("no thread panics with the lock");
        let known = trees().iter().find(|(known, _)| Arc::ptr_eq(known, place)).cloned();
        if let Some((_, tree)) = known {
            return tree;
        }
        let tree = Arc::new(space.tree(place));
        let mut trees = trees();
        trees.push_back((Arc::clone(place), Arc::clone(&tree)));
        if trees.len() > TREES {
            trees.pop_front();
        }
        tree
    }

    fn walk(&self, id: &str, space: &dyn Space, path: &[u32]) -> Result<Place, Lost> {
        let places = || self.places.lock().expect("no thread panics with the lock");
        let known = places().longest(id, path);
        let (mut at, mut place) = known.unwrap_or_else(|| (0, space.start()));
        while at < path.len() {
            let number = path[at];
            place = space.take(&place, number as usize).ok_or_else(|| Lost::Action {
                index: at + 1,
                number,
                there: space.actions(&place).len(),
            })?;
            at += 1;
            places().keep(id, &path[..at], Arc::clone(&place));
        }
        Ok(place)
    }
}

impl Default for Models {
    fn default() -> Self {
        Self::new()
    }
}

/// A path as text, and back.
///
/// # Errors
///
/// [`Lost::Path`].
pub fn parse_path(text: &str) -> Result<Vec<u32>, Lost> {
    let wrong = || Lost::Path(text.chars().take(80).collect());
    text.split('.')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_| wrong()))
        .collect()
}

/// A path as text.
pub fn path_text(path: &[u32]) -> String {
    path.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

type Key = (String, Vec<u32>);

/// The states that were used last.
#[derive(Default)]
struct Places {
    places: BTreeMap<Key, (u64, Place)>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
}

impl Places {
    fn longest(&mut self, id: &str, path: &[u32]) -> Option<(usize, Place)> {
        (1..=path.len()).rev().find_map(|length| {
            let key = (id.to_owned(), path[..length].to_vec());
            let place = self.places.get(&key)?.1.clone();
            self.touch(key, place.clone());
            Some((length, place))
        })
    }

    fn keep(&mut self, id: &str, path: &[u32], place: Place) {
        self.touch((id.to_owned(), path.to_vec()), place);
        while self.places.len() > KEPT {
            let Some((_, key)) = self.by_use.pop_first() else { return };
            self.places.remove(&key);
        }
    }

    fn touch(&mut self, key: Key, place: Place) {
        self.uses += 1;
        if let Some((used, _)) = self.places.insert(key.clone(), (self.uses, place)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, key);
    }
}
