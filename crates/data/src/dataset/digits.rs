//! The embedded digits: 1,797 handwritten digits of 8 x 8 pixels from the UCI repository (`assets/SOURCES.md`).

use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::Dataset;
use super::arrays::{Layout, PixelSet};
use super::error::DatasetError;
use super::idx::read_array;
use super::labels::Labels;
use super::split::{Part, Subset, indices};
use crate::{DataError, DataErrorKind};

const FILE: &[u8] = include_bytes!("../../../../assets/digits.gz");

/// What messages call it.
pub(super) const NAME: &str = "<digits>";

/// Its splits. The test split is the held-out fifth: of each digit's images, in their order, the fifth, tenth, ...
pub(super) const SPLITS: [&str; 2] = ["train", "test"];

pub(super) fn open(split: &str) -> Result<Box<dyn Dataset>, DataError> {
    let inner = all().map_err(|kind| DataError::new(Path::new(NAME), kind))?;
    let part = if split == "train" { Part::Kept } else { Part::HeldOut };
    let describe = format!("embedded digits, split '{split}'");
    Ok(Box::new(Subset { indices: indices(inner.as_ref(), part), inner, describe }))
}

fn all() -> Result<Box<dyn Dataset>, DataErrorKind> {
    let mut reader = GzDecoder::new(FILE);
    let images = read_array(&mut reader)?;
    let labels = read_array(&mut reader)?;
    let [count, height, width] = images.shape[..] else {
        let detail = "the embedded file is damaged".into();
        return Err(DatasetError::Format { format: "digits", detail }.into());
    };
    Ok(Box::new(PixelSet {
        size: (width, height),
        layout: Layout::Grey { max: 16 },
        pixels: images.values,
        labels: Labels::One(labels.values.into_iter().map(u32::from).collect()),
        count: count as usize,
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        files: vec![(PathBuf::from("digits"), 0)],
        describe: "embedded digits".into(),
    }))
}
