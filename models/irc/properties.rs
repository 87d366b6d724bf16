//! What must hold of two regions, and what must be possible. The numbers are those of the invariants
//! in `docs/SPEC.md`.

use std::collections::BTreeSet;

use stateright::Property;

use super::{IrcState, IrcWorld, labels, stored};
use crate::irc::facts::{Decision, OpId};
use crate::irc::ledger::{ControlState, Ledger, Link};
use crate::irc::peering::{Label, Side};

fn running(state: &IrcState) -> impl Iterator<Item = &ControlState> {
    state.nodes.iter().filter_map(|node| node.state.as_ref())
}

fn ledgers(state: &IrcState) -> impl Iterator<Item = &Ledger> {
    running(state).map(|one| &one.ledger)
}

fn ids(state: &IrcState) -> BTreeSet<OpId> {
    running(state).flat_map(|one| one.ledger.peerings.keys()).collect()
}

/// Whether a region has begun more operations than it knows.
fn has_forgotten(one: &ControlState) -> bool {
    let born: u64 = one.ledger.head.born.values().sum();
    let own = one.ledger.peerings.iter().filter(|(_, peering)| peering.side == Side::Requester);
    born > own.count() as u64
}

/// Whether a region runs, and is frozen towards nobody.
fn is_all_open(one: Option<&ControlState>) -> bool {
    one.is_some_and(|one| one.ledger.peers.iter().all(|(_, peer)| peer.link == Link::Open))
}

fn has(state: &IrcState, label: Label) -> bool {
    running(state).any(|one| labels(one).values().any(|&is| is == label))
}

/// S1: no two regions that are open to each other hold different decisions, and none changes one.
pub fn one_decision() -> Property<IrcWorld> {
    Property::always("one_decision", |_, state: &IrcState| {
        if state.ghost.wrong.decision_changed {
            return false;
        }
        ids(state).into_iter().all(|id| stored::one_decision(ledgers(state), id))
    })
}

/// S1: nothing contradicts itself: not even what comes back to a region that was restored.
pub fn nothing_is_stuck() -> Property<IrcWorld> {
    Property::always("nothing_is_stuck", |_, state: &IrcState| {
        ledgers(state).all(|one| one.peerings.iter().all(|(_, peering)| !peering.stuck))
    })
}

/// S2: nobody holds a decision that A's owner has not taken. For models in which nobody accepts.
pub fn nobody_accepted() -> Property<IrcWorld> {
    Property::always("nobody_accepted", |_, state: &IrcState| {
        running(state).all(|one| {
            let mut all = one.ledger.peerings.iter();
            all.all(|(_, one)| one.decided.facts.decision != Some(Decision::Accepted))
        })
    })
}

/// S3, S8: outside a freeze a half that is on is accepted, and no delete flag is known to its side.
pub fn half_is_justified() -> Property<IrcWorld> {
    Property::always("half_is_justified", |_, state: &IrcState| {
        ledgers(state).all(stored::half_is_justified)
    })
}

/// S4: no view goes down in rank, and no terminal label changes.
pub fn rank_never_falls() -> Property<IrcWorld> {
    Property::always("rank_never_falls", |_, state: &IrcState| !state.ghost.wrong.rank_fell)
}

/// S5: what was dead on both sides never lives again.
pub fn dead_stays_dead() -> Property<IrcWorld> {
    Property::always("dead_stays_dead", |_, state: &IrcState| !state.ghost.wrong.dead_lives)
}

/// S7: outside a freeze there is at most one live peering for each pair on each side.
pub fn one_live_per_pair() -> Property<IrcWorld> {
    Property::always("one_live_per_pair", |_, state: &IrcState| {
        ledgers(state).all(stored::one_live_per_pair)
    })
}

/// S12: nothing is accepted at or after its deadline.
pub fn accepted_in_time() -> Property<IrcWorld> {
    Property::always("accepted_in_time", |_, state: &IrcState| !state.ghost.wrong.accepted_late)
}

/// S6: one token begins one operation, however often it is said and whatever has become of it.
pub fn one_effect_per_token() -> Property<IrcWorld> {
    Property::always("one_effect_per_token", |_, state: &IrcState| {
        ledgers(state).all(stored::one_effect_per_token)
    })
}

/// S4: options change only as whoever changes them has seen them.
pub fn no_lost_update() -> Property<IrcWorld> {
    Property::always("no_lost_update", |_, state: &IrcState| !state.ghost.wrong.update_lost)
}

/// S13: no crash, no restore and no freeze changes a half: it goes off by facts alone.
pub fn no_half_falls() -> Property<IrcWorld> {
    Property::always("no_half_falls", |_, state: &IrcState| !state.ghost.wrong.half_fell)
}

/// E4, S5: nothing lives with a region that was declared gone.
pub fn disposed_is_fenced() -> Property<IrcWorld> {
    Property::always("disposed_is_fenced", |_, state: &IrcState| {
        ledgers(state).all(stored::disposed_is_fenced)
    })
}

/// S14: no more undecided requests at a network than its quota.
pub fn quota_kept() -> Property<IrcWorld> {
    Property::always("quota_kept", |world, state: &IrcState| {
        state.nodes.iter().zip(&world.actors).all(|(node, actor)| {
            let quota = actor.control.policy.quota[1];
            node.state.as_ref().is_none_or(|one| stored::quota_kept(&one.ledger, quota))
        })
    })
}

/// IF-18: nobody is told that there is no such thing as what another region has asked for. Only a region
/// that was restored can bring back to life what the other has rightly forgotten.
pub fn nobody_is_denied() -> Property<IrcWorld> {
    Property::always("nobody_is_denied", |_, state: &IrcState| !state.ghost.wrong.denied)
}

/// S15: each visible transition has exactly one entry in the audit log, which is a chain.
pub fn audited() -> Property<IrcWorld> {
    Property::always("audited", |_, state: &IrcState| !state.ghost.wrong.audit_differs)
}

/// E1: at an open accepter nothing is dead and undecided.
pub fn dead_is_decided() -> Property<IrcWorld> {
    Property::always("dead_is_decided", |_, state: &IrcState| {
        ledgers(state).all(stored::dead_is_decided)
    })
}

/// What a side makes of an operation, as far as the other side must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Undecided,
    Active,
    Dead,
}

/// E2, E3, S9: when nothing is left to be said, whatever may still be under way, both sides agree: both have
/// it undecided, or on, or both dead or gone, with their halves off.
pub fn rest_is_agreement() -> Property<IrcWorld> {
    Property::always("rest_is_agreement", |world, state: &IrcState| {
        // What is under way between the regions may be late for ever; only a switch must come.
        let busy = state.network.iter().any(|flight| flight.src == flight.dst);
        let all_up = state.nodes.iter().all(|node| node.state.is_some());
        let quiet = !busy
            && all_up
            && running(state).zip(&world.actors).all(|(one, actor)| {
                actor.control.work(one).is_empty()
                    && one
                        .ledger
                        .peers
                        .iter()
                        .all(|(_, peer)| peer.link == Link::Open && !peer.disposed)
            });
        if !quiet {
            return true;
        }
        ids(state).into_iter().all(|id| {
            let classes: Vec<Class> = state
                .nodes
                .iter()
                .zip(&world.actors)
                .filter_map(|(node, actor)| {
                    let one = node.state.as_ref()?;
                    let region = actor.control.region;
                    let Some(peering) = one.ledger.peerings.get(&id) else {
                        // A region that has no part in it says nothing.
                        let has_part = id.requester == region
                            || ids_of(state, id).is_some_and(|target| target == region.0);
                        return has_part.then_some(Class::Dead);
                    };
                    Some(match peering.label(one.ledger.on.contains(&id)) {
                        Label::InitiatingRequest | Label::PendingAcceptance => Class::Undecided,
                        Label::Provisioning | Label::Active => Class::Active,
                        _ => Class::Dead,
                    })
                })
                .collect();
            classes.iter().all(|class| *class == classes[0])
        })
    })
}

fn ids_of(state: &IrcState, id: OpId) -> Option<u16> {
    running(state)
        .find_map(|one| one.ledger.peerings.get(&id))
        .map(|peering| peering.requested.facts.target.region.0)
}

macro_rules! sometimes {
    ($($(#[$doc:meta])* $name:ident = |$state:ident| $condition:expr;)*) => {
        $($(#[$doc])*
        pub fn $name() -> Property<IrcWorld> {
            Property::sometimes(stringify!($name), |_, $state: &IrcState| $condition)
        })*
    };
}

sometimes! {
    /// Some peering is on at both ends.
    both_active = |state| state.nodes.iter().filter(|node| {
        node.state.as_ref().is_some_and(|one| !one.ledger.on.is_empty())
    }).count() >= 2;
    /// Some side shows `deleted`.
    deleted = |state| has(state, Label::Deleted);
    /// Some side shows `rejected`.
    rejected = |state| has(state, Label::Rejected);
    /// Some side shows `expired`.
    expired = |state| has(state, Label::Expired);
    /// Some side shows `failed`.
    failed = |state| has(state, Label::Failed);
    /// Something was forgotten.
    forgotten = |state| running(state).any(has_forgotten);
    /// A region that was frozen has thawed.
    thawed = |state| state.nodes.iter().zip(&state.ghost.restored).any(|(node, &restored)| {
        restored > 0 && is_all_open(node.state.as_ref())
    });
    /// All regions were restored, and all have thawed.
    all_thawed = |state| state.nodes.iter().zip(&state.ghost.restored).all(|(node, &restored)| {
        restored > 0 && is_all_open(node.state.as_ref())
    });
    /// All regions waited for a promise at once, and all have thawed (E6).
    thawed_together = |state| state.ghost.seen.thawed_together;
    /// A second peering of one pair is accepted.
    accepted_again = |state| running(state).any(|one| one.ledger.peerings.iter().any(|(id, one)| {
        id.seq == 1 && one.decided.facts.decision == Some(Decision::Accepted)
    }));
    /// The third wish was done.
    third_done = |state| state.ghost.said.contains(&2);
    /// Own facts came back under the own seal.
    recovered = |state| running(state).any(|one| {
        one.ledger.peers.iter().any(|(_, peer)| !peer.lost.recovered.is_empty())
    });
}
