//! Two that take down the same steps.

use std::ops::Range;
use std::time::Duration;

use stateright::actor::{Actor, Id};

use crate::step::InputOf;
use crate::trace::{Origin, Recorder};

/// Tells each step to the one, and then to the other.
pub(super) struct Both<R, S>(pub(super) R, pub(super) S);

impl<A: Actor, R: Recorder<A>, S: Recorder<A>> Recorder<A> for Both<R, S> {
    fn begin(&mut self, lease: u16, at: u64, durable: u64, input: &InputOf<A>, origin: Origin) {
        self.0.begin(lease, at, durable, input, origin);
        self.1.begin(lease, at, durable, input, origin);
    }

    fn save(&mut self, storage: &A::Storage, number: Option<u64>) {
        self.0.save(storage, number);
        self.1.save(storage, number);
    }

    fn set(&mut self, timer: &A::Timer, range: &Range<Duration>, due: u64) {
        self.0.set(timer, range, due);
        self.1.set(timer, range, due);
    }

    fn cancel(&mut self, timer: &A::Timer) {
        self.0.cancel(timer);
        self.1.cancel(timer);
    }

    fn choose(&mut self, key: &str, alternatives: &[A::Random]) {
        self.0.choose(key, alternatives);
        self.1.choose(key, alternatives);
    }

    fn send(&mut self, to: Id, msg: &A::Msg, sequence: Option<u32>) {
        self.0.send(to, msg, sequence);
        self.1.send(to, msg, sequence);
    }

    fn end(&mut self, state: &A::State, deadline: Option<u64>) {
        self.0.end(state, deadline);
        self.1.end(state, deadline);
    }

    fn write_out(&mut self) {
        self.0.write_out();
        self.1.write_out();
    }

    fn stop(&mut self, at: u64) {
        self.0.stop(at);
        self.1.stop(at);
    }

    fn simulated(&mut self, now: u64) {
        self.0.simulated(now);
        self.1.simulated(now);
    }

    fn durable(&mut self, number: u64) {
        self.0.durable(number);
        self.1.durable(number);
    }
}
