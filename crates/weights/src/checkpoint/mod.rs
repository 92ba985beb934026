//! From a file to a state dict: tell the format, find the tensors, clean the names, note the rest.

mod select;

use crate::error::{Result, WeightsError, WeightsErrorKind};
use crate::names::{self, Converted, Naming};
use crate::source::Source;
use crate::tensor::NamedTensors;
use crate::{safetensors_file, torch};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The container that a checkpoint came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A safetensors file.
    Safetensors,
    /// The zip of PyTorch 1.6 and later.
    TorchZip,
    /// The pickle stream of PyTorch 1.5 and earlier.
    TorchLegacy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "PyTorch zip",
            Self::TorchLegacy => "PyTorch legacy",
        })
    }
}

/// How to choose among the state dicts of a file.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Prefer averaged weights where the file has both.
    pub ema: bool,
    /// Take the dict under this top-level key, and no other.
    pub key: Option<String>,
}

/// Tensors from a file, and what the file said about them.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The state dict, under its own names less wrapper prefixes.
    pub tensors: NamedTensors,
    /// Everything else of use.
    pub info: CheckpointInfo,
}

/// What a file says besides its tensors. Absent facts are `None` or empty.
#[derive(Debug, Clone)]
pub struct CheckpointInfo {
    /// The container.
    pub format: Format,
    /// The keys that led to the state dict, outermost first (`["state_dict"]`); empty for a bare one.
    pub wrapper: Vec<String>,
    /// Whether those keys name averaged weights.
    pub is_ema: bool,
    /// The prefix that was taken off every name (`module.`), or empty.
    pub prefix: String,
    /// Names in the state dict that hold no readable tensor, with what they hold; at most 100.
    pub ignored: Vec<(String, String)>,
    /// The text entries of a safetensors file.
    pub metadata: BTreeMap<String, String>,
    /// Model name, as the writer spelled it.
    pub arch: Option<String>,
    /// Number of classes.
    pub num_classes: Option<u64>,
    /// Epochs done.
    pub epoch: Option<u64>,
    /// Class names by index.
    pub classes: Option<Vec<String>>,
}

impl CheckpointInfo {
    fn new(format: Format) -> Self {
        Self {
            format,
            wrapper: Vec::new(),
            is_ema: false,
            prefix: String::new(),
            ignored: Vec::new(),
            metadata: BTreeMap::new(),
            arch: None,
            num_classes: None,
            epoch: None,
            classes: None,
        }
    }
}

impl Checkpoint {
    /// The naming scheme of the tensors.
    pub fn naming(&self) -> Naming {
        names::detect(self.tensors.names())
    }

    /// The tensors under timm's names.
    ///
    /// # Errors
    /// As for [`names::to_timm`].
    pub fn into_timm(self) -> std::result::Result<Converted, WeightsError> {
        names::to_timm(self.tensors)
    }
}

/// Reads a checkpoint: plain weights are preferred to averaged ones.
///
/// # Errors
/// The file cannot be read, is of no known format, is damaged, or holds no state dict. The error names it.
pub fn read(path: &Path) -> std::result::Result<Checkpoint, WeightsError> {
    read_with(path, &ReadOptions::default())
}

/// Reads a checkpoint with a choice of state dict.
///
/// # Errors
/// As for [`read`]; also if `options.key` is not in the file.
pub fn read_with(path: &Path, options: &ReadOptions) -> std::result::Result<Checkpoint, WeightsError> {
    let source = Source::open(path);
    source.and_then(|source| read_source(&source, options)).map_err(|kind| kind.in_file(path))
}

/// Reads a checkpoint from memory; `name` stands for the file in errors.
///
/// # Errors
/// As for [`read_with`].
pub fn read_bytes(
    name: &str,
    bytes: &[u8],
    options: &ReadOptions,
) -> std::result::Result<Checkpoint, WeightsError> {
    read_source(&Source::from_bytes(bytes), options).map_err(|kind| kind.at(name))
}

/// The text entry by which a safetensors file says that it is a training checkpoint of ours, whose tensors' names begin
/// with `state_dict.`, `state_dict_ema.` or `optimizer.`.
pub const TRAINING_KEY: &str = "cardinal_training";

/// Reads all tensors and text entries of a safetensors file as they are, without choosing a state dict.
///
/// # Errors
/// The file cannot be read, is of another format, or is damaged. The error names it.
pub fn read_safetensors(
    path: &Path,
) -> std::result::Result<(NamedTensors, BTreeMap<String, String>), WeightsError> {
    let read = || -> Result<_> {
        let source = Source::open(path)?;
        let head = source.head(512)?;
        if !safetensors_file::sniff(&head) {
            let what = if head.is_empty() { guess(&head) } else { "not a safetensors file" };
            return Err(WeightsErrorKind::UnknownFormat(what.to_owned()));
        }
        safetensors_file::read(&source)
    };
    read().map_err(|kind| kind.in_file(path))
}

fn read_source(source: &Source<'_>, options: &ReadOptions) -> Result<Checkpoint> {
    let head = source.head(512)?;
    let mut checkpoint = if head.starts_with(b"PK\x03\x04") {
        read_torch(source, &torch::File::open_zip(source)?, options, Format::TorchZip)?
    } else if torch::is_legacy(&head) {
        read_torch(source, &torch::File::open_legacy(source)?, options, Format::TorchLegacy)?
    } else if safetensors_file::sniff(&head) {
        choose_safetensors(source, options)?
    } else {
        return Err(WeightsErrorKind::UnknownFormat(guess(&head).to_owned()));
    };
    strip_prefixes(&mut checkpoint);
    Ok(checkpoint)
}

/// Names what a file that is no checkpoint probably is.
fn guess(head: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    if head.is_empty() {
        "the file is empty; download it again"
    } else if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        "this is a web page, so the download failed; download it again"
    } else if text.starts_with("version https://git-lfs") {
        "this is a Git LFS pointer; run `git lfs pull` to get the file"
    } else if head.starts_with(&[0x1f, 0x8b]) {
        "this is gzip data; unpack it first"
    } else if head.get(257..262) == Some(b"ustar") {
        "this is a tar archive; unpack it first (checkpoints of PyTorch before 0.2 are not supported)"
    } else if head.starts_with(b"\x89HDF") {
        "this is an HDF5 (Keras) file; only PyTorch and safetensors files are supported"
    } else if head.first() == Some(&0x80) {
        "this is a plain Python pickle; save the state dict with torch.save or safetensors"
    } else {
        "neither a safetensors file nor a PyTorch one (.pth, .pt, .bin)"
    }
}

fn choose_safetensors(source: &Source<'_>, options: &ReadOptions) -> Result<Checkpoint> {
    if let Some(key) = &options.key {
        let text = format!("a safetensors file has no top-level key '{key}'; leave the key out");
        return Err(WeightsErrorKind::NoStateDict(text));
    }
    let (tensors, metadata) = safetensors_file::read(source)?;
    if tensors.is_empty() {
        return Err(WeightsErrorKind::NoStateDict("the file holds no tensors".to_owned()));
    }
    let mut info = CheckpointInfo::new(Format::Safetensors);
    let number = |key: &str| metadata.get(key).and_then(|text| text.parse().ok());
    (info.num_classes, info.epoch) = (number("num_classes"), number("epoch"));
    info.arch = metadata.get("arch").or_else(|| metadata.get("architecture")).cloned();
    info.classes = metadata.get("label_names").and_then(|text| serde_json::from_str(text).ok());
    info.metadata = metadata;
    if info.metadata.contains_key(TRAINING_KEY) {
        return select_section(tensors, info, options.ema);
    }
    Ok(Checkpoint { tensors, info })
}

/// The plain or, if it is there and asked for, the averaged weights of a training checkpoint of ours.
fn select_section(tensors: NamedTensors, mut info: CheckpointInfo, ema: bool) -> Result<Checkpoint> {
    const AVERAGE: &str = "state_dict_ema.";
    info.is_ema = ema && tensors.names().any(|name| name.starts_with(AVERAGE));
    let prefix = if info.is_ema { AVERAGE } else { "state_dict." };
    info.wrapper = vec![prefix.trim_end_matches('.').to_owned()];
    let inner = |(name, tensor): (String, _)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
    let tensors: NamedTensors = tensors.into_iter().filter_map(inner).collect();
    if tensors.is_empty() {
        return Err(WeightsErrorKind::NoStateDict("the training checkpoint holds no weights".to_owned()));
    }
    Ok(Checkpoint { tensors, info })
}

fn read_torch(
    source: &Source<'_>,
    file: &torch::File,
    options: &ReadOptions,
    format: Format,
) -> Result<Checkpoint> {
    let found = select::find(&file.pickle, options)?;
    let mut info = CheckpointInfo::new(format);
    (info.wrapper, info.is_ema) = (found.path, found.is_ema);
    select::side_facts(&file.pickle, &mut info);
    let mut tensors = NamedTensors::new();
    let mut budget = source.len().saturating_mul(4).saturating_add(1 << 20);
    let listing = select::list(&file.pickle, found.dict)?;
    info.ignored = listing.ignored;
    for (name, tensor) in listing.tensors {
        let tensor = file.tensor(source, tensor, &mut budget);
        tensors.insert(name.clone(), tensor.map_err(|e| e.inside(&format!("tensor '{name}'")))?);
    }
    Ok(Checkpoint { tensors, info })
}

/// What `DataParallel`, `DistributedDataParallel` and `torch.compile` put in front of every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

fn strip_prefixes(checkpoint: &mut Checkpoint) {
    // torch's AveragedModel keeps a counter beside the wrapped module.
    let counter = checkpoint.tensors.contains("n_averaged");
    let names: Vec<&str> = checkpoint.tensors.names().filter(|name| *name != "n_averaged").collect();
    let prefix = common_prefix(&names);
    if prefix.is_empty() {
        return;
    }
    let stripped =
        |(name, tensor): (String, _)| Some((name.strip_prefix(prefix.as_str())?.to_owned(), tensor));
    checkpoint.tensors = std::mem::take(&mut checkpoint.tensors).into_iter().filter_map(stripped).collect();
    if counter {
        checkpoint.info.ignored.push(("n_averaged".to_owned(), "counter of averaged steps".to_owned()));
    }
    checkpoint.info.prefix = prefix;
}

/// The longest run of [`PREFIXES`] that every name begins with, and goes on after.
fn common_prefix(names: &[&str]) -> String {
    let mut prefix = String::new();
    let begins = |start: &str| {
        !names.is_empty() && names.iter().all(|name| name.len() > start.len() && name.starts_with(start))
    };
    while let Some(longer) = PREFIXES.iter().map(|next| format!("{prefix}{next}")).find(|p| begins(p)) {
        prefix = longer;
    }
    prefix
}
