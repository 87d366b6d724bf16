//! The numbers of a deployment, as a model.
//!
//! The registered models have small numbers. This one has an operator's own L, G, S and rho, rounded
//! outwards to ticks. For everything on which safety does not rest, the model does not take his numbers
//! but *any*: renewals, retries and polls come at any time, and a retry is a new request. That is more
//! than his hosts can do, and has far fewer states than every retry by the clock. What it leaves out, copies
//! of one message and crashes, the registered models explore with numbers of their own.
//!
//! The tick is the longest for which the rounded numbers still leave the room that the real ones have:
//! fewer ticks are fewer states, and a longer tick only adds behaviours (see [`super::world`]).

use std::time::Duration;

use stateright::Property;

use super::check::{run_world, tell};
use super::engine::{Limits, Progress};
use super::lease::properties::{
    elected, expired, holder_has_deadline, read_only_under_another, renewed, single_writer,
    taken_over, unique_holder_per_epoch,
};
use super::lease::{Cluster, Keeps, LeaseWorld};
use super::registry::{Entry, Expected};
use super::space::space;
use super::world::{Faults, Network, earliest_ticks, latest_ticks};
use crate::lease::safeguards::Safeguards;
use crate::lease::timing::{Checked, Timing};

/// Into how many ticks L is divided at the most. A finer model would not come to its end.
pub const LEASE_TICKS_MAX: u32 = 24;

/// The numbers leave so little room that a model of them would need finer ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the margin of these numbers is {margin_ns} ns, too little for a model with at most {LEASE_TICKS_MAX} \
     ticks in L: the inequality says that they are safe, but they cannot be explored; lengthen L"
)]
pub struct TooFine {
    /// By how much L is longer than it needs to be.
    pub margin_ns: i128,
}

/// The model of one lease with these numbers: two hosts, messages late and lost, any number of renewals and
/// takeovers.
///
/// # Errors
///
/// [`TooFine`] if no tick is both long enough to be explored and short enough for the margin.
//= SPEC TIME-17
pub fn entry(lease: &str, timing: &Checked) -> Result<Entry, TooFine> {
    let numbers = timing.get();
    let tick = longest_tick(&numbers).ok_or_else(|| TooFine { margin_ns: timing.margin_ns() })?;
    let name = format!("config:{lease}");
    let about = format!("the numbers of lease {lease:?}, in ticks of {tick:?}");
    let owned = name.clone();
    let explore = move |limits: Limits, on_progress: &mut dyn FnMut(Progress)| {
        run_world(
            &owned,
            Expected::Holds,
            &cluster(numbers, tick).world(properties()),
            limits,
            on_progress,
            |world, path| tell(world, path.steps.iter().map(|(_, state)| state)),
        )
    };
    let explore = Box::new(explore);
    let space = Box::new(move || space(move || cluster(numbers, tick).world(properties())));
    Ok(Entry { name, about, expected: Expected::Holds, quick: false, explore, space, mended: None })
}

/// The longest tick at which the longest hold and hook, in whole ticks, are shorter than the shortest watch.
fn longest_tick(timing: &Timing) -> Option<Duration> {
    let error = timing.clock_error_ppm;
    let shortest_watch = timing.lease.as_nanos() * 1_000_000 / (1_000_000 + u128::from(error));
    (2..=LEASE_TICKS_MAX).map(u128::from).find_map(|ticks| {
        let tick = Duration::from_nanos(u64::try_from(shortest_watch / ticks).ok()?);
        let is_long_enough = tick > Duration::ZERO;
        let has_room = || {
            latest_ticks(timing.give_up, tick, error) + latest_ticks(timing.hook, tick, 0)
                < earliest_ticks(timing.lease, tick, error)
        };
        (is_long_enough && has_room()).then_some(tick)
    })
}

fn cluster(numbers: Timing, tick: Duration) -> Cluster {
    let Timing { give_up, renew, retry, poll, .. } = numbers;
    let whenever = give_up.max(renew).max(retry).max(poll);
    let timing =
        Timing { renew: whenever, retry: whenever, poll: whenever, jitter: whenever, ..numbers };
    Cluster {
        hosts: 2,
        timing,
        tick,
        timed: true,
        network: Network::Free { repeats: false },
        faults: Faults::NONE,
        safeguards: Safeguards::ALL,
        keeps: Keeps::default(),
        outside: Vec::new(),
        writes: None,
        hints: false,
        settled: false,
    }
}

fn properties() -> Vec<Property<LeaseWorld>> {
    vec![
        single_writer(),
        unique_holder_per_epoch(),
        read_only_under_another(),
        holder_has_deadline(),
        elected(),
        renewed(),
        taken_over(),
        expired(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(lease: u64, give_up: u64, hook: u64) -> Option<Duration> {
        longest_tick(&Timing {
            lease: Duration::from_millis(lease),
            give_up: Duration::from_millis(give_up),
            hook: Duration::from_millis(hook),
            clock_error_ppm: 0,
            ..Timing::DEFAULT
        })
    }

    //= SPEC TIME-17 test
    #[test]
    fn what_safety_rests_on_is_kept_and_the_rest_comes_at_any_time() {
        let numbers = Timing::DEFAULT;
        let modelled = cluster(numbers, Duration::from_secs(1)).timing;
        assert_eq!(
            (modelled.lease, modelled.give_up, modelled.hook, modelled.clock_error_ppm),
            (numbers.lease, numbers.give_up, numbers.hook, numbers.clock_error_ppm)
        );
        for (any, own) in [
            (modelled.renew, numbers.renew),
            (modelled.retry, numbers.retry),
            (modelled.poll, numbers.poll),
        ] {
            assert!(any >= own && modelled.jitter == any, "from now until later than {own:?}");
        }
    }

    #[test]
    fn small_numbers_are_explored_to_the_end_and_hold() {
        let timing = Timing {
            lease: Duration::from_millis(300),
            give_up: Duration::from_millis(199),
            renew: Duration::from_millis(50),
            retry: Duration::from_millis(40),
            poll: Duration::from_millis(50),
            jitter: Duration::from_millis(5),
            hook: Duration::ZERO,
            ..Timing::DEFAULT
        };
        let entry = entry("orders", &timing.validate().unwrap()).unwrap();
        let outcome = (entry.explore)(Limits::default(), &mut |_| ());
        assert!(outcome.as_registered && outcome.exhaustive, "{:?}", outcome.verdict);
    }

    //= SPEC TIME-17 test
    #[test]
    fn the_tick_is_the_longest_that_leaves_room() {
        // 2 + 0 < 3 in ticks of 1 s; in ticks of 1.5 s the hold takes 2 and the watch 2.
        assert_eq!(ticks(3000, 2000, 0), Some(Duration::from_secs(1)));
        // In ticks of 3 s: 1 + 1 < 3 needs L of 9 s.
        assert_eq!(ticks(9000, 3000, 2900), Some(Duration::from_secs(3)));
        // Nothing but a tick below a second tells 14 + 0 from 15, and there are at most 24 in L.
        assert_eq!(ticks(15_000, 14_000, 0), Some(Duration::from_secs(1)));
        assert_eq!(ticks(15_000, 14_900, 0), None);
        assert_eq!(ticks(15_000, 15_000, 0), None);
    }
}
