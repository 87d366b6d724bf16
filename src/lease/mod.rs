//! Lease election.

pub mod msg;
pub mod presets;
pub mod record;
pub mod safeguards;
pub mod timing;
