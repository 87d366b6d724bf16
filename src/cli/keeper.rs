//! The keeper of a host's work: a process that begins it, and ends it in time whatever becomes of the node.
//!
//! A node that is killed, stopped or stuck runs no stop hook. So the hooks of a cluster file run in a process of
//! its own, as the [warden](super::warden)'s command does: one for each term. The node says on its standard input
//! what the work is, as one line of JSON (`Charge`), and then what it says to a warden: until when the term
//! lasts, or that it ends now. The end of the input means that the node is gone.
//!
//! When the term ends, the hooks run, one after the other. If one fails, or S has almost passed since then,
//! the kill switch is pulled. The keeper ends, with exit code 0, when the work has ended, and not before.
//!
//! What it cannot do: run while the machine or the keeper itself is stopped or killed. A node that goes on notices
//! that its keeper is gone, gives up the term and has another one run the hooks; if both are gone, the work
//! goes on, and only the epoch helps. A keeper that is killed while `lead` runs leaves what that has started by then.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::kill::{Grouped, Sighting, kill_tree, sight};
use super::warden::{Said, listen};
use crate::clock::BootInstant;
use crate::config::{How, StopHook, Work};
use crate::embed::Hook;
use crate::lease::record::Epoch;
use crate::node::clock::WakeUp;

/// How long it waits before it runs hooks again that have failed.
const AGAIN: Duration = Duration::from_millis(100);

/// What a node tells its keeper first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Charge {
    pub(super) lease: String,
    pub(super) epoch: Epoch,
    /// Until when the term lasts at first, in nanoseconds since the machine's boot; if that has passed, the
    /// work is ended and nothing is begun.
    pub(super) until: u64,
    /// How long the hooks have until the kill switch is pulled.
    pub(super) within: Duration,
    pub(super) work: Work,
}

impl Charge {
    fn environment(&self) -> [(&'static str, String); 2] {
        [("TENURE_EPOCH", self.epoch.to_string()), ("TENURE_LEASE", self.lease.clone())]
    }

    fn hooks(&self, seen: &Seen) -> Vec<Hook> {
        self.work.stop.iter().map(|stop| hook(stop, seen)).collect()
    }

    /// What runs when the work has begun, of what a file names.
    fn see(&self) -> Seen {
        let of_hooks = self.work.stop.iter().filter_map(|stop| match &stop.how {
            How::Kill(file) => Some(file),
            _ => None,
        });
        let files = of_hooks.chain(&self.work.kill);
        files.filter_map(|file| Some((file.clone(), sight(file)?))).collect()
    }
}

/// The process that each file named when the work had begun.
type Seen = BTreeMap<PathBuf, Sighting>;

fn hook(StopHook { how, worst }: &StopHook, seen: &Seen) -> Hook {
    let worst = *worst;
    match how {
        How::Command(words) => {
            let (program, args) = words.split_first().expect("the file was checked");
            Hook::command(program, args, worst)
        }
        How::Kill(file) => {
            let (file, seen) = (file.clone(), seen.get(file).copied());
            Hook::new("kill", worst, move |_| {
                let file = file.clone();
                async move {
                    tokio::time::timeout(worst, kill_tree(&file, seen))
                        .await
                        .map_err(|_| format!("it runs after {worst:?}"))?
                }
            })
        }
        #[cfg(feature = "postgres")]
        How::Postgres(conninfo) => crate::embed::postgres::read_only_hook(conninfo, worst),
        #[cfg(feature = "mysql")]
        How::Mysql(url, mode) => {
            let mode = mode.parse().expect("the file was checked");
            crate::embed::mysql::stop_hook(url, mode, worst)
        }
        #[allow(unreachable_patterns, reason = "not with all features")]
        _ => unreachable!("the file was checked"),
    }
}

/// Keeps the work that standard input tells of.
pub fn run() -> ExitCode {
    if let Err(code) = super::node::log_to_stderr() {
        return code;
    }
    let mut line = String::new();
    let charge: Charge = match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) => match serde_json::from_str(&line) {
            Ok(charge) => charge,
            Err(error) => return super::usage_error(format!("tenure node starts this ({error})")),
        },
        Err(error) => return super::failure(error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::failure(error),
    };
    match runtime.block_on(keep(&charge)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failure(error),
    }
}

//= SPEC GUARD-19
async fn keep(charge: &Charge) -> Result<(), String> {
    let mut said = listen();
    let mut wake_up = WakeUp::new().map_err(|error| error.to_string())?;
    let mut seen = Seen::new();
    let until = lead(charge, &mut said, &mut wake_up, &mut seen).await?;
    stop(charge, until.saturating_add(charge.within), &mut wake_up, &seen).await
}

/// Begins the work, and waits for the end of the term; says when that was.
async fn lead(
    charge: &Charge,
    said: &mut mpsc::UnboundedReceiver<Said>,
    wake_up: &mut WakeUp,
    seen: &mut Seen,
) -> Result<BootInstant, String> {
    let mut until = BootInstant::from_nanos(charge.until);
    let mut begun = None;
    if let Some(words) = charge.work.lead.as_ref().filter(|_| BootInstant::now() < until) {
        match Grouped::spawn(words, &charge.environment()) {
            Ok(command) => begun = Some(command),
            Err(error) => {
                tracing::error!(lease = charge.lease, error, "the work does not begin");
                return Ok(BootInstant::now());
            }
        }
    }
    while BootInstant::now() < until {
        wake_up.set(Some(until)).map_err(|error| error.to_string())?;
        let ended = async {
            match &mut begun {
                Some(command) => command.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            expired = wake_up.expired() => expired.map_err(|error| error.to_string())?,
            Some(said) = said.recv() => match said {
                Said::Until(later) => until = until.max(later),
                Said::Stop => until = until.min(BootInstant::now()),
            },
            status = ended => match status? {
                status if status.success() => {
                    begun = None;
                    *seen = charge.see();
                }
                status => {
                    tracing::error!(lease = charge.lease, %status, "the work has not begun");
                    until = until.min(BootInstant::now());
                }
            },
        }
    }
    // What is still beginning is killed with its group.
    drop(begun);
    // Counted from the deadline, however late this process has woken up; from now if it has never begun.
    Ok(if charge.until == 0 { BootInstant::now() } else { until })
}

/// Ends the work, and returns when it has ended.
async fn stop(
    charge: &Charge,
    kill_at: BootInstant,
    wake_up: &mut WakeUp,
    seen: &Seen,
) -> Result<(), String> {
    let hooks = charge.hooks(seen);
    let in_order = async || {
        for hook in &hooks {
            if let Err(error) = hook.begin(charge.epoch).await {
                tracing::error!(
                    hook = hook.name,
                    epoch = charge.epoch,
                    error,
                    "the stop hook has failed"
                );
                return Err(());
            }
        }
        if hooks.is_empty() { Err(()) } else { Ok(()) }
    };
    loop {
        let Some(file) = &charge.work.kill else {
            if in_order().await.is_ok() {
                return Ok(());
            }
            // Nobody knows whether the work has ended, so the lease is not given back.
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        wake_up.set(Some(kill_at)).map_err(|error| error.to_string())?;
        tokio::select! {
            biased;
            expired = wake_up.expired() => {
                expired.map_err(|error| error.to_string())?;
                tracing::error!(epoch = charge.epoch, "the work has not ended in time: killing it");
            }
            stopped = in_order() => if stopped.is_ok() { return Ok(()) },
        }
        match kill_tree(file, seen.get(file).copied()).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::error!(error, "the kill switch has failed"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
