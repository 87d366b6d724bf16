//! What a control plane has, told in 64 bits that cost the same however many peerings there are; and what can be
//! told of the backup from which a ledger was put back.

use super::audit::{self, Cause};
use super::ledger::{ControlState, Head, Ledger, Link, Lost, Peer};
use crate::trace::digest_of;

impl Ledger {
    /// A digest of all of it.
    pub fn digest(&self) -> u64 {
        let Self { head, peerings, records, tokens, peers, on, notices, audit } = self;
        let many = [peerings.digest(), records.digest(), tokens.digest(), on.digest()];
        digest_of(&(head, many, peers.digest(), notices.digest(), audit.digest()))
    }

    /// A digest of all that a restore takes over from a backup ([`Ledger::restored`]): everything but the life, the
    /// links to peers that are waited for, the names of questions, and which halves are on. The audit log is told by
    /// the number and the hash of its last entry.
    pub fn backup_digest(&self) -> u64 {
        self.digest_of_backup(&self.head.born, self.head.audited)
    }

    fn digest_of_backup(
        &self,
        born: &std::collections::BTreeMap<u64, u64>,
        audited: (u64, audit::Link),
    ) -> u64 {
        let Head { start, clock, over, drained, .. } = &self.head;
        let many = [self.peerings.digest(), self.records.digest(), self.tokens.digest()];
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|(region, peer)| {
                let Peer { floor, link, seen, disposed, lost: _ } = peer;
                (region, floor, seen, disposed.then_some(link))
            })
            .collect();
        let head = (start, clock, over, drained, born, audited);
        digest_of(&(head, many, self.notices.digest(), peers))
    }

    /// What [`Ledger::backup_digest`] has said of the backup from which this ledger was put back.
    ///
    /// # Errors
    ///
    /// What is not as [`Ledger::restored`] leaves it.
    pub fn digest_of_its_backup(&self) -> Result<u64, &'static str> {
        let head = &self.head;
        let entries = self.audit.iter().map(|(&number, entry)| (number, entry));
        audit::verify(entries, head.audited).map_err(|_| "its audit log is no chain")?;
        let last = self.audit.last().filter(|(_, entry)| entry.cause == Cause::Restored);
        let (number, entry) = last.ok_or("its audit log does not end with a restore")?;
        let is_bare = (entry.id, entry.from, entry.to) == (None, None, None);
        if !is_bare || (entry.at, entry.incarnation) != (head.clock, head.incarnation) {
            return Err("the last entry of its audit log tells of another life");
        }
        let mut born = head.born.clone();
        let is_new = born.remove(&head.incarnation.n) == Some(0)
            && born.keys().all(|&n| n < head.incarnation.n)
            && head.next_record == 0
            && !head.held;
        if !is_new {
            return Err("it does not begin a life above all those before it");
        }
        for (_, peer) in self.peers.iter() {
            let Lost { recovered, refused, window, since } = &peer.lost;
            let is_frozen = match peer.link {
                Link::Preparing { nonce } => nonce < head.next_nonce && *since == head.clock,
                _ => peer.disposed,
            };
            let is_unread = recovered.is_empty() && refused.is_empty();
            if !is_frozen || !is_unread || window.0 != head.clock || window.1 < window.0 {
                return Err("it is not frozen towards all that it knows");
            }
        }
        Ok(self.digest_of_backup(&born, (*number, entry.before)))
    }
}

impl ControlState {
    /// A digest of all that makes it another state. What is looked up says nothing that the ledger does not say, and
    /// what is counted is read by people alone.
    pub fn digest(&self) -> u64 {
        let Self {
            ledger,
            claims,
            claimed,
            waits,
            starved,
            cursor,
            tries,
            sweeps,
            served,
            paces,
            heard,
            counts: _,
            ticking,
            index: _,
        } = self;
        let work = (claims, claimed, waits, starved, cursor, tries);
        digest_of(&(ledger.digest(), work, sweeps, served, paces, heard, ticking))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::irc::facts::{Incarnation, OpId, Region};
    use crate::irc::ledger::Watermark;
    use crate::irc::msg::{Kind, RecordId, RecordVerb};

    type Change = fn(&mut Ledger);

    fn backup() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.head.incarnation = Incarnation { n: 3, life: 9 };
        ledger.head.born = BTreeMap::from([(1, 4), (3, 2)]);
        (ledger.head.clock, ledger.head.start) = (40, 7);
        let seen = [(1, Watermark::default())].into();
        let peer = Peer {
            floor: Some(Incarnation { n: 1, life: 5 }),
            link: Link::Open,
            seen,
            disposed: false,
            lost: Lost::default(),
        };
        ledger.peers.insert(Region(1), peer);
        ledger.note(None, [None; 2], Cause::Start);
        ledger
    }

    fn put_back() -> Ledger {
        let found = [(OpId { requester: Region(0), n: 1, seq: 1 }, ())];
        let life = Incarnation { n: 4, life: 11 };
        backup().restored(life, found.into_iter().collect(), Some(50))
    }

    //= SPEC TRACE-9 test
    #[test]
    fn what_was_put_back_names_its_backup() {
        assert_eq!(put_back().digest_of_its_backup(), Ok(backup().backup_digest()));
        assert!(backup().digest_of_its_backup().is_err(), "nobody has put it back");
    }

    //= SPEC TRACE-9 test
    #[test]
    fn a_ledger_that_was_changed_otherwise_names_no_backup_or_another_one() {
        let changes: &[(&str, Change)] = &[
            ("the clock", |it| it.head.clock += 1),
            ("the life", |it| it.head.incarnation.life += 1),
            ("an older life", |it| it.head.incarnation.n = 2),
            ("operations of the new life", |it| it.head.born.extend([(4, 1)])),
            ("operations of an old life", |it| it.head.born.extend([(1, 5)])),
            ("the starts", |it| it.head.start += 1),
            ("held", |it| it.head.held = true),
            ("drained", |it| it.head.drained = true),
            ("an entry more", |it| it.note(None, [None; 2], Cause::Start)),
            ("an entry less", |it| assert!(it.audit.remove(&0).is_some())),
            ("a promise", |it| {
                let mut peer = it.peers.get(&Region(1)).cloned().expect("there");
                peer.floor = None;
                it.peers.insert(Region(1), peer);
            }),
            ("a link", |it| {
                let mut peer = it.peers.get(&Region(1)).cloned().expect("there");
                peer.link = Link::Open;
                it.peers.insert(Region(1), peer);
            }),
            ("a record", |it| {
                let id = OpId { requester: Region(0), n: 1, seq: 1 };
                let record = crate::irc::ledger::Record {
                    remote: Region(1),
                    kind: Kind::PEERING,
                    id,
                    verb: RecordVerb::Delete,
                    op: 1,
                    lost: 0,
                    parked: false,
                    since: 0,
                };
                it.records.insert(RecordId { n: 1, seq: 0 }, record);
            }),
        ];
        for (what, change) in changes {
            let mut ledger = put_back();
            let before = ledger.digest();
            change(&mut ledger);
            assert_ne!(ledger.digest(), before, "{what}");
            // The first of a log may have been let go of, as memory does.
            if *what != "an entry less" {
                assert_ne!(ledger.digest_of_its_backup(), Ok(backup().backup_digest()), "{what}");
            }
        }
    }
}
