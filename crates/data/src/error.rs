//! The crate's error: which file, and what is wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::dataset::DatasetError;
use crate::decode::Format;
use crate::loader::LoaderError;

/// What went wrong with one file, folder or pattern.
///
/// Prints as one line, `<path>: <what is wrong>`, and most kinds say what to do about it.
#[derive(Debug, Error)]
#[error("{}: {kind}", .path.display())]
pub struct DataError {
    /// The file, folder or pattern as the caller gave it (or the name given to bytes without a file).
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub kind: DataErrorKind,
}

impl DataError {
    pub(crate) fn new(path: &Path, kind: DataErrorKind) -> Self {
        Self { path: path.to_path_buf(), kind }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::new(path, DataErrorKind::from_io(error))
    }
}

/// The kinds of [`DataError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataErrorKind {
    /// The path does not exist.
    #[error("there is no such file or folder")]
    NotFound,
    /// A file was expected.
    #[error("is a folder, not a file")]
    IsDirectory,
    /// The system refused to open or list the path.
    #[error("permission denied; check who may read it")]
    PermissionDenied,
    /// Any other failure of the file system.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The file has no bytes at all.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// The first bytes belong to none of the formats that are read.
    #[error("not an image that Cardinal reads: JPEG, PNG, WebP, BMP or GIF{}", in_parentheses(.looks_like))]
    UnknownFormat {
        /// What the bytes look like instead, where that is known.
        looks_like: Option<&'static str>,
    },
    /// A known format in a variant that is not read.
    #[error("{format} file that Cardinal cannot read ({what}); convert it to an ordinary {format} or PNG")]
    Unsupported {
        /// The file's format.
        format: Format,
        /// The variant or feature.
        what: String,
    },
    /// The file ends before its pixels do.
    #[error("truncated {format} file: the image data stops early; fetch or copy it again")]
    Truncated {
        /// The file's format.
        format: Format,
    },
    /// The bytes contradict the format.
    #[error("damaged {format} file ({detail})")]
    Corrupt {
        /// The file's format.
        format: Format,
        /// The decoder's own words.
        detail: String,
    },
    /// More bytes than [`Decoder::max_file_bytes`](crate::Decoder::max_file_bytes).
    #[error("larger than {limit} bytes, the limit for one image file")]
    FileTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// More pixels than [`Decoder::max_pixels`](crate::Decoder::max_pixels).
    #[error("claims {width} x {height} pixels; at most {limit} pixels are decoded")]
    TooManyPixels {
        /// Width that the header claims.
        width: u32,
        /// Height that the header claims.
        height: u32,
        /// The limit, in pixels.
        limit: u64,
    },
    /// A folder without any image below it.
    #[error("the folder holds no image (.jpg, .jpeg, .png, .webp, .bmp, .gif), subfolders included")]
    NoImages,
    /// A pattern that matches no image.
    #[error("no image matches this pattern")]
    NoMatch,
    /// A pattern that is not one.
    #[error("not a valid pattern ({0})")]
    BadPattern(String),
    /// The file does not start as a NumPy array does.
    #[error("not a .npy file (NumPy array)")]
    NotNpy,
    /// The header of a NumPy file cannot be used.
    #[error("unusable .npy header ({0})")]
    NpyHeader(String),
    /// The numbers have another type than the one that is read.
    #[error("holds values of type {0}; save it as 32-bit floats: np.save(f, a.astype('<f4'))")]
    NpyDtype(String),
    /// Column-major order.
    #[error("is in Fortran order; save it as np.save(f, np.ascontiguousarray(a))")]
    NpyFortranOrder,
    /// Fewer values than the header promises.
    #[error("truncated .npy file: {expected} values promised, {found} there")]
    NpyTruncated {
        /// Values that the shape asks for.
        expected: usize,
        /// Whole values in the file.
        found: usize,
    },
    /// Shape and values given to [`write_npy`](crate::write_npy) disagree.
    #[error("shape {shape:?} does not hold {values} values")]
    NpyShape {
        /// The shape given.
        shape: Vec<usize>,
        /// The number of values given.
        values: usize,
    },
    /// A training transform cannot run.
    #[error("cannot be transformed: {0}")]
    Transform(#[source] crate::PreprocessError),
    /// Batches cannot be made of it.
    #[error("{0}")]
    Loader(#[source] LoaderError),
    /// What is wrong with a dataset as a whole.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

impl From<io::Error> for DataErrorKind {
    fn from(error: io::Error) -> Self {
        Self::from_io(error)
    }
}

impl DataErrorKind {
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::IsADirectory => Self::IsDirectory,
            _ => Self::Io(error),
        }
    }
}

fn in_parentheses(guess: &Option<&'static str>) -> String {
    guess.map(|guess| format!(" (it looks like {guess})")).unwrap_or_default()
}
