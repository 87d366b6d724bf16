//! How far apart the rates of two nodes' clocks are, as far as their messages show.
//!
//! A message from A to B takes some time, so what B's clock reads at its arrival is at least A's reading
//! at its sending plus the difference of the two clocks: each message bounds that difference on one
//! side. Bounds at the beginning of a run and at its end bound how fast the difference grows.

use std::collections::BTreeMap;

/// How many messages each way make one set of bounds.
const MESSAGES: u32 = 64;

/// Bounds on the difference of two clocks, from messages in both directions.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: i128,
    high: i128,
    /// How many messages each way.
    there: u32,
    back: u32,
    /// The span of time, by the first clock.
    from: u64,
    to: u64,
}

impl Bounds {
    const NONE: Self =
        Self { low: i128::MIN, high: i128::MAX, there: 0, back: 0, from: u64::MAX, to: 0 };

    fn is_whole(&self) -> bool {
        self.there >= MESSAGES && self.back >= MESSAGES
    }
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    first: Bounds,
    now: Bounds,
    last: Option<Bounds>,
}

/// The rate of one clock against another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The clock that is measured with.
    pub of: u16,
    /// The clock that is measured.
    pub against: u16,
    /// By at least how many parts per million it is faster; negative if slower.
    pub low_ppm: f64,
    /// By at most how many.
    pub high_ppm: f64,
}

/// What the messages of all nodes show of their clocks.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    pairs: BTreeMap<(u16, u16), Pair>,
}

impl Clocks {
    /// A message was sent and received, by the clocks of sender and receiver in nanoseconds.
    pub fn message(&mut self, src: u16, sent: u64, dst: u16, received: u64) {
        let pair = self.pairs.entry((src.min(dst), src.max(dst))).or_insert(Pair {
            first: Bounds::NONE,
            now: Bounds::NONE,
            last: None,
        });
        let bounds = if pair.first.is_whole() { &mut pair.now } else { &mut pair.first };
        let at = if src < dst {
            bounds.high = bounds.high.min(i128::from(received) - i128::from(sent));
            bounds.there += 1;
            sent
        } else {
            bounds.low = bounds.low.max(i128::from(sent) - i128::from(received));
            bounds.back += 1;
            received
        };
        bounds.from = bounds.from.min(at);
        bounds.to = bounds.to.max(at);
        if pair.now.is_whole() {
            pair.last = Some(std::mem::replace(&mut pair.now, Bounds::NONE));
        }
    }

    /// A node has another clock now: what was seen of it counts no more.
    pub fn forget(&mut self, node: u16) {
        self.pairs.retain(|&(one, other), _| one != node && other != node);
    }

    /// The rates that are known.
    pub fn rates(&self) -> Vec<Rate> {
        let known = self.pairs.iter().filter_map(|(&(of, against), pair)| {
            let (first, last) = (pair.first, pair.last?);
            let longest = last.to.checked_sub(first.from).filter(|&time| time > 0)? as f64;
            let shortest = last.from.checked_sub(first.to).filter(|&time| time > 0)? as f64;
            let (low, high) = ((last.low - first.high) as f64, (last.high - first.low) as f64);
            // Outwards, whichever sign they have.
            let ppm = |growth: f64, time: f64| growth / time * 1e6;
            Some(Rate {
                of,
                against,
                low_ppm: ppm(low, if low > 0.0 { longest } else { shortest }),
                high_ppm: ppm(high, if high < 0.0 { longest } else { shortest }),
            })
        });
        known.collect()
    }

    /// Two clocks of which one must be off by more than this, if there are any.
    pub fn beyond(&self, clock_error_ppm: u32) -> Option<Rate> {
        let rho = f64::from(clock_error_ppm) / 1e6;
        let most = 2.0 * rho / (1.0 - rho) * 1e6;
        self.rates().into_iter().find(|rate| rate.low_ppm > most || rate.high_ppm < -most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clocks of which the second is this much faster, and messages that take 1 to 5 ms.
    fn run(ppm: u64) -> Clocks {
        let mut clocks = Clocks::default();
        let other = |time: u64| 77_000_000_000 + time + time / 1_000_000 * ppm;
        for n in 0..4000 {
            let time = n * 50_000_000;
            let delay = 1_000_000 + n * 7919 % 4_000_000;
            clocks.message(2, time, 5, other(time + delay));
            clocks.message(5, other(time), 2, time + delay);
        }
        clocks
    }

    #[test]
    fn the_rate_is_found_between_its_bounds() {
        for ppm in [0, 150, 900] {
            let clocks = run(ppm);
            let [rate] = clocks.rates()[..] else { panic!("one pair") };
            let ppm = ppm as f64;
            assert!(rate.low_ppm <= ppm && ppm <= rate.high_ppm, "{rate:?}");
            assert!(rate.high_ppm - rate.low_ppm < 100.0, "{rate:?}");
        }
    }

    #[test]
    fn clocks_that_are_further_apart_than_allowed_are_told() {
        assert_eq!(run(300).beyond(200), None);
        assert!(run(900).beyond(200).is_some());
    }
}
