//! The thread that looks at deadlines when nobody else does.
//!
//! It knows the guard and the time, and nothing of the protocol. If a term is overdue and the driver has not
//! ended it (because its thread hangs), this one does; if the work of a term has not ended within S,
//! it pulls the kill switch. Driver and sentry may both end one term: the guard tells one of them that it
//! was the one (L-14).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::driver::Command;
use super::hook::KillSwitch;
use super::term::Term;
use crate::clock::BootInstant;
use crate::node::Guard;
use crate::node::clock::WakeUp;
use crate::oversight::{Look, Oversight};

/// What the sentry is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    /// The last term that has begun.
    term: Option<Arc<Term>>,
    /// What becomes of the work of terms that end.
    pub(super) oversight: Oversight,
}

impl Watched {
    pub(super) fn begin(&mut self, term: &Arc<Term>) {
        self.term = Some(Arc::clone(term));
    }
}

/// Watches until the elector is gone.
pub(super) async fn run(
    guard: Arc<Guard>,
    watched: watch::Sender<Watched>,
    commands: mpsc::WeakUnboundedSender<Command>,
    stop_within: Duration,
    kill_switch: KillSwitch,
) {
    let mut changes = watched.subscribe();
    let mut wake_up = match WakeUp::new() {
        Ok(wake_up) => wake_up,
        Err(error) => {
            tracing::error!(%error, "no timer for the kill switch");
            return;
        }
    };
    loop {
        let oversight = changes.borrow_and_update().oversight;
        let wait = match oversight.look(guard.term(), BootInstant::now(), stop_within) {
            Look::Wait(until) => until,
            // The driver's own timer goes off at the deadline: this is for when it has not.
            Look::Overdue { kill_at } => {
                if let Some(epoch) = guard.expire() {
                    watched.send_modify(|watched| {
                        if let Some(term) = watched.term.as_ref().filter(|term| term.epoch == epoch)
                        {
                            term.token.cancel();
                        }
                        watched.oversight.stop(epoch, kill_at);
                    });
                    if let Some(commands) = commands.upgrade() {
                        let _ = commands.send(Command::Abandon { epoch, reason: "overdue" });
                    }
                }
                continue;
            }
            Look::Kill(epoch) => {
                kill_switch.pull(epoch);
                watched.send_modify(|watched| watched.oversight.killed(epoch));
                continue;
            }
        };
        // Nothing to wait for means nothing to do: the last term has ended, and so has the elector.
        if commands.strong_count() == 0 && wait.is_none() {
            return;
        }
        let idle = (commands.strong_count() == 0).then(|| BootInstant::now().saturating_add(IDLE));
        let next = [wait, idle].into_iter().flatten().min();
        if wake_up.set(next).is_err() {
            return;
        }
        tokio::select! {
            biased;
            expired = wake_up.expired() => if expired.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// How often it looks while it only waits for the end.
const IDLE: Duration = Duration::from_secs(1);
