//! A table's rows: which image, which labels, which split.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::super::classes::ClassList;
use super::super::error::DatasetError;
use super::super::files::read_limited;
use super::super::labels::Collector;
use super::super::split::is_split_name;
use super::super::{OpenOptions, Task};
use super::csv;
use crate::DataError;

/// Names of columns, in lower case; the first that a table has counts.
const IMAGE: [&str; 11] = [
    "image",
    "file_name",
    "filename",
    "file",
    "filepath",
    "path",
    "image_path",
    "image_name",
    "image_id",
    "name",
    "id",
];
const LABEL: [&str; 12] = [
    "label",
    "labels",
    "class",
    "classes",
    "target",
    "targets",
    "cls",
    "category",
    "categories",
    "class_name",
    "tags",
    "fine_label",
];
const SPLIT: [&str; 3] = ["split", "subset", "set"];

/// Larger tables are not read.
const MAX_BYTES: u64 = 1 << 30;

/// A table that has been read.
#[derive(Default)]
pub(super) struct Rows {
    /// The line, from 1.
    pub(super) lines: Vec<usize>,
    pub(super) images: Vec<String>,
    /// Empty without such a column.
    pub(super) splits: Vec<String>,
    pub(super) labels: Collector,
    /// The classes in the order of their columns, where each has one.
    pub(super) columns: Option<ClassList>,
}

impl Rows {
    pub(super) fn read(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let error = |kind: DatasetError| DataError::new(path, kind.into());
        let bytes = read_limited(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let line =
                1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            error(DatasetError::Line {
                line,
                what: "not text in UTF-8; save the file in that encoding".into(),
            })
        })?;
        let json = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("jsonl") || e.eq_ignore_ascii_case("ndjson"));
        let rows = if json { Self::from_json(&text, options) } else { Self::from_csv(&text, options) };
        let rows = rows.map_err(error)?;
        if rows.images.is_empty() { Err(error(DatasetError::NothingListed("image"))) } else { Ok(rows) }
    }

    fn from_csv(text: &str, options: &OpenOptions) -> Result<Self, DatasetError> {
        let separator = csv::separator(text);
        let mut table = csv::rows(text, separator)?.into_iter();
        let (_, header) = table.next().ok_or(DatasetError::NothingListed("image"))?;
        let columns = Columns::find(&header, options)?;
        let table: Vec<csv::Row> = table.collect();
        let label = match columns.label {
            Some(column) => Some(column),
            None if columns.one_per_class(&header, &table) => None,
            None => return Err(no_column(options.label_column.as_ref(), &LABEL, &header)),
        };
        let classes: Vec<usize> = (0..header.len()).filter(|column| !columns.known(*column)).collect();
        let separators = separators(options, separator);
        let mut rows = Self::default();
        if label.is_none() {
            rows.columns = Some(ClassList::listed(classes.iter().map(|&c| header[c].clone()).collect()));
            rows.labels.several();
        }
        for (line, cells) in table {
            if cells.len() != header.len() {
                let what = format!("{} cells where the header has {}", cells.len(), header.len());
                return Err(DatasetError::Line { line, what });
            }
            match label {
                Some(label) => rows.labels.push(split_labels(&cells[label], &separators)),
                None => {
                    let present = classes.iter().filter(|&&column| is_one(&cells[column]));
                    rows.labels.push(present.map(|&column| header[column].as_str()));
                }
            }
            rows.push(line, cells[columns.image].clone(), columns.split.map(|column| cells[column].clone()))?;
        }
        Ok(rows)
    }

    fn from_json(text: &str, options: &OpenOptions) -> Result<Self, DatasetError> {
        let mut rows = Self::default();
        for (number, text) in text.trim_start_matches('\u{FEFF}').lines().enumerate() {
            let line = number + 1;
            if text.trim().is_empty() {
                continue;
            }
            let wrong = |what: String| DatasetError::Line { line, what };
            let object: HashMap<String, Value> =
                serde_json::from_str(text).map_err(|error| wrong(format!("not a JSON object ({error})")))?;
            let keys = || {
                let mut keys: Vec<String> = object.keys().cloned().collect();
                keys.sort();
                keys
            };
            let field = |given: &Option<String>, known: &[&str]| match given {
                Some(name) => object.get(name),
                None => known.iter().find_map(|name| object.get(*name)),
            };
            let image = field(&options.image_column, &IMAGE).ok_or_else(|| {
                wrong(no_column(options.image_column.as_ref(), &IMAGE, &keys()).to_string())
            })?;
            let label = field(&options.label_column, &LABEL).ok_or_else(|| {
                wrong(no_column(options.label_column.as_ref(), &LABEL, &keys()).to_string())
            })?;
            let labels = JsonLabels::of(label)
                .ok_or_else(|| wrong(format!("{label} is neither a class nor a list of classes")))?;
            labels.push_to(&mut rows.labels);
            let split = field(&None, &SPLIT).and_then(Value::as_str).map(str::to_owned);
            let image = image.as_str().map(str::to_owned).unwrap_or_else(|| image.to_string());
            rows.push(line, image, split)?;
        }
        Ok(rows)
    }

    fn push(&mut self, line: usize, image: String, split: Option<String>) -> Result<(), DatasetError> {
        if image.is_empty() {
            return Err(DatasetError::Line { line, what: "the image's name is missing".into() });
        }
        if let Some(split) = &split {
            let lower = split.to_ascii_lowercase();
            self.splits.push(if is_split_name(&lower) { lower } else { split.clone() });
        }
        if split.is_some_and(|split| split.is_empty())
            || !self.splits.is_empty() && self.splits.len() != self.images.len() + 1
        {
            return Err(DatasetError::Line { line, what: "the split's name is missing".into() });
        }
        self.lines.push(line);
        self.images.push(image);
        Ok(())
    }

    /// The distinct splits, in the order of their first rows.
    pub(super) fn split_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for split in &self.splits {
            if !names.contains(split) {
                names.push(split.clone());
            }
        }
        names
    }

    pub(super) fn vocabulary(
        &self,
        list: Option<&ClassList>,
        task: Option<Task>,
    ) -> super::super::labels::Vocabulary {
        self.labels.vocabulary(list.or(self.columns.as_ref()), task)
    }
}

struct Columns {
    image: usize,
    label: Option<usize>,
    split: Option<usize>,
}

impl Columns {
    fn find(header: &[String], options: &OpenOptions) -> Result<Self, DatasetError> {
        let position = |given: &Option<String>, known: &[&str]| match given {
            Some(name) => header.iter().position(|cell| cell == name),
            None => {
                known.iter().find_map(|name| header.iter().position(|cell| cell.eq_ignore_ascii_case(name)))
            }
        };
        let image = position(&options.image_column, &IMAGE)
            .ok_or_else(|| no_column(options.image_column.as_ref(), &IMAGE, header))?;
        let label = position(&options.label_column, &LABEL).filter(|&label| label != image);
        if label.is_none() && options.label_column.is_some() {
            return Err(no_column(options.label_column.as_ref(), &LABEL, header));
        }
        Ok(Self { image, label, split: position(&None, &SPLIT) })
    }

    fn known(&self, column: usize) -> bool {
        column == self.image || Some(column) == self.label || Some(column) == self.split
    }

    /// Whether every further column says of a class, by 0 or 1, whether the image shows it.
    fn one_per_class(&self, header: &[String], table: &[csv::Row]) -> bool {
        let classes: Vec<usize> = (0..header.len()).filter(|&column| !self.known(column)).collect();
        let cell_fits = |cells: &Vec<String>, column: usize| {
            cells.get(column).is_some_and(|cell| is_one(cell) || matches!(cell.as_str(), "0" | "0.0"))
        };
        classes.len() > 1 && table.iter().all(|(_, cells)| classes.iter().all(|&c| cell_fits(cells, c)))
    }
}

fn is_one(cell: &str) -> bool {
    matches!(cell, "1" | "1.0")
}

fn no_column(given: Option<&String>, known: &[&str], found: &[String]) -> DatasetError {
    let wanted = given.map_or_else(|| format!("named {}", known.join(", ")), |name| format!("'{name}'"));
    DatasetError::NoColumn { wanted, found: found.join(", ") }
}

/// What may stand between labels in one cell, given what stands between cells.
pub(in super::super) fn separators(options: &OpenOptions, between_cells: char) -> Vec<char> {
    let usual = ['|', ';'].into_iter().filter(|&usual| usual != between_cells);
    options.label_separator.map_or_else(|| usual.collect(), |given| vec![given])
}

/// The labels in a cell or a text file.
pub(in super::super) fn split_labels<'a>(
    text: &'a str,
    separators: &'a [char],
) -> impl Iterator<Item = &'a str> {
    text.split(separators).map(str::trim).filter(|label| !label.is_empty())
}

/// Labels as JSON gives them: a name, an index, or a list of either.
pub(in super::super) struct JsonLabels {
    names: Vec<String>,
    list: bool,
}

impl JsonLabels {
    /// `None` for anything else.
    pub(in super::super) fn of(value: &Value) -> Option<Self> {
        let name = |value: &Value| match value {
            Value::String(name) => Some(name.clone()),
            Value::Number(number) => number.is_i64().then(|| number.to_string()),
            _ => None,
        };
        match value {
            Value::Array(values) => {
                Some(Self { names: values.iter().map(name).collect::<Option<_>>()?, list: true })
            }
            value => Some(Self { names: vec![name(value)?], list: false }),
        }
    }

    /// As [`JsonLabels::of`], for a document that is the label itself or an object with a field for it.
    pub(in super::super) fn of_document(value: &Value, options: &OpenOptions) -> Option<Self> {
        let Value::Object(fields) = value else { return Self::of(value) };
        match &options.label_column {
            Some(name) => Self::of(fields.get(name)?),
            None => Self::of(LABEL.iter().find_map(|name| fields.get(*name))?),
        }
    }

    pub(in super::super) fn push_to(&self, labels: &mut Collector) {
        if self.list {
            labels.several();
        }
        labels.push(self.names.iter().map(String::as_str));
    }
}
