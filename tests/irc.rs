//! Situations between regions, told step by step: the actors through `step`, messages in hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use stateright::actor::Id;
use tenure::irc::control::{ControlPlane, Policy};
use tenure::irc::facts::{
    Account, Bundle, Decided, Decision, Incarnation, Network, OpId, Region, SealKey, Sealed,
    Target, Version,
};
use tenure::irc::ledger::{ControlState, Link};
use tenure::irc::msg::{
    Answer, Body, Call, CallError, ClaimEpoch, Command, Errand, Kind, Msg, Outcome, RecordId,
    Request, Status, SyncLevel, Token, Work, block_of,
};
use tenure::irc::peering::{Label, Verb};
use tenure::irc::safeguards::Safeguards;
use tenure::irc::server::IrcServer;
use tenure::irc::{Party, PartyState, Storage, Timer};
use tenure::lease::record::NodeId;
use tenure::persistent::PersistentMap;
use tenure::step::{Effect, Input, step};

const ALICE: Account = Account(1);
const BOB: Account = Account(2);
const CUSTOMER: usize = 100;

/// Regions 0 to n-1: control planes are nodes 0 to n-1, and node n + r is the server of region r.
struct Net {
    parties: Vec<Party>,
    states: Vec<Option<PartyState>>,
    saved: Vec<Option<Storage>>,
    timers: BTreeMap<(usize, Timer), Duration>,
    queue: VecDeque<(usize, usize, Msg)>,
    /// What control planes have told their customers.
    told: Vec<Result<Answer, CallError>>,
    /// Nodes that get nothing from other nodes.
    down: BTreeSet<usize>,
    sent: BTreeMap<usize, usize>,
    regions: usize,
    token: u64,
}

fn control(region: u16, regions: u16, change: &dyn Fn(&mut ControlPlane)) -> ControlPlane {
    let network = |n: u32| {
        (
            Network(n),
            (if n < 50 { ALICE } else { BOB }, block_of(Network(n + 16 * u32::from(region)))),
        )
    };
    let mut control = ControlPlane {
        me: NodeId(region),
        region: Region(region),
        others: (0..regions).filter(|&other| other != region).map(Region).collect(),
        servers: (0..regions).map(|one| (NodeId(regions + one), Region(one))).collect(),
        customers: [(NodeId(CUSTOMER as u16), BTreeSet::from([ALICE, BOB]))].into(),
        networks: (1..=12).chain([60]).map(network).collect(),
        key: SealKey([region.into(), 77]),
        life: region.into(),
        founders: true,
        policy: Policy { pending: 3, remember: 2, tokens: 50, sweep: None, ..Policy::default() },
        safeguards: Safeguards::ALL,
    };
    change(&mut control);
    control
}

impl Net {
    fn new(regions: u16) -> Self {
        Self::with(regions, &|_| ())
    }

    fn with(regions: u16, change: &dyn Fn(&mut ControlPlane)) -> Self {
        let controls = (0..regions).map(|region| Party::Control(control(region, regions, change)));
        let servers = (0..regions).map(|region| {
            Party::Server(IrcServer {
                control: NodeId(region),
                remotes: (0..regions)
                    .filter(|&r| r != region)
                    .map(|r| (Region(r), NodeId(r)))
                    .collect(),
                kinds: [Kind::PEERING, Kind::NOTICE].into(),
                width: 4,
                poll: Duration::from_secs(1),
                deadline: Duration::from_secs(10),
            })
        });
        let parties: Vec<Party> = controls.chain(servers).collect();
        let count = parties.len();
        let mut net = Self {
            parties,
            states: vec![None; count],
            saved: vec![None; count],
            timers: BTreeMap::new(),
            queue: VecDeque::new(),
            told: Vec::new(),
            down: BTreeSet::new(),
            sent: BTreeMap::new(),
            regions: regions.into(),
            token: 0,
        };
        for node in 0..count {
            net.start(node);
        }
        net
    }

    fn server(&self, region: usize) -> usize {
        self.regions + region
    }

    fn start(&mut self, node: usize) {
        self.timers.retain(|&(of, _), _| of != node);
        let saved = self.saved[node].clone();
        self.states[node] = None;
        self.run(node, Input::Start(saved));
    }

    fn run(&mut self, node: usize, input: Input<Msg, Timer, (), Storage>) {
        let state = self.states[node].take();
        let (state, effects) = step(&self.parties[node], Id::from(node), state, input);
        self.states[node] = Some(state);
        for effect in effects {
            match effect {
                Effect::Save(storage) => self.saved[node] = Some(storage),
                Effect::Send(to, Msg::Told { result, .. }) => {
                    assert_eq!(usize::from(to), CUSTOMER);
                    self.told.push(result.map(|answer| *answer));
                }
                Effect::Send(to, msg) => {
                    *self.sent.entry(node).or_default() += 1;
                    self.queue.push_back((node, to.into(), msg));
                }
                Effect::SetTimer(timer, range) => {
                    assert!(range.start <= range.end);
                    self.timers.insert((node, timer), range.start);
                }
                Effect::CancelTimer(timer) => drop(self.timers.remove(&(node, timer))),
                Effect::Choose(..) => panic!("nothing is chosen"),
            }
        }
    }

    fn deliver(&mut self, src: usize, dst: usize, msg: Msg) {
        self.run(dst, Input::Deliver { src: Id::from(src), msg });
    }

    fn fire(&mut self, node: usize, timer: Timer) {
        assert!(self.timers.remove(&(node, timer)).is_some(), "{timer:?} is not armed at {node}");
        self.run(node, Input::Fire(timer));
    }

    /// Delivers everything, and lets servers poll, until nothing is left to say.
    fn settle(&mut self) {
        for _ in 0..60 {
            while let Some((src, dst, msg)) = self.queue.pop_front() {
                if src == dst || !self.down.contains(&src) && !self.down.contains(&dst) {
                    self.deliver(src, dst, msg);
                }
            }
            for region in 0..self.regions {
                let server = self.server(region);
                if !self.down.contains(&server) {
                    self.fire(server, Timer::Poll);
                }
                // What waits has waited.
                let waiting: Vec<Timer> =
                    self.armed(region, |timer| matches!(timer, Timer::Retry(_)));
                for timer in waiting {
                    self.fire(region, timer);
                }
            }
            if self.queue.iter().all(|(_, _, msg)| matches!(msg, Msg::Poll { .. }))
                && self.is_idle()
            {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        (0..self.regions).all(|region| {
            let ledger = &self.control(region).ledger;
            let frozen =
                |link: &Link| matches!(link, Link::Preparing { .. } | Link::Syncing { .. });
            ledger.records.is_empty() && !ledger.peers.iter().any(|(_, peer)| frozen(&peer.link))
        })
    }

    fn armed(&self, node: usize, keep: impl Fn(&Timer) -> bool) -> Vec<Timer> {
        let all = self.timers.keys().filter(|(of, _)| *of == node);
        all.map(|&(_, timer)| timer).filter(|timer| keep(timer)).collect()
    }

    fn control(&self, region: usize) -> &ControlState {
        match self.states[region].as_ref() {
            Some(PartyState::Control(state)) => state,
            _ => panic!("not a control plane"),
        }
    }

    fn ask(
        &mut self,
        region: usize,
        caller: Account,
        request: Request,
    ) -> Result<Answer, CallError> {
        self.token += 1;
        self.ask_as(region, caller, self.token, request)
    }

    fn ask_as(
        &mut self,
        region: usize,
        caller: Account,
        token: u64,
        request: Request,
    ) -> Result<Answer, CallError> {
        let token = Token(token);
        self.deliver(CUSTOMER, region, Msg::Ask { n: 0, caller, token, request });
        self.told.pop().expect("a call is answered in its own step")
    }

    fn create(&mut self, from: usize, to: u16, network: u32) -> OpId {
        match self.ask(from, ALICE, wish(to, network)) {
            Ok(Answer::Done { id, state: Label::InitiatingRequest }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, region: usize, id: OpId, verb: Verb) -> Result<Label, CallError> {
        match self.ask(region, ALICE, Request::Change { id, verb })? {
            Answer::Done { state, .. } => Ok(state),
            other => panic!("{other:?}"),
        }
    }

    fn label(&self, region: usize, id: OpId) -> Option<Label> {
        let ledger = &self.control(region).ledger;
        ledger.peerings.get(&id).map(|one| one.label(ledger.on.contains(&id)))
    }

    fn labels(&self, id: OpId) -> [Option<Label>; 2] {
        [self.label(0, id), self.label(1, id)]
    }

    /// Puts a region back to a backup.
    fn restore(&mut self, region: usize, backup: &Storage, n: u64, life: u64) {
        let (Storage::Control(backup), Some(Storage::Control(lost))) =
            (backup.clone(), self.saved[region].clone())
        else {
            panic!("a control plane has saved")
        };
        let restored = backup.restored(Incarnation { n, life }, lost.on);
        self.saved[region] = Some(Storage::Control(restored));
        self.start(region);
    }

    fn tick(&mut self, region: usize) {
        // The clock runs only while something waits for it.
        if self.timers.contains_key(&(region, Timer::Tick)) {
            self.fire(region, Timer::Tick);
        }
    }
}

fn wish(to: u16, network: u32) -> Request {
    let target = Target { region: Region(to), account: ALICE, network: Network(network) };
    Request::Create { network: Network(network), target, resolve_names: false }
}

fn both(label: Label) -> [Option<Label>; 2] {
    [Some(label); 2]
}

//= SPEC IRC-1 test
//= SPEC IRC-31 test
#[test]
fn local_remote_local() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    // The record is saved before the answer, and nothing of the other region shows yet.
    let Some(Storage::Control(saved)) = &net.saved[0] else { panic!("saved") };
    assert!(saved.peerings.contains(&id) && saved.records.len() == 1 && saved.tokens.len() == 1);
    assert_eq!(net.labels(id), [Some(Label::InitiatingRequest), None]);
    net.settle();
    assert_eq!(net.labels(id), both(Label::PendingAcceptance));
    assert_eq!(net.change(1, id, Verb::Accept), Ok(Label::Provisioning));
    assert_eq!(net.label(0, id), Some(Label::PendingAcceptance));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    assert_eq!(net.change(0, id, Verb::Delete), Ok(Label::Deleting));
    assert!(!net.control(0).ledger.on.contains(&id), "the own half goes first");
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    // No control plane speaks to another, and no server without a claim.
    let mut stray = net.states[2].clone().expect("a server");
    let reply = tenure::irc::msg::Reply {
        tag: (Work::Record(RecordId { n: 1, seq: 0 }), ClaimEpoch { n: 1, start: 1, counter: 1 }),
        incarnation: Incarnation { n: 1, life: 0 },
        status: Status::Gone,
    };
    let input = Input::Deliver { src: Id::from(1_usize), msg: Msg::Reply(Box::new(reply)) };
    let (after, effects) = step(&net.parties[2], Id::from(2_usize), Some(stray.clone()), input);
    assert_eq!((&after, effects.len()), (&stray, 0));
    stray = after;
    assert!(matches!(stray, PartyState::Server(_)));
}

//= SPEC IRC-6 test
#[test]
fn what_r_refuses_leaves_nothing_behind() {
    let mut net = Net::new(2);
    let before = net.control(0).clone();
    let target = |region, network| Target {
        region: Region(region),
        account: ALICE,
        network: Network(network),
    };
    let request = |network, target| Request::Create {
        network: Network(network),
        target,
        resolve_names: false,
    };
    for (caller, request, error) in [
        (ALICE, request(1, target(0, 2)), CallError::SelfPeering),
        (ALICE, request(1, target(7, 2)), CallError::UnknownRegion),
        (ALICE, request(40, target(1, 2)), CallError::NotFound),
        (ALICE, request(60, target(1, 2)), CallError::NotOwner),
        (BOB, request(1, target(1, 2)), CallError::NotOwner),
    ] {
        assert_eq!(net.ask(0, caller, request), Err(error));
    }
    assert_eq!(net.control(0), &before);
    let id = net.create(0, 1, 1);
    assert_eq!(net.ask(0, ALICE, wish(1, 1)), Err(CallError::PairBusy(id)));
    // Nobody speaks for an account that is not its own.
    net.deliver(5, 0, Msg::Operate(Command::Drain(true)));
    assert!(!net.control(0).ledger.head.drained);
    let mut net = Net::with(2, &|control| control.policy.quota = [1, 50, 500]);
    net.create(0, 1, 1);
    let other = request(1, target(1, 2));
    assert_eq!(net.ask(0, ALICE, other), Err(CallError::QuotaExceeded));
}

#[test]
fn what_a_refuses_fails_and_says_no_more() {
    let mut net = Net::new(2);
    // Region 1 has no network 40, network 17 would overlap, and 60 is Bob's.
    for network in [40, 60] {
        let target = Target { region: Region(1), account: ALICE, network: Network(network) };
        let request = Request::Create { network: Network(1), target, resolve_names: false };
        let Ok(Answer::Done { id, .. }) = net.ask(0, ALICE, request) else { panic!("taken") };
        net.settle();
        assert_eq!(net.label(0, id), Some(Label::Failed));
        assert!(net.is_idle(), "A knows that R knows");
    }
    let mut net = Net::with(2, &|control| {
        control.networks.insert(Network(1), (ALICE, block_of(Network(1))));
    });
    let id = net.create(0, 1, 1);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Failed), "the addresses overlap");
}

#[test]
fn a_flood_of_requests_meets_the_quota() {
    let mut net = Net::with(2, &|control| control.policy.quota = [50, 1, 500]);
    let target = Target { region: Region(1), account: ALICE, network: Network(1) };
    let ids: Vec<OpId> = (1..=3)
        .map(|own| {
            let request = Request::Create { network: Network(own), target, resolve_names: false };
            match net.ask(0, ALICE, request) {
                Ok(Answer::Done { id, .. }) => id,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    net.settle();
    let labels: Vec<_> = ids.iter().map(|&id| net.label(0, id).expect("here")).collect();
    assert_eq!(labels, [Label::PendingAcceptance, Label::Failed, Label::Failed]);
}

//= SPEC IRC-11 test
#[test]
fn one_effect_for_each_token() {
    let mut net = Net::new(2);
    let first = net.ask_as(0, ALICE, 500, wish(1, 1)).expect("taken");
    let Answer::Done { id, .. } = first else { panic!("done") };
    assert_eq!(net.ask_as(0, ALICE, 500, wish(1, 1)), Ok(first.clone()));
    assert_eq!(net.control(0).ledger.peerings.len(), 1);
    assert_eq!(net.ask_as(0, ALICE, 500, wish(1, 2)), Err(CallError::TokenMismatch));
    net.settle();
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(0);
    }
    assert_eq!(net.label(0, id), None, "forgotten");
    assert_eq!(net.ask_as(0, ALICE, 500, wish(1, 1)), Ok(first), "a late replay creates nothing");
    assert_eq!(net.control(0).ledger.peerings.len(), 0);
}

//= SPEC IRC-12 test
#[test]
fn what_may_still_arrive_is_not_yet_visible() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    assert_eq!(net.change(1, id, Verb::Accept), Err(CallError::NotYetVisible));
    net.settle();
    assert_eq!(net.change(1, id, Verb::Accept), Ok(Label::Provisioning));
    assert_eq!(net.change(0, OpId { seq: 9, ..id }, Verb::Delete), Err(CallError::NotFound));
    net.change(1, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(1);
    }
    assert_eq!(net.change(1, id, Verb::Delete), Err(CallError::NotFound), "it was here");
}

//= SPEC IRC-3 test
#[test]
fn options_change_only_as_expected() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let zero = Version { n: 1, counter: 0 };
    let one = Version { n: 1, counter: 1 };
    let modify = |expected| Request::Modify { id, expected, resolve_names: true };
    assert_eq!(net.ask(0, ALICE, modify(one)), Err(CallError::VersionConflict(zero)));
    assert_eq!(net.ask(0, ALICE, modify(zero)), Ok(Answer::Version { id, version: one }));
    // Each side has its own; at the same time A accepts.
    let own = Version::default();
    let a = net.ask(1, ALICE, modify(own));
    assert_eq!(a, Ok(Answer::Version { id, version: Version { n: 1, counter: 0 } }));
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    for region in [0, 1] {
        let one = net.control(region).ledger.peerings.get(&id).expect("here").clone();
        assert!(
            one.requested.facts.options.resolve_names && one.decided.facts.options.resolve_names
        );
    }
}

//= SPEC IRC-8 test
#[test]
fn a_half_depends_on_facts_alone() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    // Everything else ends; the halves stay.
    net.down = [1, 2, 3].into();
    net.start(0);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Active));
    // A deletion needs nobody.
    net.change(0, id, Verb::Delete).expect("deleted");
    assert!(!net.control(0).ledger.on.contains(&id));
    assert_eq!(net.label(0, id), Some(Label::Deleting));
}

//= SPEC IRC-9 test
#[test]
fn a_pair_is_busy_until_its_end_is_confirmed() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Reject).expect("rejected");
    assert_eq!(net.ask(1, ALICE, wish(0, 1)), Err(CallError::PairBusy(id)));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Rejected));
    let next = net.create(1, 0, 1);
    net.settle();
    assert_eq!(net.labels(next), both(Label::PendingAcceptance));
}

//= SPEC IRC-10 test
#[test]
fn a_late_request_does_not_rise() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.fire(2, Timer::Poll);
    // The call is repeated by the network, very late.
    let mut late = None;
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if matches!(msg, Msg::Call(_)) {
            late = Some((src, dst, msg.clone()));
        }
        net.deliver(src, dst, msg);
    }
    net.settle();
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(0);
        net.tick(1);
    }
    assert_eq!(net.labels(id), [None, None]);
    let (src, dst, msg) = late.expect("there was a call");
    net.deliver(src, dst, msg);
    let Some((.., Msg::Reply(reply))) = net.queue.pop_back() else { panic!("a reply") };
    assert_eq!(reply.status, Status::Gone);
    assert_eq!(net.labels(id), [None, None]);
}

#[test]
fn nobody_decides_in_time() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    for _ in 0..2 {
        net.tick(1);
    }
    assert_eq!(net.label(1, id), Some(Label::PendingAcceptance));
    net.tick(1);
    assert_eq!(net.label(1, id), Some(Label::Expired));
    assert!(net.change(1, id, Verb::Accept).is_err());
    net.settle();
    assert_eq!(net.labels(id), both(Label::Expired));
}

//= SPEC IRC-13 test
#[test]
fn a_deletion_replaces_what_nobody_holds_and_may_overtake() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.change(0, id, Verb::Delete).expect("deleted");
    assert_eq!(net.control(0).ledger.records.len(), 1);
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    // One that is claimed stays, and goes first.
    let id = net.create(0, 1, 2);
    net.fire(2, Timer::Poll);
    let (src, dst, poll) = net.queue.pop_back().expect("a poll");
    net.deliver(src, dst, poll);
    net.change(0, id, Verb::Delete).expect("deleted");
    assert_eq!(net.control(0).ledger.records.len(), 2);
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
}

//= SPEC IRC-16 test
#[test]
fn a_report_counts_under_its_own_claim() {
    let mut net = Net::new(2);
    net.create(0, 1, 1);
    let poll = || Msg::Poll { kinds: vec![Kind::PEERING], max: 1 };
    let mut epochs = Vec::new();
    let mut claim = |net: &mut Net| {
        net.deliver(2, 0, poll());
        let Some((.., Msg::Claimed(claim))) = net.queue.pop_back() else { panic!("a claim") };
        let (work, epoch) = claim.call.tag;
        assert!(epochs.last().is_none_or(|last| epoch > *last));
        epochs.push(epoch);
        (work, epoch)
    };
    let (work, first) = claim(&mut net);
    net.deliver(2, 0, poll());
    assert!(!net.queue.iter().any(|(.., msg)| matches!(msg, Msg::Claimed(_))), "it is claimed");
    net.fire(0, Timer::Lease(work));
    let (_, second) = claim(&mut net);
    // The first server wakes up.
    let before = net.control(0).clone();
    let report = |epoch| Msg::Report { work, epoch, outcome: Box::new(Outcome::TimedOut) };
    net.deliver(2, 0, report(first));
    assert_eq!(net.control(0), &before);
    // And over a restart.
    net.start(0);
    let (_, third) = claim(&mut net);
    let before = net.control(0).clone();
    net.deliver(2, 0, report(second));
    assert_eq!(net.control(0), &before);
    net.deliver(2, 0, report(third));
    assert_ne!(net.control(0), &before);
    // A server of another region has no say.
    let before = net.control(0).clone();
    net.deliver(3, 0, poll());
    assert_eq!(net.control(0), &before);
}

//= SPEC IRC-17 test
#[test]
fn a_vain_try_waits_longer_each_time() {
    let mut net = Net::new(2);
    net.create(0, 1, 1);
    let work = Work::Record(RecordId { n: 1, seq: 0 });
    let [floor, cap, _] = Policy::default().retry;
    for _ in 0..12 {
        net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        let held = net.control(0).claims[&work];
        let outcome = Box::new(Outcome::TimedOut);
        net.deliver(2, 0, Msg::Report { work, epoch: held.epoch, outcome });
        let low = net.timers[&(0, Timer::Retry(work))];
        assert!(low >= floor && low <= cap);
        net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        assert!(net.control(0).claims.is_empty(), "it waits");
        net.fire(0, Timer::Retry(work));
    }
    assert_eq!(net.control(0).refused[&Region(1)], 5, "one probe at a time is left");
}

//= SPEC IRC-15 test
#[test]
fn a_remote_that_is_down_takes_no_place_of_another() {
    let mut net = Net::new(3);
    for network in 1..=6 {
        net.create(0, 1, network);
    }
    let far = net.create(0, 2, 7);
    // Region 1 is down, and its backlog is older and longer; a server has four places.
    net.down = [1].into();
    net.settle();
    assert_eq!(net.label(0, far), Some(Label::PendingAcceptance));
    net.deliver(3, 0, Msg::Poll { kinds: vec![Kind(9)], max: 9 });
    assert!(!net.queue.iter().any(|(.., msg)| matches!(msg, Msg::Claimed(_))), "unknown kinds");
    // It comes back: what its servers gave up on is delivered.
    net.down.clear();
    let server = net.server(0);
    for timer in net.armed(server, |timer| matches!(timer, Timer::Call(_))) {
        net.fire(server, timer);
    }
    net.settle();
    assert!(net.is_idle());
}

#[test]
fn a_kind_that_a_server_does_not_know_is_left_to_others() {
    let mut net = Net::new(2);
    net.ask(0, ALICE, Request::Publish { to: Region(1), value: 5 }).expect("published");
    let before = net.control(0).clone();
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 4 });
    assert_eq!(net.control(0), &before);
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::NOTICE], max: 4 });
    assert_eq!(net.control(0).claims.len(), 1);
}

//= SPEC IRC-20 test
#[test]
fn a_second_kind_takes_the_same_way() {
    let mut net = Net::new(2);
    let publish = |value| Request::Publish { to: Region(1), value };
    let Ok(Answer::Done { id, .. }) = net.ask(0, ALICE, publish(5)) else { panic!("published") };
    net.settle();
    assert_eq!(net.control(1).ledger.notices.get(&id).map(|one| one.value), Some(5));
    net.ask(0, ALICE, publish(6)).expect("published");
    net.settle();
    assert_eq!(net.control(1).ledger.notices.get(&id).map(|one| one.value), Some(6));
    // An older one that is late has no effect.
    let status = call(&mut net, Kind::NOTICE, id, 0, Body(vec![1, 4]));
    assert_eq!(status, Status::Old(Body(Vec::new())));
    assert_eq!(net.control(1).ledger.notices.get(&id).map(|one| one.value), Some(6));
    assert_eq!(call(&mut net, Kind(77), id, 9, Body(Vec::new())), Status::Unsupported);
}

/// A call of region 0's server to region 1.
fn call(net: &mut Net, kind: Kind, id: OpId, op: u64, body: Body) -> Status {
    let incarnation = net.control(0).ledger.head.incarnation;
    let errand = Errand::Apply { kind, id, op, closed_below: 0, body };
    say(net, 0, incarnation, errand).expect("an answer")
}

fn say(net: &mut Net, from: u16, incarnation: Incarnation, errand: Errand) -> Option<Status> {
    let tag = (Work::Prepare(Region(1)), ClaimEpoch::default());
    let call = Call { from: Region(from), incarnation, tag, errand };
    net.queue.clear();
    let server = net.server(0);
    net.deliver(server, 1, Msg::Call(Box::new(call)));
    match net.queue.pop_back() {
        Some((.., Msg::Reply(reply))) => Some(reply.status),
        _ => None,
    }
}

//= SPEC IRC-22 test
#[test]
fn a_region_asserts_its_own_facts_only() {
    let mut net = Net::new(3);
    let id = net.create(0, 1, 1);
    net.settle();
    let before = net.control(1).clone();
    let facts = Decided { decision: Some(Decision::Accepted), ..Decided::default() };
    let lie = Body::of(&Bundle::Accepter(Sealed { facts, seal: 0 }));
    assert_eq!(call(&mut net, Kind::PEERING, id, 9, lie), Status::Refused);
    // A server that speaks for another region is not even answered.
    let errand = Errand::Prepare { nonce: 1 };
    assert_eq!(say(&mut net, 2, Incarnation { n: 5, life: 5 }, errand), None);
    assert_eq!(net.control(1), &before);
}

#[test]
fn what_cannot_be_read_is_set_aside() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    assert_eq!(call(&mut net, Kind::PEERING, id, 9, Body(vec![9, 9, 9])), Status::Refused);
    // A refusal parks its own record; the peering says so, and a deletion gets through.
    let work = Work::Record(RecordId { n: 1, seq: 0 });
    net.deliver(2, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let epoch = net.control(0).claims[&work].epoch;
    let incarnation = Incarnation { n: 1, life: 0 };
    let reply =
        tenure::irc::msg::Reply { tag: (work, epoch), incarnation, status: Status::Refused };
    let outcome = Box::new(Outcome::Answered(reply));
    net.queue.clear();
    net.deliver(2, 0, Msg::Report { work, epoch, outcome });
    assert!(net.control(0).ledger.records.iter().all(|(_, record)| record.parked));
    let Ok(Answer::Explained { sync, waits_for, .. }) = net.ask(0, ALICE, Request::Explain { id })
    else {
        panic!("explained")
    };
    assert_eq!((sync, waits_for.len()), (SyncLevel::RemoteBehind, 1));
    net.settle();
    assert_eq!(net.labels(id), [Some(Label::InitiatingRequest), None]);
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
}

//= SPEC IRC-23 test
#[test]
fn an_old_operation_has_no_effect() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let old = Body::of(&Bundle::Requester(
        net.control(0).ledger.peerings.get(&id).expect("here").requested,
    ));
    let expected = Version { n: 1, counter: 0 };
    net.ask(0, ALICE, Request::Modify { id, expected, resolve_names: true }).expect("modified");
    net.settle();
    let before = net.control(1).clone();
    assert!(matches!(call(&mut net, Kind::PEERING, id, 0, old), Status::Old(_)));
    assert_eq!(net.control(1), &before);
}

//= SPEC IRC-24 test
#[test]
fn of_two_that_cross_the_lower_id_wins() {
    let mut net = Net::new(2);
    let low = net.create(0, 1, 1);
    let high = net.create(1, 0, 1);
    net.settle();
    assert_eq!(net.labels(low), both(Label::PendingAcceptance));
    assert!(net.labels(high).into_iter().all(|label| label.is_some_and(Label::is_terminal)));
    net.change(1, low, Verb::Accept).expect("accepted");
    net.settle();
    assert_eq!(net.labels(low), both(Label::Active));
}

//= SPEC IRC-18 test
#[test]
fn a_sweep_finds_what_no_record_tells() {
    let mut net = Net::with(2, &|control| control.policy.sweep = Some(Duration::from_secs(5)));
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    // The record is lost, as if the disk had lied.
    let Some(PartyState::Control(state)) = &mut net.states[1] else { panic!("a control plane") };
    state.ledger.records = PersistentMap::default();
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::PendingAcceptance));
    net.fire(0, Timer::Sweep(Region(1)));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    assert!(net.timers.contains_key(&(0, Timer::Sweep(Region(1)))), "and again, whatever happens");
}

fn accepted(net: &mut Net, network: u32) -> OpId {
    let id = net.create(0, 1, network);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    id
}

//= SPEC IRC-14 test
//= SPEC IRC-26 test
//= SPEC IRC-28 test
#[test]
fn an_accepter_that_is_restored_learns_what_it_has_decided() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let backup = net.saved[1].clone().expect("saved");
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    let late = accepted(&mut net, 2);
    net.restore(1, &backup, 2, 7);
    // Frozen: it decides nothing, and switches nothing.
    assert_eq!(net.label(1, id), Some(Label::PendingAcceptance));
    assert!(net.control(1).ledger.on.contains(&id), "the data plane stays as it was");
    assert_eq!(net.change(1, id, Verb::Reject), Err(CallError::Frozen(Region(0))));
    // A promise to another question, or to another life, is none.
    let stale = tenure::irc::msg::Reply {
        tag: (Work::Prepare(Region(0)), ClaimEpoch::default()),
        incarnation: Incarnation { n: 1, life: 0 },
        status: Status::Promise { nonce: 99, to: Incarnation { n: 2, life: 7 }, closed: vec![] },
    };
    net.deliver(3, 1, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
    let (&work, held) = net.control(1).claims.iter().next().expect("a question");
    let epoch = held.epoch;
    let outcome = Box::new(Outcome::Answered(stale));
    net.queue.clear();
    net.deliver(3, 1, Msg::Report { work, epoch, outcome });
    assert!(matches!(
        net.control(1).ledger.peers.get(&Region(0)).expect("known").link,
        Link::Preparing { .. }
    ));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Active));
    assert_eq!(net.labels(late), both(Label::Active));
    let lost = net.control(1).ledger.peers.get(&Region(0)).expect("known").lost.clone();
    assert!(lost.recovered[&id].decision && lost.recovered[&late].existence);
    assert!(lost.refused.is_empty());
}

#[test]
fn own_facts_come_back_under_the_own_seal_only() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let backup = net.saved[1].clone().expect("saved");
    // R says that A has accepted.
    let Some(PartyState::Control(state)) = &mut net.states[0] else { panic!("a control plane") };
    let mut forged = state.ledger.peerings.get(&id).expect("here").clone();
    forged.decided.facts.decision = Some(Decision::Accepted);
    state.ledger.peerings.insert(id, forged);
    net.restore(1, &backup, 2, 7);
    net.settle();
    let ledger = &net.control(1).ledger;
    assert_eq!(ledger.peerings.get(&id).expect("here").decided.facts.decision, None);
    assert!(ledger.peers.get(&Region(0)).expect("known").lost.refused.contains(&id));
    assert_eq!(net.change(1, id, Verb::Accept), Err(CallError::Stuck));
}

//= SPEC IRC-21 test
//= SPEC IRC-25 test
#[test]
fn a_promise_is_to_one_life_and_binds() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let body = Body::of(&Bundle::Requester(
        net.control(0).ledger.peerings.get(&id).expect("here").requested,
    ));
    let life = |n, life| Incarnation { n, life };
    let prepare = Errand::Prepare { nonce: 5 };
    let promise = |to| Status::Promise { nonce: 5, to, closed: vec![(1, 0)] };
    assert_eq!(say(&mut net, 0, life(3, 1), prepare.clone()), Some(promise(life(3, 1))));
    let Some(Storage::Control(saved)) = &net.saved[1] else { panic!("saved") };
    assert_eq!(saved.peers.get(&Region(0)).expect("known").floor, Some(life(3, 1)));
    assert_eq!(say(&mut net, 0, life(3, 1), prepare.clone()), Some(promise(life(3, 1))));
    for other in [life(2, 9), life(3, 2)] {
        assert_eq!(say(&mut net, 0, other, prepare.clone()), Some(Status::Stale(life(3, 1))));
        let errand =
            Errand::Apply { kind: Kind::PEERING, id, op: 50, closed_below: 0, body: body.clone() };
        let status = say(&mut net, 0, other, errand);
        assert_eq!(status, Some(Status::StaleIncarnation(life(3, 1))));
    }
    // Frozen itself, it promises nevertheless.
    let backup = net.saved[1].clone().expect("saved");
    net.restore(1, &backup, 2, 8);
    let given = say(&mut net, 0, life(4, 1), prepare);
    assert!(matches!(given, Some(Status::Promise { to, .. }) if to == life(4, 1)), "{given:?}");
}

//= SPEC IRC-27 test
#[test]
fn a_region_that_is_not_its_newest_life_becomes_that() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let backup = net.saved[1].clone().expect("saved");
    net.restore(1, &backup, 2, 7);
    net.settle();
    // Restored again from the same backup, by somebody who does not know of the first time.
    net.restore(1, &backup, 2, 8);
    net.settle();
    let head = &net.control(1).ledger.head;
    assert_eq!(head.incarnation.n, 3, "the number of another life was refused");
    assert_eq!(net.labels(id), both(Label::Active));
}

fn floor(net: &Net, region: usize, of: u16) -> Incarnation {
    let peer = net.control(region).ledger.peers.get(&Region(of)).expect("known").clone();
    peer.floor.expect("promised")
}

#[test]
fn a_restored_region_learns_back_what_it_has_promised() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    let backups = [net.saved[0].clone().expect("saved"), net.saved[1].clone().expect("saved")];
    net.restore(1, &backups[1], 2, 7);
    net.settle();
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 2, life: 7 });
    // The promise is lost with everything else that came after the backup.
    net.restore(0, &backups[0], 2, 8);
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 1, life: 0 });
    net.settle();
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 2, life: 7 });
    assert_eq!(net.labels(id), both(Label::Active));
}

#[test]
fn a_promise_of_an_older_life_is_void() {
    let mut net = Net::new(2);
    accepted(&mut net, 1);
    let backups = [net.saved[0].clone().expect("saved"), net.saved[1].clone().expect("saved")];
    net.restore(0, &backups[0], 2, 8);
    net.fire(2, Timer::Poll);
    // The promise of region 1 is under way, and late.
    let mut late = None;
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        match msg {
            Msg::Reply(_) => late = Some((src, dst, msg)),
            msg => net.deliver(src, dst, msg),
        }
    }
    let (src, dst, promise) = late.expect("a promise");
    // Meanwhile region 1 is restored too, has forgotten it, and asks for a promise itself.
    net.restore(1, &backups[1], 2, 9);
    net.fire(3, Timer::Poll);
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if dst != 3 || !matches!(msg, Msg::Reply(_)) {
            net.deliver(src, dst, msg);
        }
    }
    let link = |net: &Net| net.control(0).ledger.peers.get(&Region(1)).expect("known").link.clone();
    let before = link(&net);
    net.deliver(src, dst, promise);
    while let Some((src, dst, msg)) = net.queue.pop_front() {
        if matches!(msg, Msg::Report { .. }) {
            net.deliver(src, dst, msg);
        }
    }
    assert_eq!(link(&net), before, "it still waits for a promise of the new life");
    assert!(matches!(before, Link::Preparing { .. }));
    assert_eq!(floor(&net, 0, 1), Incarnation { n: 2, life: 9 });
}

//= SPEC IRC-29 test
#[test]
fn both_are_restored_and_neither_waits_for_the_other() {
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    let backups = [net.saved[0].clone().expect("saved"), net.saved[1].clone().expect("saved")];
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    net.restore(0, &backups[0], 2, 5);
    net.restore(1, &backups[1], 2, 6);
    // Deleted while frozen: taken at once, decided at the thaw.
    assert!(net.change(0, id, Verb::Delete).is_ok());
    assert!(!net.control(0).ledger.on.contains(&id));
    net.settle();
    assert_eq!(net.labels(id), both(Label::Deleted));
    let decided = |region: usize| {
        net.control(region).ledger.peerings.get(&id).expect("here").decided.facts.decision
    };
    assert_eq!([decided(0), decided(1)], [Some(Decision::Cancelled); 2]);
    assert!(net.control(0).ledger.on.is_empty() && net.control(1).ledger.on.is_empty());
}

//= SPEC IRC-30 test
#[test]
fn a_disposed_region_has_no_effect() {
    let mut net = Net::new(3);
    let id = accepted(&mut net, 1);
    net.down = [0, 3].into();
    net.deliver(1, 1, Msg::Operate(Command::Dispose(Region(0))));
    assert_eq!(net.label(1, id), Some(Label::Deleted));
    assert!(net.control(1).ledger.on.is_empty());
    // It comes back, and learns it.
    net.down.clear();
    net.create(0, 1, 2);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Deleted));
    assert_eq!(net.control(1).ledger.peerings.len(), 1);
    assert_eq!(net.control(0).ledger.peers.get(&Region(1)).expect("known").link, Link::Expelled);
    // The third region has seen nothing of it.
    let other = net.create(0, 2, 3);
    net.settle();
    assert_eq!(net.label(2, other), Some(Label::PendingAcceptance));
    // Readmitted, it comes as a newer life.
    net.deliver(1, 1, Msg::Operate(Command::Readmit(Region(0))));
    net.deliver(0, 0, Msg::Operate(Command::Freeze(Region(1))));
    for _ in 0..5 {
        net.settle();
    }
    let again = net.create(0, 1, 4);
    net.settle();
    assert_eq!(net.labels(again), both(Label::PendingAcceptance));
}
