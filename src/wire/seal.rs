//! Seals: what stands between the codec and the socket.
//!
//! ```text
//!   header (16)    | hint 4 | boot 12 | counter 8 | body ... | tag 16 |
//!   |- in the open, and part of the proof -------|- sealed --|
//! ```
//!
//! Every node has an X25519 key pair, whose public half all others know from the cluster file. Two nodes share a
//! secret by it (Diffie-Hellman), out of which HKDF-SHA256 makes a key for each direction; the names of cluster, nodes
//! and keys go into it, so that a datagram of one cluster, direction or pair opens nowhere else. XChaCha20-Poly1305
//! seals the body and proves the header with it. Its nonce of 24 bytes is the boot id, which is drawn at random at
//! every start, the incarnation, which is durable before the first send, and a counter: one of the first two alone
//! makes sure that no two lives use a nonce twice. (A machine that is resumed from a snapshot of its memory goes on in
//! the life that it had, and neither helps.)
//!
//! The *hint* tells the receiver which of several keys of the two nodes to try. It is derived with the key, and says
//! nothing to anybody else. There is no forward secrecy: whoever gets hold of a node's secret key can read what he has
//! recorded of that node's datagrams, and speak for it, and to it in the name of every other, until its key is taken out
//! of the cluster file.
//!
//! Everything here is a function of what it is told: it draws nothing at random and reads no clock.

mod key;
mod window;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::SharedSecret;
use zeroize::Zeroizing;

use super::Header;
use crate::lease::record::NodeId;
pub use key::{KEY_LEN, KeyError, PublicKey, SecretKey, is_secret, without_secrets};
use window::Window;
pub use window::{LIVES_MAX, WINDOW};

/// What tells two lives of a node apart, besides its incarnation: drawn at random at each start.
pub type Boot = [u8; 12];

/// How long before a key runs out its node sends under the next one, in seconds: more than clocks of nodes differ.
pub const CHANGE_BEFORE: u64 = 3600;

const HINT_LEN: usize = 4;
const COUNTER_LEN: usize = 8;
const TAG_LEN: usize = 16;
/// What stands before the sealed body.
const FRONT_LEN: usize = HINT_LEN + size_of::<Boot>() + COUNTER_LEN;

/// Why a datagram was not sealed, or did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It was not sealed by the node that its header names, for this one, or was altered on its way.
    #[error("the datagram's seal does not open: it was altered, or forged")]
    Forged,
    /// No key of the two nodes has this hint.
    #[error(
        "the datagram is not sealed with a key that this node knows: compare the keys in the cluster \
         files of sender and receiver (`tenure keys status`), and whether both have any"
    )]
    UnknownKey,
    /// The seal is good, and the key has run out.
    #[error(
        "the datagram is sealed with a key that has run out: make a new one (`tenure keys new`), or set \
         this machine's clock right"
    )]
    RanOut,
    /// It has come before, or is so old that nobody knows.
    #[error("the datagram has come before, or is older than anything that is remembered")]
    Repeated,
    /// Nothing can be sealed for that node: it has no key, or its keys or our own have run out.
    #[error(
        "there is no key for this node that has not run out: make a new one (`tenure keys new`) and list \
         it in the cluster file of every node"
    )]
    NoKey,
}

/// What stands between the codec and the socket: confidentiality, and proof of the source.
///
/// A datagram is an open header and a sealed body. The header goes into the proof unchanged, so that
/// a body cannot be moved under another header; it stays readable, so that the receiver knows whose
/// key to use. One seal belongs to one life of one node and serves all its peers.
pub trait Seal: Send + Debug {
    /// How many bytes [`Seal::seal`] adds to a body. The codec leaves them free.
    fn overhead(&self) -> usize;

    /// Whether datagrams may leave this machine under this seal.
    ///
    /// [`Plain`] says no: on a network, anybody can write a source address and a node id.
    fn may_leave_the_machine(&self) -> bool;

    /// Seals a body for the destination that the header names.
    ///
    /// # Errors
    ///
    /// If there is no key for that node.
    fn seal(&mut self, header: &Header, body: Vec<u8>) -> Result<Vec<u8>, SealError>;

    /// Opens a body from the source that the header names.
    ///
    /// # Errors
    ///
    /// If the named source cannot have sealed these bytes under this header, or did so before.
    fn open<'a>(&mut self, header: &Header, body: &'a [u8]) -> Result<Cow<'a, [u8]>, SealError>;

    /// Tells it the time of day, in seconds since 1970: keys run out by it.
    fn set_time(&mut self, _seconds: u64) {}

    /// Gives it other keys. What was sealed and opened so far stays known.
    fn renew(&mut self, _keyring: Keyring) {}
}

/// No seal at all. For nodes that share one machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Seal for Plain {
    fn overhead(&self) -> usize {
        0
    }

    fn may_leave_the_machine(&self) -> bool {
        false
    }

    fn seal(&mut self, _: &Header, body: Vec<u8>) -> Result<Vec<u8>, SealError> {
        Ok(body)
    }

    fn open<'a>(&mut self, _: &Header, body: &'a [u8]) -> Result<Cow<'a, [u8]>, SealError> {
        Ok(Cow::Borrowed(body))
    }
}

// -------------------------------------------------------------------------------------------------
// Keys
// -------------------------------------------------------------------------------------------------

/// A public key, and when it runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listed {
    /// The key.
    pub public: PublicKey,
    /// The last second in which it is good, since 1970.
    pub not_after: u64,
}

/// Of several keys, the place of the one to send under: the one that runs out first, but one that has
/// [`CHANGE_BEFORE`] left goes before one that has not. None if all have run out.
///
/// So a key that is added is used only when the one before it is about to run out. By then everybody must have been
/// told of it; nobody has to be told at the same time.
//= SPEC SEAL-6
pub fn current(not_after: impl IntoIterator<Item = u64>, now: u64) -> Option<usize> {
    let left = not_after.into_iter().enumerate().filter(|(_, not_after)| *not_after >= now);
    left.min_by_key(|&(_, not_after)| {
        let ends_soon = not_after < now.saturating_add(CHANGE_BEFORE);
        // Of those that end soon, the last one.
        (ends_soon, if ends_soon { u64::MAX - not_after } else { not_after })
    })
    .map(|(at, _)| at)
}

/// The key of one direction between two keys of two nodes.
#[derive(Clone)]
struct Direction {
    cipher: XChaCha20Poly1305,
    hint: [u8; HINT_LEN],
}

impl Direction {
    /// Two keys make another one for each cluster, for each direction, and for each pair of node ids.
    //= SPEC SEAL-1
    fn new(
        shared: &SharedSecret,
        cluster: &str,
        from: (NodeId, &PublicKey),
        to: (NodeId, &PublicKey),
    ) -> Self {
        let mut made = Zeroizing::new([0; KEY_LEN + HINT_LEN]);
        let ids = [from.0.0.to_be_bytes(), to.0.0.to_be_bytes()].concat();
        // All parts but the last have a fixed length, so no two lists of parts read alike.
        let info = [&ids, from.1.as_bytes().as_slice(), to.1.as_bytes(), cluster.as_bytes()];
        Hkdf::<Sha256>::new(Some(b"tenure datagram 1"), shared.as_bytes())
            .expand_multi_info(&info, &mut *made)
            .expect("HKDF gives that many bytes");
        let (key, hint) = made.split_at(KEY_LEN);
        let cipher = XChaCha20Poly1305::new_from_slice(key).expect("a key of that length");
        Self { cipher, hint: hint.try_into().expect("a hint of that length") }
    }
}

/// What two keys of two nodes make.
#[derive(Clone)]
struct Pair {
    own: usize,
    peer: usize,
    out: Direction,
    back: Direction,
}

#[derive(Clone, Default)]
struct Shared {
    /// When each key of the peer runs out.
    not_after: Vec<u64>,
    pairs: Vec<Pair>,
}

/// Everything that a node can seal with and open with.
#[derive(Clone)]
pub struct Keyring {
    me: NodeId,
    /// When each own key runs out.
    own: Vec<u64>,
    peers: BTreeMap<NodeId, Shared>,
}

impl Keyring {
    /// The keys of this node, each with the second since 1970 in which it is good for the last time, and those of all
    /// others. It computes one shared secret for each pair of keys, which takes a fraction of a millisecond.
    ///
    /// # Errors
    ///
    /// [`KeyError::Weak`] for a public key with which everybody shares one secret.
    pub fn new(
        cluster: &str,
        me: NodeId,
        own: &[(SecretKey, u64)],
        peers: &BTreeMap<NodeId, Vec<Listed>>,
    ) -> Result<Self, KeyError> {
        let mut ring = Self {
            me,
            own: own.iter().map(|(_, not_after)| *not_after).collect(),
            peers: BTreeMap::new(),
        };
        for (&peer, listed) in peers.iter().filter(|&(&peer, _)| peer != me) {
            let mut shared = Shared::default();
            for (at, Listed { public, not_after }) in listed.iter().enumerate() {
                shared.not_after.push(*not_after);
                for (own, (secret, _)) in own.iter().enumerate() {
                    let common = secret.shared_with(public).ok_or(KeyError::Weak)?;
                    let (mine, theirs) = ((me, &secret.public()), (peer, public));
                    shared.pairs.push(Pair {
                        own,
                        peer: at,
                        out: Direction::new(&common, cluster, mine, theirs),
                        back: Direction::new(&common, cluster, theirs, mine),
                    });
                }
            }
            ring.peers.insert(peer, shared);
        }
        Ok(ring)
    }

    fn to_send(&self, peer: NodeId, now: u64) -> Option<&Direction> {
        let shared = self.peers.get(&peer)?;
        let own = current(self.own.iter().copied(), now)?;
        let theirs = current(shared.not_after.iter().copied(), now)?;
        let pair = shared.pairs.iter().find(|pair| (pair.own, pair.peer) == (own, theirs))?;
        Some(&pair.out)
    }
}

impl Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self.peers.keys().collect();
        f.debug_struct("Keyring")
            .field("me", &self.me)
            .field("peers", &peers)
            .finish_non_exhaustive()
    }
}

// -------------------------------------------------------------------------------------------------
// The seal
// -------------------------------------------------------------------------------------------------

/// What is known of the datagrams from and to one peer.
#[derive(Default)]
struct Traffic {
    /// How many were sealed: the next one's counter.
    sealed: u64,
    opened: Window,
}

/// The seal of one life of a node. It is no value that could be copied: a copy would use its nonces again.
pub struct Sealed {
    keyring: Keyring,
    boot: Boot,
    now: u64,
    traffic: BTreeMap<NodeId, Traffic>,
}

impl Sealed {
    /// The seal of a node that starts now. The boot id is drawn at random, afresh for each start.
    pub fn new(keyring: Keyring, boot: Boot) -> Self {
        Self { keyring, boot, now: 0, traffic: BTreeMap::new() }
    }
}

impl Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("keyring", &self.keyring).finish_non_exhaustive()
    }
}

//= SPEC SEAL-2
fn nonce(boot: &Boot, incarnation: u32, counter: u64) -> XNonce {
    let mut nonce = XNonce::default();
    nonce[..12].copy_from_slice(boot);
    nonce[12..16].copy_from_slice(&incarnation.to_be_bytes());
    nonce[16..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

impl Seal for Sealed {
    fn overhead(&self) -> usize {
        FRONT_LEN + TAG_LEN
    }

    fn may_leave_the_machine(&self) -> bool {
        true
    }

    //= SPEC SEAL-3
    fn seal(&mut self, header: &Header, body: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let to = header.destination;
        let Direction { cipher, hint } =
            self.keyring.to_send(to, self.now).ok_or(SealError::NoKey)?;
        let traffic = self.traffic.entry(to).or_default();
        let counter = traffic.sealed;
        traffic.sealed += 1;
        let mut sealed = Vec::with_capacity(FRONT_LEN + body.len() + TAG_LEN);
        sealed.extend_from_slice(hint);
        sealed.extend_from_slice(&self.boot);
        sealed.extend_from_slice(&counter.to_be_bytes());
        sealed.extend_from_slice(&body);
        let nonce = nonce(&self.boot, header.incarnation, counter);
        let buffer = (&mut sealed[FRONT_LEN..]).into();
        let tag = cipher
            .encrypt_inout_detached(&nonce, &header.to_bytes(), buffer)
            .expect("a datagram is shorter than the cipher's limit");
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    //= SPEC SEAL-1
    //= SPEC SEAL-3
    //= SPEC SEAL-4
    //= SPEC SEAL-5
    fn open<'a>(&mut self, header: &Header, body: &'a [u8]) -> Result<Cow<'a, [u8]>, SealError> {
        let split = body.split_first_chunk::<HINT_LEN>().and_then(|(hint, rest)| {
            let (boot, rest) = rest.split_first_chunk()?;
            let (counter, rest) = rest.split_first_chunk()?;
            let (sealed, tag) = rest.split_last_chunk::<TAG_LEN>()?;
            Some((hint, boot, u64::from_be_bytes(*counter), sealed, tag))
        });
        let (hint, boot, counter, sealed, tag) = split.ok_or(SealError::Forged)?;
        let shared = self.keyring.peers.get(&header.source).ok_or(SealError::UnknownKey)?;
        let mut why = SealError::UnknownKey;
        let nonce = nonce(boot, header.incarnation, counter);
        for pair in shared.pairs.iter().filter(|pair| pair.back.hint == *hint) {
            why = SealError::Forged;
            let mut body = sealed.to_vec();
            let opened = pair.back.cipher.decrypt_inout_detached(
                &nonce,
                &header.to_bytes(),
                body.as_mut_slice().into(),
                tag.into(),
            );
            if opened.is_err() {
                continue;
            }
            let not_after = self.keyring.own[pair.own].min(shared.not_after[pair.peer]);
            if not_after < self.now {
                return Err(SealError::RanOut);
            }
            // Only what is proved: otherwise anybody could make the window move.
            let opened = &mut self.traffic.entry(header.source).or_default().opened;
            if !opened.take(header.incarnation, *boot, counter) {
                return Err(SealError::Repeated);
            }
            return Ok(Cow::Owned(body));
        }
        Err(why)
    }

    fn set_time(&mut self, seconds: u64) {
        self.now = seconds;
    }

    //= SPEC SEAL-10
    fn renew(&mut self, keyring: Keyring) {
        debug_assert_eq!(keyring.me, self.keyring.me, "the keys of the same node");
        self.keyring = keyring;
    }
}

#[cfg(test)]
mod tests;
