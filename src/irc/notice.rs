//! Notices: the second kind of operation, so that the first is not the only one.
//!
//! A region publishes a number to another. There is one writer, nothing to accept and nothing to
//! switch on: a higher version replaces a lower one. It has its own facts and its own rules, and
//! takes the same way as a peering: a record in the work log, a claim, a call, freshness checked where
//! it takes effect. No server knows that it exists.

use serde::{Deserialize, Serialize};

use super::facts::Region;

/// A notice, at its writer and at its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    /// The reader.
    pub to: Region,
    /// What is published.
    pub value: u64,
    /// The newest operation that has had its effect here: the number of the writer's incarnation, and
    /// the operation's own. At the writer, the last one written.
    pub version: (u64, u64),
}

use super::control::Desk;
use super::facts::{OpId, from_bytes, to_bytes};
use super::ledger::Result;
use super::msg::{Answer, Body, CallError, Kind, RecordVerb, Status};
use super::peering::Label;
use super::safeguards::Safeguards;

/// What travels of a notice.
pub(super) fn body(notice: &Notice) -> Body {
    Body(to_bytes(&(notice.to, notice.value)))
}

impl Desk<'_> {
    /// Writes a notice for another region, and the record that carries it.
    //= SPEC IRC-20
    pub(super) fn publish(&mut self, to: Region, value: u64) -> Result<Answer> {
        if to == self.cp.region {
            return Err(CallError::SelfPeering);
        }
        if !self.cp.others.contains(&to) {
            return Err(CallError::UnknownRegion);
        }
        let head = &mut self.state.ledger.head;
        let n = head.incarnation.n;
        // A region has one notice for each other.
        let own = {
            let mut known = self.state.ledger.notices.iter();
            let mine = known.find(|(id, one)| id.requester == self.cp.region && one.to == to);
            mine.map(|(&id, notice)| (id, *notice))
        };
        // Counts on over lives: what an earlier one has left to say is said under the number of this one.
        let (id, version) = match own {
            Some((id, notice)) => (id, (n, notice.version.1 + 1)),
            None => {
                let seq = head.born.get(&n).copied().unwrap_or(0);
                head.born.insert(n, seq + 1);
                (OpId { requester: self.cp.region, n, seq }, (n, 0))
            }
        };
        self.state.ledger.notices.insert(id, Notice { to, value, version });
        self.log(Kind::NOTICE, id, RecordVerb::Modify);
        Ok(Answer::Done { id, state: Label::Active })
    }

    /// Takes a notice of another region, if it is newer than the one that is here.
    pub(super) fn take_notice(
        &mut self,
        from: Region,
        id: OpId,
        version: (u64, u64),
        body: &Body,
    ) -> Status {
        let Some((to, value)) = from_bytes::<(Region, u64)>(&body.0) else {
            return Status::Refused;
        };
        if id.requester != from || to != self.cp.region {
            return Status::Refused;
        }
        let known = self.state.ledger.notices.get(&id);
        let is_fresh = known.is_none_or(|known| version > known.version);
        if !is_fresh && self.keeps(Safeguards::I_17_FRESH_AT_EFFECT) {
            return Status::Old(Body(Vec::new()));
        }
        self.state.ledger.notices.insert(id, Notice { to, value, version });
        self.dirty = true;
        Status::Ok(Body(Vec::new()))
    }
}
