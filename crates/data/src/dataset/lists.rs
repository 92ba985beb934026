//! Class folders with text files that list the images of each split.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::classes::{ClassList, expect_two};
use super::error::{DatasetError, Listing};
use super::files::{FileSet, Listed, Names, read_limited};
use super::labels::Collector;
use super::split::{is_split_name, is_train, train_of};
use super::{Dataset, OpenOptions, Task};
use crate::{DataError, DataErrorKind};

/// Larger lists are not read.
const MAX_BYTES: u64 = 1 << 30;

/// A folder of images and the lists of its splits.
pub(super) struct Lists {
    root: PathBuf,
    lists: Vec<(String, PathBuf)>,
    pub(super) splits: Vec<String>,
}

impl Lists {
    /// Looks for `train.txt` and other splits' lists in a folder.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, DataError> {
        let named = |file: &PathBuf| {
            let stem = file.file_stem()?.to_str()?;
            (file.extension()? == "txt" && is_split_name(stem)).then(|| (stem.to_owned(), file.clone()))
        };
        let mut lists: Vec<(String, PathBuf)> = Listed::of(path)?.files.iter().filter_map(named).collect();
        lists.sort_by_key(|(split, _)| !is_train(split));
        let splits: Vec<String> = lists.iter().map(|(split, _)| split.clone()).collect();
        Ok(train_of(&splits).is_some().then(|| Self {
            root: path.to_path_buf(),
            lists,
            splits: splits.clone(),
        }))
    }

    /// A given list, as the only one.
    pub(super) fn one(list: &Path, root: &Path) -> Self {
        let split = list.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            root: root.to_path_buf(),
            lists: vec![(split.clone(), list.to_path_buf())],
            splits: vec![split],
        }
    }

    pub(super) fn open(&self, split: &str, options: &OpenOptions) -> Result<Box<dyn Dataset>, DataError> {
        let names = Names::of(&self.root)?;
        let find = |name: &str| self.lists.iter().find(|(split, _)| split == name);
        let Some((_, path)) = find(split) else {
            let kind = DatasetError::NoSplit { split: split.to_owned(), found: self.splits.clone() };
            return Err(DataError::new(&self.root, kind.into()));
        };
        let error = |kind: DatasetError| DataError::new(path, kind.into());
        let list = List::read(path, &names)?;
        let classes = ClassList::find(&self.root, options)?;
        let folders = Folders::of(&names.files);
        let vocabulary = match (classes, &list.labels) {
            (None, None) => folders.collect(&names.files).vocabulary(None, options.task),
            (classes, Some(labels)) => match train_of(&self.splits).filter(|&t| t != split).and_then(find) {
                Some((_, train)) if classes.is_none() => {
                    let train = List::read(train, &names)?;
                    train.labels.unwrap_or_default().vocabulary(None, options.task)
                }
                _ => labels.vocabulary(classes.as_ref(), options.task),
            },
            (classes, None) => folders.collect(&list.files).vocabulary(classes.as_ref(), options.task),
        };
        let collector = list.labels.unwrap_or_else(|| folders.collect(&list.files));
        let labels =
            collector.labels(&vocabulary, |image| list.files[image].display().to_string()).map_err(error)?;
        if vocabulary.task == Task::SingleLabel {
            expect_two(path, vocabulary.classes.names())?;
        }
        Ok(Box::new(FileSet {
            root: self.root.clone(),
            files: list.files,
            labels,
            classes: vocabulary.classes.into_names(),
            describe: format!("list {}", path.file_name().unwrap_or_default().to_string_lossy()),
            max_file_bytes: options.max_file_bytes,
        }))
    }
}

/// A list that has been read: on each line an image's name, and perhaps a space and its label.
struct List {
    files: Vec<Box<Path>>,
    /// `None` if the images' folders are their classes.
    labels: Option<Collector>,
}

impl List {
    fn read(path: &Path, names: &Names) -> Result<Self, DataError> {
        let error = |kind: DatasetError| DataError::new(path, kind.into());
        let bytes = read_limited(path, MAX_BYTES)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.trim_start_matches('\u{FEFF}').lines().enumerate();
        let (mut files, mut labels) = (Vec::new(), Collector::default());
        let (mut seen, mut unknown, mut labelled) = (HashSet::new(), Listing::default(), 0);
        for (number, line) in lines.map(|(number, line)| (number + 1, line.trim())) {
            if line.is_empty() {
                continue;
            }
            let (file, label) = match names.resolve(line, None) {
                Some(file) => (file, None),
                None => match with_label(line)
                    .and_then(|(name, label)| Some((names.resolve(name, None)?, label)))
                {
                    Some((file, label)) => (file, Some(label)),
                    None => {
                        unknown.push(line);
                        continue;
                    }
                },
            };
            if !seen.insert(file.clone()) {
                return Err(error(DatasetError::Repeated { line: number, image: line.to_owned() }));
            }
            labelled += usize::from(label.is_some());
            labels.push(label);
            files.push(file);
            if labelled != 0 && labelled != files.len() {
                let what = "some lines have a label and some have none".into();
                return Err(error(DatasetError::Line { line: number, what }));
            }
        }
        if !unknown.is_empty() {
            return Err(error(DatasetError::UnknownImages(unknown)));
        }
        if files.is_empty() {
            return Err(DataError::new(path, DataErrorKind::from(DatasetError::NothingListed("image"))));
        }
        Ok(Self { files, labels: (labelled > 0).then_some(labels) })
    }
}

fn with_label(line: &str) -> Option<(&str, &str)> {
    let (name, label) = line.rsplit_once([' ', '\t', ','])?;
    Some((name.trim_end(), label))
}

/// Where in the images' paths their class stands: behind the folders that they all share.
struct Folders {
    shared: usize,
}

impl Folders {
    fn of(files: &[Box<Path>]) -> Self {
        let parts = |file: &Path| -> Vec<PathBuf> {
            let folder = file.parent().unwrap_or(Path::new(""));
            folder.components().map(|part: Component<'_>| PathBuf::from(part.as_os_str())).collect()
        };
        let Some(first) = files.first().map(|file| parts(file)) else { return Self { shared: 0 } };
        let shared = |file: &Path| first.iter().zip(parts(file)).take_while(|(a, b)| **a == *b).count();
        Self { shared: files.iter().map(|file| shared(file)).min().unwrap_or(0) }
    }

    /// Each file's class folder as its label; none for files that lie in no class folder.
    fn collect(&self, files: &[Box<Path>]) -> Collector {
        let mut labels = Collector::default();
        for file in files {
            let folder = file.parent().and_then(|folder| folder.components().nth(self.shared));
            let name = folder.map(|folder| folder.as_os_str().to_string_lossy().into_owned());
            labels.push(name.as_deref());
        }
        labels
    }
}
