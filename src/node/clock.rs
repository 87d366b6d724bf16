//! The only clock of a node: `CLOCK_BOOTTIME`, and a wake-up on it.
//!
//! A lease must run out while its holder's machine is suspended, because it runs out for everybody
//! else. `CLOCK_MONOTONIC`, and with it `std::time::Instant` and every timer of tokio, stands still
//! then; `CLOCK_BOOTTIME` does not, and no administrator can set it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use crate::clock::BootInstant;
use crate::clock::Clock;

const NANOS_PER_SEC: u64 = 1_000_000_000;

impl BootInstant {
    /// Reads the clock.
    //= SPEC TIME-5
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(ClockId::Boottime);
        // The clock counts from the boot, so neither part is ever negative.
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self::from_nanos(secs.saturating_mul(NANOS_PER_SEC).saturating_add(nanos))
    }
}

/// The clock of this machine: `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> BootInstant {
        BootInstant::now()
    }
}

/// Measures how much faster the kernel makes the clocks of this machine run than their oscillator.
///
/// `CLOCK_BOOTTIME` has the rate of `CLOCK_MONOTONIC` while the machine is awake: that of the oscillator, which
/// `CLOCK_MONOTONIC_RAW` shows, and what time synchronisation adds to it. The difference of the two is what is
/// measured, over the last one to two minutes.
///
/// *It is no bound on ρ.* The oscillator's own error is not seen, so a rate of 0 proves nothing about a clock that
/// nobody steers. A rate beyond ρ is a sign that the synchronisation corrects an error as large, of the
/// oscillator or of itself. How far the clocks of two nodes are apart is found from their traces.
#[derive(Clone, Copy, Debug)]
pub struct SteeringMeter {
    from: (i128, i128),
    next: (i128, i128),
}

/// The shortest time that is measured over, in nanoseconds: the two clocks are read some 100 ns apart, so the
/// error is below 1 ppm.
const STEERING_MIN: i128 = 1_000_000_000;
/// How long a reading counts at least, once there are so many.
const STEERING_SPAN: i128 = 60 * STEERING_MIN;

impl Default for SteeringMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl SteeringMeter {
    /// Begins now.
    pub fn new() -> Self {
        let now = Self::read();
        Self { from: now, next: now }
    }

    /// The rate, as a fraction: 1e-6 is 1 ppm faster. None before a second has passed.
    pub fn rate(&mut self) -> Option<f64> {
        let now = Self::read();
        if now.1 - self.next.1 >= STEERING_SPAN {
            (self.from, self.next) = (self.next, now);
        }
        let (steered, raw) = (now.0 - self.from.0, now.1 - self.from.1);
        (raw >= STEERING_MIN).then(|| (steered - raw) as f64 / raw as f64)
    }

    /// Both clocks, at one time: of a few readings the one that took the shortest.
    fn read() -> (i128, i128) {
        let nanos = |id| {
            let now = rustix::time::clock_gettime(id);
            i128::from(now.tv_sec) * i128::from(NANOS_PER_SEC) + i128::from(now.tv_nsec)
        };
        let readings = (0..8).map(|_| {
            let before = nanos(ClockId::Monotonic);
            let raw = nanos(ClockId::MonotonicRaw);
            let after = nanos(ClockId::Monotonic);
            (after - before, ((before + after) / 2, raw))
        });
        readings.min().map_or((0, 0), |(_, reading)| reading)
    }
}

/// Wakes a task at a [`BootInstant`], also when the machine slept through it.
#[derive(Debug)]
pub struct WakeUp {
    fd: AsyncFd<OwnedFd>,
    at: Option<BootInstant>,
}

impl WakeUp {
    /// A wake-up that is not set.
    ///
    /// # Errors
    ///
    /// If the process may have no further file descriptor, or no runtime of tokio with IO is
    /// entered.
    //= SPEC TIME-5
    pub fn new() -> io::Result<Self> {
        let fd = rustix::time::timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Its successor is unsafe because some types do not own the descriptor that they show, and
        // this crate forbids unsafe code. An `OwnedFd` does own its descriptor, so this is sound.
        #[expect(deprecated, reason = "the replacement is unsafe; sound for an owned descriptor")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { fd, at: None })
    }

    /// Sets when to wake: at that instant, at once if it has passed, or not at all.
    ///
    /// # Errors
    ///
    /// Whatever the system says; it has no reason to refuse.
    pub fn set(&mut self, at: Option<BootInstant>) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = at.map_or(zero, |at| {
            // Zero would disarm. The first nanosecond after boot is as long past.
            let nanos = at.as_nanos().max(1);
            Timespec {
                tv_sec: i64::try_from(nanos / NANOS_PER_SEC).unwrap_or(i64::MAX),
                tv_nsec: (nanos % NANOS_PER_SEC) as _,
            }
        });
        let spec = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        self.at = at;
        Ok(())
    }

    /// Waits until the instant that was set. Losing the future loses nothing: the next call returns
    /// at once if the instant has passed.
    ///
    /// # Errors
    ///
    /// Whatever the system says when it reads the timer.
    pub async fn expired(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let read = ready.try_io(|fd| {
                let mut count = [0; 8];
                Ok(rustix::io::read(fd.get_ref(), &mut count)?)
            });
            match read {
                Ok(Ok(_)) => {
                    // It has been read and so is spent: setting the same instant again must arm it.
                    self.at = None;
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
                // Woken for nothing: `try_io` has noted it, so wait again.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn the_clock_goes_forward() {
        let first = BootInstant::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(BootInstant::now() >= first.saturating_add(Duration::from_millis(2)));
    }

    #[test]
    fn the_steering_is_within_what_a_kernel_can_do() {
        let mut meter = SteeringMeter::new();
        assert_eq!(meter.rate(), None, "nothing is known yet");
        std::thread::sleep(Duration::from_millis(1100));
        // adjtimex(2): 500 ppm by frequency, 500 by slewing, and a tick that is at most a tenth off.
        let rate = meter.rate().expect("a second has passed");
        assert!(rate.abs() < 0.11, "{rate}");
        // One that is told a clock which runs faster by 300 ppm says so.
        let (steered, raw) = SteeringMeter::read();
        let span = 100 * STEERING_MIN;
        let from = (steered - span - span * 300 / 1_000_000, raw - span);
        let rate = SteeringMeter { from, next: (steered, raw) }.rate().unwrap();
        assert!((rate - 300e-6).abs() < 1e-6, "{rate}");
    }

    /// A machine that never slept cannot tell the clocks apart by their readings, so this asks the
    /// kernel which clock the wake-up is on, and compares the readings with the uptime, which counts
    /// suspension.
    //= SPEC TIME-5 test
    #[test]
    fn clock_and_wake_up_count_suspended_time() {
        use std::os::fd::AsRawFd;
        let uptime = || -> f64 {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let before = uptime();
        let now = BootInstant::now().as_nanos() as f64 / NANOS_PER_SEC as f64;
        let after = uptime();
        // The uptime is told in hundredths of a second, rounded down.
        assert!(before <= now && now <= after + 0.02, "{before} {now} {after}");
        runtime().block_on(async {
            let wake_up = WakeUp::new().unwrap();
            let fd = wake_up.fd.get_ref().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
            assert!(info.contains("clockid: 7\n"), "not CLOCK_BOOTTIME: {info}");
        });
    }

    #[test]
    fn a_wake_up_comes_not_before_its_time() {
        runtime().block_on(async {
            let mut wake_up = WakeUp::new().unwrap();
            let at = BootInstant::now().saturating_add(Duration::from_millis(20));
            wake_up.set(Some(at)).unwrap();
            wake_up.expired().await.unwrap();
            assert!(BootInstant::now() >= at);
        });
    }

    #[test]
    fn a_wake_up_for_the_past_comes_at_once_and_again_when_set_again() {
        runtime().block_on(async {
            let mut wake_up = WakeUp::new().unwrap();
            for _ in 0..2 {
                wake_up.set(Some(BootInstant::from_nanos(0))).unwrap();
                wake_up.expired().await.unwrap();
            }
        });
    }

    #[test]
    fn a_cancelled_or_distant_wake_up_does_not_come() {
        runtime().block_on(async {
            let mut wake_up = WakeUp::new().unwrap();
            for at in [None, Some(BootInstant::NEVER)] {
                wake_up
                    .set(Some(BootInstant::now().saturating_add(Duration::from_millis(5))))
                    .unwrap();
                wake_up.set(at).unwrap();
                let waited =
                    tokio::time::timeout(Duration::from_millis(30), wake_up.expired()).await;
                assert!(waited.is_err(), "woken for {at:?}");
            }
        });
    }
}
