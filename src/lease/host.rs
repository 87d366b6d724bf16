//! The host: an elector and, where tenure keeps the table itself, a replica of it.
//!
//! Both live in one process and change in one step: the replica is primary exactly while the elector
//! holds, and there is no instant between the two in which a crash or a message could fit.

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::elector::{Elector, ElectorState, Then};
use super::msg::Msg;
use super::record::{NodeId, Record};
use super::replica::{Asks, Replica, ReplicaState, Table};
use super::safeguards::Safeguards;
use super::{Out, Storage, Timer};

/// What one host is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its elector.
    pub elector: Elector,
    /// Its replica, unless the host guards something that tenure does not keep.
    pub replica: Option<Replica>,
}

/// A running host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostState {
    /// Its elector's part.
    pub elector: ElectorState,
    /// Its replica's part.
    pub replica: Option<ReplicaState>,
}

/// What a host has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostStorage {
    /// The life that is running, or was the last.
    pub incarnation: u64,
    /// The record of the last term: only without L-30.
    pub resumed: Option<Record>,
    /// The replica's table.
    pub table: Option<Table>,
}

impl Host {
    fn me(&self) -> NodeId {
        self.elector.me
    }

    pub(super) fn on_start(&self, storage: Option<&HostStorage>, o: &mut Out) -> HostState {
        // A new life, durable before its first message: no nonce is ever used twice (TIME-3).
        //= SPEC LEASE-22
        let incarnation = storage.map_or(0, |storage| storage.incarnation) + 1;
        let resumed = storage.and_then(|storage| storage.resumed.as_ref());
        let table = storage.and_then(|storage| storage.table.clone()).unwrap_or_default();
        let replica = self.replica.as_ref().map(|_| ReplicaState { table, primary: None });
        let elector = self.elector.on_start(incarnation, resumed, o);
        let mut state = HostState { elector, replica };
        self.save(&state, resumed.cloned(), o);
        self.settle(&mut state, o);
        state
    }

    pub(super) fn on_msg(&self, state: &mut HostState, src: Id, msg: &Msg, o: &mut Out) {
        let node = NodeId::from(src);
        match (&self.replica, &mut state.replica) {
            (Some(replica), Some(table)) if is_for_replica(msg) => {
                let holder = state.elector.seen.as_ref().and_then(|seen| seen.claim.holder);
                let holder = holder.map(|holder| holder.node).filter(|&node| node != self.me());
                let asks = replica_msg(replica, table, src, msg, holder, o);
                self.grant_asks(state, asks, o);
            }
            _ => self.elector.on_msg(&mut state.elector, node, msg, o),
        }
        self.settle(state, o);
    }

    pub(super) fn on_timeout(&self, state: &mut HostState, timer: Timer, o: &mut Out) {
        match (timer, &self.replica, &mut state.replica) {
            (Timer::Resend, Some(replica), Some(table)) => replica.on_resend(table, o),
            _ => self.elector.on_timeout(&mut state.elector, timer, o),
        }
        self.settle(state, o);
    }

    fn grant_asks(&self, state: &mut HostState, asks: Asks, o: &mut Out) {
        if asks.save {
            self.save(state, None, o);
        }
        if asks.deposed && state.elector.phase.holding().is_some() {
            self.elector.stop(&mut state.elector, Then::Watch, o);
        }
    }

    /// Brings the replica in line with the elector, at the end of every step.
    //= SPEC LEASE-31
    fn settle(&self, state: &mut HostState, o: &mut Out) {
        if !self.elector.safeguards.contains(Safeguards::L_30_NO_RESUME)
            && state.elector.phase.holding().is_some()
        {
            self.save(state, state.elector.seen.clone(), o);
        }
        let Some(replica) = &self.replica else { return };
        let Some(table) = &mut state.replica else { return };
        let serving = table.primary.as_ref().map(|primary| primary.epoch);
        let holding = state.elector.phase.holding();
        if serving != holding && serving.is_some() {
            replica.demote(table, o);
        }
        if let Some(epoch) = holding
            && serving != holding
        {
            let asks = replica.promote(table, epoch, o);
            self.grant_asks(state, asks, o);
        }
        self.serve(state, o);
    }

    /// What a primary does at the end of every step: acknowledge what it may, and ask for the in-sync
    /// set that it wants.
    fn serve(&self, state: &mut HostState, o: &mut Out) {
        let Some(replica) = &self.replica else { return };
        let Some(table) = &mut state.replica else { return };
        if table.primary.is_none() || state.elector.phase.holding().is_none() {
            return;
        }
        let in_sync =
            state.elector.seen.as_ref().expect("a holder has seen its record").claim.in_sync;
        let wanted = replica.wanted(table, in_sync);
        if wanted != in_sync && state.elector.attempt.is_none() {
            self.elector.attempt_with(&mut state.elector, wanted, o);
        }
        // After the attempt, which may have added to what is exposed: a node that may soon take over
        // must have what is acknowledged from now on.
        replica.acknowledge(table, state.elector.exposed.without(self.me()), o);
    }

    fn save(&self, state: &HostState, resumed: Option<Record>, o: &mut Out) {
        o.save(Storage::Host(HostStorage {
            incarnation: state.elector.incarnation,
            resumed,
            table: state.replica.as_ref().map(|replica| replica.table.clone()),
        }));
    }
}

fn is_for_replica(msg: &Msg) -> bool {
    matches!(
        msg,
        Msg::Apply { .. }
            | Msg::Replicate { .. }
            | Msg::Replicated { .. }
            | Msg::Behind { .. }
            | Msg::Fenced { .. }
    )
}

fn replica_msg(
    replica: &Replica,
    state: &mut ReplicaState,
    src: Id,
    msg: &Msg,
    holder: Option<NodeId>,
    o: &mut Out,
) -> Asks {
    let node = NodeId::from(src);
    match msg {
        Msg::Apply { request, key, value } => {
            return replica.on_apply(state, src, *request, key, value, holder, o);
        }
        // From here on, only other hosts of the lease are heard.
        _ if !replica.hosts.contains(node) || node == replica.me => {}
        Msg::Replicate { epoch, prev, entry, committed } => {
            return replica.on_replicate(state, node, *epoch, *prev, entry.as_ref(), *committed, o);
        }
        Msg::Replicated { epoch, matched } => {
            replica.on_replicated(state, node, *epoch, *matched, o);
        }
        Msg::Behind { epoch, committed } => replica.on_behind(state, node, *epoch, *committed, o),
        Msg::Fenced { epoch, fence } => {
            // A replica has seen a higher epoch: this term is over, whatever the timers say.
            let serving = state.primary.as_ref().map(|primary| primary.epoch);
            let deposed = serving == Some(*epoch) && fence > epoch;
            return Asks { deposed, ..Asks::default() };
        }
        _ => {}
    }
    Asks::default()
}
