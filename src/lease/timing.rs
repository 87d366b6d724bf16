//! The numbers of a lease, and when they are safe.
//!
//! A holder gives up by its own clock, a watcher takes over by its own. Nobody compares times of
//! day; all that is assumed is that a clock's *rate* is off by at most rho. Then:
//!
//! 1. The holder sends a renewal at `t`, and it is committed at `t` or later.
//! 2. It counts G from the send. A slow clock stretches that: it gives up by `t + G/(1-rho)`.
//! 3. Its stop hook takes up to S: its last act is no later than `t + G/(1-rho) + S`.
//! 4. A watcher counts L from a reply that shows the new version, so from the commit or later. A
//!    fast clock shortens that: it takes over no earlier than `t + L/(1+rho)`.
//! 5. So the holder ends before the watcher begins if `G/(1-rho) + S < L/(1+rho)`, which is
//!
//!    **`L > G*(1+rho)/(1-rho) + S*(1+rho)`**, strictly: at equality both may act in one instant.
//!
//! The decision is made in whole nanoseconds and parts per million, without rounding and without
//! floating point: a set is accepted at [`Timing::smallest_lease`] and refused at one nanosecond
//! less. What is only told to people (bounds, overlaps) is rounded to the nanosecond, outwards.
//!
//! What no lease period covers is a pause between a check and its effect: only a token that is
//! checked at the resource does.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::{Exact, from_nanos};

/// Parts per million in one.
const MILLION: u128 = 1_000_000;

/// The timing of one lease. The letters are those of the timing inequality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timing {
    /// L: how long a watcher waits over an unchanged record, on its own clock.
    pub lease: Duration,
    /// G: how long after the *send* of its last good renewal a holder gives up, on its own clock.
    pub give_up: Duration,
    /// R: the longest time from one renewal to the next, on the holder's clock.
    pub renew: Duration,
    /// How long an attempt or a read may stay unanswered before the next is sent.
    pub retry: Duration,
    /// P: the longest time between two reads of a watcher.
    pub poll: Duration,
    /// How much earlier than R, P and the retry a loop may go, drawn anew each time (L-40).
    pub jitter: Duration,
    /// S: the worst time for the stop hook to take effect, in real time.
    pub hook: Duration,
    /// rho: the bound on the error of a clock's *rate*, in parts per million.
    pub clock_error_ppm: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Timing {
    /// L 15 s, G 10 s, R 5 s, retry 1 s, P 1 s, jitter 200 ms, S 2 s, rho 200 ppm: safe by 3 s.
    pub const DEFAULT: Self = Self {
        lease: Duration::from_secs(15),
        give_up: Duration::from_secs(10),
        renew: Duration::from_secs(5),
        retry: Duration::from_secs(1),
        poll: Duration::from_secs(1),
        jitter: Duration::from_millis(200),
        hook: Duration::from_secs(2),
        clock_error_ppm: 200,
    };

    /// No duration may be longer: a lease of more than a year is a slip of the pen.
    pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// The largest clock error that is believed, in parts per million: 10 %.
    ///
    /// A quartz clock is off by some 100 ppm, and a clock being slewed by 500 ppm more. Beyond this
    /// bound the number was meant in another unit, or the clock must be mended.
    pub const CLOCK_ERROR_MAX_PPM: u32 = 100_000;

    /// How long it may take from pulling a kill switch until the work has ended, in real time.
    pub const KILL_TAKES: Duration = Duration::from_millis(50);

    /// How long work may take to end by itself, on the clock of its own machine, before the kill switch is pulled:
    /// `S*(1-rho)`, rounded down, less [`Timing::KILL_TAKES`]; zero if S leaves nothing.
    ///
    /// S is real time. A slow clock stretches what it measures to `1/(1-rho)` of that, so a kill that
    /// waited for S by that clock would come too late.
    //= SPEC GUARD-22
    pub fn stop_within(&self) -> Duration {
        let slow = MILLION.saturating_sub(u128::from(self.clock_error_ppm));
        // As in `smallest_lease`: at most 2^94 nanoseconds, times a million.
        let local = from_nanos(self.hook.as_nanos() * slow / MILLION).expect("shorter than S");
        local.saturating_sub(Self::KILL_TAKES)
    }

    /// The numbers that decide whether these are safe.
    pub const fn inequality(&self) -> Inequality {
        Inequality {
            lease: self.lease,
            hold: self.give_up,
            hook: self.hook,
            clock_error_ppm: self.clock_error_ppm,
        }
    }

    /// The smallest safe lease period, to the nanosecond: see [`Inequality::smallest_lease`].
    pub fn smallest_lease(&self) -> Option<Duration> {
        self.inequality().smallest_lease()
    }

    /// The largest G that is safe with this L and leaves room for one renewal and its repetition,
    /// to the nanosecond; `None` if there is none.
    pub fn largest_give_up(&self) -> Option<Duration> {
        self.inequality().largest_hold().filter(|&hold| hold >= self.shortest_give_up())
    }

    /// The first attempt is sent R after the last good one and the second a retry later; an answer
    /// within less than another retry then arrives before G.
    fn shortest_give_up(&self) -> Duration {
        self.renew.saturating_add(self.retry.saturating_mul(2))
    }

    /// What L has above the need, in nanoseconds; positive exactly if safe: see
    /// [`Inequality::margin_ns`].
    pub fn margin_ns(&self) -> i128 {
        self.inequality().margin_ns()
    }

    /// The earliest takeover: `L/(1+rho)` of real time after the holder's last commit, rounded
    /// down.
    pub fn takeover_earliest(&self) -> Duration {
        self.inequality().takeover_earliest()
    }

    /// The latest takeover when no packet is lost: `(P + L)/(1-rho) + D_r + D_w` of real time from
    /// the holder's last commit to the next holder's, rounded up.
    ///
    /// `read` (D_r) and `write` (D_w) are the longest times of a read and of a conditional write,
    /// from send to answer. A watcher sees the last version within P, waits L and writes over it. Where
    /// an answer may take longer than the shortest wait between two reads, the request that is under way
    /// at that commit may show an older version, and its time is added.
    /// [`Duration::MAX`] if there is no bound: a clock that may be off by 100 % may stand still.
    pub fn takeover_latest(&self, read: Duration, write: Duration) -> Duration {
        let longest = read.max(write);
        let outlasts = longest >= self.poll.saturating_sub(self.jitter);
        let again = if outlasts { longest } else { Duration::ZERO };
        stretched(self.poll.as_nanos() + self.lease.as_nanos(), self.clock_error_ppm)
            .and_then(|ns| from_nanos(ns + read.as_nanos() + write.as_nanos() + again.as_nanos()))
            .unwrap_or(Duration::MAX)
    }

    /// The longest time without a writer in a hand-over that the holder consents to: S, one message
    /// with the consent, one conditional write. Real time.
    ///
    /// `message` is the longest time of one message one way, `write` (D_w) that of a conditional
    /// write from send to answer. [`Duration::MAX`] if the sum does not fit.
    pub const fn handover_gap(&self, message: Duration, write: Duration) -> Duration {
        self.hook.saturating_add(message).saturating_add(write)
    }

    /// When a holder that cannot reach the store is read-only at the latest: `G/(1-rho) + S` of
    /// real time after the send of its last good renewal, rounded up.
    ///
    /// [`Duration::MAX`] if there is no bound: see [`Timing::takeover_latest`].
    pub fn self_fence(&self) -> Duration {
        self.inequality().last_act()
    }

    /// Checks everything that must hold before a node may start with these numbers.
    ///
    /// # Errors
    ///
    /// Every rule that is broken, not only the first.
    //= SPEC TIME-2
    pub fn validate(self) -> Result<Checked, TimingErrors> {
        let mut errors = Vec::new();
        let durations = [
            ("lease", self.lease, false),
            ("give_up", self.give_up, false),
            ("renew", self.renew, false),
            ("retry", self.retry, false),
            ("poll", self.poll, false),
            ("jitter", self.jitter, true),
            ("hook", self.hook, true),
        ];
        for (name, have, may_be_zero) in durations {
            if have.is_zero() && !may_be_zero {
                errors.push(TimingError::Zero { name });
            }
            if have > Self::DURATION_MAX {
                errors.push(TimingError::TooLong { name, have });
            }
        }
        if self.clock_error_ppm > Self::CLOCK_ERROR_MAX_PPM {
            errors.push(TimingError::ClockError { have_ppm: self.clock_error_ppm });
        }
        self.check_attempts(&mut errors);
        for (name, than) in [("renew", self.renew), ("retry", self.retry), ("poll", self.poll)] {
            if self.jitter >= than && !than.is_zero() {
                errors.push(TimingError::Jitter { jitter: self.jitter, name, than });
            }
        }
        if !self.inequality().is_safe() {
            errors.push(TimingError::Unsafe {
                numbers: self.inequality(),
                give_up_max: self.largest_give_up(),
            });
        }
        if errors.is_empty() { Ok(Checked(self)) } else { Err(TimingErrors(errors)) }
    }

    /// A renewal that gets lost must leave time for one more, or the holder falls at the first
    /// loss.
    fn check_attempts(&self, errors: &mut Vec<TimingError>) {
        let Self { give_up, renew, retry, .. } = *self;
        let known = errors.len();
        if renew >= give_up {
            errors.push(TimingError::Renew { renew, give_up });
        }
        if retry > give_up {
            errors.push(TimingError::Retry { retry, give_up });
        }
        let needed = self.shortest_give_up();
        if errors.len() == known && needed > give_up {
            errors.push(TimingError::NoSecondAttempt { renew, retry, give_up, needed });
        }
    }
}

/// A [`Timing`] that is known to be safe and sensible. [`Timing::validate`] alone makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Checked(Timing);

impl Checked {
    /// The numbers.
    pub const fn get(self) -> Timing {
        self.0
    }
}

impl Deref for Checked {
    type Target = Timing;

    fn deref(&self) -> &Timing {
        &self.0
    }
}

/// One broken rule: what is wrong with the numbers, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// The inequality does not hold: two nodes could act as the holder at once.
    #[error("not safe: {}", UnsafeText(.numbers, *.give_up_max))]
    Unsafe {
        /// The numbers of the inequality; they know what would be needed.
        numbers: Inequality,
        /// See [`Timing::largest_give_up`].
        give_up_max: Option<Duration>,
    },
    /// A duration is zero that cannot be.
    #[error("{name} is zero; give it a length, such as \"1s\"")]
    Zero {
        /// Which one.
        name: &'static str,
    },
    /// A duration is longer than [`Timing::DURATION_MAX`].
    #[error("{name} is {}, more than 365 days; give a shorter one", Exact(*.have))]
    TooLong {
        /// Which one.
        name: &'static str,
        /// Its length.
        have: Duration,
    },
    /// No clock that is as wrong as this can be used: see [`Timing::CLOCK_ERROR_MAX_PPM`].
    #[error(
        "clock_error_ppm is {have_ppm}, more than 100000 (10 %); it is a bound on the error of a \
         clock's rate in parts per million: 200 is ample for a machine whose clock is in order"
    )]
    ClockError {
        /// The bound, in parts per million.
        have_ppm: u32,
    },
    /// A holder that renews this late has already given up.
    #[error(
        "renew {} is not below give_up {}: the holder would give up before it renews; lower renew, \
         to about half of give_up",
        Exact(*.renew),
        Exact(*.give_up)
    )]
    Renew {
        /// R.
        renew: Duration,
        /// G.
        give_up: Duration,
    },
    /// An attempt may stay unanswered for longer than the holder holds.
    #[error(
        "retry {} is above give_up {}: no renewal would ever be sent again; lower retry",
        Exact(*.retry),
        Exact(*.give_up)
    )]
    Retry {
        /// The retry time.
        retry: Duration,
        /// G.
        give_up: Duration,
    },
    /// One lost packet would end the term.
    #[error(
        "renew {} + 2 * retry {} = {} is above give_up {}: a lost renewal could not be sent again \
         and answered in time; lower renew or retry, or raise give_up",
        Exact(*.renew),
        Exact(*.retry),
        Exact(*.needed),
        Exact(*.give_up)
    )]
    NoSecondAttempt {
        /// R.
        renew: Duration,
        /// The retry time.
        retry: Duration,
        /// G.
        give_up: Duration,
        /// The smallest give-up time that leaves room.
        needed: Duration,
    },
    /// A loop that may be early by its whole period has none.
    #[error(
        "jitter {} is not below {name} {}: the loop could run without a pause; lower jitter",
        Exact(*.jitter),
        Exact(*.than)
    )]
    Jitter {
        /// The jitter.
        jitter: Duration,
        /// The period that it is taken from.
        name: &'static str,
        /// The length of that period.
        than: Duration,
    },
}

/// Every broken rule of one set of numbers: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingErrors(Vec<TimingError>);

impl TimingErrors {
    /// The broken rules, in the order of the fields; the inequality comes last.
    pub fn iter(&self) -> std::slice::Iter<'_, TimingError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a TimingErrors {
    type Item = &'a TimingError;
    type IntoIter = std::slice::Iter<'a, TimingError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for TimingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for TimingErrors {}

/// The timing inequality with its numbers, exact: the one place where safety is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inequality {
    /// L: what a watcher waits, on its clock.
    pub lease: Duration,
    /// G: what the holder holds after the send of its last good renewal, on its clock. For a holder
    /// that counts from the answer, G plus the longest time that an answer can take.
    pub hold: Duration,
    /// S: what the stop hook needs, in real time.
    pub hook: Duration,
    /// rho, in parts per million.
    pub clock_error_ppm: u32,
}

impl Inequality {
    /// Whether `L > hold*(1+rho)/(1-rho) + S*(1+rho)`.
    //= SPEC TIME-1
    pub fn is_safe(self) -> bool {
        // Exact, because the smallest safe lease is.
        self.smallest_lease().is_some_and(|smallest| self.lease >= smallest)
    }

    /// The smallest safe lease, to the nanosecond: [`Inequality::is_safe`] holds for it, and not
    /// for one nanosecond less.
    ///
    /// `None` if no lease is long enough: the clock may be off by 100 % or more, or the sum does
    /// not fit into a [`Duration`].
    pub fn smallest_lease(self) -> Option<Duration> {
        // The smallest whole number strictly above the need.
        from_nanos(self.need_ns()? + 1)
    }

    /// The largest hold that is safe with this L, to the nanosecond; `None` if not even zero is.
    ///
    /// The same for G, where the hold is G and an answer's time: subtract that time.
    pub fn largest_hold(self) -> Option<Duration> {
        let rho = u128::from(self.clock_error_ppm);
        let (fast, slow) = (MILLION + rho, MILLION.checked_sub(rho)?);
        // hold*fast/slow < L - S*fast/M, with everything brought to whole numbers; strictly below
        // is the same as not above one less.
        let room = self.lease.as_nanos().checked_mul(MILLION)?;
        let room = room.checked_sub(self.hook.as_nanos().checked_mul(fast)?)?;
        from_nanos(room.checked_mul(slow)?.checked_sub(1)? / (fast * MILLION))
    }

    /// The largest S that is safe with this L and hold, to the nanosecond; `None` if not even zero
    /// is.
    pub fn largest_hook(self) -> Option<Duration> {
        let rho = u128::from(self.clock_error_ppm);
        let (fast, slow) = (MILLION + rho, MILLION.checked_sub(rho).filter(|&slow| slow > 0)?);
        // S*fast/M < L - hold*fast/slow, as in `largest_hold`.
        let room = self.lease.as_nanos().checked_mul(slow)?;
        let room = room.checked_sub(self.hold.as_nanos().checked_mul(fast)?)?;
        from_nanos(room.checked_mul(MILLION)?.checked_sub(1)? / (fast * slow))
    }

    /// The largest rho that is safe with the other numbers, in parts per million; `None` if not
    /// even zero is.
    pub fn largest_clock_error_ppm(self) -> Option<u32> {
        let is_safe = |clock_error_ppm| Self { clock_error_ppm, ..self }.is_safe();
        // The need grows with rho: halve the range, with `low` safe and `high` not.
        let (mut low, mut high) = (0, 1_000_000);
        if !is_safe(low) {
            return None;
        }
        while high - low > 1 {
            let middle = (low + high) / 2;
            *if is_safe(middle) { &mut low } else { &mut high } = middle;
        }
        Some(low)
    }

    /// L less the need, in nanoseconds, rounded up: positive exactly if safe, 0 at equality.
    ///
    /// [`i128::MIN`] if no lease is long enough.
    pub fn margin_ns(self) -> i128 {
        // Both are below 2^120.
        self.need_ns().map_or(i128::MIN, |need| self.lease.as_nanos() as i128 - need as i128)
    }

    /// `hold*(1+rho)/(1-rho) + S*(1+rho)` in nanoseconds, rounded down; `None` if it is infinite.
    ///
    /// L must be strictly above it.
    pub fn need_ns(self) -> Option<u128> {
        let rho = u128::from(self.clock_error_ppm);
        let (fast, slow) = (MILLION + rho, MILLION.checked_sub(rho).filter(|&slow| slow > 0)?);
        let hold = self.hold.as_nanos() * fast;
        let hook = self.hook.as_nanos() * fast;
        // The fractions of the two quotients can add up to one or more.
        let fractions = (hold % slow) * MILLION + (hook % MILLION) * slow;
        Some(hold / slow + hook / MILLION + fractions / (slow * MILLION))
    }

    /// The earliest takeover, `L/(1+rho)` of real time after the last commit, rounded down.
    pub fn takeover_earliest(self) -> Duration {
        let fast = MILLION + u128::from(self.clock_error_ppm);
        from_nanos(self.lease.as_nanos() * MILLION / fast).expect("shorter than L")
    }

    /// The holder's last act, `hold/(1-rho) + S` of real time after the send of its last good
    /// renewal, rounded up; [`Duration::MAX`] if there is no bound.
    pub fn last_act(self) -> Duration {
        stretched(self.hold.as_nanos(), self.clock_error_ppm)
            .and_then(|ns| from_nanos(ns + self.hook.as_nanos()))
            .unwrap_or(Duration::MAX)
    }

    /// The longest real time in which two nodes act as the holder at once, rounded outwards (by
    /// less than 2 ns); zero if safe or if they only meet in an instant.
    pub fn overlap(self) -> Duration {
        // `last_act` is rounded up and `takeover_earliest` down: never less than the truth.
        if self.margin_ns() >= 0 {
            return Duration::ZERO;
        }
        self.last_act().saturating_sub(self.takeover_earliest())
    }
}

/// A time on a clock that runs at `1-rho`, in nanoseconds of real time, rounded up.
fn stretched(ns: u128, rho_ppm: u32) -> Option<u128> {
    let slow = MILLION.checked_sub(u128::from(rho_ppm)).filter(|&slow| slow > 0)?;
    Some((ns * MILLION).div_ceil(slow))
}

/// The text of [`TimingError::Unsafe`]: what is needed, what there is, and the two ways out.
struct UnsafeText<'a>(&'a Inequality, Option<Duration>);

impl fmt::Display for UnsafeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = *self.0;
        let Some(smallest) = numbers.smallest_lease() else {
            return f.write_str("no lease is long enough; lower give_up, hook or clock_error_ppm");
        };
        write!(
            f,
            "give_up {}, hook {} and clocks off by {} ppm need a lease of at least {}, and it is {}; \
             raise lease",
            Exact(numbers.hold),
            Exact(numbers.hook),
            numbers.clock_error_ppm,
            Exact(smallest),
            Exact(numbers.lease),
        )?;
        match self.1 {
            Some(hold) => write!(f, ", or lower give_up to at most {}", Exact(hold)),
            None => f.write_str(", or shorten the hook"),
        }
    }
}

#[cfg(test)]
mod tests;
