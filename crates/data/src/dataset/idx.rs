//! IDX files, as MNIST, Fashion-MNIST, KMNIST and EMNIST come in, compressed by gzip or not.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::arrays::{Layout, PixelSet};
use super::classes::{ClassList, expect_two};
use super::error::DatasetError;
use super::files::Listed;
use super::labels::Collector;
use super::{Dataset, OpenOptions};
use crate::{DataError, DataErrorKind};

/// More values than the largest set of this kind has (EMNIST's 814,255 images), and few enough for memory.
const MAX_VALUES: u64 = 2 << 30;

/// Folders below the given one that downloads unpack to.
const FOLDERS: [&str; 6] = ["", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "EMNIST/raw"];

/// A folder with pairs of IDX files.
pub(super) struct Idx {
    folder: PathBuf,
    pairs: Vec<Pair>,
    pub(super) splits: Vec<String>,
}

/// The two files of a split.
struct Pair {
    split: &'static str,
    images: PathBuf,
    labels: PathBuf,
}

impl Idx {
    pub(super) fn find(path: &Path) -> Result<Option<Self>, DataError> {
        for folder in FOLDERS.map(|name| path.join(name)) {
            if !folder.is_dir() {
                continue;
            }
            let files = Listed::of(&folder)?.files;
            let mut pairs: Vec<Pair> = Vec::new();
            for images in &files {
                let Some((split, labels)) = partner(images, &files) else { continue };
                match pairs.iter().find(|pair| pair.split == split) {
                    // The compressed file next to its own contents.
                    Some(pair) if images.starts_with(pair.images.with_extension("")) => {}
                    Some(pair) if pair.images.with_added_extension("gz") == *images => {}
                    Some(pair) => {
                        let (first, second) =
                            (format!("{}", pair.images.display()), format!("{}", images.display()));
                        return Err(DataError::new(&folder, DatasetError::Mixed { first, second }.into()));
                    }
                    None => pairs.push(Pair { split, images: images.clone(), labels }),
                }
            }
            if !pairs.is_empty() {
                // Files are in the order of their names; training comes first.
                pairs.sort_by_key(|pair| pair.split != "train");
                let splits = pairs.iter().map(|pair| pair.split.to_owned()).collect();
                return Ok(Some(Self { folder, pairs, splits }));
            }
        }
        Ok(None)
    }

    /// For the message about mixed layouts.
    pub(super) fn example(&self) -> String {
        let name = self.pairs.first().and_then(|pair| pair.images.file_name()).unwrap_or_default();
        format!("IDX files ({})", name.to_string_lossy())
    }

    pub(super) fn open(&self, split: &str, options: &OpenOptions) -> Result<Box<dyn Dataset>, DataError> {
        let Some(pair) = self.pairs.iter().find(|pair| pair.split == split) else {
            let kind = DatasetError::NoSplit { split: split.to_owned(), found: self.splits.clone() };
            return Err(DataError::new(&self.folder, kind.into()));
        };
        let images = read_file(&pair.images)?;
        let collector = collect(&pair.labels)?;
        let error = |path: &Path, kind: DatasetError| DataError::new(path, kind.into());
        let [count, height, width] = images.shape[..] else {
            let detail = format!("images have 3 axes, these {}", images.shape.len());
            return Err(error(&pair.images, DatasetError::Format { format: "IDX", detail }));
        };
        if count as usize != collector.len() {
            let detail = format!("{} labels for {count} images", collector.len());
            return Err(error(&pair.labels, DatasetError::Format { format: "IDX", detail }));
        }
        if count == 0 || height == 0 || width == 0 {
            return Err(DataError::new(&pair.images, DataErrorKind::NoImages));
        }
        let list = ClassList::find(&self.folder, options)?;
        let train = self.pairs.iter().find(|other| other.split == "train" && split != "train");
        let vocabulary = match train {
            Some(train) if list.is_none() => collect(&train.labels)?.vocabulary(None, None),
            _ => collector.vocabulary(list.as_ref(), None),
        };
        let labels = collector.labels(&vocabulary, |image| format!("image {image}"));
        let labels = labels.map_err(|kind| error(&pair.labels, kind))?;
        expect_two(&pair.labels, vocabulary.classes.names())?;
        Ok(Box::new(PixelSet {
            size: (width, height),
            layout: Layout::Grey { max: 255 },
            pixels: images.values,
            labels,
            count: count as usize,
            classes: vocabulary.classes.into_names(),
            files: vec![(pair.images.clone(), 0)],
            describe: format!("IDX files, split '{split}'"),
        }))
    }
}

/// The split that a file of images belongs to, and the file of its labels; `None` for other files.
fn partner(images: &Path, files: &[PathBuf]) -> Option<(&'static str, PathBuf)> {
    let name = images.file_name()?.to_str()?;
    let at = name.find("images-idx3").or_else(|| name.find("images.idx3"))?;
    let split = match &name[..at] {
        prefix if prefix.contains("train") => "train",
        prefix if prefix.contains("t10k") || prefix.contains("test") => "test",
        _ => return None,
    };
    let plain = name.trim_end_matches(".gz").replace("images", "labels").replace("idx3", "idx1");
    let found = [plain.clone(), format!("{plain}.gz")].map(|name| images.with_file_name(name));
    let missing = images.with_file_name(plain);
    Some((split, found.into_iter().find(|path| files.contains(path)).unwrap_or(missing)))
}

fn collect(path: &Path) -> Result<Collector, DataError> {
    let array = read_file(path)?;
    if array.shape.len() != 1 {
        let detail = format!("labels have 1 axis, these {}", array.shape.len());
        return Err(DataError::new(path, DatasetError::Format { format: "IDX", detail }.into()));
    }
    let mut collector = Collector::default();
    let texts: Vec<String> = (0..=u8::MAX).map(|value| value.to_string()).collect();
    array.values.iter().for_each(|&value| collector.push([texts[usize::from(value)].as_str()]));
    Ok(collector)
}

/// An array of bytes.
pub(super) struct Array {
    /// The length of each axis.
    pub(super) shape: Vec<u32>,
    pub(super) values: Vec<u8>,
}

/// Reads a file that holds one array and nothing else.
fn read_file(path: &Path) -> Result<Array, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> = if compressed {
        Box::new(GzDecoder::new(BufReader::new(file)))
    } else {
        Box::new(BufReader::new(file))
    };
    let read = read_array(&mut reader).and_then(|array| {
        let expected = (array.values.len() + 4 + 4 * array.shape.len()) as u64;
        match io::copy(&mut reader.take(MAX_VALUES), &mut io::sink())? {
            0 => Ok(array),
            rest => Err(DatasetError::Length {
                expected: format!("{expected} by its header"),
                found: expected + rest,
            }
            .into()),
        }
    });
    read.map_err(|kind| DataError::new(path, kind))
}

/// Reads an array's header and values, and leaves what follows unread.
pub(super) fn read_array(reader: &mut impl Read) -> Result<Array, DataErrorKind> {
    let format = |detail: String| DataErrorKind::from(DatasetError::Format { format: "IDX", detail });
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(|_| format("it ends inside its header".into()))?;
    let axes = match magic {
        [0, 0, 8, axes @ 1..=4] => usize::from(axes),
        [0, 0, kind @ 9..=14, _] => {
            return Err(format(format!("values of type {kind}, only bytes are read")));
        }
        _ => return Err(format("it does not start as one".into())),
    };
    let mut shape = Vec::with_capacity(axes);
    for _ in 0..axes {
        let mut side = [0; 4];
        reader.read_exact(&mut side).map_err(|_| format("it ends inside its header".into()))?;
        shape.push(u32::from_be_bytes(side));
    }
    let total = shape.iter().try_fold(1_u64, |total, &side| total.checked_mul(u64::from(side)));
    let Some(total) = total.filter(|&total| total <= MAX_VALUES) else {
        return Err(format(format!("its header promises {shape:?} values")));
    };
    // Memory grows with what is really there.
    let mut values = Vec::new();
    reader.take(total).read_to_end(&mut values)?;
    if values.len() as u64 != total {
        let head = 4 + 4 * axes as u64;
        let expected = format!("{} by its header", total + head);
        return Err(DatasetError::Length { expected, found: values.len() as u64 + head }.into());
    }
    Ok(Array { shape, values })
}
