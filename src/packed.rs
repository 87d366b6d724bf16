//! An ordered map for very many small entries: cheap to clone and to compare with an older self, and close to the
//! size of what its entries take in a file.
//!
//! Few entries are kept as they are. Many are packed: runs of neighbours, each in its postcard form, one run in one
//! piece of memory. A change copies one run, and a reader gets a value of its own. How many entries a map has had
//! decides in which of the two forms it is, and nothing that can be seen from outside depends on that: equality,
//! order, hash and debug form are those of the entries.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use either::Either;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Up to so many entries are kept as they are.
const FEW: usize = 256;
/// How many entries a run has at most.
const RUN: usize = 32;
/// A run that is left with fewer is joined with its neighbour, if the two are one run then.
const SHORT: usize = RUN / 4;

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

// -------------------------------------------------------------------------------------------------
// One run
// -------------------------------------------------------------------------------------------------

/// Neighbouring entries in the order of their keys: their number, then for each one the length of what follows, the
/// key, and the value.
type Run = Arc<[u8]>;

/// So many entries, and all their bytes.
type Piece<'a> = (usize, &'a [u8]);

fn take<T: DeserializeOwned>(bytes: &[u8]) -> (T, &[u8]) {
    postcard::take_from_bytes(bytes).expect("it was packed here")
}

fn unpack<V: DeserializeOwned>(bytes: &[u8]) -> V {
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
fn entries(run: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &run[1..];
    std::iter::from_fn(move || {
        let (entry, behind) = first(rest)?;
        rest = behind;
        Some(entry)
    })
}

fn count(run: &[u8]) -> usize {
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
struct Runs<K, V> {
    runs: OrdMap<K, Run>,
    len: usize,
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

    fn get(&self, key: &K) -> Option<&[u8]> {
        let (_, run) = self.run(key)?;
        place(run, key).value
    }

    fn insert(&mut self, key: K, value: &V) -> Option<V> {
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

    fn remove(&mut self, key: &K) -> Option<V> {
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
    fn from(&self, key: Option<K>) -> impl Iterator<Item = (K, &[u8])> {
        let name = key.as_ref().and_then(|key| self.run(key)).map(|(name, _)| name);
        let runs = self.runs.range((name.map_or(Unbounded, Included), Unbounded));
        let all = runs.flat_map(|(_, run)| entries(run)).map(take::<K>);
        all.skip_while(move |entry| key.is_some_and(|key| entry.0 < key))
    }

    /// Reports each key that is only here, only there, or in both with another value: in order, with the value here.
    fn difference(&self, before: &Self, mut report: impl FnMut(K, Option<&[u8]>)) {
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
struct Pile<K> {
    /// What is not sorted yet.
    bytes: Vec<u8>,
    spans: Vec<(K, usize, usize)>,
    /// The parts that are, the oldest first: full runs.
    parts: Vec<Vec<Run>>,
}

impl<K: Key> Pile<K> {
    fn push<V: Value>(&mut self, key: K, value: &V) {
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
    fn runs<V: Value>(mut self) -> Runs<K, V> {
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

// -------------------------------------------------------------------------------------------------
// The map
// -------------------------------------------------------------------------------------------------

impl<K: Key, V: Value> PackedMap<K, V> {
    /// The value at a key.
    pub fn get(&self, key: &K) -> Option<Cow<'_, V>> {
        match &self.0 {
            Form::Few(map) => map.get(key).map(Cow::Borrowed),
            Form::Many(runs) => runs.get(key).map(|value| Cow::Owned(unpack(value))),
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
            Form::Many(runs) => runs.get(key).is_some(),
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
                Either::Right(runs.from(None).map(|(key, value)| (key, Cow::Owned(unpack(value)))))
            }
        }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        match &self.0 {
            Form::Few(map) => Either::Left(map.keys().copied()),
            Form::Many(runs) => Either::Right(runs.from(None).map(|(key, _)| key)),
        }
    }

    /// The keys from one on, in order.
    pub fn keys_from(&self, key: K) -> impl Iterator<Item = K> {
        match &self.0 {
            Form::Few(map) => Either::Left(map.range(key..).map(|(&key, _)| key)),
            Form::Many(runs) => Either::Right(runs.from(Some(key)).map(|(key, _)| key)),
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
    let mut pile = Pile { bytes: Vec::new(), spans: Vec::new(), parts: Vec::new() };
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
mod tests {
    use std::collections::BTreeMap;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use proptest::prelude::*;
    use xxhash_rust::xxh3::Xxh3Default;

    use super::*;

    type Map = PackedMap<u16, String>;

    fn hash(value: &impl Hash) -> u64 {
        BuildHasherDefault::<Xxh3Default>::default().hash_one(value)
    }

    fn is_packed(map: &Map) -> bool {
        matches!(map.0, Form::Many(_))
    }

    /// What holds of the runs of a map: each is full enough to be one, and under a key of its own.
    fn check_runs(map: &Map) {
        let Form::Many(runs) = &map.0 else { return };
        let mut above = None;
        let mut len = 0;
        for (&name, run) in &runs.runs {
            let keys: Vec<u16> = entries(run).map(|entry| take(entry).0).collect();
            assert_eq!(keys.len(), count(run));
            assert!((1..=RUN).contains(&keys.len()), "{keys:?}");
            assert!(keys.is_sorted_by(|one, next| one < next) && name <= keys[0]);
            assert!(above.is_none_or(|above| above < name), "{name} is not above {above:?}");
            above = keys.last().copied();
            len += keys.len();
        }
        assert_eq!(len, runs.len);
    }

    fn difference(after: &Map, before: &Map) -> Vec<(u16, Option<String>)> {
        let mut changes = Vec::new();
        after.difference(before, |key, value| changes.push((key, value.cloned())));
        changes
    }

    /// One change: a key, and its new value or none.
    type Change = (u16, Option<u8>);

    fn changes(keys: u16) -> impl Strategy<Value = Vec<Change>> {
        let change = (0..keys, proptest::option::weighted(0.7, any::<u8>()));
        prop::collection::vec(change, 0..1500)
    }

    fn text(n: u8) -> String {
        "x".repeat(n.into())
    }

    fn apply(map: &mut Map, plain: &mut BTreeMap<u16, String>, change: Change) {
        let (key, value) = change;
        match value.map(text) {
            Some(value) => assert_eq!(map.insert(key, value.clone()), plain.insert(key, value)),
            None => assert_eq!(map.remove(&key), plain.remove(&key)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever is written and taken away, also of one that was made as a whole: it holds what a plain map holds.
        #[test]
        fn it_holds_what_a_plain_map_holds(
            first in changes(700),
            then in changes(700),
            from in 0_u16..720,
            is_filled: bool,
        ) {
            let (mut map, mut plain) = (Map::default(), BTreeMap::new());
            for change in first {
                apply(&mut map, &mut plain, change);
            }
            check_runs(&map);
            if is_filled {
                map = map.iter().map(|(key, value)| (key, value.into_owned())).collect();
                check_runs(&map);
            }
            let (before, plain_before) = (map.clone(), plain.clone());
            for change in then {
                apply(&mut map, &mut plain, change);
            }
            check_runs(&map);
            prop_assert_eq!(map.len(), plain.len());
            let all: Vec<_> = map.iter().map(|(key, value)| (key, value.into_owned())).collect();
            let expected: Vec<_> = plain.clone().into_iter().collect();
            prop_assert_eq!(&all, &expected);
            prop_assert!(map.keys().eq(plain.keys().copied()));
            prop_assert!(map.keys_from(from).eq(plain.range(from..).map(|(&key, _)| key)));
            for key in 0..720 {
                prop_assert_eq!(map.cloned(&key), plain.get(&key).cloned());
                prop_assert_eq!(map.contains(&key), plain.contains_key(&key));
            }
            prop_assert_eq!(format!("{map:?}"), format!("{plain:?}"));
            // What was there before is untouched, and the difference is what has changed.
            let was: Vec<_> = before.iter().map(|(key, value)| (key, value.into_owned())).collect();
            prop_assert_eq!(was, plain_before.clone().into_iter().collect::<Vec<_>>());
            let mut changed: Vec<(u16, Option<String>)> = (0..720)
                .filter(|key| plain.get(key) != plain_before.get(key))
                .map(|key| (key, plain.get(&key).cloned()))
                .collect();
            changed.sort_unstable();
            prop_assert_eq!(difference(&map, &before), changed);
            prop_assert_eq!(map == before, plain == plain_before);
            prop_assert_eq!(map.cmp(&before), plain.cmp(&plain_before));
        }
    }

    /// A map that was large once is packed, and one that never was is not: they are the same map all the same.
    #[test]
    fn the_form_shows_nowhere() {
        let few: Map = (0..20).map(|key| (key, text(3))).collect();
        let mut packed: Map = (0..1000).map(|key| (key, text(3))).collect();
        assert!(is_packed(&packed) && !is_packed(&few));
        for key in 20..1000 {
            packed.remove(&key);
        }
        check_runs(&packed);
        assert!(is_packed(&packed));
        assert_eq!(packed, few);
        assert_eq!(packed.cmp(&few), Ordering::Equal);
        assert_eq!(hash(&packed), hash(&few));
        assert_eq!(format!("{packed:?}"), format!("{few:?}"));
        assert!(difference(&packed, &few).is_empty() && difference(&few, &packed).is_empty());
        packed.insert(7, text(4));
        assert_ne!(packed, few);
        assert_eq!(difference(&packed, &few), [(7, Some(text(4)))]);
        assert_eq!(difference(&few, &packed), [(7, Some(text(3)))]);
        assert_eq!(packed.cmp(&few), Ordering::Greater);
    }

    #[test]
    fn of_two_entries_with_one_key_the_later_one_counts() {
        // Within one part that is sorted at once, and in several.
        for keys in [500, 5000] {
            let map: Map = (0..4 * keys).map(|n| (n % keys, text((n / keys) as u8))).collect();
            check_runs(&map);
            assert_eq!(map, (0..keys).map(|key| (key, text(3))).collect());
            assert!(is_packed(&map));
        }
    }

    #[test]
    fn neighbouring_maps_do_not_run_into_each_other() {
        let seven: Map = [(7, text(7))].into_iter().collect();
        let none = Map::default();
        assert_ne!(hash(&(&seven, &none)), hash(&(&none, &seven)));
    }

    /// Keys that rise, and a map that was made as a whole, leave no room in their runs; a map that shrinks does not keep
    /// runs of a few entries.
    #[test]
    fn runs_are_full() {
        let number = |map: &Map| match &map.0 {
            Form::Many(runs) => runs.runs.len(),
            Form::Few(_) => unreachable!("it is packed"),
        };
        let fill = |keys: &mut dyn Iterator<Item = u16>| {
            let mut map = Map::default();
            keys.for_each(|key| drop(map.insert(key, text(1))));
            map
        };
        let rising = fill(&mut (0..3200));
        assert!(number(&rising) <= 110, "{}", number(&rising));
        let mut mixed = fill(&mut (0..3200).map(|key| key * 7 % 3200));
        assert_eq!(mixed, rising);
        assert!(number(&mixed) > 110);
        let whole: Map = (0..3200).map(|key| (key * 7 % 3200, text(1))).collect();
        assert_eq!(number(&whole), 100);
        assert_eq!(whole, rising);
        for key in (0..3200).filter(|key| key % 32 != 0) {
            mixed.remove(&key);
        }
        check_runs(&mixed);
        assert!(number(&mixed) <= 20, "{}", number(&mixed));
    }
}
