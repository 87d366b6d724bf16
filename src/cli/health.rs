//! What a node tells its surroundings: health and metrics over HTTP, and the service manager.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics_exporter_prometheus::PrometheusHandle;
use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::config::{Config, Node, Role as NodeRole};
use crate::http::{LeaseHealth, install_recorder, router};
use crate::lease::{Member, Role, View};
use crate::node::{Handle, Published, Runnable, Spec, launch};

type Views = watch::Receiver<Option<Published<View>>>;

/// Whether a host has seen the record of its lease.
fn is_ready(views: &Views) -> bool {
    match views.borrow().as_ref().map(|published| &published.view) {
        Some(View::Host(view)) => view.seen_version.is_some() || view.role == Role::Holding,
        Some(_) => true,
        None => false,
    }
}

/// Installs the recorder of the metrics, and counts the steps of the node that is to be started.
///
/// # Errors
///
/// If the process has a recorder already.
pub(super) fn count(
    config: &Config,
    spec: &mut Spec<Member>,
    node: &Node,
) -> Result<PrometheusHandle, String> {
    let metrics = install_recorder()?;
    if node.role == NodeRole::Host {
        let leases = launch::leases_of(config, node);
        let names = leases.map(|lease| (lease.index, lease.name.clone())).collect();
        super::meter::count_steps(spec, names);
    }
    Ok(metrics)
}

/// Serves health and metrics of a node until it ends.
///
/// # Errors
///
/// If the address cannot be bound.
pub(super) async fn serve(
    address: SocketAddr,
    metrics: PrometheusHandle,
    config: &Config,
    node: &Node,
    handle: &Arc<Handle<Member>>,
) -> Result<(), String> {
    let leases = launch::leases_of(config, node)
        .filter_map(|lease| {
            let views = handle.views(lease.index)?;
            if node.role == NodeRole::Host {
                tokio::spawn(count_transitions(lease.name.clone(), views.clone()));
            }
            let guard = handle.guard(lease.index)?;
            Some(LeaseHealth::new(&lease.name, guard, move || is_ready(&views)))
        })
        .collect();
    let has_ended = Arc::new(AtomicBool::new(false));
    let (ended, running) = (Arc::clone(handle), Arc::clone(&has_ended));
    tokio::spawn(async move {
        ended.ended().await;
        has_ended.store(true, Ordering::Release);
    });
    let router = router(leases, move || !running.load(Ordering::Acquire), metrics);
    serve_router(address, router).await
}

/// Serves over HTTP for as long as the process runs.
///
/// # Errors
///
/// If the address cannot be bound.
pub(super) async fn serve_router(address: SocketAddr, router: axum::Router) -> Result<(), String> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot bind the HTTP address {address} ({error})"))?;
    tokio::spawn(crate::http::serve(listener, router));
    Ok(())
}

/// Counts changes of a host's role. One that is over before anybody could look is not seen.
async fn count_transitions(lease: String, mut views: Views) {
    // Every host begins as a watcher.
    let mut last = Role::Watching;
    loop {
        let role = match views.borrow_and_update().as_ref() {
            Some(Published { view: View::Host(view), .. }) => view.role,
            _ => last,
        };
        if role != last {
            let reason = super::node::role_name(role);
            metrics::counter!("transitions_total", "lease" => lease.clone(), "reason" => reason)
                .increment(1);
        }
        last = role;
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Counts how long the work of a lease has taken to end.
pub(super) fn hooks_took(lease: &str, took: std::time::Duration) {
    metrics::histogram!("hook_seconds", "lease" => lease.to_owned()).record(took.as_secs_f64());
}

/// Tells the service manager that the node is ready, if it asked to be told.
pub(super) fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells it that the node is ending.
pub(super) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// Feeds the service manager's watchdog for as long as the node is sound.
///
/// A host that holds a lease is sound only if a renewal was committed since it was asked last; one that
/// holds none, and any other node, if its loop has come round. A node that hangs is then killed by the service manager, whose
/// time-out must be longer than twice the renewal's period, and shorter than `L (1-rho)/(1+rho) - G` for that to be of use
/// to anybody.
//= SPEC GUARD-17
//= SPEC GUARD-32
pub(super) async fn feed_watchdog<A: Runnable>(handle: Arc<Handle<A>>, leases: Vec<u16>) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(timeout / 2);
    let guards: Vec<_> = leases.iter().filter_map(|&lease| handle.guard(lease)).collect();
    let mut last = Vec::new();
    loop {
        ticks.tick().await;
        let now: Vec<_> = guards.iter().map(|guard| guard.term()).collect();
        // Asked at each look, whatever the other says.
        let has_come_round = handle.has_come_round();
        if is_sound(&last, &now) && has_come_round {
            notify(&[NotifyState::Watchdog]);
        }
        last = now;
    }
}

/// Whether every term that lasts was renewed, or begun, since the last look.
fn is_sound<T: PartialEq>(last: &[Option<T>], now: &[Option<T>]) -> bool {
    let mut pairs = now.iter().enumerate().map(|(index, now)| (last.get(index), now));
    pairs.all(|(last, now)| now.is_none() || last != Some(now))
}

#[cfg(test)]
mod tests {
    use super::is_sound;

    #[test]
    fn a_term_that_is_not_renewed_feeds_no_watchdog() {
        assert!(is_sound(&[], &[None, Some(1)]), "a term has begun");
        assert!(is_sound(&[Some(1), None], &[Some(2), None]), "it was renewed");
        assert!(!is_sound(&[Some(1), None], &[Some(1), None]), "it was not");
        assert!(is_sound(&[Some(1), None], &[None, None]), "it has ended");
        assert!(!is_sound(&[Some(1), Some(1)], &[Some(2), Some(1)]), "one of two was not");
    }
}
