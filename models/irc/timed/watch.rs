//! What is waited for, and the properties that say it is not overdue. The numbers are those of the
//! liveness table in `docs/SPEC.md`.

use stateright::Property;

use super::{TimedState, TimedWorld, control};
use crate::irc::facts::{Decision, OpId, Region};
use crate::irc::ledger::{ControlState, Link};
use crate::irc::msg::{RecordId, Work};
use crate::irc::peering::{Label, Side};
use crate::models::irc::first;

/// What a watch waits for. It waits only while nothing hinders: all nodes are up and the links between
/// the regions are there, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// E1: an open accepter has stored a request and not decided it. Counts while that one is up.
    Decided,
    /// E2: the two sides put a peering into different classes: undecided, accepted, dead.
    Agreed,
    /// E3: it is accepted, and neither on at both sides nor dead at both.
    Active,
    /// E4: a side has raised its delete flag, and its own half is on. Counts whatever is down.
    Off,
    /// E4: a side has raised its delete flag and does not show `deleted`; the peer can be reached, or
    /// was declared gone.
    Deleted,
    /// E5: this remote has work that may be handed out and a free place, and gets no claim. Counts
    /// whatever becomes of other remotes.
    Served(Region),
    /// E6: a side is frozen.
    Thawed,
    /// E7: the deadly record is in the log and not set aside.
    SetAside,
    /// E7: the first peering is deleted where it was asked for, and its accepter does not know.
    DeleteTold,
    /// E7: the first notice has not come to its reader as it was written.
    NoticeTold,
    /// E8: there are records in the first region's log.
    Drained,
    /// I-26: nothing is waited for; it is seen whether claims that were handed out together end together.
    Spread,
}

/// What a side makes of a peering, as far as the other side must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Undecided,
    Accepted,
    Dead,
}

fn class(one: &ControlState, id: OpId) -> Class {
    match one.ledger.label(id) {
        Some(Label::InitiatingRequest | Label::PendingAcceptance) => Class::Undecided,
        Some(Label::Provisioning | Label::Active) => Class::Accepted,
        _ => Class::Dead,
    }
}

fn is_open(one: &ControlState, towards: Region) -> bool {
    one.ledger.peers.get(&towards).is_some_and(|peer| peer.link == Link::Open)
}

/// Whether all nodes are up and the links are there.
fn is_healthy(state: &TimedState) -> bool {
    !state.ghost.dark && state.nodes.iter().all(|node| node.state.is_some())
}

/// The control planes of the first two regions, if both run.
fn pair(state: &TimedState) -> Option<[&ControlState; 2]> {
    Some([control(state, 0)?, control(state, 1)?])
}

fn is_open_pair([one, other]: [&ControlState; 2]) -> bool {
    is_open(one, Region(1)) && is_open(other, Region(0))
}

/// Whether the own delete flag of a side is up.
fn has_flag(one: &ControlState, id: OpId) -> bool {
    one.ledger.peerings.get(&id).is_some_and(|one| match one.side {
        Side::Requester => one.requested.facts.deleted,
        Side::Accepter => one.decided.facts.deleted,
    })
}

impl Watch {
    /// Whether it waits in this state.
    pub(super) fn waits(self, world: &TimedWorld, state: &TimedState) -> bool {
        let id = first(0);
        let healthy = is_healthy(state);
        match self {
            Self::Decided => control(state, 1).is_some_and(|one| {
                let peering = one.ledger.peerings.get(&id);
                is_open(one, Region(0)) && peering.is_some_and(|one| one.is_undecided())
            }),
            Self::Agreed => pair(state).is_some_and(|[one, other]| {
                healthy && is_open_pair([one, other]) && class(one, id) != class(other, id)
            }),
            Self::Active => pair(state).is_some_and(|pair| {
                let accepted = pair.iter().any(|one| {
                    let peering = one.ledger.peerings.get(&id);
                    peering
                        .is_some_and(|one| one.decided.facts.decision == Some(Decision::Accepted))
                });
                let all = |label| pair.iter().all(|one| one.ledger.label(id) == Some(label));
                let dead = pair.iter().all(|one| class(one, id) == Class::Dead);
                healthy && is_open_pair(pair) && accepted && !all(Label::Active) && !dead
            }),
            Self::Off => (0..2)
                .filter_map(|node| control(state, node))
                .any(|one| has_flag(one, id) && one.ledger.on.contains(&id)),
            Self::Deleted => (0..2_u16).any(|region| {
                let Some(one) = control(state, region.into()) else { return false };
                let peer = Region(1 - region);
                let is_gone = one.ledger.peers.get(&peer).is_some_and(|peer| peer.disposed);
                let is_over = one.ledger.label(id).is_none_or(Label::is_terminal);
                (healthy || is_gone) && has_flag(one, id) && !is_over
            }),
            Self::Served(region) => control(state, 0).is_some_and(|one| {
                let limit = world.observer.scope.numbers.claims;
                let out =
                    one.claims.keys().filter(|&&work| one.ledger.remote_of(work) == Some(region));
                let mut records = one.ledger.records.iter();
                let is_ready = records.any(|(&record, what)| {
                    let work = Work::Record(record);
                    what.remote == region
                        && !what.parked
                        && !one.claims.contains_key(&work)
                        && !one.waits.contains_key(&work)
                });
                is_ready && out.count() < limit
            }),
            Self::Thawed => pair(state).is_some_and(|pair| healthy && !is_open_pair(pair)),
            Self::SetAside => control(state, 0).is_some_and(|one| {
                let deadly = world.observer.scope.deadly.unwrap_or(RecordId { n: 0, seq: 0 });
                one.ledger.records.get(&deadly).is_some_and(|record| !record.parked)
            }),
            Self::DeleteTold => pair(state).is_some_and(|[one, other]| {
                let is_told = other.ledger.peerings.get(&id).is_some_and(|one| one.is_dead());
                healthy && has_flag(one, id) && !is_told
            }),
            Self::NoticeTold => pair(state).is_some_and(|[one, other]| {
                let (written, read) = (one.ledger.notices.get(&id), other.ledger.notices.get(&id));
                healthy && written.is_some() && written != read
            }),
            Self::Drained => {
                healthy && control(state, 0).is_some_and(|one| !one.ledger.records.is_empty())
            }
            Self::Spread => false,
        }
    }
}

fn is_in_time(world: &TimedWorld, state: &TimedState, asked: impl Fn(Watch) -> bool) -> bool {
    let watches = world.observer.scope.watches.iter().zip(&state.ghost.waited);
    watches.filter(|((watch, _), _)| asked(*watch)).all(|((_, bound), waited)| waited <= bound)
}

macro_rules! in_time {
    ($($(#[$doc:meta])* $name:ident = ($watch:pat);)*) => {
        $($(#[$doc])*
        pub fn $name() -> Property<TimedWorld> {
            Property::always(stringify!($name), |world, state: &TimedState| {
                is_in_time(world, state, |watch| matches!(watch, $watch))
            })
        })*
    };
}

in_time! {
    /// E1: a request that its accepter has stored is decided by its deadline and a unit of its clock.
    decided_by_deadline = (Watch::Decided);
    /// E2: with the links there, both sides put a peering into one class within the bound.
    views_agree_in_time = (Watch::Agreed);
    /// E3: what is accepted is active at both sides within the bound, or dead at both.
    active_in_time = (Watch::Active);
    /// E4: the own half is off in the instant of the deletion.
    half_off_at_once = (Watch::Off);
    /// E4: what one side has deleted shows `deleted` there within the bound.
    deleted_in_time = (Watch::Deleted);
    /// E5, S14: a remote with work and a free place gets a claim within two polls, whatever becomes of
    /// other remotes.
    served_in_time = (Watch::Served(_));
    /// E6: a pair that is frozen thaws within the bound, also if both sides are.
    thawed_in_time = (Watch::Thawed);
    /// E7: a record of which every server dies is set aside within the bound.
    set_aside_in_time = (Watch::SetAside);
    /// E7: a deletion gets through within the bound, whatever became of what it replaces.
    delete_gets_through = (Watch::DeleteTold);
    /// E7: a record that not every server knows is carried within the bound by one that does.
    carried_by_who_knows = (Watch::NoticeTold);
    /// E8: when an outage is over the log empties within the bound.
    backlog_drains = (Watch::Drained);
}

/// E8: into the dark go so many calls at once, and then one in each time that a vain call and the
/// shortest wait take.
pub fn sends_are_paced() -> Property<TimedWorld> {
    Property::always("sends_are_paced", |world, state: &TimedState| {
        let pace = world.observer.scope.pace;
        pace.is_none_or(|(burst, pace)| state.ghost.debt <= burst * pace)
    })
}

macro_rules! sometimes {
    ($($(#[$doc:meta])* $name:ident = |$state:ident| $condition:expr;)*) => {
        $($(#[$doc])*
        pub fn $name() -> Property<TimedWorld> {
            Property::sometimes(stringify!($name), |_, $state: &TimedState| $condition)
        })*
    };
}

fn all_show(state: &TimedState, label: Label) -> bool {
    pair(state).is_some_and(|pair| pair.iter().all(|one| one.ledger.label(first(0)) == Some(label)))
}

sometimes! {
    /// I-26: of claims that were handed out at one instant, one has ended and another has not.
    claims_end_apart = |state| state.ghost.ended_apart;
    /// Both sides show `active`.
    both_active = |state| all_show(state, Label::Active);
    /// Both sides show `pending-acceptance`.
    both_pending = |state| all_show(state, Label::PendingAcceptance);
    /// Both sides show `expired`.
    both_expired = |state| all_show(state, Label::Expired);
    /// Both sides show `deleted`.
    both_deleted = |state| all_show(state, Label::Deleted);
    /// The requester shows `deleted`, and its peer was declared gone.
    deleted_without_peer = |state| control(state, 0).is_some_and(|one| {
        let is_gone = one.ledger.peers.iter().any(|(_, peer)| peer.disposed);
        is_gone && one.ledger.label(first(0)) == Some(Label::Deleted)
    });
    /// Both sides are open to each other.
    both_open = |state| pair(state).is_some_and(is_open_pair);
    /// The log of the first region is empty, and everything that was asked for was said.
    log_empty = |state| control(state, 0).is_some_and(|one| {
        one.ledger.records.is_empty() && !state.ghost.dark
    });
    /// A record is set aside.
    set_aside = |state| control(state, 0).is_some_and(|one| {
        one.ledger.records.iter().any(|(_, record)| record.parked)
    });
    /// The second peering of the first region is at its accepter.
    second_arrived = |state| control(state, 1).is_some_and(|one| {
        one.ledger.peerings.contains(&OpId { seq: 1, ..first(0) })
    });
    /// The notice has come to its reader.
    notice_arrived = |state| control(state, 1).is_some_and(|one| !one.ledger.notices.is_empty());
    /// What was asked for at the near region while the other was silent has come to it.
    near_arrived = |state| control(state, 1).is_some_and(|one| !one.ledger.peerings.is_empty());
}
