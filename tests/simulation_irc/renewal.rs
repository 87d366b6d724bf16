//! A region whose keys have run out, and are renewed: nobody takes its datagrams, nor it anybody's, for half a minute, and
//! then all of them are taken again. What the others' servers call meanwhile and afterwards is read from their traces.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tenure::irc::control::Policy;
use tenure::irc::safeguards::Safeguards;
use tenure::sim::irc::Regions;
use tenure::sim::{Fault, Kind, Plan};

const S: u64 = 1_000_000_000;
/// When the keys of region 0 have run out, in nanoseconds of the simulator's time.
const DARK: Range<u64> = 5 * S..35 * S;
/// What counts as the first time after the renewal.
const AFTER: Range<u64> = DARK.end..DARK.end + 5 * S;
const LENGTH: Duration = Duration::from_secs(42);
/// The region whose keys run out. Its control plane is the node of this number.
const REGION: u64 = 0;

/// Three regions with much to say to each other, and with as many claims as a real one.
fn regions() -> Regions {
    let regions = Regions::default();
    let policy = Policy { quota: [60, 30, 10_000], claims: 32, ..regions.policy.clone() };
    let call_every = regions.call_every / 5;
    Regions { networks: 8, customers: 4, call_every, policy, ..regions }
}

fn plan(regions: &Regions) -> Plan {
    let mut plan = Plan::none(regions.nodes());
    let (at_ms, for_ms) = (DARK.start * 1000 / S, (DARK.end - DARK.start) * 1000 / S);
    let servers = regions.regions..regions.regions + regions.servers;
    let dark = |node| Fault { at_ms, for_ms, node, kind: Kind::Isolate };
    plan.faults.extend([0].into_iter().chain(servers).map(dark));
    plan
}

/// A call that a server has made, or an answer that it has got.
#[derive(Debug)]
struct Said {
    at: u64,
    /// The control plane that it was said to, or that has said it.
    remote: u64,
    is_answer: bool,
    /// The work, and the claim.
    tag: String,
    /// The work, and of a comparison which part of which.
    what: String,
}

/// What the servers of a region have said and heard, in order.
fn said_by(regions: &Regions, region: u16, folder: &Path) -> Vec<Said> {
    let first = regions.regions + region * regions.servers;
    let mut all = Vec::new();
    for line in (first..first + regions.servers).flat_map(|node| lines(folder, node)) {
        let Some(at) = line["sim"].as_u64() else { continue };
        let said = |remote: &Value, msg: &Value, is_answer| {
            let errand = &msg["errand"]["Sync"];
            Said {
                at,
                remote: remote.as_u64().expect("a node"),
                is_answer,
                tag: msg["tag"].to_string(),
                what: format!("{} {} {}", msg["tag"][0], errand["nonce"], errand["after"]),
            }
        };
        let heard = &line["in"]["deliver"];
        if let Some(msg) = heard["msg"].get("Reply") {
            all.push(said(&heard["src"], msg, true));
        }
        for sent in line["sends"].as_array().into_iter().flatten() {
            if let Some(msg) = sent["msg"].get("Call") {
                all.push(said(&sent["to"], msg, false));
            }
        }
    }
    all.sort_by_key(|said| said.at);
    all
}

fn lines(folder: &Path, node: u16) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(format!("n{node}.ndjson"))).expect("a trace");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// How many halves of peerings that the third region has asked for a control plane has switched in the dark.
fn switched(folder: &Path, region: u16) -> usize {
    let lines = lines(folder, region);
    let dark =
        lines.iter().filter(|line| line["sim"].as_u64().is_some_and(|at| DARK.contains(&at)));
    let sends = dark.filter_map(|line| line["sends"].as_array()).flatten();
    let requesters = sends.filter_map(|sent| sent["msg"]["Switched"]["requester"].as_u64());
    requesters.filter(|&requester| requester != REGION && requester != u64::from(region)).count()
}

/// What is said to the region whose keys run out, in this time.
fn to_it<'a>(said: &'a [Said], time: &Range<u64>) -> Vec<&'a Said> {
    said.iter().filter(|said| said.remote == REGION && time.contains(&said.at)).collect()
}

fn probes(regions: &Regions, time: &Range<u64>) -> u64 {
    (time.end - time.start) / regions.policy.pacing.probe.as_nanos() as u64
}

/// How many calls of one other region were in vain; an error if it was too many: more than may be out when it gets dark,
/// failures until the breaker opens, and then a probe at a time.
fn in_vain(regions: &Regions, said: &[Said]) -> Result<usize, String> {
    let calls = to_it(said, &DARK).iter().filter(|said| !said.is_answer).count();
    let failures = regions.policy.pacing.failures as usize;
    let budget = regions.policy.claims + failures + probes(regions, &DARK) as usize + 1;
    let is_much = calls > budget;
    if is_much { Err(format!("{calls} calls in vain, of at most {budget}")) } else { Ok(calls) }
}

/// How many calls of one other region followed the renewal, and about how many things.
///
/// # Errors
///
/// If more were made at any time than probes and answers allow, each answer one more at a time; or if what has piled up
/// was not said about once.
fn afterwards(regions: &Regions, said: &[Said]) -> Result<[u64; 2], String> {
    let (mut sent, mut answered) = (0, 0);
    let mut what = BTreeSet::new();
    for said in to_it(said, &AFTER) {
        if said.is_answer {
            answered += 1;
            continue;
        }
        sent += 1;
        what.insert(&said.what);
        let probes = 1 + probes(regions, &(AFTER.start..said.at));
        if sent > probes + 2 * answered {
            return Err(format!("{sent} calls when {answered} were answered"));
        }
    }
    let first = what.len() as u64;
    let share = u64::from(regions.policy.pacing.retry_percent);
    let budget = first + first * share / 100 + probes(regions, &AFTER) + 10;
    if sent > budget {
        return Err(format!("{sent} calls about {first} things, of at most {budget}"));
    }
    Ok([sent, first])
}

/// All calls between the other two regions in the dark, and those of them that have no answer.
fn between_others(said: &[Said]) -> (usize, usize) {
    let answered: BTreeSet<_> =
        said.iter().filter(|said| said.is_answer).map(|said| &said.tag).collect();
    let calls: Vec<_> = said
        .iter()
        .filter(|said| !said.is_answer && said.remote != REGION && DARK.contains(&said.at))
        .collect();
    let vain = calls.iter().filter(|said| !answered.contains(&said.tag)).count();
    (calls.len(), vain)
}

/// IF-33. Ten calls of customers a second or more go on all the time. The calls towards the region in the dark, and towards it
/// in the first seconds after the renewal, stay within the budget; between the others nothing is in vain, peerings become
/// active, and no half of anybody falls (which the invariants say at each step).
#[test]
fn keys_that_run_out_and_are_renewed_bring_no_surge() {
    for seed in 0..2 {
        let regions = regions();
        let folder = tempfile::tempdir().unwrap();
        let outcome = regions.run_traced(seed, plan(&regions), LENGTH, folder.path()).unwrap();
        assert_eq!(outcome.problem, None, "seed {seed}");
        for region in 1..regions.regions {
            let said = said_by(&regions, region, folder.path());
            let in_vain = in_vain(&regions, &said).unwrap();
            let [sent, first] = afterwards(&regions, &said).unwrap();
            let (calls, vain) = between_others(&said);
            let on = switched(folder.path(), region);
            println!(
                "seed {seed}, region {region}: {in_vain} calls in the dark; then {sent} about {first} things in 5 s; \
                 {calls} to the other region, {vain} of them in vain; {on} halves on"
            );
            assert!(in_vain >= 20 && first >= 20, "there was little to say");
            assert!(calls >= 20 && vain == 0, "it has cost the others something");
            assert!(on > 0, "nothing became active between the others");
        }
    }
}

/// Without budget and breaker too much is said in the dark. Afterwards the waits alone spread what has piled up; that a
/// surge would be seen is shown by calls that nobody answers.
#[test]
fn without_a_budget_keys_that_have_run_out_cost_too_much() {
    let safeguards = Safeguards::except(Safeguards::I_25_BUDGET_AND_BREAKER);
    let regions = Regions { safeguards, ..regions() };
    let folder = tempfile::tempdir().unwrap();
    regions.run_traced(0, plan(&regions), LENGTH, folder.path()).unwrap();
    let mut said = said_by(&regions, 1, folder.path());
    let found = in_vain(&regions, &said);
    assert!(found.is_err(), "{found:?}");
    said.retain(|said| !said.is_answer);
    let found = afterwards(&regions, &said);
    assert!(found.is_err(), "{found:?}");
}
