//! Health and metrics of a region's nodes over HTTP.
//!
//! | path | 200 while | otherwise |
//! |---|---|---|
//! | `/healthz` | the node runs | 503 |
//! | `/readyz` | it has started, and takes calls (a server: work), so it is not drained | 503 |
//! | `/metrics` | always: the text format of Prometheus | |
//!
//! A control plane that is frozen is ready: it answers its customers. The names of the metrics are at
//! `describe`. Alarms belong on the ages, not on numbers of records. An age is the greater of that on the
//! region's own clock, whose unit is a tick, and that on the node's clock since its start.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use super::INDEX;
use super::ages::Ages;
use super::looks::disagreements;
use crate::config::Config;
use crate::http::{show, yes_or_no};
use crate::irc::facts::Region;
use crate::irc::ledger::Link;
use crate::irc::pace::{Breaker, Pace};
use crate::irc::peering::Label;
use crate::irc::{ControlView, Party, View};
use crate::node::Handle;
use crate::node::clock::BootInstant;

/// What is asked about.
struct Health {
    handle: Arc<Handle<Party>>,
    config: Arc<Config>,
    metrics: PrometheusHandle,
    ages: Arc<Ages>,
}

/// The service of a node of a region. Serve it with axum, on an address that is not for everybody. It follows what
/// the node shows, so it must be made within a tokio runtime.
//= SPEC REGION-12
pub fn router(
    handle: Arc<Handle<Party>>,
    config: Arc<Config>,
    metrics: PrometheusHandle,
) -> Router {
    describe();
    let ages = Arc::new(Ages::default());
    tokio::spawn(follow(Arc::clone(&handle), Arc::clone(&ages)));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Arc::new(Health { handle, config, metrics, ages }))
}

/// Shows `ages` whatever a control plane shows, until the node ends.
async fn follow(handle: Arc<Handle<Party>>, ages: Arc<Ages>) {
    let Some(mut views) = handle.views(INDEX) else { return };
    drop(handle);
    loop {
        if let Some(View::Control(view)) =
            views.borrow_and_update().as_ref().map(|published| &published.view)
        {
            ages.see(view, BootInstant::now());
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Says what each metric is. All but the last five have the label `remote`, the other region.
///
/// | name | what |
/// |---|---|
/// | `irc_oldest_unacknowledged_seconds` | age of the oldest record that the remote has not acknowledged |
/// | `irc_queue_depth`, `irc_in_flight`, `irc_waiting` | records that are to be delivered; claims that are out; work that was tried in vain |
/// | `irc_dead_letters` | records that are set aside |
/// | `irc_first_sends_total`, `irc_retries_total`, `irc_call_failures_total` | pieces of work by how they were handed out; calls that came to nothing |
/// | `irc_retry_budget` | retries that may go out now |
/// | `irc_breaker_state` | 0 closed, 1 ramping, 2 open |
/// | `irc_frozen`, `irc_frozen_seconds` | whether, and for how long, the region is frozen towards the remote |
/// | `irc_sweep_age_seconds` | time since all that is known was last compared with the remote, or since the start |
/// | `irc_disagreements`, `irc_disagreement_seconds` | peerings of which the two sides may have different views, and the greatest age |
/// | `irc_stale_reports_total`, `irc_old_calls_total`, `irc_stale_incarnations_total` | what fencing has kept out |
/// | `irc_lease_expiries_total` | claims that ran out without a report |
/// | `irc_seal_failures_total`, `irc_conflicting_facts_total` | must be 0 |
/// | `irc_peerings{state}` | peerings by their state |
/// | `irc_drained` | takes no calls, or no work |
/// | `irc_server_working`, `irc_server_reports_total` | of an IRC server: claims that it works on; reports that counted |
/// | `irc_server_unknown_remote` | of an IRC server: claims for regions that its cluster file does not have |
fn describe() {
    let gauges = [
        ("irc_queue_depth", "Records that are to be delivered to the remote."),
        ("irc_in_flight", "Claims towards the remote that are out."),
        ("irc_waiting", "Work for the remote that was tried in vain and waits."),
        ("irc_dead_letters", "Records for the remote that are set aside."),
        ("irc_retry_budget", "Retries towards the remote that may go out now."),
        ("irc_breaker_state", "0 closed, 1 ramping up, 2 open: only probes go out."),
        ("irc_frozen", "1 while the region is frozen towards the remote."),
        ("irc_disagreements", "Peerings of which the two sides may have different views."),
        ("irc_peerings", "Peerings by their state here."),
        ("irc_drained", "1 while the node takes no calls, or no work."),
        ("irc_server_working", "Claims that the server works on."),
        ("irc_server_unknown_remote", "Claims for regions that the server's file does not have."),
    ];
    for (name, what) in gauges {
        describe_gauge!(name, what);
    }
    let ages = [
        (
            "irc_oldest_unacknowledged_seconds",
            "Age of the oldest record that the remote has not acknowledged.",
        ),
        (
            "irc_sweep_age_seconds",
            "Time since all that is known was last compared with the remote, or since the start.",
        ),
        ("irc_frozen_seconds", "How long the region is frozen towards the remote."),
        (
            "irc_disagreement_seconds",
            "How long the sides may have had different views of a peering: the longest.",
        ),
    ];
    for (name, what) in ages {
        describe_gauge!(name, Unit::Seconds, what);
    }
    let counters = [
        ("irc_first_sends_total", "Pieces of work that were handed out for the first time."),
        ("irc_retries_total", "Pieces of work that were handed out again."),
        ("irc_call_failures_total", "Calls that were not answered, or refused for now."),
        ("irc_stale_reports_total", "Reports and extensions under an old claim."),
        ("irc_old_calls_total", "Calls of the remote that were not new."),
        ("irc_stale_incarnations_total", "Calls of an unpromised life of the remote."),
        ("irc_lease_expiries_total", "Claims that ran out without a report."),
        ("irc_seal_failures_total", "Own facts that came back under a foreign seal."),
        ("irc_conflicting_facts_total", "Facts that contradict what is known."),
        ("irc_server_reports_total", "Reports of the server that counted."),
    ];
    for (name, what) in counters {
        describe_counter!(name, what);
    }
}

type Shared = State<Arc<Health>>;

async fn healthz(State(health): Shared) -> Response {
    yes_or_no(health.handle.exit().is_none())
}

async fn readyz(State(health): Shared) -> Response {
    yes_or_no(
        health.handle.exit().is_none() && health.view().is_some_and(|view| takes_calls(&view)),
    )
}

fn takes_calls(view: &View) -> bool {
    match view {
        View::Control(view) => !view.ledger.head.drained,
        View::Server { drained, .. } => !drained,
        View::Customer { .. } => true,
    }
}

async fn show_metrics(State(health): Shared) -> Response {
    if let Some(view) = health.view() {
        gauge!("irc_drained").set(flag(!takes_calls(&view)));
        match view {
            View::Control(view) => health.measure(&view),
            View::Server { working, done, unknown, .. } => {
                gauge!("irc_server_working").set(working as f64);
                gauge!("irc_server_unknown_remote").set(unknown as f64);
                counter!("irc_server_reports_total").absolute(done);
            }
            View::Customer { .. } => {}
        }
    }
    show(&health.metrics)
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl Health {
    fn view(&self) -> Option<View> {
        let views = self.handle.views(INDEX)?;
        views.borrow().as_ref().map(|published| published.view.clone())
    }

    /// What a control plane knows, when somebody asks.
    fn measure(&self, view: &ControlView) {
        for label in Label::ALL {
            let ledger = &view.ledger;
            let is_it = |id| ledger.label(id) == Some(label);
            let count = ledger.peerings.keys().filter(|&id| is_it(id)).count();
            gauge!("irc_peerings", "state" => label.to_string()).set(count as f64);
        }
        let different = disagreements(view);
        let instant = BootInstant::now();
        // What is asked about may be newer than what was followed.
        self.ages.see(view, instant);
        for (&region, peer) in view.ledger.peers.iter() {
            let remote = || self.config.region_name(region).to_owned();
            let records = view.ledger.records.iter().filter(|(_, one)| one.remote == region);
            let (mut depth, mut parked, mut since, mut oldest) = (0_u32, 0_u32, None, None);
            for (&id, record) in records {
                *(if record.parked { &mut parked } else { &mut depth }) += 1;
                since = since.into_iter().chain([record.since]).min();
                oldest = oldest.or(Some(id));
            }
            let now = view.ledger.head.clock;
            let age = |since: u64| self.seconds(now.saturating_sub(since));
            let unacknowledged =
                since.map_or(0.0, age).max(self.ages.oldest(region, oldest, instant));
            gauge!("irc_oldest_unacknowledged_seconds", "remote" => remote()).set(unacknowledged);
            gauge!("irc_queue_depth", "remote" => remote()).set(depth);
            gauge!("irc_dead_letters", "remote" => remote()).set(parked);
            let of = |counts: &std::collections::BTreeMap<Region, usize>| {
                counts.get(&region).copied().unwrap_or(0) as f64
            };
            gauge!("irc_in_flight", "remote" => remote()).set(of(&view.claimed));
            gauge!("irc_waiting", "remote" => remote()).set(of(&view.waiting));
            let pace = view.paces.get(&region).copied().unwrap_or_default();
            gauge!("irc_retry_budget", "remote" => remote()).set(pace.retries());
            gauge!("irc_breaker_state", "remote" => remote()).set(breaker(&pace));
            let frozen = matches!(peer.link, Link::Preparing { .. } | Link::Syncing { .. });
            gauge!("irc_frozen", "remote" => remote()).set(flag(frozen));
            let on_clock = if frozen { age(peer.lost.since) } else { 0.0 };
            let frozen_for = on_clock.max(self.ages.frozen(region, instant));
            gauge!("irc_frozen_seconds", "remote" => remote()).set(frozen_for);
            let with_it = different.iter().filter(|one| one.peer == region);
            let longest = with_it.clone().filter_map(|one| one.age).max();
            let of_it = |is_so: bool, age: f64| if is_so { age } else { 0.0 };
            let longest = longest
                .map_or(0.0, |age| self.seconds(age))
                .max(of_it(with_it.clone().any(|one| one.frozen), frozen_for))
                .max(of_it(with_it.clone().any(|one| one.record.is_some()), unacknowledged));
            gauge!("irc_disagreements", "remote" => remote()).set(with_it.count() as f64);
            gauge!("irc_disagreement_seconds", "remote" => remote()).set(longest);
            // A region that is gone for good is compared with no more.
            let compared = self.ages.compared(region, instant);
            gauge!("irc_sweep_age_seconds", "remote" => remote()).set(if peer.disposed {
                0.0
            } else {
                compared
            });
            let count = view.counts.get(region);
            for (name, count) in [
                ("irc_first_sends_total", count.first_sends),
                ("irc_retries_total", count.retries),
                ("irc_call_failures_total", count.failures),
                ("irc_stale_reports_total", count.stale_reports),
                ("irc_old_calls_total", count.old_calls),
                ("irc_stale_incarnations_total", count.stale_lives),
                ("irc_lease_expiries_total", count.lost_claims),
                ("irc_seal_failures_total", count.bad_seals),
                ("irc_conflicting_facts_total", count.conflicts),
            ] {
                counter!(name, "remote" => remote()).absolute(count);
            }
        }
    }

    /// Ticks of this region's clock, in seconds.
    fn seconds(&self, ticks: u64) -> f64 {
        let own = self.config.region_of(self.handle.me());
        own.map_or(0.0, |own| ticks as f64 * own.policy.tick.as_secs_f64())
    }
}

fn breaker(pace: &Pace) -> f64 {
    match pace.breaker {
        Breaker::Closed => 0.0,
        Breaker::Ramping(_) => 1.0,
        Breaker::Open { .. } => 2.0,
    }
}
