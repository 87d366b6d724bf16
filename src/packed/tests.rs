//! What a packed map holds, beside a plain one.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use xxhash_rust::xxh3::Xxh3Default;

use super::cache::Run;
use super::entries::{RUN, Walk, count, take};
use super::*;

type Map = PackedMap<u16, String>;

fn hash(value: &impl Hash) -> u64 {
    BuildHasherDefault::<Xxh3Default>::default().hash_one(value)
}

fn is_packed(map: &Map) -> bool {
    matches!(map.0, Form::Many(_))
}

fn keys(run: &Run) -> Vec<u16> {
    let mut walk = Walk::new([run.clone()]);
    let mut keys = Vec::new();
    while let Some(entry) = walk.first() {
        keys.push(take(entry).0);
        walk.advance();
    }
    keys
}

/// A scratch in memory: what lies in it, by its place.
#[derive(Clone, Debug, Default)]
struct Pieces {
    pieces: Arc<Mutex<BTreeMap<u32, Vec<u8>>>>,
    /// It takes so many at most.
    room: Option<usize>,
    asked: Arc<AtomicUsize>,
    is_lost: Arc<AtomicBool>,
}

impl Pieces {
    fn len(&self) -> usize {
        self.pieces.lock().unwrap().len()
    }

    /// How often something was read.
    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn cache(&self, limit: usize) -> Arc<Cache> {
        Arc::new(Cache::new(Box::new(self.clone()), limit))
    }
}

impl Scratch for Pieces {
    fn put(&self, bytes: &[u8]) -> io::Result<u32> {
        let mut pieces = self.pieces.lock().unwrap();
        if self.room.is_some_and(|room| pieces.len() >= room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let place = pieces.last_key_value().map_or(0, |(place, _)| place + 1);
        pieces.insert(place, bytes.to_vec());
        Ok(place)
    }

    fn get(&self, place: u32, bytes: &mut [u8]) -> io::Result<()> {
        self.asked.fetch_add(1, Relaxed);
        if self.is_lost.load(Relaxed) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let pieces = self.pieces.lock().unwrap();
        let piece = pieces.get(&place).ok_or(io::ErrorKind::NotFound)?;
        bytes.copy_from_slice(piece);
        Ok(())
    }

    fn free(&self, place: u32, len: usize) {
        let piece = self.pieces.lock().unwrap().remove(&place).expect("it is freed once");
        assert_eq!(piece.len(), len);
    }
}

/// What holds of the runs of a map: each is full enough to be one, and under a key of its own.
fn check_runs(map: &Map) {
    let Form::Many(runs) = &map.0 else { return };
    let mut above = None;
    let mut len = 0;
    for (&name, run) in &runs.runs {
        let keys = keys(run);
        assert_eq!(keys.len(), count(&run.bytes()));
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
        limit in proptest::option::of(0_usize..2000),
        room in proptest::option::of(0_usize..20),
    ) {
        let scratch = Pieces { room, ..Pieces::default() };
        let cache = limit.map(|limit| scratch.cache(limit));
        let (mut map, mut plain) = (Map::default(), BTreeMap::new());
        if let Some(cache) = &cache {
            map = Map::kept_in(Arc::clone(cache));
        }
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
        // Nobody asks for any of it any more.
        drop((map, before));
        prop_assert_eq!(scratch.len(), 0);
        prop_assert_eq!(cache.map_or(0, |cache| cache.held()), 0);
    }
}

/// Of a large map little is in memory, also while it is read from end to end, and an older self of it costs nothing.
#[test]
fn a_large_map_is_in_memory_in_part() {
    let scratch = Pieces::default();
    let cache = scratch.cache(10_000);
    let mut pile = Pile::new(Some(Arc::clone(&cache)));
    for key in 0..20_000_u32 {
        pile.push((key * 7919 % 20_000) as u16, &text(20));
        assert!(cache.held() <= 11_000, "{}", cache.held());
    }
    let mut map = PackedMap(Form::Many(pile.runs()));
    check_runs(&map);
    let before = map.clone();
    for key in (0..20_000).step_by(3) {
        map.insert(key, text(21));
        assert!(cache.held() <= 11_000, "{}", cache.held());
    }
    assert_eq!(map.iter().filter(|(_, value)| value.len() == 21).count(), 6667);
    assert!(before.iter().all(|(_, value)| value.len() == 20));
    assert_eq!(difference(&map, &before).len(), 6667);
    assert!(cache.held() <= 11_000, "{}", cache.held());
    // What is read again and again stays.
    let reads = || map.get(&5).is_some();
    assert!(reads());
    let asked = scratch.asked();
    for key in (0..20_000).step_by(40) {
        assert!(reads() && map.get(&key).is_some());
    }
    assert!(scratch.asked() - asked <= 500 + 2, "{}", scratch.asked() - asked);
}

/// Runs that live for a moment only leave nothing behind.
#[test]
fn the_ring_does_not_grow_with_the_changes() {
    let cache = Pieces::default().cache(usize::MAX);
    let mut map = Map::kept_in(Arc::clone(&cache));
    for n in 0..10_000 {
        map.insert(n % 500, text((n % 40) as u8));
    }
    assert!(cache.ring_len() <= 100, "{}", cache.ring_len());
}

/// Without room in the scratch everything stays in memory, and nothing else changes.
#[test]
fn a_scratch_without_room_costs_memory_and_no_more() {
    let scratch = Pieces { room: Some(3), ..Pieces::default() };
    let cache = scratch.cache(0);
    let mut map = Map::kept_in(Arc::clone(&cache));
    for key in 0..2000 {
        map.insert(key, text(9));
    }
    assert!(map.iter().all(|(_, value)| value.len() == 9) && map.len() == 2000);
    assert_eq!(scratch.len(), 3);
    assert!(cache.held() > 2000 * 9);
}

#[test]
#[should_panic(expected = "cannot be read from its scratch file")]
fn what_is_lost_in_the_scratch_is_not_made_up() {
    let scratch = Pieces::default();
    let mut map = Map::kept_in(scratch.cache(0));
    for key in 0..2000 {
        map.insert(key, text(9));
    }
    scratch.is_lost.store(true, Relaxed);
    map.get(&5);
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
