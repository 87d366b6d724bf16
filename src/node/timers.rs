//! The table of armed timers. It reads no clock: whoever uses it says what time it is.
//!
//! Every arming has a number, its generation. A timer that is armed afresh or cancelled loses its
//! old arming altogether, so that nothing can ever fire from it (runtime duty 2: the model's timers
//! are a set, and a firing that the model calls disabled would be a behaviour nobody checked).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{Rng, RngExt};

use super::clock::BootInstant;

/// Which timers a pass may still fire: those armed before it began.
///
/// Without it a timer that its own handler arms again for at once would be due for ever within one
/// pass, and the socket would never be read.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    armed_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arming {
    deadline: BootInstant,
    generation: u64,
}

/// The armed timers of one node.
#[derive(Clone, Debug)]
pub struct Timers<T> {
    armed: BTreeMap<T, Arming>,
    /// The same by deadline; among equal deadlines, in the order of arming.
    queue: BTreeSet<(Arming, T)>,
    generation: u64,
}

impl<T: Ord + Clone> Timers<T> {
    /// No timer is armed.
    pub fn new() -> Self {
        Self { armed: BTreeMap::new(), queue: BTreeSet::new(), generation: 0 }
    }

    /// Arms a timer, afresh if it is armed: its deadline is `now` and a duration drawn uniformly
    /// from `low..=high`, both ends included. A range the wrong way round is taken as `low` alone.
    ///
    /// The duration has whole nanoseconds like the clock, so nothing is ever rounded down: a watcher
    /// that waited less than it was told to would take over a lease that has not run out.
    //= SPEC TIME-6
    pub fn arm(
        &mut self,
        timer: T,
        low: Duration,
        high: Duration,
        now: BootInstant,
        rng: &mut impl Rng,
    ) -> BootInstant {
        let duration = if low < high { rng.random_range(low..=high) } else { low };
        let arming = Arming { deadline: now.saturating_add(duration), generation: self.generation };
        self.generation += 1;
        self.cancel(&timer);
        self.armed.insert(timer.clone(), arming);
        self.queue.insert((arming, timer));
        arming.deadline
    }

    /// Disarms a timer. Returns whether it was armed.
    //= SPEC TIME-7
    pub fn cancel(&mut self, timer: &T) -> bool {
        let Some(arming) = self.armed.remove(timer) else { return false };
        let removed = self.queue.remove(&(arming, timer.clone()));
        assert!(removed, "an armed timer is in the queue");
        true
    }

    /// When the timer fires, if it is armed.
    pub fn deadline(&self, timer: &T) -> Option<BootInstant> {
        self.armed.get(timer).map(|arming| arming.deadline)
    }

    /// When the next timer fires.
    pub fn next_deadline(&self) -> Option<BootInstant> {
        self.queue.first().map(|(arming, _)| arming.deadline)
    }

    /// Begins a pass over the timers that are armed now.
    pub fn pass(&self) -> Pass {
        Pass { armed_before: self.generation }
    }

    /// Takes the timer that has been due the longest at `now`, if any is that the pass may still
    /// fire. It is disarmed; its handler may arm it again, for a later pass.
    ///
    /// Between two calls the table may be changed at will: what was cancelled or armed afresh since
    /// the pass began is not fired.
    pub fn fire(&mut self, now: BootInstant, pass: Pass) -> Option<T> {
        self.fire_with_deadline(now, pass).map(|(timer, _)| timer)
    }

    /// The same, with the deadline that has passed.
    pub fn fire_with_deadline(&mut self, now: BootInstant, pass: Pass) -> Option<(T, BootInstant)> {
        let (arming, timer) = self
            .queue
            .iter()
            .take_while(|(arming, _)| arming.deadline <= now)
            .find(|(arming, _)| arming.generation < pass.armed_before)?;
        let (timer, deadline) = (timer.clone(), arming.deadline);
        self.cancel(&timer);
        Some((timer, deadline))
    }
}

impl<T: Ord + Clone> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> BootInstant {
        BootInstant::from_nanos(millis * 1_000_000)
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    //= SPEC TIME-6 test
    #[test]
    fn a_timer_fires_at_its_deadline_and_not_a_nanosecond_before() {
        let mut timers = Timers::new();
        timers.arm("a", 10 * MS, 10 * MS, at(5), &mut rng());
        let before = BootInstant::from_nanos(at(15).as_nanos() - 1);
        assert_eq!(timers.fire(before, timers.pass()), None);
        assert_eq!(timers.fire(at(15), timers.pass()), Some("a"));
        assert_eq!(timers.fire(at(15), timers.pass()), None);
    }

    #[test]
    fn the_draw_uses_the_whole_range_and_nothing_else() {
        let mut timers = Timers::new();
        let mut rng = rng();
        let (low, high) = (Duration::from_nanos(3), Duration::from_nanos(6));
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            seen.insert(timers.arm("a", low, high, at(0), &mut rng).as_nanos());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
    }

    #[test]
    fn a_range_the_wrong_way_round_is_its_low_end() {
        let mut timers = Timers::new();
        assert_eq!(timers.arm("a", 9 * MS, 2 * MS, at(0), &mut rng()), at(9));
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_never() {
        let mut timers = Timers::new();
        let deadline = timers.arm("a", Duration::MAX, Duration::MAX, at(1), &mut rng());
        assert_eq!(deadline, BootInstant::NEVER);
    }

    //= SPEC TIME-7 test
    #[test]
    fn an_old_arming_never_fires() {
        let mut timers = Timers::new();
        let mut rng = rng();
        timers.arm("again", 10 * MS, 10 * MS, at(0), &mut rng);
        timers.arm("cancelled", 10 * MS, 10 * MS, at(0), &mut rng);
        timers.arm("again", 30 * MS, 30 * MS, at(0), &mut rng);
        assert!(timers.cancel(&"cancelled"));
        assert!(!timers.cancel(&"cancelled"));
        assert_eq!(timers.fire(at(29), timers.pass()), None);
        assert_eq!(timers.fire(at(30), timers.pass()), Some("again"));
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn what_a_handler_cancels_or_arms_again_is_not_fired_in_its_pass() {
        let mut timers = Timers::new();
        let mut rng = rng();
        for timer in ["a", "b", "c"] {
            timers.arm(timer, MS, MS, at(0), &mut rng);
        }
        let pass = timers.pass();
        assert_eq!(timers.fire(at(1), pass), Some("a"));
        timers.arm("a", Duration::ZERO, Duration::ZERO, at(1), &mut rng);
        timers.arm("b", Duration::ZERO, Duration::ZERO, at(1), &mut rng);
        timers.cancel(&"c");
        assert_eq!(timers.fire(at(1), pass), None);
        let next = timers.pass();
        assert_eq!(timers.fire(at(1), next), Some("a"));
        assert_eq!(timers.fire(at(1), next), Some("b"));
    }

    #[test]
    fn the_longest_due_goes_first_and_equals_go_in_the_order_of_arming() {
        let mut timers = Timers::new();
        let mut rng = rng();
        timers.arm("z", 5 * MS, 5 * MS, at(0), &mut rng);
        timers.arm("late", 7 * MS, 7 * MS, at(0), &mut rng);
        timers.arm("a", 5 * MS, 5 * MS, at(0), &mut rng);
        let pass = timers.pass();
        let fired: Vec<_> = std::iter::from_fn(|| timers.fire(at(9), pass)).collect();
        assert_eq!(fired, ["z", "a", "late"]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u8, u64),
        Cancel(u8),
        Elapse(u64),
        Pass,
        Fire,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..5u8, 0..6u64).prop_map(|(timer, millis)| Op::Arm(timer, millis)),
            (0..5u8).prop_map(Op::Cancel),
            (0..4u64).prop_map(Op::Elapse),
            Just(Op::Pass),
            Just(Op::Fire),
            Just(Op::Fire),
        ]
    }

    proptest! {
        /// A list of armings in the order of arming is the whole specification.
        #[test]
        fn it_does_what_a_list_would_do(ops in proptest::collection::vec(op(), 0..80)) {
            struct Item { timer: u8, deadline: u64, may_fire: bool }
            let mut list: Vec<Item> = Vec::new();
            let mut timers = Timers::new();
            let mut rng = rng();
            let mut now = 0;
            let mut pass = timers.pass();
            for op in ops {
                match op {
                    Op::Arm(timer, millis) => {
                        let length = Duration::from_millis(millis);
                        timers.arm(timer, length, length, at(now), &mut rng);
                        list.retain(|item| item.timer != timer);
                        list.push(Item { timer, deadline: now + millis, may_fire: false });
                    }
                    Op::Cancel(timer) => {
                        let was = list.iter().any(|item| item.timer == timer);
                        prop_assert_eq!(timers.cancel(&timer), was);
                        list.retain(|item| item.timer != timer);
                    }
                    Op::Elapse(millis) => now += millis,
                    Op::Pass => {
                        pass = timers.pass();
                        list.iter_mut().for_each(|item| item.may_fire = true);
                    }
                    Op::Fire => {
                        // `min_by_key` gives the first of equals, which is the one armed first.
                        let expected = list
                            .iter()
                            .enumerate()
                            .filter(|(_, item)| item.may_fire && item.deadline <= now)
                            .min_by_key(|(_, item)| item.deadline)
                            .map(|(index, _)| index);
                        let expected = expected.map(|index| list.remove(index).timer);
                        prop_assert_eq!(timers.fire(at(now), pass), expected);
                    }
                }
                let next = list.iter().map(|item| at(item.deadline)).min();
                prop_assert_eq!(timers.next_deadline(), next);
                for timer in 0..5 {
                    let deadline = list.iter().find(|item| item.timer == timer);
                    let deadline = deadline.map(|item| at(item.deadline));
                    prop_assert_eq!(timers.deadline(&timer), deadline);
                }
            }
        }
    }
}
