//! `tenure lease exec` over real processes: a command runs only while its host holds the lease, whatever is done to
//! that host's process.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod processes;

use std::time::{Duration, Instant};

use processes::{Cluster, is_running, until};
use rustix::process::Signal;

#[test]
fn a_command_runs_under_one_host_at_a_time_and_its_exit_code_passes_through() {
    let mut cluster = Cluster::new();
    let a = cluster.exec("a", "exec sleep 600");
    let (first, pid) = cluster.await_start(1);
    let b = cluster.exec("b", "sleep 0.3; exit 7");
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(cluster.started().len(), 1, "b does not hold the lease");
    let told = Instant::now();
    cluster.signal(a, Signal::TERM);
    assert_eq!(cluster.code(a), Some(128 + 15), "what SIGTERM did to the command");
    assert!(!is_running(pid));
    let (second, _) = cluster.await_start(2);
    assert!(second > first);
    assert!(told.elapsed() < Duration::from_millis(2900), "released, not run out");
    assert_eq!(cluster.code(b), Some(7));
}

//= SPEC GUARD-15 test
#[test]
fn a_host_that_is_killed_takes_its_command_with_it() {
    let mut cluster = Cluster::new();
    // One that does not go when it is told to.
    let a = cluster.exec("a", "trap '' TERM; while :; do sleep 0.05; done");
    let (first, pid) = cluster.await_start(1);
    cluster.exec("b", "exec sleep 600");
    let killed = Instant::now();
    cluster.signal(a, Signal::KILL);
    until("the command has ended", || !is_running(pid));
    // S after the end of the warden's input.
    assert!(killed.elapsed() < Duration::from_millis(1000 + 300), "{:?}", killed.elapsed());
    assert!(cluster.await_start(2).0 > first);
}

//= SPEC GUARD-15 test
#[test]
fn a_host_that_is_stopped_loses_its_command_before_another_one_starts() {
    let mut cluster = Cluster::new();
    let a = cluster.exec("a", "trap '' TERM; while :; do sleep 0.05; done");
    let (first, pid) = cluster.await_start(1);
    cluster.exec("b", "exec sleep 600");
    std::thread::sleep(Duration::from_millis(500));
    let stopped = Instant::now();
    cluster.signal(a, Signal::STOP);
    until("the command has ended", || !is_running(pid));
    // G and S, from the last renewal.
    assert!(
        stopped.elapsed() < Duration::from_millis(1500 + 1000 + 300),
        "{:?}",
        stopped.elapsed()
    );
    let (second, _) = cluster.await_start(2);
    assert!(second > first);
    cluster.signal(a, Signal::CONT);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(cluster.started().len(), 2, "when it goes on, it is a watcher");
}

#[test]
fn what_cannot_run_says_so() {
    let cluster = Cluster::new();
    for (args, text) in [
        (&["--id", "x"][..], "not a node"),
        (&["--id", "s"], "no host"),
        (&["--id", "a", "--lease", "x"], "name one lease"),
    ] {
        let mut command = cluster.tenure();
        command.args(["lease", "exec", "--config", "cluster.toml"]).args(args).args(["--", "true"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(text), "{said}");
    }
}
