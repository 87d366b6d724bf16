//! Atomics and locks: those of the standard library, or loom's. Decided here, and nowhere else.
//!
//! Under `--cfg loom` every operation on them is a point at which loom tries every order of the threads
//! and every value that the memory model permits. Built like that the crate runs inside loom only.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering, fence},
};
