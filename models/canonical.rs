//! The canonical form of a lease world: what makes unlimited time, renewals and takeovers finite.
//!
//! A lease runs for ever and its versions, epochs, incarnations and nonces grow for ever, but what can
//! happen next depends on little of that. Each rule below replaces a state by one that has the same
//! futures (a bisimulation), so that a property that sees only what the rules keep holds of one exactly
//! when it holds of the other.
//!
//! 1. **Dead messages go.** A request or an answer whose nonce its sender no longer waits for changes
//!    nothing when it arrives, except that a forgotten write may still be committed, as long as its
//!    expected version is the newest. A replica's answer to a term that is over changes nothing either.
//! 2. **A doomed write loses its content.** One that expects a past version can only be refused, and the
//!    refusal shows the record and the nonce, nothing of the write.
//! 3. **Nonces become few.** Nonces are only compared for equality with the few that are waited for. A
//!    read, an attempt and a release under way are the requests 1, 2 and 3 of their incarnation, every
//!    other request is its 0, and the next one is 4.
//! 4. **Past lives are alike.** Incarnations are only compared with that of the life that runs: it is 1,
//!    and every life before it is 0. (`unique_holder_per_epoch` could miss two past lives of one node
//!    that got one epoch. But a write that is committed expects the newest version, which was the newest
//!    already when it was sent, so there is also a run in which it is committed at once, by a life that
//!    still runs, and there the violation shows.)
//! 5. **Versions are ranked.** Only equality and order matter, and that a write makes a new newest.
//! 6. **Epochs are ranked**, likewise; and "one above" matters: every new epoch is one above that of the
//!    newest record. While writes are conditional, that one is the highest, so ranks keep it; in a model
//!    without such a rule, a gap is kept as a gap.
//! 7. **Hosts that differ only by name** may change places: they run the same actor.
//!
//! `tests/canonical.rs` compares the result with the raw world, state by state.

use super::lease::{Ghost, LeaseState};
use super::world::{Flight, Node};
use crate::lease::elector::{ElectorState, Phase, Then, Yielding};
use crate::lease::host::{HostState, HostStorage};
use crate::lease::msg::{Entry, EntryId, Msg};
use crate::lease::record::{Claim, Epoch, Expect, Holder, NodeId, NodeSet, Nonce, Record, Version};
use crate::lease::replica::{ReplicaState, Table};
use crate::lease::safeguards::Safeguards;
use crate::lease::{MemberState, Storage, Timer};
use crate::persistent::PersistentMap;

type LeaseNode = Node<MemberState, Storage, Timer>;

/// Brings a state into its canonical form. `hosts` may change places with each other; none do if there
/// are fewer than two.
pub(super) fn canonical(
    state: &mut LeaseState,
    store: usize,
    safeguards: Safeguards,
    hosts: &[usize],
) {
    let newest = record_of(&state.nodes[store]).map_or(0, |record| record.version);
    bury_the_dead(state, newest, safeguards);

    let mut few = FewNonces { waited_for: waited_for(&state.nodes) };
    walk(state, &mut few);
    for node in &mut state.nodes {
        if let Some(MemberState::Host(host)) = &mut node.state {
            host.elector.requests = 3;
        }
    }

    let mut lives = Lives(
        state.nodes.iter().map(|node| host_of(node).map(|host| host.elector.incarnation)).collect(),
    );
    walk(state, &mut lives);
    walk_granted(&mut state.ghost, &mut lives);
    walk(state, &mut Forget);

    let mut seen = Seen::default();
    walk(state, &mut seen);
    let conditional = Safeguards::L_15_RENEW_CONDITIONAL
        | Safeguards::L_16_RELEASE_CONDITIONAL
        | Safeguards::L_17_TAKEOVER_CONDITIONAL
        | Safeguards::L_22_STORE_CHECKS_VERSION;
    let mut ranks = seen.ranks(if safeguards.contains(conditional) { 1 } else { 2 });
    walk(state, &mut ranks);
    // What was granted long ago to a term of which no trace is left can no longer be asked about.
    let granted = std::mem::take(&mut state.ghost.granted);
    state.ghost.granted = granted
        .into_iter()
        .filter_map(|(epoch, holder)| Some((ranks.epochs.get(epoch)?, holder)))
        .collect();

    tidy(state);
    if hosts.len() > 1 {
        change_places(state, hosts);
    }
}

fn tidy(state: &mut LeaseState) {
    state.network.sort_unstable();
    // Messages of a timely network have an age and are each their own; two alike stay two.
    state.network.dedup_by(|a, b| a == b && a.latest == u16::MAX);
}

/// The record as the store has it, up or down.
pub(super) fn record_of(node: &LeaseNode) -> Option<&Record> {
    match (&node.state, &node.storage) {
        (Some(MemberState::Store(record)), _) | (None, Some(Storage::Store(record))) => {
            Some(record)
        }
        _ => None,
    }
}

pub(super) fn host_of(node: &LeaseNode) -> Option<&HostState> {
    match &node.state {
        Some(MemberState::Host(host)) => Some(host),
        _ => None,
    }
}

/// A replica's table: what it runs with, or what it would start with.
pub(super) fn table_of(node: &LeaseNode) -> Option<&Table> {
    match (&node.state, &node.storage) {
        (Some(MemberState::Host(host)), _) => host.replica.as_ref().map(|replica| &replica.table),
        (None, Some(Storage::Host(storage))) => storage.table.as_ref(),
        _ => None,
    }
}

// -------------------------------------------------------------------------------------------------
// Rules 1 to 3: messages and nonces
// -------------------------------------------------------------------------------------------------

/// For each nonce that somebody waits for, the number that stands for it.
fn waited_for(nodes: &[LeaseNode]) -> Few<Nonce> {
    let mut waited = Few(Vec::new());
    for node in nodes {
        let Some(HostState { elector, .. }) = host_of(node) else { continue };
        if let Some(reading) = elector.reading {
            waited.insert(reading.nonce, 1);
        }
        if let Some(attempt) = elector.attempt {
            waited.insert(attempt.nonce, 2);
        }
        if let Phase::Releasing { nonce, .. } = elector.phase {
            waited.insert(nonce, 3);
        }
    }
    waited
}

fn bury_the_dead(state: &mut LeaseState, newest: Version, safeguards: Safeguards) {
    let waited = waited_for(&state.nodes);
    let checks_version = safeguards.contains(Safeguards::L_22_STORE_CHECKS_VERSION);
    let fences = safeguards.contains(Safeguards::L_28_RESOURCE_FENCES);
    let nodes = &state.nodes;
    state.network.retain_mut(|Flight { src, dst, msg, .. }| {
        let src = usize::from(*src);
        let dst = usize::from(*dst);
        let serves = |node: usize, epoch: Epoch| {
            let replica = host_of(&nodes[node]).and_then(|host| host.replica.as_ref());
            replica.and_then(|replica| replica.primary.as_ref()).map(|primary| primary.epoch)
                == Some(epoch)
        };
        match msg {
            Msg::Read { nonce }
            | Msg::ReadOk { nonce, .. }
            | Msg::Written { nonce, .. }
            | Msg::Conflict { nonce, .. } => waited.get(*nonce).is_some(),
            Msg::Write { nonce, expect: Expect::Version(version), claim }
                if *version != newest && checks_version =>
            {
                *version = 0;
                *claim = Claim { holder: None, ..Record::absent().claim };
                claim.epoch = 0;
                // Nothing but a version that is past may stand there; before the first write none is.
                waited.get(*nonce).is_some()
            }
            Msg::Stopped { epoch } => host_of(&nodes[dst])
                .is_some_and(|host| host.elector.phase.writable() == Some(*epoch)),
            Msg::Replicated { epoch, .. }
            | Msg::Behind { epoch, .. }
            | Msg::Fenced { epoch, .. } => serves(dst, *epoch),
            Msg::Replicate { epoch, .. } => {
                let fence = table_of(&nodes[dst]).map_or(0, |table| table.fence);
                !fences || *epoch >= fence || serves(src, *epoch)
            }
            Msg::Applied { request, .. } | Msg::Refused { request, .. } => {
                match &nodes[dst].state {
                    Some(MemberState::Client(client)) => {
                        !client.queue.is_empty()
                            && client.incarnation == request.incarnation
                            && client.begun == request.n
                    }
                    _ => false,
                }
            }
            _ => true,
        }
    });
}

/// A map of a handful of keys: a search through it is faster than a tree.
struct Few<K>(Vec<(K, u64)>);

impl<K: Copy + PartialEq> Few<K> {
    fn get(&self, key: K) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == key).map(|&(_, value)| value)
    }
    fn insert(&mut self, key: K, value: u64) {
        self.0.push((key, value));
    }
}

struct FewNonces {
    waited_for: Few<Nonce>,
}

impl Rewrite for FewNonces {
    fn nonce(&mut self, nonce: &mut Nonce) {
        nonce.n = self.waited_for.get(*nonce).unwrap_or(0);
    }
}

// -------------------------------------------------------------------------------------------------
// Rules 4 to 6: ranks
// -------------------------------------------------------------------------------------------------

/// For each node, the life that runs, if one does.
struct Lives(Vec<Option<u64>>);

impl Rewrite for Lives {
    fn holder(&mut self, holder: &mut Holder) {
        let runs = self.0.get(usize::from(holder.node.0)).copied().flatten();
        holder.incarnation = u64::from(runs == Some(holder.incarnation));
    }
}

/// A nonce of a past life is compared with nothing any more: not even whose it was matters.
struct Forget;

impl Rewrite for Forget {
    fn nonce(&mut self, nonce: &mut Nonce) {
        if nonce.by.incarnation == 0 {
            *nonce = Nonce::NONE;
        }
    }
}

#[derive(Default)]
struct Seen {
    versions: Vec<Version>,
    epochs: Vec<Epoch>,
}

impl Rewrite for Seen {
    fn version(&mut self, version: &mut Version) {
        if !self.versions.contains(version) {
            self.versions.push(*version);
        }
    }
    fn epoch(&mut self, epoch: &mut Epoch) {
        if !self.epochs.contains(epoch) {
            self.epochs.push(*epoch);
        }
    }
}

impl Seen {
    /// 0 stays 0: it means "none yet".
    fn ranks(mut self, widest_gap: u64) -> Ranks {
        let ranked = |values: &mut Vec<u64>, widest_gap: u64| {
            let mut ranks = Few(Vec::new());
            let (mut value_before, mut rank) = (0, 0);
            values.sort_unstable();
            for &mut value in values {
                rank += (value - value_before).min(widest_gap);
                value_before = value;
                ranks.insert(value, rank);
            }
            ranks
        };
        Ranks {
            versions: ranked(&mut self.versions, 1),
            epochs: ranked(&mut self.epochs, widest_gap),
        }
    }
}

struct Ranks {
    versions: Few<Version>,
    epochs: Few<Epoch>,
}

impl Rewrite for Ranks {
    fn version(&mut self, version: &mut Version) {
        *version = self.versions.get(*version).expect("every version was seen");
    }
    fn epoch(&mut self, epoch: &mut Epoch) {
        *epoch = self.epochs.get(*epoch).expect("every epoch was seen");
    }
}

// -------------------------------------------------------------------------------------------------
// Rule 7: names
// -------------------------------------------------------------------------------------------------

struct Renamed<'a>(&'a [u16]);

impl Rewrite for Renamed<'_> {
    fn holder(&mut self, holder: &mut Holder) {
        holder.node = NodeId(self.0[usize::from(holder.node.0)]);
    }
    fn node(&mut self, node: &mut NodeId) {
        node.0 = self.0[usize::from(node.0)];
    }
    fn nodes(&mut self, nodes: &mut NodeSet) {
        *nodes = nodes.iter().map(|node| NodeId(self.0[usize::from(node.0)])).collect();
    }
}

/// Puts the hosts in the order that makes the state smallest.
///
/// Hosts are first sorted by what can be seen of each without any name; only those that look alike have
/// to be tried in every order.
fn change_places(state: &mut LeaseState, hosts: &[usize]) {
    let mut order = hosts.to_vec();
    order.sort_by(|&a, &b| look(state, a).cmp(&look(state, b)));
    if order.is_sorted_by(|&a, &b| look(state, a) != look(state, b)) {
        return rename(state, hosts, &order);
    }
    let mut orders = vec![Vec::new()];
    let mut rest = order.as_slice();
    while let Some(&first) = rest.first() {
        let same = look(state, first);
        let alike = rest.iter().take_while(|&&host| look(state, host) == same).count();
        let group = permutations(&rest[..alike]);
        orders = orders
            .iter()
            .flat_map(|prefix: &Vec<usize>| {
                group.iter().map(move |tail| [prefix.as_slice(), tail].concat())
            })
            .collect();
        rest = &rest[alike..];
    }
    let renamed = |order: &Vec<usize>| {
        let mut state = state.clone();
        rename(&mut state, hosts, order);
        state
    };
    *state = orders.iter().map(renamed).min().expect("there is at least one order");
}

/// What can be seen of a host without any name.
fn look(state: &LeaseState, host: usize) -> impl Ord + '_ {
    let node = &state.nodes[host];
    let elector = host_of(node).map(|host| &host.elector);
    let phase = elector.map(|elector| match elector.phase {
        Phase::Watching { yielding, ripe } => (0, u64::from(yielding.is_some()), u64::from(ripe)),
        Phase::Acquiring => (1, 0, 0),
        Phase::Holding { epoch, slot } => (2, epoch, slot as u64),
        Phase::Stopping { epoch, .. } => (3, epoch, 0),
        Phase::Releasing { epoch, .. } => (4, epoch, 0),
        Phase::Retired => (5, 0, 0),
    });
    let seen = elector.and_then(|elector| elector.seen.as_ref()).map(|seen| seen.version);
    let busy = elector.map(|elector| (elector.reading.is_some(), elector.attempt.is_some()));
    (phase, seen, busy, node.condition, &node.timers)
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    let Some((&first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for tail in permutations(rest) {
        for place in 0..=tail.len() {
            let mut permutation = tail.clone();
            permutation.insert(place, first);
            all.push(permutation);
        }
    }
    all
}

/// Gives `order[i]` the name `hosts[i]`.
fn rename(state: &mut LeaseState, hosts: &[usize], order: &[usize]) {
    if order == hosts {
        return;
    }
    let mut names: Vec<u16> = (0..state.nodes.len()).map(|node| node as u16).collect();
    for (&host, &old) in hosts.iter().zip(order) {
        names[old] = host as u16;
    }
    let ghost = state.ghost.clone();
    let mut nodes: Vec<_> = std::mem::take(&mut state.nodes).into_iter().enumerate().collect();
    nodes.sort_unstable_by_key(|&(old, _)| names[old]);
    for (new, (old, node)) in nodes.into_iter().enumerate() {
        state.nodes.push(node);
        if new != old {
            state.ghost.move_host(&ghost, old, new);
        }
    }
    for flight in &mut state.network {
        flight.src = names[usize::from(flight.src)];
        flight.dst = names[usize::from(flight.dst)];
    }
    walk(state, &mut Renamed(&names));
    walk_granted(&mut state.ghost, &mut Renamed(&names));
    state.network.sort_unstable();
}

// -------------------------------------------------------------------------------------------------
// The walk: every value of a state that a rule may rewrite
// -------------------------------------------------------------------------------------------------

trait Rewrite {
    fn nonce(&mut self, _: &mut Nonce) {}
    fn holder(&mut self, _: &mut Holder) {}
    fn version(&mut self, _: &mut Version) {}
    fn epoch(&mut self, _: &mut Epoch) {}
    fn node(&mut self, _: &mut NodeId) {}
    fn nodes(&mut self, _: &mut NodeSet) {}
}

fn walk(state: &mut LeaseState, r: &mut impl Rewrite) {
    for (index, node) in state.nodes.iter_mut().enumerate() {
        let id = NodeId(index as u16);
        match &mut node.state {
            Some(MemberState::Host(host)) => {
                walk_elector(&mut host.elector, id, r);
                if let Some(replica) = &mut host.replica {
                    walk_replica(replica, r);
                }
            }
            Some(MemberState::Store(record)) => walk_record(record, r),
            Some(MemberState::Client(client)) => {
                if let Some((_, epoch, _)) = &mut client.last {
                    r.epoch(epoch);
                }
            }
            None => {}
        }
        match &mut node.storage {
            Some(Storage::Host(HostStorage { incarnation, resumed, table })) => {
                walk_incarnation(incarnation, id, r);
                if let Some(record) = resumed {
                    walk_record(record, r);
                }
                if let Some(table) = table {
                    walk_table(table, r);
                }
            }
            Some(Storage::Store(record)) => walk_record(record, r),
            Some(Storage::Client(_)) | None => {}
        }
    }
    for flight in &mut state.network {
        walk_msg(&mut flight.msg, r);
    }
    let ghost = &mut state.ghost;
    r.epoch(&mut ghost.epoch);
    if let Some(holder) = &mut ghost.holder {
        walk_holder(holder, r);
    }
    for epoch in &mut ghost.applied {
        r.epoch(epoch);
    }
    if let Some((node, epoch)) = &mut ghost.first_leader {
        r.node(node);
        r.epoch(epoch);
    }
}

fn walk_granted(ghost: &mut Ghost, r: &mut impl Rewrite) {
    for (&epoch, holder) in &mut ghost.granted {
        r.epoch(&mut epoch.clone());
        walk_holder(holder, r);
    }
}

/// An incarnation that stands alone, with the node it is of.
fn walk_incarnation(incarnation: &mut u64, node: NodeId, r: &mut impl Rewrite) {
    let mut holder = Holder { node, incarnation: *incarnation };
    r.holder(&mut holder);
    *incarnation = holder.incarnation;
}

fn walk_holder(holder: &mut Holder, r: &mut impl Rewrite) {
    r.holder(holder);
}

fn walk_nonce(nonce: &mut Nonce, r: &mut impl Rewrite) {
    r.nonce(nonce);
    if *nonce != Nonce::NONE {
        walk_holder(&mut nonce.by, r);
    }
}

fn walk_claim(claim: &mut Claim, r: &mut impl Rewrite) {
    if let Some(holder) = &mut claim.holder {
        walk_holder(holder, r);
    }
    r.epoch(&mut claim.epoch);
    r.nodes(&mut claim.in_sync);
}

fn walk_record(record: &mut Record, r: &mut impl Rewrite) {
    r.version(&mut record.version);
    walk_nonce(&mut record.nonce, r);
    walk_claim(&mut record.claim, r);
}

fn walk_elector(elector: &mut ElectorState, me: NodeId, r: &mut impl Rewrite) {
    walk_incarnation(&mut elector.incarnation, me, r);
    if let Some(record) = &mut elector.seen {
        walk_record(record, r);
    }
    if let Some(reading) = &mut elector.reading {
        walk_nonce(&mut reading.nonce, r);
    }
    if let Some(attempt) = &mut elector.attempt {
        walk_nonce(&mut attempt.nonce, r);
        r.nodes(&mut attempt.in_sync);
    }
    r.nodes(&mut elector.exposed);
    match &mut elector.phase {
        Phase::Watching { yielding: Some(Yielding::To(node)), .. } => r.node(node),
        Phase::Holding { epoch, .. } => r.epoch(epoch),
        Phase::Stopping { epoch, then } => {
            r.epoch(epoch);
            if let Then::HandOver(node) = then {
                r.node(node);
            }
        }
        Phase::Releasing { epoch, nonce, .. } => {
            r.epoch(epoch);
            walk_nonce(nonce, r);
        }
        _ => {}
    }
}

fn walk_entry(entry: &mut Entry, r: &mut impl Rewrite) {
    r.epoch(&mut entry.epoch);
}

fn walk_entry_id(id: &mut EntryId, r: &mut impl Rewrite) {
    r.epoch(&mut id.epoch);
}

fn walk_table(table: &mut Table, r: &mut impl Rewrite) {
    r.epoch(&mut table.fence);
    if !table.log.is_empty() {
        let log: PersistentMap<_, _> = table
            .log
            .iter()
            .map(|(&seq, entry)| {
                let mut entry = entry.clone();
                walk_entry(&mut entry, r);
                (seq, entry)
            })
            .collect();
        table.log = log;
    }
}

fn walk_replica(replica: &mut ReplicaState, r: &mut impl Rewrite) {
    walk_table(&mut replica.table, r);
    if let Some(primary) = &mut replica.primary {
        r.epoch(&mut primary.epoch);
    }
}

fn walk_msg(msg: &mut Msg, r: &mut impl Rewrite) {
    match msg {
        Msg::Read { nonce } => walk_nonce(nonce, r),
        Msg::ReadOk { nonce, record }
        | Msg::Written { nonce, record }
        | Msg::Conflict { nonce, record } => {
            walk_nonce(nonce, r);
            walk_record(record, r);
        }
        Msg::Write { nonce, expect, claim } => {
            walk_nonce(nonce, r);
            if let Expect::Version(version) = expect {
                r.version(version);
            }
            walk_claim(claim, r);
        }
        Msg::Changed { version } => r.version(version),
        Msg::HandOver { target, epoch } => {
            r.node(target);
            r.epoch(epoch);
        }
        Msg::StepDown { epoch } | Msg::Stopped { epoch } | Msg::Applied { epoch, .. } => {
            r.epoch(epoch);
        }
        Msg::Consent { record } => walk_record(record, r),
        Msg::Replicate { epoch, prev, entry, .. } => {
            r.epoch(epoch);
            walk_entry_id(prev, r);
            if let Some((_, entry)) = entry {
                walk_entry(entry, r);
            }
        }
        Msg::Replicated { epoch, .. } | Msg::Behind { epoch, .. } => r.epoch(epoch),
        Msg::Fenced { epoch, fence } => {
            r.epoch(epoch);
            r.epoch(fence);
        }
        Msg::Refused { holder: Some(holder), .. } => r.node(holder),
        Msg::Apply { .. } | Msg::Refused { .. } | Msg::Submit { .. } => {}
    }
}
