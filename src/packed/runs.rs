//! All runs of a map, and how they change.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::cache::{Cache, Run};
use super::entries::{
    Piece, Place, RUN, SHORT, Walk, count, first, join, pack, place, split, take, unpack,
};
use super::{Key, Value};

/// The runs, each under a key that is not above its first one, and above all of the run before.
#[derive(Clone)]
pub(super) struct Runs<K, V> {
    pub(super) runs: OrdMap<K, Run>,
    pub(super) len: usize,
    cache: Option<Arc<Cache>>,
    value: PhantomData<V>,
}

impl<K: Key, V: Value> Runs<K, V> {
    pub(super) fn new(cache: Option<Arc<Cache>>) -> Self {
        Self { runs: OrdMap::new(), len: 0, cache, value: PhantomData }
    }

    /// Puts these entries in the place of the run of that name.
    fn set(&mut self, name: K, pieces: &[Piece<'_>]) {
        self.runs.insert(name, Run::new(join(pieces), self.cache.as_ref()));
    }

    /// Adds a run above all others.
    pub(super) fn push(&mut self, name: Option<K>, piece: Piece<'_>) {
        if let Some(name) = name {
            self.set(name, &[piece]);
            self.len += piece.0;
        }
    }

    /// The run in which a key is, if it is anywhere.
    fn run(&self, key: &K) -> Option<(K, &Run)> {
        self.runs.get_prev(key).map(|(&name, run)| (name, run))
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let (_, run) = self.run(key)?;
        place(&run.bytes(), key).value.map(unpack)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.run(key).is_some_and(|(_, run)| place(&run.bytes(), key).value.is_some())
    }

    pub(super) fn insert(&mut self, key: K, value: &V) -> Option<V> {
        let new = pack(Vec::with_capacity(128), &key, value);
        let new = (1, new.as_slice());
        // A key below all others goes into the first run, which then has another name.
        let found = self.run(&key).or_else(|| self.runs.get_min().map(|(name, run)| (*name, run)));
        let Some((name, run)) = found.map(|(name, run)| (name, run.bytes())) else {
            self.set(key, &[new]);
            self.len += 1;
            return None;
        };
        let Place { before, value: old, after } = place(&run, &key);
        let old = old.map(unpack);
        if key < name {
            self.runs.remove(&name);
        }
        let name = name.min(key);
        if before.0 + 1 + after.0 <= RUN {
            self.set(name, &[before, new, after]);
        } else if after.0 == 0 {
            // Keys that only rise leave full runs behind.
            self.set(key, &[new]);
        } else {
            let whole = join(&[before, new, after]);
            let [left, right] = split(&whole, count(&whole) / 2);
            let second = first(right.1).expect("there is a second half").0;
            self.set(name, &[left]);
            self.set(take(second).0, &[right]);
        }
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (name, run) = self.run(key)?;
        let run = run.bytes();
        let Place { before, value, after } = place(&run, key);
        let old = unpack(value?);
        let left = before.0 + after.0;
        // One that is short is joined with a neighbour, if the two are one run.
        let fits = |(name, run): (&K, &Run)| {
            let run = run.bytes();
            (left + count(&run) <= RUN).then_some((*name, run))
        };
        let next = || self.runs.range((Excluded(name), Unbounded)).next().and_then(fits);
        let last = || self.runs.range(..name).next_back().and_then(fits);
        if left == 0 {
            self.runs.remove(&name);
        } else if left >= SHORT {
            self.set(name, &[before, after]);
        } else if let Some((next, run)) = next() {
            self.runs.remove(&next);
            self.set(name, &[before, after, split(&run, 0)[1]]);
        } else if let Some((last, run)) = last() {
            self.runs.remove(&name);
            self.set(last, &[split(&run, 0)[1], before, after]);
        } else {
            self.set(name, &[before, after]);
        }
        self.len -= 1;
        Some(old)
    }

    /// What is made of each entry from a key on, in order: of its key, and its value still packed.
    pub(super) fn read<T>(
        &self,
        from: Option<K>,
        make: impl Fn(K, &[u8]) -> T,
    ) -> impl Iterator<Item = T> {
        let name = from.as_ref().and_then(|key| self.run(key)).map(|(name, _)| name);
        let runs = self.runs.range((name.map_or(Unbounded, Included), Unbounded));
        let mut walk = Walk::new(runs.map(|(_, run)| run.clone()));
        while walk.first().is_some_and(|entry| from.is_some_and(|key| take::<K>(entry).0 < key)) {
            walk.advance();
        }
        std::iter::from_fn(move || {
            let (key, value) = take(walk.first()?);
            let made = make(key, value);
            walk.advance();
            Some(made)
        })
    }

    /// Reports each key that is only here, only there, or in both with another value: in order, with the value here.
    pub(super) fn difference(&self, before: &Self, mut report: impl FnMut(K, Option<&[u8]>)) {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for item in before.runs.diff(&self.runs) {
            match item {
                DiffItem::Add(_, run) => new.push(run.clone()),
                DiffItem::Remove(_, run) => old.push(run.clone()),
                DiffItem::Update { old: (_, was), new: (_, is) } => {
                    old.push(was.clone());
                    new.push(is.clone());
                }
            }
        }
        let (mut old, mut new) = (Walk::new(old), Walk::new(new));
        loop {
            let order = match (old.first(), new.first()) {
                // Nearly all of them.
                (Some(old), Some(new)) if old == new => Ordering::Equal,
                (Some(was), Some(is)) => {
                    let ((was, _), (key, value)) = (take::<K>(was), take::<K>(is));
                    let order = was.cmp(&key);
                    match order {
                        Ordering::Less => report(was, None),
                        Ordering::Equal | Ordering::Greater => report(key, Some(value)),
                    }
                    order
                }
                (Some(was), None) => {
                    report(take(was).0, None);
                    Ordering::Less
                }
                (None, Some(is)) => {
                    let (key, value) = take(is);
                    report(key, Some(value));
                    Ordering::Greater
                }
                (None, None) => break,
            };
            if order.is_le() {
                old.advance();
            }
            if order.is_ge() {
                new.advance();
            }
        }
    }
}
