//! The store that an embedded elector uses: a linearizable read and a compare-and-set.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc};

use crate::lease::record::{Record, Version};

/// What has become of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// It is committed and durable: the record is the one that was given.
    Committed,
    /// The expected version was not there; nothing was written. The record as it is, `None` if nobody has
    /// ever written it.
    ///
    /// If that record has the nonce of the one that was given, an earlier copy of this very write has
    /// landed: report it like any other conflict, the protocol knows its own writes (L-19).
    Conflict(Option<Record>),
    /// It may have been committed, or not, or may be yet: a time-out, a connection that broke, an error whose
    /// meaning is not certain. This is not an error. It extends nothing (L-21), and the protocol finds
    /// out by itself.
    Unknown,
}

/// Why a record could not be read. It is read again, so this is only counted and logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease store cannot be read: {0}")]
pub struct StoreError(pub String);

/// Keeps the records of leases.
///
/// Whatever implements this must be *linearizable* and durable: a read that begins after a write was answered
/// shows that write or a later one, also after a crash of the store. It never deletes a record and never
/// lets one expire. A client library that repeats conditional writes by itself must have that
/// switched off, or its answers reported as [`CasOutcome::Unknown`].
///
/// The futures run on the runtime on which the elector was started, each in a task of its own. What is not answered
/// in time is asked again, and a late answer does no harm. A future that has not ended within G is dropped, at the
/// next request: its answer could do no good any more, and what became of its write is found out.
///
/// A record that no elector could act upon is taken for one that cannot be read: one with a number out of its bounds,
/// or an epoch from [`EPOCH_MAX`](crate::gate::EPOCH_MAX) on.
pub trait LeaseStore: Send + Sync + 'static {
    /// Reads the record of this lease; `None` if nobody has ever written it.
    fn read(&self, lease: &str) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Writes the record of this lease, if its version is the expected one; 0 if nobody has ever written
    /// it. The version in the new record is the expected one plus 1.
    fn cas(
        &self,
        lease: &str,
        expect: Version,
        record: Record,
    ) -> impl Future<Output = CasOutcome> + Send;

    /// Versions that the record has reached: hints that make a watcher read at once. They may be late,
    /// lost or wrong; nothing is ever decided by them (L-23).
    fn changes(&self, lease: &str) -> Option<mpsc::Receiver<Version>> {
        let _ = lease;
        None
    }
}

/// A store in memory, for tests and demonstrations: it is lost with the process, and only the electors of one
/// process can share it. Clones are the same store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    records: Arc<Mutex<BTreeMap<String, Record>>>,
    changed: broadcast::Sender<(String, Version)>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// A store without records.
    pub fn new() -> Self {
        Self { records: Arc::default(), changed: broadcast::Sender::new(64) }
    }
}

impl LeaseStore for MemoryStore {
    async fn read(&self, lease: &str) -> Result<Option<Record>, StoreError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.get(lease).cloned())
    }

    async fn cas(&self, lease: &str, expect: Version, record: Record) -> CasOutcome {
        let version = record.version;
        {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            let now = records.get(lease);
            if now.map_or(0, |now| now.version) != expect {
                return CasOutcome::Conflict(now.cloned());
            }
            records.insert(lease.to_owned(), record);
        }
        // Nobody may be listening.
        let _ = self.changed.send((lease.to_owned(), version));
        CasOutcome::Committed
    }

    fn changes(&self, lease: &str) -> Option<mpsc::Receiver<Version>> {
        let (sender, receiver) = mpsc::channel(16);
        let (mut changed, lease) = (self.changed.subscribe(), lease.to_owned());
        tokio::spawn(async move {
            loop {
                match changed.recv().await {
                    Ok((of, version)) if of == lease => {
                        if sender.send(version).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        Some(receiver)
    }
}
