//! Models of the guard. Times are milliseconds.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use tenure::clock::{BootInstant, Clock};
use tenure::guard::{LeaseGuard, Permit};

use super::{GuardFault, TermFault};

/// A clock that a thread of the model moves.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    fn millis(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn move_to(&self, millis: u64) {
        self.0.store(millis, Ordering::Release);
    }
}

impl Clock for TestClock {
    fn now(&self) -> BootInstant {
        at(self.millis())
    }
}

fn at(millis: u64) -> BootInstant {
    BootInstant::from_nanos(millis * 1_000_000)
}

/// What the models ask of a guard.
pub trait Guard: Send + Sync + 'static {
    /// What goes with an effect.
    type Token: Copy;
    fn open(&self, epoch: u64, deadline: u64) -> bool;
    fn extend(&self, epoch: u64, deadline: u64) -> bool;
    fn revoke(&self, epoch: u64) -> bool;
    fn expire(&self) -> bool;
    fn permit(&self) -> Option<Self::Token>;
    fn confirm(&self, token: Self::Token) -> bool;
    /// Epoch and deadline.
    fn of(token: Self::Token) -> (u64, u64);
}

/// The guard itself.
pub struct SoundGuard(LeaseGuard<TestClock>);

impl SoundGuard {
    pub fn new(clock: TestClock) -> Self {
        Self(LeaseGuard::new(clock))
    }
}

impl Guard for SoundGuard {
    type Token = Permit;

    fn open(&self, epoch: u64, deadline: u64) -> bool {
        self.0.open(epoch, at(deadline)).is_ok()
    }

    fn extend(&self, epoch: u64, deadline: u64) -> bool {
        self.0.extend(epoch, at(deadline)).is_ok()
    }

    fn revoke(&self, epoch: u64) -> bool {
        self.0.revoke(epoch)
    }

    fn expire(&self) -> bool {
        self.0.expire().is_some()
    }

    fn permit(&self) -> Option<Permit> {
        self.0.permit(Duration::ZERO).ok()
    }

    fn confirm(&self, token: Permit) -> bool {
        self.0.confirm(token, Duration::ZERO).is_ok()
    }

    fn of(token: Permit) -> (u64, u64) {
        (token.epoch(), token.deadline().as_nanos() / 1_000_000)
    }
}

/// A copy of the guard, without its gate, that may have a fault.
pub struct FaultyGuard {
    word: AtomicU64,
    /// The deadline, if it is a word of its own.
    second: AtomicU64,
    clock: TestClock,
    fault: GuardFault,
}

const BITS: u32 = 40;

fn pack(epoch: u64, deadline: u64) -> u64 {
    epoch << BITS | deadline
}

fn unpack(word: u64) -> (u64, u64) {
    (word >> BITS, word & ((1 << BITS) - 1))
}

impl FaultyGuard {
    pub fn new(clock: TestClock, fault: GuardFault) -> Self {
        Self { word: AtomicU64::new(0), second: AtomicU64::new(0), clock, fault }
    }

    fn has(&self, fault: GuardFault) -> bool {
        self.fault == fault
    }

    fn look(&self) -> (u64, u64) {
        let (epoch, deadline) = unpack(self.word.load(Ordering::Acquire));
        let second = self.has(GuardFault::TwoWords).then(|| self.second.load(Ordering::Acquire));
        (epoch, second.unwrap_or(deadline))
    }

    fn change(&self, to: impl Fn(u64, u64) -> Option<(u64, u64)>) -> Result<u64, u64> {
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let (epoch, deadline) = unpack(word);
            to(epoch, deadline).map(|(epoch, deadline)| pack(epoch, deadline))
        })
    }
}

impl Guard for FaultyGuard {
    type Token = (u64, u64);

    fn open(&self, epoch: u64, deadline: u64) -> bool {
        let opened = self.change(|now, _| (now < epoch).then_some((epoch, deadline))).is_ok();
        if opened && self.has(GuardFault::TwoWords) {
            self.second.swap(deadline, Ordering::AcqRel);
        }
        opened
    }

    fn extend(&self, epoch: u64, deadline: u64) -> bool {
        if self.has(GuardFault::RenewByLoadAndStore) {
            let (now, running) = self.look();
            let is_running = now == epoch && running > 0;
            if is_running {
                self.word.swap(pack(epoch, deadline), Ordering::AcqRel);
            }
            return is_running;
        }
        let any_epoch = self.has(GuardFault::RenewComparesTheDeadlineAlone);
        let ended_too = self.has(GuardFault::RenewIgnoresTheEnd);
        self.change(|now, running| {
            let is_running = (now == epoch || any_epoch) && (running > 0 || ended_too);
            (is_running && deadline > running).then_some((now, deadline))
        })
        .is_ok()
    }

    fn revoke(&self, epoch: u64) -> bool {
        if self.has(GuardFault::EndByLoadAndStore) {
            let (now, running) = self.look();
            if now == epoch && running > 0 {
                self.word.swap(pack(epoch, 0), Ordering::AcqRel);
            }
            return now == epoch && running > 0;
        }
        if self.has(GuardFault::TwoWords) {
            self.second.swap(0, Ordering::AcqRel);
        }
        let not_yet_too = !self.has(GuardFault::EndOfAFutureTermIsForgotten);
        let before = self.change(|now, running| {
            let is_meant = now == epoch || now < epoch && not_yet_too;
            (is_meant && (now, running) != (epoch, 0)).then_some((epoch, 0))
        });
        if !self.has(GuardFault::NoFenceOfTheWriter) {
            fence(Ordering::Release);
        }
        before.is_ok_and(|before| unpack(before).1 > 0)
    }

    fn expire(&self) -> bool {
        let found = self.word.load(Ordering::Acquire);
        let (epoch, deadline) = unpack(found);
        if deadline == 0 || self.clock.millis() < deadline {
            return false;
        }
        if self.has(GuardFault::ExpireComparesTheEpochAlone) {
            return self.revoke(epoch);
        }
        let ended = pack(epoch, 0);
        // In these models one look is enough: a word that has changed is a renewal or an end.
        self.word.compare_exchange(found, ended, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn permit(&self) -> Option<(u64, u64)> {
        let (epoch, deadline) = self.look();
        (self.clock.millis() < deadline).then_some((epoch, deadline))
    }

    fn confirm(&self, token: (u64, u64)) -> bool {
        if self.has(GuardFault::NoSecondCheck) {
            return true;
        }
        if !self.has(GuardFault::NoFenceOfTheReader) {
            fence(Ordering::Acquire);
        }
        self.permit().is_some_and(|(epoch, _)| epoch == token.0)
    }

    fn of(token: (u64, u64)) -> (u64, u64) {
        token
    }
}

/// A reader sees one term or the other, never the epoch of one with the deadline of the other.
///
/// The writer is the thread that runs first: loom looks for other orders where a load meets an earlier
/// write, and can miss them where a write meets an earlier load with other loads in between.
pub fn torn_read<G: Guard>(make: impl Fn(TestClock) -> G) {
    let guard = Arc::new(make(TestClock::new()));
    assert!(guard.open(1, 10));
    let reader = thread::spawn({
        let guard = Arc::clone(&guard);
        move || {
            let seen = guard.permit().map(G::of);
            assert!(matches!(seen, None | Some((1, 10) | (2, 20))), "torn: {seen:?}");
        }
    });
    assert!(guard.revoke(1));
    assert!(guard.open(2, 20));
    reader.join().unwrap();
}

/// A renewal whose answer comes when the term is being given up does not bring it back.
pub fn resurrection_of_a_revoked_lease<G: Guard>(make: impl Fn(TestClock) -> G) {
    let guard = Arc::new(make(TestClock::new()));
    assert!(guard.open(1, 10));
    let renewer = thread::spawn({
        let guard = Arc::clone(&guard);
        move || guard.extend(1, 20)
    });
    assert!(guard.revoke(1), "it was running, renewed or not");
    assert!(guard.permit().is_none(), "permitted after the end");
    renewer.join().unwrap();
    assert!(guard.permit().is_none(), "the renewal has brought it back");
}

/// A late renewal of one term does not put off the deadline of the next.
pub fn aba_across_epochs<G: Guard>(make: impl Fn(TestClock) -> G) {
    let guard = Arc::new(make(TestClock::new()));
    assert!(guard.open(1, 10));
    let renewer = thread::spawn({
        let guard = Arc::clone(&guard);
        move || guard.extend(1, 90)
    });
    guard.revoke(1);
    assert!(guard.open(2, 20));
    renewer.join().unwrap();
    assert_eq!(guard.permit().map(G::of), Some((2, 20)), "the deadline of another term");
}

/// What is read between a permit and its confirmation was read before the next owner changed it.
pub fn check_then_act<G: Guard>(make: impl Fn(TestClock) -> G) {
    let guard = Arc::new(make(TestClock::new()));
    let owner = Arc::new(AtomicU64::new(1));
    assert!(guard.open(1, 10));
    let reader = thread::spawn({
        let (guard, owner) = (Arc::clone(&guard), Arc::clone(&owner));
        move || {
            let Some(permit) = guard.permit() else { return };
            let read = owner.load(Ordering::Relaxed);
            if guard.confirm(permit) {
                assert_eq!(read, 1, "served the next owner's data under epoch 1");
            }
        }
    });
    guard.revoke(1);
    owner.store(2, Ordering::Relaxed);
    reader.join().unwrap();
}

/// The deadline thread, a renewal and a hand-over at once: the term ends for exactly one of those who end it,
/// and never for the deadline thread if it was renewed in time.
pub fn renewal_against_expiry_against_hand_over<G: Guard>(make: impl Fn(TestClock) -> G) {
    let clock = TestClock::new();
    let guard = Arc::new(make(clock.clone()));
    assert!(guard.open(1, 10));
    clock.move_to(15);
    let renewer = thread::spawn({
        let guard = Arc::clone(&guard);
        move || guard.extend(1, 30)
    });
    let deadline = thread::spawn({
        let guard = Arc::clone(&guard);
        move || guard.expire()
    });
    let handed_over = guard.revoke(1);
    let expired = deadline.join().unwrap();
    let renewed = renewer.join().unwrap();
    assert!(handed_over != expired, "stopped twice, or by nobody");
    assert!(!(renewed && expired), "a renewed term was ended before its deadline");
    assert!(guard.permit().is_none());
}

/// Two threads end one term: one of them stops the work.
pub fn double_step_down<G: Guard>(make: impl Fn(TestClock) -> G) {
    let guard = Arc::new(make(TestClock::new()));
    assert!(guard.open(1, 10));
    let other = thread::spawn({
        let guard = Arc::clone(&guard);
        move || guard.revoke(1)
    });
    let one = guard.revoke(1);
    let other = other.join().unwrap();
    assert!(one != other, "the hook runs {} times", u8::from(one) + u8::from(other));
}

/// A term that is ended while it is being published does not stay open.
pub fn end_before_the_beginning<G: Guard>(make: impl Fn(TestClock) -> G) {
    let guard = Arc::new(make(TestClock::new()));
    let publisher = thread::spawn({
        let guard = Arc::clone(&guard);
        move || guard.open(1, 10)
    });
    guard.revoke(1);
    publisher.join().unwrap();
    assert!(guard.permit().is_none(), "open after its end");
    assert!(!guard.extend(1, 20));
}

/// Guard and gate together, the real ones. What can be wrong is how they are used.
pub fn the_end_of_a_term_waits_for_its_work(fault: TermFault) {
    let guard = Arc::new(LeaseGuard::new(TestClock::new()));
    let table = Arc::new(loom::cell::UnsafeCell::new(0));
    guard.open(1, at(10)).unwrap();
    let worker = thread::spawn({
        let (guard, table) = (Arc::clone(&guard), Arc::clone(&table));
        move || {
            if fault == TermFault::WorksUnderAPermit {
                if guard.permit(Duration::ZERO).is_ok() {
                    table.with_mut(|_| ());
                }
            } else if let Ok(admission) = guard.enter(Duration::ZERO) {
                table.with_mut(|_| ());
                assert_eq!(admission.epoch(), 1);
            }
        }
    });
    guard.revoke(1);
    if fault != TermFault::DoesNotWait {
        guard.gate().wait_closed(1);
    }
    // loom fails here if the worker can be at the table now.
    table.with_mut(|_| ());
    assert!(guard.enter(Duration::ZERO).is_err());
    worker.join().unwrap();
}
