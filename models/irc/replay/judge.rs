//! The invariants of the models, asked of what a step has touched.

use std::collections::BTreeSet;

use stateright::actor::Id;

use super::{Ghost, NodeOf, ReplayObserver, ReplayState, ReplayWorld};
use crate::irc::audit;
use crate::irc::facts::{Decision, OpId, Region};
use crate::irc::ledger::{ControlState, Ledger, Link, Peer};
use crate::irc::msg::{Msg, Request};
use crate::irc::peering::{Label, Peering, Side};
use crate::irc::results::Results;
use crate::irc::{PartyState, Storage};
use crate::models::irc::stored;
use crate::models::world::{Action, Event};

fn control(state: Option<&PartyState>) -> Option<&ControlState> {
    match state {
        Some(PartyState::Control(control)) => Some(control),
        _ => None,
    }
}

/// Judges a step, and notes what it has broken.
//= SPEC TRACE-8
pub(super) fn observe(
    observer: &ReplayObserver,
    world: &ReplayWorld,
    before: &ReplayState,
    action: Action,
    after: &mut ReplayState,
) {
    let node = match action {
        Action::Deliver(place) => before.network[usize::from(place)].dst,
        Action::Fire { node, .. } | Action::Recover(node) => node,
        _ => return,
    };
    let said = || match world.event(before, action) {
        Event::Deliver { src, msg, .. } => Some((Id::from(usize::from(src)), msg)),
        _ => None,
    };
    let mut ghost = std::mem::take(&mut after.ghost);
    judge(observer, node, &before.nodes, said, &after.nodes, &mut ghost);
    after.ghost = ghost;
}

/// Judges a step of this node, which took all nodes from `before` to `after`.
fn judge(
    observer: &ReplayObserver,
    node: u16,
    before: &[NodeOf],
    said: impl FnOnce() -> Option<(Id, Msg)>,
    after: &[NodeOf],
    ghost: &mut Ghost,
) {
    let index = usize::from(node);
    let Some(new) = control(after[index].state.as_ref()) else { return };
    let old = control(before[index].state.as_ref());
    let ledgers = || {
        let states = after.iter().filter_map(|node| control(node.state.as_ref()));
        states.map(|state| &state.ledger)
    };
    let mut step = Step { observer, node, old, new, said: said(), broken: BTreeSet::new() };
    let touched = step.touched();
    for &id in &touched {
        step.judge(id);
        step.is_kept("one_decision", stored::one_decision(ledgers(), id));
        step.judge_death(id, ghost, after);
    }
    step.judge_call(ghost);
    step.note_tokens(ghost);
    step.judge_audit(&touched);
    step.judge_claims(ghost);
    if let (Some(Storage::Control(old)), Some(Storage::Control(new))) =
        (&before[index].storage, &after[index].storage)
    {
        step.judge_halves(old, new);
    }
    ghost.broken.append(&mut step.broken);
}

/// One step of a control plane, and what it has broken so far.
struct Step<'a> {
    observer: &'a ReplayObserver,
    node: u16,
    /// None, if it starts.
    old: Option<&'a ControlState>,
    new: &'a ControlState,
    /// Who has said what.
    said: Option<(Id, Msg)>,
    broken: BTreeSet<&'static str>,
}

impl Step<'_> {
    fn is_kept(&mut self, name: &'static str, holds: bool) {
        if !holds {
            self.broken.insert(name);
        }
    }

    /// The peerings of which this step may have changed what holds.
    fn touched(&self) -> BTreeSet<OpId> {
        let ledger = &self.new.ledger;
        let Some(old) = self.old else { return ledger.peerings.keys().collect() };
        let mut touched = BTreeSet::new();
        ledger.peerings.difference(&old.ledger.peerings, |id, _| touched.extend([id]));
        ledger.on.difference(&old.ledger.on, |id, _| touched.extend([id]));
        let mut regions: Vec<Region> = Vec::new();
        ledger.peers.difference(&old.ledger.peers, |&region, peer| {
            // More is asked of what is open, or of what is disposed of. How far a frozen link has come asks nothing.
            let standing = |peer: &Peer| (peer.link == Link::Open, peer.disposed);
            let (was, is) = (old.ledger.peers.get(&region).map(standing), peer.map(standing));
            if was != is && is.is_some_and(|(is_open, is_disposed)| is_open || is_disposed) {
                regions.push(region);
            }
        });
        touched.extend(regions.into_iter().flat_map(|region| self.new.peerings_with(region)));
        touched
    }

    /// What must hold of this peering at this side.
    fn judge(&mut self, id: OpId) {
        let (old, new) = (self.old, self.new);
        let ledger = &new.ledger;
        let before = old.and_then(|old| old.ledger.peerings.get(&id));
        let Some(one) = ledger.peerings.get(&id) else {
            self.is_kept("forgotten_is_dead", before.is_none_or(|before| before.is_dead()));
            return;
        };
        self.is_kept("nothing_is_stuck", !one.stuck);
        let is_sealed = stored::is_of_its_writers(id, &one, &self.observer.keys);
        self.is_kept("facts_are_of_their_writers", is_sealed);
        self.is_kept("half_is_justified", stored::its_half_is_justified(ledger, id, &one));
        self.is_kept("disposed_is_fenced", stored::is_fenced(ledger, id, &one));
        self.is_kept("one_live_per_pair", is_alone(new, id, &one));
        let Some(before) = before else { return };
        let old = &old.expect("it was there").ledger;
        let (was, is) = (old.label(id), ledger.label(id));
        if let (Some(was), Some(is)) = (was, is) {
            let falls = is.rank() < was.rank() || (was.is_terminal() && is != was);
            self.is_kept("rank_never_falls", !falls);
        }
        self.is_kept("dead_stays_dead", one.is_dead() || !before.is_dead());
        let (was, is) = (before.decided.facts.decision, one.decided.facts.decision);
        self.is_kept("one_decision", was.is_none() || was == is);
        let is_asked = matches!(self.said, Some((_, Msg::Ask { .. })));
        if is_asked && was.is_none() && is == Some(Decision::Accepted) {
            let deadline = one.decided.facts.deadline;
            let is_in_time = deadline.is_none_or(|deadline| ledger.head.clock < deadline);
            self.is_kept("accepted_in_time", is_in_time);
        }
    }

    /// S5: what was dead on both sides never lives again, unless both were put back since.
    fn judge_death(&mut self, id: OpId, ghost: &mut Ghost, nodes: &[NodeOf]) {
        let mut ends = Vec::new();
        for state in nodes.iter().filter_map(|node| control(node.state.as_ref())) {
            let Some(one) = state.ledger.peerings.get(&id) else { continue };
            ends.push((one.is_dead(), stored::is_open(&state.ledger, one.peer(id))));
        }
        let was_dead = ghost.dead.contains(&id);
        let lives = ends.iter().any(|&(is_dead, is_open)| !is_dead && is_open);
        self.is_kept("dead_stays_dead", !was_dead || !lives);
        if ends.is_empty() {
            // Nobody has it any more: what is born is not of a name that was used.
            ghost.dead.remove(&id);
        } else if !was_dead && ends.len() == 2 && ends.iter().all(|&end| end == (true, true)) {
            ghost.dead.insert(id, BTreeSet::new());
        }
    }

    /// What a customer's call, or another region's, may do.
    fn judge_call(&mut self, ghost: &Ghost) {
        let (Some(old), Some((_, msg))) = (self.old, self.said.take()) else { return };
        let (old, new) = (&old.ledger, self.new);
        let mut born = Vec::new();
        new.ledger.peerings.difference(&old.peerings, |id, one| {
            if let Some(one) = one.filter(|_| !old.peerings.contains(&id)) {
                born.push((id, one.clone()));
            }
        });
        match &msg {
            Msg::Ask { request, .. } => {
                for (id, one) in &born {
                    let token = one.requested.facts.token;
                    let is_new = !ghost.tokens.contains(&(self.node, token));
                    self.is_kept("one_effect_per_token", is_new);
                    self.is_kept("dead_stays_dead", !old.has_closed(*id));
                }
                if let Request::Modify { id, expected, .. } = request {
                    let version = |ledger: &Ledger| {
                        let one = ledger.peerings.get(id)?;
                        Some(match one.side {
                            Side::Requester => one.requested.facts.options.version,
                            Side::Accepter => one.decided.facts.options.version,
                        })
                    };
                    let (was, is) = (version(old), version(&new.ledger));
                    self.is_kept("no_lost_update", was == is || was == Some(*expected));
                }
            }
            Msg::Call(call) => {
                for (id, one) in &born {
                    let (id, region) = (*id, one.peer(*id));
                    let peer = old.peers.get(&region);
                    let is_seen = peer.and_then(|peer| peer.seen.get(&id.n));
                    let is_new = !is_seen.is_some_and(|mark| mark.covers(id.seq));
                    self.is_kept("dead_stays_dead", is_new || one.is_dead());
                    let (was_open, network) =
                        (stored::is_open(old, call.from), one.requested.facts.target.network);
                    let quota = self.observer.quotas.get(&self.node).copied().unwrap_or(usize::MAX);
                    let waits = one.is_undecided() && !one.is_dead();
                    let is_within = !waits || !was_open || new.pending_at(network) <= quota;
                    self.is_kept("quota_kept", is_within);
                }
            }
            _ => {}
        }
    }

    /// Which tokens have a result, found out without what the control plane looks them up in.
    fn note_tokens(&self, ghost: &mut Ghost) {
        let node = self.node;
        let none = Results::default();
        let kept = self.old.map_or(&none, |old| &old.ledger.tokens);
        if self.old.is_none() {
            let before = ghost.tokens.starting_at((node, 0));
            let before: Vec<_> =
                before.map(|(&key, ())| key).take_while(|key| key.0 == node).collect();
            for key in before {
                ghost.tokens.remove(&key);
            }
        }
        let mut new = Vec::new();
        self.new.ledger.tokens.difference(kept, |number, entry| {
            if let Some((token, _)) = kept.get(number) {
                ghost.tokens.remove(&(node, token));
            }
            new.extend(entry.map(|(token, _)| (node, *token)));
        });
        for key in new {
            ghost.tokens.insert(key, ());
        }
    }

    /// S15: each label that has changed has one entry in the audit log, which goes on as a chain.
    fn judge_audit(&mut self, touched: &BTreeSet<OpId>) {
        let Some(old) = self.old else { return };
        let (old, new) = (&old.ledger, &self.new.ledger);
        let labels = |&id: &OpId| (Some(id), old.label(id), new.label(id));
        let changed: Vec<(Option<OpId>, Option<Label>, Option<Label>)> =
            touched.iter().map(labels).filter(|(_, from, to)| from != to).collect();
        let entries = new.audit.starting_at(old.head.audited.0);
        let added: Vec<_> = entries.map(|(&number, entry)| (number, entry)).collect();
        // A command has an entry of its own, in which nothing changes for an owner.
        let told = added.iter().map(|(_, entry)| entry).filter(|entry| entry.from != entry.to);
        let written: Vec<_> = told.map(|entry| (entry.id, entry.from, entry.to)).collect();
        let is_whole = audit::end_of(old.head.audited, added) == Some(new.head.audited);
        self.is_kept("audited", is_whole && changed == written);
    }

    /// S10: an epoch under which work is handed out is above all earlier ones.
    fn judge_claims(&mut self, ghost: &mut Ghost) {
        let newest = ghost.newest.get(&self.node).copied();
        let mut highest = newest;
        for (work, held) in &self.new.claims {
            if self.old.is_some_and(|old| old.claims.get(work) == Some(held)) {
                continue;
            }
            let grows = newest.is_none_or(|newest| held.epoch > newest);
            self.is_kept("epochs_only_grow", grows);
            highest = highest.max(Some(held.epoch));
        }
        ghost.newest.extend(highest.map(|highest| (self.node, highest)));
    }

    /// S13: a half goes off by facts alone.
    fn judge_halves(&mut self, old: &Ledger, new: &Ledger) {
        let mut fallen = Vec::new();
        new.on.difference(&old.on, |id, is_on| {
            if is_on.is_none() {
                fallen.push(id);
            }
        });
        let is_wanted = |id: &OpId| new.peerings.get(id).is_some_and(|one| one.wants_half());
        self.is_kept("no_half_falls", !fallen.iter().any(is_wanted));
    }
}

/// S7: outside of a freeze no other peering of the pair lives.
fn is_alone(state: &ControlState, id: OpId, one: &Peering) -> bool {
    let ledger = &state.ledger;
    if one.is_dead() || !stored::is_open(ledger, one.peer(id)) {
        return true;
    }
    state
        .peerings_of_its_pair(id, one)
        .filter(|&other| other != id)
        .all(|other| ledger.peerings.get(&other).is_none_or(|other| other.is_dead()))
}

#[cfg(test)]
mod tests {
    use stateright::{Model as _, Property};

    use super::*;
    use crate::irc::safeguards::Safeguards;
    use crate::models::engine::{self, Limits};
    use crate::models::irc::properties::{
        accepted_in_time, dead_stays_dead, nothing_is_stuck, rank_never_falls,
    };
    use crate::models::irc::registry::{
        accept, delete_by_a, delete_by_r, expiring, forgetting, modify_by_r, one, put_back,
        restored,
    };
    use crate::models::irc::{IrcState, IrcWorld, Scope};
    use crate::models::world::Node;

    fn nodes(state: &IrcState) -> Vec<NodeOf> {
        let nodes = state.nodes.iter().cloned();
        nodes
            .map(|Node { state, storage, timers, condition }| Node {
                state: state.map(PartyState::Control),
                storage,
                timers,
                condition,
            })
            .collect()
    }

    fn observer(world: &IrcWorld) -> ReplayObserver {
        let planes = || world.actors.iter().map(|actor| &actor.control);
        ReplayObserver {
            keys: planes().map(|plane| (plane.region, plane.key)).collect(),
            quotas: planes().map(|plane| (plane.me.0, plane.policy.quota[1])).collect(),
        }
    }

    /// Judges the steps of a model's path as those of a run, and gives what each of them has newly broken.
    fn judged(world: IrcWorld, path: &engine::Path<IrcWorld>) -> Vec<BTreeSet<&'static str>> {
        let observer = observer(&world);
        // What is judged is the step itself, not the form that stands for several states after it.
        let plain = IrcWorld { canonical: false, ..world };
        let mut ghost = Ghost::default();
        let mut from = &path.start;
        let mut broken = Vec::new();
        for (action, to) in &path.steps {
            let said = match plain.event(from, *action) {
                Event::Deliver { src, msg, .. } | Event::Say { src, msg, .. } => {
                    Some((Id::from(usize::from(src)), msg))
                }
                _ => None,
            };
            let (mut before, after) =
                (nodes(from), nodes(&plain.next_state(from, *action).expect("it was taken")));
            let moved = before.iter().zip(&after).position(|(old, new)| old != new);
            if let Some(node) = moved {
                let of = u16::try_from(node).expect("few nodes");
                if matches!(action, Action::Intervene(_)) {
                    before[node].state = None;
                    before[node].storage.clone_from(&after[node].storage);
                    ghost.put_back(of);
                }
                judge(&observer, of, &before, || said, &after, &mut ghost);
            }
            broken.push(std::mem::take(&mut ghost.broken));
            from = to;
        }
        broken
    }

    /// What a model finds without a rule, a trace that tells the same steps is rejected for, and not before the step
    /// that breaks it.
    //= SPEC TRACE-8 test
    #[test]
    fn what_a_model_finds_is_found_in_a_run() {
        let accepted = || one(vec![accept()]);
        let rows: [(Safeguards, Scope, Property<IrcWorld>); 4] = [
            (Safeguards::I_2_FACTS_JOIN, one(vec![accept(), modify_by_r()]), rank_never_falls()),
            (
                Safeguards::I_5_WATERMARK,
                forgetting(one(vec![accept(), delete_by_r()]), 1),
                dead_stays_dead(),
            ),
            (
                Safeguards::I_38_DEADLINE_IN_TRANSACTION,
                put_back(expiring(accepted()), [0, 1]),
                accepted_in_time(),
            ),
            (
                Safeguards::I_43_SEAL_WITH_ITS_FACTS,
                restored(one(vec![accept(), delete_by_a()]), [1, 1]),
                nothing_is_stuck(),
            ),
        ];
        for (rule, scope, property) in rows {
            let name = property.name;
            let scope = Scope { safeguards: Safeguards::except(rule), ..scope };
            let world = scope.world(vec![property]);
            let mut found = engine::explore(&world, Limits::default(), |_| ());
            let path = found.discoveries.remove(name).expect("without the rule it is broken");
            let broken = judged(world, &path);
            let first = broken.iter().position(|names| names.contains(name));
            assert_eq!(first, Some(path.steps.len() - 1), "{}: {broken:?}", rule.id());
        }
    }

    /// A peering that lives vanishes.
    #[test]
    fn what_lives_is_not_forgotten() {
        let world = one(vec![]).world(Vec::new());
        let observer = observer(&world);
        let start = world.init_states().remove(0);
        let mut said = Vec::new();
        world.actions(&start, &mut said);
        let states = said.into_iter().filter_map(|action| world.next_state(&start, action));
        let is_born = |state: &IrcState| {
            state.nodes[0].state.as_ref().is_some_and(|one| !one.ledger.peerings.is_empty())
        };
        let born = nodes(&states.into_iter().find(is_born).expect("it is created"));
        let mut ghost = Ghost::default();
        judge(&observer, 0, &born, || None, &nodes(&start), &mut ghost);
        assert!(ghost.broken.contains("forgotten_is_dead"), "{:?}", ghost.broken);
    }
}
