//! What goes over the network: datagrams, and nothing that moves them.
//!
//! ```text
//!   0        3    4          6             8             12         16
//!   | "tnr"  | v  | source   | destination | incarnation | sequence | body ...
//!   |- magic -|    |-------- big endian ---------------------------|
//! ```
//!
//! The body is the postcard form of (lease index, message). [`codec`] turns a message into a datagram and
//! back; it is total and bounded. A [`Seal`] stands between the codec and the socket: [`Sealed`], or for nodes that
//! share one machine [`Plain`]. There is no socket here, no clock and no randomness.

pub mod codec;
pub mod seal;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::irc;
use crate::lease::msg::{Entry, Msg, RequestId, TEXT_MAX};
use crate::lease::record::{Claim, Expect, Holder, NodeId, Nonce, Record};
use crate::lease::timing::Timing;

pub use codec::{
    DATAGRAM_MAX, DecodeError, EncodeError, HEADER_LEN, Header, Headers, MAGIC, VERSION, decode,
    encode,
};
pub use seal::{Plain, Seal, SealError, Sealed};

/// A message that may come from the network.
///
/// The decoder hands an actor nothing that [`Message::is_legal`] refuses, so that handlers may rely
/// on it as they rely on types.
pub trait Message: Serialize + DeserializeOwned {
    /// Whether every value is within the bounds that the protocol gives it.
    ///
    /// Types cannot say that a text is short or that a node id is small. A text that is too long
    /// would be accepted by one node and never fit the datagram to the next; an id beyond the limit
    /// would panic the first handler that puts it into a set.
    fn is_legal(&self) -> bool;
}

fn is_node(node: NodeId) -> bool {
    node.0 < NodeId::LIMIT
}

/// The largest epoch, version, incarnation or position that is believed. All of them begin at 0 or 1
/// and grow by one; handlers add one to them, which must never overflow.
pub const COUNT_MAX: u64 = 1 << 62;

fn is_count(count: u64) -> bool {
    count <= COUNT_MAX
}

fn is_holder(holder: Holder) -> bool {
    is_node(holder.node) && is_count(holder.incarnation)
}

fn is_nonce(nonce: Nonce) -> bool {
    is_holder(nonce.by) && is_count(nonce.n)
}

fn is_claim(claim: &Claim) -> bool {
    claim.holder.is_none_or(is_holder)
        && is_count(claim.epoch)
        && claim.lease <= Timing::DURATION_MAX
}

fn is_record(record: &Record) -> bool {
    is_count(record.version) && is_nonce(record.nonce) && is_claim(&record.claim)
}

fn is_request(request: RequestId) -> bool {
    is_node(request.client) && is_count(request.incarnation) && is_count(request.n)
}

fn is_text(key: &str, value: &str) -> bool {
    key.len() <= TEXT_MAX && value.len() <= TEXT_MAX
}

fn is_entry(entry: &Entry) -> bool {
    is_count(entry.epoch) && is_request(entry.request) && is_text(&entry.key, &entry.value)
}

impl Message for Msg {
    fn is_legal(&self) -> bool {
        match self {
            Self::Read { nonce } => is_nonce(*nonce),
            Self::ReadOk { nonce, record }
            | Self::Written { nonce, record }
            | Self::Conflict { nonce, record } => is_nonce(*nonce) && is_record(record),
            Self::Write { nonce, expect, claim } => {
                let is_expectable = match expect {
                    Expect::Version(version) => is_count(*version),
                    // No node says this: it would overwrite whoever holds the lease (L-15 to L-17).
                    Expect::Anything => false,
                };
                is_nonce(*nonce) && is_expectable && is_claim(claim)
            }
            Self::Changed { version } => is_count(*version),
            Self::HandOver { target, epoch } => is_node(*target) && is_count(*epoch),
            Self::StepDown { epoch } | Self::Stopped { epoch } => is_count(*epoch),
            Self::Consent { record } => is_record(record),
            Self::Apply { request, key, value } => is_request(*request) && is_text(key, value),
            Self::Applied { request, epoch, seq } => {
                is_request(*request) && is_count(*epoch) && is_count(*seq)
            }
            Self::Refused { request, holder } => is_request(*request) && holder.is_none_or(is_node),
            Self::Replicate { epoch, prev, entry, committed } => {
                is_count(*epoch)
                    && is_count(prev.seq)
                    && is_count(prev.epoch)
                    && is_count(*committed)
                    && entry.as_ref().is_none_or(|(seq, entry)| is_count(*seq) && is_entry(entry))
            }
            Self::Replicated { epoch, matched: seq } | Self::Behind { epoch, committed: seq } => {
                is_count(*epoch) && is_count(*seq)
            }
            Self::Fenced { epoch, fence } => is_count(*epoch) && is_count(*fence),
            Self::Submit { key, value } => is_text(key, value),
        }
    }
}

fn is_op(id: irc::facts::OpId) -> bool {
    is_count(id.n) && is_count(id.seq)
}

fn is_work(work: irc::msg::Work) -> bool {
    match work {
        irc::msg::Work::Record(record) => is_count(record.n) && is_count(record.seq),
        irc::msg::Work::Prepare(_) | irc::msg::Work::Sync(_) => true,
    }
}

fn is_tag(tag: (irc::msg::Work, irc::msg::ClaimEpoch)) -> bool {
    let (work, epoch) = tag;
    is_work(work)
        && is_count(epoch.incarnation.n)
        && is_count(epoch.start)
        && is_count(epoch.counter)
}

fn is_call(call: &irc::msg::Call) -> bool {
    use irc::msg::Errand;
    is_count(call.incarnation.n)
        && is_tag(call.tag)
        && match &call.errand {
            Errand::Apply { id, op, closed_below, .. } => {
                is_op(*id) && is_count(*op) && is_count(*closed_below)
            }
            Errand::Prepare { nonce } => is_count(*nonce),
            Errand::Sync { nonce, after, digests, .. } => {
                is_count(*nonce)
                    && after.is_none_or(is_op)
                    && digests.iter().all(|&(id, _)| is_op(id))
            }
        }
}

fn is_reply(reply: &irc::msg::Reply) -> bool {
    use irc::msg::Status;
    is_tag(reply.tag)
        && is_count(reply.incarnation.n)
        && match &reply.status {
            Status::StaleIncarnation(life) | Status::Stale(life) => is_count(life.n),
            Status::Promise { nonce, to, closed } => {
                let is_mark = |&(n, below): &(u64, u64)| is_count(n) && is_count(below);
                is_count(*nonce) && is_count(to.n) && closed.iter().all(is_mark)
            }
            Status::Synced { nonce, to, up_to, items } => {
                is_count(*nonce)
                    && is_count(to.n)
                    && up_to.is_none_or(is_op)
                    && items.iter().all(|item| is_op(item.id))
            }
            Status::Ok(_)
            | Status::Old(_)
            | Status::Gone
            | Status::Frozen
            | Status::Unsynced
            | Status::Disposed
            | Status::Unsupported
            | Status::RetryAfter(_)
            | Status::Refused => true,
        }
}

fn is_request_of_customer(request: &irc::msg::Request) -> bool {
    use irc::msg::Request;
    match request {
        Request::Create { .. } | Request::Publish { .. } => true,
        Request::Change { id, verb } => is_op(*id) && *verb != irc::peering::Verb::Modify,
        Request::Modify { id, expected, .. } => is_op(*id) && is_count(expected.counter),
        Request::Get { id } | Request::Explain { id } => is_op(*id),
        Request::List { after } => after.is_none_or(is_op),
    }
}

impl Message for irc::msg::Msg {
    fn is_legal(&self) -> bool {
        use irc::msg::{Outcome, RecordId};
        match self {
            Self::Ask { n, request, .. } => is_count(*n) && is_request_of_customer(request),
            Self::Submit { request, .. } => is_request_of_customer(request),
            Self::Told { n, .. } => is_count(*n),
            Self::Poll { .. } => true,
            Self::Claimed(claim) => is_call(&claim.call),
            Self::Report { work, epoch, outcome } => {
                is_tag((*work, *epoch))
                    && match &**outcome {
                        Outcome::Answered(reply) => is_reply(reply),
                        Outcome::TimedOut | Outcome::Released => true,
                    }
            }
            Self::Reported { work, epoch, .. }
            | Self::Extend { work, epoch }
            | Self::Extended { work, epoch, .. } => is_tag((*work, *epoch)),
            Self::Call(call) => is_call(call),
            Self::Reply(reply) => is_reply(reply),
            Self::Switched(id) => is_op(*id),
            Self::Operate(command) => match command {
                irc::msg::Command::Redrive(RecordId { n, seq })
                | irc::msg::Command::Discard(RecordId { n, seq }) => is_count(*n) && is_count(*seq),
                _ => true,
            },
        }
    }
}
