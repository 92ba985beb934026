//! One training step, behind a trait that knows nothing of who computes it.

mod compiled;
mod eager;

pub(crate) use compiled::captured;
pub use compiled::{CompiledOptions, CompiledStep, best_dtype, dtype};
pub use eager::EagerStep;

use crate::TrainError;
use crate::schedule::Rates;
use cardinal_weights::NamedTensors;

/// A batch as a step reads it.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// `[n, channels, h, w]`, normalised.
    pub images: &'a [f32],
    /// `[n, channels, h, w]`.
    pub size: [usize; 4],
    /// `[n, classes]`, soft.
    pub targets: &'a [f32],
    /// One class for each image, for the triplet loss; may be empty without it.
    pub labels: &'a [u32],
}

/// How a step is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate and momentum.
    pub rates: Rates,
    /// Share of the old average that the moving average keeps, if there is one.
    pub ema_decay: f64,
    /// DropBlock's rate.
    pub drop_block: f64,
    /// Seed of everything that this batch draws (dropout, DropBlock, stochastic depth): equal seeds draw the same.
    pub seed: u64,
    /// Update the parameters with the mean of the gradients since the last update; without it they are only added up.
    pub update: bool,
}

/// What a step tells.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// The loss of the batch. If it is not finite, nothing was updated.
    pub loss: f64,
    /// `[n, classes]`, before the update.
    pub logits: Vec<f32>,
    /// The norm of all gradients together before clipping, at an update. If it is not finite, nothing was updated.
    pub gradient_norm: Option<f64>,
}

/// All that a step remembers from one update to the next, under timm's parameter names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// Parameters and running statistics.
    pub model: NamedTensors,
    /// Their moving average.
    pub ema: Option<NamedTensors>,
    /// `first.NAME` and `second.NAME` for each trainable parameter: momentum, or Adam's moments.
    pub optimizer: NamedTensors,
    /// Updates done.
    pub updates: u64,
}

/// Whatever can train a network: forward, backward and update.
pub trait Step {
    /// Takes one step.
    ///
    /// # Errors
    ///
    /// The batch does not fit the network, or the device fails.
    fn train(&mut self, batch: StepInput<'_>, settings: &StepSettings) -> Result<StepOutput, TrainError>;

    /// Who computes it, in a few words, with the memory that it takes where that is known.
    fn describe(&self) -> String;

    /// What to save. Gradients that wait for an update are not part of it: save after one.
    ///
    /// # Errors
    ///
    /// The device fails.
    fn state(&self) -> Result<StepState, TrainError>;

    /// Continues from a state, so that the next steps are those that the saved run would have taken, bit for bit.
    ///
    /// # Errors
    ///
    /// The state belongs to another network or another optimizer.
    fn restore(&mut self, state: &StepState) -> Result<(), TrainError>;
}
