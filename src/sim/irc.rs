//! Simulated regions: control planes, IRC servers and customers, and what a run has come to.
//!
//! The actors are those of real nodes, with the codec between them and disks under them. A run has a watch that asks
//! the invariants of the models at each step (`watch`), and can write the traces that real nodes write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::both::Both;
use super::customers::{Customers, Habits};
use super::ear::{Ear, Role};
use super::history::History;
use super::lease::{Trusting, header};
use super::plan::{Fault, Kind, Plan};
use super::run::Simulation;
use super::setup::{Birth, Duties, Setup};
use super::watch::Shared;
use crate::irc::Party;
use crate::irc::control::{ControlPlane, Policy};
use crate::irc::customer::Customer;
use crate::irc::facts::{Account, Network, Region, SealKey};
use crate::irc::msg::{Kind as Operation, block_of};
use crate::irc::pace::Pacing;
use crate::irc::safeguards::Safeguards;
use crate::irc::server::IrcServer;
use crate::lease::record::NodeId;
use crate::models::irc::carrier::Carried;
use crate::models::irc::registry::invariants;
use crate::models::irc::{IrcWorld, Scope};
use crate::trace::Recorder;
use crate::trace::write::Writer;

/// The one owner of all networks.
pub(super) const OWNER: Account = Account(1);
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
    /// How many customers each has.
    pub customers: u16,
    /// How many of a hundred calls only read.
    pub reads: u32,
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
            customers: 1,
            reads: 0,
            policy: Policy {
                tick: ms(1000),
                pending: 20,
                remember: 15,
                tokens: 10_000,
                lease: ms(2000),
                retry: [ms(50), ms(2000), ms(200)],
                sweep: Some(ms(2000)),
                claims: 3,
                pacing: Pacing { probe: ms(2000), ..Pacing::default() },
                quota: [4, 2, 500],
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
    /// What customers have called and were told.
    pub history: History,
}

impl Regions {
    /// How many nodes there are.
    pub fn nodes(&self) -> u16 {
        self.regions * (1 + self.servers + self.customers)
    }

    fn servers_of(&self, region: u16) -> std::ops::Range<u16> {
        let first = self.regions + region * self.servers;
        first..first + self.servers
    }

    /// The nodes of a region's customers.
    pub(super) fn customers_of(&self, region: u16) -> std::ops::Range<u16> {
        let first = self.regions * (1 + self.servers) + region * self.customers;
        first..first + self.customers
    }

    pub(super) fn network(&self, region: u16, index: u16) -> Network {
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
            customers: self
                .customers_of(region)
                .map(|customer| (NodeId(customer), BTreeSet::from([OWNER])))
                .collect(),
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
            self.servers_of(region).map(move |one| Party::Server(self.server(region, one)))
        });
        let customers = (0..self.regions).flat_map(|region| {
            let customer = Customer { control: NodeId(region), retry: self.deadline };
            self.customers_of(region).map(move |_| Party::Customer(customer.clone()))
        });
        Setup {
            cluster: "simulated".to_owned(),
            actors: controls.chain(servers).chain(customers).collect(),
            duties: self.duties,
            local: Duration::from_millis(100),
        }
    }

    /// A server. The first one of a region is of an older release if there are others: it does not know notices.
    fn server(&self, region: u16, node: u16) -> IrcServer {
        let remotes = (0..self.regions).filter(|&other| other != region);
        let is_older = self.servers > 1 && self.servers_of(region).next() == Some(node);
        let kinds = [Operation::PEERING, Operation::NOTICE];
        IrcServer {
            control: NodeId(region),
            remotes: remotes.map(|other| (Region(other), NodeId(other))).collect(),
            kinds: kinds
                .into_iter()
                .filter(|&kind| kind == Operation::PEERING || !is_older)
                .collect(),
            width: 4,
            poll: self.poll,
            deadline: self.deadline,
            safeguards: self.safeguards,
        }
    }

    /// Who a node is to the watch.
    fn role(&self, node: u16) -> Role {
        if node < self.regions {
            return Role::Control(Box::new(self.control(node)));
        }
        let mut regions = 0..self.regions;
        let server = regions.find(|&one| self.servers_of(one).contains(&node));
        let first = self.regions * (1 + self.servers);
        server.map_or_else(|| Role::Customer((node - first) / self.customers), Role::Server)
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

    /// A plan of faults in swarm: some kinds strike any node. In half of all seeds control planes are also put back to
    /// backups: up to three times, or again and again, often two of them at nearly one moment, and often twice to one
    /// backup. In a third of all seeds datagrams come once more much later, and in a third all the servers of a
    /// region are deaf for so long that claims are lost again and again.
    pub fn swarm(&self, seed: u64, length: Duration) -> Plan {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let mut plan = Plan::swarm(seed, self.nodes(), length_ms, 1000, 40, 200);
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6261_636b);
        let fault = |at_ms, for_ms, node, kind| Fault { at_ms, for_ms, node, kind };
        match rng.random_range(0..4) {
            0 => {
                for _ in 0..rng.random_range(1..=3) {
                    let node = rng.random_range(0..self.regions);
                    let at_ms = rng.random_range(0..length_ms);
                    let back_ms = rng.random_range(at_ms..length_ms);
                    plan.faults.push(fault(at_ms, 0, node, Kind::BackUp));
                    plan.faults.push(fault(
                        back_ms,
                        rng.random_range(1..3000),
                        node,
                        Kind::Restore,
                    ));
                }
            }
            1 => self.restores(&mut plan, length_ms, &mut rng),
            _ => {}
        }
        if rng.random_range(0..3) == 0 {
            for node in 0..self.regions * (1 + self.servers) {
                plan.faults.push(fault(0, length_ms, node, Kind::Late(100)));
            }
        }
        if rng.random_range(0..3) == 0 && length_ms > 40_000 {
            for _ in 0..rng.random_range(1..=2) {
                let region = rng.random_range(0..self.regions);
                let at_ms = rng.random_range(0..length_ms - 40_000);
                let for_ms = rng.random_range(10_000..25_000);
                let servers = self.servers_of(region);
                plan.faults.extend(servers.map(|one| fault(at_ms, for_ms, one, Kind::Deaf)));
            }
        }
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }

    /// Backups and restores, again and again.
    fn restores(&self, plan: &mut Plan, length_ms: u64, rng: &mut StdRng) {
        let mut at_ms = 0;
        loop {
            at_ms += rng.random_range(2_000..12_000);
            let back_ms = at_ms + rng.random_range(200..6_000);
            if back_ms + 6_000 >= length_ms {
                return;
            }
            let first = rng.random_range(0..self.regions);
            let second = (first + rng.random_range(1..self.regions)) % self.regions;
            let mut fault = |at_ms, node, kind| {
                let for_ms = if kind == Kind::Restore { 50 } else { 0 };
                plan.faults.push(Fault { at_ms, for_ms, node, kind });
            };
            fault(at_ms, first, Kind::BackUp);
            fault(back_ms, first, Kind::Restore);
            if rng.random() {
                // The other one has gone back to before it has promised anything to the first one's new life.
                fault(at_ms, second, Kind::BackUp);
                fault(back_ms + rng.random_range(0..1_500), second, Kind::Restore);
            }
            if rng.random() {
                fault(back_ms + rng.random_range(300..5_000), first, Kind::Restore);
            }
            at_ms = back_ms;
        }
    }

    /// The nodes' traces in this folder.
    pub fn traces(&self, folder: &Path) -> Vec<PathBuf> {
        (0..self.nodes()).map(|node| folder.join(format!("n{node}.ndjson"))).collect()
    }

    /// Runs for so long, and then until everything is at rest.
    pub fn run(&self, seed: u64, plan: Plan, length: Duration) -> Outcome {
        self.go(seed, plan, length, |_, ear, _| ear)
    }

    /// The same, and writes the traces.
    ///
    /// # Errors
    ///
    /// If a trace cannot be written.
    pub fn run_traced(
        &self,
        seed: u64,
        plan: Plan,
        length: Duration,
        folder: &Path,
    ) -> std::io::Result<Outcome> {
        std::fs::create_dir_all(folder)?;
        let paths = self.traces(folder);
        // Emptied before, so that the lives of a node follow each other in one file.
        for path in &paths {
            std::fs::write(path, b"")?;
        }
        Ok(self.go(seed, plan, length, |birth, ear, setup| {
            let node = usize::from(birth.node);
            let file = OpenOptions::new().append(true).open(&paths[node]).ok();
            let header = header(&setup.cluster, birth, &setup.actors[node]);
            Both(ear, Writer::new(Trusting(file), &header))
        }))
    }

    fn go<R: Recorder<Party>>(
        &self,
        seed: u64,
        plan: Plan,
        length: Duration,
        mut open: impl FnMut(Birth, Ear, &Setup<Party>) -> R,
    ) -> Outcome {
        let habits = Habits::draw(seed);
        let mut regions = self.clone();
        habits.shorten(&mut regions);
        let shared = Shared::new(regions.world());
        let customers = Customers::new(&regions, habits, length, shared.clone());
        let setup = regions.setup();
        let ear = |birth: Birth| {
            let ear = Ear::new(birth, regions.role(birth.node), shared.clone());
            open(birth, ear, &setup)
        };
        let mut simulation = Simulation::new(setup.clone(), seed, plan, customers, ear);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        simulation.run_until(nanos(length));
        let mut problem = shared.problem();
        if problem.is_none() {
            simulation.run_until(nanos(length + REST / 2));
            shared.rest();
            simulation.run_until(nanos(length + REST));
            problem = shared.problem().or_else(|| shared.unrest());
        }
        let history = shared.history();
        Outcome { steps: simulation.steps, seen: shared.seen(), problem, history }
    }
}
