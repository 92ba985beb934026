//! The tape of a training step: its gradients against finite differences in `f64`, operator by operator, on the blocks of
//! the networks and on random graphs; what is recomputed and what is frozen change nothing; and what has no gradient is
//! refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod check;
mod compiled;
mod forward;
mod graphs;
mod operators;
#[path = "../random/mod.rs"]
mod random;
mod settings;
