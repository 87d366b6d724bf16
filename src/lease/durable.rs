//! How a member's storage lies in rows.
//!
//! | row | value |
//! |---|---|
//! | `c` | a client's incarnation |
//! | `h` | a host's incarnation |
//! | `l` and the position, big endian | one entry of the history |
//! | `r` | the store's record |
//! | `t` | the table's fence, and up to where it is committed |

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Storage;
use super::host::HostStorage;
use super::msg::{Entry, Seq};
use super::record::{Epoch, Record};
use super::replica::Table;
use crate::durable::Durable;
use crate::persistent::PersistentMap;

impl Durable for Storage {
    fn difference(&self, before: Option<&Self>, put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>)) {
        match self {
            Self::Client(incarnation) => put_if_new(b"c", incarnation, before.map(client), put),
            Self::Store(record) => put_if_new(b"r", record, before.map(store), put),
            Self::Host(host) => {
                let before = before.map(|before| match before {
                    Self::Host(before) => before,
                    _ => panic!("a member keeps its role"),
                });
                put_if_new(b"h", &host.incarnation, before.map(|host| &host.incarnation), put);
                if let Some(table) = &host.table {
                    table_difference(table, before.and_then(|host| host.table.as_ref()), put);
                }
            }
        }
    }

    fn restore(rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Option<Self>, String> {
        let mut client = None;
        let mut incarnation = None;
        let mut log: PersistentMap<Seq, Entry> = PersistentMap::default();
        let mut record = None;
        let mut bounds: Option<(Epoch, Seq)> = None;
        for (key, value) in rows {
            match key.as_slice() {
                b"c" => client = Some(read(&value)?),
                b"h" => incarnation = Some(read(&value)?),
                b"r" => record = Some(read::<Record>(&value)?),
                b"t" => bounds = Some(read(&value)?),
                [b'l', seq @ ..] => {
                    let seq = seq.try_into().map_err(|_| "a row of the history has no position")?;
                    log.insert(Seq::from_be_bytes(seq), read(&value)?);
                }
                _ => return Err(format!("a row has the unknown key {key:02x?}")),
            }
        }
        match (client, incarnation, record) {
            (None, None, None) if bounds.is_none() && log.is_empty() => Ok(None),
            (Some(incarnation), None, None) => Ok(Some(Self::Client(incarnation))),
            (None, None, Some(record)) => Ok(Some(Self::Store(record))),
            (None, Some(incarnation), None) => {
                let table = bounds.map(|(fence, committed)| Table::restore(fence, committed, log));
                Ok(Some(Self::Host(HostStorage { incarnation, resumed: None, table })))
            }
            _ => Err("the rows belong to more than one role, or to none".to_owned()),
        }
    }
}

fn client(storage: &Storage) -> &u64 {
    match storage {
        Storage::Client(incarnation) => incarnation,
        _ => panic!("a member keeps its role"),
    }
}

fn store(storage: &Storage) -> &Record {
    match storage {
        Storage::Store(record) => record,
        _ => panic!("a member keeps its role"),
    }
}

fn table_difference(
    table: &Table,
    before: Option<&Table>,
    put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>),
) {
    let bounds = (table.fence, table.committed);
    let bounds_before = before.map(|before| (before.fence, before.committed));
    put_if_new(b"t", &bounds, bounds_before.as_ref(), put);
    let empty = PersistentMap::default();
    let log_before = before.map_or(&empty, |before| &before.log);
    table.log.difference(log_before, |seq, entry| {
        let mut key = vec![b'l'];
        key.extend(seq.to_be_bytes());
        put(key, entry.map(write));
    });
}

fn put_if_new<T: Serialize + PartialEq>(
    key: &[u8],
    value: &T,
    before: Option<&T>,
    put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>),
) {
    if before != Some(value) {
        put(key.to_vec(), Some(write(value)));
    }
}

fn write<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("memory is the only limit")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err("a row is longer than its value".to_owned()),
        Err(error) => Err(format!("a row cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lease::msg::RequestId;
    use crate::lease::record::NodeId;

    fn entry(n: u64) -> Entry {
        let request = RequestId { client: NodeId(3), incarnation: 1, n };
        Entry { epoch: 2, request, key: format!("k{n}"), value: "v".to_owned() }
    }

    fn apply(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, new: &Storage, old: Option<&Storage>) -> usize {
        let mut changed = 0;
        new.difference(old, &mut |key, value| {
            changed += 1;
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        });
        changed
    }

    #[test]
    fn what_is_restored_is_what_was_saved_and_a_save_costs_what_changed() {
        let mut rows = BTreeMap::new();
        let log: PersistentMap<Seq, Entry> = (1..=100).map(|n| (n, entry(n))).collect();
        let mut table = Table::restore(2, 99, log);
        let host = |table: &Table| {
            Storage::Host(HostStorage { incarnation: 5, resumed: None, table: Some(table.clone()) })
        };
        let first = host(&table);
        assert_eq!(apply(&mut rows, &first, None), 102);
        table.log.insert(101, entry(101));
        table.log.remove(&100);
        let second = host(&table);
        assert_eq!(apply(&mut rows, &second, Some(&first)), 2);
        assert_eq!(Storage::restore(&mut rows.into_iter()), Ok(Some(second)));
    }

    #[test]
    fn foreign_rows_are_refused() {
        let row = |key: &[u8]| vec![(key.to_vec(), vec![0xff; 3])];
        for key in [b"c".as_slice(), b"h", b"l", b"l1234567", b"r", b"t", b"z", b""] {
            let restored = Storage::restore(&mut row(key).into_iter());
            assert!(restored.is_err(), "{key:?} gave {restored:?}");
        }
    }

    #[test]
    fn no_rows_are_no_storage() {
        assert_eq!(Storage::restore(&mut std::iter::empty()), Ok(None));
    }
}
