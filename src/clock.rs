//! A point in time of one machine, and whoever can tell it.
//!
//! The core reads no clock. A node reads `CLOCK_BOOTTIME`, which goes on while the machine sleeps; a test
//! or a model brings a clock of its own.

use std::time::Duration;

/// A point in time of this machine: nanoseconds since it was booted, suspension included.
///
/// It means nothing on another machine, or after the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootInstant {
    nanos: u64,
}

impl BootInstant {
    /// Later than every instant that a machine sees: 584 years after its boot.
    pub const NEVER: Self = Self { nanos: u64::MAX };

    /// The instant this many nanoseconds after the machine's boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// Nanoseconds since the machine's boot.
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// The instant this much later, or `None` if it is beyond [`BootInstant::NEVER`].
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        Some(Self { nanos: self.nanos.checked_add(nanos)? })
    }

    /// The instant this much later, at the latest [`BootInstant::NEVER`]: a sum that wrapped would
    /// be a deadline in the past.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self::NEVER)
    }

    /// How long ago `earlier` was, or `None` if it is later than `self`.
    pub fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        self.nanos.checked_sub(earlier.nanos).map(Duration::from_nanos)
    }

    /// How long ago `earlier` was; zero if it is later than `self`.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.checked_duration_since(earlier).unwrap_or_default()
    }
}

/// Tells the time of this machine.
///
/// It must never go back, and must go on while the machine is suspended: a lease runs out meanwhile for
/// everybody else.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> BootInstant;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_never_wraps() {
        let late = BootInstant::from_nanos(u64::MAX - 1);
        assert_eq!(late.checked_add(Duration::from_nanos(1)), Some(BootInstant::NEVER));
        assert_eq!(late.checked_add(Duration::from_nanos(2)), None);
        assert_eq!(late.saturating_add(Duration::MAX), BootInstant::NEVER);
        let early = BootInstant::from_nanos(5);
        assert_eq!(early.checked_duration_since(late), None);
        assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
        assert_eq!(
            early.saturating_duration_since(BootInstant::from_nanos(2)),
            Duration::from_nanos(3)
        );
    }
}
