//! What can go wrong, and where.

use std::fmt;
use std::path::Path;

/// A failure while reading, converting or writing weights: a place and a kind.
#[derive(Debug)]
pub struct WeightsError {
    /// The file, or the tensor or value, that the failure is about.
    pub place: String,
    /// What went wrong.
    pub kind: WeightsErrorKind,
}

/// The kinds of [`WeightsError`]. Each text says what to do where there is something to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum WeightsErrorKind {
    /// The operating system refused.
    Io(std::io::Error),
    /// The content is of no format that this crate reads.
    UnknownFormat(String),
    /// The file is truncated or disagrees with itself.
    Damaged(String),
    /// The file is well formed, but holds something that this crate does not read.
    Unsupported(String),
    /// No state dict was found, or the one asked for is not there.
    NoStateDict(String),
    /// The names or values do not fit the naming scheme.
    Naming(String),
    /// A tensor's bytes do not fit its shape.
    Shape(String),
}

impl WeightsErrorKind {
    pub(crate) fn at(self, place: impl Into<String>) -> WeightsError {
        WeightsError { place: place.into(), kind: self }
    }

    pub(crate) fn in_file(self, path: &Path) -> WeightsError {
        self.at(path.display().to_string())
    }

    /// Puts `what` in front of the text, for errors inside one tensor or entry of a file.
    pub(crate) fn inside(self, what: &str) -> Self {
        let join = |text: String| format!("{what}: {text}");
        match self {
            Self::Io(e) => Self::Io(std::io::Error::new(e.kind(), join(e.to_string()))),
            Self::UnknownFormat(t) => Self::UnknownFormat(join(t)),
            Self::Damaged(t) => Self::Damaged(join(t)),
            Self::Unsupported(t) => Self::Unsupported(join(t)),
            Self::NoStateDict(t) => Self::NoStateDict(join(t)),
            Self::Naming(t) => Self::Naming(join(t)),
            Self::Shape(t) => Self::Shape(join(t)),
        }
    }
}

impl fmt::Display for WeightsErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "{e}"),
            Self::UnknownFormat(text) => write!(f, "not a checkpoint: {text}"),
            Self::Damaged(text) => {
                write!(f, "damaged checkpoint: {text}; copy or download the file again")
            }
            Self::Unsupported(text) => write!(f, "unsupported checkpoint: {text}"),
            Self::NoStateDict(text) => write!(f, "no state dict: {text}"),
            Self::Naming(text) | Self::Shape(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.kind)
    }
}

impl std::error::Error for WeightsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            WeightsErrorKind::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<std::io::Error> for WeightsErrorKind {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

/// Shorthand for the functions that do not know the file's name.
pub(crate) type Result<T> = std::result::Result<T, WeightsErrorKind>;

pub(crate) fn damaged<T>(text: impl Into<String>) -> Result<T> {
    Err(WeightsErrorKind::Damaged(text.into()))
}

pub(crate) fn unsupported<T>(text: impl Into<String>) -> Result<T> {
    Err(WeightsErrorKind::Unsupported(text.into()))
}
