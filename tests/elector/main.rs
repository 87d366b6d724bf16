//! The lease protocol, one situation at a time.
//!
//! Goal: each sentence LEASE-n of `docs/SPEC.md` has a test that a reader can follow. Method: members are
//! driven by hand through [`tenure::step::step`], with no network, no clock and no thread. A test says
//! which message arrives, which is lost and which timer runs out; nothing else happens. What holds in
//! *every* order of events is not shown here but by the models.

#![allow(clippy::disallowed_methods, reason = "one test waits, to show that time does not matter")]

mod bench;
mod ending;
mod holding;
mod store;
mod table;
mod watching;
