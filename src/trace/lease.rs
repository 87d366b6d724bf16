//! The lease protocol's part of a trace.

use super::{Traced, digest_of};
use crate::lease::msg::Msg;
use crate::lease::replica::Table;
use crate::lease::{Member, MemberState, Storage};

/// The table's own digest in place of its content: it costs the same however long the table is.
fn table(table: &Table) -> (u64, u64, u64) {
    (table.fence, table.committed, table.log.digest())
}

impl Traced for Member {
    const PROTOCOL: &'static str = "lease";

    fn digest(state: &MemberState) -> u64 {
        match state {
            MemberState::Host(host) => {
                let replica = host.replica.as_ref();
                digest_of(&(0, &host.elector, replica.map(|r| (table(&r.table), &r.primary))))
            }
            MemberState::Store(record) => digest_of(&(1, record)),
            MemberState::Client(client) => digest_of(&(2, client)),
        }
    }

    fn storage_digest(storage: &Storage) -> u64 {
        match storage {
            Storage::Host(host) => {
                digest_of(&(0, host.incarnation, &host.resumed, host.table.as_ref().map(table)))
            }
            Storage::Store(record) => digest_of(&(1, record)),
            Storage::Client(incarnation) => digest_of(&(2, incarnation)),
        }
    }

    fn kind(msg: &Msg) -> &'static str {
        match msg {
            Msg::Read { .. } => "Read",
            Msg::ReadOk { .. } => "ReadOk",
            Msg::Write { .. } => "Write",
            Msg::Written { .. } => "Written",
            Msg::Conflict { .. } => "Conflict",
            Msg::Changed { .. } => "Changed",
            Msg::HandOver { .. } => "HandOver",
            Msg::StepDown { .. } => "StepDown",
            Msg::Consent { .. } => "Consent",
            Msg::Stopped { .. } => "Stopped",
            Msg::Apply { .. } => "Apply",
            Msg::Applied { .. } => "Applied",
            Msg::Refused { .. } => "Refused",
            Msg::Replicate { .. } => "Replicate",
            Msg::Replicated { .. } => "Replicated",
            Msg::Behind { .. } => "Behind",
            Msg::Fenced { .. } => "Fenced",
            Msg::Submit { .. } => "Submit",
        }
    }

    fn may_be_told(&self, msg: &Msg) -> bool {
        match self {
            Self::Host(_) => matches!(msg, Msg::HandOver { .. } | Msg::StepDown { .. }),
            Self::Client(_) => matches!(msg, Msg::Submit { .. }),
            Self::Store(_) => false,
        }
    }
}
