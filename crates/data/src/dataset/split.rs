//! Splits: their names, and the fifth that is held out where a source has none to evaluate with.

use std::fmt;
use std::ops::Range;

use super::error::DatasetError;
use super::{Dataset, Label, Sample, Split, Task};
use crate::DataError;

const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 5] = ["val", "valid", "validation", "eval", "evaluation"];
const TEST: [&str; 2] = ["test", "testing"];

/// One image of so many is held out.
const HOLD_OUT: usize = 5;

impl Split {
    /// The split of this name; [`Split::Train`] and [`Split::Val`] by any of theirs.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "all" => Self::All,
            known if TRAIN.contains(&known) => Self::Train,
            known if VAL.contains(&known) => Self::Val,
            _ => Self::Name(name.to_owned()),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::All => "all",
            Self::Name(name) => name,
        })
    }
}

/// Whether folders and files of this name are taken for a split's.
pub(super) fn is_split_name(name: &str) -> bool {
    [TRAIN.as_slice(), &VAL, &TEST].iter().any(|names| names.contains(&name))
}

pub(super) fn is_train(name: &str) -> bool {
    TRAIN.contains(&name)
}

/// The training split among `have`.
pub(super) fn train_of(have: &[String]) -> Option<&str> {
    first_of(&TRAIN, have)
}

fn first_of<'a>(names: &[&str], have: &'a [String]) -> Option<&'a str> {
    names.iter().find_map(|name| have.iter().find(|found| found == name)).map(String::as_str)
}

/// What is to be opened for a [`Split`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The source's split; `None` is all of a source that has none.
    pub(super) source: Option<String>,
    /// Which part of it.
    pub(super) part: Part,
}

/// A part of a source that has nothing of its own to evaluate with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// What the held-out fifth leaves.
    Kept,
    /// The fifth.
    HeldOut,
}

/// Finds `split` in a source that has the splits `have`.
pub(super) fn choose(split: &Split, have: &[String], hold_out: bool) -> Result<Choice, DatasetError> {
    let whole = |name: &str| Choice { source: Some(name.to_owned()), part: Part::Whole };
    let held = |part| {
        let part = if hold_out { part } else { Part::Whole };
        Choice { source: first_of(&TRAIN, have).map(str::to_owned), part }
    };
    let train = first_of(&TRAIN, have);
    let val = first_of(&VAL, have).or_else(|| first_of(&TEST, have));
    let choice = match split {
        Split::All if have.is_empty() => Some(Choice { source: None, part: Part::Whole }),
        Split::Train | Split::Val if have.is_empty() => {
            Some(held(if *split == Split::Train { Part::Kept } else { Part::HeldOut }))
        }
        Split::All => have.first().filter(|_| have.len() == 1).map(|name| whole(name)),
        Split::Train if val.is_some() => train.map(whole),
        Split::Train => train.map(|_| held(Part::Kept)),
        Split::Val if val.is_some() => val.map(whole),
        Split::Val => train.filter(|_| hold_out).map(|_| held(Part::HeldOut)),
        Split::Name(name) => have.iter().find(|found| *found == name).map(|name| whole(name)),
    };
    choice.ok_or_else(|| DatasetError::NoSplit { split: split.to_string(), found: have.to_vec() })
}

/// The indices that a part consists of, in order. Of each class's images, in their order, the fifth, tenth,
/// fifteenth ... are held out; with several labels per image, of all images.
pub(super) fn indices(dataset: &dyn Dataset, part: Part) -> Vec<u32> {
    let mut seen = vec![0; dataset.classes().len() + 1];
    let held_out = |index: &u32| {
        let group = match dataset.label(*index as usize) {
            Label::One(class) => class as usize,
            Label::Many(_) => dataset.classes().len(),
        };
        seen[group] += 1;
        usize::is_multiple_of(seen[group], HOLD_OUT)
    };
    let all = 0..u32::try_from(dataset.len()).unwrap_or(u32::MAX);
    let (out, kept): (Vec<u32>, Vec<u32>) = all.partition(held_out);
    match part {
        Part::Whole => (0..dataset.len() as u32).collect(),
        Part::Kept => kept,
        Part::HeldOut => out,
    }
}

/// Some images of another dataset.
pub(super) struct Subset {
    pub(super) inner: Box<dyn Dataset>,
    /// In ascending order.
    pub(super) indices: Vec<u32>,
    pub(super) describe: String,
}

impl Subset {
    fn at(&self, index: usize) -> usize {
        self.indices[index] as usize
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.inner.classes()
    }

    fn task(&self) -> Task {
        self.inner.task()
    }

    fn read(&self, index: usize) -> Result<Sample, DataError> {
        self.inner.read(self.at(index))
    }

    fn label(&self, index: usize) -> Label {
        self.inner.label(self.at(index))
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(self.at(index))
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn shards(&self) -> Vec<Range<usize>> {
        let position = |limit: usize| self.indices.partition_point(|&index| (index as usize) < limit);
        let shards = self.inner.shards().into_iter();
        shards.map(|shard| position(shard.start)..position(shard.end)).filter(|s| !s.is_empty()).collect()
    }
}
