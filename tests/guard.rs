//! The guard: what it permits at which time, what it costs, and how a node uses it.
//!
//! What happens when several threads use it at once is in `loom_guard.rs`.

#![allow(clippy::disallowed_methods, reason = "a test waits for real time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Event, MS, Number, Say, Toy, shown, spec, start, until, view};
use proptest::prelude::*;
use stateright::actor::Out;
use tenure::clock::{BootInstant, Clock};
use tenure::gate::EPOCH_MAX;
use tenure::guard::{LeaseGuard, Lost, NotAdmitted, Refused};
use tenure::node::clock::BootClock;
use tenure::node::{Guard, HandBack, Node};

/// A clock that the test sets, in nanoseconds.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn set(&self, nanos: u64) {
        self.0.store(nanos, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> BootInstant {
        BootInstant::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

const MILLI: u64 = 1_000_000;

fn at(nanos: u64) -> BootInstant {
    BootInstant::from_nanos(nanos)
}

fn guard() -> (TestClock, LeaseGuard<TestClock>) {
    let clock = TestClock::default();
    (clock.clone(), LeaseGuard::new(clock))
}

//= SPEC GUARD-3 test
#[test]
fn a_permit_needs_its_time_before_the_deadline() {
    let (clock, guard) = guard();
    assert_eq!(guard.permit(Duration::ZERO), Err(Lost::NoTerm));
    guard.open(1, at(10 * MILLI)).unwrap();
    for (now, needed, is_permitted) in [
        (0, 0, true),
        (0, 10 * MILLI, true),
        (0, 10 * MILLI + 1, false),
        (4 * MILLI, 6 * MILLI, true),
        (4 * MILLI + 1, 6 * MILLI, false),
        (10 * MILLI - 1, 0, true),
        // At the deadline itself nothing is permitted, not even what takes no time.
        (10 * MILLI, 0, false),
        (u64::MAX, 0, false),
    ] {
        clock.set(now);
        let permit = guard.permit(Duration::from_nanos(needed));
        assert_eq!(permit.is_ok(), is_permitted, "{needed} ns at {now}");
        match permit {
            Ok(permit) => assert_eq!((permit.epoch(), permit.deadline()), (1, at(10 * MILLI))),
            Err(lost) => {
                let left = Duration::from_nanos((10 * MILLI).saturating_sub(now));
                assert_eq!(lost, Lost::NoTime { left });
            }
        }
    }
    clock.set(0);
    assert!(guard.permit(Duration::MAX).is_err());
}

#[test]
fn a_permit_is_confirmed_only_within_its_term() {
    let (clock, guard) = guard();
    guard.open(1, at(10 * MILLI)).unwrap();
    let permit = guard.permit(Duration::ZERO).unwrap();
    guard.extend(1, at(20 * MILLI)).unwrap();
    clock.set(15 * MILLI);
    assert_eq!(guard.confirm(permit, MS).unwrap().deadline(), at(20 * MILLI));
    clock.set(20 * MILLI);
    assert!(guard.confirm(permit, Duration::ZERO).is_err());
    clock.set(0);
    assert!(guard.revoke(1));
    assert_eq!(guard.confirm(permit, Duration::ZERO), Err(Lost::NoTerm));
    guard.open(2, at(10 * MILLI)).unwrap();
    assert_eq!(guard.confirm(permit, Duration::ZERO), Err(Lost::NoTerm), "another term's");
}

//= SPEC GUARD-2 test
#[test]
fn what_has_ended_stays_ended() {
    let (clock, guard) = guard();
    guard.open(3, at(10 * MILLI)).unwrap();
    assert_eq!(guard.extend(3, at(10 * MILLI)), Err(Refused::NotLater));
    assert_eq!(guard.extend(2, at(50 * MILLI)), Err(Refused::Ended(2)));
    assert_eq!(guard.extend(4, at(50 * MILLI)), Err(Refused::Ended(4)));
    assert!(!guard.revoke(2), "a later term runs");
    assert_eq!(guard.expire(), None, "it is not overdue");
    clock.set(10 * MILLI);
    assert_eq!(guard.expire(), Some(3));
    assert_eq!(guard.expire(), None);
    assert!(!guard.revoke(3), "somebody has ended it");
    clock.set(0);
    for deadline in [20 * MILLI, u64::MAX] {
        assert_eq!(guard.extend(3, at(deadline)), Err(Refused::Ended(3)));
        assert_eq!(guard.open(3, at(deadline)), Err(Refused::Ended(3)));
    }
    assert_eq!(guard.term(), None);
    // A term that was ended before it was opened.
    assert!(!guard.revoke(7));
    assert_eq!(guard.open(6, at(10 * MILLI)), Err(Refused::Ended(6)));
    assert_eq!(guard.open(7, at(10 * MILLI)), Err(Refused::Ended(7)));
    guard.open(8, at(10 * MILLI)).unwrap();
    assert_eq!(guard.term(), Some((8, at(10 * MILLI))));
}

//= SPEC GUARD-7 test
#[test]
fn a_deadline_is_rounded_down_and_an_epoch_is_not_cut_off() {
    let clock = TestClock::default();
    clock.set(5 * MILLI + 7);
    let guard = LeaseGuard::new(clock);
    guard.open(1, at(5 * MILLI + 7 + 3 * MILLI - 1)).unwrap();
    assert_eq!(guard.term().unwrap().1, at(5 * MILLI + 7 + 2 * MILLI));
    // More than 40 bits of milliseconds: as late as can be told, and not early.
    guard.extend(1, BootInstant::NEVER).unwrap();
    assert_eq!(guard.term().unwrap().1, at(5 * MILLI + 7 + ((1 << 40) - 1) * MILLI));
    assert_eq!(guard.term().unwrap().0, 1);
    let too_large = EPOCH_MAX + 1;
    assert_eq!(guard.open(too_large, at(1 << 50)), Err(Refused::EpochTooLarge(too_large)));
    guard.revoke(1);
    guard.open(EPOCH_MAX, BootInstant::NEVER).unwrap();
    assert_eq!(guard.permit(MS).unwrap().epoch(), EPOCH_MAX);
    // Less than a millisecond after the guard was made there is nothing to permit.
    let (_, guard) = self::guard();
    assert!(guard.open(1, at(MILLI - 1)).is_err());
    assert!(guard.enter(Duration::ZERO).is_err());
}

//= SPEC GUARD-6 test
#[test]
fn to_ask_to_enter_and_to_leave_allocate_nothing() {
    let guard = Guard::new(BootClock);
    guard.open(1, BootInstant::now().saturating_add(Duration::from_secs(60))).unwrap();
    let allocated = allocation_counter::measure(|| {
        for _ in 0..100 {
            let permit = guard.permit(MS).unwrap();
            let _ = guard.confirm(permit, MS).unwrap();
            drop(guard.enter(MS).unwrap());
        }
        assert!(guard.permit(Duration::from_secs(61)).is_err());
    });
    assert_eq!(allocated.count_total, 0);
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 100])));
    assert!(counted.count_total > 0, "the counter counts");
}

#[test]
fn work_is_admitted_while_there_is_time_and_counted_until_its_end() {
    let (clock, guard) = guard();
    guard.open(1, at(10 * MILLI)).unwrap();
    let work = guard.enter(10 * MS).unwrap();
    assert!(matches!(guard.enter(11 * MS), Err(NotAdmitted::Lost(Lost::NoTime { .. }))));
    clock.set(10 * MILLI);
    assert_eq!(guard.expire(), Some(1));
    assert!(!guard.gate().is_closed(1), "it is still running");
    assert_eq!(guard.open(2, at(30 * MILLI)), Err(Refused::Draining(1)));
    drop(work);
    assert!(guard.gate().is_closed(1));
    guard.open(2, at(30 * MILLI)).unwrap();
}

/// What a guard should do, with plain fields and no atomics.
#[derive(Debug, Default)]
struct Reference {
    epoch: u64,
    deadline: Option<u64>,
}

#[derive(Clone, Debug)]
enum Do {
    Open(u64, u64),
    Extend(u64, u64),
    Revoke(u64),
    Expire,
    SetClock(u64),
}

fn an_action() -> impl Strategy<Value = Do> {
    let (epoch, millis) = (1..6_u64, 1..40_u64);
    prop_oneof![
        (epoch.clone(), millis.clone()).prop_map(|(epoch, at)| Do::Open(epoch, at)),
        (epoch.clone(), millis.clone()).prop_map(|(epoch, at)| Do::Extend(epoch, at)),
        epoch.prop_map(Do::Revoke),
        Just(Do::Expire),
        millis.prop_map(Do::SetClock),
    ]
}

impl Reference {
    /// What the guard should answer.
    fn act(&mut self, action: &Do, now: u64) -> bool {
        match *action {
            // The gate is empty in this test, but open until somebody has ended the term.
            Do::Open(epoch, at) if self.deadline.is_none() && epoch > self.epoch => {
                *self = Self { epoch, deadline: Some(at) };
                true
            }
            Do::Extend(epoch, at)
                if self.epoch == epoch && self.deadline.is_some_and(|d| at > d) =>
            {
                self.deadline = Some(at);
                true
            }
            Do::Revoke(epoch) if epoch >= self.epoch => {
                self.epoch = epoch;
                self.deadline.take().is_some()
            }
            Do::Expire if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.deadline = None;
                true
            }
            _ => false,
        }
    }
}

proptest! {
    #[test]
    fn does_what_a_guard_of_plain_fields_does(actions in prop::collection::vec(an_action(), 0..40)) {
        let (clock, guard) = guard();
        let mut reference = Reference::default();
        let mut now = 0;
        for action in actions {
            let done = match action {
                Do::Open(epoch, millis) => guard.open(epoch, at(millis * MILLI)).is_ok(),
                Do::Extend(epoch, millis) => guard.extend(epoch, at(millis * MILLI)).is_ok(),
                Do::Revoke(epoch) => guard.revoke(epoch),
                Do::Expire => guard.expire().is_some(),
                Do::SetClock(millis) => {
                    now = millis;
                    clock.set(millis * MILLI);
                    continue;
                }
            };
            prop_assert_eq!(done, reference.act(&action, now), "{:?}", action);
            let expected = reference.deadline.map(|deadline| (reference.epoch, at(deadline * MILLI)));
            prop_assert_eq!(guard.term(), expected);
            let is_permitted = reference.deadline.is_some_and(|deadline| now < deadline);
            prop_assert_eq!(guard.permit(Duration::ZERO).is_ok(), is_permitted);
        }
    }
}

/// Holds under an epoch that grows by one with each ping, for so many milliseconds; a text ends the term
/// and makes the toy say so to itself.
fn hold(state: &mut u64, event: Event, o: &mut Out<Toy>) {
    match event {
        Event::Message(_, Say::Ping(millis)) => {
            *state += 1;
            o.set_timer("hold", MS * millis as u32..MS * millis as u32);
            o.save(Number(*state));
        }
        Event::Message(_, Say::Text(_)) => {
            o.cancel_timer("hold");
            // More than a disk takes in no time.
            for _ in 0..20_000 {
                *state += 1;
                o.save(Number(*state));
            }
            *state += 1;
            o.save(Number(*state));
            o.send(stateright::actor::Id::from(0), Say::Pong(1));
        }
        Event::Message(_, Say::Pong(_)) => o.set_timer("done", Duration::ZERO..Duration::ZERO),
        _ => {}
    }
}

/// Odd states hold.
fn holder() -> Toy {
    let epoch = |state: &u64| (state % 2 == 1).then_some(*state);
    Toy { permission: Some("hold"), epoch, ..Toy::new(hold) }
}

//= SPEC GUARD-8 test
#[test]
fn a_node_opens_the_guard_when_all_is_durable_and_revokes_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(holder(), &[]);
    spec.storage = Some(dir.path().join("node.redb"));
    let node = Node::start(spec).unwrap();
    let guard = node.guard(0).unwrap();
    assert!(node.guard(1).is_none());
    until("started", || shown(&node).is_some());
    assert_eq!(guard.term(), None);
    node.tell(0, Say::Ping(60_000)).unwrap();
    until("held", || guard.permit(Duration::ZERO).is_ok());
    until("shown", || view(&node) == Some(1));
    let (epoch, deadline) = guard.term().unwrap();
    assert_eq!(epoch, 1);
    let promised = shown(&node).unwrap().deadline.unwrap();
    assert!(deadline <= promised && deadline > promised_before(promised));
    // The term ends while the view that says so still waits for the disk.
    node.tell(0, Say::Text("end".to_owned())).unwrap();
    until("ended", || guard.term().is_none());
    assert_eq!(view(&node), Some(1), "the guard does not wait for the disk");
    until("saved", || view(&node) == Some(20_002));
    node.tell(0, Say::Ping(60_000)).unwrap();
    until("held again", || guard.permit(MS).is_ok_and(|permit| permit.epoch() == 20_003));
    node.kill();
    assert_eq!(guard.permit(Duration::ZERO), Err(Lost::NoTerm), "a node that has ended");
}

/// A millisecond before.
fn promised_before(deadline: BootInstant) -> BootInstant {
    BootInstant::from_nanos(deadline.as_nanos() - MILLI)
}

//= SPEC GUARD-9 test
#[test]
fn a_stop_hook_has_not_finished_while_admitted_work_runs() {
    for hook in [None, Some(20 * MS)] {
        let toy = holder();
        let log = toy.log.clone();
        let mut spec = spec(toy, &[]);
        spec.hooks = Box::new(move |_: u16, _: &Say| hook.map_or(HandBack::Now, HandBack::After));
        let node = Node::start(spec).unwrap();
        let guard = node.guard(0).unwrap();
        node.tell(0, Say::Ping(60_000)).unwrap();
        until("held", || guard.permit(MS).is_ok());
        let work = guard.enter(MS).unwrap();
        node.tell(0, Say::Text("end".to_owned())).unwrap();
        until("ended", || guard.term().is_none());
        std::thread::sleep(60 * MS);
        let stopped = || log.texts().iter().any(|text| text.starts_with("pong"));
        assert!(!stopped(), "the hook has finished, but the work has not");
        drop(work);
        until("stopped", stopped);
    }
}

#[test]
fn a_flood_of_questions_while_a_node_renews() {
    let node = start(holder(), &[]);
    let guard = node.guard(0).unwrap();
    node.tell(0, Say::Ping(60_000)).unwrap();
    until("held", || guard.permit(MS).is_ok());
    let questions = (0..10_000).filter(|_| guard.permit(MS).is_ok()).count();
    assert_eq!(questions, 10_000);
}
