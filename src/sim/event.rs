//! What happens next, in a queue by its time.

use super::plan::Fault;
use super::setup::Simulated;

/// Something that happens at its time.
pub(super) enum Event<A: Simulated> {
    /// Some timer of a node may be due.
    Wake(u16),
    Arrive(u16, Vec<u8>),
    /// A save of this start is durable.
    Synced {
        node: u16,
        start: u32,
        number: u64,
    },
    /// A message of this start to itself arrives.
    Own {
        node: u16,
        start: u32,
        msg: A::Msg,
    },
    Work,
    /// What this start has asked was answered by an error.
    Error {
        node: u16,
        start: u32,
    },
    /// A process that waits for one answer at a time waits no longer for this one.
    GiveUp {
        process: u16,
        request: u64,
    },
    /// A sentry may have something to do.
    Look(u16),
    /// A hook that no actor waits for has finished.
    HookEnded {
        node: u16,
        process: u32,
        epoch: u64,
    },
    /// A kill switch has been pulled.
    Killed {
        node: u16,
        process: u32,
    },
    Begin(Fault),
    End(Fault),
}
