//! What can go wrong with a loader beyond single files.

use thiserror::Error;

/// The kinds of [`DataError`](crate::DataError) that come from a [`Loader`](crate::Loader).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// Fewer images than one whole batch.
    #[error(
        "holds {images} images, fewer than one batch of {batch}; lower the batch size to {images} or less"
    )]
    BatchTooLarge {
        /// Images per batch.
        batch: usize,
        /// Images in the dataset.
        images: usize,
    },
    /// A batch of no images.
    #[error("the batch size must be at least 1")]
    EmptyBatch,
    /// The numbers of one batch have no length that fits in memory's addresses.
    #[error("a batch of {batch} images of {height} x {width} is too large; lower the batch size")]
    TooLarge {
        /// Images per batch.
        batch: usize,
        /// Rows of an image.
        height: usize,
        /// Columns of an image.
        width: usize,
    },
    /// More classes in the data than the targets have columns.
    #[error("has {data} classes, but the network only {network}; give it as many as the data has")]
    Classes {
        /// Classes of the dataset.
        data: usize,
        /// Columns of the targets.
        network: usize,
    },
    /// More than 2^32 images.
    #[error("holds {0} images; at most 4294967295 can be loaded")]
    TooMany(usize),
    /// Broken images in a row, none of which could be replaced.
    #[error("{tried} images in a row cannot be read; the first problem: {first}")]
    NothingReadable {
        /// How many were tried.
        tried: usize,
        /// The first of their errors.
        first: String,
    },
    /// Code that prepares images stopped in the middle.
    #[error("preparing this image failed unexpectedly ({0}); please report it")]
    Panic(String),
    /// The system starts no more threads.
    #[error("cannot start worker threads ({0}); use fewer workers")]
    Threads(String),
}
