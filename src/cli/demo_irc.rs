//! `tenure demo irc`: two regions in one process, over UDP on loopback, and what can happen to them.
//!
//! Each region has a control plane with a storage file, two IRC servers and a customer. Each is a node
//! with a socket and a thread of its own. The demo calls the customer API as a customer does, takes
//! regions and servers away, puts one region back to an old backup, and checks what both sides say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::demo::DemoArgs;
use super::paint::Paint;
use crate::irc::control::{ControlPlane, Policy};
use crate::irc::customer::Customer;
use crate::irc::facts::{Account, Network, OpId, Region, SealKey, Target};
use crate::irc::msg::{Answer, CallError, Kind, Msg, Request, Token, block_of};
use crate::irc::peering::{Label, Verb};
use crate::irc::safeguards::Safeguards;
use crate::irc::server::IrcServer;
use crate::irc::{ControlView, Party, View};
use crate::lease::record::NodeId;
use crate::node::clock::BootInstant;
use crate::node::restore::{self, Owner};
use crate::node::storage::Legend;
use crate::node::{Bind, Handle, Node, Spec, record_into};
use crate::trace::check::{Options, Source, Verdict, check};

/// The nodes of a region, in this order.
const PER_REGION: u16 = 4;
/// How long the demo waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const CLUSTER: &str = "demo-irc";
const NAMES: [&str; 2] = ["east", "west"];

type Run<T> = Result<T, String>;
type Result<T, E> = std::result::Result<T, E>;

/// What a node is within its region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Control,
    Server(u16),
    Customer,
}

fn node(region: u16, role: Role) -> NodeId {
    let place = match role {
        Role::Control => 0,
        Role::Server(n) => 1 + n,
        Role::Customer => 3,
    };
    NodeId(region * PER_REGION + place)
}

/// All nodes of both regions.
struct Demo {
    folder: TempDir,
    /// Where the nodes write what they do.
    traces: PathBuf,
    addresses: Vec<SocketAddr>,
    nodes: BTreeMap<NodeId, Handle<Party>>,
    token: u64,
    calls: [u64; 2],
    show: Show,
}

/// The narrator.
struct Show {
    paint: Paint,
    json: bool,
    begun: BootInstant,
    checks: u32,
}

impl Show {
    fn since(&self) -> Duration {
        BootInstant::now().saturating_duration_since(self.begun)
    }

    fn step(&self, title: &str) {
        if self.json {
            super::print(&format!("{}\n", json!({ "event": "step", "title": title })));
        } else {
            super::print(&format!("\n {}\n", self.paint.strong(title)));
        }
    }

    fn tell(&self, what: &str) {
        let since = self.since();
        if self.json {
            let at = since.as_millis() as u64;
            super::print(&format!("{}\n", json!({ "event": "note", "at_ms": at, "what": what })));
        } else {
            let at = self.paint.faint(format!("{:>8.3} s", since.as_secs_f64()));
            super::print(&format!("   {at}  {what}\n"));
        }
    }
}

/// Runs the demo.
pub fn run(args: &DemoArgs) -> ExitCode {
    match Demo::start(args.json, args.trace_dir.as_deref()).and_then(|mut demo| demo.play()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => super::failure(reason),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Demo {
    fn start(json: bool, traces: Option<&Path>) -> Run<Self> {
        let folder = TempDir::new().map_err(text)?;
        let traces = traces.unwrap_or_else(|| folder.path()).to_owned();
        std::fs::create_dir_all(&traces).map_err(|error| {
            format!("cannot make {} ({error}): name another folder", traces.display())
        })?;
        let files = (0..2 * PER_REGION).map(|id| trace(&traces, NodeId(id)));
        if let Some(old) = files.into_iter().find(|file| file.exists()) {
            let old = old.display();
            return Err(format!(
                "{old} is the trace of another run: remove it, or name another folder"
            ));
        }
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets: Vec<UdpSocket> =
            (0..2 * PER_REGION).map(|_| UdpSocket::bind(any).map_err(text)).collect::<Run<_>>()?;
        let addresses = sockets
            .iter()
            .map(|socket| socket.local_addr().map_err(text))
            .collect::<Run<Vec<_>>>()?;
        let show = Show { paint: Paint::stdout(), json, begun: BootInstant::now(), checks: 0 };
        let nodes = BTreeMap::new();
        let mut demo = Self { folder, traces, addresses, nodes, token: 0, calls: [0; 2], show };
        for (id, socket) in (0..).map(NodeId).zip(sockets) {
            demo.start_node(id, Bind::Socket(socket))?;
        }
        Ok(demo)
    }

    fn file(&self, region: u16) -> PathBuf {
        self.folder.path().join(format!("{}.redb", NAMES[usize::from(region)]))
    }

    fn start_node(&mut self, id: NodeId, bind: Bind) -> Run<()> {
        let region = id.0 / PER_REGION;
        let other = 1 - region;
        let party = match id.0 % PER_REGION {
            0 => Party::Control(control(region)),
            3 => {
                let control = node(region, Role::Control);
                Party::Customer(Customer { control, retry: Duration::from_millis(300) })
            }
            _ => {
                let server = IrcServer {
                    control: node(region, Role::Control),
                    remotes: [(Region(other), node(other, Role::Control))].into(),
                    kinds: [Kind::PEERING, Kind::NOTICE].into(),
                    width: 8,
                    poll: Duration::from_millis(50),
                    deadline: Duration::from_millis(400),
                    safeguards: Safeguards::ALL,
                };
                Party::Server(server)
            }
        };
        let mut spec = Spec::new(CLUSTER, id, bind, self.addresses.clone());
        let is_control = matches!(party, Party::Control(_));
        spec.legend = is_control.then(legend);
        // The others keep no more in theirs than how often they have started.
        let own = self.folder.path().join(format!("{}.redb", place(id)));
        spec.storage = Some(if is_control { self.file(region) } else { own });
        spec.actors = vec![(0, party)];
        record_into(&mut spec, trace(&self.traces, id));
        self.nodes.insert(id, Node::start(spec).map_err(text)?);
        Ok(())
    }

    fn restart(&mut self, id: NodeId) -> Run<()> {
        let address = self.addresses[usize::from(id.0)];
        self.start_node(id, Bind::To(address))
    }

    fn kill(&mut self, id: NodeId) {
        if let Some(handle) = self.nodes.remove(&id) {
            handle.kill();
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Looking and calling
    // ---------------------------------------------------------------------------------------------

    fn view(&self, id: NodeId) -> Option<View> {
        let views = self.nodes.get(&id)?.views(0)?;
        let published = views.borrow().clone();
        published.map(|published| published.view)
    }

    fn control(&self, region: u16) -> Option<ControlView> {
        match self.view(node(region, Role::Control))? {
            View::Control(view) => Some(*view),
            _ => None,
        }
    }

    fn label(&self, region: u16, id: OpId) -> Option<Label> {
        self.control(region)?.label(id)
    }

    /// Calls as the customer of this region.
    fn call(&mut self, region: u16, request: Request) -> Run<Result<Answer, CallError>> {
        self.token += 1;
        self.call_again(region, self.token, request)
    }

    /// The same under a token that was perhaps used before.
    fn call_again(
        &mut self,
        region: u16,
        token: u64,
        request: Request,
    ) -> Run<Result<Answer, CallError>> {
        let customer = node(region, Role::Customer);
        let handle = &self.nodes[&customer];
        let caller = Account(1);
        handle.tell(0, Msg::Submit { caller, token: Token(token), request }).map_err(text)?;
        let n = self.calls[usize::from(region)];
        self.calls[usize::from(region)] += 1;
        let mut result = None;
        self.wait("a call was answered", |demo| {
            if let Some(View::Customer { last: Some((told, what)), .. }) = demo.view(customer)
                && told == n
            {
                result = Some(what);
            }
            result.is_some()
        })?;
        result.ok_or_else(|| "a call has no answer".to_owned())
    }

    fn create(&mut self, from: u16, own: u32, peer: u32) -> Run<OpId> {
        let target =
            Target { region: Region(1 - from), account: Account(1), network: Network(peer) };
        let request = Request::Create { network: Network(own), target, resolve_names: false };
        match self.call(from, request)? {
            Ok(Answer::Done { id, .. }) => Ok(id),
            other => Err(format!("a request was answered with {other:?}")),
        }
    }

    fn change(&mut self, region: u16, id: OpId, verb: Verb) -> Run<Label> {
        match self.call(region, Request::Change { id, verb })? {
            Ok(Answer::Done { state, .. }) => Ok(state),
            other => Err(format!("{verb:?} was answered with {other:?}")),
        }
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> Run<()> {
        let until = BootInstant::now().saturating_add(PATIENCE);
        while !is_so(self) {
            if BootInstant::now() > until {
                return Err(format!("{} s went by before {what}", PATIENCE.as_secs()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn both(&mut self, id: OpId, label: Label) -> Run<()> {
        self.wait(&format!("both regions showed {label}"), |demo| {
            [0, 1].into_iter().all(|region| demo.label(region, id) == Some(label))
        })?;
        self.check(&format!("{} is {label} in both regions", name(id)), true)
    }

    fn check(&mut self, what: &str, holds: bool) -> Run<()> {
        self.show.checks += 1;
        if !holds {
            return Err(format!("not so: {what}"));
        }
        self.show.tell(&format!("{}  {what}", self.show.paint.good("ok")));
        Ok(())
    }

    // ---------------------------------------------------------------------------------------------
    // The story
    // ---------------------------------------------------------------------------------------------

    fn play(&mut self) -> Run<()> {
        self.meet()?;
        let first = self.peer()?;
        self.cross()?;
        self.delete_while_provisioning()?;
        self.lose_a_region(first)?;
        self.restore_a_region(first)?;
        self.refuse()?;
        for (_, handle) in std::mem::take(&mut self.nodes) {
            handle.stop();
        }
        self.check_traces()?;
        let since = self.show.since().as_secs_f64();
        let checks = self.show.checks;
        if self.show.json {
            super::print(&format!("{}\n", json!({ "event": "end", "ok": true, "checks": checks })));
        } else {
            let held = self.show.paint.good("Everything held.");
            super::print(&format!("\n {held} {checks} checks in {since:.0} s.\n\n"));
        }
        Ok(())
    }

    fn meet(&mut self) -> Run<()> {
        self.show.step("two regions meet: each promises to the other, and thaws");
        self.wait("both regions were open", |demo| {
            [0, 1].into_iter().all(|region| demo.control(region).is_some_and(|view| view.is_open()))
        })?;
        self.check("both regions are open to each other", true)
    }

    fn peer(&mut self) -> Run<OpId> {
        self.show.step("create in east, accept in west, active on both sides");
        let id = self.create(0, 1, 1)?;
        self.both(id, Label::PendingAcceptance)?;
        self.kill(node(0, Role::Server(0)));
        self.show.tell("one of east's servers is killed");
        self.change(1, id, Verb::Accept)?;
        self.both(id, Label::Active)?;
        self.restart(node(0, Role::Server(0)))?;
        Ok(id)
    }

    fn cross(&mut self) -> Run<()> {
        self.show.step("both sides ask for one pair at the same time");
        let cut = [node(1, Role::Control)];
        for server in [0, 1] {
            let handle = &self.nodes[&node(0, Role::Server(server))];
            handle.cut(cut, crate::node::Direction::Both);
        }
        let low = self.create(0, 2, 2)?;
        let target = Target { region: Region(0), account: Account(1), network: Network(2) };
        let request = Request::Create { network: Network(2), target, resolve_names: false };
        let high = match self.call(1, request)? {
            Ok(Answer::Done { id, .. }) => id,
            other => return Err(format!("the crossing request was answered with {other:?}")),
        };
        for server in [0, 1] {
            let handle = &self.nodes[&node(0, Role::Server(server))];
            handle.cut([], crate::node::Direction::Both);
        }
        self.wait("the lower id won", |demo| {
            demo.label(1, low) == Some(Label::PendingAcceptance)
                && demo.label(1, high).is_some_and(Label::is_terminal)
        })?;
        self.change(1, low, Verb::Accept)?;
        self.both(low, Label::Active)?;
        self.check("one of the two is active, the other is over", true)?;
        self.change(0, low, Verb::Delete)?;
        self.both(low, Label::Deleted)
    }

    fn delete_while_provisioning(&mut self) -> Run<()> {
        self.show.step("accept in west and delete in east at the same time");
        let id = self.create(0, 3, 3)?;
        self.both(id, Label::PendingAcceptance)?;
        self.change(1, id, Verb::Accept)?;
        let state = self.change(0, id, Verb::Delete)?;
        let is_dead = state.rank() >= Label::Deleting.rank();
        self.check("the deletion is answered at once, with the own half off", is_dead)?;
        self.both(id, Label::Deleted)
    }

    fn lose_a_region(&mut self, active: OpId) -> Run<()> {
        self.show.step("west is gone; east goes on; west comes back");
        for place in 0..PER_REGION {
            self.kill(NodeId(PER_REGION + place));
        }
        let before = BootInstant::now();
        let id = self.create(0, 4, 4)?;
        let took = BootInstant::now().saturating_duration_since(before);
        self.show.tell(&format!("east answers in {} ms", took.as_millis()));
        let still = self.label(0, active) == Some(Label::Active);
        self.check("what was active stays active while the other region is away", still)?;
        let label = self.label(0, id);
        self.check("the new request waits", label == Some(Label::InitiatingRequest))?;
        for place in 0..PER_REGION {
            self.restart(NodeId(PER_REGION + place))?;
        }
        self.calls[1] = 0;
        self.both(id, Label::PendingAcceptance)?;
        self.change(1, id, Verb::Reject)?;
        self.both(id, Label::Rejected)
    }

    fn restore_a_region(&mut self, active: OpId) -> Run<()> {
        self.show.step("west is put back to a backup that is older than its decisions");
        let id = self.create(0, 5, 5)?;
        self.both(id, Label::PendingAcceptance)?;
        let control = node(1, Role::Control);
        let (file, backup) = (self.file(1), self.folder.path().join("west.backup"));
        self.kill(control);
        std::fs::copy(&file, &backup).map_err(text)?;
        self.restart(control)?;
        self.change(1, id, Verb::Accept)?;
        self.both(id, Label::Active)?;
        let late = self.create(0, 6, 6)?;
        self.both(late, Label::PendingAcceptance)?;
        self.kill(control);
        let lost = self.folder.path().join("west.lost");
        std::fs::rename(&file, &lost).map_err(text)?;
        let tag = rand::random();
        let owner = Owner { cluster: CLUSTER.to_owned(), node: control, legend: legend() };
        let restored =
            restore::put_back(&owner, &backup, Some(&lost), &file, (0, tag)).map_err(text)?;
        self.show.tell(&format!(
            "west begins life {} with {} peerings of the backup and {} halves that are on",
            restored.life.n, restored.peerings, restored.halves
        ));
        self.restart(control)?;
        self.wait("west was open again", |demo| {
            demo.control(1)
                .is_some_and(|view| view.ledger.head.incarnation == restored.life && view.is_open())
        })?;
        self.both(id, Label::Active)?;
        self.both(late, Label::PendingAcceptance)?;
        self.both(active, Label::Active)?;
        let view = self.control(1).ok_or("west shows nothing")?;
        let lost = &view.ledger.peers.get(&Region(0)).ok_or("west has no peer")?.lost;
        for (op, what) in &lost.recovered {
            self.show.tell(&format!("recovered from east: {}: {what:?}", name(*op)));
        }
        self.show.tell(&format!(
            "what never left west between {} and {} min of its clock may be missing without a trace",
            lost.window.0, lost.window.1
        ));
        let decision = lost.recovered.get(&id).is_some_and(|what| what.decision);
        let refused = lost.refused.is_empty();
        self.check("the lost decision is recovered, and listed", decision && refused)?;
        let existence = lost.recovered.get(&late).is_some_and(|what| what.existence);
        self.check("the lost request is recovered, and listed", existence)
    }

    /// Everything that the nodes did, once more through the model.
    //= SPEC TRACE-10
    fn check_traces(&mut self) -> Run<()> {
        self.show.step("what the nodes have written down is checked against the model");
        let begun = Instant::now();
        let files = (0..2 * PER_REGION).map(|id| trace(&self.traces, NodeId(id)));
        let sources: Vec<_> = files.map(Source::File).collect();
        let report = check::<Party>(&sources, Options::default());
        self.show.tell(&super::trace::summary(&report, begun.elapsed().as_secs_f64()));
        if let Some(problem) = &report.problem {
            self.show.tell(&format!("{}:{}: {}", problem.file, problem.line, problem.what));
        }
        let is_accepted = report.verdict == Verdict::Accepted && report.restored == 1;
        self.check("the run was a behaviour of the model, the restore among it", is_accepted)
    }

    fn refuse(&mut self) -> Run<()> {
        self.show.step("what is refused is refused with a reason, and changes nothing");
        let peerings = self.control(0).map(|view| view.ledger.peerings.len());
        let to =
            |region, network| Target { region, account: Account(1), network: Network(network) };
        let create = |network, target| Request::Create {
            network: Network(network),
            target,
            resolve_names: false,
        };
        let expected = [
            (create(7, to(Region(0), 8)), CallError::SelfPeering),
            (create(7, to(Region(9), 8)), CallError::UnknownRegion),
            (create(99, to(Region(1), 8)), CallError::NotFound),
        ];
        for (request, error) in expected {
            let told = self.call(0, request)?;
            self.check(&error.to_string(), told == Err(error))?;
        }
        let told = self.call_again(0, 1, create(7, to(Region(1), 7)))?;
        self.check("a token is good for one call", told == Err(CallError::TokenMismatch))?;
        let same = self.control(0).map(|view| view.ledger.peerings.len()) == peerings;
        self.check("nothing was stored", same)?;
        // West's check sees that the addresses overlap; east is told no more than that it failed.
        let id = self.create(0, 8, 108)?;
        self.wait("the overlap was refused", |demo| demo.label(0, id) == Some(Label::Failed))?;
        self.check("overlapping addresses fail", true)
    }
}

/// The name of a node: its region's, and for a server or a customer its place there.
fn place(id: NodeId) -> String {
    let region = NAMES[usize::from(id.0 / PER_REGION)];
    match id.0 % PER_REGION {
        0 => region.to_owned(),
        3 => format!("{region}-customer"),
        n => format!("{region}-{n}"),
    }
}

/// The file of a node's trace.
fn trace(folder: &Path, id: NodeId) -> PathBuf {
    folder.join(format!("{}.ndjson", place(id)))
}

fn name(id: OpId) -> String {
    format!("{}-{}-{}", NAMES[usize::from(id.requester.0)], id.n, id.seq)
}

/// What the numbers in both storages stand for.
fn legend() -> Legend {
    Legend { regions: NAMES.map(str::to_owned).into(), tick: control(0).policy.tick }
}

/// A control plane with twelve networks; those of the two regions do not overlap but for one.
fn control(region: u16) -> ControlPlane {
    let other = 1 - region;
    let servers = [0, 1].into_iter().flat_map(|region| {
        [0, 1].map(|server| (node(region, Role::Server(server)), Region(region)))
    });
    let mut networks: BTreeMap<_, _> = (1..=12)
        .map(|n| {
            let block = block_of(Network(n + 100 * u32::from(region)));
            (Network(n), (Account(1), block))
        })
        .collect();
    networks.insert(Network(108), (Account(1), block_of(Network(8))));
    ControlPlane {
        me: node(region, Role::Control),
        region: Region(region),
        others: vec![Region(other)],
        servers: servers.collect(),
        customers: [(node(region, Role::Customer), BTreeSet::from([Account(1)]))].into(),
        networks,
        key: SealKey([u64::from(region) + 1, 0x7465_6e75_7265]),
        life: rand::random(),
        founders: false,
        policy: Policy {
            lease: Duration::from_secs(1),
            retry: [Duration::from_millis(50), Duration::from_secs(1), Duration::from_millis(100)],
            sweep: Some(Duration::from_millis(500)),
            ..Policy::default()
        },
        safeguards: Safeguards::ALL,
    }
}
