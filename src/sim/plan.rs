//! Plans of faults: drawn from a seed, or read from a file, and made smaller.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The node loses all but what its disk holds, and starts again at the end. What was not synced is
    /// lost from some point on.
    Crash,
    /// The same, at the next moment when the node has saved something and its disk is not done yet.
    CrashWhileSaving,
    /// The node handles nothing; its clock goes on.
    Suspend,
    /// Nothing goes to the node or comes from it.
    Isolate,
    /// Nothing comes to the node; what it says is heard.
    Deaf,
    /// Datagrams from the node are lost, so many in a thousand.
    Loss(u16),
    /// Datagrams from the node are doubled, so many in a thousand.
    Double(u16),
    /// Datagrams from the node take up to so many milliseconds longer, and overtake each other.
    Delay(u16),
    /// Datagrams from the node are cut short, so many in a thousand.
    Truncate(u16),
    /// Datagrams from the node come once more, up to a minute later, so many in a thousand.
    Late(u16),
    /// After so many in a thousand of its datagrams the node says what it has no right to say.
    Lie(u16),
    /// The node's disk takes up to so many milliseconds longer for a save.
    SlowDisk(u16),
    /// A copy of what the node has made durable is kept.
    BackUp,
    /// The node is stopped and put back to its last copy, and starts again at the end.
    Restore,
    /// A stop hook that begins at the node never ends.
    HookHangs,
    /// The work that runs at the node dies, and nobody says so.
    WorkDies,
    /// The node's loop is held up by other work of its process: it handles nothing, and all else goes on.
    Blocked,
    /// What is asked of the node is answered by an error, so many times in a thousand.
    Errors(u16),
    /// A foreign hand changes a field of the record that is on the node's disk, and neither holder nor epoch.
    Meddle,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins, in milliseconds of the simulator's time.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// Which node it strikes.
    pub node: u16,
    /// What it is.
    pub kind: Kind,
}

/// All faults of a run, and by how much each clock is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// By how many parts per million each node's clock is too fast, or too slow if negative.
    pub rates_ppm: Vec<i32>,
    /// The faults, in the order of their beginnings.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Nothing goes wrong.
    pub fn none(nodes: u16) -> Self {
        Self { rates_ppm: vec![0; nodes.into()], faults: Vec::new() }
    }

    /// Draws a plan: some of the kinds, each at some of the nodes, over so many milliseconds; `scale_ms` is
    /// about how long something has to last to matter, `disk_ms` the longest that a slow disk
    /// takes longer. Clocks are wrong by at most `clock_error_ppm`, and
    /// often by all of it.
    pub fn swarm(
        seed: u64,
        nodes: u16,
        length_ms: u64,
        scale_ms: u64,
        disk_ms: u16,
        clock_error_ppm: u32,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7061_6e69);
        let most = i32::try_from(clock_error_ppm).unwrap_or(i32::MAX);
        let rates_ppm = (0..nodes)
            .map(|_| match rng.random_range(0..4) {
                0 => most,
                1 => -most,
                _ => rng.random_range(-most..=most),
            })
            .collect();
        let all = [
            Kind::Crash,
            Kind::CrashWhileSaving,
            Kind::Suspend,
            Kind::Isolate,
            Kind::Deaf,
            Kind::Loss(300),
            Kind::Double(500),
            Kind::Delay(u16::try_from(scale_ms).unwrap_or(u16::MAX)),
            Kind::Truncate(300),
            Kind::SlowDisk(disk_ms),
        ];
        let kinds: Vec<Kind> = all.into_iter().filter(|_| rng.random_bool(0.5)).collect();
        let mut faults = Vec::new();
        let mut at_ms = 0;
        while !kinds.is_empty() {
            at_ms += rng.random_range(0..=scale_ms * 6);
            let for_ms = rng.random_range(1..=scale_ms * 3);
            if at_ms + for_ms >= length_ms {
                break;
            }
            let kind = *kinds.choose(&mut rng).unwrap_or(&Kind::Crash);
            faults.push(Fault { at_ms, for_ms, node: rng.random_range(0..nodes), kind });
        }
        Self { rates_ppm, faults }
    }

    /// The same plan and more: some of what can happen to the work of `hosts` hosts, and errors of the `store`.
    #[must_use]
    pub fn and_to_work(
        mut self,
        seed: u64,
        hosts: u16,
        store: u16,
        length_ms: u64,
        scale_ms: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x776f_726b);
        let all = [Kind::HookHangs, Kind::WorkDies, Kind::Blocked, Kind::Errors(300)];
        let kinds: Vec<Kind> = all.into_iter().filter(|_| rng.random_bool(0.5)).collect();
        let mut at_ms = 0;
        while !kinds.is_empty() {
            at_ms += rng.random_range(0..=scale_ms * 6);
            let for_ms = rng.random_range(1..=scale_ms * 3);
            if at_ms + for_ms >= length_ms {
                break;
            }
            let kind = *kinds.choose(&mut rng).unwrap_or(&Kind::WorkDies);
            let host = rng.random_range(0..hosts);
            let node = if let Kind::Errors(_) = kind { store } else { host };
            self.faults.push(Fault { at_ms, for_ms, node, kind });
        }
        self.faults.sort_by_key(|fault| fault.at_ms);
        self
    }

    /// Takes away whatever is not needed for a failure: a plan that still fails, and of which no single
    /// fault can go.
    pub fn shrink(&self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut plan = self.clone();
        let mut part = plan.faults.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            let mut any = false;
            while at < plan.faults.len() {
                let mut less = plan.clone();
                less.faults.drain(at..(at + part).min(less.faults.len()));
                if fails(&less) {
                    plan = less;
                    any = true;
                } else {
                    at += part;
                }
            }
            if part == 1 && !any {
                break;
            }
            part = part.div_ceil(2);
        }
        for node in 0..plan.rates_ppm.len() {
            let mut less = plan.clone();
            if std::mem::take(&mut less.rates_ppm[node]) != 0 && fails(&less) {
                plan = less;
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shrinks_to_what_is_needed() {
        let plan = (0..).map(|seed| Plan::swarm(seed, 5, 600_000, 1000, 40, 100));
        let plan = plan.into_iter().find(|plan| plan.faults.len() > 30).unwrap();
        let (one, other) = (plan.faults[3], plan.faults[21]);
        let fails = |plan: &Plan| plan.faults.contains(&one) && plan.faults.contains(&other);
        let small = plan.shrink(fails);
        assert_eq!(small.faults, [one, other]);
        assert!(small.rates_ppm.iter().all(|&rate| rate == 0));
    }

    #[test]
    fn a_plan_is_a_function_of_its_seed() {
        let plan = |seed| Plan::swarm(seed, 3, 100_000, 1000, 40, 200);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }
}
