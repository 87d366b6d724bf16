//! The results of calls, each kept under its token.
//!
//! A token's key is a hash, so the results of neighbouring calls would lie anywhere, and there may be very many: they are
//! kept for weeks. So each has a number, which only rises, and they lie in the order of their numbers, in memory as on
//! disk: a call touches what the call before it has touched. Which number a token has, the index knows.
//!
//! The numbers mean nothing. Two of these are equal, and have one hash and one digest, if they hold the same results
//! under the same tokens.

use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};

use imbl::OrdSet;

use super::ledger::Kept;
use crate::packed::PackedMap;
use crate::persistent::entry_digest;

/// A result, and the token's key ([`super::msg::Token::key`]) before it.
pub type Entry = (u64, Kept);

/// See the module.
#[derive(Clone, Default)]
pub struct Results {
    numbered: PackedMap<u64, Entry>,
    /// Above all numbers so far.
    next: u64,
    /// The sum of the digests of all entries.
    sum: u64,
}

impl Results {
    /// Keeps a result under a token that has none, and says which number it has.
    pub fn push(&mut self, token: u64, kept: Kept) -> u64 {
        let number = self.next;
        self.set(number, (token, kept));
        number
    }

    /// Puts an entry where one of that number is, or will be.
    pub(crate) fn set(&mut self, number: u64, entry: Entry) {
        self.sum = self.sum.wrapping_add(digest(&entry));
        self.next = self.next.max(number + 1);
        let old = self.numbered.insert(number, entry);
        self.take_out(old.as_ref());
    }

    /// Takes the entry of that number away.
    pub fn remove(&mut self, number: u64) -> Option<Entry> {
        let old = self.numbered.remove(&number);
        self.take_out(old.as_ref());
        old
    }

    fn take_out(&mut self, old: Option<&Entry>) {
        if let Some(old) = old {
            self.sum = self.sum.wrapping_sub(digest(old));
        }
    }

    /// The entry of that number.
    pub fn get(&self, number: u64) -> Option<Entry> {
        self.numbered.cloned(&number)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbered.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbered.is_empty()
    }

    /// All entries with their numbers, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Entry)> {
        self.numbered.iter().map(|(number, entry)| (number, entry.into_owned()))
    }

    /// All tokens, the oldest first.
    pub fn tokens(&self) -> impl Iterator<Item = u64> {
        self.numbered.iter().map(|(_, entry)| entry.0)
    }

    /// Reports each number whose entry differs from `before`, with its new entry, or `None` if it is gone.
    pub fn difference(&self, before: &Self, report: impl FnMut(u64, Option<&Entry>)) {
        self.numbered.difference(&before.numbered, report);
    }

    /// A digest of the content: 64 bits that are equal for equal results, and hardly for others.
    pub fn digest(&self) -> u64 {
        self.sum.wrapping_add(self.len() as u64)
    }

    fn sorted(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.iter().map(|(_, entry)| entry).collect();
        entries.sort_unstable();
        entries
    }
}

fn digest((token, kept): &Entry) -> u64 {
    entry_digest(token, kept)
}

impl From<PackedMap<u64, Entry>> for Results {
    fn from(numbered: PackedMap<u64, Entry>) -> Self {
        let (mut next, mut sum) = (0, 0u64);
        for (number, entry) in numbered.iter() {
            next = number + 1;
            sum = sum.wrapping_add(digest(&entry));
        }
        Self { numbered, next, sum }
    }
}

impl PartialEq for Results {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
            && (self.numbered == other.numbered || self.sorted() == other.sorted())
    }
}

impl Eq for Results {}

impl PartialOrd for Results {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Results {
    fn cmp(&self, other: &Self) -> Ordering {
        if self == other { Ordering::Equal } else { self.sorted().cmp(&other.sorted()) }
    }
}

impl Hash for Results {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The number first: two neighbours must not run into each other.
        state.write_usize(self.len());
        for entry in self.sorted() {
            entry.hash(state);
        }
    }
}

impl Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sorted()).finish()
    }
}

/// Which number the result of a token has. Half of a token and half of a number tell which entries to look at, which keeps it
/// small: a node holds it in memory whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(OrdSet<Halves>);

/// The upper half of a token's key, and the lower half of a number.
type Halves = (u32, u32);

fn halves(token: u64, number: u64) -> Halves {
    ((token >> 32) as u32, number as u32)
}

impl Numbers {
    pub(super) fn new(results: &Results) -> Self {
        Self(results.iter().map(|(number, (token, _))| halves(token, number)).collect())
    }

    pub(super) fn insert(&mut self, token: u64, number: u64) {
        self.0.insert(halves(token, number));
    }

    pub(super) fn remove(&mut self, token: u64, number: u64) {
        self.0.remove(&halves(token, number));
    }

    /// The result of a token, and its number.
    pub(super) fn find(&self, token: u64, results: &Results) -> Option<(u64, Kept)> {
        let (upper, _) = halves(token, 0);
        self.0.range((upper, 0)..=(upper, u32::MAX)).find_map(|&(_, half)| {
            let number = whole(half, results.next);
            let (_, kept) = results.get(number).filter(|entry| entry.0 == token)?;
            Some((number, kept))
        })
    }
}

/// The number below `next` that ends so. Fewer than 2^32 lie between the oldest and the next.
fn whole(half: u32, next: u64) -> u64 {
    let back = (next as u32).wrapping_sub(half);
    next.saturating_sub(u64::from(back))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irc::facts::{OpId, Region, Version};
    use crate::irc::msg::Answer;

    fn kept(at: u64) -> Kept {
        let id = OpId { requester: Region(0), n: 1, seq: at };
        Kept {
            params: at,
            result: Answer::Version { id, version: Version { n: 1, counter: 0 } },
            at,
        }
    }

    /// Few and many, which are kept in two forms.
    #[test]
    fn results_are_equal_whatever_their_numbers() {
        for count in [3, 1000u64] {
            let mut one = Results::default();
            let mut other = Results::default();
            one.push(7, kept(0));
            assert_eq!(one.remove(0), Some((7, kept(0))));
            for token in 0..count {
                one.push(token, kept(token));
                other.push(count - 1 - token, kept(count - 1 - token));
            }
            assert_eq!((one.digest(), &one), (other.digest(), &other));
            assert_eq!(one.cmp(&other), Ordering::Equal);
            let read: PackedMap<u64, Entry> = one.iter().collect();
            assert_eq!(Results::from(read).push(count, kept(0)), count + 1, "a number above all");
            other.set(0, (count - 1, kept(count)));
            assert_ne!(one.digest(), other.digest());
            assert_ne!(one, other);
            assert_ne!(one.cmp(&other), Ordering::Equal);
            assert_eq!(one.tokens().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_token_is_found_beside_those_that_look_alike_and_past_four_billion() {
        let mut results = Results { next: u64::from(u32::MAX) - 1, ..Results::default() };
        let mut numbers = Numbers::new(&results);
        // All of them share their upper halves.
        for token in 0..8 {
            let number = results.push(token, kept(token));
            numbers.insert(token, number);
        }
        for numbers in [&numbers, &Numbers::new(&results)] {
            for token in 0..8 {
                let (number, found) = numbers.find(token, &results).expect("it is there");
                assert_eq!((number, found), (u64::from(u32::MAX) - 1 + token, kept(token)));
            }
            assert_eq!(numbers.find(8, &results), None);
        }
        let (number, _) = numbers.find(3, &results).expect("it is there");
        results.remove(number);
        numbers.remove(3, number);
        assert_eq!(numbers.find(3, &results), None);
        assert_eq!(numbers.find(4, &results).map(|(_, kept)| kept.at), Some(4));
        assert_eq!(format!("{numbers:?}"), format!("{:?}", Numbers::new(&results)));
    }
}
