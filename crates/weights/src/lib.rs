//! Named tensors in and out of files.
//!
//! A checkpoint is a list of named tensors plus a little that its writer said about it. [`read`] takes
//! safetensors files and PyTorch's two pickle containers (the zip of PyTorch 1.6 and later, and the older
//! stream), told apart by their content. [`write_safetensors`] writes safetensors. [`names`] converts the
//! parameter names of other code bases to timm's, and [`compare`] says how a file and a model differ.
//!
//! **Nothing in a file is trusted.** Pickles are not executed: a small machine knows the dozen calls that
//! rebuild tensors and keeps every other object as an opaque value. Sizes are checked against the file
//! before anything is allocated, so what a file can claim is bounded by what it holds.
//!
//! ```no_run
//! let checkpoint = cardinal_weights::read("resnest50-528c19ca.pth".as_ref())?;
//! let (naming, converted) = (checkpoint.naming(), checkpoint.into_timm()?);
//! println!("{naming}: {} tensors", converted.tensors.len());
//! # Ok::<(), cardinal_weights::WeightsError>(())
//! ```
#![forbid(unsafe_code)]

mod checkpoint;
mod diff;
mod error;
pub mod names;
mod safetensors_file;
mod source;
mod tensor;
mod torch;
mod write;

pub use checkpoint::{
    Checkpoint, CheckpointInfo, Format, ReadOptions, TRAINING_KEY, read, read_bytes, read_safetensors,
    read_with,
};
pub use diff::{Comparison, Mismatch, compare};
pub use error::{WeightsError, WeightsErrorKind};
pub use tensor::{DType, NamedTensors, Tensor};
pub use write::write_safetensors;
