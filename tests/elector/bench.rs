//! A few members, driven by hand, and what they answered.

#![allow(unreachable_pub, reason = "the other files of this test use it")]

pub use std::collections::BTreeMap;
pub use std::ops::Range;
pub use std::time::Duration;

pub use stateright::actor::Id;
pub use tenure::lease::client::Client;
pub use tenure::lease::elector::{Elector, ElectorState, Phase, Slot, Then, Yielding};
pub use tenure::lease::host::{Host, HostState};
pub use tenure::lease::msg::{Entry, EntryId, Msg, RequestId};
pub use tenure::lease::record::{Claim, Expect, Holder, NodeId, NodeSet, Nonce, Record};
pub use tenure::lease::replica::Replica;
pub use tenure::lease::safeguards::Safeguards;
pub use tenure::lease::store::LeaseStore;
pub use tenure::lease::timing::Timing;
pub use tenure::lease::{Member, MemberState, Storage, Timer, View};
pub use tenure::step::{Effect, EffectOf, Input, InputOf, Machine, step};

pub type Effects = Vec<EffectOf<Member>>;

pub const L: Duration = Timing::DEFAULT.lease;
pub const G: Duration = Timing::DEFAULT.give_up;

/// Members, the mail between them, and their armed timers. Hosts come first, then the store, then a
/// client.
pub struct Bench {
    pub members: Vec<Member>,
    pub states: Vec<Option<MemberState>>,
    pub storage: Vec<Option<Storage>>,
    pub timers: Vec<BTreeMap<Timer, Range<Duration>>>,
    /// What is under way, the oldest first: from, to, what.
    pub mail: Vec<(u16, u16, Msg)>,
    pub hosts: u16,
}

impl Bench {
    /// Hosts without a replica, and a store. Nobody has started.
    pub fn new(hosts: u16) -> Self {
        Self::with(hosts, false, |_, timing| timing)
    }

    /// Hosts with a replica each.
    pub fn with_table(hosts: u16) -> Self {
        Self::with(hosts, true, |_, timing| timing)
    }

    pub fn with(hosts: u16, table: bool, timing: impl Fn(u16, Timing) -> Timing) -> Self {
        let set: NodeSet = (0..hosts).map(NodeId).collect();
        let safeguards = Safeguards::ALL;
        let mut members: Vec<Member> = (0..hosts)
            .map(|host| {
                let (me, timing) = (NodeId(host), timing(host, Timing::DEFAULT));
                let elector = Elector { me, store: NodeId(hosts), hosts: set, timing, safeguards };
                let resend = timing.retry;
                let replica = Replica { me, hosts: set, resend, patience: 2, safeguards };
                Member::Host(Host { elector, replica: table.then_some(replica) })
            })
            .collect();
        let hints = Vec::new();
        members.push(Member::Store(LeaseStore { hosts: set, hints, safeguards }));
        members.push(Member::Client(Client {
            me: NodeId(hosts + 1),
            hosts: set.iter().collect(),
            retry: Timing::DEFAULT.retry,
            script: Vec::new(),
        }));
        let count = members.len();
        Self {
            members,
            states: vec![None; count],
            storage: vec![None; count],
            timers: vec![BTreeMap::new(); count],
            mail: Vec::new(),
            hosts,
        }
    }

    /// Everybody has started, host 0 holds epoch 1, the others have seen its record and watch it.
    pub fn elected(mut self) -> Self {
        for node in 0..self.hosts + 2 {
            self.start(node);
        }
        self.settle();
        assert_eq!(self.phase(0), Phase::Holding { epoch: 1, slot: Slot::A });
        for host in 1..self.hosts {
            assert!(self.is_armed(host, Timer::Watch(Slot::A)));
        }
        self
    }

    pub fn store(&self) -> u16 {
        self.hosts
    }

    pub fn client(&self) -> u16 {
        self.hosts + 1
    }

    pub fn input(&mut self, node: u16, input: InputOf<Member>) -> Effects {
        let index = usize::from(node);
        let state = self.states[index].take();
        let (state, effects) = step(&self.members[index], Id::from(index), state, input);
        self.states[index] = Some(state);
        for effect in effects.clone() {
            match effect {
                Effect::Save(storage) => self.storage[index] = Some(storage),
                Effect::Send(to, msg) => {
                    self.mail.push((node, u16::try_from(usize::from(to)).unwrap(), msg));
                }
                Effect::SetTimer(timer, range) => {
                    self.timers[index].insert(timer, range);
                }
                Effect::CancelTimer(timer) => {
                    self.timers[index].remove(&timer);
                }
                Effect::Choose(..) => panic!("the lease chooses nothing"),
            }
        }
        effects
    }

    pub fn start(&mut self, node: u16) -> Effects {
        let storage = self.storage[usize::from(node)].clone();
        self.input(node, Input::Start(storage))
    }

    /// The node's process ends. What it has saved stays; what it has told itself goes.
    pub fn crash(&mut self, node: u16) {
        self.states[usize::from(node)] = None;
        self.timers[usize::from(node)].clear();
        self.mail.retain(|&(from, to, _)| (from, to) != (node, node));
    }

    /// Somebody says something that was never in the mail.
    pub fn say(&mut self, from: u16, to: u16, msg: Msg) -> Effects {
        self.input(to, Input::Deliver { src: Id::from(usize::from(from)), msg })
    }

    /// The timer runs out.
    pub fn fire(&mut self, node: u16, timer: Timer) -> Effects {
        let armed = self.timers[usize::from(node)].remove(&timer);
        assert!(armed.is_some(), "{timer:?} is not armed at node {node}");
        self.input(node, Input::Fire(timer))
    }

    /// The oldest message from one node to another arrives.
    pub fn deliver(&mut self, from: u16, to: u16) -> Effects {
        let msg = self.lose(from, to);
        self.say(from, to, msg)
    }

    /// The oldest message from one node to another does not arrive, or not yet: here it is.
    pub fn lose(&mut self, from: u16, to: u16) -> Msg {
        let place = self.mail.iter().position(|&(src, dst, _)| (src, dst) == (from, to));
        self.mail.remove(place.unwrap_or_else(|| panic!("nothing is under way: {from} to {to}"))).2
    }

    /// The stop hook of this host has finished.
    pub fn hook_done(&mut self, node: u16) -> Effects {
        self.deliver(node, node)
    }

    /// Delivers everything between nodes, until nobody has anything more to say.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let due = |&(src, dst, _): &(u16, u16, Msg)| {
                src != dst && self.states[usize::from(dst)].is_some()
            };
            let Some(place) = self.mail.iter().position(due) else { return };
            let (from, to, msg) = self.mail.remove(place);
            self.say(from, to, msg);
        }
        panic!("the members never stop talking");
    }

    /// The holder's next renewal, answered.
    pub fn renew(&mut self, host: u16) {
        self.fire(host, Timer::Attempt);
        self.deliver(host, self.store());
        self.deliver(self.store(), host);
    }

    pub fn host(&self, node: u16) -> &HostState {
        match &self.states[usize::from(node)] {
            Some(MemberState::Host(host)) => host,
            other => panic!("node {node} is no running host: {other:?}"),
        }
    }

    pub fn elector(&self, node: u16) -> &ElectorState {
        &self.host(node).elector
    }

    pub fn phase(&self, node: u16) -> Phase {
        self.elector(node).phase
    }

    pub fn is_primary(&self, node: u16) -> bool {
        self.host(node).replica.as_ref().is_some_and(|replica| replica.primary.is_some())
    }

    pub fn record(&self) -> Record {
        match &self.states[usize::from(self.hosts)] {
            Some(MemberState::Store(record)) => record.clone(),
            other => panic!("the store is not running: {other:?}"),
        }
    }

    pub fn is_armed(&self, node: u16, timer: Timer) -> bool {
        self.timers[usize::from(node)].contains_key(&timer)
    }

    /// A write of the client, the nth of its first life.
    pub fn write(&self, n: u64) -> Msg {
        let request = RequestId { client: NodeId(self.client()), incarnation: 1, n };
        Msg::Apply { request, key: format!("k{n}"), value: "v".to_owned() }
    }

    /// Puts another claim into the record, as the store's operator does.
    pub fn overwrite(&mut self, change: impl FnOnce(&mut Claim)) {
        let record = self.record();
        let mut claim = record.claim;
        change(&mut claim);
        let by = Holder { node: NodeId(60), incarnation: 1 };
        let (nonce, expect) = (Nonce { by, n: 1 }, Expect::Version(record.version));
        let store = self.store();
        self.say(store, store, Msg::Write { nonce, expect, claim });
        assert_eq!(self.record().version, record.version + 1);
    }
}

pub fn sends(effects: &Effects) -> Vec<(usize, Msg)> {
    let send = |effect: &EffectOf<Member>| match effect {
        Effect::Send(to, msg) => Some((usize::from(*to), msg.clone())),
        _ => None,
    };
    effects.iter().filter_map(send).collect()
}

/// The one write among these effects.
pub fn write_in(effects: &Effects) -> (Nonce, Expect, Claim) {
    let writes: Vec<_> = sends(effects)
        .into_iter()
        .filter_map(|(_, msg)| match msg {
            Msg::Write { nonce, expect, claim } => Some((nonce, expect, claim)),
            _ => None,
        })
        .collect();
    <[_; 1]>::try_from(writes).map(|[write]| write).expect("exactly one write")
}

pub fn sets(effects: &Effects, timer: Timer) -> Option<Range<Duration>> {
    effects.iter().find_map(|effect| match effect {
        Effect::SetTimer(set, range) if *set == timer => Some(range.clone()),
        _ => None,
    })
}

pub fn cancels(effects: &Effects, timer: Timer) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::CancelTimer(gone) if *gone == timer))
}

pub fn is_read(effects: &Effects) -> bool {
    matches!(sends(effects)[..], [(_, Msg::Read { .. })])
}

pub const HOLDS: Phase = Phase::Holding { epoch: 1, slot: Slot::A };
pub const STOPS: Phase = Phase::Stopping { epoch: 1, then: Then::Watch };
pub const WATCHES: Phase = Phase::Watching { yielding: None, ripe: false };
