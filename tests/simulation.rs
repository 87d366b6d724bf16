//! Simulated clusters: what they do is accepted, and what goes wrong without a rule is seen.

use std::path::Path;
use std::time::Duration;

use tenure::lease::Member;
use tenure::lease::safeguards::Safeguards;
use tenure::lease::timing::Timing;
use tenure::sim::lease::Cluster;
use tenure::sim::{Duties, Plan};
use tenure::trace::check::{Options, Report, Source, Verdict, check};

const LENGTH: Duration = Duration::from_secs(60);

/// Short periods, clocks that may be off by 1 %, and the smallest lease that is safe with them.
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
    timing.validate().expect("it is safe");
    Cluster { timing, write_every: ms(400), operate_every: ms(15_000), ..Cluster::default() }
}

fn run(cluster: &Cluster, seed: u64, plan: Plan, folder: &Path) -> Report {
    cluster.run(seed, plan, LENGTH, folder).expect("the traces can be written");
    let sources: Vec<_> = cluster.traces(folder).into_iter().map(Source::File).collect();
    check::<Member>(&sources, Options::default())
}

fn swarm(cluster: &Cluster, seed: u64, folder: &Path) -> Report {
    run(cluster, seed, cluster.swarm(seed, LENGTH), folder)
}

/// The first of so many seeds at which something is wrong, and what.
fn caught(cluster: &Cluster, seeds: u64) -> Option<(u64, String)> {
    let folder = tempfile::tempdir().unwrap();
    (0..seeds).find_map(|seed| {
        let report = std::panic::catch_unwind(|| swarm(cluster, seed, folder.path()));
        match report {
            // An actor's own assertion has failed.
            Err(_) => Some((seed, "an assertion of an actor fails".to_owned())),
            Ok(report) => (report.verdict == Verdict::Rejected)
                .then(|| (seed, report.problem.expect("it says why").what)),
        }
    })
}

#[track_caller]
fn assert_accepted(report: &Report, seed: u64) {
    assert_eq!(report.verdict, Verdict::Accepted, "seed {seed}: {:?}", report.problem);
}

//= SPEC SIM-1 test
#[test]
fn one_seed_gives_the_same_traces_to_the_last_byte() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let cluster = tight();
    for (folder, seed) in folders.iter().zip([11, 11, 12]) {
        assert_accepted(&swarm(&cluster, seed, folder.path()), seed);
    }
    let read = |folder: &tempfile::TempDir| -> Vec<Vec<u8>> {
        cluster.traces(folder.path()).iter().map(|path| std::fs::read(path).unwrap()).collect()
    };
    assert!(read(&folders[0]) == read(&folders[1]), "the same seed");
    assert!(read(&folders[0]) != read(&folders[2]), "another seed");
}

//= SPEC SIM-2 test
#[test]
fn what_a_simulated_cluster_does_is_accepted_whatever_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = tight();
    let mut coverage = std::collections::BTreeMap::new();
    let mut undone = 0;
    for seed in 0..40 {
        let report = swarm(&cluster, seed, folder.path());
        assert_accepted(&report, seed);
        undone += report.undone;
        for (kind, count) in report.coverage {
            *coverage.entry(kind).or_insert(0) += count;
        }
    }
    for kind in [
        "crash",
        "fire Watch(A)",
        "deliver Conflict",
        "deliver Consent",
        "deliver Fenced",
        "own Stopped",
        "told StepDown",
        "told HandOver",
    ] {
        assert!(coverage.contains_key(kind), "never: {kind}; {coverage:?}");
    }
    assert!(undone > 0, "no crash has ever undone a step");
}

/// Without faults one host holds the lease for as long as nobody tells it to stop.
#[test]
fn without_faults_nobody_loses_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster { operate_every: Duration::from_secs(1_000_000), ..tight() };
    let report = run(&cluster, 5, Plan::none(cluster.nodes()), folder.path());
    assert_accepted(&report, 5);
    assert!(!report.coverage.contains_key("own Stopped"), "{:?}", report.coverage);
    assert!(report.coverage["deliver Written"] > 100);
}

//= SPEC SIM-3 test
#[test]
fn a_runtime_that_neglects_a_duty_is_caught() {
    let duties: [(&str, Duties); 6] = [
        ("saves_before_sends", Duties { saves_before_sends: false, ..Duties::ALL }),
        ("timers_first", Duties { timers_first: false, ..Duties::ALL }),
        ("clock_never_stops", Duties { clock_never_stops: false, ..Duties::ALL }),
        ("no_stale_timers", Duties { no_stale_timers: false, ..Duties::ALL }),
        ("new_incarnation", Duties { new_incarnation: false, ..Duties::ALL }),
        ("never_early", Duties { never_early: false, ..Duties::ALL }),
    ];
    for (name, duties) in duties {
        let found = caught(&Cluster { duties, ..tight() }, 20);
        println!("{name}: {found:?}");
        assert!(found.is_some(), "{name} is not caught within 20 seeds");
    }
}

fn without(rule: Safeguards) -> Cluster {
    let mut cluster = Cluster { safeguards: Safeguards::except(rule), ..tight() };
    if rule == Safeguards::L_2_HOOK_TIME_COUNTS {
        // Whoever forgets the hook, chooses the lease as if there were none.
        let hook = std::mem::take(&mut cluster.timing.hook);
        cluster.timing.lease = cluster.timing.smallest_lease().expect("there is one");
        cluster.timing.hook = hook;
    }
    cluster
}

/// Within how many seeds each of these rules is missed.
const QUICK: u64 = 20;

//= SPEC SIM-3 test
#[test]
fn a_rule_that_is_left_out_is_caught() {
    for rule in [
        Safeguards::L_1_DEADLINE_FROM_SEND,
        Safeguards::L_9_WATCH_RESTARTS,
        Safeguards::L_13_TIMER_PER_ATTEMPT,
        Safeguards::L_22_STORE_CHECKS_VERSION,
        Safeguards::L_25_TAKEOVER_RAISES_EPOCH,
        Safeguards::L_31_STOP_BEFORE_RELEASE,
        Safeguards::L_41_IN_SYNC_SET,
    ] {
        let found = caught(&without(rule), QUICK);
        println!("{}: {found:?}", rule.id());
        assert!(found.is_some(), "{} is not caught within {QUICK} seeds", rule.id());
    }
}

#[test]
#[ignore = "runs for minutes: every rule in turn, and it tells which ones a simulation does not see"]
fn every_rule_in_turn() {
    let mut missed = Vec::new();
    for rule in Safeguards::ALL.iter() {
        let found = caught(&without(rule), 100);
        println!("{}: {found:?}", rule.id());
        if found.is_none() {
            missed.push(rule.id());
        }
    }
    println!("not seen within 100 seeds: {}", missed.join(", "));
    let unseen = [
        // The codec refuses the unconditional write that an elector without them would send.
        "L-15", "L-16", "L-17",
        // Without them a term ends too soon, or late but before its deadline, or nobody leads: no step of
        // that is forbidden.
        "L-19", "L-20a", "L-20b", "L-38", "L-42",
        // Takes an answer that comes within one stop hook: rarer than these seeds.
        "L-33",
    ];
    missed.retain(|id| !unseen.contains(&id.as_str()));
    assert!(missed.is_empty(), "{missed:?}");
}
