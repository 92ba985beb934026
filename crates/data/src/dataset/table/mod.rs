//! Tables of images and their labels: CSV, TSV and JSON-lines.

mod csv;
mod rows;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::classes::{ClassList, expect_two};
use super::error::{DatasetError, Listing};
use super::files::{FileSet, Listed, Names};
use super::split::{is_split_name, is_train, train_of};
use super::{Dataset, OpenOptions, Task};
use crate::DataError;
use rows::Rows;

pub(super) use rows::{JsonLabels, separators, split_labels};

const EXTENSIONS: [&str; 4] = ["csv", "tsv", "jsonl", "ndjson"];
const NAMES: [&str; 2] = ["labels", "metadata"];

/// Whether a file's name is that of a table.
pub(super) fn is_table(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Images named by tables.
pub(super) struct Table {
    /// The folder that the images' names start from, unless a table lies below it.
    root: PathBuf,
    tables: Tables,
    pub(super) splits: Vec<String>,
}

enum Tables {
    /// One for everything, perhaps with a column for the split.
    One(PathBuf, Rows),
    /// One for each split, with the folder its names start from.
    PerSplit(Vec<(String, PathBuf, PathBuf)>),
}

impl Table {
    /// Looks for tables of the usual names in a folder and in those of its splits.
    pub(super) fn find(path: &Path, options: &OpenOptions) -> Result<Option<Self>, DataError> {
        let listed = Listed::of(path)?;
        let named = |wanted: &dyn Fn(&str) -> bool, files: &[PathBuf]| {
            let fits = |file: &&PathBuf| {
                is_table(file) && file.file_stem().and_then(|stem| stem.to_str()).is_some_and(wanted)
            };
            files.iter().filter(fits).cloned().collect::<Vec<_>>()
        };
        let usual = |stem: &str| NAMES.contains(&stem);
        if let Some(table) = named(&usual, &listed.files).into_iter().next() {
            return Self::one(&table, path, options).map(Some);
        }
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut tables: Vec<(String, PathBuf, PathBuf)> = named(&is_split_name, &listed.files)
            .into_iter()
            .map(|table| (stem(&table), table, path.to_path_buf()))
            .collect();
        for folder in &listed.folders {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_split_name(name)
                && !tables.iter().any(|(split, ..)| split == name)
                && let Some(table) = named(&usual, &Listed::of(folder)?.files).into_iter().next()
            {
                tables.push((name.to_owned(), table, folder.clone()));
            }
        }
        if tables.is_empty() {
            return Ok(None);
        }
        tables.sort_by_key(|(split, ..)| !is_train(split));
        let splits = tables.iter().map(|(split, ..)| split.clone()).collect();
        Ok(Some(Self { root: path.to_path_buf(), tables: Tables::PerSplit(tables), splits }))
    }

    /// A table for everything; names start from `root`.
    pub(super) fn one(table: &Path, root: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let rows = Rows::read(table, options)?;
        let splits = rows.split_names();
        Ok(Self { root: root.to_path_buf(), tables: Tables::One(table.to_path_buf(), rows), splits })
    }

    pub(super) fn open(
        &self,
        split: Option<&str>,
        options: &OpenOptions,
    ) -> Result<Box<dyn Dataset>, DataError> {
        let list = ClassList::find(&self.root, options)?;
        match &self.tables {
            Tables::One(path, rows) => {
                let vocabulary = rows.vocabulary(list.as_ref(), options.task);
                let part = Part { path, rows, root: &self.root, split };
                part.open(&vocabulary, options)
            }
            Tables::PerSplit(tables) => {
                let find = |name: &str| tables.iter().find(|(split, ..)| split == name);
                let Some((name, path, root)) = split.and_then(find) else {
                    let split = split.unwrap_or("all").to_owned();
                    let kind = DatasetError::NoSplit { split, found: self.splits.clone() };
                    return Err(DataError::new(&self.root, kind.into()));
                };
                let rows = Rows::read(path, options)?;
                let train = train_of(&self.splits).filter(|train| train != name).and_then(find);
                let vocabulary = match train {
                    // What the labels are is for the training split to say.
                    Some((_, train, _)) => {
                        Rows::read(train, options)?.vocabulary(list.as_ref(), options.task)
                    }
                    None => rows.vocabulary(list.as_ref(), options.task),
                };
                Part { path, rows: &rows, root, split }.open(&vocabulary, options)
            }
        }
    }
}

/// One split of a table that has been read.
struct Part<'a> {
    path: &'a Path,
    rows: &'a Rows,
    root: &'a Path,
    split: Option<&'a str>,
}

impl Part<'_> {
    fn open(
        &self,
        vocabulary: &super::labels::Vocabulary,
        options: &OpenOptions,
    ) -> Result<Box<dyn Dataset>, DataError> {
        let error = |kind: DatasetError| DataError::new(self.path, kind.into());
        let rows = self.rows;
        let labels =
            rows.labels.labels(vocabulary, |row| format!("line {}", rows.lines[row])).map_err(error)?;
        let wanted = |row: &usize| rows.splits.is_empty() || self.split == Some(rows.splits[*row].as_str());
        let chosen: Vec<usize> = (0..rows.images.len()).filter(wanted).collect();
        let names = Names::of(self.root)?;
        let (mut files, mut seen, mut unknown) = (Vec::new(), HashSet::new(), Listing::default());
        for &row in &chosen {
            let Some(file) = names.resolve(&rows.images[row], self.split) else {
                unknown.push(&rows.images[row]);
                continue;
            };
            if !seen.insert(file.clone()) {
                let image = rows.images[row].clone();
                return Err(error(DatasetError::Repeated { line: rows.lines[row], image }));
            }
            files.push(file);
        }
        if !unknown.is_empty() {
            return Err(error(DatasetError::UnknownImages(unknown)));
        }
        if vocabulary.task == Task::SingleLabel || vocabulary.classes.names().is_empty() {
            expect_two(self.path, vocabulary.classes.names())?;
        }
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        let split = self.split.map(|split| format!(", split '{split}'")).unwrap_or_default();
        Ok(Box::new(FileSet {
            root: self.root.to_path_buf(),
            files,
            labels: labels.select(&chosen),
            classes: vocabulary.classes.names().to_vec(),
            describe: format!("table {file}{split}"),
            max_file_bytes: options.max_file_bytes,
        }))
    }
}
