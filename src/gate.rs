//! The gate that work passes: it admits work under one epoch, and knows when the last has left.
//!
//! A permission says that work may begin; it says nothing of work that has begun. When a term ends, its
//! work must have ended before anybody else may write (L-31), so work is admitted by [`WriteGate::enter`]
//! and counted until its [`Admission`] is dropped. [`WriteGate::close`] admits no more, and
//! [`WriteGate::closed`] is done when nobody is left.
//!
//! Everything is decided in one atomic word, by read-modify-write alone:
//!
//! ```text
//!   63           40   39     38                      0
//!   +--------------+--------+-------------------------+
//!   | epoch        | closed | admitted and not gone   |
//!   +--------------+--------+-------------------------+
//! ```
//!
//! Entering and leaving are one such operation each. Only the one who leaves last through a closed gate takes
//! a lock, to wake those who wait for that. Why no wake-up is lost: whoever leaves last changes the
//! word first and takes the lock after that; whoever waits looks at the word under the lock. So either the
//! waiter sees the change, or it is registered before the leaver looks for waiters.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::lease::record::Epoch;
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering};

/// The largest epoch that a gate or a guard can tell apart: 16,777,215. A lease that changes hands once a
/// minute gets there after 32 years.
pub const EPOCH_MAX: Epoch = (1 << 24) - 1;

const EPOCH_SHIFT: u32 = 40;
const CLOSED: u64 = 1 << 39;
const COUNT: u64 = CLOSED - 1;

/// Admits work under one epoch at a time. See the [module](self).
pub struct WriteGate {
    word: AtomicU64,
    waiters: Mutex<Vec<Waker>>,
    drained: Condvar,
}

/// Why work was not admitted, or a gate not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The gate is closed, or open for another epoch.
    #[error("the gate admits no work under epoch {0}: its term has ended, or has not begun")]
    Closed(Epoch),
    /// Work of an earlier term is still running.
    #[error("{0} admissions of an earlier term are still running: wait until the gate has closed")]
    Draining(u64),
    /// The epoch is not above every epoch that the gate has seen, or is above [`EPOCH_MAX`].
    #[error("epoch {0} cannot be opened: it is past, or above the largest that a gate can hold")]
    Epoch(Epoch),
}

/// A place inside the gate. Work holds it for as long as it runs; dropping it leaves the gate.
#[must_use = "work counts as running only while its admission is held"]
pub struct Admission<'a> {
    gate: &'a WriteGate,
    epoch: Epoch,
}

impl Admission<'_> {
    /// The epoch under which the work runs: the fencing token that every effect carries (L-28).
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.gate.leave();
    }
}

impl fmt::Debug for Admission<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Default for WriteGate {
    fn default() -> Self {
        Self::new()
    }
}

fn epoch_of(word: u64) -> Epoch {
    word >> EPOCH_SHIFT
}

impl WriteGate {
    /// A gate that is closed, and has never been open.
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(CLOSED),
            waiters: Mutex::new(Vec::new()),
            drained: Condvar::new(),
        }
    }

    /// Opens the gate for the work of a new term.
    ///
    /// # Errors
    ///
    /// [`GateError::Epoch`] if the gate has seen this epoch or a later one, or it is above [`EPOCH_MAX`];
    /// [`GateError::Draining`] if work of an earlier term still runs.
    pub fn open(&self, epoch: Epoch) -> Result<(), GateError> {
        if epoch > EPOCH_MAX {
            return Err(GateError::Epoch(epoch));
        }
        let opened = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let is_drained = word & CLOSED != 0 && word & COUNT == 0;
            (epoch_of(word) < epoch && is_drained).then_some(epoch << EPOCH_SHIFT)
        });
        opened.map(|_| ()).map_err(|word| {
            if epoch_of(word) >= epoch {
                GateError::Epoch(epoch)
            } else {
                GateError::Draining(word & COUNT)
            }
        })
    }

    /// Admits work under this epoch. It neither locks nor allocates.
    ///
    /// # Errors
    ///
    /// [`GateError::Closed`] if the gate is not open for this very epoch.
    //= SPEC GUARD-4
    //= SPEC GUARD-6
    pub fn enter(&self, epoch: Epoch) -> Result<Admission<'_>, GateError> {
        let entered = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let is_open = epoch_of(word) == epoch && word & CLOSED == 0;
            let has_room = word & COUNT < COUNT;
            (is_open && has_room).then_some(word + 1)
        });
        match entered {
            Ok(_) => Ok(Admission { gate: self, epoch }),
            Err(_) => Err(GateError::Closed(epoch)),
        }
    }

    /// Admits nothing more under this epoch or an earlier one. What is inside goes on.
    ///
    /// Says whether this call has closed a gate that was open for the epoch.
    pub fn close(&self, epoch: Epoch) -> bool {
        let epoch = epoch.min(EPOCH_MAX);
        let closed = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let is_later = epoch_of(word) > epoch;
            let next = epoch << EPOCH_SHIFT | CLOSED | word & COUNT;
            (!is_later && next != word).then_some(next)
        });
        closed.is_ok_and(|before| epoch_of(before) == epoch)
    }

    /// The highest epoch that it has seen.
    pub fn epoch(&self) -> Epoch {
        epoch_of(self.word.load(Ordering::Acquire))
    }

    /// How much admitted work is running now.
    pub fn admitted(&self) -> u64 {
        self.word.load(Ordering::Acquire) & COUNT
    }

    /// Whether the gate is closed for this epoch and nothing that it ever admitted under it is running.
    /// What that work did happens before this.
    pub fn is_closed(&self, epoch: Epoch) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let is_open = word & CLOSED == 0;
        if is_open {
            // It had been drained before it was opened for a later epoch.
            epoch_of(word) > epoch
        } else {
            // Closed for a later one, it may still hold work of this.
            epoch_of(word) >= epoch && word & COUNT == 0
        }
    }

    /// Waits until [`WriteGate::is_closed`]. Dropping the future is harmless.
    pub fn closed(&self, epoch: Epoch) -> Closed<'_> {
        Closed { gate: self, epoch }
    }

    /// The same, blocking the thread.
    pub fn wait_closed(&self, epoch: Epoch) {
        let mut waiters = self.lock();
        while !self.is_closed(epoch) {
            waiters = self.drained.wait(waiters).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if before & CLOSED != 0 && before & COUNT == 1 {
            self.wake();
        }
    }

    /// Wakes whoever waits. The word has been changed before the lock is taken.
    fn wake(&self) {
        let mut waiters = self.lock();
        for waiter in waiters.drain(..) {
            waiter.wake();
        }
        self.drained.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for WriteGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("WriteGate")
            .field("epoch", &epoch_of(word))
            .field("closed", &(word & CLOSED != 0))
            .field("admitted", &(word & COUNT))
            .finish_non_exhaustive()
    }
}

/// What [`WriteGate::closed`] returns.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Closed<'a> {
    gate: &'a WriteGate,
    epoch: Epoch,
}

impl Future for Closed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.gate.is_closed(self.epoch) {
            return Poll::Ready(());
        }
        let mut waiters = self.gate.lock();
        // Again, under the lock: whoever left since then may have found nobody to wake.
        if self.gate.is_closed(self.epoch) {
            return Poll::Ready(());
        }
        if !waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
            waiters.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn admits_only_under_the_epoch_that_it_is_open_for() {
        let gate = WriteGate::new();
        assert_eq!(gate.enter(0).unwrap_err(), GateError::Closed(0));
        gate.open(3).unwrap();
        assert_eq!(gate.enter(2).unwrap_err(), GateError::Closed(2));
        assert_eq!(gate.enter(4).unwrap_err(), GateError::Closed(4));
        assert_eq!(gate.enter(3).unwrap().epoch(), 3);
        assert_eq!(gate.admitted(), 0);
        assert_eq!(gate.open(3).unwrap_err(), GateError::Epoch(3));
    }

    #[test]
    fn opens_again_only_when_the_work_of_the_term_before_has_left() {
        let gate = WriteGate::new();
        gate.open(1).unwrap();
        let work = gate.enter(1).unwrap();
        // A gate that is open has to be closed first, even if nobody is inside.
        assert_eq!(gate.open(2).unwrap_err(), GateError::Draining(1));
        assert!(gate.close(1));
        assert!(!gate.close(1), "it was closed before");
        assert_eq!(gate.open(2).unwrap_err(), GateError::Draining(1));
        assert!(!gate.is_closed(1));
        drop(work);
        assert!(gate.is_closed(1));
        gate.wait_closed(1);
        gate.open(2).unwrap();
        assert!(gate.is_closed(1), "a later term is proof of it");
        assert!(!gate.is_closed(2));
    }

    #[test]
    fn closing_an_epoch_that_was_never_open_keeps_it_from_being_opened() {
        let gate = WriteGate::new();
        assert!(!gate.close(5));
        assert_eq!(gate.open(5).unwrap_err(), GateError::Epoch(5));
        assert!(!gate.close(4), "an earlier one changes nothing");
        gate.open(6).unwrap();
        assert!(!gate.close(5));
        drop(gate.enter(6).unwrap());
        assert_eq!(gate.open(EPOCH_MAX + 1).unwrap_err(), GateError::Epoch(EPOCH_MAX + 1));
    }

    #[test]
    fn closing_a_later_epoch_does_not_hide_the_work_of_an_earlier_one() {
        let gate = WriteGate::new();
        gate.open(1).unwrap();
        let work = gate.enter(1).unwrap();
        gate.close(2);
        assert!(!gate.is_closed(1), "its work is still running");
        drop(work);
        assert!(gate.is_closed(1) && gate.is_closed(2));
    }

    #[test]
    fn work_that_panics_leaves_the_gate() {
        let gate = WriteGate::new();
        gate.open(1).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _work = gate.enter(1).unwrap();
            panic!("work fails");
        }));
        assert!(panicked.is_err());
        gate.close(1);
        gate.wait_closed(1);
    }
}
