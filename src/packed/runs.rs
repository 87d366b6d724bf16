//! Runs of neighbouring entries, each in one piece of memory, and what they are made of.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::marker::PhantomData;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::de::DeserializeOwned;

use super::{Key, Value};

/// How many entries a run has at most.
pub(super) const RUN: usize = 32;
/// A run that is left with fewer is joined with its neighbour, if the two are one run then.
pub(super) const SHORT: usize = RUN / 4;

// -------------------------------------------------------------------------------------------------
// One run
// -------------------------------------------------------------------------------------------------

/// Neighbouring entries in the order of their keys: their number, then for each one the length of what follows, the
/// key, and the value.
pub(super) type Run = Arc<[u8]>;

/// So many entries, and all their bytes.
type Piece<'a> = (usize, &'a [u8]);

pub(super) fn take<T: DeserializeOwned>(bytes: &[u8]) -> (T, &[u8]) {
    postcard::take_from_bytes(bytes).expect("it was packed here")
}

pub(super) fn unpack<V: DeserializeOwned>(bytes: &[u8]) -> V {
    take(bytes).0
}

/// Appends an entry.
fn pack<K: Key, V: Value>(mut bytes: Vec<u8>, key: &K, value: &V) -> Vec<u8> {
    // Nearly all lengths take one byte.
    let from = bytes.len();
    bytes.push(0);
    let mut bytes = postcard::to_extend(&(key, value), bytes).expect("memory is the only limit");
    let length = bytes.len() - from - 1;
    match u8::try_from(length) {
        Ok(length @ ..0x80) => bytes[from] = length,
        _ => {
            let length = postcard::to_stdvec(&length).expect("memory is the only limit");
            bytes.splice(from..=from, length);
        }
    }
    bytes
}

/// The first entry without its length, and the bytes behind it.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match *bytes.first()? {
        length @ ..0x80 => (length.into(), &bytes[1..]),
        _ => take::<usize>(bytes),
    };
    Some(rest.split_at(length))
}

/// The entries of a run, each without its length.
pub(super) fn entries(run: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &run[1..];
    std::iter::from_fn(move || {
        let (entry, behind) = first(rest)?;
        rest = behind;
        Some(entry)
    })
}

pub(super) fn count(run: &[u8]) -> usize {
    run[0].into()
}

fn join(pieces: &[Piece<'_>]) -> Run {
    let count: usize = pieces.iter().map(|piece| piece.0).sum();
    let mut run = Vec::with_capacity(1 + pieces.iter().map(|piece| piece.1.len()).sum::<usize>());
    run.push(u8::try_from(count).expect("a run is short"));
    for (_, bytes) in pieces {
        run.extend_from_slice(bytes);
    }
    run.into()
}

/// A run in two: so many entries, and the others.
fn split(run: &[u8], at: usize) -> [Piece<'_>; 2] {
    let bytes = &run[1..];
    let mut right = bytes;
    for _ in 0..at {
        right = first(right).expect("there are so many").1;
    }
    [(at, &bytes[..bytes.len() - right.len()]), (count(run) - at, right)]
}

/// Where a key is in a run, or would be.
struct Place<'a> {
    before: Piece<'a>,
    /// Its own value, if it is there.
    value: Option<&'a [u8]>,
    after: Piece<'a>,
}

fn place<'a, K: Key>(run: &'a [u8], key: &K) -> Place<'a> {
    // Where each entry begins, without its length, and ends.
    let mut spans = [(0, 0); RUN];
    let bytes = &run[1..];
    let spans = &mut spans[..count(run)];
    let mut rest = bytes;
    for span in &mut *spans {
        let (entry, behind) = first(rest).expect("there are so many");
        let end = bytes.len() - behind.len();
        *span = (end - entry.len(), end);
        rest = behind;
    }
    let found = spans.binary_search_by(|&(from, end)| take::<K>(&bytes[from..end]).0.cmp(key));
    let begin = |at: usize| if at == 0 { 0 } else { spans[at - 1].1 };
    let (at, value) = match found {
        Ok(at) => (at, Some(take::<K>(&bytes[spans[at].0..spans[at].1]).1)),
        Err(at) => (at, None),
    };
    let next = at + usize::from(value.is_some());
    Place {
        before: (at, &bytes[..begin(at)]),
        value,
        after: (count(run) - next, &bytes[begin(next)..]),
    }
}

// -------------------------------------------------------------------------------------------------
// All runs
// -------------------------------------------------------------------------------------------------

/// The runs, each under a key that is not above its first one, and above all of the run before.
#[derive(Clone)]
pub(super) struct Runs<K, V> {
    pub(super) runs: OrdMap<K, Run>,
    pub(super) len: usize,
    value: PhantomData<V>,
}

impl<K: Key, V: Value> Runs<K, V> {
    fn push(&mut self, name: Option<K>, piece: Piece<'_>) {
        if let Some(name) = name {
            self.runs.insert(name, join(&[piece]));
            self.len += piece.0;
        }
    }

    /// The run in which a key is, if it is anywhere.
    fn run(&self, key: &K) -> Option<(K, &Run)> {
        self.runs.get_prev(key).map(|(&name, run)| (name, run))
    }

    pub(super) fn get(&self, key: &K) -> Option<&[u8]> {
        let (_, run) = self.run(key)?;
        place(run, key).value
    }

    pub(super) fn insert(&mut self, key: K, value: &V) -> Option<V> {
        let new = pack(Vec::with_capacity(128), &key, value);
        let new = (1, new.as_slice());
        // A key below all others goes into the first run, which then has another name.
        let found = self.run(&key).or_else(|| self.runs.get_min().map(|(name, run)| (*name, run)));
        let Some((name, run)) = found.map(|(name, run)| (name, Run::clone(run))) else {
            self.runs.insert(key, join(&[new]));
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
            self.runs.insert(name, join(&[before, new, after]));
        } else if after.0 == 0 {
            // Keys that only rise leave full runs behind.
            self.runs.insert(key, join(&[new]));
        } else {
            let whole = join(&[before, new, after]);
            let [left, right] = split(&whole, count(&whole) / 2);
            let second = first(right.1).expect("there is a second half").0;
            self.runs.insert(name, join(&[left]));
            self.runs.insert(take(second).0, join(&[right]));
        }
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (name, run) = self.run(key)?;
        let run = Run::clone(run);
        let Place { before, value, after } = place(&run, key);
        let old = unpack(value?);
        let left = before.0 + after.0;
        let fits = |&(_, run): &(&K, &Run)| left < SHORT && left + count(run) <= RUN;
        if left == 0 {
            self.runs.remove(&name);
        } else if let Some((&next, run)) =
            self.runs.range((Excluded(name), Unbounded)).next().filter(fits)
        {
            let joined = join(&[before, after, split(run, 0)[1]]);
            self.runs.remove(&next);
            self.runs.insert(name, joined);
        } else if let Some((&last, run)) = self.runs.range(..name).next_back().filter(fits) {
            let joined = join(&[split(run, 0)[1], before, after]);
            self.runs.remove(&name);
            self.runs.insert(last, joined);
        } else {
            self.runs.insert(name, join(&[before, after]));
        }
        self.len -= 1;
        Some(old)
    }

    /// The entries from a key on: each key, and its value still packed.
    pub(super) fn from(&self, key: Option<K>) -> impl Iterator<Item = (K, &[u8])> {
        let name = key.as_ref().and_then(|key| self.run(key)).map(|(name, _)| name);
        let runs = self.runs.range((name.map_or(Unbounded, Included), Unbounded));
        let all = runs.flat_map(|(_, run)| entries(run)).map(take::<K>);
        all.skip_while(move |entry| key.is_some_and(|key| entry.0 < key))
    }

    /// Reports each key that is only here, only there, or in both with another value: in order, with the value here.
    pub(super) fn difference(&self, before: &Self, mut report: impl FnMut(K, Option<&[u8]>)) {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for item in before.runs.diff(&self.runs) {
            match item {
                DiffItem::Add(_, run) => new.push(run),
                DiffItem::Remove(_, run) => old.push(run),
                DiffItem::Update { old: (_, was), new: (_, is) } => {
                    old.push(was);
                    new.push(is);
                }
            }
        }
        let mut old = old.into_iter().flat_map(|run| entries(run)).peekable();
        let mut new = new.into_iter().flat_map(|run| entries(run)).peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                // Nearly all of them.
                (Some(old), Some(new)) if old == new => Ordering::Equal,
                (Some(old), Some(new)) => take::<K>(old).0.cmp(&take(new).0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let was = old.next_if(|_| order.is_le());
            let is = new.next_if(|_| order.is_ge());
            if was == is {
                continue;
            }
            if let Some((key, value)) = is.map(take) {
                report(key, Some(value));
            } else if let Some((key, _)) = was.map(take) {
                report(key, None);
            }
        }
    }
}

/// How many entries are sorted at once.
const PILE: usize = 4096;

/// Many entries on their way into a map, in any order. They are sorted in small parts, which are given back as they are
/// merged, so that hardly more memory is in use on the way than in the end.
pub(super) struct Pile<K> {
    /// What is not sorted yet.
    bytes: Vec<u8>,
    spans: Vec<(K, usize, usize)>,
    /// The parts that are, the oldest first: full runs.
    parts: Vec<Vec<Run>>,
}

impl<K: Key> Pile<K> {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), spans: Vec::new(), parts: Vec::new() }
    }

    pub(super) fn push<V: Value>(&mut self, key: K, value: &V) {
        let begin = self.bytes.len();
        self.bytes = pack(std::mem::take(&mut self.bytes), &key, value);
        self.spans.push((key, begin, self.bytes.len()));
        if self.spans.len() == PILE {
            self.sort();
        }
    }

    fn sort(&mut self) {
        // Of those with one key the last one comes first now, and stays.
        self.spans.sort_unstable_by_key(|&(key, begin, _)| (key, Reverse(begin)));
        self.spans.dedup_by_key(|span| span.0);
        let runs = self.spans.chunks(RUN).map(|spans| {
            let mut bytes = Vec::new();
            for &(_, begin, end) in spans {
                bytes.extend_from_slice(&self.bytes[begin..end]);
            }
            join(&[(spans.len(), &bytes)])
        });
        self.parts.push(runs.collect());
        self.spans.clear();
        self.bytes.clear();
    }

    /// All of it, in full runs.
    pub(super) fn runs<V: Value>(mut self) -> Runs<K, V> {
        self.sort();
        let Self { parts, .. } = self;
        // The parts by their next keys; of those with one key the youngest first, which counts.
        let mut heap = BinaryHeap::new();
        let mut parts: Vec<Part> = parts.into_iter().map(Part::new).collect();
        for (age, part) in parts.iter().enumerate() {
            heap.extend(part.first().map(|entry| Reverse((take::<K>(entry).0, Reverse(age)))));
        }
        let mut runs = Runs { runs: OrdMap::new(), len: 0, value: PhantomData };
        let (mut bytes, mut count, mut name, mut last) = (Vec::new(), 0, None, None);
        while let Some(Reverse((key, Reverse(age)))) = heap.pop() {
            let part = &mut parts[age];
            if last != Some(key) {
                last = Some(key);
                name.get_or_insert(key);
                bytes.extend_from_slice(part.whole());
                count += 1;
            }
            part.advance();
            heap.extend(part.first().map(|entry| Reverse((take::<K>(entry).0, Reverse(age)))));
            if count == RUN {
                runs.push(name.take(), (count, &bytes));
                count = 0;
                bytes.clear();
            }
        }
        runs.push(name, (count, &bytes));
        runs
    }
}

/// A sorted part that is read from the front.
struct Part {
    run: Option<Run>,
    /// Where its next entry begins.
    at: usize,
    rest: std::vec::IntoIter<Run>,
}

impl Part {
    fn new(runs: Vec<Run>) -> Self {
        let mut rest = runs.into_iter();
        Self { run: rest.next(), at: 1, rest }
    }

    fn first(&self) -> Option<&[u8]> {
        first(&self.run.as_ref()?[self.at..]).map(|(entry, _)| entry)
    }

    /// The next entry, with its length.
    fn whole(&self) -> &[u8] {
        let run = self.run.as_ref().map_or(&[][..], |run| &run[self.at..]);
        let behind = first(run).map_or(0, |(_, behind)| behind.len());
        &run[..run.len() - behind]
    }

    fn advance(&mut self) {
        self.at += self.whole().len();
        if self.run.as_ref().is_some_and(|run| run.len() == self.at) {
            (self.run, self.at) = (self.rest.next(), 1);
        }
    }
}
