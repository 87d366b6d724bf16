//! `tenure node` for a control plane or an IRC server: runs it until it is told to end.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::node::{NodeArgs, look_after_keys, result_of, say_ready};
use crate::config::{Config, Role};
use crate::irc::msg::{Command, Msg};
use crate::irc::{Party, View};
use crate::node::region::control::Control;
use crate::node::region::{self, Calls, INDEX, health};
use crate::node::{Handle, Node, record_into};

/// How long the calls that are being answered, and the work that is being carried, may take to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Whether the node of this name works for a region.
pub(super) fn is_of_region(config: &Config, name: &str) -> bool {
    let node = config.node(name);
    node.is_some_and(|node| matches!(node.role, Role::ControlPlane | Role::IrcServer))
}

pub(super) async fn serve(args: &NodeArgs, config: Arc<Config>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    let hang_up = super::keys::hang_up()?;
    let node = config.node(&args.id).expect("it is one of the cluster").clone();
    let listener = match node.control {
        Some(control) => Some(TcpListener::bind(control).map_err(|error| {
            format!("cannot bind the control address {control} ({error}): stop what has it, or choose another port")
        })?),
        None => None,
    };
    let metrics = args.http.map(|_| crate::http::install_recorder()).transpose()?;
    let (mut spec, calls) = region::spec(&config, &args.id).map_err(|error| text(&error))?;
    if let Some(trace) = &args.trace {
        record_into(&mut spec, trace.clone());
    }
    let party = spec.actors[0].1.clone();
    let handle = Arc::new(Node::start(spec).map_err(|error| text(&error))?);
    look_after_keys(args, &config, &node, &handle, hang_up);
    let serving = listener.map(|listener| {
        let control = Control::new(
            Arc::clone(&handle),
            calls.clone(),
            Arc::clone(&config),
            party.clone(),
            args.faults,
        );
        tokio::spawn(async move {
            if let Err(error) = control.serve(listener).await {
                tracing::error!(%error, "there is no control socket");
            }
        })
    });
    if let (Some(address), Some(metrics)) = (args.http, metrics) {
        let service = health::router(Arc::clone(&handle), Arc::clone(&config), metrics);
        super::health::serve_router(address, service).await?;
    }
    tokio::spawn(super::health::feed_watchdog(Arc::clone(&handle), vec![INDEX]));
    say_ready(args, &handle, node.control);
    super::health::notify_ready();
    tokio::select! {
        exit = handle.ended() => return result_of(exit),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(node = node.name, "told to end");
    super::health::notify_stopping();
    if let Some(serving) = serving {
        // Connections that are open go on; there are no new ones.
        serving.abort();
    }
    tokio::select! {
        drained = timeout(DRAIN_MAX, drain(&party, &handle, &calls)) => if drained.is_err() {
            tracing::warn!("not drained: what was under way is done again by others");
        },
        _ = terminate.recv() => tracing::warn!("told to end at once"),
        _ = interrupt.recv() => tracing::warn!("told to end at once"),
    }
    result_of(handle.stop())
}

/// Waits until a control plane has answered the calls that it has taken, or a server has reported what
/// it works on.
//= SPEC REGION-7
async fn drain(party: &Party, handle: &Handle<Party>, calls: &Calls) {
    if let Party::Server(_) = party {
        let Some(mut views) = handle.views(INDEX) else { return };
        if handle.tell(INDEX, Msg::Operate(Command::Drain(true))).is_err() {
            return;
        }
        let is_idle = |view: &View| matches!(view, View::Server { working: 0, .. });
        let is_idle = views.wait_for(|view| view.as_ref().is_some_and(|view| is_idle(&view.view)));
        let _ = is_idle.await;
    } else {
        while calls.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
