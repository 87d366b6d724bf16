//! One file of numbers for both sides: `tla/MC*.cfg`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tenure::lease::safeguards::Safeguards;
use tenure::models::lease::properties::{
    holder_has_deadline, read_only_under_another, single_writer, unique_holder_per_epoch,
};
use tenure::models::lease::{Cluster, Keeps, LeaseWorld, Outside, Ticks};
use tenure::models::world::{Budget, Faults, Network};

/// The size of a state graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) distinct: u64,
    pub(crate) generated: u64,
    pub(crate) depth: u64,
}

/// A configuration file.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    /// What the first line says must come of it.
    pub(crate) expected: BTreeMap<String, String>,
    constants: BTreeMap<String, String>,
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tla")
}

impl Config {
    /// Every configuration, by name.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = std::fs::read_dir(folder())
            .expect("the specifications are there")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "cfg"))
            .map(|path| {
                let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
                Self::parse(name, &std::fs::read_to_string(&path).expect("readable"))
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn parse(name: String, text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let expected = first.strip_prefix("\\* ").unwrap_or_else(|| panic!("{name}: expectations"));
        let expected = expected
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let constants = text
            .lines()
            .filter_map(|line| line.split("\\*").next()?.split_once(" = "))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Self { name, expected, constants }
    }

    /// The same with one number changed: `name=value`.
    pub(crate) fn with(mut self, change: &str) -> Self {
        let (name, value) = change.split_once('=').expect("name=value");
        let before = self.constants.insert(name.to_owned(), value.to_owned());
        assert!(before.is_some_and(|before| before != value), "{change} changes nothing");
        self
    }

    /// The same without this rule.
    pub(crate) fn without(self, rule: &str) -> Self {
        self.with(&format!("Without={{\"{rule}\"}}"))
    }

    /// The module of the specification that it configures.
    pub(crate) fn module(&self) -> &'static str {
        if self.name.contains("Irc") { "Irc" } else { "Lease" }
    }

    /// Whether the Rust model has the same state space.
    pub(crate) fn is_twin(&self) -> bool {
        self.expected.get("twin").is_some_and(|twin| twin == "yes")
    }

    pub(crate) fn counts(&self) -> Counts {
        let count = |key: &str| self.expected[key].parse().expect("a count");
        Counts { distinct: count("distinct"), generated: count("generated"), depth: count("depth") }
    }

    fn word(&self, name: &str) -> &str {
        self.constants.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    pub(crate) fn number(&self, name: &str) -> u16 {
        self.word(name).parse().unwrap_or_else(|_| panic!("{}: {name} is no number", self.name))
    }

    pub(crate) fn truth(&self, name: &str) -> bool {
        self.word(name) == "TRUE"
    }

    pub(crate) fn set(&self, name: &str) -> Vec<String> {
        let inner = self.word(name).trim_matches(['{', '}']);
        let items = inner.split(',').map(|item| item.trim().trim_matches('"').to_owned());
        items.filter(|item| !item.is_empty()).collect()
    }

    /// The rules that are left out, by their ids.
    pub(crate) fn without_rules(&self) -> Vec<String> {
        self.set("Without")
    }

    fn budget(&self, name: &str) -> Budget {
        match self.number(name) {
            u16::MAX => Budget::Unlimited,
            times => Budget::Times(u8::try_from(times).expect("a small budget")),
        }
    }

    /// The world of the lease that the constants describe, raw.
    pub(crate) fn world(&self) -> LeaseWorld {
        let ticks = Ticks {
            lease: self.number("Lease"),
            give_up: self.number("GiveUp"),
            renew: self.number("Renew"),
            retry: self.number("Retry"),
            poll: self.number("Poll"),
            jitter: self.number("Jitter"),
            hook: self.number("Hook"),
            clock_error_ppm: self.number("ErrorPpm").into(),
        };
        let nodes = |name: &str| -> Vec<usize> {
            self.set(name).iter().map(|node| node.parse().expect("a node")).collect()
        };
        let without = self.without_rules();
        let left_out = Safeguards::ALL.iter().filter(|rule| without.contains(&rule.id()));
        let safeguards = Safeguards::ALL.difference(left_out.collect());
        let missing = Safeguards::ALL.difference(safeguards).iter().count();
        assert_eq!(missing, without.len(), "{}: {without:?}", self.name);
        let outside = [("StepDowns", Outside::StepDown), ("HandOvers", Outside::HandOver)];
        let cluster = Cluster {
            hosts: u16::try_from(nodes("Hosts").len()).expect("few"),
            timing: ticks.timing(),
            tick: Duration::from_millis(1),
            timed: self.truth("Timed"),
            network: match self.number("Delay") {
                u16::MAX => Network::Free { repeats: self.truth("Repeats") },
                delay => Network::Timely { delay },
            },
            faults: Faults {
                may_crash: nodes("MayCrash"),
                crashes: self.budget("Crashes"),
                down_at_once: 1,
                recover: self.truth("MayRecover"),
                inputs: self.budget("Inputs"),
                fires: self.budget("Fires"),
                ..Faults::NONE
            },
            safeguards,
            keeps: Keeps { requests: Some(self.number("MaxRequests").into()), ..Keeps::default() },
            outside: outside
                .into_iter()
                .filter(|(name, _)| self.truth(name))
                .map(|(_, outside)| outside)
                .collect(),
            writes: None,
            hints: false,
            settled: false,
        };
        let mut world = cluster.world(vec![
            single_writer(),
            unique_holder_per_epoch(),
            read_only_under_another(),
            holder_has_deadline(),
        ]);
        world.canonical = false;
        world
    }
}
