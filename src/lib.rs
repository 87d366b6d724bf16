//! tenure: lease election, written once, checked exhaustively, running over UDP.
//!
//! One protocol lives in five worlds, and every world calls it through the same function,
//! [`step::step`]: an actor, its state and one input in; the next state and the ordered effects out.
//! What the checker explores is what a node runs.
//!
//! # Reading order
//!
//! 1. [`lease`]: the protocol. [`lease::record`] and [`lease::elector`] are the heart of it;
//!    [`lease::timing`] says which numbers are safe, [`lease::safeguards`] names every rule.
//! 2. [`step`]: the only caller of actors.
//! 3. `models`: the world with and without time, its canonical form, the engine, the registry.
//! 4. [`wire`] and `node`: the runtime over UDP, with durable storage.
//! 5. [`trace`]: what nodes record and how a run is judged; [`sim`]: clusters from a seed.
//! 6. `config` and `cli`: what an operator sees.
//!
//! To use an elector in a program of one's own: `embed`, and [`guard`] for what it permits.
//!
//! Without default features only the pure part is built: no socket, no clock, no disk, no tokio.

#[cfg(all(feature = "node", feature = "check"))]
pub mod cli;
pub mod clock;
#[cfg(feature = "node")]
pub mod config;
pub mod durable;
pub mod duration;
#[cfg(feature = "embed")]
pub mod embed;
#[cfg(feature = "explorer")]
pub mod explorer;
pub mod gate;
pub mod guard;
#[cfg(feature = "http")]
pub mod http;
pub mod irc;
pub mod lease;
#[cfg(feature = "check")]
#[path = "../models/mod.rs"]
pub mod models;
#[cfg(feature = "embed")]
pub mod node;
pub mod oversight;
pub mod packed;
pub mod persistent;
pub mod sim;
pub mod step;
mod sync;
pub mod trace;
pub mod wire;

/// The examples in the README are tests.
#[cfg(all(doctest, feature = "embed"))]
#[doc = include_str!("../README.md")]
struct Readme;
