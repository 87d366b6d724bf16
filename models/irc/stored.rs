//! What must hold of what regions have stored, for whoever looks: a model at each of its states, or a
//! test that reads the disks of processes that have ended. The numbers are those of the invariants in
//! `docs/SPEC.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::irc::audit::{self, Cause, Entry};
use crate::irc::facts::{Decided, Decision, OpId, Region, SealKey};
use crate::irc::ledger::{Ledger, Link};
use crate::irc::msg::Command;
use crate::irc::peering::{Label, Peering, Side};

/// Whether a region is not frozen towards that one.
pub fn is_open(ledger: &Ledger, towards: Region) -> bool {
    ledger.peers.get(&towards).is_some_and(|peer| peer.link == Link::Open)
}

/// S1: no two regions that are open to each other hold different decisions on this peering.
pub fn one_decision<'a>(ledgers: impl Iterator<Item = &'a Ledger>, id: OpId) -> bool {
    let mut known: Vec<Decision> = ledgers
        .filter_map(|one| {
            let peering = one.peerings.get(&id)?;
            let open = is_open(one, peering.peer(id)) && !peering.stuck;
            peering.decided.facts.decision.filter(|_| open)
        })
        .collect();
    known.dedup();
    known.len() <= 1
}

/// S2: each fact lies under the seal of the region that alone may write it.
pub fn facts_are_of_their_writers(ledger: &Ledger, keys: &BTreeMap<Region, SealKey>) -> bool {
    ledger.peerings.iter().all(|(id, one)| is_of_its_writers(id, &one, keys))
}

/// S2, of one peering.
pub fn is_of_its_writers(id: OpId, one: &Peering, keys: &BTreeMap<Region, SealKey>) -> bool {
    let accepter = one.requested.facts.target.region;
    let by_requester =
        keys.get(&id.requester).is_some_and(|key| key.has_sealed(id, &one.requested));
    let nobody = one.decided.facts == Decided::default() && one.decided.seal == 0;
    let by_accepter =
        nobody || keys.get(&accepter).is_some_and(|key| key.has_sealed(id, &one.decided));
    by_requester && by_accepter
}

/// S3, S8: outside a freeze a half that is on is accepted, and no delete flag is known to its side.
pub fn half_is_justified(ledger: &Ledger) -> bool {
    ledger.peerings.iter().all(|(id, one)| its_half_is_justified(ledger, id, &one))
}

/// S3, S8, of one peering.
pub fn its_half_is_justified(ledger: &Ledger, id: OpId, one: &Peering) -> bool {
    !is_open(ledger, one.peer(id)) || !ledger.on.contains(&id) || one.wants_half()
}

/// S6: one token begins one operation, however often it is said and whatever has become of it.
pub fn one_effect_per_token(ledger: &Ledger) -> bool {
    let mut tokens = BTreeSet::new();
    let all = ledger.peerings.iter();
    all.filter(|(_, one)| one.side == Side::Requester)
        .all(|(_, one)| tokens.insert(one.requested.facts.token))
}

/// S7: outside a freeze there is at most one live peering for each pair.
pub fn one_live_per_pair(ledger: &Ledger) -> bool {
    let mut pairs = BTreeSet::new();
    ledger
        .peerings
        .iter()
        .filter(|(id, peering)| !peering.is_dead() && is_open(ledger, peering.peer(*id)))
        .all(|(id, peering)| pairs.insert(peering.pair(id)))
}

/// S11: what has had its effect of the other side is never newer than what that side has sent: the
/// numbers of its operations of one life are below the next one.
pub fn effects_were_sent(ledger: &Ledger, others: &BTreeMap<Region, &Ledger>) -> bool {
    ledger.peerings.iter().all(|(id, one)| {
        let Some((n, op)) = one.seen else { return true };
        let sender = others.get(&one.peer(id));
        let there = sender.and_then(|sender| Some((sender, sender.peerings.get(&id)?)));
        there.is_none_or(|(sender, there)| n <= sender.head.incarnation.n && op < there.next_op)
    })
}

/// S14: no more undecided requests at a network than its quota.
pub fn quota_kept(ledger: &Ledger, quota: usize) -> bool {
    let mut pending: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, one) in ledger.peerings.iter() {
        if one.side == Side::Accepter && one.is_undecided() && !one.is_dead() {
            *pending.entry(one.requested.facts.target.network.0).or_default() += 1;
        }
    }
    pending.values().all(|&count| count <= quota)
}

/// E4, S5: nothing lives with a region that was declared gone.
pub fn disposed_is_fenced(ledger: &Ledger) -> bool {
    ledger.peerings.iter().all(|(id, one)| is_fenced(ledger, id, &one))
}

/// E4, S5, of one peering.
pub fn is_fenced(ledger: &Ledger, id: OpId, one: &Peering) -> bool {
    let peer = ledger.peers.get(&one.peer(id));
    one.is_dead() || peer.is_none_or(|peer| !peer.disposed)
}

/// E1: at an open accepter nothing is dead and undecided.
pub fn dead_is_decided(ledger: &Ledger) -> bool {
    ledger.peerings.iter().all(|(id, peering)| {
        peering.side == Side::Requester
            || !is_open(ledger, peering.peer(id))
            || !(peering.requested.facts.deleted && peering.is_undecided())
    })
}

/// What the whole audit log of a region that was never restored says about its past, and whether it
/// ends in what the region has now:
///
/// - S4: no label goes down in rank, and none follows a terminal one;
/// - S5: what was dead, or forgotten, never lives again;
/// - S12: what this region accepted it accepted before the deadline;
/// - S13: no start, no clock and no freeze ends what is active: only a call, the other region's facts
///   or a disposal does;
/// - S15: the log is a whole chain from its first entry on; each transition begins where the one before
///   has ended, and the last one ends in the label that the region shows.
///
/// # Errors
///
/// The first entry that says something else, and what it breaks.
pub fn check_history(entries: &[(u64, Entry)], ledger: &Ledger) -> Result<(), String> {
    let chain = entries.iter().map(|(number, entry)| (*number, entry));
    audit::verify(chain, ledger.head.audited).map_err(|broken| format!("S15: {broken}"))?;
    if entries.first().is_some_and(|(number, entry)| *number != 0 || entry.before != [0; 32]) {
        return Err("S15: the audit log does not begin with its first entry".to_owned());
    }
    let mut labels: BTreeMap<OpId, Option<Label>> = BTreeMap::new();
    for (number, entry) in entries {
        // A command about a peering that changes nothing of what its owner sees.
        let Some(id) = entry.id.filter(|_| entry.from != entry.to) else { continue };
        let wrong = |what: &str| Err(format!("entry {number}, of {id:?}: {what}: {entry:?}"));
        let before = labels.insert(id, entry.to);
        if before.flatten() != entry.from {
            return wrong("S15: it does not begin where the one before has ended");
        }
        match (entry.from, entry.to) {
            (None, _) if before.is_some() => return wrong("S5: it was forgotten, and lives again"),
            (Some(from), Some(to)) if to.rank() < from.rank() => return wrong("S4: it went down"),
            (Some(from), Some(_)) if from.is_terminal() => return wrong("S4: it was over"),
            (Some(from), None) if from.rank() < Label::Deleting.rank() => {
                return wrong("S5: it was forgotten alive");
            }
            (Some(Label::Active), _)
                if !matches!(
                    entry.cause,
                    Cause::Call { .. }
                        | Cause::Region { .. }
                        | Cause::Operator(Command::Dispose(_))
                ) =>
            {
                return wrong("S13: nobody has ended it");
            }
            _ => {}
        }
        let deadline = ledger.peerings.get(&id).and_then(|one| one.decided.facts.deadline);
        let is_acceptance =
            entry.to == Some(Label::Provisioning) && matches!(entry.cause, Cause::Call { .. });
        if is_acceptance && deadline.is_none_or(|deadline| entry.at >= deadline) {
            return wrong("S12: it was accepted too late");
        }
    }
    let now: BTreeMap<OpId, Option<Label>> =
        ledger.peerings.keys().map(|id| (id, ledger.label(id))).collect();
    labels.retain(|_, label| label.is_some());
    if labels != now {
        return Err("S15: the audit log does not end in what the region has".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irc::facts::{Account, Incarnation, Network, Requested, Sealed, Target, Version};
    use crate::irc::facts::{Options, SealKey};
    use crate::irc::msg::block_of;

    const ID: OpId = OpId { requester: Region(0), n: 1, seq: 0 };
    const KEYS: [SealKey; 2] = [SealKey([1, 2]), SealKey([3, 4])];

    fn keys() -> BTreeMap<Region, SealKey> {
        [(Region(0), KEYS[0]), (Region(1), KEYS[1])].into()
    }

    fn request() -> Requested {
        Requested {
            account: Account(1),
            network: Network(1),
            block: block_of(Network(1)),
            target: Target { region: Region(1), account: Account(1), network: Network(2) },
            token: 7,
            deleted: false,
            options: Options { version: Version { n: 1, counter: 0 }, resolve_names: false },
        }
    }

    /// An accepted peering, as A has it.
    fn ledger() -> Ledger {
        let mut peering = Peering::new(Side::Accepter, KEYS[0].seal(ID, request()));
        let decided =
            Decided { deadline: Some(9), decision: Some(Decision::Accepted), ..Decided::default() };
        peering.decided = KEYS[1].seal(ID, decided);
        let mut ledger = Ledger::default();
        ledger.peerings.insert(ID, peering);
        ledger.on.insert(ID, ());
        ledger
    }

    fn by_region() -> Cause {
        Cause::Region { from: Region(0), incarnation: Incarnation::default() }
    }

    const CALL: Cause = Cause::Call { caller: Account(1), token: 1 };

    type Steps = [(u64, Option<Label>, Cause)];

    /// A log of these labels of one peering, one after the other, at these times.
    fn log(steps: &Steps, ledger: &mut Ledger) -> Vec<(u64, Entry)> {
        let mut from = None;
        let mut entries = Vec::new();
        for &(at, to, cause) in steps {
            let (number, before) = ledger.head.audited;
            let incarnation = Incarnation { n: 1, life: 0 };
            let entry = Entry { at, incarnation, id: Some(ID), from, to, cause, before };
            ledger.head.audited = (number + 1, entry.link());
            entries.push((number, entry));
            from = to;
        }
        entries
    }

    fn history(steps: &Steps) -> Result<(), String> {
        let mut ledger = ledger();
        let entries = log(steps, &mut ledger);
        check_history(&entries, &ledger)
    }

    #[test]
    fn a_history_is_told_from_one_that_cannot_be() {
        use Label::{Active, Deleted, Deleting, PendingAcceptance, Provisioning, Rejected};
        let begun = [
            (1, Some(PendingAcceptance), by_region()),
            (2, Some(Provisioning), CALL),
            (2, Some(Active), Cause::Half),
        ];
        assert_eq!(history(&begun), Ok(()));
        let with = |more: &Steps| [&begun[..], more].concat();
        let breaks = |steps: &Steps, rule: &str| {
            let said = history(steps).expect_err(rule);
            assert!(said.contains(rule), "{said}");
        };
        breaks(&with(&[(3, Some(PendingAcceptance), CALL)]), "S4: it went down");
        let over = [(1, Some(Rejected), CALL), (2, Some(Deleted), CALL)];
        breaks(&over, "S4: it was over");
        breaks(&with(&[(3, Some(Deleting), CALL), (4, Some(Active), CALL)]), "S4: it went down");
        let again = [(3, Some(Deleted), CALL), (4, None, Cause::Clock), (5, Some(Active), CALL)];
        breaks(&with(&again), "S5: it was forgotten, and lives");
        breaks(&with(&[(3, None, Cause::Clock)]), "S5: it was forgotten alive");
        breaks(&[begun[0], (9, Some(Provisioning), CALL)], "S12");
        breaks(&with(&[(3, Some(Deleting), Cause::Start)]), "S13");
        breaks(&begun[..2], "S15: the audit log does not end");
        breaks(&[], "S15: the audit log does not end");
        // Two entries for one transition, one that is missing, and one that was changed.
        let mut ledger = ledger();
        let mut entries = log(&begun, &mut ledger);
        let (number, before) = ledger.head.audited;
        let twice = Entry { before, ..entries[2].1 };
        ledger.head.audited = (number + 1, twice.link());
        entries.push((number, twice));
        let said = check_history(&entries, &ledger).expect_err("twice");
        assert!(said.contains("S15: it does not begin"), "{said}");
        let said = check_history(&entries[1..], &ledger).expect_err("cut");
        assert!(said.contains("S15: the audit log does not begin"), "{said}");
        entries[1].1.at = 3;
        let said = check_history(&entries, &ledger).expect_err("changed");
        assert!(said.contains("S15: entry 1"), "{said}");
    }

    #[test]
    fn a_fact_of_another_writer_is_told() {
        let good = ledger();
        assert!(facts_are_of_their_writers(&good, &keys()));
        let with = |change: &dyn Fn(&mut Peering)| {
            let mut ledger = good.clone();
            let mut peering = ledger.peerings.cloned(&ID).expect("there");
            change(&mut peering);
            ledger.peerings.insert(ID, peering);
            ledger
        };
        let forged = with(&|one| one.decided = KEYS[0].seal(ID, one.decided.facts));
        assert!(!facts_are_of_their_writers(&forged, &keys()));
        let forged = with(&|one| one.requested.facts.deleted = true);
        assert!(!facts_are_of_their_writers(&forged, &keys()));
        let unsealed = with(&|one| one.decided.seal = 0);
        assert!(!facts_are_of_their_writers(&unsealed, &keys()));
        let blank = with(&|one| one.decided = Sealed { facts: Decided::default(), seal: 0 });
        assert!(facts_are_of_their_writers(&blank, &keys()));
    }

    #[test]
    fn an_effect_that_nobody_has_sent_is_told() {
        let seen = |seen| {
            let mut ledger = ledger();
            let mut peering = ledger.peerings.cloned(&ID).expect("there");
            peering.seen = seen;
            ledger.peerings.insert(ID, peering);
            ledger
        };
        let mut sender = Ledger::default();
        sender.head.incarnation.n = 1;
        let mut own = Peering::new(Side::Requester, KEYS[0].seal(ID, request()));
        own.next_op = 2;
        sender.peerings.insert(ID, own);
        let others: BTreeMap<Region, &Ledger> = [(Region(0), &sender)].into();
        assert!(effects_were_sent(&seen(None), &others));
        assert!(effects_were_sent(&seen(Some((1, 1))), &others));
        assert!(!effects_were_sent(&seen(Some((1, 2))), &others));
        assert!(!effects_were_sent(&seen(Some((2, 0))), &others));
    }
}
