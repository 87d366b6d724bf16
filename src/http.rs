//! Health and metrics over HTTP.
//!
//! | path | 200 while | otherwise |
//! |---|---|---|
//! | `/leader`, `/leader/{lease}` | this process holds the lease and its local deadline lies ahead | 503 |
//! | `/healthz` | the process runs, also as a watcher | 503 |
//! | `/readyz` | each lease's record has been seen, and the process can serve its role | 503 |
//! | `/metrics` | always: the text format of Prometheus | |
//!
//! Each answer asks the guard at that moment, so an elector that is stuck does not stay leader. What asks here
//! gets an answer that is old when it arrives: it is for load balancers and people, and no substitute for the
//! epoch that goes with each effect (L-28).

#![allow(clippy::disallowed_methods, reason = "no lease depends on how long a connection may wait")]

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::BootInstant;
use crate::node::Guard;
use crate::node::clock::SteeringMeter;

/// Bounds of the buckets of every histogram of times, in seconds.
const BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds of the buckets of the saves of a transaction.
const SAVES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0];

/// Installs the recorder of this process's metrics and gives the handle that shows them. Call it before an elector is
/// started: what has happened by then is counted nowhere.
///
/// | name | what |
/// |---|---|
/// | `lease_is_leader{lease}` | 1 while this process holds the lease and the deadline lies ahead |
/// | `lease_epoch{lease}` | the epoch of the last term here |
/// | `lease_valid_seconds{lease}` | time left of the term: the one to alert on |
/// | `renew_seconds{lease}` | histogram: a conditional write, from its send to the answer that it is committed |
/// | `renew_failures_total{lease,kind}` | `conflict`, `timeout` (no answer before the next attempt), `ambiguous` (a store said that it does not know) |
/// | `transitions_total{lease,reason}` | changes of the role |
/// | `self_fence_total{lease}` | terms that ran out, instead of being given back or taken away |
/// | `hook_seconds{lease}` | histogram: how long the stop hooks took |
/// | `observed_skew_rate` | see [`SteeringMeter`] |
/// | `key_expiry_timestamp_seconds{node}` | when the last key of a node runs out, since 1970; of nodes that seal their datagrams |
/// | `storage_commit_seconds` | histogram: how long one transaction took to be durable |
/// | `storage_commit_saves` | histogram: how many saves it has made durable |
///
/// # Errors
///
/// If the process has a recorder already: a process has one, so call this once.
pub fn install_recorder() -> Result<PrometheusHandle, String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let saves = Matcher::Full("storage_commit_saves".to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets(&BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(saves, &SAVES))
        .map_err(|error| text(&error))?;
    let handle = builder.install_recorder().map_err(|error| text(&error))?;
    describe_gauge!("lease_is_leader", "1 while the lease is held and its deadline lies ahead.");
    describe_gauge!("lease_epoch", "The epoch of the last term of this process.");
    describe_gauge!("lease_valid_seconds", Unit::Seconds, "Time left before the term ends.");
    describe_histogram!(
        "renew_seconds",
        Unit::Seconds,
        "A conditional write of the record, from its send to its commit."
    );
    describe_counter!("renew_failures_total", "Conditional writes that have failed, by kind.");
    describe_counter!("transitions_total", "Changes of the role, by reason.");
    describe_counter!("self_fence_total", "Terms that have run out without being renewed.");
    describe_histogram!("hook_seconds", Unit::Seconds, "How long the stop hooks have taken.");
    describe_gauge!(
        "observed_skew_rate",
        "How much faster the system's clock is made to run than its oscillator; 1e-6 is 1 ppm."
    );
    describe_gauge!(
        "key_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the last key of a node runs out, in seconds since 1970."
    );
    describe_histogram!(
        "storage_commit_seconds",
        Unit::Seconds,
        "How long one transaction has taken to be durable."
    );
    describe_histogram!("storage_commit_saves", "How many saves one transaction has made durable.");
    Ok(handle)
}

/// How many connections are served at once.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent before it has asked something, and how long it may last.
const IDLE_MAX: Duration = Duration::from_secs(10);
const LIFE_MAX: Duration = Duration::from_secs(60);

type Question = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is shown of one lease.
#[derive(Clone)]
pub struct LeaseHealth {
    name: String,
    guard: Arc<Guard>,
    is_ready: Question,
}

impl LeaseHealth {
    /// Shows the lease that this guard guards; `is_ready` says whether its record has been seen lately.
    pub fn new(
        name: impl Into<String>,
        guard: Arc<Guard>,
        is_ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), guard, is_ready: Arc::new(is_ready) }
    }
}

impl fmt::Debug for LeaseHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseHealth").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Health {
    leases: Vec<LeaseHealth>,
    is_running: Question,
    metrics: PrometheusHandle,
    steering: Mutex<SteeringMeter>,
}

/// The service. [`serve`] it on an address that is not for everybody.
pub fn router(
    leases: Vec<LeaseHealth>,
    is_running: impl Fn() -> bool + Send + Sync + 'static,
    metrics: PrometheusHandle,
) -> Router {
    let steering = Mutex::new(SteeringMeter::new());
    let health = Health { leases, is_running: Arc::new(is_running), metrics, steering };
    Router::new()
        .route("/leader", get(the_leader))
        .route("/leader/{lease}", get(leader))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Arc::new(health))
}

/// Serves it until the future is dropped. Whoever asks takes no more of the process than [`CONNECTIONS_MAX`] descriptors: a
/// connection beyond that is closed, one that asks nothing ends after 10 s, and any after a minute.
//= SPEC GUARD-31
pub async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that is gone already.
                tracing::warn!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            if timeout(LIFE_MAX, connection.as_mut()).await.is_err() {
                connection.as_mut().graceful_shutdown();
                // Whatever fails here, fails because the other side does not read.
                let _ = timeout(IDLE_MAX, connection).await;
            }
            drop(place);
        });
    }
}

type Shared = State<Arc<Health>>;

async fn the_leader(State(health): Shared) -> Response {
    match &health.leases[..] {
        [lease] => about_leader(lease),
        leases => {
            let names: Vec<_> = leases.iter().map(|lease| lease.name.as_str()).collect();
            let text = format!("name the lease, as in /leader/NAME: {}\n", names.join(", "));
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

async fn leader(State(health): Shared, Path(name): Path<String>) -> Response {
    match health.leases.iter().find(|lease| lease.name == name) {
        Some(lease) => about_leader(lease),
        None => (StatusCode::NOT_FOUND, "there is no such lease here\n").into_response(),
    }
}

//= SPEC GUARD-16
fn about_leader(lease: &LeaseHealth) -> Response {
    match lease.guard.permit(Duration::ZERO) {
        Ok(permit) => {
            let left = permit.deadline().saturating_duration_since(BootInstant::now());
            let text = format!("epoch {} for {:.3} s\n", permit.epoch(), left.as_secs_f64());
            (StatusCode::OK, text).into_response()
        }
        Err(lost) => (StatusCode::SERVICE_UNAVAILABLE, format!("{lost}\n")).into_response(),
    }
}

pub(crate) fn yes_or_no(is_so: bool) -> Response {
    match is_so {
        true => (StatusCode::OK, "yes\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no\n").into_response(),
    }
}

async fn healthz(State(health): Shared) -> Response {
    yes_or_no((health.is_running)())
}

async fn readyz(State(health): Shared) -> Response {
    yes_or_no((health.is_running)() && health.leases.iter().all(|lease| (lease.is_ready)()))
}

async fn show_metrics(State(health): Shared) -> Response {
    for lease in &health.leases {
        measure(lease);
    }
    let rate = health.steering.lock().unwrap_or_else(PoisonError::into_inner).rate();
    if let Some(rate) = rate {
        metrics::gauge!("observed_skew_rate").set(rate);
    }
    show(&health.metrics)
}

/// Everything that was measured, in the text format of Prometheus.
pub(crate) fn show(metrics: &PrometheusHandle) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics.render()).into_response()
}

/// What changes by the mere passing of time is measured when somebody asks.
fn measure(lease: &LeaseHealth) {
    let permit = lease.guard.permit(Duration::ZERO).ok();
    let left = permit.map_or(Duration::ZERO, |permit| {
        permit.deadline().saturating_duration_since(BootInstant::now())
    });
    let name = || lease.name.clone();
    metrics::gauge!("lease_is_leader", "lease" => name())
        .set(f64::from(u8::from(permit.is_some())));
    metrics::gauge!("lease_valid_seconds", "lease" => name()).set(left.as_secs_f64());
    if let Some(permit) = permit {
        metrics::gauge!("lease_epoch", "lease" => name()).set(permit.epoch() as f64);
    }
}
