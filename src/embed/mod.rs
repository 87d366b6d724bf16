//! The embedding API: an elector inside another program, over any store.
//!
//! [`Builder`] takes a [`LeaseStore`], the node's place among the hosts of the lease and a [`Timing`] that is
//! checked; [`Builder::start`] gives an [`Elector`], whose [`acquire`](Elector::acquire) gives a
//! [`Leadership`] for each term. The protocol is the same actor that the models explore and that nodes run
//! over UDP, called through the same function, [`crate::step::step`].
//!
//! ```
//! use std::time::Duration;
//! use tenure::embed::{Builder, MemoryStore};
//! use tenure::lease::record::NodeId;
//! use tenure::lease::timing::Timing;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hosts = [NodeId(0), NodeId(1)];
//! let mut elector =
//!     Builder::new("orders", NodeId(0), hosts, MemoryStore::new(), Timing::DEFAULT.validate()?)
//!         .start()?;
//! let term = elector.acquire().await?;
//! // Before each effect: is there time for it? Its epoch goes with the effect.
//! let permit = term.permit(Duration::from_millis(50))?;
//! println!("UPDATE ... SET epoch = {0} WHERE epoch <= {0}", permit.epoch());
//! // The work has been joined: give the lease back.
//! term.release().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised, and what not
//!
//! Between two electors of one lease that keep the timing's bounds, at most one has a term whose work may be
//! running. What a term admits by [`Leadership::enter`] has ended before the lease is given back; what it runs
//! besides must end when its [`token`](Leadership::token) is cancelled, or in a [`Hook`], within S. If the
//! hooks and the admitted work have not ended within S, the [`KillSwitch`] ends the process.
//!
//! The lease is given back only by [`Leadership::release`], [`Leadership::hand_over`] and [`Elector::shutdown`], and
//! when the work is known to have ended. After a term that ends in another way it runs out by itself, within L.
//!
//! A process that is stopped as a whole (SIGSTOP, a machine that is suspended) runs neither hooks nor kill
//! switch. When it goes on, a thread that was between a question and its effect acts late. No lease covers that:
//! only the epoch does, checked by what is written to (L-28).
//!
//! # What runs where
//!
//! Two threads of their own: one drives the protocol and its timers, one watches over deadlines. Stores,
//! hooks and couriers run on the runtime of tokio on which the elector was started.

#![allow(clippy::disallowed_methods, reason = "this is where clocks and randomness belong")]

mod driver;
mod hook;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
mod sentry;
mod stats;
mod store;
mod term;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::driver::{Command, Driver, Parts, Shown};
use self::sentry::Watched;
use self::stats::Stats;
use crate::clock::BootInstant;
use crate::lease::Member;
use crate::lease::elector::Elector as Actor;
use crate::lease::host::Host;
use crate::lease::msg::Msg;
use crate::lease::record::{NodeId, NodeSet, Record};
use crate::lease::safeguards::Safeguards;
use crate::lease::timing::{Checked, Timing};
use crate::node::Guard;
use crate::node::clock::BootClock;

pub use hook::{Hook, HookFuture, KillSwitch, StopMode, StopModeError};
pub use store::{CasOutcome, LeaseStore, MemoryStore, StoreError};
pub use term::{HandOverError, LeaderView, Leadership};

/// An old holder's word that it has stopped: its successor need not wait (L-31).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Who says so.
    pub from: NodeId,
    /// The record that may be written over, exactly.
    pub record: Record,
}

/// Takes consents to other hosts, for planned hand-overs. They may be lost, late or doubled: what is
/// not heard costs time, nothing else. Their sender must be who it says, as with any message of the protocol.
pub trait Courier: Send + Sync + 'static {
    /// Takes a consent to this host, whose elector gets it by [`Elector::deliver`].
    fn send(
        &self,
        lease: &str,
        to: NodeId,
        consent: Consent,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Why an elector has not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The hooks, one after the other, and the kill switch may take longer than S.
    #[error(
        "the hooks take up to {hooks:?}, but an S of {stop:?} leaves them {left:?} before the kill switch: raise \
         `hook` in the timing, which then has to be checked again, or give the hooks less"
    )]
    HooksTooLong {
        /// The sum of the hooks' times.
        hooks: Duration,
        /// S.
        stop: Duration,
        /// What they may take: [`Timing::stop_within`].
        left: Duration,
    },
    /// One host is no group (A1), or the own node is not among them.
    #[error("{0:?} must be one of at least two hosts, each with an id below 63")]
    Hosts(NodeId),
    /// No runtime of tokio is entered, where the store and the hooks could run.
    #[error("an elector is started on a runtime of tokio: call it from within one")]
    NoRuntime,
    /// The system refuses a thread.
    #[error("the system refuses what an elector needs ({0}): raise its limits")]
    System(String),
}

/// The elector has ended: it was built to run once, or was shut down, or its thread has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the elector has ended")]
pub struct Ended;

/// What an elector is to be.
#[must_use = "an elector begins with `start`"]
pub struct Builder<S> {
    lease: Arc<str>,
    me: NodeId,
    hosts: Vec<NodeId>,
    store: Arc<S>,
    timing: Timing,
    hooks: Vec<Hook>,
    courier: Option<Arc<dyn Courier>>,
    kill_switch: KillSwitch,
    alive_within: Option<Duration>,
    once: bool,
}

impl<S: LeaseStore> Builder<S> {
    /// An elector for this lease, on the host `me` of `hosts`, over this store.
    ///
    /// All hosts are told the same set. The timing comes from [`Timing::validate`], which refuses numbers with
    /// which two hosts could write at once; its `hook` is S, in which the hooks and the kill switch must fit.
    pub fn new(
        lease: impl AsRef<str>,
        me: NodeId,
        hosts: impl IntoIterator<Item = NodeId>,
        store: S,
        timing: Checked,
    ) -> Self {
        Self {
            lease: lease.as_ref().into(),
            me,
            hosts: hosts.into_iter().collect(),
            store: Arc::new(store),
            timing: timing.get(),
            hooks: Vec::new(),
            courier: None,
            kill_switch: KillSwitch::Abort,
            alive_within: None,
            once: false,
        }
    }

    /// Adds a hook. They run one after the other, in this order.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// What takes consents to other hosts. Without one, [`Leadership::hand_over`] is refused.
    pub fn courier(mut self, courier: impl Courier) -> Self {
        self.courier = Some(Arc::new(courier));
        self
    }

    /// What ends the work when the hooks have not. By default, [`KillSwitch::Abort`].
    pub fn kill_switch(mut self, kill_switch: KillSwitch) -> Self {
        self.kill_switch = kill_switch;
        self
    }

    /// Ends a term whose work has not called [`Leadership::alive`] within this time (L-36), at the latest when the
    /// next renewal would be due.
    ///
    /// Silent work may still be running, and has S to end. So the lease is not given back: it runs out by itself.
    pub fn alive_within(mut self, silence: Duration) -> Self {
        self.alive_within = Some(silence);
        self
    }

    /// Ends after the first term. By default an elector contends again after each (L-38).
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Starts to contend for the lease.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing has been sent then.
    //= SPEC GUARD-14
    pub fn start(self) -> Result<Elector, StartError> {
        let is_small = |node: &NodeId| node.0 < NodeId::LIMIT - 1;
        if !self.hosts.contains(&self.me) || !self.hosts.iter().all(is_small) {
            return Err(StartError::Hosts(self.me));
        }
        let hosts: NodeSet = self.hosts.iter().copied().collect();
        if hosts.iter().count() < 2 {
            return Err(StartError::Hosts(self.me));
        }
        let worst = self.hooks.iter().map(|hook| hook.worst);
        let hooks = worst.fold(Duration::ZERO, Duration::saturating_add);
        let stop_within = self.timing.stop_within();
        if stop_within.is_zero() || hooks > stop_within {
            let (stop, left) = (self.timing.hook, stop_within);
            return Err(StartError::HooksTooLong { hooks, stop, left });
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        // The store is no node: it has the id that no host can have.
        let store_id = NodeId(NodeId::LIMIT - 1);
        let safeguards = Safeguards::ALL;
        let elector =
            Actor { me: self.me, store: store_id, hosts, timing: self.timing, safeguards };
        let (commands, inbox) = mpsc::unbounded_channel();
        let guard = Arc::new(Guard::new(BootClock));
        let shown = Shown {
            view: watch::Sender::new(LeaderView::UNKNOWN),
            term: watch::Sender::new(None),
            watched: watch::Sender::new(Watched::default()),
        };
        let (view, terms) = (shown.view.subscribe(), shown.term.subscribe());
        if let Some(mut changes) = self.store.changes(&self.lease) {
            let hints = commands.downgrade();
            runtime.spawn(async move {
                while let Some(version) = changes.recv().await {
                    let Some(commands) = hints.upgrade() else { return };
                    let _ = commands.send(Command::Deliver(store_id, Msg::Changed { version }));
                }
            });
        }
        let watched = shown.watched.clone();
        let sentry = sentry::run(
            Arc::clone(&guard),
            watched,
            commands.downgrade(),
            stop_within,
            self.kill_switch,
        );
        let driver = Driver::new(Parts {
            stats: Arc::new(Stats::new(&self.lease)),
            lease: self.lease,
            me: self.me,
            store_id,
            actor: Member::Host(Host { elector, replica: None }),
            store: self.store,
            hooks: Arc::new(self.hooks),
            courier: self.courier,
            guard: Arc::clone(&guard),
            give_up: self.timing.give_up,
            stop_within,
            alive_within: self.alive_within,
            once: self.once,
            runtime,
            commands: commands.downgrade(),
            shown,
        });
        thread("tenure-sentry", move |runtime| runtime.block_on(sentry))?;
        let (ended, has_ended) = watch::channel(());
        thread("tenure-elector", move |runtime| {
            runtime.block_on(driver.run(inbox));
            drop(ended);
        })?;
        Ok(Elector { commands, view, terms, guard, last: 0, has_ended })
    }
}

impl<S> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("lease", &self.lease)
            .field("me", &self.me)
            .field("hosts", &self.hosts)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

/// A thread with a runtime for one task, so that nothing of the user's can hold it up.
fn thread(
    name: &str,
    run: impl FnOnce(tokio::runtime::Runtime) + Send + 'static,
) -> Result<(), StartError> {
    let system = |error: std::io::Error| StartError::System(error.to_string());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(runtime))
        .map(|_| ())
        .map_err(system)
}

/// An elector that runs, until it and every [`Leadership`] that it gave out are dropped. Then a term that nobody
/// took ends without release; [`shutdown`](Self::shutdown) gives the lease back.
#[derive(Debug)]
pub struct Elector {
    commands: mpsc::UnboundedSender<Command>,
    view: watch::Receiver<LeaderView>,
    terms: watch::Receiver<Option<Arc<term::Term>>>,
    guard: Arc<Guard>,
    /// The last epoch for which a leadership was given out.
    last: u64,
    has_ended: watch::Receiver<()>,
}

impl Elector {
    /// Waits until this process holds the lease, and gives out its leadership: once for each term.
    ///
    /// After a term it is called again: the elector goes on contending by itself.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    pub async fn acquire(&mut self) -> Result<Leadership, Ended> {
        loop {
            let term = self.terms.borrow_and_update().clone();
            if let Some(term) = term.filter(|term| term.epoch > self.last) {
                self.last = term.epoch;
                let commands = self.commands.clone();
                return Ok(Leadership { term, commands, is_over: false });
            }
            self.terms.changed().await.map_err(|_| Ended)?;
        }
    }

    /// What the elector knows of the lease, and a notice of each change. It carries the deadline: whoever reads
    /// it compares ([`LeaderView::is_leader_now`]), so that an elector that is stuck leaves no true
    /// answer behind.
    pub fn view(&self) -> watch::Receiver<LeaderView> {
        self.view.clone()
    }

    /// The guard, for those who ask before each effect.
    pub fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.guard)
    }

    /// When the term ends unless it is renewed, if there is one.
    pub fn deadline(&self) -> Option<BootInstant> {
        self.guard.term().map(|(_, deadline)| deadline)
    }

    /// Delivers another host's consent, from a [`Courier`].
    pub fn deliver(&self, consent: Consent) {
        let Consent { from, record } = consent;
        let _ = self.commands.send(Command::Deliver(from, Msg::Consent { record }));
    }

    /// Ends the term if there is one, frees the lease, and ends the elector. Call it when the work has been
    /// joined.
    pub async fn shutdown(mut self) {
        if self.commands.send(Command::Shutdown).is_ok() {
            // It sends nothing: it is dropped when the driver has ended.
            let _ = self.has_ended.changed().await;
        }
    }
}
