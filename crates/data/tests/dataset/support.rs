//! Folders to open, and a check of messages.

use std::fs;
use std::path::{Path, PathBuf};

use cardinal_data::{DataError, Dataset, Label, OpenOptions, Picture, Split, open};
use tempfile::TempDir;

/// A folder that vanishes.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// With these files, which hold their own names.
    pub(crate) fn with(files: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for file in files {
            folder.write(file, file.as_bytes());
        }
        folder
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn open(&self, split: &str) -> Result<Box<dyn Dataset>, DataError> {
        self.open_with(split, &OpenOptions::default())
    }

    pub(crate) fn open_with(
        &self,
        split: &str,
        options: &OpenOptions,
    ) -> Result<Box<dyn Dataset>, DataError> {
        open(Some(self.path()), &Split::from_name(split), options)
    }
}

/// Checks that opening failed with a message that holds all of `texts`.
#[track_caller]
pub(crate) fn fails(result: Result<Box<dyn Dataset>, DataError>, texts: &[&str]) {
    let message = match result {
        Ok(dataset) => panic!("opened {} with {} images", dataset.describe(), dataset.len()),
        Err(error) => error.to_string(),
    };
    for text in texts {
        assert!(message.contains(text), "'{text}' is not in '{message}'");
    }
    assert!(!message.contains('\n') && message.len() < 600, "{message}");
}

/// Names and single labels of all images.
pub(crate) fn samples(dataset: &dyn Dataset) -> Vec<(String, u32)> {
    let label = |index| match dataset.label(index) {
        Label::One(class) => class,
        Label::Many(classes) => panic!("{classes:?}"),
    };
    (0..dataset.len()).map(|index| (dataset.name(index), label(index))).collect()
}

/// The same in short: `name=label name=label`.
pub(crate) fn listing(dataset: &dyn Dataset) -> String {
    let text = |index: usize| {
        let classes: Vec<String> = dataset.label(index).classes().iter().map(u32::to_string).collect();
        format!("{}={}", dataset.name(index), classes.join("+"))
    };
    (0..dataset.len()).map(text).collect::<Vec<_>>().join(" ")
}

/// A file's bytes, unopened.
pub(crate) fn bytes(dataset: &dyn Dataset, index: usize) -> Vec<u8> {
    let sample = dataset.read(index).unwrap();
    assert_eq!(sample.label, dataset.label(index));
    match sample.picture {
        Picture::Encoded { bytes, .. } => bytes,
        Picture::Pixels(image) => panic!("{image:?}"),
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/dataset").join(name)
}

pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}
