//! What comes to an actor, but for its timers: choices, what its node has done for it, what it is told, and datagrams.

use std::io;
use std::net::SocketAddr;

use rand::seq::IndexedRandom;
use stateright::actor::Id;

use super::Loop;
use super::socket::is_same_address;
use crate::node::clock::BootInstant;
use crate::node::handle::Runnable;
use crate::step::Input;
use crate::trace::Origin;
use crate::wire::{self, DecodeError, Header, SealError};

impl<A: Runnable> Loop<'_, A> {
    /// Chooses for each key one of the alternatives, uniformly. Choices that their handlers ask for
    /// are left for the next pass.
    pub(super) fn make_choices(&mut self, index: usize) -> bool {
        let choices = std::mem::take(&mut self.slots[index].choices);
        let any = !choices.is_empty();
        for (_, alternatives) in choices {
            if let Some(choice) = alternatives.choose(&mut rand::rng()) {
                self.handle(index, Input::Choose(choice.clone()), Origin::None);
            }
        }
        any
    }

    pub(super) fn next_handed(&mut self) -> bool {
        let now = BootInstant::now();
        while let Some(key) = self.errand_timers.fire(now, self.errand_timers.pass()) {
            self.hook_is_done(key);
        }
        while let Ok(key) = self.hooks_done.try_recv() {
            self.hook_is_done(key);
        }
        let Some((index, msg)) = self.handed.pop_front() else { return false };
        self.droppable -= usize::from(self.slots[index].actor.may_be_dropped(&msg));
        self.shared.count(|counts| counts.handed_back += 1);
        self.handle(index, Input::Deliver { src: Id::from(self.me), msg }, Origin::Own);
        true
    }

    pub(super) fn next_told(&mut self) -> bool {
        let told = self.told.take().or_else(|| self.inbox.try_recv().ok());
        let Some((lease, msg)) = told else { return false };
        self.shared.count(|counts| counts.told += 1);
        // The handle takes only messages for actors that exist.
        if let Some(&index) = self.by_lease.get(&lease) {
            self.handle(index, Input::Deliver { src: Id::from(self.me), msg }, Origin::Told);
        }
        true
    }

    pub(super) fn next_datagram(&mut self) -> bool {
        let (len, from) = match self.socket.try_recv_from(&mut self.buffer[..]) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.shared.count(|counts| counts.receive_errors += 1);
                let address = self.peers[usize::from(self.me.0)];
                self.warnings.warn(self.me, "receive refused", address, &error.to_string());
                return true;
            }
        };
        self.shared.count(|counts| counts.received += 1);
        if let Some((index, header, msg)) = self.admit(len, from) {
            self.shared.count(|counts| counts.delivered += 1);
            let Header { source, incarnation, sequence, .. } = header;
            let origin = Origin::Datagram { incarnation, sequence };
            self.handle(index, Input::Deliver { src: Id::from(source), msg }, origin);
        }
        true
    }

    /// Lets a datagram in that is a message, for this node, from whom it says: or counts why not.
    fn admit(&mut self, len: usize, from: SocketAddr) -> Option<(usize, Header, A::Msg)> {
        let datagram = &self.buffer[..len];
        let source = match Header::read(datagram) {
            Ok((header, _)) => header.source,
            Err(error) => return self.refuse(from, &error),
        };
        // Nobody else's datagrams are worth reading; and not even our own, which never go out.
        let known = self.peers.get(usize::from(source.0));
        if source == self.me || known.is_none_or(|known| !is_same_address(*known, from)) {
            self.shared.count(|counts| counts.dropped_unknown_peer += 1);
            let detail = format!("it says that node {} sent it", source.0);
            self.warnings.warn(self.me, "unknown peer", from, &detail);
            return None;
        }
        let decoded = wire::decode::<A::Msg>(self.me, datagram, &mut *self.seal);
        let (header, lease, msg) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(from, &error),
        };
        if self.shared.is_cut_in(source) {
            self.shared.count(|counts| counts.dropped_cut += 1);
            return None;
        }
        let newest = self.incarnations.entry(source).or_insert(header.incarnation);
        if header.incarnation < *newest {
            self.shared.count(|counts| counts.stale_incarnation += 1);
        } else {
            *newest = header.incarnation;
        }
        //= SPEC LEASE-28
        let Some(&index) = self.by_lease.get(&lease) else {
            self.shared.count(|counts| counts.dropped_unknown_lease += 1);
            let detail = format!("it is about lease {lease}");
            self.warnings.warn(self.me, "unknown lease", from, &detail);
            return None;
        };
        Some((index, header, msg))
    }

    fn refuse<T>(&mut self, from: SocketAddr, error: &DecodeError) -> Option<T> {
        let mut reason = "malformed";
        self.shared.count(|counts| match error {
            DecodeError::Oversize => {
                reason = "oversize";
                counts.dropped_oversize += 1;
            }
            DecodeError::Misdirected(_) => {
                reason = "misdirected";
                counts.dropped_misdirected += 1;
            }
            DecodeError::Seal(SealError::RanOut) => {
                reason = "key has run out";
                counts.dropped_ran_out += 1;
            }
            DecodeError::Seal(SealError::Repeated) => {
                reason = "repeated";
                counts.dropped_repeated += 1;
            }
            DecodeError::Seal(_) => {
                reason = "seal";
                counts.dropped_seal += 1;
            }
            _ => counts.dropped_malformed += 1,
        });
        self.warnings.warn(self.me, reason, from, &error.to_string());
        None
    }
}
