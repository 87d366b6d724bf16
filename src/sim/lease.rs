//! Simulated leases: how a cluster is put together, and what a run has come to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::plan::Plan;
use super::run::{LEASE, Simulation};
use super::setup::{Birth, Duties, Setup, Work, Workload};
use crate::lease::client::Client;
use crate::lease::elector::Elector;
use crate::lease::host::Host;
use crate::lease::msg::Msg;
use crate::lease::record::{Claim, Expect, Holder, NodeId, NodeSet, Nonce};
use crate::lease::replica::Replica;
use crate::lease::safeguards::Safeguards;
use crate::lease::store::LeaseStore;
use crate::lease::timing::Timing;
use crate::lease::{HostView, Member, Role, Storage, View};
use crate::trace::Traced;
use crate::trace::format::{Clock, FORMAT, Header};
use crate::trace::write::Writer;

/// A cluster to simulate: hosts first, then the store, then clients.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// How many hosts.
    pub hosts: u16,
    /// How many clients.
    pub clients: u16,
    /// The timing.
    pub timing: Timing,
    /// The rules that the actors keep.
    pub safeguards: Safeguards,
    /// The duties that the runtime keeps.
    pub duties: Duties,
    /// About how often some client writes.
    pub write_every: Duration,
    /// About how often an operator ends a term.
    pub operate_every: Duration,
    /// Whether hosts have work that runs while they lead. S then has to leave time for a kill switch.
    pub has_work: bool,
}

impl Default for Cluster {
    /// Three hosts with the default timing and work, one client with a write every 2 s, a command every 5 minutes.
    fn default() -> Self {
        Self {
            hosts: 3,
            clients: 1,
            timing: Timing::DEFAULT,
            safeguards: Safeguards::ALL,
            duties: Duties::ALL,
            write_every: Duration::from_secs(2),
            operate_every: Duration::from_secs(300),
            has_work: true,
        }
    }
}

/// What a run has come to, besides its traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How many steps were taken.
    pub steps: u64,
    /// Whether a host leads at the end.
    pub is_led: bool,
    /// Whether living work runs at the end, under a term that has not ended.
    pub has_work: bool,
    /// How many terms have begun, if hosts have work.
    pub terms: u32,
    /// What must not be of the work of terms, at its first occurrence.
    pub problem: Option<String>,
}

/// Whoever changes a record without being a host.
const NOBODY: Holder = Holder { node: NodeId(NodeId::LIMIT - 1), incarnation: 1 };

/// The work of a host with this timing: it may be silent for 2 R, and a process that was killed is away for up to L.
pub(super) fn work_of(timing: &Timing) -> Work {
    let Timing { lease, renew, retry, hook, clock_error_ppm, .. } = *timing;
    let alive_within = renew * 2;
    // Whatever comes after the silence ends the term, a renewal after R at the latest; and its clock may be slow.
    let slow = f64::from(clock_error_ppm) / 1e6;
    let dead_within = (alive_within + renew.max(retry)).div_f64(1.0 - slow);
    Work { hook, stop_within: timing.stop_within(), alive_within, dead_within, restart: lease }
}

/// Clients and operator.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    cluster: Cluster,
    written: u64,
}

impl Workload<Member> for Outside {
    fn work(&self) -> Option<Work> {
        self.cluster.has_work.then(|| work_of(&self.cluster.timing))
    }

    fn meddled(&mut self, _: u16, storage: &Storage) -> Option<Msg> {
        let Storage::Store(record) = storage else { return None };
        let claim = Claim { lease: record.claim.lease + Duration::from_millis(1), ..record.claim };
        let nonce = Nonce { by: NOBODY, n: record.version };
        Some(Msg::Write { nonce, expect: Expect::Version(record.version), claim })
    }

    fn next(&mut self, views: &[Option<View>], rng: &mut StdRng) -> (Duration, Option<(u16, Msg)>) {
        let every = self.cluster.write_every;
        let pause = rng.random_range(every / 2..=every * 3 / 2);
        let operates = rng.random_bool(
            (every.as_secs_f64() / self.cluster.operate_every.as_secs_f64()).clamp(0.0, 1.0),
        );
        let holder = views.iter().enumerate().find_map(|(node, view)| match view {
            Some(View::Host(HostView { role: Role::Holding, epoch: Some(epoch), .. })) => {
                Some((node as u16, *epoch))
            }
            _ => None,
        });
        let target = NodeId(rng.random_range(0..self.cluster.hosts));
        let hands_over = rng.random_bool(0.5);
        if let (true, Some((holder, epoch))) = (operates, holder) {
            let msg =
                if hands_over { Msg::HandOver { target, epoch } } else { Msg::StepDown { epoch } };
            return (pause, Some((holder, msg)));
        }
        // A client that waits for its last writes is left alone: a queue without a bound proves nothing.
        let client = self.cluster.client(rng.random_range(0..self.cluster.clients));
        match &views[usize::from(client)] {
            Some(View::Client { waiting, .. }) if *waiting < 4 => {
                self.written += 1;
                let (key, value) = (format!("k{}", self.written % 8), self.written.to_string());
                (pause, Some((client, Msg::Submit { key, value })))
            }
            _ => (pause, None),
        }
    }
}

impl Cluster {
    /// How many nodes it has.
    pub fn nodes(&self) -> u16 {
        self.hosts + 1 + self.clients
    }

    /// The node of a client, counted from 0.
    pub fn client(&self, index: u16) -> u16 {
        self.hosts + 1 + index
    }

    fn setup(&self) -> Setup<Member> {
        let Self { timing, safeguards, .. } = *self;
        let hosts: NodeSet = (0..self.hosts).map(NodeId).collect();
        let store = NodeId(self.hosts);
        let mut actors: Vec<_> = hosts
            .iter()
            .map(|me| {
                Member::Host(Host {
                    elector: Elector { me, store, hosts, timing, safeguards },
                    replica: Some(Replica {
                        me,
                        hosts,
                        resend: timing.retry,
                        patience: 3,
                        safeguards,
                    }),
                })
            })
            .collect();
        let hints = hosts.iter().collect();
        actors.push(Member::Store(LeaseStore { hosts, hints, safeguards }));
        actors.extend((0..self.clients).map(|index| {
            let (me, hosts) = (NodeId(self.client(index)), hosts.iter().collect());
            Member::Client(Client { me, hosts, retry: timing.retry, script: Vec::new() })
        }));
        let local = timing.hook / 2;
        Setup { cluster: "simulated".to_owned(), actors, duties: self.duties, local }
    }

    /// A plan of faults in swarm: see [`Plan::swarm`].
    pub fn swarm(&self, seed: u64, length: Duration) -> Plan {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let Timing { lease, hook, clock_error_ppm, .. } = self.timing;
        // A message of a host to itself waits for the saves before it: the disk's time is a part of S.
        let disk = u16::try_from(hook.as_millis() * 2 / 5).unwrap_or(u16::MAX);
        let plan = Plan::swarm(seed, self.nodes(), ms(length), ms(lease), disk, clock_error_ppm);
        if self.has_work {
            plan.and_to_work(seed, self.hosts, self.hosts, ms(length), ms(lease))
        } else {
            plan
        }
    }

    /// The nodes' traces in this folder.
    pub fn traces(&self, folder: &Path) -> Vec<PathBuf> {
        (0..self.nodes()).map(|node| folder.join(format!("n{node}.ndjson"))).collect()
    }

    /// Runs it for so long, from this seed, and writes the traces.
    ///
    /// # Errors
    ///
    /// If a trace cannot be written.
    pub fn run(
        &self,
        seed: u64,
        plan: Plan,
        length: Duration,
        folder: &Path,
    ) -> std::io::Result<Ran> {
        std::fs::create_dir_all(folder)?;
        let paths = self.traces(folder);
        // Emptied before, so that the lives of a node follow each other in one file.
        for path in &paths {
            std::fs::write(path, b"")?;
        }
        let outside = Outside { cluster: *self, written: 0 };
        let setup = self.setup();
        let actors = setup.actors.clone();
        let open = |birth: Birth| {
            let node = usize::from(birth.node);
            let file = std::fs::OpenOptions::new().append(true).open(&paths[node]).ok();
            Writer::new(Trusting(file), &header(&setup.cluster, birth, &actors[node]))
        };
        let mut simulation = Simulation::new(setup.clone(), seed, plan, outside, open);
        simulation.run_until(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
        let leads = |view: &Option<View>| {
            matches!(view, Some(View::Host(HostView { role: Role::Holding, .. })))
        };
        Ok(Ran {
            steps: simulation.steps,
            is_led: simulation.views().iter().any(leads),
            has_work: simulation.has_work(),
            terms: simulation.terms().values().sum(),
            problem: simulation.problem(),
        })
    }
}

/// What a node with this only actor writes at the beginning of a life.
pub fn header<A: Traced>(cluster: &str, birth: Birth, actor: &A) -> Header<A> {
    let Birth { node, nodes, incarnation, clock, now } = birth;
    Header {
        tenure_trace: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: A::PROTOCOL.to_owned(),
        cluster: cluster.to_owned(),
        node,
        nodes,
        incarnation,
        clock: Clock { name: format!("simulated {node}"), at: clock, wall: now },
        durable: true,
        actors: vec![(LEASE, actor.clone())],
    }
}

/// A file that was just there.
pub(super) struct Trusting(pub(super) Option<std::fs::File>);

impl std::io::Write for Trusting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Some(file) => file.write(bytes),
            None => Err(std::io::Error::other("the trace cannot be opened")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
