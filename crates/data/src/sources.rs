//! Command-line arguments to the list of images they mean.
//!
//! An argument is `-` (standard input), a file, a folder, or a pattern that the shell left alone. One
//! that means nothing becomes an error in its place in the list, and the rest goes on.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{DataError, DataErrorKind};

/// File name extensions that folders and patterns are searched for, in lower case.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"];

/// One image to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `-`: the caller reads standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// Expands arguments, in their order.
///
/// A file is taken whatever its name. A folder gives all images below it, by extension, hidden ones
/// left out, symbolic links followed, in natural order (`img2` before `img10`). An argument that does
/// not exist and holds `*`, `?` or `[` is a pattern (`**` crosses folders): it gives the images and
/// folders that match it, likewise ordered.
///
/// Errors that appear in the list: a missing file, a folder without images or one that cannot be
/// listed, a pattern that is malformed or matches no image.
pub fn expand_sources<A: AsRef<OsStr>>(arguments: &[A]) -> Vec<Result<Source, DataError>> {
    arguments.iter().flat_map(|argument| expand(argument.as_ref())).collect()
}

fn expand(argument: &OsStr) -> Vec<Result<Source, DataError>> {
    if argument == "-" {
        return vec![Ok(Source::Stdin)];
    }
    let path = Path::new(argument);
    let mut found = Found::default();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => found.walk(path),
        Ok(_) => return vec![Ok(Source::File(path.to_path_buf()))],
        Err(error) => match argument.to_str().filter(|text| text.contains(['*', '?', '['])) {
            Some(pattern) => found.matching(path, pattern),
            None => found.errors.push(DataError::io(path, error)),
        },
    }
    found.into_list()
}

/// What one argument gave.
#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    errors: Vec<DataError>,
    /// Folders already listed, by their real paths: links may lead in circles.
    seen: HashSet<PathBuf>,
}

impl Found {
    fn walk(&mut self, folder: &Path) {
        self.visit(folder);
        if self.files.is_empty() && self.errors.is_empty() {
            self.errors.push(DataError::new(folder, DataErrorKind::NoImages));
        }
    }

    /// Lists `folder` and all below; with a stack of its own, so that depth costs no call stack.
    fn visit(&mut self, folder: &Path) {
        let mut waiting = vec![folder.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            let new = fs::canonicalize(&folder).map(|real| self.seen.insert(real));
            match new.and_then(|new| new.then(|| fs::read_dir(&folder)).transpose()) {
                Ok(Some(entries)) => self.sort_out(&folder, entries, &mut waiting),
                Ok(None) => {}
                Err(error) => self.errors.push(DataError::io(&folder, error)),
            }
        }
    }

    fn sort_out(&mut self, folder: &Path, entries: fs::ReadDir, waiting: &mut Vec<PathBuf>) {
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    self.errors.push(DataError::io(folder, error));
                    continue;
                }
            };
            if is_hidden(&path) {
            } else if path.is_dir() {
                waiting.push(path);
            } else if is_image(&path) {
                self.files.push(path);
            }
        }
    }

    fn matching(&mut self, path: &Path, pattern: &str) {
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let matches = match glob::glob_with(pattern, options) {
            Ok(matches) => matches,
            Err(error) => {
                self.errors.push(DataError::new(path, DataErrorKind::BadPattern(error.to_string())));
                return;
            }
        };
        for found in matches {
            match found {
                Ok(path) if path.is_dir() => self.visit(&path),
                Ok(path) if is_image(&path) => self.files.push(path),
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().to_path_buf();
                    self.errors.push(DataError::io(&path, error.into()));
                }
            }
        }
        if self.files.is_empty() && self.errors.is_empty() {
            self.errors.push(DataError::new(path, DataErrorKind::NoMatch));
        }
    }

    fn into_list(mut self) -> Vec<Result<Source, DataError>> {
        self.files.sort_by(|a, b| natural_order(a, b));
        // A pattern can reach a file by its own name and by its folder.
        self.files.dedup();
        let files = self.files.into_iter().map(|path| Ok(Source::File(path)));
        files.chain(self.errors.into_iter().map(Err)).collect()
    }
}

pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

pub(crate) fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.iter().any(|known| extension == *known))
}

/// Folder by folder, numbers by value and letters without case; ties by plain comparison.
fn natural_order(a: &Path, b: &Path) -> Ordering {
    let parts = |path: &Path| -> Vec<String> {
        path.components().map(|part| part.as_os_str().to_string_lossy().to_lowercase()).collect()
    };
    let (left, right) = (parts(a), parts(b));
    let by_part = left.iter().zip(&right).map(|(a, b)| natural_name_order(a, b));
    by_part.fold(Ordering::Equal, Ordering::then).then(left.len().cmp(&right.len())).then_with(|| a.cmp(b))
}

fn natural_name_order(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (number_a, rest_a) = split_number(a);
        let (number_b, rest_b) = split_number(b);
        let order = if number_a.is_empty() || number_b.is_empty() {
            match (a.chars().next(), b.chars().next()) {
                (Some(x), Some(y)) if x == y => {
                    (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]);
                    continue;
                }
                (x, y) => return x.cmp(&y),
            }
        } else {
            // By value: without leading zeros the longer number is the larger one.
            let (x, y) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}
