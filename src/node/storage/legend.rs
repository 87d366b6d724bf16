//! What the numbers in a node's rows stand for.
//!
//! A row names its lease by the place in the cluster file, so the names lie beside the rows. A ledger knows regions by their places in the cluster file, and time by ticks of the region's clock. So the names
//! in the order of the file, and the length of a tick, lie in the file beside the rows, and in every copy of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use redb::{Durability, ReadableDatabase};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    META, StorageError, Store, commit_error, corrupt, corrupt_row, seal, unseal, with_rows,
};

/// The key of the legend in the table `meta`.
const KEY: &str = "legend";
/// The key of the leases' names in the table `meta`.
const LEASES: &str = "leases";
/// The index of the actor whose rows need a legend: a node of a region has one actor.
const INDEX: u16 = 0;

/// What the numbers in a control plane's rows stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legend {
    /// The names of the regions: the rows have the index.
    pub regions: Vec<String>,
    /// The unit of the region's clock.
    pub tick: Duration,
}

/// In the words of a cluster file.
impl fmt::Display for Legend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the regions {} and a tick of {:?}", self.regions.join(", "), self.tick)
    }
}

impl Store {
    /// Checks that this file's rows mean what they mean under the legend of a cluster file: the same tick, and the
    /// same regions in the same places. There may be more behind them: a region that was added since.
    ///
    /// # Errors
    ///
    /// [`StorageError::OtherLegend`] if they mean something else, [`StorageError::Corrupt`] if there are rows and
    /// nothing says what they mean.
    //= SPEC REGION-13
    pub fn check_legend(&self, expected: &Legend) -> Result<(), StorageError> {
        match self.legend()? {
            Some(found) => {
                let goes_on = expected.regions.starts_with(&found.regions);
                if goes_on && found.tick == expected.tick {
                    return Ok(());
                }
                let (path, expected) = (self.path.clone(), expected.clone());
                Err(StorageError::OtherLegend { path, found, expected })
            }
            None if with_rows(&self.db, &self.path, INDEX, |rows| rows.next().is_none())? => Ok(()),
            None => Err(unreadable(&self.path, KEY)),
        }
    }

    /// Checks as [`Self::check_legend`] does, and makes this the legend of the rows, durably: to be called before any
    /// row is saved that could need it.
    ///
    /// # Errors
    ///
    /// As [`Self::check_legend`], and if it cannot be made durable.
    pub fn agree_on_legend(&mut self, legend: &Legend) -> Result<(), StorageError> {
        self.check_legend(legend)?;
        if self.legend()?.as_ref() == Some(legend) {
            return Ok(());
        }
        self.write_meta(KEY, legend)
    }

    fn legend(&self) -> Result<Option<Legend>, StorageError> {
        self.read_meta(KEY)
    }

    /// Checks that each of these leases has the place that it has had, and no other lease has had, and makes it
    /// durable: to be called before any row is saved. The places of leases that are not among them are kept, too.
    ///
    /// # Errors
    ///
    /// [`StorageError::OtherLease`] if rows of one would be taken for another's, or would not be found, and if the
    /// names cannot be made durable.
    //= SPEC LEASE-40
    pub fn agree_on_leases(&mut self, leases: &BTreeMap<u16, String>) -> Result<(), StorageError> {
        let known: BTreeMap<u16, String> = self.read_meta(LEASES)?.unwrap_or_default();
        for (place, found) in &known {
            let is_same = |(other, name): (&u16, &String)| (other == place) == (name == found);
            if !leases.iter().all(is_same) {
                let (path, place, found) = (self.path.clone(), *place, found.clone());
                return Err(StorageError::OtherLease { path, place, found });
            }
        }
        let mut all = known.clone();
        all.extend(leases.clone());
        if all == known { Ok(()) } else { self.write_meta(LEASES, &all) }
    }

    fn write_meta(&self, key: &str, value: &impl Serialize) -> Result<(), StorageError> {
        let value = postcard::to_stdvec(value).expect("memory is the only limit");
        let write = || -> Result<(), redb::Error> {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            txn.open_table(META)?.insert(key, seal(key.as_bytes(), &value).as_slice())?;
            Ok(txn.commit()?)
        };
        write().map_err(|error| commit_error(&self.path, &error))
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StorageError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let meta = self.db.begin_read()?.open_table(META)?;
            Ok(redb::ReadableTable::get(&meta, key)?.map(|value| value.value().to_vec()))
        };
        let sealed = read().map_err(|error| corrupt(&self.path, &error))?;
        let Some(sealed) = sealed else { return Ok(None) };
        let value =
            unseal(key.as_bytes(), &sealed).and_then(|value| postcard::from_bytes(value).ok());
        value.map(Some).ok_or_else(|| unreadable(&self.path, key))
    }
}

fn unreadable(path: &Path, key: &str) -> StorageError {
    corrupt_row(path, format!("its row {key:?} is missing or has a wrong checksum"))
}
