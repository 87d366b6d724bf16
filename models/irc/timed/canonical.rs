//! The canonical form of a timed world: what makes an outage of any length finite.
//!
//! 1. **What only people read is blank**: results under tokens, the audit log, when a region was last
//!    heard, how many reports have counted, and what a server is told of its report, which only lets it
//!    poll.
//! 2. **The epochs of claims are ranked**, for each region by itself: they are compared for equality
//!    alone, and a new one is above all. One that neither the control plane nor a server holds any more,
//!    and that is in no claim under way, can be equal to none: it becomes the lowest.
//! 3. **Dead answers go**: an answer about a claim that its server has given up, or to what it has not asked
//!    about it, is ignored.
//! 4. **The names of questions are ranked** in the same way.
//! 5. **Tries beyond the cap are alike**: the wait does not grow any more.
//! 6. **While a breaker is open the last calls do not count**: only an answer closes it, and then they are forgotten.
//! 7. **Clocks stand still** where a model says so: nothing there is about a deadline. This one is no
//!    equivalence but what the model is of.
//!
//! Each replaces a state by one with the same futures, but for the last. `tests/irc_canonical.rs`
//! compares the result with the raw world.

use std::collections::BTreeSet;

use super::{TimedObserver, TimedState};
use crate::irc::facts::Region;
use crate::irc::ledger::{Ledger, Link};
use crate::irc::msg::{ClaimEpoch, Errand, Msg, Outcome, Reply, Status, Work};
use crate::irc::{PartyState, Storage, Timer};
use crate::models::irc::canonical::blank;

/// Brings a state into its canonical form.
pub(super) fn canonical(observer: &TimedObserver, state: &mut TimedState) {
    blank_all(observer, state);
    drop_dead_answers(state);
    for region in 0..observer.scope.present {
        rank_epochs(observer, state, region);
        rank_questions(observer, state, region);
    }
    state.network.sort_unstable();
}

fn blank_all(observer: &TimedObserver, state: &mut TimedState) {
    let cap = observer.scope.numbers.cap;
    // From this many vain tries on the wait is at its cap.
    let enough = (0..16).find(|&tries| 1_u32 << tries >= u32::from(cap)).unwrap_or(16);
    for node in &mut state.nodes {
        if !observer.scope.clocks {
            node.timers.retain(|(timer, _)| *timer != Timer::Tick);
        }
        match &mut node.state {
            Some(PartyState::Control(control)) => {
                control.heard.clear();
                let waiting = control.waits.values_mut().map(|waiting| &mut waiting.tries);
                let counts = control.tries.values_mut().chain(waiting);
                counts.for_each(|tries| *tries = (*tries).min(enough));
                let open = control.paces.values_mut().filter(|pace| pace.is_open());
                open.for_each(|pace| pace.calls = 0);
                blank(&mut control.ledger);
            }
            Some(PartyState::Server(server)) => server.done = 0,
            _ => {}
        }
        if let Some(Storage::Control(ledger)) = &mut node.storage {
            blank(ledger);
        }
    }
    for flight in &mut state.network {
        if let Msg::Reported { work, epoch, ok } = &mut flight.msg {
            (*work, *epoch, *ok) = (Work::Prepare(Region(0)), ClaimEpoch::default(), true);
        }
    }
}

fn drop_dead_answers(state: &mut TimedState) {
    let nodes = &state.nodes;
    state.network.retain(|flight| {
        let Some(PartyState::Server(server)) = &nodes[usize::from(flight.dst)].state else {
            return true;
        };
        let is_alive = |work: &Work, epoch: ClaimEpoch, is_unsent: bool| {
            let job = server.working.get(work);
            job.is_some_and(|job| job.epoch == epoch && job.unsent.is_some() == is_unsent)
        };
        match &flight.msg {
            Msg::Reply(reply) => is_alive(&reply.tag.0, reply.tag.1, false),
            Msg::Extended { work, epoch, .. } => is_alive(work, *epoch, true),
            _ => true,
        }
    });
}

/// Shows every epoch of a region's claims: `true` where somebody holds it.
fn visit_epochs(
    observer: &TimedObserver,
    state: &mut TimedState,
    region: u16,
    see: &mut dyn FnMut(bool, &mut ClaimEpoch),
) {
    let is_its = |node: usize| observer.scope.region_of(node) == region;
    for (node, one) in state.nodes.iter_mut().enumerate() {
        match &mut one.state {
            Some(PartyState::Control(control)) if is_its(node) => {
                control.claims.values_mut().for_each(|held| see(true, &mut held.epoch));
            }
            Some(PartyState::Server(server)) if is_its(node) => {
                for job in server.working.values_mut() {
                    see(true, &mut job.epoch);
                    if let Some((_, call)) = &mut job.unsent {
                        see(true, &mut call.tag.1);
                    }
                }
            }
            _ => {}
        }
    }
    for flight in &mut state.network {
        let (src, dst) = (usize::from(flight.src), usize::from(flight.dst));
        match &mut flight.msg {
            Msg::Claimed(claim) if is_its(src) => see(true, &mut claim.call.tag.1),
            Msg::Extend { epoch, .. } | Msg::Extended { epoch, .. } if is_its(src) => {
                see(false, epoch);
            }
            Msg::Call(call) if is_its(src) => see(false, &mut call.tag.1),
            Msg::Reply(reply) if is_its(dst) => see(false, &mut reply.tag.1),
            Msg::Report { epoch, outcome, .. } if is_its(src) => {
                see(false, epoch);
                if let Outcome::Answered(reply) = &mut **outcome {
                    see(false, &mut reply.tag.1);
                }
            }
            _ => {}
        }
    }
}

fn rank_epochs(observer: &TimedObserver, state: &mut TimedState, region: u16) {
    let mut held = BTreeSet::new();
    visit_epochs(observer, state, region, &mut |is_held, epoch| {
        if is_held {
            held.insert(*epoch);
        }
    });
    let ranks: Vec<ClaimEpoch> = held.into_iter().collect();
    visit_epochs(observer, state, region, &mut |_, epoch| {
        let rank = ranks.iter().position(|one| one == epoch);
        let counter = rank.map_or(0, |at| at as u64 + 1);
        *epoch = rank.map_or_else(ClaimEpoch::default, |_| ClaimEpoch { counter, ..*epoch });
    });
    if let Some(PartyState::Control(control)) = &mut state.nodes[usize::from(region)].state {
        control.claimed = ranks.len() as u64;
    }
}

/// Shows every name of a question of a region: `true` where it is asked now, which is where it is kept.
fn visit_questions(
    observer: &TimedObserver,
    state: &mut TimedState,
    region: u16,
    see: &mut dyn FnMut(bool, &mut u64),
) {
    let is_its = |node: usize| observer.scope.region_of(node) == region;
    let in_ledger = |ledger: &mut Ledger, see: &mut dyn FnMut(bool, &mut u64)| {
        let regions: Vec<Region> = ledger.peers.iter().map(|(&region, _)| region).collect();
        for region in regions {
            let Some(mut peer) = ledger.peers.get(&region).cloned() else { continue };
            if let Link::Preparing { nonce } | Link::Syncing { nonce, .. } = &mut peer.link {
                see(true, nonce);
                ledger.peers.insert(region, peer);
            }
        }
    };
    let node = &mut state.nodes[usize::from(region)];
    if let Some(PartyState::Control(control)) = &mut node.state {
        in_ledger(&mut control.ledger, see);
        control.sweeps.values_mut().for_each(|sweep| see(true, &mut sweep.nonce));
    }
    if let Some(Storage::Control(ledger)) = &mut node.storage {
        in_ledger(ledger, see);
    }
    let in_errand = |errand: &mut Errand, see: &mut dyn FnMut(bool, &mut u64)| {
        if let Errand::Prepare { nonce } | Errand::Sync { nonce, .. } = errand {
            see(false, nonce);
        }
    };
    let in_reply = |reply: &mut Reply, see: &mut dyn FnMut(bool, &mut u64)| {
        if let Status::Promise { nonce, .. } | Status::Synced { nonce, .. } = &mut reply.status {
            see(false, nonce);
        }
    };
    for (node, one) in state.nodes.iter_mut().enumerate() {
        if let Some(PartyState::Server(server)) = &mut one.state
            && is_its(node)
        {
            let unsent = server.working.values_mut().filter_map(|job| job.unsent.as_mut());
            unsent.for_each(|(_, call)| in_errand(&mut call.errand, see));
        }
    }
    for flight in &mut state.network {
        let (src, dst) = (usize::from(flight.src), usize::from(flight.dst));
        match &mut flight.msg {
            Msg::Claimed(claim) if is_its(src) => in_errand(&mut claim.call.errand, see),
            Msg::Call(call) if is_its(src) => in_errand(&mut call.errand, see),
            Msg::Reply(reply) if is_its(dst) => in_reply(reply, see),
            Msg::Report { outcome, .. } if is_its(src) => {
                if let Outcome::Answered(reply) = &mut **outcome {
                    in_reply(reply, see);
                }
            }
            _ => {}
        }
    }
}

fn rank_questions(observer: &TimedObserver, state: &mut TimedState, region: u16) {
    let mut asked = BTreeSet::new();
    visit_questions(observer, state, region, &mut |is_asked, nonce| {
        if is_asked {
            asked.insert(*nonce);
        }
    });
    let ranks: Vec<u64> = asked.into_iter().collect();
    let rank =
        |nonce: u64| ranks.iter().position(|&one| one == nonce).map_or(0, |at| at as u64 + 1);
    visit_questions(observer, state, region, &mut |_, nonce| *nonce = rank(*nonce));
    let next = ranks.len() as u64 + 1;
    let node = &mut state.nodes[usize::from(region)];
    if let Some(PartyState::Control(control)) = &mut node.state {
        control.ledger.head.next_nonce = next;
    }
    if let Some(Storage::Control(ledger)) = &mut node.storage {
        ledger.head.next_nonce = next;
    }
}
