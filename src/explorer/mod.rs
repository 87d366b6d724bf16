//! The explorer: models, counterexamples and traces in a browser.
//!
//! The server walks models and reads files; the page draws. A state is known by its model and the numbers
//! of the actions that lead to it, together with its fingerprint: a link that was made for another model
//! is refused. Nothing here builds a whole graph, and no lock is held while a state is computed.
//!
//! [`story`] is what is drawn, whatever it comes from (`pace` says how its clocks have run), and [`telling`] makes one of a walk and [`around`] finds
//! what else could have happened; [`gallery`] names the rules and what happens without
//! them; [`import`] and [`export`] read and write files; [`follow`] reads those that nodes are still
//! writing; [`api`] answers the page, `searching` what takes
//! longer, and `turns` says which of the two comes first.

#![allow(clippy::disallowed_methods, reason = "a server may look at the clock")]

pub mod api;
pub mod around;
pub mod export;
pub mod follow;
pub mod gallery;
pub mod import;
pub mod models;
mod nodes;
mod pace;
pub mod report;
mod searching;
pub mod server;
pub mod story;
pub mod telling;
mod turns;
