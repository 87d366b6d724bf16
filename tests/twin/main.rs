//! The Rust models and `tla/Lease.tla` and `tla/Irc.tla` have the same state spaces: counted twice, and compared
//! step by step.
//!
//! Every `tla/MC*.cfg` that says `twin=yes` registers how many distinct states there are, how many are generated
//! and how deep the deepest is. Here the Rust world of the same numbers is counted, without canonical form;
//! `tla/check.sh` counts with TLC; both must be what is registered. The tests that run TLC, and compare the
//! graphs themselves, are ignored unless they are asked for: `cargo test --test twin -- --ignored`.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod config;
mod graph;
mod irc;
mod irc_told;
mod lease;
mod runs;
mod tlc;
mod value;

use config::Config;
use irc::IrcTwin;
use tenure::lease::safeguards::Safeguards;
use tenure::models::engine::{Limits, explore};

fn twins() -> impl Iterator<Item = Config> {
    Config::all().into_iter().filter(Config::is_twin)
}

fn config(name: &str) -> Config {
    Config::all().into_iter().find(|config| config.name == name).expect("a configuration")
}

/// Small enough to be compared state by state and step by step.
const IN_FULL: [&str; 5] = ["MCRepeat", "MCTakeover", "MCThree", "MCTimely", "MCUntimed"];
/// The same of peerings.
const PEERINGS_IN_FULL: [&str; 3] = ["MCIrcDelete", "MCIrcLiar", "MCIrcOne"];

/// Counts the Rust worlds of these configurations.
fn count(configs: impl IntoIterator<Item = Config>) {
    let counts = |config: &Config| match config.module() {
        "Irc" => graph::count(&IrcTwin::of(config)),
        _ => graph::count(&config.world()),
    };
    let wrong: Vec<_> = configs
        .into_iter()
        .map(|config| (counts(&config), config))
        .inspect(|(counts, config)| println!("{}: {counts:?}", config.name))
        .filter(|(counts, config)| *counts != config.counts())
        .map(|(counts, config)| (config.name, counts))
        .collect();
    assert!(wrong.is_empty(), "registered otherwise: {wrong:?}");
}

#[test]
fn the_small_ones_are_counted_alike() {
    count(IN_FULL.into_iter().chain(PEERINGS_IN_FULL).map(config));
    assert!(twins().count() > IN_FULL.len() + PEERINGS_IN_FULL.len());
}

#[test]
#[ignore = "takes a minute"]
fn all_leases_are_counted_alike() {
    count(twins().filter(|config| config.module() == "Lease"));
}

#[test]
#[ignore = "takes a minute"]
fn all_peerings_are_counted_alike() {
    count(twins().filter(|config| config.module() == "Irc"));
}

/// What TLC checks in these configurations holds in the Rust world too.
#[test]
fn the_properties_hold_in_the_small_ones() {
    for name in IN_FULL {
        let mut world = config(name).world();
        if name == "MCThree" || name == "MCUntimed" {
            world.properties.retain(|property| property.name != "single_writer");
        }
        let report = explore(&world, Limits::default(), |_| ());
        assert!(report.exhaustive && report.violated.is_empty(), "{name}: {:?}", report.violated);
    }
}

#[test]
#[ignore = "needs java and pip"]
fn every_state_and_every_step_of_leases_is_the_same_on_both_sides() {
    for name in IN_FULL {
        compare(name, graph::of_world(&config(name).world()));
    }
}

#[test]
#[ignore = "needs java and pip"]
fn every_state_and_every_step_of_peerings_is_the_same_on_both_sides() {
    for name in PEERINGS_IN_FULL {
        compare(name, graph::of_world(&IrcTwin::of(&config(name))));
    }
}

fn compare(name: &str, ours: graph::Graph) {
    let theirs = graph::of_tlc(&config(name), "{}");
    if let Some(difference) = ours.difference(&theirs) {
        panic!("{name}: {difference}");
    }
    println!("{name}: {} states, {} steps, alike", ours.states.len(), ours.edges.len());
}

/// The comparison sees a rule that is left out, on either side, and that both leave out the same.
#[test]
#[ignore = "needs java and pip"]
fn one_side_of_a_lease_that_is_changed_is_noticed() {
    let of_rust = |config: &Config| graph::of_world(&config.world());
    notices("MCUntimed", &["L-17", "L-20a"], &of_rust);
}

/// The same of peerings.
#[test]
#[ignore = "needs java and pip"]
fn one_side_of_a_peering_that_is_changed_is_noticed() {
    let of_rust = |config: &Config| graph::of_world(&IrcTwin::of(config));
    notices("MCIrcLiar", &["I-30"], &of_rust);
    notices("MCIrcOne", &["I-2"], &of_rust);
}

fn notices(name: &str, rules: &[&str], of_rust: &dyn Fn(&Config) -> graph::Graph) {
    let whole = of_rust(&config(name));
    let their_whole = graph::of_tlc(&config(name), "{}");
    for rule in rules {
        let changed_config = config(name).without(rule);
        let changed = of_rust(&changed_config);
        let theirs = graph::of_tlc(&config(name), &format!("{{\"{rule}\"}}"));
        assert!(whole.difference(&theirs).is_some(), "{rule}: TLA+ was changed, unnoticed");
        assert!(changed.difference(&their_whole).is_some(), "{rule}: Rust was changed, unnoticed");
        assert_eq!(changed.difference(&theirs), None, "{rule}: left out differently");
    }
}

/// `tla/bugs`: without the rule the Rust world violates the same property after as many steps.
#[test]
#[ignore = "takes half a minute"]
fn planted_bugs_are_found_after_as_many_steps() {
    let bugs = std::fs::read_to_string(config::folder().join("bugs")).expect("there");
    let lines = bugs.lines().filter(|line| !line.starts_with('#'));
    let mut rules = Safeguards::empty();
    for line in lines {
        let mut words = line.split_whitespace();
        let (rule, property, least) = (words.next(), words.next(), words.next());
        let (rule, property) = (rule.expect("a rule"), property.expect("a property"));
        let config = words.fold(config("MCFree").without(rule), Config::with);
        let mut world = config.world();
        world.properties.retain(|known| known.name == property);
        let report = explore(&world, Limits::default(), |_| ());
        assert_eq!(report.violated, [property], "{rule}");
        let steps = report.discoveries[property].steps.len();
        assert_eq!(Some(steps), least.and_then(|least| least.parse().ok()), "{rule}");
        rules |= world.observer.safeguards.complement();
    }
    assert!(rules.iter().count() >= 19, "{rules:?}");
}

/// `tla/bugs-irc`: the same of peerings.
#[test]
#[ignore = "takes half a minute"]
fn planted_bugs_of_peerings_are_found_after_as_many_steps() {
    let bugs = std::fs::read_to_string(config::folder().join("bugs-irc")).expect("there");
    for line in bugs.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("a rule, a property, a number");
        let (rule, property, least) = (next(), next(), next());
        let config = words.fold(config("MCIrcOne").without(rule), Config::with);
        let mut twin = IrcTwin::of(&config);
        twin.world.properties = irc::properties();
        twin.world.properties.extend(irc::witnesses());
        twin.world.properties.push(tenure::models::irc::properties::nobody_accepted());
        let name = match property {
            "never_deleted_twice" => "third_done",
            other => other.strip_prefix("never_").unwrap_or(other),
        };
        twin.world.properties.retain(|known| known.name == name);
        assert_eq!(twin.world.properties.len(), 1, "{rule}: {name}");
        let report = explore(&twin.world, Limits::default(), |_| ());
        let steps = report.discoveries.get(name).map(|found| found.steps.len());
        let expected = least.parse().ok();
        assert_eq!(steps, expected, "{rule}: {name}");
    }
}

/// How many events of a run are taken again.
const EVENTS: usize = 150;
/// How many simulated runs.
const RUNS: usize = 20;

/// Runs with faults are runs of the specification, and none is that was changed by a step, a message or a state.
#[test]
#[ignore = "needs java and pip"]
fn recorded_runs_are_behaviours_and_changed_ones_are_not() {
    let shape = runs::Shape::simulated();
    let recorded: Vec<runs::Run> =
        (0..200).filter_map(|seed| runs::simulated(shape, seed, EVENTS)).take(RUNS).collect();
    assert_eq!(recorded.len(), RUNS);
    let changed: Vec<(String, String)> = recorded
        .iter()
        .enumerate()
        .map(|(index, run)| runs::mutated(index + 1, &run.events, index))
        .collect();
    let expressions: Vec<String> = changed.iter().map(|(changed, _)| changed.clone()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    runs::write(folder.path(), shape, &runs::module(&recorded, &expressions), "Told");
    let said = tlc::run(folder.path(), "LeaseTrace.cfg", "LeaseTrace", &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    let accepted = said.accepted();
    for (index, run) in recorded.iter().enumerate() {
        assert!(accepted.contains(&(index + 1)), "{} is not accepted", run.name);
        let (_, what) = &changed[index];
        assert!(!accepted.contains(&(RUNS + index + 1)), "{}: {what}, unnoticed", run.name);
    }
    let events: usize = recorded.iter().map(|run| run.events.len()).sum();
    println!("{RUNS} runs of {events} events accepted, {RUNS} changed ones refused");
}

/// One run of real nodes, and the same with a message that nobody has sent.
#[test]
#[ignore = "needs java and pip"]
fn a_run_of_real_nodes_is_a_behaviour() {
    let (shape, run) = runs::real(1000);
    let (changed, what) = runs::mutated(1, &run.events, 3);
    for (chosen, code) in [("Run1".to_owned(), 12), (changed, 0)] {
        let folder = tempfile::tempdir().expect("a folder");
        let module = runs::module(std::slice::from_ref(&run), &[]);
        let module = module.replace("Runs == <<\n  Run1\n>>", &format!("Runs == <<{chosen}>>"));
        runs::write(folder.path(), shape, &module, "NotDone");
        let said = tlc::run(folder.path(), "LeaseTrace.cfg", "LeaseTrace", &[]);
        // Violated: the run was taken to its end.
        assert_eq!(said.code, code, "{chosen}: {what}: {}", said.text);
    }
    println!("{} events of real nodes accepted; refused if {what}", run.events.len());
}

fn text(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_table_of_counts_is_what_is_registered() {
    let readme = text("tla/README.md");
    for config in twins() {
        let config::Counts { distinct, generated, depth } = config.counts();
        let row = format!("| {} | {} | {depth} |", commas(distinct), commas(generated));
        let found = readme.lines().any(|line| line.contains(&config.name) && line.contains(&row));
        assert!(found, "tla/README.md: {} {row}", config.name);
    }
}

fn commas(number: u64) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", commas(thousands), number % 1000),
    }
}

/// The forms that SPEC.md names for each property are there.
#[test]
fn each_property_has_the_forms_that_the_specification_names() {
    let spec = text("docs/SPEC.md");
    let tla = ["Lease", "LeaseLive", "Irc", "IrcLive"].map(|name| text(&format!("tla/{name}.tla")));
    let tla = tla.concat();
    let rust = text("models/lease.rs") + &text("models/irc/properties.rs");
    let smt = ["timed", "epochs", "decisions"].map(|name| text(&format!("tests/proof/{name}.rs")));
    let smt = smt.concat();
    let rows: Vec<Vec<&str>> = spec
        .lines()
        .filter(|line| line.contains("`properties::"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 11 + 15, "one row for each property");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    for row in rows {
        let [name, in_rust, in_tla, in_smt] = row[..] else { panic!("four cells: {row:?}") };
        let is_there = |cell: &str, form: &dyn Fn(&str) -> bool| {
            let names: Vec<String> = names(cell);
            names.iter().filter(|name| !name.ends_with(".rs")).all(|name| form(name))
        };
        let function = in_rust.trim_matches('`').trim_start_matches("properties::");
        assert_eq!(function, name.trim_matches('`'));
        assert!(rust.contains(&format!("pub fn {function}()")), "{name}: stateright");
        assert!(is_there(in_tla, &|name| tla.contains(&format!("\n{name} =="))), "{name}: TLA+");
        assert!(
            is_there(in_smt, &|name| smt.contains(&format!("name: \"{name}\""))),
            "{name}: SMT"
        );
    }
}
