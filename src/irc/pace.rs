//! How much a region says to each other one: waits, a budget for retries, and a breaker (I-24, I-25).
//!
//! A vain try waits for a random time between a floor and a bound that doubles, up to a cap. When its
//! wait is over it is a *retry*, and needs budget: each first send to a region earns a share of a retry,
//! and each probe interval a whole one. Work for which there is no budget stays where it is until there
//! is. So what is sent to a region that answers nothing, or too little, stays within
//!
//! > first sends x (1 + share) + time / probe + a constant,
//!
//! whatever has piled up for it.
//!
//! The *breaker* of a region opens when too many of the last calls were not answered. While it is open
//! one piece of work goes out in each probe interval, and nothing else. The first answer closes it.
//! Whatever waited counts as never sent then, and the limit of claims ramps up from one: each answer
//! allows one claim more, so it doubles with every round trip; each failure halves it.
//!
//! All of this is for one remote, and is lost in a crash: a control plane that starts begins with a full
//! budget and a closed breaker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timer;
use super::control::Desk;
use super::facts::Region;
use super::ledger::{ControlState, Waiting};
use super::msg::{Kind, Work};
use super::safeguards::Safeguards;

/// How many of the last calls a breaker looks at.
pub const WINDOW: u32 = 20;
/// What one retry costs.
const RETRY: u32 = 100;
/// The most that a budget can hold: ten retries.
const FULL: u32 = 10 * RETRY;

/// The numbers of a region's pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pacing {
    /// How many retries a hundred first sends allow.
    pub retry_percent: u32,
    /// How often one more retry is allowed, or one probe while the breaker is open.
    pub probe: Duration,
    /// How many of the last [`WINDOW`] calls must have failed for the breaker to open.
    pub failures: u32,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { retry_percent: 10, probe: Duration::from_secs(1), failures: WINDOW / 2 }
    }
}

/// Whether calls to a region go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Breaker {
    /// As many as the limit of claims allows.
    #[default]
    Closed,
    /// It has closed lately: this many claims may be out.
    Ramping(u32),
    /// None, but for a probe if there is leave for one.
    Open {
        /// One piece of work may go out.
        probe: bool,
    },
}

/// The pace of one region. The default is that of a region of which nothing bad is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pace {
    /// What retries may still cost, in hundredths of a retry.
    pub budget: u32,
    /// The last [`WINDOW`] calls, the newest in the lowest bit: 1 if it failed.
    pub calls: u32,
    /// Whether calls go out.
    pub breaker: Breaker,
    /// The timer of the probe interval is armed.
    pub armed: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { budget: FULL, calls: 0, breaker: Breaker::Closed, armed: false }
    }
}

impl Pace {
    /// Whether the region is taken not to answer.
    pub fn is_open(&self) -> bool {
        matches!(self.breaker, Breaker::Open { .. })
    }

    /// How many retries there is budget for.
    pub fn retries(&self) -> u32 {
        self.budget / RETRY
    }

    fn note(&mut self, failed: bool) {
        self.calls = (self.calls << 1 | u32::from(failed)) & ((1 << WINDOW) - 1);
    }

    fn earn(&mut self, hundredths: u32) {
        self.budget = self.budget.saturating_add(hundredths).min(FULL);
    }
}

impl Desk<'_> {
    fn pace(&self, region: Region) -> Pace {
        self.state.paces.get(&region).copied().unwrap_or_default()
    }

    /// Keeps a pace, and sees to its timer. One at which there is nothing to remember is not kept.
    fn set_pace(&mut self, region: Region, mut pace: Pace) {
        let is_at_rest = pace.breaker == Breaker::Closed && pace.budget == FULL;
        if !is_at_rest && !pace.armed {
            let probe = self.cp.policy.pacing.probe;
            self.o.set_timer(Timer::Probe(region), probe..probe);
            pace.armed = true;
        }
        if pace == Pace::default() {
            self.state.paces.remove(&region);
        } else {
            self.state.paces.insert(region, pace);
        }
    }

    /// How many claims towards a region may be out.
    //= SPEC IRC-17
    pub(super) fn limit(&self, region: Region) -> usize {
        let most = self.cp.policy.claims;
        if !self.keeps(Safeguards::I_25_BUDGET_AND_BREAKER) {
            return most;
        }
        match self.pace(region).breaker {
            Breaker::Closed => most,
            Breaker::Ramping(limit) => most.min(limit as usize),
            Breaker::Open { probe } => usize::from(probe),
        }
    }

    /// Whether more is out towards a region than a probe, while its breaker is open.
    pub(super) fn is_beyond_the_probe(&self, region: Region) -> bool {
        let out = |work: &&Work| self.remote_of(**work) == region;
        self.keeps(Safeguards::I_25_BUDGET_AND_BREAKER)
            && self.pace(region).is_open()
            && self.state.claims.keys().filter(out).count() > 1
    }

    /// A piece of work is handed out: what was never tried earns a share of a retry.
    pub(super) fn note_send(&mut self, region: Region, work: Work) {
        let is_retry = self.state.tries.contains_key(&work);
        let count = self.state.counts.of(region);
        *(if is_retry { &mut count.retries } else { &mut count.first_sends }) += 1;
        if !self.keeps(Safeguards::I_25_BUDGET_AND_BREAKER) {
            return;
        }
        let mut pace = self.pace(region);
        if !is_retry {
            pace.earn(self.cp.policy.pacing.retry_percent);
        }
        if let Breaker::Open { probe } = &mut pace.breaker {
            *probe = false;
        }
        self.set_pace(region, pace);
        self.pay(region);
    }

    /// A region has not answered a call in time, or does not do it for now.
    pub(super) fn note_failure(&mut self, region: Region) {
        self.state.counts.of(region).failures += 1;
        if !self.keeps(Safeguards::I_25_BUDGET_AND_BREAKER) {
            return;
        }
        let mut pace = self.pace(region);
        pace.note(true);
        let is_too_much = pace.calls.count_ones() >= self.cp.policy.pacing.failures;
        pace.breaker = match pace.breaker {
            Breaker::Open { probe } => Breaker::Open { probe },
            _ if is_too_much => Breaker::Open { probe: false },
            Breaker::Ramping(limit) => Breaker::Ramping((limit / 2).max(1)),
            Breaker::Closed => Breaker::Closed,
        };
        self.set_pace(region, pace);
    }

    /// A region has answered a call. One that has answered all of the last ones is well again, whether
    /// or not its breaker was ever open.
    pub(super) fn note_answer(&mut self, region: Region) {
        if !self.keeps(Safeguards::I_25_BUDGET_AND_BREAKER) {
            return;
        }
        let mut pace = self.pace(region);
        pace.note(false);
        match pace.breaker {
            Breaker::Closed if pace.calls == 0 && self.first_starved(region).is_some() => {
                pace.breaker = Breaker::Ramping(1);
                self.forget_tries(region);
            }
            Breaker::Closed => {}
            Breaker::Ramping(limit) if limit as usize + 1 >= self.cp.policy.claims => {
                pace.breaker = Breaker::Closed;
            }
            Breaker::Ramping(limit) => pace.breaker = Breaker::Ramping(limit + 1),
            Breaker::Open { .. } => {
                pace.breaker = Breaker::Ramping(1);
                pace.calls = 0;
                self.forget_tries(region);
            }
        }
        self.set_pace(region, pace);
    }

    /// What waits for a region, and what was tried in vain, counts as never sent: the ramp releases it.
    fn forget_tries(&mut self, region: Region) {
        let waits: Vec<Work> = self.state.waits.keys().copied().collect();
        for work in waits {
            if self.remote_of(work) == region && !self.state.waits[&work].told {
                self.state.set_wait(work, None);
                self.o.cancel_timer(Timer::Retry(work));
            }
        }
        let ControlState { tries, ledger, .. } = &mut *self.state;
        tries.retain(|&work, _| ledger.remote_of(work) != Some(region));
    }

    /// Lets work wait before its next try: full jitter with a floor (I-24), above `least`. If the other
    /// region has `told` how long, nothing but time ends the wait.
    pub(super) fn wait(&mut self, work: Work, least: Duration, told: bool) {
        let tries = self.state.tries.remove(&work).unwrap_or(0);
        let [floor, cap, base] = self.cp.policy.retry;
        let keeps_floor = self.keeps(Safeguards::I_24_WAIT_HAS_A_FLOOR);
        let low = if keeps_floor { floor.max(least) } else { Duration::ZERO };
        let high = base.saturating_mul(1 << tries.min(16)).min(cap).max(floor) + least;
        let tries = tries.saturating_add(1).min(16);
        self.state.set_wait(work, Some(Waiting { tries, told }));
        self.o.set_timer(Timer::Retry(work), low..high.max(low));
    }

    /// A wait is over. The work is handed out again if there is budget for it.
    pub(super) fn on_retry(&mut self, work: Work) {
        let region = self.remote_of(work);
        // While the breaker is open the probes are the budget.
        let is_free =
            self.pace(region).is_open() || !self.keeps(Safeguards::I_25_BUDGET_AND_BREAKER);
        if is_free {
            self.release_waiting(work);
        } else if self.state.waits.contains_key(&work) {
            self.state.starved.insert((region, work));
            self.pay(region);
        }
    }

    fn release_waiting(&mut self, work: Work) {
        if let Some(waiting) = self.state.set_wait(work, None) {
            self.state.tries.insert(work, waiting.tries);
        }
    }

    /// Releases the work of a region whose wait is over, as far as there is budget for it.
    //= SPEC IRC-36
    fn pay(&mut self, region: Region) {
        let mut pace = self.pace(region);
        while pace.budget >= RETRY
            && let Some(work) = self.first_starved(region)
        {
            pace.budget -= RETRY;
            self.release_waiting(work);
        }
        self.set_pace(region, pace);
    }

    /// The first piece of work for a region for which there is no budget.
    fn first_starved(&self, region: Region) -> Option<Work> {
        let lowest = (region, Work::Prepare(Region(0)));
        let next = self.state.starved.range(lowest..).next();
        next.filter(|next| next.0 == region).map(|next| next.1)
    }

    /// A probe interval is over: there is budget for one more retry, and leave for one probe.
    pub(super) fn on_probe(&mut self, region: Region) {
        let mut pace = self.pace(region);
        pace.armed = false;
        pace.earn(RETRY);
        if let Breaker::Open { probe } = &mut pace.breaker {
            *probe = true;
            if self.ready_for(region, &[Kind::PEERING, Kind::NOTICE], 1).is_empty() {
                let waits = &self.state.waits;
                let first = waits
                    .iter()
                    .find(|(work, waiting)| !waiting.told && self.remote_of(**work) == region);
                if let Some((&work, _)) = first {
                    self.release_waiting(work);
                    self.o.cancel_timer(Timer::Retry(work));
                }
            }
        }
        self.set_pace(region, pace);
        self.pay(region);
    }
}
