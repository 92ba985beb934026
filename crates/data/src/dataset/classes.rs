//! The list of classes: read from a file, or made from the names that occur.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::OpenOptions;
use super::error::DatasetError;
use crate::{DataError, DataErrorKind};

/// Files that are looked for in a dataset's folder.
const FILES: [&str; 2] = ["classes.txt", "classes.json"];

/// Names of classes by index, each once.
#[derive(Debug, Clone)]
pub(super) struct ClassList {
    names: Vec<String>,
    index: HashMap<String, u32>,
    /// Where the list comes from, for messages.
    origin: String,
    /// Whether a label may be an index: in a given list, unless its names are numbers themselves.
    indexed: bool,
}

impl ClassList {
    /// The list that `options` name, or the one in `folder`, where there is one.
    pub(super) fn find(folder: &Path, options: &OpenOptions) -> Result<Option<Self>, DataError> {
        if let Some(path) = &options.class_map {
            return Self::read(path).map(Some);
        }
        let path = FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        path.map(|path| Self::read(&path)).transpose()
    }

    /// Reads a list: JSON (a list of names, or names with their indices), or text with a name on each line.
    fn read(path: &Path) -> Result<Self, DataError> {
        let text = fs::read_to_string(path).map_err(|error| DataError::io(path, error))?;
        let names = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            from_json(&text)
        } else {
            Ok(text.trim_start_matches('\u{FEFF}').lines().map(|line| line.trim().to_owned()).collect())
        };
        names
            .and_then(|names| Self::checked(names, path.display().to_string()))
            .map_err(|kind| DataError::new(path, kind.into()))
    }

    fn checked(mut names: Vec<String>, origin: String) -> Result<Self, DatasetError> {
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        if names.is_empty() {
            return Err(DatasetError::NothingListed("class"));
        }
        let mut index = HashMap::with_capacity(names.len());
        for (class, name) in names.iter().enumerate() {
            let what = if name.is_empty() {
                "the name of the class is missing".to_owned()
            } else if index.insert(name.clone(), class as u32).is_some() {
                format!("the class {name} was named before")
            } else {
                continue;
            };
            return Err(DatasetError::Line { line: class + 1, what });
        }
        let indexed = names.iter().all(|name| name.parse::<i64>().is_err());
        Ok(Self { names, index, origin, indexed })
    }

    /// The distinct names among `names`: whole numbers by value, if all are; otherwise in the order of their
    /// bytes, as torchvision has it.
    pub(super) fn sorted(mut names: Vec<String>) -> Self {
        let number = |name: &String| name.parse::<i64>().ok();
        if names.iter().all(|name| number(name).is_some()) {
            names.sort_by_key(number);
        } else {
            names.sort();
        }
        names.dedup();
        Self::listed(names)
    }

    /// Distinct names in their order.
    pub(super) fn listed(names: Vec<String>) -> Self {
        let index = names.iter().enumerate().map(|(class, name)| (name.clone(), class as u32)).collect();
        Self { names, index, origin: "the training split".into(), indexed: false }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// The class of this name; failing that, a whole number is an index into a given list.
    pub(super) fn index_of(&self, label: &str) -> Option<u32> {
        let fits = |index: &u32| self.indexed && (*index as usize) < self.names.len();
        let by_number = || label.parse::<u32>().ok().filter(fits);
        self.index.get(label).copied().or_else(by_number)
    }

    /// The class of this very name.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }
}

fn from_json(text: &str) -> Result<Vec<String>, DatasetError> {
    let wrong = |detail: String| DatasetError::Format { format: "class list", detail };
    match serde_json::from_str(text).map_err(|error| wrong(error.to_string()))? {
        serde_json::Value::Array(names) => names
            .into_iter()
            .map(|name| match name {
                serde_json::Value::String(name) => Ok(name),
                other => Err(wrong(format!("{other} is not a name"))),
            })
            .collect(),
        serde_json::Value::Object(map) => {
            let mut names = vec![String::new(); map.len()];
            for (name, index) in map {
                let slot = index.as_u64().and_then(|index| names.get_mut(usize::try_from(index).ok()?));
                match slot {
                    Some(slot) if slot.is_empty() => *slot = name,
                    _ => {
                        return Err(wrong(format!(
                            "{name}: {index} is not an index that is used once, from 0"
                        )));
                    }
                }
            }
            Ok(names)
        }
        _ => Err(wrong("neither a list of names nor names with indices".into())),
    }
}

/// Refuses a single class, as nothing can be learnt from it.
pub(super) fn expect_two(path: &Path, names: &[String]) -> Result<(), DataError> {
    match names {
        [] => Err(DataError::new(path, DataErrorKind::NoImages)),
        [only] => Err(DataError::new(path, DatasetError::OneClass(only.clone()).into())),
        _ => Ok(()),
    }
}
