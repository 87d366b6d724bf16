//! What a question to the guard costs, beside other ways to publish a deadline.
//!
//! `cargo bench --bench guard`. Each candidate answers the same question: is there a term, and does the clock
//! (`CLOCK_BOOTTIME`, the same for all) say that enough of it is left? One or two threads ask; with
//! `renewed`, another one puts the deadline off every 100 microseconds. A figure is the time for one
//! question of one thread. `clock` is the reading of the clock alone.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use tenure::node::Guard;
use tenure::node::clock::{BootClock, BootInstant};
use tokio::sync::watch;

const NEEDED: Duration = Duration::from_millis(5);
const EPOCH: u64 = 7;
const RENEW_EVERY: Duration = Duration::from_micros(100);

fn a_deadline() -> BootInstant {
    BootInstant::now().saturating_add(Duration::from_secs(3600))
}

fn is_left(deadline: BootInstant) -> bool {
    deadline.saturating_duration_since(BootInstant::now()) >= NEEDED
}

/// One way to publish a term: how to ask, and how to renew.
struct Candidate {
    name: &'static str,
    ask: Arc<dyn Fn(u64) -> Duration + Send + Sync>,
    renew: Arc<dyn Fn() + Send + Sync>,
}

/// The loop is inside what is called through the pointer, so that the call costs nothing per question.
fn candidate(
    name: &'static str,
    ask: impl Fn() -> bool + Send + Sync + 'static,
    renew: impl Fn() + Send + Sync + 'static,
) -> Candidate {
    let ask = move |times| {
        let begun = Instant::now();
        for _ in 0..times {
            assert!(black_box(ask()));
        }
        begun.elapsed()
    };
    Candidate { name, ask: Arc::new(ask), renew: Arc::new(renew) }
}

fn candidates() -> Vec<Candidate> {
    let guard = Arc::new(Guard::new(BootClock));
    guard.open(EPOCH, a_deadline()).unwrap();
    let lock = Arc::new(RwLock::new(Some((EPOCH, a_deadline()))));
    let swap = Arc::new(ArcSwapOption::from_pointee((EPOCH, a_deadline())));
    let (sender, receiver) = watch::channel(Some((EPOCH, a_deadline())));
    vec![
        candidate("clock", || BootInstant::now() > BootInstant::from_nanos(0), || ()),
        candidate(
            "permit",
            {
                let guard = Arc::clone(&guard);
                move || guard.permit(NEEDED).is_ok_and(|permit| permit.epoch() == EPOCH)
            },
            move || {
                let _ = guard.extend(EPOCH, a_deadline());
            },
        ),
        candidate(
            "rwlock",
            {
                let lock = Arc::clone(&lock);
                move || lock.read().unwrap().is_some_and(|(_, deadline)| is_left(deadline))
            },
            move || *lock.write().unwrap() = Some((EPOCH, a_deadline())),
        ),
        candidate(
            "arc_swap",
            {
                let swap = Arc::clone(&swap);
                move || swap.load().as_ref().is_some_and(|term| is_left(term.1))
            },
            move || swap.store(Some(Arc::new((EPOCH, a_deadline())))),
        ),
        candidate(
            "watch",
            move || receiver.borrow().is_some_and(|(_, deadline)| is_left(deadline)),
            move || {
                sender.send_replace(Some((EPOCH, a_deadline())));
            },
        ),
    ]
}

/// The time that the slowest of the threads took for so many questions each.
fn ask_at_once(candidate: &Candidate, threads: usize, times: u64) -> Duration {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    (candidate.ask)(times)
                })
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, threads: usize) {
    for candidate in candidates() {
        group.bench_function(candidate.name, |bencher| {
            bencher.iter_custom(|times| ask_at_once(&candidate, threads, times));
        });
    }
}

fn measure_renewed(group: &mut BenchmarkGroup<'_, WallTime>, threads: usize) {
    for candidate in candidates() {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    (candidate.renew)();
                    std::thread::sleep(RENEW_EVERY);
                }
            });
            group.bench_function(candidate.name, |bencher| {
                bencher.iter_custom(|times| ask_at_once(&candidate, threads, times));
            });
            is_over.store(true, Ordering::Relaxed);
        });
    }
}

fn guard(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("guard/{threads}"));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        measure(&mut group, threads);
        group.finish();
        let mut group = criterion.benchmark_group(format!("guard/{threads}/renewed"));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        measure_renewed(&mut group, threads);
        group.finish();
    }
}

criterion_group!(benches, guard);
criterion_main!(benches);
