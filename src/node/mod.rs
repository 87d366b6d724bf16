//! A node: the actors over real datagrams, a real clock and a real disk.
//!
//! The model takes it for granted that its surroundings behave; here is where they are made to.
//! Read [`clock`] and [`timers`] for time, [`storage`] for what survives a crash, and `runtime`
//! for the loop that calls the actors. [`Node::start`] and [`Handle`] are what a program uses;
//! [`launch`] makes a node from a cluster file, and [`control`] lets an operator talk to it.

#![allow(clippy::disallowed_methods, reason = "the runtime is where clocks and randomness belong")]

pub mod clock;
pub mod control;
mod counts;
mod handle;
pub mod launch;
mod record;
mod runtime;
pub mod storage;
pub mod timers;

pub use counts::Counts;
pub use handle::{
    Bind, Direction, Exit, HandBack, Handle, Hooks, NewRecorder, Node, NodeError, Published,
    Runnable, Spec, StartError, TellError,
};
pub use record::record_into;
