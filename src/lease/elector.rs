//! The elector: how one host comes to hold the lease, keeps it, and gives it up in time.
//!
//! # The protocol
//!
//! There is one record in a store that offers linearizable reads and compare-and-set. An elector
//! *watches* it: it polls, and starts a timer of length L whenever the version has changed. When that
//! timer runs out over an unchanged version, whoever held the lease has stopped (below), and the
//! elector writes itself into the record, over exactly the version that it watched. A record without
//! a holder may be taken at once.
//!
//! A *holder* renews: it writes the same record again, over the version that it knows. Every write
//! is an *attempt* with a name of its own and a *hold timer* of length G that is armed in the step
//! that sends it. An answer that says "written" makes the attempt the *grant*, and only then does its
//! hold timer count. When the hold timer of the grant runs out, the holder stops.
//!
//! Stopping takes time: the *stop hook* ends the work within S, and until it has, the host counts as
//! writable. Only then does the elector watch again, or release the lease if it was told to.
//!
//! # Why two hosts are never writable at once
//!
//! 1. Let A's grant be an attempt sent at `t`. Its hold timer runs out by `t + G/(1-rho)`, however slow
//!    A's clock, and A's work has ended by `t + G/(1-rho) + S`.
//! 2. The attempt was committed at some `c >= t`. Whoever has seen the version that it made, has seen
//!    it at `c` or later, and its watch timer runs for at least `L/(1+rho)`, however fast its clock.
//! 3. So B writes over A's grant no sooner than `t + L/(1+rho)`, unless the record was free, which it
//!    is only after A's work had ended (L-31, L-32), or A has consented, which it does only then.
//! 4. `G/(1-rho) + S < L/(1+rho)` is what [`super::timing::Timing::validate`] demands.
//! 5. B can only write over the newest version (L-17, L-22), so every earlier grant has ended too.
//!
//! # What it assumes, and what it does not promise
//!
//! Clock *rates* stay within rho and the stop hook within S. Nothing is assumed of the network: messages
//! may be lost, late, doubled and out of order. A host that is paused between a check and its effect is
//! beyond any timer: there only the epoch helps, which grows with every change of holder and which the
//! resource checks (L-28).
//!
//! Further reading: C. Gray, D. Cheriton, "Leases" (1989), for the idea and the role of clock rates.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::msg::Msg;
pub use super::phase::{Attempt, ElectorState, Phase, Reading, Slot, Then, Yielding};
use super::record::{Claim, Epoch, Expect, NodeId, NodeSet, Nonce, Record};
use super::safeguards::Safeguards;
use super::timing::Timing;
use super::{Out, Timer};

/// What one elector is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elector {
    /// The host it runs on.
    pub me: NodeId,
    /// The node that keeps the record.
    pub store: NodeId,
    /// Every host of this lease, this one among them.
    pub hosts: NodeSet,
    /// The numbers. A node gets them only through [`Timing::validate`]; models also try unsafe ones.
    pub timing: Timing,
    /// The rules it keeps: all of them, unless a model shows what happens without one.
    pub safeguards: Safeguards,
}

impl Elector {
    fn keeps(&self, rule: Safeguards) -> bool {
        self.safeguards.contains(rule)
    }

    // ---------------------------------------------------------------------------------------------
    // Inputs
    // ---------------------------------------------------------------------------------------------

    /// A new life begins: watch. `resumed` is what a previous life held, and is `None` with L-30.
    //= SPEC LEASE-1
    pub(super) fn on_start(
        &self,
        incarnation: u64,
        resumed: Option<&Record>,
        o: &mut Out,
    ) -> ElectorState {
        let mut state = ElectorState {
            incarnation,
            requests: 0,
            seen: None,
            reading: None,
            attempt: None,
            exposed: NodeSet::EMPTY,
            watch: Slot::A,
            phase: Phase::WATCHING,
        };
        match resumed {
            Some(record) if !self.keeps(Safeguards::L_30_NO_RESUME) => {
                state.seen = Some(record.clone());
                state.phase = Phase::Holding { epoch: record.claim.epoch, slot: Slot::A };
                o.set_timer(Timer::Hold(Slot::A), exactly(self.timing.give_up));
                o.set_timer(Timer::Attempt, self.loosely(self.timing.renew));
            }
            _ => self.read(&mut state, o),
        }
        state
    }

    /// The store, another host, an operator or the host itself says something.
    //= SPEC LEASE-30
    pub(super) fn on_msg(&self, state: &mut ElectorState, src: NodeId, msg: &Msg, o: &mut Out) {
        let from_store = src == self.store;
        let from_host = src == self.me;
        match msg {
            Msg::ReadOk { nonce, record } if from_store => {
                self.on_read_ok(state, *nonce, record, o)
            }
            Msg::Written { nonce, record } if from_store => {
                self.on_written(state, *nonce, record, o);
            }
            Msg::Conflict { nonce, record } if from_store => {
                self.on_conflict(state, *nonce, record, o);
            }
            Msg::Changed { version } if from_store => self.on_changed(state, *version, o),
            Msg::Consent { record } => self.on_consent(state, src, record, o),
            Msg::Stopped { epoch } if from_host => self.on_stopped(state, *epoch, o),
            Msg::HandOver { target, epoch } if from_host => {
                self.on_hand_over(state, *target, *epoch, o);
            }
            Msg::StepDown { epoch } if from_host => self.on_step_down(state, *epoch, o),
            _ => {}
        }
    }

    /// One of this elector's timers has run out.
    pub(super) fn on_timeout(&self, state: &mut ElectorState, timer: Timer, o: &mut Out) {
        match timer {
            Timer::Poll => {
                if let Phase::Watching { .. } = state.phase {
                    self.read(state, o);
                }
            }
            Timer::Watch(_) => self.on_watched(state, o),
            Timer::Hold(slot) => self.on_hold_over(state, slot, o),
            Timer::Attempt => self.on_attempt_due(state, o),
            Timer::Yield => self.on_yielded(state, o),
            Timer::Resend | Timer::Retry => {}
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Watching
    // ---------------------------------------------------------------------------------------------

    /// Asks for the record, and will ask again until it is answered.
    //= SPEC LEASE-34
    fn read(&self, state: &mut ElectorState, o: &mut Out) {
        let again = state.reading.filter(|reading| self.keeps_name(reading.sent, self.timing.poll));
        let reading = match again {
            Some(Reading { nonce, sent }) => Reading { nonce, sent: sent + 1 },
            None => {
                if !self.keeps(Safeguards::L_10_WATCH_FROM_RECEIPT) {
                    o.set_timer(Timer::Watch(state.watch.other()), exactly(self.timing.lease));
                }
                Reading { nonce: self.next_nonce(state), sent: 1 }
            }
        };
        state.reading = Some(reading);
        o.send(self.store.into(), Msg::Read { nonce: reading.nonce });
        o.set_timer(Timer::Poll, self.loosely(self.timing.poll));
    }

    fn on_read_ok(&self, state: &mut ElectorState, nonce: Nonce, record: &Record, o: &mut Out) {
        if state.reading.is_none_or(|reading| reading.nonce != nonce) {
            return;
        }
        state.reading = None;
        self.look(state, record, o);
    }

    fn on_changed(&self, state: &mut ElectorState, version: u64, o: &mut Out) {
        let is_news = state.seen.as_ref().is_none_or(|seen| version > seen.version);
        match state.phase {
            // A hint is a reason to read, never a reason to believe: no timer moves (L-23).
            Phase::Watching { .. } if is_news => self.read(state, o),
            // Somebody has written over us: the conflict will say who.
            Phase::Holding { .. } if is_news && state.attempt.is_none() => self.attempt(state, o),
            _ => {}
        }
    }

    /// A watcher looks at the record as a linearizable answer shows it.
    //= SPEC LEASE-2
    fn look(&self, state: &mut ElectorState, record: &Record, o: &mut Out) {
        let Phase::Watching { yielding, ripe } = state.phase else {
            panic!("only a watcher looks at the record")
        };
        let changed = state.seen.as_ref().is_none_or(|seen| seen.version != record.version);
        let first = state.seen.is_none();
        self.learn(state, record);

        match yielding {
            // Ours, free or still in our name: stand back, and say so again in case it was lost.
            Some(for_whom) if record.is_free() || self.is_mine(state, record) => {
                if let (Yielding::To(target), false) = (for_whom, record.is_free()) {
                    o.send(target.into(), Msg::Consent { record: record.clone() });
                }
                return;
            }
            Some(_) => {
                o.cancel_timer(Timer::Yield);
                state.phase = Phase::WATCHING;
            }
            None => {}
        }

        if !self.admits(record) {
            o.cancel_timer(Timer::Watch(state.watch));
            return;
        }
        // A free record has nobody who could still be writing. One in the name of this very life is
        // left over from a term that this elector has stopped itself (or never knew it had): nobody
        // but this host could be writing under it, and this host is not.
        if record.is_free() || self.is_mine(state, record) || ripe {
            self.take(state, o);
        } else if changed && (first || self.keeps(Safeguards::L_9_WATCH_RESTARTS)) {
            self.watch(state, record, o);
        } else if !self.keeps(Safeguards::L_10_WATCH_FROM_RECEIPT) {
            o.cancel_timer(Timer::Watch(state.watch.other()));
        }
    }

    /// Starts to watch this version: from now, the receipt of the answer that showed it (L-10).
    //= SPEC LEASE-3
    fn watch(&self, state: &mut ElectorState, record: &Record, o: &mut Out) {
        if !self.keeps(Safeguards::L_10_WATCH_FROM_RECEIPT) {
            o.cancel_timer(Timer::Watch(state.watch));
            state.watch = state.watch.other();
            return;
        }
        // The holder promises to have stopped within the period in *its* record: where the two hosts
        // are configured differently, the longer period is the safe one.
        let lease = record.claim.lease.max(self.timing.lease);
        let range = if self.keeps(Safeguards::L_6_NO_WALL_CLOCK) {
            exactly(lease)
        } else {
            // By another clock's reading the lease may have ended at any moment.
            Duration::ZERO..lease
        };
        o.set_timer(Timer::Watch(state.watch), range);
    }

    /// The version has stood still for all of L: whoever held the lease has stopped.
    //= SPEC LEASE-4
    fn on_watched(&self, state: &mut ElectorState, o: &mut Out) {
        let Phase::Watching { yielding: None, .. } = state.phase else { return };
        if !self.keeps(Safeguards::L_23_TAKE_WHAT_WAS_WATCHED) {
            state.phase = Phase::Watching { yielding: None, ripe: true };
            self.read(state, o);
            return;
        }
        self.take(state, o);
    }

    /// The old holder says that it has stopped: no need to wait for what it has told us itself. The
    /// write is still conditional, so a consent from long ago does no harm.
    //= SPEC LEASE-13
    fn on_consent(&self, state: &mut ElectorState, src: NodeId, record: &Record, o: &mut Out) {
        let seen = state.seen.as_ref().map_or(0, |seen| seen.version);
        let is_useful = match state.phase {
            Phase::Watching { .. } => record.version >= seen,
            // A claim over an older version can only be refused: this one is better.
            Phase::Acquiring => record.version > seen,
            _ => false,
        };
        let is_the_holders = record.claim.holder.map(|holder| holder.node) == Some(src);
        if is_useful && is_the_holders && self.admits(record) {
            state.attempt = None;
            self.learn(state, record);
            self.take(state, o);
        }
    }

    /// It has stood back long enough: nobody wanted the lease, or nobody could have it.
    fn on_yielded(&self, state: &mut ElectorState, o: &mut Out) {
        if let Phase::Watching { .. } | Phase::Releasing { .. } = state.phase {
            self.back_to_watching(state, None, o);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Acquiring and holding
    // ---------------------------------------------------------------------------------------------

    /// Contends for the lease by a write over the record that it has seen.
    //= SPEC LEASE-5
    fn take(&self, state: &mut ElectorState, o: &mut Out) {
        for timer in [Timer::Poll, Timer::Watch(Slot::A), Timer::Watch(Slot::B), Timer::Yield] {
            o.cancel_timer(timer);
        }
        assert!(state.seen.as_ref().is_some_and(|seen| self.admits(seen)), "only an admitted host");
        state.reading = None;
        state.phase = Phase::Acquiring;
        self.attempt(state, o);
    }

    /// Makes an attempt: a new name, and a hold timer that counts from this very step.
    //= SPEC LEASE-6
    fn attempt(&self, state: &mut ElectorState, o: &mut Out) {
        let in_sync = state.seen.as_ref().expect("a record was seen").claim.in_sync;
        self.attempt_with(state, in_sync, o);
    }

    /// The same, proposing another in-sync set.
    //= SPEC LEASE-29
    pub(super) fn attempt_with(&self, state: &mut ElectorState, in_sync: NodeSet, o: &mut Out) {
        let base = state.seen.as_ref().expect("a record was seen");
        let in_sync = if base.is_absent() { self.hosts } else { in_sync };
        let slot = match state.phase {
            Phase::Acquiring => Slot::A,
            Phase::Holding { slot, .. } => slot.other(),
            _ => panic!("only an acquirer or a holder claims the lease"),
        };
        let nonce = self.next_nonce(state);
        state.exposed = state.exposed.union(in_sync);
        let attempt = Attempt { nonce, slot, in_sync, sent: 1 };
        if self.keeps(Safeguards::L_1_DEADLINE_FROM_SEND) {
            o.set_timer(Timer::Hold(slot), exactly(self.timing.give_up));
        }
        let is_second = state.attempt.replace(attempt).is_some();
        let extends = !self.keeps(Safeguards::L_13_TIMER_PER_ATTEMPT)
            || (is_second && !self.keeps(Safeguards::L_21_UNKNOWN_NEVER_EXTENDS));
        if extends {
            self.extend_grant(state, o);
        }
        self.send_attempt(state, attempt, o);
    }

    /// Sends an attempt, for the first time or again.
    ///
    /// Sent again it is the same attempt: the same name, the same precondition, and the hold timer of the
    /// first sending, so that whichever copy is answered, the deadline counts from before all of them.
    fn send_attempt(&self, state: &ElectorState, attempt: Attempt, o: &mut Out) {
        let Attempt { nonce, in_sync, .. } = attempt;
        let base = state.seen.as_ref().expect("a record was seen");
        let (epoch, rule) = match state.phase {
            Phase::Holding { epoch, .. } => (epoch, Safeguards::L_15_RENEW_CONDITIONAL),
            _ => (self.epoch_over(state, base), Safeguards::L_17_TAKEOVER_CONDITIONAL),
        };
        let holder = Some(state.identity(self.me));
        let claim = Claim { holder, epoch, lease: self.timing.lease, in_sync };
        let expect = self.over(base, rule);
        o.send(self.store.into(), Msg::Write { nonce, expect, claim });
        o.set_timer(Timer::Attempt, self.loosely(self.timing.retry));
    }

    /// It is time for the next renewal, or the last request has gone unanswered.
    //= SPEC LEASE-32
    fn on_attempt_due(&self, state: &mut ElectorState, o: &mut Out) {
        match state.phase {
            Phase::Acquiring | Phase::Holding { .. } => match state.attempt {
                Some(attempt) if self.keeps_name(attempt.sent, self.timing.retry) => {
                    self.attempt_again(state, attempt, o);
                }
                _ => self.attempt(state, o),
            },
            Phase::Releasing { epoch, .. } => self.release(state, epoch, o),
            _ => {}
        }
    }

    //= SPEC LEASE-38
    fn attempt_again(&self, state: &mut ElectorState, attempt: Attempt, o: &mut Out) {
        let attempt = Attempt { sent: attempt.sent + 1, ..attempt };
        state.attempt = Some(attempt);
        if !self.keeps(Safeguards::L_18_NONCE_PER_ATTEMPT) {
            // Taken for an attempt of its own, under the name of the one before.
            o.set_timer(Timer::Hold(attempt.slot), exactly(self.timing.give_up));
        }
        if !self.keeps(Safeguards::L_21_UNKNOWN_NEVER_EXTENDS) {
            self.extend_grant(state, o);
        }
        self.send_attempt(state, attempt, o);
    }

    /// Gives the grant more time than its renewals have earned: only without L-13 or L-21.
    fn extend_grant(&self, state: &ElectorState, o: &mut Out) {
        if let Phase::Holding { slot, .. } = state.phase {
            o.set_timer(Timer::Hold(slot), exactly(self.timing.give_up));
        }
    }

    fn on_written(&self, state: &mut ElectorState, nonce: Nonce, record: &Record, o: &mut Out) {
        if let Some(attempt) = state.attempt.filter(|attempt| attempt.nonce == nonce) {
            self.grant(state, attempt, record, o);
        } else if let Phase::Releasing { nonce: release, .. } = state.phase
            && release == nonce
        {
            self.learn(state, record);
            self.back_to_watching(state, Some(Yielding::Anybody), o);
        }
    }

    /// The write is known to be committed: from here on, until its hold timer, this host holds.
    //= SPEC LEASE-7
    fn grant(&self, state: &mut ElectorState, attempt: Attempt, record: &Record, o: &mut Out) {
        self.learn(state, record);
        state.attempt = None;
        if record.claim.holder != Some(state.identity(self.me)) {
            // Only a release that was sent by a holder can make this answer (without L-32).
            self.stop(state, Then::Watch, o);
            return;
        }
        if let Phase::Holding { slot, .. } = state.phase {
            o.cancel_timer(Timer::Hold(slot));
        }
        if !self.keeps(Safeguards::L_1_DEADLINE_FROM_SEND) {
            o.set_timer(Timer::Hold(attempt.slot), exactly(self.timing.give_up));
        }
        if !self.keeps(Safeguards::L_33_RELEASE_FORGETS_ATTEMPTS) {
            // It may come to hold again from any phase, and leaves that phase's timers behind.
            for timer in [Timer::Poll, Timer::Watch(Slot::A), Timer::Watch(Slot::B), Timer::Yield] {
                o.cancel_timer(timer);
            }
            state.reading = None;
        }
        state.phase = Phase::Holding { epoch: record.claim.epoch, slot: attempt.slot };
        o.set_timer(Timer::Attempt, self.loosely(self.timing.renew));
    }

    /// The write was refused, and the answer shows why.
    fn on_conflict(&self, state: &mut ElectorState, nonce: Nonce, record: &Record, o: &mut Out) {
        if let Some(attempt) = state.attempt.filter(|attempt| attempt.nonce == nonce) {
            self.on_claim_refused(state, attempt, record, o);
        } else if let Phase::Releasing { epoch, nonce: release, .. } = state.phase
            && release == nonce
        {
            self.learn(state, record);
            if self.is_mine(state, record) && record.claim.epoch == epoch {
                // A renewal that was given up has landed after all: release over that (LF-13).
                self.release_over(state, epoch, o);
            } else {
                let yielding = record.is_free().then_some(Yielding::Anybody);
                self.back_to_watching(state, yielding, o);
            }
        }
    }

    //= SPEC LEASE-8
    fn on_claim_refused(
        &self,
        state: &mut ElectorState,
        attempt: Attempt,
        record: &Record,
        o: &mut Out,
    ) {
        let own_write = record.nonce == attempt.nonce;
        if own_write && self.keeps(Safeguards::L_19_OWN_WRITE_IS_KNOWN) {
            // The network doubled the write: this is the answer to the first copy (L-19).
            self.grant(state, attempt, record, o);
            return;
        }
        self.learn(state, record);
        state.attempt = None;
        o.cancel_timer(Timer::Hold(attempt.slot));

        let term = state.phase.holding();
        let same_term =
            self.is_mine(state, record) && term.is_none_or(|epoch| epoch == record.claim.epoch);
        let by_me = record.nonce.by == state.identity(self.me);
        let excused = if by_me {
            // An attempt that was given up has landed after all: claim over that. Its deadline is
            // gone with it, so it extends nothing.
            self.keeps(Safeguards::L_19_OWN_WRITE_IS_KNOWN)
        } else {
            self.keeps(Safeguards::L_20B_FOREIGN_FIELD_KEEPS_TERM)
        };
        match state.phase {
            Phase::Acquiring | Phase::Holding { .. } if same_term && excused => {
                self.attempt(state, o);
            }
            Phase::Holding { .. }
                if self.keeps(Safeguards::L_20A_CONFLICT_ENDS_TERM) || same_term =>
            {
                self.stop(state, Then::Watch, o);
            }
            Phase::Acquiring => self.back_to_watching(state, None, o),
            _ => {}
        }
    }

    /// A hold timer has run out.
    //= SPEC LEASE-9
    fn on_hold_over(&self, state: &mut ElectorState, slot: Slot, o: &mut Out) {
        match state.phase {
            Phase::Holding { slot: grant, .. } if slot == grant => {
                let in_flight = state.attempt.is_some();
                if in_flight && !self.keeps(Safeguards::L_11_DEADLINE_IS_FINAL) {
                    return;
                }
                self.stop(state, Then::Watch, o);
            }
            // With clocks that drift, the timer of a pending renewal can run out before that of the
            // grant. Its answer no longer counts: were it taken, the holder would have no deadline.
            //= SPEC LEASE-10
            _ if state.attempt.is_some_and(|attempt| attempt.slot == slot) => {
                state.attempt = None;
                if state.phase == Phase::Acquiring {
                    o.cancel_timer(Timer::Attempt);
                    self.back_to_watching(state, None, o);
                }
            }
            _ => {}
        }
    }

    // ---------------------------------------------------------------------------------------------
    // The end of a term
    // ---------------------------------------------------------------------------------------------

    /// Ends the term: no new work from this step on; what runs is stopped within S.
    ///
    /// Every outstanding attempt is forgotten, so that no late answer can bring the term back (L-33).
    //= SPEC LEASE-11
    pub(super) fn stop(&self, state: &mut ElectorState, then: Then, o: &mut Out) {
        let Phase::Holding { epoch, slot } = state.phase else { panic!("only a holder stops") };
        o.cancel_timer(Timer::Attempt);
        o.cancel_timer(Timer::Hold(slot));
        if self.keeps(Safeguards::L_33_RELEASE_FORGETS_ATTEMPTS) {
            o.cancel_timer(Timer::Hold(slot.other()));
            state.attempt = None;
        }
        state.phase = Phase::Stopping { epoch, then };
        o.send(self.me.into(), Msg::Stopped { epoch });
        if then == Then::Release && !self.keeps(Safeguards::L_31_STOP_BEFORE_RELEASE) {
            let nonce = self.next_nonce(state);
            self.send_tombstone(state, epoch, nonce, o);
        }
    }

    /// The stop hook has finished: nothing of this term runs any more.
    //= SPEC LEASE-12
    fn on_stopped(&self, state: &mut ElectorState, stopped: Epoch, o: &mut Out) {
        let Phase::Stopping { epoch, then } = state.phase else { return };
        if epoch != stopped {
            return;
        }
        match then {
            Then::Watch => self.back_to_watching(state, None, o),
            Then::Release => {
                o.set_timer(Timer::Yield, exactly(self.timing.lease));
                self.release(state, epoch, o);
            }
            Then::HandOver(target) => {
                let record = state.seen.clone().expect("a holder has seen its record");
                o.send(target.into(), Msg::Consent { record });
                o.set_timer(Timer::Yield, exactly(self.timing.lease));
                self.back_to_watching(state, Some(Yielding::To(target)), o);
            }
        }
    }

    /// Asks the store to free the record, and will ask again until it is answered.
    //= SPEC LEASE-14
    fn release(&self, state: &mut ElectorState, epoch: Epoch, o: &mut Out) {
        match state.phase {
            Phase::Releasing { nonce, sent, .. } if self.keeps_name(sent, self.timing.retry) => {
                self.send_tombstone(state, epoch, nonce, o);
                state.phase = Phase::Releasing { epoch, nonce, sent: sent + 1 };
                o.set_timer(Timer::Attempt, self.loosely(self.timing.retry));
            }
            _ => self.release_over(state, epoch, o),
        }
    }

    /// The same under a new name, over the record as it is known now.
    fn release_over(&self, state: &mut ElectorState, epoch: Epoch, o: &mut Out) {
        let nonce = self.next_nonce(state);
        self.send_tombstone(state, epoch, nonce, o);
        state.phase = Phase::Releasing { epoch, nonce, sent: 1 };
        o.set_timer(Timer::Attempt, self.loosely(self.timing.retry));
    }

    fn send_tombstone(&self, state: &ElectorState, epoch: Epoch, nonce: Nonce, o: &mut Out) {
        let base = state.seen.as_ref().expect("a holder has seen its record");
        let epoch = if !self.keeps(Safeguards::L_27_TOMBSTONE) {
            Record::absent().claim.epoch
        } else if self.keeps(Safeguards::L_26_RELEASE_RAISES_EPOCH) {
            epoch + 1
        } else {
            epoch
        };
        let claim =
            Claim { holder: None, epoch, lease: self.timing.lease, in_sync: base.claim.in_sync };
        let expect = self.over(base, Safeguards::L_16_RELEASE_CONDITIONAL);
        o.send(self.store.into(), Msg::Write { nonce, expect, claim });
    }

    /// An operator wants the lease to go to this host.
    //= SPEC LEASE-35
    fn on_hand_over(&self, state: &mut ElectorState, target: NodeId, epoch: Epoch, o: &mut Out) {
        let has_all_writes =
            state.seen.as_ref().is_some_and(|seen| seen.claim.in_sync.contains(target));
        let is_meant = state.phase.holding() == Some(epoch);
        if is_meant && target != self.me && self.hosts.contains(target) && has_all_writes {
            self.stop(state, Then::HandOver(target), o);
        }
    }

    /// An operator wants this host to give the lease up.
    //= SPEC LEASE-35
    fn on_step_down(&self, state: &mut ElectorState, epoch: Epoch, o: &mut Out) {
        if state.phase.holding() != Some(epoch) {
            return;
        }
        if self.keeps(Safeguards::L_32_LOCAL_END_BEFORE_RELEASE) {
            self.stop(state, Then::Release, o);
        } else if let Phase::Holding { slot, .. } = state.phase {
            let nonce = self.next_nonce(state);
            self.send_tombstone(state, epoch, nonce, o);
            let in_sync = state.exposed;
            state.attempt = Some(Attempt { nonce, slot: slot.other(), in_sync, sent: 1 });
        }
    }

    /// Contends again (L-38): reads at once, then watches.
    //= SPEC LEASE-33
    fn back_to_watching(&self, state: &mut ElectorState, yielding: Option<Yielding>, o: &mut Out) {
        if !self.keeps(Safeguards::L_38_RECONTEND) {
            state.phase = Phase::Retired;
            return;
        }
        o.cancel_timer(Timer::Attempt);
        if yielding.is_none() {
            o.cancel_timer(Timer::Yield);
            // What was seen before this term says nothing about how long the record has stood still.
            state.seen = None;
        }
        state.phase = Phase::Watching { yielding, ripe: false };
        self.read(state, o);
    }

    // ---------------------------------------------------------------------------------------------
    // Small things
    // ---------------------------------------------------------------------------------------------

    fn learn(&self, state: &mut ElectorState, record: &Record) {
        state.exposed = record.claim.in_sync;
        state.seen = Some(record.clone());
    }

    fn next_nonce(&self, state: &mut ElectorState) -> Nonce {
        state.requests += 1;
        Nonce { by: state.identity(self.me), n: state.requests }
    }

    fn is_mine(&self, state: &ElectorState, record: &Record) -> bool {
        record.claim.holder.is_some_and(|holder| {
            holder == state.identity(self.me)
                || (holder.node == self.me
                    && !self.keeps(Safeguards::L_29_IDENTITY_HAS_INCARNATION))
        })
    }

    //= SPEC LEASE-36
    fn admits(&self, record: &Record) -> bool {
        !self.keeps(Safeguards::L_41_IN_SYNC_SET) || record.admits(self.me)
    }

    fn over(&self, base: &Record, rule: Safeguards) -> Expect {
        if self.keeps(rule) { Expect::Version(base.version) } else { Expect::Anything }
    }

    /// The epoch of a term that begins over this record. Whoever ends a term raises the epoch, once:
    /// the one who releases (L-26), or else the one who takes over (L-25).
    //= SPEC LEASE-24
    fn epoch_over(&self, state: &ElectorState, base: &Record) -> Epoch {
        let continues =
            self.is_mine(state, base) && !self.keeps(Safeguards::L_29_IDENTITY_HAS_INCARNATION);
        if base.is_free() || continues || !self.keeps(Safeguards::L_25_TAKEOVER_RAISES_EPOCH) {
            base.claim.epoch
        } else {
            base.claim.epoch + 1
        }
    }

    /// Whether a request that has been sent this often, once per period, is sent again under its name:
    /// until it is G old, when no answer to it could do any good.
    ///
    /// Were the name a new one each time, the answer to the first sending would come to a request that
    /// nobody knows any more, and a store that needs longer than the period would never be heard (L-42).
    //= SPEC LEASE-38
    fn keeps_name(&self, sent: u8, period: Duration) -> bool {
        let age = period.saturating_mul(sent.into());
        self.keeps(Safeguards::L_42_RETRY_KEEPS_NAME) && age < self.timing.give_up && sent < u8::MAX
    }

    /// A range up to this period, with jitter to keep hosts from going in step (L-40).
    //= SPEC TIME-16
    fn loosely(&self, period: Duration) -> Range<Duration> {
        period.saturating_sub(self.timing.jitter)..period
    }
}

/// A period with no play: what safety depends on.
pub(super) fn exactly(period: Duration) -> Range<Duration> {
    period..period
}
