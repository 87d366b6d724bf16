//! Models: the worlds in which the protocols are checked, and the engine that explores them.
//!
//! Read [`world`], then [`lease`] for the properties, then [`canonical`], then [`registry`] for what is
//! checked. [`engine`] explores, [`check`] compares with what is registered.

pub mod canonical;
pub mod check;
pub mod engine;
pub mod lease;
pub mod lease_replay;
pub mod registry;
pub mod replay;
pub mod world;
