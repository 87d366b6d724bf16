//! Simulated regions: control planes, IRC servers and customers, and what a run has come to.
//!
//! The actors are those of real nodes, with the codec between them and disks under them. Instead of a trace a
//! run has a watch that asks the invariants of the models at each step (`watch`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::plan::{Fault, Kind, Plan};
use super::run::Simulation;
use super::setup::{Birth, Duties, Setup, Workload};
use super::watch::{Ear, Shared, thaw};
use crate::irc::control::{ControlPlane, Policy};
use crate::irc::customer::Customer;
use crate::irc::facts::{Account, Incarnation, Network, OpId, Region, SealKey, Target, Version};
use crate::irc::msg::{Kind as Operation, Msg, Request, Token, block_of};
use crate::irc::peering::{Peering, Side, Verb};
use crate::irc::safeguards::Safeguards;
use crate::irc::server::IrcServer;
use crate::irc::{Party, Storage, View};
use crate::lease::record::NodeId;
use crate::models::irc::carrier::Carried;
use crate::models::irc::registry::invariants;
use crate::models::irc::{IrcWorld, Scope};

/// The one owner of all networks.
const OWNER: Account = Account(1);
/// How long everything may take to come to rest after the last fault and the last call.
const REST: Duration = Duration::from_secs(120);

/// Regions to simulate. Nodes: the control planes, then the servers of each region, then a customer for each.
#[derive(Clone, Debug)]
pub struct Regions {
    /// How many.
    pub regions: u16,
    /// How many IRC servers each has.
    pub servers: u16,
    /// How many networks each has.
    pub networks: u16,
    /// The numbers of the control planes.
    pub policy: Policy,
    /// How often a server asks for work, and how long it waits for an answer.
    pub poll: Duration,
    /// See above.
    pub deadline: Duration,
    /// The rules that the actors keep.
    pub safeguards: Safeguards,
    /// The duties that the runtime keeps.
    pub duties: Duties,
    /// About how often some customer calls.
    pub call_every: Duration,
}

impl Default for Regions {
    /// Three regions with two servers and two networks each. Everything is short: a request may wait for 20 s, a
    /// claim is held for 2 s, something happens every half second.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            regions: 3,
            servers: 2,
            networks: 2,
            policy: Policy {
                tick: ms(1000),
                pending: 20,
                remember: 15,
                tokens: 10_000,
                lease: ms(2000),
                retry: [ms(50), ms(2000), ms(200)],
                sweep: Some(ms(2000)),
                claims: 8,
                quota: [4, 2, 500],
                ..Policy::default()
            },
            poll: ms(200),
            deadline: ms(500),
            safeguards: Safeguards::ALL,
            duties: Duties::ALL,
            call_every: ms(500),
        }
    }
}

/// What a run has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps of all nodes.
    pub steps: u64,
    /// How often each label was reached at some side, and how often a region was restored.
    pub seen: BTreeMap<String, u64>,
    /// What must not be.
    pub problem: Option<String>,
}

impl Regions {
    /// How many nodes there are.
    pub fn nodes(&self) -> u16 {
        self.regions * (2 + self.servers)
    }

    fn servers_of(&self, region: u16) -> impl Iterator<Item = u16> + use<> {
        let first = self.regions + region * self.servers;
        first..first + self.servers
    }

    fn customer(&self, region: u16) -> u16 {
        self.regions * (1 + self.servers) + region
    }

    fn network(&self, region: u16, index: u16) -> Network {
        Network(u32::from(region * self.networks + index))
    }

    fn control(&self, region: u16) -> ControlPlane {
        let all = 0..self.regions;
        let servers = |region: u16| {
            self.servers_of(region).map(move |server| (NodeId(server), Region(region)))
        };
        let networks = (0..self.networks).map(|index| self.network(region, index));
        ControlPlane {
            me: NodeId(region),
            region: Region(region),
            others: all.clone().filter(|&other| other != region).map(Region).collect(),
            servers: all.flat_map(servers).collect(),
            customers: [(NodeId(self.customer(region)), BTreeSet::from([OWNER]))].into(),
            networks: networks.map(|network| (network, (OWNER, block_of(network)))).collect(),
            key: SealKey([region.into(), 7]),
            life: region.into(),
            founders: true,
            policy: self.policy.clone(),
            safeguards: self.safeguards,
        }
    }

    fn setup(&self) -> Setup<Party> {
        let controls = (0..self.regions).map(|region| Party::Control(self.control(region)));
        let servers = (0..self.regions).flat_map(|region| {
            self.servers_of(region).map(move |_| Party::Server(self.server(region)))
        });
        let customers = (0..self.regions).map(|region| {
            Party::Customer(Customer { control: NodeId(region), retry: self.deadline })
        });
        Setup {
            cluster: "simulated".to_owned(),
            actors: controls.chain(servers).chain(customers).collect(),
            duties: self.duties,
            local: Duration::from_millis(100),
        }
    }

    fn server(&self, region: u16) -> IrcServer {
        let remotes = (0..self.regions).filter(|&other| other != region);
        IrcServer {
            control: NodeId(region),
            remotes: remotes.map(|other| (Region(other), NodeId(other))).collect(),
            kinds: [Operation::PEERING].into(),
            width: 4,
            poll: self.poll,
            deadline: self.deadline,
            safeguards: self.safeguards,
        }
    }

    /// The models' world of these control planes, of which only properties and observer are used.
    fn world(&self) -> IrcWorld {
        let scope = Scope {
            regions: self.regions,
            restores: vec![0; self.regions.into()],
            safeguards: self.safeguards,
            ..Scope::new(Vec::new())
        };
        let mut world = scope.world(invariants());
        world.canonical = false;
        world.actors = (0..self.regions)
            .map(|region| Carried {
                control: self.control(region),
                party: Party::Control(self.control(region)),
                remotes: BTreeMap::new(),
            })
            .collect();
        world
    }

    /// A plan of faults in swarm: some kinds strike any node, and in half of all seeds up to three control planes
    /// are put back to a backup.
    pub fn swarm(&self, seed: u64, length: Duration) -> Plan {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let mut plan = Plan::swarm(seed, self.nodes(), length_ms, 1000, 40, 200);
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6261_636b);
        if rng.random() {
            for _ in 0..rng.random_range(1..=3) {
                let node = rng.random_range(0..self.regions);
                let at_ms = rng.random_range(0..length_ms);
                let back_ms = rng.random_range(at_ms..length_ms);
                let fault = |at_ms, for_ms, kind| Fault { at_ms, for_ms, node, kind };
                plan.faults.push(fault(at_ms, 0, Kind::BackUp));
                plan.faults.push(fault(back_ms, rng.random_range(1..3000), Kind::Restore));
            }
            plan.faults.sort_by_key(|fault| fault.at_ms);
        }
        plan
    }

    /// Runs for so long, and then until everything is at rest.
    pub fn run(&self, seed: u64, plan: Plan, length: Duration) -> Outcome {
        let shared = Shared::new(self.world());
        let customers = Customers {
            regions: self.clone(),
            left: length,
            asked: 0,
            last: BTreeMap::new(),
            restores: 0,
            shared: shared.clone(),
        };
        let ear = |birth: Birth| Ear::new(birth.node, self.regions, shared.clone());
        let mut simulation = Simulation::new(self.setup(), seed, plan, customers, ear);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        simulation.run_until(nanos(length));
        let mut problem = shared.problem();
        let end = length + REST;
        if problem.is_none() {
            simulation.run_until(nanos(end));
            // A sweep may be under way at any moment, and has nothing to say to anybody for good.
            problem = shared.problem().or_else(|| shared.unrest());
        }
        Outcome { steps: simulation.steps, seen: shared.seen(), problem }
    }
}

/// All that customers and operators do.
struct Customers {
    regions: Regions,
    /// For how long they go on.
    left: Duration,
    asked: u64,
    /// The last call of each region: some are made twice.
    last: BTreeMap<u16, (Token, Request)>,
    restores: u64,
    shared: Shared,
}

impl Customers {
    fn request(&self, region: u16, known: &[(OpId, Peering)], rng: &mut StdRng) -> Request {
        let Regions { regions, networks, .. } = self.regions;
        let any = known.iter().choose(rng);
        let what = rng.random_range(0..10);
        match any {
            Some((id, one)) if what >= 4 => {
                let verb = match (what, one.side) {
                    (4..7, Side::Accepter) => Verb::Accept,
                    (7, Side::Accepter) => Verb::Reject,
                    (8, _) | (4, Side::Requester) => Verb::Delete,
                    _ => return self.modify(*id, one, rng),
                };
                Request::Change { id: *id, verb }
            }
            _ => {
                let other = (region + rng.random_range(1..regions)) % regions;
                let network = self.regions.network(region, rng.random_range(0..networks));
                let peer = self.regions.network(other, rng.random_range(0..networks));
                let target = Target { region: Region(other), account: OWNER, network: peer };
                Request::Create { network, target, resolve_names: rng.random() }
            }
        }
    }

    fn modify(&self, id: OpId, one: &Peering, rng: &mut StdRng) -> Request {
        let seen = match one.side {
            Side::Requester => one.requested.facts.options.version,
            Side::Accepter => one.decided.facts.options.version,
        };
        // Some have not looked lately.
        let counter = seen.counter.saturating_sub(u64::from(rng.random_bool(0.2)));
        let expected = Version { counter, ..seen };
        Request::Modify { id, expected, resolve_names: rng.random() }
    }
}

impl Workload<Party> for Customers {
    fn next(&mut self, views: &[Option<View>], rng: &mut StdRng) -> (Duration, Option<(u16, Msg)>) {
        let every = self.regions.call_every;
        let pause = rng.random_range(every / 2..=every * 3 / 2);
        let region = rng.random_range(0..self.regions.regions);
        self.left = self.left.saturating_sub(pause);
        let customer = self.regions.customer(region);
        let is_free = matches!(
            &views[usize::from(customer)],
            Some(View::Customer { waiting, .. }) if *waiting < 2
        );
        if self.left.is_zero() || !is_free {
            return (pause, None);
        }
        let known: Vec<_> = match &views[usize::from(region)] {
            Some(View::Control(view)) => {
                view.ledger.peerings.iter().map(|(&id, one)| (id, one.clone())).collect()
            }
            _ => Vec::new(),
        };
        let again = self.last.get(&region).copied().filter(|_| rng.random_bool(0.1));
        let (token, request) = again.unwrap_or_else(|| {
            self.asked += 1;
            (Token(self.asked), self.request(region, &known, rng))
        });
        self.last.insert(region, (token, request));
        (pause, Some((customer, Msg::Submit { caller: OWNER, token, request })))
    }

    fn restored(&mut self, node: u16, backup: &Storage, lost: &Storage) -> Option<Storage> {
        let (Storage::Control(backup), Storage::Control(lost)) = (backup, lost);
        self.restores += 1;
        self.shared.put_back(node);
        // Who restores knows the backup and nothing else; the tag tells lives with one number apart.
        let n = backup.head.incarnation.n + 1;
        let life = Incarnation { n, life: 1000 * self.restores + u64::from(node) };
        let mut ledger = backup.clone().restored(life, lost.on.clone());
        if !self.regions.safeguards.contains(Safeguards::I_6_FREEZE_AFTER_RESTORE) {
            thaw(&mut ledger, self.regions.regions);
        }
        Some(Storage::Control(ledger))
    }
}
