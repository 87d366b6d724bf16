//! What is true of a peering, and who may say so.
//!
//! Nobody ever sends "the state". A peering is a handful of *facts*, each written by one region: the
//! requester's region R writes that it was created and what R's owner wants; the accepter's region A
//! writes the decision. A region sends the bundle of facts that it writes, whole, and the receiver
//! *joins* it: flags only rise, versions only grow, a decision is written once. So messages may come
//! late, twice or in any order, and what a side knows never goes back. What a customer sees is
//! computed from the facts ([`super::peering`]).

use std::hash::Hasher as _;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A region, as an index: its name is in the cluster file alone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
pub struct Region(pub u16);

/// Who owns networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account(pub u32);

/// A private network. Its number is unique within its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network(pub u32);

/// A block of IPv4 addresses, as CIDR writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    /// The first address.
    pub address: u32,
    /// The length of the prefix, at most 32.
    pub prefix: u8,
}

impl Block {
    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        let prefix = self.prefix.min(other.prefix).min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        self.address & mask == other.address & mask
    }
}

/// Which life of a region wrote something. `n` only grows, by one at each restore; `life` is a random
/// tag that tells two lives apart that were given one number by mistake (I-9).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
pub struct Incarnation {
    /// The number.
    pub n: u64,
    /// The tag.
    pub life: u64,
}

/// The name of an operation: who began it, in which incarnation, and the how many-th it was. Ids are
/// ordered by these, in this order; of two crossing requests for one pair the lower id wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId {
    /// The region that began it.
    pub requester: Region,
    /// The number of that region's incarnation.
    pub n: u64,
    /// Counts the operations of that incarnation, from 0.
    pub seq: u64,
}

/// The version of an option: the writer's incarnation, and a count.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Version {
    /// The number of the writer's incarnation.
    pub n: u64,
    /// Counts its changes.
    pub counter: u64,
}

/// What one side lets the other do. One writer each; the higher version is the newer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Options {
    /// Decides which of two is newer.
    pub version: Version,
    /// Whether the other side may resolve this side's names.
    pub resolve_names: bool,
}

impl Options {
    fn join(&mut self, other: &Self) {
        if other.version > self.version {
            *self = *other;
        }
    }
}

/// Why A decided that a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Failure {
    /// It could not be done. On the wire that is all that is said: a request must not tell one owner
    /// anything about the other's networks.
    Impossible,
}

/// What became of a request. Written by A, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Decision {
    /// A's owner wants it.
    Accepted,
    /// A's owner does not.
    Rejected,
    /// Nobody decided before the deadline, on A's clock.
    Expired,
    /// R's owner deleted it before a decision.
    Cancelled,
    /// A's checks refused it.
    Failed(Failure),
}

/// The other end of a wanted peering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// Its region.
    pub region: Region,
    /// Who must accept.
    pub account: Account,
    /// Its network.
    pub network: Network,
}

/// What R writes. Everything but `deleted` and `options` is written once, at the creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requested {
    /// Who asked.
    pub account: Account,
    /// R's network.
    pub network: Network,
    /// Its addresses, for A's check.
    pub block: Block,
    /// The other end.
    pub target: Target,
    /// The hash of the token that caused it: whoever recovers the fact recovers the token.
    pub token: u64,
    /// R's owner has deleted it. Never taken back.
    pub deleted: bool,
    /// What R lets A do.
    pub options: Options,
}

/// What A writes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Decided {
    /// When an undecided request expires, on A's clock; none until A has stored the request.
    pub deadline: Option<u64>,
    /// What became of it. Written once.
    pub decision: Option<Decision>,
    /// A's owner has deleted it. Never taken back.
    pub deleted: bool,
    /// What A lets R do.
    pub options: Options,
}

/// Two different values for a fact that is written once. Nobody may pick a winner silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The facts that one region writes of one operation.
pub trait Facts: Copy + Eq + Serialize + DeserializeOwned {
    /// Takes over what the other knows more. Idempotent, and in any order the same.
    ///
    /// # Errors
    ///
    /// [`Conflict`] if a fact that is written once differs; `self` is then unchanged.
    fn join(&mut self, other: &Self) -> Result<(), Conflict>;
}

impl Facts for Requested {
    fn join(&mut self, other: &Self) -> Result<(), Conflict> {
        let at_birth =
            |facts: &Self| (facts.account, facts.network, facts.block, facts.target, facts.token);
        if at_birth(self) != at_birth(other) {
            return Err(Conflict);
        }
        self.deleted |= other.deleted;
        self.options.join(&other.options);
        Ok(())
    }
}

impl Facts for Decided {
    //= SPEC IRC-2
    fn join(&mut self, other: &Self) -> Result<(), Conflict> {
        if self.decision.is_some() && other.decision.is_some() && self.decision != other.decision {
            return Err(Conflict);
        }
        self.decision = self.decision.or(other.decision);
        self.deadline = self.deadline.or(other.deadline);
        self.deleted |= other.deleted;
        self.options.join(&other.options);
        Ok(())
    }
}

impl Decided {
    /// Whether the decision ends the peering.
    pub fn is_dead(&self) -> bool {
        self.deleted || self.decision.is_some_and(|decision| decision != Decision::Accepted)
    }
}

/// Facts under the seal of the region that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sealed<F> {
    /// The facts.
    pub facts: F,
    /// The writer's proof; 0 under facts that nobody has written yet.
    pub seal: u64,
}

/// The key of a region's seals. It never leaves the region, and no backup holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealKey(pub [u64; 2]);

/// As 32 hexadecimal digits, as in its file.
impl Serialize for SealKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}{:016x}", self.0[0], self.0[1]))
    }
}

impl<'de> Deserialize<'de> for SealKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for SealKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a seal key has 32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        let half = |text| u64::from_str_radix(text, 16).map_err(|_| wrong);
        Ok(Self([half(&text[..16])?, half(&text[16..])?]))
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// The seal of these facts of this operation: SipHash-2-4, which was made to authenticate short
    /// messages, over the id and the facts.
    pub fn seal<F: Facts>(&self, id: OpId, facts: F) -> Sealed<F> {
        Sealed { facts, seal: self.proof(id, &facts) }
    }

    /// Whether this region has written these facts.
    pub fn has_sealed<F: Facts>(&self, id: OpId, sealed: &Sealed<F>) -> bool {
        sealed.seal == self.proof(id, &sealed.facts)
    }

    #[allow(deprecated, reason = "the only keyed hash of the standard library, and a fixed one")]
    fn proof<F: Facts>(&self, id: OpId, facts: &F) -> u64 {
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0[0], self.0[1]);
        hasher.write(&to_bytes(&(id, facts)));
        hasher.finish()
    }
}

/// What travels: the facts of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Bundle {
    /// R's.
    Requester(Sealed<Requested>),
    /// A's.
    Accepter(Sealed<Decided>),
}

impl Bundle {
    /// Whether the side that wrote these facts knows by them alone that the operation is dead.
    pub fn is_death(&self) -> bool {
        match self {
            Self::Requester(requested) => requested.facts.deleted,
            Self::Accepter(decided) => decided.facts.is_dead(),
        }
    }
}

/// The postcard form of a value.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Room for nearly all of them: to grow costs more than to write.
    postcard::to_extend(value, Vec::with_capacity(64)).expect("memory is the only limit")
}

/// Reads a value that fills all of these bytes.
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// A hash of a value's postcard form: the same on every machine, and no secret.
pub(crate) fn digest<T: Serialize>(value: &T) -> u64 {
    xxh3_64(&to_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(decision: Option<Decision>, deleted: bool) -> Decided {
        Decided { deadline: Some(7), decision, deleted, options: Options::default() }
    }

    //= SPEC IRC-2 test
    #[test]
    fn facts_join_in_any_order_and_a_decision_is_written_once() {
        let facts = [
            Decided::default(),
            decided(None, false),
            decided(None, true),
            decided(Some(Decision::Accepted), false),
            decided(Some(Decision::Accepted), true),
        ];
        for one in facts {
            for other in facts {
                let (mut left, mut right) = (one, other);
                left.join(&other).unwrap();
                right.join(&one).unwrap();
                assert_eq!(left, right);
                let again = left;
                left.join(&other).unwrap();
                assert_eq!(left, again, "a second time changes nothing");
            }
        }
        let mut accepted = decided(Some(Decision::Accepted), false);
        let before = accepted;
        assert_eq!(accepted.join(&decided(Some(Decision::Rejected), true)), Err(Conflict));
        assert_eq!(accepted, before);
    }

    #[test]
    fn blocks_overlap_exactly_if_one_holds_the_other() {
        let block =
            |a: u8, b: u8, prefix| Block { address: u32::from_be_bytes([a, b, 0, 0]), prefix };
        assert!(block(10, 0, 8).overlaps(block(10, 7, 16)));
        assert!(block(10, 7, 16).overlaps(block(10, 0, 8)));
        assert!(!block(10, 6, 16).overlaps(block(10, 7, 16)));
        assert!(block(0, 0, 0).overlaps(block(200, 1, 32)));
        assert!(block(10, 6, 16).overlaps(block(10, 6, 16)));
    }

    //= SPEC IRC-19 test
    #[test]
    fn a_seal_is_of_one_key_one_operation_and_one_set_of_facts() {
        let id = OpId { requester: Region(0), n: 1, seq: 0 };
        let (mine, theirs) = (SealKey([1, 2]), SealKey([1, 3]));
        let sealed = mine.seal(id, decided(Some(Decision::Accepted), false));
        assert!(mine.has_sealed(id, &sealed));
        assert!(!theirs.has_sealed(id, &sealed));
        assert!(!mine.has_sealed(OpId { seq: 1, ..id }, &sealed));
        let mut changed = sealed;
        changed.facts.deleted = true;
        assert!(!mine.has_sealed(id, &changed));
    }
}
