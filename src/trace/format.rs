//! What the lines of a trace say: `docs/TRACE.md` in types.

use serde::{Deserialize, Serialize};
use stateright::actor::Actor;

/// The version of the form. A file of another version is refused.
pub const FORMAT: u32 = 1;

/// 64 bits that are compared and not computed with, as 16 hexadecimal digits: JSON's numbers are not
/// that long everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub u64);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl serde::de::Visitor<'_> for Digits {
            type Value = Hex;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("16 hexadecimal digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hex, E> {
                if text.len() != 16 {
                    return Err(E::custom("a digest has 16 hexadecimal digits"));
                }
                u64::from_str_radix(text, 16).map(Hex).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// The first line of each life of a node: everything that is needed to make its actors again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    bound(serialize = "A: Serialize", deserialize = "A: Deserialize<'de>"),
    deny_unknown_fields
)]
pub struct Header<A> {
    /// [`FORMAT`].
    pub tenure_trace: u32,
    /// The release that wrote it.
    pub version: String,
    /// The protocol.
    pub protocol: String,
    /// The cluster.
    pub cluster: String,
    /// The node's id: its place among `nodes`.
    pub node: u16,
    /// How many nodes the cluster has.
    pub nodes: u16,
    /// The incarnation in this life's datagrams.
    pub incarnation: u32,
    /// The clock of `at` and `due`. Nodes with one and the same name of a clock read the same clock.
    pub clock: Clock,
    /// Whether the node has storage that outlives it.
    pub durable: bool,
    /// Its actors.
    pub actors: Vec<(u16, A)>,
}

/// A node's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Its name: a machine and one boot of it.
    pub name: String,
    /// What it read when the life began.
    pub at: u64,
    /// The time of day then, in nanoseconds since 1970: it only helps to put the steps of several
    /// machines side by side, and decides nothing.
    pub wall: u64,
}

/// One step of one actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    bound(
        serialize = "M: Serialize, T: Serialize, R: Serialize",
        deserialize = "M: Deserialize<'de>, T: Deserialize<'de>, R: Deserialize<'de>"
    ),
    deny_unknown_fields
)]
pub struct Step<M, T, R> {
    /// Counts the steps of this life, from 0.
    pub i: u64,
    /// The lease.
    pub lease: u16,
    /// The time from which the step's timers count, by the node's clock, in nanoseconds.
    pub at: u64,
    /// The time of the simulator that ran the node, which no node can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sim: Option<u64>,
    /// The newest save that is known to be durable.
    pub durable: u64,
    /// What happened.
    #[serde(rename = "in")]
    pub input: Heard<M, T, R>,
    /// What it saves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<Saved>,
    /// What it does to timers, in order.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerChange<T>>,
    /// The choices that it asks for.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<(String, Vec<R>)>,
    /// What it sends, in order.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<Sent<M>>,
    /// When the permission that it shows ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// The digest of the state before; zero before a start.
    pub pre: Hex,
    /// The digest of the state after.
    pub post: Hex,
}

/// The step type of one actor.
pub type StepOf<A> = Step<<A as Actor>::Msg, <A as Actor>::Timer, <A as Actor>::Random>;

/// An input, with what only the node knows of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Heard<M, T, R> {
    /// The actor starts, with what its storage holds: rows of key and value, in hexadecimal.
    Start {
        /// The rows; none if nothing was ever saved.
        rows: Option<Vec<(String, String)>>,
    },
    /// A datagram arrives.
    Deliver {
        /// From which node.
        src: u16,
        /// Of which of its lives.
        inc: u32,
        /// Which datagram of that life.
        seq: u32,
        /// What it says.
        msg: M,
    },
    /// A message of the actor to itself comes back.
    Own {
        /// Which.
        msg: M,
    },
    /// Somebody inside the node says something.
    Told {
        /// What.
        msg: M,
    },
    /// A timer runs out.
    Fire {
        /// Which.
        timer: T,
        /// When it had to.
        due: u64,
    },
    /// A choice is made.
    Choose {
        /// Which.
        choice: R,
    },
}

/// What a step saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// How often it asks for that.
    pub count: u32,
    /// The number of the last save; none if nothing that is stored has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The digest of what is saved last.
    pub digest: Hex,
}

/// What a step does to a timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TimerChange<T> {
    /// Arms it.
    Set {
        /// Which.
        timer: T,
        /// The shortest time that was asked for, in nanoseconds.
        lo: u64,
        /// The longest.
        hi: u64,
        /// When it runs out, by the node's clock.
        due: u64,
    },
    /// Disarms it.
    Cancel(T),
}

/// What a step sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent<M> {
    /// To which node.
    pub to: u16,
    /// The datagram's number; none for a message to the node itself, and for one that cannot be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    /// What.
    pub msg: M,
}

/// The last line of a life that ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// When, by the node's clock.
    pub stop: u64,
}

/// Bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// And back; none if it is not an even number of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks_exact(2) {
        bytes.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_to_hexadecimal_and_back() {
        assert_eq!(to_hex(&[0, 0xab, 255]), "00abff");
        assert_eq!(from_hex("00abff"), Some(vec![0, 0xab, 255]));
        for wrong in ["0", "0g", "+f", "é"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_digest_is_sixteen_digits() {
        let json = serde_json::to_string(&Hex(0xff)).unwrap();
        assert_eq!(json, "\"00000000000000ff\"");
        assert_eq!(serde_json::from_str::<Hex>(&json).unwrap(), Hex(0xff));
        for wrong in ["\"ff\"", "\"+0000000000000ff\"", "255", "\"000000000000zzzz\""] {
            let read = serde_json::from_str::<Hex>(wrong);
            assert!(read.is_err() || wrong.contains('+'), "{wrong}");
        }
    }
}
