//! The thread that drives an elector.
//!
//! The protocol is the actor of [`crate::lease::elector`], and [`step`] calls it: what is here is what the
//! model takes for granted of a host's surroundings. The thread runs nothing of the user's: the store, the
//! hooks and the courier run on the user's runtime and answer through a channel, so whatever they do, the
//! timers of this thread go off in time (L-7).
//!
//! The order of things is that of a node: due timers before every input, each at most once; the time is read
//! when the input is in hand, and before anything of its step is sent; a term that has ended is ended in the
//! guard before anything of that step leaves.

mod asking;
mod ending;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stateright::actor::Id;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::Courier;
use super::hook::Hook;
use super::sentry::Watched;
use super::stats::Stats;
use super::store::LeaseStore;
use super::term::{HandOverError, LeaderView, Term};
use crate::clock::BootInstant;
use crate::guard::Refused;
use crate::lease::elector::Phase;
use crate::lease::host::HostStorage;
use crate::lease::msg::Msg;
use crate::lease::record::{Epoch, NodeId};
use crate::lease::{Member, MemberState, Storage, Timer, View};
use crate::node::Guard;
use crate::node::clock::WakeUp;
use crate::node::timers::Timers;
use crate::oversight;
use crate::step::{Effect, Input, Machine as _, step};

/// What the driver is told.
pub(super) enum Command {
    /// The store or another host says something.
    Deliver(NodeId, Msg),
    /// The store does not know what has become of a write.
    Unknown(u64),
    /// End this term and free the record.
    StepDown { epoch: Epoch, done: oneshot::Sender<()> },
    /// End this term for another host.
    HandOver { epoch: Epoch, target: NodeId, done: oneshot::Sender<Result<(), HandOverError>> },
    /// The leadership was dropped, or the guard no longer permits the term: this life of the host is over.
    Abandon { epoch: Epoch, reason: &'static str },
    /// Nothing of this term runs any more.
    Stopped { epoch: Epoch },
    /// The same, and it was the kill switch that ended it.
    Killed { epoch: Epoch },
    /// Give the lease back, and end.
    Shutdown,
}

/// Where the driver shows what it does.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) view: watch::Sender<LeaderView>,
    pub(super) term: watch::Sender<Option<Arc<Term>>>,
    pub(super) watched: watch::Sender<Watched>,
}

/// What a driver is made of.
pub(super) struct Parts<S> {
    pub(super) lease: Arc<str>,
    pub(super) me: NodeId,
    pub(super) store_id: NodeId,
    pub(super) actor: Member,
    pub(super) store: Arc<S>,
    pub(super) hooks: Arc<Vec<Hook>>,
    pub(super) courier: Option<Arc<dyn Courier>>,
    pub(super) guard: Arc<Guard>,
    /// G.
    pub(super) give_up: Duration,
    /// What of S is left before the kill switch, on this machine's clock.
    pub(super) stop_within: Duration,
    pub(super) alive_within: Option<Duration>,
    pub(super) once: bool,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) commands: mpsc::WeakUnboundedSender<Command>,
    pub(super) shown: Shown,
    pub(super) stats: Arc<Stats>,
}

pub(super) struct Driver<S> {
    parts: Parts<S>,
    state: Option<MemberState>,
    timers: Timers<Timer>,
    /// The term that the guard was told of last, until it has ended.
    term: Option<Arc<Term>>,
    /// The term that this life has held last, and its last deadline.
    until: Option<(Epoch, BootInstant)>,
    /// The term whose work was told last to end, until it has.
    stopping: Option<Epoch>,
    /// Requests that the store may be answering, and when they were sent.
    asked: Vec<(BootInstant, AbortHandle)>,
    /// Who waits for the end of a term to be complete.
    releases: Vec<(Epoch, oneshot::Sender<()>)>,
    hand_overs: Vec<(Epoch, oneshot::Sender<Result<(), HandOverError>>)>,
    /// The conditional write that is under way, and when it was sent, for the figures.
    sent: Option<(u64, BootInstant)>,
    is_ending: bool,
    had_a_term: bool,
}

impl<S: LeaseStore> Driver<S> {
    pub(super) fn new(parts: Parts<S>) -> Self {
        Self {
            parts,
            state: None,
            timers: Timers::new(),
            term: None,
            until: None,
            stopping: None,
            asked: Vec::new(),
            releases: Vec::new(),
            hand_overs: Vec::new(),
            sent: None,
            is_ending: false,
            had_a_term: false,
        }
    }

    /// Runs until it is shut down or nobody commands it any more.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut wake_up = match WakeUp::new() {
            Ok(wake_up) => wake_up,
            Err(error) => {
                tracing::error!(%error, "no timer for the elector");
                return;
            }
        };
        self.begin();
        while !self.is_over() {
            self.fire_due();
            if let Err(error) = wake_up.set(self.timers.next_deadline()) {
                tracing::error!(%error, "no timer for the elector");
                break;
            }
            tokio::select! {
                biased;
                expired = wake_up.expired() => if let Err(error) = expired {
                    tracing::error!(%error, "no timer for the elector");
                    break;
                },
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
            }
        }
        // Nobody holds a leadership any more, but hooks still have to run.
        let epoch = self.term.as_ref().map(|term| term.epoch);
        self.end_term();
        if let Some(epoch) = epoch {
            self.stop(epoch);
        }
        for (_, task) in &self.asked {
            task.abort();
        }
        let unknown = LeaderView::UNKNOWN;
        self.parts.shown.view.send_replace(unknown);
    }

    fn is_over(&self) -> bool {
        let is_done = self.is_ending || self.parts.once && self.had_a_term;
        let is_idle = matches!(self.phase(), Some(Phase::Watching { .. } | Phase::Acquiring));
        is_done && is_idle && self.stopping.is_none()
    }

    fn phase(&self) -> Option<Phase> {
        match &self.state {
            Some(MemberState::Host(state)) => Some(state.elector.phase),
            _ => None,
        }
    }

    /// A new life, under a name that no life ever had: 62 random bits in place of a counter on disk, the most that
    /// [`COUNT_MAX`](crate::wire::COUNT_MAX) leaves.
    fn begin(&mut self) {
        self.timers = Timers::new();
        self.state = None;
        self.sent = None;
        let incarnation = rand::random::<u64>() >> 2;
        let saved = HostStorage { incarnation, resumed: None, table: None };
        self.take_step(Input::Start(Some(Storage::Host(saved))), BootInstant::now());
    }

    fn obey(&mut self, command: Command) {
        // The input is in hand; and nothing has been sent for it.
        let now = self.fire_due();
        let to_myself = |msg| Input::Deliver { src: Id::from(self.parts.me), msg };
        match command {
            Command::Deliver(src, msg) => {
                if let Err(error) = asking::check(&msg) {
                    tracing::warn!(lease = &*self.parts.lease, %error, "nothing is done about it");
                    return;
                }
                if self.gives_up(now) {
                    return;
                }
                self.count_answer(&msg);
                self.take_step(Input::Deliver { src: src.into(), msg }, now);
            }
            Command::Unknown(request) => {
                if self.sent.take_if(|(sent, _)| *sent == request).is_some() {
                    self.parts.stats.renew_failure("ambiguous");
                }
            }
            Command::StepDown { epoch, done } => {
                self.releases.push((epoch, done));
                self.take_step(to_myself(Msg::StepDown { epoch }), now);
            }
            Command::HandOver { epoch, target, done } => {
                if self.parts.courier.is_none() {
                    let _ = done.send(Err(HandOverError::NoCourier));
                    return;
                }
                let held = self.phase().and_then(Phase::holding) == Some(epoch);
                self.take_step(to_myself(Msg::HandOver { target, epoch }), now);
                if !held {
                    let _ = done.send(Err(HandOverError::TermOver));
                } else if self.phase().and_then(Phase::holding) == Some(epoch) {
                    let _ = done.send(Err(HandOverError::NotACandidate(target)));
                } else {
                    self.hand_overs.push((epoch, done));
                    self.answer();
                }
            }
            Command::Abandon { epoch, reason } => self.abandon(epoch, reason),
            Command::Killed { epoch } => self.has_killed(epoch),
            Command::Stopped { epoch } => {
                self.stopping.take_if(|stopping| *stopping == epoch);
                self.take_step(to_myself(Msg::Stopped { epoch }), now);
            }
            Command::Shutdown => {
                self.is_ending = true;
                if let Some(epoch) = self.phase().and_then(Phase::holding) {
                    self.take_step(to_myself(Msg::StepDown { epoch }), now);
                }
            }
        }
    }

    /// Fires what is due, and gives a time at which nothing was.
    fn fire_due(&mut self) -> BootInstant {
        let pass = self.timers.pass();
        loop {
            let now = BootInstant::now();
            let Some(timer) = self.timers.fire(now, pass) else { return now };
            if self.gives_up(now) {
                // The timers are those of another life.
                return BootInstant::now();
            }
            let held = self.phase().and_then(Phase::holding);
            let is_hold = matches!(timer, Timer::Hold(_));
            self.take_step(Input::Fire(timer), now);
            if is_hold && held.is_some() && self.phase().and_then(Phase::holding).is_none() {
                self.parts.stats.self_fence();
            }
        }
    }

    /// Gives up the term whose work is dead, before whatever comes could renew it: a timer, or a hint of the store.
    fn gives_up(&mut self, now: BootInstant) -> bool {
        let Some(epoch) = self.phase().and_then(Phase::holding) else { return false };
        if self.is_alive(now) {
            return false;
        }
        tracing::warn!(lease = &*self.parts.lease, epoch, "the work gives no sign of life");
        self.abandon(epoch, "not_alive");
        true
    }

    /// Whether the work has given a sign of life within the time that it may be silent (L-36).
    fn is_alive(&self, now: BootInstant) -> bool {
        let (Some(within), Some(term)) = (self.parts.alive_within, &self.term) else { return true };
        let last = BootInstant::from_nanos(term.alive.load(Ordering::Relaxed));
        oversight::is_alive(last, now, within)
    }

    /// The only caller of [`step`].
    fn take_step(&mut self, input: Input<Msg, Timer, (), Storage>, now: BootInstant) {
        let id = Id::from(self.parts.me);
        let (state, effects) = step(&self.parts.actor, id, self.state.take(), input);
        let mut sends = Vec::new();
        for effect in effects {
            match effect {
                // All that a host without a table saves is its incarnation, and that is never used again.
                Effect::Save(_) => {}
                Effect::Send(to, msg) => sends.push((NodeId::from(to), msg)),
                Effect::SetTimer(timer, range) => {
                    self.timers.arm(timer, range.start, range.end, now, &mut rand::rng());
                }
                Effect::CancelTimer(timer) => {
                    self.timers.cancel(&timer);
                }
                Effect::Choose(..) => unreachable!("an elector chooses nothing"),
            }
        }
        let epoch = self.parts.actor.epoch(&state);
        let deadline =
            self.parts.actor.deadline(&state).and_then(|timer| self.timers.deadline(&timer));
        let view = self.parts.actor.view(id, &state);
        self.state = Some(state);
        // Before anything is sent: what a message says must not be ahead of what this process permits.
        self.show(epoch, deadline, &view);
        for (to, msg) in sends {
            self.send(to, msg, now);
        }
        self.answer();
    }

    /// Tells the guard and everybody who looks.
    fn show(&mut self, epoch: Option<Epoch>, deadline: Option<BootInstant>, view: &View) {
        if self.term.as_ref().map(|term| term.epoch) != epoch {
            self.end_term();
        }
        if let (Some(epoch), Some(deadline)) = (epoch, deadline) {
            self.until = Some((epoch, deadline));
            self.permit(epoch, deadline);
        }
        let View::Host(view) = view else { unreachable!("the actor is a host") };
        let shown = LeaderView {
            role: view.role,
            leader: view.holder,
            epoch: view.epoch.or(view.seen_epoch),
            deadline: self.term.as_ref().and(deadline),
        };
        self.parts.shown.view.send_if_modified(|last| {
            let is_new = *last != shown;
            *last = shown;
            is_new
        });
        // After the view: whoever is given the leadership finds it there.
        self.parts.shown.term.send_if_modified(|last| {
            let is_new =
                last.as_ref().map(|last| last.epoch) != self.term.as_ref().map(|term| term.epoch);
            last.clone_from(&self.term);
            is_new
        });
    }

    fn permit(&mut self, epoch: Epoch, deadline: BootInstant) {
        let guard = &self.parts.guard;
        let refused = match &self.term {
            Some(_) => guard.extend(epoch, deadline).err(),
            None => match guard.open(epoch, deadline) {
                Ok(()) => {
                    let term = Arc::new(Term {
                        epoch,
                        token: CancellationToken::new(),
                        guard: Arc::clone(guard),
                        alive: AtomicU64::new(BootInstant::now().as_nanos()),
                    });
                    self.had_a_term = true;
                    self.parts.stats.transition("acquired");
                    self.term = Some(Arc::clone(&term));
                    self.parts.shown.watched.send_modify(|watched| watched.begin(&term));
                    None
                }
                Err(refused) => Some(refused),
            },
        };
        match refused {
            None | Some(Refused::NotLater) => {}
            // Ended behind the elector's back, or not to be had: then the elector gives it up too.
            Some(refused) => {
                tracing::warn!(lease = &*self.parts.lease, epoch, %refused, "the term is given up");
                // Also one that has not begun: what waits for the end of its work must not wait for ever.
                guard.revoke(epoch);
                tell(&self.parts.commands, Command::Abandon { epoch, reason: "not_permitted" });
            }
        }
    }
}

/// Tells the driver something, if it has not ended. What the driver has started must not keep it alive.
fn tell(commands: &mpsc::WeakUnboundedSender<Command>, command: Command) {
    if let Some(commands) = commands.upgrade() {
        let _ = commands.send(command);
    }
}
