//! Puts a control plane's storage back to a backup.
//!
//! A backup is a copy of the storage file of a control plane that has stopped. To put one back is more
//! than to copy it: the region becomes a new life, which is frozen until each other region has promised
//! to ignore the old one ([`crate::irc::restore`]). The data plane is not in any backup: which halves
//! are on is taken from the file that is being replaced, as far as that can still be read.

use std::path::Path;

use serde_json::{Value, json};

use super::region;
use super::storage::{Legend, Reader, Row, StorageError, Store};
use crate::config::{Config, Region};
use crate::irc::Storage;
use crate::irc::audit::Entry;
use crate::irc::durable;
use crate::irc::facts::Incarnation;
use crate::irc::ledger::Ledger;
use crate::irc::restore::LIVES_MAX;
use crate::lease::record::NodeId;

/// The index under which a control plane's storage lies in its node's file.
const INDEX: u16 = 0;
/// How often a node has started at most between a backup and its being put back.
pub const STARTS_UNKNOWN: u32 = 1 << 16;
/// How many entries of an audit log one transaction writes.
const ENTRIES_PER_COMMIT: usize = 10_000;

/// Whose storage a file has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: String,
    /// The control plane's node.
    pub node: NodeId,
    /// What the numbers in the file stand for.
    pub legend: Legend,
}

impl Owner {
    /// The control plane of this region.
    pub fn of(config: &Config, region: &Region) -> Self {
        let (cluster, node) = (config.cluster.clone(), region.control_plane);
        Self { cluster, node, legend: region::legend(config, region) }
    }

    /// Opens a file that has to be there.
    fn open(&self, file: &Path) -> Result<Store, StorageError> {
        if !file.exists() {
            let (path, reason) = (file.to_owned(), "it is not there".to_owned());
            return Err(StorageError::Io { path, reason });
        }
        let store = Store::open(file, &self.cluster, self.node)?;
        store.check_legend(&self.legend)?;
        Ok(store)
    }
}

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

/// What a storage file of a control plane holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its ledger.
    pub ledger: Ledger,
    /// The entries of the audit log, the oldest first. Those count that are older than the end of the ledger's own.
    pub audit: Vec<(u64, Entry)>,
    /// How often its node has started.
    pub boots: u32,
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
    /// The backup is of a line that a later restore has abandoned.
    #[error(
        "the backup is of a line of life {life} that a later restore has left: a region cannot have two \
         pasts; name a backup of the present line"
    )]
    Abandoned {
        /// The life's number.
        life: u64,
    },
    /// The number that the new life should have is not one of a life.
    #[error(
        "--above {above} is more than 2^20 above life {known}: give the highest number of a life of this \
         region that a peer names"
    )]
    FarAbove {
        /// What was given.
        above: u64,
        /// The newest life that is known here.
        known: u64,
    },
}

/// Reads the ledger in a storage file of this node.
///
/// # Errors
///
/// [`RestoreError::Storage`] if the file is not there, is not this node's, is in use or is damaged.
pub fn read(owner: &Owner, file: &Path) -> Result<Option<Ledger>, RestoreError> {
    Ok(read_with_boots(owner, file)?.map(|(ledger, _)| ledger))
}

/// Reads the ledger in a storage file of this node, and how often the node has started with it.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_boots(owner: &Owner, file: &Path) -> Result<Option<(Ledger, u32)>, RestoreError> {
    let store = owner.open(file)?;
    let ledger = store.restore::<Storage>(INDEX)?;
    Ok(ledger.map(|Storage::Control(ledger)| (ledger, store.boots())))
}

/// Reads the whole audit log in a storage file of this node, the oldest entry first. A ledger that was
/// read has only the last of them.
///
/// # Errors
///
/// As [`read`].
pub fn read_audit(owner: &Owner, file: &Path) -> Result<Vec<(u64, Entry)>, RestoreError> {
    audit_in(&owner.open(file)?.reader(), file)
}

/// Reads the whole audit log of a control plane that runs.
///
/// # Errors
///
/// [`RestoreError::Storage`] if the storage is closed by now, or damaged.
pub fn audit_in(reader: &Reader, file: &Path) -> Result<Vec<(u64, Entry)>, RestoreError> {
    let rows = reader.rows(INDEX)?;
    durable::read_audit(&mut rows.into_iter())
        .map_err(|reason| StorageError::Corrupt { path: file.to_owned(), reason }.into())
}

/// Writes a new storage file of this node, durably: `target` must not exist.
///
/// # Errors
///
/// [`RestoreError`]; there is no file of that name then, or one that is not whole and has no ledger.
//= SPEC REGION-9
pub fn write(owner: &Owner, target: &Path, contents: Contents) -> Result<(), RestoreError> {
    let Contents { ledger, audit, boots } = contents;
    if target.exists() {
        return Err(RestoreError::Exists(target.display().to_string()));
    }
    let mut store = Store::open(target, &owner.cluster, owner.node)?;
    store.agree_on_legend(&owner.legend)?;
    store.set_boots(boots)?;
    let (mut committer, progress) = store
        .into_committer()
        .map_err(|error| StorageError::Io { path: target.to_owned(), reason: error.to_string() })?;
    let first = ledger.audit.iter().next().map_or(ledger.head.audited.0, |(&number, _)| number);
    let older: Vec<_> = audit.iter().filter(|(number, _)| *number < first).collect();
    for some in older.chunks(ENTRIES_PER_COMMIT) {
        let row = |&&(number, ref entry): &&(u64, Entry)| {
            let (key, value) = durable::audit_row(number, entry);
            Row { key, value: Some(value) }
        };
        committer.save(INDEX, some.iter().map(row).collect());
    }
    // The ledger last: without it the file is known not to be whole.
    committer.save(INDEX, Row::difference(None, &Storage::Control(ledger)));
    committer.finish();
    match progress.borrow().failed.clone() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// What there is to say about a ledger that is kept or put back.
pub fn about(ledger: &Ledger) -> Value {
    json!({
        "incarnation": ledger.head.incarnation.n,
        "life": format!("{:016x}", ledger.head.incarnation.life),
        "clock_ticks": ledger.head.clock,
        "peerings": ledger.peerings.len(),
        "records": ledger.records.len(),
        "tokens": ledger.tokens.len(),
    })
}

/// The lives that a control plane tells in its status, as a ledger that holds nothing else.
pub fn line_of(status: &Value) -> Option<Ledger> {
    let mut ledger = Ledger::default();
    let n = status["incarnation"].as_u64()?;
    let life = u64::from_str_radix(status["life"].as_str()?, 16).ok()?;
    ledger.head.incarnation = Incarnation { n, life };
    for (n, born) in status["born"].as_object()? {
        ledger.head.born.insert(n.parse().ok()?, born.as_u64()?);
    }
    Some(ledger)
}

/// Whether a backup is of the line of history that `current` goes on with. A backup of a life that a
/// later restore has abandoned must not be put back: its region would know two pasts.
///
/// A life that is not among those of `current` was abandoned, and so was one of which the backup has
/// more operations than `current` went on with. An abandoned backup with no operation of its own that
/// `current` lacks cannot be told from an older one.
///
/// # Errors
///
/// [`RestoreError::Abandoned`].
//= SPEC REGION-6
pub fn check_lineage(backup: &Ledger, current: &Ledger) -> Result<(), RestoreError> {
    let now = current.head.incarnation;
    for (&n, &born) in &backup.head.born {
        let is_present_life = n == now.n;
        let is_abandoned = current.head.born.get(&n).is_none_or(|&known| {
            born > known || (is_present_life && backup.head.incarnation != now)
        });
        if is_abandoned {
            return Err(RestoreError::Abandoned { life: n });
        }
    }
    Ok(())
}

/// Writes a new storage file from a backup: `target` must not exist. `current` is the file that the
/// backup replaces, if it can be read: the data plane and the highest number of a life are taken from
/// it. `above` is a number that the operator knows of: the new life is above that too. `tag` tells this
/// life from any other of the same number; it must be random.
///
/// # Errors
///
/// [`RestoreError`]; nothing has been written then.
pub fn put_back(
    owner: &Owner,
    backup: &Path,
    current: Option<&Path>,
    target: &Path,
    (above, tag): (u64, u64),
) -> Result<Restored, RestoreError> {
    if target.exists() {
        return Err(RestoreError::Exists(target.display().to_string()));
    }
    let current = match current {
        Some(current) => read_with_boots(owner, current)?,
        None => None,
    };
    let (contents, restored) = plan(owner, backup, current, (above, tag))?;
    write(owner, target, contents)?;
    Ok(restored)
}

/// What putting a backup back would give: the contents of the new file, and what there is to say about it. `current`
/// is the ledger that is replaced, with the starts of its node.
///
/// A node that was put back goes on to count its starts above all that is known, and by [`STARTS_UNKNOWN`] more: how
/// often it has started since the backup nobody can say.
///
/// # Errors
///
/// [`RestoreError`].
pub fn plan(
    owner: &Owner,
    backup: &Path,
    current: Option<(Ledger, u32)>,
    (above, tag): (u64, u64),
) -> Result<(Contents, Restored), RestoreError> {
    let (ledger, starts) = read_with_boots(owner, backup)?
        .ok_or_else(|| RestoreError::Empty(backup.display().to_string()))?;
    let (current, later) = current.unzip();
    let boots = starts.max(later.unwrap_or(0)).saturating_add(STARTS_UNKNOWN);
    if let Some(current) = &current {
        check_lineage(&ledger, current)?;
    }
    let known = current.as_ref().map_or(0, |current| current.head.incarnation.n);
    let known = known.max(ledger.head.incarnation.n);
    let n = next_life(known, above)?;
    let life = Incarnation { n, life: tag };
    let until = current.as_ref().map(|current| current.head.clock);
    let found = current.map(|current| current.on).unwrap_or_default();
    let restored = Restored {
        life,
        clock: ledger.head.clock,
        peerings: ledger.peerings.len(),
        halves: found.len(),
    };
    let ledger = ledger.restored(life, found, until);
    Ok((Contents { ledger, audit: read_audit(owner, backup)?, boots }, restored))
}

/// The number of a new life, above the newest that is known here and the one that the operator names.
//= SPEC IRC-46
fn next_life(known: u64, above: u64) -> Result<u64, RestoreError> {
    if above.saturating_sub(known) > LIVES_MAX {
        return Err(RestoreError::FarAbove { above, known });
    }
    Ok(1 + known.max(above))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::irc::audit::{self, Cause, KEPT};
    use crate::irc::msg::Command;

    fn owner(regions: &[&str]) -> Owner {
        let regions = regions.iter().map(|&name| name.to_owned()).collect();
        let legend = Legend { regions, tick: Duration::from_secs(60) };
        Owner { cluster: "c".to_owned(), node: NodeId(0), legend }
    }

    fn ledger(lives: &[(u64, u64)], life: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.head.born = lives.iter().copied().collect();
        let n = lives.last().map_or(0, |&(n, _)| n);
        ledger.head.incarnation = Incarnation { n, life };
        ledger
    }

    fn of(ledger: Ledger) -> Contents {
        Contents { ledger, ..Contents::default() }
    }

    //= SPEC TIME-3 test
    #[test]
    fn a_node_that_was_put_back_counts_its_starts_above_all_earlier_ones() {
        let directory = tempfile::tempdir().unwrap();
        let owner = owner(&["east", "west"]);
        let file = |name: &str| directory.path().join(name);
        let boots = |name: &str| read_with_boots(&owner, &file(name)).unwrap().unwrap().1;
        let backup = Contents { boots: 5, ..of(ledger(&[(1, 5)], 1)) };
        write(&owner, &file("backup"), backup.clone()).unwrap();
        assert_eq!(boots("backup"), 5, "a backup has the count of its node");
        write(&owner, &file("current"), Contents { boots: 70_000, ..backup }).unwrap();
        for (current, target, least) in [(Some("current"), "with", 70_000), (None, "without", 5)] {
            let current = current.map(file);
            put_back(&owner, &file("backup"), current.as_deref(), &file(target), (0, 7)).unwrap();
            assert_eq!(boots(target), least + STARTS_UNKNOWN);
        }
        // What is put back twice begins twice as far.
        put_back(&owner, &file("with"), None, &file("again"), (0, 8)).unwrap();
        assert_eq!(boots("again"), 70_000 + 2 * STARTS_UNKNOWN);
    }

    //= SPEC REGION-9 test
    //= SPEC IRC-46 test
    #[test]
    fn a_life_is_above_what_is_named_and_what_cannot_be_is_refused() {
        assert_eq!(next_life(3, 0).ok(), Some(4));
        assert_eq!(next_life(3, 9).ok(), Some(10));
        assert_eq!(next_life(3, 3 + LIVES_MAX).ok(), Some(4 + LIVES_MAX));
        for above in [4 + LIVES_MAX, 1 << 62, u64::MAX] {
            assert!(matches!(next_life(3, above), Err(RestoreError::FarAbove { .. })), "{above}");
        }
    }

    #[test]
    fn a_backup_holds_the_whole_audit_log() {
        let directory = tempfile::tempdir().unwrap();
        let owner = owner(&["east", "west"]);
        let mut ledger = ledger(&[(1, 5)], 1);
        let mut all = Vec::new();
        let end = KEPT + 300;
        for number in 0..end {
            let entry = Entry {
                at: number,
                incarnation: ledger.head.incarnation,
                id: None,
                from: None,
                to: None,
                cause: Cause::Operator(Command::Drain(number % 2 == 0)),
                before: ledger.head.audited.1,
            };
            ledger.head.audited = (number + 1, entry.link());
            if number >= end - KEPT {
                ledger.audit.insert(number, entry);
            }
            all.push((number, entry));
        }
        let file = |name: &str| directory.path().join(name);
        let whole = |name: &str| read_audit(&owner, &file(name)).unwrap();
        let backed = Contents { ledger: ledger.clone(), audit: all.clone(), boots: 5 };
        write(&owner, &file("backup"), backed).unwrap();
        assert_eq!(whole("backup"), all, "memory has let go of the first ones, the backup has not");
        // Put back, the chain goes on from the backup.
        let (backup, target) = (file("backup"), file("target"));
        put_back(&owner, &backup, None, &target, (0, 7)).unwrap();
        let restored = read(&owner, &target).unwrap().unwrap();
        let entries = whole("target");
        assert_eq!(entries[..all.len()], all[..]);
        assert_eq!(entries.len(), all.len() + 1);
        assert_eq!(entries[all.len()].1.cause, Cause::Restored);
        let chain = entries.iter().map(|(number, entry)| (*number, entry));
        assert_eq!(audit::verify(chain, restored.head.audited), Ok(()));
    }

    //= SPEC REGION-6 test
    #[test]
    fn a_backup_of_an_abandoned_line_is_refused() {
        let current = ledger(&[(1, 5), (3, 2)], 7);
        let is_good = |backup: &Ledger| check_lineage(backup, &current).is_ok();
        assert!(is_good(&ledger(&[(1, 5)], 1)), "the line that it comes from");
        assert!(is_good(&ledger(&[(1, 5), (3, 1)], 7)), "earlier in this life");
        assert!(!is_good(&ledger(&[(1, 6)], 1)), "what the restore has left behind");
        assert!(!is_good(&ledger(&[(1, 5), (2, 0)], 2)), "a life that it does not come from");
        assert!(!is_good(&ledger(&[(1, 5), (3, 0)], 8)), "another life of the same number");
    }
    //= SPEC REGION-13 test
    #[test]
    fn a_backup_says_what_its_numbers_stand_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let then = owner(&["east", "west"]);
        write(&then, &file("backup"), of(ledger(&[(1, 5)], 1))).unwrap();
        // A region that was added since is behind those that were there.
        let now = owner(&["east", "west", "north"]);
        put_back(&now, &file("backup"), None, &file("target"), (0, 7)).unwrap();
        assert!(read(&now, &file("target")).unwrap().is_some());
        // What was put back is of the present file, and no longer of the old one.
        let mut slow = now.clone();
        slow.legend.tick = Duration::from_secs(1);
        let others = [then, owner(&["north", "east", "west"]), owner(&["east", "north"]), slow];
        for other in others {
            let error = read(&other, &file("target")).unwrap_err();
            let is_it = matches!(error, RestoreError::Storage(StorageError::OtherLegend { .. }));
            assert!(is_it, "{error}");
            let error = put_back(&other, &file("target"), None, &file("again"), (0, 8));
            assert!(error.is_err() && !file("again").exists(), "{other:?}");
        }
        // Rows that nothing explains are not taken for anything.
        let store = Store::open(&file("bare"), "c", NodeId(0)).unwrap();
        let (mut committer, _) = store.into_committer().unwrap();
        committer.save(INDEX, Row::difference(None, &Storage::Control(ledger(&[(1, 5)], 1))));
        committer.finish();
        let error = read(&now, &file("bare")).unwrap_err().to_string();
        assert!(error.contains("\"legend\" is missing"), "{error}");
    }
}
