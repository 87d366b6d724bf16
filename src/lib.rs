//! tenure: lease election, written once.

#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod config;
pub mod durable;
pub mod duration;
pub mod lease;
pub mod persistent;
pub mod step;

#[cfg(feature = "check")]
#[path = "../models/mod.rs"]
pub mod models;
