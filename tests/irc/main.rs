//! Situations between regions, told step by step: the actors through `step`, messages in hand.

mod carrying;
mod customers;
mod halves;
mod many;
mod net;
mod operators;
mod pace;
mod peering;
mod refusals;
mod remote;
mod restore;
mod sizes;
