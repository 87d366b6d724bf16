//! What a node remembers across crashes: one redb file for each node process.
//!
//! Two tables. `meta` says whose file this is: format, cluster, node, how often the node has
//! started, and what a control plane's rows mean ([`Legend`]). `rows` holds what the actors have saved, by lease index (u16, big endian), kind (one
//! byte) and the row's own key. Every value begins with the xxh3 checksum of key and value, so that
//! a row that was damaged, or moved to another key, is an error and not a vote that nobody cast.
//!
//! Saves go to a thread of their own, which commits all that are waiting in one transaction (group
//! commit) and then says how far the saves are durable. The event loop never waits for the disk;
//! what may not be said before a save is durable waits in the loop's queues (runtime duty 1).
//!
//! A commit that fails is never tried again: after a failed fsync nobody knows which of the pages
//! that were written before it are on the disk.

mod legend;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase,
    TableDefinition, TableError,
};
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3Default;

use super::scratch::keep_maps_in;
use crate::durable::Durable;
use crate::lease::record::NodeId;

pub use legend::Legend;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// What the file says it is.
const FORMAT: &[u8] = b"tenure node storage";
/// The version of the layout of tables, keys and values, the rows of the actors included.
const FORMAT_VERSION: u32 = 3;
/// The kind byte of the rows of an actor's storage. Other kinds are free for what a node may have to
/// remember besides.
const KIND_ACTOR: u8 = 0;
const CHECKSUM_LEN: usize = 8;
/// After the start only commits read the file, and few of its pages: what the rows mean is in memory, or in the scratch
/// file. (The default of redb is a gigabyte.)
const CACHE_BYTES: usize = 1 << 20;
/// How many saves one transaction takes at most, so that no save waits for very many others.
const BATCH_MAX: usize = 1024;

/// Why the storage cannot be used. Each says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The node has used up its incarnations.
    #[error("{}: the node has started 2^32 times; give it a new id and a new file", path.display())]
    BootsExhausted {
        /// The file.
        path: PathBuf,
    },
    /// Saves did not become durable. The node has stopped; it has sent nothing that depends on them.
    #[error(
        "cannot save to {} ({reason}): the node stops; free space or replace the disk, then start it again",
        path.display()
    )]
    Commit {
        /// The file.
        path: PathBuf,
        /// What redb or the system says.
        reason: String,
    },
    /// The file is ours, and damaged.
    #[error(
        "{} is damaged ({reason}): move it away and let the node join with a new id; \
         a node that forgets what it has promised is worse than one that is gone",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        reason: String,
    },
    /// The file is a redb database of another program.
    #[error("{} is a database of another program: name another file; it was left as it is", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot use {} ({reason}): check that the directory exists and that this user may write there", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Another process has it, or another node of this one.
    #[error("{} is in use by another process: two nodes cannot share a file; stop the other one", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Another release has written it.
    #[error(
        "{} has format {found}, this release reads {FORMAT_VERSION}: run the release that wrote it",
        path.display()
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not a redb database at all.
    #[error("{} is not a node's storage: name another file; it was left as it is", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// Its rows mean something else than the cluster file says.
    #[error(
        "{} was written under {found}, and the cluster file has {expected}: its rows name regions by their places and \
         count ticks, so put list and tick back; add regions at the end of the file only, and leave one that is gone \
         where it is",
        path.display()
    )]
    OtherLegend {
        /// The file.
        path: PathBuf,
        /// Under what it was written.
        found: Legend,
        /// What the cluster file has.
        expected: Legend,
    },
    /// A lease's rows would be taken for those of another, or not be found.
    #[error(
        "{} has lease {found:?} at place {} of the cluster file's leases, and the file has it elsewhere or another one \
         there: what is stored and sent names a lease by its place, so give it its place and its name back; add leases \
         at the end only, and leave one that is gone where it is",
        path.display(), u32::from(*place) + 1
    )]
    OtherLease {
        /// The file.
        path: PathBuf,
        /// The place in the list, from 0.
        place: u16,
        /// The lease that it has there.
        found: String,
    },
    /// It belongs to a node of another cluster.
    #[error("{} belongs to cluster {found:?}, not {expected:?}: name this cluster's file", path.display())]
    WrongCluster {
        /// The file.
        path: PathBuf,
        /// The cluster that it belongs to.
        found: String,
        /// The cluster that it was opened for.
        expected: String,
    },
    /// It belongs to another node of this cluster.
    #[error("{} belongs to node {found}, not {expected}: name this node's file", path.display())]
    WrongNode {
        /// The file.
        path: PathBuf,
        /// The node that it belongs to.
        found: u16,
        /// The node that it was opened for.
        expected: u16,
    },
}

/// One row of an actor's storage: its key, and its new value or `None` if it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's own key, without lease and kind.
    pub key: Vec<u8>,
    /// The new value; `None` removes the row.
    pub value: Option<Vec<u8>>,
}

impl Row {
    /// The rows in which `after` differs from `before`; all of its rows if there is no `before`.
    pub fn difference<S: Durable>(before: Option<&S>, after: &S) -> Vec<Self> {
        let mut rows = Vec::new();
        after.difference(before, &mut |key, value| rows.push(Self { key, value }));
        rows
    }
}

/// A row's own key and its value, as they were saved.
pub type KeyedRow = (Vec<u8>, Vec<u8>);

/// An open storage file, before its saves go to their thread.
#[derive(Debug)]
pub struct Store {
    db: Arc<Database>,
    path: PathBuf,
    boots: u32,
}

/// Reads what is durable while a [`Committer`] has the file. It does not keep the file open.
#[derive(Clone, Debug)]
pub struct Reader {
    db: Weak<Database>,
    path: PathBuf,
    boots: u32,
}

impl Reader {
    /// How often the node has started with this file.
    pub fn boots(&self) -> u32 {
        self.boots
    }

    /// The rows of one actor's storage, each with its own key, in the order of the keys: all as of one
    /// moment.
    ///
    /// It blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] if the file is closed already, [`StorageError::Corrupt`] if a row is damaged.
    pub fn rows(&self, lease: u16) -> Result<Vec<KeyedRow>, StorageError> {
        let Some(db) = self.db.upgrade() else {
            let (path, reason) = (self.path.clone(), "the node has ended".to_owned());
            return Err(StorageError::Io { path, reason });
        };
        with_rows(&db, &self.path, lease, |rows| rows.collect())
    }
}

impl Store {
    /// Opens this node's file, and makes it if there is none.
    ///
    /// It blocks on the disk, and reads the whole file to see that it is sound.
    ///
    /// # Errors
    ///
    /// Each way in which the file may not be this node's has its own [`StorageError`]. A file that
    /// is not ours is left as it is.
    pub fn open(path: &Path, cluster: &str, node: NodeId) -> Result<Self, StorageError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, cluster, node)?,
            Err(error) => return Err(io_error(path, &error)),
            Ok(_) => {}
        }
        // The first look changes nothing, so that a database of another program stays as it is, to
        // the byte. It may fail for a file that is ours and needs repair; then the second look says
        // what is wrong. redb may panic on pages that were altered; the second look checks them all
        // before it trusts any.
        let looked = catch_unwind(AssertUnwindSafe(|| look(path, cluster, node)));
        if let Ok(Err(
            error @ (StorageError::Foreign { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::WrongCluster { .. }
            | StorageError::WrongNode { .. }),
        )) = looked
        {
            return Err(error);
        }
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .open(path)
            .map_err(|error| open_error(path, error))?;
        let txn = db.begin_read().map_err(|error| corrupt(path, &error))?;
        let boots = read_meta(&txn, path, cluster, node)?;
        drop(txn);
        Ok(Self { db: Arc::new(db), path: path.to_owned(), boots })
    }

    /// How often the node has started with this file.
    pub fn boots(&self) -> u32 {
        self.boots
    }

    /// Counts a start, durably: the number is this life's incarnation, and no other life of this
    /// node ever has it. To be called before the first send (runtime duty 4).
    ///
    /// # Errors
    ///
    /// If the count cannot be made durable; then the node must not run.
    //= SPEC TIME-3
    pub fn begin_boot(&mut self) -> Result<u32, StorageError> {
        let Some(boots) = self.boots.checked_add(1) else {
            return Err(StorageError::BootsExhausted { path: self.path.clone() });
        };
        self.set_boots(boots)?;
        Ok(boots)
    }

    /// Sets, durably, how often the node has started: a file that takes the place of others goes on above them.
    ///
    /// # Errors
    ///
    /// If the count cannot be made durable.
    pub fn set_boots(&mut self, boots: u32) -> Result<(), StorageError> {
        let write = || -> Result<(), redb::Error> {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            txn.open_table(META)?
                .insert("boots", seal("boots".as_bytes(), &boots.to_be_bytes()).as_slice())?;
            Ok(txn.commit()?)
        };
        write().map_err(|error| commit_error(&self.path, &error))?;
        self.boots = boots;
        Ok(())
    }

    /// What the actor of this lease has last saved; `None` if it never has.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] if a row's checksum is wrong, or if the rows are not ones that
    /// this kind of storage writes.
    ///
    /// Large maps in what is read lie in a file without a name beside this one, from the first call on.
    pub fn restore<S: Durable>(&self, lease: u16) -> Result<Option<S>, StorageError> {
        if let Err(error) = keep_maps_in(directory(&self.path)) {
            tracing::warn!(%error, "there is no scratch file beside the storage: all stays in memory");
        }
        let restored = with_rows(&self.db, &self.path, lease, |rows| S::restore(rows))?;
        restored.map_err(|reason| {
            corrupt_row(&self.path, format!("the rows of lease {lease}: {reason}"))
        })
    }

    /// Reads the file for as long as it is open, also when its saves go to their thread.
    pub fn reader(&self) -> Reader {
        Reader { db: Arc::downgrade(&self.db), path: self.path.clone(), boots: self.boots }
    }

    /// Hands the file to a thread that makes saves durable, and says how far.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn into_committer(self) -> io::Result<(Committer, watch::Receiver<Progress>)> {
        let (sender, receiver) = watch::channel(Progress::default());
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("tenure-commit".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || commit_until_end(self, &shared, &sender)
        })?;
        Ok((Committer { shared, thread: Some(thread), last: 0 }, receiver))
    }
}

/// How far the saves are durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Every save up to this number, counted from 1, is on the disk.
    pub durable: u64,
    /// How many transactions that took.
    pub commits: u64,
    /// Why no further save will ever be.
    pub failed: Option<StorageError>,
}

#[derive(Debug)]
struct Save {
    number: u64,
    lease: u16,
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Queue {
    saves: VecDeque<Save>,
    /// No save will follow.
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nobody panics while holding the lock, and a queue is whole between two operations.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where saves go. Dropping it forgets the saves that no transaction has taken yet, as a crash would,
/// waits for a transaction that is under way, and closes the file.
#[derive(Debug)]
pub struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    last: u64,
}

impl Committer {
    /// Queues a save of one lease's actor and gives its number. It does not block. Saves become
    /// durable in the order of their numbers; those of one call all at once or not at all.
    pub fn save(&mut self, lease: u16, rows: Vec<Row>) -> u64 {
        self.last += 1;
        self.shared.lock().saves.push_back(Save { number: self.last, lease, rows });
        self.shared.work.notify_one();
        self.last
    }

    /// The number of the last save.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Makes every queued save durable and closes the file. It blocks until then; whether it has
    /// succeeded is in [`Progress`].
    pub fn finish(mut self) {
        self.shared.lock().ended = true;
        self.join();
    }

    fn join(&mut self) {
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread shows as a progress whose sender is gone.
            let _ = thread.join();
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.saves.clear();
        queue.ended = true;
        drop(queue);
        self.join();
    }
}

fn commit_until_end(store: Store, shared: &Shared, progress: &watch::Sender<Progress>) {
    let mut batch = Vec::new();
    loop {
        let mut queue = shared
            .work
            .wait_while(shared.lock(), |queue| queue.saves.is_empty() && !queue.ended)
            .unwrap_or_else(PoisonError::into_inner);
        let size = queue.saves.len().min(BATCH_MAX);
        batch.extend(queue.saves.drain(..size));
        drop(queue);
        let Some(last) = batch.last() else { break };
        let durable = last.number;
        let begun = Instant::now();
        let committed = commit(&store.db, &batch);
        metrics::histogram!("storage_commit_seconds").record(begun.elapsed().as_secs_f64());
        metrics::histogram!("storage_commit_saves").record(batch.len() as f64);
        match committed {
            Ok(()) => progress.send_modify(|progress| {
                progress.durable = durable;
                progress.commits += 1;
            }),
            Err(error) => {
                let error = commit_error(&store.path, &error);
                progress.send_modify(|progress| progress.failed = Some(error));
                // Whatever else is queued is lost with this transaction: it may build on it.
                break;
            }
        }
        batch.clear();
    }
    // Whoever is reading closes it instead.
    if let Some(Err(error)) = Arc::into_inner(store.db).map(Database::close) {
        // All that was promised is durable already; redb will repair the rest when it opens.
        tracing::debug!(path = %store.path.display(), %error, "the storage did not close cleanly");
    }
}

/// The rows of one lease in the order of their keys, checked.
fn with_rows<T>(
    db: &Database,
    path: &Path,
    lease: u16,
    read: impl FnOnce(&mut dyn Iterator<Item = KeyedRow>) -> T,
) -> Result<T, StorageError> {
    let txn = db.begin_read().map_err(|error| corrupt(path, &error))?;
    let table = match txn.open_table(ROWS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(read(&mut std::iter::empty())),
        table => table.map_err(|error| corrupt(path, &error))?,
    };
    let first = row_key(lease, KIND_ACTOR, &[]);
    let end = row_key(lease, KIND_ACTOR + 1, &[]);
    let rows = table.range(first.as_slice()..end.as_slice());
    let rows = rows.map_err(|error| corrupt(path, &error))?;
    let mut failed = None;
    let checked = rows.map(|row| {
        let (key, value) = row.map_err(|error| corrupt(path, &error))?;
        let (key, value) = (key.value(), value.value());
        let value = unseal(key, value).ok_or_else(|| {
            corrupt_row(path, format!("a row of lease {lease} has a wrong checksum"))
        })?;
        Ok((key[first.len()..].to_vec(), value.to_vec()))
    });
    let mut sound = checked.map_while(|row| row.map_err(|error| failed = Some(error)).ok()).fuse();
    let result = read(&mut sound);
    // Whatever is wrong with the rest is said as well.
    sound.by_ref().for_each(drop);
    drop(sound);
    failed.map_or(Ok(result), Err)
}

fn corrupt_row(path: &Path, reason: String) -> StorageError {
    StorageError::Corrupt { path: path.to_owned(), reason }
}

/// Makes a batch of saves durable, all or none.
fn commit(db: &Database, batch: &[Save]) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    {
        let mut table = txn.open_table(ROWS)?;
        for save in batch {
            for row in &save.rows {
                let key = row_key(save.lease, KIND_ACTOR, &row.key);
                match &row.value {
                    Some(value) => {
                        table.insert(key.as_slice(), seal(&key, value).as_slice())?;
                    }
                    None => {
                        table.remove(key.as_slice())?;
                    }
                }
            }
        }
    }
    Ok(txn.commit()?)
}

/// Makes a new file, whole or not at all: a crash half way leaves no file of this name, and two
/// processes at once leave one of their two.
fn create(path: &Path, cluster: &str, node: NodeId) -> Result<(), StorageError> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{:016x}.new", rand::random::<u64>()));
    let draft = path.with_file_name(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&draft)
        .map_err(|error| io_error(path, &error))?;
    let made = fill(&draft, cluster, node)
        .map_err(|error| commit_error(path, &error))
        // A link, not a rename: it fails if the name is taken by now.
        .and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(io_error(path, &error))
            }
            _ => Ok(()),
        });
    let _ = fs::remove_file(&draft);
    made?;
    // Without this a power failure can take back the name, and with it the count of starts.
    File::open(directory(path))
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io_error(path, &error))
}

/// Where a file is.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn fill(draft: &Path, cluster: &str, node: NodeId) -> Result<(), redb::Error> {
    let db = Builder::new().set_cache_size(CACHE_BYTES).create(draft)?;
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    {
        let mut meta = txn.open_table(META)?;
        let mut put = |key: &str, value: &[u8]| {
            meta.insert(key, seal(key.as_bytes(), value).as_slice()).map(|_| ())
        };
        put("format", FORMAT)?;
        put("version", &FORMAT_VERSION.to_be_bytes())?;
        put("cluster", cluster.as_bytes())?;
        put("node", &node.0.to_be_bytes())?;
        put("boots", &0u32.to_be_bytes())?;
        txn.open_table(ROWS)?;
    }
    txn.commit()?;
    Ok(db.close()?)
}

/// Looks into a file without changing it.
fn look(path: &Path, cluster: &str, node: NodeId) -> Result<u32, StorageError> {
    let db = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .open_read_only(path)
        .map_err(|error| open_error(path, error))?;
    let txn = db.begin_read().map_err(|error| corrupt(path, &error))?;
    read_meta(&txn, path, cluster, node)
}

/// Checks that the file is this node's, and gives its count of starts.
fn read_meta(
    txn: &ReadTransaction,
    path: &Path,
    cluster: &str,
    node: NodeId,
) -> Result<u32, StorageError> {
    let foreign = || StorageError::Foreign { path: path.to_owned() };
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(corrupt(path, &error)),
        // No such table, or one of another type.
        Err(_) => return Err(foreign()),
    };
    let read = |key: &str| -> Result<Option<Vec<u8>>, StorageError> {
        let value = meta.get(key).map_err(|error| corrupt(path, &error))?;
        Ok(value.and_then(|sealed| unseal(key.as_bytes(), sealed.value()).map(<[u8]>::to_vec)))
    };
    let need = |key: &str| {
        read(key)?.ok_or_else(|| StorageError::Corrupt {
            path: path.to_owned(),
            reason: format!("its {key} is missing or has a wrong checksum"),
        })
    };
    fn number<const N: usize>(path: &Path, bytes: &[u8]) -> Result<[u8; N], StorageError> {
        bytes.try_into().map_err(|_| StorageError::Corrupt {
            path: path.to_owned(),
            reason: "a number has the wrong length".to_owned(),
        })
    }
    if read("format")?.as_deref() != Some(FORMAT) {
        return Err(foreign());
    }
    let found = u32::from_be_bytes(number(path, &need("version")?)?);
    if found != FORMAT_VERSION {
        return Err(StorageError::OtherFormat { path: path.to_owned(), found });
    }
    let found = String::from_utf8_lossy(&need("cluster")?).into_owned();
    if found != cluster {
        let expected = cluster.to_owned();
        return Err(StorageError::WrongCluster { path: path.to_owned(), found, expected });
    }
    let found = u16::from_be_bytes(number(path, &need("node")?)?);
    if found != node.0 {
        return Err(StorageError::WrongNode { path: path.to_owned(), found, expected: node.0 });
    }
    Ok(u32::from_be_bytes(number(path, &need("boots")?)?))
}

//= SPEC LEASE-28
fn row_key(lease: u16, kind: u8, key: &[u8]) -> Vec<u8> {
    [&lease.to_be_bytes()[..], &[kind], key].concat()
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = Xxh3Default::new();
    // The length keeps a byte from passing between key and value unseen.
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.digest().to_be_bytes()
}

fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&checksum(key, value)[..], value].concat()
}

fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_first_chunk::<CHECKSUM_LEN>()?;
    (*sum == checksum(key, value)).then_some(value)
}

fn io_error(path: &Path, error: &io::Error) -> StorageError {
    StorageError::Io { path: path.to_owned(), reason: error.to_string() }
}

fn commit_error(path: &Path, error: &redb::Error) -> StorageError {
    StorageError::Commit { path: path.to_owned(), reason: error.to_string() }
}

fn corrupt(path: &Path, error: &dyn std::fmt::Display) -> StorageError {
    StorageError::Corrupt { path: path.to_owned(), reason: error.to_string() }
}

fn open_error(path: &Path, error: DatabaseError) -> StorageError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StorageError::Locked { path }
        }
        DatabaseError::UpgradeRequired(_) => StorageError::Foreign { path },
        DatabaseError::Storage(redb::StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData => StorageError::NotADatabase { path },
            // It ends before redb's own header does.
            io::ErrorKind::UnexpectedEof => StorageError::NotADatabase { path },
            _ => io_error(&path, &error),
        },
        error => corrupt(&path, &error),
    }
}

#[cfg(test)]
mod tests;
