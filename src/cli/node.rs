//! `tenure node`: runs one node of a cluster until it is told to end.

use std::io::IsTerminal as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::beside::Beside;
use crate::config::{Config, Lease};
use crate::lease::msg::Msg;
use crate::lease::record::NodeId;
use crate::lease::{Member, Role, View};
use crate::node::clock::BootInstant;
use crate::node::control::Control;
use crate::node::{Exit, Handle, Node, Published, Runnable, launch, record_into};

/// How long the release of the leases may take at most when the node is told to end.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// The arguments of `tenure node`.
#[derive(Debug, Args)]
#[command(after_help = "When the node is ready, one line on standard output says so:\n\
    ready node=a address=127.0.0.1:7101 control=127.0.0.1:7201 incarnation=3\n\n\
    What a lease protects outside of tenure is told in [[work]] of the cluster file: a command that begins it, hooks \
    that end it within S, and a kill switch. They run in a process of their own, also if this one is killed or stopped.\n\n\
    SIGTERM and SIGINT end the work of each lease that is held, release it, and then end the node (a control \
    plane answers the calls that it has taken, an IRC server reports what it works on); \
    a second one ends it at once. SIGHUP makes a node whose datagrams are sealed read the keys of the cluster file \
    again, and nothing else of it. Under systemd it says when it is ready (Type=notify), and feeds the watchdog \
    (WatchdogSec): a holder only after a committed renewal. The log goes to standard error; RUST_LOG says how much of it.\n\n\
    Exit codes: 0 ended by a signal; 1 the node could not start or could not go on, and one line on \
    standard error says why; 2 usage.")]
pub struct NodeArgs {
    /// The cluster file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The node's name in the cluster file.
    #[arg(long, value_name = "NAME")]
    pub id: String,
    /// For tests: lets the control socket cut the node off from others and pause it.
    #[arg(long)]
    pub faults: bool,
    /// Serve health and metrics at this address: /leader, /healthz, /readyz, /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<std::net::SocketAddr>,
    /// Write a line for each step into this file, behind what is there: see `tenure trace check`.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print the ready line and each change of a role as JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// Sends the log to standard error, as RUST_LOG says.
pub(super) fn log_to_stderr() -> Result<(), ExitCode> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => match EnvFilter::try_new(text) {
            Ok(filter) => filter,
            Err(error) => return Err(super::usage_error(format!("RUST_LOG: {error}"))),
        },
        Err(_) => EnvFilter::new("info"),
    };
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // A log that is set already is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_unwanted)
        .with_target(false)
        .try_init();
    Ok(())
}

/// Runs the node to its end.
pub fn run(args: &NodeArgs) -> ExitCode {
    if let Err(code) = log_to_stderr() {
        return code;
    }
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => return super::config_failure(&args.config, &errors),
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let done = if super::node_region::is_of_region(&config, &args.id) {
                runtime.block_on(super::node_region::serve(args, Arc::new(config)))
            } else {
                runtime.block_on(serve(args, Arc::new(config)))
            };
            done.map_or_else(super::failure, |()| ExitCode::SUCCESS)
        }
        Err(error) => super::failure(format!("the system refuses what a node needs ({error})")),
    }
}

async fn serve(args: &NodeArgs, config: Arc<Config>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // From here on a signal is never missed, whatever the start is waiting for.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    let hang_up = super::keys::hang_up()?;
    let mut spec = launch::spec(&config, &args.id).map_err(|error| text(&error))?;
    if let Some(trace) = &args.trace {
        record_into(&mut spec, trace.clone());
    }
    let node = config.node(&args.id).expect("it has a spec").clone();
    let metrics = match args.http {
        Some(_) => Some(super::health::count(&config, &mut spec, &node)?),
        None => None,
    };
    let works: Vec<_> = launch::leases_of(&config, &node)
        .filter_map(|lease| Some((lease.clone(), config.work(node.id, lease.index)?.clone())))
        .collect();
    let (hooks, stops) = super::beside::ask(works.iter().map(|(lease, _)| lease.index));
    spec.hooks = hooks;
    let listener = match node.control {
        Some(control) => Some(TcpListener::bind(control).map_err(|error| {
            format!("cannot bind the control address {control} ({error}): stop what has it, or choose another port")
        })?),
        None => None,
    };
    if spec.actors.is_empty() {
        tracing::warn!(node = node.name, "this node has no part in any lease");
    }
    // A host starts read-only, whatever its last life has left behind.
    for (lease, work) in &works {
        tokio::select! {
            stopped = super::beside::stop_what_runs(work, lease) => stopped?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
    let handle = Arc::new(Node::start(spec).map_err(|error| text(&error))?);
    look_after_keys(args, &config, &node, &handle, hang_up);
    let mut beside = tokio::task::JoinSet::new();
    for ((lease, work), (_, stops)) in works.into_iter().zip(stops) {
        let (config, handle) = (Arc::clone(&config), Arc::clone(&handle));
        let me = node.id;
        beside.spawn(Beside { config, me, lease, work, handle, stops }.run());
    }
    let names: Arc<Vec<_>> = Arc::new(config.nodes.iter().map(|node| node.name.clone()).collect());
    for lease in launch::leases_of(&config, &node) {
        if let Some(views) = handle.views(lease.index) {
            let (lease, names) = (lease.name.clone(), Arc::clone(&names));
            tokio::spawn(tell_roles(lease, names, views, args.json));
        }
    }
    if let Some(listener) = listener {
        let control = Control::new(Arc::clone(&handle), Arc::clone(&config), args.faults);
        tokio::spawn(async move {
            if let Err(error) = control.serve(listener).await {
                tracing::error!(%error, "there is no control socket");
            }
        });
    }
    let index = launch::leases_of(&config, &node).map(|lease| lease.index).collect();
    if let (Some(address), Some(metrics)) = (args.http, metrics) {
        super::health::serve(address, metrics, &config, &node, &handle).await?;
    }
    tokio::spawn(super::health::feed_watchdog(Arc::clone(&handle), index));
    say_ready(args, &handle, node.control);
    super::health::notify_ready();
    tokio::select! {
        exit = handle.ended() => return result_of(exit),
        // It ends only with the node, or because it cannot go on: then nobody may lead here.
        Some(ended) = beside.join_next() => return match ended {
            Ok(Ok(())) => result_of(handle.ended().await),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        },
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(node = node.name, "told to end");
    super::health::notify_stopping();
    tokio::select! {
        () = release(&config, &handle) => {}
        _ = terminate.recv() => tracing::warn!("told to end at once"),
        _ = interrupt.recv() => tracing::warn!("told to end at once"),
    }
    result_of(handle.stop())
}

/// Keeps the keys of a node in view, until it ends.
pub(super) fn look_after_keys<A: Runnable>(
    args: &NodeArgs,
    config: &Arc<Config>,
    node: &crate::config::Node,
    handle: &Arc<Handle<A>>,
    hang_up: Signal,
) {
    let (file, config) = (args.config.clone(), Arc::clone(config));
    let (node, handle) = (node.clone(), Arc::clone(handle));
    tokio::spawn(super::keys::look_after(file, config, node, handle, hang_up));
}

pub(super) fn result_of(exit: Exit) -> Result<(), String> {
    match exit {
        Exit::Failed(error) => Err(error.to_string()),
        Exit::Hung => {
            Err("the disk does not answer: what was not saved was not said either".into())
        }
        _ => Ok(()),
    }
}

pub(super) fn say_ready<A: Runnable>(
    args: &NodeArgs,
    handle: &Handle<A>,
    control: Option<std::net::SocketAddr>,
) {
    let (address, incarnation) = (handle.address(), handle.incarnation());
    super::print(&if args.json {
        let ready = json!({
            "event": "ready", "node": args.id, "address": address, "control": control,
            "incarnation": incarnation, "pid": std::process::id(),
        });
        format!("{ready}\n")
    } else {
        let control = control.map_or_else(|| "none".to_owned(), |control| control.to_string());
        format!(
            "ready node={} address={address} control={control} incarnation={incarnation}\n",
            args.id
        )
    });
}

/// Logs each change of a host's role or epoch, until the node ends.
async fn tell_roles(
    lease: String,
    names: Arc<Vec<String>>,
    mut views: watch::Receiver<Option<Published<View>>>,
    as_json: bool,
) {
    let name = |node: NodeId| names.get(usize::from(node.0)).cloned();
    let mut last = None;
    loop {
        let published = views.borrow_and_update().clone();
        if let Some(Published { view: View::Host(view), deadline }) = published {
            let now = (view.role, view.epoch, view.holder);
            if last != Some(now) {
                last = Some(now);
                let holder = view.holder.and_then(name);
                let remaining = deadline.map(|at| at.saturating_duration_since(BootInstant::now()));
                let role = role_name(view.role);
                tracing::info!(
                    lease,
                    role,
                    epoch = view.epoch.or(view.seen_epoch),
                    holder,
                    remaining_ms = remaining.and_then(|left| u64::try_from(left.as_millis()).ok()),
                    "role"
                );
                if as_json {
                    let event = json!({
                        "event": "role", "lease": lease, "role": view.role, "epoch": view.epoch,
                        "seen_epoch": view.seen_epoch, "holder": holder,
                        "deadline_ns": deadline.map(BootInstant::as_nanos),
                        "mono_ns": BootInstant::now().as_nanos(),
                    });
                    super::print(&format!("{event}\n"));
                }
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// The word for a host's role.
pub(super) fn role_name(role: Role) -> String {
    match serde_json::to_value(role) {
        Ok(Value::String(name)) => name,
        _ => unreachable!("a role is written as its name"),
    }
}

/// Ends the term of every lease that this node holds, and waits until each is released, or until it
/// has taken too long: then the lease runs out by itself.
pub(super) async fn release(config: &Config, handle: &Arc<Handle<Member>>) {
    let mut all = tokio::task::JoinSet::new();
    for lease in &config.leases {
        let Some(mut views) = handle.views(lease.index) else { continue };
        let (lease, handle) = (lease.clone(), Arc::clone(handle));
        all.spawn(async move {
            let released = release_one(&lease, &handle, &mut views);
            if tokio::time::timeout(bound(&lease), released).await.is_err() {
                tracing::warn!(lease = lease.name, "not released: the store does not answer");
            }
        });
    }
    while all.join_next().await.is_some() {}
}

fn bound(lease: &Lease) -> Duration {
    lease.timing.hook.saturating_add(lease.timing.retry.saturating_mul(3)).min(RELEASE_MAX)
}

async fn release_one(
    lease: &Lease,
    handle: &Handle<Member>,
    views: &mut watch::Receiver<Option<Published<View>>>,
) {
    let mut told = None;
    loop {
        let view = views.borrow_and_update().as_ref().map(|published| published.view.clone());
        let Some(View::Host(view)) = view else { return };
        match (view.role, view.epoch) {
            (Role::Watching | Role::Retired, _) => return,
            // If too much is waiting, the next change is another chance.
            (Role::Holding, Some(epoch))
                if told != Some(epoch)
                    && handle.tell(lease.index, Msg::StepDown { epoch }).is_ok() =>
            {
                told = Some(epoch);
            }
            _ => {}
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}
