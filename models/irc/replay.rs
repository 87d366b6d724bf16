//! Replays runs of regions: the world of control planes, servers and customers, and what is judged along the way.
//!
//! A region may have very many peerings, and a step touches few of them. So each invariant is asked of what the step
//! has touched: the peerings and halves that differ, all of those with a region to which the link has opened, or
//! which was disposed of, and everything at a start.

mod judge;
mod monitor;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::Property;

pub use self::monitor::IrcMonitor;
use crate::irc::control::ControlPlane;
use crate::irc::customer::Customer;
use crate::irc::facts::{OpId, Region, SealKey};
use crate::irc::msg::{ClaimEpoch, Msg};
use crate::irc::{Party, PartyState, Storage, Timer};
use crate::lease::record::NodeId;
use crate::models::replay::Replayed;
use crate::models::world::{
    Action, Budget, Faults, Network, Observer, Said, StateOf, Time, World, WorldState,
};
use crate::persistent::PersistentMap;

/// The world of regions that run.
pub type ReplayWorld = World<Party, ReplayObserver>;

/// One state of it.
pub type ReplayState = WorldState<PartyState, Storage, Timer, Msg, Ghost>;

/// One node of it.
type NodeOf = crate::models::world::Node<PartyState, Storage, Timer>;

/// What is remembered of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ghost {
    /// The invariants that some step has broken, by their names.
    pub broken: BTreeSet<&'static str>,
    /// What was dead on both sides and is still kept by one, and which of these have gone back since.
    pub dead: PersistentMap<OpId, BTreeSet<u16>>,
    /// The highest epoch under which each control plane has handed out work, since it was put back last.
    pub newest: BTreeMap<u16, ClaimEpoch>,
    /// The tokens under which each control plane keeps a result.
    pub tokens: PersistentMap<(u16, u64), ()>,
    /// The storage to which a node that is down may be put back now.
    pub offered: Option<(u16, Storage)>,
}

/// Watches it.
#[derive(Clone, Debug, Default)]
pub struct ReplayObserver {
    /// What each region seals its facts with.
    pub keys: BTreeMap<Region, SealKey>,
    /// How many undecided requests there may be at a network of each control plane.
    pub quotas: BTreeMap<u16, usize>,
}

impl Ghost {
    /// This control plane was put back to a backup.
    fn put_back(&mut self, node: u16) {
        self.newest.remove(&node);
        // What was dead on both sides may come back when both were put back since.
        let dead: Vec<OpId> = self.dead.iter().map(|(&id, _)| id).collect();
        for id in dead {
            let Some(mut back) = self.dead.get(&id).cloned() else { continue };
            back.insert(node);
            match back.len() {
                2.. => drop(self.dead.remove(&id)),
                _ => drop(self.dead.insert(id, back)),
            }
        }
    }
}

macro_rules! properties {
    ($($name:ident)*) => {
        /// The invariants that are judged at each step, by the names that the models give them.
        fn properties() -> Vec<Property<ReplayWorld>> {
            vec![$(Property::always(stringify!($name), |_, state: &ReplayState| {
                !state.ghost.broken.contains(stringify!($name))
            })),*]
        }
    };
}

properties! {
    one_decision
    nothing_is_stuck
    facts_are_of_their_writers
    half_is_justified
    rank_never_falls
    dead_stays_dead
    forgotten_is_dead
    one_live_per_pair
    accepted_in_time
    one_effect_per_token
    no_lost_update
    no_half_falls
    disposed_is_fenced
    quota_kept
    audited
    epochs_only_grow
}

impl Observer<Party> for ReplayObserver {
    type Ghost = Ghost;

    const ONLY_HISTORY: bool = true;

    fn begin(&self, _: &ReplayWorld) -> Ghost {
        Ghost::default()
    }

    fn observe(
        &self,
        world: &ReplayWorld,
        before: &ReplayState,
        action: Action,
        after: &mut ReplayState,
    ) {
        judge::observe(self, world, before, action, after);
    }

    fn inputs(&self, _: &ReplayWorld, _: &ReplayState) -> Vec<Said<Party>> {
        Vec::new()
    }

    /// A node that is down may be put back to a storage that a restore can have made.
    fn interventions(&self, _: &ReplayWorld, state: &ReplayState) -> Vec<String> {
        let Some((node, Storage::Control(found))) = &state.ghost.offered else { return Vec::new() };
        let is_down = state.nodes[usize::from(*node)].state.is_none();
        let may_be = is_down && found.digest_of_its_backup().is_ok();
        may_be.then(|| format!("node {node} is put back")).into_iter().collect()
    }

    fn intervene(&self, _: &ReplayWorld, state: &mut ReplayState, _: usize) {
        let Some((node, storage)) = state.ghost.offered.take() else { return };
        state.nodes[usize::from(node)].storage = Some(storage);
        state.ghost.put_back(node);
    }

    fn canonical(&self, _: &ReplayWorld, _: &mut ReplayState) {}
}

/// The control planes among these actors, by their nodes.
fn controls(actors: &[Option<Party>]) -> impl Iterator<Item = (u16, &ControlPlane)> {
    (0..).zip(actors).filter_map(|(node, actor)| match actor {
        Some(Party::Control(control)) => Some((node, control)),
        _ => None,
    })
}

/// Says where the actors contradict each other.
fn check(actors: &[Option<Party>]) -> Result<(), String> {
    let mut regions = BTreeMap::new();
    for (node, control) in controls(actors) {
        if control.me != NodeId(node) {
            return Err(format!("node {node} runs the control plane of node {}", control.me.0));
        }
        if let Some(other) = regions.insert(control.region, node) {
            let region = control.region.0;
            return Err(format!(
                "nodes {other} and {node} are both control planes of region {region}"
            ));
        }
        if control.policy.pacing.probe.is_zero() {
            return Err(format!("the control plane of node {node} probes without a pause"));
        }
    }
    if regions.is_empty() {
        return Err("no control plane has left a trace".to_owned());
    }
    for (node, actor) in (0..).zip(actors) {
        let Some(Party::Server(server)) = actor else { continue };
        let own = controls(actors).find(|&(control, _)| server.control == NodeId(control));
        let knows = own.is_some_and(|(_, control)| {
            control.servers.get(&NodeId(node)) == Some(&control.region)
        });
        if !knows {
            return Err(format!(
                "node {node} is a server of node {}, which knows it for none of its own",
                server.control.0
            ));
        }
    }
    Ok(())
}

impl Replayed for Party {
    /// A half that is switched twice before its answer is heard.
    const MAY_REPEAT_TO_ITSELF: bool = true;

    type Observer = ReplayObserver;
    type Monitor = IrcMonitor;

    fn world(actors: &[Option<Self>]) -> Result<ReplayWorld, String> {
        check(actors)?;
        // Whoever has no part in the regions never starts, whatever it is.
        let retry = Duration::from_secs(1);
        let idle = Self::Customer(Customer { control: NodeId(0), retry });
        let keys = controls(actors).map(|(_, control)| (control.region, control.key)).collect();
        let quotas =
            controls(actors).map(|(node, control)| (node, control.policy.quota[1])).collect();
        let nodes = actors.len();
        Ok(World {
            actors: actors
                .iter()
                .map(|actor| actor.clone().unwrap_or_else(|| idle.clone()))
                .collect(),
            time: Time::Untimed,
            network: Network::Free { repeats: true },
            faults: Faults {
                down_at_once: nodes + 1,
                ..Faults::crashes(0..nodes, Budget::Unlimited)
            },
            observer: ReplayObserver { keys, quotas },
            settled: Vec::new(),
            canonical: false,
            properties: properties(),
        })
    }

    /// All that any of them names: whoever may have sent something.
    fn needed(actors: &[Option<Self>]) -> Vec<u16> {
        let mut needed = BTreeSet::new();
        for actor in actors.iter().flatten() {
            match actor {
                Self::Control(control) => {
                    needed.extend(control.servers.keys().chain(control.customers.keys()));
                }
                Self::Server(server) => {
                    needed.insert(server.control);
                    needed.extend(server.remotes.values());
                }
                Self::Customer(customer) => drop(needed.insert(customer.control)),
            }
        }
        needed.into_iter().map(|node| node.0).collect()
    }

    /// Nothing: a start is judged with all that its storage holds.
    fn before_the_trace(_: &mut StateOf<Self, ReplayObserver>, _: usize) {}

    /// Nothing: what is kept is what the control planes keep.
    fn forget(_: &ReplayWorld, _: &mut ReplayState) {}

    fn offer(state: &mut ReplayState, node: usize, found: Storage) {
        state.ghost.offered = u16::try_from(node).ok().map(|node| (node, found));
    }

    fn monitor(actors: &[Option<Self>]) -> IrcMonitor {
        IrcMonitor::new(actors)
    }
}
