//! Who watches simulated regions: the invariants of the models, along a run.
//!
//! The models' own properties are asked, of a state that is put together from what each control plane has made
//! durable. What is not durable does not count: nobody has heard of it, and a crash takes it back. So a step is seen
//! at the moment when its save has reached the disk, and after a crash what the disk holds decides what was.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stateright::Model as _;
use stateright::actor::Id;

use crate::irc::facts::Region;
use crate::irc::ledger::{ControlState, Ledger, Link};
use crate::irc::msg::Msg;
use crate::irc::{Party, PartyState, Storage, Timer};
use crate::models::irc::{IrcState, IrcWorld, Wish, labels};
use crate::models::world::{Action, Flight, Observer as _};
use crate::step::{Input, InputOf};
use crate::trace::{Origin, Recorder};

/// What a sweep may break for a moment: it brings the flag of a deletion before the record that lets the accepter
/// decide. The models of it have no sweep.
const AT_REST: &str = "dead_is_decided";

/// What a restore may break: requests that were lost come back whatever has come meanwhile, also beyond a quota and
/// beside the same call that was made again.
const UNRESTORED: [&str; 2] = ["quota_kept", "one_effect_per_token"];

const RESTORED: &str = "restored";

/// What a control plane has saved and its disk has not done yet.
#[derive(Debug)]
struct Step {
    number: u64,
    ledger: Ledger,
    /// The call of a customer that it answers.
    wish: Option<Wish>,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Step>,
    /// Messages to itself that are under way: switches of halves.
    own: usize,
    /// It was put back to a backup and has not started since.
    is_put_back: bool,
}

/// All control planes as they are on their disks.
struct Watch {
    world: IrcWorld,
    state: IrcState,
    desks: Vec<Desk>,
    now: u64,
    problem: Option<String>,
    seen: BTreeMap<String, u64>,
}

/// The one watch of a run, for everybody who has something to tell it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Watch>>);

impl Shared {
    /// Watches these control planes.
    pub(super) fn new(world: IrcWorld) -> Self {
        let mut state = world.init_states().pop().expect("a world begins somewhere");
        state.network.clear();
        let desks = (0..world.actors.len()).map(|_| Desk::default()).collect();
        let seen = BTreeMap::new();
        Self(Arc::new(Mutex::new(Watch { world, state, desks, now: 0, problem: None, seen })))
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A region is put back to its backup before it starts again.
    pub(super) fn put_back(&self, node: u16) {
        self.lock().desks[usize::from(node)].is_put_back = true;
    }

    /// What went wrong first.
    pub(super) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// What was seen, and how often.
    pub(super) fn seen(&self) -> BTreeMap<String, u64> {
        self.lock().seen.clone()
    }

    /// What is still to be said to other regions, though there was time for it.
    pub(super) fn unrest(&self) -> Option<String> {
        let watch = self.lock();
        let states = watch.state.nodes.iter().filter_map(|node| node.state.as_ref());
        states.zip(&watch.world.actors).find_map(|(state, actor)| {
            let work = actor.control.work(state);
            let is_shut = state.ledger.peers.iter().any(|(_, peer)| peer.link != Link::Open);
            let region = actor.control.region.0;
            if work.is_empty() && !is_shut {
                return None;
            }
            Some(format!("region {region} is not at rest: work {work:?}, frozen {is_shut}"))
        })
    }
}

impl Watch {
    fn count(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn set(&mut self, node: usize, ledger: Ledger) {
        let it = &mut self.state.nodes[node];
        it.state = Some(ControlState::new(ledger.clone()));
        it.storage = Some(Storage::Control(ledger));
    }

    /// A step has become durable.
    //= SPEC SIM-4
    fn take(&mut self, node: usize, Step { ledger, wish, .. }: Step) {
        let before = self.state.clone();
        self.set(node, ledger);
        let action = match wish {
            Some(wish) => {
                self.world.observer.scope.wishes = vec![wish];
                Action::Say(0)
            }
            None => Action::Deliver(0),
        };
        self.observe(&before, action);
        let labels = self.state.nodes[node].state.as_ref().map(labels).unwrap_or_default();
        let old = before.nodes[node].state.as_ref().map(crate::models::irc::labels);
        for (id, label) in labels {
            if old.as_ref().and_then(|old| old.get(&id)) != Some(&label) {
                self.count(&label.to_string());
            }
        }
    }

    fn observe(&mut self, before: &IrcState, action: Action) {
        let Self { world, state, .. } = self;
        world.observer.observe(world, before, action, state);
        state.ghost.said.clear();
        self.judge();
    }

    fn judge(&mut self) {
        if self.problem.is_some() {
            return;
        }
        // What is under way between regions may be late for ever; a switch of a half comes.
        self.state.network.clear();
        if let Some(node) = self.desks.iter().position(|desk| desk.own > 0) {
            let node = u16::try_from(node).expect("few regions");
            let msg = Msg::Operate(crate::irc::msg::Command::Drain(false));
            self.state.network.push(Flight { src: node, dst: node, msg, latest: u16::MAX });
        }
        let is_quiet = self.is_quiet();
        let was_restored = self.seen.contains_key(RESTORED);
        let broken = self.world.properties.iter().find(|property| {
            let is_asked = (is_quiet || property.name != AT_REST)
                && !(was_restored && UNRESTORED.contains(&property.name));
            is_asked && !(property.condition)(&self.world, &self.state)
        });
        if let Some(property) = broken {
            let at = Duration::from_nanos(self.now);
            self.problem =
                Some(format!("{} does not hold, {at:.3?} after the beginning", property.name));
        }
    }

    /// Whether nobody has anything to say for good.
    fn is_quiet(&self) -> bool {
        self.state.nodes.iter().filter_map(|node| node.state.as_ref()).all(|one| {
            let is_open = one.ledger.peers.iter().all(|(_, peer)| peer.link == Link::Open);
            one.ledger.records.is_empty() && is_open
        })
    }

    fn start(&mut self, node: usize, found: Option<&Storage>) {
        let Desk { waiting, is_put_back, .. } = std::mem::take(&mut self.desks[node]);
        let Some(Storage::Control(found)) = found else { return };
        if is_put_back {
            self.count(RESTORED);
            let before = self.state.clone();
            self.set(node, found.clone());
            // Only if both sides have gone back to before its end may something live again.
            let region = u16::try_from(node).expect("few regions");
            self.state.ghost.dead.retain(|_, back| {
                back.insert(region);
                back.len() < 2
            });
            self.observe(&before, Action::Intervene(0));
            return;
        }
        // Some of what was not synced may have reached the disk before the crash.
        let kept = waiting.iter().rposition(|step| step.ledger == *found);
        for step in waiting.into_iter().take(kept.map_or(0, |last| last + 1)) {
            self.take(node, step);
        }
    }
}

/// Takes down one life of a node for the watch.
pub(super) struct Ear {
    node: u16,
    /// It is a control plane's: nobody else has anything on disk.
    is_control: bool,
    wish: Option<Wish>,
    shared: Shared,
}

impl Ear {
    /// For a life of this node; control planes come first.
    pub(super) fn new(node: u16, regions: u16, shared: Shared) -> Self {
        Self { node, is_control: node < regions, wish: None, shared }
    }
}

impl Recorder<Party> for Ear {
    fn begin(&mut self, _: u16, _: u64, _: u64, input: &InputOf<Party>, origin: Origin) {
        self.wish = None;
        if !self.is_control {
            return;
        }
        let node = usize::from(self.node);
        match input {
            Input::Start(storage) => self.shared.lock().start(node, storage.as_ref()),
            Input::Deliver { src, msg: msg @ Msg::Ask { .. } } => {
                self.wish = Some(Wish { at: self.node, from: (*src).into(), msg: msg.clone() });
            }
            Input::Deliver { .. } if matches!(origin, Origin::Own) => {
                let own = &mut self.shared.lock().desks[node].own;
                *own = own.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn save(&mut self, storage: &Storage, number: Option<u64>) {
        if let (true, Some(number)) = (self.is_control, number) {
            let Storage::Control(ledger) = storage;
            let step = Step { number, ledger: ledger.clone(), wish: self.wish.clone() };
            self.shared.lock().desks[usize::from(self.node)].waiting.push_back(step);
        }
    }

    fn set(&mut self, _: &Timer, _: &Range<Duration>, _: u64) {}

    fn cancel(&mut self, _: &Timer) {}

    fn choose(&mut self, _: &str, _: &[()]) {}

    fn send(&mut self, to: Id, _: &Msg, _: Option<u32>) {
        if self.is_control && usize::from(to) == usize::from(self.node) {
            self.shared.lock().desks[usize::from(self.node)].own += 1;
        }
    }

    fn end(&mut self, _: &PartyState, _: Option<u64>) {}

    fn write_out(&mut self) {}

    fn stop(&mut self, _: u64) {}

    fn simulated(&mut self, now: u64) {
        self.shared.lock().now = now;
    }

    fn durable(&mut self, number: u64) {
        if !self.is_control {
            return;
        }
        let mut watch = self.shared.lock();
        let node = usize::from(self.node);
        while watch.desks[node].waiting.front().is_some_and(|step| step.number <= number) {
            let step = watch.desks[node].waiting.pop_front().expect("it is there");
            watch.take(node, step);
        }
    }
}

/// A region that was put back goes on as if nothing had been lost.
pub(super) fn thaw(ledger: &mut Ledger, regions: u16) {
    for region in (0..regions).map(Region) {
        if let Some(mut peer) = ledger.peers.get(&region).cloned() {
            peer.link = Link::Open;
            ledger.peers.insert(region, peer);
        }
    }
}
