//! From a recipe to a checkpoint: recipes, schedules, the loop, metrics and what a run leaves behind.
//!
//! **Invariant:** nothing is drawn on the terminal, no argument is parsed; recipes, schedules, metrics and reports
//! know nothing of Burn.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod device;
mod error;
pub mod evaluate;
pub mod loss;
pub mod memory;
pub mod metrics;
mod network;
pub mod observe;
pub mod optim;
pub mod pipeline;
pub mod recipe;
pub mod report;
pub mod run;
pub mod schedule;
pub mod step;

pub use error::TrainError;
