//! Every message between customers, control planes and IRC servers.
//!
//! | message | from → to | meaning |
//! |---|---|---|
//! | `Ask` / `Told` | customer → control plane of its own region → customer | the customer API |
//! | `Poll` / `Claimed` | server → own control plane → server | hand me work; one answer for each claim |
//! | `Extend` / `Extended` | server → own control plane → server | may I call now: is the claim still mine |
//! | `Report` / `Reported` | server → own control plane → server | what came of a claim, and whether it still counted |
//! | `Call` / `Reply` | server → *other* region's control plane → server | the remote API; the only messages between regions |
//! | `Switched` | a control plane → itself | the own half of a peering has been switched on |
//! | `Operate` | operator → control plane | the runbook |
//! | `Submit` | a customer's node → itself | somebody wants this asked |
//!
//! A server carries [`Call`]s and [`Reply`]s and looks at the [`Status`] alone; what an operation says
//! is bytes to it ([`Body`]), so that a new kind of operation needs no new server.

use serde::{Deserialize, Serialize};

use super::facts::{
    Account, Block, Bundle, Decided, Decision, Incarnation, Network, OpId, Region, Requested,
    Sealed, Target, Version, digest, from_bytes, to_bytes,
};
use super::peering::{Label, Side, Verb};

/// A kind of operation. A server polls for the kinds that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kind(pub u16);

impl Kind {
    /// Peering of two networks.
    pub const PEERING: Self = Self(1);
    /// A notice that one region publishes to another ([`super::notice`]).
    pub const NOTICE: Self = Self(2);
}

/// The name of a work record: the number of the incarnation that wrote it, and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId {
    /// The incarnation's number.
    pub n: u64,
    /// Counts the records of that incarnation.
    pub seq: u64,
}

/// Something that a server can do. The order is the one in which it is handed out, but for records,
/// which are ordered by what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Work {
    /// Ask this region for its promise.
    Prepare(Region),
    /// Deliver this record.
    Record(RecordId),
    /// Compare what is known with this region, a part at a time.
    Sync(Region),
}

/// Names a claim. The incarnation and the start come first, so that it grows over restores and
/// restarts; it is no count of attempts and is never reset (I-16). Two restores to one backup begin
/// lives of one number: their tags tell their claims apart.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
pub struct ClaimEpoch {
    /// The control plane's incarnation.
    pub incarnation: Incarnation,
    /// Counts the control plane's starts.
    pub start: u64,
    /// Counts the claims of that start.
    pub counter: u64,
}

/// A customer's own name for a call: the same token means the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token(pub u64);

/// What a customer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Peer this network with that one.
    Create {
        /// The caller's network, in this region.
        network: Network,
        /// The other end.
        target: Target,
        /// What the caller lets the other side do.
        resolve_names: bool,
    },
    /// Accept a request, or reject it, or delete a peering.
    Change {
        /// Which.
        id: OpId,
        /// What. Not [`Verb::Modify`].
        verb: Verb,
    },
    /// Change what the own side lets the other do.
    Modify {
        /// Which.
        id: OpId,
        /// The version that the caller has seen.
        expected: Version,
        /// The new value.
        resolve_names: bool,
    },
    /// Publish a text to another region, or replace it.
    Publish {
        /// To which.
        to: Region,
        /// What: a number, so that it always fits.
        value: u64,
    },
    /// Show one.
    Get {
        /// Which.
        id: OpId,
    },
    /// Show the caller's, some at a time.
    List {
        /// After this id.
        after: Option<OpId>,
    },
    /// Show one with everything that it waits for.
    Explain {
        /// Which.
        id: OpId,
    },
}

/// What a customer is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done; the peering looks like this.
    Done {
        /// Which.
        id: OpId,
        /// Its state here.
        state: Label,
    },
    /// The options have this version now.
    Version {
        /// Which.
        id: OpId,
        /// The version.
        version: Version,
    },
    /// One peering.
    One(Shown),
    /// Several.
    Many {
        /// In the order of their ids.
        peerings: Vec<Shown>,
        /// Whether there are more after the last.
        more: bool,
    },
    /// One peering, and why it is as it is.
    Explained {
        /// It.
        shown: Shown,
        /// The label that the other side has, as far as its facts are known here.
        peer_state: Label,
        /// How many minutes ago, by this region's clock, anything was heard of the other one; none if
        /// nothing was since this control plane has started.
        heard: Option<u64>,
        /// How the two sides' knowledge differs.
        sync: SyncLevel,
        /// What it waits for; the oldest of its records by name.
        waits_for: Vec<Wait>,
    },
}

/// A peering as a customer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shown {
    /// Its id.
    pub id: OpId,
    /// Which side this region is.
    pub side: Side,
    /// Its state here.
    pub state: Label,
    /// What R writes.
    pub requested: Requested,
    /// What A writes, as far as it is known here.
    pub decided: Decided,
    /// A restore is going on between the two regions.
    pub frozen: bool,
    /// Its facts contradict each other; an operator has to look.
    pub stuck: bool,
}

/// How the knowledge of the two sides differs, seen from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncLevel {
    /// Nothing is under way.
    InSync,
    /// This side may miss facts of the other.
    LocalBehind,
    /// The other side has not confirmed what this one has sent.
    RemoteBehind,
    /// Both.
    Both,
}

/// What a peering waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// That a record reaches the other region.
    Record(RecordId, RecordVerb),
    /// A record is set aside: an operator has to look.
    Parked(RecordId),
    /// That the other region answers after a restore.
    Frozen(Region),
    /// That A's owner decides.
    Decision,
    /// That the own half is switched on.
    Half,
    /// That a region answers at all: it is asked for one thing at a time until it does.
    Silence(Region),
    /// That so many more records reach the other region.
    More(u32),
}

/// Why a customer's call is refused. Nothing has changed then.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
#[non_exhaustive]
pub enum CallError {
    /// The pair is taken by a peering that is alive, or whose end the other side has not confirmed.
    #[error("the two networks have a peering already: wait for its end, or delete it")]
    PairBusy(OpId),
    /// The id may be one of a request that has not arrived here yet.
    #[error("the peering is not visible here yet: try again")]
    NotYetVisible,
    /// There is no such peering, network or region.
    #[error("there is nothing of that name: check the id")]
    NotFound,
    /// The peering cannot do this from there.
    #[error("a peering that is {from} cannot do that: look at its state")]
    InvalidTransition {
        /// Its state.
        from: Label,
        /// What was wanted.
        verb: Verb,
    },
    /// Only the other region's owner may do this.
    #[error("only the other side may do that: call the other region")]
    WrongSide,
    /// The token was used for another call.
    #[error("this token was used for a call with other parameters: take a new token")]
    TokenMismatch,
    /// Too many peerings or requests.
    #[error("the quota is used up: delete some first")]
    QuotaExceeded,
    /// The options have changed since.
    #[error("the options have changed meanwhile: read them again")]
    VersionConflict(Version),
    /// This region is being restored towards that one.
    #[error("the region is being restored towards its peer: try again, or delete")]
    Frozen(Region),
    /// A network cannot be peered within its own region here.
    #[error("the other network must be in another region")]
    SelfPeering,
    /// There is no such region.
    #[error("there is no such region: check the name")]
    UnknownRegion,
    /// The caller does not own the network, or is nobody.
    #[error("the caller does not own that")]
    NotOwner,
    /// The other region was declared gone.
    #[error("the other region was disposed of")]
    Disposed(Region),
    /// The facts of this peering contradict each other.
    #[error("the facts of this peering contradict each other: an operator has to look at it")]
    Stuck,
    /// The control plane is drained or has too much to do.
    #[error("the region takes no calls now: try again later")]
    Unavailable,
}

/// What a record says has happened: its priority, and what it supersedes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordVerb {
    /// A flag was raised. Goes first.
    Delete,
    /// A has decided.
    Decide,
    /// R has created.
    Create,
    /// Options have changed, or knowledge is repaired.
    Modify,
}

/// The facts of an operation, as its kind writes them. Only control planes read them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// One side's facts of a peering, as they travel.
    pub fn of(bundle: &Bundle) -> Self {
        Self(to_bytes(bundle))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match from_bytes::<Bundle>(&self.0) {
            Some(bundle) => bundle.fmt(f),
            None => write!(f, "{:02x?}", self.0),
        }
    }
}

/// What one region asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Errand {
    /// Take these facts.
    Apply {
        /// Of what kind of operation.
        kind: Kind,
        /// Which operation.
        id: OpId,
        /// The how many-th of the sender about it.
        op: u64,
        /// The sender will never again send a Create with an id of the same incarnation below this.
        closed_below: u64,
        /// The sender's full current facts.
        body: Body,
    },
    /// Promise to ignore every older life of mine.
    Prepare {
        /// Names the question.
        nonce: u64,
    },
    /// Tell me what you know that I do not.
    Sync {
        /// Names the question.
        nonce: u64,
        /// The ids after this one.
        after: Option<OpId>,
        /// What I know in this range: an id, and a digest of all its facts.
        digests: Vec<(OpId, u64)>,
        /// The range ends with the last of the digests; otherwise it is open.
        more: bool,
    },
}

/// A question to another region, as a server carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// The region that asks.
    pub from: Region,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// For which work, under which claim: comes back with the reply.
    pub tag: (Work, ClaimEpoch),
    /// What.
    pub errand: Errand,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reply {
    /// The call's tag.
    pub tag: (Work, ClaimEpoch),
    /// The incarnation that answers.
    pub incarnation: Incarnation,
    /// What came of it.
    pub status: Status,
}

/// What one region knows of an operation, for another that has lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    /// Which.
    pub id: OpId,
    /// R's facts, if they are known. None: it is forgotten here.
    pub requested: Option<Sealed<Requested>>,
    /// A's facts.
    pub decided: Option<Sealed<Decided>>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// It had its effect. The answerer's own facts, now.
    Ok(Body),
    /// It was not new, and had none. The answerer's own facts, now.
    Old(Body),
    /// The operation is forgotten here.
    Gone,
    /// The answerer is being restored.
    Frozen,
    /// The answerer has not promised this incarnation: one of the two has lost something.
    Unsynced,
    /// The answerer has promised to ignore the asker's life.
    StaleIncarnation(Incarnation),
    /// The asker was declared gone.
    Disposed,
    /// The answerer does not know this kind of operation.
    Unsupported,
    /// The answerer has too much to do: not before so many milliseconds.
    RetryAfter(u32),
    /// Never: for this very record.
    Refused,
    /// The promise.
    Promise {
        /// The question's name.
        nonce: u64,
        /// The life that is promised: everything older is ignored.
        to: Incarnation,
        /// For each of the answerer's newest incarnations: it will never again send a Create with an id
        /// below this. The asker may have lost the ids of what is over.
        closed: Vec<(u64, u64)>,
    },
    /// A newer life, or another one of the same number, was promised before.
    Stale(Incarnation),
    /// What the asker does not know.
    Synced {
        /// The question's name.
        nonce: u64,
        /// The life that asked.
        to: Incarnation,
        /// How far the answerer got; none if to the end of the range.
        up_to: Option<OpId>,
        /// What differs.
        items: Vec<Item>,
    },
}

/// What a server has made of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// The remote has answered.
    Answered(Reply),
    /// It has not, in time.
    TimedOut,
    /// The server does not work on it any more: it is stopping.
    Released,
}

/// A piece of work that is leased to a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// To which region.
    pub remote: Region,
    /// What to say there. It names the work and the claim.
    pub call: Call,
}

/// What an operator may do. Everything else repairs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A region is gone for good: fence it, and end every peering with it.
    Dispose(Region),
    /// It may come back, under a new incarnation.
    Readmit(Region),
    /// Try a parked record again.
    Redrive(RecordId),
    /// Give a parked record up.
    Discard(RecordId),
    /// Take no calls of customers, or take them again.
    Drain(bool),
    /// Begin a new life as if this region had been restored, frozen towards all others, and stay so
    /// until [`Command::Thaw`]. The region that is named is any other one.
    Freeze(Region),
    /// Let the freeze end that an operator began, as soon as each peer has said what it knows.
    Thaw,
}

/// The order of the variants decides the order of actions, and with it the recorded paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Msg {
    /// A customer calls.
    Ask {
        /// Names the call in its answer.
        n: u64,
        /// Who calls.
        caller: Account,
        /// The caller's name for it.
        token: Token,
        /// What.
        request: Request,
    },
    /// The answer.
    Told {
        /// The call's name.
        n: u64,
        /// What came of it.
        result: Result<Box<Answer>, CallError>,
    },
    /// Hand me work.
    Poll {
        /// Of these kinds.
        kinds: Vec<Kind>,
        /// At most so many pieces.
        max: u8,
    },
    /// A piece of work.
    Claimed(Box<Claim>),
    /// What came of a claim.
    Report {
        /// Which work.
        work: Work,
        /// Under which claim.
        epoch: ClaimEpoch,
        /// What.
        outcome: Box<Outcome>,
    },
    /// Whether the report counted.
    Reported {
        /// Which work.
        work: Work,
        /// Under which claim.
        epoch: ClaimEpoch,
        /// The claim was still held.
        ok: bool,
    },
    /// A question to another region.
    Call(Box<Call>),
    /// Its answer.
    Reply(Box<Reply>),
    /// The own half of a peering is on.
    Switched(OpId),
    /// An operator commands.
    Operate(Command),
    /// Somebody wants this asked.
    Submit {
        /// In whose name.
        caller: Account,
        /// Under which token.
        token: Token,
        /// What.
        request: Request,
    },
    /// Lease this claim to me once more, from now on: I am about to call.
    Extend {
        /// Which work.
        work: Work,
        /// Under which claim.
        epoch: ClaimEpoch,
    },
    /// Whether the claim is still held, and is for a whole lease more.
    Extended {
        /// Which work.
        work: Work,
        /// Under which claim.
        epoch: ClaimEpoch,
        /// It is.
        ok: bool,
    },
}

impl Token {
    /// Under what a call's result is kept, and which call the audit log names.
    pub fn key(self, region: Region, caller: Account) -> u64 {
        digest(&(region, caller, self))
    }
}

impl Status {
    /// Whether a record that was answered so is finished.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ok(_) | Self::Old(_) | Self::Gone)
    }
}

/// What A decides when R's owner has deleted it before A's has decided.
pub(crate) const CANCELLED: Decision = Decision::Cancelled;

/// A block that overlaps with none: for tests and models that do not look at addresses.
pub fn block_of(network: Network) -> Block {
    Block { address: 0x0a00_0000 | (network.0 & 0xff) << 16, prefix: 16 }
}
