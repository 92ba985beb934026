//! Image files on disk: finding them, and a dataset made of them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::labels::Labels;
use super::{Dataset, Label, Picture, Sample, Task};
use crate::sources::{is_hidden, is_image};
use crate::{DataError, DataErrorKind};

/// Image files with labels.
pub(super) struct FileSet {
    pub(super) root: PathBuf,
    /// Relative to `root`.
    pub(super) files: Vec<Box<Path>>,
    pub(super) labels: Labels,
    pub(super) classes: Vec<String>,
    pub(super) describe: String,
    pub(super) max_file_bytes: u64,
}

impl Dataset for FileSet {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn task(&self) -> Task {
        self.labels.task()
    }

    fn read(&self, index: usize) -> Result<Sample, DataError> {
        let name = self.root.join(&self.files[index]);
        let bytes = read_limited(&name, self.max_file_bytes)?;
        Ok(Sample { picture: Picture::Encoded { name, bytes }, label: self.label(index) })
    }

    fn label(&self, index: usize) -> Label {
        self.labels.get(index)
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }
}

/// All bytes of a file that has at most `limit`.
pub(super) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let error = |error| DataError::io(path, error);
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::with_capacity(file.metadata().map_err(error)?.len().min(limit) as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(DataError::new(path, DataErrorKind::FileTooLarge { limit }));
    }
    Ok(bytes)
}

/// What lies directly in a folder, hidden entries left out, each list in the order of the names' bytes.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) folders: Vec<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

impl Listed {
    pub(super) fn of(folder: &Path) -> Result<Self, DataError> {
        let error = |error| DataError::io(folder, error);
        let mut listed = Self::default();
        for entry in fs::read_dir(folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            // The entry knows its own type without a look at the file, except for what a link leads to.
            let kind = entry.file_type().map_err(error)?;
            let folder = if kind.is_symlink() { path.is_dir() } else { kind.is_dir() };
            if folder { listed.folders.push(path) } else { listed.files.push(path) }
        }
        listed.folders.sort_by(|a, b| byte_order(a, b));
        listed.files.sort_by(|a, b| byte_order(a, b));
        Ok(listed)
    }

    /// The names of the folders that are text.
    pub(super) fn folder_names(&self) -> Vec<String> {
        self.folders.iter().filter_map(|path| path.file_name()?.to_str()).map(str::to_owned).collect()
    }

    /// The images among the files.
    pub(super) fn images(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().filter(|path| is_image(path))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.files.is_empty()
    }
}

fn byte_order(a: &Path, b: &Path) -> std::cmp::Ordering {
    a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes())
}

/// All images below `folder`, relative to `root`, in torchvision's order: folder by folder, the folders by their
/// whole paths, the files of each by name. Links are followed; hidden files and folders are left out.
pub(super) fn images_below(root: &Path, folder: &Path) -> Result<Vec<Box<Path>>, DataError> {
    let mut seen = HashSet::new();
    let mut waiting = vec![folder.to_path_buf()];
    let mut folders = Vec::new();
    while let Some(folder) = waiting.pop() {
        // Links may lead in circles.
        let real = fs::canonicalize(&folder).map_err(|error| DataError::io(&folder, error))?;
        if seen.insert(real) {
            let listed = Listed::of(&folder)?;
            let images: Vec<Box<Path>> = listed.images().map(|image| relative(root, image)).collect();
            waiting.extend(listed.folders);
            folders.push((folder, images));
        }
    }
    folders.sort_by(|(a, _), (b, _)| byte_order(a, b));
    Ok(folders.into_iter().flat_map(|(_, images)| images).collect())
}

fn relative(root: &Path, path: &Path) -> Box<Path> {
    path.strip_prefix(root).unwrap_or(path).into()
}

/// The images of a folder by the names that tables and lists use for them.
pub(super) struct Names {
    root: PathBuf,
    pub(super) files: Vec<Box<Path>>,
    /// By file name, with its extension and without.
    by_name: HashMap<String, Vec<u32>>,
}

impl Names {
    pub(super) fn of(root: &Path) -> Result<Self, DataError> {
        let files = images_below(root, root)?;
        let mut by_name: HashMap<String, Vec<u32>> = HashMap::with_capacity(2 * files.len());
        for (index, file) in files.iter().enumerate() {
            let keys = [file.file_name(), file.file_stem()];
            for key in keys.into_iter().flatten().filter_map(OsStr::to_str) {
                by_name.entry(key.to_owned()).or_default().push(index as u32);
            }
        }
        Ok(Self { root: root.to_path_buf(), files, by_name })
    }

    /// The file that `name` means: a path relative to the root, to the split's folder, or to any folder below, with
    /// the extension or without. `None` if there is no such file, or there are several and none of them lies at
    /// the root or in the split's folder.
    pub(super) fn resolve(&self, name: &str, split: Option<&str>) -> Option<Box<Path>> {
        let wanted = Path::new(name.trim_start_matches("./"));
        let candidates = self.by_name.get(wanted.file_name()?.to_str()?).map_or(&[][..], Vec::as_slice);
        let files = candidates.iter().map(|&index| &self.files[index as usize]);
        let at = |path: &Path| {
            files.clone().find(|file| ***file == *path || file.with_extension("") == *path).cloned()
        };
        let near = at(wanted).or_else(|| at(&Path::new(split?).join(wanted)));
        if near.is_some() {
            return near;
        }
        let mut below = files.clone().filter(|file| {
            file.ends_with(wanted)
                || wanted.file_name() == file.file_stem() && file.with_extension("").ends_with(wanted)
        });
        match (below.next(), below.next()) {
            (Some(only), None) => Some(only.clone()),
            // Whatever its extension, and wherever it lies.
            _ => self.root.join(wanted).is_file().then(|| wanted.into()),
        }
    }
}
