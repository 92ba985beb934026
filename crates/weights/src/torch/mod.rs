//! PyTorch's pickle containers.
//!
//! Both hold a pickle that describes tensors as views of numbered storages, and the storages as raw bytes:
//! the zip (PyTorch 1.6 and later) as one uncompressed entry each, the older stream one after another. A
//! [`File`] is the parsed pickle and the places of the storages; a tensor's bytes are read when asked for.

mod legacy;
mod machine;
mod pickle;
mod rebuild;
mod storage;
mod zip;

pub(crate) use legacy::sniff as is_legacy;
pub(crate) use pickle::{Pickle, TensorRef, Value};

use crate::error::Result;
use crate::source::Source;
use crate::tensor::Tensor;
use std::collections::HashMap;
use storage::Place;

/// Largest pickle accepted. It holds names, shapes and whatever Python values were saved alongside; that of
/// a large network with its optimizer is under 1 MB.
const MAX_PICKLE: u64 = 32 << 20;

/// A parsed checkpoint, its tensors not yet read.
pub(crate) struct File {
    pub(crate) pickle: Pickle,
    storages: HashMap<String, Place>,
}

impl File {
    pub(crate) fn open_zip(source: &Source<'_>) -> Result<Self> {
        zip::open(source)
    }

    pub(crate) fn open_legacy(source: &Source<'_>) -> Result<Self> {
        legacy::open(source)
    }

    /// Reads one tensor, gathered to row-major order.
    ///
    /// `budget` is what all tensors of a file may still take together. Views may overlap and repeat, so
    /// without it a small file could describe any amount of data.
    pub(crate) fn tensor(&self, source: &Source<'_>, tensor: &TensorRef, budget: &mut u64) -> Result<Tensor> {
        storage::read(source, &self.storages, tensor, budget)
    }
}
