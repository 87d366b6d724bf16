//! What a process owes the work of its terms, decided without a clock, a thread or a lock.
//!
//! An elector says when a term ends; this says what becomes of its work. The sentry of an embedded elector asks
//! it with real time, the simulator with its own, so that what is simulated is what runs:
//!
//! - a term that is overdue is ended by whoever looks, not only by the elector (L-7);
//! - work that has not ended within S is killed, whatever its hooks do (L-35), and S counts from the deadline
//!   if the end is noticed later than that;
//! - a term whose work gives no sign of life is not renewed (L-36).

use std::time::Duration;

use crate::clock::BootInstant;
use crate::lease::record::Epoch;

/// How long after a deadline it is left to the elector to end its term. Nobody is permitted anything meanwhile, and
/// S counts from the deadline all the same.
pub const GRACE: Duration = Duration::from_millis(20);

/// Whose work is being stopped, and whose was killed. One for each elector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oversight {
    /// A term that is being stopped, and when its work must have ended.
    stopping: Option<(Epoch, BootInstant)>,
    /// The last term for which the kill switch was pulled, and has come back.
    killed: Epoch,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing until then, unless something changes before.
    Wait(Option<BootInstant>),
    /// The term is overdue and its elector has not ended it: end it, and stop its work by then.
    Overdue {
        /// When the kill switch is to be pulled.
        kill_at: BootInstant,
    },
    /// The work of this term has not ended in time: pull the kill switch.
    Kill(Epoch),
}

impl Oversight {
    /// The work of this term is told to end, and is killed then. Of two times for one term the earlier counts:
    /// both who noticed its end may say so.
    pub fn stop(&mut self, epoch: Epoch, kill_at: BootInstant) {
        match self.stopping {
            Some((already, at)) if already == epoch && at <= kill_at => {}
            _ => self.stopping = Some((epoch, kill_at)),
        }
    }

    /// Nothing of this term runs any more.
    pub fn stopped(&mut self, epoch: Epoch) {
        self.stopping = self.stopping.filter(|(stopping, _)| *stopping > epoch);
    }

    /// The kill switch has ended the work of this term.
    pub fn killed(&mut self, epoch: Epoch) {
        self.killed = epoch;
    }

    /// Whether the kill switch has ended the work of this term.
    pub fn has_killed(&self, epoch: Epoch) -> bool {
        self.killed >= epoch
    }

    /// The term whose work must have ended by then, unless it was killed before.
    pub fn to_kill(&self) -> Option<(Epoch, BootInstant)> {
        self.stopping.filter(|(epoch, _)| !self.has_killed(*epoch))
    }

    /// What is to be done at `now`. `term` is the one that has not been ended, with its deadline; `stop_within`
    /// is [`Timing::stop_within`](crate::lease::timing::Timing::stop_within).
    pub fn look(
        &self,
        term: Option<(Epoch, BootInstant)>,
        now: BootInstant,
        stop_within: Duration,
    ) -> Look {
        let overdue_at = term.map(|(_, deadline)| deadline.saturating_add(GRACE));
        if let Some((_, deadline)) = term
            && overdue_at.is_some_and(|at| at <= now)
        {
            return Look::Overdue { kill_at: deadline.saturating_add(stop_within) };
        }
        let to_kill = self.to_kill();
        match to_kill {
            Some((epoch, at)) if at <= now => Look::Kill(epoch),
            _ => Look::Wait([overdue_at, to_kill.map(|(_, at)| at)].into_iter().flatten().min()),
        }
    }
}

/// From when S counts, for the term with this deadline: whoever notices the end late has that much less time to stop
/// its work.
//= SPEC GUARD-26
pub fn ended_at(deadline: Option<BootInstant>, noticed: BootInstant) -> BootInstant {
    deadline.map_or(noticed, |deadline| deadline.min(noticed))
}

/// Whether work that was alive `last` may have its term renewed at `now`, if it may be silent for so long.
//= SPEC GUARD-12
pub fn is_alive(last: BootInstant, now: BootInstant, within: Duration) -> bool {
    now.saturating_duration_since(last) <= within
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const STOP: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> BootInstant {
        BootInstant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn an_overdue_term_is_ended_and_s_counts_from_its_deadline() {
        let oversight = Oversight::default();
        let term = Some((3, at(1000)));
        assert_eq!(oversight.look(term, at(1019), STOP), Look::Wait(Some(at(1020))));
        let overdue = Look::Overdue { kill_at: at(1100) };
        assert_eq!(oversight.look(term, at(1020), STOP), overdue);
        // However late.
        assert_eq!(oversight.look(term, at(9000), STOP), overdue);
        assert_eq!(oversight.look(None, at(9000), STOP), Look::Wait(None));
    }

    #[test]
    fn work_is_killed_once_and_only_if_it_has_not_ended() {
        let mut oversight = Oversight::default();
        oversight.stop(3, at(1100));
        // A later time for the same term does not give it more.
        oversight.stop(3, at(1200));
        assert_eq!(oversight.look(None, at(1099), STOP), Look::Wait(Some(at(1100))));
        assert_eq!(oversight.look(None, at(1100), STOP), Look::Kill(3));
        let mut ended = oversight;
        ended.stopped(3);
        assert_eq!(ended.look(None, at(1100), STOP), Look::Wait(None));
        oversight.killed(3);
        assert!(oversight.has_killed(3) && !oversight.has_killed(4));
        assert_eq!(oversight.look(None, at(1100), STOP), Look::Wait(None));
    }

    #[test]
    fn the_end_of_an_earlier_term_is_not_that_of_a_later_one() {
        let mut oversight = Oversight::default();
        oversight.stop(3, at(1100));
        oversight.stop(4, at(1500));
        oversight.stopped(3);
        assert_eq!(oversight.look(None, at(1500), STOP), Look::Kill(4));
    }

    #[test]
    fn work_may_be_silent_for_exactly_so_long() {
        assert!(is_alive(at(10), at(15), 5 * MS));
        assert!(!is_alive(at(10), at(16), 5 * MS));
        assert_eq!(ended_at(Some(at(10)), at(12)), at(10));
        assert_eq!(ended_at(Some(at(10)), at(8)), at(8));
        assert_eq!(ended_at(None, at(8)), at(8));
    }
}
