//! How a ledger lies in rows: a save writes the rows that have changed.
//!
//! | row | value |
//! |---|---|
//! | `a` and a number | an entry of the audit log; never deleted |
//! | `h` | the counters |
//! | `n` and an id | a notice |
//! | `o` and an id | this half is on |
//! | `p` and an id | a peering |
//! | `r` and a region | what is known of another region |
//! | `t` and a number | a call's token, and its result |
//! | `w` and a record's id | a work record |

mod key;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::key::RowKey;
use super::Storage;
use super::audit::{Entry, KEPT};
use super::facts::{from_bytes, to_bytes};
use super::ledger::Ledger;
use super::results::Results;
use crate::durable::Durable;
use crate::packed::{DigestedMap, Filling, Key, Value};
use crate::persistent::PersistentMap;

fn row(kind: u8, key: &impl RowKey) -> Vec<u8> {
    let mut row = vec![kind];
    key.put(&mut row);
    row
}

fn read_key<K: RowKey>(mut bytes: &[u8]) -> Result<K, String> {
    let key = K::take(&mut bytes).filter(|_| bytes.is_empty());
    key.ok_or_else(|| "the key of a row cannot be read".to_owned())
}

/// The row of an entry of the audit log, its key first: for a copy of a log that memory has let go of.
pub fn audit_row(number: u64, entry: &Entry) -> (Vec<u8>, Vec<u8>) {
    (row(b'a', &number), to_bytes(entry))
}

/// Reads the audit log out of a ledger's rows, the oldest entry first. Other rows are passed over.
///
/// # Errors
///
/// If an entry cannot be read.
pub fn read_audit(
    rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<Vec<(u64, Entry)>, String> {
    let mut entries = Vec::new();
    for (key, value) in rows {
        if let [b'a', number @ ..] = key.as_slice() {
            entries.push((read_key(number)?, read(&value)?));
        }
    }
    entries.sort_unstable_by_key(|&(number, _)| number);
    Ok(entries)
}

fn map<K, V>(
    kind: u8,
    after: &PersistentMap<K, V>,
    before: Option<&PersistentMap<K, V>>,
    put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>),
) where
    K: Ord + Clone + RowKey,
    V: Clone + PartialEq + Serialize,
{
    let empty = PersistentMap::default();
    after.difference(before.unwrap_or(&empty), |key, value| {
        put(row(kind, key), value.map(to_bytes));
    });
}

fn packed<K: Key + RowKey, V: Value + PartialEq>(
    kind: u8,
    after: &DigestedMap<K, V>,
    before: Option<&DigestedMap<K, V>>,
    put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>),
) {
    let empty = DigestedMap::default();
    after.difference(before.unwrap_or(&empty), |key, value| {
        put(row(kind, &key), value.map(to_bytes));
    });
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    from_bytes(bytes).ok_or_else(|| "a row cannot be read".to_owned())
}

impl Durable for Storage {
    //= SPEC IRC-1
    fn difference(&self, before: Option<&Self>, put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>)) {
        let Self::Control(after) = self;
        let before = before.map(|Self::Control(before)| before);
        if before.is_none_or(|before| before.head != after.head) {
            put(vec![b'h'], Some(to_bytes(&after.head)));
        }
        let none = PersistentMap::default();
        let audited = before.map_or(&none, |before| &before.audit);
        after.audit.difference(audited, |number, entry| {
            // What memory has let go of stays on disk.
            if let Some(entry) = entry {
                put(row(b'a', number), Some(to_bytes(entry)));
            }
        });
        map(b'n', &after.notices, before.map(|before| &before.notices), put);
        packed(b'o', &after.on, before.map(|before| &before.on), put);
        packed(b'p', &after.peerings, before.map(|before| &before.peerings), put);
        map(b'r', &after.peers, before.map(|before| &before.peers), put);
        let none = Results::default();
        let kept = before.map_or(&none, |before| &before.tokens);
        after.tokens.difference(kept, |number, entry| {
            put(row(b't', &number), entry.map(to_bytes));
        });
        map(b'w', &after.records, before.map(|before| &before.records), put);
    }

    fn restore(rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Option<Self>, String> {
        let mut ledger = Ledger::default();
        let (mut on, mut peerings, mut tokens) =
            (Filling::default(), Filling::default(), Filling::default());
        let mut head = None;
        let mut any = false;
        for (key, value) in rows {
            any = true;
            match key.as_slice() {
                b"h" => head = Some(read(&value)?),
                [b'a', number @ ..] => {
                    let number: u64 = read_key(number)?;
                    ledger.audit.insert(number, read(&value)?);
                    // In order, and only the last ones.
                    if let Some(old) = number.checked_sub(KEPT) {
                        ledger.audit.remove(&old);
                    }
                }
                [b'n', key @ ..] => drop(ledger.notices.insert(read_key(key)?, read(&value)?)),
                [b'o', key @ ..] => on.insert(read_key(key)?, read(&value)?),
                [b'p', key @ ..] => peerings.insert(read_key(key)?, read(&value)?),
                [b'r', key @ ..] => drop(ledger.peers.insert(read_key(key)?, read(&value)?)),
                [b't', key @ ..] => match read_key(key)? {
                    u64::MAX => {
                        return Err("the result of a call has a number after which there is none"
                            .to_owned());
                    }
                    number => tokens.insert(number, read(&value)?),
                },
                [b'w', key @ ..] => drop(ledger.records.insert(read_key(key)?, read(&value)?)),
                _ => return Err(format!("a row has the unknown key {key:02x?}")),
            }
        }
        match head {
            Some(head) => {
                ledger.head = head;
                ledger.on = on.finish().into();
                ledger.peerings = peerings.finish().into();
                ledger.tokens = tokens.finish().into();
                Ok(Some(Self::Control(ledger)))
            }
            None if any => Err("the rows have no head".to_owned()),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::irc::audit::Cause;
    use crate::irc::facts::{
        Account, Block, Decided, Decision, Incarnation, Network, OpId, Options, Region, Requested,
        Sealed, Target, Version,
    };
    use crate::irc::ledger::{Head, Kept, Link, Lost, Peer, Record, Recovered, Watermark};
    use crate::irc::msg::{Answer, Command, Kind, RecordId, RecordVerb};
    use crate::irc::notice::Notice;
    use crate::irc::peering::{Label, Peering, Side};

    /// A ledger that has every kind of row, and no two numbers alike that could be taken for each other.
    fn ledger() -> Ledger {
        let id = |seq| OpId { requester: Region(1), n: 2, seq };
        let version = |counter| Version { n: 2, counter };
        let options = |counter| Options { version: version(counter), resolve_names: counter == 9 };
        let target = Target { region: Region(3), account: Account(4), network: Network(5) };
        let block = Block { address: 0x0a01_0000, prefix: 16 };
        let requested = Requested {
            account: Account(6),
            network: Network(7),
            block,
            target,
            token: 8,
            deleted: true,
            options: options(9),
        };
        let decision = Some(Decision::Accepted);
        let decided =
            Decided { deadline: Some(10), decision, deleted: false, options: options(11) };
        let peering = Peering {
            decided: Sealed { facts: decided, seal: 12 },
            next_op: 13,
            seen: Some((14, 15)),
            confirmed: true,
            terminal: Some(Label::Deleted),
            dead_since: Some(16),
            ..Peering::new(Side::Requester, Sealed { facts: requested, seal: 17 })
        };
        let recovered = Recovered { decision: true, ..Recovered::default() };
        let peer = Peer {
            floor: Some(Incarnation { n: 18, life: 19 }),
            link: Link::Syncing { nonce: 20, after: Some(id(21)), closed: vec![(22, 23)] },
            seen: [(24, Watermark { low: 25, above: BTreeSet::from([27]) })].into(),
            disposed: false,
            lost: Lost {
                recovered: BTreeMap::from([(id(28), recovered)]),
                refused: BTreeSet::from([id(29)]),
                window: (30, 31),
                since: 65,
            },
        };
        let record = Record {
            remote: Region(3),
            kind: Kind::PEERING,
            id: id(32),
            verb: RecordVerb::Delete,
            op: 33,
            lost: 2,
            parked: true,
            since: 34,
        };
        let entry = Entry {
            at: 35,
            incarnation: Incarnation { n: 36, life: 37 },
            id: Some(id(38)),
            from: Some(Label::PendingAcceptance),
            to: Some(Label::Provisioning),
            cause: Cause::Operator(Command::Dispose(Region(3))),
            before: [39; 32],
        };
        let kept = Kept {
            params: 40,
            result: Answer::Version { id: id(41), version: version(42) },
            at: 43,
        };
        let mut ledger = Ledger {
            head: Head {
                incarnation: Incarnation { n: 44, life: 45 },
                start: 46,
                clock: 47,
                born: BTreeMap::from([(48, 49)]),
                over: BTreeSet::from([id(64)]),
                next_record: 50,
                next_nonce: 51,
                drained: false,
                held: true,
                audited: (53, [54; 32]),
            },
            ..Ledger::default()
        };
        ledger.notices.insert(id(55), Notice { to: Region(3), value: 56, version: (57, 58) });
        ledger.on.insert(id(59), ());
        ledger.peerings.insert(id(60), peering);
        ledger.peers.insert(Region(3), peer);
        ledger.tokens.push(61, kept);
        ledger.records.insert(RecordId { n: 62, seq: 63 }, record);
        ledger.audit.insert(52, entry);
        ledger
    }

    /// A change of any of these bytes is a change of the format of the storage: give it a new number there.
    const ROWS: [(&str, &str); 8] = [
        (
            "68",
            "2c2d2e2f0130310101024032330001353636363636363636363636363636363636363636363636363636363636363636",
        ),
        (
            "610134",
            "23242501010226010101020400032727272727272727272727272727272727272727272727272727272727272727",
        ),
        ("6e010101020137", "0338393a"),
        ("6f01010102013b", ""),
        (
            "7001010102013c",
            "0006078080845010030405080102090111010a010000020b000c0d010e0f010105011000",
        ),
        ("720103", "011213021401010215011617011819011b000101021c000100000101021d1e1f41"),
        ("7400", "3d2801010229022a2b"),
        ("77013e013f", "03010102200021020122"),
    ];

    #[test]
    fn the_rows_of_a_ledger_are_these_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut rows = Vec::new();
        Storage::Control(ledger()).difference(None, &mut |key, value| {
            rows.push((key, value.expect("all is new")));
        });
        let told: Vec<_> = rows.iter().map(|(key, value)| (hex(key), hex(value))).collect();
        let told: Vec<_> = told.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(told, ROWS);
        let read = Storage::restore(&mut rows.into_iter()).expect("they can be read");
        assert_eq!(read, Some(Storage::Control(ledger())));
    }

    #[test]
    fn rows_that_nobody_can_have_written_are_refused() {
        let mut rows = Vec::new();
        Storage::Control(ledger()).difference(None, &mut |key, value| {
            rows.push((key, value.expect("all is new")));
        });
        let result = rows.iter().position(|(key, _)| key[0] == b't').expect("there is one");
        let last = [vec![b't', 8], vec![255; 8]].concat();
        for key in [last, vec![b't'], vec![b't', 1], vec![b't', 1, 0], vec![b't', 0, 0], vec![b'?']]
        {
            let mut rows = rows.clone();
            rows[result].0.clone_from(&key);
            assert!(Storage::restore(&mut rows.into_iter()).is_err(), "{key:?}");
        }
    }
}
