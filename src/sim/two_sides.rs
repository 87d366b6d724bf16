//! A peering as the customers of its two regions see it, if every call were done at one moment.
//!
//! Regions answer from what they have and tell each other later. So a peering is no single store: its two sides may show
//! different things for as long as they like. What can be said of it in order is this:
//!
//! - Each fact has one side that writes it. A side reads its own facts as they are, and a past value of the other's. What
//!   it has shown it never takes back, and whatever is over is a tombstone.
//! - The decision is written once, by the accepter's side, and is one that some call has asked for, or that needs none.
//! - Options are a register of their side that is written only from the version that is there.
//! - A restored region goes on from its backup. What it had shown since is excused, and nothing else: what the other
//!   side still shows it has again as soon as it is open.
//!
//! What nobody was told may have been done or not. So of each side there is kept what it has at least, and of each fact
//! whether any call has asked for it.

use std::collections::{BTreeMap, BTreeSet};

use stateright::semantics::SequentialSpec;

use super::history::Told;
use crate::irc::facts::{Decided, Decision, Facts as _, OpId, Requested, Version};
use crate::irc::msg::{Answer, CallError, Request, Shown};
use crate::irc::peering::{Label, Side, Verb, transition};

/// What happens to a peering.
#[derive(Clone, Copy, Debug)]
pub(super) enum OfPeering {
    /// A customer of that side calls, under that token.
    Call(Side, u64, Request),
    /// The backup of that side's region is taken.
    BackUp(Side),
    /// That side's region is put back to it.
    Restore(Side),
}

const fn at(side: Side) -> usize {
    match side {
        Side::Requester => 0,
        Side::Accepter => 1,
    }
}

const fn other(side: Side) -> Side {
    match side {
        Side::Requester => Side::Accepter,
        Side::Accepter => Side::Requester,
    }
}

/// What one side has at least.
#[derive(Clone, Debug, Default)]
struct Known {
    /// It is there, or was.
    exists: bool,
    requested: Option<Requested>,
    decided: Decided,
    label: Option<Label>,
    dead: bool,
    /// Nothing shows it any more.
    hidden: bool,
    /// It is forgotten.
    gone: bool,
    /// The region was restored.
    was_restored: bool,
    /// The same, and nobody has seen it open since.
    recovering: bool,
    /// The version of the own options is one of these.
    versions: BTreeSet<Version>,
    /// The calls that were done, and what was answered; none if nobody was told.
    tokens: BTreeMap<u64, Option<Answer>>,
}

/// What calls have asked for.
#[derive(Clone, Debug, Default)]
struct Asked {
    creation: bool,
    acceptance: bool,
    rejection: bool,
    deletion: [bool; 2],
    /// The versions from which options may have been changed without anybody being told.
    changes: [Vec<Version>; 2],
}

/// One peering, as the owners of its two sides see it.
#[derive(Clone, Debug)]
pub(super) struct TwoSides {
    id: OpId,
    /// A region may end it without a call: it crosses with another request, or something was lost or declared gone.
    ends_itself: bool,
    asked: Asked,
    sides: [Known; 2],
    backups: [Known; 2],
    /// The versions of each side's options that there were, and what they say.
    written: [BTreeMap<Version, Option<bool>>; 2],
}

impl TwoSides {
    /// One that nobody has asked for yet.
    pub(super) fn new(id: OpId, ends_itself: bool) -> Self {
        let first = [Version { n: id.n, counter: 0 }, Version::default()];
        let side = |version| Known { versions: [version].into(), ..Known::default() };
        let sides = first.map(side);
        Self {
            id,
            ends_itself,
            asked: Asked::default(),
            backups: sides.clone(),
            sides,
            written: first.map(|version| [(version, None)].into()),
        }
    }

    /// A call of which nobody was told: it may have been done, or not.
    fn ask(&mut self, side: Side, token: u64, request: &Request) {
        match request {
            Request::Create { .. } => self.asked.creation = true,
            Request::Change { verb: Verb::Accept, .. } => self.asked.acceptance = true,
            Request::Change { verb: Verb::Reject, .. } => self.asked.rejection = true,
            Request::Change { .. } => self.asked.deletion[at(side)] = true,
            Request::Modify { expected, .. } => self.asked.changes[at(side)].push(*expected),
            _ => return,
        }
        self.sides[at(side)].tokens.entry(token).or_insert(None);
    }

    fn restore(&mut self, side: Side) {
        let backup = self.backups[at(side)].clone();
        let before = std::mem::replace(&mut self.sides[at(side)], backup);
        let known = &mut self.sides[at(side)];
        (known.was_restored, known.recovering) = (true, true);
        // The half is as it is found.
        if known.label == Some(Label::Active) {
            known.label = Some(Label::Provisioning);
        }
        let oldest = known.versions.first().copied();
        let written = self.written[at(side)].keys().copied();
        known.versions.extend(written.filter(|version| Some(*version) >= oldest));
        for token in before.tokens.into_keys() {
            known.tokens.entry(token).or_insert(None);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // What is read
    // ---------------------------------------------------------------------------------------------

    /// Whether a side may show this now.
    fn shows(&mut self, side: Side, shown: &Shown) -> bool {
        let known = &self.sides[at(side)];
        if !self.asked.creation || shown.side != side || shown.stuck || known.hidden || known.gone {
            return false;
        }
        let grows = known.requested.is_none_or(|known| grows_requested(&known, &shown.requested))
            && grows_decided(&known.decided, &shown.decided);
        if !grows || !is_label_of(shown) || !self.is_asked_for(shown) {
            return false;
        }
        let is_settled = !known.recovering || !shown.frozen;
        let own = match side {
            Side::Requester => shown.requested.options,
            Side::Accepter => shown.decided.options,
        };
        let theirs = match side {
            Side::Requester => shown.decided.options,
            Side::Accepter => shown.requested.options,
        };
        let is_dead = shown.requested.deleted || shown.decided.is_dead();
        let is_shown = self.reads_label(side, shown.state, is_dead)
            && self.holds_what_is_shown(side, shown, is_settled)
            && self.reads_own(side, own.version, Some(own.resolve_names), is_settled)
            && self.reads_theirs(other(side), theirs.version, theirs.resolve_names)
            && self.was_written(side, shown);
        let known = &mut self.sides[at(side)];
        known.requested = Some(shown.requested);
        known.decided = shown.decided;
        known.recovering &= shown.frozen;
        is_shown
    }

    /// Every decision and every end has a call that has asked for it, or needs none.
    fn is_asked_for(&self, shown: &Shown) -> bool {
        let Shown { requested, decided, .. } = shown;
        let may_be = match decided.decision {
            Some(Decision::Accepted) => self.asked.acceptance,
            // At the thaw, what its accepter has deleted meanwhile is rejected.
            Some(Decision::Rejected) => self.asked.rejection || decided.deleted,
            Some(Decision::Cancelled) => requested.deleted,
            Some(Decision::Expired | Decision::Failed(_)) | None => true,
        };
        let flags = [requested.deleted, decided.deleted];
        let is_ended = |(flag, asked): (bool, bool)| !flag || asked || self.ends_itself;
        may_be && flags.into_iter().zip(self.asked.deletion).all(is_ended)
    }

    /// A view never goes down, and a terminal one stays. What is dead stays so.
    fn reads_label(&mut self, side: Side, label: Label, is_dead: bool) -> bool {
        let known = &mut self.sides[at(side)];
        let stays = known.label.is_none_or(|before| {
            label.rank() >= before.rank() && (!before.is_terminal() || label == before)
        });
        let is_possible = stays && !known.gone && (!known.dead || is_dead);
        known.exists = true;
        known.label = Some(label);
        known.dead = is_dead;
        is_possible
    }

    /// A side has of its own facts at least what the other side shows of them: it has written them. A restored one has
    /// again what the other shows once it is open. Of what is over the other may have forgotten all but that: then a
    /// restored side learns that it is over, and no more, and ends it in its own way.
    fn holds_what_is_shown(&self, side: Side, shown: &Shown, is_settled: bool) -> bool {
        let theirs = &self.sides[at(other(side))];
        let is_dead = shown.requested.deleted || shown.decided.is_dead();
        if is_dead && self.sides[at(side)].was_restored {
            return true;
        }
        let is_settled = is_settled && !theirs.dead;
        match side {
            Side::Requester => theirs.requested.is_none_or(|copy| {
                let mut both = shown.requested;
                let is_one = both.join(&copy).is_ok();
                is_one && (!is_settled || grows_requested(&copy, &shown.requested))
            }),
            Side::Accepter => {
                let mut both = shown.decided;
                let is_one = both.join(&theirs.decided).is_ok();
                is_one && (!is_settled || grows_decided(&theirs.decided, &shown.decided))
            }
        }
    }

    /// What a side shows of the other's facts the other has written.
    fn was_written(&mut self, side: Side, shown: &Shown) -> bool {
        let writer = &mut self.sides[at(other(side))];
        let is_known = !writer.recovering;
        match side {
            Side::Requester => {
                let mut decided = writer.decided;
                let is_one = decided.join(&shown.decided).is_ok();
                if is_known {
                    writer.decided = decided;
                    writer.exists |= decided.deadline.is_some();
                }
                is_one
            }
            Side::Accepter => {
                let mut requested = writer.requested.unwrap_or(shown.requested);
                let is_one = requested.join(&shown.requested).is_ok();
                if is_known {
                    writer.requested = Some(requested);
                }
                is_one
            }
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Options
    // ---------------------------------------------------------------------------------------------

    /// A side's own options have this version now.
    fn reads_own(
        &mut self,
        side: Side,
        version: Version,
        value: Option<bool>,
        is_settled: bool,
    ) -> bool {
        let side = at(side);
        let versions = &mut self.sides[side].versions;
        if !versions.contains(&version) {
            let changes = &self.asked.changes[side];
            let steps = changes.len();
            if !versions.iter().any(|&from| follows(from, version, changes, steps)) {
                return false;
            }
            *versions = [version].into();
        } else if is_settled {
            *versions = [version].into();
        } else {
            *versions = versions.split_off(&version);
        }
        is_written(&mut self.written[side], version, value)
    }

    /// A side's options have had this version once: the other side shows it.
    fn reads_theirs(&mut self, writer: Side, version: Version, value: bool) -> bool {
        let is_known = self.written[at(writer)].contains_key(&version);
        if is_known {
            return is_written(&mut self.written[at(writer)], version, Some(value));
        }
        self.reads_own(writer, version, Some(value), false)
    }

    // ---------------------------------------------------------------------------------------------
    // What is done
    // ---------------------------------------------------------------------------------------------

    /// A side that decides or writes options is open: it has what the other side shows of its facts.
    fn settle(&mut self, side: Side) -> bool {
        let theirs = self.sides[at(other(side))].clone();
        let known = &mut self.sides[at(side)];
        known.recovering = false;
        if theirs.dead {
            return true;
        }
        match (side, theirs.requested) {
            (Side::Requester, Some(copy)) => {
                let requested = known.requested.get_or_insert(copy);
                requested.join(&copy).is_ok()
            }
            (Side::Requester, None) => true,
            (Side::Accepter, _) => known.decided.join(&theirs.decided).is_ok(),
        }
    }

    /// A call was done, and this is what came of it.
    fn does(&mut self, side: Side, token: u64, request: &Request, answer: &Answer) -> bool {
        // What is read is kept under no token.
        if let Answer::One(shown) | Answer::Explained { shown, .. } = answer {
            return self.shows(side, shown);
        }
        let kept = self.sides[at(side)].tokens.get(&token).cloned();
        if let Some(Some(kept)) = kept {
            return kept == *answer;
        }
        // A copy of it may have been done before.
        let may_be_old = kept.is_some();
        self.sides[at(side)].tokens.insert(token, Some(answer.clone()));
        match (request, answer) {
            (Request::Create { .. }, Answer::Done { id, state }) => {
                // It has begun another one.
                if *id != self.id {
                    return true;
                }
                self.asked.creation = true;
                *state == Label::InitiatingRequest
                    && (may_be_old || self.reads_label(side, *state, false))
            }
            (Request::Change { verb, .. }, Answer::Done { state, .. }) => match verb {
                Verb::Accept => self.decides(side, Decision::Accepted, *state, may_be_old),
                Verb::Reject => self.decides(side, Decision::Rejected, *state, may_be_old),
                Verb::Delete => {
                    self.asked.deletion[at(side)] = true;
                    let is_end = state.rank() >= Label::Deleting.rank();
                    self.sides[at(side)].dead = true;
                    is_end && (may_be_old || self.reads_label(side, *state, true))
                }
                Verb::Modify => false,
            },
            (Request::Modify { expected, resolve_names, .. }, Answer::Version { version, .. }) => {
                self.writes(side, *expected, *version, *resolve_names, may_be_old)
            }
            _ => false,
        }
    }

    /// The decision is written once, by the accepter's side.
    fn decides(&mut self, side: Side, decision: Decision, state: Label, may_be_old: bool) -> bool {
        *(if decision == Decision::Accepted {
            &mut self.asked.acceptance
        } else {
            &mut self.asked.rejection
        }) = true;
        if may_be_old {
            return side == Side::Accepter;
        }
        let (is_one, known) = (self.settle(side), &mut self.sides[at(side)]);
        let is_first = known.decided.decision.is_none() && !known.dead && !known.hidden;
        known.decided.decision = Some(decision);
        // The half may have been on before a restore.
        let is_of_it = match decision {
            Decision::Accepted => matches!(state, Label::Provisioning | Label::Active),
            _ => state == Label::Rejected,
        };
        side == Side::Accepter
            && is_one
            && is_first
            && is_of_it
            && self.reads_label(side, state, decision != Decision::Accepted)
    }

    /// Options are written from the version that is there, and get the next one.
    fn writes(
        &mut self,
        side: Side,
        expected: Version,
        version: Version,
        resolve_names: bool,
        may_be_old: bool,
    ) -> bool {
        if may_be_old && self.written[at(side)].contains_key(&version) {
            return is_written(&mut self.written[at(side)], version, Some(resolve_names));
        }
        if may_be_old && self.sides[at(side)].dead {
            // The copy was done while it was alive.
            return self.reads_own(side, version, Some(resolve_names), true);
        }
        let is_one = self.settle(side);
        let is_alive = !self.sides[at(side)].dead && !self.sides[at(side)].gone;
        let copy = match side {
            Side::Requester => self.sides[1].requested.map(|copy| copy.options.version),
            Side::Accepter => Some(self.sides[0].decided.options.version),
        };
        let is_newest = copy.is_none_or(|copy| expected >= copy);
        let is_there = self.reads_own(side, expected, None, true);
        let known = &mut self.sides[at(side)];
        known.versions = [version].into();
        known.exists = true;
        let rank = known.label.map_or(0, Label::rank);
        if rank == 0 {
            known.label = Some(Label::PendingAcceptance);
        }
        let options = match side {
            Side::Requester => known.requested.as_mut().map(|facts| &mut facts.options),
            Side::Accepter => Some(&mut known.decided.options),
        };
        if let Some(options) = options {
            (options.version, options.resolve_names) = (version, resolve_names);
        }
        is_one
            && is_alive
            && is_newest
            && is_there
            && is_next(expected, version)
            && rank <= Label::Active.rank()
            && is_written(&mut self.written[at(side)], version, Some(resolve_names))
    }

    /// A call was refused, and changed nothing. What it was told tells what the side has.
    fn refuses(&mut self, side: Side, request: &Request, error: CallError) -> bool {
        let may_be_over = self.may_be_over();
        let known = &mut self.sides[at(side)];
        match error {
            CallError::NotFound => {
                if known.recovering {
                    return true;
                }
                let is_possible = !known.exists || known.dead || may_be_over;
                let is_read = matches!(request, Request::Get { .. } | Request::Explain { .. });
                known.hidden = true;
                known.gone |= !is_read;
                known.dead = true;
                is_possible
            }
            CallError::NotYetVisible => {
                let is_here = known.exists || known.hidden || known.gone;
                side == Side::Accepter && (known.recovering || !is_here)
            }
            CallError::InvalidTransition { from, verb } => {
                let is_illegal = matches!(
                    transition(side, from, verb),
                    Err(CallError::InvalidTransition { .. })
                );
                let is_hidden = known.hidden && !from.is_terminal();
                // Its deadline has passed; its clock is not there yet.
                let is_late = from == Label::Expired && matches!(verb, Verb::Accept | Verb::Reject);
                let is_dead = from.rank() >= Label::Deleting.rank();
                is_illegal && !is_hidden && (is_late || self.reads_label(side, from, is_dead))
            }
            CallError::VersionConflict(version) => {
                let Request::Modify { expected, .. } = request else { return false };
                version != *expected
                    && self.settle(side)
                    && self.reads_own(side, version, None, true)
            }
            CallError::WrongSide => side == Side::Requester,
            CallError::Stuck => false,
            _ => true,
        }
    }

    /// Whether it may have come to its end.
    fn may_be_over(&self) -> bool {
        let is_accepted = |known: &Known| known.decided.decision == Some(Decision::Accepted);
        let is_deleted = self.asked.deletion.contains(&true);
        self.ends_itself || is_deleted || !self.sides.iter().any(is_accepted)
    }
}

impl SequentialSpec for TwoSides {
    type Op = OfPeering;
    type Ret = Told;

    /// What nobody was told: a call that may have been done, or something of an operator.
    fn invoke(&mut self, op: &OfPeering) -> Told {
        match *op {
            OfPeering::Call(side, token, request) => self.ask(side, token, &request),
            OfPeering::BackUp(side) => self.backups[at(side)] = self.sides[at(side)].clone(),
            OfPeering::Restore(side) => self.restore(side),
        }
        None
    }

    fn is_valid_step(&mut self, op: &OfPeering, told: &Told) -> bool {
        match (op, told) {
            (OfPeering::Call(side, token, request), Some(Ok(answer))) => {
                self.does(*side, *token, request, answer)
            }
            (OfPeering::Call(side, _, request), Some(Err(error))) => {
                self.refuses(*side, request, *error)
            }
            _ => {
                self.invoke(op);
                true
            }
        }
    }
}

/// Whether the requester's facts of later hold all of these.
fn grows_requested(before: &Requested, after: &Requested) -> bool {
    let mut both = *before;
    both.join(after).is_ok()
        && both.deleted == after.deleted
        && before.options.version <= after.options.version
}

/// Whether the accepter's facts of later hold all of these. A request that was stored undecided does not fail any more.
fn grows_decided(before: &Decided, after: &Decided) -> bool {
    let was_stored = before.deadline.is_some() && before.decision.is_none();
    let fails = was_stored && matches!(after.decision, Some(Decision::Failed(_)));
    before.deadline.is_none_or(|deadline| after.deadline == Some(deadline))
        && before.decision.is_none_or(|decision| after.decision == Some(decision))
        && before.deleted <= after.deleted
        && before.options.version <= after.options.version
        && !fails
}

/// Whether a label is one of these facts.
fn is_label_of(shown: &Shown) -> bool {
    let Shown { side, requested, decided, .. } = shown;
    let is_dead = requested.deleted || decided.is_dead();
    let is_open = decided.decision.is_none() && !is_dead;
    match shown.state {
        Label::InitiatingRequest => {
            *side == Side::Requester && is_open && decided.deadline.is_none()
        }
        Label::PendingAcceptance => is_open && decided.deadline.is_some(),
        Label::Provisioning | Label::Active => {
            decided.decision == Some(Decision::Accepted) && !is_dead
        }
        Label::Deleting | Label::Deleted => is_dead,
        Label::Failed => matches!(decided.decision, Some(Decision::Failed(_))),
        Label::Expired => decided.decision == Some(Decision::Expired),
        Label::Rejected => decided.decision == Some(Decision::Rejected),
    }
}

/// Whether a version is the next one after another: of the same life, or the first of a later one.
fn is_next(before: Version, after: Version) -> bool {
    (after.n == before.n && after.counter == before.counter + 1)
        || (after.n > before.n && after.counter == 0)
}

/// Whether changes of which nobody was told may have led from one version to another.
fn follows(from: Version, to: Version, changes: &[Version], steps: usize) -> bool {
    if steps == 0 || !changes.contains(&from) || from >= to {
        return false;
    }
    let next = [
        Version { n: from.n, counter: from.counter + 1 },
        Version { n: to.n.max(from.n + 1), counter: 0 },
    ];
    is_next(from, to) || next.into_iter().any(|next| follows(next, to, changes, steps - 1))
}

/// Whether a version says this: each is written once.
fn is_written(
    written: &mut BTreeMap<Version, Option<bool>>,
    version: Version,
    value: Option<bool>,
) -> bool {
    let known = written.entry(version).or_insert(None);
    let is_one = known.is_none() || value.is_none() || *known == value;
    *known = known.or(value);
    is_one
}
