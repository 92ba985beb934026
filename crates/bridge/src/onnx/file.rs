//! Bytes: one file, or a small one with its weights beside it.

use super::proto::tensor_proto::DataLocation;
use super::proto::{ModelProto, StringStringEntryProto, TensorProto};
use super::{OnnxError, OnnxModel};
use prost::Message;
use std::ffi::OsString;
use std::fs::{File as Handle, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Protobuf's limit.
const MAX_BYTES: u64 = i32::MAX as u64;

/// Tensors below this many bytes stay in the file: readers infer shapes from them.
const MIN_EXTERNAL: usize = 1024;

/// What was written.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Bytes of the model's file.
    pub bytes: u64,
    /// The file of weights beside it, and its bytes.
    pub data: Option<(PathBuf, u64)>,
}

impl OnnxModel {
    /// The file's content, with the weights in it.
    ///
    /// # Errors
    ///
    /// [`OnnxError::TooLarge`].
    pub fn encode(mut self) -> Result<Vec<u8>, OnnxError> {
        let numbers: usize = self.weights.iter().map(|(_, data)| data.len()).sum();
        let bytes = self.proto.encoded_len() as u64 + 4 * numbers as u64;
        if bytes > MAX_BYTES {
            return Err(OnnxError::TooLarge(bytes));
        }
        for (place, data) in std::mem::take(&mut self.weights) {
            if let Some(tensor) = self.initializer(place) {
                tensor.raw_data = little_endian(&data);
            }
        }
        Ok(self.proto.encode_to_vec())
    }

    /// Writes one file, all or nothing.
    ///
    /// # Errors
    ///
    /// [`OnnxError::TooLarge`], or the disk refuses.
    pub fn save(self, path: &Path) -> Result<Saved, OnnxError> {
        let content = self.encode()?;
        let file = Temporary::write(path, |file| file.write_all(&content))?;
        file.rename(path)?;
        Ok(Saved { bytes: content.len() as u64, data: None })
    }

    /// Writes the model to `path` and its weights to a file beside it, called `path` and `.data`. A model that was
    /// there is removed before its weights are replaced, so that none ever stands beside another's.
    ///
    /// # Errors
    ///
    /// The disk refuses, or a name is not UTF-8.
    pub fn save_external(mut self, path: &Path) -> Result<Saved, OnnxError> {
        let beside = data_path(path);
        let location = beside.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let location = location.ok_or_else(|| {
            OnnxError::Damaged(format!("{}: a file that names another needs a name in UTF-8", path.display()))
        })?;
        let weights = std::mem::take(&mut self.weights);
        let mut end = 0;
        let data = Temporary::write(&beside, |file| {
            for (place, numbers) in &weights {
                let Some(tensor) = self.initializer(*place) else { continue };
                let bytes = little_endian(numbers);
                if bytes.len() < MIN_EXTERNAL {
                    tensor.raw_data = bytes;
                    continue;
                }
                let start = aligned(end, bytes.len());
                file.write_all(&vec![0; start - end])?;
                file.write_all(&bytes)?;
                end = start + bytes.len();
                refer(tensor, &location, start, bytes.len());
            }
            Ok(())
        })?;
        let content = self.proto.encode_to_vec();
        let model = Temporary::write(path, |file| file.write_all(&content))?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(path)(error)),
            _ => {}
        }
        data.rename(&beside)?;
        model.rename(path)?;
        Ok(Saved { bytes: content.len() as u64, data: Some((beside, end as u64)) })
    }

    fn initializer(&mut self, place: usize) -> Option<&mut TensorProto> {
        self.proto.graph.as_mut()?.initializer.get_mut(place)
    }
}

/// `net.onnx` has its weights in `net.onnx.data`.
#[must_use]
pub fn data_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

/// Reads the content of a file whose weights are in it.
///
/// # Errors
///
/// It is no ONNX file.
pub fn decode(content: &[u8]) -> Result<ModelProto, OnnxError> {
    ModelProto::decode(content).map_err(|error| OnnxError::Damaged(format!("not an ONNX file: {error}")))
}

/// Reads a file back, with the weights that lie beside it.
///
/// # Errors
///
/// It cannot be read, is no ONNX file, or its weights are not where it says.
pub fn read(path: &Path) -> Result<ModelProto, OnnxError> {
    let damaged = |reason: String| OnnxError::Damaged(format!("{}: {reason}", path.display()));
    let content = std::fs::read(path).map_err(io(path))?;
    let mut model = decode(&content).map_err(|error| damaged(error.to_string()))?;
    drop(content);
    for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if tensor.data_location() == DataLocation::External {
            load(tensor, path.parent().unwrap_or(Path::new("")))
                .map_err(|reason| damaged(format!("{}: {reason}", tensor.name)))?;
        }
    }
    Ok(model)
}

/// Takes a tensor's data from the file that it names, a plain name in `folder`.
fn load(tensor: &mut TensorProto, folder: &Path) -> Result<(), String> {
    let text = |key: &str| {
        tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    };
    let number =
        |key: &str| text(key).and_then(|text| text.parse::<u64>().ok()).ok_or(format!("it has no {key}"));
    let location = Path::new(text("location").ok_or("it has no location")?);
    if location.components().count() != 1 || location.file_name().is_none() {
        return Err(format!("its weights are in {}, which is not beside it", location.display()));
    }
    let (offset, length) = (number("offset")?, number("length")?);
    let mut file =
        Handle::open(folder.join(location)).map_err(|error| format!("{}: {error}", location.display()))?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("{length} bytes from {offset} on are not in {}", location.display()));
    }
    let mut bytes = vec![0; length as usize];
    let mut fill = || {
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)
    };
    fill().map_err(|error| error.to_string())?;
    tensor.raw_data = bytes;
    tensor.external_data.clear();
    tensor.set_data_location(DataLocation::Default);
    Ok(())
}

fn refer(tensor: &mut TensorProto, location: &str, offset: usize, length: usize) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    tensor.external_data = vec![
        entry("location", location.into()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
    tensor.set_data_location(DataLocation::External);
}

/// The next place for that many bytes: large tensors start on a page, so that they can be mapped.
fn aligned(end: usize, length: usize) -> usize {
    end.next_multiple_of(if length < 1 << 16 { 64 } else { 4096 })
}

fn little_endian(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> OnnxError {
    move |source| OnnxError::Io { path: path.to_owned(), source }
}

/// A whole file beside its place, which is removed unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn write(
        path: &Path,
        fill: impl FnOnce(&mut BufWriter<Handle>) -> std::io::Result<()>,
    ) -> Result<Self, OnnxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = || std::io::Error::other("this is a folder; name a file in it");
        let mut name = OsString::from(".");
        name.push(path.file_name().ok_or_else(|| io(path)(folder()))?);
        name.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let place = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&place).map_err(io(path))?;
        let temporary = Self(Some(place));
        let mut file = BufWriter::new(file);
        fill(&mut file)
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .map_err(io(path))?;
        Ok(temporary)
    }

    fn rename(mut self, path: &Path) -> Result<(), OnnxError> {
        if let Some(place) = &self.0 {
            std::fs::rename(place, path).map_err(io(path))?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            // Best effort: the error that brought us here matters more than this one.
            let _ = std::fs::remove_file(place);
        }
    }
}
