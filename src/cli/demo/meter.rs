//! What the machine withholds from those who share it. A bound on real time holds for a machine that runs who wants to
//! run; what it withheld meanwhile is measured beside, and the bound is later by as much.

#![allow(clippy::disallowed_methods, reason = "it measures real time, far from the protocol")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one who wants to run again after this time sleeps at the longest where nothing is withheld.
const NAP: Duration = Duration::from_millis(1);
const NAP_USUAL: Duration = Duration::from_millis(3);
/// How often a block is written to the disk, and how long that takes at the longest where nothing is withheld.
const WRITE_EVERY: Duration = Duration::from_millis(20);
const WRITE_USUAL: Duration = Duration::from_millis(5);
/// How long it waits for those who measure.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one of those who measure has found.
#[derive(Default)]
struct Gauge {
    lost_ns: AtomicU64,
    laps: AtomicU64,
}

/// Measures from its start to its end.
pub(super) struct Meter {
    gauges: Vec<Arc<Gauge>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Meter {
    /// Measures nothing yet.
    pub(super) fn new() -> Self {
        Self { gauges: Vec::new(), ends: Arc::default(), threads: Vec::new() }
    }

    /// Measures how late a thread is that wants to run.
    pub(super) fn start() -> Self {
        let mut meter = Self::new();
        meter.measure(|| {
            let begun = Instant::now();
            std::thread::sleep(NAP);
            begun.elapsed().saturating_sub(NAP_USUAL)
        });
        meter
    }

    /// The same, and how late a block is on the disk of this directory.
    ///
    /// # Errors
    ///
    /// If there can be no file for it.
    pub(super) fn with_disk(directory: &Path) -> io::Result<Self> {
        let file = File::create(directory.join("meter"))?;
        let mut meter = Self::start();
        meter.measure(move || {
            std::thread::sleep(WRITE_EVERY);
            let begun = Instant::now();
            let written = file.write_all_at(&[0; 4096], 0).and_then(|()| file.sync_data());
            // Where a disk takes nothing, that is told by who has something to store.
            let took = written.map_or(Duration::ZERO, |()| begun.elapsed());
            took.saturating_sub(WRITE_USUAL)
        });
        Ok(meter)
    }

    /// Has laps measured one after the other, each of which says how much longer than usual it has taken.
    pub(super) fn measure(&mut self, lap: impl Fn() -> Duration + Send + 'static) {
        let gauge = Arc::new(Gauge::default());
        self.gauges.push(Arc::clone(&gauge));
        let ends = Arc::clone(&self.ends);
        self.threads.push(std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let lost = u64::try_from(lap().as_nanos()).unwrap_or(u64::MAX);
                gauge.lost_ns.fetch_add(lost, Ordering::Relaxed);
                gauge.laps.fetch_add(1, Ordering::Release);
            }
        }));
    }

    /// All that was withheld since the start, what is being withheld now included: it waits until that is known.
    pub(super) fn lost(&self) -> Duration {
        let begun = Instant::now();
        let lost = |gauge: &Arc<Gauge>| {
            let laps = gauge.laps.load(Ordering::Acquire);
            while gauge.laps.load(Ordering::Acquire) == laps && begun.elapsed() < PATIENCE {
                std::thread::sleep(NAP);
            }
            Duration::from_nanos(gauge.lost_ns.load(Ordering::Relaxed))
        };
        self.gauges.iter().map(lost).sum()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
