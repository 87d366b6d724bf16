//! An ordered map that is cheap to clone and to compare with an older self.
//!
//! It is `imbl::OrdMap` with one thing mended: that map hashes its elements without their number, so
//! that two neighbouring maps `{1}, {}` and `{}, {1}` in one state would have one hash, and a checker
//! that knows states by their hash would lose one of them.

use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};

use imbl::ordmap::DiffItem;
use xxhash_rust::xxh3::Xxh3Default;

/// An ordered map with structural sharing: a clone costs a pointer, a difference what has changed.
///
/// It keeps a digest of its content up to date, so that telling the content of a large map costs no
/// more than the changes have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistentMap<K: Ord, V>(imbl::OrdMap<K, V>, u64);

/// The digest of one entry. A map's is the sum of its entries', whatever their order.
pub(crate) fn entry_digest<K: Hash, V: Hash>(key: &K, value: &V) -> u64 {
    let mut hasher = Xxh3Default::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> PersistentMap<K, V> {
    /// The value at a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// Whether there is a value at a key.
    pub fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Sets the value at a key and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let new = entry_digest(&key, &value);
        let old = self.0.get(&key).map_or(0, |old| entry_digest(&key, old));
        self.1 = self.1.wrapping_add(new).wrapping_sub(old);
        self.0.insert(key, value)
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.0.remove(key);
        if let Some(old) = &removed {
            self.1 = self.1.wrapping_sub(entry_digest(key, old));
        }
        removed
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    /// A digest of the content: 64 bits that are equal for equal maps, and hardly for others. The same
    /// in every run, on machines of one byte order.
    pub fn digest(&self) -> u64 {
        self.1.wrapping_add(self.0.len() as u64)
    }

    /// The entry with the largest key.
    pub fn last(&self) -> Option<(&K, &V)> {
        self.0.get_max().map(|(key, value)| (key, value))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter()
    }

    /// The entries above a key, in order.
    pub fn above(&self, key: K) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.0.range((Excluded(key), Unbounded))
    }

    /// The entries from a key on, in order.
    pub fn starting_at(&self, key: K) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.range(key..)
    }

    /// The last entry at or below a key.
    pub fn at_or_below(&self, key: &K) -> Option<(&K, &V)> {
        self.0.get_prev(key)
    }

    /// Reports each key whose value differs from `before`, with its new value, or `None` if it is
    /// gone. Costs what has changed as long as `self` was made from `before`.
    pub fn difference(&self, before: &Self, mut report: impl FnMut(&K, Option<&V>))
    where
        V: PartialEq,
    {
        for item in before.0.diff(&self.0) {
            match item {
                DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                    report(key, Some(value));
                }
                DiffItem::Remove(key, _) => report(key, None),
            }
        }
    }
}

impl<K: Ord, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self(imbl::OrdMap::new(), 0)
    }
}

impl<K: Ord + Hash, V: Hash> Hash for PersistentMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The number first: it is what imbl leaves out.
        state.write_usize(self.0.len());
        for entry in &self.0 {
            entry.hash(state);
        }
    }
}

impl<K: Ord + Debug, V: Debug> Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, BuildHasherDefault};

    fn hash(value: &impl Hash) -> u64 {
        BuildHasherDefault::<Xxh3Default>::default().hash_one(value)
    }

    #[test]
    fn neighbouring_maps_do_not_run_into_each_other() {
        let seven: PersistentMap<u8, u8> = [(7, 7)].into_iter().collect();
        let none: PersistentMap<u8, u8> = PersistentMap::default();
        assert_ne!(hash(&(&seven, &none)), hash(&(&none, &seven)));
    }

    #[test]
    fn a_digest_tells_the_content_however_it_came_about() {
        let one: PersistentMap<u8, char> = [(1, 'a'), (2, 'b')].into_iter().collect();
        let mut other: PersistentMap<u8, char> =
            [(3, 'c'), (2, 'x'), (1, 'a')].into_iter().collect();
        assert_ne!(one.digest(), other.digest());
        other.remove(&3);
        assert_ne!(one.digest(), other.digest());
        other.insert(2, 'b');
        assert_eq!(one.digest(), other.digest());
        assert_eq!(one, other);
    }

    #[test]
    fn a_difference_names_what_was_added_changed_and_removed() {
        let before: PersistentMap<u8, char> = [(1, 'a'), (2, 'b'), (3, 'c')].into_iter().collect();
        let mut after = before.clone();
        after.insert(2, 'B');
        after.remove(&3);
        after.insert(4, 'd');
        let mut changes = Vec::new();
        after.difference(&before, |key, value| changes.push((*key, value.copied())));
        assert_eq!(changes, [(2, Some('B')), (3, None), (4, Some('d'))]);
    }
}
