//! Who comes first: an answer that somebody waits for, or a search that takes minutes.
//!
//! A search uses a core for as long as it lasts. On a machine with few of them the page, its browser and the server
//! would wait for it, however fast a step is by itself. So a search has the lowest priority that the system knows, and
//! stands aside while something is answered and a moment longer, in which the browser draws; but it never stands
//! still for long.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long after an answer a search still stands aside: the browser draws it, and the next question comes.
const LINGER: Duration = Duration::from_millis(100);
/// How long a search stands aside at most, and how long it then works whatever is asked.
const ASIDE_MAX: Duration = Duration::from_secs(1);
const WORK_MIN: Duration = Duration::from_millis(50);
/// How often who stands aside looks up.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The answers that are being made.
#[derive(Debug, Default)]
pub(super) struct Turns {
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    open: u32,
    last: Option<Instant>,
}

/// An answer that is being made, until it is dropped.
pub(super) struct Answering<'a>(&'a Turns);

impl Turns {
    /// Somebody waits for an answer.
    pub(super) fn answer(&self) -> Answering<'_> {
        self.answers().open += 1;
        Answering(self)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().expect("no thread panics with the lock")
    }

    /// Whether somebody waits, or has just been answered.
    fn is_busy(&self) -> bool {
        let answers = self.answers();
        answers.open > 0 || answers.last.is_some_and(|last| last.elapsed() < LINGER)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let mut answers = self.0.answers();
        answers.open -= 1;
        answers.last = Some(Instant::now());
    }
}

/// A search, which lets others go first.
#[derive(Debug, Default)]
pub(super) struct Last {
    works_until: Option<Instant>,
}

impl Last {
    /// On the thread of the search: whatever else wants to run runs first. Where the system refuses, the search merely
    /// has no lower priority.
    pub(super) fn begin() -> Self {
        let me = Some(rustix::thread::gettid());
        // On Linux this is the priority of one thread. Nobody may raise it again, so the thread ends with the search.
        let _ = rustix::process::setpriority_process(me, 19);
        Self::default()
    }

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
        assert!(aside(&mut last) < LINGER, "nobody waits");
        drop(turns.answer());
        assert!(aside(&mut last) >= LINGER - LOOK_EVERY, "somebody was just answered");
        let answering = turns.answer();
        assert!(aside(&mut last) >= ASIDE_MAX, "somebody waits");
        assert!(aside(&mut last) < LINGER, "it works for a while, whoever waits");
        std::thread::sleep(WORK_MIN);
        assert!(aside(&mut last) >= ASIDE_MAX, "and stands aside again");
        let begun = Instant::now();
        std::thread::sleep(WORK_MIN);
        last.stand_aside(&turns, || false);
        assert!(begun.elapsed() < ASIDE_MAX, "nobody wants to know any more");
        drop(answering);
    }
}
