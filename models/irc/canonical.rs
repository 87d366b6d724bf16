//! The canonical form of a world of control planes: what makes restores finite enough to be explored.
//!
//! Messages stay under way for ever here, and a message that can do nothing any more would still tell
//! two states apart. Each rule below replaces a state by one that has the same futures.
//!
//! 1. **Dead answers go.** An answer is dead if it names a life that its receiver has left and cannot
//!    come back to, work that is done, a question that is no longer asked, or if it only says *not
//!    now*: the carrier, which is never told to wait, asks again anyway.
//! 2. **Dead questions go.** A question is dead if it can change nothing where it is going, and every
//!    answer to it is dead.
//! 3. **A doomed question loses its content.** A record that is not new where it is going has no effect
//!    whatever it says; the answer depends on the answerer alone. It then says what was said first.
//! 4. **`Old` is `Ok`.** Both carry the answerer's facts, and are taken alike.
//! 5. **The names of questions are ranked**, for each life by itself. A region compares them with the
//!    one that it asks now; those of its past lives are all alike, because answers to another life are
//!    void whatever they name.
//! 6. **What only people read is blank**: the results that are kept under tokens, and the audit log.
//!
//! A region that may still be put back to its backup can fall back to what that holds. So nothing is
//! dead unless it is dead for the backup too. `tests/irc_canonical.rs` compares the result with the raw
//! world, state by state.

use std::collections::BTreeSet;

use super::{IrcObserver, IrcState, IrcWorld};
use crate::irc::Storage;
use crate::irc::facts::{
    Bundle, Decided, Incarnation, Options, Region, Requested, Sealed, from_bytes,
};
use crate::irc::ledger::{Kept, Ledger, Link, Record};
use crate::irc::msg::{Answer, Body, Call, Errand, Kind, Msg, Reply, Status, Work};
use crate::irc::peering::Label;
use crate::irc::safeguards::Safeguards;
use crate::persistent::PersistentMap;

/// What may become of a node: what it has, and what it may be put back to.
struct Futures {
    region: Region,
    now: Ledger,
    backup: Option<Ledger>,
}

impl Futures {
    /// Whether every answer to that work under that life is ignored, now and for ever.
    fn has_left(&self, n: u64) -> bool {
        let least = self.backup.as_ref().map_or(u64::MAX, |backup| backup.head.incarnation.n + 1);
        n < least.min(self.now.head.incarnation.n)
    }

    /// Whether it is in that life, and cannot begin another one of that number.
    fn is_in(&self, n: u64) -> bool {
        let may_reuse = self.backup.as_ref().is_some_and(|backup| backup.head.incarnation.n < n);
        n == self.now.head.incarnation.n && !may_reuse
    }

    /// Whether something holds of every ledger that may still be its.
    fn always(&self, holds: impl Fn(&Ledger) -> bool) -> bool {
        holds(&self.now) && self.backup.as_ref().is_none_or(holds)
    }

    /// Whether it no longer waits for that work, and never will in this life.
    fn is_done(&self, work: Work, nonce: Option<u64>) -> bool {
        let ledger = &self.now;
        match work {
            Work::Record(id) => {
                let is_past = id.n < ledger.head.incarnation.n || id.seq < ledger.head.next_record;
                is_past && !ledger.records.contains(&id)
            }
            Work::Prepare(region) | Work::Sync(region) => {
                let Some(peer) = ledger.peers.get(&region) else { return true };
                match (&peer.link, work) {
                    (Link::Open | Link::Expelled, _) => true,
                    (Link::Syncing { nonce: asked, .. }, Work::Sync(_))
                    | (Link::Preparing { nonce: asked }, _) => {
                        nonce.is_some_and(|nonce| nonce != *asked && nonce < ledger.head.next_nonce)
                    }
                    // It may have to ask again, under a new name.
                    (Link::Syncing { .. }, _) => {
                        nonce.is_some_and(|nonce| nonce < ledger.head.next_nonce)
                    }
                }
            }
        }
    }

    /// Whether no answer to this can do anything any more.
    fn ignores(&self, call: &Call) -> bool {
        let (work, epoch) = call.tag;
        let nonce = match call.errand {
            Errand::Prepare { nonce } | Errand::Sync { nonce, .. } => Some(nonce),
            Errand::Apply { .. } => None,
        };
        self.has_left(epoch.incarnation.n)
            || (self.is_in(epoch.incarnation.n) && self.is_done(work, nonce))
    }

    /// Whether no work of that name will ever be again in this life: an answer that names no question
    /// can still say that a newer life is known.
    fn is_over(&self, work: Work) -> bool {
        match work {
            Work::Prepare(region) | Work::Sync(region) => {
                let peer = self.now.peers.get(&region);
                peer.is_none_or(|peer| matches!(peer.link, Link::Open | Link::Expelled))
            }
            Work::Record(_) => self.is_done(work, None),
        }
    }

    /// Whether this answer can do nothing here any more.
    fn is_dead_reply(&self, from: Region, reply: &Reply) -> bool {
        let (work, epoch) = reply.tag;
        if self.has_left(epoch.incarnation.n) {
            return true;
        }
        if !self.is_in(epoch.incarnation.n) {
            return false;
        }
        let me = self.now.head.incarnation;
        let says_nothing = |floor: Incarnation| floor.n < me.n || floor == me;
        match (work, &reply.status) {
            (_, Status::Frozen | Status::RetryAfter(_) | Status::Unsupported) => true,
            (_, Status::StaleIncarnation(floor) | Status::Stale(floor)) => {
                says_nothing(*floor) || self.is_over(work)
            }
            (Work::Record(_) | Work::Prepare(_), Status::Unsynced) => true,
            (Work::Sync(_), Status::Unsynced) => self.is_over(work),
            (_, Status::Promise { nonce, to, .. } | Status::Synced { nonce, to, .. }) => {
                *to != me || self.is_done(work, Some(*nonce))
            }
            (Work::Record(_), _) => {
                self.is_done(work, None)
                    || self.always(|ledger| {
                        let floor = ledger.peers.get(&from).and_then(|peer| peer.floor);
                        floor.is_some_and(|floor| reply.incarnation.n < floor.n)
                    })
            }
            _ => false,
        }
    }

    /// Whether this question changes nothing here, now or ever.
    fn is_unmoved(&self, call: &Call) -> bool {
        self.always(|ledger| is_unmoved(ledger, self.region, call))
    }
}

fn is_unmoved(ledger: &Ledger, region: Region, call: &Call) -> bool {
    let Some(peer) = ledger.peers.get(&call.from) else { return true };
    let Some(floor) = peer.floor else { return false };
    if call.incarnation.n < floor.n {
        return true;
    }
    if call.incarnation != floor {
        return false;
    }
    match &call.errand {
        Errand::Prepare { .. } | Errand::Sync { .. } => true,
        Errand::Apply { kind, id, op, closed_below, .. } => {
            let is_closed = id.requester != call.from
                || peer.seen.get(&id.n).is_some_and(|mark| mark.low >= *closed_below);
            let is_old = match ledger.peerings.get(id) {
                Some(one) => one.seen.is_some_and(|seen| seen >= (call.incarnation.n, *op)),
                None if id.requester == region => ledger.has_closed(*id),
                None => peer.seen.get(&id.n).is_some_and(|mark| mark.covers(id.seq)),
            };
            *kind == Kind::PEERING && is_closed && is_old
        }
    }
}

/// Brings a state into its canonical form.
pub(super) fn canonical(observer: &IrcObserver, world: &IrcWorld, state: &mut IrcState) {
    blank_results(state);
    let futures: Vec<Option<Futures>> = (0..state.nodes.len())
        .map(|node| {
            let ledger = match (&state.nodes[node].state, &state.nodes[node].storage) {
                (Some(state), _) => &state.ledger,
                (None, Some(Storage::Control(ledger))) => ledger,
                (None, None) => return None,
            };
            let backup = match &state.ghost.backups[node] {
                Some(Storage::Control(backup)) if observer.restores_left(state, node) => {
                    Some(backup.clone())
                }
                _ => None,
            };
            let region = world.actors[node].control.region;
            Some(Futures { region, now: ledger.clone(), backup })
        })
        .collect();
    state.network.retain_mut(|flight| {
        let (src, dst) = (usize::from(flight.src), usize::from(flight.dst));
        match (&mut flight.msg, futures.get(src), futures.get(dst)) {
            (Msg::Reply(reply), Some(Some(from)), Some(Some(to))) => {
                if let Status::Old(body) = &reply.status {
                    reply.status = Status::Ok(body.clone());
                }
                !to.is_dead_reply(from.region, reply)
            }
            (Msg::Call(call), Some(Some(from)), Some(Some(to))) => {
                let is_unmoved = to.is_unmoved(call);
                if is_unmoved {
                    strip(call);
                }
                !(is_unmoved && from.ignores(call))
            }
            _ => true,
        }
    });
    rank_questions(world, state);
    state.network.sort_unstable();
    state.network.dedup();
}

/// Rule 5.
fn rank_questions(world: &IrcWorld, state: &mut IrcState) {
    for node in 0..state.nodes.len() {
        let me = world.actors[node].control.region;
        let Some(life) = ledger_of(state, node).map(|ledger| ledger.head.incarnation) else {
            continue;
        };
        let mut used = BTreeSet::new();
        visit(state, node, me, &mut |of, nonce| {
            if of.is_none_or(|of| of == life) {
                used.insert(*nonce);
            }
        });
        let ranks: Vec<u64> = used.into_iter().collect();
        let rank =
            |nonce: u64| ranks.iter().position(|&one| one == nonce).map_or(0, |at| at as u64);
        visit(state, node, me, &mut |of, nonce| {
            let is_now = of.is_none_or(|of| of == life);
            *nonce = if is_now { rank(*nonce) } else { 0 };
        });
        if let Some(Storage::Control(backup)) = &mut state.ghost.backups[node] {
            forget_questions(backup);
        }
    }
}

fn ledger_of(state: &IrcState, node: usize) -> Option<&Ledger> {
    match (&state.nodes[node].state, &state.nodes[node].storage) {
        (Some(state), _) => Some(&state.ledger),
        (None, Some(Storage::Control(ledger))) => Some(ledger),
        (None, None) => None,
    }
}

/// Shows every name of a question of that node, with the life that has asked; none for its present one.
fn visit(
    state: &mut IrcState,
    node: usize,
    me: Region,
    see: &mut dyn FnMut(Option<Incarnation>, &mut u64),
) {
    let mut in_ledger = |ledger: &mut Ledger| {
        let regions: Vec<Region> = ledger.peers.iter().map(|(&region, _)| region).collect();
        for region in regions {
            let Some(mut peer) = ledger.peers.get(&region).cloned() else { continue };
            if let Link::Preparing { nonce } | Link::Syncing { nonce, .. } = &mut peer.link {
                let before = *nonce;
                see(None, nonce);
                if *nonce != before {
                    ledger.peers.insert(region, peer);
                }
            }
        }
        see(None, &mut ledger.head.next_nonce);
    };
    if let Some(one) = &mut state.nodes[node].state {
        in_ledger(&mut one.ledger);
    }
    if let Some(Storage::Control(ledger)) = &mut state.nodes[node].storage {
        in_ledger(ledger);
    }
    for flight in &mut state.network {
        match &mut flight.msg {
            Msg::Call(call) if call.from == me => {
                let asker = call.incarnation;
                if let Errand::Prepare { nonce } | Errand::Sync { nonce, .. } = &mut call.errand {
                    see(Some(asker), nonce);
                }
            }
            Msg::Reply(reply) if usize::from(flight.dst) == node => {
                if let Status::Promise { nonce, to, .. } | Status::Synced { nonce, to, .. } =
                    &mut reply.status
                {
                    see(Some(*to), nonce);
                }
            }
            _ => {}
        }
    }
}

/// A backup's questions are never asked again.
fn forget_questions(backup: &mut Ledger) {
    backup.head.next_nonce = 0;
    let regions: Vec<Region> = backup.peers.iter().map(|(&region, _)| region).collect();
    for region in regions {
        let Some(mut peer) = backup.peers.get(&region).cloned() else { continue };
        if let Link::Preparing { nonce } | Link::Syncing { nonce, .. } = &mut peer.link {
            *nonce = 0;
            backup.peers.insert(region, peer);
        }
    }
}

/// Rule 3.
fn strip(call: &mut Call) {
    let Errand::Apply { closed_below, body, .. } = &mut call.errand else { return };
    let Some(bundle) = from_bytes::<Bundle>(&body.0) else { return };
    *closed_below = 0;
    *body = Body::of(&match bundle {
        Bundle::Requester(Sealed { facts, .. }) => {
            let facts = Requested { deleted: false, options: Options::default(), ..facts };
            Bundle::Requester(Sealed { facts, seal: 0 })
        }
        Bundle::Accepter(_) => Bundle::Accepter(Sealed { facts: Decided::default(), seal: 0 }),
    });
}

/// Rule 6.
fn blank_results(state: &mut IrcState) {
    for node in &mut state.nodes {
        if let Some(one) = &mut node.state {
            blank(&mut one.ledger);
        }
        if let Some(Storage::Control(ledger)) = &mut node.storage {
            blank(ledger);
        }
    }
    for backup in state.ghost.backups.iter_mut().flatten() {
        let Storage::Control(ledger) = backup;
        blank(ledger);
    }
}

/// What only people read of a ledger.
pub(crate) fn blank(ledger: &mut Ledger) {
    ledger.audit = PersistentMap::default();
    ledger.head.audited = (0, [0; 32]);
    // When a record was written, only people read.
    let dated: Vec<_> = ledger
        .records
        .iter()
        .filter(|(_, record)| record.since != 0)
        .map(|(&id, record)| (id, record.clone()))
        .collect();
    for (id, record) in dated {
        ledger.records.insert(id, Record { since: 0, ..record });
    }
    let all: Vec<_> = ledger.tokens.iter().collect();
    for (number, (token, kept)) in all {
        if let Answer::Done { id, state } = kept.result
            && (state != Label::Deleted || kept.at != 0)
        {
            let result = Answer::Done { id, state: Label::Deleted };
            ledger.tokens.set(number, (token, Kept { result, at: 0, ..kept }));
        }
    }
}

/// Whether the form is that of a world in which everything is as usual: it leans on these rules.
pub(super) fn applies(safeguards: Safeguards) -> bool {
    safeguards.contains(
        Safeguards::I_5_WATERMARK
            | Safeguards::I_6_FREEZE_AFTER_RESTORE
            | Safeguards::I_7_PROMISE
            | Safeguards::I_17_FRESH_AT_EFFECT
            | Safeguards::I_18_REPLY_OF_CURRENT_LIFE,
    )
}
