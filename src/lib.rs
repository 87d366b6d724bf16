//! tenure: lease election, written once.

pub mod durable;
pub mod lease;
pub mod persistent;
pub mod step;

#[cfg(feature = "check")]
#[path = "../models/mod.rs"]
pub mod models;
