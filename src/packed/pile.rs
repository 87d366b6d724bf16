//! Very many entries on their way into runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::cache::{Cache, Run};
use super::entries::{RUN, Walk, join, pack, take};
use super::runs::Runs;
use super::{Key, Value};

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
    cache: Option<Arc<Cache>>,
}

impl<K: Key> Pile<K> {
    pub(super) fn new(cache: Option<Arc<Cache>>) -> Self {
        Self { bytes: Vec::new(), spans: Vec::new(), parts: Vec::new(), cache }
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
            Run::new(join(&[(spans.len(), &bytes)]), self.cache.as_ref())
        });
        self.parts.push(runs.collect());
        self.spans.clear();
        self.bytes.clear();
    }

    /// All of it, in full runs.
    pub(super) fn runs<V: Value>(mut self) -> Runs<K, V> {
        self.sort();
        let Self { parts, cache, .. } = self;
        // The parts by their next keys; of those with one key the youngest first, which counts.
        let mut heap = BinaryHeap::new();
        let mut parts: Vec<_> = parts.into_iter().map(Walk::new).collect();
        for (age, part) in parts.iter().enumerate() {
            heap.extend(part.first().map(|entry| Reverse((take::<K>(entry).0, Reverse(age)))));
        }
        let mut runs = Runs::new(cache);
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
