//! The lease guard: one word that says until when, and under which epoch, this process may write.
//!
//! The elector publishes a term here; any number of threads ask. A question is one atomic load and one
//! reading of the clock, with no lock and no allocation, so it can be asked before every effect; and since
//! each asker compares the deadline with the clock itself, an elector that is stuck leaves no true answer
//! behind (L-12).
//!
//! ```text
//!   63           40 39                                0
//!   +--------------+----------------------------------+
//!   | epoch        | deadline, ms since the guard was |    0 ms: the term has ended
//!   |              | made, rounded down               |
//!   +--------------+----------------------------------+
//! ```
//!
//! One word, because two would be torn: the old deadline with the new epoch. Every change is a
//! read-modify-write that compares all of it, because a change that was decided on an older word must
//! not land on a newer one: a renewal on a term that has ended, or on the next one.
//!
//! # What a permit is worth
//!
//! A permit says that at one moment there was enough time left. It does not survive a pause: a thread that is
//! stopped between the question and the effect acts when it goes on, whatever has happened since. So
//! **every effect carries the epoch, and what it acts on refuses an epoch below the highest it has seen**
//! (L-28). Three ways to use a guard, each stronger than the one before:
//!
//! 1. [`LeaseGuard::permit`] before an effect.
//! 2. The same, and [`LeaseGuard::confirm`] before the answer leaves: what was read in between was read
//!    while the term lasted, if whoever takes the data over revokes first and changes it after that.
//! 3. [`LeaseGuard::enter`], which also counts the work until its end, so that a term can wait for it.

use std::fmt;
use std::time::Duration;

use crate::clock::{BootInstant, Clock};
use crate::gate::{Admission, EPOCH_MAX, GateError, WriteGate};
use crate::lease::record::Epoch;
use crate::sync::{AtomicU64, Ordering, fence};

const DEADLINE_BITS: u32 = 40;
const DEADLINE_MAX: u64 = (1 << DEADLINE_BITS) - 1;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Says whether this process may write, and until when. See the [module](self).
pub struct LeaseGuard<C> {
    word: AtomicU64,
    gate: WriteGate,
    origin: BootInstant,
    clock: C,
}

/// Enough time was left for an effect, at one moment. Its epoch goes with the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an effect carries the permit's epoch"]
pub struct Permit {
    epoch: Epoch,
    deadline: BootInstant,
}

impl Permit {
    /// The fencing token that the effect carries (L-28).
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the term ends unless it is renewed, as it was at the question.
    pub fn deadline(&self) -> BootInstant {
        self.deadline
    }
}

/// Why an effect is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// No term, or it has ended.
    #[error("this process does not hold the lease")]
    NoTerm,
    /// The term goes on, but too little of it is left.
    #[error("too little time is left of the term: {left:?}")]
    NoTime {
        /// What is left; zero if the deadline has passed.
        left: Duration,
    },
}

/// Why a term was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The term has ended, or a later one is known.
    #[error("the term of epoch {0} has ended")]
    Ended(Epoch),
    /// The epoch is above [`EPOCH_MAX`].
    #[error("epoch {0} is above {EPOCH_MAX}, the largest that a guard can hold")]
    EpochTooLarge(Epoch),
    /// The deadline is not later than the one that is there.
    #[error("the deadline is not later than the one before")]
    NotLater,
    /// Work of an earlier term is still running.
    #[error("{0} pieces of work of an earlier term are still running")]
    Draining(u64),
}

/// Why work was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// The lease does not permit it.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The term has ended since.
    #[error(transparent)]
    Gate(#[from] GateError),
}

fn epoch_of(word: u64) -> Epoch {
    word >> DEADLINE_BITS
}

fn deadline_of(word: u64) -> u64 {
    word & DEADLINE_MAX
}

fn pack(epoch: Epoch, millis: u64) -> u64 {
    epoch << DEADLINE_BITS | millis
}

fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(NANOS_PER_SEC)
        .saturating_add(u64::from(duration.subsec_nanos()))
}

impl<C: Clock> LeaseGuard<C> {
    /// A guard that permits nothing.
    pub fn new(clock: C) -> Self {
        let origin = clock.now();
        Self { word: AtomicU64::new(0), gate: WriteGate::new(), origin, clock }
    }

    /// Begins a term: permits its epoch until the deadline, and opens the gate for its work.
    ///
    /// The deadline is rounded down to a millisecond after the guard was made, and is at most 34.8 years
    /// after that: never later than it was given.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the epoch must be above every epoch that was opened or ended here, and the work of
    /// every earlier term must have left the gate. Nothing is permitted then.
    pub fn open(&self, epoch: Epoch, deadline: BootInstant) -> Result<(), Refused> {
        if epoch > EPOCH_MAX {
            return Err(Refused::EpochTooLarge(epoch));
        }
        self.gate.open(epoch).map_err(|error| match error {
            GateError::Draining(count) => Refused::Draining(count),
            _ => Refused::Ended(epoch),
        })?;
        let millis = self.millis(deadline);
        let opened = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            (epoch_of(word) < epoch && millis > 0).then(|| pack(epoch, millis))
        });
        opened.map(|_| ()).map_err(|_| {
            // It was ended before it began.
            self.gate.close(epoch);
            Refused::Ended(epoch)
        })
    }

    /// Puts the deadline of the running term off: a renewal is known to be committed.
    ///
    /// # Errors
    ///
    /// [`Refused::Ended`] if this is not the running term: what has ended stays ended, however late its last
    /// renewal is answered. [`Refused::NotLater`] if the deadline is no later than the one that is there.
    //= SPEC GUARD-2
    pub fn extend(&self, epoch: Epoch, deadline: BootInstant) -> Result<(), Refused> {
        let millis = self.millis(deadline);
        let extended = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let is_running = epoch_of(word) == epoch && deadline_of(word) > 0;
            (is_running && millis > deadline_of(word)).then(|| pack(epoch, millis))
        });
        extended.map(|_| ()).map_err(|word| {
            if epoch_of(word) == epoch && deadline_of(word) > 0 {
                Refused::NotLater
            } else {
                Refused::Ended(epoch)
            }
        })
    }

    /// Ends a term, and every one before it. Nothing is permitted from here on, and the gate admits nothing.
    ///
    /// It returns true to exactly one caller for each term that was open, whoever else ends it at the same
    /// time: that one stops the work (L-14). A term that is ended before it was opened cannot be opened.
    ///
    /// Data that belongs to the next term is changed after this returns.
    //= SPEC GUARD-5
    pub fn revoke(&self, epoch: Epoch) -> bool {
        let epoch = epoch.min(EPOCH_MAX);
        let revoked = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let ended = pack(epoch, 0);
            (epoch_of(word) <= epoch && word != ended).then_some(ended)
        });
        self.gate.close(epoch);
        // Whoever sees what is written after this, and has a fence of its own (`confirm`), sees the end.
        fence(Ordering::Release);
        revoked.is_ok_and(|before| deadline_of(before) > 0)
    }

    /// Ends the term whose deadline has passed, if there is one and nobody has ended it; says which.
    ///
    /// For a deadline thread beside the elector. A renewal that lands between the look at the clock and the
    /// end wins: exactly the word that was found overdue is ended, and no other.
    //= SPEC GUARD-5
    pub fn expire(&self) -> Option<Epoch> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let is_running = deadline_of(word) > 0;
            if !is_running || self.clock.now() < self.instant(word) {
                return None;
            }
            let epoch = epoch_of(word);
            let ended = pack(epoch, 0);
            match self.word.compare_exchange(word, ended, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.gate.close(epoch);
                    fence(Ordering::Release);
                    return Some(epoch);
                }
                Err(newer) => word = newer,
            }
        }
    }

    /// Whether this much time is left, now, by this caller's own look at the clock.
    ///
    /// # Errors
    ///
    /// [`Lost`]. At the deadline itself nothing is left.
    //= SPEC GUARD-1
    //= SPEC GUARD-3
    #[inline]
    pub fn permit(&self, needed: Duration) -> Result<Permit, Lost> {
        let word = self.word.load(Ordering::Acquire);
        if deadline_of(word) == 0 {
            return Err(Lost::NoTerm);
        }
        let deadline = self.instant(word);
        // After the word: a term must not be judged by a time before it was seen.
        let left = deadline.as_nanos().saturating_sub(self.clock.now().as_nanos());
        if left == 0 || left < nanos(needed) {
            return Err(Lost::NoTime { left: Duration::from_nanos(left) });
        }
        Ok(Permit { epoch: epoch_of(word), deadline })
    }

    /// Whether the term of this permit still lasts, and has this much time left.
    ///
    /// What the caller has read since the permit was then read before the end of the term: before anything
    /// that was written after [`LeaseGuard::revoke`] had returned.
    ///
    /// # Errors
    ///
    /// [`Lost`]; what was read must not be used.
    pub fn confirm(&self, permit: Permit, needed: Duration) -> Result<Permit, Lost> {
        fence(Ordering::Acquire);
        let now = self.permit(needed)?;
        if now.epoch == permit.epoch { Ok(now) } else { Err(Lost::NoTerm) }
    }

    /// Admits work that needs this much time, and counts it until its admission is dropped.
    ///
    /// # Errors
    ///
    /// [`NotAdmitted`]; nothing may begin then.
    pub fn enter(&self, needed: Duration) -> Result<Admission<'_>, NotAdmitted> {
        let permit = self.permit(needed)?;
        Ok(self.gate.enter(permit.epoch)?)
    }

    /// The gate that the work of a term passes.
    pub fn gate(&self) -> &WriteGate {
        &self.gate
    }

    /// The term as it was published last, whether or not its deadline has passed; `None` if it has been
    /// ended, or none has begun.
    pub fn term(&self) -> Option<(Epoch, BootInstant)> {
        let word = self.word.load(Ordering::Acquire);
        (deadline_of(word) > 0).then(|| (epoch_of(word), self.instant(word)))
    }

    /// The clock that it reads.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Milliseconds from the guard's making to a deadline, rounded down.
    //= SPEC GUARD-7
    fn millis(&self, deadline: BootInstant) -> u64 {
        let nanos = deadline.as_nanos().saturating_sub(self.origin.as_nanos());
        (nanos / NANOS_PER_MILLI).min(DEADLINE_MAX)
    }

    #[inline]
    fn instant(&self, word: u64) -> BootInstant {
        let after = deadline_of(word) * NANOS_PER_MILLI;
        BootInstant::from_nanos(self.origin.as_nanos().saturating_add(after))
    }
}

impl<C> fmt::Debug for LeaseGuard<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("LeaseGuard")
            .field("epoch", &epoch_of(word))
            .field("deadline_ms", &deadline_of(word))
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
