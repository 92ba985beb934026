//! What can stop a run.

use crate::device::DeviceKind;
use crate::recipe::RecipeError;
use cardinal_data::DataError;
use cardinal_engine::EngineError;
use cardinal_models::ModelError;
use cardinal_weights::WeightsError;
use std::path::PathBuf;

/// Why training or evaluation stopped, or could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The images, or the settings they are prepared with.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data and the recipe do not go together; says how.
    #[error("{0}")]
    DataFit(String),
    /// The network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A checkpoint that is sound but cannot be continued from.
    #[error("{}: {reason}", .path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A checkpoint cannot be written: which, and why.
    #[error(
        "the checkpoint cannot be written: {0}; the last one that could is as it was: free space, then --resume"
    )]
    Save(String),
    /// A state that belongs to something else; says to what.
    #[error("{0}")]
    State(String),
    /// This build has no support for a device.
    #[error("this build has no {0}; build it with 'cargo build --release --features {0}'")]
    NoDevice(DeviceKind),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The network cannot be trained by a compiled step.
    #[error(
        "{model} cannot be compiled for training: {reason}; --step eager trains it operation by operation"
    )]
    NotCompiled {
        /// The model.
        model: String,
        /// What stands in the way.
        reason: String,
    },
    /// The network could not be compiled for evaluation, or a compiled step failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of the run cannot be written or read.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        error: std::io::Error,
    },
    /// Loss or gradients are not finite.
    #[error("{what} is not finite in epoch {epoch}, batch {batch}: {images}. {advice}")]
    Diverged {
        /// `the loss` or `the norm of the gradients`.
        what: &'static str,
        /// From 0.
        epoch: usize,
        /// From 0.
        batch: usize,
        /// The batch's images, by name.
        images: String,
        /// What is left, and what to try.
        advice: String,
    },
}
