//! What a step of a control plane costs with many peerings, beside what it costs with few.
//!
//! ```text
//! cargo run --release --example irc_scale
//! ```
//!
//! Two regions are driven by hand, without network and disk: peerings are created, accepted and switched
//! on until there are as many as wanted; then the same operations are timed. A step is what a node does
//! with one input: the step itself, the view that it publishes, and the rows that its save writes. Each
//! size runs in a process of its own, so that its memory is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::actor::Id;
use tenure::durable::Durable as _;
use tenure::irc::control::{ControlPlane, Policy};
use tenure::irc::facts::{Account, Network, OpId, Region, SealKey, Target};
use tenure::irc::msg::{Answer, Kind, Msg, Outcome, Request, Token, block_of};
use tenure::irc::peering::Verb;
use tenure::irc::safeguards::Safeguards;
use tenure::irc::{Party, PartyState, Storage, Timer};
use tenure::lease::record::NodeId;
use tenure::step::{Effect, Input, Machine as _, step};

/// How many operations are timed.
const SAMPLES: usize = 2_000;
const CUSTOMER: usize = 100;

struct Side {
    party: Party,
    state: Option<PartyState>,
    saved: Option<Storage>,
}

struct Pair {
    sides: [Side; 2],
    /// The time of each step of region 0, by what it was.
    times: Option<BTreeMap<&'static str, Vec<Duration>>>,
    rows: usize,
    token: u64,
}

fn control(region: u16, networks: u32) -> Party {
    let owner = Account(1);
    Party::Control(ControlPlane {
        me: NodeId(region),
        region: Region(region),
        others: vec![Region(1 - region)],
        servers: [(NodeId(2), Region(0)), (NodeId(3), Region(1))].into(),
        customers: [(NodeId(CUSTOMER as u16), BTreeSet::from([owner]))].into(),
        networks: (0..networks)
            .map(|n| (Network(n), (owner, block_of(Network(n % 100 + 100 * u32::from(region))))))
            .collect(),
        key: SealKey([region.into(), 7]),
        life: region.into(),
        founders: true,
        policy: Policy { quota: [usize::MAX; 3], ..Policy::default() },
        safeguards: Safeguards::ALL,
    })
}

impl Pair {
    fn new(networks: u32) -> Self {
        let side = |region| Side { party: control(region, networks), state: None, saved: None };
        let mut pair = Self { sides: [side(0), side(1)], times: None, rows: 0, token: 0 };
        for region in 0..2 {
            pair.run(region, "start", Input::Start(None));
        }
        pair
    }

    /// One step, and what it sends.
    fn run(
        &mut self,
        region: usize,
        what: &'static str,
        input: Input<Msg, Timer, (), Storage>,
    ) -> Vec<(usize, Msg)> {
        let side = &mut self.sides[region];
        let begun = processor_time();
        let (state, effects) = step(&side.party, Id::from(region), side.state.take(), input);
        let mut sent = Vec::new();
        let mut rows = 0;
        for effect in effects {
            match effect {
                Effect::Save(storage) => {
                    storage.difference(side.saved.as_ref(), &mut |_, _| rows += 1);
                    side.saved = Some(storage);
                }
                Effect::Send(to, msg) => sent.push((usize::from(to), msg)),
                _ => {}
            }
        }
        let view = side.party.view(Id::from(region), &state);
        let elapsed = processor_time().saturating_sub(begun);
        drop(view);
        side.state = Some(state);
        if let (0, Some(times)) = (region, &mut self.times) {
            times.entry(what).or_default().push(elapsed);
            self.rows += rows;
        }
        let (own, other): (Vec<_>, Vec<_>) = sent.into_iter().partition(|&(to, _)| to == region);
        for (_, msg) in own {
            self.run(region, "switch", Input::Deliver { src: Id::from(region), msg });
        }
        other
    }

    fn deliver(
        &mut self,
        src: usize,
        dst: usize,
        what: &'static str,
        msg: Msg,
    ) -> Vec<(usize, Msg)> {
        self.run(dst, what, Input::Deliver { src: Id::from(src), msg })
    }

    fn ask(&mut self, region: usize, what: &'static str, request: Request) -> Option<OpId> {
        self.token += 1;
        let (n, token) = (self.token, Token(self.token));
        let msg = Msg::Ask { n, caller: Account(1), token, request };
        let told = self.deliver(CUSTOMER, region, what, msg);
        match told.into_iter().next() {
            Some((_, Msg::Told { result: Ok(answer), .. })) => match *answer {
                Answer::Done { id, .. } => Some(id),
                _ => None,
            },
            other => panic!("{what}: {other:?}"),
        }
    }

    /// The server of a region carries what there is, a few pieces at most.
    fn carry(&mut self, region: usize) {
        let server = 2 + region;
        let poll = Msg::Poll { kinds: vec![Kind::PEERING], max: 4 };
        for (_, msg) in self.deliver(server, region, "poll", poll) {
            let Msg::Claimed(claim) = msg else { continue };
            let (work, epoch) = claim.call.tag;
            let remote = usize::from(claim.remote.0);
            let replies = self.deliver(server, remote, "call", Msg::Call(Box::new(claim.call)));
            for (_, reply) in replies {
                let Msg::Reply(reply) = reply else { continue };
                let outcome = Box::new(Outcome::Answered(*reply));
                self.deliver(server, region, "report", Msg::Report { work, epoch, outcome });
            }
        }
    }

    fn create(&mut self, n: u32) -> OpId {
        let target = Target { region: Region(1), account: Account(1), network: Network(n) };
        let request = Request::Create { network: Network(n), target, resolve_names: false };
        let id = self.ask(0, "create", request).expect("an id");
        self.carry(0);
        self.ask(1, "accept", Request::Change { id, verb: Verb::Accept });
        self.carry(1);
        id
    }
}

/// What this thread has used of a processor: other programs of the machine do not count.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

/// Fills two regions, and times what follows.
fn measure(peerings: u32) {
    let samples = u32::try_from(SAMPLES).expect("few");
    let before = resident_kib();
    let mut pair = Pair::new(peerings + samples);
    for n in 0..peerings {
        pair.create(n);
    }
    let filled = resident_kib();
    pair.times = Some(BTreeMap::new());
    for n in peerings..peerings + samples {
        let id = pair.create(n);
        pair.ask(0, "get", Request::Get { id });
        pair.run(0, "tick", Input::Fire(Timer::Tick));
        pair.run(0, "sweep", Input::Fire(Timer::Sweep(Region(1))));
        pair.carry(0);
        pair.ask(0, "delete", Request::Change { id, verb: Verb::Delete });
        pair.carry(0);
    }
    println!("memory {before} {filled}");
    println!("rows {}", pair.rows);
    for (what, mut times) in pair.times.expect("timed") {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_nanos();
        println!("step {what} {} {} {}", times.len(), at(50), at(99));
    }
}

type Lines = BTreeMap<String, Vec<f64>>;

fn child(peerings: u32) -> std::io::Result<Lines> {
    let output =
        std::process::Command::new(std::env::current_exe()?).arg(peerings.to_string()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .map(|line| {
            let words = line.split_whitespace();
            let (names, numbers): (Vec<&str>, Vec<&str>) =
                words.partition(|word| word.parse::<f64>().is_err());
            let numbers = numbers.iter().filter_map(|word| word.parse().ok()).collect();
            (names.join(" "), numbers)
        })
        .collect())
}

fn main() -> std::io::Result<()> {
    if let Some(peerings) = std::env::args().nth(1) {
        measure(peerings.parse().map_err(std::io::Error::other)?);
        return Ok(());
    }
    let (few, many) = (1_000, 100_000);
    let [small, large] = [child(few)?, child(many)?];
    println!(
        "{:<14} {:>22} {:>22} {:>7} {:>7}",
        "step of", "p50, p99 (us) at 1,000", "at 100,000", "p50 x", "p99 x"
    );
    for (name, a) in small.iter().filter(|(name, _)| name.starts_with("step")) {
        let Some(b) = large.get(name) else { continue };
        println!(
            "{:<14} {:>11.1} {:>10.1} {:>11.1} {:>10.1} {:>7.2} {:>7.2}",
            name.trim_start_matches("step "),
            a[1] / 1e3,
            a[2] / 1e3,
            b[1] / 1e3,
            b[2] / 1e3,
            b[1] / a[1],
            b[2] / a[2],
        );
    }
    for (lines, count) in [(&small, few), (&large, many)] {
        let [before, filled] = lines["memory"][..] else { continue };
        println!(
            "resident with {count} peerings at both of two regions: {:.1} MiB, {:.0} bytes for each at each",
            filled / 1024.0,
            (filled - before) * 1024.0 / f64::from(count) / 2.0,
        );
    }
    Ok(())
}
