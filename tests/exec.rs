//! `tenure lease exec` over real processes: a command runs only while its host holds the lease, whatever is done to
//! that host's process.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "../src/cli/demo/meter.rs"]
mod meter;
mod processes;

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meter::Meter;
use processes::{Cluster, is_running, until};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_command_runs_under_one_host_at_a_time_and_its_exit_code_passes_through() {
    let mut cluster = Cluster::new();
    let a = cluster.exec("a", "exec sleep 600");
    let (first, pid) = cluster.await_start(1);
    let b = cluster.exec("b", "sleep 0.3; exit 7");
    std::thread::sleep(Duration::from_millis(1000));
    cluster.await_in_sync();
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
    std::thread::sleep(Duration::from_millis(500));
    cluster.await_in_sync();
    let meter = Meter::start();
    let killed = Instant::now();
    cluster.signal(a, Signal::KILL);
    until("the command has ended", || !is_running(pid));
    // S after the end of the warden's input.
    let took = killed.elapsed();
    let withheld = meter.lost();
    assert!(took < Duration::from_millis(1000 + 300) + withheld, "{took:?} {withheld:?}");
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
    cluster.await_in_sync();
    let meter = Meter::start();
    let stopped = Instant::now();
    cluster.signal(a, Signal::STOP);
    until("the command has ended", || !is_running(pid));
    // G and S, from the last renewal.
    let took = stopped.elapsed();
    let withheld = meter.lost();
    assert!(took < Duration::from_millis(1500 + 1000 + 300) + withheld, "{took:?} {withheld:?}");
    let (second, _) = cluster.await_start(2);
    assert!(second > first);
    cluster.signal(a, Signal::CONT);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(cluster.started().len(), 2, "when it goes on, it is a watcher");
}

/// Says `TWO` if the process runs whose id is in `server`.
const WATCH: &str =
    "grep -q '^State:.[^ZX]' /proc/$(cat server)/status 2>/dev/null && echo TWO 0 >> log";

/// When memory is short, the kernel kills one process, and it may be the warden. That takes its child along, and no more.
//= SPEC GUARD-28 test
#[test]
fn a_warden_that_is_killed_costs_the_term_and_not_the_order() {
    let mut cluster = Cluster::new();
    let a = cluster.exec("a", "sleep 600 & echo $! > server; wait");
    let (first, _) = cluster.await_start(1);
    let server = server(&cluster);
    cluster.exec("b", &format!("{WATCH}; exec sleep 600"));
    std::thread::sleep(Duration::from_millis(500));
    cluster.await_in_sync();
    let node = Pid::from_child(&cluster.children[a]).as_raw_pid();
    let warden = *children(node).first().expect("a warden");
    kill_process(Pid::from_raw(warden).unwrap(), Signal::KILL).unwrap();
    assert!(cluster.await_start(2).0 > first);
    assert!(!is_running(server));
    assert_eq!(cluster.code(a), Some(128 + 9), "what the warden's end did to the command");
}

//= SPEC GUARD-28 test
#[test]
fn what_a_command_has_left_in_its_session_ends_before_the_lease_is_given_back() {
    let mut cluster = Cluster::new();
    // With job control, each job is a group of its own.
    let a = cluster.exec(
        "a",
        "exec bash -c 'set -m; sleep 600 & echo $! > server; until [ -e go ]; do sleep 0.05; done; exit 3'",
    );
    let (first, _) = cluster.await_start(1);
    let server = server(&cluster);
    cluster.exec("b", &format!("{WATCH}; exec sleep 600"));
    std::thread::sleep(Duration::from_millis(500));
    cluster.await_in_sync();
    std::fs::write(cluster.path("go"), "").unwrap();
    assert_eq!(cluster.code(a), Some(3));
    assert!(!is_running(server));
    assert!(cluster.await_start(2).0 > first);
}

fn server(cluster: &Cluster) -> i32 {
    let read = || std::fs::read_to_string(cluster.path("server")).ok()?.trim().parse().ok();
    until("the server starts", || read().is_some());
    read().unwrap()
}

/// The node stands still, so it does not see that the term is over: its warden does.
//= SPEC GUARD-30 test
#[test]
fn a_term_whose_command_was_ended_gets_no_other_command() {
    let mut cluster = Cluster::new();
    let mut command = cluster.tenure();
    command.env("RUST_LOG", "info").stderr(std::fs::File::create(cluster.path("said")).unwrap());
    command.args([
        "lease",
        "exec",
        "--config",
        "cluster.toml",
        "--id",
        "a",
        "--faults",
        "--",
        "sh",
    ]);
    command.args(["-c", "echo \"$TENURE_EPOCH $$\" >> log; exec sleep 600"]);
    cluster.children.push(command.spawn().unwrap());
    let (first, pid) = cluster.await_start(1);
    cluster.control("a", "{\"op\":\"pause\",\"ms\":4000}");
    until("the command has ended", || !is_running(pid));
    assert!(cluster.await_start(2).0 > first);
    let said = std::fs::read_to_string(cluster.path("said")).unwrap();
    let ended = said.lines().filter(|line| line.contains("the command has ended")).count();
    assert_eq!(ended, 1, "{said}");
}

//= SPEC GUARD-30 test
#[test]
fn a_warden_whose_term_is_over_begins_no_command() {
    let cluster = Cluster::new();
    let mut command = cluster.tenure();
    command.args(["warden", "--until", "1", "--grace", "1", "--", "true"]);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut warden = command.spawn().unwrap();
    let stdin = warden.stdin.take();
    let output = warden.wait_with_output().unwrap();
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the term has ended before the command could begin"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

/// The host as a whole: its node, the warden and the command. Nobody ends the command then, and when it goes on before
/// the others it acts. What it acts on knows a later epoch by then, and refuses.
#[test]
fn when_the_whole_host_was_stopped_its_late_effects_are_refused_by_their_epoch() {
    let mut cluster = Cluster::new();
    let (address, effects) = fenced();
    let (host, port) = (address.ip(), address.port());
    let act = format!(
        "trap '' TERM; while :; do exec 3<>/dev/tcp/{host}/{port}; echo $TENURE_EPOCH >&3; \
         read -r answer <&3; exec 3>&-; done"
    );
    let act = format!("exec 2>/dev/null bash -c \"{}\"", act.replace('$', "\\$"));
    let a = cluster.exec("a", &act);
    let (first, command) = cluster.await_start(1);
    until("it acts", || effects.lock().unwrap().contains(&(first, true)));
    // It has to be in sync by then, or it may not take over.
    cluster.exec("b", &act);
    std::thread::sleep(Duration::from_millis(500));
    cluster.await_in_sync();
    let node = Pid::from_child(&cluster.children[a]).as_raw_pid();
    let warden = *children(node).first().expect("a warden");
    assert!(children(warden).contains(&command), "the command is the warden's");
    let tell = |pid: i32, signal| kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    for pid in [node, warden, command] {
        tell(pid, Signal::STOP);
    }
    // `exec` would take the stopped command for one of two that run.
    let log = cluster.path("log");
    std::fs::write(&log, "").unwrap();
    until("another host has come to act", || {
        effects.lock().unwrap().iter().any(|&(epoch, taken)| epoch > first && taken)
    });
    effects.lock().unwrap().clear();
    tell(command, Signal::CONT);
    until("the first acts late", || {
        effects.lock().unwrap().iter().any(|&(epoch, _)| epoch == first)
    });
    tell(warden, Signal::CONT);
    until("its warden has ended it", || !is_running(command));
    tell(node, Signal::CONT);
    let effects = effects.lock().unwrap();
    assert!(effects.iter().all(|&(epoch, taken)| taken == (epoch > first)), "{effects:?}");
}

/// Epochs, each with whether its effect was taken.
type Effects = Arc<Mutex<Vec<(u64, bool)>>>;

/// Something that is acted on: it takes an effect whose epoch is not below the highest that it has seen. Gives its
/// address, and each effect with whether it was taken.
fn fenced() -> (std::net::SocketAddr, Effects) {
    use std::io::{BufRead as _, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let effects = Effects::default();
    let log = Arc::clone(&effects);
    std::thread::spawn(move || {
        let mut highest = 0;
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let mut line = String::new();
            // A command that is stopped half-way says nothing.
            if BufReader::new(&stream).read_line(&mut line).is_err() {
                continue;
            }
            let Ok(epoch) = line.trim().parse() else { continue };
            let is_taken = epoch >= highest;
            highest = highest.max(epoch);
            log.lock().unwrap().push((epoch, is_taken));
            let _ = stream.write_all(if is_taken { b"taken\n" } else { b"refused\n" });
        }
    });
    (address, effects)
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

//= SPEC GUARD-33 test
#[test]
fn what_cannot_run_says_so() {
    let cluster = Cluster::new();
    let path = cluster.path("cluster.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    writeln!(file, "[[work]]\nnode = \"b\"\nlease = \"job\"\nkill = \"b.pid\"").unwrap();
    for (args, text) in [
        (&["--id", "b"][..], "has [[work]] for the lease \"job\", which `tenure node` runs"),
        (&["--id", "x"], "not a node"),
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
