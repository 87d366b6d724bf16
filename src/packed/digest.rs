//! A packed map that keeps a digest of its content up to date.

use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::{Key, PackedMap, Value};
use crate::persistent::entry_digest;

/// A [`PackedMap`] of which the content can be told in 64 bits, at no more cost than its changes have had. It is
/// read as the map that it is.
#[derive(Clone)]
pub struct DigestedMap<K, V> {
    map: PackedMap<K, V>,
    /// The sum of the digests of all entries.
    sum: u64,
}

impl<K: Key + Hash, V: Value + Hash> DigestedMap<K, V> {
    /// Sets the value at a key and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.sum = self.sum.wrapping_add(entry_digest(&key, &value));
        let old = self.map.insert(key, value);
        self.take_out(&key, old.as_ref());
        old
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.map.remove(key);
        self.take_out(key, old.as_ref());
        old
    }

    fn take_out(&mut self, key: &K, old: Option<&V>) {
        if let Some(old) = old {
            self.sum = self.sum.wrapping_sub(entry_digest(key, old));
        }
    }

    /// A digest of the content: 64 bits that are equal for equal maps, and hardly for others. The same in every
    /// run, on machines of one byte order.
    pub fn digest(&self) -> u64 {
        self.sum.wrapping_add(self.map.len() as u64)
    }
}

impl<K: Key + Hash, V: Value + Hash> From<PackedMap<K, V>> for DigestedMap<K, V> {
    fn from(map: PackedMap<K, V>) -> Self {
        let digests = map.iter().map(|(key, value)| entry_digest(&key, &*value));
        let sum = digests.fold(0, u64::wrapping_add);
        Self { map, sum }
    }
}

impl<K: Key + Hash, V: Value + Hash> FromIterator<(K, V)> for DigestedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        PackedMap::from_iter(entries).into()
    }
}

impl<K, V> Default for DigestedMap<K, V> {
    fn default() -> Self {
        Self { map: PackedMap::default(), sum: 0 }
    }
}

impl<K, V> Deref for DigestedMap<K, V> {
    type Target = PackedMap<K, V>;

    fn deref(&self) -> &PackedMap<K, V> {
        &self.map
    }
}

impl<K: Key, V: Value + PartialEq> PartialEq for DigestedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.map == other.map
    }
}

impl<K: Key, V: Value + Eq> Eq for DigestedMap<K, V> {}

impl<K: Key, V: Value + Ord> PartialOrd for DigestedMap<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Key, V: Value + Ord> Ord for DigestedMap<K, V> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.map.cmp(&other.map)
    }
}

impl<K: Key + Hash, V: Value + Hash> Hash for DigestedMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.map.hash(state);
    }
}

impl<K: Key + Debug, V: Value + Debug> Debug for DigestedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In both forms of the map, and however its content came about.
    #[test]
    fn a_digest_tells_the_content_however_it_came_about() {
        for size in [3u64, 2000] {
            let one: DigestedMap<u64, u64> = (0..size).map(|key| (key, key * 7)).collect();
            let mut other: DigestedMap<u64, u64> = (0..size).rev().map(|key| (key, 1)).collect();
            assert_ne!(one.digest(), other.digest());
            for key in 0..size {
                assert_eq!(other.insert(key, key * 7), Some(1));
            }
            assert_eq!((one.digest(), &one), (other.digest(), &other));
            assert_eq!(other.insert(size, 0), None);
            assert_ne!(one.digest(), other.digest());
            assert_eq!(other.remove(&size), Some(0));
            assert_eq!(other.remove(&size), None);
            assert_eq!(one.digest(), other.digest());
        }
        let same: DigestedMap<u64, u64> = [(1, 1), (1, 2)].into_iter().collect();
        assert_eq!(same.digest(), [(1, 2)].into_iter().collect::<DigestedMap<u64, u64>>().digest());
    }
}
