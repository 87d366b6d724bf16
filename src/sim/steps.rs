//! What no single step of a region may do, whatever the state after it looks like.
//!
//! The invariants of the models are asked of what is on the disks ([`super::watch`]). Some rules show only in what a
//! step does with what it is told, or promises by its timers: a report under an old claim, a call that is not new, an
//! answer that a customer cannot use. Those are asked here, at every step, of the state before and after it. The
//! numbers are those of the invariants in `docs/SPEC.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::watch::Past;
use crate::irc::control::ControlPlane;
use crate::irc::facts::{OpId, Region};
use crate::irc::ledger::{ControlState, Ledger, Link, Record};
use crate::irc::log::LOST_MAX;
use crate::irc::msg::{
    Answer, CallError, ClaimEpoch, Errand, Kind, Msg, Outcome, RecordId, Request, Status, Work,
};
use crate::irc::peering::{Side, Verb};
use crate::irc::{Party, PartyState, Timer};
use crate::step::{Input, InputOf};

/// One step of a control plane.
pub(crate) struct Taken<'a> {
    pub(crate) actor: &'a ControlPlane,
    pub(crate) before: &'a ControlState,
    pub(crate) input: &'a InputOf<Party>,
    pub(crate) after: &'a ControlState,
    /// What it has sent.
    pub(crate) sent: &'a [Msg],
    /// The timers that it has armed: the shortest time, and when it runs out.
    pub(crate) set: &'a [(Timer, Duration, u64)],
    /// The leases that are armed after it.
    pub(crate) leases: &'a BTreeSet<Work>,
    /// For how long this life of the control plane has run.
    pub(crate) age: Duration,
}

type OwnRule = fn(&Taken<'_>) -> bool;
type Rule = fn(&Taken<'_>, &Past) -> bool;

/// Those of which a step says all by itself, by their names.
const RULES: [(&str, OwnRule); 14] = [
    ("stale_report_changes_nothing", |one| one.stale_report_changes_nothing()),
    ("only_fresh_calls_count", |one| one.only_fresh_calls_count()),
    ("older_lives_change_nothing", |one| one.older_lives_change_nothing()),
    ("one_life_to_a_number", |one| one.one_life_to_a_number()),
    ("thaw_decides", |one| one.thaw_decides()),
    ("every_claim_ends", |one| one.every_claim_ends()),
    ("claims_end_apart", |one| one.claims_end_apart()),
    ("claims_are_limited", |one| one.claims_are_limited()),
    ("waits_have_a_floor", |one| one.waits_have_a_floor()),
    ("retries_have_a_budget", |one| one.retries_have_a_budget()),
    ("lost_is_set_aside", |one| one.lost_is_set_aside()),
    ("set_aside_with_a_reason", |one| one.set_aside_with_a_reason()),
    ("dead_is_deleted_with_success", |one| one.dead_is_deleted_with_success()),
    ("dead_does_not_block", |one| one.dead_does_not_block()),
];

/// Those that the past has a part in.
const RULES_OF_THE_PAST: [(&str, Rule); 3] = [
    ("nobody_is_denied", |one, past| past.is_disturbed() || one.nobody_is_denied(past)),
    ("forgotten_is_dead", |one, past| past.is_disturbed() || one.forgotten_is_dead(past)),
    ("one_answer_to_a_token", |one, past| one.one_answer_to_a_token(past)),
];

impl Taken<'_> {
    /// The first rule that this step breaks.
    pub(super) fn broken(&self, past: &Past) -> Option<&'static str> {
        let of_the_past = || RULES_OF_THE_PAST.iter().find(|(_, holds)| !holds(self, past));
        self.broken_by_itself().or_else(|| of_the_past().map(|&(name, _)| name))
    }

    /// The first rule that this step breaks whatever was before.
    pub(crate) fn broken_by_itself(&self) -> Option<&'static str> {
        RULES.iter().find(|(_, holds)| !holds(self)).map(|&(name, _)| name)
    }

    pub(super) fn delivered(&self) -> Option<&Msg> {
        match self.input {
            Input::Deliver { msg, .. } => Some(msg),
            _ => None,
        }
    }

    fn asked(&self) -> Option<&Request> {
        match self.delivered() {
            Some(Msg::Ask { request, .. }) => Some(request),
            _ => None,
        }
    }

    /// What the customer was told who has called in this step.
    fn told(&self) -> Option<&Result<Box<Answer>, CallError>> {
        self.sent.iter().find_map(|msg| match msg {
            Msg::Told { result, .. } => Some(result),
            _ => None,
        })
    }

    fn peers_floor(&self, region: Region) -> Option<crate::irc::facts::Incarnation> {
        self.before.ledger.peers.get(&region)?.floor
    }

    /// S10: a report under an old epoch changes nothing.
    fn stale_report_changes_nothing(&self) -> bool {
        let Some(Msg::Report { work, epoch, .. }) = self.delivered() else { return true };
        let is_held = self.before.claims.get(work).is_some_and(|held| held.epoch == *epoch);
        let (old, new) = (self.before, self.after);
        is_held || (&old.ledger, &old.claims) == (&new.ledger, &new.claims)
    }

    /// S11: a call has an effect only if it is new to the one it is for.
    fn only_fresh_calls_count(&self) -> bool {
        let Some(Msg::Call(call)) = self.delivered() else { return true };
        let Errand::Apply { kind: Kind::PEERING, id, op, .. } = call.errand else { return true };
        let seen = self.before.ledger.peerings.get(&id).and_then(|one| one.seen);
        let is_new = seen.is_none_or(|seen| (call.incarnation.n, op) > seen);
        is_new || self.before.ledger.peerings == self.after.ledger.peerings
    }

    /// S11: what another life says than the one that was promised to has no effect, neither as a call nor as an
    /// answer.
    fn older_lives_change_nothing(&self) -> bool {
        let (region, incarnation) = match self.delivered() {
            Some(Msg::Call(call)) if !matches!(call.errand, Errand::Prepare { .. }) => {
                (call.from, call.incarnation)
            }
            Some(Msg::Report { work: work @ Work::Record(_), epoch, outcome }) => {
                let Outcome::Answered(reply) = &**outcome else { return true };
                let is_held = self.before.claims.get(work).is_some_and(|held| held.epoch == *epoch);
                match self.before.ledger.remote_of(*work).filter(|_| is_held) {
                    Some(region) => (region, reply.incarnation),
                    None => return true,
                }
            }
            _ => return true,
        };
        self.peers_floor(region) == Some(incarnation)
            || self.before.ledger.peerings == self.after.ledger.peerings
    }

    /// Section 5, rules 1, 3 and 4: the life of a peer that was promised to is never replaced by an earlier one, and
    /// a promise is never given to two lives of one number.
    fn one_life_to_a_number(&self) -> bool {
        let is_asked = matches!(
            self.delivered(),
            Some(Msg::Call(call)) if matches!(call.errand, Errand::Prepare { .. })
        );
        self.before.ledger.peers.iter().all(|(region, before)| {
            let after = self.after.ledger.peers.get(region);
            let (Some(old), Some(new)) = (before.floor, after.and_then(|peer| peer.floor)) else {
                return true;
            };
            new.n > old.n || new == old || (new.n == old.n && !is_asked)
        })
    }

    /// Section 5, rule 6: after a thaw nothing is dead and undecided at its accepter.
    fn thaw_decides(&self) -> bool {
        let is_open = |ledger: &Ledger, region| {
            ledger.peers.get(&region).is_some_and(|peer| peer.link == Link::Open)
        };
        let regions = self.actor.others.iter().copied();
        // Nobody decides anything any more for a region that was declared gone.
        let is_gone =
            |region| self.after.ledger.peers.get(&region).is_some_and(|peer| peer.disposed);
        let mut thawed = regions.filter(|&region| {
            !is_open(&self.before.ledger, region)
                && is_open(&self.after.ledger, region)
                && !is_gone(region)
        });
        thawed.all(|region| {
            self.after.ledger.peerings.iter().all(|(id, one)| {
                let is_theirs = one.side == Side::Accepter && one.peer(id) == region;
                !(is_theirs && one.is_dead() && one.is_undecided() && !one.stuck)
            })
        })
    }

    /// E2: every claim that is out ends by itself.
    fn every_claim_ends(&self) -> bool {
        self.after.claims.keys().all(|work| self.leases.contains(work))
    }

    /// E8: claims that are handed out together do not all end in one moment.
    fn claims_end_apart(&self) -> bool {
        let ends = |&(timer, _, due): &(Timer, Duration, u64)| {
            matches!(timer, Timer::Lease(_)).then_some(due)
        };
        let all: Vec<u64> = self.set.iter().filter_map(ends).collect();
        let apart: BTreeSet<u64> = all.iter().copied().collect();
        all.len() < 2 || apart.len() > 1
    }

    /// S14: no remote has more than its share of the places.
    fn claims_are_limited(&self) -> bool {
        let mut out: BTreeMap<Option<Region>, usize> = BTreeMap::new();
        for &work in self.after.claims.keys() {
            *out.entry(self.after.ledger.remote_of(work)).or_default() += 1;
        }
        out.values().all(|&count| count <= self.actor.policy.claims)
    }

    /// E8: no wait before another try is shorter than the floor.
    fn waits_have_a_floor(&self) -> bool {
        let floor = self.actor.policy.retry[0];
        self.set
            .iter()
            .all(|(timer, least, _)| !matches!(timer, Timer::Retry(_)) || *least >= floor)
    }

    /// E8: retries stay within a share of the first sends, two for each probe interval (the budget's, and the probe
    /// of an open breaker), and what a full budget holds.
    fn retries_have_a_budget(&self) -> bool {
        let pacing = self.actor.policy.pacing;
        let probes = self.age.as_nanos() / pacing.probe.as_nanos() + 1;
        self.actor.others.iter().all(|&region| {
            let count = self.after.counts.get(region);
            let share = u128::from(count.first_sends) * u128::from(pacing.retry_percent) / 100;
            u128::from(count.retries) <= share + 2 * probes + 12
        })
    }

    /// E7: a record whose claims were lost too often is set aside.
    fn lost_is_set_aside(&self) -> bool {
        self.written_records(|_, record| record.lost < LOST_MAX || record.parked)
    }

    /// E7: a record is set aside only because its claims were lost too often, or because its remote refuses it.
    fn set_aside_with_a_reason(&self) -> bool {
        let is_refused = |work| match self.delivered() {
            Some(Msg::Report { work: of, outcome, .. }) if *of == work => matches!(
                &**outcome,
                Outcome::Answered(reply) if matches!(reply.status, Status::Refused)
            ),
            _ => false,
        };
        self.written_records(|id, record| {
            let was = self.before.ledger.records.get(&id).is_some_and(|before| before.parked);
            !record.parked || was || record.lost >= LOST_MAX || is_refused(Work::Record(id))
        })
    }

    /// Whether that holds of every record that this step has written.
    fn written_records(&self, holds: impl Fn(RecordId, &Record) -> bool) -> bool {
        let mut all = true;
        self.after.ledger.records.difference(&self.before.ledger.records, |&id, record| {
            all &= record.is_none_or(|record| holds(id, record));
        });
        all
    }

    /// E4, IF-20: whoever deletes what is dead is told that it is.
    fn dead_is_deleted_with_success(&self) -> bool {
        let Some(Request::Change { id, verb: Verb::Delete }) = self.asked() else { return true };
        let is_dead = self.before.ledger.peerings.get(id).is_some_and(|one| one.is_dead());
        !(is_dead && matches!(self.told(), Some(Err(CallError::InvalidTransition { .. }))))
    }

    /// S7, IF-27: what is dead on both sides does not keep its pair from another request.
    fn dead_does_not_block(&self) -> bool {
        let Some(Err(CallError::PairBusy(id))) = self.told() else { return true };
        let busy = self.before.ledger.peerings.get(id);
        busy.is_some_and(|one| !(one.is_dead() && one.confirmed))
    }

    /// IF-18: nobody is told that there is no such thing as what another region has asked for.
    fn nobody_is_denied(&self, past: &Past) -> bool {
        let Some(Request::Change { id, .. }) = self.asked() else { return true };
        let is_denied = matches!(self.told(), Some(Err(CallError::NotFound)));
        !(is_denied && id.requester != self.actor.region && past.lives(*id, id.requester))
    }

    /// S9: nobody forgets what is alive at the other side.
    fn forgotten_is_dead(&self, past: &Past) -> bool {
        if self.before.ledger.peerings.len() <= self.after.ledger.peerings.len() {
            return true;
        }
        self.before.ledger.peerings.iter().all(|(id, one)| {
            self.after.ledger.peerings.contains(&id) || !past.lives(id, one.peer(id))
        })
    }

    /// S6: one token begins one operation, also when that is over and forgotten, unless a restore has lost it.
    fn one_answer_to_a_token(&self, past: &Past) -> bool {
        let Some((token, id)) = self.created() else { return true };
        past.created.get(&(self.actor.region, token)).is_none_or(|known| *known == id)
    }

    /// The token of a request, and the operation that it was told to have begun.
    pub(super) fn created(&self) -> Option<(u64, OpId)> {
        match (self.delivered()?, self.told()?) {
            (Msg::Ask { token, request: Request::Create { .. }, .. }, Ok(answer)) => match **answer
            {
                Answer::Done { id, .. } => Some((token.0, id)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What a step of a server says under claims that nobody has told it in this step to be held.
pub(crate) fn unasked_calls<'a>(
    input: &InputOf<Party>,
    sent: &'a [Msg],
) -> impl Iterator<Item = (Work, ClaimEpoch)> + use<'a> {
    let is_told = matches!(input, Input::Deliver { msg: Msg::Extended { .. }, .. });
    sent.iter().filter(move |_| !is_told).filter_map(|msg| match msg {
        Msg::Call(call) => Some(call.tag),
        _ => None,
    })
}

/// The state of a control plane.
pub(crate) fn control(state: &PartyState) -> Option<&ControlState> {
    match state {
        PartyState::Control(state) => Some(state),
        _ => None,
    }
}
