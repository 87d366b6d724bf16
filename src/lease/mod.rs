//! Lease election.

pub mod msg;
pub mod record;
pub mod safeguards;
pub mod timing;
