//! Writing safetensors, all or nothing.
//!
//! The file is written under a temporary name beside its place, synced, and renamed, so that a reader sees
//! the old file or the new one and a crash leaves no half checkpoint. The header is laid out as the Python
//! library does it (widest element first, then by name) with sorted keys: equal input gives equal bytes.

use crate::error::{Result, WeightsError, WeightsErrorKind};
use crate::tensor::{DType, NamedTensors, Tensor};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `tensors` with the names given, and `metadata` as the file's text entries.
///
/// `format` is set to `pt` if `metadata` does not have it, which is what Python loaders look for.
///
/// # Errors
/// The folder or disk refuses, or a name is `__metadata__`, which the format keeps for itself.
pub fn write_safetensors(
    path: &Path,
    tensors: &NamedTensors,
    metadata: &BTreeMap<String, String>,
) -> std::result::Result<(), WeightsError> {
    write(path, tensors, metadata).map_err(|kind| kind.in_file(path))
}

fn write(path: &Path, tensors: &NamedTensors, metadata: &BTreeMap<String, String>) -> Result<()> {
    let (header, order) = layout(tensors, metadata)?;
    let temporary = Temporary::beside(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.file()?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in order {
        out.write_all(tensor.bytes())?;
    }
    let file = out.into_inner().map_err(|e| WeightsErrorKind::Io(e.into_error()))?;
    file.sync_all()?;
    drop(file);
    temporary.rename(path)
}

fn layout<'a>(
    tensors: &'a NamedTensors,
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<&'a Tensor>)> {
    if tensors.contains("__metadata__") {
        return Err(WeightsErrorKind::Naming("'__metadata__' cannot be a tensor's name".to_owned()));
    }
    let rank = |dtype| DType::ALL.iter().position(|&d| d == dtype);
    let mut entries: Vec<_> = tensors.iter().collect();
    entries.sort_by(|(a, x), (b, y)| rank(x.dtype()).cmp(&rank(y.dtype())).then(a.cmp(b)));

    let mut texts = metadata.clone();
    texts.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let unwritable = |e: serde_json::Error| WeightsErrorKind::Naming(e.to_string());
    let mut header = format!("{{\"__metadata__\":{}", serde_json::to_string(&texts).map_err(unwritable)?);
    let mut start = 0;
    for (name, tensor) in &entries {
        let end = start + tensor.bytes().len();
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        let name = serde_json::to_string(name).map_err(unwritable)?;
        header += &format!(
            ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        );
        start = end;
    }
    header.push('}');
    let mut header = header.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' '); // so that the data starts aligned
    Ok((header, entries.into_iter().map(|(_, tensor)| tensor).collect()))
}

/// A file that is removed unless it was renamed into place.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn beside(path: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Some(name) = path.file_name() else {
            return Err(WeightsErrorKind::Naming("this is a folder; name a file in it".to_owned()));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { path: path.with_file_name(hidden), kept: false })
    }

    fn file(&self) -> Result<File> {
        Ok(OpenOptions::new().write(true).create_new(true).open(&self.path)?)
    }

    fn rename(mut self, path: &Path) -> Result<()> {
        std::fs::rename(&self.path, path)?;
        self.kept = true;
        sync_folder(path);
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

/// Makes the rename last through a power cut. Not every file system can sync a folder, so failing is fine.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
