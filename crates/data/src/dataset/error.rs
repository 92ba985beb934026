//! What can be wrong with a dataset as a whole, beyond single image files.

use std::fmt;

use thiserror::Error;

/// The kinds of [`DataError`](crate::DataError) that are about datasets.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// Nothing that is recognised.
    #[error("not a data set that Cardinal knows ({0}); it reads {LAYOUTS}")]
    Unrecognised(&'static str),
    /// A folder with nothing in it.
    #[error("the folder is empty; put a folder of images per class into it, or see docs/data.md")]
    EmptyFolder,
    /// Parts of two layouts lie side by side.
    #[error("holds two kinds of data, {first} and {second}; move one away or give the path of one")]
    Mixed {
        /// The first kind, with an example.
        first: String,
        /// The second kind, with an example.
        second: String,
    },
    /// The split does not exist.
    #[error("has no split '{split}'; it has {}", or_none(.found))]
    NoSplit {
        /// The split asked for.
        split: String,
        /// Those that exist.
        found: Vec<String>,
    },
    /// No class has five images.
    #[error("has too few images to hold out a fifth of each class; add images, or a folder val")]
    TooFewToHoldOut,
    /// Images that lie in no class folder.
    #[error("images outside any class folder have no class: {0}; move them into it, or add a labels.csv")]
    StrayImages(Listing),
    /// Class folders with no image in them.
    #[error("class folders without any image: {0}; add images or remove the folders")]
    EmptyClasses(Listing),
    /// Fewer than two classes.
    #[error("has only one class ({0}); a classifier needs two or more")]
    OneClass(String),
    /// Classes that the list of classes does not have.
    #[error("classes that {list} does not have: {classes}; add them to it")]
    UnknownClasses {
        /// Where the list comes from.
        list: String,
        /// The classes.
        classes: Listing,
    },
    /// A label that is neither a class nor the number of one.
    #[error("{place}: label {label} is out of range: {classes} classes are known")]
    LabelOutOfRange {
        /// The image, record or line.
        place: String,
        /// The label as it stands there.
        label: String,
        /// The number of classes.
        classes: usize,
    },
    /// Images named by a table or list that do not exist.
    #[error("names images that do not exist: {0}; correct the names, or add the files")]
    UnknownImages(Listing),
    /// The same image twice.
    #[error("line {line}: {image} was named before; give each image one line with all its labels")]
    Repeated {
        /// The line, from 1.
        line: usize,
        /// The image.
        image: String,
    },
    /// A line of a text file that makes no sense.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A table without a column that is needed.
    #[error("has no column {wanted}; its columns are {found}")]
    NoColumn {
        /// What was looked for.
        wanted: String,
        /// The columns.
        found: String,
    },
    /// A text file without any content.
    #[error("names no {0}")]
    NothingListed(&'static str),
    /// Images that must have exactly one label and do not.
    #[error("images without exactly one label: {0}")]
    NotOneLabel(Listing),
    /// A binary file whose length contradicts its format or header.
    #[error("is {found} bytes long where {expected} are due; fetch or copy it again")]
    Length {
        /// The length that is due, in words.
        expected: String,
        /// The length in bytes, after decompression.
        found: u64,
    },
    /// A file that is not what its name says.
    #[error("not a usable {format} file ({detail})")]
    Format {
        /// What it should be.
        format: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A tar file that makes no sense from a place on.
    #[error("damaged tar file, at byte {offset}: {detail}")]
    Tar {
        /// Where the entry starts.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// Samples of tar shards that lack a part.
    #[error("samples without {part}: {samples}")]
    Incomplete {
        /// What is missing.
        part: &'static str,
        /// The samples' keys.
        samples: Listing,
    },
}

const LAYOUTS: &str = "a folder of images per class (below train and val, or not), tables (.csv, .tsv, .jsonl) \
    and lists (train.txt) of images, tar shards, CIFAR-10/100's binary files and MNIST's IDX files; see docs/data.md";

fn or_none(found: &[String]) -> String {
    if found.is_empty() { "no splits: use 'all'".into() } else { found.join(", ") }
}

/// Names of which a message shows the first three, and counts the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    first: Vec<String>,
    count: usize,
}

impl Listing {
    const SHOWN: usize = 3;

    /// Adds a name.
    pub fn push(&mut self, name: impl Into<String>) {
        if self.first.len() < Self::SHOWN {
            self.first.push(name.into());
        }
        self.count += 1;
    }

    /// How many names were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<S: Into<String>> FromIterator<S> for Listing {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut listing = Self::default();
        names.into_iter().for_each(|name| listing.push(name));
        listing
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            rest => write!(f, " and {rest} more"),
        }
    }
}
