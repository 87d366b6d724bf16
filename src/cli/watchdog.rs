//! The kernel's watchdog device: what ends the work when the whole machine's user space does not move.
//!
//! The device is opened before the command of a term starts, and written to after each committed renewal. If
//! that stops, the kernel or the hardware resets the machine. When the command has ended, the magic letter
//! disarms it; a process that dies without that leaves it armed, which is the point.
//!
//! For it to be in time, its time-out T must be short. The last renewal may have been answered up to G after its send,
//! by a slow clock, and somebody else may lead L after that send, by a fast one. The device's clock is as good as the
//! others: `G/(1-rho) + T/(1-rho) < L/(1+rho)`, so T must be below `L (1-rho)/(1+rho) - G`. The time-out is the administrator's to set
//! (for instance by the module's parameter); it is read from sysfs, and refused if it is too long.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::lease::timing::{Inequality, Timing};

/// What the time-out of a device must be below: `L (1-rho)/(1+rho) - G`.
pub(super) fn watchdog_below(timing: Timing) -> Duration {
    // As a holder that gives up later by the time-out, and is done at once then.
    let numbers = Inequality { hook: Duration::ZERO, ..timing.inequality() };
    numbers.largest_hold().unwrap_or_default().saturating_sub(timing.give_up)
}

/// What to do where there is no usable watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchdogMode {
    /// Use none.
    #[default]
    Off,
    /// Use it if it can be used, and say so if not.
    Automatic,
    /// Do not run the command without it.
    Required,
}

/// An armed device.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Arms the device, as the mode says. `longest` is what its time-out must be shorter than.
    ///
    /// # Errors
    ///
    /// Why the command must not run, in the mode that requires a watchdog.
    pub(super) fn arm(
        path: &Path,
        mode: WatchdogMode,
        longest: Duration,
    ) -> Result<Option<Self>, String> {
        let armed = match mode {
            WatchdogMode::Off => return Ok(None),
            _ => Self::open(path, longest),
        };
        match (armed, mode) {
            (Ok(armed), _) => Ok(Some(armed)),
            (Err(error), WatchdogMode::Required) => Err(error),
            (Err(error), _) => {
                tracing::warn!(error, "no watchdog");
                Ok(None)
            }
        }
    }

    //= SPEC GUARD-18
    fn open(path: &Path, longest: Duration) -> Result<Self, String> {
        let device = path.display();
        let timeout = timeout_of(path, Path::new("/sys/class/watchdog"))
            .ok_or_else(|| format!("watchdog {device}: its time-out is not known"))?;
        if timeout >= longest {
            return Err(format!(
                "watchdog {device}: its time-out is {timeout:?}, and has to be below {longest:?}, which is L (1 - rho)/(1 + rho) - G"
            ));
        }
        let device = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(|error| format!("watchdog {device}: {error}"))?;
        Ok(Self { device })
    }

    /// Puts the reset off: a renewal has been committed.
    pub(super) fn feed(&mut self) {
        if let Err(error) = self.device.write_all(b"\0") {
            tracing::error!(%error, "the watchdog was not fed");
        }
    }

    /// Ends the watch: the work has ended.
    pub(super) fn disarm(mut self) {
        if let Err(error) = self.device.write_all(b"V") {
            tracing::error!(%error, "the watchdog was not disarmed: the machine will be reset");
        }
    }
}

/// The time-out of a device, from the directory in which the kernel shows them: whole seconds.
fn timeout_of(device: &Path, shown_in: &Path) -> Option<Duration> {
    let name = match device.file_name()?.to_str()? {
        // The first device has an older name as well.
        "watchdog" => "watchdog0",
        name => name,
    };
    let shown: PathBuf = shown_in.join(name).join("timeout");
    let seconds = std::fs::read_to_string(shown).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(5);

    //= SPEC GUARD-18 test
    #[test]
    fn a_device_that_is_missing_or_too_slow_is_refused_where_one_is_required() {
        let missing = Path::new("/dev/no-such-watchdog");
        assert!(Watchdog::arm(missing, WatchdogMode::Off, MAX).unwrap().is_none());
        assert!(Watchdog::arm(missing, WatchdogMode::Automatic, MAX).unwrap().is_none());
        let refused = Watchdog::arm(missing, WatchdogMode::Required, MAX).unwrap_err();
        assert!(refused.contains("time-out is not known"), "{refused}");
        // The kernel shows time-outs in whole seconds, in a directory for each device.
        let shown = tempfile::tempdir().unwrap();
        std::fs::create_dir(shown.path().join("watchdog0")).unwrap();
        std::fs::write(shown.path().join("watchdog0/timeout"), "4\n").unwrap();
        for device in ["/dev/watchdog", "/dev/watchdog0"] {
            let timeout = timeout_of(Path::new(device), shown.path());
            assert_eq!(timeout, Some(Duration::from_secs(4)));
        }
        assert_eq!(timeout_of(Path::new("/dev/watchdog1"), shown.path()), None);
    }

    //= SPEC GUARD-18 test
    #[test]
    fn a_time_out_leaves_room_for_clocks_that_are_off() {
        let seconds = Duration::from_secs;
        let (lease, give_up) = (seconds(60), seconds(10));
        let timing = |ppm| Timing { lease, give_up, clock_error_ppm: ppm, ..Timing::DEFAULT };
        assert_eq!(watchdog_below(timing(0)), seconds(50) - Duration::from_nanos(1));
        // 60 s of 0.99/1.01, that is 58.81 s.
        let below = watchdog_below(timing(10_000));
        assert_eq!(below, Duration::from_nanos(48_811_881_188));
        // In real time: the last answer at its latest, the time-out, and the earliest takeover.
        let reset = (give_up + below).as_secs_f64() / 0.99;
        let takeover = lease.as_secs_f64() / 1.01;
        assert!(reset <= takeover && takeover - reset < 1e-6, "{reset} {takeover}");
        assert_eq!(watchdog_below(timing(1_000_000)), Duration::ZERO);
    }

    #[test]
    fn it_is_fed_and_disarmed_by_what_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = OpenOptions::new().write(true).open(file.path()).unwrap();
        let mut watchdog = Watchdog { device };
        watchdog.feed();
        watchdog.feed();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"\0\0");
        watchdog.disarm();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"\0\0V");
        // One that is merely dropped stays armed.
        let device = OpenOptions::new().append(true).open(file.path()).unwrap();
        drop(Watchdog { device });
        assert_eq!(std::fs::read(file.path()).unwrap(), b"\0\0V");
    }
}
