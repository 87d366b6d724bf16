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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::clock::BootInstant;
use crate::node::Guard;

/// Installs the recorder of this process's metrics and gives the handle that shows them.
///
/// # Errors
///
/// If the process has a recorder already: a process has one, so call this once.
pub fn install_recorder() -> Result<PrometheusHandle, String> {
    PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string())
}

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
}

/// The service. Serve it with axum, on an address that is not for everybody.
pub fn router(
    leases: Vec<LeaseHealth>,
    is_running: impl Fn() -> bool + Send + Sync + 'static,
    metrics: PrometheusHandle,
) -> Router {
    let health = Health { leases, is_running: Arc::new(is_running), metrics };
    Router::new()
        .route("/leader", get(the_leader))
        .route("/leader/{lease}", get(leader))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Arc::new(health))
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

fn yes_or_no(is_so: bool) -> Response {
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
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, health.metrics.render()).into_response()
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
