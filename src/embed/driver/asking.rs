//! What the driver sends: requests to the store, each in a task of its own, and consents to other hosts.

use std::future::Future;
use std::sync::Arc;

use super::{Command, Driver, tell};
use crate::clock::BootInstant;
use crate::embed::Consent;
use crate::embed::store::{CasOutcome, LeaseStore, StoreError};
use crate::gate::EPOCH_MAX;
use crate::lease::msg::Msg;
use crate::lease::record::{Expect, NodeId, Record};
use crate::wire::Message as _;

impl<S: LeaseStore> Driver<S> {
    pub(super) fn send(&mut self, to: NodeId, msg: Msg, now: BootInstant) {
        match msg {
            Msg::Stopped { epoch } if to == self.parts.me => self.stop(epoch),
            Msg::Read { nonce } if to == self.parts.store_id => {
                let (store, lease) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.lease));
                let question = async move {
                    match store.read(&lease).await {
                        Ok(record) => {
                            let record = record.unwrap_or_else(Record::absent);
                            Some(Msg::ReadOk { nonce, record })
                        }
                        Err(error) => {
                            tracing::warn!(lease = &*lease, %error, "it is read again");
                            None
                        }
                    }
                };
                self.ask(question, now);
            }
            Msg::Write { nonce, expect: Expect::Version(version), claim }
                if to == self.parts.store_id =>
            {
                self.note_sent(nonce.n, now);
                let (store, lease) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.lease));
                let commands = self.parts.commands.clone();
                let question = async move {
                    let record = Record { version: version.checked_add(1)?, nonce, claim };
                    match store.cas(&lease, version, record.clone()).await {
                        CasOutcome::Committed => Some(Msg::Written { nonce, record }),
                        CasOutcome::Conflict(record) => {
                            let record = record.unwrap_or_else(Record::absent);
                            Some(Msg::Conflict { nonce, record })
                        }
                        // The protocol asks again, and finds its own write if it has landed (L-19, L-21).
                        CasOutcome::Unknown => {
                            tell(&commands, Command::Unknown(nonce.n));
                            None
                        }
                    }
                };
                self.ask(question, now);
            }
            Msg::Consent { record } => {
                if let Some(courier) = &self.parts.courier {
                    let courier = Arc::clone(courier);
                    let consent = Consent { from: self.parts.me, record };
                    let lease = Arc::clone(&self.parts.lease);
                    self.parts
                        .runtime
                        .spawn(async move { courier.send(&lease, to, consent).await });
                }
            }
            other => unreachable!("an elector does not send {other:?}"),
        }
    }

    /// Asks the store something. What it has not answered within G is given up: no answer could do any good
    /// then, and a store that hangs would hold one task more with each request.
    //= SPEC GUARD-27
    fn ask(
        &mut self,
        question: impl Future<Output = Option<Msg>> + Send + 'static,
        now: BootInstant,
    ) {
        let give_up = self.parts.give_up;
        self.asked.retain(|(at, task)| {
            let is_old = now.saturating_duration_since(*at) >= give_up;
            if is_old {
                task.abort();
            }
            !is_old && !task.is_finished()
        });
        let (commands, store) = (self.parts.commands.clone(), self.parts.store_id);
        let task = self.parts.runtime.spawn(async move {
            if let Some(answer) = question.await {
                tell(&commands, Command::Deliver(store, answer));
            }
        });
        self.asked.push((now, task.abort_handle()));
    }

    /// One write is under way at a time: what has not been answered by now is given up.
    fn note_sent(&mut self, request: u64, now: BootInstant) {
        if self.sent.replace((request, now)).is_some() {
            self.parts.stats.renew_failure("timeout");
        }
    }

    pub(super) fn count_answer(&mut self, msg: &Msg) {
        let (Msg::Written { nonce, .. } | Msg::Conflict { nonce, .. }) = msg else { return };
        // An answer to an earlier attempt was counted as one that has not come.
        let Some((_, sent)) = self.sent.take_if(|(request, _)| *request == nonce.n) else { return };
        match msg {
            Msg::Conflict { .. } => self.parts.stats.renew_failure("conflict"),
            _ => self.parts.stats.renewed(BootInstant::now().saturating_duration_since(sent)),
        }
    }
}

/// Whether an elector can act upon what it is told. A store holds what somebody has written, and that may be
/// anybody.
///
/// # Errors
///
/// A number is out of its bounds, or the record's epoch leaves no room for a next one.
//= SPEC GUARD-25
pub(super) fn check(msg: &Msg) -> Result<(), StoreError> {
    if !msg.is_legal() {
        return Err(StoreError(format!("a number is out of its bounds: {msg:?}")));
    }
    match msg {
        Msg::ReadOk { record, .. } | Msg::Conflict { record, .. } | Msg::Consent { record }
            if record.claim.epoch >= EPOCH_MAX =>
        {
            Err(StoreError(format!(
                "its epoch is {}, and the last under which a term can begin is {EPOCH_MAX}: if it is a mistake, \
                 write the record again, with a higher version and the epoch of the last true term",
                record.claim.epoch,
            )))
        }
        _ => Ok(()),
    }
}
