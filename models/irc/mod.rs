//! Operations between regions in a world: what may happen, and what must hold.
//!
//! Nothing here has time but in [`timed`]: a timer may fire at any moment, so what holds needs no clock and no bound on
//! any delay. Regions do not come to rest by themselves; every model bounds what customers ask and how
//! far a region's clock runs, and explores all the rest without bound: any loss, repetition, delay and
//! order of messages between the regions.

pub(crate) mod canonical;
pub mod carrier;
pub mod claims;
pub mod properties;
pub mod registry;
pub mod replay;
pub mod stored;
pub mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::Property;
use stateright::actor::Id;

use self::carrier::Carried;
use super::world::{
    Action, Budget, Condition, Faults, Network as Net, Observer, Said, Time, World, WorldState,
};
use crate::irc::audit;
use crate::irc::control::{ControlPlane, Policy};
use crate::irc::facts::{Account, Decision, Incarnation, Network, OpId, Region, SealKey, Target};
use crate::irc::ledger::{ControlState, Ledger, Link};
use crate::irc::msg::{CallError, Msg, Request, Token, block_of};
use crate::irc::peering::{Label, Side, Verb};
use crate::irc::safeguards::Safeguards;
use crate::irc::{Party, PartyState, Storage, Timer};
use crate::lease::record::NodeId;
use crate::step::{Effect, EffectOf, Input, step};

/// A world of control planes.
pub type IrcWorld = World<Carried, IrcObserver>;

/// One state of it.
pub type IrcState = WorldState<ControlState, Storage, Timer, Msg, Ghost>;

/// The nodes of customers: nobody is there, so what they are told goes nowhere.
const OUTSIDE: usize = 100;
/// How long a request may be undecided, where nothing is about that.
pub const PENDING: u64 = 100;

/// Something that a customer or an operator does once.
#[derive(Clone, Debug)]
pub struct Wish {
    /// In which region.
    pub at: u16,
    /// Who says it: a node of the world, or somebody outside.
    pub from: usize,
    /// What.
    pub msg: Msg,
}

/// What is put together to a world.
#[derive(Clone, Debug)]
pub struct Scope {
    /// How many regions.
    pub regions: u16,
    /// What is wanted.
    pub wishes: Vec<Wish>,
    /// How often each region may be put back to its backup.
    pub restores: Vec<u8>,
    /// The backup of a region is the first in which there is a request. Otherwise it is taken at any
    /// moment.
    pub early_backup: bool,
    /// Whether regions may crash, and how often in all.
    pub crashes: u8,
    /// After how many ticks a request expires, and something dead is forgotten.
    pub pending: u64,
    /// See above.
    pub remember: u64,
    /// How far a region's clock runs.
    pub clock: u64,
    /// How many undecided requests there may be at a network.
    pub pending_max: usize,
    /// Whether each region has a second network, of the number that is ten more.
    pub second_networks: bool,
    /// The rules that the control planes keep.
    pub safeguards: Safeguards,
}

/// A call of the customer who owns the network of that number in that region.
pub fn ask(at: u16, token: u64, request: Request) -> Wish {
    Wish {
        at,
        from: OUTSIDE,
        msg: Msg::Ask { n: token, caller: Account(1), token: Token(token), request },
    }
}

/// The first network of a region wants to peer with that of another.
pub fn create(at: u16, to: u16, token: u64) -> Wish {
    let target = Target { region: Region(to), account: Account(1), network: Network(to.into()) };
    let network = Network(at.into());
    ask(at, token, Request::Create { network, target, resolve_names: false })
}

/// A change of the first peering that a region has requested.
pub fn change(at: u16, requester: u16, token: u64, verb: Verb) -> Wish {
    ask(at, token, Request::Change { id: first(requester), verb })
}

/// The first id of a region.
pub fn first(requester: u16) -> OpId {
    OpId { requester: Region(requester), n: 1, seq: 0 }
}

impl Scope {
    /// Two regions, nothing wanted, nothing goes wrong; requests never expire.
    pub fn new(wishes: Vec<Wish>) -> Self {
        Self {
            regions: 2,
            wishes,
            restores: vec![0, 0],
            early_backup: false,
            crashes: 0,
            pending: PENDING,
            remember: 100,
            clock: 0,
            pending_max: 50,
            second_networks: false,
            safeguards: Safeguards::ALL,
        }
    }

    /// One region's control plane. All regions are alike: network n is in region n.
    pub fn control(&self, region: u16) -> ControlPlane {
        let others = (0..self.regions).filter(|&other| other != region).map(Region).collect();
        let numbers = [region, region + 10].into_iter().take(1 + usize::from(self.second_networks));
        let network = |n: u16| {
            let network = Network(n.into());
            (network, (Account(1), block_of(network)))
        };
        ControlPlane {
            me: NodeId(region),
            region: Region(region),
            others,
            servers: (0..self.regions).map(|one| (NodeId(one), Region(one))).collect(),
            customers: [(NodeId(OUTSIDE as u16), BTreeSet::from([Account(1)]))].into(),
            networks: numbers.map(network).collect(),
            key: SealKey([region.into(), 7]),
            life: region.into(),
            founders: true,
            policy: Policy {
                pending: self.pending,
                remember: self.remember,
                tokens: u64::MAX,
                quota: [50, self.pending_max, 500],
                sweep: None,
                ..Policy::default()
            },
            safeguards: self.safeguards,
        }
    }

    /// Puts it together.
    pub fn world(&self, properties: Vec<Property<IrcWorld>>) -> IrcWorld {
        let actors = (0..self.regions)
            .map(|region| Carried {
                control: self.control(region),
                party: Party::Control(self.control(region)),
                remotes: (0..self.regions)
                    .filter(|&other| other != region)
                    .map(|other| (Region(other), usize::from(other)))
                    .collect(),
            })
            .collect();
        let nodes = 0..usize::from(self.regions);
        let crashes = Budget::Times(self.crashes);
        World {
            actors,
            time: Time::Untimed,
            network: Net::Free { repeats: true },
            faults: Faults { inputs: Budget::Unlimited, ..Faults::crashes(nodes, crashes) },
            observer: IrcObserver { scope: self.clone() },
            settled: Vec::new(),
            canonical: canonical::applies(self.safeguards),
            properties,
        }
    }
}

/// What is remembered of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ghost {
    /// Which wishes have been said.
    pub said: BTreeSet<u8>,
    /// The backup of each region, if it was taken and may still be needed.
    pub backups: Vec<Option<Storage>>,
    /// How often each region was restored.
    pub restored: Vec<u8>,
    /// What was dead on both sides, and which of these have gone back since.
    pub dead: BTreeMap<OpId, BTreeSet<u16>>,
    /// What was ever seen.
    pub seen: Seen,
    /// What has gone wrong at some step, and does not show in a state.
    pub wrong: Wrong,
}

/// Labels that were seen in some region: witnesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// All waited for a promise at once, where all may be restored.
    pub all_frozen: bool,
    /// All waited for a promise at once, and all have thawed.
    pub thawed_together: bool,
}

/// What has gone wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wrong {
    /// A view went down, or a terminal label changed.
    pub rank_fell: bool,
    /// Something that was dead on both sides lives.
    pub dead_lives: bool,
    /// Something was accepted at or after its deadline.
    pub accepted_late: bool,
    /// A decision was changed.
    pub decision_changed: bool,
    /// A half went off that its side wants on, or at a restore.
    pub half_fell: bool,
    /// Options were changed by somebody who had seen another version.
    pub update_lost: bool,
    /// Somebody was told that there is nothing of a name under which another region has something alive.
    pub denied: bool,
    /// A transition has not exactly one entry in the audit log, or an entry no transition.
    pub audit_differs: bool,
}

/// Watches a world of control planes.
#[derive(Clone, Debug)]
pub struct IrcObserver {
    /// What it watches.
    pub scope: Scope,
}

/// Whether a region is frozen towards that one.
pub fn is_open(state: &ControlState, towards: Region) -> bool {
    stored::is_open(&state.ledger, towards)
}

/// The labels of a region's peerings.
pub fn labels(state: &ControlState) -> BTreeMap<OpId, Label> {
    let ledger = &state.ledger;
    let label = |id: &OpId| ledger.on.contains(id);
    ledger.peerings.iter().map(|(id, one)| (id, one.label(label(&id)))).collect()
}

/// Whether the audit log is a chain from its beginning: asked of what a life begins with.
fn is_a_chain(state: &ControlState) -> bool {
    let Ledger { audit, head, .. } = &state.ledger;
    audit::verify(audit.iter().map(|(&number, entry)| (number, entry)), head.audited).is_ok()
}

/// Whether the audit log has an entry for each label that has changed in a step, and no other, and goes on as a
/// chain from where it was.
fn is_audited(old: &ControlState, new: &ControlState) -> bool {
    let (before, after) = (labels(old), labels(new));
    let ids: BTreeSet<OpId> = before.keys().chain(after.keys()).copied().collect();
    let changed = ids
        .into_iter()
        .map(|id| (Some(id), before.get(&id).copied(), after.get(&id).copied()))
        .filter(|(_, from, to)| from != to);
    let (old, new) = (&old.ledger, &new.ledger);
    let first = old.head.audited.0;
    let mut is_kept = true;
    new.audit.difference(&old.audit, |&number, entry| {
        is_kept &= entry.is_none() || number >= first;
    });
    // A command has an entry of its own, in which nothing changes for an owner.
    let is_told = |entry: &&audit::Entry| entry.from != entry.to;
    let added = || new.audit.starting_at(first).map(|(&number, entry)| (number, entry));
    let written = added().map(|(_, entry)| entry).filter(is_told);
    is_kept
        && changed.eq(written.map(|entry| (entry.id, entry.from, entry.to)))
        && audit::end_of(old.head.audited, added()) == Some(new.head.audited)
}

impl IrcObserver {
    fn restores_left(&self, state: &IrcState, node: usize) -> bool {
        let done = state.ghost.restored.get(node).copied().unwrap_or(0);
        self.scope.restores.get(node).is_some_and(|&allowed| done < allowed)
    }

    /// Whether this wish is answered with `NotFound` though the requester's region, which was never
    /// restored, has what it is about, alive.
    fn denies(&self, world: &IrcWorld, before: &IrcState, wish: u8) -> bool {
        let Wish { at, from, msg } = &self.scope.wishes[usize::from(wish)];
        let Msg::Ask { request: Request::Change { id, .. }, .. } = msg else { return false };
        let (at, requester) = (usize::from(*at), usize::from(id.requester.0));
        let lives = before.nodes[requester].state.as_ref().is_some_and(|one| {
            one.ledger.peerings.get(id).is_some_and(|peering| !peering.is_dead())
        });
        if !lives || before.ghost.restored.iter().any(|&restored| restored > 0) {
            return false;
        }
        let input = Input::Deliver { src: Id::from(*from), msg: msg.clone() };
        let party = &world.actors[at].party;
        let state = before.nodes[at].state.clone().map(PartyState::Control);
        let (_, effects) = step(party, Id::from(at), state, input);
        let is_denial = |effect: &EffectOf<Party>| {
            matches!(effect, Effect::Send(_, Msg::Told { result: Err(CallError::NotFound), .. }))
        };
        effects.iter().any(is_denial)
    }

    fn observe_backups(&self, after: &mut IrcState) {
        if !self.scope.early_backup {
            return;
        }
        for node in 0..after.nodes.len() {
            let Some(Storage::Control(ledger)) = &after.nodes[node].storage else { continue };
            let is_first = after.ghost.backups[node].is_none() && !ledger.peerings.is_empty();
            if is_first && self.restores_left(after, node) {
                after.ghost.backups[node] = after.nodes[node].storage.clone();
            }
        }
    }

    fn observe_halves(&self, before: &IrcState, action: Action, after: &mut IrcState) {
        for (old, new) in before.nodes.iter().zip(&after.nodes) {
            let (Some(Storage::Control(old)), Some(Storage::Control(new))) =
                (&old.storage, &new.storage)
            else {
                continue;
            };
            let is_restore = matches!(action, Action::Intervene(_));
            let mut fallen = old.on.iter().filter(|(id, _)| !new.on.contains(id));
            after.ghost.wrong.half_fell |= fallen.any(|(id, _)| {
                is_restore || new.peerings.get(&id).is_some_and(|one| one.wants_half())
            });
        }
    }

    fn observe_dead(&self, after: &mut IrcState) {
        let ids: BTreeSet<OpId> = after
            .nodes
            .iter()
            .filter_map(|node| node.state.as_ref())
            .flat_map(|state| state.ledger.peerings.keys())
            .collect();
        for id in ids {
            let mut ends = Vec::new();
            for (index, node) in after.nodes.iter().enumerate() {
                let Some(state) = &node.state else { continue };
                let Some(peering) = state.ledger.peerings.get(&id) else { continue };
                let open = is_open(state, peering.peer(id));
                ends.push((index, peering.is_dead(), open));
                // One side has it: is it alive there, though it was dead on both?
                let rose = after.ghost.dead.contains_key(&id) && !peering.is_dead() && open;
                after.ghost.wrong.dead_lives |= rose;
            }
            if ends.len() == 2 && ends.iter().all(|&(_, dead, open)| dead && open) {
                after.ghost.dead.entry(id).or_default();
            }
        }
    }
}

impl Observer<Carried> for IrcObserver {
    type Ghost = Ghost;

    const ONLY_HISTORY: bool = true;

    fn begin(&self, world: &IrcWorld) -> Ghost {
        let regions = world.actors.len();
        Ghost { backups: vec![None; regions], restored: vec![0; regions], ..Ghost::default() }
    }

    fn observe(&self, world: &IrcWorld, before: &IrcState, action: Action, after: &mut IrcState) {
        if let Action::Say(index) = action {
            let wish = self.left(before)[usize::from(index)];
            after.ghost.wrong.denied |= self.denies(world, before, wish);
            // What was refused may be said again: a customer who is told so asks later.
            let at = usize::from(self.scope.wishes[usize::from(wish)].at);
            if before.nodes[at] != after.nodes[at] {
                after.ghost.said.insert(wish);
                if let Msg::Ask { request: Request::Modify { id, expected, .. }, .. } =
                    self.scope.wishes[usize::from(wish)].msg
                {
                    let seen = before.nodes[at].state.as_ref().and_then(|state| {
                        let one = state.ledger.peerings.get(&id)?;
                        Some(match one.side {
                            Side::Requester => one.requested.facts.options.version,
                            Side::Accepter => one.decided.facts.options.version,
                        })
                    });
                    after.ghost.wrong.update_lost |= seen != Some(expected);
                }
            }
        }
        self.observe_halves(before, action, after);
        for (old, new) in before.nodes.iter().zip(&after.nodes) {
            let begins = old.state.is_none() || matches!(action, Action::Intervene(_));
            after.ghost.wrong.audit_differs |=
                begins && new.state.as_ref().is_some_and(|new| !is_a_chain(new));
        }
        if let Action::Intervene(_) = action {
            return;
        }
        for (old, new) in before.nodes.iter().zip(&after.nodes) {
            let (Some(old), Some(new)) = (&old.state, &new.state) else { continue };
            let new_labels = labels(new);
            after.ghost.wrong.audit_differs |= !is_audited(old, new);
            for (id, label) in labels(old) {
                let Some(&now) = new_labels.get(&id) else { continue };
                after.ghost.wrong.rank_fell |=
                    now.rank() < label.rank() || (label.is_terminal() && now != label);
                let decision = |state: &ControlState| {
                    state.ledger.peerings.get(&id).and_then(|one| one.decided.facts.decision)
                };
                let (was, is) = (decision(old), decision(new));
                after.ghost.wrong.decision_changed |= was.is_some() && was != is;
                if let Some(one) = new.ledger.peerings.get(&id) {
                    let late = one
                        .decided
                        .facts
                        .deadline
                        .is_some_and(|deadline| new.ledger.head.clock >= deadline);
                    let by_a = matches!(action, Action::Say(_))
                        && was.is_none()
                        && is == Some(Decision::Accepted);
                    after.ghost.wrong.accepted_late |= by_a && late;
                }
            }
        }
        if self.scope.restores.contains(&0) {
            self.observe_dead(after);
            self.observe_backups(after);
            return;
        }
        let all_open = after.nodes.iter().all(|node| {
            node.state.as_ref().is_some_and(|state| {
                state.ledger.peers.iter().all(|(_, peer)| peer.link == Link::Open)
            })
        });
        let all_frozen = after.nodes.iter().all(|node| {
            node.state.as_ref().is_some_and(|state| {
                state
                    .ledger
                    .peers
                    .iter()
                    .all(|(_, peer)| matches!(peer.link, Link::Preparing { .. }))
            })
        });
        after.ghost.seen.all_frozen |= all_frozen;
        after.ghost.seen.thawed_together |= after.ghost.seen.all_frozen && all_open;
        self.observe_dead(after);
        self.observe_backups(after);
    }

    fn inputs(&self, _: &IrcWorld, state: &IrcState) -> Vec<Said<Carried>> {
        let said = |wish: u8| {
            let Wish { at, from, msg } = &self.scope.wishes[usize::from(wish)];
            Said { dst: usize::from(*at), src: *from, msg: msg.clone() }
        };
        self.left(state).into_iter().map(said).collect()
    }

    fn interventions(&self, _: &IrcWorld, state: &IrcState) -> Vec<String> {
        let hands = self.hands(state);
        hands.into_iter().map(|(node, what)| format!("region {node}: {what:?}")).collect()
    }

    fn intervene(&self, world: &IrcWorld, state: &mut IrcState, index: usize) {
        let (node, what) = self.hands(state)[index];
        match what {
            Hand::BackUp => state.ghost.backups[node] = state.nodes[node].storage.clone(),
            Hand::Restore => {
                let Some(Storage::Control(backup)) = state.ghost.backups[node].clone() else {
                    return;
                };
                let Some(Storage::Control(lost)) = state.nodes[node].storage.clone() else {
                    return;
                };
                state.ghost.restored[node] += 1;
                // Whoever restores knows the backup and nothing else. So a second restore from one
                // backup names the number that the first has named, with another tag.
                let life = 100 * u64::from(state.ghost.restored[node]) + node as u64;
                let n = backup.head.incarnation.n + 1;
                let mut restored = backup.restored(Incarnation { n, life }, lost.on, None);
                if !self.scope.safeguards.contains(Safeguards::I_6_FREEZE_AFTER_RESTORE) {
                    for region in 0..self.scope.regions {
                        if let Some(mut peer) = restored.peers.get(&Region(region)).cloned() {
                            peer.link = Link::Open;
                            restored.peers.insert(Region(region), peer);
                        }
                    }
                }
                world.crash(state, node);
                let storage = Storage::Control(restored);
                state.nodes[node].storage = Some(storage.clone());
                world.run(state, node, Input::Start(Some(storage)));
                if !self.restores_left(state, node) {
                    state.ghost.backups[node] = None;
                }
                let region = u16::try_from(node).expect("few regions");
                let mut dead = std::mem::take(&mut state.ghost.dead);
                dead.retain(|_, back| {
                    back.insert(region);
                    back.len() < 2
                });
                state.ghost.dead = dead;
            }
        }
    }

    fn within(&self, state: &IrcState) -> bool {
        let running = state.nodes.iter().filter_map(|node| node.state.as_ref());
        running.into_iter().all(|one| one.ledger.head.clock <= self.scope.clock)
    }

    fn canonical(&self, world: &IrcWorld, state: &mut IrcState) {
        canonical::canonical(self, world, state);
    }
}

/// What is done to a region from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    /// A backup is taken.
    BackUp,
    /// It is put back.
    Restore,
}

impl IrcObserver {
    /// The wishes that are left, in their order.
    fn left(&self, state: &IrcState) -> Vec<u8> {
        let all = 0..u8::try_from(self.scope.wishes.len()).expect("few wishes");
        let up = |wish: &u8| {
            let at = usize::from(self.scope.wishes[usize::from(*wish)].at);
            let node = &state.nodes[at];
            node.state.is_some() && node.condition == Condition::Running
        };
        all.filter(|wish| !state.ghost.said.contains(wish)).filter(up).collect()
    }

    /// A backup is taken once, at any moment, and put back as often as the scope allows.
    fn hands(&self, state: &IrcState) -> Vec<(usize, Hand)> {
        let mut hands = Vec::new();
        for node in 0..state.nodes.len() {
            if !self.restores_left(state, node) {
                continue;
            }
            if state.ghost.backups[node].is_none() {
                if !self.scope.early_backup {
                    hands.push((node, Hand::BackUp));
                }
            } else if state.nodes[node].state.is_some() {
                hands.push((node, Hand::Restore));
            }
        }
        hands
    }
}

/// A short time: nothing here is measured.
pub(crate) const SHORT: Duration = Duration::from_millis(1);
