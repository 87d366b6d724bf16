//! What a control plane counts, for operators. Nothing that it does depends on a count.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::facts::Region;

/// What has been counted of one remote since the control plane's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Pieces of work that were handed out for the first time.
    pub first_sends: u64,
    /// Pieces of work that were handed out again.
    pub retries: u64,
    /// Calls that the remote has not answered in time, or has refused for now.
    pub failures: u64,
    /// Reports under an epoch that was not the claim's: fencing works.
    pub stale_reports: u64,
    /// Claims that ran out without a report.
    pub lost_claims: u64,
    /// Calls of the remote that were not new.
    pub old_calls: u64,
    /// Calls of a life of the remote that is not the one that was promised to.
    pub stale_lives: u64,
    /// Comparisons with the remote that have come to their end.
    pub sweeps: u64,
    /// Own facts that came back under a seal that is not the own one.
    pub bad_seals: u64,
    /// Facts that contradict what is known: a peering is stuck since.
    pub conflicts: u64,
}

/// The counts of all remotes. They are no part of a state's identity: two states that differ in nothing
/// else are equal and have one hash.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<Region, Count>);

impl Counts {
    pub(crate) fn of(&mut self, region: Region) -> &mut Count {
        self.0.entry(region).or_default()
    }

    /// Those of one remote.
    pub fn get(&self, region: Region) -> Count {
        self.0.get(&region).copied().unwrap_or_default()
    }
}

impl PartialEq for Counts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Counts {}
impl PartialOrd for Counts {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Counts {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}
impl Hash for Counts {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
