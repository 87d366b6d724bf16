//! The replica: one host's copy of the table, and the resource that the epoch fences.
//!
//! The holder's replica is the *primary*. It puts each client's write at the end of its history, copies
//! it to the others, and acknowledges it when every node that is or may be in the record's in-sync set
//! has it durably. Only those nodes may take over, so whoever does has every acknowledged write.
//!
//! # Why no acknowledged write is lost
//!
//! 1. An entry is known by its position and the epoch of the primary that accepted it; an epoch has one
//!    primary, so the pair is unique. A replica takes an entry only next to one on which both agree, so
//!    two histories that share an entry agree on everything before it.
//! 2. A write is acknowledged when all of the primary's `exposed` set agrees with its history up to
//!    there. That set contains every in-sync set that the store can hold while this epoch lasts.
//! 3. Whoever takes over is in that set, so its history has the write; by induction over epochs every
//!    later primary's has.
//! 4. A replica drops entries only where a primary of a higher epoch has another at the same place,
//!    and by 3 such entries were never acknowledged.
//! 5. A primary that has been deposed without knowing it cannot acknowledge: any successor was in its
//!    exposed set, has raised its own fence in the step in which it became primary, and refuses (L-28).
//!
//! The history is compacted: an entry at or below `committed` goes when a later committed one has
//! replaced its value, unless it is its client's latest, which is kept so that a client that asks
//! again is answered and not obeyed twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::elector::exactly;
use super::msg::{Entry, EntryId, Msg, RequestId, Seq, TEXT_MAX};
use super::record::{Epoch, NodeId, NodeSet};
use super::safeguards::Safeguards;
use super::{Out, Timer};
use crate::persistent::PersistentMap;

/// What one replica is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The host it is on.
    pub me: NodeId,
    /// Every host of the lease, this one among them.
    pub hosts: NodeSet,
    /// How long a primary waits before it sends again to a replica that lags.
    pub resend: std::time::Duration,
    /// After how many such waits without an answer it wants the replica out of the in-sync set.
    pub patience: u8,
    /// The rules it keeps.
    pub safeguards: Safeguards,
}

/// The durable part of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// The highest epoch that has shown itself here: effects below it are refused.
    pub fence: Epoch,
    /// Up to here every in-sync replica agrees: these entries stay for ever, or until replaced.
    pub committed: Seq,
    /// The history, compacted up to `committed`.
    pub log: PersistentMap<Seq, Entry>,
    /// Where the committed value of each key is.
    pub by_key: PersistentMap<String, Seq>,
    /// Where each client's latest committed write is.
    pub by_client: PersistentMap<NodeId, Seq>,
}

/// A replica in operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaState {
    /// Its durable part. Changes are saved in the step that makes them, except for a `committed` that
    /// has only moved on: that is a lower bound, and an older one is as true.
    pub table: Table,
    /// What it keeps while its host holds the lease.
    pub primary: Option<Primary>,
}

/// What a primary knows of the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Primary {
    /// Its term.
    pub epoch: Epoch,
    /// The other replicas.
    pub peers: BTreeMap<NodeId, Peer>,
    /// The writes that wait for their acknowledgement.
    pub waiting: BTreeMap<Seq, RequestId>,
}

/// What a primary knows of one other replica.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Peer {
    /// Up to where it agrees with the primary, durably; unknown at first.
    pub matched: Option<Seq>,
    /// What it has been told is committed.
    pub told: Seq,
    /// How often it has been asked in vain.
    pub silent: u8,
}

impl Table {
    /// The place of the last entry.
    pub fn last(&self) -> EntryId {
        self.log
            .last()
            .map_or_else(EntryId::default, |(&seq, entry)| EntryId { seq, epoch: entry.epoch })
    }

    /// The committed value of a key.
    pub fn get(&self, key: &str) -> Option<(&str, Seq)> {
        let seq = *self.by_key.get(&key.to_owned())?;
        Some((&self.log.get(&seq)?.value, seq))
    }

    /// Where this write is, if it is here or a later one of the same client is.
    fn find(&self, request: RequestId) -> Found {
        let pending = self.log.above(self.committed).map(|(&seq, entry)| (seq, entry.request));
        let committed = self
            .by_client
            .get(&request.client)
            .and_then(|seq| self.log.get(seq).map(|entry| (*seq, entry.request)));
        let latest = pending.chain(committed).filter(|(_, known)| known.client == request.client);
        match latest.max_by_key(|&(_, known)| known) {
            Some((seq, known)) if known == request => Found::At(seq),
            Some((_, known)) if known > request => Found::Overtaken,
            _ => Found::No,
        }
    }

    /// Moves `committed` on, and drops what the newly committed entries replace.
    fn commit(&mut self, up_to: Seq) {
        let news: Vec<Seq> = self
            .log
            .above(self.committed)
            .map(|(&seq, _)| seq)
            .take_while(|&seq| seq <= up_to)
            .collect();
        for seq in news {
            let entry = self.log.get(&seq).expect("just listed").clone();
            let replaced = [
                self.by_key.insert(entry.key, seq),
                self.by_client.insert(entry.request.client, seq),
            ];
            for old in replaced.into_iter().flatten() {
                let Some(entry) = self.log.get(&old) else { continue };
                let is_value = self.by_key.get(&entry.key) == Some(&old);
                let is_latest = self.by_client.get(&entry.request.client) == Some(&old);
                if !is_value && !is_latest {
                    self.log.remove(&old);
                }
            }
        }
        self.committed = self.committed.max(up_to);
    }

    /// Builds what is derived, from a fence, a `committed` and a history that were stored.
    pub fn restore(fence: Epoch, committed: Seq, log: PersistentMap<Seq, Entry>) -> Self {
        let mut table = Self {
            fence,
            committed,
            log,
            by_key: PersistentMap::default(),
            by_client: PersistentMap::default(),
        };
        let stored: Vec<(Seq, String, NodeId)> = table
            .log
            .iter()
            .take_while(|&(&seq, _)| seq <= committed)
            .map(|(&seq, entry)| (seq, entry.key.clone(), entry.request.client))
            .collect();
        for (seq, key, client) in stored {
            table.by_key.insert(key, seq);
            table.by_client.insert(client, seq);
        }
        table
    }
}

enum Found {
    At(Seq),
    Overtaken,
    No,
}

/// What a replica's step asks of its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct Asks {
    /// Save the table.
    pub(super) save: bool,
    /// An epoch above the host's own has shown itself: end the term.
    pub(super) deposed: bool,
}

impl Replica {
    fn keeps(&self, rule: Safeguards) -> bool {
        self.safeguards.contains(rule)
    }

    // ---------------------------------------------------------------------------------------------
    // Becoming primary, and ceasing to be
    // ---------------------------------------------------------------------------------------------

    /// The lease is known to be held: raise the fence, ask the others where they stand, open.
    //= SPEC LEASE-17
    pub(super) fn promote(&self, state: &mut ReplicaState, epoch: Epoch, o: &mut Out) -> Asks {
        if state.table.fence > epoch {
            return Asks { deposed: true, ..Asks::default() };
        }
        state.table.fence = epoch;
        let peers = self.hosts.without(self.me).iter().map(|peer| (peer, Peer::default()));
        state.primary = Some(Primary { epoch, peers: peers.collect(), waiting: BTreeMap::new() });
        for peer in self.hosts.without(self.me).iter() {
            self.replicate(state, peer, o);
        }
        o.set_timer(Timer::Resend, exactly(self.resend));
        Asks { save: true, ..Asks::default() }
    }

    /// The term has ended: nothing is accepted or acknowledged from here on.
    pub(super) fn demote(&self, state: &mut ReplicaState, o: &mut Out) {
        state.primary = None;
        o.cancel_timer(Timer::Resend);
    }

    // ---------------------------------------------------------------------------------------------
    // Primary
    // ---------------------------------------------------------------------------------------------

    /// A client wants a row written. `holder` is who is primary, as far as this host knows.
    //= SPEC LEASE-18
    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_apply(
        &self,
        state: &mut ReplicaState,
        src: Id,
        request: RequestId,
        key: &str,
        value: &str,
        holder: Option<NodeId>,
        o: &mut Out,
    ) -> Asks {
        let Some(primary) = &mut state.primary else {
            o.send(src, Msg::Refused { request, holder });
            return Asks::default();
        };
        // A node speaks for itself only, and an entry must fit a datagram.
        if Id::from(request.client) != src || key.len() > TEXT_MAX || value.len() > TEXT_MAX {
            return Asks::default();
        }
        match state.table.find(request) {
            Found::At(seq) if seq <= state.table.committed => {
                o.send(src, Msg::Applied { request, epoch: primary.epoch, seq });
                Asks::default()
            }
            Found::At(seq) => {
                primary.waiting.insert(seq, request);
                Asks::default()
            }
            Found::Overtaken => Asks::default(),
            Found::No => {
                let last = state.table.last().seq.max(state.table.committed);
                let Some(seq) = last.checked_add(1) else { return Asks::default() };
                let entry = Entry {
                    epoch: primary.epoch,
                    request,
                    key: key.to_owned(),
                    value: value.to_owned(),
                };
                primary.waiting.insert(seq, request);
                state.table.log.insert(seq, entry);
                let ready: Vec<NodeId> = primary
                    .peers
                    .iter()
                    .filter(|(_, peer)| peer.matched == Some(last))
                    .map(|(&node, _)| node)
                    .collect();
                for peer in ready {
                    self.replicate(state, peer, o);
                }
                Asks { save: true, ..Asks::default() }
            }
        }
    }

    /// Sends a peer the entry after the last on which it agrees, or asks it where it stands.
    fn replicate(&self, state: &mut ReplicaState, peer: NodeId, o: &mut Out) {
        let Some(primary) = &mut state.primary else { return };
        let known = primary.peers.get_mut(&peer).expect("a peer is a host of the lease");
        let table = &state.table;
        let matched = known.matched.unwrap_or_else(|| table.last().seq);
        let entry = table.log.above(matched).next().map(|(&seq, entry)| (seq, entry.clone()));
        // Compaction may have taken the very entry on which both agree; the one before it serves.
        let prev = table
            .log
            .at_or_below(&matched)
            .map_or_else(EntryId::default, |(&seq, entry)| EntryId { seq, epoch: entry.epoch });
        known.told = table.committed;
        let msg = Msg::Replicate { epoch: primary.epoch, prev, entry, committed: table.committed };
        o.send(peer.into(), msg);
    }

    pub(super) fn on_replicated(
        &self,
        state: &mut ReplicaState,
        src: NodeId,
        epoch: Epoch,
        matched: Seq,
        o: &mut Out,
    ) {
        let last = state.table.last().seq;
        let Some(peer) = peer_of(state, src, epoch) else { return };
        if matched > last {
            return;
        }
        peer.silent = 0;
        if peer.matched.is_none_or(|known| known < matched) {
            peer.matched = Some(matched);
            if matched < last {
                self.replicate(state, src, o);
            }
        }
    }

    /// A peer's history ends or differs before the place that was asked about: go back to what it has
    /// for certain, on which all histories agree.
    pub(super) fn on_behind(
        &self,
        state: &mut ReplicaState,
        src: NodeId,
        epoch: Epoch,
        committed: Seq,
        o: &mut Out,
    ) {
        let last = state.table.last().seq;
        let Some(peer) = peer_of(state, src, epoch) else { return };
        if peer.matched.is_none() && committed <= last {
            peer.silent = 0;
            peer.matched = Some(committed);
            self.replicate(state, src, o);
        }
    }

    /// It is time to send again to those who lag, and to tell the others what is committed.
    pub(super) fn on_resend(&self, state: &mut ReplicaState, o: &mut Out) {
        let last = state.table.last().seq;
        let committed = state.table.committed;
        let Some(primary) = &mut state.primary else { return };
        let mut due = Vec::new();
        for (&node, peer) in &mut primary.peers {
            let lags = peer.matched != Some(last);
            if lags {
                peer.silent = peer.silent.saturating_add(1).min(self.patience);
            }
            if lags || peer.told < committed {
                due.push(node);
            }
        }
        for node in due {
            self.replicate(state, node, o);
        }
        o.set_timer(Timer::Resend, exactly(self.resend));
    }

    /// Acknowledges what every node that may take over has. `exposed` is the elector's: the nodes that
    /// are, or may be, in the record's in-sync set.
    //= SPEC LEASE-19
    pub(super) fn acknowledge(&self, state: &mut ReplicaState, exposed: NodeSet, o: &mut Out) {
        let last = state.table.last().seq;
        let Some(primary) = &mut state.primary else { return };
        let agreed = primary
            .peers
            .iter()
            .filter(|(node, peer)| {
                let given_up =
                    peer.silent >= self.patience && !self.keeps(Safeguards::L_41_IN_SYNC_SET);
                exposed.contains(**node) && !given_up
            })
            .map(|(_, peer)| peer.matched.unwrap_or(0))
            .min()
            .unwrap_or(last);
        if agreed > state.table.committed {
            state.table.commit(agreed);
        }
        while let Some(first) = primary.waiting.first_entry() {
            let seq = *first.key();
            if seq > state.table.committed {
                break;
            }
            let request = first.remove();
            let msg = Msg::Applied { request, epoch: primary.epoch, seq };
            o.send(request.client.into(), msg);
        }
    }

    /// The in-sync set that the primary would like, given the record's: without those who do not
    /// answer, with those who have caught up (L-41).
    //= SPEC LEASE-20
    pub(super) fn wanted(&self, state: &ReplicaState, in_sync: NodeSet) -> NodeSet {
        let last = state.table.last().seq;
        let Some(primary) = &state.primary else { return in_sync };
        primary.peers.iter().fold(in_sync.with(self.me), |wanted, (&node, peer)| {
            if peer.silent >= self.patience {
                wanted.without(node)
            } else if peer.matched == Some(last) {
                wanted.with(node)
            } else {
                wanted
            }
        })
    }

    // ---------------------------------------------------------------------------------------------
    // Secondary
    // ---------------------------------------------------------------------------------------------

    /// A primary wants an entry copied.
    //= SPEC LEASE-21
    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_replicate(
        &self,
        state: &mut ReplicaState,
        src: NodeId,
        epoch: Epoch,
        prev: EntryId,
        entry: Option<&(Seq, Entry)>,
        committed: Seq,
        o: &mut Out,
    ) -> Asks {
        let table = &mut state.table;
        let mut asks = Asks::default();
        if epoch < table.fence && self.keeps(Safeguards::L_28_RESOURCE_FENCES) {
            o.send(src.into(), Msg::Fenced { epoch, fence: table.fence });
            return asks;
        }
        // An epoch has one primary, and under this one it is us: whoever says otherwise is wrong.
        if state.primary.as_ref().is_some_and(|primary| primary.epoch == epoch) {
            return asks;
        }
        if epoch > table.fence {
            table.fence = epoch;
            asks.save = true;
            asks.deposed = state.primary.as_ref().is_some_and(|primary| primary.epoch < epoch);
        }
        let agrees = prev.seq <= table.committed
            || table.log.get(&prev.seq).is_some_and(|known| known.epoch == prev.epoch);
        if !agrees {
            o.send(src.into(), Msg::Behind { epoch, committed: table.committed });
            return asks;
        }
        let matched = match entry {
            None => prev.seq,
            Some((seq, entry)) => {
                let is_here = *seq <= table.committed
                    || table.log.get(seq).is_some_and(|known| known.epoch == entry.epoch);
                if !is_here {
                    // Whatever stands behind the agreed place was never acknowledged.
                    let keep = prev.seq.max(table.committed);
                    let gone: Vec<Seq> = table.log.above(keep).map(|(&seq, _)| seq).collect();
                    for seq in gone {
                        table.log.remove(&seq);
                    }
                    table.log.insert(*seq, entry.clone());
                    asks.save = true;
                }
                *seq
            }
        };
        if committed.min(matched) > table.committed {
            table.commit(committed.min(matched));
        }
        o.send(src.into(), Msg::Replicated { epoch, matched });
        asks
    }
}

/// The peer that an answer is from, if it answers this term.
fn peer_of(state: &mut ReplicaState, src: NodeId, epoch: Epoch) -> Option<&mut Peer> {
    let primary = state.primary.as_mut().filter(|primary| primary.epoch == epoch)?;
    primary.peers.get_mut(&src)
}
