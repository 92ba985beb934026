//! Compiled training: one planned step, forward, backward and update, in one block of memory.
//!
//! [`TrainPlan`] differentiates a captured graph ([`crate::autodiff`]), decides what is done in place and where every map
//! lies, and builds a kernel for each step; how much memory a step takes is known before it runs. [`TrainSession`] holds
//! the parameters, their gradients and the optimizer's state, and runs steps. The loss is the caller's: it reads the outputs
//! of the forward pass and gives their gradients to the backward pass.

mod build;
mod kernel;
mod lower;
mod parameters;
mod plan;
mod session;

pub use crate::autodiff::Recompute;
pub use cardinal_kernels::{Decay, LogitLoss, LossIo, LossRule, UpdateRule};
pub use parameters::{Parameter, Role};
pub use plan::{Live, TrainPlan, TrainStep};
pub use session::{TrainSession, UpdateSettings, Vector};

use cardinal_kernels::{DType, Isa};

/// What a plan is made for.
pub struct TrainOptions<'a> {
    /// The most images of one step.
    pub batch: usize,
    /// Format of feature maps and their gradients; parameters, vectors and sums are `f32`.
    pub dtype: DType,
    /// Threads that share the work.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// Whether the parameter of this name is trained. A norm whose weight is not trained uses its running statistics.
    pub trained: &'a dyn Fn(&str) -> bool,
}

/// What a step draws its random numbers from: equal seeds draw the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSeed {
    /// The run's seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// `DropBlock`'s rate in this step.
    pub drop_block: f64,
}
