//! The replicated table is linearizable: clients' histories, in real time and with unknown outcomes, in simulation.
//!
//! A write is answered with its place in the table's history, so the table is a register of one operation:
//! append, which returns the place. stateright's tester looks for an order of all appends that respects who
//! was answered before who asked, and in which each got the place that it was told. A write of which nobody
//! heard again may have been appended at any time or never.
//! `tests/cluster.rs` judges the histories of real processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};
use tenure::lease::safeguards::Safeguards;
use tenure::lease::timing::Timing;
use tenure::sim::lease::Cluster;

/// The history of a table, by its length: an append returns its place.
#[derive(Clone, Debug, Default)]
struct Appended(u64);

impl SequentialSpec for Appended {
    type Op = Write;
    type Ret = u64;

    fn invoke(&mut self, _: &Write) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A write: its client, the client's life, its number.
type Write = (u64, u64, u64);

/// What clients saw, in the order of the simulation's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Asked(Write),
    Answered(Write, u64),
}

fn write_of(request: &Value) -> Write {
    let number = |value: &Value| value.as_u64().expect("a number");
    (number(&request["client"]), number(&request["incarnation"]), number(&request["n"]))
}

/// What the clients' traces say.
fn history(paths: &[impl AsRef<Path>]) -> Vec<Seen> {
    let mut seen = BTreeSet::new();
    let mut known = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(path).expect("a trace");
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let Some(time) = line["sim"].as_u64() else { continue };
            // What was answered comes first: the next write is asked for in the same step.
            let applied = &line["in"]["deliver"]["msg"]["Applied"];
            if applied.is_object() {
                let (write, seq) = (write_of(&applied["request"]), applied["seq"].as_u64());
                if known.contains(&(write, false)) && known.insert((write, true)) {
                    seen.insert((time, 0, Seen::Answered(write, seq.expect("a place"))));
                }
            }
            for send in line["sends"].as_array().into_iter().flatten() {
                let apply = &send["msg"]["Apply"];
                if apply.is_object() && known.insert((write_of(&apply["request"]), false)) {
                    seen.insert((time, 1, Seen::Asked(write_of(&apply["request"]))));
                }
            }
        }
    }
    seen.into_iter().map(|(_, _, seen)| seen).collect()
}

/// How many writes were answered, if the history is linearizable.
fn judge(history: &[Seen]) -> Option<usize> {
    let mut tester = LinearizabilityTester::new(Appended::default());
    let mut answered = 0;
    for &seen in history {
        // A life of a client has one write under way at a time; the last one may never be answered.
        let told = match seen {
            Seen::Asked(write) => tester.on_invoke((write.0, write.1), write).map(|_| ()),
            Seen::Answered(write, seq) => tester.on_return((write.0, write.1), seq).map(|_| ()),
        };
        told.expect("asked once, answered once");
        answered += usize::from(matches!(seen, Seen::Answered(..)));
    }
    tester.is_consistent().then_some(answered)
}

/// Three clients, short periods, clocks that may be off by 1 %, and the smallest lease that is safe with them.
fn tight() -> Cluster {
    let ms = Duration::from_millis;
    let mut timing = Timing {
        lease: ms(10_000),
        give_up: ms(1000),
        renew: ms(400),
        retry: ms(200),
        poll: ms(200),
        jitter: ms(50),
        hook: ms(100),
        clock_error_ppm: 10_000,
    };
    timing.lease = timing.smallest_lease().expect("there is one");
    let (clients, write_every, operate_every) = (3, ms(150), ms(15_000));
    let has_work = false;
    Cluster { clients, timing, write_every, operate_every, has_work, ..Cluster::default() }
}

/// What the clients saw of a run from this seed.
fn one(cluster: Cluster, seed: u64) -> Vec<Seen> {
    const LENGTH: Duration = Duration::from_secs(30);
    let folder = tempfile::tempdir().expect("a folder");
    let plan = cluster.swarm(seed, LENGTH);
    cluster.run(seed, plan, LENGTH, folder.path()).expect("traces can be written");
    let clients = usize::from(cluster.client(0))..;
    history(&cluster.traces(folder.path())[clients])
}

/// A node crashed, and was still down when the end of its stop hook was due: the simulator counted it nevertheless.
const SEEDS_OF_FAULTS: [u64; 2] = [248, 286];

#[test]
fn what_clients_of_a_simulated_table_see_is_linearizable() {
    let (mut answered, mut unknown, mut crossing) = (0, 0, 0);
    // With work, processes are killed besides.
    let seeds = (0..25).chain(SEEDS_OF_FAULTS).map(|seed| (seed, false));
    for (seed, has_work) in seeds.chain((0..10).map(|seed| (seed, true))) {
        let history = one(Cluster { has_work, ..tight() }, seed);
        let asked = history.iter().filter(|seen| matches!(seen, Seen::Asked(_))).count();
        let count = judge(&history).unwrap_or_else(|| panic!("seed {seed}: {history:?}"));
        answered += count;
        unknown += asked - count;
        let mut open = BTreeMap::new();
        for seen in history {
            match seen {
                Seen::Asked(write) => {
                    crossing += usize::from(open.insert(write.0, write).is_none() && open.len() > 1)
                }
                Seen::Answered(write, _) => {
                    crossing += usize::from(open.remove(&write.0).is_none())
                }
            }
        }
    }
    println!("{answered} writes answered, {unknown} of unknown outcome, {crossing} side by side");
    assert!(answered > 1000 && unknown > 0 && crossing > 100);
}

/// Each of these lets clients see a history that no table has: in these seeds, and more rarely in others.
#[test]
fn a_table_without_its_rules_is_not() {
    for (rule, seeds) in [
        (Safeguards::L_22_STORE_CHECKS_VERSION, 0..10),
        (Safeguards::L_28_RESOURCE_FENCES, 190..200),
        (Safeguards::L_41_IN_SYNC_SET, 180..190),
    ] {
        let cluster = Cluster { safeguards: Safeguards::except(rule), ..tight() };
        let found = seeds.clone().find(|&seed| judge(&one(cluster, seed)).is_none());
        println!("{}: seed {found:?}", rule.id());
        assert!(found.is_some(), "{} is not missed in the seeds {seeds:?}", rule.id());
    }
}

/// The tester tells what it must: an answer that is out of order in real time, a place twice, a place left out.
#[test]
fn a_history_that_is_wrong_is_told() {
    let [a, b] = [(4, 1, 1), (5, 1, 1)];
    use Seen::{Answered, Asked};
    assert_eq!(judge(&[Asked(a), Asked(b), Answered(a, 2), Answered(b, 1)]), Some(2));
    assert_eq!(judge(&[Asked(a), Answered(a, 2), Asked(b), Answered(b, 1)]), None);
    assert_eq!(judge(&[Asked(a), Asked(b), Answered(a, 1), Answered(b, 1)]), None);
    assert_eq!(judge(&[Asked(a), Answered(a, 2)]), None);
    assert_eq!(judge(&[Asked(a), Asked(b), Answered(b, 2)]), Some(1));
}
