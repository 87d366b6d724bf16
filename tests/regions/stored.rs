//! What must hold on the disks of regions that have ended: the invariants of `docs/SPEC.md`, as far as
//! stored facts have a say in them. What the models assert of each state is asserted here with the same
//! functions ([`stored`]).
//!
//! | invariant | on disk |
//! |---|---|
//! | S1 | no two different decisions; nothing is stuck |
//! | S2 | each fact lies under the seal of its only writer |
//! | S3, S8 | a half is on exactly if the facts of its side want it. That it goes off in the *step* of the deletion is in no fact: the models check it (`half_is_justified`) |
//! | S4, S5, S12, S13, S15 | the whole audit log, from its first entry to the labels of now |
//! | S6 | one peering for one token; each acknowledged call is kept, and has its entry once |
//! | S7 | one live peering of a pair |
//! | S9 | nothing is left to be told; what is dead is off and confirmed on both sides |
//! | S10 | claims are not stored: the models check them (`irc-claims`). What carries them over a crash is: no start's number was ever used twice |
//! | S11 | what had its effect was sent, and the newest that was sent had its effect |
//! | S14 | quotas hold. That no region delays another is a matter of time: `a_region_in_the_dark_*` |
//! | S16 | nothing is restored here: `customers_and_operators_have_commands` puts a backup back, and the models check all interleavings (`recovered`) |

use std::collections::{BTreeMap, BTreeSet};

use tenure::irc::audit::{Cause, Entry};
use tenure::irc::facts::{Account, OpId, Region, SealKey};
use tenure::irc::ledger::{Kept, Ledger};
use tenure::irc::msg::{Answer, Token};
use tenure::models::irc::stored;

use super::customers::Story;
use super::world::World;

/// What one region has left.
pub struct Left {
    ledger: Ledger,
    audit: Vec<(u64, Entry)>,
    key: SealKey,
}

impl Left {
    /// Reads all regions. None of their control planes may run.
    pub fn of(world: &World) -> Vec<Self> {
        let regions = 0..world.plan.regions;
        regions
            .map(|region| Self {
                ledger: world.ledger(region),
                audit: world.audit(region),
                key: world.seal_key(region),
            })
            .collect()
    }
}

fn region(index: usize) -> Region {
    Region(u16::try_from(index).expect("few regions"))
}

/// Checks the facts of regions that are quiet. `starts`: the numbers of its starts that each control plane
/// has told, in the order of time. `quota`: how many undecided requests a network may have.
pub fn check(left: &[Left], stories: &[Story], starts: &[Vec<u64>], quota: usize) {
    let keys: BTreeMap<Region, SealKey> =
        left.iter().enumerate().map(|(index, one)| (region(index), one.key)).collect();
    let ledgers: BTreeMap<Region, &Ledger> =
        left.iter().enumerate().map(|(index, one)| (region(index), &one.ledger)).collect();
    let mut known = BTreeSet::new();
    for (index, Left { ledger, audit, .. }) in left.iter().enumerate() {
        let who = format!("r{index}");
        assert!(stored::facts_are_of_their_writers(ledger, &keys), "{who}: S2");
        assert!(stored::half_is_justified(ledger), "{who}: S3, S8");
        assert!(stored::one_effect_per_token(ledger), "{who}: S6");
        assert!(stored::one_live_per_pair(ledger), "{who}: S7");
        assert!(stored::effects_were_sent(ledger, &ledgers), "{who}: S11");
        assert!(stored::quota_kept(ledger, quota), "{who}: S14");
        assert!(stored::disposed_is_fenced(ledger), "{who}: S5");
        assert!(stored::dead_is_decided(ledger), "{who}: E1");
        if let Err(broken) = stored::check_history(audit, ledger) {
            panic!("{who}: {broken}");
        }
        let starts = &starts[index];
        let grows = starts.is_sorted_by(|one, next| one < next);
        assert!(grows && starts.last() <= Some(&ledger.head.start), "{who}: {starts:?} (S10)");
        assert_eq!(ledger.records.len(), 0, "{who}: nothing is left to be told (S9)");
        for id in ledger.on.keys() {
            assert!(ledger.peerings.contains(&id), "{id:?}: no half without a peering (S3)");
        }
        let born: u64 = ledger.head.born.values().sum();
        let own = ledger.peerings.iter().filter(|(id, _)| id.requester == region(index)).count();
        assert_eq!(born, own as u64, "{who}: no creation but those that are there (S6)");
        for id in ledger.peerings.keys() {
            known.insert(id);
            check_peering(&ledgers, region(index), id);
        }
    }
    assert_eq!(known.len(), stories.len(), "one peering for each acknowledged creation (S6)");
    check_calls(left, stories);
}

/// One side of a peering against the other side.
fn check_peering(ledgers: &BTreeMap<Region, &Ledger>, here: Region, id: OpId) {
    assert!(stored::one_decision(ledgers.values().copied(), id), "{id:?}: one decision (S1)");
    let ledger = ledgers[&here];
    let one = ledger.peerings.get(&id).expect("it is one of them");
    assert!(!one.stuck, "{id:?}: no facts contradict each other (S1)");
    let is_on = ledger.on.contains(&id);
    assert_eq!(is_on, one.wants_half(), "{id:?}: on exactly if accepted and live (S3)");
    let there = ledgers[&one.peer(id)].peerings.get(&id);
    let there = there.unwrap_or_else(|| panic!("{id:?} is known on both sides (E2)"));
    assert_ne!(there.side, one.side, "{id:?}");
    assert_eq!(there.requested, one.requested, "{id:?}: one request (S2)");
    assert_eq!(there.decided, one.decided, "{id:?}: one decision (S1)");
    if one.is_dead() {
        assert!(one.confirmed && !is_on, "{id:?}: both know that it is over (S9)");
    }
    // Nothing is left to be told, so the newest that was ever sent has had its effect.
    if let Some((_, op)) = one.seen {
        assert_eq!(op + 1, there.next_op, "{id:?}: the newest word counts (S11)");
    }
}

/// Every acknowledged call has taken effect exactly once: its result is kept under its token, what it
/// changed for the owner has one entry in the audit log, and no entry names a call that nobody made.
fn check_calls(left: &[Left], stories: &[Story]) {
    let mut entries: Vec<BTreeMap<u64, Vec<&Entry>>> = Vec::new();
    for one in left {
        let mut of_calls: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
        for (_, entry) in &one.audit {
            if let Cause::Call { token, .. } = entry.cause {
                of_calls.entry(token).or_default().push(entry);
            }
        }
        entries.push(of_calls);
    }
    let results = |one: &Left| one.ledger.tokens.iter().map(|(_, entry)| entry).collect();
    let results: Vec<BTreeMap<u64, Kept>> = left.iter().map(results).collect();
    let mut made = vec![BTreeSet::new(); left.len()];
    for told in stories.iter().flat_map(|story| &story.told) {
        let op = told.question["op"].as_str().expect("a call has a name");
        let token = Token(told.question["token"].as_u64().expect("a call has a token"));
        let key = token.key(region(told.region), Account(1));
        made[told.region].insert(key);
        let caused = entries[told.region].get(&key).map_or(&[][..], Vec::as_slice);
        let kept = results[told.region].get(&key);
        if told.answer["ok"] != true {
            assert!(kept.is_none() && caused.is_empty(), "{told:?}: a refusal changes nothing");
            continue;
        }
        let kept = kept.unwrap_or_else(|| panic!("{told:?}: the result is kept (S6)"));
        let (Answer::Done { id, .. } | Answer::Version { id, .. }) = kept.result else {
            panic!("{told:?}: {kept:?}")
        };
        let ids = caused.iter().all(|entry| entry.id == Some(id));
        // Options show in no label, and a deletion of what is dead changes nothing.
        let allowed = match op {
            "create" | "accept" | "reject" => 1..=1,
            "delete" => 0..=1,
            _ => 0..=0,
        };
        assert!(ids && allowed.contains(&caused.len()), "{told:?}: {caused:?}: once (S6)");
        if op == "create" {
            let one = left[told.region].ledger.peerings.get(&id).expect("it is there");
            assert_eq!(one.requested.facts.token, key, "{told:?}");
        }
    }
    for (index, (entries, made)) in entries.iter().zip(&made).enumerate() {
        let strange = entries.keys().find(|key| !made.contains(key));
        assert_eq!(strange, None, "r{index}: an effect of a call that nobody has made");
    }
}
