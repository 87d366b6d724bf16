//! tenure: lease election, written once.

pub mod durable;
pub mod lease;
#[cfg(feature = "node")]
pub mod node;
pub mod step;
pub mod wire;
