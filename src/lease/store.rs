//! The lease store: one linearizable register, durable before it answers.
//!
//! It knows nothing of time, of leases or of who is alive: it compares a version and writes. Being a
//! single register on a single node it is linearizable by construction; what it must not do is answer
//! before the write would survive a crash.

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::msg::Msg;
use super::record::{Claim, Expect, NodeId, Nonce, Record};
use super::safeguards::Safeguards;
use super::{Out, Storage};

/// What a store is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStore {
    /// Who gets a hint after each committed write.
    pub hints: Vec<NodeId>,
    /// The rules it keeps.
    pub safeguards: Safeguards,
}

impl LeaseStore {
    //= SPEC LEASE-15
    pub(super) fn on_msg(&self, record: &mut Record, src: Id, msg: &Msg, o: &mut Out) {
        match msg {
            Msg::Read { nonce } => {
                o.send(src, Msg::ReadOk { nonce: *nonce, record: record.clone() });
            }
            Msg::Write { nonce, expect, claim } => {
                self.on_write(record, src, *nonce, *expect, claim, o);
            }
            _ => {}
        }
    }

    /// Compare and set. The refusal carries the record as it is, so that whoever lost the answer to
    /// its own write finds out (L-19).
    //= SPEC LEASE-16
    fn on_write(
        &self,
        record: &mut Record,
        src: Id,
        nonce: Nonce,
        expect: Expect,
        claim: &Claim,
        o: &mut Out,
    ) {
        let is_as_expected = match expect {
            Expect::Version(version) => version == record.version,
            Expect::Anything => true,
        };
        // A late duplicate expects a version that is past (L-22).
        if !is_as_expected && self.safeguards.contains(Safeguards::L_22_STORE_CHECKS_VERSION) {
            o.send(src, Msg::Conflict { nonce, record: record.clone() });
            return;
        }
        let Some(version) = record.version.checked_add(1) else { return };
        *record = Record { version, nonce, claim: claim.clone() };
        o.save(Storage::Store(record.clone()));
        o.send(src, Msg::Written { nonce, record: record.clone() });
        for &host in &self.hints {
            if Id::from(host) != src {
                o.send(host.into(), Msg::Changed { version });
            }
        }
    }
}
