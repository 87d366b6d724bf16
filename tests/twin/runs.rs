//! Recorded runs of the lease, as `tla/LeaseTrace.tla` takes them again.
//!
//! The runs are of hosts that guard something that tenure does not keep, and of a store that gives no hints:
//! that is what the specification is of. The check of traces puts a run's steps in one order and replays
//! them; here each becomes an event of the specification, with the state in which it leaves its actor.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use tenure::config::Config as ClusterFile;
use tenure::lease::elector::Elector;
use tenure::lease::host::Host;
use tenure::lease::msg::Msg;
use tenure::lease::record::{NodeId, NodeSet};
use tenure::lease::safeguards::Safeguards;
use tenure::lease::store::LeaseStore;
use tenure::lease::timing::Timing;
use tenure::lease::{HostView, Member, MemberState, Role, View};
use tenure::node::{Bind, Handle, Node, launch, record_into};
use tenure::sim::lease::header;
use tenure::sim::{Birth, Duties, Plan, Setup, Simulation, Workload};
use tenure::trace::check::{Options, Shown, Source, Verdict, check_and_watch};
use tenure::trace::format::{Heard, StepOf};
use tenure::trace::write::Writer;

use super::lease;
use super::value::Value;

const HOSTS: u16 = 3;
/// The store is the node after the hosts.
const NODES: u16 = HOSTS + 1;

/// One run: its events, in an order.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) events: Vec<Value>,
}

/// How the cluster is set up that a run is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) timing: Timing,
}

impl Shape {
    /// Short periods, and clocks that may be off by 1 %.
    pub(crate) fn simulated() -> Self {
        let ms = Duration::from_millis;
        let mut timing = Timing {
            lease: ms(10_000),
            give_up: ms(1000),
            renew: ms(400),
            retry: ms(200),
            poll: ms(200),
            jitter: ms(50),
            hook: ms(100),
            clock_error_ppm: 10_000,
        };
        timing.lease = timing.smallest_lease().expect("there is one");
        Self { timing }
    }

    fn actors(self) -> Vec<Member> {
        let hosts: NodeSet = (0..HOSTS).map(NodeId).collect();
        let (timing, safeguards) = (self.timing, Safeguards::ALL);
        let elector = |me| Elector { me, store: NodeId(HOSTS), hosts, timing, safeguards };
        let mut actors: Vec<Member> = hosts
            .iter()
            .map(|me| Member::Host(Host { elector: elector(me), replica: None }))
            .collect();
        actors.push(Member::Store(LeaseStore { hosts, hints: Vec::new(), safeguards }));
        actors
    }

    /// The constants of the specification, in milliseconds, without time: which run is too late is judged by
    /// the check of traces.
    pub(crate) fn constants(self) -> String {
        let Timing { lease, give_up, renew, retry, poll, jitter, hook, .. } = self.timing;
        let ms = |duration: Duration| duration.as_millis();
        let set = |nodes: u16| {
            let nodes: Vec<String> = (0..nodes).map(|node| node.to_string()).collect();
            format!("{{{}}}", nodes.join(", "))
        };
        format!(
            "CONSTANTS\n    Hosts = {}\n    Lease = {}\n    GiveUp = {}\n    Renew = {}\n    Retry = {}\n    \
             Poll = {}\n    Jitter = {}\n    Hook = {}\n    ErrorPpm = {}\n    Timed = FALSE\n    \
             Repeats = TRUE\n    Delay = 65535\n    MayCrash = {}\n    Crashes = 65535\n    \
             MayRecover = TRUE\n    StepDowns = TRUE\n    HandOvers = TRUE\n    Inputs = 65535\n    \
             Fires = 65535\n    MaxRequests = 65535\n    Without = {{}}\n    None = None\n    \
             Anybody = Anybody\n",
            set(HOSTS),
            ms(lease),
            ms(give_up),
            ms(renew),
            ms(retry),
            ms(poll),
            ms(jitter),
            ms(hook),
            self.timing.clock_error_ppm,
            set(NODES)
        )
    }
}

/// An operator who ends a term now and then.
struct Operator;

impl Workload<Member> for Operator {
    fn next(&mut self, views: &[Option<View>], rng: &mut StdRng) -> (Duration, Option<(u16, Msg)>) {
        let pause = Duration::from_millis(rng.random_range(2000..6000));
        let target = NodeId(rng.random_range(0..HOSTS));
        let held = views.iter().enumerate().find_map(|(node, view)| match view {
            Some(View::Host(HostView { role: Role::Holding, epoch: Some(epoch), .. })) => {
                Some((node as u16, *epoch))
            }
            _ => None,
        });
        let hands_over = rng.random_bool(0.5);
        let order = held.map(|(node, epoch)| {
            let hand_over = Msg::HandOver { target, epoch };
            (node, if hands_over { hand_over } else { Msg::StepDown { epoch } })
        });
        (pause, order)
    }
}

/// A simulated run of so many events, with faults in swarm; none if a crash has undone a step in it, which no
/// specification knows of.
pub(crate) fn simulated(shape: Shape, seed: u64, length: usize) -> Option<Run> {
    let folder = tempfile::tempdir().expect("a folder");
    let paths: Vec<PathBuf> =
        (0..NODES).map(|node| folder.path().join(format!("n{node}.ndjson"))).collect();
    let actors = shape.actors();
    let open = |birth: Birth| {
        let node = usize::from(birth.node);
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&paths[node]);
        Writer::new(file.expect("a trace"), &header("simulated", birth, &actors[node]))
    };
    let duration = Duration::from_secs(30);
    let setup = Setup {
        cluster: "simulated".to_owned(),
        actors: actors.clone(),
        duties: Duties::ALL,
        local: shape.timing.hook / 2,
    };
    let plan = Plan::swarm(seed, NODES, 30_000, 1000, 40, shape.timing.clock_error_ppm);
    let mut simulation = Simulation::new(setup, seed, plan, Operator, open);
    simulation.run_until(u64::try_from(duration.as_nanos()).expect("short"));
    drop(simulation);
    let sources: Vec<Source> = paths.iter().cloned().map(Source::File).collect();
    recorded(&format!("seed {seed}"), &sources, length)
}

/// A run of real nodes on loopback, with a step-down, and a crash of whoever holds then.
pub(crate) fn real(length: usize) -> (Shape, Run) {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["a", "b", "c", "s"];
    let sockets = names.map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let mut text = String::from(
        "cluster = \"traced\"\ninsecure = true\n[timing]\nlease = \"1200ms\"\ngive_up = \"800ms\"\n\
         renew = \"250ms\"\nretry = \"100ms\"\npoll = \"150ms\"\njitter = \"20ms\"\nhook = \"200ms\"\n\
         clock_error_ppm = 200\n",
    );
    for (id, (name, socket)) in names.iter().zip(&sockets).enumerate() {
        let role = if id < usize::from(HOSTS) { "host" } else { "store" };
        let address = socket.local_addr().expect("bound");
        write!(
            text,
            "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\naddress = \"{address}\"\n\
             storage = \"{name}.redb\"\nzone = \"z{id}\"\n"
        )
        .expect("memory");
    }
    text += "[[lease]]\nname = \"table\"\nhosts = [\"a\", \"b\", \"c\"]\nstore = \"s\"\n";
    let file = ClusterFile::parse_in(&text, folder.path()).expect("a cluster");
    let trace = |id: usize| folder.path().join(format!("{}.ndjson", names[id]));
    let start = |id: usize| {
        let mut spec = launch::spec(&file, names[id]).expect("a node");
        for (_, actor) in &mut spec.actors {
            match actor {
                Member::Host(host) => host.replica = None,
                Member::Store(store) => store.hints = Vec::new(),
                Member::Client(_) => {}
            }
        }
        spec.bind = Bind::Socket(sockets[id].try_clone().expect("a socket"));
        record_into(&mut spec, trace(id));
        Node::start(spec).expect("it starts")
    };
    let mut nodes: Vec<Handle<Member>> = (0..names.len()).map(start).collect();
    let (first, epoch) = holder(&nodes, None);
    nodes[first].tell(0, Msg::StepDown { epoch }).expect("it hears");
    let (second, _) = holder(&nodes, Some(epoch));
    nodes.remove(second).kill();
    nodes.insert(second, start(second));
    std::thread::sleep(Duration::from_millis(500));
    for node in nodes {
        node.kill();
    }
    let sources: Vec<Source> = (0..names.len()).map(|id| Source::File(trace(id))).collect();
    let run = recorded("real nodes", &sources, length).expect("no crash has undone a step");
    let Some(Member::Host(host)) = file_actor(&file, names[0]) else { panic!("a host") };
    (Shape { timing: host.elector.timing }, run)
}

fn file_actor(file: &ClusterFile, name: &str) -> Option<Member> {
    let spec = launch::spec(file, name).expect("a node");
    spec.actors.into_iter().next().map(|(_, actor)| actor)
}

/// Who holds, under another epoch than that one.
fn holder(nodes: &[Handle<Member>], other_than: Option<u64>) -> (usize, u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        for (id, node) in nodes.iter().enumerate().take(usize::from(HOSTS)) {
            let published = node.views(0).expect("a lease").borrow().clone();
            if let Some(View::Host(HostView { role: Role::Holding, epoch: Some(epoch), .. })) =
                published.map(|published| published.view)
                && Some(epoch) != other_than
            {
                return (id, epoch);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("nobody holds the lease");
}

/// Reads a run. It must be accepted by the check of traces.
fn recorded(name: &str, sources: &[Source], length: usize) -> Option<Run> {
    let mut events = Vec::new();
    let mut started = vec![false; usize::from(NODES)];
    let mut before: Vec<Option<Value>> = vec![None; usize::from(NODES)];
    let report = check_and_watch::<Member>(
        sources,
        Options::default(),
        Some(&mut |global, node, _, shown| {
            let Shown::Step(step) = shown else { return };
            let index = usize::from(node);
            let after = match &global.state().nodes[index].state {
                Some(MemberState::Host(host)) => lease::elector(&host.elector),
                Some(MemberState::Store(record)) => lease::record(record),
                other => panic!("{other:?} has no part in it"),
            };
            if matches!(step.input, Heard::Start { .. }) && started[index] {
                events.push(Value::record([
                    ("type", "Crash".into()),
                    ("node", i64::from(node).into()),
                ]));
            }
            let is_unchanged = before[index].as_ref() == Some(&after);
            events.push(event(node, step, started[index], is_unchanged, after.clone()));
            started[index] = true;
            before[index] = Some(after);
        }),
    );
    assert_eq!(report.verdict, Verdict::Accepted, "{name}: {:?}", report.problem);
    events.truncate(length);
    (report.undone == 0).then(|| Run { name: name.to_owned(), events })
}

fn event(
    node: u16,
    step: &StepOf<Member>,
    has_started: bool,
    is_unchanged: bool,
    state: Value,
) -> Value {
    let me: Value = i64::from(node).into();
    let at_node = |kind: &str, more: Vec<(&'static str, Value)>| {
        let fields = [("type", kind.into()), ("node", me.clone()), ("state", state.clone())];
        Value::record(fields.into_iter().chain(more))
    };
    let arrives = |src: u16, msg: &Msg| {
        Value::record([
            ("type", "Deliver".into()),
            ("src", i64::from(src).into()),
            ("dst", me.clone()),
            ("msg", lease::message(msg)),
            ("state", state.clone()),
        ])
    };
    match &step.input {
        Heard::Start { .. } if has_started => at_node("Recover", vec![]),
        Heard::Start { .. } => at_node("Begun", vec![]),
        Heard::Deliver { src, msg, .. } => arrives(*src, msg),
        Heard::Own { msg } => arrives(node, msg),
        Heard::Told { .. } if is_unchanged && step.sends.is_empty() => at_node("Begun", vec![]),
        Heard::Told { msg: Msg::StepDown { .. } } => at_node("StepDown", vec![]),
        Heard::Told { msg: Msg::HandOver { target, .. } } => {
            at_node("HandOver", vec![("target", i64::from(target.0).into())])
        }
        Heard::Fire { timer, .. } => at_node("Fire", vec![("timer", lease::timer(*timer).into())]),
        other => panic!("{other:?} is no event of the specification"),
    }
}

/// A change of a run after which it is none of the specification's: an expression, and what was changed.
pub(crate) fn mutated(run: usize, events: &[Value], kind: usize) -> (String, String) {
    let name = format!("Run{run}");
    // In the middle of the run, and not the last word of its node.
    let middle = events.len() / 2;
    let find = |what: &str, wanted: &dyn Fn(usize) -> bool| -> usize {
        let found = (middle..events.len() - 1).chain((1..middle).rev()).find(|&at| wanted(at));
        found.unwrap_or_else(|| panic!("run {run} has no {what}")) + 1
    };
    let node = |at: usize| {
        let Value::Record(fields) = &events[at] else { panic!("an event is a record") };
        fields.get("dst").or_else(|| fields.get("node")).cloned()
    };
    let state = |at: usize| {
        let Value::Record(fields) = &events[at] else { panic!("an event is a record") };
        fields.get("state").cloned()
    };
    let last = |at: usize| (0..at).rev().find(|&earlier| node(earlier) == node(at));
    let next = |at: usize| (at + 1..events.len()).find(|&later| node(later) == node(at));
    let changes =
        |at: usize| state(at).is_some() && last(at).is_some_and(|last| state(last) != state(at));
    let is = |at: usize, kind: &str| {
        let Value::Record(fields) = &events[at] else { panic!("an event is a record") };
        fields["type"] == kind.into()
    };
    match kind % 6 {
        0 => {
            // What comes next at its node does not make up for it.
            let at = find("step that matters", &|at| {
                changes(at)
                    && next(at).is_some_and(|next| !changes(next) && events[next] != events[at])
            });
            (
                format!(
                    "SubSeq({name}, 1, {}) \\o SubSeq({name}, {}, Len({name}))",
                    at - 1,
                    at + 1
                ),
                format!("step {at} is missing"),
            )
        }
        1 => {
            // Two that follow each other at one node.
            let at = find("two steps", &|at| changes(at) && next(at).is_some_and(changes));
            let other = next(at - 1).expect("just found") + 1;
            (
                format!("[{name} EXCEPT ![{at}] = {name}[{other}], ![{other}] = {name}[{at}]]"),
                format!("steps {at} and {other} have changed places"),
            )
        }
        2 => {
            let at = find("delivery", &|at| is(at, "Deliver"));
            (
                format!("[{name} EXCEPT ![{at}].src = {}]", NODES + 1),
                format!("the message of step {at} comes from somebody else"),
            )
        }
        3 => {
            let at = find("delivery with a nonce", &|at| {
                is(at, "Deliver")
                    && events[at].to_string().contains("nonce |->")
                    && !events[at].to_string().contains("\"Consent\"")
            });
            (
                format!("[{name} EXCEPT ![{at}].msg.nonce = <<0, 1, 999>>]"),
                format!("the message of step {at} was never sent"),
            )
        }
        4 => {
            let at = find("a fired timer", &|at| is(at, "Fire"));
            (
                format!("[{name} EXCEPT ![{at}].timer = \"Yield\"]"),
                format!("another timer fires in step {at}"),
            )
        }
        _ => {
            let at = find("a fired timer", &|at| is(at, "Fire"));
            (
                format!("[{name} EXCEPT ![{at}].state.requests = @ + 1]"),
                format!("step {at} leaves another state"),
            )
        }
    }
}

/// The module `Recorded`: so many runs, and so many that were changed.
pub(crate) fn module(runs: &[Run], changed: &[String]) -> String {
    let mut text = String::from(
        "------------------------------ MODULE Recorded ------------------------------\nEXTENDS Lease, Sequences\n\n",
    );
    for (number, run) in runs.iter().enumerate() {
        let _ = writeln!(text, "(* {} *)\nRun{} == <<", run.name, number + 1);
        for (index, event) in run.events.iter().enumerate() {
            let comma = if index + 1 < run.events.len() { "," } else { "" };
            let _ = writeln!(text, "  {event}{comma}");
        }
        text += ">>\n\n";
    }
    let names = (1..=runs.len()).map(|number| format!("Run{number}"));
    let all: Vec<String> = names.chain(changed.iter().cloned()).collect();
    let _ = writeln!(text, "Runs == <<\n  {}\n>>", all.join(",\n  "));
    text + "=============================================================================\n"
}

/// Writes what TLC needs into a folder.
pub(crate) fn write(folder: &Path, shape: Shape, module: &str, invariant: &str) {
    for name in ["Lease.tla", "LeaseTrace.tla"] {
        std::fs::copy(super::config::folder().join(name), folder.join(name)).expect("copied");
    }
    std::fs::write(folder.join("Recorded.tla"), module).expect("written");
    let config = format!("SPECIFICATION TraceSpec\nINVARIANT {invariant}\n{}", shape.constants());
    std::fs::write(folder.join("LeaseTrace.cfg"), config).expect("written");
}
