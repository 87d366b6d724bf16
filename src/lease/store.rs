//! The lease store: one linearizable register, durable before it answers.
//!
//! It knows nothing of time, of leases or of who is alive: it compares a version and writes. Being a
//! single register on a single node it is linearizable by construction; what it must not do is answer
//! before the write would survive a crash.

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::msg::Msg;
use super::record::{Claim, Expect, NodeId, NodeSet, Nonce, Record};
use super::safeguards::Safeguards;
use super::{Out, Storage};

/// What a store is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStore {
    /// The hosts of the lease: who may write.
    pub hosts: NodeSet,
    /// Who gets a hint after each committed write.
    pub hints: Vec<NodeId>,
    /// The rules it keeps.
    pub safeguards: Safeguards,
}

impl LeaseStore {
    //= SPEC LEASE-15
    pub(super) fn on_msg(&self, me: Id, record: &mut Record, src: Id, msg: &Msg, o: &mut Out) {
        match msg {
            Msg::Read { nonce } => {
                o.send(src, Msg::ReadOk { nonce: *nonce, record: record.clone() });
            }
            Msg::Write { nonce, expect, claim } if src == me || self.is_theirs(src, claim) => {
                let is_written = self.write(record, *nonce, *expect, claim, o);
                let (nonce, record) = (*nonce, record.clone());
                let version = record.version;
                // An operator at the store's own node looks at the record, and waits for no answer.
                if src != me {
                    let written = Msg::Written { nonce, record: record.clone() };
                    o.send(src, if is_written { written } else { Msg::Conflict { nonce, record } });
                }
                if is_written {
                    let others = self.hints.iter().filter(|&&host| Id::from(host) != src);
                    others.for_each(|&host| o.send(host.into(), Msg::Changed { version }));
                }
            }
            _ => {}
        }
    }

    /// Whether this is a host's to claim: that it holds the lease itself, or that nobody does (L-43).
    //= SPEC LEASE-39
    fn is_theirs(&self, src: Id, claim: &Claim) -> bool {
        let is_own = claim.holder.is_none_or(|holder| Id::from(holder.node) == src);
        let is_hosts = is_own && self.hosts.contains(NodeId::from(src));
        is_hosts || !self.safeguards.contains(Safeguards::L_43_HOSTS_WRITE)
    }

    /// Compare and set. A refusal carries the record as it is, so that whoever lost the answer to
    /// its own write finds out (L-19).
    //= SPEC LEASE-16
    fn write(
        &self,
        record: &mut Record,
        nonce: Nonce,
        expect: Expect,
        claim: &Claim,
        o: &mut Out,
    ) -> bool {
        let is_as_expected = match expect {
            Expect::Version(version) => version == record.version,
            Expect::Anything => true,
        };
        // A late duplicate expects a version that is past (L-22).
        if !is_as_expected && self.safeguards.contains(Safeguards::L_22_STORE_CHECKS_VERSION) {
            return false;
        }
        // There is no version after the last one.
        let Some(version) = record.version.checked_add(1) else { return false };
        *record = Record { version, nonce, claim: claim.clone() };
        o.save(Storage::Store(record.clone()));
        true
    }
}
