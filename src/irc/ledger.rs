//! What a control plane keeps: all of it changes in one transaction.
//!
//! Peerings, work records, tokens, promises and watermarks are parts of one value, saved as a whole
//! and written as a difference. So a fact and the record that carries it to the other region are
//! durable together or not at all, which is what an outbox is for (I-21).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::audit::{self, Cause, Entry};
use super::counts::Counts;
use super::facts::{Incarnation, OpId, Region};
use super::index::Index;
use super::msg::{Answer, CallError, ClaimEpoch, Kind, RecordId, RecordVerb, Work};
use super::notice::Notice;
use super::pace::Pace;
use super::peering::Peering;
use super::results::Results;
use crate::lease::record::NodeId;
use crate::packed::DigestedMap;
use crate::persistent::PersistentMap;

/// One piece of work for another region, kept until that region has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// To whom.
    pub remote: Region,
    /// Of what kind of operation.
    pub kind: Kind,
    /// Which operation.
    pub id: OpId,
    /// What has happened to it.
    pub verb: RecordVerb,
    /// The number of the operation that it tells.
    pub op: u64,
    /// How often its claim ran out without any report.
    pub lost: u8,
    /// Set aside: it cannot be delivered as it is, and an operator has to look.
    pub parked: bool,
    /// When it was written, on the own clock.
    pub since: u64,
}

/// The result of a call, kept under its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kept {
    /// A hash of the call's parameters.
    pub params: u64,
    /// What came of it.
    pub result: Answer,
    /// When, on the own clock.
    pub at: u64,
}

/// Which ids of one incarnation of a peer were seen: those below `low`, and some above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Watermark {
    /// Every id below this was seen, or will never come.
    pub low: u64,
    /// The others.
    pub above: BTreeSet<u64>,
}

impl Watermark {
    /// Notes that an id was seen.
    pub fn see(&mut self, seq: u64) {
        if seq >= self.low {
            self.above.insert(seq);
        }
        self.settle();
    }

    /// Notes that the peer will never again send a Create below this.
    pub fn close(&mut self, below: u64) {
        self.low = self.low.max(below);
        self.settle();
    }

    fn settle(&mut self) {
        self.above = self.above.split_off(&self.low);
        while self.above.remove(&self.low) {
            self.low += 1;
        }
    }

    /// Whether an id was seen, or will never come.
    pub fn covers(&self, seq: u64) -> bool {
        seq < self.low || self.above.contains(&seq)
    }
}

/// How this region stands to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Link {
    /// Both know of each other what there is to know.
    Open,
    /// Frozen: it has asked for the peer's promise.
    Preparing {
        /// Names the question.
        nonce: u64,
    },
    /// Frozen: it has the promise, and reads what the peer knows.
    Syncing {
        /// Names the question.
        nonce: u64,
        /// How far it has got.
        after: Option<OpId>,
        /// What the promise said that is over: for each incarnation of the peer, the ids below. It
        /// counts from the thaw on, because what was lost here may be among them.
        closed: Vec<(u64, u64)>,
    },
    /// The peer has declared this region gone.
    Expelled,
}

/// What was found out while this region was frozen towards a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lost {
    /// Own facts that came back under the own seal.
    pub recovered: BTreeMap<OpId, Recovered>,
    /// Own facts that came back under a seal that is not ours, or contradict what is known: nothing
    /// was taken over, and an operator has to look.
    pub refused: BTreeSet<OpId>,
    /// The own clock of the backup, and the latest time of what was lost that is known: the clock of
    /// the storage that was replaced, or the highest time that a recovered fact shows. Operations of
    /// that window that never left this region may be missing without a trace. If the two are equal,
    /// nobody knows how long it is.
    pub window: (u64, u64),
    /// When this region was frozen last, on the own clock.
    pub since: u64,
}

/// Which own facts of one operation came back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Recovered {
    /// That it exists at all.
    pub existence: bool,
    /// What was decided.
    pub decision: bool,
    /// That it was deleted.
    pub flag: bool,
    /// Newer options.
    pub options: bool,
}

/// What this region knows of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// The incarnation that was promised to it: everything of an older one is ignored.
    pub floor: Option<Incarnation>,
    /// How the two stand.
    pub link: Link,
    /// The ids of its operations that were seen, by incarnation.
    pub seen: BTreeMap<u64, Watermark>,
    /// This region has declared it gone.
    pub disposed: bool,
    /// What the last freeze has brought to light.
    pub lost: Lost,
}

/// Everything that a control plane has on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ledger {
    /// The small things.
    pub head: Head,
    /// The peerings.
    pub peerings: DigestedMap<OpId, Peering>,
    /// The work log.
    pub records: PersistentMap<RecordId, Record>,
    /// The results of calls, each with the hash of caller and token.
    pub tokens: Results,
    /// The other regions.
    pub peers: PersistentMap<Region, Peer>,
    /// The halves that are on. This is the data plane's own memory: no restore takes it back.
    pub on: DigestedMap<OpId, ()>,
    /// The notices: the second kind of operation.
    pub notices: PersistentMap<OpId, Notice>,
    /// The last entries of the audit log, by their numbers.
    pub audit: PersistentMap<u64, Entry>,
}

/// The counters of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// This region's life.
    pub incarnation: Incarnation,
    /// Counts the starts of the control plane.
    pub start: u64,
    /// The region's clock: minutes of up-time. Deadlines are on it, so that no wall clock matters.
    pub clock: u64,
    /// For each incarnation's number, the next id of an own operation.
    pub born: BTreeMap<u64, u64>,
    /// Own operations that are over and forgotten, and that `born` does not tell of: a restore had lost that they were
    /// ever begun, and a peer has given them back.
    pub over: BTreeSet<OpId>,
    /// The next record of this incarnation.
    pub next_record: u64,
    /// The next question's name.
    pub next_nonce: u64,
    /// Takes no calls of customers.
    pub drained: bool,
    /// An operator has frozen the region: it stays so until an operator thaws it.
    pub held: bool,
    /// The number of the next entry of the audit log, and the hash of the last one.
    pub audited: (u64, audit::Link),
}

impl Ledger {
    /// Whether this region's own operation of that id is over and forgotten, rather than unknown.
    pub fn has_closed(&self, id: OpId) -> bool {
        let born = self.head.born.get(&id.n).copied().unwrap_or(0);
        (id.seq < born || self.head.over.contains(&id)) && !self.peerings.contains(&id)
    }

    /// The region that a piece of work is for; none for a record that is not there.
    pub fn remote_of(&self, work: Work) -> Option<Region> {
        match work {
            Work::Prepare(region) | Work::Sync(region) => Some(region),
            Work::Record(id) => self.records.get(&id).map(|record| record.remote),
        }
    }

    /// What a region is left with that goes back to this backup: a new life, frozen towards every
    /// peer. `found` is the data plane as it is now; no backup holds it.
    ///
    /// The caller names the life. Its number must be above every one that it knows of; if a peer
    /// knows of a higher one, the region learns that by its first question and rises above it.
    //= SPEC IRC-14
    ///
    /// `until` is the clock of what was lost, where that can still be read.
    //= SPEC IRC-43
    #[must_use]
    pub fn restored(
        mut self,
        life: Incarnation,
        found: DigestedMap<OpId, ()>,
        until: Option<u64>,
    ) -> Self {
        self.head.incarnation = life;
        self.head.born.insert(life.n, 0);
        self.head.next_record = 0;
        self.head.held = false;
        self.on = found;
        let clock = self.head.clock;
        let window = (clock, until.unwrap_or(clock).max(clock));
        for region in self.regions() {
            if let Some(mut peer) = self.peers.get(&region).cloned() {
                peer.lost = Lost { window, ..Lost::default() };
                self.peers.insert(region, peer);
            }
        }
        self.freeze_all();
        self.note(None, [None; 2], Cause::Restored);
        self
    }

    fn regions(&self) -> Vec<Region> {
        self.peers.iter().map(|(&region, _)| region).collect()
    }

    /// Towards every peer: nothing is known, nothing is promised to us. Nothing is asked of one that was
    /// declared gone.
    //= SPEC IRC-44
    pub(super) fn freeze_all(&mut self) {
        for region in self.regions() {
            if self.peers.get(&region).is_some_and(|peer| !peer.disposed) {
                self.freeze(region);
            }
        }
    }

    /// Whether this region is frozen towards no other. One that was declared gone, or has declared this
    /// one gone, is waited for no more.
    pub fn is_open(&self) -> bool {
        self.peers
            .iter()
            .all(|(_, peer)| peer.disposed || matches!(peer.link, Link::Open | Link::Expelled))
    }

    /// What an earlier freeze has brought to light stays: only another restore begins anew.
    pub(super) fn freeze(&mut self, region: Region) {
        let nonce = self.head.next_nonce;
        self.head.next_nonce += 1;
        let Some(mut peer) = self.peers.get(&region).cloned() else { return };
        peer.link = Link::Preparing { nonce };
        let clock = self.head.clock;
        peer.lost.since = clock;
        if peer.lost.window == (0, 0) {
            peer.lost.window = (clock, clock);
        }
        self.peers.insert(region, peer);
    }
}

/// A claim that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// Its epoch.
    pub epoch: ClaimEpoch,
    /// The server that has it.
    pub server: NodeId,
}

/// Work that was tried in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiting {
    /// How often.
    pub tries: u8,
    /// The other region has said how long: nothing ends this wait but its timer.
    pub told: bool,
}

/// A comparison with a peer that is under way: one part in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sweep {
    /// Names it.
    pub nonce: u64,
    /// How far it is.
    pub after: Option<OpId>,
    /// The next part may be asked for.
    pub due: bool,
}

/// A control plane's state: the ledger, and what a crash may take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlState {
    /// What is on disk.
    pub ledger: Ledger,
    /// The claims that are out.
    pub claims: BTreeMap<Work, Held>,
    /// Counts the claims of this start.
    pub claimed: u64,
    /// Work that waits before it is handed out again.
    pub waits: BTreeMap<Work, Waiting>,
    /// Of that, the work whose wait is over, and for which there is no budget, by its remote.
    pub starved: BTreeSet<(Region, Work)>,
    /// The highest record that was handed out: kept only by mutants (I-22).
    pub(super) cursor: Option<RecordId>,
    /// How often work that does not wait was tried in vain.
    pub tries: BTreeMap<Work, u8>,
    /// The sweep that is under way with each peer.
    pub sweeps: BTreeMap<Region, Sweep>,
    /// The remote that was handed out last; kept only where there are several.
    pub served: Option<Region>,
    /// The pace of each remote of which anything is to be remembered.
    pub paces: BTreeMap<Region, Pace>,
    /// When each region was last heard, on the own clock.
    pub heard: BTreeMap<Region, u64>,
    /// What is counted.
    pub counts: Counts,
    /// The timer of the clock is armed.
    pub ticking: bool,
    /// What is looked up.
    pub(super) index: Index,
}

impl ControlState {
    /// The state of a control plane that has just read this ledger, and done nothing yet.
    pub fn new(ledger: Ledger) -> Self {
        let mut state = Self {
            ledger,
            claims: BTreeMap::new(),
            claimed: 0,
            waits: BTreeMap::new(),
            starved: BTreeSet::new(),
            cursor: None,
            tries: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            served: None,
            paces: BTreeMap::new(),
            heard: BTreeMap::new(),
            counts: Counts::default(),
            ticking: false,
            index: Index::default(),
        };
        state.reindex();
        state
    }

    /// The records of an operation that are in the log, the oldest first.
    pub fn records_of(&self, id: OpId) -> impl Iterator<Item = RecordId> {
        self.index.records(id)
    }

    /// Whether the next part of a sweep may be asked for.
    pub fn is_sweep_due(&self, region: Region) -> bool {
        self.sweeps.get(&region).is_some_and(|sweep| sweep.due)
    }
}

/// What came of a call.
pub(super) type Result<T> = std::result::Result<T, CallError>;

#[cfg(test)]
mod tests {
    use super::*;

    //= SPEC IRC-10 test
    #[test]
    fn an_own_id_that_was_given_back_and_forgotten_stays_known() {
        let id = OpId { requester: Region(0), n: 2, seq: 3 };
        let mut ledger = Ledger::default();
        ledger.head.born.insert(2, 0);
        assert!(!ledger.has_closed(id));
        ledger.head.over.insert(id);
        assert!(ledger.has_closed(id));
        assert!(!ledger.has_closed(OpId { seq: 2, ..id }));
    }

    //= SPEC IRC-10 test
    #[test]
    fn a_watermark_covers_what_was_seen_and_what_is_closed() {
        let mut mark = Watermark::default();
        mark.see(2);
        mark.see(0);
        assert_eq!(
            (mark.low, mark.covers(0), mark.covers(1), mark.covers(2)),
            (1, true, false, true)
        );
        mark.close(2);
        assert_eq!(mark, Watermark { low: 3, above: BTreeSet::new() });
        mark.close(1);
        assert_eq!(mark.low, 3);
        assert!(!mark.covers(3));
    }
}
