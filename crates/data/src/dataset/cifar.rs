//! CIFAR-10 and CIFAR-100 in their binary version: records of a label (CIFAR-100: a coarse and a fine one) and
//! 32 x 32 pixels, red, green and blue planes one after the other.

use std::path::{Path, PathBuf};

use super::arrays::{Layout, PixelSet};
use super::classes::ClassList;
use super::error::DatasetError;
use super::files::read_limited;
use super::labels::Labels;
use super::{Dataset, OpenOptions};
use crate::DataError;

const PIXELS: usize = 3 * 32 * 32;

/// The whole of CIFAR fits many times.
const MAX_BYTES: u64 = 1 << 30;

const TEN: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const BATCHES: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];

/// A folder with CIFAR's binary files.
pub(super) struct Cifar {
    folder: PathBuf,
    hundred: bool,
    pub(super) splits: Vec<String>,
}

impl Cifar {
    /// Looks into the folder, and into the one that the archive unpacks to.
    pub(super) fn find(path: &Path) -> Option<Self> {
        let folders = ["", "cifar-10-batches-bin", "cifar-100-binary"].map(|name| path.join(name));
        folders.into_iter().find_map(|folder| {
            let has = |name: &str| folder.join(name).is_file();
            let ten = has("test_batch.bin") || BATCHES.iter().any(|name| has(name));
            // Other data may have files of these names; a coarse list or the pair of them tells.
            let hundred = !ten && (has("train.bin") || has("test.bin"));
            (ten || hundred).then(|| Self {
                folder,
                hundred,
                splits: ["train", "test"].map(String::from).to_vec(),
            })
        })
    }

    /// For the message about mixed layouts.
    pub(super) fn example(&self) -> String {
        let name = if self.hundred { "CIFAR-100" } else { "CIFAR-10" };
        format!("{name}'s binary files")
    }

    pub(super) fn open(&self, split: &str, options: &OpenOptions) -> Result<Box<dyn Dataset>, DataError> {
        let classes = self.classes(options)?;
        let names: &[&str] = match (self.hundred, split) {
            (true, "train") => &["train.bin"],
            (true, _) => &["test.bin"],
            (false, "train") => &BATCHES,
            (false, _) => &["test_batch.bin"],
        };
        let (mut pixels, mut labels, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let path = self.folder.join(name);
            let bytes = read_limited(&path, MAX_BYTES)?;
            let first = labels.len();
            self.records(&bytes, classes.names().len(), &mut pixels, &mut labels)
                .map_err(|kind| DataError::new(&path, kind.into()))?;
            files.push((path, first));
        }
        Ok(Box::new(PixelSet {
            size: (32, 32),
            layout: Layout::Planes,
            pixels,
            count: labels.len(),
            labels: Labels::One(labels),
            classes: classes.into_names(),
            files,
            describe: format!("CIFAR-{}, split '{split}'", if self.hundred { 100 } else { 10 }),
        }))
    }

    fn records(
        &self,
        bytes: &[u8],
        classes: usize,
        pixels: &mut Vec<u8>,
        labels: &mut Vec<u32>,
    ) -> Result<(), DatasetError> {
        let head = if self.hundred { 2 } else { 1 };
        let record = head + PIXELS;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            let expected = format!("a whole number of records of {record}");
            return Err(DatasetError::Length { expected, found: bytes.len() as u64 });
        }
        pixels.reserve(bytes.len() / record * PIXELS);
        for (number, record) in bytes.chunks_exact(record).enumerate() {
            // Of CIFAR-100's two labels the second is the fine one.
            let label = record[head - 1];
            if usize::from(label) >= classes {
                let place = format!("record {number}");
                return Err(DatasetError::LabelOutOfRange { place, label: label.to_string(), classes });
            }
            labels.push(u32::from(label));
            pixels.extend_from_slice(&record[head..]);
        }
        Ok(())
    }

    /// The given list, else the names that come with the data, else those that everybody knows.
    fn classes(&self, options: &OpenOptions) -> Result<ClassList, DataError> {
        if let Some(list) = ClassList::find(&self.folder, options)? {
            return Ok(list);
        }
        let file = if self.hundred { "fine_label_names.txt" } else { "batches.meta.txt" };
        let path = self.folder.join(file);
        if path.is_file() {
            let options = OpenOptions { class_map: Some(path), ..OpenOptions::default() };
            if let Some(list) = ClassList::find(&self.folder, &options)? {
                return Ok(list);
            }
        }
        let names = if self.hundred {
            (0..100).map(|class| format!("class {class}")).collect()
        } else {
            TEN.map(String::from).to_vec()
        };
        Ok(ClassList::listed(names))
    }
}
