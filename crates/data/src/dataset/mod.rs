//! Labelled images by number, whatever they are stored as.

mod arrays;
mod cifar;
mod classes;
mod digits;
mod error;
mod files;
mod folder;
mod idx;
mod labels;
mod lists;
mod open;
mod order;
mod split;
mod survey;
mod table;
mod tar;

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use crate::{DataError, Decoder, RgbImage};

pub use error::{DatasetError, Listing};
pub use open::{open, splits};
pub use order::sharded_order;
pub use survey::{Survey, survey};

/// An image as its source holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A file's bytes, not yet decoded.
    Encoded {
        /// The file, for messages.
        name: PathBuf,
        /// All its bytes.
        bytes: Vec<u8>,
    },
    /// Raw pixels (CIFAR, IDX, the embedded digits); grey ones are repeated to RGB.
    Pixels(RgbImage),
}

impl Picture {
    /// The pixels, decoded if need be.
    ///
    /// # Errors
    /// As [`Decoder::decode_bytes`].
    pub fn decode(&self, decoder: &Decoder) -> Result<Cow<'_, RgbImage>, DataError> {
        match self {
            Self::Encoded { name, bytes } => decoder.decode_bytes(bytes, name).map(Cow::Owned),
            Self::Pixels(image) => Ok(Cow::Borrowed(image)),
        }
    }
}

/// What an image shows, as indices into [`Dataset::classes`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Label {
    /// Exactly one class.
    One(u32),
    /// Any number of classes, none included, in ascending order without repetition.
    Many(Vec<u32>),
}

impl Label {
    /// The classes as a list.
    #[must_use]
    pub fn classes(&self) -> &[u32] {
        match self {
            Self::One(class) => std::slice::from_ref(class),
            Self::Many(classes) => classes,
        }
    }
}

/// An image with its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub picture: Picture,
    /// What it shows.
    pub label: Label,
}

/// What a dataset's labels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Every image has one class: all labels are [`Label::One`].
    SingleLabel,
    /// Every image has any number of classes: all labels are [`Label::Many`].
    MultiLabel,
}

/// Labelled images by number: 0 to [`Dataset::len`], in an order that never changes.
///
/// A dataset has at least one image and at least two classes. Every label is within [`Dataset::classes`].
/// Methods that take an index panic if it is not below the length.
#[allow(clippy::len_without_is_empty, reason = "no dataset is empty: opening one is an error")]
pub trait Dataset: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// The names of the classes, by index.
    fn classes(&self) -> &[String];

    /// What the labels are.
    fn task(&self) -> Task;

    /// Reads an image, without decoding it.
    ///
    /// # Errors
    /// If the file cannot be read, or is larger than [`OpenOptions::max_file_bytes`].
    fn read(&self, index: usize) -> Result<Sample, DataError>;

    /// The label alone; reads nothing.
    fn label(&self, index: usize) -> Label;

    /// The image's name, for messages: a path relative to the dataset, or a file and a number.
    fn name(&self, index: usize) -> String;

    /// What this is, in a few words for logs: `image folder, split 'train'`.
    fn describe(&self) -> String;

    /// Stretches of indices that lie in one file each, in order and without gaps; one stretch of everything
    /// where images can be read in any order at the same cost. See [`sharded_order`].
    fn shards(&self) -> Vec<Range<usize>> {
        std::iter::once(0..self.len()).collect()
    }
}

/// Which part of a dataset to open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Split {
    /// The images to train with: `train` or `training`.
    #[default]
    Train,
    /// The images to evaluate with: `val`, `valid`, `validation`, `eval` or `evaluation`; where there is none of
    /// these, `test`.
    Val,
    /// All images together, where the source has no splits of its own.
    All,
    /// A split by its name (`test`, `test_b`).
    Name(String),
}

/// How to open a dataset; the default suits all that [`open`] recognises by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// The list of classes; without it `classes.txt` in the dataset's folder, where there is one.
    pub class_map: Option<PathBuf>,
    /// The table of labels (CSV, TSV, JSON-lines); without it one that lies in the dataset's folder.
    pub labels: Option<PathBuf>,
    /// The file with the names of the split's images; without it `train.txt`, `val.txt`, ... in the folder.
    pub split_file: Option<PathBuf>,
    /// The table's column with the images' names; without it the first of the usual names.
    pub image_column: Option<String>,
    /// The table's column with the labels; without it the first of the usual names.
    pub label_column: Option<String>,
    /// What stands between several labels in a table's cell; without it `|` or `;`, whichever occurs.
    pub label_separator: Option<char>,
    /// What the labels are; without it several labels per image where the files show several.
    pub task: Option<Task>,
    /// Whether a source without an evaluation split holds out a fifth of its images for it. Default: yes.
    pub hold_out: bool,
    /// The most bytes that one image file may have. Default: 256 MiB.
    pub max_file_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            class_map: None,
            labels: None,
            split_file: None,
            image_column: None,
            label_column: None,
            label_separator: None,
            task: None,
            hold_out: true,
            max_file_bytes: Decoder::default().max_file_bytes,
        }
    }
}
