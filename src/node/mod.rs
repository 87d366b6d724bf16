//! A node: the actors over real datagrams, a real clock and a real disk.
//!
//! The model takes it for granted that its surroundings behave; here is where they are made to.
//! Read [`clock`] and [`timers`] for time, [`storage`] for what survives a crash, and [`runtime`]
//! for the loop that calls the actors.

pub mod clock;
pub mod storage;
pub mod timers;
