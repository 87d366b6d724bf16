//! What other regions ask, and what they answer.
//!
//! A call has an effect only if three things hold in the transaction that applies it: its sender is a
//! server of the region that it speaks for and asserts that region's own facts; the life that speaks
//! is the one that was promised to; and the operation is newer than what is here of that sender.
//! Otherwise it is answered, and changes nothing. Every answer carries the full current facts of the
//! answerer's side, so whoever is behind catches up with one answer.

use std::time::Duration;

use super::control::{Desk, IMPOSSIBLE, params_of, stored};
use super::facts::{
    Bundle, Decided, Facts as _, OpId, Region, Requested, Sealed, digest, from_bytes,
};
use super::ledger::{Kept, Link, Peer};
use super::log::Settled;
use super::msg::{
    Answer, Body, CANCELLED, Call, Errand, Item, Kind, RecordId, RecordVerb, Reply, Status,
};
use super::peering::{Label, Peering, Side};
use super::safeguards::Safeguards;
use crate::lease::record::NodeId;

/// How many items one answer to a comparison has, so that it fits a datagram.
pub(super) const ITEMS_MAX: usize = 5;
/// How long work waits at least that was refused for now.
const FOR_NOW: Duration = Duration::from_millis(250);

/// A digest of everything that is known of a peering.
pub(super) fn digest_of(id: OpId, peering: &Peering) -> u64 {
    digest(&(id, peering.requested, peering.decided))
}

/// What the own side writes of a peering, as it travels.
pub(super) fn own_bundle(peering: &Peering) -> Body {
    Body::of(&match peering.side {
        Side::Requester => Bundle::Requester(peering.requested),
        Side::Accepter => Bundle::Accepter(peering.decided),
    })
}

impl Desk<'_> {
    /// Answers another region; nothing if the caller is not who it says.
    pub(super) fn on_call(&mut self, from: NodeId, call: &Call) -> Option<Reply> {
        let speaks_for = self.cp.servers.get(&from);
        if speaks_for != Some(&call.from) || call.from == self.cp.region {
            return None;
        }
        self.state.heard.insert(call.from, self.state.ledger.head.clock);
        let status = self.answer(call);
        let incarnation = self.state.ledger.head.incarnation;
        Some(Reply { tag: call.tag, incarnation, status })
    }

    fn answer(&mut self, call: &Call) -> Status {
        let Some(peer) = self.state.ledger.peers.get(&call.from).cloned() else {
            return Status::Refused;
        };
        if peer.disposed && self.keeps(Safeguards::I_32_DISPOSAL_FENCES) {
            return Status::Disposed;
        }
        if let Errand::Prepare { nonce } = call.errand {
            return self.on_prepare(call, nonce, peer);
        }
        if let Some(status) = self.refuse_life(call, &peer) {
            return status;
        }
        match &call.errand {
            Errand::Sync { nonce, after, digests, more } => {
                self.compare(call, *nonce, *after, digests, *more)
            }
            _ if peer.link != Link::Open && self.keeps(Safeguards::I_6_FREEZE_AFTER_RESTORE) => {
                Status::Frozen
            }
            Errand::Apply { kind, id, op, closed_below, body } => {
                self.close_below(call.from, id, *closed_below);
                let version = (call.incarnation.n, *op);
                match *kind {
                    Kind::PEERING => self.apply(call.from, *id, version, body),
                    Kind::NOTICE => self.take_notice(call.from, *id, version, body),
                    _ => Status::Unsupported,
                }
            }
            Errand::Prepare { .. } => unreachable!("answered above"),
        }
    }

    /// Why a life of a peer is not listened to, if it is not.
    //= SPEC IRC-21
    fn refuse_life(&mut self, call: &Call, peer: &Peer) -> Option<Status> {
        let Some(floor) = peer.floor else { return Some(Status::Unsynced) };
        if call.incarnation == floor {
            return None;
        }
        self.state.counts.of(call.from).stale_lives += 1;
        if call.incarnation.n <= floor.n {
            let is_other_life = call.incarnation.n == floor.n;
            if is_other_life && !self.keeps(Safeguards::I_9_INCARNATION_UNIQUE) {
                return None;
            }
            return Some(Status::StaleIncarnation(floor));
        }
        if !self.keeps(Safeguards::I_7_PROMISE) {
            return None;
        }
        // It would not speak before it had our promise. We gave it, and have lost it: this region has
        // gone back in time without being told so.
        if peer.link == Link::Open {
            self.begin_life(self.state.ledger.head.incarnation.n + 1);
        }
        Some(Status::Unsynced)
    }

    fn close_below(&mut self, from: Region, id: &OpId, below: u64) {
        if id.requester != from || !self.keeps(Safeguards::I_5_WATERMARK) {
            return;
        }
        let Some(mut peer) = self.state.ledger.peers.get(&from).cloned() else { return };
        let mark = peer.seen.entry(id.n).or_default();
        let before = mark.clone();
        mark.close(below);
        if *mark != before {
            self.state.ledger.peers.insert(from, peer);
            self.dirty = true;
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Facts that arrive
    // ---------------------------------------------------------------------------------------------

    fn apply(&mut self, from: Region, id: OpId, version: (u64, u64), body: &Body) -> Status {
        let Some(bundle) = from_bytes::<Bundle>(&body.0) else { return Status::Refused };
        let known = self.state.ledger.peerings.cloned(&id);
        // A region writes its own side's facts, of operations that concern this one (I-30).
        //= SPEC IRC-22
        let has_authority = match &bundle {
            Bundle::Requester(requested) => {
                id.requester == from && requested.facts.target.region == self.cp.region
            }
            Bundle::Accepter(_) => {
                id.requester == self.cp.region
                    && known.as_ref().is_none_or(|known| known.peer(id) == from)
            }
        };
        if !has_authority && self.keeps(Safeguards::I_30_AUTHORITY) {
            return Status::Refused;
        }
        let Some(mut peering) = known else {
            return match bundle {
                Bundle::Requester(requested) => self.on_new(from, id, version, requested),
                Bundle::Accepter(_) if self.state.ledger.has_closed(id) => Status::Gone,
                Bundle::Accepter(_) => Status::Unsynced,
            };
        };
        //= SPEC IRC-23
        let is_fresh = peering.seen.is_none_or(|seen| version > seen);
        // What contradicts itself can still be ended: by death alone (IRC-42).
        let is_refused = peering.stuck && !bundle.is_death();
        if is_refused || (!is_fresh && self.keeps(Safeguards::I_17_FRESH_AT_EFFECT)) {
            self.state.counts.of(from).old_calls += 1;
            return Status::Old(own_bundle(&peering));
        }
        peering.seen = Some(version);
        self.dirty = true;
        self.learn(id, &mut peering, &bundle);
        //= SPEC IRC-42
        if bundle.is_death() && !peering.is_dead() {
            self.raise_flag(id, &mut peering);
        }
        self.put(id, peering);
        Status::Ok(own_bundle(&self.state.ledger.peerings.cloned(&id).expect("just put")))
    }

    /// Joins the other side's facts.
    ///
    /// Facts and their seal are taken over together, or not at all. Of a writer that was never restored the
    /// newer hold all of the older, which may come later: an answer may overtake a call. If each holds
    /// something that the other does not, the writer has gone another way since: it finds what is here
    /// under its own seal, and says the two together (IRC-41).
    //= SPEC IRC-41
    pub(super) fn learn(&mut self, id: OpId, peering: &mut Peering, bundle: &Bundle) {
        let joins = self.keeps(Safeguards::I_2_FACTS_JOIN);
        let mixes = !self.keeps(Safeguards::I_43_SEAL_WITH_ITS_FACTS);
        match bundle {
            Bundle::Requester(theirs) => {
                let mut facts = peering.requested.facts;
                let mut joined = facts.join(&theirs.facts);
                if !joins {
                    (facts, joined) = (theirs.facts, Ok(()));
                }
                match joined {
                    Ok(()) if facts == theirs.facts => peering.requested = *theirs,
                    Ok(()) if mixes => peering.requested.facts = facts,
                    Ok(()) => {}
                    Err(_) => peering.stuck = true,
                }
            }
            Bundle::Accepter(theirs) => {
                let mut facts = peering.decided.facts;
                let mut joined = facts.join(&theirs.facts);
                if !joins {
                    (facts, joined) = (theirs.facts, Ok(()));
                }
                match joined {
                    Ok(()) if facts == theirs.facts => peering.decided = *theirs,
                    Ok(()) if mixes => peering.decided.facts = facts,
                    Ok(()) => {}
                    Err(_) => peering.stuck = true,
                }
            }
        }
        if peering.stuck {
            self.state.counts.of(peering.peer(id)).conflicts += 1;
        }
        // The writer of these facts knows that it is dead.
        peering.confirmed |= bundle.is_death();
        let is_open = self
            .state
            .ledger
            .peers
            .get(&peering.peer(id))
            .is_some_and(|peer| peer.link == Link::Open);
        if peering.side == Side::Accepter
            && peering.requested.facts.deleted
            && peering.is_undecided()
            && is_open
        {
            self.decide(id, peering, CANCELLED);
        }
    }

    /// A request that is not here. It is new, unless its id says that it was here before.
    fn on_new(
        &mut self,
        from: Region,
        id: OpId,
        version: (u64, u64),
        requested: Sealed<Requested>,
    ) -> Status {
        let Some(mut peer) = self.state.ledger.peers.get(&from).cloned() else {
            return Status::Refused;
        };
        if self.keeps(Safeguards::I_5_WATERMARK) {
            let mark = peer.seen.entry(id.n).or_default();
            if mark.covers(id.seq) {
                return Status::Gone;
            }
            mark.see(id.seq);
            self.state.ledger.peers.insert(from, peer);
        }
        self.dirty = true;
        let mut peering = Peering::new(Side::Accepter, requested);
        peering.seen = Some(version);
        let deadline = self.state.ledger.head.clock.saturating_add(self.cp.policy.pending);
        peering.decided = stored(deadline);
        self.reseal(id, &mut peering);
        if requested.facts.deleted {
            // The deletion has overtaken the request: its sender knows that it is dead.
            peering.confirmed = true;
            self.decide(id, &mut peering, CANCELLED);
        } else if !self.is_possible(&requested.facts) || !self.wins_pair(id, &peering) {
            self.decide(id, &mut peering, IMPOSSIBLE);
        }
        let is_decided = !peering.is_undecided();
        let status = Status::Ok(own_bundle(&peering));
        let needs_record = is_decided && !peering.confirmed;
        self.put(id, peering);
        if needs_record {
            self.log(Kind::PEERING, id, RecordVerb::Decide);
        }
        status
    }

    /// A's own checks: the network is there and its owner is the one that is named, addresses do not
    /// overlap, quotas are not used up. The answer says no more than yes or no.
    fn is_possible(&self, requested: &Requested) -> bool {
        let target = requested.target;
        let Some(&(owner, block)) = self.cp.networks.get(&target.network) else { return false };
        let [_, at_network, of_account] = self.cp.policy.quota;
        let [pending_at, pending_of] = self.state.index.pending(target.network, requested.account);
        owner == target.account
            && !block.overlaps(requested.block)
            && ((pending_at < at_network && pending_of < of_account)
                || !self.keeps(Safeguards::I_31_QUOTAS))
    }

    /// Whether a request may have its pair: nobody alive has it, or it crosses with an own request that
    /// has the higher id. The loser's requester ends its own; nobody ever ends what is accepted.
    //= SPEC IRC-24
    fn wins_pair(&mut self, id: OpId, peering: &Peering) -> bool {
        let pair = peering.pair(id);
        let rival = {
            let mut all = self.state.index.of_pair(pair).filter_map(|id| {
                let rival = self.state.ledger.peerings.get(&id)?;
                (!rival.is_dead()).then(|| (id, rival.into_owned()))
            });
            all.next()
        };
        let Some((rival_id, mut rival)) = rival else { return true };
        if !self.keeps(Safeguards::I_13_TIE_BREAK) {
            return true;
        }
        let loses = rival.side == Side::Requester && rival.is_undecided() && id < rival_id;
        if loses {
            self.raise_flag(rival_id, &mut rival);
            self.put(rival_id, rival);
            self.log(Kind::PEERING, rival_id, RecordVerb::Delete);
        }
        loses
    }

    // ---------------------------------------------------------------------------------------------
    // Answers that arrive
    // ---------------------------------------------------------------------------------------------

    /// The other region has answered a record.
    pub(super) fn on_acknowledged(&mut self, record_id: RecordId, reply: &Reply) -> Settled {
        let Some(record) = self.state.ledger.records.get(&record_id).cloned() else {
            return Settled::Done;
        };
        let Some(peer) = self.state.ledger.peers.get(&record.remote).cloned() else {
            return Settled::Park;
        };
        // What an older life of the peer says is void, in an answer as in a question (I-18).
        let is_current = peer.floor == Some(reply.incarnation);
        if !is_current && self.keeps(Safeguards::I_18_REPLY_OF_CURRENT_LIFE) {
            return Settled::Retry(FOR_NOW);
        }
        match &reply.status {
            Status::Ok(body) | Status::Old(body) => {
                self.finish_record(record_id, &record, Some(body));
                Settled::Done
            }
            Status::Gone => {
                self.finish_record(record_id, &record, None);
                Settled::Done
            }
            Status::StaleIncarnation(floor) => {
                self.outlived(*floor);
                Settled::Retry(FOR_NOW)
            }
            Status::Disposed => {
                self.expelled(record.remote);
                Settled::Retry(FOR_NOW)
            }
            Status::RetryAfter(millis) => Settled::Retry(Duration::from_millis((*millis).into())),
            Status::Frozen | Status::Unsynced => Settled::Retry(FOR_NOW),
            // It may learn the kind with its next release.
            Status::Unsupported => Settled::Retry(self.cp.policy.retry[1]),
            Status::Refused => Settled::Park,
            Status::Promise { .. } | Status::Stale(_) | Status::Synced { .. } => Settled::Park,
        }
    }

    fn finish_record(
        &mut self,
        record_id: RecordId,
        record: &super::ledger::Record,
        body: Option<&Body>,
    ) {
        self.drop_record(record_id);
        if record.kind != Kind::PEERING {
            return;
        }
        let Some(mut peering) = self.state.ledger.peerings.cloned(&record.id) else { return };
        match body.map(|body| from_bytes::<Bundle>(&body.0)) {
            Some(Some(_)) if peering.stuck => {}
            Some(Some(bundle)) => {
                let is_theirs = matches!(
                    (&bundle, peering.side),
                    (Bundle::Requester(_), Side::Accepter) | (Bundle::Accepter(_), Side::Requester)
                );
                if is_theirs {
                    self.learn(record.id, &mut peering, &bundle);
                }
            }
            Some(None) => return,
            // It is over there, and forgotten: so it is over here.
            None => {
                if !peering.is_dead() {
                    self.raise_flag(record.id, &mut peering);
                }
                peering.confirmed = true;
            }
        }
        // The facts that these two carry always hold the death itself.
        let told_death = match record.verb {
            RecordVerb::Delete => true,
            RecordVerb::Decide => peering.decided.facts.is_dead() && !peering.decided.facts.deleted,
            _ => false,
        };
        peering.confirmed |= told_death && peering.is_dead();
        self.put(record.id, peering);
        if !self.has_records(record.id) {
            self.tell_death(record.id);
        }
    }

    /// Sees to it that the other side hears of an end that it may not know, and that no record tells.
    fn tell_death(&mut self, id: OpId) {
        let Some(peering) = self.state.ledger.peerings.get(&id) else { return };
        let by_own = match peering.side {
            Side::Requester => peering.requested.facts.deleted,
            Side::Accepter => peering.decided.facts.is_dead(),
        };
        if by_own && !peering.confirmed {
            let verb = match peering.side {
                Side::Accepter if !peering.decided.facts.deleted => RecordVerb::Decide,
                _ => RecordVerb::Delete,
            };
            self.log(Kind::PEERING, id, verb);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Comparing
    // ---------------------------------------------------------------------------------------------

    /// Says what the asker does not know, in the range that it asks about.
    fn compare(
        &mut self,
        call: &Call,
        nonce: u64,
        after: Option<OpId>,
        digests: &[(OpId, u64)],
        more: bool,
    ) -> Status {
        let until = if more { digests.last().map(|&(id, _)| id) } else { None };
        let in_range = |id: &OpId| {
            after.is_none_or(|after| *id > after) && until.is_none_or(|until| *id <= until)
        };
        let theirs: std::collections::BTreeMap<OpId, u64> = digests.iter().copied().collect();
        let ledger = &self.state.ledger;
        let mine = self.state.index.with(call.from, after).take_while(in_range);
        // More than that are not told at once; what is not is asked for again.
        let mut items: std::collections::BTreeMap<OpId, Item> = mine
            .filter_map(|id| Some((id, ledger.peerings.get(&id)?)))
            .filter(|(id, one)| !one.stuck && theirs.get(id) != Some(&digest_of(*id, one)))
            .take(ITEMS_MAX + 1)
            .map(|(id, peering)| {
                let (requested, decided) = (Some(peering.requested), Some(peering.decided));
                (id, Item { id, requested, decided })
            })
            .collect();
        for &id in theirs.keys().filter(|id| in_range(id)) {
            if !ledger.peerings.contains(&id) && self.is_over(call.from, id) {
                items.insert(id, Item { id, requested: None, decided: None });
            }
        }
        let is_cut = items.len() > ITEMS_MAX;
        let items: Vec<Item> = items.into_values().take(ITEMS_MAX).collect();
        let up_to = if is_cut { items.last().map(|item| item.id) } else { until };
        Status::Synced { nonce, to: call.incarnation, up_to, items }
    }

    /// Whether an operation that is not here was here.
    fn is_over(&self, from: Region, id: OpId) -> bool {
        if id.requester == self.cp.region {
            return self.state.ledger.has_closed(id);
        }
        let peer = self.state.ledger.peers.get(&from);
        let mark = peer.and_then(|peer| peer.seen.get(&id.n));
        mark.is_some_and(|mark| mark.covers(id.seq))
    }

    /// Keeps the result of a recovered Create under its token again.
    pub(super) fn recover_token(&mut self, id: OpId, requested: &Requested) {
        let at = self.state.ledger.head.clock;
        let result = Answer::Done { id, state: Label::InitiatingRequest };
        let kept = Kept { params: params_of(requested), result, at };
        self.state.keep_result(requested.token, kept);
    }
}

/// Whether A's facts are still those of nobody.
pub(super) fn is_blank(decided: &Sealed<Decided>) -> bool {
    decided.facts == Decided::default()
}
