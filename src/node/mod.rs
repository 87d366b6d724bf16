//! A node: the actors over real datagrams, a real clock and a real disk.
//!
//! The model takes it for granted that its surroundings behave; here is where they are made to.
//! Read [`clock`] and [`timers`] for time, [`storage`] for what survives a crash, and `runtime`
//! for the loop that calls the actors. [`Node::start`] and [`Handle`] are what a program uses;
//! [`launch`] makes a node from a cluster file with its [`keys`], and [`control`] lets an operator talk to it. A node that
//! works for a region is made and talked to by [`region`].

#![allow(clippy::disallowed_methods, reason = "the runtime is where clocks and randomness belong")]

pub mod clock;
#[cfg(feature = "node")]
pub mod control;
#[cfg(feature = "node")]
mod counts;
#[cfg(feature = "node")]
mod handle;
#[cfg(feature = "node")]
pub mod keys;
#[cfg(feature = "node")]
pub mod launch;
#[cfg(feature = "node")]
mod lines;
#[cfg(feature = "node")]
mod record;
#[cfg(feature = "node")]
pub mod region;
#[cfg(feature = "node")]
pub mod restore;
#[cfg(feature = "node")]
mod runtime;
#[cfg(feature = "node")]
mod scratch;
#[cfg(feature = "node")]
pub mod storage;
pub mod timers;

#[cfg(feature = "node")]
pub use counts::Counts;
#[cfg(feature = "node")]
pub use handle::{
    Bind, Direction, Exit, HandBack, Handle, Hooks, NewRecorder, Node, NodeError, Published,
    Runnable, Spec, StartError, TellError,
};
#[cfg(feature = "node")]
pub use record::record_into;

/// The guard of one lease on this machine's clock.
pub type Guard = crate::guard::LeaseGuard<clock::BootClock>;
