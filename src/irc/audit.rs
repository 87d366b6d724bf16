//! The audit log: what has changed for an owner, and why.
//!
//! Every visible transition of a peering on this side, its appearance and its being forgotten included,
//! is one entry, in the transaction that makes it. So is every command of an operator that has changed
//! anything, before the transitions that follow from it. The entries are a chain: each names the hash of
//! the one before, so that nobody can take one out or change one and leave no trace. They are rows of
//! their own on disk and in every backup, and are never deleted there; in memory only the last ones are
//! kept, so that a log of any length costs a step nothing.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::control::Desk;
use super::facts::{Account, Incarnation, OpId, Region, to_bytes};
use super::ledger::Ledger;
use super::msg::Command;
use super::peering::Label;
use super::safeguards::Safeguards;

/// How many entries stay in memory: far more than are ever written in one commit.
pub const KEPT: u64 = 4096;

/// The hash of an entry, and of all before it.
pub type Link = [u8; 32];

/// Why something has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A customer has called.
    Call {
        /// In whose name.
        caller: Account,
        /// Under which token: the hash under which its result is kept.
        token: u64,
    },
    /// A call or an answer of another region.
    Region {
        /// Which.
        from: Region,
        /// Which of its lives.
        incarnation: Incarnation,
    },
    /// The own half was switched on.
    Half,
    /// The clock: a deadline has passed, or the time is over for which it is remembered.
    Clock,
    /// An operator has commanded.
    Operator(Command),
    /// The control plane has started.
    Start,
    /// A backup was put back: the region has begun a new life. What follows goes on from the backup.
    Restored,
}

/// One visible transition, or one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// When, on the region's clock.
    pub at: u64,
    /// In which of the region's lives.
    pub incarnation: Incarnation,
    /// Which peering; none for what is about none.
    pub id: Option<OpId>,
    /// What the owner saw before; none if it was not there.
    pub from: Option<Label>,
    /// What the owner sees now; none if it is forgotten. The same as before for a command: what it
    /// changes for owners has entries of its own.
    pub to: Option<Label>,
    /// Why.
    pub cause: Cause,
    /// The hash of the entry before this one; zeros before the first.
    pub before: Link,
}

impl Entry {
    /// The hash that the next entry names.
    pub fn link(&self) -> Link {
        Sha256::digest(to_bytes(self)).into()
    }
}

/// Where a chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing.
    #[error(
        "entry {0} of the audit log is missing: compare with a backup, `tenure peering audit --backup FILE`"
    )]
    Missing(u64),
    /// An entry is not what its successor, or the head of the log, has seen.
    #[error(
        "entry {0} of the audit log was changed: compare with a backup, `tenure peering audit --backup FILE`"
    )]
    Changed(u64),
}

/// Checks a chain of entries, in the order of their numbers, against the hash of the last one.
///
/// # Errors
///
/// The first place where it is broken.
pub fn verify<'a>(
    entries: impl IntoIterator<Item = (u64, &'a Entry)>,
    head: (u64, Link),
) -> Result<(), Broken> {
    let mut last: Option<(u64, Link)> = None;
    for (number, entry) in entries {
        if let Some((before, link)) = last {
            if number != before + 1 {
                return Err(Broken::Missing(before + 1));
            }
            if entry.before != link {
                return Err(Broken::Changed(before));
            }
        }
        last = Some((number, entry.link()));
    }
    match last {
        Some((number, _)) if number + 1 != head.0 => Err(Broken::Missing(number + 1)),
        Some((number, link)) if link != head.1 => Err(Broken::Changed(number)),
        None if head.0 > 0 => Err(Broken::Missing(0)),
        _ => Ok(()),
    }
}

/// Where a chain ends that goes on from `begin` with these entries; none if they are not its next ones.
pub fn end_of<'a>(
    begin: (u64, Link),
    entries: impl IntoIterator<Item = (u64, &'a Entry)>,
) -> Option<(u64, Link)> {
    entries.into_iter().try_fold(begin, |(next, before), (number, entry)| {
        (number == next && entry.before == before).then(|| (number + 1, entry.link()))
    })
}

impl Ledger {
    /// What the owner of this side of a peering sees; none if it is not here.
    pub fn label(&self, id: OpId) -> Option<Label> {
        self.peerings.get(&id).map(|one| one.label(self.on.contains(&id)))
    }

    /// Writes an entry at the end of the audit log.
    pub(super) fn note(&mut self, id: Option<OpId>, [from, to]: [Option<Label>; 2], cause: Cause) {
        let (number, before) = self.head.audited;
        let (at, incarnation) = (self.head.clock, self.head.incarnation);
        let entry = Entry { at, incarnation, id, from, to, cause, before };
        self.head.audited = (number + 1, entry.link());
        self.audit.insert(number, entry);
        if let Some(old) = number.checked_sub(KEPT) {
            self.audit.remove(&old);
        }
    }
}

impl Desk<'_> {
    /// Remembers what the owner saw of a peering before this transaction has touched it.
    pub(super) fn touch(&mut self, id: OpId) {
        if !self.touched.contains_key(&id) {
            let label = self.state.ledger.label(id);
            self.touched.insert(id, label);
        }
    }

    /// Writes an entry for everything that looks different now.
    //= SPEC IRC-32
    pub(super) fn write_audit(&mut self) {
        let is_asked = matches!(self.cause, Cause::Call { .. });
        if !is_asked && !self.keeps(Safeguards::I_42_EVERY_CHANGE_AUDITED) {
            return;
        }
        for (id, from) in std::mem::take(&mut self.touched) {
            let ledger = &mut self.state.ledger;
            let to = ledger.label(id);
            if from != to {
                ledger.note(Some(id), [from, to], self.cause);
                self.dirty = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> (Vec<(u64, Entry)>, (u64, Link)) {
        let mut head = (0, [0; 32]);
        let mut all = Vec::new();
        for number in 0..count {
            let entry = Entry {
                at: number,
                incarnation: Incarnation { n: 1, life: 0 },
                id: Some(OpId { requester: Region(0), n: 1, seq: number }),
                from: None,
                to: Some(Label::InitiatingRequest),
                cause: Cause::Half,
                before: head.1,
            };
            head = (number + 1, entry.link());
            all.push((number, entry));
        }
        (all, head)
    }

    //= SPEC IRC-32 test
    #[test]
    fn nothing_can_be_taken_out_or_changed_without_a_trace() {
        let (all, head) = chain(5);
        let check = |all: &[(u64, Entry)]| verify(all.iter().map(|(n, one)| (*n, one)), head);
        assert_eq!(check(&all), Ok(()));
        assert_eq!(check(&all[2..]), Ok(()), "the last ones alone");
        for out in 1..5 {
            let mut less = all.clone();
            less.remove(out);
            assert_eq!(check(&less), Err(Broken::Missing(out as u64)));
        }
        for changed in 0..5 {
            let mut other = all.clone();
            other[changed].1.to = Some(Label::Active);
            assert_eq!(check(&other), Err(Broken::Changed(changed as u64)));
        }
        assert_eq!(check(&[]), Err(Broken::Missing(0)));
    }
}
