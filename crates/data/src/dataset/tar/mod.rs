//! Tar shards in the layout of WebDataset: `key.jpg` beside `key.cls`, `key.json` or `key.txt`.

mod header;
mod index;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use super::classes::{ClassList, expect_two};
use super::error::DatasetError;
use super::files::Listed;
use super::labels::{Collector, Labels};
use super::split::{is_split_name, is_train, train_of};
use super::{Dataset, Label, OpenOptions, Picture, Sample, Task};
use crate::{DataError, DataErrorKind};
use index::{Index, Member};

/// Whether a file's name is that of a shard.
pub(super) fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// Tar files, by split.
pub(super) struct Shards {
    /// Where a list of classes is looked for.
    folder: PathBuf,
    /// The split of each group; `None` for the only group of a source without splits.
    groups: Vec<(Option<String>, Vec<PathBuf>)>,
    pub(super) splits: Vec<String>,
}

impl Shards {
    /// Looks for shards in a folder, whose names may tell splits apart, and in those of its splits.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, DataError> {
        let listed = Listed::of(path)?;
        let shards: Vec<PathBuf> = listed.files.iter().filter(|file| is_shard(file)).cloned().collect();
        if !shards.is_empty() {
            return Self::of(path, shards).map(Some);
        }
        let mut groups = Vec::new();
        for folder in &listed.folders {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_split_name(name) {
                let files = Listed::of(folder)?.files;
                let shards: Vec<PathBuf> = files.into_iter().filter(|file| is_shard(file)).collect();
                if !shards.is_empty() {
                    groups.push((Some(name.to_owned()), shards));
                }
            }
        }
        Ok((!groups.is_empty()).then(|| Self::from_groups(path, groups)))
    }

    /// These files, in the order of their names.
    pub(super) fn of(folder: &Path, mut files: Vec<PathBuf>) -> Result<Self, DataError> {
        files.sort();
        let mut groups: Vec<(Option<String>, Vec<PathBuf>)> = Vec::new();
        for file in files {
            let split = split_in_name(&file);
            match groups.iter_mut().find(|(known, _)| *known == split) {
                Some((_, files)) => files.push(file),
                None => groups.push((split, vec![file])),
            }
        }
        if let [(Some(split), first), (None, second), ..] | [(None, second), (Some(split), first), ..] =
            &groups[..]
        {
            let name = |files: &[PathBuf]| files.first().map(|f| f.display().to_string()).unwrap_or_default();
            let first = format!("shards of split {split} ({})", name(first));
            let second = format!("shards of no split ({})", name(second));
            return Err(DataError::new(folder, DatasetError::Mixed { first, second }.into()));
        }
        Ok(Self::from_groups(folder, groups))
    }

    /// One file, as all there is.
    pub(super) fn single(folder: &Path, file: &Path) -> Self {
        Self::from_groups(folder, vec![(None, vec![file.to_path_buf()])])
    }

    fn from_groups(folder: &Path, mut groups: Vec<(Option<String>, Vec<PathBuf>)>) -> Self {
        groups.sort_by_key(|(split, _)| !split.as_deref().is_some_and(is_train));
        let splits = groups.iter().filter_map(|(split, _)| split.clone()).collect();
        Self { folder: folder.to_path_buf(), groups, splits }
    }

    /// For the message about mixed layouts.
    pub(super) fn example(&self) -> String {
        let first = self.groups.first().and_then(|(_, files)| files.first());
        let name = first.and_then(|file| file.file_name()).unwrap_or_default();
        format!("tar shards ({})", name.to_string_lossy())
    }

    pub(super) fn open(
        &self,
        split: Option<&str>,
        options: &OpenOptions,
    ) -> Result<Box<dyn Dataset>, DataError> {
        let group = |name: Option<&str>| self.groups.iter().find(|(split, _)| split.as_deref() == name);
        let Some((_, files)) = group(split) else {
            let kind = DatasetError::NoSplit {
                split: split.unwrap_or("all").to_owned(),
                found: self.splits.clone(),
            };
            return Err(DataError::new(&self.folder, kind.into()));
        };
        let list = ClassList::find(&self.folder, options)?;
        let (shards, collector) = read_all(files, options)?;
        let train = train_of(&self.splits).filter(|train| Some(*train) != split);
        let vocabulary = match train.and_then(|train| group(Some(train))) {
            // What the labels are is for the training split to say.
            Some((_, train)) if list.is_none() => read_all(train, options)?.1.vocabulary(None, options.task),
            _ => collector.vocabulary(list.as_ref(), options.task),
        };
        let count: usize = shards.iter().map(|shard| shard.members.len()).sum();
        if count == 0 {
            return Err(DataError::new(&files[0], DatasetError::NothingListed("image with a label").into()));
        }
        let place = if let [only] = &files[..] { only } else { &self.folder };
        let mut set = ShardSet {
            ends: Vec::new(),
            shards,
            labels: Labels::One(Vec::new()),
            classes: Vec::new(),
            describe: describe(files.len(), split),
            max_file_bytes: options.max_file_bytes,
        };
        set.ends = set
            .shards
            .iter()
            .scan(0, |end, shard| {
                *end += shard.members.len();
                Some(*end)
            })
            .collect();
        set.labels = collector
            .labels(&vocabulary, |image| set.name(image))
            .map_err(|kind| DataError::new(place, kind.into()))?;
        set.classes = vocabulary.classes.into_names();
        if vocabulary.task == Task::SingleLabel {
            expect_two(place, &set.classes)?;
        }
        Ok(Box::new(set))
    }
}

fn describe(shards: usize, split: Option<&str>) -> String {
    let split = split.map(|split| format!(", split '{split}'")).unwrap_or_default();
    format!("{shards} tar shard{}{split}", if shards == 1 { "" } else { "s" })
}

/// The split that a shard's name speaks of: `train-0001.tar`, `imagenet1k-validation-07.tar`.
fn split_in_name(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?.to_ascii_lowercase();
    stem.split(|c: char| !c.is_ascii_alphabetic()).find(|part| is_split_name(part)).map(str::to_owned)
}

/// Indexes all shards, some at a time: on disks and networks alike, waiting takes longer than working.
fn read_all(files: &[PathBuf], options: &OpenOptions) -> Result<(Vec<Shard>, Collector), DataError> {
    let threads = thread::available_parallelism().map_or(1, |count| count.get() * 2).min(files.len());
    let indices: Vec<Result<Index, DataError>> = thread::scope(|scope| {
        let share = files.len().div_ceil(threads.max(1));
        let work =
            |files: &[PathBuf]| files.iter().map(|file| index::index(file, options)).collect::<Vec<_>>();
        let running: Vec<_> =
            files.chunks(share.max(1)).map(|files| scope.spawn(move || work(files))).collect();
        let done = running.into_iter().map(|thread| thread.join());
        done.flat_map(|indices| indices.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let (mut shards, mut labels) = (Vec::with_capacity(files.len()), Collector::default());
    for (path, index) in files.iter().zip(indices) {
        let index = index?;
        index.labels.iter().for_each(|label| label.push_to(&mut labels, options));
        shards.push(Shard { path: path.clone(), members: index.members });
    }
    Ok((shards, labels))
}

struct Shard {
    path: PathBuf,
    members: Vec<Member>,
}

/// Samples of shards, read by their places.
struct ShardSet {
    shards: Vec<Shard>,
    /// The index behind each shard's last image.
    ends: Vec<usize>,
    labels: Labels,
    classes: Vec<String>,
    describe: String,
    max_file_bytes: u64,
}

impl ShardSet {
    fn at(&self, index: usize) -> (&Shard, &Member) {
        let shard = self.ends.partition_point(|&end| end <= index);
        let start = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        (&self.shards[shard], &self.shards[shard].members[index - start])
    }
}

impl Dataset for ShardSet {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn task(&self) -> Task {
        self.labels.task()
    }

    fn read(&self, index: usize) -> Result<Sample, DataError> {
        let (shard, member) = self.at(index);
        let name = shard.path.join(&*member.name);
        if member.size > self.max_file_bytes {
            return Err(DataError::new(&name, DataErrorKind::FileTooLarge { limit: self.max_file_bytes }));
        }
        // The index has seen that the file is long enough; by now it may be another one.
        let read = || {
            let mut file = File::open(&shard.path)?;
            file.seek(SeekFrom::Start(member.offset))?;
            let mut bytes = Vec::with_capacity(member.size as usize);
            file.take(member.size).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| DataError::io(&shard.path, error))?;
        Ok(Sample { picture: Picture::Encoded { name, bytes }, label: self.label(index) })
    }

    fn label(&self, index: usize) -> Label {
        self.labels.get(index)
    }

    fn name(&self, index: usize) -> String {
        let (shard, member) = self.at(index);
        format!("{}/{}", shard.path.file_name().unwrap_or_default().to_string_lossy(), member.name)
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn shards(&self) -> Vec<Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end).collect()
    }
}
