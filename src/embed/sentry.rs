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
use crate::lease::record::Epoch;
use crate::node::Guard;
use crate::node::clock::WakeUp;

/// What the sentry is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    /// The last term that has begun.
    term: Option<Arc<Term>>,
    /// A term that is being stopped, and when its work must have ended.
    stopping: Option<(Epoch, BootInstant)>,
    /// The last term for which the kill switch was pulled, and has come back.
    killed: Epoch,
}

impl Watched {
    pub(super) fn begin(&mut self, term: &Arc<Term>) {
        self.term = Some(Arc::clone(term));
    }

    pub(super) fn stop(&mut self, epoch: Epoch, kill_at: BootInstant) {
        // The sentry may have begun to count before: the earlier time is the one that counts.
        match self.stopping {
            Some((already, at)) if already == epoch && at <= kill_at => {}
            _ => self.stopping = Some((epoch, kill_at)),
        }
    }

    /// The term whose work must have ended by then, unless it was killed before.
    pub(super) fn to_kill(&self) -> Option<(Epoch, BootInstant)> {
        self.stopping.filter(|(epoch, _)| !self.has_killed(*epoch))
    }

    pub(super) fn has_killed(&self, epoch: Epoch) -> bool {
        self.killed >= epoch
    }

    pub(super) fn stopped(&mut self, epoch: Epoch) {
        self.stopping = self.stopping.filter(|(stopping, _)| *stopping > epoch);
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
        // The driver's own timer goes off at the deadline: this is for when it has not.
        let overdue = guard.term().filter(|(_, at)| at.saturating_add(GRACE) <= BootInstant::now());
        if let Some((_, deadline)) = overdue
            && let Some(epoch) = guard.expire()
        {
            let kill_at = deadline.saturating_add(stop_within);
            watched.send_modify(|watched| {
                if let Some(term) = watched.term.as_ref().filter(|term| term.epoch == epoch) {
                    term.token.cancel();
                }
                watched.stop(epoch, kill_at);
            });
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Abandon { epoch, reason: "overdue" });
            }
        }
        let to_kill = changes.borrow_and_update().to_kill();
        if let Some((epoch, at)) = to_kill
            && BootInstant::now() >= at
        {
            kill_switch.pull(epoch);
            watched.send_modify(|watched| watched.killed = epoch);
            continue;
        }
        let kill_at = to_kill.map(|(_, at)| at);
        let deadline = guard.term().map(|(_, deadline)| deadline.saturating_add(GRACE));
        // Nothing to wait for means nothing to do: the last term has ended, and so has the elector.
        if commands.strong_count() == 0 && kill_at.is_none() && deadline.is_none() {
            return;
        }
        let idle = (commands.strong_count() == 0).then(|| BootInstant::now().saturating_add(IDLE));
        let next = [kill_at, deadline, idle].into_iter().flatten().min();
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

/// How long after the deadline it waits for the driver. Nobody is permitted anything meanwhile, and S counts from
/// the deadline all the same.
const GRACE: Duration = Duration::from_millis(20);

/// How often it looks while it only waits for the end.
const IDLE: Duration = Duration::from_secs(1);
