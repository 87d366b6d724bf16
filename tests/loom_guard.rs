//! The guard and the gate under loom: every order of the threads' operations, and every value that the
//! memory model lets a thread see.
//!
//! Each model runs over the real guard or gate, and again over a copy of it that has one fault; the model must
//! hold for the first and **must fail** for the second, or it would not show anything. The copy without a
//! fault must hold too, so that what fails is the fault and not the copy.
//!
//! ```sh
//! CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" \
//!   cargo test --no-default-features --release --test loom_guard
//! ```
//!
//! Bounds: two or three threads with one or two operations each. No bound on preemptions but where a
//! model says so, so the others are explored to their end. What loom cannot show: it takes `SeqCst` accesses for `AcqRel` (there is none
//! here), has no load buffering, and a `Relaxed` access is not as free as the memory model would let it be.

#![cfg(loom)]
#![allow(clippy::disallowed_methods, reason = "it says how long a model took")]

mod loom_models;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use loom_models::gate::{self, FaultyGate, SoundGate};
use loom_models::guard::{self, FaultyGuard, SoundGuard};
use loom_models::{GateFault, GuardFault, TermFault};

/// Explores a model to its end; says after how many executions it has failed, if it has.
fn explore(model: impl Fn() + Send + Sync + 'static) -> (u64, bool) {
    explore_within(None, model)
}

fn explore_within(
    preemptions: Option<usize>,
    model: impl Fn() + Send + Sync + 'static,
) -> (u64, bool) {
    let executions = std::sync::Arc::new(AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            model();
        });
    }));
    (executions.load(Ordering::Relaxed), outcome.is_ok())
}

#[track_caller]
fn holds(name: &str, model: impl Fn() + Send + Sync + 'static) {
    holds_within(name, None, model);
}

#[track_caller]
fn holds_within(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let begun = std::time::Instant::now();
    let (executions, is_sound) = explore_within(preemptions, model);
    println!("{name}: holds, {executions} executions, {:.2?}", begun.elapsed());
    assert!(is_sound, "{name} fails in execution {executions}");
    assert!(executions > 1, "{name}: nothing happens at the same time");
}

#[track_caller]
fn fails(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let (executions, is_sound) = explore(model);
    println!("{name}: fails in execution {executions}");
    assert!(!is_sound, "{name}: loom must reject this, and did not in {executions} executions");
}

/// One model of the guard: it holds, also for the copy, and fails for the copy with each of these faults.
macro_rules! guard_model {
    ($(#[$attribute:meta])* $name:ident: $($fault:ident),+) => {
        $(#[$attribute])*
        #[test]
        fn $name() {
            let name = stringify!($name);
            holds(name, || guard::$name(SoundGuard::new));
            holds(&format!("{name}, copy"), || {
                guard::$name(|clock| FaultyGuard::new(clock, GuardFault::None));
            });
            $(fails(&format!("{name}, {}", stringify!($fault)), || {
                guard::$name(|clock| FaultyGuard::new(clock, GuardFault::$fault));
            });)+
        }
    };
}

/// The same for the gate.
macro_rules! gate_model {
    ($(#[$attribute:meta])* $name:ident: $($fault:ident),+) => {
        $(#[$attribute])*
        #[test]
        fn $name() {
            let name = stringify!($name);
            holds(name, || gate::$name(SoundGate::new));
            holds(&format!("{name}, copy"), || gate::$name(|| FaultyGate::new(GateFault::None)));
            $(fails(&format!("{name}, {}", stringify!($fault)), || {
                gate::$name(|| FaultyGate::new(GateFault::$fault));
            });)+
        }
    };
}

guard_model! {
    //= SPEC GUARD-1 test
    torn_read: TwoWords
}

guard_model! {
    //= SPEC GUARD-2 test
    resurrection_of_a_revoked_lease: RenewByLoadAndStore, RenewIgnoresTheEnd
}

guard_model! {
    //= SPEC GUARD-2 test
    aba_across_epochs: RenewComparesTheDeadlineAlone
}

guard_model! {
    check_then_act: NoSecondCheck, NoFenceOfTheReader, NoFenceOfTheWriter
}

guard_model! {
    //= SPEC GUARD-5 test
    renewal_against_expiry_against_hand_over: ExpireComparesTheEpochAlone, EndByLoadAndStore
}

guard_model! {
    //= SPEC GUARD-5 test
    double_step_down: EndByLoadAndStore
}

guard_model! {
    end_before_the_beginning: EndOfAFutureTermIsForgotten
}

gate_model! {
    //= SPEC GUARD-4 test
    close_against_enter: CheckThenCount, LeaveRelaxed
}

/// Four threads' worth of operations: bounded, because without a bound it has 358,522 executions.
//= SPEC GUARD-4 test
#[test]
fn close_against_two_workers() {
    let name = "close_against_two_workers, at most 3 preemptions";
    holds_within(name, Some(3), || gate::close_against_two_workers(SoundGate::new));
    fails("close_against_two_workers, CheckThenCount", || {
        gate::close_against_two_workers(|| FaultyGate::new(GateFault::CheckThenCount));
    });
}

gate_model! {
    //= SPEC GUARD-4 test
    reopened_only_when_drained: OpenIgnoresTheCount
}

/// A model whose fault is a deadlock. loom's panic about that meets destructors that use loom, and so ends the
/// process: the faulty one runs in a process of its own.
macro_rules! wake_up_model {
    ($name:ident, $faulty:ident) => {
        #[test]
        fn $name() {
            let name = stringify!($name);
            holds(name, || gate::$name(SoundGate::new));
            holds(&format!("{name}, copy"), || gate::$name(|| FaultyGate::new(GateFault::None)));
            deadlocks(stringify!($faulty));
        }

        #[test]
        #[ignore = "must end in a deadlock: the test beside it runs it"]
        fn $faulty() {
            explore(|| gate::$name(|| FaultyGate::new(GateFault::LookBeforeTheLock)));
        }
    };
}

/// Runs an ignored test of this file in a process of its own, where loom must report a deadlock.
fn deadlocks(test: &str) {
    let program = std::env::current_exe().expect("this program has a path");
    let output = std::process::Command::new(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{test}: loom must reject this, and did not");
    assert!(said.contains("deadlock"), "{test} fails, but not by a deadlock:\n{said}");
    println!("{test}: a deadlock");
}

wake_up_model!(lost_wake_up, lost_wake_up_look_before_the_lock);
wake_up_model!(lost_wake_up_of_a_task, lost_wake_up_of_a_task_look_before_the_lock);

/// Guard and gate together: after the end of a term and the last admission, nothing of the term runs.
//= SPEC GUARD-4 test
#[test]
fn the_end_of_a_term_waits_for_its_work() {
    let name = "the_end_of_a_term_waits_for_its_work";
    holds(name, || guard::the_end_of_a_term_waits_for_its_work(TermFault::None));
    for fault in [TermFault::DoesNotWait, TermFault::WorksUnderAPermit] {
        fails(&format!("{name}, {fault:?}"), move || {
            guard::the_end_of_a_term_waits_for_its_work(fault)
        });
    }
}
