//! Models: the worlds in which the protocols are checked, and the engine that explores them.
//!
//! Read [`world`], then [`lease`] for the properties, then [`canonical`], then [`registry`] for what is
//! checked. [`irc`] is the same for operations between regions. [`engine`]
//! explores, [`lasso`] searches for loops, [`check`] compares with what is registered; [`deployment`] makes a model of an operator's own numbers. [`space`]
//! is a model as an explorer walks it (paths that are found are told by [`raw`]), with a [`portrait`] of each node and the whole state as a [`tree`].

pub mod canonical;
pub mod check;
pub mod deployment;
pub mod engine;
mod idle;
pub mod irc;
pub mod lasso;
pub mod lease;
pub mod lease_replay;
pub mod portrait;
pub mod raw;
pub mod registry;
pub mod replay;
pub mod space;
pub mod tree;
pub mod world;
