//! What a node runs beside its part in an election: for each `[[work]]` of the cluster file, a keeper in each
//! term, and the command that follows another holder.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::keeper::Charge;
use super::kill::Grouped;
use crate::clock::BootInstant;
use crate::config::{Config, Lease, Work};
use crate::lease::msg::Msg;
use crate::lease::record::{Epoch, NodeId};
use crate::lease::{Member, Role, View};
use crate::node::{Guard, HandBack, Handle, Hooks, Published};

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
    child: Child,
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
    ) -> Result<Self, String> {
        let within = lease.timing.stop_within();
        let (name, until_ns) = (lease.name.clone(), until.as_nanos());
        let work = work.clone();
        let charge = Charge { lease: name, epoch, until: until_ns, within, work };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .arg("keeper")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("the keeper of the work does not start ({error})"))?;
        let stdin = child.stdin.take();
        let mut keeper = Self { epoch, child, stdin, until, stopping: Vec::new(), asked: None };
        keeper.say(format!("{}\n", serde_json::to_string(&charge).expect("it is text"))).await;
        Ok(keeper)
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

/// Ends what may be running from an earlier life, before this one contends: a host starts read-only.
//= SPEC GUARD-20
pub(super) async fn stop_what_runs(work: &Work, lease: &Lease) -> Result<(), String> {
    loop {
        let mut keeper = Keeper::begin(work, lease, 0, BootInstant::from_nanos(0)).await?;
        let status = keeper.child.wait().await.map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        tracing::error!(lease = lease.name, %status, "the work from before has not ended");
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
    pub(super) async fn run(mut self) -> Result<(), String> {
        let guard: Arc<Guard> = self.handle.guard(self.lease.index).ok_or("no such lease")?;
        let mut views = self.handle.views(self.lease.index).ok_or("no such lease")?;
        let mut keeper: Option<Keeper> = None;
        let mut follower = Follower::default();
        loop {
            match (&mut keeper, guard.term()) {
                (Some(keeper), Some((epoch, until))) if keeper.epoch == epoch => {
                    keeper.extend(until).await;
                }
                (None, Some((epoch, until))) => {
                    follower.end();
                    keeper = Some(Keeper::begin(&self.work, &self.lease, epoch, until).await?);
                }
                (None, None) => follower.follow(&self, &views),
                _ => {}
            }
            let ended = async {
                match &mut keeper {
                    Some(keeper) => keeper.child.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.stops.recv() => match &mut keeper {
                    Some(keeper) => keeper.stop(done).await,
                    None => { let _ = done.send(()); }
                },
                status = ended => {
                    let status = status.map_err(|error| error.to_string())?;
                    keeper = self.ended(keeper.take().expect("it has ended"), status).await?;
                }
                () = follower.wait() => {}
                changed = views.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// The keeper has ended. If the work has too, who waits for that is told; else another one ends it.
    async fn ended(&self, mut ended: Keeper, status: ExitStatus) -> Result<Option<Keeper>, String> {
        let (lease, epoch) = (&self.lease, ended.epoch);
        if ended.stopping.is_empty() {
            // The work has not begun, or its keeper was killed: the term is of no use to anybody.
            tracing::warn!(lease = lease.name, epoch, %status, "the term is given up");
            let _ = self.handle.tell(lease.index, Msg::StepDown { epoch });
        }
        if status.success() {
            if let Some(asked) = ended.asked {
                let took = BootInstant::now().saturating_duration_since(asked);
                super::health::hooks_took(&lease.name, took);
            }
            for done in ended.stopping {
                let _ = done.send(());
            }
            return Ok(None);
        }
        tracing::error!(lease = lease.name, epoch, %status, "the keeper has ended before the work");
        let mut next = Keeper::begin(&self.work, lease, epoch, BootInstant::from_nanos(0)).await?;
        next.stopping.append(&mut ended.stopping);
        next.asked = ended.asked;
        Ok(Some(next))
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
