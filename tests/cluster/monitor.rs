//! The monitor: who accepted writes, and who said that it might, judged by one clock.
//!
//! # What is concluded, and from what
//!
//! All processes share a machine, so one `CLOCK_BOOTTIME` orders everything. A *sighting* is an
//! interval `[from, to]`: at `from` somebody outside asked a host, at `to` the answer was here. The
//! answer was true at some instant in between. There are two kinds:
//!
//! - a write that the host acknowledged under an epoch: one datagram, sent once under a name of its
//!   own, so that an answer cannot belong to an earlier question;
//! - a status that said "holding" under an epoch with time left before the deadline.
//!
//! Let e < f be two epochs. If a sighting of e begins *after* a sighting of f has ended, then the
//! holder of e acted after the holder of f did: an **overlap**. That is certain, whatever the delays
//! were. The reverse is not: what happens between two probes is not seen, so an overlap shorter than
//! the time between probes (plus the time of one answer) can be missed. Therefore each change of
//! holder is also put into one of two classes: *apart* if the last sighting of e has ended before the
//! first of f has begun, and *close* otherwise. Close is no violation: the intervals only touch.
//!
//! What keeps acknowledgements apart is more than time: a write is acknowledged only when every host
//! that may take over has it, and those refuse it from an old epoch. So acknowledged writes could stay
//! apart even if the timing were wrong. The statuses see the timing alone; and so does the time at
//! which a holder that is cut off acknowledges for the last time, while nobody has taken over yet.
//!
//! An epoch that is seen at two hosts is a violation by itself.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tenure::node::clock::BootInstant;

/// What was seen of one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The index of the host that held it.
    pub host: usize,
    /// When the first sighting began, and when the first one ended.
    pub first_from: BootInstant,
    pub first_to: BootInstant,
    /// When the last sighting began, and when the last one ended.
    pub last_from: BootInstant,
    pub last_to: BootInstant,
    pub count: u64,
}

impl Term {
    fn extend(&mut self, from: BootInstant, to: BootInstant) {
        self.first_from = self.first_from.min(from);
        self.first_to = self.first_to.min(to);
        self.last_from = self.last_from.max(from);
        self.last_to = self.last_to.max(to);
        self.count += 1;
    }
}

/// The kinds of sightings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Accepted,
    Published,
}

#[derive(Debug, Default)]
struct Ledger {
    accepted: BTreeMap<u64, Term>,
    published: BTreeMap<u64, Term>,
    twice: Vec<String>,
}

/// Collects sightings from any number of threads.
#[derive(Debug, Default)]
pub struct Monitor(Mutex<Ledger>);

/// What the monitor has found in the end.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must not be: overlaps, and epochs of two hosts.
    pub violations: Vec<String>,
    /// Changes of holder that were seen by accepted writes of both, and how many of them are
    /// certainly apart.
    pub changes: usize,
    pub apart: usize,
    /// The shortest time from the last accepted write of one holder to the first of the next.
    pub closest: Option<Duration>,
    /// Accepted probes.
    pub probes: u64,
}

impl Monitor {
    pub fn note(&self, kind: Kind, host: usize, epoch: u64, from: BootInstant, to: BootInstant) {
        let mut ledger = self.0.lock().unwrap();
        let Ledger { accepted, published, twice } = &mut *ledger;
        let other = match kind {
            Kind::Accepted => published.get(&epoch),
            Kind::Published => accepted.get(&epoch),
        };
        let known_host = other.map(|term| term.host);
        let terms = if kind == Kind::Accepted { accepted } else { published };
        let new =
            Term { host, first_from: from, first_to: to, last_from: from, last_to: to, count: 0 };
        let term = terms.entry(epoch).or_insert(new);
        if term.host != host || known_host.is_some_and(|known| known != host) {
            twice.push(format!(
                "epoch {epoch} at hosts {:?} and {host}",
                known_host.unwrap_or(term.host)
            ));
        }
        term.extend(from, to);
    }

    pub fn term(&self, kind: Kind, epoch: u64) -> Option<Term> {
        let ledger = self.0.lock().unwrap();
        let terms = if kind == Kind::Accepted { &ledger.accepted } else { &ledger.published };
        terms.get(&epoch).copied()
    }

    /// The first term above this epoch, in the order of epochs.
    pub fn next_after(&self, kind: Kind, epoch: u64) -> Option<(u64, Term)> {
        let ledger = self.0.lock().unwrap();
        let terms = if kind == Kind::Accepted { &ledger.accepted } else { &ledger.published };
        terms.range(epoch + 1..).next().map(|(&epoch, &term)| (epoch, term))
    }

    pub fn verdict(&self) -> Verdict {
        let ledger = self.0.lock().unwrap();
        let mut verdict = Verdict { violations: ledger.twice.clone(), ..Verdict::default() };
        // Both kinds together: a host that says that it holds may not do so after a later holder
        // accepted a write, and the other way round.
        let mut all = ledger.accepted.clone();
        for (&epoch, seen) in &ledger.published {
            let term = all.entry(epoch).or_insert(*seen);
            term.extend(seen.first_from, seen.first_to);
            term.extend(seen.last_from, seen.last_to);
        }
        let all: Vec<_> = all.into_iter().collect();
        for (at, (low, old)) in all.iter().enumerate() {
            for (high, new) in &all[at + 1..] {
                if old.last_from > new.first_to {
                    let by = old.last_from.saturating_duration_since(new.first_to);
                    verdict.violations.push(format!(
                        "host {} acted under epoch {low} at least {by:?} after host {} had acted \
                         under epoch {high}",
                        old.host, new.host
                    ));
                }
            }
        }
        let accepted: Vec<_> = ledger.accepted.values().collect();
        for pair in accepted.windows(2) {
            verdict.changes += 1;
            if let Some(gap) = pair[1].first_from.checked_duration_since(pair[0].last_to) {
                verdict.apart += 1;
                verdict.closest = Some(verdict.closest.map_or(gap, |known| known.min(gap)));
            } else {
                verdict.closest = Some(Duration::ZERO);
            }
        }
        verdict.probes = accepted.iter().map(|term| term.count).sum();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(monitor: &Monitor, host: usize, epoch: u64, from: u64, to: u64) {
        let at = BootInstant::from_nanos;
        monitor.note(Kind::Accepted, host, epoch, at(from), at(to));
    }

    #[test]
    fn only_what_is_certain_is_an_overlap() {
        for (old, expected, apart) in
            [((5, 9), 0, 1), ((5, 15), 0, 0), ((19, 25), 0, 0), ((21, 25), 1, 0)]
        {
            let monitor = Monitor::default();
            note(&monitor, 0, 1, 1, 2);
            note(&monitor, 0, 1, old.0, old.1);
            note(&monitor, 1, 2, 10, 20);
            let verdict = monitor.verdict();
            assert_eq!(verdict.violations.len(), expected, "{old:?}: {verdict:?}");
            assert_eq!((verdict.changes, verdict.apart), (1, apart), "{old:?}");
        }
    }

    #[test]
    fn a_claim_after_a_later_holder_wrote_is_an_overlap() {
        let monitor = Monitor::default();
        let at = BootInstant::from_nanos;
        note(&monitor, 1, 2, 10, 20);
        monitor.note(Kind::Published, 0, 1, at(21), at(22));
        assert_eq!(monitor.verdict().violations.len(), 1);
    }

    #[test]
    fn an_epoch_of_two_hosts_is_a_violation() {
        let monitor = Monitor::default();
        note(&monitor, 0, 1, 1, 2);
        note(&monitor, 1, 1, 3, 4);
        assert_eq!(monitor.verdict().violations.len(), 1);
    }
}
