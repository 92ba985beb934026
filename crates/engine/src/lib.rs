//! Compiles the graph of a ConvNet and runs it on the CPU.
//!
//! A [`Graph`](graph::Graph) says what to compute, in the terms of the papers; passes rewrite it into fewer and larger
//! operators; a plan chooses a kernel for each and gives every value a place in one arena; a session runs the plan.
//!
//! The crate knows nothing of Burn, images or sockets, and has no unsafe code: kernels come from `cardinal-kernels`.

pub mod autodiff;
mod error;
pub mod explain;
pub mod graph;
pub mod passes;
pub mod plan;
pub mod reference;
pub mod run;
pub mod train;

pub use cardinal_kernels::{Activation, DType, Isa, Level, Pool, roofline, trim_heap};
pub use error::EngineError;
