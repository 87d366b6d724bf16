//! The explorer: models, counterexamples and traces in a browser.
//!
//! The server walks models and reads files; the page draws. A state is known by its model and the numbers
//! of the actions that lead to it, together with its fingerprint: a link that was made for another model
//! is refused. Nothing here builds a whole graph, and no lock is held while a state is computed.
//!
//! [`story`] is what is drawn, whatever it comes from; [`gallery`] names the rules and what happens without
//! them; [`import`] and [`export`] read and write files; [`api`] answers the page.

#![allow(clippy::disallowed_methods, reason = "a server may look at the clock")]

pub mod api;
pub mod export;
pub mod gallery;
pub mod import;
pub mod models;
pub mod report;
pub mod server;
pub mod story;
