//! Regions and their servers, driven by hand over a network that keeps what nobody takes.

pub(crate) use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub(crate) use std::time::Duration;

pub(crate) use stateright::actor::Id;
pub(crate) use tenure::irc::control::{ControlPlane, Policy};
pub(crate) use tenure::irc::facts::{
    Account, Bundle, Decided, Decision, Incarnation, Network, OpId, Region, SealKey, Sealed,
    Target, Version,
};
pub(crate) use tenure::irc::ledger::{ControlState, Link};
pub(crate) use tenure::irc::msg::{
    Answer, Body, Call, CallError, ClaimEpoch, Command, Errand, Kind, Msg, Outcome, RecordId,
    Request, Status, SyncLevel, Token, Work, block_of,
};
pub(crate) use tenure::irc::peering::{Label, Verb};
pub(crate) use tenure::irc::safeguards::Safeguards;
pub(crate) use tenure::irc::server::IrcServer;
pub(crate) use tenure::irc::{Party, PartyState, Storage, Timer};
pub(crate) use tenure::lease::record::NodeId;
pub(crate) use tenure::persistent::PersistentMap;
pub(crate) use tenure::step::{Effect, Input, step};

pub(crate) const ALICE: Account = Account(1);
pub(crate) const BOB: Account = Account(2);
pub(crate) const CUSTOMER: usize = 100;

/// Regions 0 to n-1: control planes are nodes 0 to n-1, and node n + r is the server of region r.
pub(crate) struct Net {
    pub(crate) parties: Vec<Party>,
    pub(crate) states: Vec<Option<PartyState>>,
    pub(crate) saved: Vec<Option<Storage>>,
    pub(crate) timers: BTreeMap<(usize, Timer), Duration>,
    pub(crate) queue: VecDeque<(usize, usize, Msg)>,
    /// What control planes have told their customers.
    pub(crate) told: Vec<Result<Answer, CallError>>,
    /// Nodes that get nothing from other nodes.
    pub(crate) down: BTreeSet<usize>,
    pub(crate) sent: BTreeMap<usize, usize>,
    pub(crate) regions: usize,
    pub(crate) token: u64,
}

pub(crate) fn control(
    region: u16,
    regions: u16,
    change: &dyn Fn(&mut ControlPlane),
) -> ControlPlane {
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
    pub(crate) fn new(regions: u16) -> Self {
        Self::with(regions, &|_| ())
    }

    pub(crate) fn with(regions: u16, change: &dyn Fn(&mut ControlPlane)) -> Self {
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
                safeguards: Safeguards::ALL,
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

    pub(crate) fn server(&self, region: usize) -> usize {
        self.regions + region
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.timers.retain(|&(of, _), _| of != node);
        let saved = self.saved[node].clone();
        self.states[node] = None;
        self.run(node, Input::Start(saved));
    }

    pub(crate) fn run(&mut self, node: usize, input: Input<Msg, Timer, (), Storage>) {
        let state = self.states[node].take();
        let (state, effects) = step(&self.parties[node], Id::from(node), state, input);
        if let PartyState::Control(state) = &state {
            assert!(state.is_indexed(), "what is looked up is what is kept");
        }
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

    pub(crate) fn deliver(&mut self, src: usize, dst: usize, msg: Msg) {
        self.run(dst, Input::Deliver { src: Id::from(src), msg });
    }

    pub(crate) fn fire(&mut self, node: usize, timer: Timer) {
        assert!(self.timers.remove(&(node, timer)).is_some(), "{timer:?} is not armed at {node}");
        self.run(node, Input::Fire(timer));
    }

    /// Delivers everything, and lets servers poll, until nothing is left to say.
    pub(crate) fn settle(&mut self) {
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
                    self.armed(region, |timer| matches!(timer, Timer::Retry(_) | Timer::Probe(_)));
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

    pub(crate) fn is_idle(&self) -> bool {
        (0..self.regions).all(|region| {
            let ledger = &self.control(region).ledger;
            let frozen =
                |link: &Link| matches!(link, Link::Preparing { .. } | Link::Syncing { .. });
            ledger.records.is_empty() && !ledger.peers.iter().any(|(_, peer)| frozen(&peer.link))
        })
    }

    pub(crate) fn armed(&self, node: usize, keep: impl Fn(&Timer) -> bool) -> Vec<Timer> {
        let all = self.timers.keys().filter(|(of, _)| *of == node);
        all.map(|&(_, timer)| timer).filter(|timer| keep(timer)).collect()
    }

    pub(crate) fn control(&self, region: usize) -> &ControlState {
        match self.states[region].as_ref() {
            Some(PartyState::Control(state)) => state,
            _ => panic!("not a control plane"),
        }
    }

    pub(crate) fn ask(
        &mut self,
        region: usize,
        caller: Account,
        request: Request,
    ) -> Result<Answer, CallError> {
        self.token += 1;
        self.ask_as(region, caller, self.token, request)
    }

    pub(crate) fn ask_as(
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

    pub(crate) fn create(&mut self, from: usize, to: u16, network: u32) -> OpId {
        match self.ask(from, ALICE, wish(to, network)) {
            Ok(Answer::Done { id, state: Label::InitiatingRequest }) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn change(
        &mut self,
        region: usize,
        id: OpId,
        verb: Verb,
    ) -> Result<Label, CallError> {
        match self.ask(region, ALICE, Request::Change { id, verb })? {
            Answer::Done { state, .. } => Ok(state),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn label(&self, region: usize, id: OpId) -> Option<Label> {
        let ledger = &self.control(region).ledger;
        ledger.peerings.get(&id).map(|one| one.label(ledger.on.contains(&id)))
    }

    pub(crate) fn labels(&self, id: OpId) -> [Option<Label>; 2] {
        [self.label(0, id), self.label(1, id)]
    }

    /// Puts a region back to a backup.
    pub(crate) fn restore(&mut self, region: usize, backup: &Storage, n: u64, life: u64) {
        let (Storage::Control(backup), Some(Storage::Control(lost))) =
            (backup.clone(), self.saved[region].clone())
        else {
            panic!("a control plane has saved")
        };
        let restored = backup.restored(Incarnation { n, life }, lost.on, Some(lost.head.clock));
        self.saved[region] = Some(Storage::Control(restored));
        self.start(region);
    }

    pub(crate) fn tick(&mut self, region: usize) {
        // The clock runs only while something waits for it.
        if self.timers.contains_key(&(region, Timer::Tick)) {
            self.fire(region, Timer::Tick);
        }
    }
}

pub(crate) fn wish(to: u16, network: u32) -> Request {
    let target = Target { region: Region(to), account: ALICE, network: Network(network) };
    Request::Create { network: Network(network), target, resolve_names: false }
}

pub(crate) fn both(label: Label) -> [Option<Label>; 2] {
    [Some(label); 2]
}

/// A call of region 0's server to region 1.
pub(crate) fn call(net: &mut Net, kind: Kind, id: OpId, op: u64, body: Body) -> Status {
    let incarnation = net.control(0).ledger.head.incarnation;
    let errand = Errand::Apply { kind, id, op, closed_below: 0, body };
    say(net, 0, incarnation, errand).expect("an answer")
}

pub(crate) fn say(
    net: &mut Net,
    from: u16,
    incarnation: Incarnation,
    errand: Errand,
) -> Option<Status> {
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

pub(crate) fn accepted(net: &mut Net, network: u32) -> OpId {
    let id = net.create(0, 1, network);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    id
}
