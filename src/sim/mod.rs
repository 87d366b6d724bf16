//! Simulation: many nodes, one seed, no real time.
//!
//! A heap of events drives actors through [`step`](crate::step::step), with the real codec between
//! them, clocks that are wrong by rates of their own, disks that lose what was not synced, and a plan of
//! faults ([`plan`]). All randomness comes from the seed, in streams of its own for network, timers, disks
//! and workload, so the same seed gives the same traces to the last byte. Nodes write the traces that real
//! nodes write, and the same check judges them: see [`crate::trace::check`].

#[cfg(feature = "check")]
mod both;
#[cfg(feature = "check")]
mod customers;
#[cfg(feature = "check")]
mod ear;
mod event;
mod faults;
#[cfg(feature = "check")]
pub mod history;
#[cfg(feature = "check")]
pub mod irc;
pub mod lease;
pub mod leases;
pub mod plan;
mod process;
pub mod run;
pub mod setup;
#[cfg(feature = "check")]
pub(crate) mod steps;
#[cfg(feature = "check")]
mod token;
#[cfg(feature = "check")]
mod two_sides;
#[cfg(feature = "check")]
mod watch;
mod work;

pub use plan::{Fault, Kind, Plan};
pub use run::Simulation;
pub use setup::{Birth, Duties, Setup, Simulated, Work, Workload};
