//! What leaves a step: views, datagrams, and errands of an actor to its own node. All of it waits for the disk, but
//! for what only takes something away.

use std::io;
use std::sync::Arc;

use stateright::actor::Id;

use super::{Errand, HANDED_MAX, HELD_MAX, Held, Loop, OUT_MAX, Slot, shorten};
use crate::guard::Refused;
use crate::lease::record::{Epoch, NodeId};
use crate::node::clock::BootInstant;
use crate::node::handle::{Exit, HandBack, NodeError, Published, Runnable};
use crate::wire::{self, EncodeError, Header};

impl<A: Runnable> Loop<'_, A> {
    /// Publishes a view when it may be seen. What it no longer permits ends at once.
    ///
    /// A save takes as long as the disk likes. A reader that saw the old permission meanwhile would
    /// act on one that the actor has given up, so neither the view that is shown nor any that is
    /// still to be shown may permit more than the newest one does.
    //= SPEC TIME-11
    //= SPEC GUARD-8
    pub(super) fn want(
        &mut self,
        index: usize,
        published: Published<A::View>,
        term: Option<Epoch>,
    ) {
        let slot = &mut self.slots[index];
        let deadline = published.deadline;
        let last = std::mem::replace(&mut slot.term, term);
        if let Some(ended) = last.filter(|_| last != term) {
            slot.publisher.guard.revoke(ended);
        }
        slot.publisher
            .view
            .send_if_modified(|shown| shown.as_mut().is_some_and(|shown| shorten(shown, deadline)));
        for (_, held) in &mut slot.held {
            if let Held::Publish(held, _) = held {
                shorten(held, deadline);
            }
        }
        self.emit(index, Held::Publish(published, term));
    }

    pub(super) fn send(&mut self, index: usize, to: Id, header: Option<Header>, msg: A::Msg) {
        if to == Id::from(self.me) {
            self.run_errand(index, msg);
            return;
        }
        let Some(header) = header else {
            self.shared.count(|counts| counts.dropped_unknown_destination += 1);
            return;
        };
        let to = header.destination;
        match wire::encode(&header, self.slots[index].lease, &msg, &mut *self.seal) {
            Ok(datagram) => self.emit(index, Held::Datagram(to, datagram)),
            Err(error) => {
                let mut reason = "unencodable";
                self.shared.count(|counts| match error {
                    EncodeError::Seal(_) => {
                        reason = "no key";
                        counts.dropped_no_key += 1;
                    }
                    _ => counts.dropped_unencodable += 1,
                });
                let peer = self.peers[usize::from(to.0)];
                self.warnings.warn(self.me, reason, peer, &error.to_string());
            }
        }
    }

    /// How far this actor's saves are durable.
    fn durable(&self) -> u64 {
        self.saving.as_ref().map_or(u64::MAX, |saving| saving.durable)
    }

    /// Lets something out, or holds it until the actor's last save is durable.
    //= SPEC TIME-10
    fn emit(&mut self, index: usize, what: Held<A>) {
        let durable = self.durable();
        let slot = &mut self.slots[index];
        if slot.held.is_empty() && slot.last_save <= durable {
            self.let_out(index, what);
            return;
        }
        if matches!(what, Held::Datagram(..)) {
            if slot.held_datagrams >= HELD_MAX {
                let oldest =
                    slot.held.iter().position(|(_, held)| matches!(held, Held::Datagram(..)));
                slot.held.remove(oldest.expect("the count of held datagrams is right"));
                self.shared.count(|counts| counts.dropped_overflow += 1);
            } else {
                slot.held_datagrams += 1;
            }
        } else if let Held::Publish(..) = what
            && let Some((after, Held::Publish(..))) = slot.held.back()
            && *after == slot.last_save
        {
            // Nobody could ever see the one before.
            slot.held.pop_back();
        }
        slot.held.push_back((slot.last_save, what));
    }

    fn let_out(&mut self, index: usize, what: Held<A>) {
        match what {
            Held::Publish(published, term) => {
                if let (Some(epoch), Some(deadline)) = (term, published.deadline) {
                    self.permit(index, epoch, deadline);
                }
                self.slots[index].publisher.view.send_replace(Some(published));
            }
            Held::Datagram(to, datagram) => self.transmit(to, datagram),
            Held::Errand(key) => self.errand_is_durable(key),
        }
    }

    /// Notes how far the saves are durable, and lets out what waited for them.
    pub(super) fn note_progress(&mut self) -> Result<(), Exit> {
        let Some(saving) = &mut self.saving else { return Ok(()) };
        let is_alive = saving.progress.has_changed().is_ok();
        let progress = saving.progress.borrow_and_update().clone();
        let before = std::mem::replace(&mut saving.durable, progress.durable);
        // Even if it fails now, what is durable is durable; but a node that ends sends nothing more.
        if let Some(error) = progress.failed {
            return Err(Exit::Failed(NodeError::Storage(error)));
        }
        if !is_alive {
            return Err(Exit::Failed(NodeError::System("the commit thread has ended".to_owned())));
        }
        if progress.durable == before {
            return Ok(());
        }
        self.shared.count(|counts| counts.commits = progress.commits);
        for index in 0..self.slots.len() {
            while let Some((after, _)) = self.slots[index].held.front()
                && *after <= progress.durable
            {
                let slot = &mut self.slots[index];
                let Some((_, what)) = slot.held.pop_front() else { break };
                if matches!(what, Held::Datagram(..)) {
                    slot.held_datagrams -= 1;
                }
                self.let_out(index, what);
            }
        }
        Ok(())
    }

    fn transmit(&mut self, to: NodeId, datagram: Vec<u8>) {
        if self.shared.is_cut_out(to) {
            self.shared.count(|counts| counts.dropped_cut += 1);
            return;
        }
        self.out.push_back((to, datagram));
        if self.out.len() > OUT_MAX {
            self.out.pop_front();
            self.shared.count(|counts| counts.dropped_overflow += 1);
        }
        self.flush();
    }

    /// Gives the socket what it takes.
    pub(super) fn flush(&mut self) {
        while let Some((to, datagram)) = self.out.front() {
            let address = self.peers[usize::from(to.0)];
            match self.socket.try_send_to(datagram, address) {
                Ok(_) => self.shared.count(|counts| counts.sent += 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A network that is down, or a peer that is not there: as good as lost on the way.
                Err(error) => {
                    self.shared.count(|counts| counts.send_errors += 1);
                    self.warnings.warn(self.me, "send refused", address, &error.to_string());
                }
            }
            self.out.pop_front();
        }
    }

    /// Tells the guard of a term, or of its renewal. One that has ended meanwhile it does not take.
    fn permit(&self, index: usize, epoch: Epoch, deadline: BootInstant) {
        let Slot { lease, publisher, .. } = &self.slots[index];
        let guard = &publisher.guard;
        let refused = match guard.extend(epoch, deadline) {
            Err(Refused::Ended(_)) => guard.open(epoch, deadline).err(),
            _ => None,
        };
        if let Some(refused) = refused.filter(|refused| !matches!(refused, Refused::Ended(_))) {
            tracing::error!(node = self.me.0, lease, %refused, "the guard does not take the term");
        }
    }

    /// Does what an actor asks of its own node. What only takes something away is begun in this very step:
    /// the work of a term that has ended does not go on for as long as the disk takes, and has ended also if
    /// the disk fails. All else is begun when it is durable, and all is handed back only then.
    //= SPEC TIME-18
    //= SPEC TIME-19
    fn run_errand(&mut self, slot: usize, msg: A::Msg) {
        let actor = &self.slots[slot].actor;
        let is_withdrawal = actor.is_withdrawal(&msg);
        if actor.may_be_dropped(&msg) {
            if self.droppable >= HANDED_MAX {
                self.shared.count(|counts| counts.dropped_handed_back += 1);
                return;
            }
            self.droppable += 1;
        }
        let key = self.errand_next;
        self.errand_next += 1;
        let errand = Errand { slot, msg, waits_for_disk: true, waits_for_hook: true };
        self.errands.insert(key, errand);
        if is_withdrawal {
            self.begin_errand(key);
        }
        self.emit(slot, Held::Errand(key));
    }

    fn begin_errand(&mut self, key: u64) {
        let Some(Errand { slot, msg, .. }) = self.errands.get(&key) else { return };
        let slot = *slot;
        let hook = self.hooks.local(self.slots[slot].lease, msg);
        match self.drained(slot, hook) {
            HandBack::Now => self.hook_is_done(key),
            HandBack::After(delay) => {
                self.errand_timers.arm(key, delay, delay, BootInstant::now(), &mut rand::rng());
            }
            HandBack::When(done) => {
                let report = self.hook_done.clone();
                tokio::spawn(async move {
                    done.await;
                    // If nobody listens any more, the node has ended.
                    let _ = report.send(key);
                });
            }
        }
    }

    fn errand_is_durable(&mut self, key: u64) {
        let Some(errand) = self.errands.get_mut(&key) else { return };
        errand.waits_for_disk = false;
        if !self.slots[errand.slot].actor.is_withdrawal(&errand.msg) {
            self.begin_errand(key);
        }
        self.hand_back(key);
    }

    pub(super) fn hook_is_done(&mut self, key: u64) {
        if let Some(errand) = self.errands.get_mut(&key) {
            errand.waits_for_hook = false;
        }
        self.hand_back(key);
    }

    fn hand_back(&mut self, key: u64) {
        let is_done = |errand: &Errand<A::Msg>| !errand.waits_for_disk && !errand.waits_for_hook;
        if self.errands.get(&key).is_some_and(is_done)
            && let Some(Errand { slot, msg, .. }) = self.errands.remove(&key)
        {
            self.handed.push_back((slot, msg));
        }
    }

    /// Adds to the end of the stop hook that no work which the guard has admitted is running.
    //= SPEC GUARD-9
    fn drained(&self, index: usize, hook: HandBack) -> HandBack {
        let guard = &self.slots[index].publisher.guard;
        // While a term lasts, its work is nobody's concern here.
        if guard.term().is_some() || guard.gate().admitted() == 0 {
            return hook;
        }
        let guard = Arc::clone(guard);
        HandBack::When(Box::pin(async move {
            match hook {
                HandBack::Now => {}
                // Its clock stands still while the machine sleeps: it comes late then, never early.
                HandBack::After(delay) => tokio::time::sleep(delay).await,
                HandBack::When(done) => done.await,
            }
            guard.gate().closed(guard.gate().epoch()).await;
        }))
    }
}
