//! The work log: what other regions still have to be told, and who is telling them.
//!
//! A record is written in the transaction of the fact that it carries, and stays until the other
//! region has acknowledged it. IRC servers poll for work. A claim is a lease with an epoch: the epoch
//! grows with every claim and is never reset, and a report counts only under the epoch of the claim
//! that is out. So any number of servers may share the log, die and be late: the worst they can do is
//! to send something twice.
//!
//! # Retries and bulkheads
//!
//! Each remote has its own limit of claims, its own budget for retries and its own breaker
//! ([`super::pace`]). So a remote that is down costs one probe at a time, whatever has piled up for it,
//! and no other remote ever notices.

use std::collections::BTreeMap;
use std::time::Duration;

use super::control::Desk;
use super::facts::{OpId, Region};
use super::ledger::{Held, Link, Peer, Record, Sweep};
use super::msg::{
    Body, Call, Claim, ClaimEpoch, Errand, Kind, Msg, Outcome, RecordId, RecordVerb, Reply, Status,
    Work,
};
use super::remote::digest_of;
use super::safeguards::Safeguards;
use super::{Timer, notice};
use crate::lease::record::NodeId;

/// How often a claim may run out without a report before its record is set aside.
pub const LOST_MAX: u8 = 5;
/// How many ids one part of a comparison names, so that it fits a datagram.
pub(super) const DIGESTS_MAX: usize = 30;

/// What follows for work that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is finished, or there is a next part at once.
    Done,
    /// Again, not before this.
    Retry(Duration),
    /// Never again, until an operator says so.
    Park,
}

impl Desk<'_> {
    // ---------------------------------------------------------------------------------------------
    // Records
    // ---------------------------------------------------------------------------------------------

    /// Writes what has happened to an operation into the log, for the region at its other end.
    //= SPEC IRC-13
    pub(super) fn log(&mut self, kind: Kind, id: OpId, verb: RecordVerb) {
        let Some((remote, op)) = self.next_op(kind, id) else { return };
        if verb == RecordVerb::Delete {
            // It says all that the earlier ones say. One that is claimed may be under way.
            let earlier: Vec<RecordId> = self
                .records_of(id)
                .filter(|&record| !self.state.claims.contains_key(&Work::Record(record)))
                .collect();
            for record in earlier {
                self.drop_record(record);
            }
        }
        let head = &mut self.state.ledger.head;
        let record = RecordId { n: head.incarnation.n, seq: head.next_record };
        head.next_record += 1;
        let since = head.clock;
        let what = Record { remote, kind, id, verb, op, lost: 0, parked: false, since };
        self.state.set_record(record, Some(what));
        self.dirty = true;
    }

    fn next_op(&mut self, kind: Kind, id: OpId) -> Option<(Region, u64)> {
        if kind == Kind::NOTICE {
            let notice = self.state.ledger.notices.get(&id)?;
            return Some((notice.to, notice.version.1));
        }
        let mut peering = self.state.ledger.peerings.cloned(&id)?;
        let op = peering.next_op;
        peering.next_op += 1;
        let remote = peering.peer(id);
        self.write(id, Some(peering));
        Some((remote, op))
    }

    pub(super) fn drop_record(&mut self, record: RecordId) {
        let work = Work::Record(record);
        self.state.set_wait(work, None);
        self.state.set_record(record, None);
        self.state.tries.remove(&work);
        self.o.cancel_timer(Timer::Retry(work));
        self.dirty = true;
    }

    /// Drops a record that nobody holds any more if a deletion was written meanwhile: that one says all
    /// that this one says, and must not wait behind it.
    //= SPEC IRC-38
    pub(super) fn is_superseded(&mut self, work: Work) -> bool {
        let Work::Record(id) = work else { return false };
        let Some(op) = self.state.ledger.records.get(&id).map(|record| record.id) else {
            return false;
        };
        let deletes = |other: &RecordId| {
            let record = self.state.ledger.records.get(other);
            *other > id && record.is_some_and(|record| record.verb == RecordVerb::Delete)
        };
        let is_superseded = self.records_of(op).any(|other| deletes(&other));
        if is_superseded {
            self.drop_record(id);
        }
        is_superseded
    }

    pub(super) fn records_of(&self, id: OpId) -> impl Iterator<Item = RecordId> {
        self.state.records_of(id)
    }

    pub(super) fn has_records(&self, id: OpId) -> bool {
        self.records_of(id).next().is_some()
    }

    /// Below this no own Create of that incarnation will ever be sent to that region again.
    pub(super) fn closed_below(&self, region: Region, n: u64) -> u64 {
        let born = self.state.ledger.head.born.get(&n).copied().unwrap_or(0);
        self.state.index.first_unstored(region, n).map_or(born, |seq| seq.min(born))
    }

    // ---------------------------------------------------------------------------------------------
    // What there is to do
    // ---------------------------------------------------------------------------------------------

    /// Everything that may be said to other regions now, claimed or not.
    pub(super) fn work(&self) -> Vec<(Region, Work)> {
        let mut work = Vec::new();
        for (&region, peer) in self.state.ledger.peers.iter().filter(|(_, peer)| !peer.disposed) {
            match peer.link {
                Link::Preparing { .. } => work.push((region, Work::Prepare(region))),
                Link::Syncing { .. } if !self.state.ledger.head.held => {
                    work.push((region, Work::Sync(region)));
                }
                Link::Open if self.state.is_sweep_due(region) => {
                    work.push((region, Work::Sync(region)));
                }
                Link::Open | Link::Syncing { .. } | Link::Expelled => {}
            }
        }
        let ledger = &self.state.ledger;
        let is_open = |region: &Region| {
            ledger.peers.get(region).is_some_and(|peer| peer.link == Link::Open && !peer.disposed)
        };
        // Only the oldest unfinished record of an operation is handed out.
        let mut first: BTreeMap<OpId, ()> = BTreeMap::new();
        let mut records = Vec::new();
        for (&id, record) in ledger.records.iter() {
            if first.insert(record.id, ()).is_none() && !record.parked && is_open(&record.remote) {
                records.push((record.verb, record.remote, Work::Record(id)));
            }
        }
        records.sort_by_key(|&(verb, _, work)| (verb, work));
        let sync = work.iter().position(|(_, work)| matches!(work, Work::Sync(_)));
        let at = sync.unwrap_or(work.len());
        work.sort_by_key(|&(_, work)| matches!(work, Work::Sync(_)));
        let tail = work.split_off(at.min(work.len()));
        work.extend(records.into_iter().map(|(_, region, work)| (region, work)));
        work.extend(tail);
        work
    }

    /// What is to be said for this work, as things are now. None if there is nothing to say any more.
    pub(super) fn call(&self, work: Work, epoch: ClaimEpoch) -> Option<Claim> {
        let ledger = &self.state.ledger;
        let (remote, errand) = match work {
            Work::Prepare(region) => match ledger.peers.get(&region)?.link {
                Link::Preparing { nonce } => (region, Errand::Prepare { nonce }),
                _ => return None,
            },
            Work::Sync(region) => {
                let (nonce, after) = match ledger.peers.get(&region)?.link {
                    Link::Syncing { nonce, after, .. } => (nonce, after),
                    Link::Open => {
                        let sweep = self.state.sweeps.get(&region)?;
                        (sweep.nonce, sweep.after)
                    }
                    _ => return None,
                };
                let mine = self.state.index.with(region, after);
                let mut digests: Vec<(OpId, u64)> = mine
                    .filter_map(|id| Some((id, digest_of(id, &*ledger.peerings.get(&id)?))))
                    .take(DIGESTS_MAX + 1)
                    .collect();
                let more = digests.len() > DIGESTS_MAX;
                digests.truncate(DIGESTS_MAX);
                (region, Errand::Sync { nonce, after, digests, more })
            }
            Work::Record(id) => {
                let record = ledger.records.get(&id)?;
                let body = match record.kind {
                    Kind::NOTICE => notice::body(ledger.notices.get(&record.id)?),
                    _ => self.own_facts(record.id)?,
                };
                let closed_below = self.closed_below(record.remote, record.id.n);
                let closed_below =
                    if record.id.requester == self.cp.region { closed_below } else { 0 };
                let Record { kind, id, op, .. } = *record;
                (record.remote, Errand::Apply { kind, id, op, closed_below, body })
            }
        };
        let call = Call {
            from: self.cp.region,
            incarnation: ledger.head.incarnation,
            tag: (work, epoch),
            errand,
        };
        Some(Claim { remote, call })
    }

    /// The facts that this region writes of a peering, as they travel.
    pub(super) fn own_facts(&self, id: OpId) -> Option<Body> {
        let peering = self.state.ledger.peerings.get(&id)?;
        Some(super::remote::own_bundle(&peering))
    }

    // ---------------------------------------------------------------------------------------------
    // Claims
    // ---------------------------------------------------------------------------------------------

    /// What a poll would be handed out if every limit were far away.
    pub(super) fn offers(&self, kinds: &[Kind]) -> Vec<Work> {
        let regions = self.state.ledger.peers.iter().map(|(&region, _)| region);
        regions.flat_map(|region| self.ready_for(region, kinds, usize::MAX)).collect()
    }

    /// A server of this region wants work. It reads the set of what is unfinished, and keeps no place in
    /// it (I-22). The remote towards which the fewest claims are out goes first, and of these the next
    /// one after the last that was served: no backlog of one takes the places of another, however few
    /// places there are.
    //= SPEC IRC-15
    pub(super) fn on_poll(&mut self, from: NodeId, kinds: &[Kind], max: u8) {
        if self.cp.servers.get(&from) != Some(&self.cp.region) {
            return;
        }
        let mut out: BTreeMap<Region, usize> = BTreeMap::new();
        for &work in self.state.claims.keys() {
            *out.entry(self.remote_of(work)).or_default() += 1;
        }
        if !self.keeps(Safeguards::I_29_UNKNOWN_KINDS_LEFT) {
            self.give_up_all_but(kinds);
        }
        let mut ready = Vec::new();
        for (&region, _) in self.state.ledger.peers.iter() {
            let mut room =
                self.limit(region).saturating_sub(out.get(&region).copied().unwrap_or(0));
            if !self.keeps(Safeguards::I_27_BULKHEAD) {
                room = usize::MAX;
            }
            let mine = self.ready_for(region, kinds, room.min(max.into()));
            let (before, is_next) =
                (out.get(&region).copied().unwrap_or(0), Some(region) > self.state.served);
            let turns = mine.into_iter().enumerate();
            ready.extend(turns.map(|(turn, work)| ((before + turn, !is_next), region, work)));
        }
        ready.sort_by_key(|&(turn, ..)| turn);
        ready.truncate(max.into());
        let last = ready.last().map(|&(_, region, _)| region);
        if last.is_some() && self.cp.others.len() > 1 {
            self.state.served = last;
        }
        for (_, _, work) in ready {
            self.claim(from, work);
        }
    }

    /// What may be handed out for one remote now, so many pieces at most: its questions first, of which
    /// there is one of each kind, then its records by what they carry.
    //= SPEC IRC-34
    pub(super) fn ready_for(&self, region: Region, kinds: &[Kind], room: usize) -> Vec<Work> {
        let Some(peer) = self.state.ledger.peers.get(&region).filter(|peer| !peer.disposed) else {
            return Vec::new();
        };
        let question = match peer.link {
            Link::Preparing { .. } => Some(Work::Prepare(region)),
            // A region that an operator holds frozen asks for promises, and reads nothing yet (IRC-34).
            Link::Syncing { .. } if !self.state.ledger.head.held => Some(Work::Sync(region)),
            Link::Open if self.state.is_sweep_due(region) => Some(Work::Sync(region)),
            Link::Open | Link::Syncing { .. } | Link::Expelled => None,
        };
        let is_free = |work: &Work| {
            !self.state.claims.contains_key(work) && !self.state.waits.contains_key(work)
        };
        let mut work: Vec<Work> = question.filter(is_free).into_iter().collect();
        if peer.link == Link::Open {
            // What a server does not know it leaves to newer ones (I-29).
            let mut records: Vec<(RecordVerb, RecordId)> = kinds
                .iter()
                .flat_map(|&kind| self.state.index.ready(region, kind).take(room))
                .collect();
            // Without the rule: only what is above the last one that was handed out.
            let cursor = self.state.cursor;
            records.retain(|&(_, id)| cursor.is_none_or(|cursor| id > cursor));
            records.sort_unstable();
            records.dedup();
            work.extend(records.into_iter().map(|(_, id)| Work::Record(id)));
        }
        work.truncate(room);
        work
    }

    //= SPEC IRC-16
    fn claim(&mut self, server: NodeId, work: Work) {
        let head = &self.state.ledger.head;
        let mut epoch = ClaimEpoch { incarnation: head.incarnation, start: head.start, counter: 0 };
        self.state.claimed += 1;
        epoch.counter = self.state.claimed;
        if !self.keeps(Safeguards::I_16_EPOCH_NEVER_RESET) {
            epoch.counter = self.state.tries.get(&work).copied().unwrap_or(0).into();
        }
        let Some(claim) = self.call(work, epoch) else { return };
        self.note_send(claim.remote, work);
        self.state.set_claim(work, Some(Held { epoch, server }));
        if let Work::Record(record) = work
            && !self.keeps(Safeguards::I_3_KEPT_UNTIL_ACKNOWLEDGED)
        {
            self.state.set_claim(work, None);
            self.drop_record(record);
        }
        if !self.keeps(Safeguards::I_22_NO_CURSOR)
            && let Work::Record(record) = work
        {
            self.state.cursor = self.state.cursor.max(Some(record));
        }
        self.lease(work);
        self.o.send(server.into(), Msg::Claimed(Box::new(claim)));
    }

    pub(super) fn remote_of(&self, work: Work) -> Region {
        self.state.ledger.remote_of(work).unwrap_or(self.cp.region)
    }

    /// A server is about to call. Its claim is leased once more, from now on, if it is still held. While
    /// a breaker is open only the probe may go: all other claims are taken back (I-20, I-25).
    //= SPEC IRC-35
    pub(super) fn on_extend(&mut self, from: NodeId, work: Work, epoch: ClaimEpoch) {
        if self.cp.servers.get(&from) != Some(&self.cp.region) {
            return;
        }
        let is_held = self.state.claims.get(&work).is_some_and(|held| held.epoch == epoch);
        let remote = self.remote_of(work);
        let ok = is_held && !self.is_beyond_the_probe(remote);
        if ok {
            self.lease(work);
        } else if is_held {
            self.release(work);
            self.is_superseded(work);
        } else {
            self.state.counts.of(remote).stale_reports += 1;
        }
        self.o.send(from.into(), Msg::Extended { work, epoch, ok });
    }

    fn lease(&mut self, work: Work) {
        if self.keeps(Safeguards::I_19_LEASES_EXPIRE) {
            // Spread over a part of the lease, so that not all come back at once (I-26).
            let lease = self.cp.policy.lease;
            let spread = self.keeps(Safeguards::I_26_SPREAD);
            let latest = if spread { lease + lease / 4 } else { lease };
            self.o.set_timer(Timer::Lease(work), lease..latest);
        }
    }

    /// A server says what came of a claim. Under any other epoch than the claim's it changes nothing.
    pub(super) fn on_report(
        &mut self,
        from: NodeId,
        work: Work,
        epoch: ClaimEpoch,
        outcome: Outcome,
    ) {
        if self.cp.servers.get(&from) != Some(&self.cp.region) {
            return;
        }
        let held = self.state.claims.get(&work);
        let is_current = held.is_some_and(|held| held.epoch == epoch);
        let ok = is_current || !self.keeps(Safeguards::I_15_CLAIM_EPOCH_CHECKED);
        self.o.send(from.into(), Msg::Reported { work, epoch, ok });
        let remote = self.remote_of(work);
        if !ok {
            self.state.counts.of(remote).stale_reports += 1;
            return;
        }
        self.release(work);
        let mut told = false;
        let settled = match outcome {
            Outcome::Released => {
                self.is_superseded(work);
                return;
            }
            Outcome::TimedOut => {
                self.note_failure(remote);
                Settled::Retry(Duration::ZERO)
            }
            Outcome::Answered(reply) => {
                match reply.status {
                    Status::Frozen | Status::Unsynced | Status::RetryAfter(_) => {
                        self.note_failure(remote);
                    }
                    _ => self.note_answer(remote),
                }
                told = matches!(reply.status, Status::RetryAfter(_) | Status::Unsupported);
                self.state.heard.insert(remote, self.state.ledger.head.clock);
                self.settle(work, &reply)
            }
        };
        match settled {
            Settled::Done => {
                self.state.tries.remove(&work);
            }
            _ if self.is_superseded(work) => {}
            Settled::Retry(least) => self.wait(work, least, told),
            Settled::Park if self.keeps(Safeguards::I_28_DEAD_LETTER) => self.park(work),
            Settled::Park => self.wait(work, Duration::ZERO, false),
        }
    }

    pub(super) fn release(&mut self, work: Work) {
        self.state.set_claim(work, None);
        self.o.cancel_timer(Timer::Lease(work));
    }

    /// Sets aside what a server does not know: the mistake that I-29 prevents.
    fn give_up_all_but(&mut self, kinds: &[Kind]) {
        let records = self.state.ledger.records.iter();
        let unknown: Vec<RecordId> =
            records.filter(|(_, one)| !kinds.contains(&one.kind)).map(|(&id, _)| id).collect();
        for id in unknown {
            self.park(Work::Record(id));
        }
    }

    /// Sets work aside until an operator says what becomes of it.
    //= SPEC IRC-39
    fn park(&mut self, work: Work) {
        if let Work::Record(id) = work
            && let Some(mut record) = self.state.ledger.records.get(&id).cloned()
        {
            record.parked = true;
            self.state.set_record(id, Some(record));
            self.dirty = true;
        }
    }

    /// A server has not reported in time: the work is anybody's again.
    pub(super) fn on_lease_end(&mut self, work: Work) {
        let remote = self.remote_of(work);
        self.state.counts.of(remote).lost_claims += 1;
        self.state.set_claim(work, None);
        if self.is_superseded(work) {
            return;
        }
        if let Work::Record(id) = work
            && let Some(mut record) = self.state.ledger.records.get(&id).cloned()
        {
            record.lost = record.lost.saturating_add(1);
            record.parked |= record.lost >= LOST_MAX && self.keeps(Safeguards::I_28_DEAD_LETTER);
            self.state.set_record(id, Some(record));
            self.dirty = true;
        }
    }

    /// It is time to compare a part of what is known with a peer: at a constant rate, whatever has
    /// changed or failed.
    //= SPEC IRC-18
    pub(super) fn on_sweep(&mut self, region: Region) {
        let Some(every) = self.cp.policy.sweep else { return };
        self.o.set_timer(Timer::Sweep(region), every..every);
        if !self.keeps(Safeguards::I_23_CONSTANT_SWEEP) {
            return;
        }
        let is_open = |peer: &Peer| peer.link == Link::Open && !peer.disposed;
        if !self.state.ledger.peers.get(&region).is_some_and(is_open) {
            self.state.sweeps.remove(&region);
        } else if let Some(sweep) = self.state.sweeps.get_mut(&region) {
            sweep.due = true;
        } else {
            let nonce = self.state.ledger.head.next_nonce;
            self.state.ledger.head.next_nonce += 1;
            self.dirty = true;
            self.state.sweeps.insert(region, Sweep { nonce, after: None, due: true });
        }
    }

    /// Applies the answer to a piece of work.
    pub(super) fn settle(&mut self, work: Work, reply: &Reply) -> Settled {
        match work {
            Work::Prepare(region) => self.on_promise(region, reply),
            Work::Sync(region) => self.on_synced(region, reply),
            Work::Record(id) => self.on_acknowledged(id, reply),
        }
    }
}
