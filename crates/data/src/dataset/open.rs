//! Recognising what lies at a path.

use std::fs;
use std::path::{Path, PathBuf};

use super::cifar::Cifar;
use super::error::DatasetError;
use super::files::Listed;
use super::folder::Folder;
use super::idx::Idx;
use super::lists::Lists;
use super::split::{Part, Subset, choose, indices};
use super::table::{Table, is_table};
use super::tar::{Shards, is_shard};
use super::{Dataset, OpenOptions, Split, digits};
use crate::{DataError, DataErrorKind};

/// Opens the dataset at `path`, recognising what it is; without a path the embedded digits.
///
/// Where a source has no split to evaluate with, [`Split::Val`] is the held-out fifth of its images and
/// [`Split::Train`] the rest, unless `options` say otherwise: of each class's images, in their order, every fifth.
///
/// # Errors
/// If it is nothing that is recognised, has no such split, or contradicts itself: a [`DatasetError`] as the kind.
pub fn open(
    path: Option<&Path>,
    split: &Split,
    options: &OpenOptions,
) -> Result<Box<dyn Dataset>, DataError> {
    let place = path.unwrap_or(Path::new(digits::NAME));
    let error = |kind: DatasetError| DataError::new(place, kind.into());
    let layout = Layout::of(path, options)?;
    let choice = match (&layout, layout.splits()) {
        // A list is itself the split, whatever its name.
        (Layout::Lists(_), [only]) if options.split_file.is_some() => {
            super::split::Choice { source: Some(only.clone()), part: Part::Whole }
        }
        (Layout::Folder(folder), _) => {
            choose(split, &folder.splits_with(split), options.hold_out).map_err(error)?
        }
        (_, splits) => choose(split, splits, options.hold_out).map_err(error)?,
    };
    let inner = layout.open(choice.source.as_deref(), options)?;
    let what = match choice.part {
        Part::Whole => return Ok(inner),
        Part::Kept => "less a held-out fifth",
        Part::HeldOut => "held-out fifth",
    };
    let indices = indices(inner.as_ref(), choice.part);
    if indices.is_empty() {
        return Err(error(DatasetError::TooFewToHoldOut));
    }
    let describe = format!("{}, {what}", inner.describe());
    Ok(Box::new(Subset { inner, indices, describe }))
}

/// The names of the splits that the dataset at `path` has, the training split first; none if it is all one. Each is
/// opened by [`Split::from_name`].
///
/// # Errors
/// As [`open`], as far as this can be told without reading images.
pub fn splits(path: Option<&Path>, options: &OpenOptions) -> Result<Vec<String>, DataError> {
    Layout::of(path, options).map(|layout| layout.splits().to_vec())
}

/// What was recognised.
enum Layout {
    Digits(Vec<String>),
    Folder(Folder),
    Lists(Lists),
    Table(Table),
    Shards(Shards),
    Cifar(Cifar),
    Idx(Idx),
}

impl Layout {
    fn of(path: Option<&Path>, options: &OpenOptions) -> Result<Self, DataError> {
        let Some(path) = path else { return Ok(Self::Digits(digits::SPLITS.map(String::from).to_vec())) };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Self::of_folder(path, options),
            Ok(_) => Self::of_file(path, options),
            Err(error) => match pattern(path)? {
                Some(files) => Shards::of(path.parent().unwrap_or(Path::new("")), files).map(Self::Shards),
                None => Err(DataError::io(path, error)),
            },
        }
    }

    fn of_file(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if is_table(path) {
            return Table::one(path, folder, options).map(Self::Table);
        }
        if is_shard(path) {
            // Its name may speak of a split, but this one file is all there is.
            return Ok(Self::Shards(Shards::single(folder, path)));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let what = if ends(&[".tar.gz", ".tgz", ".zip", ".7z", ".rar", ".tar.xz", ".tar.zst"]) {
            "a compressed archive: unpack it first"
        } else if name.contains("-ubyte") || ends(&[".bin"]) {
            "one of the files of a data set: give the folder that holds them"
        } else {
            "a single file"
        };
        Err(DataError::new(path, DatasetError::Unrecognised(what).into()))
    }

    fn of_folder(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        if let Some(list) = &options.split_file {
            return Ok(Self::Lists(Lists::one(list, path)));
        }
        if let Some(table) = &options.labels {
            return Table::one(table, path, options).map(Self::Table);
        }
        let (cifar, idx, shards) = (Cifar::find(path), Idx::find(path)?, Shards::find(path)?);
        let examples = [
            cifar.as_ref().map(Cifar::example),
            idx.as_ref().map(Idx::example),
            shards.as_ref().map(Shards::example),
            first_image(path, 2).map(|image| format!("image files ({})", image.display())),
        ];
        let mut examples = examples.into_iter().flatten();
        if let (Some(first), Some(second)) = (examples.next(), examples.next()) {
            return Err(DataError::new(path, DatasetError::Mixed { first, second }.into()));
        }
        if let Some(layout) = cifar.map(Self::Cifar).or(idx.map(Self::Idx)).or(shards.map(Self::Shards)) {
            return Ok(layout);
        }
        if let Some(table) = Table::find(path, options)? {
            return Ok(Self::Table(table));
        }
        let folder = Folder::find(path)?;
        match Lists::find(path)? {
            Some(lists) if folder.splits.is_empty() => Ok(Self::Lists(lists)),
            _ => Ok(Self::Folder(folder)),
        }
    }

    fn splits(&self) -> &[String] {
        match self {
            Self::Digits(splits) => splits,
            Self::Folder(folder) => &folder.splits,
            Self::Lists(lists) => &lists.splits,
            Self::Table(table) => &table.splits,
            Self::Shards(shards) => &shards.splits,
            Self::Cifar(cifar) => &cifar.splits,
            Self::Idx(idx) => &idx.splits,
        }
    }

    /// Opens one of the splits; `None` where there are none.
    fn open(&self, split: Option<&str>, options: &OpenOptions) -> Result<Box<dyn Dataset>, DataError> {
        // These sources have splits always.
        let named = split.unwrap_or("train");
        match self {
            Self::Digits(_) => digits::open(named),
            Self::Folder(folder) => folder.open(split, options),
            Self::Lists(lists) => lists.open(named, options),
            Self::Table(table) => table.open(split, options),
            Self::Shards(shards) => shards.open(split, options),
            Self::Cifar(cifar) => cifar.open(named, options),
            Self::Idx(idx) => idx.open(named, options),
        }
    }
}

/// Some image at most `depth` folders below.
fn first_image(folder: &Path, depth: usize) -> Option<PathBuf> {
    let listed = Listed::of(folder).ok()?;
    if let Some(image) = listed.images().next() {
        return Some(image.clone());
    }
    let below = depth.checked_sub(1)?;
    listed.folders.iter().find_map(|folder| first_image(folder, below))
}

/// The shards that a pattern means: numbers in braces (`shard-{000..012}.tar`) or wildcards. `None` for other paths.
fn pattern(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    let Some(text) = path.to_str() else { return Ok(None) };
    if let Some(files) = braces(text) {
        let missing = files.iter().find(|file| !file.is_file());
        return match missing {
            Some(file) => Err(DataError::new(file, DataErrorKind::NotFound)),
            None => Ok(Some(files)),
        };
    }
    if !text.contains(['*', '?']) {
        return Ok(None);
    }
    let matches =
        glob::glob(text).map_err(|e| DataError::new(path, DataErrorKind::BadPattern(e.to_string())))?;
    let files: Vec<PathBuf> = matches.filter_map(Result::ok).filter(|file| is_shard(file)).collect();
    if files.is_empty() { Err(DataError::new(path, DataErrorKind::NoMatch)) } else { Ok(Some(files)) }
}

fn braces(text: &str) -> Option<Vec<PathBuf>> {
    let (start, rest) = text.split_once('{')?;
    let (range, end) = rest.split_once('}')?;
    let (first, last) = range.split_once("..")?;
    let (from, to): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    // A slip of the keyboard should not ask for a billion files.
    if from > to || to - from >= 1_000_000 {
        return None;
    }
    let width = first.len();
    Some((from..=to).map(|number| PathBuf::from(format!("{start}{number:0width$}{end}"))).collect())
}
