//! `tenure lease exec`: runs one host, and a command only while it holds the lease.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::kill::{end_session, is_passing};
use super::warden::code_of;
use super::watchdog::{Watchdog, WatchdogMode, watchdog_below};
use crate::clock::BootInstant;
use crate::config::{Config, Lease, Role};
use crate::lease::msg::Msg;
use crate::lease::record::Epoch;
use crate::node::control::Control;
use crate::node::{Guard, Node, TellError, launch};

/// How long it waits before it tells the node again what that had no place for.
const AGAIN: Duration = Duration::from_secs(1);

/// The arguments of `tenure lease exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "The command runs in a process group of its own, with TENURE_EPOCH and TENURE_LEASE in its \
    environment, each time that this host comes to hold the lease. When the term ends, it gets SIGTERM, and \
    SIGKILL before S (`hook` in the timing) has passed; also if this process is killed or stopped meanwhile. \
    Only when neither it nor any process of its session runs is the lease given back. A process that leaves the \
    session (setsid) is not ended, nor one that this user may not kill (sudo).\n\n\
    When the command ends by itself, the lease is released and its exit code passed through (128 and the \
    signal's number if a signal ended it). SIGTERM and SIGINT end the command, release the lease, and pass \
    the command's exit code through; 0 if it did not run.\n\n\
    Exit codes: the command's; 1 the host could not start or could not go on; 2 usage."
)]
pub struct ExecArgs {
    /// The cluster file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The host's name in the cluster file. No other process may run it.
    #[arg(long, value_name = "NAME")]
    pub id: String,
    /// The lease; not needed if the host has only one.
    #[arg(long, value_name = "NAME")]
    pub lease: Option<String>,
    /// Whether a watchdog device resets the machine if renewals stop while the command runs.
    #[arg(long, value_name = "MODE", default_value = "off")]
    pub watchdog: WatchdogMode,
    /// The watchdog device; its time-out must be shorter than L (1 - rho)/(1 + rho) - G.
    #[arg(long, value_name = "DEVICE", default_value = "/dev/watchdog")]
    pub watchdog_device: PathBuf,
    /// For tests: lets the control socket cut the host off from others and pause it.
    #[arg(long)]
    pub faults: bool,
    /// Serve health and metrics at this address: /leader, /healthz, /readyz, /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<std::net::SocketAddr>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Runs the host until the command has ended by itself, or a signal ends it.
pub fn run(args: &ExecArgs) -> ExitCode {
    if let Err(code) = super::node::log_to_stderr() {
        return code;
    }
    let config = match Config::load(&args.config) {
        Ok(config) => Arc::new(config),
        Err(errors) => return super::config_failure(&args.config, &errors),
    };
    let lease = match lease_of(args, &config) {
        Ok(lease) => lease.clone(),
        Err(error) => return super::usage_error(error),
    };
    if let Err(error) = has_no_work(args, &config) {
        return super::usage_error(error);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::failure(error),
    };
    match runtime.block_on(serve(args, &config, &lease)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => super::failure(error),
    }
}

fn lease_of<'a>(args: &ExecArgs, config: &'a Config) -> Result<&'a Lease, String> {
    let Some(node) = config.node(&args.id) else {
        return Err(format!("{:?} is not a node of this cluster", args.id));
    };
    if node.role != Role::Host {
        return Err(format!("{:?} is no host, so it never holds a lease", args.id));
    }
    let mut leases = launch::leases_of(config, node);
    let lease = match &args.lease {
        Some(name) => leases.find(|lease| lease.name == *name),
        None => leases.next().filter(|_| leases.next().is_none()),
    };
    lease.ok_or_else(|| format!("name one lease of {:?} with --lease", args.id))
}

/// What a cluster file gives to a host is run by `tenure node` alone: its hooks, and what ends it before the host
/// contends, are not run here.
//= SPEC GUARD-33
fn has_no_work(args: &ExecArgs, config: &Config) -> Result<(), String> {
    let node = config.node(&args.id).expect("it has a lease");
    match launch::leases_of(config, node).find(|lease| config.work(node.id, lease.index).is_some())
    {
        None => Ok(()),
        Some(lease) => Err(format!(
            "{:?} has [[work]] for the lease {:?}, which `tenure node` runs: start that, or take the section out",
            args.id, lease.name
        )),
    }
}

/// The command of one term, under its warden.
struct Work {
    epoch: Epoch,
    warden: Child,
    /// The session of the command, which the warden leads.
    session: Option<Pid>,
    stdin: Option<ChildStdin>,
    until: BootInstant,
    /// Armed before the command starts.
    watchdog: Option<Watchdog>,
    /// Who waits for its end.
    stopping: Vec<oneshot::Sender<()>>,
    /// Since when.
    asked: Option<BootInstant>,
}

impl Work {
    /// None if the system lacks something for it now.
    fn begin(
        args: &ExecArgs,
        lease: &Lease,
        epoch: Epoch,
        until: BootInstant,
    ) -> Result<Option<Self>, String> {
        let grace = lease.timing.stop_within();
        let longest = watchdog_below(lease.timing.get());
        let watchdog = Watchdog::arm(&args.watchdog_device, args.watchdog, longest)?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let spawned = Command::new(program)
            .args(["warden", "--until", &until.as_nanos().to_string()])
            .args(["--grace", &grace.as_nanos().to_string(), "--"])
            .args(&args.command)
            .env("TENURE_EPOCH", epoch.to_string())
            .env("TENURE_LEASE", &lease.name)
            .stdin(Stdio::piped())
            // It makes a session of its own: a terminal's interrupt is for this process alone.
            .spawn();
        let mut warden = match spawned {
            Ok(warden) => warden,
            Err(error) => {
                if let Some(watchdog) = watchdog {
                    watchdog.disarm();
                }
                let said = format!("the command's warden does not start ({error})");
                if !is_passing(&error) {
                    return Err(said);
                }
                tracing::error!("{said}");
                return Ok(None);
            }
        };
        let stdin = warden.stdin.take();
        let session = warden.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (stopping, asked) = (Vec::new(), None);
        Ok(Some(Self { epoch, warden, session, stdin, until, watchdog, stopping, asked }))
    }

    async fn say(&mut self, line: String) {
        // A warden that is gone has ended the command, and is noticed by its end.
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(line.as_bytes()).await;
        }
    }

    /// Waits until the warden has ended, and then until nothing of the command runs: a warden that was killed has
    /// ended none of it. Losing the future loses nothing.
    //= SPEC GUARD-28
    async fn ended(&mut self) -> Result<ExitStatus, String> {
        let status = self.warden.wait().await.map_err(|error| error.to_string())?;
        if let Some(session) = self.session {
            end_session(session).await;
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        Ok(status)
    }

    async fn extend(&mut self, until: BootInstant) {
        if until > self.until {
            self.until = until;
            // One that was heard of too late puts nothing off.
            if let Some(watchdog) = &mut self.watchdog
                && BootInstant::now() < until
            {
                watchdog.feed();
            }
            self.say(format!("until {}\n", until.as_nanos())).await;
        }
    }
}

async fn serve(args: &ExecArgs, config: &Arc<Config>, lease: &Lease) -> Result<u8, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    if lease.timing.stop_within().is_zero() {
        return Err(format!("hook is {:?}: to end a command takes more", lease.timing.hook));
    }
    let mut spec = launch::spec(config, &args.id).map_err(|error| text(&error))?;
    let index = lease.index;
    let (hooks, stops) = super::beside::ask([index]);
    spec.hooks = hooks;
    let Some((_, mut stops)) = stops.into_iter().next() else { unreachable!("it was asked for") };
    let node = config.node(&args.id).expect("it has a spec");
    let metrics = match args.http {
        Some(_) => Some(super::health::count(config, &mut spec, node)?),
        None => None,
    };
    let listener = match node.control {
        Some(address) => Some(
            TcpListener::bind(address)
                .map_err(|error| format!("cannot bind the control address {address} ({error})"))?,
        ),
        None => None,
    };
    let handle = Arc::new(Node::start(spec).map_err(|error| text(&error))?);
    if let Some(listener) = listener {
        let control = Control::new(Arc::clone(&handle), Arc::clone(config), args.faults);
        tokio::spawn(async move {
            if let Err(error) = control.serve(listener).await {
                tracing::error!(%error, "there is no control socket");
            }
        });
    }
    if let (Some(address), Some(metrics)) = (args.http, metrics) {
        super::health::serve(address, metrics, config, node, &handle).await?;
    }
    tokio::spawn(super::health::feed_watchdog(Arc::clone(&handle), vec![index]));
    super::health::notify_ready();
    let guard: Arc<Guard> = handle.guard(index).expect("the host has an actor for it");
    let mut views = handle.views(index).expect("the host has an actor for it");
    let mut work: Option<Work> = None;
    // The last term whose command has ended, or has not begun: it gets no other; and whether it is to be given up.
    let mut over: Option<Epoch> = None;
    let mut is_untold = false;
    // The exit code, once the end is decided; and when everything is given back.
    let mut code: Option<u8> = None;
    let mut released = None;
    loop {
        if code.is_some() && released.is_none() {
            let (config, handle) = (Arc::clone(config), Arc::clone(&handle));
            released = Some(tokio::spawn(async move {
                super::node::release(&config, &handle).await;
            }));
        }
        let term = guard.term();
        match (&mut work, term) {
            (Some(work), Some((epoch, until))) if work.epoch == epoch => work.extend(until).await,
            (None, Some((epoch, until))) if code.is_none() && over != Some(epoch) => {
                match Work::begin(args, lease, epoch, until) {
                    Ok(Some(begun)) => work = Some(begun),
                    Ok(None) => (over, is_untold) = (Some(epoch), true),
                    Err(error) => {
                        tracing::error!(error);
                        code = Some(1);
                        continue;
                    }
                }
            }
            _ => {}
        }
        if let Some(epoch) = over.filter(|_| is_untold) {
            let told = handle.tell(index, Msg::StepDown { epoch });
            is_untold = matches!(told, Err(TellError::Full));
        }
        let ended = async {
            match &mut work {
                Some(work) => work.ended().await,
                None => std::future::pending().await,
            }
        };
        let given_back = async {
            match &mut released {
                Some(task) => {
                    let _ = task.await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(done) = stops.recv() => match &mut work {
                Some(work) => {
                    work.stopping.push(done);
                    work.asked.get_or_insert_with(BootInstant::now);
                    work.say("stop\n".to_owned()).await;
                }
                None => { let _ = done.send(()); }
            },
            status = ended => {
                let status = status?;
                let ended = work.take().expect("it has ended");
                tracing::info!(lease = lease.name, epoch = ended.epoch, %status, "the command has ended");
                // Else its warden has ended it, and the term is over, or of no use to anybody.
                let by_itself = ended.stopping.is_empty()
                    && BootInstant::now() < ended.until
                    && guard.permit(Duration::ZERO).is_ok();
                (over, is_untold) = (Some(ended.epoch), !by_itself);
                if let Some(asked) = ended.asked {
                    let took = BootInstant::now().saturating_duration_since(asked);
                    super::health::hooks_took(&lease.name, took);
                }
                for done in ended.stopping {
                    let _ = done.send(());
                }
                if by_itself || code.is_some() {
                    code = Some(code_of(status));
                }
            },
            () = given_back => break,
            exit = handle.ended() => {
                // The warden hears the end of the file, and ends the command.
                if let Some(mut work) = work.take() {
                    drop(work.stdin.take());
                    work.ended().await?;
                }
                return super::node::result_of(exit).map(|()| code.unwrap_or(1));
            }
            _ = terminate.recv() => code = code.or(Some(0)),
            _ = interrupt.recv() => code = code.or(Some(0)),
            () = tokio::time::sleep(AGAIN), if is_untold => {}
            changed = views.changed() => if changed.is_err() { continue },
        }
    }
    // The lease may have run out instead of being released, with the command still ending.
    if let Some(mut work) = work.take() {
        drop(work.stdin.take());
        code = Some(code_of(work.ended().await?));
    }
    super::node::result_of(handle.stop())?;
    Ok(code.unwrap_or(0))
}
