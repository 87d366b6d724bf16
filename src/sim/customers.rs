//! What customers and operators of simulated regions do. Each seed draws habits of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::irc::{OWNER, Regions};
use super::setup::Workload;
use super::watch::{Shared, thaw};
use crate::irc::facts::{Bundle, Decision, Incarnation, OpId, Region, Sealed, Target, Version};
use crate::irc::ledger::Link;
use crate::irc::msg::{
    Body, Call, ClaimEpoch, Command, Errand, Kind, Msg, RecordVerb, Request, Token,
};
use crate::irc::peering::{Peering, Side, Verb};
use crate::irc::safeguards::Safeguards;
use crate::irc::{ControlView, Party, Storage, View};

/// How many calls of a region may be made again.
const REMEMBERED: usize = 40;

/// How customers and operators behave in a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// They call five times as often.
    is_busy: bool,
    /// All peerings are of the first networks: there are few pairs, and each is wanted again and again.
    is_narrow: bool,
    /// A request is often answered by one of the other side for the same pair.
    crosses: bool,
    /// Who knows of a request accepts it, whether or not it has arrived.
    is_hasty: bool,
    /// Old calls are made again.
    repeats: bool,
    /// Notices are published.
    publishes: bool,
    /// Requests wait for three ticks at most.
    is_brief: bool,
    /// What is over is forgotten after a tick.
    forgets: bool,
    /// Operators freeze and thaw, drain, and look after what is set aside.
    operates: bool,
    /// Operators declare regions gone, and let them come back.
    disposes: bool,
    /// Requests are accepted at the very last moment.
    is_punctual: bool,
    /// Who is told that a region is frozen deletes.
    is_impatient: bool,
    /// Who has put a region back to its backup freezes it, to look at it first.
    inspects: bool,
}

impl Habits {
    /// Those of a seed.
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6861_6269);
        Self {
            is_busy: rng.random(),
            is_narrow: rng.random(),
            crosses: rng.random(),
            is_hasty: rng.random(),
            repeats: rng.random(),
            publishes: rng.random(),
            is_brief: rng.random(),
            forgets: rng.random(),
            operates: rng.random_range(0..3) == 0,
            disposes: rng.random_range(0..4) == 0,
            is_punctual: rng.random(),
            is_impatient: rng.random(),
            inspects: rng.random(),
        }
    }

    /// Makes the numbers of these regions as the habits want them.
    pub(super) fn shorten(self, regions: &mut Regions) {
        if self.is_busy {
            regions.call_every /= 5;
        }
        if self.is_brief {
            regions.policy.pending = regions.policy.pending.min(3);
        }
        if self.forgets {
            regions.policy.remember = regions.policy.remember.min(1);
        }
    }
}

/// All that customers and operators do.
pub(super) struct Customers {
    regions: Regions,
    habits: Habits,
    /// For how long they go on.
    left: Duration,
    asked: u64,
    /// The last calls of each region: some are made again.
    last: BTreeMap<u16, Vec<(Token, Request)>>,
    /// The last request, and where it was made.
    newest: Option<(u16, Request)>,
    restores: u64,
    /// The regions that were put back and that nobody has looked at since.
    unseen: BTreeSet<u16>,
    shared: Shared,
}

impl Customers {
    /// They go on for so long.
    pub(super) fn new(regions: &Regions, habits: Habits, left: Duration, shared: Shared) -> Self {
        let (last, newest, unseen) = (BTreeMap::new(), None, BTreeSet::new());
        let regions = regions.clone();
        Self { regions, habits, left, asked: 0, last, newest, restores: 0, unseen, shared }
    }

    fn request(&mut self, region: u16, views: &[Option<View>], rng: &mut StdRng) -> Request {
        if self.habits.publishes && rng.random_bool(0.05) {
            return Request::Publish { to: Region(self.other(region, rng)), value: rng.random() };
        }
        if self.habits.is_hasty
            && rng.random_bool(0.2)
            && let Some(id) = self.asked_of(region, views, rng)
        {
            return Request::Change { id, verb: Verb::Accept };
        }
        if self.habits.is_punctual
            && let Some(id) = control(views, region).and_then(is_due)
        {
            return Request::Change { id, verb: Verb::Accept };
        }
        if self.habits.is_impatient
            && let Some(id) = control(views, region).and_then(|view| is_kept_waiting(view, rng))
        {
            return Request::Change { id, verb: Verb::Delete };
        }
        let known: Vec<_> = match control(views, region) {
            Some(view) => view.ledger.peerings.iter().collect(),
            None => Vec::new(),
        };
        let what = rng.random_range(0..10);
        match known.into_iter().choose(rng) {
            Some((id, one)) if what >= 4 => {
                let verb = match (what, one.side) {
                    (4..7, Side::Accepter) => Verb::Accept,
                    (7, Side::Accepter) => Verb::Reject,
                    (8, _) | (4, Side::Requester) => Verb::Delete,
                    _ => return modify(id, &one, rng),
                };
                Request::Change { id, verb }
            }
            _ => self.create(region, rng),
        }
    }

    fn other(&self, region: u16, rng: &mut StdRng) -> u16 {
        (region + rng.random_range(1..self.regions.regions)) % self.regions.regions
    }

    fn create(&self, region: u16, rng: &mut StdRng) -> Request {
        let networks = if self.habits.is_narrow { 1 } else { self.regions.networks };
        let other = self.other(region, rng);
        let network = self.regions.network(region, rng.random_range(0..networks));
        let peer = self.regions.network(other, rng.random_range(0..networks));
        let target = Target { region: Region(other), account: OWNER, network: peer };
        Request::Create { network, target, resolve_names: rng.random() }
    }

    /// Some request to this region, as its requester has told of it.
    fn asked_of(&self, region: u16, views: &[Option<View>], rng: &mut StdRng) -> Option<OpId> {
        let all = (0..self.regions.regions).filter_map(|other| control(views, other));
        let all = all.flat_map(|view| view.ledger.peerings.iter());
        all.filter(|(_, one)| {
            let target = one.requested.facts.target.region;
            one.side == Side::Requester && target == Region(region) && one.is_undecided()
        })
        .map(|(id, _)| id)
        .choose(rng)
    }

    /// What comes next of a customer: where, and under which token.
    fn call(&mut self, views: &[Option<View>], rng: &mut StdRng) -> (u16, Token, Request) {
        let mut region = rng.random_range(0..self.regions.regions);
        let old = self.last.get(&region);
        let again = if rng.random_bool(0.1) {
            old.and_then(|old| old.last().copied())
        } else if self.habits.repeats && rng.random_bool(0.1) {
            old.and_then(|old| old.iter().choose(rng).copied())
        } else {
            None
        };
        if let Some((token, request)) = again {
            return (region, token, request);
        }
        self.asked += 1;
        let mirrored = self.newest.take().filter(|_| self.habits.crosses && rng.random_bool(0.5));
        let request = match mirrored {
            Some((from, Request::Create { network, target, resolve_names })) => {
                region = target.region.0;
                let back = Target { region: Region(from), account: OWNER, network };
                Request::Create { network: target.network, target: back, resolve_names }
            }
            _ => {
                let request = self.request(region, views, rng);
                self.newest =
                    matches!(request, Request::Create { .. }).then_some((region, request));
                request
            }
        };
        let token = Token(self.asked);
        let last = self.last.entry(region).or_default();
        last.push((token, request));
        if last.len() > REMEMBERED {
            last.remove(0);
        }
        (region, token, request)
    }

    /// Some customers only read: what their region has, what was asked for elsewhere, what is long over.
    fn look(&self, views: &[Option<View>], rng: &mut StdRng) -> Option<(u16, Request)> {
        if self.regions.reads == 0 || rng.random_range(0..100) >= self.regions.reads {
            return None;
        }
        let region = rng.random_range(0..self.regions.regions);
        let here = control(views, region).into_iter().flat_map(|view| view.ledger.peerings.keys());
        let id = match rng.random_range(0..4) {
            0 => self.asked_of(region, views, rng),
            1 => {
                let all = self.last.get(&region).into_iter().flatten();
                all.filter_map(|(_, request)| match request {
                    Request::Change { id, .. } => Some(*id),
                    _ => None,
                })
                .choose(rng)
            }
            _ => here.choose(rng),
        };
        let request = match (id, rng.random_range(0..6)) {
            (id, 0) => Request::List { after: id },
            (None, _) => Request::List { after: None },
            (Some(id), 1) => Request::Explain { id },
            (Some(id), _) => Request::Get { id },
        };
        Some((region, request))
    }

    /// What an operator does about what is seen: while customers call, now and then; later, whatever is needed so
    /// that everything can come to rest.
    fn command(&mut self, views: &[Option<View>], rng: &mut StdRng) -> Option<(u16, Command)> {
        let region = rng.random_range(0..self.regions.regions);
        let view = control(views, region)?;
        let is_over = self.left.is_zero();
        let is_frozen = !view.is_open() && !view.ledger.head.held;
        if self.habits.inspects && !is_over && is_frozen && self.unseen.remove(&region) {
            return Some((region, Command::Freeze(Region(self.other(region, rng)))));
        }
        if !is_over && !rng.random_bool(0.1) {
            return None;
        }
        let head = &view.ledger.head;
        let parked = view.ledger.records.iter().find(|(_, record)| record.parked);
        let command = if head.held {
            Command::Thaw
        } else if head.drained {
            Command::Drain(false)
        } else if let Some((&id, record)) = parked {
            // What was given up is found again by the sweep, but for a request: nobody else knows of it.
            let is_needed = record.verb == RecordVerb::Create || record.kind == Kind::NOTICE;
            if is_needed || rng.random() { Command::Redrive(id) } else { Command::Discard(id) }
        } else if let Some(gone) = gone(&view.ledger) {
            Command::Readmit(gone)
        } else if let Some(back) = self.comes_back(region, view, views) {
            // As a new life.
            Command::Freeze(back)
        } else if is_over || !rng.random_bool(0.1) {
            return None;
        } else if self.habits.disposes && rng.random() {
            Command::Dispose(Region(self.other(region, rng)))
        } else if self.habits.operates {
            let other = Region(self.other(region, rng));
            if rng.random() { Command::Freeze(other) } else { Command::Drain(true) }
        } else {
            return None;
        };
        Some((region, command))
    }

    /// A region that has declared this one gone, and lets it come back.
    fn comes_back(
        &self,
        region: u16,
        view: &ControlView,
        views: &[Option<View>],
    ) -> Option<Region> {
        let mut all = view.ledger.peers.iter();
        let back = all.find(|(other, peer)| {
            let is_let =
                control(views, other.0).and_then(|view| view.ledger.peers.get(&Region(region)));
            peer.link == Link::Expelled && is_let.is_some_and(|peer| !peer.disposed)
        });
        back.map(|(&other, _)| other)
    }
}

/// A request that is accepted now or never: its deadline has come.
fn is_due(view: &ControlView) -> Option<OpId> {
    let clock = view.ledger.head.clock;
    let mut all = view.ledger.peerings.iter().filter(|(_, one)| {
        let is_late = one.decided.facts.deadline.is_some_and(|deadline| deadline <= clock);
        one.side == Side::Accepter && one.is_undecided() && !one.is_dead() && is_late
    });
    all.find(|(id, one)| is_open(view, one.peer(*id))).map(|(id, _)| id)
}

/// A peering of a region towards which this one is frozen; not each time.
fn is_kept_waiting(view: &ControlView, rng: &mut StdRng) -> Option<OpId> {
    let all = view.ledger.peerings.iter();
    let waiting = all.filter(|(id, one)| !one.is_dead() && !is_open(view, one.peer(*id)));
    let id = waiting.map(|(id, _)| id).choose(rng)?;
    rng.random_bool(0.3).then_some(id)
}

fn is_open(view: &ControlView, towards: Region) -> bool {
    view.ledger.peers.get(&towards).is_some_and(|peer| peer.link == Link::Open && !peer.disposed)
}

/// What a control plane shows, if it runs.
fn control(views: &[Option<View>], region: u16) -> Option<&ControlView> {
    match &views[usize::from(region)] {
        Some(View::Control(view)) => Some(view),
        _ => None,
    }
}

/// A region that was declared gone.
fn gone(ledger: &crate::irc::ledger::Ledger) -> Option<Region> {
    ledger.peers.iter().find(|(_, peer)| peer.disposed).map(|(&region, _)| region)
}

fn modify(id: OpId, one: &Peering, rng: &mut StdRng) -> Request {
    let seen = match one.side {
        Side::Requester => one.requested.facts.options.version,
        Side::Accepter => one.decided.facts.options.version,
    };
    // Some have not looked lately.
    let counter = seen.counter.saturating_sub(u64::from(rng.random_bool(0.2)));
    let expected = Version { counter, ..seen };
    Request::Modify { id, expected, resolve_names: rng.random() }
}

impl Workload<Party> for Customers {
    fn next(&mut self, views: &[Option<View>], rng: &mut StdRng) -> (Duration, Option<(u16, Msg)>) {
        let every = self.regions.call_every;
        let pause = rng.random_range(every / 2..=every * 3 / 2);
        self.left = self.left.saturating_sub(pause);
        if let Some((region, command)) = self.command(views, rng) {
            return (pause, Some((region, Msg::Operate(command))));
        }
        if self.left.is_zero() {
            return (pause, None);
        }
        let (region, token, request) = match self.look(views, rng) {
            Some((region, request)) => {
                self.asked += 1;
                (region, Token(self.asked), request)
            }
            None => self.call(views, rng),
        };
        let customers = self.regions.customers_of(region);
        let customer = match customers.len() {
            1 => customers.start,
            _ => rng.random_range(customers),
        };
        let is_free = matches!(
            &views[usize::from(customer)],
            Some(View::Customer { waiting, .. }) if *waiting < 2
        );
        let said = (customer, Msg::Submit { caller: OWNER, token, request });
        (pause, is_free.then_some(said))
    }

    /// The requester's region says that its request is accepted, as if the accepter had decided so.
    fn lie(&mut self, said: &Msg) -> Option<Msg> {
        let Msg::Call(call) = said else { return None };
        let Errand::Apply { kind: Kind::PEERING, id, op, .. } = call.errand else { return None };
        if id.requester != call.from {
            return None;
        }
        let mut facts = self.shared.decided(id)?;
        facts.decision = Some(Decision::Accepted);
        let body = Body::of(&Bundle::Accepter(Sealed { facts, seal: 0 }));
        let (kind, closed_below) = (Kind::PEERING, 0);
        let errand = Errand::Apply { kind, id, op: op + 1, closed_below, body };
        // The answer is nobody's.
        let tag = (call.tag.0, ClaimEpoch::default());
        Some(Msg::Call(Box::new(Call { errand, tag, ..(**call).clone() })))
    }

    fn backed_up(&mut self, node: u16) {
        self.shared.back_up(node);
    }

    fn restored(&mut self, node: u16, backup: &Storage, lost: &Storage) -> Option<Storage> {
        let (Storage::Control(backup), Storage::Control(lost)) = (backup, lost);
        self.restores += 1;
        self.unseen.insert(node);
        self.shared.put_back(node, lost);
        // Who restores knows the backup and nothing else; the tag tells lives with one number apart.
        let n = backup.head.incarnation.n + 1;
        let life = Incarnation { n, life: 1000 * self.restores + u64::from(node) };
        let mut ledger = backup.clone().restored(life, lost.on.clone(), Some(lost.head.clock));
        // A node draws a tag for later lives at each of its starts. Here it is this that tells those of two restores apart.
        ledger.head.next_nonce += 1_000_000 * self.restores;
        if !self.regions.safeguards.contains(Safeguards::I_6_FREEZE_AFTER_RESTORE) {
            thaw(&mut ledger, self.regions.regions);
        }
        Some(Storage::Control(ledger))
    }
}
