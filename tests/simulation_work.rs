//! The work of simulated terms: what a process owes it is enough, and what goes wrong without a part of that is seen.

use std::path::Path;
use std::time::Duration;

use tenure::lease::Member;
use tenure::lease::safeguards::Safeguards;
use tenure::lease::timing::Timing;
use tenure::sim::lease::{Cluster, Ran};
use tenure::sim::leases::{Leases, Outcome};
use tenure::sim::{Duties, Fault, Kind, Plan};
use tenure::trace::check::{Options, Source, Verdict, check};

const LENGTH: Duration = Duration::from_secs(120);

/// Within how many seeds each of these duties is missed.
const QUICK: u64 = 20;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Short periods, an S of a second, clocks that may be off by 1 %, and the smallest lease that is safe with them.
fn timing() -> Timing {
    let mut timing = Timing {
        lease: ms(10_000),
        give_up: ms(1000),
        renew: ms(400),
        retry: ms(200),
        poll: ms(200),
        jitter: ms(50),
        hook: ms(1000),
        clock_error_ppm: 10_000,
    };
    timing.lease = timing.smallest_lease().expect("there is one");
    timing.validate().expect("it is safe");
    timing
}

fn working() -> Cluster {
    let (write_every, operate_every) = (ms(400), ms(15_000));
    Cluster { timing: timing(), write_every, operate_every, ..Cluster::default() }
}

/// G is long, and nobody tells a holder to stop: there is no reason to lose the lease.
fn patient() -> Cluster {
    let mut cluster = working();
    cluster.timing.give_up = ms(4000);
    cluster.timing.lease = cluster.timing.smallest_lease().expect("there is one");
    Cluster { operate_every: Duration::from_secs(1_000_000), ..cluster }
}

fn run(cluster: &Cluster, seed: u64, plan: Plan, folder: &Path) -> Ran {
    cluster.run(seed, plan, LENGTH, folder).expect("the traces can be written")
}

/// Nothing is wrong, neither with the work nor with the steps.
#[track_caller]
fn assert_clean(cluster: &Cluster, seed: u64, plan: Plan, folder: &Path) -> Ran {
    let ran = run(cluster, seed, plan, folder);
    assert_eq!(ran.problem, None, "seed {seed}");
    let sources: Vec<_> = cluster.traces(folder).into_iter().map(Source::File).collect();
    let report = check::<Member>(&sources, Options::default());
    assert_eq!(report.verdict, Verdict::Accepted, "seed {seed}: {:?}", report.problem);
    ran
}

/// This happens at one of the nodes after the other, for so long, and nothing else.
fn each(nodes: std::ops::Range<u16>, every_ms: u64, for_ms: u64, kind: Kind) -> Plan {
    let rounds = (0..).take_while(|round| round * every_ms + for_ms < LENGTH.as_millis() as u64);
    let of = |round: u64| {
        let node = nodes.start + (round % u64::from(nodes.end - nodes.start)) as u16;
        Fault { at_ms: round * every_ms, for_ms, node, kind }
    };
    Plan { faults: rounds.map(of).collect(), ..Plan::none(working().nodes()) }
}

#[test]
fn work_never_runs_beside_other_work_whatever_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = working();
    let mut terms = 0;
    for seed in 0..40 {
        terms += assert_clean(&cluster, seed, cluster.swarm(seed, LENGTH), folder.path()).terms;
    }
    println!("{terms} terms");
    assert!(terms > 400, "only {terms} terms");
}

//= SPEC SIM-1 test
#[test]
fn one_seed_gives_the_same_traces_and_the_same_work() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let cluster = working();
    let ran = [0, 1].map(|run| {
        let folder = folders[run].path();
        let ran = assert_clean(&cluster, 5, cluster.swarm(5, LENGTH), folder);
        let read = |path: &std::path::PathBuf| std::fs::read(path).unwrap();
        (ran, cluster.traces(folder).iter().map(read).collect::<Vec<_>>())
    });
    assert!(ran[0] == ran[1]);
}

/// As long as no work has to be killed or given up, a cluster does the same without it.
//= SPEC SIM-1 test
#[test]
fn work_changes_nothing_else() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let plan = each(0..working().nodes(), 3000, 2500, Kind::Isolate);
    let traces = [true, false].map(|has_work| {
        let folder = folders[usize::from(has_work)].path();
        let cluster = Cluster { has_work, ..working() };
        assert_clean(&cluster, 3, plan.clone(), folder);
        let read = |path: &std::path::PathBuf| std::fs::read(path).unwrap();
        cluster.traces(folder).iter().map(read).collect::<Vec<_>>()
    });
    assert!(traces[0] == traces[1]);
}

/// Each with the fault that the duty is there for, at one host after the other.
//= SPEC SIM-3 test
//= SPEC SIM-6 test
#[test]
fn a_process_that_owes_its_work_something_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = 0..working().hosts;
    for (rule, duties, plan) in [
        (
            "L-7",
            Duties { deadline_thread: false, ..Duties::ALL },
            each(hosts.clone(), 6000, 5000, Kind::Blocked),
        ),
        ("L-34", Duties { term_token: false, ..Duties::ALL }, Plan::none(working().nodes())),
        (
            "L-35",
            Duties { kill_switch: false, ..Duties::ALL },
            each(hosts.clone(), 6000, 5500, Kind::HookHangs),
        ),
        (
            "L-36",
            Duties { renewal_needs_life: false, ..Duties::ALL },
            each(hosts.clone(), 6000, 1, Kind::WorkDies),
        ),
    ] {
        let caught = |seed| {
            let cluster = Cluster { duties, ..working() };
            Some((seed, run(&cluster, seed, plan.clone(), folder.path()).problem?))
        };
        let found = (0..QUICK).find_map(caught);
        println!("{rule}: {found:?}");
        assert!(found.is_some(), "{rule} is not caught within {QUICK} seeds");
        for seed in 0..5 {
            assert_clean(&working(), seed, plan.clone(), folder.path());
        }
    }
}

/// The same in a swarm, in which all else goes wrong too.
//= SPEC SIM-3 test
#[test]
fn a_process_that_owes_its_work_something_is_caught_in_a_swarm() {
    let folder = tempfile::tempdir().unwrap();
    for (rule, duties) in [
        ("L-7", Duties { deadline_thread: false, ..Duties::ALL }),
        ("L-34", Duties { term_token: false, ..Duties::ALL }),
        ("L-35", Duties { kill_switch: false, ..Duties::ALL }),
        ("L-36", Duties { renewal_needs_life: false, ..Duties::ALL }),
    ] {
        let cluster = Cluster { duties, ..working() };
        let caught = |seed| {
            let plan = cluster.swarm(seed, LENGTH);
            Some((seed, run(&cluster, seed, plan, folder.path()).problem?))
        };
        let found = (0..QUICK).find_map(caught);
        println!("{rule}: {found:?}");
        assert!(found.is_some(), "{rule} is not caught within {QUICK} seeds");
    }
}

/// The worker of the only term dies: another term begins, and its work is alive. Without L-36 nobody works ever again.
#[test]
fn after_the_death_of_a_worker_somebody_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let dies = |node| Fault { at_ms: 20_000, for_ms: 1, node, kind: Kind::WorkDies };
    let cluster = patient();
    let plan = Plan { faults: (0..3).map(dies).collect(), ..Plan::none(cluster.nodes()) };
    for seed in 0..5 {
        let ran = assert_clean(&cluster, seed, plan.clone(), folder.path());
        assert_eq!((ran.terms, ran.has_work), (2, true), "seed {seed}");
        let duties = Duties { renewal_needs_life: false, ..Duties::ALL };
        let ran = run(&Cluster { duties, ..cluster }, seed, plan.clone(), folder.path());
        assert_eq!((ran.terms, ran.has_work), (1, false), "seed {seed}");
    }
}

/// The store answers every fifth request by an error. No step of theirs is forbidden: a term ends that need not, and
/// that is all.
//= SPEC SIM-3 test
#[test]
fn a_renewal_that_an_error_ends_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = working().hosts;
    let plan = each(store..store + 1, 200_000, 119_999, Kind::Errors(200));
    let duties = Duties { errors_are_transient: false, ..Duties::ALL };
    let ends =
        |seed| run(&Cluster { duties, ..patient() }, seed, plan.clone(), folder.path()).terms > 1;
    let found = (0..QUICK).find(|&seed| ends(seed));
    println!("L-37: {found:?}");
    assert!(found.is_some(), "L-37 is not seen within {QUICK} seeds");
    for seed in 0..5 {
        assert_eq!(assert_clean(&patient(), seed, plan.clone(), folder.path()).terms, 1);
    }
}

/// A foreign hand writes the record every second, and changes neither holder nor epoch. No trace has such a hand, so
/// only the number of terms is looked at.
//= SPEC SIM-3 test
#[test]
fn a_foreign_change_of_another_field_that_ends_a_term_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = working().hosts;
    let plan = each(store..store + 1, 1000, 1, Kind::Meddle);
    let terms = |rules: Safeguards, seed| {
        let cluster = Cluster { safeguards: rules, ..patient() };
        run(&cluster, seed, plan.clone(), folder.path()).terms
    };
    let rules = Safeguards::except(Safeguards::L_20B_FOREIGN_FIELD_KEEPS_TERM);
    let found = (0..QUICK).find(|&seed| terms(rules, seed) > 1);
    println!("L-20b: {found:?}");
    assert!(found.is_some(), "L-20b is not seen within {QUICK} seeds");
    for seed in 0..5 {
        assert_eq!(terms(Safeguards::ALL, seed), 1, "seed {seed}");
    }
}

/// Eight leases of two processes; the store of the last is away for half the time.
//= SPEC SIM-3 test
#[test]
fn leases_that_wait_for_each_other_are_seen() {
    let leases = Leases { leases: 8, processes: 2, timing: timing(), duties: Duties::ALL };
    let away = Fault { at_ms: 30_000, for_ms: 60_000, node: leases.store(7), kind: Kind::Isolate };
    let plan = Plan { faults: vec![away], ..Plan::none(leases.nodes()) };
    let terms = |duties, seed| {
        let Outcome { terms, problem, .. } =
            Leases { duties, ..leases }.run(seed, plan.clone(), LENGTH);
        assert_eq!(problem, None, "seed {seed}");
        terms
    };
    let together = Duties { leases_apart: false, ..Duties::ALL };
    let lost = |seed: &u64| terms(together, *seed)[..7].iter().any(|&terms| terms > 1);
    let found = (0..QUICK).find(lost);
    println!("L-39: {found:?}: {:?}", terms(together, 0));
    assert!(found.is_some(), "L-39 is not seen within {QUICK} seeds");
    for seed in 0..5 {
        assert_eq!(terms(Duties::ALL, seed), [1, 1, 1, 1, 1, 1, 1, 2], "seed {seed}");
    }
}

/// All stores of 32 leases on two processes are away for 10 s. How many of the 64 hosts ask within 20 ms, at most, in
/// the 10 s after that.
//= SPEC SIM-3 test
#[test]
fn hosts_that_go_in_step_after_an_outage_are_seen() {
    let leases = Leases { leases: 32, processes: 2, timing: timing(), duties: Duties::ALL };
    let outage = |lease| {
        let node = leases.store(lease);
        Fault { at_ms: 30_000, for_ms: 10_000, node, kind: Kind::Isolate }
    };
    let plan = Plan { faults: (0..32).map(outage).collect(), ..Plan::none(leases.nodes()) };
    let busiest = |duties, seed| {
        let outcome = Leases { duties, ..leases }.run(seed, plan.clone(), ms(50_000));
        assert_eq!(outcome.problem, None, "seed {seed}");
        outcome.busiest(ms(40_000)..ms(50_000), ms(20))
    };
    // Half of the hosts, which is less than go in step and more than ever do with jitter.
    let bound = 32;
    let in_step = Duties { jitter: false, ..Duties::ALL };
    let found =
        (0..QUICK).find_map(|seed| Some((seed, busiest(in_step, seed))).filter(|it| it.1 > bound));
    println!("L-40: {found:?}");
    assert!(found.is_some(), "L-40 is not seen within {QUICK} seeds");
    for seed in 0..QUICK {
        let most = busiest(Duties::ALL, seed);
        println!("{seed}: {most} with jitter");
        assert!(most <= bound, "seed {seed}: {most} requests within 20 ms");
    }
}
