//! Time, the network and faults: what passes, what does not, and how often something goes wrong.

use std::time::Duration;

/// What passes and what does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Any armed timer may fire at any moment: what holds here needs no clock at all.
    Untimed,
    /// Timers run as long as they were set for.
    Timed {
        /// The length of a tick. Every duration is rounded outwards to whole ticks.
        tick: Duration,
        /// The bound on the error of every clock's rate, in parts per million.
        clock_error_ppm: u32,
        /// The longest time, in ticks, that a host's message to itself is under way: the time S of a
        /// hook.
        local: u16,
    },
}

/// How messages between different nodes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Any delay, any order, and loss, which here is the same as being late for ever. Two equal
    /// messages under way are one.
    Free {
        /// Whether a message may be delivered any number of times.
        repeats: bool,
    },
    /// Every message that is not lost arrives within this many ticks, in any order, once.
    Timely {
        /// The longest delay, in ticks.
        delay: u16,
    },
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Budget {
    /// This often.
    Times(u8),
    /// Without limit.
    Unlimited,
}

impl Budget {
    pub(super) fn is_left(self) -> bool {
        self != Self::Times(0)
    }

    pub(super) fn spend(&mut self) {
        if let Self::Times(times) = self {
            *times -= 1;
        }
    }
}

/// What can go wrong, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The nodes that may crash.
    pub may_crash: Vec<usize>,
    /// How often there is a crash.
    pub crashes: Budget,
    /// How many nodes may be down at once.
    pub down_at_once: usize,
    /// Whether a crashed node may come back.
    pub recover: bool,
    /// The nodes that may be paused: they handle nothing, and their timers are not urgent.
    pub may_pause: Vec<usize>,
    /// How often there is a pause.
    pub pauses: Budget,
    /// How many messages may be lost. Only a timely network needs it.
    pub losses: Budget,
    /// How often the surroundings may say something ([`Observer::inputs`](super::Observer::inputs)).
    pub inputs: Budget,
    /// How often a timer fires at all: a bound on untimed worlds, where every timer may fire at any
    /// moment and again and again.
    pub fires: Budget,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        may_crash: Vec::new(),
        crashes: Budget::Times(0),
        down_at_once: 0,
        recover: true,
        may_pause: Vec::new(),
        pauses: Budget::Times(0),
        losses: Budget::Times(0),
        inputs: Budget::Times(0),
        fires: Budget::Unlimited,
    };

    /// These nodes may crash this often, one at a time, and come back.
    pub fn crashes(nodes: impl IntoIterator<Item = usize>, crashes: Budget) -> Self {
        Self { may_crash: nodes.into_iter().collect(), crashes, down_at_once: 1, ..Self::NONE }
    }
}
