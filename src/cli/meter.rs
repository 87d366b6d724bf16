//! Counts what the steps of a node show of its leases: how long renewals take, how they fail, and terms that
//! have run out. It sees them as the trace does, and passes them on to it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use stateright::actor::{Actor, Id};

use crate::lease::msg::Msg;
use crate::lease::record::Nonce;
use crate::lease::{Member, MemberState, Timer};
use crate::node::Spec;
use crate::step::{Input, InputOf};
use crate::trace::{Origin, Recorder};

type State = <Member as Actor>::State;
type Storage = <Member as Actor>::Storage;
type Random = <Member as Actor>::Random;

/// Counts the steps of the node that is to be started, for the leases of these indexes and names.
pub(super) fn count_steps(spec: &mut Spec<Member>, names: BTreeMap<u16, String>) {
    let inner = spec.recorder.take();
    spec.recorder = Some(Box::new(move |incarnation| {
        let inner = inner.map(|make| make(incarnation)).transpose()?;
        let leases = names.into_iter().map(|(index, name)| (index, Lease::new(name))).collect();
        Ok(Box::new(Meter { inner, leases, at: 0, lease: 0, is_deadline: false }))
    }));
}

/// What is known of one lease.
struct Lease {
    name: String,
    /// The last conditional write, until it is answered, and when it was sent.
    sent: Option<(Nonce, u64)>,
    is_held: bool,
}

impl Lease {
    fn new(name: String) -> Self {
        // A counter that is not there cannot be told from one that nobody counts.
        for kind in ["conflict", "timeout"] {
            metrics::counter!("renew_failures_total", "lease" => name.clone(), "kind" => kind)
                .increment(0);
        }
        metrics::counter!("self_fence_total", "lease" => name.clone()).increment(0);
        Self { name, sent: None, is_held: false }
    }

    fn failed(&self, kind: &'static str) {
        metrics::counter!("renew_failures_total", "lease" => self.name.clone(), "kind" => kind)
            .increment(1);
    }

    fn hear(&mut self, msg: &Msg, at: u64) {
        let (Msg::Written { nonce, .. } | Msg::Conflict { nonce, .. }) = msg else { return };
        // An answer to an earlier attempt was counted as one that has not come.
        let Some((_, sent)) = self.sent.take_if(|(sent, _)| sent == nonce) else { return };
        if matches!(msg, Msg::Conflict { .. }) {
            return self.failed("conflict");
        }
        let took = Duration::from_nanos(at.saturating_sub(sent));
        metrics::histogram!("renew_seconds", "lease" => self.name.clone())
            .record(took.as_secs_f64());
    }

    fn say(&mut self, msg: &Msg, at: u64) {
        let Msg::Write { nonce, .. } = msg else { return };
        if self.sent.replace((*nonce, at)).is_some() {
            self.failed("timeout");
        }
    }
}

struct Meter {
    inner: Option<Box<dyn Recorder<Member>>>,
    leases: BTreeMap<u16, Lease>,
    /// The step that has begun: when, for which lease, and whether a deadline has passed.
    at: u64,
    lease: u16,
    is_deadline: bool,
}

impl Recorder<Member> for Meter {
    fn begin(
        &mut self,
        lease: u16,
        at: u64,
        durable: u64,
        input: &InputOf<Member>,
        origin: Origin,
    ) {
        if let Some(inner) = &mut self.inner {
            inner.begin(lease, at, durable, input, origin);
        }
        (self.at, self.lease) = (at, lease);
        self.is_deadline = matches!(input, Input::Fire(Timer::Hold(_)));
        if let (Some(lease), Input::Deliver { msg, .. }) = (self.leases.get_mut(&lease), input) {
            lease.hear(msg, at);
        }
    }

    fn save(&mut self, storage: &Storage, number: Option<u64>) {
        if let Some(inner) = &mut self.inner {
            inner.save(storage, number);
        }
    }

    fn set(&mut self, timer: &Timer, range: &Range<Duration>, due: u64) {
        if let Some(inner) = &mut self.inner {
            inner.set(timer, range, due);
        }
    }

    fn cancel(&mut self, timer: &Timer) {
        if let Some(inner) = &mut self.inner {
            inner.cancel(timer);
        }
    }

    fn choose(&mut self, key: &str, alternatives: &[Random]) {
        if let Some(inner) = &mut self.inner {
            inner.choose(key, alternatives);
        }
    }

    fn send(&mut self, to: Id, msg: &Msg, sequence: Option<u32>) {
        if let Some(inner) = &mut self.inner {
            inner.send(to, msg, sequence);
        }
        if let Some(lease) = self.leases.get_mut(&self.lease) {
            lease.say(msg, self.at);
        }
    }

    fn end(&mut self, state: &State, deadline: Option<u64>) {
        if let Some(inner) = &mut self.inner {
            inner.end(state, deadline);
        }
        let (Some(lease), MemberState::Host(state)) = (self.leases.get_mut(&self.lease), state)
        else {
            return;
        };
        let is_held = state.elector.phase.holding().is_some();
        if std::mem::replace(&mut lease.is_held, is_held) && !is_held && self.is_deadline {
            metrics::counter!("self_fence_total", "lease" => lease.name.clone()).increment(1);
        }
    }

    fn write_out(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.write_out();
        }
    }

    fn stop(&mut self, at: u64) {
        if let Some(inner) = &mut self.inner {
            inner.stop(at);
        }
    }
}
