//! Who watches the cluster of the demo: a monitor of all hosts on one clock, and a client that writes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::{HOSTS, LEASE, PATIENCE, Run};
use crate::lease::msg::Msg;
use crate::lease::record::Epoch;
use crate::lease::{Member, Role, View};
use crate::node::clock::BootInstant;
use crate::node::{Handle, Published};

/// How often the monitor looks.
const SAMPLE_EVERY: Duration = Duration::from_micros(500);
/// How often the demo looks when it waits for something.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// The client's pause between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(25);

pub(super) type Views = watch::Receiver<Option<Published<View>>>;

/// Takes a lock that somebody may have panicked with: each value here is whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a node that has published this may write at that instant, and under which epoch.
pub(super) fn writable(published: Option<&Published<View>>, now: BootInstant) -> Option<Epoch> {
    match published {
        Some(Published { view: View::Host(view), deadline: Some(deadline) })
            if view.role == Role::Holding && now < *deadline =>
        {
            view.epoch
        }
        _ => None,
    }
}

/// A time during which one host was seen to be writable all along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    host: usize,
    pub(super) epoch: Epoch,
    pub(super) begin: BootInstant,
    end: BootInstant,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) samples: u64,
    /// How often two hosts were writable in one instant.
    overlaps: u64,
    pub(super) terms: Vec<Term>,
}

/// Looks at what all hosts have published, on one clock.
pub(super) struct Monitor {
    hosts: Arc<Mutex<Vec<Option<Views>>>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(super) fn start() -> io::Result<Self> {
        let hosts = Arc::new(Mutex::new(vec![None; HOSTS.len()]));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn({
            let (hosts, seen, stop) = (Arc::clone(&hosts), Arc::clone(&seen), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Acquire) {
                    let views: Vec<Option<Views>> = lock(&hosts).clone();
                    lock(&seen).sample(&views);
                    std::thread::sleep(SAMPLE_EVERY);
                }
            }
        })?;
        Ok(Self { hosts, seen, stop, thread: Some(thread) })
    }

    pub(super) fn look_at(&self, host: usize, views: Views) {
        lock(&self.hosts)[host] = Some(views);
    }

    pub(super) fn finish(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    pub(super) fn sample(&mut self, hosts: &[Option<Views>]) {
        let look = || -> Vec<Option<(Epoch, BootInstant)>> {
            let look_at = |views: &Option<Views>| {
                // The clock is read while the view cannot change, so it is true at that instant.
                let published = views.as_ref()?.borrow();
                let now = BootInstant::now();
                writable(published.as_ref(), now).map(|epoch| (epoch, now))
            };
            hosts.iter().map(look_at).collect()
        };
        // One host's view is read after the other's. Whoever is writable under one epoch in both
        // rounds was so in between, and the times in between of all hosts have an instant in common.
        let (first, second) = (look(), look());
        self.samples += 1;
        let mut count = 0;
        for (host, (first, second)) in first.into_iter().zip(second).enumerate() {
            let (Some((epoch, begin)), Some((same, end))) = (first, second) else { continue };
            if epoch != same {
                continue;
            }
            count += 1;
            let last = self.terms.iter_mut().rev().find(|term| term.host == host);
            match last {
                Some(term) if term.epoch == epoch => term.end = end,
                _ => self.terms.push(Term { host, epoch, begin, end }),
            }
        }
        self.overlaps += u64::from(count > 1);
    }

    /// Overlaps of recorded terms, and the shortest time between the end of one and the next.
    pub(super) fn judge(&self) -> (u64, Option<Duration>) {
        let mut terms = self.terms.clone();
        terms.sort_by_key(|term| term.begin);
        let mut overlaps = self.overlaps;
        let mut closest: Option<Duration> = None;
        for pair in terms.windows(2) {
            match pair[1].begin.checked_duration_since(pair[0].end) {
                Some(gap) => closest = Some(closest.map_or(gap, |closest| closest.min(gap))),
                None => overlaps += 1,
            }
        }
        (overlaps, closest)
    }
}

/// One acknowledged write.
pub(super) struct Written {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) submitted: BootInstant,
    pub(super) acknowledged: BootInstant,
}

/// Writes one row after the other through the client node, for as long as the demo runs.
pub(super) struct Writer {
    pub(super) written: Arc<Mutex<Vec<Written>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Run<()>>>,
}

impl Writer {
    pub(super) fn start(client: Arc<Handle<Member>>) -> io::Result<Self> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn({
            let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
            move || write_all(&client, &written, &stop)
        })?;
        Ok(Self { written, stop, thread: Some(thread) })
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.written).len()
    }

    /// The longest time that a write took which was acknowledged since then.
    pub(super) fn longest_since(&self, since: BootInstant) -> Duration {
        let took = |write: &Written| write.acknowledged.saturating_duration_since(write.submitted);
        let written = lock(&self.written);
        let recent = written.iter().rev().take_while(|write| write.acknowledged >= since);
        recent.map(took).max().unwrap_or_default()
    }

    pub(super) fn finish(&mut self) -> Run<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err("the writer has failed: please report it".to_owned()),
            None => Ok(()),
        }
    }
}

pub(super) fn write_all(
    client: &Handle<Member>,
    written: &Mutex<Vec<Written>>,
    stop: &AtomicBool,
) -> Run<()> {
    let views = client.views(LEASE).ok_or("the client has no part in the lease")?;
    for n in 1.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let (key, value) = (format!("order-{n:05}"), format!("paid-{n}"));
        let submitted = BootInstant::now();
        let submit = Msg::Submit { key: key.clone(), value: value.clone() };
        client.tell(LEASE, submit).map_err(|error| error.to_string())?;
        let is_done = || match &*views.borrow() {
            Some(Published { view: View::Client { acknowledged, .. }, .. }) => *acknowledged >= n,
            _ => false,
        };
        wait_until("a write was acknowledged", PATIENCE, is_done)?;
        let acknowledged = BootInstant::now();
        lock(written).push(Written { key, value, submitted, acknowledged });
        std::thread::sleep(WRITE_EVERY);
    }
    Ok(())
}

/// Waits until something is so, and says when it was seen.
pub(super) fn wait_until(
    what: &str,
    patience: Duration,
    is_so: impl Fn() -> bool,
) -> Run<BootInstant> {
    let until = BootInstant::now().saturating_add(patience);
    loop {
        if is_so() {
            return Ok(BootInstant::now());
        }
        if BootInstant::now() > until {
            return Err(format!("{} s went by before {what}", patience.as_secs_f64()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_overlap_are_noticed() {
        let term = |host, begin, end| Term {
            host,
            epoch: 1,
            begin: BootInstant::from_nanos(begin),
            end: BootInstant::from_nanos(end),
        };
        let seen = Seen { terms: vec![term(0, 1, 5), term(1, 7, 9)], ..Seen::default() };
        assert_eq!(seen.judge(), (0, Some(Duration::from_nanos(2))));
        let seen = Seen { terms: vec![term(1, 7, 9), term(0, 1, 8)], ..Seen::default() };
        assert_eq!(seen.judge(), (1, None));
    }
}
