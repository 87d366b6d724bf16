//! The loop that calls the actors.
//!
//! One thread, one loop, one place that calls [`step`]. The order of things in it is what the model
//! assumes:
//!
//! 1. Every input is preceded by all timers that are due, each at most once: an overdue timer goes
//!    before a message, and a timer that its handler arms again for at once does not starve the
//!    socket (runtime duty 2).
//! 2. Saves go to the commit thread; what a step sends and publishes waits until its saves and all
//!    earlier ones of that actor are durable, in order (runtime duty 1). The steps themselves run
//!    ahead in memory, and the loop never waits for the disk.
//! 3. If the disk fails, nothing that waits for it is ever sent: the node ends.
//!
//! Everything that waits is bounded. Too many waiting sends lose the oldest, which some timer sends
//! again; too many saves under way make the loop leave messages in the socket, where the system
//! drops them. A save is never dropped.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rand::seq::IndexedRandom;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use stateright::actor::Id;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::clock::{BootInstant, WakeUp};
use super::handle::{
    Bind, Exit, HandBack, Hooks, NodeError, Opened, Published, Publisher, Runnable, Shared, Spec,
    StartError,
};
use super::storage::{Committer, Progress, Row, Store};
use super::timers::Timers;
use crate::gate::EPOCH_MAX;
use crate::guard::Refused;
use crate::lease::record::{Epoch, NodeId};
use crate::step::{Effect, Input, InputOf, step};
use crate::trace::{Origin, Recorder};
use crate::wire::{self, DATAGRAM_MAX, DecodeError, Header, Headers, Seal};

/// How many inputs of one kind are handled before the loop looks at everything else.
const BATCH: usize = 64;
/// How many saves may be under way before the loop takes no more messages.
const SAVES_MAX: u64 = 4096;
/// How many sends of one actor may wait for its saves.
const HELD_MAX: usize = 4096;
/// How many datagrams may wait for the socket.
const OUT_MAX: usize = 4096;
/// How many messages of actors to themselves may wait.
const HANDED_MAX: usize = 4096;
/// How long a graceful end may take to make saves durable and send what waited for them.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// What the receive buffer should hold: a few thousand datagrams, so that one slow pass loses none.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How often a log line about one kind of dropped datagrams is written at most.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// The views of a node's actors, from the side that publishes them.
type Publishers<A> = BTreeMap<u16, Publisher<<A as crate::step::Machine>::View>>;

/// Runs a node to its end. Everything that it opens is closed when this returns.
pub(super) fn run<A: Runnable>(
    spec: Spec<A>,
    shared: &Shared,
    inbox: mpsc::Receiver<(u16, A::Msg)>,
    publishers: Publishers<A>,
    report: &SyncSender<Result<Opened, StartError>>,
) -> Exit {
    let last_views: Vec<_> = publishers.values().cloned().collect();
    let exit = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StartError::System(error.to_string()));
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = report.send(Err(error));
                return Exit::Killed;
            }
        };
        runtime.block_on(async {
            match open(spec, shared, inbox, publishers) {
                Ok((node, opened)) => {
                    // The receiver waits for this very report.
                    let _ = report.send(Ok(opened));
                    node.run().await
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                    Exit::Killed
                }
            }
        })
    }))
    .unwrap_or_else(|panic| Exit::Failed(NodeError::Broken(panic_text(&*panic))));
    // A node that has ended permits nothing, whatever it last said.
    for Publisher { view, guard } in last_views {
        guard.revoke(EPOCH_MAX);
        view.send_if_modified(|shown| shown.as_mut().is_some_and(|shown| shorten(shown, None)));
    }
    if let Exit::Failed(error) = &exit {
        tracing::error!(%error, "the node has ended");
    }
    exit
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Brings the deadline of a view forward, if it is later. Says whether it was.
fn shorten<V>(published: &mut Published<V>, deadline: Option<BootInstant>) -> bool {
    let is_later = match (published.deadline, deadline) {
        (Some(old), Some(new)) => old > new,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if is_later {
        published.deadline = deadline;
    }
    is_later
}

/// Something that may not be seen before a save is durable.
enum Held<A: Runnable> {
    /// A view, and the epoch of what it permits.
    Publish(Published<A::View>, Option<Epoch>),
    Datagram(NodeId, Vec<u8>),
    HandBack(A::Msg),
}

/// One actor and what the loop keeps for it.
struct Slot<A: Runnable> {
    lease: u16,
    actor: A,
    state: Option<A::State>,
    /// What it has last saved, durable or not: the next save writes the difference.
    saved: Option<A::Storage>,
    /// The number of its last save.
    last_save: u64,
    /// What waits, each for the save of that number, in the order in which it was wanted.
    held: VecDeque<(u64, Held<A>)>,
    /// How many of those are not views.
    held_sends: usize,
    /// The last view that was wanted, published or held.
    wanted: Option<Published<A::View>>,
    /// The epoch of what that one permits.
    term: Option<Epoch>,
    publisher: Publisher<A::View>,
    /// The alternatives of choices that are not made yet, by key.
    choices: BTreeMap<String, Vec<A::Random>>,
}

/// What a step wants to leave it, once its line in the trace is written.
struct Wanted<A: Runnable> {
    index: usize,
    saves: Vec<Vec<Row>>,
    news: Option<(Published<A::View>, Option<Epoch>)>,
    sends: Vec<(Id, Option<Header>, A::Msg)>,
}

/// What the commit thread has to do with the loop.
struct Saving {
    committer: Committer,
    progress: watch::Receiver<Progress>,
    durable: u64,
}

impl Saving {
    fn under_way(&self) -> u64 {
        self.committer.last() - self.durable
    }
}

/// Keeps log lines about dropped datagrams rare, whatever arrives.
#[derive(Default)]
struct Warnings {
    last: BTreeMap<&'static str, (BootInstant, u64)>,
}

impl Warnings {
    fn warn(&mut self, me: NodeId, reason: &'static str, peer: SocketAddr, detail: &str) {
        let now = BootInstant::now();
        let suppressed = match self.last.get_mut(reason) {
            Some((last, suppressed)) if now.saturating_duration_since(*last) < WARN_EVERY => {
                *suppressed += 1;
                return;
            }
            Some((_, suppressed)) => *suppressed,
            None => 0,
        };
        self.last.insert(reason, (now, 0));
        tracing::warn!(node = me.0, %peer, reason, detail, suppressed, "dropped a datagram");
    }
}

struct Loop<'a, A: Runnable> {
    me: NodeId,
    shared: &'a Shared,
    slots: Vec<Slot<A>>,
    by_lease: BTreeMap<u16, usize>,
    timers: Timers<(usize, A::Timer)>,
    socket: UdpSocket,
    peers: Vec<SocketAddr>,
    /// The newest incarnation seen of each peer.
    incarnations: BTreeMap<NodeId, u32>,
    headers: Headers,
    seal: Box<dyn Seal>,
    hooks: Box<dyn Hooks<A::Msg>>,
    saving: Option<Saving>,
    wake_up: WakeUp,
    inbox: mpsc::Receiver<(u16, A::Msg)>,
    /// One that `inbox` gave while the loop was waiting.
    told: Option<(u16, A::Msg)>,
    /// Messages to hand back, by place; and when, for those that wait for a time.
    handed: VecDeque<(usize, A::Msg)>,
    later: BTreeMap<u64, (usize, A::Msg)>,
    later_timers: Timers<u64>,
    later_next: u64,
    /// Where the tasks that wait for hooks report.
    hook_done: mpsc::UnboundedSender<u64>,
    hooks_done: mpsc::UnboundedReceiver<u64>,
    out: VecDeque<(NodeId, Vec<u8>)>,
    buffer: Box<[u8; DATAGRAM_MAX + 1]>,
    warnings: Warnings,
    recorder: Option<Box<dyn Recorder<A>>>,
    /// What waits until the lines of its steps are written, and how many saves are among it.
    wanted: Vec<Wanted<A>>,
    wanted_saves: u64,
}

fn open<'a, A: Runnable>(
    spec: Spec<A>,
    shared: &'a Shared,
    inbox: mpsc::Receiver<(u16, A::Msg)>,
    mut publishers: Publishers<A>,
) -> Result<(Loop<'a, A>, Opened), StartError> {
    let Spec { cluster, me, bind, peers, storage, actors, hooks, seal, recorder } = spec;
    if usize::from(me.0) >= peers.len() {
        return Err(StartError::NotInAddressBook { me, nodes: peers.len() });
    }
    let system = |error: io::Error| StartError::System(error.to_string());
    let socket = bind_socket(bind)?;
    let address = socket.local_addr().map_err(system)?;
    let peers = reachable(address, peers)?;
    //= SPEC TIME-15
    if !seal.may_leave_the_machine() {
        let mut all = std::iter::once(&address).chain(&peers);
        if let Some(open) = all.find(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(StartError::NotLoopback(*open));
        }
    }
    let mut saved = Vec::new();
    let (incarnation, saving) = match storage {
        Some(path) => {
            let mut store = Store::open(&path, &cluster, me)?;
            for (lease, _) in &actors {
                saved.push(store.restore::<A::Storage>(*lease)?);
            }
            let incarnation = store.begin_boot()?;
            let (committer, progress) = store.into_committer().map_err(system)?;
            (incarnation, Some(Saving { committer, progress, durable: 0 }))
        }
        None => {
            saved.resize_with(actors.len(), || None);
            (rand::random(), None)
        }
    };
    let socket = UdpSocket::from_std(socket).map_err(system)?;
    let mut slots = Vec::new();
    let mut by_lease = BTreeMap::new();
    for ((lease, actor), saved) in actors.into_iter().zip(saved) {
        by_lease.insert(lease, slots.len());
        slots.push(Slot {
            lease,
            actor,
            state: None,
            saved,
            last_save: 0,
            held: VecDeque::new(),
            held_sends: 0,
            wanted: None,
            term: None,
            publisher: publishers.remove(&lease).expect("each lease has a publisher"),
            choices: BTreeMap::new(),
        });
    }
    let (hook_done, hooks_done) = mpsc::unbounded_channel();
    let node = Loop {
        me,
        shared,
        slots,
        by_lease,
        timers: Timers::new(),
        socket,
        peers,
        incarnations: BTreeMap::new(),
        headers: Headers::new(me, incarnation),
        seal,
        hooks,
        saving,
        wake_up: WakeUp::new().map_err(system)?,
        inbox,
        told: None,
        handed: VecDeque::new(),
        later: BTreeMap::new(),
        later_timers: Timers::new(),
        later_next: 0,
        hook_done,
        hooks_done,
        out: VecDeque::new(),
        buffer: Box::new([0; DATAGRAM_MAX + 1]),
        warnings: Warnings::default(),
        recorder: recorder.map(|recorder| recorder(incarnation)).transpose()?,
        wanted: Vec::new(),
        wanted_saves: 0,
    };
    Ok((node, Opened { address, incarnation }))
}

fn bind_socket(bind: Bind) -> Result<StdSocket, StartError> {
    let socket = match bind {
        Bind::Socket(socket) => socket,
        Bind::To(address) => {
            let bound = || -> io::Result<Socket> {
                let domain = Domain::for_address(address);
                let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
                if domain == Domain::IPV6 {
                    // [::] serves IPv4 peers too, whatever the system's default is.
                    socket.set_only_v6(false)?;
                }
                socket.bind(&address.into())?;
                Ok(socket)
            };
            bound()
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => StartError::PortInUse(address),
                    _ => StartError::Bind { address, reason: error.to_string() },
                })?
                .into()
        }
    };
    // The system gives what its limit permits, and a smaller buffer only drops earlier.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true).map_err(|error| StartError::System(error.to_string()))?;
    Ok(socket)
}

/// The address book as this socket can use it: IPv4 peers of an IPv6 socket in their mapped form.
fn reachable(bind: SocketAddr, peers: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, StartError> {
    let reach = |peer: SocketAddr| match (bind.ip(), peer.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Ok(peer),
        (IpAddr::V6(any), IpAddr::V4(v4)) if any.is_unspecified() => {
            Ok(SocketAddr::new(v4.to_ipv6_mapped().into(), peer.port()))
        }
        _ => Err(StartError::AddressFamily { bind, peer }),
    };
    peers.into_iter().map(reach).collect()
}

fn is_same_address(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

/// The node that a send goes to, if it is another one that the address book has.
fn addressee(to: Id, me: NodeId, nodes: usize) -> Option<NodeId> {
    let node = u16::try_from(usize::from(to)).ok().map(NodeId)?;
    (node != me && usize::from(node.0) < nodes).then_some(node)
}

impl<A: Runnable> Loop<'_, A> {
    async fn run(mut self) -> Exit {
        let exit = match self.go_on().await {
            Exit::Stopped => {
                self.settle();
                self.drain().await
            }
            exit => exit,
        };
        if let Some(recorder) = self.recorder.as_mut().filter(|_| exit == Exit::Stopped) {
            recorder.stop(BootInstant::now().as_nanos());
        }
        match self.saving.take() {
            Some(saving) if exit == Exit::Stopped => saving.committer.finish(),
            // A committer that is dropped forgets what it has not begun.
            _ => {}
        }
        exit
    }

    async fn go_on(&mut self) -> Exit {
        for slot in 0..self.slots.len() {
            let saved = self.slots[slot].saved.clone();
            self.take_step(slot, Input::Start(saved), BootInstant::now(), Origin::None);
        }
        loop {
            let more = match self.pass() {
                Ok(more) => more,
                Err(exit) => return exit,
            };
            // Lets tokio look at the socket and at the hooks' tasks. Without it a wake-up that is
            // always due, or a flood, would keep the loop from ever coming back to tokio.
            tokio::task::yield_now().await;
            if !more && let Err(error) = self.sleep().await {
                return Exit::Failed(NodeError::System(error.to_string()));
            }
        }
    }

    /// Handles what is there, bounded. Says whether there may be more.
    fn pass(&mut self) -> Result<bool, Exit> {
        self.attend()?;
        self.fire_due();
        self.note_progress()?;
        self.flush();
        let mut more = false;
        for slot in 0..self.slots.len() {
            more |= self.make_choices(slot);
        }
        self.settle();
        more |= self.batch(Self::next_handed)?;
        more |= self.batch(Self::next_told)?;
        more |= self.batch(Self::next_datagram)?;
        Ok(more)
    }

    fn batch(&mut self, next: impl Fn(&mut Self) -> bool) -> Result<bool, Exit> {
        let more = self.batch_of_steps(next)?;
        self.settle();
        Ok(more)
    }

    fn batch_of_steps(&mut self, next: impl Fn(&mut Self) -> bool) -> Result<bool, Exit> {
        for _ in 0..BATCH {
            // A node that is killed or paused does so between any two inputs.
            self.attend()?;
            if !self.accepts() || !next(self) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn attend(&mut self) -> Result<(), Exit> {
        self.shared.attend().map_or(Ok(()), Err)
    }

    /// Whether there is room for the saves that further messages would cause.
    fn accepts(&self) -> bool {
        self.saving.as_ref().is_none_or(|saving| saving.under_way() < SAVES_MAX)
    }

    /// Waits until there is something to do. Whatever it is, the next pass does it in the right
    /// order; nothing is handled here.
    async fn sleep(&mut self) -> io::Result<()> {
        let accepts = self.accepts();
        // Steps of this very pass may have asked for these.
        let has_choices = self.slots.iter().any(|slot| !slot.choices.is_empty());
        if has_choices || accepts && !self.handed.is_empty() {
            return Ok(());
        }
        let later = self.later_timers.next_deadline().filter(|_| accepts);
        let deadlines = [self.timers.next_deadline(), later];
        self.wake_up.set(deadlines.into_iter().flatten().min())?;
        let saving = self.saving.as_mut();
        let progress = async {
            match saving {
                // An error is noticed by the next pass, like progress.
                Some(saving) => saving.progress.changed().await.unwrap_or_default(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shared.wake.notified() => {}
            expired = self.wake_up.expired() => expired?,
            () = progress => {}
            Some(key) = self.hooks_done.recv() => self.handed.extend(self.later.remove(&key)),
            ready = self.socket.writable(), if !self.out.is_empty() => ready?,
            Some(told) = self.inbox.recv(), if accepts && self.told.is_none() => {
                self.told = Some(told);
            }
            ready = self.socket.readable(), if accepts => ready?,
        }
        Ok(())
    }

    /// Fires every timer that is due, each at most once, and gives a time at which none was due.
    //= SPEC TIME-8
    fn fire_due(&mut self) -> BootInstant {
        let pass = self.timers.pass();
        loop {
            // Read afresh for every step: handlers take time, and so may the reading itself.
            let now = BootInstant::now();
            let fired = self.timers.fire_with_deadline(now, pass);
            let Some(((slot, timer), due)) = fired else { return now };
            self.shared.count(|counts| counts.fired += 1);
            self.take_step(slot, Input::Fire(timer), now, Origin::Timer(due.as_nanos()));
        }
    }

    /// The one way from an input other than a timer to an actor.
    //= SPEC TIME-9
    fn handle(&mut self, slot: usize, input: InputOf<A>, origin: Origin) {
        // The input is in hand already, so a watch that its handler begins does not begin before
        // what it watches was seen. And nothing is sent before this time, so a term that the
        // handler counts from its sending is not counted from later.
        let now = self.fire_due();
        self.take_step(slot, input, now, origin);
    }

    /// The only caller of [`step`]. In a node that writes a trace, what the step saves, shows and sends waits for
    /// [`Self::settle`].
    fn take_step(&mut self, slot: usize, input: InputOf<A>, now: BootInstant, origin: Origin) {
        let index = slot;
        let slot = &mut self.slots[index];
        let id = Id::from(self.me);
        let mut recorder = self.recorder.as_mut();
        if let Some(recorder) = &mut recorder {
            let durable = self.saving.as_ref().map_or(0, |saving| saving.durable);
            recorder.begin(slot.lease, now.as_nanos(), durable, &input, origin);
        }
        let (state, effects) = step(&slot.actor, id, slot.state.take(), input);
        let mut sends = Vec::new();
        let mut saves = Vec::new();
        for effect in effects {
            match effect {
                Effect::Save(storage) => {
                    let mut number = None;
                    if let Some(saving) = &self.saving {
                        let rows = Row::difference(slot.saved.as_ref(), &storage);
                        if !rows.is_empty() {
                            saves.push(rows);
                            let before = saving.committer.last() + self.wanted_saves;
                            number = Some(before + saves.len() as u64);
                        }
                    }
                    if let Some(recorder) = &mut recorder {
                        recorder.save(&storage, number);
                    }
                    slot.saved = Some(storage);
                }
                // After the loop: a send waits for every save of its step, also for later ones.
                Effect::Send(to, msg) => {
                    let header = addressee(to, self.me, self.peers.len())
                        .map(|node| self.headers.next(node));
                    if let Some(recorder) = &mut recorder {
                        recorder.send(to, &msg, header.map(|header| header.sequence));
                    }
                    sends.push((to, header, msg));
                }
                Effect::SetTimer(timer, range) => {
                    let (low, high) = (range.start, range.end);
                    let key = (index, timer);
                    let due = self.timers.arm(key.clone(), low, high, now, &mut rand::rng());
                    if let Some(recorder) = &mut recorder {
                        recorder.set(&key.1, &range, due.as_nanos());
                    }
                }
                Effect::CancelTimer(timer) => {
                    if let Some(recorder) = &mut recorder {
                        recorder.cancel(&timer);
                    }
                    self.timers.cancel(&(index, timer));
                }
                Effect::Choose(key, alternatives) => {
                    if let Some(recorder) = &mut recorder {
                        recorder.choose(&key, &alternatives);
                    }
                    // As in the model: the latest alternatives replace those before, none cancel.
                    if alternatives.is_empty() {
                        slot.choices.remove(&key);
                    } else {
                        slot.choices.insert(key, alternatives);
                    }
                }
            }
        }
        let deadline =
            slot.actor.deadline(&state).and_then(|timer| self.timers.deadline(&(index, timer)));
        let published = Published { view: slot.actor.view(id, &state), deadline };
        let term = slot.actor.epoch(&state);
        let is_news = slot.wanted.as_ref() != Some(&published);
        let shown = slot.wanted.as_ref().and_then(|shown| shown.deadline);
        // The guard hears of what ends now, and not after the steps that come next.
        let ends = slot.wanted.is_none()
            || slot.term != term
            || shown.is_some_and(|shown| deadline.is_none_or(|deadline| deadline < shown));
        if let Some(recorder) = recorder {
            recorder.end(&state, deadline.map(BootInstant::as_nanos));
        }
        slot.state = Some(state);
        self.shared.count(|counts| counts.steps += 1);
        if !is_news && saves.is_empty() && sends.is_empty() {
            return;
        }
        if is_news {
            slot.wanted = Some(published.clone());
        }
        let news = is_news.then_some((published, term));
        let wanted = Wanted { index, saves, news, sends };
        if self.recorder.is_none() {
            self.finish(wanted);
            return;
        }
        self.wanted_saves += wanted.saves.len() as u64;
        self.wanted.push(wanted);
        if ends {
            self.settle();
        }
    }

    /// Writes the lines of the last steps, at most a batch of them, and then lets out what they save, show and send.
    //= SPEC TRACE-1
    fn settle(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.write_out();
        }
        self.wanted_saves = 0;
        for wanted in std::mem::take(&mut self.wanted) {
            self.finish(wanted);
        }
    }

    fn finish(&mut self, Wanted { index, saves, news, sends }: Wanted<A>) {
        if let Some(saving) = &mut self.saving {
            let slot = &mut self.slots[index];
            for rows in saves {
                slot.last_save = saving.committer.save(slot.lease, rows);
                self.shared.count(|counts| counts.saves += 1);
            }
        }
        // The view goes before the sends: a release must not be seen by another node while this
        // one's readers still see the lease.
        if let Some((published, term)) = news {
            self.want(index, published, term);
        }
        for (to, header, msg) in sends {
            self.send(index, to, header, msg);
        }
    }

    /// Publishes a view when it may be seen. What it no longer permits ends at once.
    ///
    /// A save takes as long as the disk likes. A reader that saw the old permission meanwhile would
    /// act on one that the actor has given up, so neither the view that is shown nor any that is
    /// still to be shown may permit more than the newest one does.
    //= SPEC TIME-11
    //= SPEC GUARD-8
    fn want(&mut self, index: usize, published: Published<A::View>, term: Option<Epoch>) {
        let slot = &mut self.slots[index];
        let deadline = published.deadline;
        let last = std::mem::replace(&mut slot.term, term);
        if let Some(ended) = last.filter(|_| last != term) {
            slot.publisher.guard.revoke(ended);
        }
        slot.publisher
            .view
            .send_if_modified(|shown| shown.as_mut().is_some_and(|shown| shorten(shown, deadline)));
        for (_, held) in &mut slot.held {
            if let Held::Publish(held, _) = held {
                shorten(held, deadline);
            }
        }
        self.emit(index, Held::Publish(published, term));
    }

    fn send(&mut self, index: usize, to: Id, header: Option<Header>, msg: A::Msg) {
        if to == Id::from(self.me) {
            self.emit(index, Held::HandBack(msg));
            return;
        }
        let Some(header) = header else {
            self.shared.count(|counts| counts.dropped_unknown_destination += 1);
            return;
        };
        let to = header.destination;
        match wire::encode(&header, self.slots[index].lease, &msg, &mut *self.seal) {
            Ok(datagram) => self.emit(index, Held::Datagram(to, datagram)),
            Err(error) => {
                self.shared.count(|counts| counts.dropped_unencodable += 1);
                let peer = self.peers[usize::from(to.0)];
                self.warnings.warn(self.me, "unencodable", peer, &error.to_string());
            }
        }
    }

    /// How far this actor's saves are durable.
    fn durable(&self) -> u64 {
        self.saving.as_ref().map_or(u64::MAX, |saving| saving.durable)
    }

    /// Lets something out, or holds it until the actor's last save is durable.
    //= SPEC TIME-10
    fn emit(&mut self, index: usize, what: Held<A>) {
        let durable = self.durable();
        let slot = &mut self.slots[index];
        if slot.held.is_empty() && slot.last_save <= durable {
            self.let_out(index, what);
            return;
        }
        if !matches!(what, Held::Publish(..)) {
            if slot.held_sends >= HELD_MAX {
                let oldest =
                    slot.held.iter().position(|(_, held)| !matches!(held, Held::Publish(..)));
                slot.held.remove(oldest.expect("the count of held sends is right"));
                self.shared.count(|counts| counts.dropped_overflow += 1);
            } else {
                slot.held_sends += 1;
            }
        } else if let Some((after, Held::Publish(..))) = slot.held.back()
            && *after == slot.last_save
        {
            // Nobody could ever see the one before.
            slot.held.pop_back();
        }
        slot.held.push_back((slot.last_save, what));
    }

    fn let_out(&mut self, index: usize, what: Held<A>) {
        match what {
            Held::Publish(published, term) => {
                if let (Some(epoch), Some(deadline)) = (term, published.deadline) {
                    self.permit(index, epoch, deadline);
                }
                self.slots[index].publisher.view.send_replace(Some(published));
            }
            Held::Datagram(to, datagram) => self.transmit(to, datagram),
            Held::HandBack(msg) => self.hand_back(index, msg),
        }
    }

    /// Notes how far the saves are durable, and lets out what waited for them.
    fn note_progress(&mut self) -> Result<(), Exit> {
        let Some(saving) = &mut self.saving else { return Ok(()) };
        let is_alive = saving.progress.has_changed().is_ok();
        let progress = saving.progress.borrow_and_update().clone();
        let before = std::mem::replace(&mut saving.durable, progress.durable);
        // Even if it fails now, what is durable is durable; but a node that ends sends nothing more.
        if let Some(error) = progress.failed {
            return Err(Exit::Failed(NodeError::Storage(error)));
        }
        if !is_alive {
            return Err(Exit::Failed(NodeError::System("the commit thread has ended".to_owned())));
        }
        if progress.durable == before {
            return Ok(());
        }
        self.shared.count(|counts| counts.commits = progress.commits);
        for index in 0..self.slots.len() {
            while let Some((after, _)) = self.slots[index].held.front()
                && *after <= progress.durable
            {
                let slot = &mut self.slots[index];
                let Some((_, what)) = slot.held.pop_front() else { break };
                if !matches!(what, Held::Publish(..)) {
                    slot.held_sends -= 1;
                }
                self.let_out(index, what);
            }
        }
        Ok(())
    }

    fn transmit(&mut self, to: NodeId, datagram: Vec<u8>) {
        if self.shared.is_cut_out(to) {
            self.shared.count(|counts| counts.dropped_cut += 1);
            return;
        }
        self.out.push_back((to, datagram));
        if self.out.len() > OUT_MAX {
            self.out.pop_front();
            self.shared.count(|counts| counts.dropped_overflow += 1);
        }
        self.flush();
    }

    /// Gives the socket what it takes.
    fn flush(&mut self) {
        while let Some((to, datagram)) = self.out.front() {
            let address = self.peers[usize::from(to.0)];
            match self.socket.try_send_to(datagram, address) {
                Ok(_) => self.shared.count(|counts| counts.sent += 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A network that is down, or a peer that is not there: as good as lost on the way.
                Err(error) => {
                    self.shared.count(|counts| counts.send_errors += 1);
                    self.warnings.warn(self.me, "send refused", address, &error.to_string());
                }
            }
            self.out.pop_front();
        }
    }

    /// Tells the guard of a term, or of its renewal. One that has ended meanwhile it does not take.
    fn permit(&self, index: usize, epoch: Epoch, deadline: BootInstant) {
        let Slot { lease, publisher, .. } = &self.slots[index];
        let guard = &publisher.guard;
        let refused = match guard.extend(epoch, deadline) {
            Err(Refused::Ended(_)) => guard.open(epoch, deadline).err(),
            _ => None,
        };
        if let Some(refused) = refused.filter(|refused| !matches!(refused, Refused::Ended(_))) {
            tracing::error!(node = self.me.0, lease, %refused, "the guard does not take the term");
        }
    }

    fn hand_back(&mut self, index: usize, msg: A::Msg) {
        if self.handed.len() + self.later.len() >= HANDED_MAX {
            self.shared.count(|counts| counts.dropped_handed_back += 1);
            return;
        }
        let hook = self.hooks.local(self.slots[index].lease, &msg);
        match self.drained(index, hook) {
            HandBack::Now => self.handed.push_back((index, msg)),
            HandBack::After(delay) => {
                let key = self.keep_for_later(index, msg);
                self.later_timers.arm(key, delay, delay, BootInstant::now(), &mut rand::rng());
            }
            HandBack::When(done) => {
                let key = self.keep_for_later(index, msg);
                let report = self.hook_done.clone();
                tokio::spawn(async move {
                    done.await;
                    // If nobody listens any more, the node has ended.
                    let _ = report.send(key);
                });
            }
        }
    }

    /// Adds to the end of the stop hook that no work which the guard has admitted is running.
    //= SPEC GUARD-9
    fn drained(&self, index: usize, hook: HandBack) -> HandBack {
        let guard = &self.slots[index].publisher.guard;
        // While a term lasts, its work is nobody's concern here.
        if guard.term().is_some() || guard.gate().admitted() == 0 {
            return hook;
        }
        let guard = Arc::clone(guard);
        HandBack::When(Box::pin(async move {
            match hook {
                HandBack::Now => {}
                // Its clock stands still while the machine sleeps: it comes late then, never early.
                HandBack::After(delay) => tokio::time::sleep(delay).await,
                HandBack::When(done) => done.await,
            }
            guard.gate().closed(guard.gate().epoch()).await;
        }))
    }

    fn keep_for_later(&mut self, index: usize, msg: A::Msg) -> u64 {
        let key = self.later_next;
        self.later_next += 1;
        self.later.insert(key, (index, msg));
        key
    }

    /// Chooses for each key one of the alternatives, uniformly. Choices that their handlers ask for
    /// are left for the next pass.
    fn make_choices(&mut self, index: usize) -> bool {
        let choices = std::mem::take(&mut self.slots[index].choices);
        let any = !choices.is_empty();
        for (_, alternatives) in choices {
            if let Some(choice) = alternatives.choose(&mut rand::rng()) {
                self.handle(index, Input::Choose(choice.clone()), Origin::None);
            }
        }
        any
    }

    fn next_handed(&mut self) -> bool {
        let now = BootInstant::now();
        while let Some(key) = self.later_timers.fire(now, self.later_timers.pass()) {
            self.handed.extend(self.later.remove(&key));
        }
        while let Ok(key) = self.hooks_done.try_recv() {
            self.handed.extend(self.later.remove(&key));
        }
        let Some((index, msg)) = self.handed.pop_front() else { return false };
        self.shared.count(|counts| counts.handed_back += 1);
        self.handle(index, Input::Deliver { src: Id::from(self.me), msg }, Origin::Own);
        true
    }

    fn next_told(&mut self) -> bool {
        let told = self.told.take().or_else(|| self.inbox.try_recv().ok());
        let Some((lease, msg)) = told else { return false };
        self.shared.count(|counts| counts.told += 1);
        // The handle takes only messages for actors that exist.
        if let Some(&index) = self.by_lease.get(&lease) {
            self.handle(index, Input::Deliver { src: Id::from(self.me), msg }, Origin::Told);
        }
        true
    }

    fn next_datagram(&mut self) -> bool {
        let (len, from) = match self.socket.try_recv_from(&mut self.buffer[..]) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.shared.count(|counts| counts.receive_errors += 1);
                let address = self.peers[usize::from(self.me.0)];
                self.warnings.warn(self.me, "receive refused", address, &error.to_string());
                return true;
            }
        };
        self.shared.count(|counts| counts.received += 1);
        if let Some((index, header, msg)) = self.admit(len, from) {
            self.shared.count(|counts| counts.delivered += 1);
            let Header { source, incarnation, sequence, .. } = header;
            let origin = Origin::Datagram { incarnation, sequence };
            self.handle(index, Input::Deliver { src: Id::from(source), msg }, origin);
        }
        true
    }

    /// Lets a datagram in that is a message, for this node, from whom it says: or counts why not.
    fn admit(&mut self, len: usize, from: SocketAddr) -> Option<(usize, Header, A::Msg)> {
        let datagram = &self.buffer[..len];
        let source = match Header::read(datagram) {
            Ok((header, _)) => header.source,
            Err(error) => return self.refuse(from, &error),
        };
        // Nobody else's datagrams are worth reading; and not even our own, which never go out.
        let known = self.peers.get(usize::from(source.0));
        if source == self.me || known.is_none_or(|known| !is_same_address(*known, from)) {
            self.shared.count(|counts| counts.dropped_unknown_peer += 1);
            let detail = format!("it says that node {} sent it", source.0);
            self.warnings.warn(self.me, "unknown peer", from, &detail);
            return None;
        }
        let decoded = wire::decode::<A::Msg>(self.me, datagram, &mut *self.seal);
        let (header, lease, msg) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(from, &error),
        };
        if self.shared.is_cut_in(source) {
            self.shared.count(|counts| counts.dropped_cut += 1);
            return None;
        }
        let newest = self.incarnations.entry(source).or_insert(header.incarnation);
        if header.incarnation < *newest {
            self.shared.count(|counts| counts.stale_incarnation += 1);
        } else {
            *newest = header.incarnation;
        }
        //= SPEC LEASE-28
        let Some(&index) = self.by_lease.get(&lease) else {
            self.shared.count(|counts| counts.dropped_unknown_lease += 1);
            let detail = format!("it is about lease {lease}");
            self.warnings.warn(self.me, "unknown lease", from, &detail);
            return None;
        };
        Some((index, header, msg))
    }

    fn refuse<T>(&mut self, from: SocketAddr, error: &DecodeError) -> Option<T> {
        let mut reason = "malformed";
        self.shared.count(|counts| match error {
            DecodeError::Oversize => {
                reason = "oversize";
                counts.dropped_oversize += 1;
            }
            DecodeError::Misdirected(_) => {
                reason = "misdirected";
                counts.dropped_misdirected += 1;
            }
            DecodeError::Seal(_) => {
                reason = "seal";
                counts.dropped_seal += 1;
            }
            _ => counts.dropped_malformed += 1,
        });
        self.warnings.warn(self.me, reason, from, &error.to_string());
        None
    }

    /// Makes every save durable and sends what waited for that, within a bound.
    async fn drain(&mut self) -> Exit {
        let until = BootInstant::now().saturating_add(DRAIN_MAX);
        loop {
            if self.shared.is_killed() {
                return Exit::Killed;
            }
            if let Err(exit) = self.note_progress() {
                return exit;
            }
            self.flush();
            let is_saved = self.saving.as_ref().is_none_or(|saving| saving.under_way() == 0);
            let is_sent = self.out.is_empty() || BootInstant::now() >= until;
            if is_saved && is_sent {
                return Exit::Stopped;
            }
            if let Err(error) = self.wake_up.set((!self.out.is_empty()).then_some(until)) {
                return Exit::Failed(NodeError::System(error.to_string()));
            }
            let saving = self.saving.as_mut().filter(|saving| saving.under_way() > 0);
            let progress = async {
                match saving {
                    Some(saving) => saving.progress.changed().await.unwrap_or_default(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => {}
                _ = self.wake_up.expired() => {}
                () = progress => {}
                _ = self.socket.writable(), if !self.out.is_empty() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_socket_for_both_families_knows_its_ipv4_peers_again() {
        let peer = address("192.0.2.1:4000");
        let book = reachable(address("[::]:1"), vec![peer, address("[2001:db8::1]:5")]).unwrap();
        assert_eq!(book[0], address("[::ffff:192.0.2.1]:4000"));
        assert_eq!(book[1], address("[2001:db8::1]:5"));
        assert!(is_same_address(book[0], peer));
        assert!(!is_same_address(book[0], address("192.0.2.1:4001")));
        assert!(!is_same_address(book[0], address("192.0.2.2:4000")));
        assert!(reachable(address("[::1]:1"), vec![peer]).is_err());
    }

    #[test]
    fn a_deadline_is_only_ever_brought_forward() {
        let at = |nanos| Some(BootInstant::from_nanos(nanos));
        for (old, new, expected) in [
            (at(5), at(3), at(3)),
            (at(5), at(7), at(5)),
            (at(5), None, None),
            (None, at(3), None),
            (None, None, None),
        ] {
            let mut published = Published { view: (), deadline: old };
            assert_eq!(shorten(&mut published, new), old != expected);
            assert_eq!(published.deadline, expected);
        }
    }

    #[test]
    fn one_log_line_a_second_for_each_reason() {
        let mut warnings = Warnings::default();
        for _ in 0..5 {
            warnings.warn(NodeId(0), "one", address("[::1]:1"), "");
        }
        warnings.warn(NodeId(0), "two", address("[::1]:1"), "");
        let suppressed: Vec<_> = warnings.last.values().map(|(_, count)| *count).collect();
        assert_eq!(suppressed, [4, 0]);
    }
}
