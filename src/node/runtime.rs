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
//! 3. What only takes something away does not wait for the disk: a permission that has ended, and the
//!    stop hook of its term.
//! 4. If the disk fails, nothing that waits for it is ever sent: the node ends.
//!
//! Everything that waits is bounded. Too many waiting sends lose the oldest, which some timer sends
//! again; too many saves under way make the loop leave messages in the socket, where the system
//! drops them. A save is never dropped, and neither is what an actor says to itself and no timer would say again: the
//! end of a term, or that a half has been switched.

mod input;
mod output;
mod socket;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use socket::{Warnings, bind_socket, reachable};
use stateright::actor::Id;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::clock::{BootInstant, WakeUp};
use super::handle::{
    Exit, Hooks, NodeError, Opened, Published, Publisher, Runnable, Shared, Spec, StartError,
};
use super::keys::time_of_day;
use super::storage::{Committer, Progress, Row, Store};
use super::timers::Timers;
use crate::gate::EPOCH_MAX;
use crate::lease::record::{Epoch, NodeId};
use crate::step::{Effect, Input, InputOf, step};
use crate::trace::{Origin, Recorder};
use crate::wire::{DATAGRAM_MAX, Header, Headers, Seal};

/// How many inputs of one kind are handled before the loop looks at everything else.
const BATCH: usize = 64;
/// How many saves may be under way before the loop takes no more messages.
const SAVES_MAX: u64 = 4096;
/// How many sends of one actor may wait for its saves.
const HELD_MAX: usize = 4096;
/// How many datagrams may wait for the socket.
const OUT_MAX: usize = 4096;
/// How many messages of actors to themselves may wait, not counting those that nobody would send again.
const HANDED_MAX: usize = 4096;
/// How long a graceful end may take to make saves durable and send what waited for them.
const DRAIN_MAX: Duration = Duration::from_secs(3);

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
    /// The errand of that number.
    Errand(u64),
}

/// A message of an actor to its own node, until it is handed back: when what it asks for has been done, and
/// what its step has saved is durable.
struct Errand<M> {
    slot: usize,
    msg: M,
    waits_for_disk: bool,
    waits_for_hook: bool,
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
    /// How many of those are datagrams.
    held_datagrams: usize,
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
    /// Messages to hand back, by place.
    handed: VecDeque<(usize, A::Msg)>,
    /// How many of those, and of the ones that are not done yet, may be dropped.
    droppable: usize,
    /// Those that are not done yet; and when, for those whose hook takes a time.
    errands: BTreeMap<u64, Errand<A::Msg>>,
    errand_timers: Timers<u64>,
    errand_next: u64,
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
    let Spec { cluster, me, bind, peers, storage, legend, leases, actors, hooks, seal, recorder } =
        spec;
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
    let mut reader = None;
    let (incarnation, saving) = match storage {
        Some(path) => {
            let mut store = Store::open(&path, &cluster, me)?;
            if let Some(legend) = &legend {
                store.agree_on_legend(legend)?;
            }
            store.agree_on_leases(&leases)?;
            for (lease, _) in &actors {
                saved.push(store.restore::<A::Storage>(*lease)?);
            }
            let incarnation = store.begin_boot()?;
            reader = Some(store.reader());
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
            held_datagrams: 0,
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
        droppable: 0,
        errands: BTreeMap::new(),
        errand_timers: Timers::new(),
        errand_next: 0,
        hook_done,
        hooks_done,
        out: VecDeque::new(),
        buffer: Box::new([0; DATAGRAM_MAX + 1]),
        warnings: Warnings::default(),
        recorder: recorder.map(|recorder| recorder(incarnation)).transpose()?,
        wanted: Vec::new(),
        wanted_saves: 0,
    };
    Ok((node, Opened { address, incarnation, reader }))
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
        self.note_keys();
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
        self.note_keys();
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

    /// Tells the seal the time of day, and gives it the keys that are new.
    //= SPEC SEAL-5
    //= SPEC SEAL-10
    fn note_keys(&mut self) {
        self.seal.set_time(time_of_day());
        if let Some(keyring) = self.shared.new_keys() {
            self.seal.renew(keyring);
        }
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
        let later = self.errand_timers.next_deadline().filter(|_| accepts);
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
            Some(key) = self.hooks_done.recv() => self.hook_is_done(key),
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
}
