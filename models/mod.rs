//! Models: the worlds in which the protocols are checked, and the engine that explores them.
//!
//! Read [`world`], then [`lease`] for the properties, then [`canonical`], then [`registry`] for what is
//! checked. [`irc`] is the same for operations between regions. [`engine`]
//! explores, [`check`] compares with what is registered; [`deployment`] makes a model of an operator's own numbers.

pub mod canonical;
pub mod check;
pub mod deployment;
pub mod engine;
pub mod irc;
pub mod lease;
pub mod lease_replay;
pub mod registry;
pub mod replay;
pub mod world;
