//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file of the report that cannot be written or read.
#[derive(Debug, Error)]
#[error("{}: {error}", .path.display())]
pub struct ReportError {
    /// The file.
    pub path: PathBuf,
    /// The system's words.
    #[source]
    pub error: io::Error,
}

impl ReportError {
    pub(super) fn new(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), error }
    }
}

/// Writes to a temporary name in the same folder, which then takes the name.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        ReportError::new(path, error)
    })
}
