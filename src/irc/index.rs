//! What a control plane looks up: every question that a step asks about many peerings or records has
//! an index here, so that a step costs no more with a hundred thousand of them than with ten.
//!
//! An index is a function of the ledger and of the claims, and is made anew at each start. It is no part
//! of the state's identity: two states that differ in nothing else are equal and have one hash. All
//! changes of what is indexed go through the functions below.

use super::facts::{Account, Network, OpId, Region};
use super::ledger::{ControlState, Held, Kept, Ledger, Record, Waiting};
use super::msg::{Kind, RecordId, RecordVerb, Work};
use super::peering::{Peering, Side};
use super::results::Numbers;
use crate::packed::{Key, PackedMap};
use crate::persistent::PersistentMap;

/// The two networks of a peering, in either direction the same.
pub(super) type Pair = [(Region, u32); 2];

/// Where a record stands among those that may be handed out.
type Place = (Region, Kind, RecordVerb, RecordId);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// The peerings of a pair.
    pairs: PackedMap<(Pair, OpId), ()>,
    /// Those with a region.
    with: PackedMap<(Region, OpId), ()>,
    /// Those whose end here an account owns.
    of: PackedMap<(Account, OpId), ()>,
    /// How many live ones a network here has.
    live: PersistentMap<Network, u32>,
    /// How many undecided requests there are at a network here, and from an account elsewhere.
    pending_at: PersistentMap<Network, u32>,
    pending_of: PersistentMap<Account, u32>,
    /// The own requests that the other side has not confirmed to have stored.
    unstored: PackedMap<(Region, u64, u64), ()>,
    /// The undecided ones with a deadline.
    due: PackedMap<(Side, Region, u64, OpId), ()>,
    /// The dead ones, confirmed or not, by the time since when.
    over: PackedMap<(Region, bool, u64, OpId), ()>,
    /// The records of an operation.
    records: PersistentMap<(OpId, RecordId), ()>,
    /// The records that may be handed out: the oldest of each operation, if it is not set aside, not
    /// claimed, and does not wait.
    ready: PersistentMap<Place, ()>,
    places: PersistentMap<OpId, Place>,
    /// The numbers of the results of calls.
    results: Numbers,
}

/// An index says nothing that the rest of a state does not say.
impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Index {}
impl PartialOrd for Index {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Index {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
impl std::hash::Hash for Index {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

fn set<K: Key>(map: &mut PackedMap<K, ()>, key: K, is_in: bool) {
    if is_in {
        map.insert(key, ());
    } else {
        map.remove(&key);
    }
}

fn count<K: Ord + Clone + std::hash::Hash>(map: &mut PersistentMap<K, u32>, key: K, is_in: bool) {
    let before = map.get(&key).copied().unwrap_or(0);
    match if is_in { before + 1 } else { before.saturating_sub(1) } {
        0 => drop(map.remove(&key)),
        now => drop(map.insert(key, now)),
    }
}

/// The lowest of all ids, where a range begins.
const FIRST: OpId = OpId { requester: Region(0), n: 0, seq: 0 };
const FIRST_RECORD: RecordId = RecordId { n: 0, seq: 0 };

/// The account and the network of this side.
fn own_end(one: &Peering) -> (Account, Network) {
    let facts = &one.requested.facts;
    match one.side {
        Side::Requester => (facts.account, facts.network),
        Side::Accepter => (facts.target.account, facts.target.network),
    }
}

/// What of a peering decides its course in the index.
fn course_of(one: &Peering) -> (bool, bool, bool, Option<u64>, Option<u64>) {
    let deadline = one.decided.facts.deadline;
    (one.is_dead(), one.is_undecided(), one.confirmed, deadline, one.dead_since)
}

impl Index {
    /// Takes in or out what a peering is from its birth on.
    fn birth(&mut self, id: OpId, one: &Peering, is_in: bool) {
        set(&mut self.pairs, (one.pair(id), id), is_in);
        set(&mut self.with, (one.peer(id), id), is_in);
        set(&mut self.of, (own_end(one).0, id), is_in);
    }

    /// Takes in or out what becomes of it.
    fn course(&mut self, id: OpId, one: &Peering, is_in: bool) {
        let facts = &one.requested.facts;
        let peer = one.peer(id);
        let (_, network) = own_end(one);
        let is_dead = one.is_dead();
        if !is_dead {
            count(&mut self.live, network, is_in);
        }
        if one.side == Side::Accepter && one.is_undecided() && !is_dead {
            count(&mut self.pending_at, facts.target.network, is_in);
            count(&mut self.pending_of, facts.account, is_in);
        }
        let deadline = one.decided.facts.deadline;
        if one.side == Side::Requester && deadline.is_none() && !one.confirmed {
            set(&mut self.unstored, (peer, id.n, id.seq), is_in);
        }
        if let (Some(deadline), true, false) = (deadline, one.is_undecided(), is_dead) {
            set(&mut self.due, (one.side, peer, deadline, id), is_in);
        }
        if let Some(since) = one.dead_since {
            set(&mut self.over, (peer, one.confirmed, since, id), is_in);
        }
    }

    /// Those of a pair.
    pub(super) fn of_pair(&self, pair: Pair) -> impl Iterator<Item = OpId> {
        let all = self.pairs.keys_from((pair, FIRST));
        all.take_while(move |key| key.0 == pair).map(|key| key.1)
    }

    /// Those with a region, after that id.
    pub(super) fn with(&self, region: Region, after: Option<OpId>) -> impl Iterator<Item = OpId> {
        let all = self.with.keys_from((region, after.unwrap_or(FIRST)));
        all.take_while(move |key| key.0 == region)
            .map(|key| key.1)
            .filter(move |&id| after.is_none_or(|after| id > after))
    }

    /// Those of an account, after that id.
    pub(super) fn of(&self, account: Account, after: Option<OpId>) -> impl Iterator<Item = OpId> {
        let all = self.of.keys_from((account, after.unwrap_or(FIRST)));
        all.take_while(move |key| key.0 == account)
            .map(|key| key.1)
            .filter(move |&id| after.is_none_or(|after| id > after))
    }

    /// How many live peerings a network here has.
    pub(super) fn live(&self, network: Network) -> usize {
        self.live.get(&network).map_or(0, |&count| count as usize)
    }

    /// How many undecided requests there are at that network, and from that account.
    pub(super) fn pending(&self, network: Network, account: Account) -> [usize; 2] {
        [self.pending_at.get(&network), self.pending_of.get(&account)]
            .map(|count| count.map_or(0, |&count| count as usize))
    }

    /// The lowest own id of that incarnation that a region has not confirmed to have stored.
    pub(super) fn first_unstored(&self, region: Region, n: u64) -> Option<u64> {
        let key = self.unstored.keys_from((region, n, 0)).next()?;
        ((key.0, key.1) == (region, n)).then_some(key.2)
    }

    /// The undecided ones with that region whose deadline has come.
    pub(super) fn due(&self, side: Side, region: Region, now: u64) -> Vec<OpId> {
        let all = self.due.keys_from((side, region, 0, FIRST));
        all.take_while(|key| (key.0, key.1) == (side, region) && key.2 <= now)
            .map(|key| key.3)
            .collect()
    }

    /// Whether anything of that side has a deadline.
    pub(super) fn has_due(&self, side: Side) -> bool {
        let first = self.due.keys_from((side, Region(0), 0, FIRST)).next();
        first.is_some_and(|key| key.0 == side)
    }

    /// The dead ones with that region that have been so since then, confirmed or not.
    pub(super) fn over(&self, region: Region, confirmed: bool, until: u64) -> Vec<OpId> {
        let all = self.over.keys_from((region, confirmed, 0, FIRST));
        all.take_while(|key| (key.0, key.1) == (region, confirmed) && key.2 <= until)
            .map(|key| key.3)
            .collect()
    }

    /// Whether anything is dead.
    pub(super) fn has_over(&self) -> bool {
        !self.over.is_empty()
    }

    /// The records of an operation, the oldest first.
    pub(super) fn records(&self, op: OpId) -> impl Iterator<Item = RecordId> {
        let all = self.records.starting_at((op, FIRST_RECORD)).map(|(&key, ())| key);
        all.take_while(move |key| key.0 == op).map(|key| key.1)
    }

    /// The records for a region that may be handed out, of one kind, in the order of what they carry.
    pub(super) fn ready(
        &self,
        region: Region,
        kind: Kind,
    ) -> impl Iterator<Item = (RecordVerb, RecordId)> {
        let first = (region, kind, RecordVerb::Delete, FIRST_RECORD);
        let all = self.ready.starting_at(first).map(|(&key, ())| key);
        all.take_while(move |key| (key.0, key.1) == (region, kind)).map(|key| (key.2, key.3))
    }
}

impl ControlState {
    /// Makes the index anew. For whoever changes the parts of a state by hand.
    pub fn reindex(&mut self) {
        let mut index = Index::default();
        // Each of these as a whole, which costs less time and memory than one after the other.
        let peerings = &self.ledger.peerings;
        index.pairs = peerings.iter().map(|(id, one)| ((one.pair(id), id), ())).collect();
        index.with = peerings.iter().map(|(id, one)| ((one.peer(id), id), ())).collect();
        index.of = peerings.iter().map(|(id, one)| ((own_end(&one).0, id), ())).collect();
        for (id, one) in peerings.iter() {
            index.course(id, &one, true);
        }
        for (&id, record) in self.ledger.records.iter() {
            index.records.insert((record.id, id), ());
        }
        index.results = Numbers::new(&self.ledger.tokens);
        self.index = index;
        let ops: Vec<OpId> = self.ledger.records.iter().map(|(_, record)| record.id).collect();
        for op in ops {
            self.place(op);
        }
    }

    /// Whether the index is what it would be if it were made anew.
    pub fn is_indexed(&self) -> bool {
        let mut anew = self.clone();
        anew.reindex();
        format!("{:?}", anew.index) == format!("{:?}", self.index)
    }

    /// The peerings with a region.
    pub fn peerings_with(&self, region: Region) -> impl Iterator<Item = OpId> {
        self.index.with(region, None)
    }

    /// The peerings of the two networks of this one, itself among them.
    pub fn peerings_of_its_pair(&self, id: OpId, one: &Peering) -> impl Iterator<Item = OpId> {
        self.index.of_pair(one.pair(id))
    }

    /// How many undecided requests there are at a network here.
    pub fn pending_at(&self, network: Network) -> usize {
        self.index.pending_at.get(&network).map_or(0, |&count| count as usize)
    }

    /// Writes a peering, or takes it away.
    pub(super) fn set_peering(&mut self, id: OpId, one: Option<Peering>) {
        let before = match &one {
            Some(one) => self.ledger.peerings.insert(id, one.clone()),
            None => self.ledger.peerings.remove(&id),
        };
        let index = &mut self.index;
        match (before, one) {
            (Some(before), Some(one)) => {
                if course_of(&before) != course_of(&one) {
                    index.course(id, &before, false);
                    index.course(id, &one, true);
                }
            }
            (None, Some(one)) => {
                index.birth(id, &one, true);
                index.course(id, &one, true);
            }
            (Some(before), None) => {
                index.birth(id, &before, false);
                index.course(id, &before, false);
            }
            (None, None) => {}
        }
    }

    /// Writes a record, or takes it away.
    pub(super) fn set_record(&mut self, id: RecordId, record: Option<Record>) {
        let before = match record {
            Some(record) => {
                let op = record.id;
                self.index.records.insert((op, id), ());
                self.ledger.records.insert(id, record);
                Some(op)
            }
            None => self.ledger.records.remove(&id).map(|record| {
                self.index.records.remove(&(record.id, id));
                record.id
            }),
        };
        if let Some(op) = before {
            self.place(op);
        }
    }

    /// The result of the call under a token, if it is kept.
    pub fn result(&self, token: u64) -> Option<Kept> {
        self.index.results.find(token, &self.ledger.tokens).map(|(_, kept)| kept)
    }

    /// Keeps the result of a call, in the place of one that was kept under the token.
    pub(super) fn keep_result(&mut self, token: u64, kept: Kept) {
        if let Some((before, _)) = self.index.results.find(token, &self.ledger.tokens) {
            self.forget_result(before);
        }
        let number = self.ledger.tokens.push(token, kept);
        self.index.results.insert(token, number);
    }

    /// Forgets the results that are as old as that. The clock does not go back, so they are the first.
    pub(super) fn forget_results(&mut self, until: u64) {
        let all = self.ledger.tokens.iter();
        let old: Vec<u64> =
            all.take_while(|(_, (_, kept))| kept.at <= until).map(|(number, _)| number).collect();
        for number in old {
            self.forget_result(number);
        }
    }

    fn forget_result(&mut self, number: u64) {
        if let Some((token, _)) = self.ledger.tokens.remove(number) {
            self.index.results.remove(token, number);
        }
    }

    /// Gives a piece of work to a server, or takes it back.
    pub(super) fn set_claim(&mut self, work: Work, held: Option<Held>) {
        match held {
            Some(held) => drop(self.claims.insert(work, held)),
            None => drop(self.claims.remove(&work)),
        }
        self.place_work(work);
    }

    /// Lets a piece of work wait, or not any more; says how it has waited.
    pub(super) fn set_wait(&mut self, work: Work, waiting: Option<Waiting>) -> Option<Waiting> {
        let before = match waiting {
            Some(waiting) => self.waits.insert(work, waiting),
            None => self.waits.remove(&work),
        };
        if let Some(region) = self.ledger.remote_of(work) {
            self.starved.remove(&(region, work));
        }
        self.place_work(work);
        before
    }

    fn place_work(&mut self, work: Work) {
        if let Work::Record(id) = work
            && let Some(record) = self.ledger.records.get(&id)
        {
            let op = record.id;
            self.place(op);
        }
    }

    /// Puts the oldest record of an operation among those that may be handed out, or none.
    fn place(&mut self, op: OpId) {
        let place = place_of(&self.ledger, &self.index, op).filter(|place| {
            let work = Work::Record(place.3);
            !self.claims.contains_key(&work) && !self.waits.contains_key(&work)
        });
        let before = self.index.places.get(&op).copied();
        if before == place {
            return;
        }
        if let Some(before) = before {
            self.index.ready.remove(&before);
            self.index.places.remove(&op);
        }
        if let Some(place) = place {
            self.index.ready.insert(place, ());
            self.index.places.insert(op, place);
        }
    }
}

fn place_of(ledger: &Ledger, index: &Index, op: OpId) -> Option<Place> {
    let id = index.records(op).next()?;
    let record = ledger.records.get(&id)?;
    (!record.parked).then_some((record.remote, record.kind, record.verb, id))
}
