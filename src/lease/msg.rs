//! Every message of the lease protocol.
//!
//! | message | from → to | meaning |
//! |---|---|---|
//! | `Read` / `ReadOk` | elector → store → elector | linearizable read of the record |
//! | `Write` / `Written`, `Conflict` | elector → store → elector | compare-and-set; both answers carry the record as it is after |
//! | `Changed` | store → electors | a hint to read now; never proof |
//! | `HandOver`, `StepDown` | operator → holder's elector | end this term, for a named host or for anybody |
//! | `Consent` | old holder's elector → target's elector | "I have stopped; you may write over this version" |
//! | `Stopped` | a host → itself | the stop hook of this term has finished |
//! | `Apply` / `Applied`, `Refused` | client → replica → client | a write to the table and its acknowledgement |
//! | `Replicate` / `Replicated`, `Behind`, `Fenced` | primary → replica → primary | copy of a write; how far the copy agrees; refusal by epoch |
//! | `Submit` | a client's host → itself | somebody wants this written |

use serde::{Deserialize, Serialize};

use super::record::{Claim, Epoch, Expect, NodeId, Nonce, Record, Version};

/// Position of a write in the table's history, from 1.
pub type Seq = u64;

/// One write wanted by one client, retried under the same name until it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId {
    /// Whose write.
    pub client: NodeId,
    /// The client's incarnation.
    pub incarnation: u64,
    /// Counts that client's writes, from 1. A client has one write under way at a time.
    pub n: u64,
}

/// One write in the table's history.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// The epoch of the primary that first accepted it.
    pub epoch: Epoch,
    /// The client's name for it: an entry is applied once, however often it is asked for.
    pub request: RequestId,
    /// The key of the row, at most [`TEXT_MAX`] bytes.
    pub key: String,
    /// The row's new value, at most [`TEXT_MAX`] bytes.
    pub value: String,
}

/// The most bytes a key or a value may have, so that an entry always fits a datagram.
pub const TEXT_MAX: usize = 400;

/// An entry's place: the pair is unique, because an epoch has one primary.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct EntryId {
    /// Position; 0 stands before the first entry.
    pub seq: Seq,
    /// Epoch of the entry there; 0 before the first entry.
    pub epoch: Epoch,
}

/// The order of the variants decides the order of actions, and with it the recorded paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Msg {
    /// Tell me the record.
    Read {
        /// Names the request.
        nonce: Nonce,
    },
    /// The record at some instant between the request and this answer.
    ReadOk {
        /// The request's name.
        nonce: Nonce,
        /// The record.
        record: Record,
    },
    /// Write this if the precondition holds.
    Write {
        /// Names the attempt.
        nonce: Nonce,
        /// The precondition.
        expect: Expect,
        /// What to write.
        claim: Claim,
    },
    /// The write is committed and durable.
    Written {
        /// The attempt's name.
        nonce: Nonce,
        /// The record that it made.
        record: Record,
    },
    /// The precondition did not hold; nothing was written.
    Conflict {
        /// The attempt's name.
        nonce: Nonce,
        /// The record as it is.
        record: Record,
    },
    /// The record has changed: read it if you care.
    Changed {
        /// Its new version.
        version: Version,
    },
    /// End your term and let this host take over.
    HandOver {
        /// The host that shall have the lease.
        target: NodeId,
        /// The term that is meant; any other ignores the command.
        epoch: Epoch,
    },
    /// End your term and release the lease to whoever comes first.
    StepDown {
        /// The term that is meant.
        epoch: Epoch,
    },
    /// My work has stopped: you may write over this record without waiting.
    Consent {
        /// The record to be written over.
        record: Record,
    },
    /// The stop hook of this term has finished. Only ever sent by a host to itself: it is handed
    /// back when the hook is done, at most S later.
    Stopped {
        /// The term.
        epoch: Epoch,
    },
    /// Write this row.
    Apply {
        /// Names the write.
        request: RequestId,
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
    /// The write is on every member of the in-sync set.
    Applied {
        /// The write's name.
        request: RequestId,
        /// The epoch that acknowledges it.
        epoch: Epoch,
        /// Its place in the table's history.
        seq: Seq,
    },
    /// I am not the primary.
    Refused {
        /// The write's name.
        request: RequestId,
        /// Who is, as far as I know.
        holder: Option<NodeId>,
    },
    /// Copy this, if your history agrees with mine so far.
    Replicate {
        /// The sender's epoch.
        epoch: Epoch,
        /// The place just before the entry.
        prev: EntryId,
        /// The entry and its position; none to ask where you stand.
        entry: Option<(Seq, Entry)>,
        /// Everything up to here is on every member of the in-sync set.
        committed: Seq,
    },
    /// My history agrees with yours up to here, durably.
    Replicated {
        /// The epoch that asked.
        epoch: Epoch,
        /// The last agreed position.
        matched: Seq,
    },
    /// My history does not agree with yours: go back to here.
    Behind {
        /// The epoch that asked.
        epoch: Epoch,
        /// What I have for certain.
        committed: Seq,
    },
    /// There is a higher epoch than yours.
    Fenced {
        /// The refused epoch.
        epoch: Epoch,
        /// The highest that I have seen.
        fence: Epoch,
    },
    /// A client's host wants this written.
    Submit {
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
}
