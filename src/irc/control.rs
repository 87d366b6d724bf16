//! The control plane of a region: the customer API, and every change of the facts.
//!
//! There is one control plane to a region. It answers its customers from what it has, in one step and
//! one transaction, and never waits for another region: what it wants there it writes into its own
//! work log ([`super::log`]), from which IRC servers carry it away. What other regions want here comes
//! as a [`super::msg::Call`] ([`super::remote`]). After a restore it is frozen towards every region
//! until that one has promised to ignore the old life ([`super::restore`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::audit::Cause;
use super::facts::{
    Account, Block, Decided, Decision, Failure, Incarnation, Network, OpId, Region, Requested,
    SealKey, Sealed, digest,
};
use super::ledger::{ControlState, Ledger, Link, Lost, Peer};
use super::msg::{CallError, Command, Kind, Msg, Outcome, RecordVerb};
use super::pace::Pacing;
use super::peering::{Label, Peering, Side};
use super::safeguards::Safeguards;
use super::{Out, Storage, Timer};
use crate::lease::record::NodeId;

/// The numbers of a control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// One unit of the region's clock.
    pub tick: Duration,
    /// How many ticks a request may wait for its decision.
    pub pending: u64,
    /// How many ticks a dead peering is kept after the other side has confirmed it.
    pub remember: u64,
    /// How many ticks a call's result is kept under its token.
    pub tokens: u64,
    /// How long a claim is held.
    pub lease: Duration,
    /// The shortest and the longest wait before a retry, and the wait that is doubled.
    pub retry: [Duration; 3],
    /// How often the sweep asks each peer; none: never.
    pub sweep: Option<Duration>,
    /// How many claims towards one remote may be out.
    pub claims: usize,
    /// How many retries there may be towards one remote, and when its breaker opens.
    pub pacing: Pacing,
    /// How many live peerings a network may have, how many undecided requests at it, and from one
    /// account.
    pub quota: [usize; 3],
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(60),
            pending: 7 * 24 * 60,
            remember: 2 * 24 * 60,
            tokens: 30 * 24 * 60,
            lease: Duration::from_secs(30),
            retry: [Duration::from_millis(250), Duration::from_secs(100), Duration::from_secs(1)],
            sweep: Some(Duration::from_secs(5)),
            claims: 32,
            pacing: Pacing::default(),
            quota: [50, 50, 500],
        }
    }
}

/// What a control plane is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// Its node.
    pub me: NodeId,
    /// Its region.
    pub region: Region,
    /// All other regions.
    pub others: Vec<Region>,
    /// The IRC servers of all regions.
    pub servers: BTreeMap<NodeId, Region>,
    /// For whom each customer's node may speak.
    pub customers: BTreeMap<NodeId, BTreeSet<Account>>,
    /// The networks of this region: their owners and addresses.
    pub networks: BTreeMap<Network, (Account, Block)>,
    /// What this region seals its facts with.
    pub key: SealKey,
    /// The tag of a life that begins now.
    pub life: u64,
    /// All regions begin together, and none has a past: none is frozen at first.
    pub founders: bool,
    /// Its numbers.
    pub policy: Policy,
    /// The rules it keeps.
    pub safeguards: Safeguards,
}

/// A control plane at work on one input: one transaction.
pub(super) struct Desk<'a> {
    pub(super) cp: &'a ControlPlane,
    pub(super) state: &'a mut ControlState,
    pub(super) o: &'a mut Out,
    /// Something durable has changed.
    pub(super) dirty: bool,
    /// Why whatever changes does.
    pub(super) cause: Cause,
    /// What the owner saw of each peering that was touched, before.
    pub(super) touched: BTreeMap<OpId, Option<Label>>,
}

impl ControlPlane {
    pub(super) fn on_start(&self, storage: Option<&Ledger>, o: &mut Out) -> ControlState {
        let mut ledger = storage.cloned().unwrap_or_else(|| self.first_ledger());
        if self.keeps(Safeguards::I_16_EPOCH_NEVER_RESET) || storage.is_none() {
            ledger.head.start += 1;
        }
        // A region that was added to the file since.
        for &region in &self.others {
            if !ledger.peers.contains(&region) {
                ledger.peers.insert(region, self.new_peer());
                ledger.freeze(region);
            }
        }
        let mut state = ControlState::new(ledger);
        let mut desk = self.desk(&mut state, o);
        desk.dirty = true;
        desk.resume();
        desk.finish();
        state
    }

    fn first_ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        let life = if self.founders { 0 } else { self.life };
        ledger.head.incarnation = Incarnation { n: 1, life };
        ledger.head.born.insert(1, 0);
        for &region in &self.others {
            ledger.peers.insert(region, self.new_peer());
            if !self.founders {
                ledger.freeze(region);
            }
        }
        ledger
    }

    fn new_peer(&self) -> Peer {
        Peer {
            floor: self.founders.then_some(Incarnation { n: 1, life: 0 }),
            link: Link::Open,
            seen: BTreeMap::new(),
            disposed: false,
            lost: Lost::default(),
        }
    }

    pub(super) fn keeps(&self, rule: Safeguards) -> bool {
        self.safeguards.contains(rule)
    }

    /// A desk for one input. [`Desk::finish`] ends its transaction.
    pub(super) fn desk<'a>(&'a self, state: &'a mut ControlState, o: &'a mut Out) -> Desk<'a> {
        let cause = Cause::Start;
        Desk { cp: self, state, o, dirty: false, cause, touched: BTreeMap::new() }
    }

    pub(super) fn on_msg(&self, state: &mut ControlState, src: Id, msg: Msg, o: &mut Out) {
        let from = NodeId(u16::try_from(usize::from(src)).unwrap_or(u16::MAX));
        let records = state.ledger.records.clone();
        let mut desk = self.desk(state, o);
        match msg {
            Msg::Ask { n, caller, token, request } => {
                let may_speak = from == self.me
                    || self.customers.get(&from).is_some_and(|accounts| accounts.contains(&caller));
                let result = if may_speak {
                    desk.on_ask(caller, token, request)
                } else {
                    Err(CallError::NotOwner)
                };
                desk.o.send(src, Msg::Told { n, result: result.map(Box::new) });
            }
            Msg::Poll { kinds, max } => desk.on_poll(from, &kinds, max),
            Msg::Extend { work, epoch } => desk.on_extend(from, work, epoch),
            Msg::Report { work, epoch, outcome } => {
                if let Outcome::Answered(reply) = &*outcome {
                    let (from, incarnation) = (desk.remote_of(work), reply.incarnation);
                    desk.cause = Cause::Region { from, incarnation };
                }
                desk.on_report(from, work, epoch, *outcome);
            }
            Msg::Call(call) => {
                desk.cause = Cause::Region { from: call.from, incarnation: call.incarnation };
                if let Some(reply) = desk.on_call(from, &call) {
                    desk.o.send(src, Msg::Reply(Box::new(reply)));
                }
            }
            Msg::Switched(id) if from == self.me => {
                desk.cause = Cause::Half;
                desk.on_switched(id);
            }
            Msg::Operate(command) if from == self.me => {
                desk.cause = Cause::Operator(command);
                desk.on_command(command);
            }
            _ => {}
        }
        desk.finish_after(&records);
    }

    pub(super) fn on_timeout(&self, state: &mut ControlState, timer: Timer, o: &mut Out) {
        let mut desk = self.desk(state, o);
        desk.cause = Cause::Clock;
        match timer {
            Timer::Tick => desk.on_tick(),
            Timer::Lease(work) => desk.on_lease_end(work),
            Timer::Retry(work) => desk.on_retry(work),
            Timer::Sweep(region) => desk.on_sweep(region),
            Timer::Probe(region) => desk.on_probe(region),
            _ => {}
        }
        desk.finish();
    }
}

impl Desk<'_> {
    pub(super) fn keeps(&self, rule: Safeguards) -> bool {
        self.cp.keeps(rule)
    }

    /// Ends the transaction: saves if anything durable has changed, and arms the clock.
    //= SPEC IRC-1
    //= SPEC IRC-37
    pub(super) fn finish(self) {
        let records = self.state.ledger.records.clone();
        self.finish_after(&records);
    }

    fn finish_after(
        mut self,
        records_before: &crate::persistent::PersistentMap<
            super::msg::RecordId,
            super::ledger::Record,
        >,
    ) {
        self.write_audit();
        if self.dirty {
            let mut saved = self.state.ledger.clone();
            if !self.keeps(Safeguards::I_21_ONE_TRANSACTION) {
                // The records of this step are left for the next save.
                saved.records = records_before.clone();
            }
            self.o.save(Storage::Control(saved));
            // Not anew with each transaction: a busy region's clock would never come round.
            if self.needs_clock() && !self.state.ticking {
                self.state.ticking = true;
                let tick = self.cp.policy.tick;
                self.o.set_timer(Timer::Tick, tick..tick);
            }
        }
    }

    /// Whether anything waits for the clock.
    fn needs_clock(&self) -> bool {
        let tokens = !self.state.ledger.tokens.is_empty() && self.cp.policy.tokens != u64::MAX;
        let index = &self.state.index;
        tokens
            || index.has_over()
            || index.has_due(Side::Accepter)
            || (index.has_due(Side::Requester) && !self.keeps(Safeguards::I_1_ONLY_A_EXPIRES))
    }

    /// Takes up what a crash has interrupted.
    fn resume(&mut self) {
        let ids: Vec<OpId> = self.state.ledger.peerings.keys().collect();
        for id in ids {
            self.align_half(id);
        }
        // Whoever held these before the crash holds them no more.
        let records: Vec<_> = self.state.ledger.records.iter().map(|(&id, _)| id).collect();
        for record in records {
            self.is_superseded(super::msg::Work::Record(record));
        }
        if let Some(every) = self.cp.policy.sweep {
            for &region in &self.cp.others {
                self.o.set_timer(Timer::Sweep(region), Duration::ZERO..every);
            }
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Facts
    // ---------------------------------------------------------------------------------------------

    /// The peering's label here.
    pub(super) fn label(&self, id: OpId, peering: &Peering) -> Label {
        peering.label(self.state.ledger.on.contains(&id))
    }

    /// Writes D. Only A does, and only once.
    //= SPEC API-3
    pub(super) fn decide(&mut self, id: OpId, peering: &mut Peering, decision: Decision) {
        assert_eq!(peering.decided.facts.decision, None, "a decision is written once");
        assert_eq!(peering.side, Side::Accepter, "A alone decides");
        peering.decided.facts.decision = Some(decision);
        self.reseal(id, peering);
    }

    /// Raises the own delete flag; the own half goes off in this very step (I-33).
    pub(super) fn raise_flag(&mut self, id: OpId, peering: &mut Peering) {
        match peering.side {
            Side::Requester => peering.requested.facts.deleted = true,
            Side::Accepter => peering.decided.facts.deleted = true,
        }
        self.reseal(id, peering);
        if self.keeps(Safeguards::I_33_OWN_HALF_FIRST) {
            self.switch(id, false);
        }
    }

    /// Puts the own seal under the own facts.
    //= SPEC IRC-19
    pub(super) fn reseal(&self, id: OpId, peering: &mut Peering) {
        match peering.side {
            Side::Requester => {
                peering.requested = self.cp.key.seal(id, peering.requested.facts);
            }
            Side::Accepter => peering.decided = self.cp.key.seal(id, peering.decided.facts),
        }
    }

    /// Stores a peering after a change of its facts, and does what follows from them.
    pub(super) fn put(&mut self, id: OpId, mut peering: Peering) {
        if peering.is_dead() && peering.dead_since.is_none() {
            peering.dead_since = Some(self.state.ledger.head.clock);
        }
        self.write(id, Some(peering));
        self.align_half(id);
        self.note_terminal(id);
    }

    /// The first terminal label stays.
    fn note_terminal(&mut self, id: OpId) {
        let Some(peering) = self.state.ledger.peerings.get(&id) else { return };
        let label = self.label(id, &peering);
        if label.is_terminal() && peering.terminal.is_none() {
            let peering = Peering { terminal: Some(label), ..peering.into_owned() };
            self.write(id, Some(peering));
        }
    }

    /// Writes a peering, or takes it away. Everything that is written goes this way.
    pub(super) fn write(&mut self, id: OpId, peering: Option<Peering>) {
        self.touch(id);
        self.state.set_peering(id, peering);
        self.dirty = true;
    }

    /// Switches the own half.
    pub(super) fn switch(&mut self, id: OpId, on: bool) {
        if self.state.ledger.on.contains(&id) == on {
            return;
        }
        self.touch(id);
        if on {
            self.state.ledger.on.insert(id, ());
        } else {
            self.state.ledger.on.remove(&id);
        }
        self.dirty = true;
    }

    /// Switches the own half off at once, or begins to switch it on, as the facts want it. Frozen, it
    /// stays as it was found: nobody knows the facts then.
    pub(super) fn align_half(&mut self, id: OpId) {
        let Some(peering) = self.state.ledger.peerings.get(&id) else { return };
        let peer = peering.peer(id);
        let is_frozen =
            self.state.ledger.peers.get(&peer).is_none_or(|peer| {
                matches!(peer.link, Link::Preparing { .. } | Link::Syncing { .. })
            });
        if is_frozen {
            if !self.keeps(Safeguards::I_36_HALVES_BY_FACTS) {
                self.switch(id, false);
            }
            return;
        }
        let is_on = self.state.ledger.on.contains(&id);
        let waits = !self.keeps(Safeguards::I_33_OWN_HALF_FIRST) && !peering.confirmed;
        if is_on && !peering.wants_half() && !waits {
            self.switch(id, false);
            self.note_terminal(id);
        } else if !is_on && peering.wants_half() && !peering.stuck {
            // Switching takes time; the answer comes back as a message.
            self.o.send(self.cp.me.into(), Msg::Switched(id));
        }
    }

    fn on_switched(&mut self, id: OpId) {
        let Some(peering) = self.state.ledger.peerings.get(&id) else { return };
        let is_open = self.open(peering.peer(id)).is_ok();
        if peering.wants_half() && is_open && !self.state.ledger.on.contains(&id) {
            self.switch(id, true);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // The clock
    // ---------------------------------------------------------------------------------------------

    /// A minute of up-time: requests expire, what is over is forgotten.
    fn on_tick(&mut self) {
        self.dirty = true;
        self.state.ticking = false;
        self.state.ledger.head.clock += 1;
        let now = self.state.ledger.head.clock;
        let is_open = |region: &&Region| self.open(**region).is_ok();
        let open: Vec<Region> = self.cp.others.iter().filter(is_open).copied().collect();
        let mut due = Vec::new();
        for &region in &open {
            due.extend(self.state.index.due(Side::Accepter, region, now));
            if !self.keeps(Safeguards::I_1_ONLY_A_EXPIRES) {
                due.extend(self.state.index.due(Side::Requester, region, now));
            }
        }
        due.sort_unstable();
        for id in due {
            let Some(mut peering) = self.state.ledger.peerings.cloned(&id) else { continue };
            if peering.side == Side::Accepter {
                self.decide(id, &mut peering, Decision::Expired);
                self.put(id, peering);
                self.log(Kind::PEERING, id, RecordVerb::Decide);
            } else if !self.keeps(Safeguards::I_1_ONLY_A_EXPIRES) {
                peering.decided.facts.decision = Some(Decision::Expired);
                self.put(id, peering);
            }
        }
        self.forget(now, &open);
    }

    /// What is dead here, known to be dead there, and old enough. Its id stays in the watermark, or is
    /// below the next id.
    //= SPEC IRC-10
    fn forget(&mut self, now: u64, open: &[Region]) {
        let Policy { remember, tokens, .. } = self.cp.policy;
        let mut over = Vec::new();
        if let Some(until) = now.checked_sub(remember) {
            for &region in open {
                over.extend(self.state.index.over(region, true, until));
                if !self.keeps(Safeguards::I_4_FORGET_AFTER_CONFIRMATION) {
                    over.extend(self.state.index.over(region, false, until));
                }
            }
        }
        over.retain(|&id| {
            let is_told =
                !self.has_records(id) || !self.keeps(Safeguards::I_4_FORGET_AFTER_CONFIRMATION);
            !self.state.ledger.on.contains(&id) && is_told
        });
        over.sort_unstable();
        for id in over {
            self.write(id, None);
            let head = &mut self.state.ledger.head;
            let is_own = id.requester == self.cp.region;
            if is_own && head.born.get(&id.n).is_none_or(|&born| id.seq >= born) {
                head.over.insert(id);
            }
            let stray: Vec<_> = self.records_of(id).collect();
            for record in stray {
                self.state.set_record(record, None);
            }
        }
        if let Some(until) = now.checked_sub(tokens) {
            self.state.forget_results(until);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Operators
    // ---------------------------------------------------------------------------------------------

    //= SPEC IRC-33
    fn on_command(&mut self, command: Command) {
        self.dirty = true;
        let before = self.state.ledger.clone();
        self.carry_out(command);
        if self.state.ledger == before {
            return;
        }
        // Its entry stands before those of what follows from it, which are written at the end.
        let id = match command {
            Command::Redrive(record) | Command::Discard(record) => {
                before.records.get(&record).map(|record| record.id)
            }
            _ => None,
        };
        let label = id.and_then(|id| before.label(id));
        self.state.ledger.note(id, [label; 2], Cause::Operator(command));
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Dispose(region) => self.dispose(region),
            Command::Readmit(region) => {
                if let Some(mut peer) = self.state.ledger.peers.get(&region).cloned() {
                    peer.disposed = false;
                    self.state.ledger.peers.insert(region, peer);
                    self.state.ledger.freeze(region);
                }
            }
            Command::Redrive(id) => {
                if let Some(mut record) = self.state.ledger.records.get(&id).cloned() {
                    (record.parked, record.lost) = (false, 0);
                    self.state.set_record(id, Some(record));
                }
            }
            Command::Discard(id) => {
                if self.state.ledger.records.get(&id).is_some_and(|record| record.parked) {
                    self.state.set_record(id, None);
                }
            }
            Command::Drain(drained) => self.state.ledger.head.drained = drained,
            Command::Freeze(region) => {
                let life = self.state.ledger.head.incarnation.n + 1;
                if self.cp.others.contains(&region) {
                    self.begin_life(life);
                    self.state.ledger.head.held = true;
                }
            }
            // What was learnt before is read again: the peer may know more by now.
            Command::Thaw => self.state.ledger.head.held = false,
        }
    }
}

/// The hash under which the parameters of a Create are kept, from its facts.
pub(super) fn params_of(requested: &Requested) -> u64 {
    digest(&(requested.network, requested.target))
}

/// The decision of A's checks about a request that cannot be.
pub(super) const IMPOSSIBLE: Decision = Decision::Failed(Failure::Impossible);

/// The facts of an accepter that has just stored a request.
pub(super) fn stored(deadline: u64) -> Sealed<Decided> {
    Sealed { facts: Decided { deadline: Some(deadline), ..Decided::default() }, seal: 0 }
}
