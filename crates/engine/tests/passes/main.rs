//! The optimizer: every pass on small graphs, all of them on excerpts of real networks, and on random graphs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arithmetic;
mod check;
mod fusions;
mod networks;
mod random;
mod weights;
