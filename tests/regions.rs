//! Regions of separate processes on one machine: customers whose calls are answered once, processes that
//! are killed, and links that lose.
//!
//! `cargo test --test regions` runs the short tests. The long ones:
//! `cargo test --release --test regions -- --ignored --nocapture --test-threads 1`
//!
//! `TENURE_SEED` repeats the lots; what the system makes of them is its own.

#![allow(
    clippy::disallowed_methods,
    reason = "the test stands outside of the regions: it waits, and draws its own lots"
)]

mod regions {
    #![allow(dead_code, unreachable_pub, reason = "helpers")]

    pub mod customers;
    pub mod history;
    pub mod links;
    pub mod operators;
    pub mod ports;
    pub mod stored;
    pub mod world;
}

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use regions::customers::{Customer, Story, class};
use regions::history::Taken;
use regions::stored::{self, Left};
use regions::world::{PATIENCE, Plan, World, soon};
use serde_json::{Value, json};
use tenure::sim::history::Explained;

/// One test at a time: each has nine processes.
static MACHINE: Mutex<()> = Mutex::new(());

const NUMBERS: &str = "[region.timing]\nclaim = \"2s\"\ncall = \"400ms\"\npoll = \"40ms\"\nsweep = \"500ms\"\n\
    retry_floor = \"50ms\"\nretry_base = \"100ms\"\nretry_cap = \"1s\"\n\
    [region.quota]\npeerings = 5000\nrequests = 5000\nrequests_per_account = 100000\n";

/// Where links lose 30 %, every second call comes to nothing: that is no outage there.
const LOSSY: &str = "[region.timing]\nclaim = \"2s\"\ncall = \"400ms\"\npoll = \"40ms\"\nsweep = \"500ms\"\n\
    retry_floor = \"50ms\"\nretry_base = \"100ms\"\nretry_cap = \"1s\"\nprobe = \"100ms\"\n\
    [region.quota]\npeerings = 5000\nrequests = 5000\nrequests_per_account = 100000\n\
    retry_percent = 300\nbreaker_percent = 90\n";

/// How many undecided requests a network may have, above.
const REQUESTS_MAX: usize = 5000;

fn seed() -> u64 {
    let text = std::env::var("TENURE_SEED").ok();
    text.map_or_else(rand::random, |text| text.parse().expect("TENURE_SEED is a number"))
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Pairs of networks, each once.
fn pairs(count: usize, plan: &Plan, rng: &mut StdRng) -> Vec<[(usize, usize); 2]> {
    let mut pairs = BTreeSet::new();
    let mut ends = Vec::new();
    while ends.len() < count {
        let from = rng.random_range(0..plan.regions);
        let to = (from + rng.random_range(1..plan.regions)) % plan.regions;
        let mut pair = [from, to].map(|region| (region, rng.random_range(0..plan.networks)));
        let directed = pair;
        pair.sort_unstable();
        if pairs.insert(pair) {
            ends.push(directed);
        }
    }
    ends
}

/// Lives of `count` peerings, told by `customers` at a time, while others only look. All that they are told has an order.
//= SPEC API-1 test
//= SPEC API-2 test
//= SPEC API-3 test
//= SPEC API-4 test
fn live(world: &World, count: usize, customers: usize, rng: &mut StdRng) -> Vec<Story> {
    let work = Mutex::new(pairs(count, &world.plan, rng));
    let stories = Mutex::new(Vec::new());
    let (taken, is_over) = (Taken::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mut living = Vec::new();
        for _ in 0..customers {
            let seed = StdRng::seed_from_u64(rng.random());
            let (work, stories, taken) = (&work, &stories, &taken);
            living.push(scope.spawn(move || {
                let mut customer = Customer::taken_down(world, seed, taken);
                loop {
                    let Some(ends) = work.lock().unwrap().pop() else { return };
                    let story = customer.live(ends);
                    stories.lock().unwrap().push(story);
                }
            }));
        }
        for _ in 0..2 {
            let seed = StdRng::seed_from_u64(rng.random());
            let (taken, is_over) = (&taken, &is_over);
            scope.spawn(move || look(world, seed, taken, is_over));
        }
        let lived: Vec<_> = living.into_iter().map(|one| one.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        for one in lived {
            one.unwrap_or_else(|why| std::panic::resume_unwind(why));
        }
    });
    let Explained { answered, unknown, crossing, .. } =
        taken.judge().unwrap_or_else(|wrong| panic!("{wrong}"));
    println!(
        "{answered} calls in order, {unknown} of unknown outcome, {crossing} pairs side by side"
    );
    stories.into_inner().unwrap()
}

/// Looks at the newest peerings from either end, until told to end.
fn look(world: &World, mut rng: StdRng, taken: &Taken, is_over: &AtomicBool) {
    let mut customer = Customer::taken_down(world, StdRng::seed_from_u64(rng.random()), taken);
    while !is_over.load(Ordering::Relaxed) {
        let newest = {
            let begun = taken.begun.lock().unwrap();
            begun.iter().rev().take(8).cloned().choose(&mut rng)
        };
        if let Some((id, ends)) = newest {
            customer.get(ends[rng.random_range(0..2)], &id);
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(5..50)));
    }
}

/// Kills one process after another, each of which starts again, until told to end. What each control
/// plane tells of the number of its start is noted, in the order of time.
fn kill_until(
    world: &World,
    is_over: &AtomicBool,
    kills: &AtomicUsize,
    starts: &Mutex<Vec<Vec<u64>>>,
    mut rng: StdRng,
) {
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(rng.random_range(200..900)));
        let member = rng.random_range(0..world.members());
        world.kill(member);
        kills.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        world.launch(member);
        if let Some(region) = world.region_of(member) {
            starts.lock().unwrap()[region].push(start_of(world, region));
        }
    }
}

/// The number of a running control plane's start.
fn start_of(world: &World, region: usize) -> u64 {
    let mut start = None;
    soon(PATIENCE, || {
        let status = world.ask(region, &json!({ "op": "status" })).unwrap_or_default();
        start = status["start"].as_u64();
        start.is_some()
    });
    start.expect("a control plane that runs tells its status")
}

// -------------------------------------------------------------------------------------------------
// What must hold
// -------------------------------------------------------------------------------------------------

/// Every acknowledged call has had its effect, and once: the same call again is answered as the first
/// time, and the facts are those that the answers tell.
fn check_effects(world: &World, stories: &[Story], rng: StdRng) {
    let mut customer = Customer::new(world, rng);
    for story in stories {
        for told in &story.told {
            let mut again = None;
            soon(PATIENCE, || {
                again = customer.ask(told.region, &told.question);
                again.as_ref().is_some_and(|again| again["retry"] != true)
            });
            // A refusal is not kept: things may have changed since.
            if told.answer["ok"] == true {
                assert_eq!(again.as_ref(), Some(&told.answer), "{}: {}", story.id, told.question);
            }
        }
        for (region, _) in story.ends {
            let get = json!({ "op": "get", "account": 1, "id": story.id });
            let shown = customer.ask(region, &get).expect("quiet regions answer");
            check_story(story, &shown["peering"]);
        }
    }
}

/// The calls of a story against what a side shows.
fn check_story(story: &Story, shown: &Value) {
    let done = |op: &str, region: Option<usize>| {
        let is_it = |told: &&regions::customers::Told| {
            told.answer["ok"] == true
                && told.question["op"] == op
                && region.is_none_or(|region| told.region == region)
        };
        story.told.iter().filter(is_it).count()
    };
    let id = &story.id;
    if done("accept", None) > 0 {
        assert_eq!(shown["accepter"]["decision"], "accepted", "{id}");
    }
    if done("reject", None) > 0 {
        assert_eq!(shown["accepter"]["decision"], "rejected", "{id}");
    }
    if done("delete", None) > 0 {
        assert_eq!(class(shown["state"].as_str().unwrap()), "over", "{id}");
    } else if done("accept", None) > 0 {
        assert_eq!(shown["state"], "active", "{id}");
    }
    // A version counts the changes: the requester's begins with the creation.
    let versions = [
        ("requester", format!("1-{}", done("modify", Some(story.ends[0].0)))),
        (
            "accepter",
            match done("modify", Some(story.ends[1].0)) {
                0 => "0-0".to_owned(),
                changes => format!("1-{}", changes - 1),
            },
        ),
    ];
    for (side, version) in versions {
        assert_eq!(shown[side]["options"]["version"], version.as_str(), "{id}: {side}");
    }
}

// -------------------------------------------------------------------------------------------------
// Kills and losses
// -------------------------------------------------------------------------------------------------

/// Peerings with random calls, while processes are killed and links lose 30 %.
fn storm(count: usize, customers: usize) {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let seed = seed();
    println!("TENURE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let networks = if count > 100 { 80 } else { 12 };
    let world = World::start(Plan {
        regions: 3,
        servers: 2,
        networks,
        numbers: LOSSY,
        seed,
        is_direct: false,
    });
    let starts = Mutex::new((0..3).map(|region| vec![start_of(&world, region)]).collect());
    world.links.knobs.lose(300);
    let (is_over, kills) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    let stories = std::thread::scope(|scope| {
        let killer = StdRng::seed_from_u64(rng.random());
        scope.spawn(|| kill_until(&world, &is_over, &kills, &starts, killer));
        let living = std::panic::AssertUnwindSafe(|| live(&world, count, customers, &mut rng));
        let stories = std::panic::catch_unwind(living);
        is_over.store(true, Ordering::Relaxed);
        stories.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let took = begun.elapsed();
    // The links still lose. Everything that is left to be told arrives nevertheless.
    let is_quiet = |region| {
        let status = world.ask(region, &json!({ "op": "status" }));
        status.is_ok_and(|status| status["records"] == 0)
    };
    let is_quiet = soon(PATIENCE, || (0..3).all(is_quiet));
    if !is_quiet {
        for region in 0..3 {
            eprintln!("r{region}: {:?}", world.ask(region, &json!({ "op": "records" })));
        }
    }
    assert!(is_quiet, "the work logs never emptied");
    for story in &stories {
        let [here, there] = &story.states;
        assert_eq!(class(here), class(there), "{}: both sides see the same (E2)", story.id);
    }
    check_effects(&world, &stories, StdRng::seed_from_u64(rng.random()));
    for member in 0..world.members() {
        world.stop(member);
    }
    let starts = starts.into_inner().unwrap();
    stored::check(&Left::of(&world), &stories, &starts, REQUESTS_MAX);
    let mut converged: Vec<_> = stories.iter().map(|story| story.converged).collect();
    converged.sort_unstable();
    let calls: usize = stories.iter().map(|story| story.told.len()).sum();
    println!(
        "{count} peerings, {calls} calls answered, {} SIGKILLs, links lose 30 %, in {:.0} s; from the last answer to \
         the same on both sides: p50 {:.3} s, p99 {:.3} s, max {:.3} s",
        kills.load(Ordering::Relaxed),
        took.as_secs_f64(),
        percentile(&converged, 50).as_secs_f64(),
        percentile(&converged, 99).as_secs_f64(),
        percentile(&converged, 100).as_secs_f64(),
    );
}

//= SPEC IRC-1 test
//= SPEC REGION-4 test
//= SPEC REGION-7 test
#[test]
fn what_was_answered_has_its_effect_once_whatever_is_killed_and_lost() {
    storm(24, 6);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_peerings() {
    storm(1000, 24);
}

// -------------------------------------------------------------------------------------------------
// A region in the dark
// -------------------------------------------------------------------------------------------------

/// Creates peerings and waits until the other side has each; how long each took.
fn creations(
    world: &World,
    pairs: &[[(usize, usize); 2]],
    rng: &mut StdRng,
) -> (Vec<String>, Vec<Duration>) {
    let mut customer = Customer::new(world, StdRng::seed_from_u64(rng.random()));
    let (mut ids, mut took) = (Vec::new(), Vec::new());
    for &[(from, network), (to, peer_network)] in pairs {
        let begun = Instant::now();
        let id = create(&mut customer, (from, network), (to, peer_network));
        let is_there =
            soon(PATIENCE, || customer.state(from, &id).as_deref() == Some("pending-acceptance"));
        assert!(is_there, "{id} never arrived");
        took.push(begun.elapsed());
        ids.push(id);
    }
    took.sort_unstable();
    (ids, took)
}

fn create(customer: &mut Customer<'_>, own: (usize, usize), peer: (usize, usize)) -> String {
    let create = json!({
        "op": "create", "network": own.1, "region": format!("r{}", peer.0), "peer_account": 1,
        "peer_network": peer.1,
    });
    let told = customer.call(own.0, create);
    told.answer["id"].as_str().unwrap_or_else(|| panic!("{told:?}")).to_owned()
}

/// Region 2 is in the dark: its peers answer their customers and serve each other, send it little, and
/// hand over what has piled up when it is back.
fn darkness(dark_for: Duration, waiting: usize) {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let seed = seed();
    println!("TENURE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::start(Plan {
        regions: 3,
        servers: 2,
        networks: 60,
        numbers: NUMBERS,
        seed,
        is_direct: false,
    });
    let knobs = &world.links.knobs;
    // Between 0 and 1 alone; and each of them with 2.
    let mut all: Vec<_> = (0..3600).map(|n| [(0, n / 60), (1, n % 60)]).collect();
    all.shuffle(&mut rng);
    let (light, dark) = all.split_at(1800);
    let sample = waiting.min(200);
    let (_, before) = creations(&world, &light[..sample], &mut rng);

    knobs.cut_off(Some(2));
    let begun = Instant::now();
    let calls_before = knobs.calls_to(2);
    let mut customer = Customer::new(&world, StdRng::seed_from_u64(rng.random()));
    let mut piled = Vec::new();
    let mut answers = Vec::new();
    for n in 0..waiting {
        let asked = Instant::now();
        let from = n % 2;
        piled.push((from, create(&mut customer, (from, n % 60), (2, n / 60 % 60))));
        answers.push(asked.elapsed());
    }
    answers.sort_unstable();
    let (_, during) = creations(&world, &dark[..sample], &mut rng);
    std::thread::sleep(dark_for.saturating_sub(begun.elapsed()));
    let dark_for = begun.elapsed();
    let calls = knobs.calls_to(2) - calls_before;

    knobs.cut_off(None);
    let healed = Instant::now();
    for (from, id) in &piled {
        let is_there = soon(PATIENCE * 2, || {
            customer.state(*from, id).as_deref() == Some("pending-acceptance")
        });
        assert!(is_there, "{id} never arrived");
    }
    let drained = healed.elapsed();
    // Each of two regions may have 32 claims out when the lights go off. Ten failures open its breaker,
    // and until then each makes room for another call. Then there is one probe a second.
    let budget = 2 * (32 + 10) + 2 * (dark_for.as_secs() + 1);
    let p99 = |sorted: &[Duration]| percentile(sorted, 99).as_secs_f64();
    println!(
        "dark for {:.0} s with {waiting} requests waiting: {calls} datagrams to it, budget {budget}; its peers' customers \
         were answered within p99 {:.1} ms; between the others p50 {:.1} -> {:.1} ms, p99 {:.1} -> {:.1} ms, \
         ratio {:.2}; all had arrived {:.2} s after the light came back",
        dark_for.as_secs_f64(),
        p99(&answers) * 1e3,
        percentile(&before, 50).as_secs_f64() * 1e3,
        percentile(&during, 50).as_secs_f64() * 1e3,
        p99(&before) * 1e3,
        p99(&during) * 1e3,
        p99(&during) / p99(&before),
        drained.as_secs_f64(),
    );
    assert!(calls <= budget, "{calls} datagrams to a region that does not answer");
}

//= SPEC IRC-17 test
#[test]
fn a_region_in_the_dark_costs_its_peers_little() {
    darkness(Duration::from_secs(4), 40);
}

#[test]
#[ignore = "takes minutes"]
fn a_region_in_the_dark_for_minutes() {
    darkness(Duration::from_secs(180), 1000);
}

// -------------------------------------------------------------------------------------------------
// A region whose keys have run out
// -------------------------------------------------------------------------------------------------

/// Datagrams are sealed, and the keys of one region run out while its customers and those of the other call. Every half
/// stays as it is, every call is answered, and what is tried in vain stays within the budget. When the keys are renewed,
/// without a start, all that has piled up is delivered, each about once, and both sides agree.
//= SPEC SEAL-5 test
//= SPEC SEAL-10 test
#[test]
fn a_key_that_runs_out_and_is_renewed_brings_no_surge() {
    const FAR: u64 = 4_000_000_000;
    const WAITING: usize = 40;
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let seed = seed();
    println!("TENURE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let plan =
        Plan { regions: 2, servers: 2, networks: 60, numbers: NUMBERS, seed, is_direct: false };
    let world = World::start_with(plan, vec![vec![(1, FAR)], vec![(1, FAR)]]);
    let mut all: Vec<_> = (0..60).collect();
    all.shuffle(&mut rng);
    let pair = |n: usize| [(n % 2, all[n]), (1 - n % 2, all[n])];
    let pairs: Vec<_> = (0..10).map(pair).collect();
    let (before, _) = creations(&world, &pairs, &mut rng);
    let mut customer = Customer::new(&world, StdRng::seed_from_u64(rng.random()));
    let accepter = |n: usize| 1 - n % 2;
    for (n, id) in before.iter().enumerate() {
        customer.call(accepter(n), json!({ "op": "accept", "id": id }));
    }
    let is_active = |customer: &mut Customer<'_>, id: &str| {
        (0..2).all(|region| customer.state(region, id).as_deref() == Some("active"))
    };
    for id in &before {
        assert!(soon(PATIENCE, || is_active(&mut customer, id)), "{id} is never active");
    }

    // The keys of region 1 run out in a second, and everybody knows.
    let end = tenure::node::keys::time_of_day() + 1;
    world.list_keys(1, &[(1, end)]);
    assert!(soon(PATIENCE, || tenure::node::keys::time_of_day() > end + 1));
    let begun = Instant::now();
    let unsent = |world: &World| {
        let servers = [world.control_plane(0) + 1, world.control_plane(0) + 2];
        servers.map(|it| world.counts(it)["dropped_no_key"].as_u64().unwrap()).iter().sum::<u64>()
    };
    let (sent_before, unsent_before) = (world.links.knobs.calls_to(1), unsent(&world));
    let mut piled = Vec::new();
    for n in 10..10 + WAITING {
        // Either way: that no datagram gets out of region 1 is nothing to its customers.
        let [from, to] = pair(n);
        piled.push((from.0, create(&mut customer, from, to)));
    }
    // More than the second in which an open breaker lets out a probe.
    std::thread::sleep(Duration::from_secs(4).saturating_sub(begun.elapsed()));
    let dark_for = begun.elapsed();
    let in_vain = unsent(&world) - unsent_before;
    assert_eq!(world.links.knobs.calls_to(1), sent_before, "a key that has run out seals nothing");
    // As in the dark: claims that may be out, failures until the breaker opens, and then the probes.
    let budget = 32 + 10 + dark_for.as_secs() + 1;
    assert!(in_vain <= budget, "{in_vain} calls in vain, budget {budget}");
    assert!(in_vain > 0, "nothing was tried");
    for id in &before {
        assert!(is_active(&mut customer, id), "an outage of keys changed {id}");
    }
    for (from, id) in &piled {
        let state = customer.state(*from, id);
        assert_eq!(state.as_deref(), Some("initiating-request"), "{id}");
    }

    // New keys for region 1, besides the old ones.
    let renewed = Instant::now();
    let calls = |world: &World| world.links.knobs.calls_to(0) + world.links.knobs.calls_to(1);
    let calls_before = calls(&world);
    world.list_keys(1, &[(1, end), (2, FAR)]);
    for (from, id) in &piled {
        let both = [*from, 1 - *from];
        let agree = soon(PATIENCE * 2, || {
            both.iter().all(|&it| customer.state(it, id).as_deref() == Some("pending-acceptance"))
        });
        assert!(agree, "{id} never arrived, or the two sides do not agree");
    }
    let (drained, calls) = (renewed.elapsed(), calls(&world) - calls_before);
    // Each once; besides that retries as above for either region, and a comparison each half second.
    let budget = WAITING as u64 + 2 * (32 + 10) + 4 * (drained.as_secs() + 1);
    println!(
        "for {:.1} s {in_vain} calls in vain; {WAITING} requests had arrived {:.2} s after the renewal, by {calls} calls, \
         budget {budget}",
        dark_for.as_secs_f64(),
        drained.as_secs_f64()
    );
    assert!(calls <= budget, "{calls} calls after the renewal, budget {budget}");
    for member in 0..world.members() {
        let counts = world.counts(member);
        assert_eq!(counts["dropped_repeated"], 0, "{counts}");
    }
}

// -------------------------------------------------------------------------------------------------
// The command line
// -------------------------------------------------------------------------------------------------

/// A peering's life, a dry run, a restore and its report, as people call them.
//= SPEC REGION-5 test
//= SPEC REGION-8 test
//= SPEC REGION-10 test
//= SPEC REGION-11 test
#[test]
fn customers_and_operators_have_commands() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::start(Plan {
        regions: 2,
        servers: 1,
        networks: 3,
        numbers: NUMBERS,
        seed: 1,
        is_direct: false,
    });
    let run = |region, code, args: &[&str], says: &str| {
        let (got, text) = world.run(region, args);
        assert_eq!(got, code, "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {says:?} is not in: {text}");
        text
    };
    let until = |region, args: &[&str], says: &str| {
        let mut last = String::new();
        let is_so = soon(PATIENCE, || {
            last = world.run(region, args).1;
            last.contains(says)
        });
        assert!(is_so, "{args:?} never says {says:?}: {last}");
    };
    let create = ["peering", "create", "--account", "1", "--network", "0", "--to", "r1"];
    let create = [&create[..], &["--peer-account", "1", "--peer-network", "0"]].concat();
    let with = |more: &[&'static str]| [&create[..], more].concat();
    run(0, 0, &with(&["--dry-run"]), "would be initiating-request");
    run(0, 0, &["peering", "list", "--account", "1"], "");
    let none = run(0, 0, &["peering", "list", "--account", "1", "--json"], "[]");
    assert!(!none.contains("r0-1-0"), "a dry run changes nothing: {none}");
    run(0, 0, &with(&["--token", "7"]), "r0-1-0");
    run(0, 0, &with(&["--token", "7"]), "r0-1-0");
    run(0, 3, &with(&["--token", "8"]), "have a peering already");
    let id = "r0-1-0";
    let explain = ["peering", "explain", "--account", "1", id];
    until(0, &explain, "a decision of r1");
    run(1, 1, &["peering", "accept", "--account", "2", id], "does not own");
    run(0, 1, &["peering", "accept", "--account", "1", id], "call the other region");
    run(1, 1, &["peering", "get", "--account", "1", "nonsense"], "is no id of a peering");
    let other = ["peering", "get", "--account", "1", "r0-1-77"];
    run(1, 3, &other, "not visible");
    let backup = world.path("backup").display().to_string();
    run(1, 0, &["backup", "create", &backup], "1 peerings");
    run(1, 1, &["backup", "create", &backup], "is there already");
    run(1, 0, &["peering", "accept", "--account", "1", id], "provisioning");
    until(0, &explain, "here (r0, requester): active");
    until(1, &explain, "here (r1, accepter): active");
    run(0, 0, &["peering", "audit", id], "pending-acceptance -> provisioning  by region r1");
    run(0, 0, &["peering", "audit"], "chain: whole");
    run(0, 0, &["region", "dispose", "--peer", "r1", "--dry-run"], "active -> deleted");
    run(0, 0, &["region", "status"], "1  active");
    let version = "0-0";
    let modify = ["peering", "modify", "--account", "1", id, "--seen", version];
    run(1, 0, &[&modify[..], &["--resolve-names", "true"]].concat(), "1-0");
    run(1, 1, &[&modify[..], &["--resolve-names", "false"]].concat(), "changed meanwhile");

    // Back to before the acceptance: the peer gives it back.
    let begin = ["restore", "begin", "--backup", &backup];
    run(1, 1, &begin, "is running");
    // What has not left the region yet would be lost without a trace.
    until(0, &["peering", "get", "--account", "1", id, "--json"], "\"resolve_names\":true");
    world.kill(world.control_plane(1));
    run(1, 0, &[&begin[..], &["--dry-run"]].concat(), "nothing was changed");
    run(1, 0, &begin, "life 2  1 peerings of the backup, 1 halves are on");
    world.launch(world.control_plane(1));
    until(1, &["restore", "status"], "r0  open");
    until(1, &["restore", "report"], "recovered  r0-1-0: decision, options");
    until(1, &explain, "here (r1, accepter): active");
    // The log of the backup is whole, and ends before what came after it.
    let audit = ["peering", "audit", "--backup", &backup];
    let told = run(1, 0, &audit, "chain: whole");
    assert!(told.contains("- -> pending-acceptance") && !told.contains("provisioning"), "{told}");
    run(1, 0, &[&audit[..], &["r0-1-7"]].concat(), "chain: whole");
    run(1, 1, &["peering", "audit", "--backup", "nothing"], "it is not there");
    // What was made from the line that was left is refused.
    run(1, 0, &["backup", "check", &backup], "1 peerings");
    run(0, 0, &["region", "drain"], "takes no calls");
    run(0, 3, &["peering", "delete", "--account", "1", id], "takes no calls");
    run(0, 0, &["region", "undrain"], "");
    run(0, 0, &["dlq", "list"], "");
    run(0, 1, &["region", "thaw"], "is not frozen: there is nothing to thaw");
    run(0, 0, &["region", "freeze", "--dry-run"], "frozen until `region thaw`");
    run(0, 0, &["region", "freeze"], "life 2");
    until(0, &["restore", "status"], "r1  syncing");
    run(0, 0, &["disagreements", "list"], "r0-1-0  active  with r1: frozen");
    run(0, 0, &["region", "status"], "FROZEN until `region thaw`");
    run(0, 0, &["region", "thaw", "--dry-run"], "nothing was changed");
    run(0, 0, &["region", "thaw"], "life 2");
    until(0, &["restore", "status"], "r1  open");
    until(0, &["disagreements", "list", "--json"], "\"disagreements\":[]");
    // Every command that has changed something is in the audit log, and the refused ones are not.
    let audit = run(0, 0, &["peering", "audit"], "chain: whole");
    let count = |what: &str| audit.matches(what).count();
    assert_eq!(count("by operator freeze"), 1, "{audit}");
    assert_eq!(count("by operator thaw"), 1, "{audit}");
    assert_eq!(count("by operator drain true"), 1, "{audit}");
    assert_eq!(count("by operator drain false"), 1, "{audit}");
    assert_eq!(count("by operator"), 4, "{audit}");
    run(1, 0, &["peering", "audit"], "by restored");
    run(0, 0, &["peering", "delete", "--account", "1", id], "delet");
    until(1, &explain, "here (r1, accepter): deleted");
    for member in 0..world.members() {
        world.stop(member);
    }
    run(0, 3, &["region", "status"], "does not answer");
}

// -------------------------------------------------------------------------------------------------
// Health and metrics
// -------------------------------------------------------------------------------------------------

/// Two regions, the second of which is in the dark while the first one wants something of it: the metrics
/// of the first one's control plane.
fn metrics_of_a_region(world: &World) -> String {
    let mut customer = Customer::new(world, StdRng::seed_from_u64(1));
    let id = create(&mut customer, (0, 0), (1, 0));
    let state = |customer: &mut Customer<'_>| customer.state(0, &id);
    assert!(soon(PATIENCE, || state(&mut customer).as_deref() == Some("pending-acceptance")));
    world.links.knobs.cut_off(Some(1));
    create(&mut customer, (0, 1), (1, 1));
    let mut metrics = String::new();
    let says = |metrics: &str, line: &str| metrics.lines().any(|one| one == line);
    let is_told = soon(PATIENCE, || {
        metrics = world.get(0, "/metrics").map(|(_, text)| text).unwrap_or_default();
        says(&metrics, "irc_waiting{remote=\"r1\"} 1")
    });
    assert!(is_told, "{metrics}");
    for line in [
        "irc_queue_depth{remote=\"r1\"} 1",
        "irc_dead_letters{remote=\"r1\"} 0",
        "irc_frozen{remote=\"r1\"} 0",
        "irc_disagreements{remote=\"r1\"} 1",
        "irc_peerings{state=\"pending-acceptance\"} 1",
        "irc_peerings{state=\"initiating-request\"} 1",
        "irc_seal_failures_total{remote=\"r1\"} 0",
        "irc_conflicting_facts_total{remote=\"r1\"} 0",
        "irc_drained 0",
    ] {
        assert!(says(&metrics, line), "no {line} in\n{metrics}");
    }
    for name in [
        "irc_oldest_unacknowledged_seconds{remote=\"r1\"}",
        "irc_in_flight{remote=\"r1\"}",
        "irc_first_sends_total{remote=\"r1\"}",
        "irc_retries_total{remote=\"r1\"}",
        "irc_call_failures_total{remote=\"r1\"}",
        "irc_retry_budget{remote=\"r1\"}",
        "irc_breaker_state{remote=\"r1\"}",
        "irc_frozen_seconds{remote=\"r1\"}",
        "irc_disagreement_seconds{remote=\"r1\"}",
        "irc_sweep_age_seconds{remote=\"r1\"}",
        "irc_stale_reports_total{remote=\"r1\"}",
        "irc_old_calls_total{remote=\"r1\"}",
        "irc_stale_incarnations_total{remote=\"r1\"}",
        "irc_lease_expiries_total{remote=\"r1\"}",
        "storage_commit_seconds_bucket{le=\"0.001\"}",
        "storage_commit_saves_bucket{le=\"1\"}",
    ] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
    metrics
}

fn two_regions() -> World {
    World::start(Plan {
        regions: 2,
        servers: 1,
        networks: 3,
        numbers: NUMBERS,
        seed: 1,
        is_direct: false,
    })
}

//= SPEC REGION-12 test
#[test]
fn a_node_of_a_region_tells_whether_it_runs_and_takes_calls_and_what_it_measures() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = two_regions();
    let status = |member, path| world.get(member, path).map(|(status, _)| status).ok();
    for member in 0..world.members() {
        assert_eq!(status(member, "/healthz"), Some(200));
        assert_eq!(status(member, "/readyz"), Some(200));
        assert_eq!(status(member, "/leader"), Some(404), "it has no lease");
    }
    metrics_of_a_region(&world);
    let (_, metrics) = world.get(1, "/metrics").expect("a server tells");
    assert!(metrics.contains("irc_server_reports_total "), "{metrics}");
    assert!(metrics.contains("irc_server_unknown_remote 0"), "{metrics}");
    // Drained it is healthy, and not ready.
    let (code, text) = world.run(0, &["region", "drain"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(status(0, "/readyz"), Some(503));
    assert_eq!(status(0, "/healthz"), Some(200));
    world.run(0, &["region", "undrain"]);
    assert_eq!(status(0, "/readyz"), Some(200));
    world.kill(0);
    assert_eq!(status(0, "/healthz"), None);
}

/// What the operators' tool finds wrong with the metrics is nothing (Debian: prometheus).
#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_wrong_with_the_metrics_of_a_region() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = two_regions();
    let of_server = world.get(1, "/metrics").expect("a server tells").1;
    for metrics in [metrics_of_a_region(&world), of_server] {
        let mut promtool = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("install Debian's prometheus");
        let mut input = promtool.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, metrics.as_bytes()).unwrap();
        drop(input);
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.is_empty(), "{text}\n{metrics}");
    }
}
