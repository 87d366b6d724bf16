//! What a cluster file lets `tenure node` do beside the election: it is begun in a term, and ended with it, whatever
//! is done to the node. Over real processes; the work is a process that has left its group, as servers do.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "../src/cli/demo/meter.rs"]
mod meter;
mod processes;

use std::io::Write as _;
use std::time::{Duration, Instant};

use meter::Meter;
use processes::{Cluster, is_running, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// Starts a process that outlives the command, and notes it as `Cluster::exec` does. It says `TWO` if another
/// one is still running.
const LEAD: &str = r#"
while read -r epoch pid; do grep -q '^State:.[^ZX]' /proc/$pid/status 2>/dev/null && echo TWO 0 >> log; done < log
setsid sh -c 'echo $$ > '$1'.pid.new; mv '$1'.pid.new '$1'.pid; exec sleep 600' >/dev/null 2>&1 &
until [ -s $1.pid ] && [ "$(cat $1.pid)" != "$(cat $1.old 2>/dev/null)" ]; do sleep 0.01; done
cp $1.pid $1.old
echo "$TENURE_EPOCH $(cat $1.pid)" >> log
"#;

/// Two hosts with the same work, whose end is this. The first one leads.
fn start(stop: &str) -> (Cluster, [usize; 2], (u64, i32)) {
    let mut cluster = Cluster::new();
    let path = cluster.path("cluster.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    for name in ["a", "b"] {
        let stop = stop.replace('%', name);
        let (lead, follow) = (["sh", "lead.sh", name], ["sh", "follow.sh", name]);
        writeln!(
            file,
            "[[work]]\nnode = \"{name}\"\nlease = \"job\"\nlead = {lead:?}\nfollow = {follow:?}\n{stop}"
        )
        .unwrap();
    }
    std::fs::write(cluster.path("lead.sh"), LEAD).unwrap();
    let follow = "echo \"$TENURE_EPOCH $TENURE_HOLDER\" > $1.follows";
    std::fs::write(cluster.path("follow.sh"), follow).unwrap();
    std::fs::write(cluster.path("log"), "").unwrap();
    let a = node(&mut cluster, "a");
    let first = cluster.await_start(1);
    let b = node(&mut cluster, "b");
    until("b follows a", || follows(&cluster, "b").is_some_and(|follows| follows.ends_with(" a")));
    cluster.await_in_sync();
    (cluster, [a, b], first)
}

fn node(cluster: &mut Cluster, id: &str) -> usize {
    let mut command = cluster.tenure();
    command.args(["node", "--config", "cluster.toml", "--id", id]);
    cluster.children.push(command.spawn().unwrap());
    cluster.children.len() - 1
}

fn follows(cluster: &Cluster, id: &str) -> Option<String> {
    let text = std::fs::read_to_string(cluster.path(&format!("{id}.follows"))).ok()?;
    Some(text.trim().to_owned())
}

const COMMAND: &str = "[[work.stop]]\ncommand = [\"sh\", \"-c\", \"kill -9 $(cat %.pid) 2>/dev/null; true\"]\n\
                       worst = \"900ms\"\n";
const KILL: &str = "kill = \"%.pid\"\n";
/// One that takes longer than it says it does.
const HANGS: &str =
    "kill = \"%.pid\"\n[[work.stop]]\ncommand = [\"sleep\", \"600\"]\nworst = \"900ms\"\n";

//= SPEC GUARD-19 test
#[test]
fn the_work_of_a_host_that_is_killed_ends_before_another_begins() {
    for stop in [COMMAND, KILL, HANGS] {
        let (mut cluster, [a, _], (first, pid)) = start(stop);
        let meter = Meter::start();
        let killed = Instant::now();
        cluster.signal(a, Signal::KILL);
        until("the work has ended", || !is_running(pid));
        let took = killed.elapsed();
        let withheld = meter.lost();
        assert!(took < Duration::from_millis(1000 + 300) + withheld, "{took:?} {withheld:?}");
        let (second, _) = cluster.await_start(2);
        assert!(second > first);
        // And back again, as one that follows.
        let _ = cluster.code(a);
        node(&mut cluster, "a");
        until("a follows b", || {
            follows(&cluster, "a").is_some_and(|follows| follows == format!("{second} b"))
        });
    }
}

//= SPEC GUARD-19 test
#[test]
fn the_work_of_a_host_that_is_stopped_ends_before_another_begins() {
    let (cluster, [a, _], (first, pid)) = start(KILL);
    let meter = Meter::start();
    let stopped = Instant::now();
    cluster.signal(a, Signal::STOP);
    until("the work has ended", || !is_running(pid));
    // G and S, from the last renewal.
    let took = stopped.elapsed();
    let withheld = meter.lost();
    assert!(took < Duration::from_millis(1500 + 1000 + 300) + withheld, "{took:?} {withheld:?}");
    assert!(cluster.await_start(2).0 > first);
    cluster.signal(a, Signal::CONT);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(cluster.started().len(), 2, "when it goes on, it is a watcher");
}

//= SPEC GUARD-19 test
#[test]
fn a_host_that_is_told_to_end_gives_the_lease_back_when_the_work_has_ended() {
    let (mut cluster, [a, _], (_, pid)) = start(KILL);
    let told = Instant::now();
    cluster.signal(a, Signal::TERM);
    assert_eq!(cluster.code(a), Some(0));
    assert!(!is_running(pid));
    cluster.await_start(2);
    assert!(told.elapsed() < Duration::from_millis(2900), "released, not run out");
}

/// The keeper of the work is a child of the node.
//= SPEC GUARD-19 test
#[test]
fn a_keeper_that_is_killed_costs_the_term_and_not_the_order() {
    let (cluster, [a, _], (first, pid)) = start(COMMAND);
    let parent = Pid::from_child(&cluster.children[a]).as_raw_pid();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let keeper: i32 = children.unwrap().trim().parse().expect("one child");
    kill_process(Pid::from_raw(keeper).unwrap(), Signal::KILL).unwrap();
    until("the work has ended", || !is_running(pid));
    // Whoever it is: nothing ran beside it.
    assert!(cluster.await_start(2).0 > first);
}

/// A host that has no descriptors left: it cannot begin the work, nor have it ended by a keeper. It goes on all the same,
/// and somebody who lets go of them sees it lead.
//= SPEC GUARD-31 test
#[test]
fn a_host_that_is_out_of_descriptors_gives_the_term_up_and_goes_on() {
    let (mut cluster, [a, b], (first, pid)) = start(KILL);
    let control = {
        let config = tenure::config::Config::load(cluster.path("cluster.toml")).unwrap();
        config.node("b").unwrap().control.unwrap()
    };
    let id = cluster.children[b].id();
    let descriptors = || std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    // As many as it has now, and a few connections.
    let limit = u64::try_from(descriptors()).unwrap() + 4;
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(Some(Pid::from_child(&cluster.children[b])), Resource::Nofile, limit).unwrap();
    let held: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(control).unwrap()).collect();
    cluster.signal(a, Signal::KILL);
    until("the work has ended", || !is_running(pid));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(cluster.children[b].try_wait().unwrap(), None, "it goes on");
    assert_eq!(cluster.started().len(), 1, "no keeper could be started");
    drop(held);
    assert!(cluster.await_start(2).0 > first);
}

//= SPEC GUARD-20 test
#[test]
fn what_an_earlier_life_has_left_behind_is_ended_before_a_host_contends() {
    let (mut cluster, [a, b], (_, pid)) = start(KILL);
    for host in [a, b] {
        cluster.signal(host, Signal::KILL);
        let _ = cluster.code(host);
    }
    until("the work has ended", || !is_running(pid));
    // Somebody starts it by hand, and the file says so.
    let mut left = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(cluster.path("b.pid"), left.id().to_string()).unwrap();
    node(&mut cluster, "b");
    assert!(!left.wait().unwrap().success(), "killed");
    cluster.await_start(2);
}

/// The node stands still after the work has failed to begin, so the term is there for a while yet.
//= SPEC GUARD-30 test
#[test]
fn a_lead_that_fails_is_run_once_in_a_term() {
    let mut cluster = Cluster::new();
    let path = cluster.path("cluster.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let lead = ["sh", "-c", "echo $TENURE_EPOCH >> led; sleep 0.3; exit 1"];
    writeln!(file, "[[work]]\nnode = \"a\"\nlease = \"job\"\nlead = {lead:?}\n{COMMAND}").unwrap();
    let mut command = cluster.tenure();
    command.args(["node", "--config", "cluster.toml", "--id", "a", "--faults"]);
    cluster.children.push(command.spawn().unwrap());
    let led = || {
        let text = std::fs::read_to_string(cluster.path("led")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>()
    };
    until("it leads", || led().len() == 1);
    cluster.control("a", "{\"op\":\"pause\",\"ms\":1200}");
    until("it leads again", || led().len() >= 3);
    let led = led();
    assert!(led.is_sorted_by(|one, next| one < next), "{led:?}");
}
