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
//! | `t` and a hash | the result of a call |
//! | `w` and a record's id | a work record |

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Storage;
use super::audit::{Entry, KEPT};
use super::facts::{from_bytes, to_bytes};
use super::ledger::Ledger;
use crate::durable::Durable;
use crate::persistent::PersistentMap;

/// Keys are postcard forms: an order that no reader relies on, since a ledger is read whole.
fn row<K: Serialize>(kind: u8, key: &K) -> Vec<u8> {
    let mut row = vec![kind];
    row.extend(to_bytes(key));
    row
}

/// These are in the order of their numbers.
fn audit_key(number: u64) -> Vec<u8> {
    let mut row = vec![b'a'];
    row.extend(number.to_be_bytes());
    row
}

/// The row of an entry of the audit log, its key first: for a copy of a log that memory has let go of.
pub fn audit_row(number: u64, entry: &Entry) -> (Vec<u8>, Vec<u8>) {
    (audit_key(number), to_bytes(entry))
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
            let number = number.try_into().map_err(|_| "a row of the audit log has no number")?;
            entries.push((u64::from_be_bytes(number), read(&value)?));
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
    K: Ord + Clone + Serialize,
    V: Clone + PartialEq + Serialize,
{
    let empty = PersistentMap::default();
    after.difference(before.unwrap_or(&empty), |key, value| {
        put(row(kind, key), value.map(to_bytes));
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
                put(audit_key(*number), Some(to_bytes(entry)));
            }
        });
        map(b'n', &after.notices, before.map(|before| &before.notices), put);
        map(b'o', &after.on, before.map(|before| &before.on), put);
        map(b'p', &after.peerings, before.map(|before| &before.peerings), put);
        map(b'r', &after.peers, before.map(|before| &before.peers), put);
        map(b't', &after.tokens, before.map(|before| &before.tokens), put);
        map(b'w', &after.records, before.map(|before| &before.records), put);
    }

    fn restore(rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Option<Self>, String> {
        let mut ledger = Ledger::default();
        let mut head = None;
        let mut any = false;
        for (key, value) in rows {
            any = true;
            match key.as_slice() {
                b"h" => head = Some(read(&value)?),
                [b'a', number @ ..] => {
                    let number: [u8; 8] =
                        number.try_into().map_err(|_| "a row of the audit log has no number")?;
                    let number = u64::from_be_bytes(number);
                    ledger.audit.insert(number, read(&value)?);
                    // In order, and only the last ones.
                    if let Some(old) = number.checked_sub(KEPT) {
                        ledger.audit.remove(&old);
                    }
                }
                [b'n', key @ ..] => drop(ledger.notices.insert(read(key)?, read(&value)?)),
                [b'o', key @ ..] => drop(ledger.on.insert(read(key)?, read(&value)?)),
                [b'p', key @ ..] => drop(ledger.peerings.insert(read(key)?, read(&value)?)),
                [b'r', key @ ..] => drop(ledger.peers.insert(read(key)?, read(&value)?)),
                [b't', key @ ..] => drop(ledger.tokens.insert(read(key)?, read(&value)?)),
                [b'w', key @ ..] => drop(ledger.records.insert(read(key)?, read(&value)?)),
                _ => return Err(format!("a row has the unknown key {key:02x?}")),
            }
        }
        match head {
            Some(head) => {
                ledger.head = head;
                Ok(Some(Self::Control(ledger)))
            }
            None if any => Err("the rows have no head".to_owned()),
            None => Ok(None),
        }
    }
}
