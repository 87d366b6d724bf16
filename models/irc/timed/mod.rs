//! Operations between regions with time: what must come to pass within a bound (E1 to E8).
//!
//! Here the real control planes and servers run on clocks, over a network that delivers in time what it
//! delivers at all. What is bounded is counted by a *watch*: how many ticks something has been waited
//! for without a break while nothing hinders it. "Always: not overdue" is a safety property, so that a
//! counterexample is a finite path; liveness proper, with fairness, is TLC's.
//!
//! Models begin where it matters: with ledgers that an untimed run has led to ([`ledgers`]), all nodes
//! just started, and where there is an outage, in the dark. The links come back at any moment, so each
//! bound is checked from every state that an outage of any length can lead to.

mod canonical;
pub mod numbers;
pub mod registry;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use self::numbers::{Numbers, TICK, ticks};
use self::watch::Watch;
use super::{OUTSIDE, Wish};
use crate::irc::control::{ControlPlane, Policy};
use crate::irc::facts::{Account, Network, Region, SealKey};
use crate::irc::ledger::{ControlState, Ledger};
use crate::irc::msg::{Kind, Msg, RecordId, Work, block_of};
use crate::irc::pace::Pacing;
use crate::irc::safeguards::Safeguards;
use crate::irc::server::IrcServer;
use crate::irc::{Party, PartyState, Storage, Timer};
use crate::lease::record::NodeId;
use crate::models::world::{
    Action, Budget, Faults, Network as Net, Observer, Said, Time, World, WorldState,
};
use crate::step::Input;

/// A world of control planes and servers with time.
pub type TimedWorld = World<Party, TimedObserver>;

/// One state of it.
pub type TimedState = WorldState<PartyState, Storage, Timer, Msg, Ghost>;

/// The rule that most of these models leave out: a budget and the last twenty calls are more to remember than their
/// explorations can hold. `irc-timed-breaker` has it, and `tests/irc/pace.rs` shows it at its real numbers.
const WITHOUT: Safeguards = Safeguards::I_25_BUDGET_AND_BREAKER;

/// The node of a region that is not in the world: what is sent to it goes nowhere.
const NOWHERE: u16 = 90;

/// An IRC server of a model.
#[derive(Clone, Debug)]
pub struct Post {
    /// Its region.
    pub region: u16,
    /// How many pieces of work it takes at a time.
    pub width: u8,
    /// The kinds that it knows.
    pub kinds: Vec<Kind>,
}

/// A server that takes one piece of work at a time.
pub fn post(region: u16) -> Post {
    Post { region, width: 1, kinds: vec![Kind::PEERING, Kind::NOTICE] }
}

/// What is put together to a world: the control planes first, then the servers.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The regions whose control planes are there: region n is node n.
    pub present: u16,
    /// A region more that is named and never answers.
    pub absent: Option<u16>,
    /// What each control plane begins with.
    pub ledgers: Vec<Ledger>,
    /// The servers.
    pub posts: Vec<Post>,
    /// Which regions sweep.
    pub sweeps: Vec<u16>,
    /// The numbers.
    pub numbers: Numbers,
    /// Whether the links between the regions are cut at first, and come back at any moment.
    pub outage: bool,
    /// What is wanted, each once, at any moment.
    pub wishes: Vec<Wish>,
    /// A record of region 0 of which each server dies that is handed it; it is started again at once.
    pub deadly: Option<RecordId>,
    /// Whether the clocks of regions run. They stand still where nothing is about a deadline.
    pub clocks: bool,
    /// The nodes that may crash, how often in all, and whether they come back.
    pub crashes: (Vec<usize>, u8, bool),
    /// What is waited for, and how long at most.
    pub watches: Vec<(Watch, u16)>,
    /// How many calls towards a silent region may follow each other at once, and how many ticks each
    /// more must be apart.
    pub pace: Option<(u16, u16)>,
    /// How many vain calls open a breaker, and the probe interval in ticks. None: no budget and no breaker (I-25).
    pub breaker: Option<(u32, u16)>,
    /// The rules that are kept.
    pub safeguards: Safeguards,
}

/// What is remembered of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ghost {
    /// Which wishes have been said.
    pub said: BTreeSet<u8>,
    /// The links between the regions are cut.
    pub dark: bool,
    /// For how many ticks each watch has waited.
    pub waited: Vec<u16>,
    /// What was sent into the dark, in ticks that it should have taken.
    pub debt: u16,
    /// Claims that were handed out at one instant and still are all out.
    pub together: BTreeSet<Work>,
    /// Two of these have ended at different times.
    pub ended_apart: bool,
}

/// Watches a timed world.
#[derive(Clone, Debug)]
pub struct TimedObserver {
    /// What it watches.
    pub scope: Scope,
}

/// The ledgers of regions in which these wishes were said one after the other. What the first
/// `carried` of them have to say was carried to its end; what the others have is still in the log.
///
/// # Panics
///
/// If one of the wishes is refused.
pub fn ledgers(scope: &super::Scope, carried: usize) -> Vec<Ledger> {
    let mut world = scope.world(Vec::new());
    world.network = Net::Free { repeats: false };
    world.canonical = false;
    let take = |state: &super::IrcState, action| world.next_state(state, action).expect("a step");
    let mut state = world.init_states().remove(0);
    for wish in 0..scope.wishes.len() {
        state = take(&state, Action::Say(0));
        assert_eq!(state.ghost.said.len(), wish + 1, "it is not refused");
        while wish < carried && !state.network.is_empty() {
            state = take(&state, Action::Deliver(0));
        }
    }
    let ledger = |node: super::super::world::Node<ControlState, Storage, Timer>| {
        node.storage.map(|Storage::Control(ledger)| ledger).expect("a control plane has saved")
    };
    state.nodes.into_iter().map(ledger).collect()
}

impl Scope {
    /// Two regions with these ledgers, and nothing else.
    pub fn new(ledgers: Vec<Ledger>) -> Self {
        Self {
            present: 2,
            absent: None,
            ledgers,
            posts: vec![post(0)],
            sweeps: Vec::new(),
            numbers: numbers::LEAST,
            outage: false,
            wishes: Vec::new(),
            deadly: None,
            clocks: false,
            crashes: (Vec::new(), 0, true),
            watches: Vec::new(),
            pace: None,
            breaker: None,
            safeguards: Safeguards::ALL,
        }
    }

    /// The region of a node.
    pub fn region_of(&self, node: usize) -> u16 {
        let posts = usize::from(self.present);
        match node.checked_sub(posts) {
            Some(post) => self.posts[post].region,
            None => u16::try_from(node).expect("few nodes"),
        }
    }

    fn regions(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.present).chain(self.absent)
    }

    fn kept(&self) -> Safeguards {
        if self.breaker.is_some() { self.safeguards } else { self.safeguards.difference(WITHOUT) }
    }

    fn pacing(&self) -> Pacing {
        let Some((failures, probe)) = self.breaker else { return Pacing::default() };
        Pacing { failures, probe: ticks(probe), ..Pacing::default() }
    }

    /// One region's control plane. It has two networks: the one of its number, and ten more.
    fn control(&self, region: u16) -> ControlPlane {
        let posts = self.posts.iter().enumerate();
        let network = |n: u16| {
            let network = Network(n.into());
            (network, (Account(1), block_of(network)))
        };
        ControlPlane {
            me: NodeId(region),
            region: Region(region),
            others: self.regions().filter(|&other| other != region).map(Region).collect(),
            servers: posts
                .map(|(n, post)| {
                    let node = usize::from(self.present) + n;
                    (NodeId(u16::try_from(node).expect("few nodes")), Region(post.region))
                })
                .collect(),
            customers: [(NodeId(OUTSIDE as u16), BTreeSet::from([Account(1)]))].into(),
            networks: [network(region), network(region + 10)].into(),
            key: SealKey([region.into(), 7]),
            life: region.into(),
            founders: true,
            policy: Policy {
                pacing: self.pacing(),
                ..self.numbers.policy(self.sweeps.contains(&region))
            },
            safeguards: self.kept(),
        }
    }

    fn server(&self, post: &Post) -> IrcServer {
        let node = |region: u16| if region < self.present { region } else { NOWHERE };
        let remotes: BTreeMap<Region, NodeId> = self
            .regions()
            .filter(|&region| region != post.region)
            .map(|region| (Region(region), NodeId(node(region))))
            .collect();
        IrcServer {
            control: NodeId(post.region),
            remotes,
            kinds: post.kinds.iter().copied().collect(),
            width: post.width,
            poll: ticks(self.numbers.poll),
            deadline: ticks(self.numbers.call),
            safeguards: self.kept(),
        }
    }

    /// Puts it together.
    pub fn world(&self, properties: Vec<Property<TimedWorld>>) -> TimedWorld {
        let controls = (0..self.present).map(|region| Party::Control(self.control(region)));
        let servers = self.posts.iter().map(|post| Party::Server(self.server(post)));
        let (nodes, crashes, recover) = self.crashes.clone();
        let inputs = u8::try_from(self.wishes.len()).expect("few wishes");
        World {
            actors: controls.chain(servers).collect(),
            time: Time::Timed { tick: TICK, clock_error_ppm: 0, local: self.numbers.switch },
            network: Net::Timely { delay: self.numbers.delay },
            faults: Faults {
                recover,
                inputs: if inputs == 0 { Budget::Times(0) } else { Budget::Unlimited },
                ..Faults::crashes(nodes, Budget::Times(crashes))
            },
            observer: TimedObserver { scope: self.clone() },
            settled: Vec::new(),
            canonical: true,
            properties,
        }
    }
}

/// A node's control plane, if it is one and runs.
pub fn control(state: &TimedState, node: usize) -> Option<&ControlState> {
    match &state.nodes[node].state {
        Some(PartyState::Control(control)) => Some(control),
        _ => None,
    }
}

impl TimedObserver {
    /// The wishes that are left, in their order.
    fn left(&self, state: &TimedState) -> Vec<u8> {
        let all = 0..u8::try_from(self.scope.wishes.len()).expect("few wishes");
        let is_up = |wish: &u8| {
            let at = self.scope.wishes[usize::from(*wish)].at;
            state.nodes[usize::from(at)].state.is_some()
        };
        all.filter(|wish| !state.ghost.said.contains(wish)).filter(is_up).collect()
    }

    /// The server that has been handed the deadly record dies of it, before it has said anything, and
    /// is started again.
    fn kill(
        &self,
        world: &TimedWorld,
        before: &TimedState,
        action: Action,
        after: &mut TimedState,
    ) {
        let (Some(deadly), Action::Deliver(index)) = (self.scope.deadly, action) else { return };
        let flight = &before.network[usize::from(index)];
        let Msg::Claimed(claim) = &flight.msg else { return };
        if claim.call.tag.0 != Work::Record(deadly) {
            return;
        }
        let node = usize::from(flight.dst);
        let tag = claim.call.tag;
        world.crash(after, node);
        after.network.retain(|flight| {
            let is_its = usize::from(flight.src) == node;
            let is_about_it = match &flight.msg {
                Msg::Call(call) => call.tag == tag,
                Msg::Extend { work, epoch } => (*work, *epoch) == tag,
                _ => false,
            };
            !(is_its && is_about_it)
        });
        world.run(after, node, Input::Start(None));
    }

    /// What is sent into the dark is lost, and counted.
    fn cut(&self, after: &mut TimedState) {
        if !after.ghost.dark {
            return;
        }
        let scope = &self.scope;
        let mut calls = 0;
        after.network.retain(|flight| {
            let (src, dst) = (usize::from(flight.src), usize::from(flight.dst));
            let stays = scope.region_of(src) == scope.region_of(dst);
            calls += u16::from(!stays && matches!(flight.msg, Msg::Call(_)));
            stays
        });
        if let Some((burst, pace)) = scope.pace {
            let most = (burst + 1) * pace;
            after.ghost.debt = (after.ghost.debt + calls * pace).min(most);
        }
    }

    fn observe_claims(&self, before: &TimedState, action: Action, after: &mut TimedState) {
        let out = |state: &TimedState| -> BTreeSet<Work> {
            control(state, 0).map(|one| one.claims.keys().copied().collect()).unwrap_or_default()
        };
        let (old, new) = (out(before), out(after));
        let fresh: BTreeSet<Work> = new.difference(&old).copied().collect();
        let is_reported = old.len() > new.len() && !matches!(action, Action::Fire { .. });
        if fresh.len() > 1 || is_reported {
            after.ghost.together = fresh;
        }
        if action == Action::Elapse {
            let together = after.ghost.together.len();
            let left = after.ghost.together.intersection(&new).count();
            after.ghost.ended_apart |= together > 1 && 0 < left && left < together;
        }
    }
}

impl Observer<Party> for TimedObserver {
    type Ghost = Ghost;

    fn begin(&self, _: &TimedWorld) -> Ghost {
        let waited = vec![0; self.scope.watches.len()];
        Ghost { dark: self.scope.outage, waited, ..Ghost::default() }
    }

    fn stored(&self, node: usize) -> Option<Storage> {
        self.scope.ledgers.get(node).cloned().map(Storage::Control)
    }

    fn observe(
        &self,
        world: &TimedWorld,
        before: &TimedState,
        action: Action,
        after: &mut TimedState,
    ) {
        if let Action::Say(index) = action {
            let wish = self.left(before)[usize::from(index)];
            let at = usize::from(self.scope.wishes[usize::from(wish)].at);
            // What was refused may be said again: a customer who is told so asks later.
            if before.nodes[at] != after.nodes[at] {
                after.ghost.said.insert(wish);
            }
        }
        if action == Action::Elapse {
            after.ghost.debt = after.ghost.debt.saturating_sub(1);
        }
        if !self.scope.clocks {
            for node in &mut after.nodes {
                node.timers.retain(|(timer, _)| *timer != Timer::Tick);
            }
        }
        self.kill(world, before, action, after);
        self.cut(after);
        if self.scope.watches.iter().any(|&(watch, _)| watch == Watch::Spread) {
            self.observe_claims(before, action, after);
        }
        for (index, &(watch, bound)) in self.scope.watches.iter().enumerate() {
            let waited = after.ghost.waited[index];
            after.ghost.waited[index] = match watch.waits(world, after) {
                false => 0,
                true => (waited + u16::from(action == Action::Elapse)).min(bound + 1),
            };
        }
    }

    fn inputs(&self, _: &TimedWorld, state: &TimedState) -> Vec<Said<Party>> {
        let said = |wish: u8| {
            let Wish { at, from, msg } = &self.scope.wishes[usize::from(wish)];
            Said { dst: usize::from(*at), src: *from, msg: msg.clone() }
        };
        self.left(state).into_iter().map(said).collect()
    }

    fn interventions(&self, _: &TimedWorld, state: &TimedState) -> Vec<String> {
        if state.ghost.dark { vec!["the links are back".to_owned()] } else { Vec::new() }
    }

    fn intervene(&self, _: &TimedWorld, state: &mut TimedState, _: usize) {
        state.ghost.dark = false;
        state.ghost.debt = 0;
    }

    /// Where clocks run, they run to the deadline and one unit on.
    fn within(&self, state: &TimedState) -> bool {
        let most = self.scope.numbers.pending + 1;
        let mut controls = (0..state.nodes.len()).filter_map(|node| control(state, node));
        !self.scope.clocks || controls.all(|one| one.ledger.head.clock <= most)
    }

    fn canonical(&self, _: &TimedWorld, state: &mut TimedState) {
        canonical::canonical(self, state);
    }
}
