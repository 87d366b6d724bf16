//! Which runs are in memory, and where the others are.
//!
//! The bytes of a run never change, so a run that has not been looked at for a while can lie in a [`Scratch`] as well
//! as in memory: what a map holds is the same. A process that keeps very large maps names such a place
//! once ([`keep_in`]); without one all runs stay in memory. It is no storage: nothing in it outlives the process, and what
//! is durable is written elsewhere.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Where pieces of bytes lie outside of memory for as long as this process needs them.
pub trait Scratch: Send + Sync + Debug {
    /// Writes a piece, and says where it lies.
    ///
    /// # Errors
    ///
    /// If there is no room, or the system refuses. The piece stays in memory then.
    fn put(&self, bytes: &[u8]) -> io::Result<u32>;

    /// Reads the piece that lies there; it is as long as the buffer.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not what was written. Whoever needs it cannot go on then, and panics: a node
    /// crash-stops.
    fn get(&self, place: u32, bytes: &mut [u8]) -> io::Result<()>;

    /// Nobody will ask for the piece of this length that lies there any more.
    fn free(&self, place: u32, len: usize);
}

/// Keeps about so many bytes of the process's large maps in memory, and the others there. It counts for maps that become
/// large after this call; a process has one such place, and the first that was named is it.
pub fn keep_in(
    scratch: impl FnOnce() -> io::Result<Box<dyn Scratch>>,
    limit: usize,
) -> io::Result<()> {
    // Two at once would both make one, and one of them is dropped.
    if CACHE.get().is_none() {
        let _ = CACHE.set(Arc::new(Cache::new(scratch()?, limit)));
    }
    Ok(())
}

static CACHE: OnceLock<Arc<Cache>> = OnceLock::new();

/// A value is whole at any time, also if somebody has panicked with the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runs that are in memory, in a ring: a hand goes round, and one that was not read since it came by last goes to
/// the scratch.
#[derive(Debug)]
pub(super) struct Cache {
    scratch: Box<dyn Scratch>,
    limit: usize,
    /// How many bytes of runs are in memory.
    held: AtomicUsize,
    ring: Mutex<VecDeque<Weak<Slot>>>,
}

impl Cache {
    pub(super) fn new(scratch: Box<dyn Scratch>, limit: usize) -> Self {
        Self { scratch, limit, held: AtomicUsize::new(0), ring: Mutex::default() }
    }

    /// The process's own, if it has one.
    pub(super) fn of_process() -> Option<Arc<Self>> {
        CACHE.get().cloned()
    }

    /// How many bytes of runs are in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn ring_len(&self) -> usize {
        lock(&self.ring).len()
    }

    /// A run has come into memory.
    fn admit(&self, slot: &Arc<Slot>) {
        self.held.fetch_add(slot.len as usize, Ordering::Relaxed);
        let mut ring = lock(&self.ring);
        ring.push_back(Arc::downgrade(slot));
        // Two for each that comes, so that those that are gone are never most of the ring. More, while memory is short; a
        // second round finds only what was read since the first.
        for n in 0..2 * ring.len() {
            if n >= 2 && self.held.load(Ordering::Relaxed) <= self.limit {
                break;
            }
            let Some(oldest) = ring.pop_front() else { break };
            let Some(slot) = oldest.upgrade() else { continue };
            match self.put_away(&slot) {
                Ok(true) => {}
                Ok(false) => ring.push_back(oldest),
                Err(_) => {
                    ring.push_back(oldest);
                    break;
                }
            }
        }
    }

    /// Puts a run into the scratch, if memory is short and it was not read of late.
    fn put_away(&self, slot: &Slot) -> io::Result<bool> {
        if self.held.load(Ordering::Relaxed) <= self.limit {
            return Ok(false);
        }
        let mut place = lock(&slot.place);
        if std::mem::take(&mut place.is_read) {
            return Ok(false);
        }
        let Some(bytes) = &place.bytes else { return Ok(true) };
        if place.scratch.is_none() {
            place.scratch = Some(self.scratch.put(bytes)?);
        }
        place.bytes = None;
        self.held.fetch_sub(slot.len as usize, Ordering::Relaxed);
        Ok(true)
    }
}

/// Bytes that never change, wherever they are. A clone costs a pointer.
#[derive(Clone, Debug)]
pub(super) struct Run(Arc<Slot>);

#[derive(Debug)]
struct Slot {
    len: u32,
    place: Mutex<Place>,
    cache: Option<Arc<Cache>>,
}

/// In memory, in the scratch, or in both.
#[derive(Debug)]
struct Place {
    bytes: Option<Arc<[u8]>>,
    scratch: Option<u32>,
    is_read: bool,
}

impl Run {
    pub(super) fn new(bytes: Arc<[u8]>, cache: Option<&Arc<Cache>>) -> Self {
        let run = Self(Arc::new(Slot {
            len: u32::try_from(bytes.len()).expect("a run is short"),
            place: Mutex::new(Place { bytes: Some(bytes), scratch: None, is_read: false }),
            cache: cache.cloned(),
        }));
        if let Some(cache) = cache {
            cache.admit(&run.0);
        }
        run
    }

    /// The bytes, which are in memory from now on.
    ///
    /// # Panics
    ///
    /// If the scratch does not give them back.
    pub(super) fn bytes(&self) -> Arc<[u8]> {
        let mut place = lock(&self.0.place);
        if let Some(bytes) = place.bytes.clone() {
            place.is_read = true;
            return bytes;
        }
        let (Some(cache), Some(at)) = (&self.0.cache, place.scratch) else {
            unreachable!("a run is in memory or in the scratch");
        };
        let mut bytes = vec![0; self.0.len as usize];
        if let Err(error) = cache.scratch.get(at, &mut bytes) {
            panic!(
                "a part of what this process knows cannot be read from its scratch file: {error}"
            );
        }
        let bytes: Arc<[u8]> = bytes.into();
        place.bytes = Some(Arc::clone(&bytes));
        drop(place);
        cache.admit(&self.0);
        bytes
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.len == other.0.len && self.bytes() == other.bytes())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(cache) = &self.cache else { return };
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        if place.bytes.is_some() {
            cache.held.fetch_sub(self.len as usize, Ordering::Relaxed);
        }
        if let Some(at) = place.scratch {
            cache.scratch.free(at, self.len as usize);
        }
    }
}
