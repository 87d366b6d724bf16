//! Real nodes in network namespaces of their own, between which links break.
//!
//! `cargo test --test partitions -- --ignored --nocapture`, as root, with iproute2.
//!
//! 50 schedules of partitions are drawn from seeds that are printed, over IPv4 or IPv6: links that are down, routes
//! that lead nowhere, one-way and both ways, datagrams that are lost, doubled and late, and now and then a killed
//! process. All datagrams are sealed, as between hosts of a user. Each node writes its trace. A schedule passes if
//! `tenure trace check` accepts the traces, no two hosts were seen to accept writes or to lead at overlapping times, by
//! the one clock of the machine, epochs only grew, every datagram was sealed for the node that it went to, and in the end
//! all hosts have every write again.
//!
//! `TENURE_SEED=n` repeats the one schedule of that seed: the same faults at the same times; how the system
//! schedules the processes is not repeated. `TENURE_SCHEDULES=n` runs so many.

#![allow(
    clippy::disallowed_methods,
    reason = "the test stands outside of the cluster: it waits, and draws its own lots"
)]

#[path = "cluster"]
mod cluster {
    #![allow(dead_code, unreachable_pub, reason = "helpers of several tests")]

    pub mod monitor;
    #[path = "../regions/ports.rs"]
    pub mod ports;
    pub mod process;
    pub mod relay;
    pub mod watch;
    pub mod writers;
}
mod partitions {
    #![allow(unreachable_pub, reason = "helpers")]

    use super::cluster;

    pub mod keys;
    pub mod network;
    pub mod nodes;
    pub mod relay;
    pub mod schedule;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster::monitor::Monitor;
use cluster::process::{PATIENCE, soon};
use cluster::writers::out_of_order;
use partitions::keys::Keys;
use partitions::network::{Family, Lab, Network};
use partitions::nodes::{HOSTS, NAMES, Nodes, Onlookers, STORE, addresses, judge};
use partitions::relay::{Relays, Weather, epochs_fall};
use partitions::schedule::{Fault, Kind, Schedule, Target};
use tenure::lease::timing::Timing;

const SCHEDULES: u64 = 50;
/// How often it is tried to have two hosts with the lease: once is enough unless the machine stands still.
const TRIES: usize = 5;
/// How many clusters run at a time.
const SIDE_BY_SIDE: usize = 4;
const FAULTS: usize = 8;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const TIMING: Timing = Timing {
    lease: ms(1000),
    give_up: ms(600),
    renew: ms(200),
    retry: ms(100),
    poll: ms(150),
    jitter: ms(20),
    hook: ms(200),
    clock_error_ppm: 200,
};

/// The same with a holder that stays for long without the store: whatever starts slowly meanwhile, it still may write.
const PATIENT: Timing = Timing { lease: ms(4000), give_up: ms(3600), ..TIMING };

/// What came of one schedule.
#[derive(Debug, Default)]
struct Outcome {
    changes: usize,
    accepted: u64,
    steps: u64,
    acknowledged: usize,
    refused: u64,
    sealed: u64,
    lost: u64,
    doubled: u64,
    late: u64,
}

/// Faults that are under way on one cluster. Two may strike the same thing; it heals with the last of them.
struct Strikes<'a, 'n> {
    network: &'n Network,
    schedule: &'a Schedule,
    relays: &'a Relays,
    nodes: &'a mut Nodes<'n>,
    unplugged: [u32; NAMES.len()],
    holes: [[u32; NAMES.len()]; NAMES.len()],
    killed: [u32; NAMES.len()],
}

impl Strikes<'_, '_> {
    /// The directions in which this fault lets nothing through.
    fn ways(kind: &Kind, target: usize) -> Vec<(usize, usize)> {
        let all = || (0..NAMES.len()).flat_map(|from| (0..NAMES.len()).map(move |to| (from, to)));
        let ways = all().filter(|&(from, to)| match kind {
            Kind::OneWay(_, other) => (from, to) == (target, *other),
            Kind::Apart(_, other) => {
                (from, to) == (target, *other) || (from, to) == (*other, target)
            }
            Kind::Mute(_) => from == target,
            Kind::Deaf(_) => to == target,
            Kind::Split(group) => group.contains(&from) != group.contains(&to),
            Kind::Unplugged(_) | Kind::Rough { .. } | Kind::Killed(_) | Kind::Emptied(_) => false,
        });
        ways.filter(|(from, to)| from != to).collect()
    }

    /// Begins a fault, or ends it.
    fn strike(&mut self, kind: &Kind, target: usize, begins: bool) -> std::io::Result<()> {
        let counted = |count: &mut u32| {
            if begins {
                *count += 1;
                *count == 1
            } else {
                *count -= 1;
                *count == 0
            }
        };
        for (from, to) in Self::ways(kind, target) {
            if counted(&mut self.holes[from][to]) {
                self.network.blackhole(from, to, self.schedule.family, begins)?;
            }
        }
        match kind {
            Kind::Unplugged(_) if counted(&mut self.unplugged[target]) => {
                self.network.link(target, !begins)?;
            }
            Kind::Rough { loss, double, late_ms, .. } => {
                let rough = Weather { loss: *loss, double: *double, late_ms: *late_ms };
                self.relays.set(target, if begins { rough } else { Weather::default() });
            }
            Kind::Killed(_) | Kind::Emptied(_) if counted(&mut self.killed[target]) => {
                if begins {
                    self.nodes.kill(target);
                } else {
                    self.nodes.launch(target);
                }
                if begins && matches!(kind, Kind::Emptied(_)) {
                    self.nodes.empty(target)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a fault strikes now.
fn target_of(kind: &Kind, holder: Option<usize>) -> usize {
    let target = match kind {
        Kind::Unplugged(target)
        | Kind::OneWay(target, _)
        | Kind::Mute(target)
        | Kind::Deaf(target)
        | Kind::Apart(target, _)
        | Kind::Rough { target, .. }
        | Kind::Killed(target)
        | Kind::Emptied(target) => *target,
        Kind::Split(_) => return 0,
    };
    let node = match target {
        Target::Node(node) => node,
        Target::HolderOr(node) => holder.unwrap_or(node),
    };
    // The holder may be the very one from which it should be parted.
    match kind {
        Kind::OneWay(_, other) | Kind::Apart(_, other) if *other == node => (node + 1) % HOSTS,
        _ => node,
    }
}

/// Lets everything of a schedule happen at its time.
fn play(strikes: &mut Strikes<'_, '_>, onlookers: &Onlookers) -> std::io::Result<()> {
    let faults = &strikes.schedule.faults;
    let begun = Instant::now();
    let mut targets = vec![0; faults.len()];
    let mut moments: Vec<(Duration, usize, bool)> = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        moments.push((fault.at, index, true));
        moments.push((fault.at + fault.lasts, index, false));
    }
    moments.sort_unstable();
    for (at, index, begins) in moments {
        std::thread::sleep((begun + at).saturating_duration_since(Instant::now()));
        let kind = &faults[index].kind;
        if begins {
            targets[index] = target_of(kind, onlookers.holder());
        }
        strikes.strike(kind, targets[index], begins)?;
    }
    Ok(())
}

/// One schedule from its beginning to its verdict.
fn run(
    network: &Network,
    schedule: &Schedule,
    timing: &Timing,
    folder: &Path,
) -> Result<Outcome, String> {
    let text = |error: std::io::Error| error.to_string();
    let monitor = Arc::new(Monitor::default());
    let family = schedule.family;
    let (keys, nodes) = (Keys::make(folder), addresses(family));
    let relays = Relays::start(network, family, HOSTS, &nodes, &keys, schedule.seed, &monitor)
        .map_err(text)?;
    let mut nodes = Nodes::start(network, family, &relays, &keys, timing, folder);
    let onlookers = Onlookers::start(network, family, &monitor);
    if !soon(PATIENCE, || onlookers.is_settled()) {
        return Err(format!("not in order at the beginning: {}", onlookers.describe()));
    }
    let mut strikes = Strikes {
        network,
        schedule,
        relays: &relays,
        nodes: &mut nodes,
        unplugged: [0; NAMES.len()],
        holes: [[0; NAMES.len()]; NAMES.len()],
        killed: [0; NAMES.len()],
    };
    play(&mut strikes, &onlookers).map_err(text)?;
    let mut problems = Vec::new();
    if !soon(PATIENCE, || onlookers.is_settled()) {
        problems.push(format!("not in order when all was healed: {}", onlookers.describe()));
    }
    let writes = onlookers.stop();
    let traces = nodes.finish()?;
    let tally = relays.stop();
    let verdict = monitor.verdict();
    problems.extend(verdict.violations);
    problems.extend(tally.problems);
    problems.extend(epochs_fall(&tally.epochs));
    problems.extend(out_of_order(&writes));
    let steps = judge(&traces).map_err(|problem| problems.push(problem)).unwrap_or(0);
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    Ok(Outcome {
        changes: verdict.changes,
        accepted: verdict.probes,
        steps,
        acknowledged: writes.iter().filter(|write| write.is_acknowledged()).count(),
        refused: tally.refused,
        sealed: tally.sealed,
        lost: tally.lost,
        doubled: tally.doubled,
        late: tally.late,
    })
}

/// A place in memory: what is tested is the network.
fn folder(seed: u64) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    let prefix = format!("tenure-partitions-{seed}-");
    builder.prefix(&prefix);
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }.expect("a folder")
}

/// Against a store that forgets no rule is made. The holder is cut off, and the store, which others reach, has lost
/// everything: they take the lease at once, while the holder may still write. Were this not seen, nothing would be.
#[test]
#[ignore = "some seconds, and as root: namespaces"]
fn two_hosts_that_have_the_lease_at_once_are_seen() {
    let fault = |at, lasts, kind| Fault { at: ms(at), lasts: ms(lasts), kind };
    let schedule = |family| Schedule {
        seed: 0,
        family,
        faults: vec![
            fault(500, 4500, Kind::Unplugged(Target::HolderOr(0))),
            fault(501, 50, Kind::Emptied(Target::Node(STORE))),
        ],
    };
    let lab = Lab::open();
    let network = Network::build(&lab, 0, &NAMES).expect("a network");
    for family in [Family::V4, Family::V6] {
        let seen = (0..TRIES).find_map(|_| {
            let problem = run(&network, &schedule(family), &PATIENT, folder(0).path()).err()?;
            println!("{family:?}: {problem}");
            (problem.contains("acted under") || problem.contains("at hosts")).then_some(problem)
        });
        assert!(seen.is_some(), "two hosts had the lease at once, and nobody has seen it");
    }
    drop(network);
    assert_eq!(lab.close(), Vec::<String>::new(), "namespaces are left");
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
#[ignore = "about two minutes, and as root: 50 schedules of partitions between namespaces"]
fn no_schedule_of_partitions_breaks_a_property() {
    let lab = Lab::open();
    let seeds: Vec<u64> = match number("TENURE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = rand::random_range(0..1 << 40);
            (first..first + number("TENURE_SCHEDULES").unwrap_or(SCHEDULES)).collect()
        }
    };
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let (outcomes, failures) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..SIDE_BY_SIDE.min(seeds.len()) {
            let (lab, seeds, next) = (&lab, &seeds, &next);
            let (outcomes, failures) = (&outcomes, &failures);
            scope.spawn(move || {
                let mut network = None;
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let place = network.get_or_insert_with(|| {
                        Network::build(lab, number, &NAMES).expect("a network")
                    });
                    let folder = folder(seed);
                    let schedule = Schedule::draw(seed, NAMES.len(), FAULTS, TIMING.lease);
                    let ran = AssertUnwindSafe(|| run(place, &schedule, &TIMING, folder.path()));
                    let ran = catch_unwind(ran).unwrap_or_else(|_| Err("it panicked".to_owned()));
                    match ran {
                        Ok(outcome) => {
                            println!("TENURE_SEED={seed}: {outcome:?}");
                            outcomes.lock().unwrap().push(outcome);
                        }
                        Err(problem) => {
                            let kept = folder.keep();
                            println!(
                                "TENURE_SEED={seed}: {problem}\n{schedule:#?}\nkept in {kept:?}"
                            );
                            failures.lock().unwrap().push(seed);
                            // What has failed in the midst of a fault has left it there.
                            break;
                        }
                    }
                }
            });
        }
    });
    let left = lab.close();
    assert!(left.is_empty(), "namespaces are left: {left:?}");
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "repeat them with TENURE_SEED={failures:?}, one at a time");
    let outcomes = outcomes.into_inner().unwrap();
    assert_eq!(outcomes.len(), seeds.len());
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} schedules in {:.0} s: {} changes of holder, {} accepted writes seen, {} acknowledged to the writer, {} \
         steps taken again; datagrams sealed {}, into nowhere {}, lost {}, doubled {}, late {}",
        outcomes.len(),
        begun.elapsed().as_secs_f64(),
        sum(|it| it.changes as u64),
        sum(|it| it.accepted),
        sum(|it| it.acknowledged as u64),
        sum(|it| it.steps),
        sum(|it| it.sealed),
        sum(|it| it.refused),
        sum(|it| it.lost),
        sum(|it| it.doubled),
        sum(|it| it.late),
    );
    assert!(outcomes.iter().all(|it| it.acknowledged > 0 && it.accepted > 0), "nothing written");
    assert!(outcomes.iter().all(|it| it.sealed > 0), "nothing sealed");
    if seeds.len() as u64 == SCHEDULES {
        // Otherwise nothing has been cut off.
        let enough = sum(|it| it.changes as u64) >= SCHEDULES && sum(|it| it.refused) > 1000;
        assert!(enough && sum(|it| it.lost) > 0 && sum(|it| it.doubled) > 0, "{outcomes:?}");
    }
}
