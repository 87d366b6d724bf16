//! Models of the gate. What the work touches is a cell that loom watches: two at it at once, or one after
//! the other without anything that orders them, is a failure.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use tenure::gate::WriteGate;

use super::GateFault;

/// What the models ask of a gate.
pub trait Gate: Send + Sync + 'static {
    fn open(&self, epoch: u64) -> bool;
    /// Runs the work inside, if it is admitted.
    fn work(&self, epoch: u64, work: impl FnOnce());
    fn close(&self, epoch: u64);
    fn wait(&self, epoch: u64);
    fn wait_as_a_task(&self, epoch: u64);
}

/// The gate itself.
pub struct SoundGate(WriteGate);

impl SoundGate {
    pub fn new() -> Self {
        Self(WriteGate::new())
    }
}

impl Gate for SoundGate {
    fn open(&self, epoch: u64) -> bool {
        self.0.open(epoch).is_ok()
    }

    fn work(&self, epoch: u64, work: impl FnOnce()) {
        if let Ok(_admission) = self.0.enter(epoch) {
            work();
        }
    }

    fn close(&self, epoch: u64) {
        self.0.close(epoch);
    }

    fn wait(&self, epoch: u64) {
        self.0.wait_closed(epoch);
    }

    fn wait_as_a_task(&self, epoch: u64) {
        loom::future::block_on(self.0.closed(epoch));
    }
}

/// A copy of the gate that may have a fault.
pub struct FaultyGate {
    word: AtomicU64,
    waiters: Mutex<Vec<Waker>>,
    drained: Condvar,
    fault: GateFault,
}

const SHIFT: u32 = 40;
const CLOSED: u64 = 1 << 39;
const COUNT: u64 = CLOSED - 1;

impl FaultyGate {
    pub fn new(fault: GateFault) -> Self {
        let (waiters, drained) = (Mutex::new(Vec::new()), Condvar::new());
        Self { word: AtomicU64::new(CLOSED), waiters, drained, fault }
    }

    fn has(&self, fault: GateFault) -> bool {
        self.fault == fault
    }

    fn enter(&self, epoch: u64) -> bool {
        let is_open = |word: u64| word >> SHIFT == epoch && word & CLOSED == 0;
        if self.has(GateFault::CheckThenCount) {
            let admitted = is_open(self.word.load(Ordering::Acquire));
            if admitted {
                self.word.fetch_add(1, Ordering::AcqRel);
            }
            return admitted;
        }
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                is_open(word).then_some(word + 1)
            })
            .is_ok()
    }

    fn leave(&self) {
        let order =
            if self.has(GateFault::LeaveRelaxed) { Ordering::Relaxed } else { Ordering::AcqRel };
        let before = self.word.fetch_sub(1, order);
        if before & CLOSED != 0 && before & COUNT == 1 {
            let mut waiters = self.waiters.lock().unwrap();
            for waiter in waiters.drain(..) {
                waiter.wake();
            }
            self.drained.notify_all();
        }
    }

    fn is_closed(&self, epoch: u64) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word >> SHIFT > epoch || word >> SHIFT == epoch && word & CLOSED != 0 && word & COUNT == 0
    }
}

impl Gate for FaultyGate {
    fn open(&self, epoch: u64) -> bool {
        let counts = !self.has(GateFault::OpenIgnoresTheCount);
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let is_drained = word & CLOSED != 0 && (word & COUNT == 0 || !counts);
                (word >> SHIFT < epoch && is_drained).then_some(epoch << SHIFT | word & COUNT)
            })
            .is_ok()
    }

    fn work(&self, epoch: u64, work: impl FnOnce()) {
        if self.enter(epoch) {
            work();
            self.leave();
        }
    }

    fn close(&self, epoch: u64) {
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            (word >> SHIFT <= epoch).then_some(epoch << SHIFT | CLOSED | word & COUNT)
        });
    }

    fn wait(&self, epoch: u64) {
        if self.has(GateFault::LookBeforeTheLock) {
            while !self.is_closed(epoch) {
                drop(self.drained.wait(self.waiters.lock().unwrap()).unwrap());
            }
            return;
        }
        let mut waiters = self.waiters.lock().unwrap();
        while !self.is_closed(epoch) {
            waiters = self.drained.wait(waiters).unwrap();
        }
    }

    fn wait_as_a_task(&self, epoch: u64) {
        loom::future::block_on(FaultyClosed { gate: self, epoch });
    }
}

struct FaultyClosed<'a> {
    gate: &'a FaultyGate,
    epoch: u64,
}

impl Future for FaultyClosed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let looks_again = !self.gate.has(GateFault::LookBeforeTheLock);
        if !looks_again && self.gate.is_closed(self.epoch) {
            return Poll::Ready(());
        }
        let mut waiters = self.gate.waiters.lock().unwrap();
        if looks_again && self.gate.is_closed(self.epoch) {
            return Poll::Ready(());
        }
        waiters.push(context.waker().clone());
        Poll::Pending
    }
}

fn opened<G: Gate>(make: impl Fn() -> G) -> Arc<G> {
    let gate = Arc::new(make());
    assert!(gate.open(1));
    gate
}

fn worker<G: Gate>(gate: &Arc<G>, table: &Arc<UnsafeCell<u64>>) -> thread::JoinHandle<()> {
    let (gate, table) = (Arc::clone(gate), Arc::clone(table));
    thread::spawn(move || gate.work(1, || table.with_mut(|_| ())))
}

/// After the gate has closed, no admitted work is at the table, and all that it did there can be seen.
pub fn close_against_enter<G: Gate>(make: impl Fn() -> G) {
    let gate = opened(make);
    let table = Arc::new(UnsafeCell::new(0));
    let worker = worker(&gate, &table);
    gate.close(1);
    gate.wait(1);
    table.with_mut(|_| ());
    worker.join().unwrap();
}

/// The same with two who work, at tables of their own.
pub fn close_against_two_workers<G: Gate>(make: impl Fn() -> G) {
    let gate = opened(make);
    let tables = [Arc::new(UnsafeCell::new(0)), Arc::new(UnsafeCell::new(0))];
    let workers = tables.each_ref().map(|table| worker(&gate, table));
    gate.close(1);
    gate.wait(1);
    for table in &tables {
        table.with_mut(|_| ());
    }
    for worker in workers {
        worker.join().unwrap();
    }
}

/// The gate is opened for the next term only when nobody of the last one is inside.
pub fn reopened_only_when_drained<G: Gate>(make: impl Fn() -> G) {
    let gate = opened(make);
    let table = Arc::new(UnsafeCell::new(0));
    let worker = worker(&gate, &table);
    gate.close(1);
    if gate.open(2) {
        gate.work(2, || table.with_mut(|_| ()));
    }
    worker.join().unwrap();
}

/// Whoever waits for the last to leave is woken: loom calls it a deadlock if not.
pub fn lost_wake_up<G: Gate>(make: impl Fn() -> G) {
    let gate = opened(make);
    let worker = thread::spawn({
        let gate = Arc::clone(&gate);
        move || gate.work(1, || ())
    });
    gate.close(1);
    gate.wait(1);
    worker.join().unwrap();
}

/// The same for a task.
pub fn lost_wake_up_of_a_task<G: Gate>(make: impl Fn() -> G) {
    let gate = opened(make);
    let worker = thread::spawn({
        let gate = Arc::clone(&gate);
        move || gate.work(1, || ())
    });
    gate.close(1);
    gate.wait_as_a_task(1);
    worker.join().unwrap();
}
