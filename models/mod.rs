//! Models: the worlds in which the protocols are checked, and the engine that explores them.

pub mod canonical;
pub mod engine;
pub mod lease;
pub mod world;
