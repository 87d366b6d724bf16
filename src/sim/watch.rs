//! Who watches simulated regions: the invariants of the models, along a run.
//!
//! The models' own properties are asked, of a state that is put together from what each control plane has made
//! durable. What is not durable does not count: nobody has heard of it, and a crash takes it back. So a step is seen
//! at the moment when its save has reached the disk, and after a crash what the disk holds decides what was. What a
//! single step may not do is asked at once ([`super::steps`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stateright::Model as _;

use super::history::{History, Turn};
use super::irc::OWNER;
use super::steps::Taken;
use crate::irc::Storage;
use crate::irc::facts::{Decided, Incarnation, OpId, Region};
use crate::irc::ledger::{ControlState, Held, Ledger, Link};
use crate::irc::msg::{Claim, ClaimEpoch, Command, Msg, Token, Work};
use crate::irc::notice::Notice;
use crate::irc::peering::Side;
use crate::models::irc::{IrcState, IrcWorld, Wish, labels};
use crate::models::world::{Action, Flight, Observer as _};

/// What a sweep may break for a moment: it brings the flag of a deletion before the record that lets the accepter
/// decide. The models of it have no sweep.
const AT_REST: &str = "dead_is_decided";

/// What a record that is set aside breaks, until it is tried again or a sweep has told the same.
const AGREEMENT: &str = "rest_is_agreement";

/// What is asked of each save instead: a restore brings back lost requests whatever has come meanwhile.
const OF_A_STEP: &str = "quota_kept";

/// What a restore may break, of the tokens that it has lost: a call whose result was lost may be made again (S16).
const PER_TOKEN: &str = "one_effect_per_token";

const RESTORED: &str = "restored";

/// What a control plane has saved and its disk has not done yet.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) number: u64,
    pub(super) ledger: Ledger,
    /// The call of a customer that it answers.
    pub(super) wish: Option<Wish>,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) waiting: VecDeque<Step>,
    /// Messages to itself that are under way: switches of halves.
    pub(super) own: usize,
    /// It was put back to a backup and has not started since.
    is_put_back: bool,
    /// The claims that it has out.
    claims: BTreeMap<Work, Held>,
    /// When it last began to compare with each peer.
    swept: BTreeMap<Region, u64>,
}

/// What has been so far.
pub(super) struct Past {
    /// All control planes as they are on their disks.
    state: IrcState,
    /// The regions that were ever put back to a backup, and the tokens that each has lost.
    restored: BTreeMap<u16, BTreeSet<u64>>,
    /// Some region was declared gone.
    is_disposed: bool,
    /// What each region has said that a request under a token has begun.
    pub(super) created: BTreeMap<(Region, u64), OpId>,
    /// The highest epoch under which a region has handed out a piece of work, in each of its lives: the epochs of two
    /// lives of one number tell nothing of each other.
    epochs: BTreeMap<(u16, Incarnation, Work), ClaimEpoch>,
    /// Some record was set aside: what it says is not said before an operator or a sweep sees to it.
    is_set_aside: bool,
}

impl Past {
    /// Whether anything was lost, or ended without a word of its other side.
    pub(super) fn is_disturbed(&self) -> bool {
        self.is_disposed || !self.restored.is_empty()
    }

    /// A region goes back to what it has found: the tokens that this has not may be used again.
    fn lose_tokens(&mut self, region: u16, before: &IrcState, found: &Ledger) {
        let of = |ledger: &Ledger| ledger.tokens.tokens().collect();
        let kept: BTreeSet<u64> = of(found);
        let had = before.nodes[usize::from(region)].state.as_ref();
        let had: BTreeSet<u64> = had.map(|one| of(&one.ledger)).unwrap_or_default();
        self.restored.entry(region).or_default().extend(had.difference(&kept));
        self.created.retain(|&(of, token), _| {
            of != Region(region) || kept.contains(&Token(token).key(of, OWNER))
        });
    }

    /// S6: one token begins one operation, but for those that a restore has lost.
    fn is_one_effect_per_token(&self) -> bool {
        self.state.nodes.iter().zip(0..).all(|(node, region)| {
            let lost = self.restored.get(&region);
            let is_lost = |token| lost.is_some_and(|lost| lost.contains(&token));
            let mut seen = BTreeSet::new();
            let mut own = node.state.iter().flat_map(|one| one.ledger.peerings.iter()).filter_map(
                |(_, one)| (one.side == Side::Requester).then_some(one.requested.facts.token),
            );
            own.all(|token| seen.insert(token) || is_lost(token))
        })
    }

    /// Whether a region has this one, alive.
    pub(super) fn lives(&self, id: OpId, region: Region) -> bool {
        let one = self.ledger(usize::from(region.0)).and_then(|one| one.peerings.get(&id));
        one.is_some_and(|one| !one.is_dead())
    }

    fn ledger(&self, node: usize) -> Option<&Ledger> {
        self.state.nodes[node].state.as_ref().map(|state| &state.ledger)
    }
}

/// All control planes as they are on their disks.
pub(super) struct Watch {
    world: IrcWorld,
    past: Past,
    pub(super) desks: Vec<Desk>,
    pub(super) now: u64,
    /// Since when nothing may begin any more.
    rest: Option<u64>,
    problem: Option<String>,
    seen: BTreeMap<String, u64>,
    /// What customers have called and were told.
    pub(super) history: History,
    /// The numbers of their calls, by customer, name and token.
    pub(super) asked: BTreeMap<(u16, u64, Token), usize>,
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
        let past = Past {
            state,
            restored: BTreeMap::new(),
            is_disposed: false,
            created: BTreeMap::new(),
            epochs: BTreeMap::new(),
            is_set_aside: false,
        };
        let (seen, problem, rest) = (BTreeMap::new(), None, None);
        let (history, asked, now) = (History::default(), BTreeMap::new(), 0);
        let watch = Watch { world, past, desks, now, rest, problem, seen, history, asked };
        Self(Arc::new(Mutex::new(watch)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A backup of a region is taken.
    pub(super) fn back_up(&self, node: u16) {
        self.lock().history.turn(Region(node), Turn::BackedUp);
    }

    /// A region is put back to its backup before it starts again. What its disk held until then had been done.
    pub(super) fn put_back(&self, node: u16, lost: &Ledger) {
        let mut watch = self.lock();
        watch.reach(usize::from(node), lost);
        watch.desks[usize::from(node)].is_put_back = true;
        watch.history.turn(Region(node), Turn::Restored);
    }

    /// What the requester's disk holds of what its accepter has decided.
    pub(super) fn decided(&self, id: OpId) -> Option<Decided> {
        let watch = self.lock();
        let ledger = watch.past.ledger(usize::from(id.requester.0))?;
        ledger.peerings.get(&id).map(|one| one.decided.facts)
    }

    /// What customers have called and were told.
    pub(super) fn history(&self) -> History {
        self.lock().history.clone()
    }

    /// What went wrong first.
    pub(super) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// What was seen, and how often.
    pub(super) fn seen(&self) -> BTreeMap<String, u64> {
        self.lock().seen.clone()
    }

    /// From now on nothing may begin: no freeze, no life.
    pub(super) fn rest(&self) {
        let mut watch = self.lock();
        watch.rest = Some(watch.now);
        watch.judge();
    }

    /// What has not come to pass, though there was time for it.
    pub(super) fn unrest(&self) -> Option<String> {
        let watch = self.lock();
        let Watch { world, past, .. } = &*watch;
        let states = past.state.nodes.iter().filter_map(|node| node.state.as_ref());
        states.zip(&world.actors).zip(&watch.desks).find_map(|((state, actor), desk)| {
            let region = actor.control.region;
            let mut work = actor.control.work(state);
            work.retain(|work| {
                // A sweep may be under way at any moment.
                !matches!(work, Work::Sync(_))
            });
            let others = || {
                let peers = state.ledger.peers.iter();
                peers.map(|(&peer, _)| peer).filter(|&peer| !past.is_ended(region, peer))
            };
            let is_open = |ledger: &Ledger, peer| {
                ledger.peers.get(&peer).is_some_and(|peer| peer.link == Link::Open)
            };
            let shut: Vec<Region> =
                others().filter(|&peer| !is_open(&state.ledger, peer)).collect();
            let since = watch.rest.unwrap_or(0);
            let unswept: Vec<Region> = others()
                .filter(|peer| desk.swept.get(peer).is_none_or(|&swept| swept < since))
                .collect();
            let is_read = |id: &OpId, one: &Notice| {
                let reader = past.ledger(usize::from(one.to.0));
                let read = reader.and_then(|ledger| ledger.notices.get(id));
                read.is_some_and(|read| read.value == one.value)
            };
            let mut mine = state.ledger.notices.iter().filter(|(id, _)| id.requester == region);
            // What a restore has lost on either side nobody says again: no sweep compares notices.
            let is_unread = !past.is_disturbed() && mine.any(|(id, one)| !is_read(id, one));
            let what = match () {
                () if !work.is_empty() => format!("has still to say {work:?}"),
                () if !shut.is_empty() => format!("is frozen towards {shut:?}"),
                () if !unswept.is_empty() => format!("does not compare with {unswept:?}"),
                () if is_unread => "has published what was not read".to_owned(),
                () => return None,
            };
            Some(format!("region {} is not at rest: it {what}", region.0))
        })
    }
}

impl Past {
    /// Whether one of the two has declared the other gone.
    fn is_ended(&self, one: Region, other: Region) -> bool {
        let of = |one: Region, other| {
            let ledger = self.ledger(usize::from(one.0));
            ledger.and_then(|ledger| ledger.peers.get(&other)).is_some_and(|peer| peer.disposed)
        };
        of(one, other) || of(other, one)
    }
}

impl Watch {
    fn count(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn fail(&mut self, what: &str) {
        if self.problem.is_none() {
            let at = Duration::from_nanos(self.now);
            self.problem = Some(format!("{what} does not hold, {at:.3?} after the beginning"));
        }
    }

    fn set(&mut self, node: usize, ledger: Ledger) {
        self.past.is_set_aside |= ledger.records.iter().any(|(_, record)| record.parked);
        let it = &mut self.past.state.nodes[node];
        it.state = Some(ControlState::new(ledger.clone()));
        it.storage = Some(Storage::Control(ledger));
    }

    /// A step has become durable.
    //= SPEC SIM-4
    pub(super) fn take(&mut self, node: usize, Step { ledger, wish, .. }: Step) {
        let before = self.past.state.clone();
        self.set(node, ledger);
        let action = match wish {
            Some(wish) => {
                self.world.observer.scope.wishes = vec![wish];
                Action::Say(0)
            }
            None => Action::Deliver(0),
        };
        self.observe(&before, action);
        let state = &self.past.state;
        let labels = state.nodes[node].state.as_ref().map(labels).unwrap_or_default();
        let old = before.nodes[node].state.as_ref().map(crate::models::irc::labels);
        for (id, label) in labels {
            if old.as_ref().and_then(|old| old.get(&id)) != Some(&label) {
                self.count(&label.to_string());
            }
        }
        let Some(old) = before.nodes[node].state.as_ref() else { return };
        let Some(new) = self.past.ledger(node) else { return };
        let quota = self.world.actors[node].control.policy.quota[1];
        if !is_quota_kept(&old.ledger, new, quota) {
            self.fail(OF_A_STEP);
        }
        let begins = |new: &Ledger| new.head.incarnation != old.ledger.head.incarnation;
        if self.rest.is_some() && self.past.ledger(node).is_some_and(begins) {
            self.fail("no_life_begins_at_rest");
        }
    }

    fn observe(&mut self, before: &IrcState, action: Action) {
        let Self { world, past: Past { state, .. }, .. } = self;
        world.observer.observe(world, before, action, state);
        state.ghost.said.clear();
        self.judge();
    }

    fn judge(&mut self) {
        if self.problem.is_some() {
            return;
        }
        // What is under way between regions may be late for ever; a switch of a half comes.
        self.past.state.network.clear();
        if let Some(node) = self.desks.iter().position(|desk| desk.own > 0) {
            let node = node_of(node);
            let msg = Msg::Operate(Command::Drain(false));
            self.past.state.network.push(Flight { src: node, dst: node, msg, latest: u16::MAX });
        }
        let is_quiet = self.is_quiet();
        let is_told_late = self.past.is_set_aside && self.rest.is_none();
        let broken = self.world.properties.iter().find(|property| {
            let is_asked = (is_quiet || property.name != AT_REST)
                && (!is_told_late || property.name != AGREEMENT)
                && property.name != OF_A_STEP
                && property.name != PER_TOKEN;
            is_asked && !(property.condition)(&self.world, &self.past.state)
        });
        if let Some(name) = broken.map(|property| property.name) {
            self.fail(name);
        } else if !self.past.is_one_effect_per_token() {
            self.fail(PER_TOKEN);
        }
    }

    /// Whether nobody has anything to say for good.
    fn is_quiet(&self) -> bool {
        self.past.state.nodes.iter().filter_map(|node| node.state.as_ref()).all(|one| {
            let is_open = one.ledger.peers.iter().all(|(_, peer)| peer.link == Link::Open);
            one.ledger.records.is_empty() && is_open
        })
    }

    pub(super) fn start(&mut self, node: usize, found: Option<&Storage>) {
        let Desk { waiting, is_put_back, .. } = std::mem::take(&mut self.desks[node]);
        let Some(Storage::Control(found)) = found else { return };
        if is_put_back {
            self.count(RESTORED);
            let before = self.past.state.clone();
            self.set(node, found.clone());
            // Only if both sides have gone back to before its end may something live again.
            let region = node_of(node);
            self.past.lose_tokens(region, &before, found);
            self.past.state.ghost.dead.retain(|_, back| {
                back.insert(region);
                back.len() < 2
            });
            self.observe(&before, Action::Intervene(0));
            return;
        }
        // Nobody has heard of what was handed out in a start that the disk does not know of.
        self.past
            .epochs
            .retain(|&(of, ..), epoch| of != node_of(node) || epoch.start <= found.head.start);
        self.desks[node].waiting = waiting;
        self.reach(node, found);
    }

    /// Some of what was not synced may have reached the disk before a crash: the disk holds this.
    fn reach(&mut self, node: usize, found: &Ledger) {
        let waiting = std::mem::take(&mut self.desks[node].waiting);
        let kept = waiting.iter().rposition(|step| step.ledger == *found);
        for step in waiting.into_iter().take(kept.map_or(0, |last| last + 1)) {
            self.take(node, step);
        }
    }

    /// A control plane has taken a step.
    pub(super) fn judge_step(&mut self, node: u16, step: &Taken<'_>) {
        if let Some(Msg::Operate(Command::Dispose(_))) = step.delivered() {
            self.past.is_disposed = true;
            self.history.dispose();
        }
        if let Some(name) = step.broken(&self.past) {
            self.fail(name);
        }
        if let Some((token, id)) = step.created() {
            self.past.created.insert((step.actor.region, token), id);
        }
        let mut grows = true;
        for (&work, held) in &step.after.claims {
            if step.before.claims.get(&work) == Some(held) {
                continue;
            }
            let life = step.after.ledger.head.incarnation;
            let highest = self.past.epochs.insert((node, life, work), held.epoch);
            grows &= highest.is_none_or(|highest| held.epoch > highest);
        }
        if !grows {
            self.fail("epochs_only_grow");
        }
        let desk = &mut self.desks[usize::from(node)];
        desk.claims.clone_from(&step.after.claims);
        for msg in step.sent {
            if let Msg::Claimed(claim) = msg
                && let Claim { remote, call } = &**claim
                && matches!(call.tag.0, Work::Sync(_))
            {
                desk.swept.insert(*remote, self.now);
            }
        }
    }

    /// A call of this name under this token has arrived.
    pub(super) fn hear(&mut self, customer: usize, n: u64, token: Token) {
        let asked = u16::try_from(customer).ok().and_then(|node| self.asked.get(&(node, n, token)));
        if let Some(&call) = asked {
            self.history.arrive(call);
        }
    }

    /// A server of a region has called under these claims, and nobody has told it that they are held.
    pub(super) fn judge_calls(
        &mut self,
        region: u16,
        mut tags: impl Iterator<Item = (Work, ClaimEpoch)>,
    ) {
        let claims = &self.desks[usize::from(region)].claims;
        if tags.any(|(work, epoch)| claims.get(&work).is_none_or(|held| held.epoch != epoch)) {
            self.fail("no_call_for_a_lost_claim");
        }
    }
}

fn node_of(index: usize) -> u16 {
    u16::try_from(index).expect("few regions")
}

/// S14: no request that arrives is taken beyond the quota of its network. What a restored region takes back it had
/// taken before.
fn is_quota_kept(before: &Ledger, after: &Ledger, quota: usize) -> bool {
    let mut pending: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
    for (id, one) in after.peerings.iter() {
        if one.side != Side::Accepter || !one.is_undecided() || one.is_dead() {
            continue;
        }
        let peer = after.peers.get(&one.peer(id));
        let is_recovered = peer
            .and_then(|peer| peer.lost.recovered.get(&id))
            .is_some_and(|recovered| recovered.existence);
        let at = pending.entry(one.requested.facts.target.network.0).or_default();
        at.0 += 1;
        at.1 |= !before.peerings.contains(&id) && !is_recovered;
    }
    pending.values().all(|&(count, has_new)| count <= quota || !has_new)
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
