//! What a run tells while it runs.

use crate::TrainError;
use crate::checkpoint::{Meter, Score};
use crate::evaluate::Evaluation;
use crate::recipe::Recipe;
use cardinal_data::DataError;
use std::path::Path;
use std::time::Duration;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins, or continues.
    Start(&'a Start<'a>),
    /// The first batch, before its step.
    FirstBatch {
        /// `[n, 3, h, w]`, augmented and normalised.
        images: &'a [f32],
        /// `[n, 3, h, w]`
        size: [usize; 4],
        /// Mean and standard deviation that were taken off.
        normalization: [[f32; 3]; 2],
    },
    /// A batch was trained on.
    Batch(&'a BatchReport),
    /// An image could not be read.
    Skipped(&'a DataError),
    /// A batch was evaluated.
    Evaluating {
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// An epoch is over and evaluated; its checkpoint is written next.
    Epoch(&'a EpochReport<'a>),
    /// A checkpoint was written between two epochs' ends.
    Recovery {
        /// Epochs done.
        epoch: usize,
        /// Batches done of the next.
        batch: usize,
    },
}

/// What a run begins with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The effective settings.
    pub recipe: &'a Recipe,
    /// Where the run is kept.
    pub folder: &'a Path,
    /// The network's name.
    pub model: &'static str,
    /// Its parameters.
    pub parameters: usize,
    /// What the training data is, in a few words.
    pub train: String,
    /// Images to train on.
    pub train_images: usize,
    /// What the evaluation data is.
    pub val: String,
    /// Images to evaluate on.
    pub val_images: usize,
    /// The classes.
    pub classes: &'a [String],
    /// Who computes the steps, and in how much memory.
    pub step: String,
    /// Batches in an epoch.
    pub batches: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// `Some((epochs done, batches done))` if the run continues.
    pub resumed: Option<(usize, usize)>,
}

/// A batch that was trained on.
#[derive(Clone, Copy, Debug)]
pub struct BatchReport {
    /// Epochs done.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Batches done in this epoch, this one included.
    pub batch: usize,
    /// Batches in an epoch.
    pub batches: usize,
    /// Updates done before it.
    pub step: u64,
    /// Images in it.
    pub images: usize,
    /// Its loss.
    pub loss: f64,
    /// The epoch so far.
    pub meter: Meter,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradients, at an update.
    pub gradient_norm: Option<f64>,
    /// How long it took, with the wait for its data.
    pub time: Duration,
    /// How long its data was waited for.
    pub waited: Duration,
}

/// An epoch that is over.
#[derive(Debug)]
pub struct EpochReport<'a> {
    /// Epochs done, this one included.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Updates done.
    pub step: u64,
    /// What was counted in it.
    pub meter: Meter,
    /// The learning rate of its last update.
    pub lr: f64,
    /// The plain weights' evaluation, if there was one after this epoch.
    pub evaluation: Option<&'a Evaluation>,
    /// The averaged weights' evaluation.
    pub evaluation_ema: Option<&'a Evaluation>,
    /// The best so far.
    pub best: Option<Score>,
    /// Whether this epoch is the best.
    pub is_best: bool,
    /// Seconds of training in all.
    pub seconds: f64,
}

/// Whoever wants to know.
pub trait Observer {
    /// Takes note of an event.
    ///
    /// # Errors
    ///
    /// It cannot; the run stops.
    fn event(&mut self, event: &Event<'_>) -> Result<(), TrainError>;
}

/// All of them, one after the other.
impl Observer for Vec<&mut dyn Observer> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        self.iter_mut().try_for_each(|observer| observer.event(event))
    }
}
