//! How a ledger lies in rows: a save writes the rows that have changed.
//!
//! | row | value |
//! |---|---|
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
