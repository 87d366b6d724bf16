//! What a run is made of: neighbouring entries in the order of their keys. Their number, then for each one the length of
//! what follows, the key, and the value.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::cache::Run;
use super::{Key, Value};

/// How many entries a run has at most.
pub(super) const RUN: usize = 32;
/// A run that is left with fewer is joined with its neighbour, if the two are one run then.
pub(super) const SHORT: usize = RUN / 4;

/// So many entries, and all their bytes.
pub(super) type Piece<'a> = (usize, &'a [u8]);

pub(super) fn take<T: DeserializeOwned>(bytes: &[u8]) -> (T, &[u8]) {
    postcard::take_from_bytes(bytes).expect("it was packed here")
}

pub(super) fn unpack<V: DeserializeOwned>(bytes: &[u8]) -> V {
    take(bytes).0
}

/// Appends an entry.
pub(super) fn pack<K: Key, V: Value>(mut bytes: Vec<u8>, key: &K, value: &V) -> Vec<u8> {
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
pub(super) fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match *bytes.first()? {
        length @ ..0x80 => (length.into(), &bytes[1..]),
        _ => take::<usize>(bytes),
    };
    Some(rest.split_at(length))
}

pub(super) fn count(run: &[u8]) -> usize {
    run[0].into()
}

pub(super) fn join(pieces: &[Piece<'_>]) -> Arc<[u8]> {
    let count: usize = pieces.iter().map(|piece| piece.0).sum();
    let mut run = Vec::with_capacity(1 + pieces.iter().map(|piece| piece.1.len()).sum::<usize>());
    run.push(u8::try_from(count).expect("a run is short"));
    for (_, bytes) in pieces {
        run.extend_from_slice(bytes);
    }
    run.into()
}

/// A run in two: so many entries, and the others.
pub(super) fn split(run: &[u8], at: usize) -> [Piece<'_>; 2] {
    let bytes = &run[1..];
    let mut right = bytes;
    for _ in 0..at {
        right = first(right).expect("there are so many").1;
    }
    [(at, &bytes[..bytes.len() - right.len()]), (count(run) - at, right)]
}

/// Where a key is in a run, or would be.
pub(super) struct Place<'a> {
    pub(super) before: Piece<'a>,
    /// Its own value, if it is there.
    pub(super) value: Option<&'a [u8]>,
    pub(super) after: Piece<'a>,
}

pub(super) fn place<'a, K: Key>(run: &'a [u8], key: &K) -> Place<'a> {
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

/// Reads runs from the front, one of them at a time.
pub(super) struct Walk<I> {
    run: Option<Arc<[u8]>>,
    /// Where its next entry begins.
    at: usize,
    rest: I,
}

impl<I: Iterator<Item = Run>> Walk<I> {
    pub(super) fn new(runs: impl IntoIterator<IntoIter = I>) -> Self {
        let mut walk = Self { run: None, at: 0, rest: runs.into_iter() };
        walk.next_run();
        walk
    }

    fn next_run(&mut self) {
        (self.run, self.at) = (self.rest.next().map(|run| run.bytes()), 1);
    }

    /// The next entry.
    pub(super) fn first(&self) -> Option<&[u8]> {
        first(&self.run.as_ref()?[self.at..]).map(|(entry, _)| entry)
    }

    /// The next entry, with its length.
    pub(super) fn whole(&self) -> &[u8] {
        let run = self.run.as_ref().map_or(&[][..], |run| &run[self.at..]);
        let behind = first(run).map_or(0, |(_, behind)| behind.len());
        &run[..run.len() - behind]
    }

    pub(super) fn advance(&mut self) {
        self.at += self.whole().len();
        if self.run.as_ref().is_some_and(|run| run.len() == self.at) {
            self.next_run();
        }
    }
}
