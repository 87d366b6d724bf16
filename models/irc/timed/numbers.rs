//! The numbers of a timed model, and the bounds that follow from them.
//!
//! Everything is in ticks. A tick is 250 ms, the shortest wait of a retry, which is the shortest time
//! that the protocol itself names. The other numbers are as small as they can be and keep their order
//! (an answer comes before a call ends, a call ends below half of a lease): a bound is a sum of them, so
//! what holds with these shows how the sum is made up, not how long a real region takes.

use std::time::Duration;

use crate::irc::control::Policy;
use crate::irc::log::LOST_MAX;

/// One tick.
pub const TICK: Duration = Duration::from_millis(250);

/// The numbers of a model, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// The longest time that a message is under way.
    pub delay: u16,
    /// The longest time that a half takes to be switched on.
    pub switch: u16,
    /// How often a server polls.
    pub poll: u16,
    /// How long a server waits for an answer.
    pub call: u16,
    /// How long a claim is held, before it is spread.
    pub lease: u16,
    /// The longest wait before another try, above the floor of one tick.
    pub cap: u16,
    /// How often a region compares what it knows with each peer, where it does.
    pub sweep: u16,
    /// One unit of a region's clock.
    pub unit: u16,
    /// How many units a request waits for its decision.
    pub pending: u64,
    /// How many claims towards one remote may be out.
    pub claims: usize,
}

/// The least numbers that keep their order.
pub const LEAST: Numbers = Numbers {
    delay: 1,
    switch: 1,
    poll: 2,
    call: 3,
    lease: 8,
    cap: 2,
    sweep: 4,
    unit: 4,
    pending: 100,
    claims: 1,
};

/// A number of ticks as actors get it.
pub fn ticks(ticks: u16) -> Duration {
    TICK * u32::from(ticks)
}

//= SPEC IRC-40
impl Numbers {
    /// What a control plane is told, sweeping or not.
    pub fn policy(&self, sweeps: bool) -> Policy {
        Policy {
            tick: ticks(self.unit),
            pending: self.pending,
            // Nothing is forgotten here: untimed models have that.
            remember: u64::MAX,
            tokens: u64::MAX,
            lease: ticks(self.lease),
            retry: [TICK, ticks(self.cap), TICK],
            sweep: sweeps.then(|| ticks(self.sweep)),
            claims: self.claims,
            ..Policy::default()
        }
    }

    /// The longest that a claim is held: a quarter more than the lease, over which the ends are spread.
    pub fn lease_end(&self) -> u16 {
        self.lease + self.lease.div_ceil(4)
    }

    /// The longest wait before another try: the cap, and the 250 ms that *not now* adds to it.
    pub fn wait(&self) -> u16 {
        self.cap + 1
    }

    /// From the moment in which work may be handed out to the one in which its answer is reported: a
    /// poll comes, and then seven messages: the poll, the claim, its extension and the word that it is
    /// extended, the call, the answer, the report.
    pub fn carry(&self) -> u16 {
        self.poll + 7 * self.delay
    }

    /// Until work that is being tried in vain may be handed out again: its claim is extended, its call
    /// ends, that is reported, and it has waited.
    pub fn retry(&self) -> u16 {
        2 * self.delay + self.call + self.delay + self.wait()
    }

    /// The same if its server may have died: its claim ends, which was extended at most two messages
    /// after it was handed out; or as above.
    pub fn again(&self) -> u16 {
        self.retry().max(2 * self.delay + self.lease_end())
    }

    /// After the links are back, until a record has been delivered that was tried in vain: E2 for what
    /// a record tells.
    pub fn heal(&self) -> u16 {
        self.again() + self.carry()
    }

    /// Bsync: until a difference is gone that no record tells. The sweep comes round, or the one that
    /// was tried in vain does; its question is answered; what it has found is delivered by a record.
    pub fn sync(&self) -> u16 {
        self.sweep.max(self.again()) + 2 * self.carry()
    }

    /// Until a frozen pair has thawed. Each side asks for the promise and then for what the peer knows.
    /// Either question may have been sent before the other side was ready, or be made void by the other
    /// side's own, once; then it waits and is asked again.
    pub fn thaw(&self) -> u16 {
        self.again() + 4 * self.carry() + 2 * self.wait()
    }

    /// Until a record is set aside of which each server dies that touches it: it is lost
    /// [`LOST_MAX`] times, each time a poll, the poll, the claim, and the lease.
    pub fn set_aside(&self) -> u16 {
        u16::from(LOST_MAX) * (self.poll + 2 * self.delay + self.lease_end())
    }

    /// Until so many records have been delivered, one after the other.
    pub fn drain(&self, records: u16) -> u16 {
        self.again() + records * self.carry()
    }

    /// E5: two polls.
    pub fn serve(&self) -> u16 {
        2 * self.poll
    }

    /// E1: until a request is decided that its accepter has stored. Its deadline, and a unit of the
    /// clock, of which a crash may lose a part.
    pub fn decide(&self, crashes: u16) -> u16 {
        let units = u16::try_from(self.pending).expect("a few");
        (units + crashes) * self.unit
    }

    /// E8: the shortest time between two calls for one piece of work, of which the first was in vain.
    pub fn pace(&self) -> u16 {
        self.call + 1
    }
}
