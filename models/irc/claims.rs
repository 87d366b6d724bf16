//! Claims in a world: two control planes, and the real servers between them.
//!
//! Here every message of the work log is under way by itself: polls, claims, calls, answers, reports;
//! servers and the control plane crash; leases end at any moment. What is bounded is the number of
//! claims that are ever handed out.

use std::collections::BTreeMap;

use stateright::Property;

use super::canonical::blank;
use super::{OUTSIDE, Scope, Wish, first};
use crate::irc::facts::Region;
use crate::irc::msg::{ClaimEpoch, Errand, Kind, Msg, Work};
use crate::irc::peering::Label;
use crate::irc::safeguards::Safeguards;
use crate::irc::server::IrcServer;
use crate::irc::{Party, PartyState, Storage, Timer};
use crate::lease::record::NodeId;
use crate::models::world::{
    Action, Budget, Event, Faults, Network, Observer, Said, Time, World, WorldState,
};

/// The rules of which the canonical form knows nothing: a world without one of them has it too.
const INDIFFERENT: Safeguards = Safeguards::I_17_FRESH_AT_EFFECT
    .union(Safeguards::I_20_EXTEND_BEFORE_CALL)
    .union(Safeguards::I_22_NO_CURSOR);

/// A world of control planes and servers.
pub type ClaimWorld = World<Party, ClaimObserver>;

/// One state of it.
pub type ClaimState = WorldState<PartyState, Storage, Timer, Msg, Ghost>;

/// What is remembered of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ghost {
    /// How many wishes have been said: here they come in their order.
    pub said: u8,
    /// The highest epoch under which each piece of work was ever claimed.
    pub highest: BTreeMap<Work, ClaimEpoch>,
    /// What has gone wrong.
    pub wrong: Wrong,
    /// How many reports came under another epoch than the claim's, at most one is counted.
    pub stale: bool,
}

/// What has gone wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wrong {
    /// A report under an old epoch has changed something.
    pub stale_report: bool,
    /// An epoch was handed out that is not above all before it.
    pub epoch_again: bool,
    /// A call that is not new has changed something.
    pub stale_call: bool,
    /// A server has called under a claim that was lost, and nobody had told it that it is held.
    pub lost_claim_called: bool,
}

/// Watches it.
#[derive(Clone, Debug)]
pub struct ClaimObserver {
    /// What is wanted, in this order.
    pub wishes: Vec<Wish>,
    /// How many claims one start of the control plane hands out.
    pub claims: u64,
}

/// What is put together.
#[derive(Clone, Debug)]
pub struct Claims {
    /// How many servers the requester's region has.
    pub servers: u16,
    /// What is wanted there, in this order.
    pub wishes: Vec<Wish>,
    /// The nodes that may crash, and how often in all.
    pub crashes: (Vec<usize>, u8),
    /// How many claims one start of the control plane hands out.
    pub claims: u64,
    /// The rules.
    pub safeguards: Safeguards,
}

impl Claims {
    /// Region 0 with its servers, and region 1 without any.
    pub fn world(&self, properties: Vec<Property<ClaimWorld>>) -> ClaimWorld {
        let scope = Scope { safeguards: self.safeguards, ..Scope::new(Vec::new()) };
        let control = |region: u16| {
            let mut control = scope.control(region);
            control.servers = (0..self.servers).map(|n| (NodeId(2 + n), Region(0))).collect();
            Party::Control(control)
        };
        let mut actors = vec![control(0), control(1)];
        for _ in 0..self.servers {
            actors.push(Party::Server(IrcServer {
                control: NodeId(0),
                remotes: [(Region(1), NodeId(1))].into(),
                kinds: [Kind::PEERING, Kind::NOTICE].into(),
                width: 1,
                poll: super::SHORT,
                deadline: super::SHORT,
                safeguards: self.safeguards,
            }));
        }
        let (nodes, crashes) = self.crashes.clone();
        let faults =
            Faults { inputs: Budget::Unlimited, ..Faults::crashes(nodes, Budget::Times(crashes)) };
        World {
            actors,
            time: Time::Untimed,
            network: Network::Free { repeats: false },
            faults,
            observer: ClaimObserver { wishes: self.wishes.clone(), claims: self.claims },
            settled: Vec::new(),
            // Nothing that the form leaves out is read by whoever keeps, or breaks, these rules.
            canonical: Safeguards::ALL
                .difference(self.safeguards)
                .difference(INDIFFERENT)
                .is_empty(),
            properties,
        }
    }
}

impl Observer<Party> for ClaimObserver {
    type Ghost = Ghost;

    const ONLY_HISTORY: bool = true;

    fn begin(&self, _: &ClaimWorld) -> Ghost {
        Ghost::default()
    }

    fn observe(
        &self,
        world: &ClaimWorld,
        before: &ClaimState,
        action: Action,
        after: &mut ClaimState,
    ) {
        // The next wish comes first, and then the polls.
        let has_wish = usize::from(before.ghost.said) < self.wishes.len();
        after.ghost.said += u8::from(matches!(action, Action::Say(0)) && has_wish);
        let (Some(PartyState::Control(old)), Some(PartyState::Control(new))) =
            (&before.nodes[0].state, after.nodes[0].state.clone())
        else {
            return;
        };
        for (&work, held) in &new.claims {
            if old.claims.get(&work) == Some(held) {
                continue;
            }
            let highest = after.ghost.highest.get(&work).copied();
            after.ghost.wrong.epoch_again |= highest.is_some_and(|highest| held.epoch <= highest);
            after.ghost.highest.insert(work, held.epoch.max(highest.unwrap_or_default()));
        }
        let Action::Deliver(_) = action else { return };
        match world.event(before, action) {
            Event::Deliver { dst: 2.., msg, .. } if !matches!(msg, Msg::Extended { .. }) => {
                let called = after.network.iter().any(|flight| match &flight.msg {
                    Msg::Call(call) => {
                        let (work, epoch) = call.tag;
                        new.claims.get(&work).is_none_or(|held| held.epoch != epoch)
                            && !before.network.iter().any(|before| before.msg == flight.msg)
                    }
                    _ => false,
                });
                after.ghost.wrong.lost_claim_called |= called;
            }
            Event::Deliver { dst: 0, msg: Msg::Report { work, epoch, .. }, .. } => {
                let is_old = old.claims.get(&work).is_none_or(|held| held.epoch != epoch);
                let changed = (&old.ledger, &old.claims) != (&new.ledger, &new.claims);
                after.ghost.wrong.stale_report |= is_old && changed;
                after.ghost.stale |= is_old;
            }
            Event::Deliver { dst: 1, msg: Msg::Call(call), .. } => {
                let (Some(PartyState::Control(old)), Some(PartyState::Control(new))) =
                    (&before.nodes[1].state, &after.nodes[1].state)
                else {
                    return;
                };
                if let Errand::Apply { id, op, .. } = call.errand
                    && let Some(peering) = old.ledger.peerings.get(&id)
                {
                    let is_new = peering.seen.is_none_or(|seen| (call.incarnation.n, op) > seen);
                    let changed = old.ledger.peerings != new.ledger.peerings;
                    after.ghost.wrong.stale_call |= !is_new && changed;
                }
            }
            _ => {}
        }
    }

    fn inputs(&self, world: &ClaimWorld, state: &ClaimState) -> Vec<Said<Party>> {
        let up = state.nodes[0].state.is_some();
        if !up {
            return Vec::new();
        }
        let next = self.wishes.get(usize::from(state.ghost.said));
        let wish =
            next.map(|wish| Said { dst: wish.at.into(), src: OUTSIDE, msg: wish.msg.clone() });
        // A poll may come at any moment: its timer may fire at any, and it may be late.
        let kinds = vec![Kind::PEERING, Kind::NOTICE];
        let polls = (2..world.actors.len()).map(|server| Said {
            dst: 0,
            src: server,
            msg: Msg::Poll { kinds: kinds.clone(), max: 1 },
        });
        wish.into_iter().chain(polls).collect()
    }

    fn within(&self, state: &ClaimState) -> bool {
        state.nodes.iter().all(|node| match &node.state {
            Some(PartyState::Control(state)) => {
                state.claimed <= self.claims && state.ledger.head.clock == 0
            }
            _ => true,
        })
    }

    /// Polls come at any moment anyway, so none is under way and no timer waits for one; what a report
    /// is answered only leads to another poll. Nothing waits before it is tried again, because a wait
    /// may be over at any moment. And what only people read is blank.
    fn canonical(&self, _: &ClaimWorld, state: &mut ClaimState) {
        state.network.retain(|flight| {
            !matches!(flight.msg, Msg::Poll { .. } | Msg::Reported { .. } | Msg::Told { .. })
        });
        for node in &mut state.nodes {
            node.timers.retain(|(timer, _)| {
                !matches!(timer, Timer::Poll | Timer::Retry(_) | Timer::Probe(_))
            });
            match &mut node.state {
                Some(PartyState::Server(server)) => server.done = 0,
                Some(PartyState::Control(control)) => {
                    control.tries.clear();
                    control.paces.clear();
                    control.starved.clear();
                    control.heard.clear();
                    if !control.waits.is_empty() {
                        control.waits.clear();
                        control.reindex();
                    }
                    blank(&mut control.ledger);
                }
                _ => {}
            }
            if let Some(Storage::Control(ledger)) = &mut node.storage {
                blank(ledger);
            }
        }
    }
}

/// S10: a report under an old epoch changes nothing.
pub fn stale_report_changes_nothing() -> Property<ClaimWorld> {
    Property::always("stale_report_changes_nothing", |_, state: &ClaimState| {
        !state.ghost.wrong.stale_report
    })
}

/// S10: no epoch is handed out twice for one piece of work, and none is below an earlier one.
pub fn epochs_only_grow() -> Property<ClaimWorld> {
    Property::always("epochs_only_grow", |_, state: &ClaimState| !state.ghost.wrong.epoch_again)
}

/// S11: a call has an effect only if it is new to the one it is for.
pub fn only_fresh_calls_count() -> Property<ClaimWorld> {
    Property::always("only_fresh_calls_count", |_, state: &ClaimState| {
        !state.ghost.wrong.stale_call
    })
}

/// I-20: a server calls under a claim that is lost only if it was lost after the control plane has said
/// that it is held.
pub fn no_call_for_a_lost_claim() -> Property<ClaimWorld> {
    Property::always("no_call_for_a_lost_claim", |_, state: &ClaimState| {
        !state.ghost.wrong.lost_claim_called
    })
}

/// E2: all that there is to say is claimed, waits for its time, or is offered to whoever polls.
pub fn nothing_is_skipped() -> Property<ClaimWorld> {
    Property::always("nothing_is_skipped", |world: &ClaimWorld, state: &ClaimState| {
        let nodes = state.nodes.iter().zip(&world.actors);
        nodes.into_iter().all(|(node, actor)| {
            let (Party::Control(actor), Some(PartyState::Control(control))) = (actor, &node.state)
            else {
                return true;
            };
            let offers = actor.offers(control, &[Kind::PEERING, Kind::NOTICE]);
            actor.work(control).iter().all(|work| {
                control.claims.contains_key(work)
                    || control.waits.contains_key(work)
                    || offers.contains(work)
            })
        })
    })
}

/// E2: every claim that is out ends by itself.
pub fn every_claim_ends() -> Property<ClaimWorld> {
    Property::always("every_claim_ends", |_, state: &ClaimState| {
        let Some(PartyState::Control(control)) = &state.nodes[0].state else { return true };
        control.claims.keys().all(|work| {
            state.nodes[0].timers.iter().any(|(timer, _)| *timer == Timer::Lease(*work))
        })
    })
}

/// E2: when no record is left and no message under way, both sides agree about the first peering.
pub fn no_record_agreement() -> Property<ClaimWorld> {
    Property::always("no_record_agreement", |_, state: &ClaimState| {
        let (Some(PartyState::Control(one)), Some(PartyState::Control(other))) =
            (&state.nodes[0].state, &state.nodes[1].state)
        else {
            return true;
        };
        let is_quiet = state
            .network
            .iter()
            .all(|flight| matches!(flight.msg, Msg::Poll { .. } | Msg::Reported { .. }));
        if !is_quiet || !one.ledger.records.is_empty() {
            return true;
        }
        let knows = |control: &crate::irc::ledger::ControlState| {
            control.ledger.peerings.get(&first(0)).map(|one| {
                (
                    one.requested.facts.deleted,
                    one.decided.facts.decision,
                    one.requested.facts.options,
                )
            })
        };
        knows(one) == knows(other)
    })
}

/// R has learnt that A has the request.
pub fn pending_at_requester() -> Property<ClaimWorld> {
    Property::sometimes("pending_at_requester", |_, state: &ClaimState| {
        has_label(state, Label::PendingAcceptance)
    })
}

/// R has learnt that A knows the end.
pub fn deleted_at_requester() -> Property<ClaimWorld> {
    Property::sometimes("deleted_at_requester", |_, state: &ClaimState| {
        has_label(state, Label::Deleted)
    })
}

/// A report was late.
pub fn late_report() -> Property<ClaimWorld> {
    Property::sometimes("late_report", |_, state: &ClaimState| state.ghost.stale)
}

fn has_label(state: &ClaimState, label: Label) -> bool {
    match &state.nodes[0].state {
        Some(PartyState::Control(one)) => one
            .ledger
            .peerings
            .iter()
            .any(|(id, peering)| peering.label(one.ledger.on.contains(&id)) == label),
        _ => false,
    }
}
