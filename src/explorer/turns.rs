//! Who comes first: an answer that somebody waits for, or a search that takes minutes.
//!
//! A search uses a core for as long as it lasts. On a machine with few of them the page, its browser and the server
//! would wait for it, however fast a step is by itself. So a search stands aside while something is answered and a
//! moment longer, in which the browser draws; but it never stands still for long. It keeps its usual priority: one of
//! the lowest would not end beside whatever else the machine does, and what it holds would be waited for as long.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long after an answer a search still stands aside: the browser draws it, and the next question comes.
const LINGER: Duration = Duration::from_millis(100);
/// How long a search stands aside at most, and how long it then works whatever is asked.
const ASIDE_MAX: Duration = Duration::from_secs(1);
const WORK_MIN: Duration = Duration::from_millis(50);
/// How often who stands aside looks up.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The answers that are being made. No lock is held, so nobody who waits for an answer waits for a search.
#[derive(Debug)]
pub(super) struct Turns {
    begun: Instant,
    /// How many.
    open: AtomicU32,
    /// Until when the last one is drawn, in nanoseconds from the beginning.
    drawn_at: AtomicU64,
}

/// An answer that is being made, until it is dropped.
pub(super) struct Answering<'a>(&'a Turns);

impl Turns {
    /// Somebody waits for an answer.
    pub(super) fn answer(&self) -> Answering<'_> {
        self.open.fetch_add(1, SeqCst);
        Answering(self)
    }

    /// Whether somebody waits, or has just been answered.
    fn is_busy(&self) -> bool {
        self.open.load(SeqCst) > 0 || ns(self.begun.elapsed()) < self.drawn_at.load(SeqCst)
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self { begun: Instant::now(), open: AtomicU32::new(0), drawn_at: AtomicU64::new(0) }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let drawn_at = ns(self.0.begun.elapsed() + LINGER);
        self.0.drawn_at.fetch_max(drawn_at, SeqCst);
        self.0.open.fetch_sub(1, SeqCst);
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a process runs for less than 500 years")
}

/// A search, which lets others go first.
#[derive(Debug, Default)]
pub(super) struct Last {
    works_until: Option<Instant>,
}

impl Last {
    /// Stands aside while somebody else is busy, and as long as `goes_on`.
    //= SPEC EXPLORER-19
    pub(super) fn stand_aside(&mut self, turns: &Turns, goes_on: impl Fn() -> bool) {
        let begun = Instant::now();
        if self.works_until.is_some_and(|until| begun < until) {
            return;
        }
        self.works_until = None;
        while turns.is_busy() && goes_on() {
            if begun.elapsed() >= ASIDE_MAX {
                self.works_until = Some(Instant::now() + WORK_MIN);
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= SPEC EXPLORER-19 test
    #[test]
    fn a_search_stands_aside_for_an_answer_and_not_for_ever() {
        let turns = Turns::default();
        let mut last = Last::default();
        let aside = |last: &mut Last| {
            let begun = Instant::now();
            last.stand_aside(&turns, || true);
            begun.elapsed()
        };
        assert!(aside(&mut last) < ASIDE_MAX, "nobody waits");
        let begun = Instant::now();
        drop(turns.answer());
        aside(&mut last);
        assert!(begun.elapsed() >= LINGER, "somebody was just answered");
        let answering = turns.answer();
        assert!(aside(&mut last) >= ASIDE_MAX, "somebody waits");
        let works_until = last.works_until.expect("it then works");
        let is_late = Instant::now() + WORK_MIN / 2 > works_until;
        assert!(aside(&mut last) < LINGER || is_late, "it works for a while, whoever waits");
        std::thread::sleep(works_until.saturating_duration_since(Instant::now()));
        assert!(aside(&mut last) >= ASIDE_MAX, "and stands aside again");
        let begun = Instant::now();
        std::thread::sleep(WORK_MIN);
        last.stand_aside(&turns, || false);
        assert!(begun.elapsed() < ASIDE_MAX, "nobody wants to know any more");
        drop(answering);
    }
}
