//! How a term ends: in the guard, in the work, and for the protocol.
//!
//! A term can end in two ways, and they differ in what is known. *Well*: the protocol has ended it, the hooks have
//! finished, and all that the guard admitted has left. Then the lease may be given back. *Otherwise* its work was
//! silent, the leadership was dropped, the guard no longer permitted it, or the kill switch had to do what a hook
//! has not done: then nobody knows when its work ended, only that S has to pass. So the host crashes, as
//! far as the protocol is concerned: it begins a new life, which has no part in the old one's record, and that
//! stands until L has passed for everybody.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Command, Driver, tell};
use crate::clock::BootInstant;
use crate::embed::hook::Hook;
use crate::embed::sentry::Watched;
use crate::embed::store::LeaseStore;
use crate::embed::term::HandOverError;
use crate::lease::elector::Phase;
use crate::lease::record::Epoch;
use crate::oversight;

impl<S: LeaseStore> Driver<S> {
    /// Ends the term in this process: nothing is permitted from here on, and its token is cancelled.
    pub(super) fn end_term(&mut self) {
        let Some(term) = self.term.take() else { return };
        term.guard.revoke(term.epoch);
        term.token.cancel();
        self.parts.shown.term.send_replace(None);
        self.parts.stats.transition("ended");
    }

    /// Ends a term of which nobody knows when its work will have ended: its record stands until L has passed.
    //= SPEC GUARD-11
    //= SPEC GUARD-21
    pub(super) fn abandon(&mut self, epoch: Epoch, reason: &'static str) {
        if self.phase().and_then(Phase::holding) == Some(epoch) {
            self.parts.stats.transition(reason);
            self.end_term();
            self.stop(epoch);
            self.begin();
        }
    }

    /// The kill switch has ended the work of a term that was being stopped. It contends again, and no
    /// sooner than everybody else.
    //= SPEC GUARD-24
    pub(super) fn has_killed(&mut self, epoch: Epoch) {
        self.stopping.take_if(|stopping| *stopping == epoch);
        let is_stopping = matches!(
            self.phase(),
            Some(Phase::Stopping { epoch: stopping, .. }) if stopping == epoch
        );
        if !is_stopping {
            // It was abandoned before: its next life is under way already.
            self.answer();
            return;
        }
        self.parts.stats.transition("killed");
        for (_, done) in self.hand_overs.extract_if(.., |(of, _)| *of == epoch) {
            let _ = done.send(Err(HandOverError::Killed));
        }
        self.begin();
    }

    /// Stops the work of a term: hooks, then the last admission. The kill switch is armed before they begin.
    ///
    /// A hook that fails has not stopped the work: then nobody says that it has stopped, the lease is not
    /// given back, and the kill switch does what the hook has not done.
    //= SPEC GUARD-13
    pub(super) fn stop(&mut self, epoch: Epoch) {
        self.stopping = Some(epoch);
        let begun = BootInstant::now();
        let until = self.until.filter(|(of, _)| *of == epoch).map(|(_, until)| until);
        let kill_at = oversight::ended_at(until, begun).saturating_add(self.parts.stop_within);
        self.parts.shown.watched.send_modify(|watched| watched.oversight.stop(epoch, kill_at));
        let (hooks, guard) = (Arc::clone(&self.parts.hooks), Arc::clone(&self.parts.guard));
        let (commands, watched) = (self.parts.commands.clone(), self.parts.shown.watched.clone());
        let stats = Arc::clone(&self.parts.stats);
        self.parts.runtime.spawn(async move {
            let mut killed = watched.subscribe();
            let hooks_are_done = tokio::select! {
                biased;
                are_done = run(hooks, epoch) => are_done,
                () = is_killed(&mut killed, epoch) => false,
            };
            if !hooks_are_done {
                is_killed(&mut killed, epoch).await;
            }
            guard.gate().closed(epoch).await;
            stats.hooks_took(BootInstant::now().saturating_duration_since(begun));
            watched.send_modify(|watched| watched.oversight.stopped(epoch));
            let told =
                if hooks_are_done { Command::Stopped { epoch } } else { Command::Killed { epoch } };
            tell(&commands, told);
        });
    }

    /// Answers those who wait for the end of a term, if it has come.
    pub(super) fn answer(&mut self) {
        let under_way = match self.phase() {
            Some(
                Phase::Holding { epoch, .. }
                | Phase::Stopping { epoch, .. }
                | Phase::Releasing { epoch, .. },
            ) => Some(epoch),
            _ => None,
        };
        let stopping = self.stopping;
        let is_over = |epoch: Epoch| ![under_way, stopping].contains(&Some(epoch));
        for (_, done) in self.releases.extract_if(.., |(epoch, _)| is_over(*epoch)) {
            let _ = done.send(());
        }
        for (_, done) in self.hand_overs.extract_if(.., |(epoch, _)| is_over(*epoch)) {
            let _ = done.send(Ok(()));
        }
    }
}

/// Runs the hooks, one after the other, and says whether all have finished. One that panics has failed.
async fn run(hooks: Arc<Vec<Hook>>, epoch: Epoch) -> bool {
    // A task of its own, so that a panic is that of the hook alone; and none that goes on when it is not awaited.
    let mut running = JoinSet::new();
    running.spawn(async move {
        for hook in hooks.iter() {
            if let Err(error) = hook.begin(epoch).await {
                tracing::error!(hook = hook.name, epoch, error, "the stop hook has failed");
                return false;
            }
        }
        true
    });
    match running.join_next().await {
        Some(Ok(are_done)) => are_done,
        Some(Err(error)) => {
            tracing::error!(epoch, %error, "a stop hook has failed");
            false
        }
        None => unreachable!("it was spawned"),
    }
}

/// Waits until the kill switch has been pulled for this term, and has come back.
async fn is_killed(watched: &mut watch::Receiver<Watched>, epoch: Epoch) {
    if watched.wait_for(|watched| watched.oversight.has_killed(epoch)).await.is_err() {
        // Nobody is left who could pull it.
        std::future::pending::<()>().await;
    }
}
