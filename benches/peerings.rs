//! What a step of a control plane costs, and what memory it takes, with few peerings and with many.
//!
//! `cargo bench --bench peerings`. For each number of peerings one process makes a ledger of so many, active on both
//! sides, on disk. Another one starts a control plane on that file, as a node does after a restart, and takes new
//! peerings through their whole life: created, carried to another region, accepted there, active, deleted, confirmed.
//! Each step of that control plane is timed: the actor, the view that it publishes, the difference of what it saves, and
//! the handing over of that to the thread which makes it durable (which syncs beside it, and is not waited for). "Alone"
//! is the same without that thread, and without the disturbance by it. Memory
//! is what the system has given the process after the start, with the cache of redb, after all of that work, and at its
//! highest; the allocator gives back at once what is free, so that it is what is in use. The numbers of peerings take
//! turns, and each figure is the median of its rounds.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use stateright::actor::Id;
use tenure::irc::control::{ControlPlane, Policy};
use tenure::irc::facts::{Account, Block, Network, OpId, Region, SealKey, Target};
use tenure::irc::msg::{Answer, CallError, Kind, Msg, Request, Token};
use tenure::irc::peering::{Label, Verb};
use tenure::irc::safeguards::Safeguards;
use tenure::irc::server::IrcServer;
use tenure::irc::{Party, PartyState, Storage, Timer};
use tenure::lease::record::NodeId;
use tenure::node::storage::{Committer, Row, Store};
use tenure::step::{Effect, Input, Machine as _, step};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COUNTS: [u32; 3] = [1_000, 10_000, 100_000];
const ROUNDS: usize = 7;
/// How many peerings are taken through their life while steps are timed.
const LIVES: u32 = 4_000;
/// Networks of each region: a pair of them has one peering.
const NETWORKS: u32 = 1_000;
const ALICE: Account = Account(1);
const CUSTOMER: u16 = 100;
const CLUSTER: &str = "bench";

fn control(region: u16) -> ControlPlane {
    let block = |n: u32| Block { address: (n + u32::from(region) * NETWORKS) << 8, prefix: 24 };
    ControlPlane {
        me: NodeId(region),
        region: Region(region),
        others: vec![Region(1 - region)],
        servers: [(NodeId(2), Region(0)), (NodeId(3), Region(1))].into(),
        customers: [(NodeId(CUSTOMER), BTreeSet::from([ALICE]))].into(),
        networks: (0..NETWORKS).map(|n| (Network(n), (ALICE, block(n)))).collect(),
        key: SealKey([region.into(), 77]),
        life: region.into(),
        founders: true,
        policy: Policy { sweep: None, quota: [1_000_000; 3], ..Policy::default() },
        safeguards: Safeguards::ALL,
    }
}

fn server(region: u16) -> IrcServer {
    let other = 1 - region;
    IrcServer {
        control: NodeId(region),
        remotes: BTreeMap::from([(Region(other), NodeId(other))]),
        kinds: [Kind::PEERING, Kind::NOTICE].into(),
        width: 64,
        poll: Duration::from_millis(100),
        deadline: Duration::from_secs(10),
        safeguards: Safeguards::ALL,
    }
}

/// Two regions, each with one server; what they say is delivered at once. The first one has a disk.
struct Regions {
    parties: [Party; 4],
    states: [Option<PartyState>; 4],
    queue: VecDeque<(usize, usize, Msg)>,
    told: Option<Result<Box<Answer>, CallError>>,
    tokens: u64,
    saved: Option<Storage>,
    committer: Option<Committer>,
    /// How long each step of the first control plane took.
    steps: Vec<Duration>,
}

impl Regions {
    fn start(saved: Option<Storage>, committer: Option<Committer>) -> Self {
        let parties = [
            Party::Control(control(0)),
            Party::Control(control(1)),
            Party::Server(server(0)),
            Party::Server(server(1)),
        ];
        let mut regions = Self {
            parties,
            states: [const { None }; 4],
            queue: VecDeque::new(),
            told: None,
            tokens: rand::random::<u32>().into(),
            saved: saved.clone(),
            committer,
            steps: Vec::new(),
        };
        for node in 0..4 {
            let saved = if node == 0 { saved.clone() } else { None };
            regions.take(node, Input::Start(saved));
        }
        regions.steps.clear();
        regions
    }

    fn take(&mut self, node: usize, input: Input<Msg, Timer, (), Storage>) {
        let begun = Instant::now();
        let state = self.states[node].take();
        let (state, effects) = step(&self.parties[node], Id::from(node), state, input);
        black_box(self.parties[node].view(Id::from(node), &state));
        self.states[node] = Some(state);
        for effect in effects {
            match effect {
                Effect::Save(storage) if node == 0 => {
                    let rows = black_box(Row::difference(self.saved.as_ref(), &storage));
                    if let Some(committer) = &mut self.committer {
                        committer.save(0, rows);
                    }
                    self.saved = Some(storage);
                }
                Effect::Send(_, Msg::Told { result, .. }) => self.told = Some(result),
                Effect::Send(to, msg) => self.queue.push_back((node, to.into(), msg)),
                Effect::Save(_) | Effect::SetTimer(..) | Effect::CancelTimer(_) => {}
                Effect::Choose(..) => unreachable!("nothing is chosen"),
            }
        }
        if node == 0 {
            self.steps.push(begun.elapsed());
        }
    }

    fn ask(&mut self, region: usize, request: Request) -> OpId {
        self.tokens += 1;
        let asked = format!("{request:?}");
        let msg = Msg::Ask { n: 0, caller: ALICE, token: Token(self.tokens), request };
        self.take(region, Input::Deliver { src: Id::from(usize::from(CUSTOMER)), msg });
        match self.told.take().expect("an answer in its own step").map(|answer| *answer) {
            Ok(Answer::Done { id, .. }) => id,
            other => panic!("{asked}: {other:?}"),
        }
    }

    /// Servers poll, and all that is said is delivered.
    fn settle(&mut self) {
        for server in [2, 3] {
            self.take(server, Input::Fire(Timer::Poll));
        }
        while let Some((src, dst, msg)) = self.queue.pop_front() {
            self.take(dst, Input::Deliver { src: Id::from(src), msg });
        }
    }

    /// A request from the one region to the other, accepted: `n` names the pair of networks.
    fn create(&mut self, n: u32) -> OpId {
        let (network, other) = (Network(n / NETWORKS), Network(n % NETWORKS));
        let target = Target { region: Region(1), account: ALICE, network: other };
        let id = self.ask(0, Request::Create { network, target, resolve_names: false });
        self.settle();
        self.ask(1, Request::Change { id, verb: Verb::Accept });
        self.settle();
        id
    }

    fn ledger(&self) -> &tenure::irc::ledger::Ledger {
        match &self.states[0] {
            Some(PartyState::Control(state)) => &state.ledger,
            _ => unreachable!("it is a control plane"),
        }
    }
}

/// Makes a storage file with so many active peerings.
fn build(count: u32, file: &Path) {
    let mut regions = Regions::start(None, None);
    for n in 0..count {
        regions.create(n);
    }
    let ledger = regions.ledger();
    assert_eq!((ledger.peerings.len(), ledger.on.len()), (count as usize, count as usize));
    let (mut committer, _) =
        Store::open(file, CLUSTER, NodeId(0)).expect("a file").into_committer().expect("a thread");
    let rows = Row::difference(None, &Storage::Control(ledger.clone()));
    for some in rows.chunks(10_000) {
        committer.save(0, some.to_vec());
    }
    committer.finish();
}

/// Bytes of memory: now, and at the most.
fn memory() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    })
}

/// Starts on that file, takes new peerings through their lives, and prints what that took: microseconds of a step at
/// the median, at p99 and at most, then bytes after the start, in the end and at most.
fn measure(count: u32, file: &Path, is_alone: bool) {
    let copy = file.with_extension("copy");
    std::fs::copy(file, &copy).expect("there is room");
    let store = Store::open(&copy, CLUSTER, NodeId(0)).expect("it was made");
    let saved = store.restore::<Storage>(0).expect("it can be read");
    let committer = (!is_alone).then(|| store.into_committer().expect("a thread").0);
    let mut regions = Regions::start(saved, committer);
    let [resident, _] = memory();
    let active = |regions: &Regions, id| regions.ledger().label(id) == Some(Label::Active);
    for n in 0..LIVES {
        let id = regions.create(count + n);
        assert!(active(&regions, id), "it was accepted");
        if n % 2 == 0 {
            regions.ask(0, Request::Change { id, verb: Verb::Delete });
            regions.settle();
            assert!(!active(&regions, id), "it was deleted");
        }
    }
    if let Some(committer) = regions.committer.take() {
        committer.finish();
    }
    let [in_the_end, highest] = memory();
    let mut steps = std::mem::take(&mut regions.steps);
    steps.sort_unstable();
    let at = |per_mille: usize| steps[(steps.len() - 1) * per_mille / 1000].as_nanos();
    let [median, p99, most] = [500, 990, 1000].map(at);
    println!("{} {median} {p99} {most} {resident} {in_the_end} {highest}", steps.len());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, count, file] = arguments.as_slice() {
        let count = count.parse().expect("a number");
        match role.as_str() {
            "build" => return build(count, Path::new(file)),
            "measure" => return measure(count, Path::new(file), false),
            "alone" => return measure(count, Path::new(file), true),
            _ => {}
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = |count: u32| folder.path().join(format!("{count}.redb"));
    let run = |role: &str, count: u32| {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program)
            .args([role, &count.to_string()])
            .arg(file(count))
            .env("MIMALLOC_PURGE_DELAY", "0")
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        text.split_whitespace().map(|word| word.parse().expect("a number")).collect::<Vec<u64>>()
    };
    for count in COUNTS {
        run("build", count);
    }
    println!(
        "peerings   steps  p50 us  p99 us  max us  alone: p50 us  p99 us   MiB: started  worked  at most"
    );
    let mut rounds = COUNTS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (count, rounds) in COUNTS.iter().zip(&mut rounds) {
            let mut row = run("measure", *count);
            row.extend(&run("alone", *count)[1..3]);
            rounds.push(row);
        }
    }
    let rows = rounds.map(|rounds| -> Vec<u64> {
        let median = |at: usize| {
            let mut all: Vec<_> = rounds.iter().map(|row| row[at]).collect();
            all.sort_unstable();
            all[ROUNDS / 2]
        };
        (0..9).map(median).collect()
    });
    for (count, row) in COUNTS.iter().zip(&rows) {
        let us = |at: usize| row[at] as f64 / 1e3;
        let mib = |at: usize| row[at] as f64 / f64::from(1 << 20);
        println!(
            "{count:>8} {:>7} {:>7.1} {:>7.1} {:>7.0} {:>14.1} {:>7.1} {:>14.1} {:>7.1} {:>8.1}",
            row[0],
            us(1),
            us(2),
            us(3),
            us(7),
            us(8),
            mib(4),
            mib(5),
            mib(6)
        );
    }
    let [few, .., many] = &rows;
    let ratio = |at: usize| many[at] as f64 / few[at] as f64;
    let more = f64::from(COUNTS[COUNTS.len() - 1] - COUNTS[0]);
    println!(
        "with {} beside {}: p50 {:.2}, p99 {:.2}, alone {:.2} and {:.2}, memory {:.2} started and {:.2} worked: {:.0} bytes for each peering more",
        COUNTS[COUNTS.len() - 1],
        COUNTS[0],
        ratio(1),
        ratio(2),
        ratio(7),
        ratio(8),
        ratio(4),
        ratio(5),
        (many[5] as f64 - few[5] as f64) / more
    );
}
