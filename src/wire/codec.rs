//! Datagrams to values and back. Decoding is total: every sequence of bytes is a message or an error.

use serde::Serialize;

use super::{Message, Seal};
use crate::lease::record::NodeId;

/// The most bytes a datagram may have. It passes every path that carries IPv6 (1,280 bytes less the
/// IP and UDP headers) without being split; a split datagram is lost when any of its parts is.
pub const DATAGRAM_MAX: usize = 1200;

/// How many bytes the header has.
pub const HEADER_LEN: usize = 16;

/// The first three bytes of every datagram.
pub const MAGIC: [u8; 3] = *b"tnr";

/// The version of the wire format. Another version is refused: its bodies may mean something else.
pub const VERSION: u8 = 1;

/// Where a datagram comes from and goes to, and which one it is.
///
/// Source, incarnation and sequence together name a datagram: no other has the same three, until a
/// node has sent 2^32 datagrams in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Header {
    /// The node that sent it, as the sender says.
    pub source: NodeId,
    /// The node that it is for.
    pub destination: NodeId,
    /// Counts the starts of the source.
    pub incarnation: u32,
    /// Counts the datagrams of that incarnation, from 0. It wraps.
    pub sequence: u32,
}

impl Header {
    /// The header as it is sent.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..3].copy_from_slice(&MAGIC);
        bytes[3] = VERSION;
        bytes[4..6].copy_from_slice(&self.source.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.destination.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// Reads the header at the front of a datagram, and gives what follows it.
    ///
    /// A receiver reads the header alone first, to find out whether it knows the source at all,
    /// before it spends anything on the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Oversize`], [`DecodeError::Truncated`], [`DecodeError::Magic`] or
    /// [`DecodeError::Version`].
    pub fn read(datagram: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        if datagram.len() > DATAGRAM_MAX {
            return Err(DecodeError::Oversize);
        }
        let Some((header, body)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::Truncated);
        };
        let [m0, m1, m2, version, s0, s1, d0, d1, i0, i1, i2, i3, q0, q1, q2, q3] = *header;
        if [m0, m1, m2] != MAGIC {
            return Err(DecodeError::Magic);
        }
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let header = Self {
            source: NodeId(u16::from_be_bytes([s0, s1])),
            destination: NodeId(u16::from_be_bytes([d0, d1])),
            incarnation: u32::from_be_bytes([i0, i1, i2, i3]),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
        };
        Ok((header, body))
    }
}

/// Gives the datagrams of one life of a node their headers.
#[derive(Clone, Debug)]
pub struct Headers {
    source: NodeId,
    incarnation: u32,
    sequence: u32,
}

impl Headers {
    /// The headers of this life of this node. The incarnation must be durable before the first one
    /// is used, or a restart could give two datagrams one name.
    pub fn new(source: NodeId, incarnation: u32) -> Self {
        Self { source, incarnation, sequence: 0 }
    }

    /// The header of the next datagram, to this node.
    pub fn next(&mut self, destination: NodeId) -> Header {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Header { source: self.source, destination, incarnation: self.incarnation, sequence }
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The datagram would be longer than [`DATAGRAM_MAX`].
    #[error("the message needs {size} bytes and a datagram has {max}: shorten its texts")]
    Oversize {
        /// How many bytes the datagram would have, the seal's included.
        size: usize,
        /// [`DATAGRAM_MAX`].
        max: usize,
    },
    /// The message's type has no postcard form.
    #[error("the message cannot be written down ({0}): its type must be plain data")]
    Body(String),
    /// There is no key for its destination.
    #[error(transparent)]
    Seal(#[from] super::SealError),
}

/// Why a datagram is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not a message.
    #[error(
        "the body is not a message: the sender runs another release, or the datagram is damaged"
    )]
    Body,
    /// A value is outside the bounds that the protocol gives it.
    #[error("a value in the message is out of its bounds: the sender does not follow the protocol")]
    Illegal,
    /// It does not begin as our datagrams do.
    #[error("the datagram is not one of ours: something else sends to this port")]
    Magic,
    /// It is for another node.
    #[error("the datagram is for node {}: compare the address books of sender and receiver", .0.0)]
    Misdirected(NodeId),
    /// It is longer than [`DATAGRAM_MAX`].
    #[error("the datagram is longer than {DATAGRAM_MAX} bytes: it is not one of ours")]
    Oversize,
    /// The seal does not open, or the datagram has come before.
    #[error(transparent)]
    Seal(#[from] super::SealError),
    /// Bytes follow the message.
    #[error("bytes follow the message: the sender runs another release")]
    Trailing,
    /// It ends before the header does.
    #[error("the datagram ends before its header does")]
    Truncated,
    /// It has another version of the format.
    #[error("the datagram has format {0}, this node reads {VERSION}: run one release on all nodes")]
    Version(u8),
}

/// Writes a message about one lease as a sealed datagram.
///
/// # Errors
///
/// [`EncodeError::Oversize`] if it does not fit a datagram, and nothing is cut off to make it fit;
/// [`EncodeError::Seal`] if there is no key for its destination.
pub fn encode<M: Message>(
    header: &Header,
    lease: u16,
    msg: &M,
    seal: &mut dyn Seal,
) -> Result<Vec<u8>, EncodeError> {
    let body = body_to_bytes(lease, msg)?;
    let size = HEADER_LEN + body.len() + seal.overhead();
    if size > DATAGRAM_MAX {
        return Err(EncodeError::Oversize { size, max: DATAGRAM_MAX });
    }
    let mut datagram = Vec::with_capacity(size);
    datagram.extend_from_slice(&header.to_bytes());
    datagram.append(&mut seal.seal(header, body)?);
    debug_assert_eq!(datagram.len(), size, "the seal adds what it says");
    Ok(datagram)
}

fn body_to_bytes<M: Serialize>(lease: u16, msg: &M) -> Result<Vec<u8>, EncodeError> {
    postcard::to_stdvec(&(lease, msg)).map_err(|error| EncodeError::Body(error.to_string()))
}

/// Reads a datagram for this node: its header, the lease that it is about, and the message.
///
/// # Errors
///
/// Says why the bytes are not a message for this node. It never panics, allocates no more than a
/// few times the datagram's own length, and gives no message that [`Message::is_legal`] refuses.
//= SPEC TIME-14
pub fn decode<M: Message>(
    me: NodeId,
    datagram: &[u8],
    seal: &mut dyn Seal,
) -> Result<(Header, u16, M), DecodeError> {
    let (header, lease, msg) = decode_illegal::<M>(me, datagram, seal)?;
    if !msg.is_legal() {
        return Err(DecodeError::Illegal);
    }
    Ok((header, lease, msg))
}

/// The same, with messages that [`Message::is_legal`] refuses: what no honest actor says. For simulations of
/// actors that leave out a rule.
pub(crate) fn decode_illegal<M: Message>(
    me: NodeId,
    datagram: &[u8],
    seal: &mut dyn Seal,
) -> Result<(Header, u16, M), DecodeError> {
    let (header, sealed) = Header::read(datagram)?;
    if header.destination != me {
        return Err(DecodeError::Misdirected(header.destination));
    }
    let body = seal.open(&header, sealed)?;
    let ((lease, msg), rest) =
        postcard::take_from_bytes::<(u16, M)>(&body).map_err(|_| DecodeError::Body)?;
    // Bytes that nobody reads could carry anything past whoever checks the message.
    if !rest.is_empty() {
        return Err(DecodeError::Trailing);
    }
    Ok((header, lease, msg))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::lease::msg::{Entry, EntryId, Msg, RequestId, TEXT_MAX};
    use crate::lease::record::{Claim, Expect, Holder, NodeSet, Nonce, Record};
    use crate::wire::{COUNT_MAX, Plain};

    const HEADER: Header =
        Header { source: NodeId(1), destination: NodeId(2), incarnation: 7, sequence: 9 };

    fn count() -> impl Strategy<Value = u64> {
        0..=COUNT_MAX
    }

    fn node() -> impl Strategy<Value = NodeId> {
        (0..NodeId::LIMIT).prop_map(NodeId)
    }

    fn nonce() -> impl Strategy<Value = Nonce> {
        (node(), count(), count())
            .prop_map(|(node, incarnation, n)| Nonce { by: Holder { node, incarnation }, n })
    }

    fn claim() -> impl Strategy<Value = Claim> {
        (
            proptest::option::of((node(), count())),
            count(),
            (0..=365 * 86_400_000_u64).prop_map(Duration::from_millis),
            proptest::collection::vec(node(), 0..5),
        )
            .prop_map(|(holder, epoch, lease, in_sync)| Claim {
                holder: holder.map(|(node, incarnation)| Holder { node, incarnation }),
                epoch,
                lease,
                in_sync: in_sync.into_iter().collect::<NodeSet>(),
            })
    }

    fn record() -> impl Strategy<Value = Record> {
        (count(), nonce(), claim()).prop_map(|(version, nonce, claim)| Record {
            version,
            nonce,
            claim,
        })
    }

    fn request() -> impl Strategy<Value = RequestId> {
        (node(), count(), count()).prop_map(|(client, incarnation, n)| RequestId {
            client,
            incarnation,
            n,
        })
    }

    fn text() -> impl Strategy<Value = String> {
        // Up to four bytes each, so that the length in bytes stays within the bound.
        proptest::collection::vec(any::<char>(), 0..=TEXT_MAX / 4).prop_map(String::from_iter)
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (count(), request(), text(), text()).prop_map(|(epoch, request, key, value)| Entry {
            epoch,
            request,
            key,
            value,
        })
    }

    fn msg() -> impl Strategy<Value = Msg> {
        let expect = count().prop_map(Expect::Version);
        prop_oneof![
            nonce().prop_map(|nonce| Msg::Read { nonce }),
            (nonce(), record()).prop_map(|(nonce, record)| Msg::ReadOk { nonce, record }),
            (nonce(), expect, claim()).prop_map(|(nonce, expect, claim)| Msg::Write {
                nonce,
                expect,
                claim
            }),
            (nonce(), record()).prop_map(|(nonce, record)| Msg::Written { nonce, record }),
            (nonce(), record()).prop_map(|(nonce, record)| Msg::Conflict { nonce, record }),
            count().prop_map(|version| Msg::Changed { version }),
            (node(), count()).prop_map(|(target, epoch)| Msg::HandOver { target, epoch }),
            count().prop_map(|epoch| Msg::StepDown { epoch }),
            record().prop_map(|record| Msg::Consent { record }),
            count().prop_map(|epoch| Msg::Stopped { epoch }),
            (request(), text(), text()).prop_map(|(request, key, value)| Msg::Apply {
                request,
                key,
                value
            }),
            (request(), count(), count()).prop_map(|(request, epoch, seq)| Msg::Applied {
                request,
                epoch,
                seq
            }),
            (request(), proptest::option::of(node()))
                .prop_map(|(request, holder)| Msg::Refused { request, holder }),
            (count(), (count(), count()), proptest::option::of((count(), entry())), count())
                .prop_map(|(epoch, prev, entry, committed)| Msg::Replicate {
                    epoch,
                    prev: EntryId { seq: prev.0, epoch: prev.1 },
                    entry,
                    committed
                }),
            (count(), count()).prop_map(|(epoch, matched)| Msg::Replicated { epoch, matched }),
            (count(), count()).prop_map(|(epoch, committed)| Msg::Behind { epoch, committed }),
            (count(), count()).prop_map(|(epoch, fence)| Msg::Fenced { epoch, fence }),
            (text(), text()).prop_map(|(key, value)| Msg::Submit { key, value }),
        ]
    }

    fn header() -> impl Strategy<Value = Header> {
        (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
            |(source, destination, incarnation, sequence)| Header {
                source: NodeId(source),
                destination: NodeId(destination),
                incarnation,
                sequence,
            },
        )
    }

    fn body(bytes: &[u8]) -> Vec<u8> {
        [HEADER.to_bytes().as_slice(), bytes].concat()
    }

    #[test]
    fn the_header_is_what_the_documentation_draws() {
        let bytes = HEADER.to_bytes();
        assert_eq!(bytes, *b"tnr\x01\x00\x01\x00\x02\x00\x00\x00\x07\x00\x00\x00\x09");
    }

    #[test]
    fn a_message_too_large_is_refused_and_not_cut() {
        let long = Msg::Submit { key: "k".repeat(DATAGRAM_MAX), value: String::new() };
        let error = encode(&HEADER, 0, &long, &mut Plain).unwrap_err();
        assert!(matches!(error, EncodeError::Oversize { size, max } if size > max), "{error}");
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = encode(&HEADER, 3, &Msg::Changed { version: 300 }, &mut Plain).unwrap();
        let read = |bytes: &[u8]| decode::<Msg>(NodeId(2), bytes, &mut Plain).unwrap_err();
        let mut other_version = good.clone();
        other_version[3] = 9;
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(read(&good[..15]), DecodeError::Truncated);
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), DecodeError::Magic);
        assert_eq!(read(&other_version), DecodeError::Version(9));
        assert_eq!(read(&trailing), DecodeError::Trailing);
        assert_eq!(read(&good[..good.len() - 1]), DecodeError::Body);
        assert_eq!(read(&body(&[0, 200])), DecodeError::Body);
        assert_eq!(read(&[0; DATAGRAM_MAX + 1]), DecodeError::Oversize);
        assert_eq!(
            decode::<Msg>(NodeId(5), &good, &mut Plain).unwrap_err(),
            DecodeError::Misdirected(NodeId(2))
        );
    }

    #[test]
    fn values_out_of_bounds_do_not_reach_an_actor() {
        let far = Msg::HandOver { target: NodeId(NodeId::LIMIT), epoch: 1 };
        let long = Msg::Submit { key: "k".repeat(TEXT_MAX + 1), value: String::new() };
        for msg in [far, long] {
            let datagram = encode(&HEADER, 0, &msg, &mut Plain).unwrap();
            let error = decode::<Msg>(NodeId(2), &datagram, &mut Plain).unwrap_err();
            assert_eq!(error, DecodeError::Illegal);
        }
    }

    #[test]
    fn a_length_beyond_the_datagram_costs_nothing() {
        // Submit with a key that says it has four gigabytes.
        let bytes = body(&[0, 17, 0xff, 0xff, 0xff, 0xff, 0x0f, b'k']);
        assert_eq!(decode::<Msg>(NodeId(2), &bytes, &mut Plain).unwrap_err(), DecodeError::Body);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(header in header(), lease: u16, msg in msg()) {
            let datagram = encode(&header, lease, &msg, &mut Plain).unwrap();
            let decoded = decode::<Msg>(header.destination, &datagram, &mut Plain);
            prop_assert_eq!(decoded, Ok((header, lease, msg)));
        }

        //= SPEC TIME-14 test
        #[test]
        fn any_bytes_are_a_message_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..1300)
        ) {
            let _ = decode::<Msg>(NodeId(2), &bytes, &mut Plain);
            let _ = decode::<Msg>(NodeId(2), &body(&bytes), &mut Plain);
        }

        #[test]
        fn a_cut_datagram_is_never_a_message(msg in msg(), cut: prop::sample::Index) {
            let datagram = encode(&HEADER, 1, &msg, &mut Plain).unwrap();
            let cut = &datagram[..cut.index(datagram.len())];
            prop_assert!(decode::<Msg>(NodeId(2), cut, &mut Plain).is_err());
        }

        #[test]
        fn a_flipped_bit_never_panics(msg in msg(), at: prop::sample::Index, bit in 0u8..8) {
            let mut datagram = encode(&HEADER, 1, &msg, &mut Plain).unwrap();
            let at = at.index(datagram.len());
            datagram[at] ^= 1u8 << bit;
            if let Ok((header, lease, msg)) = decode::<Msg>(NodeId(2), &datagram, &mut Plain) {
                // Whatever it has become, it is a message like any other, and can be sent on.
                prop_assert!(encode(&header, lease, &msg, &mut Plain).is_ok());
            }
        }
    }
}
