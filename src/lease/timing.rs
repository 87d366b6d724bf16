//! The numbers of a lease, and when they are safe.

use std::time::Duration;

/// The timing of one lease. The letters are those of the timing inequality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
