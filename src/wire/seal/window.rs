//! Which datagrams of a peer have come already, in bounded memory.

use super::Boot;

/// How far back a datagram may come behind the newest one of its life. A node seals a datagram before it waits for its
/// disk, so that others may overtake it: one that so many to the same peer have overtaken is lost.
pub const WINDOW: u64 = 4096;

/// How many lives of a peer are remembered.
pub const LIVES_MAX: usize = 4;

/// One word more than the window has, so that a word can be cleared as a whole before it is used again.
const WORDS: u64 = WINDOW / 64 + 1;

/// The datagrams of one life.
#[derive(Clone, PartialEq, Eq)]
struct Life {
    incarnation: u32,
    boot: Boot,
    newest: u64,
    /// The bit of each counter, in a ring.
    seen: Box<[u64; WORDS as usize]>,
}

impl Life {
    fn new(incarnation: u32, boot: Boot) -> Self {
        Self { incarnation, boot, newest: 0, seen: Box::new([0; WORDS as usize]) }
    }

    fn take(&mut self, counter: u64) -> bool {
        if counter > self.newest {
            let (last, next) = (self.newest / 64, counter / 64);
            for word in last + 1..=next.min(last + WORDS) {
                self.seen[(word % WORDS) as usize] = 0;
            }
            self.newest = counter;
        } else if self.newest - counter >= WINDOW {
            return false;
        }
        let word = &mut self.seen[(counter / 64 % WORDS) as usize];
        let bit = 1 << (counter % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// The datagrams of the last lives of one peer.
///
/// Lives beyond [`LIVES_MAX`] are forgotten, the one that was silent for longest first, but never that of the highest
/// incarnation: that is the one which runs, unless the peer has lost its disk, and whoever sends old datagrams again
/// cannot make the receiver forget what he has heard of it. What comes again of a life that was forgotten is taken once
/// more, and so is all that comes again after a start of the receiver, which begins with an empty window. No harm comes of it
/// as long as every node has its storage: the models run with a network that repeats whatever it has carried. A node that
/// has lost its storage counts its lives and requests again from the beginning, and what answered them then would answer
/// them now: it needs a new key.
#[derive(Clone, Default)]
pub(super) struct Window {
    /// In the order in which they were last heard of.
    lives: Vec<Life>,
}

impl Window {
    /// Notes a datagram that its sender has sealed. Says whether it may be taken: it is not too old, and comes for the
    /// first time.
    pub(super) fn take(&mut self, incarnation: u32, boot: Boot, counter: u64) -> bool {
        let is_it = |life: &Life| (life.incarnation, life.boot) == (incarnation, boot);
        match self.lives.iter().rposition(is_it) {
            Some(at) => {
                if !self.lives[at].take(counter) {
                    return false;
                }
                self.lives[at..].rotate_left(1);
            }
            None => {
                if self.lives.len() >= LIVES_MAX {
                    self.forget_one();
                }
                let mut life = Life::new(incarnation, boot);
                life.take(counter);
                self.lives.push(life);
            }
        }
        true
    }

    fn forget_one(&mut self) {
        let highest = self.lives.iter().map(|life| life.incarnation).max();
        let newest = self.lives.iter().rposition(|life| Some(life.incarnation) == highest);
        let oldest = (0..self.lives.len()).find(|at| Some(*at) != newest);
        if let Some(oldest) = oldest {
            self.lives.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BOOT: Boot = [1; 12];

    fn boot(n: u8) -> Boot {
        [n; 12]
    }

    //= SPEC SEAL-4 test
    #[test]
    fn a_counter_is_taken_once_and_not_when_it_is_old() {
        let mut window = Window::default();
        assert!(window.take(1, BOOT, 10));
        assert!(!window.take(1, BOOT, 10));
        assert!(window.take(1, BOOT, 9), "out of order");
        assert!(window.take(1, BOOT, 9 + WINDOW));
        assert!(!window.take(1, BOOT, 9), "it has come, and is beyond the window");
        assert!(!window.take(1, BOOT, 8), "nobody knows any more whether it has come");
        assert!(!window.take(1, BOOT, 10), "it has come");
        assert!(window.take(1, BOOT, 11));
        assert!(window.take(1, BOOT, u64::MAX));
        assert!(!window.take(1, BOOT, u64::MAX));
        assert!(!window.take(1, BOOT, 12));
        assert!(window.take(1, BOOT, u64::MAX - WINDOW + 1));
    }

    #[test]
    fn each_life_has_counters_of_its_own() {
        let mut window = Window::default();
        for (incarnation, boot) in [(1, boot(1)), (2, boot(2)), (1, boot(3))] {
            assert!(window.take(incarnation, boot, 0));
            assert!(!window.take(incarnation, boot, 0));
        }
        assert!(!window.take(1, boot(1), 0), "the first life is remembered");
    }

    //= SPEC SEAL-4 test
    #[test]
    fn old_lives_that_come_again_do_not_push_out_the_one_that_runs() {
        let mut window = Window::default();
        assert!(window.take(100, boot(100), 5));
        for n in 0..50 {
            window.take(n, boot(n as u8), 0);
            assert!(window.lives.len() <= LIVES_MAX);
        }
        assert!(!window.take(100, boot(100), 5));
        // One that has lost its disk begins again, and is heard although it is not the highest.
        assert!(window.take(1, boot(200), 0));
        assert!(!window.take(1, boot(200), 0));
    }

    proptest! {
        /// Against a receiver that remembers everything: never twice, and never a refusal within the window.
        //= SPEC SEAL-4 test
        #[test]
        fn it_agrees_with_a_memory_without_bounds(
            steps in proptest::collection::vec((0..3u32, 0..20_000u64), 1..400),
            near in any::<bool>(),
        ) {
            let mut window = Window::default();
            let mut taken: [BTreeSet<u64>; 3] = Default::default();
            for (life, counter) in steps {
                // Close together, so that they meet; or far apart, so that the ring goes round.
                let counter = if near { counter % 300 } else { counter };
                let all = &mut taken[life as usize];
                let newest = all.last().copied().unwrap_or(0);
                let expected = !all.contains(&counter) && counter + WINDOW > newest;
                prop_assert_eq!(window.take(life, BOOT, counter), expected);
                if expected {
                    all.insert(counter);
                }
            }
        }
    }
}
