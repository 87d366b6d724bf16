//! How long things have lasted, on the node's own clock.
//!
//! A region's clock runs only while something in the ledger waits for it: one that is frozen and has nothing else
//! to do stands still. An alarm on an age must not stand still with it. So the node follows what its control plane
//! shows, and notes when something began; after a restart it begins anew, and whoever asks takes the greater of
//! this age and that on the region's clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::irc::ControlView;
use crate::irc::facts::Region;
use crate::irc::ledger::Link;
use crate::irc::msg::RecordId;
use crate::node::clock::BootInstant;

/// What was seen of one remote.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The region is frozen towards it since.
    frozen: Option<BootInstant>,
    /// How many complete comparisons there were, and when the last one was seen; or the first look.
    compared: (u64, BootInstant),
    /// The oldest record that it has not acknowledged, and since when it is known here.
    oldest: Option<(RecordId, BootInstant)>,
}

/// The ages of what a control plane shows, in seconds.
#[derive(Debug, Default)]
pub(super) struct Ages(Mutex<BTreeMap<Region, Seen>>);

impl Ages {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Region, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a view. It is called for every one, so it looks at no peering and no record.
    //= SPEC REGION-14
    pub(super) fn see(&self, view: &ControlView, now: BootInstant) {
        let mut all = self.lock();
        for (&region, peer) in view.ledger.peers.iter() {
            let sweeps = view.counts.get(region).sweeps;
            let first = Seen { frozen: None, compared: (sweeps, now), oldest: None };
            let seen = all.entry(region).or_insert(first);
            let is_frozen = matches!(peer.link, Link::Preparing { .. } | Link::Syncing { .. });
            seen.frozen = is_frozen.then(|| seen.frozen.unwrap_or(now));
            if seen.compared.0 != sweeps {
                seen.compared = (sweeps, now);
            }
        }
    }

    /// How long the region is frozen towards a remote; 0 if it is not.
    pub(super) fn frozen(&self, region: Region, now: BootInstant) -> f64 {
        since(self.lock().get(&region).and_then(|seen| seen.frozen), now)
    }

    /// How long ago all that is known was last compared with a remote.
    pub(super) fn compared(&self, region: Region, now: BootInstant) -> f64 {
        since(self.lock().get(&region).map(|seen| seen.compared.1), now)
    }

    /// How long a remote's oldest record has been known to be its oldest.
    pub(super) fn oldest(&self, region: Region, record: Option<RecordId>, now: BootInstant) -> f64 {
        let mut all = self.lock();
        let Some(seen) = all.get_mut(&region) else { return 0.0 };
        let known = |record| seen.oldest.filter(|(id, _)| *id == record).map_or(now, |(_, at)| at);
        seen.oldest = record.map(|record| (record, known(record)));
        since(seen.oldest.map(|(_, at)| at), now)
    }
}

fn since(at: Option<BootInstant>, now: BootInstant) -> f64 {
    at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irc::counts::Counts;
    use crate::irc::ledger::{Ledger, Lost, Peer};

    fn view(link: Link, sweeps: u64) -> ControlView {
        let mut ledger = Ledger::default();
        let (floor, seen, lost) = (None, BTreeMap::new(), Lost::default());
        ledger.peers.insert(Region(1), Peer { floor, link, seen, disposed: false, lost });
        let mut counts = Counts::default();
        counts.of(Region(1)).sweeps = sweeps;
        let (claimed, paces, waiting) = Default::default();
        ControlView { ledger, claimed, paces, waiting, counts }
    }

    //= SPEC REGION-14 test
    #[test]
    fn ages_go_on_while_the_clock_of_the_region_stands_still() {
        let ages = Ages::default();
        let at = |seconds: u64| BootInstant::from_nanos(seconds * 1_000_000_000);
        let all = |now| [ages.frozen(Region(1), at(now)), ages.compared(Region(1), at(now))];
        ages.see(&view(Link::Preparing { nonce: 1 }, 0), at(10));
        assert_eq!(all(10), [0.0, 0.0]);
        assert_eq!(all(25), [15.0, 15.0], "nothing has happened");
        ages.see(&view(Link::Preparing { nonce: 2 }, 0), at(30));
        assert_eq!(all(40), [30.0, 30.0], "it is the same freeze");
        ages.see(&view(Link::Open, 1), at(50));
        assert_eq!(all(60), [0.0, 10.0]);
        ages.see(&view(Link::Open, 1), at(70));
        assert_eq!(all(70), [0.0, 20.0], "no comparison since");
        ages.see(&view(Link::Preparing { nonce: 3 }, 2), at(80));
        assert_eq!(all(81), [1.0, 1.0]);
        let record = |seq| Some(RecordId { n: 1, seq });
        let oldest = |record, now| ages.oldest(Region(1), record, at(now));
        assert_eq!([oldest(record(1), 90), oldest(record(1), 95)], [0.0, 5.0]);
        assert_eq!([oldest(record(2), 97), oldest(None, 99), oldest(record(2), 99)], [0.0; 3]);
        assert_eq!(ages.compared(Region(2), at(99)), 0.0, "it is not known");
    }
}
