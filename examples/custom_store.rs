//! A store of one's own: a record in a file, under the file system's lock, shared by the processes of one machine.
//!
//! ```sh
//! cargo run --example custom_store -- lease.json 0 &
//! cargo run --example custom_store -- lease.json 1
//! ```
//!
//! Each says when it leads, gives the lease up after two seconds, and ends after two terms. What a store owes: a
//! read shows every write that was answered before, a write is durable before it is answered, and it is made
//! only over the version that was expected.

#![allow(clippy::disallowed_methods, reason = "a program may wait")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tenure::embed::{Builder, CasOutcome, LeaseStore, StoreError};
use tenure::lease::record::{NodeId, Record, Version};
use tenure::lease::timing::Timing;

struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// Does something while no other process does.
    fn locked<T>(&self, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let lock = File::create(self.path.with_extension("lock"))?;
        lock.lock()?;
        // The lock goes with the file.
        work(&self.path)
    }
}

fn load(path: &Path) -> io::Result<Option<Record>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn save(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(record)?)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

impl LeaseStore for FileStore {
    async fn read(&self, _: &str) -> Result<Option<Record>, StoreError> {
        self.locked(load).map_err(|error| StoreError(error.to_string()))
    }

    async fn cas(&self, _: &str, expect: Version, record: Record) -> CasOutcome {
        let written = self.locked(|path| {
            let now = load(path)?;
            if now.as_ref().map_or(0, |now| now.version) != expect {
                return Ok(CasOutcome::Conflict(now));
            }
            save(path, &record)?;
            Ok(CasOutcome::Committed)
        });
        // An error in the middle of a write: it may be there or not.
        written.unwrap_or(CasOutcome::Unknown)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(me)) = (args.next(), args.next()) else {
        return Err("usage: custom_store FILE 0|1".into());
    };
    let me = NodeId(me.parse()?);
    let timing = Timing {
        lease: Duration::from_secs(4),
        give_up: Duration::from_secs(2),
        renew: Duration::from_millis(500),
        retry: Duration::from_millis(300),
        poll: Duration::from_millis(200),
        jitter: Duration::from_millis(50),
        hook: Duration::from_millis(500),
        clock_error_ppm: 200,
    };
    let store = FileStore { path: path.into() };
    let mut elector =
        Builder::new("file", me, [NodeId(0), NodeId(1)], store, timing.validate()?).start()?;
    for _ in 0..2 {
        let term = elector.acquire().await?;
        println!("{me:?} leads under epoch {}", term.epoch());
        tokio::select! {
            () = term.cancelled() => println!("{me:?} has lost the lease"),
            () = tokio::time::sleep(Duration::from_secs(2)) => println!("{me:?} gives the lease up"),
        }
        term.release().await;
    }
    elector.shutdown().await;
    Ok(())
}
