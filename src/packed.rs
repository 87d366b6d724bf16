//! An ordered map for very many small entries: cheap to clone and to compare with an older self, and close to the
//! size of what its entries take in a file.
//!
//! Few entries are kept as they are. Many are packed: runs of neighbours, each in its postcard form, one run in one
//! piece of memory. A change copies one run, and a reader gets a value of its own. How many entries a map has had
//! decides in which of the two forms it is, and nothing that can be seen from outside depends on that: equality,
//! order, hash and debug form are those of the entries.

mod cache;
mod digest;
mod entries;
mod pile;
mod runs;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
#[cfg(test)]
use std::sync::Arc;

use either::Either;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::cache::Cache;
pub use self::cache::{Scratch, keep_in};
pub use self::digest::DigestedMap;
use self::entries::unpack;
use self::pile::Pile;
use self::runs::Runs;

/// Up to so many entries are kept as they are.
const FEW: usize = 256;

/// What can be a key: its postcard form is read again for each comparison.
pub trait Key: Ord + Copy + Serialize + DeserializeOwned {}
impl<K: Ord + Copy + Serialize + DeserializeOwned> Key for K {}

/// What can be a value. Equal values must have equal postcard forms.
pub trait Value: Clone + Serialize + DeserializeOwned {}
impl<V: Clone + Serialize + DeserializeOwned> Value for V {}

/// See the module. A clone costs a pointer, a difference what has changed.
#[derive(Clone)]
pub struct PackedMap<K, V>(Form<K, V>);

#[derive(Clone)]
enum Form<K, V> {
    Few(OrdMap<K, V>),
    Many(Runs<K, V>),
}

impl<K: Key, V: Value> PackedMap<K, V> {
    /// The value at a key.
    pub fn get(&self, key: &K) -> Option<Cow<'_, V>> {
        match &self.0 {
            Form::Few(map) => map.get(key).map(Cow::Borrowed),
            Form::Many(runs) => runs.get(key).map(Cow::Owned),
        }
    }

    /// The value at a key, to be changed and put back.
    pub fn cloned(&self, key: &K) -> Option<V> {
        self.get(key).map(Cow::into_owned)
    }

    /// Whether there is a value at a key.
    pub fn contains(&self, key: &K) -> bool {
        match &self.0 {
            Form::Few(map) => map.contains_key(key),
            Form::Many(runs) => runs.contains(key),
        }
    }

    /// Sets the value at a key and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.0 {
            Form::Few(map) => {
                let old = map.insert(key, value);
                if map.len() > FEW {
                    self.0 = Form::Many(self.runs().into_owned());
                }
                old
            }
            Form::Many(runs) => runs.insert(key, &value),
        }
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.0 {
            Form::Few(map) => map.remove(key),
            Form::Many(runs) => runs.remove(key),
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Few(map) => map.len(),
            Form::Many(runs) => runs.len,
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (K, Cow<'_, V>)> {
        match &self.0 {
            Form::Few(map) => {
                Either::Left(map.iter().map(|(&key, value)| (key, Cow::Borrowed(value))))
            }
            Form::Many(runs) => {
                Either::Right(runs.read(None, |key, value| (key, Cow::Owned(unpack(value)))))
            }
        }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        match &self.0 {
            Form::Few(map) => Either::Left(map.keys().copied()),
            Form::Many(runs) => Either::Right(runs.read(None, |key, _| key)),
        }
    }

    /// The keys from one on, in order.
    pub fn keys_from(&self, key: K) -> impl Iterator<Item = K> {
        match &self.0 {
            Form::Few(map) => Either::Left(map.range(key..).map(|(&key, _)| key)),
            Form::Many(runs) => Either::Right(runs.read(Some(key), |key, _| key)),
        }
    }

    /// Reports each key whose value differs from `before`, in order, with its new value, or `None` if it is
    /// gone. Costs what has changed as long as `self` was made from `before`.
    pub fn difference(&self, before: &Self, mut report: impl FnMut(K, Option<&V>))
    where
        V: PartialEq,
    {
        match (&before.0, &self.0) {
            (Form::Few(before), Form::Few(after)) => {
                for item in before.diff(after) {
                    match item {
                        DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                            report(*key, Some(value));
                        }
                        DiffItem::Remove(key, _) => report(*key, None),
                    }
                }
            }
            (Form::Many(before), Form::Many(after)) => after.difference(before, |key, value| {
                report(key, value.map(unpack).as_ref());
            }),
            // Only where one of them has outgrown the other form, or was empty.
            (_, Form::Many(after)) => after.difference(&before.runs(), |key, value| {
                report(key, value.map(unpack).as_ref());
            }),
            (Form::Many(before), Form::Few(_)) => self.runs().difference(before, |key, value| {
                report(key, value.map(unpack).as_ref());
            }),
        }
    }

    /// An empty one that is packed from the first entry on.
    #[cfg(test)]
    fn kept_in(cache: Arc<Cache>) -> Self {
        Self(Form::Many(Runs::new(Some(cache))))
    }

    /// The entries, packed.
    fn runs(&self) -> Cow<'_, Runs<K, V>> {
        match &self.0 {
            Form::Few(map) => Cow::Owned(pile(map).runs()),
            Form::Many(runs) => Cow::Borrowed(runs),
        }
    }
}

impl<K, V> Default for PackedMap<K, V> {
    fn default() -> Self {
        Self(Form::Few(OrdMap::new()))
    }
}

fn pile<K: Key, V: Value>(map: &OrdMap<K, V>) -> Pile<K> {
    let mut pile = Pile::new(Cache::of_process());
    for (&key, value) in map {
        pile.push(key, value);
    }
    pile
}

/// A map in the making, as small in the end as it can be, whatever the order of its entries.
pub struct Filling<K, V>(Stage<K, V>);

enum Stage<K, V> {
    Few(OrdMap<K, V>),
    Many(Pile<K>),
}

impl<K: Key, V: Value> Filling<K, V> {
    /// Adds an entry. Of two with one key the later one counts.
    pub fn insert(&mut self, key: K, value: V) {
        match &mut self.0 {
            Stage::Few(map) => {
                map.insert(key, value);
                if map.len() > FEW {
                    self.0 = Stage::Many(pile(map));
                }
            }
            Stage::Many(pile) => pile.push(key, &value),
        }
    }

    /// The map of all that was added.
    pub fn finish(self) -> PackedMap<K, V> {
        PackedMap(match self.0 {
            Stage::Few(map) => Form::Few(map),
            Stage::Many(pile) => Form::Many(pile.runs()),
        })
    }
}

impl<K, V> Default for Filling<K, V> {
    fn default() -> Self {
        Self(Stage::Few(OrdMap::new()))
    }
}

impl<K: Key, V: Value> FromIterator<(K, V)> for PackedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut filling = Filling::default();
        for (key, value) in entries {
            filling.insert(key, value);
        }
        filling.finish()
    }
}

impl<K: Key, V: Value + PartialEq> PartialEq for PackedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let mut is_same = self.len() == other.len();
        if is_same {
            match (&self.0, &other.0) {
                (Form::Few(map), Form::Few(other)) => is_same = map == other,
                _ => self.runs().difference(&other.runs(), |_, _| is_same = false),
            }
        }
        is_same
    }
}

impl<K: Key, V: Value + Eq> Eq for PackedMap<K, V> {}

impl<K: Key, V: Value + Ord> PartialOrd for PackedMap<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Key, V: Value + Ord> Ord for PackedMap<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl<K: Key + Hash, V: Value + Hash> Hash for PackedMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The number first: two neighbouring maps must not run into each other.
        state.write_usize(self.len());
        for entry in self.iter() {
            entry.hash(state);
        }
    }
}

impl<K: Key + Debug, V: Value + Debug> Debug for PackedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
