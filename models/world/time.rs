//! Time in ticks: how long a timer runs, and when a tick passes.

use std::time::Duration;

use super::{Condition, Observer, StateOf, Subject, Time, Window, World};

impl<A, O> World<A, O>
where
    A: Subject,
    O: Observer<A>,
{
    /// The window of a timer that is set for this range, on this world's clocks.
    //= SPEC TIME-12
    pub fn window(&self, range: &std::ops::Range<Duration>) -> Window {
        match self.time {
            Time::Untimed => Window { earliest: 0, latest: 0 },
            Time::Timed { tick, clock_error_ppm, .. } => Window {
                earliest: earliest_ticks(range.start, tick, clock_error_ppm),
                latest: latest_ticks(range.end, tick, clock_error_ppm),
            },
        }
    }

    /// Whether a tick may pass: nothing is due.
    //= SPEC TIME-13
    pub(super) fn may_elapse(&self, state: &StateOf<A, O>) -> bool {
        let timer_is_due = state.nodes.iter().any(|node| {
            node.condition == Condition::Waking
                || (node.condition == Condition::Running
                    && node.timers.iter().any(|(_, window)| window.latest == 0))
        });
        let message_is_due = state
            .network
            .iter()
            .any(|flight| flight.latest == 0 && self.handles(state, flight.dst.into()));
        !timer_is_due && !message_is_due
    }

    /// Lets a tick pass.
    pub(super) fn elapse(&self, state: &mut StateOf<A, O>) {
        for node in &mut state.nodes {
            for (_, window) in &mut node.timers {
                window.earliest = window.earliest.saturating_sub(1);
                window.latest = window.latest.saturating_sub(1);
            }
        }
        // What is due at a node that is down finds nobody. What is due at a paused one waits there.
        let mut network = std::mem::take(&mut state.network);
        network.retain(|flight| {
            let is_down =
                state.nodes.get(usize::from(flight.dst)).is_none_or(|n| n.state.is_none());
            !(flight.latest == 0 && is_down)
        });
        for flight in &mut network {
            if flight.latest != u16::MAX {
                flight.latest = flight.latest.saturating_sub(1);
            }
        }
        network.sort_unstable();
        state.network = network;
    }
}

/// How many whole ticks surely lie within `duration`, measured by a clock that may be too fast.
pub fn earliest_ticks(duration: Duration, tick: Duration, clock_error_ppm: u32) -> u16 {
    let real = duration.as_nanos() * 1_000_000;
    let unit = tick.as_nanos() * (1_000_000 + u128::from(clock_error_ppm));
    u16::try_from(real / unit).expect("a duration is at most 65,535 ticks")
}

/// Within how many whole ticks `duration` surely has passed, by a clock that may be too slow.
pub fn latest_ticks(duration: Duration, tick: Duration, clock_error_ppm: u32) -> u16 {
    let real = duration.as_nanos() * 1_000_000;
    let unit = tick.as_nanos() * (1_000_000 - u128::from(clock_error_ppm));
    u16::try_from(real.div_ceil(unit)).expect("a duration is at most 65,535 ticks")
}
