//! Which samples a shard holds, and where; pixels are passed over.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::super::OpenOptions;
use super::super::error::{DatasetError, Listing};
use super::super::labels::Collector;
use super::super::table::{JsonLabels, separators, split_labels};
use super::header::{Entries, Entry};
use crate::{DataError, IMAGE_EXTENSIONS};

/// A label's file in a shard has at most so many bytes.
const MAX_LABEL: u64 = 1 << 20;

/// Headers lie between small files (labels) as often as between images: enough for a label and a header.
const BUFFER: usize = 2048;

/// An image in a shard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Box<str>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// The images of a shard, and their labels.
pub(super) struct Index {
    pub(super) members: Vec<Member>,
    pub(super) labels: Vec<Found>,
}

/// A label as its file has it.
pub(super) enum Found {
    Text(String),
    Json(JsonLabels),
}

impl Found {
    pub(super) fn push_to(&self, labels: &mut Collector, options: &OpenOptions) {
        match self {
            Self::Json(json) => json.push_to(labels),
            Self::Text(text) => {
                let mut separators = separators(options, '\n');
                separators.push('\n');
                labels.push(split_labels(text, &separators));
            }
        }
    }
}

/// The files of one key, as far as they were met.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<Member>,
    /// With its rank: a class file counts before JSON, JSON before text.
    label: Option<(u8, Found)>,
}

pub(super) fn index(path: &Path, options: &OpenOptions) -> Result<Index, DataError> {
    let io = |error| DataError::io(path, error);
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut entries = Entries::new(BufReader::with_capacity(BUFFER, file), length);
    read(&mut entries, options).map_err(|kind| DataError::new(path, kind.into()))
}

fn read(entries: &mut Entries<BufReader<File>>, options: &OpenOptions) -> Result<Index, DatasetError> {
    let mut builder = Builder::default();
    let mut sample = Sample::default();
    while let Some(entry) = entries.next()? {
        let Some((key, extension)) = split_name(&entry.name) else { continue };
        if key != sample.key {
            let next = Sample { key: key.to_owned(), ..Sample::default() };
            builder.push(std::mem::replace(&mut sample, next));
        }
        let rank = match extension.as_str() {
            "cls" => 0,
            "json" => 1,
            "txt" => 2,
            image if IMAGE_EXTENSIONS.contains(&image) => {
                if sample.image.is_some() {
                    return Err(twice(&entry));
                }
                let Entry { name, offset, size } = entry;
                sample.image = Some(Member { name: name.into_boxed_str(), offset, size });
                continue;
            }
            _ => continue,
        };
        if sample.label.as_ref().is_none_or(|(known, _)| rank < *known)
            && let Some(label) = label(entries, &entry, rank, options)?
        {
            sample.label = Some((rank, label));
        }
    }
    builder.push(sample);
    builder.finish()
}

fn twice(entry: &Entry) -> DatasetError {
    let detail = format!("{}: the sample has an image already", entry.name);
    DatasetError::Tar { offset: entry.offset, detail }
}

fn label(
    entries: &mut Entries<BufReader<File>>,
    entry: &Entry,
    rank: u8,
    options: &OpenOptions,
) -> Result<Option<Found>, DatasetError> {
    let wrong = |detail: String| DatasetError::Tar { offset: entry.offset, detail };
    if entry.size > MAX_LABEL {
        return Err(wrong(format!("{}: {} bytes are too many for a label", entry.name, entry.size)));
    }
    let bytes = entries.bytes(entry.offset, entry.size)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(format!("{}: not text in UTF-8", entry.name)))?;
    if rank != 1 {
        return Ok(Some(Found::Text(text)));
    }
    let value = serde_json::from_str(&text).map_err(|e| wrong(format!("{}: not JSON ({e})", entry.name)))?;
    // JSON without a field for the label holds something else.
    Ok(JsonLabels::of_document(&value, options).map(Found::Json))
}

/// Key and extension as WebDataset has them: the key ends at the first dot of the file's name. `None` for hidden files
/// and those without an extension.
fn split_name(name: &str) -> Option<(&str, String)> {
    let name = name.trim_start_matches("./");
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

#[derive(Default)]
struct Builder {
    members: Vec<Member>,
    labels: Vec<Found>,
    without_label: Listing,
    without_image: Listing,
}

impl Builder {
    fn push(&mut self, sample: Sample) {
        match (sample.image, sample.label) {
            (Some(image), Some((_, label))) => {
                self.members.push(image);
                self.labels.push(label);
            }
            (Some(_), None) => self.without_label.push(sample.key),
            (None, Some(_)) => self.without_image.push(sample.key),
            (None, None) => {}
        }
    }

    fn finish(self) -> Result<Index, DatasetError> {
        let incomplete = |part, samples| Err(DatasetError::Incomplete { part, samples });
        if !self.without_label.is_empty() {
            return incomplete("a label (.cls, .json or .txt with the image's name)", self.without_label);
        }
        if !self.without_image.is_empty() {
            return incomplete("an image (.jpg, .png, ... with the label's name)", self.without_image);
        }
        Ok(Index { members: self.members, labels: self.labels })
    }
}

#[cfg(test)]
mod tests {
    use super::split_name;

    #[test]
    fn keys_end_at_the_first_dot() {
        let split = |name| split_name(name).map(|(key, extension)| format!("{key} {extension}"));
        for (name, expected) in [
            ("000.jpg", Some("000 jpg")),
            ("./a/b.c/000.seg.PNG", Some("a/b.c/000 seg.png")),
            ("a/.hidden.jpg", None),
            ("a.b/none", None),
        ] {
            assert_eq!(split(name).as_deref(), expected, "{name}");
        }
    }
}
