//! What is modelled, and the copies with a fault.

pub mod gate;
pub mod guard;

/// What is wrong with a copy of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardFault {
    /// Nothing.
    None,
    /// Epoch and deadline are two atomics.
    TwoWords,
    /// A renewal looks, and then stores.
    RenewByLoadAndStore,
    /// A renewal compares the epoch, but not whether the term has ended.
    RenewIgnoresTheEnd,
    /// A renewal puts off whatever deadline is there.
    RenewComparesTheDeadlineAlone,
    /// What was read is used without a second question.
    NoSecondCheck,
    /// The second question has no acquire fence before it.
    NoFenceOfTheReader,
    /// The end has no release fence after it.
    NoFenceOfTheWriter,
    /// The deadline thread looks, and then ends the epoch, whatever its deadline is by then.
    ExpireComparesTheEpochAlone,
    /// The end looks whether the term runs, and then stores.
    EndByLoadAndStore,
    /// The end of a term that was not open yet leaves no mark.
    EndOfAFutureTermIsForgotten,
}

/// What is wrong with a copy of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateFault {
    /// Nothing.
    None,
    /// Entering looks whether the gate is open, and then counts.
    CheckThenCount,
    /// Leaving orders nothing.
    LeaveRelaxed,
    /// Opening does not ask whether somebody is still inside.
    OpenIgnoresTheCount,
    /// Who waits looks first and takes the lock after that.
    LookBeforeTheLock,
}

/// What is wrong with the use of guard and gate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermFault {
    /// Nothing.
    None,
    /// Whoever ends the term does not wait until the gate has closed.
    DoesNotWait,
    /// The work asks for a permit, which nobody waits for, and not for an admission.
    WorksUnderAPermit,
}
