//! tenure: lease election, written once.

pub mod durable;
pub mod duration;
pub mod lease;
pub mod step;
