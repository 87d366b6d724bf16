//! Puts a control plane's storage back to a backup.
//!
//! A backup is a copy of the storage file of a control plane that has stopped. To put one back is more
//! than to copy it: the region becomes a new life, which is frozen until each other region has promised
//! to ignore the old one ([`crate::irc::restore`]). The data plane is not in any backup: which halves
//! are on is taken from the file that is being replaced, as far as that can still be read.

use std::path::Path;

use super::storage::{Row, StorageError, Store};
use crate::irc::Storage;
use crate::irc::facts::Incarnation;
use crate::irc::ledger::Ledger;
use crate::lease::record::NodeId;

/// The index under which a control plane's storage lies in its node's file.
const INDEX: u16 = 0;

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The life that the region begins.
    pub life: Incarnation,
    /// The region's clock in the backup.
    pub clock: u64,
    /// How many peerings the backup has.
    pub peerings: usize,
    /// How many halves are on in the data plane.
    pub halves: usize,
}

/// Why a backup was not put back. Nothing has been written then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A file cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no ledger in the backup.
    #[error("{0} holds no control plane's ledger: name a backup of this region's control plane")]
    Empty(String),
    /// The target is there already.
    #[error("{0} is there already: move it away, it is the only trace of what the backup lacks")]
    Exists(String),
}

/// Reads the ledger in a storage file of this node.
///
/// # Errors
///
/// [`RestoreError::Storage`] if the file is not this node's or is damaged.
pub fn read(cluster: &str, node: NodeId, file: &Path) -> Result<Option<Ledger>, RestoreError> {
    let store = Store::open(file, cluster, node)?;
    let ledger = store.restore::<Storage>(INDEX)?;
    Ok(ledger.map(|Storage::Control(ledger)| ledger))
}

/// Writes a new storage file from a backup: `target` must not exist. `current` is the file that the
/// backup replaces, if it can be read: the data plane and the highest number of a life are taken from
/// it. `tag` tells this life from any other of the same number; it must be random.
///
/// # Errors
///
/// [`RestoreError`]; nothing has been written then.
pub fn put_back(
    cluster: &str,
    node: NodeId,
    backup: &Path,
    current: Option<&Path>,
    target: &Path,
    tag: u64,
) -> Result<Restored, RestoreError> {
    if target.exists() {
        return Err(RestoreError::Exists(target.display().to_string()));
    }
    let ledger = read(cluster, node, backup)?
        .ok_or_else(|| RestoreError::Empty(backup.display().to_string()))?;
    let current = match current {
        Some(current) => read(cluster, node, current)?,
        None => None,
    };
    let known = current.as_ref().map_or(0, |current| current.head.incarnation.n);
    let life = Incarnation { n: 1 + known.max(ledger.head.incarnation.n), life: tag };
    let found = current.map(|current| current.on).unwrap_or_default();
    let restored = Restored {
        life,
        clock: ledger.head.clock,
        peerings: ledger.peerings.len(),
        halves: found.len(),
    };
    let storage = Storage::Control(ledger.restored(life, found));
    let store = Store::open(target, cluster, node)?;
    let (mut committer, progress) = store
        .into_committer()
        .map_err(|error| StorageError::Io { path: target.to_owned(), reason: error.to_string() })?;
    committer.save(INDEX, Row::difference(None, &storage));
    committer.finish();
    match progress.borrow().failed.clone() {
        Some(error) => Err(error.into()),
        None => Ok(restored),
    }
}
