//! What the user of an elector holds: the view, and the leadership of a term.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::driver::Command;
use crate::clock::BootInstant;
use crate::gate::Admission;
use crate::guard::{Lost, NotAdmitted, Permit};
use crate::lease::Role;
use crate::lease::record::{Epoch, NodeId};
use crate::node::Guard;

/// What an elector knows of the lease. A deadline that has passed permits nothing, whatever the role says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderView {
    /// What this elector is doing.
    pub role: Role,
    /// Who holds the lease, as far as this elector has seen.
    pub leader: Option<NodeId>,
    /// The epoch of the own term, or of the record that was seen.
    pub epoch: Option<Epoch>,
    /// When the own term ends unless it is renewed; `None` if this elector does not hold the lease.
    pub deadline: Option<BootInstant>,
}

impl LeaderView {
    pub(super) const UNKNOWN: Self =
        Self { role: Role::Watching, leader: None, epoch: None, deadline: None };

    /// Whether this elector holds the lease now, by the clock (L-12).
    pub fn is_leader_now(&self) -> bool {
        self.deadline.is_some_and(|deadline| BootInstant::now() < deadline)
    }
}

/// One term, as everybody in this process shares it.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) epoch: Epoch,
    pub(super) token: CancellationToken,
    pub(super) guard: Arc<Guard>,
    /// Nanoseconds since the boot at the last sign of life of the work.
    pub(super) alive: std::sync::atomic::AtomicU64,
}

/// Why a term was not ended as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The target is no other host of the lease, or may not take over.
    #[error("{0:?} is no other host of this lease that may take over: the term goes on")]
    NotACandidate(NodeId),
    /// The elector has no way to tell another host.
    #[error("no courier: build the elector with one, or release the lease")]
    NoCourier,
    /// The elector has ended.
    #[error("the elector has ended")]
    Ended,
    /// The term had ended before.
    #[error("the term has ended already")]
    TermOver,
    /// The work did not end by itself.
    #[error(
        "the work had to be killed: the target was not told, and may take over when L has passed"
    )]
    Killed,
}

/// The leadership of one term: the right to write under its epoch, until its deadline.
///
/// There is one for each term, and it cannot be cloned. [`release`](Self::release) ends it well, once the work
/// has been joined. Dropping it ends the term here and now, runs the hooks, and *does not release the
/// lease*: nobody knows whether the work has ended, so the lease runs out by itself.
#[must_use = "dropping the leadership gives up the term"]
pub struct Leadership {
    pub(super) term: Arc<Term>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) is_over: bool,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Leadership {
    /// The fencing token: what is written to refuses an epoch below the highest it has seen (L-28).
    pub fn epoch(&self) -> Epoch {
        self.term.epoch
    }

    /// When the term ends unless it is renewed; `None` if it has ended.
    pub fn deadline(&self) -> Option<BootInstant> {
        self.term.guard.term().filter(|(epoch, _)| *epoch == self.epoch()).map(|(_, at)| at)
    }

    /// The token of this very term, to run its work under (L-34). It is cancelled once, when the term ends.
    //= SPEC GUARD-10
    pub fn token(&self) -> CancellationToken {
        self.term.token.clone()
    }

    /// Waits for the end of the term.
    pub async fn cancelled(&self) {
        self.term.token.cancelled().await;
    }

    /// Whether this much time is left for an effect. See [`LeaseGuard::permit`].
    ///
    /// # Errors
    ///
    /// [`Lost`].
    ///
    /// [`LeaseGuard::permit`]: crate::guard::LeaseGuard::permit
    pub fn permit(&self, needed: Duration) -> Result<Permit, Lost> {
        let permit = self.term.guard.permit(needed)?;
        // The guard may be open for a later term: that one has a leadership of its own.
        if permit.epoch() == self.epoch() { Ok(permit) } else { Err(Lost::NoTerm) }
    }

    /// Admits work that needs this much time. The term does not count as ended while it runs. See
    /// [`LeaseGuard::enter`].
    ///
    /// # Errors
    ///
    /// [`NotAdmitted`]; nothing may begin then.
    ///
    /// [`LeaseGuard::enter`]: crate::guard::LeaseGuard::enter
    pub fn enter(&self, needed: Duration) -> Result<Admission<'_>, NotAdmitted> {
        let permit = self.permit(needed)?;
        Ok(self.term.guard.gate().enter(permit.epoch())?)
    }

    /// The guard, to be shared with other threads. It outlives the term, and serves the next one too.
    pub fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.term.guard)
    }

    /// Says that the work is alive. An elector that was built with
    /// [`alive_within`](super::Builder::alive_within) ends a term whose work has not said so for longer than
    /// that (L-36), and does not give the lease back.
    pub fn alive(&self) {
        let now = BootInstant::now().as_nanos();
        self.term.alive.store(now, std::sync::atomic::Ordering::Relaxed);
    }

    /// Ends the term and frees the lease for whoever comes first. Call it when the work has been joined.
    ///
    /// It returns when the hooks have run, all admitted work has left, and the store has freed the record
    /// or another host holds it; for as long as the store does not answer it goes on asking, at most for
    /// L. Dropping the future changes nothing of that. If the kill switch had to end the work, it returns
    /// after that, and nothing is freed: the lease runs out by itself.
    pub async fn release(mut self) {
        self.is_over = true;
        let (done, is_done) = oneshot::channel();
        if self.commands.send(Command::StepDown { epoch: self.epoch(), done }).is_ok() {
            // An error means that the elector has ended, and the term with it.
            let _ = is_done.await;
        }
    }

    /// Ends the term and lets this host take over at once. Call it when the work has been joined.
    ///
    /// It returns when nothing of the term runs any more and the target has been told. If it does not
    /// hear, it takes over when L has passed.
    ///
    /// # Errors
    ///
    /// [`HandOverError`], and the leadership back if the term goes on.
    pub async fn hand_over(mut self, target: NodeId) -> Result<(), (HandOverError, Option<Self>)> {
        let (done, is_done) = oneshot::channel();
        let command = Command::HandOver { epoch: self.epoch(), target, done };
        if self.commands.send(command).is_err() {
            self.is_over = true;
            return Err((HandOverError::Ended, None));
        }
        match is_done.await {
            Ok(Ok(())) => {
                self.is_over = true;
                Ok(())
            }
            Ok(Err(error @ (HandOverError::TermOver | HandOverError::Killed))) => {
                self.is_over = true;
                Err((error, None))
            }
            Ok(Err(error)) => Err((error, Some(self))),
            Err(_) => {
                self.is_over = true;
                Err((HandOverError::Ended, None))
            }
        }
    }
}

//= SPEC GUARD-11
impl Drop for Leadership {
    fn drop(&mut self) {
        if !self.is_over {
            let _ =
                self.commands.send(Command::Abandon { epoch: self.epoch(), reason: "abandoned" });
            // And at once, not when the driver comes to it.
            self.term.guard.revoke(self.epoch());
            self.term.token.cancel();
        }
    }
}
