//! The customer API: what each call checks, and what it writes.
//!
//! Every call is answered in one step from what the region has. One that changes something is kept
//! under its token, with its result, in the same transaction.

use super::audit::Cause;
use super::control::Desk;
use super::facts::{
    Account, Decision, Network, OpId, Options, Region, Requested, Target, Version, digest,
};
use super::ledger::{Kept, Link, Peer, Result};
use super::msg::{Answer, CallError, Kind, RecordVerb, Request, Shown, SyncLevel, Token, Wait};
use super::pace::Pace;
use super::peering::{Effect, Label, Peering, Side, Verb, transition};
use super::safeguards::Safeguards;

/// How many peerings one page of a list has, so that it fits a datagram.
pub(super) const PAGE: usize = 4;
/// How many records of a peering an explanation names, the oldest first, so that it fits a datagram: while the other
/// region is silent, each change of the options adds one.
pub(super) const WAITS_MAX: usize = 30;

impl Desk<'_> {
    /// Answers a call. One that changes something is answered under its token, again and again.
    //= SPEC IRC-11
    //= SPEC API-1
    pub(super) fn on_ask(
        &mut self,
        caller: Account,
        token: Token,
        request: Request,
    ) -> Result<Answer> {
        match request {
            Request::Get { id } => return self.get(caller, id).map(Answer::One),
            Request::List { after } => return Ok(self.list(caller, after)),
            Request::Explain { id } => return self.explain(caller, id),
            _ => {}
        }
        if self.state.ledger.head.drained {
            return Err(CallError::Unavailable);
        }
        let token = token.key(self.cp.region, caller);
        self.cause = Cause::Call { caller, token };
        let params = params(&request);
        if let Some(kept) = self.state.result(token)
            && self.keeps(Safeguards::I_41_TOKEN_KEPT)
        {
            let is_same = kept.params == params;
            return if is_same { Ok(kept.result) } else { Err(CallError::TokenMismatch) };
        }
        let result = match request {
            Request::Create { network, target, resolve_names } => {
                self.create(caller, token, network, target, resolve_names)?
            }
            Request::Change { id, verb } => self.change(caller, id, verb)?,
            Request::Modify { id, expected, resolve_names } => {
                self.modify(caller, id, expected, resolve_names)?
            }
            Request::Publish { to, value } => self.publish(to, value)?,
            Request::Get { .. } | Request::List { .. } | Request::Explain { .. } => {
                unreachable!("answered above")
            }
        };
        self.dirty = true;
        let at = self.state.ledger.head.clock;
        self.state.keep_result(token, Kept { params, result: result.clone(), at });
        Ok(result)
    }

    /// The checks that are R's, then the fact and the record that carries it.
    //= SPEC IRC-6
    fn create(
        &mut self,
        caller: Account,
        token: u64,
        network: Network,
        target: Target,
        resolve_names: bool,
    ) -> Result<Answer> {
        if target.region == self.cp.region {
            return Err(CallError::SelfPeering);
        }
        if !self.cp.others.contains(&target.region) {
            return Err(CallError::UnknownRegion);
        }
        let Some(&(owner, block)) = self.cp.networks.get(&network) else {
            return Err(CallError::NotFound);
        };
        if owner != caller {
            return Err(CallError::NotOwner);
        }
        self.open(target.region)?;
        let n = self.state.ledger.head.incarnation.n;
        let seq = self.state.ledger.head.born.get(&n).copied().unwrap_or(0);
        let id = OpId { requester: self.cp.region, n, seq };
        let requested = Requested {
            account: caller,
            network,
            block,
            target,
            token,
            deleted: false,
            options: Options { version: Version { n, counter: 0 }, resolve_names },
        };
        let peering = Peering::new(Side::Requester, self.cp.key.seal(id, requested));
        if let Some(busy) = self.busy(peering.pair(id)) {
            return Err(CallError::PairBusy(busy));
        }
        if self.live_at(network) >= self.cp.policy.quota[0] {
            return Err(CallError::QuotaExceeded);
        }
        self.state.ledger.head.born.insert(n, seq + 1);
        self.put(id, peering);
        self.log(Kind::PEERING, id, RecordVerb::Create);
        Ok(Answer::Done { id, state: Label::InitiatingRequest })
    }

    /// A peering of this pair that does not let another begin: one that is alive here, or whose end
    /// the other side has not confirmed.
    //= SPEC IRC-9
    fn busy(&self, pair: [(Region, u32); 2]) -> Option<OpId> {
        let is_busy = |peering: &Peering| {
            let is_over = peering.is_dead() && peering.confirmed;
            !(is_over && self.keeps(Safeguards::I_14_DEAD_DOES_NOT_BLOCK))
        };
        let ledger = &self.state.ledger;
        let mut all = self.state.index.of_pair(pair);
        all.find(|id| ledger.peerings.get(id).is_some_and(|one| is_busy(&one)))
    }

    /// How many live peerings a network of this region has.
    fn live_at(&self, network: Network) -> usize {
        self.state.index.live(network)
    }

    /// Refuses what concerns a region towards which this one is frozen, or that was declared gone.
    pub(super) fn open(&self, region: Region) -> Result<()> {
        match self.state.ledger.peers.get(&region) {
            Some(Peer { disposed: true, .. }) => Err(CallError::Disposed(region)),
            Some(Peer { link: Link::Open, .. }) => Ok(()),
            Some(_) => Err(CallError::Frozen(region)),
            None => Err(CallError::UnknownRegion),
        }
    }

    /// The peering, if the caller owns its end here.
    fn owned(&self, caller: Account, id: OpId) -> Result<Peering> {
        let Some(peering) = self.state.ledger.peerings.get(&id) else {
            return Err(self.absent(id));
        };
        let Requested { account, target, .. } = peering.requested.facts;
        let owner = match peering.side {
            Side::Requester => account,
            Side::Accepter => target.account,
        };
        if owner == caller { Ok(peering.into_owned()) } else { Err(CallError::NotOwner) }
    }

    /// What is not here may be under way, or may never have been.
    //= SPEC IRC-12
    fn absent(&self, id: OpId) -> CallError {
        let mark = self.state.ledger.peers.get(&id.requester).map(|peer| peer.seen.get(&id.n));
        match mark {
            // One of our own that we do not have is over, or never was.
            None => CallError::NotFound,
            Some(Some(mark)) if mark.covers(id.seq) => CallError::NotFound,
            Some(_) if !self.keeps(Safeguards::I_35_NOT_YET_VISIBLE) => CallError::NotFound,
            Some(_) => CallError::NotYetVisible,
        }
    }

    fn change(&mut self, caller: Account, id: OpId, verb: Verb) -> Result<Answer> {
        let mut peering = self.owned(caller, id)?;
        let label = self.label(id, &peering);
        let peer = peering.peer(id);
        let is_frozen = self.open(peer) == Err(CallError::Frozen(peer));
        let mut effect = transition(peering.side, label, verb);
        if verb == Verb::Delete && is_frozen && !peering.is_dead() {
            // The one call that is taken while frozen: the half goes off now, the rest after the thaw.
            effect = Ok(Effect::RaiseFlag);
        }
        let effect = effect?;
        // An end is always taken (IRC-42).
        if peering.stuck && !matches!(effect, Effect::Nothing | Effect::RaiseFlag) {
            return Err(CallError::Stuck);
        }
        match effect {
            Effect::Nothing if !self.keeps(Safeguards::I_34_DELETE_IDEMPOTENT) => {
                return Err(CallError::InvalidTransition { from: label, verb });
            }
            Effect::Nothing => {}
            Effect::Decide(decision) => {
                self.open(peer)?;
                let is_late = peering
                    .decided
                    .facts
                    .deadline
                    .is_none_or(|deadline| self.state.ledger.head.clock >= deadline);
                if is_late && self.keeps(Safeguards::I_38_DEADLINE_IN_TRANSACTION) {
                    return Err(CallError::InvalidTransition { from: Label::Expired, verb });
                }
                let Requested { target, .. } = peering.requested.facts;
                if decision == Decision::Accepted
                    && self.live_at(target.network) > self.cp.policy.quota[0]
                {
                    return Err(CallError::QuotaExceeded);
                }
                self.decide(id, &mut peering, decision);
                self.put(id, peering);
                self.log(Kind::PEERING, id, RecordVerb::Decide);
            }
            Effect::RaiseFlag => {
                self.raise_flag(id, &mut peering);
                self.put(id, peering);
                if !is_frozen {
                    self.log(Kind::PEERING, id, RecordVerb::Delete);
                }
            }
            Effect::WriteOptions => unreachable!("options have a call of their own"),
        }
        let peering = self.state.ledger.peerings.cloned(&id).ok_or(CallError::NotFound)?;
        Ok(Answer::Done { id, state: self.label(id, &peering) })
    }

    /// The options of the own side, if they are still as the caller has seen them.
    fn modify(
        &mut self,
        caller: Account,
        id: OpId,
        expected: Version,
        resolve_names: bool,
    ) -> Result<Answer> {
        let mut peering = self.owned(caller, id)?;
        transition(peering.side, self.label(id, &peering), Verb::Modify)?;
        self.open(peering.peer(id))?;
        if peering.stuck {
            return Err(CallError::Stuck);
        }
        let Peering { side, requested, decided, .. } = &mut peering;
        let n = self.state.ledger.head.incarnation.n;
        let options = match side {
            Side::Requester => &mut requested.facts.options,
            Side::Accepter => &mut decided.facts.options,
        };
        //= SPEC IRC-3
        //= SPEC API-4
        if options.version != expected && self.keeps(Safeguards::I_39_EXPECTED_VERSION) {
            return Err(CallError::VersionConflict(options.version));
        }
        let counter = if options.version.n == n { options.version.counter + 1 } else { 0 };
        let version = Version { n, counter };
        *options = Options { version, resolve_names };
        self.reseal(id, &mut peering);
        self.put(id, peering);
        self.log(Kind::PEERING, id, RecordVerb::Modify);
        Ok(Answer::Version { id, version })
    }

    fn shown(&self, id: OpId, peering: &Peering) -> Shown {
        Shown {
            id,
            side: peering.side,
            state: self.label(id, peering),
            requested: peering.requested.facts,
            decided: peering.decided.facts,
            frozen: self.open(peering.peer(id)).is_err(),
            stuck: peering.stuck,
        }
    }

    //= SPEC IRC-7
    fn get(&self, caller: Account, id: OpId) -> Result<Shown> {
        let peering = self.owned(caller, id)?;
        let shown = self.shown(id, &peering);
        if peering.is_visible(shown.state, self.state.ledger.head.clock) {
            Ok(shown)
        } else {
            Err(CallError::NotFound)
        }
    }

    fn list(&self, caller: Account, after: Option<OpId>) -> Answer {
        let all = self.state.index.of(caller, after);
        let mut mine = all.filter_map(|id| self.get(caller, id).ok());
        let peerings = mine.by_ref().take(PAGE).collect();
        Answer::Many { peerings, more: mine.next().is_some() }
    }

    fn explain(&self, caller: Account, id: OpId) -> Result<Answer> {
        let shown = self.get(caller, id)?;
        let peering = self.owned(caller, id)?;
        let mut waits_for = Vec::new();
        let ledger = &self.state.ledger;
        //= SPEC SEAL-11
        let mut records = self.state.index.records(id);
        for record in records.by_ref().take(WAITS_MAX) {
            let Some(what) = ledger.records.get(&record) else { continue };
            waits_for.push(if what.parked {
                Wait::Parked(record)
            } else {
                Wait::Record(record, what.verb)
            });
        }
        match records.count() {
            0 => {}
            more => waits_for.push(Wait::More(more.try_into().unwrap_or(u32::MAX))),
        }
        let peer = peering.peer(id);
        let is_frozen = self.open(peer).is_err();
        let sync = match (is_frozen, waits_for.is_empty()) {
            (true, true) => SyncLevel::LocalBehind,
            (true, false) => SyncLevel::Both,
            (false, false) => SyncLevel::RemoteBehind,
            (false, true) => SyncLevel::InSync,
        };
        if is_frozen {
            waits_for.push(Wait::Frozen(peer));
        }
        if self.state.paces.get(&peer).is_some_and(Pace::is_open) {
            waits_for.push(Wait::Silence(peer));
        }
        let clock = ledger.head.clock;
        let heard = self.state.heard.get(&peer).map(|&at| clock.saturating_sub(at));
        match shown.state {
            Label::PendingAcceptance => waits_for.push(Wait::Decision),
            Label::Provisioning => waits_for.push(Wait::Half),
            _ => {}
        }
        let other = match peering.side {
            Side::Requester => Side::Accepter,
            Side::Accepter => Side::Requester,
        };
        let peer_state = Peering { side: other, terminal: None, ..peering }.label(false);
        Ok(Answer::Explained { shown, peer_state, heard, sync, waits_for })
    }
}

/// A hash of what a call asks for. Options at the creation are left out: they are not among the facts
/// that never change, and a restored token must know its call again.
fn params(request: &Request) -> u64 {
    match request {
        Request::Create { network, target, .. } => digest(&(network, target)),
        other => digest(other),
    }
}
