//! How to start a node, and what its owner holds while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use stateright::actor::Actor;
use tokio::sync::{Notify, mpsc, watch};

use super::Guard;
use super::clock::{BootClock, BootInstant};
use super::counts::Counts;
use super::runtime;
use super::storage::{Legend, Reader, StorageError};
use crate::durable::Durable;
use crate::lease::record::NodeId;
use crate::step::Machine;
use crate::trace::Recorder;
use crate::wire::seal::Keyring;
use crate::wire::{Message, Plain, Seal};

/// How many messages may wait between [`Handle::tell`] and the loop.
const TOLD_MAX: usize = 1024;
/// How long [`Handle::stop`] waits for a graceful end, and then once more for an abrupt one.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// An actor that a node can run: what it says fits a datagram, what it saves has rows, and its
/// timers have an order.
pub trait Runnable:
    Machine<Msg: Message + Send, State: Debug, Timer: Ord, Storage: Durable, View: Send + Sync>
    + Send
    + 'static
{
}

impl<A> Runnable for A where
    A: Machine<Msg: Message + Send, State: Debug, Timer: Ord, Storage: Durable, View: Send + Sync>
        + Send
        + 'static
{
}

/// The socket of a node.
#[derive(Debug)]
pub enum Bind {
    /// Bind this address.
    To(SocketAddr),
    /// Use this socket. Whoever starts several nodes at once binds them all to port 0 first, and
    /// writes the address book when every port is known and taken.
    Socket(UdpSocket),
}

/// When an actor's message to itself comes back.
pub enum HandBack {
    /// With the next messages.
    Now,
    /// When this much time has passed on the node's clock.
    After(Duration),
    /// When this has happened.
    When(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// What the node does for a message that an actor sends to its own node.
///
/// Such a message never goes over the network: it says that something in this node is to be done,
/// and comes back when it is. For a lease that is `Msg::Stopped`: end the work of this term.
pub trait Hooks<M>: Send {
    /// Begins what the message asks for, and says when to hand it back. It must not block: the node
    /// does nothing else meanwhile.
    ///
    /// The end of a term is begun in the step that ends it, whatever the disk does; all else when the step's
    /// saves are durable. A node that ends, also because its disk has failed, drops its hooks without a call: whoever
    /// has work to end then does it in `drop`, or sees it at the end of the [`Handle`].
    fn local(&mut self, lease: u16, msg: &M) -> HandBack;
}

impl<M, F> Hooks<M> for F
where
    F: FnMut(u16, &M) -> HandBack + Send,
{
    fn local(&mut self, lease: u16, msg: &M) -> HandBack {
        self(lease, msg)
    }
}

/// What a node is to be.
pub struct Spec<A: Actor> {
    /// The cluster's name; the storage of a node of another cluster is refused.
    pub cluster: String,
    /// This node's id: its place in the address book.
    pub me: NodeId,
    /// This node's socket.
    pub bind: Bind,
    /// The address book: the address of every node, by id.
    pub peers: Vec<SocketAddr>,
    /// The storage file. Without one the node forgets everything when it ends, and its incarnations
    /// are drawn at random: for demonstrations and tests.
    pub storage: Option<PathBuf>,
    /// What the numbers in the storage stand for, where that is not fixed: a storage whose numbers stand for
    /// something else is refused.
    pub legend: Option<Legend>,
    /// The names of the leases, by index: a storage that has the rows of another lease under one of these is refused.
    pub leases: BTreeMap<u16, String>,
    /// The actors, each with the index of its lease.
    pub actors: Vec<(u16, A)>,
    /// What is done for messages of an actor to itself.
    pub hooks: Box<dyn Hooks<A::Msg>>,
    /// What seals datagrams.
    pub seal: Box<dyn Seal>,
    /// What takes down the node's steps, made when the incarnation is known. See
    /// [`record_into`](super::record_into).
    pub recorder: Option<NewRecorder<A>>,
}

/// Makes what takes down the steps of the life of this incarnation.
pub type NewRecorder<A> = Box<dyn FnOnce(u32) -> Result<Box<dyn Recorder<A>>, StartError> + Send>;

impl<A: Runnable> Spec<A> {
    /// A node with no actors yet and no storage, that hands back at once and seals nothing.
    pub fn new(cluster: impl Into<String>, me: NodeId, bind: Bind, peers: Vec<SocketAddr>) -> Self {
        Self {
            cluster: cluster.into(),
            me,
            bind,
            peers,
            storage: None,
            legend: None,
            leases: BTreeMap::new(),
            actors: Vec::new(),
            hooks: Box::new(|_: u16, _: &A::Msg| HandBack::Now),
            seal: Box::new(Plain),
            recorder: None,
        }
    }
}

/// Why a node has not started. Nothing is left behind but, perhaps, a new storage file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A peer cannot be reached from this socket.
    #[error("{bind} cannot send to {peer}: bind an address of the same family, or [::] for both")]
    AddressFamily {
        /// This node's address.
        bind: SocketAddr,
        /// The peer's.
        peer: SocketAddr,
    },
    /// The address cannot be bound.
    #[error("cannot bind {address} ({reason}): it must be an address of this machine")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// Two actors have one lease index.
    #[error("lease index {0} is given twice: an index has one actor on a node")]
    DuplicateLease(u16),
    /// The address book has no entry for this node.
    #[error("the address book has {nodes} nodes and none is node {}: add this node's address", me.0)]
    NotInAddressBook {
        /// This node.
        me: NodeId,
        /// How long the address book is.
        nodes: usize,
    },
    /// Datagrams without a seal would leave the machine.
    #[error("{0} is not a loopback address: without keys, nodes talk on 127.0.0.1 or [::1] only")]
    NotLoopback(SocketAddr),
    /// Something else has the port.
    #[error("port {} of {} is in use: stop the other process or choose another port", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    /// The storage cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The trace cannot be written.
    #[error("cannot write the trace {path} ({reason}): name a file that can be written")]
    Trace {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The system refuses a thread, a timer or the like.
    #[error("the system refuses what a node needs ({0}): raise its limits")]
    System(String),
}

/// Why a node that ran has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// An assertion about an actor has failed: a bug. It stops before the step has any effect.
    #[error(
        "the node has stopped because an invariant is broken ({0}): please report this with its trace"
    )]
    Broken(String),
    /// Nothing can be saved any more.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system has taken back the socket or the timer.
    #[error(
        "the node has stopped because the system refuses its socket or timer ({0}): start it again"
    )]
    System(String),
}

/// How a node has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// [`Handle::stop`], and everything saved and sent.
    Stopped,
    /// [`Handle::kill`], or the handle was dropped.
    Killed,
    /// By itself.
    Failed(NodeError),
    /// It has not ended: its disk does not answer. The thread ends when the disk does.
    Hung,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TellError {
    /// Too many are waiting.
    #[error("the node has more to do than it can: try again later")]
    Full,
    /// A value is out of its bounds.
    #[error("a value is out of its bounds: shorten the texts and check the node ids")]
    Illegal,
    /// The node has ended.
    #[error("the node has ended: start it again")]
    Ended,
    /// The node has no part in this lease.
    #[error("the node has no part in lease {0}: ask one that has")]
    UnknownLease(u16),
}

/// What the outside may know of an actor: published after each step, once whatever it depends on
/// is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Published<V> {
    /// The projection of the actor's state.
    pub view: V,
    /// Until when the view's permission holds, if it permits anything. A reader compares it with
    /// the clock every time, so that a node that is stuck does not leave a permission behind. It is
    /// brought forward at once when a step ends the permission, even while the view itself waits
    /// for a save.
    pub deadline: Option<BootInstant>,
}

/// A direction of traffic, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    Both,
    /// To this node.
    In,
    /// From this node.
    Out,
}

/// What the handle wants of the loop.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) stop: bool,
    pub(super) kill: bool,
    pub(super) pause: Duration,
}

/// What handle and loop share.
#[derive(Debug)]
pub(super) struct Shared {
    wishes: Mutex<Wishes>,
    /// Whether the loop has to look at the wishes before it does anything else.
    attention: AtomicBool,
    /// Ends a pause early, for a kill.
    unpause: Condvar,
    pub(super) wake: Notify,
    cut_in: Mutex<BTreeSet<NodeId>>,
    cut_out: Mutex<BTreeSet<NodeId>>,
    keys: Mutex<Option<Keyring>>,
    counts: Mutex<Counts>,
    ended: Mutex<Option<Exit>>,
    has_ended: Condvar,
    exit: watch::Sender<Option<Exit>>,
}

/// Takes a lock that somebody may have panicked with: each value here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new() -> Self {
        Self {
            wishes: Mutex::default(),
            attention: AtomicBool::new(false),
            unpause: Condvar::new(),
            wake: Notify::new(),
            cut_in: Mutex::default(),
            cut_out: Mutex::default(),
            keys: Mutex::default(),
            counts: Mutex::default(),
            ended: Mutex::default(),
            has_ended: Condvar::new(),
            exit: watch::Sender::new(None),
        }
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut lock(&self.wishes));
        self.attention.store(true, Ordering::Release);
        self.unpause.notify_all();
        self.wake.notify_one();
    }

    /// Whether the loop has looked here since it was asked to; and asks it again.
    fn asks(&self) -> bool {
        let has_looked = !self.attention.swap(true, Ordering::AcqRel);
        self.wake.notify_one();
        has_looked
    }

    /// Waits out a pause if one is wished for; then says whether to go on.
    pub(super) fn attend(&self) -> Option<Exit> {
        if !self.attention.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut wishes = lock(&self.wishes);
        let pause = std::mem::take(&mut wishes.pause);
        if !pause.is_zero() {
            let until = BootInstant::now().saturating_add(pause);
            loop {
                let left = until.saturating_duration_since(BootInstant::now());
                if left.is_zero() || wishes.kill {
                    break;
                }
                wishes = self
                    .unpause
                    .wait_timeout(wishes, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
        if wishes.kill {
            Some(Exit::Killed)
        } else if wishes.stop {
            Some(Exit::Stopped)
        } else {
            // A second pause may have been wished for during the first.
            if !wishes.pause.is_zero() {
                self.attention.store(true, Ordering::Release);
            }
            None
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        lock(&self.wishes).kill
    }

    /// The keys that the seal is to have from now on, if they are new.
    pub(super) fn new_keys(&self) -> Option<Keyring> {
        lock(&self.keys).take()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    pub(super) fn is_cut_in(&self, node: NodeId) -> bool {
        lock(&self.cut_in).contains(&node)
    }

    pub(super) fn is_cut_out(&self, node: NodeId) -> bool {
        lock(&self.cut_out).contains(&node)
    }

    fn end(&self, exit: Exit) {
        *lock(&self.ended) = Some(exit.clone());
        self.has_ended.notify_all();
        self.exit.send_replace(Some(exit));
    }

    fn wait(&self) -> Exit {
        let mut ended = lock(&self.ended);
        loop {
            if let Some(exit) = &*ended {
                return exit.clone();
            }
            ended = self.has_ended.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for(&self, patience: Duration) -> Option<Exit> {
        let ended = lock(&self.ended);
        let (ended, _) = self
            .has_ended
            .wait_timeout_while(ended, patience, |ended| ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        ended.clone()
    }
}

/// A running node, as its owner holds it. Dropping it kills the node.
pub struct Handle<A: Runnable> {
    shared: Arc<Shared>,
    told: mpsc::Sender<(u16, A::Msg)>,
    views: BTreeMap<u16, watch::Receiver<Option<Published<A::View>>>>,
    guards: BTreeMap<u16, Arc<Guard>>,
    me: NodeId,
    address: SocketAddr,
    incarnation: u32,
    reader: Option<Reader>,
}

/// Where the loop publishes what one actor lets the outside know.
pub(super) struct Publisher<V> {
    pub(super) view: watch::Sender<Option<Published<V>>>,
    pub(super) guard: Arc<Guard>,
}

impl<V> Clone for Publisher<V> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), guard: Arc::clone(&self.guard) }
    }
}

/// What the loop reports when everything is open and nothing has been sent.
pub(super) struct Opened {
    pub(super) address: SocketAddr,
    pub(super) incarnation: u32,
    pub(super) reader: Option<Reader>,
}

/// The way to start nodes.
#[derive(Clone, Copy, Debug)]
pub struct Node;

impl Node {
    /// Starts a node on a thread of its own, with a runtime of its own: any number of nodes can run
    /// in one process, and one that is paused holds up no other.
    ///
    /// It blocks until the storage is open and this start is counted durably (runtime duty 4).
    ///
    /// # Errors
    ///
    /// [`StartError`] says what to do. The node has then sent nothing.
    pub fn start<A: Runnable>(spec: Spec<A>) -> Result<Handle<A>, StartError> {
        let shared = Arc::new(Shared::new());
        let (told, inbox) = mpsc::channel(TOLD_MAX);
        let mut views = BTreeMap::new();
        let mut guards = BTreeMap::new();
        let mut publishers = BTreeMap::new();
        for (lease, _) in &spec.actors {
            let (publisher, view) = watch::channel(None);
            views.insert(*lease, view);
            let guard = Arc::new(Guard::new(BootClock));
            guards.insert(*lease, Arc::clone(&guard));
            if publishers.insert(*lease, Publisher { view: publisher, guard }).is_some() {
                return Err(StartError::DuplicateLease(*lease));
            }
        }
        let me = spec.me;
        let (report, opened) = std_mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name(format!("tenure-n{}", me.0))
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let exit = runtime::run(spec, &shared, inbox, publishers, &report);
                    // Socket and file are closed by now: whoever waits may use them again.
                    shared.end(exit);
                }
            })
            .map_err(|error| StartError::System(error.to_string()))?;
        let Opened { address, incarnation, reader } = opened
            .recv()
            .map_err(|_| StartError::System("the node's thread has ended".to_owned()))??;
        Ok(Handle { shared, told, views, guards, me, address, incarnation, reader })
    }
}

impl<A: Runnable> Handle<A> {
    /// The node's id.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Reads what the node has made durable; none if it has no storage.
    pub fn reader(&self) -> Option<&Reader> {
        self.reader.as_ref()
    }

    /// The address that the node's socket has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which life of the node this is, from 1; a random number if the node has no storage.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// What the actor of this lease lets the outside know; `None` if the node has no such actor.
    ///
    /// The value is `None` until what the actor saved at its start is durable. When the node has
    /// ended, the last view stays with no deadline: it permits nothing.
    pub fn views(&self, lease: u16) -> Option<watch::Receiver<Option<Published<A::View>>>> {
        self.views.get(&lease).cloned()
    }

    /// The guard of this lease, for whoever acts under it; `None` if the node has no such actor.
    ///
    /// It is opened when everything that the term depends on is durable, and revoked in the very step
    /// that ends the term. The stop hook counts as running until all work that the guard has admitted
    /// has ended.
    pub fn guard(&self, lease: u16) -> Option<Arc<Guard>> {
        self.guards.get(&lease).cloned()
    }

    /// Delivers a message to the actor of this lease, from its own node. It does not block.
    ///
    /// # Errors
    ///
    /// [`TellError`]; the message was not taken then.
    pub fn tell(&self, lease: u16, msg: A::Msg) -> Result<(), TellError> {
        if !self.views.contains_key(&lease) {
            return Err(TellError::UnknownLease(lease));
        }
        if !msg.is_legal() {
            return Err(TellError::Illegal);
        }
        self.told.try_send((lease, msg)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TellError::Full,
            mpsc::error::TrySendError::Closed(_) => TellError::Ended,
        })
    }

    /// Whether the node's loop has come round since this was asked last; and asks it to. One that is paused or stuck has
    /// not; an idle one has.
    pub fn has_come_round(&self) -> bool {
        self.shared.asks()
    }

    /// The counters as they are.
    pub fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }

    /// From now on drops datagrams to or from these nodes, and from no others: an empty set heals
    /// the direction.
    pub fn cut(&self, nodes: impl IntoIterator<Item = NodeId>, direction: Direction) {
        let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        if matches!(direction, Direction::In | Direction::Both) {
            lock(&self.shared.cut_in).clone_from(&nodes);
        }
        if matches!(direction, Direction::Out | Direction::Both) {
            *lock(&self.shared.cut_out) = nodes;
        }
    }

    /// From now on seals and opens with these keys, if the node seals at all. It returns at once. What the node has heard
    /// stays known, and no nonce comes again.
    pub fn renew_keys(&self, keyring: Keyring) {
        *lock(&self.shared.keys) = Some(keyring);
        self.shared.wake.notify_one();
    }

    /// Makes the node handle nothing for this long, as SIGSTOP and SIGCONT would. It returns at once.
    /// Saves that are under way complete.
    pub fn pause(&self, duration: Duration) {
        self.shared.wish(|wishes| wishes.pause = wishes.pause.saturating_add(duration));
    }

    /// Ends the node: it handles nothing more, makes every save durable and sends what waited for
    /// that. Blocks for at most ten seconds.
    ///
    /// It releases no lease. Tell the actors to do so first, and wait for their views.
    pub fn stop(&self) -> Exit {
        self.shared.wish(|wishes| wishes.stop = true);
        self.shared.wait_for(STOP_WAIT).unwrap_or_else(|| self.kill())
    }

    /// Ends the node as SIGKILL would: nothing more is saved or sent, at any point in between. The
    /// storage file is closed when this returns, unless it is [`Exit::Hung`].
    pub fn kill(&self) -> Exit {
        self.shared.wish(|wishes| wishes.kill = true);
        self.shared.wait_for(STOP_WAIT).unwrap_or(Exit::Hung)
    }

    /// Blocks until the node ends, and says how.
    pub fn wait(&self) -> Exit {
        self.shared.wait()
    }

    /// How the node has ended; none while it runs.
    pub fn exit(&self) -> Option<Exit> {
        self.shared.exit.borrow().clone()
    }

    /// Waits until the node ends, and says how.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.shared.exit.subscribe();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => exit.clone(),
            // The sender lives as long as the handle.
            _ => unreachable!("the exit is reported once"),
        }
    }
}

impl<A: Runnable> Drop for Handle<A> {
    fn drop(&mut self) {
        self.kill();
    }
}

impl<A: Runnable> Debug for Handle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("me", &self.me)
            .field("address", &self.address)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}
