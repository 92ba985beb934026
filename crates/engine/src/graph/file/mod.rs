//! The portable file: one safetensors file, whose tensors are the constants and whose `__metadata__` holds the graphs.
//!
//! | metadata | |
//! |---|---|
//! | `format` | `cardinal-graph` |
//! | `version` | `1` |
//! | `checksum` | CRC-32 of names, shapes, data and metadata, in hexadecimal, whatever their order in the file |
//! | `graph.0`, `graph.1` … | the graphs in the text form; a constant says `from "name of a tensor"` |
//! | anything else | the caller's: class names, the mean and deviation of the pixels, the crop … |
//!
//! Graphs share tensors, and equal constants are stored once. Every number is kept bit for bit.
//!
//! A file is not trusted: lengths are checked before anything is allocated, what is allocated is bounded by the
//! file's size, and each graph is verified.

mod header;
mod read;
mod write;

use super::Graph;
use crate::EngineError;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const FORMAT: &str = "cardinal-graph";
const VERSION: &str = "1";

/// What went wrong, before the file's name is put in front.
type Result<T> = std::result::Result<T, String>;

/// The content of a portable file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Package {
    /// The graphs: one network for several input sizes.
    pub graphs: Vec<Graph>,
    /// Notes of whoever saved it. The file's own keys (`format`, `version`, `checksum`, `graph.…`) are not among them.
    pub metadata: BTreeMap<String, String>,
}

impl Package {
    /// Writes the file, all or nothing: under a temporary name beside its place, synced, then renamed.
    ///
    /// # Errors
    ///
    /// The folder or disk refuses, a graph is none, or a metadata key is one of the file's own.
    pub fn save(&self, path: impl AsRef<Path>) -> std::result::Result<(), EngineError> {
        let path = path.as_ref();
        self.save_to(path).map_err(|reason| file_error(path, &reason))
    }

    fn save_to(&self, path: &Path) -> Result<()> {
        let text = |error: std::io::Error| error.to_string();
        let temporary = Temporary::beside(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary.path).map_err(text)?;
        self.write(&mut file).map_err(|error| error.to_string())?;
        file.sync_all().map_err(text)?;
        drop(file);
        temporary.rename(path).map_err(text)
    }

    /// Writes the content of the file.
    ///
    /// # Errors
    ///
    /// The writer refuses, a graph is none, or a metadata key is one of the file's own.
    pub fn write(&self, out: &mut impl Write) -> std::result::Result<(), EngineError> {
        write::write(self, out).map_err(|reason| EngineError::File { reason })
    }

    /// Reads a file that [`Package::save`] wrote.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no such file, or is damaged.
    pub fn load(path: impl AsRef<Path>) -> std::result::Result<Self, EngineError> {
        let path = path.as_ref();
        let load = || {
            let mut file = File::open(path).map_err(|error| error.to_string())?;
            let length = file.metadata().map_err(|error| error.to_string())?.len();
            read::read(&mut file, length)
        };
        load().map_err(|reason| file_error(path, &reason))
    }

    /// Reads the content of a file of `length` bytes.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no such file, or is damaged.
    pub fn read(reader: &mut impl Read, length: u64) -> std::result::Result<Self, EngineError> {
        read::read(reader, length).map_err(|reason| EngineError::File { reason })
    }
}

fn file_error(path: &Path, reason: &str) -> EngineError {
    EngineError::File { reason: format!("{}: {reason}", path.display()) }
}

/// Whether a metadata key belongs to the format.
fn is_own(key: &str) -> bool {
    matches!(key, "format" | "version" | "checksum") || key.starts_with("graph.")
}

/// CRC-32 of what a file means, whatever the order in which it says it. Tensors are given by name, shape, and the
/// checksum of their bytes.
fn checksum<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], u32)>,
) -> String {
    let mut hasher = crc32fast::Hasher::new();
    let mut add = |bytes: &[u8]| {
        // Lengths keep one text's end from being the next one's start.
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "checksum") {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    let tensors: BTreeMap<_, _> =
        tensors.into_iter().map(|(name, shape, data)| (name, (shape, data))).collect();
    for (name, (shape, data)) in tensors {
        add(name.as_bytes());
        add(&shape.iter().flat_map(|&size| (size as u64).to_le_bytes()).collect::<Vec<_>>());
        add(&data.to_le_bytes());
    }
    format!("{:08x}", hasher.finalize())
}

/// A file that is removed unless it was renamed into place.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn beside(path: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().ok_or("this is a folder; name a file in it")?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { path: path.with_file_name(hidden), kept: false })
    }

    fn rename(mut self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.kept = true;
        // Makes the new name last through a power cut. Not every file system can sync a folder, so failing is fine.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Ok(folder) = File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // Best effort: the error that brought us here matters more than this one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
