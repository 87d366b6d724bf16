//! After a restore: a new life, frozen until each peer has promised to ignore the old one.
//!
//! A region that was restored from a backup has forgotten its last writes, while what its old life
//! sent is still under way. Waiting does not help: a message may be late by any time. So, towards each
//! peer by itself:
//!
//! 1. it asks for a *promise* under its new incarnation; the peer notes that durably as the floor, and
//!    from then on ignores whatever an older life says, in questions and in answers;
//! 2. the promise names the incarnation of the peer, which the region has perhaps forgotten to have
//!    promised in its turn: it becomes the floor here;
//! 3. it reads everything that the peer knows. Its own facts come back under its own seal, and are
//!    taken over if that is whole;
//! 4. it *thaws*: first all is merged, then what has to be decided is decided.
//!
//! Until then it decides nothing, sends nothing but these questions, and switches no half. Only a
//! deletion is taken: it can do no harm, and nobody may be kept from it. It gives promises itself while
//! it is frozen, so two restored regions do not wait for each other.

use std::time::Duration;

use super::Timer;
use super::control::Desk;
use super::facts::{Bundle, Decision, Facts as _, Incarnation, OpId, Region, digest};
use super::ledger::{Link, Peer, Recovered, Sweep};
use super::log::Settled;
use super::msg::{CANCELLED, Call, Item, Kind, RecordId, RecordVerb, Reply, Status, Work};
use super::peering::{Peering, Side};
use super::remote::is_blank;
use super::safeguards::Safeguards;

/// How many lives a region may be behind what a peer says of it: no region was ever restored as often,
/// and a number that is near to the highest one would leave it none.
pub const LIVES_MAX: u64 = 1 << 20;
/// How many lives a promise names, so that it fits a datagram.
pub(super) const CLOSED_MAX: usize = 50;
/// How long a question waits at least that was not answered as hoped.
const AGAIN: Duration = Duration::from_millis(250);

impl Desk<'_> {
    // ---------------------------------------------------------------------------------------------
    // Promises
    // ---------------------------------------------------------------------------------------------

    /// A peer asks for the promise to ignore its older lives. It is durable before the answer goes.
    //= SPEC IRC-25
    pub(super) fn on_prepare(&mut self, call: &Call, nonce: u64, mut peer: Peer) -> Status {
        if let Some(floor) = peer.floor {
            let is_other_life = call.incarnation.n == floor.n && call.incarnation != floor;
            let is_taken = is_other_life && self.keeps(Safeguards::I_9_INCARNATION_UNIQUE);
            if call.incarnation.n < floor.n || is_taken {
                return Status::Stale(floor);
            }
        }
        let (is_frozen, is_expelled) = (peer.link != Link::Open, peer.link == Link::Expelled);
        if is_frozen && !self.keeps(Safeguards::I_11_PROMISE_WHILE_FROZEN) {
            return Status::Frozen;
        }
        if peer.floor != Some(call.incarnation) && self.keeps(Safeguards::I_7_PROMISE) {
            peer.floor = Some(call.incarnation);
            self.state.ledger.peers.insert(call.from, peer);
            self.dirty = true;
            // Whatever it had promised to us itself, it has forgotten: ask again.
            if is_frozen && self.keeps(Safeguards::I_10_OLD_PROMISE_VOID) {
                self.ask_again(call.from);
            }
        } else if is_expelled {
            // It takes this region back. This one's life is too old for it, and learns that by asking.
            //= SPEC IRC-45
            self.ask_again(call.from);
        }
        // The newest lives. A word of an older life is refused by its number, and one of the present life says itself what it
        // will never send. Only a request of a life before these, which is stored nowhere yet, which is still on its way when
        // it is over on both sides, and which meets a backup from before that life, could live again.
        //= SPEC SEAL-11
        let born = self.state.ledger.head.born.keys().rev();
        let closed = born.map(|&n| (n, self.closed_below(call.from, n)));
        let closed = closed.filter(|&(_, below)| below > 0).take(CLOSED_MAX);
        let mut closed: Vec<(u64, u64)> = closed.collect();
        closed.reverse();
        Status::Promise { nonce, to: call.incarnation, closed }
    }

    /// The answer to the own question for a promise.
    //= SPEC IRC-26
    pub(super) fn on_promise(&mut self, region: Region, reply: &Reply) -> Settled {
        let Some(mut peer) = self.state.ledger.peers.get(&region).cloned() else {
            return Settled::Done;
        };
        let Link::Preparing { nonce: asked } = peer.link else { return Settled::Done };
        let me = self.state.ledger.head.incarnation;
        match &reply.status {
            Status::Promise { nonce, to, closed } if *nonce == asked && *to == me => {
                // A promise of an older life than the one that was promised to is void: the peer has
                // forgotten it (I-10).
                let is_void = peer.floor.is_some_and(|floor| reply.incarnation.n < floor.n);
                if is_void && self.keeps(Safeguards::I_10_OLD_PROMISE_VOID) {
                    return Settled::Retry(AGAIN);
                }
                if self.keeps(Safeguards::I_8_FLOOR_LEARNED_BACK) || peer.floor.is_none() {
                    peer.floor = Some(reply.incarnation);
                }
                let closed = closed.clone();
                peer.link = Link::Syncing { nonce: asked, after: None, closed };
                self.state.ledger.peers.insert(region, peer);
                self.dirty = true;
                Settled::Done
            }
            Status::Stale(floor) => {
                self.outlived(*floor);
                Settled::Retry(AGAIN)
            }
            Status::Disposed => {
                self.expelled(region);
                Settled::Done
            }
            _ => Settled::Retry(AGAIN),
        }
    }

    /// A peer names an incarnation of this region that is newer than this one is, or is another life
    /// of the same number: this is not the newest life. It becomes that.
    //= SPEC IRC-46
    pub(super) fn outlived(&mut self, floor: Incarnation) {
        let me = self.state.ledger.head.incarnation;
        if floor.n.saturating_sub(me.n) > LIVES_MAX {
            return;
        }
        if floor.n > me.n || (floor.n == me.n && floor != me) {
            self.begin_life(floor.n + 1);
        }
    }

    /// Becomes a new life, as after a restore: frozen towards all, with no claim out.
    //= SPEC IRC-27
    pub(super) fn begin_life(&mut self, n: u64) {
        let head = &mut self.state.ledger.head;
        let life = digest(&(self.cp.life, n, head.next_nonce));
        head.incarnation = Incarnation { n, life };
        head.born.insert(n, 0);
        head.next_record = 0;
        self.state.ledger.freeze_all();
        let claims: Vec<Work> = self.state.claims.keys().copied().collect();
        for work in claims {
            self.release(work);
        }
        let waits: Vec<Work> = self.state.waits.keys().copied().collect();
        for work in waits {
            self.o.cancel_timer(Timer::Retry(work));
        }
        self.state.waits.clear();
        self.state.starved.clear();
        self.state.tries.clear();
        self.state.reindex();
        self.state.sweeps.clear();
        self.dirty = true;
    }

    fn ask_again(&mut self, region: Region) {
        self.state.ledger.freeze(region);
        for work in [Work::Prepare(region), Work::Sync(region)] {
            self.release(work);
            self.state.set_wait(work, None);
            self.o.cancel_timer(Timer::Retry(work));
        }
        self.dirty = true;
    }

    // ---------------------------------------------------------------------------------------------
    // Reading what the peer knows
    // ---------------------------------------------------------------------------------------------

    /// A part of what the peer knows and this region does not.
    //= SPEC IRC-28
    //= SPEC API-5
    pub(super) fn on_synced(&mut self, region: Region, reply: &Reply) -> Settled {
        let Some(peer) = self.state.ledger.peers.get(&region).cloned() else {
            return Settled::Done;
        };
        let Status::Synced { nonce, to, up_to, items } = &reply.status else {
            match &reply.status {
                Status::StaleIncarnation(floor) => self.outlived(*floor),
                Status::Disposed => self.expelled(region),
                // It has lost its promise.
                Status::Unsynced if peer.link != Link::Open => self.ask_again(region),
                _ => {}
            }
            return Settled::Retry(AGAIN);
        };
        let is_current = peer.floor == Some(reply.incarnation)
            || !self.keeps(Safeguards::I_8_FLOOR_LEARNED_BACK)
            || !self.keeps(Safeguards::I_10_OLD_PROMISE_VOID);
        if *to != self.state.ledger.head.incarnation || !is_current {
            return Settled::Retry(AGAIN);
        }
        let after = match peer.link {
            Link::Syncing { after, .. } => after,
            _ => self.state.sweeps.get(&region).and_then(|sweep| sweep.after),
        };
        let Some(items) = in_range(items, after, *up_to, region, peer.floor) else {
            return Settled::Retry(AGAIN);
        };
        let items = items.as_slice();
        match peer.link {
            Link::Syncing { nonce: asked, closed, .. } if asked == *nonce => {
                self.merge(region, items);
                match up_to {
                    Some(after) => {
                        let after = Some(*after);
                        let link = Link::Syncing { nonce: asked, after, closed };
                        self.set_link(region, link);
                    }
                    None => {
                        self.state.counts.of(region).sweeps += 1;
                        self.thaw(region, &closed);
                    }
                }
            }
            Link::Open
                if self.state.sweeps.get(&region).is_some_and(|sweep| sweep.nonce == *nonce) =>
            {
                self.merge(region, items);
                match up_to {
                    Some(after) => {
                        // The next part is for the next interval.
                        let sweep = Sweep { nonce: *nonce, after: Some(*after), due: false };
                        self.state.sweeps.insert(region, sweep);
                    }
                    None => {
                        self.state.sweeps.remove(&region);
                        self.state.counts.of(region).sweeps += 1;
                    }
                }
            }
            _ => {}
        }
        Settled::Done
    }

    fn set_link(&mut self, region: Region, link: Link) {
        if let Some(mut peer) = self.state.ledger.peers.get(&region).cloned() {
            peer.link = link;
            self.state.ledger.peers.insert(region, peer);
            self.dirty = true;
        }
    }

    fn merge(&mut self, region: Region, items: &[Item]) {
        for item in items {
            let known = self.state.ledger.peerings.cloned(&item.id);
            let side = match item.id.requester {
                requester if requester == self.cp.region => Side::Requester,
                requester if requester == region => Side::Accepter,
                _ => continue,
            };
            if known.as_ref().is_some_and(|known| known.peer(item.id) != region) {
                continue;
            }
            match (known, item.requested, item.decided) {
                (Some(mut known), None, _) => {
                    // It is over there, and forgotten.
                    if !known.is_dead() {
                        self.raise_flag(item.id, &mut known);
                    }
                    known.confirmed = true;
                    self.put(item.id, known);
                }
                (None, Some(_), Some(_)) => self.adopt(region, item, side),
                (Some(known), Some(_), Some(_)) => self.catch_up(region, item, known),
                _ => {}
            }
        }
    }

    /// Takes back an operation that was lost altogether. Own facts count only under the own seal.
    fn adopt(&mut self, region: Region, item: &Item, side: Side) {
        let (Some(requested), Some(decided)) = (item.requested, item.decided) else { return };
        let id = item.id;
        let (accepter, is_mine) = match side {
            Side::Requester => (region, self.cp.key.has_sealed(id, &requested)),
            Side::Accepter => {
                let is_mine = is_blank(&decided) || self.cp.key.has_sealed(id, &decided);
                (self.cp.region, is_mine)
            }
        };
        if requested.facts.target.region != accepter {
            return;
        }
        let Some(mut peer) = self.state.ledger.peers.get(&region).cloned() else { return };
        let is_over = match side {
            Side::Requester => self.state.ledger.has_closed(id),
            Side::Accepter => {
                // The request is still on its way here: it comes by its own record. But if it is dead
                // there, it must not rise here when that record is late.
                (is_blank(&decided) && !requested.facts.deleted)
                    || (self.keeps(Safeguards::I_5_WATERMARK)
                        && peer.seen.get(&id.n).is_some_and(|mark| mark.covers(id.seq)))
            }
        };
        if is_over {
            return;
        }
        if !is_mine {
            self.state.counts.of(region).bad_seals += 1;
            peer.lost.refused.insert(id);
            self.state.ledger.peers.insert(region, peer);
            self.dirty = true;
            return;
        }
        let mut peering = Peering::new(side, requested);
        peering.decided = decided;
        self.reseal(id, &mut peering);
        match side {
            Side::Requester => {
                peering.confirmed = decided.facts.is_dead();
                self.recover_token(id, &requested.facts);
            }
            Side::Accepter => {
                peering.confirmed = requested.facts.deleted;
                if self.keeps(Safeguards::I_5_WATERMARK) {
                    peer.seen.entry(id.n).or_default().see(id.seq);
                }
            }
        }
        let recovered = Recovered {
            existence: true,
            decision: side == Side::Accepter && decided.facts.decision.is_some(),
            flag: match side {
                Side::Requester => requested.facts.deleted,
                Side::Accepter => decided.facts.deleted,
            },
            options: false,
        };
        peer.lost.recovered.insert(id, recovered);
        // A deadline is on the clock of the accepter's region.
        let deadline = decided.facts.deadline.filter(|_| side == Side::Accepter);
        let seen = deadline.map_or(0, |at| at.saturating_sub(self.cp.policy.pending));
        peer.lost.window.1 = peer.lost.window.1.max(seen);
        self.state.ledger.peers.insert(region, peer);
        self.put(id, peering);
    }

    /// Takes over what the peer knows more: of its own facts all, of ours what our seal is under.
    fn catch_up(&mut self, region: Region, item: &Item, mut known: Peering) {
        let (Some(requested), Some(decided)) = (item.requested, item.decided) else { return };
        let id = item.id;
        let before = known.clone();
        let mut recovered = Recovered::default();
        let (theirs, is_mine, joined) = match known.side {
            Side::Requester => {
                let is_mine = self.cp.key.has_sealed(id, &requested);
                let mut facts = known.requested.facts;
                let joined = facts.join(&requested.facts);
                if is_mine && joined.is_ok() {
                    recovered.flag = facts.deleted && !known.requested.facts.deleted;
                    recovered.options = facts.options != known.requested.facts.options;
                    known.requested.facts = facts;
                }
                (Bundle::Accepter(decided), is_mine, joined)
            }
            Side::Accepter => {
                // A blank copy is no copy.
                let is_mine = is_blank(&decided) || self.cp.key.has_sealed(id, &decided);
                let mut facts = known.decided.facts;
                let joined = facts.join(&decided.facts);
                if is_mine && joined.is_ok() {
                    recovered.decision = facts.decision != known.decided.facts.decision;
                    recovered.flag = facts.deleted && !known.decided.facts.deleted;
                    recovered.options = facts.options != known.decided.facts.options;
                    known.decided.facts = facts;
                }
                (Bundle::Requester(requested), is_mine, joined)
            }
        };
        if let Some(mut peer) = self.state.ledger.peers.get(&region).cloned() {
            if !is_mine || joined.is_err() {
                // Nobody picks a winner silently.
                known.stuck = true;
                let count = self.state.counts.of(region);
                *(if is_mine { &mut count.conflicts } else { &mut count.bad_seals }) += 1;
                peer.lost.refused.insert(id);
            } else if recovered != Recovered::default() {
                peer.lost.recovered.insert(id, recovered);
            }
            self.state.ledger.peers.insert(region, peer);
            self.dirty = true;
        }
        self.reseal(id, &mut known);
        self.learn(id, &mut known, &theirs);
        // The end counts even where the facts that tell it are not taken over (IRC-41).
        if theirs.is_death() && !known.is_dead() {
            self.raise_flag(id, &mut known);
        }
        let copy_lags = match known.side {
            Side::Requester => requested != known.requested,
            Side::Accepter => decided != known.decided,
        };
        let is_open =
            self.state.ledger.peers.get(&region).is_some_and(|peer| peer.link == Link::Open);
        if known != before {
            self.put(id, known.clone());
        }
        // A sweep finds what no record will repair; it repairs by telling, and decides nothing.
        if is_open && copy_lags && !self.has_records(id) && !known.stuck {
            self.log(Kind::PEERING, id, verb_of(&known));
        }
    }

    // ---------------------------------------------------------------------------------------------
    // The thaw
    // ---------------------------------------------------------------------------------------------

    /// All is merged: decide what has to be decided, and go on.
    //= SPEC IRC-29
    fn thaw(&mut self, region: Region, closed: &[(u64, u64)]) {
        self.set_link(region, Link::Open);
        if self.keeps(Safeguards::I_5_WATERMARK)
            && let Some(mut peer) = self.state.ledger.peers.get(&region).cloned()
        {
            for &(n, below) in closed {
                peer.seen.entry(n).or_default().close(below);
            }
            self.state.ledger.peers.insert(region, peer);
        }
        let stale: Vec<RecordId> = self
            .state
            .ledger
            .records
            .iter()
            .filter(|(_, record)| record.remote == region && record.kind == Kind::PEERING)
            .map(|(&id, _)| id)
            .collect();
        for record in stale {
            self.drop_record(record);
        }
        for id in self.with(region) {
            let Some(mut peering) = self.state.ledger.peerings.cloned(&id) else { continue };
            if !peering.is_dead() && self.has_better(id, &peering) {
                self.raise_flag(id, &mut peering);
            }
            let is_undecided = peering.side == Side::Accepter && peering.is_undecided();
            if is_undecided
                && peering.is_dead()
                && !peering.stuck
                && self.keeps(Safeguards::I_12_MERGE_THEN_DECIDE)
            {
                let by_r = peering.requested.facts.deleted;
                let decision = if by_r { CANCELLED } else { Decision::Rejected };
                self.decide(id, &mut peering, decision);
            }
            let is_settled = peering.is_dead() && peering.confirmed;
            let verb = verb_of(&peering);
            let is_stuck = peering.stuck;
            self.put(id, peering);
            if !is_settled && (!is_stuck || verb == RecordVerb::Delete) {
                self.log(Kind::PEERING, id, verb);
            }
        }
        self.switch_off_strays(region);
    }

    fn with(&self, region: Region) -> Vec<OpId> {
        self.state.index.with(region, None).collect()
    }

    /// Whether another live peering of the pair stays instead: an accepted one before an undecided one,
    /// then the lower id.
    fn has_better(&self, id: OpId, peering: &Peering) -> bool {
        let rank = |id: OpId, peering: &Peering| (peering.is_undecided(), id);
        let mut all = self.state.index.of_pair(peering.pair(id));
        all.any(|other_id| {
            let other = self.state.ledger.peerings.get(&other_id);
            other.is_some_and(|other| {
                other_id != id && !other.is_dead() && rank(other_id, &other) < rank(id, peering)
            })
        })
    }

    /// Halves that the data plane has and no peering explains.
    fn switch_off_strays(&mut self, region: Region) {
        let all_open = self.state.ledger.is_open();
        let strays: Vec<OpId> = self
            .state
            .ledger
            .on
            .keys()
            .filter(|id| !self.state.ledger.peerings.contains(id))
            .filter(|id| id.requester == region || (id.requester == self.cp.region && all_open))
            .collect();
        for id in strays {
            self.switch(id, false);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Disposal
    // ---------------------------------------------------------------------------------------------

    /// An operator says that a region is gone for good: it is fenced, and every peering with it ends
    /// here without its word.
    //= SPEC IRC-30
    pub(super) fn dispose(&mut self, region: Region) {
        let Some(mut peer) = self.state.ledger.peers.get(&region).cloned() else { return };
        if peer.disposed {
            return;
        }
        peer.disposed = true;
        // It comes back, if ever, as a life that is newer than any that it has had.
        let n = peer.floor.map_or(0, |floor| floor.n) + 1;
        peer.floor = Some(Incarnation { n, life: 0 });
        peer.link = Link::Open;
        self.state.ledger.peers.insert(region, peer);
        self.end_all(region, true);
    }

    /// A peer has declared this region gone: end every peering with it here too.
    pub(super) fn expelled(&mut self, region: Region) {
        if self.state.ledger.peers.get(&region).is_none_or(|peer| peer.link == Link::Expelled) {
            return;
        }
        self.set_link(region, Link::Expelled);
        // It has ended them all, or it would not say so.
        self.end_all(region, true);
    }

    fn end_all(&mut self, region: Region, confirmed: bool) {
        for id in self.with(region) {
            let stray: Vec<RecordId> = self.records_of(id).collect();
            for record in stray {
                self.release(Work::Record(record));
                self.drop_record(record);
            }
            let Some(mut peering) = self.state.ledger.peerings.cloned(&id) else { continue };
            if !peering.is_dead() {
                self.raise_flag(id, &mut peering);
            }
            peering.confirmed |= confirmed;
            self.put(id, peering);
        }
        self.dirty = true;
    }
}

/// The items of an answer that it may hold: of the part that was asked for, and of lives that the peer has
/// had. None if the part has no end above its beginning: whoever takes such parts comes to no end.
//= SPEC IRC-47
fn in_range(
    items: &[Item],
    after: Option<OpId>,
    up_to: Option<OpId>,
    peer: Region,
    floor: Option<Incarnation>,
) -> Option<Vec<Item>> {
    if up_to.is_some() && up_to <= after {
        return None;
    }
    let may_be = |item: &&Item| {
        after.is_none_or(|after| item.id > after)
            && up_to.is_none_or(|up_to| item.id <= up_to)
            && (item.id.requester != peer || floor.is_none_or(|floor| item.id.n <= floor.n))
    };
    Some(items.iter().filter(may_be).cloned().collect())
}

/// What a record has to say so that the other side knows all of ours.
fn verb_of(peering: &Peering) -> RecordVerb {
    let flag = match peering.side {
        Side::Requester => peering.requested.facts.deleted,
        Side::Accepter => peering.decided.facts.deleted,
    };
    match peering.side {
        _ if flag => RecordVerb::Delete,
        Side::Requester if peering.decided.facts.deadline.is_none() => RecordVerb::Create,
        Side::Accepter if !peering.is_undecided() => RecordVerb::Decide,
        _ => RecordVerb::Modify,
    }
}
