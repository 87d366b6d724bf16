//! What a node runs beside its part in an election: for each `[[work]]` of the cluster file, a keeper in each
//! term, and the command that follows another holder.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::keeper::Charge;
use super::kill::{Grouped, is_passing};
use crate::clock::BootInstant;
use crate::config::{Config, Lease, Work};
use crate::lease::msg::Msg;
use crate::lease::record::{Epoch, NodeId};
use crate::lease::{Member, Role, View};
use crate::node::{Guard, HandBack, Handle, Hooks, Published, TellError};

/// How long it waits before it runs something again that has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks for the end of the work of a term; answered when it has ended.
type Stops = mpsc::UnboundedReceiver<oneshot::Sender<()>>;

/// The stop hook of a node that ends the work of these leases elsewhere, and where it asks for that.
pub(super) fn ask(
    leases: impl IntoIterator<Item = u16>,
) -> (Box<dyn Hooks<Msg>>, Vec<(u16, Stops)>) {
    let (asks, stops): (BTreeMap<_, _>, Vec<_>) = leases
        .into_iter()
        .map(|lease| {
            let (ask, stop) = mpsc::unbounded_channel();
            ((lease, ask), (lease, stop))
        })
        .unzip();
    let hooks = move |of: u16, msg: &Msg| match (msg, asks.get(&of)) {
        (Msg::Stopped { .. }, Some(ask)) => {
            let (done, is_done) = oneshot::channel();
            let _ = ask.send(done);
            HandBack::When(Box::pin(async move {
                if is_done.await.is_err() {
                    // Nobody knows whether the work has ended.
                    std::future::pending::<()>().await;
                }
            }))
        }
        _ => HandBack::Now,
    };
    (Box::new(hooks), stops)
}

/// A keeper, as the node holds it.
struct Keeper {
    epoch: Epoch,
    /// None while the one that was killed has no successor yet.
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    until: BootInstant,
    /// Who waits for its end.
    stopping: Vec<oneshot::Sender<()>>,
    /// Since when.
    asked: Option<BootInstant>,
}

impl Keeper {
    async fn begin(
        work: &Work,
        lease: &Lease,
        epoch: Epoch,
        until: BootInstant,
    ) -> io::Result<Self> {
        let (stopping, asked) = (Vec::new(), None);
        let mut keeper = Self { epoch, child: None, stdin: None, until, stopping, asked };
        keeper.start(work, lease).await?;
        Ok(keeper)
    }

    async fn start(&mut self, work: &Work, lease: &Lease) -> io::Result<()> {
        let within = lease.timing.stop_within();
        let (name, until) = (lease.name.clone(), self.until.as_nanos());
        let charge = Charge { lease: name, epoch: self.epoch, until, within, work: work.clone() };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("keeper")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        self.stdin = child.stdin.take();
        self.child = Some(child);
        self.say(format!("{}\n", serde_json::to_string(&charge).expect("it is text"))).await;
        Ok(())
    }

    /// Waits for its end. One that is still to be started has none, but it is time to try again.
    async fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        match &mut self.child {
            Some(child) => child.wait().await.map(Some).map_err(|error| error.to_string()),
            None => {
                tokio::time::sleep(AGAIN).await;
                Ok(None)
            }
        }
    }

    async fn say(&mut self, line: String) {
        // One that is gone is noticed by its end.
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(line.as_bytes()).await;
        }
    }

    async fn extend(&mut self, until: BootInstant) {
        if until > self.until {
            self.until = until;
            self.say(format!("until {}\n", until.as_nanos())).await;
        }
    }

    async fn stop(&mut self, done: oneshot::Sender<()>) {
        self.stopping.push(done);
        self.asked.get_or_insert_with(BootInstant::now);
        self.say("stop\n".to_owned()).await;
    }
}

fn no_keeper(error: io::Error) -> String {
    format!("the keeper of the work does not start ({error})")
}

/// Ends what may be running from an earlier life, before this one contends: a host starts read-only.
//= SPEC GUARD-20
pub(super) async fn stop_what_runs(work: &Work, lease: &Lease) -> Result<(), String> {
    loop {
        let begun = Keeper::begin(work, lease, 0, BootInstant::from_nanos(0)).await;
        match begun.map_err(no_keeper)?.ended().await? {
            Some(status) if status.success() => return Ok(()),
            status => {
                tracing::error!(lease = lease.name, ?status, "the work from before has not ended");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What runs beside the election of one lease.
pub(super) struct Beside {
    pub(super) config: Arc<Config>,
    pub(super) me: NodeId,
    pub(super) lease: Lease,
    pub(super) work: Work,
    pub(super) handle: Arc<Handle<Member>>,
    pub(super) stops: Stops,
}

impl Beside {
    /// Runs until the node ends.
    //= SPEC GUARD-30
    pub(super) async fn run(mut self) -> Result<(), String> {
        let guard: Arc<Guard> = self.handle.guard(self.lease.index).ok_or("no such lease")?;
        let mut views = self.handle.views(self.lease.index).ok_or("no such lease")?;
        let mut keeper: Option<Keeper> = None;
        let mut follower = Follower::default();
        // The last term whose keeper has ended, or has not begun: it gets no other; and whether it is to be given up.
        let mut over: Option<Epoch> = None;
        let mut is_untold = false;
        loop {
            match (&mut keeper, guard.term()) {
                (Some(keeper), _) if keeper.child.is_none() => {
                    let error = keeper.start(&self.work, &self.lease).await.err();
                    self.not_begun(error)?;
                }
                (Some(keeper), Some((epoch, until))) if keeper.epoch == epoch => {
                    keeper.extend(until).await;
                }
                (None, Some((epoch, until))) if over != Some(epoch) => {
                    follower.end();
                    match Keeper::begin(&self.work, &self.lease, epoch, until).await {
                        Ok(begun) => keeper = Some(begun),
                        Err(error) => {
                            self.not_begun(Some(error))?;
                            (over, is_untold) = (Some(epoch), true);
                        }
                    }
                }
                (None, None) => follower.follow(&self, &views),
                _ => {}
            }
            if let Some(epoch) = over.filter(|_| is_untold) {
                let told = self.handle.tell(self.lease.index, Msg::StepDown { epoch });
                is_untold = matches!(told, Err(TellError::Full));
            }
            let ended = async {
                match &mut keeper {
                    Some(keeper) => keeper.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.stops.recv() => match &mut keeper {
                    Some(keeper) => keeper.stop(done).await,
                    None => { let _ = done.send(()); }
                },
                status = ended => if let Some(status) = status? {
                    let ended = keeper.take().expect("it has ended");
                    (over, is_untold) = (Some(ended.epoch), ended.stopping.is_empty());
                    keeper = self.ended(ended, status);
                },
                () = follower.wait() => {}
                () = tokio::time::sleep(AGAIN), if is_untold => {}
                changed = views.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// A keeper that does not start because something is short now is tried again; the node does not end for that, as it
    /// may be all that watches over the work.
    //= SPEC GUARD-31
    fn not_begun(&self, error: Option<io::Error>) -> Result<(), String> {
        match error {
            Some(error) if !is_passing(&error) => Err(no_keeper(error)),
            Some(error) => {
                tracing::error!(lease = self.lease.name, %error, "the keeper does not start");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The keeper has ended. If the work has too, who waits for that is told; else another one is to end it.
    fn ended(&self, mut ended: Keeper, status: ExitStatus) -> Option<Keeper> {
        let (lease, epoch) = (&self.lease, ended.epoch);
        if ended.stopping.is_empty() {
            // The work has not begun, or its keeper was killed: the term is of no use to anybody.
            tracing::warn!(lease = lease.name, epoch, %status, "the term is given up");
        }
        if status.success() {
            if let Some(asked) = ended.asked {
                let took = BootInstant::now().saturating_duration_since(asked);
                super::health::hooks_took(&lease.name, took);
            }
            for done in ended.stopping {
                let _ = done.send(());
            }
            return None;
        }
        tracing::error!(lease = lease.name, epoch, %status, "the keeper has ended before the work");
        (ended.child, ended.stdin, ended.until) = (None, None, BootInstant::from_nanos(0));
        Some(ended)
    }
}

/// The command that follows another holder, run again until it exits with 0.
#[derive(Default)]
struct Follower {
    /// Whom it follows, in which epoch.
    of: Option<(NodeId, Epoch)>,
    command: Option<Grouped>,
    /// When it is to be run again.
    again: Option<tokio::time::Instant>,
}

impl Follower {
    fn end(&mut self) {
        *self = Self::default();
    }

    fn follow(&mut self, beside: &Beside, views: &watch::Receiver<Option<Published<View>>>) {
        let Some(words) = &beside.work.follow else { return };
        let of = match views.borrow().as_ref().map(|published| &published.view) {
            Some(View::Host(view)) if view.role == Role::Watching => {
                view.holder.filter(|&holder| holder != beside.me).zip(view.seen_epoch)
            }
            _ => None,
        };
        let Some((holder, epoch)) = of else { return };
        let is_due = self.again.is_some_and(|again| again <= tokio::time::Instant::now());
        if self.of == of && !is_due {
            return;
        }
        self.end();
        self.of = of;
        let name = beside.config.node_by_id(holder).map(|node| node.name.clone());
        let environment = [
            ("TENURE_EPOCH", epoch.to_string()),
            ("TENURE_LEASE", beside.lease.name.clone()),
            ("TENURE_HOLDER", name.unwrap_or_default()),
        ];
        match Grouped::spawn(words, &environment) {
            Ok(command) => self.command = Some(command),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, reason: &str) {
        tracing::warn!(reason, "the command that follows the holder has failed: it is run again");
        self.again = Some(tokio::time::Instant::now() + AGAIN);
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        if let Some(command) = &mut self.command {
            let status = command.wait().await;
            self.command = None;
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => self.failed(&status.to_string()),
                Err(error) => self.failed(&error),
            }
        } else if let Some(again) = self.again {
            tokio::time::sleep_until(again).await;
        } else {
            std::future::pending().await
        }
    }
}
