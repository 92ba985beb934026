//! Labels in memory, and the way from the names that files use to the indices of classes.

use std::collections::HashMap;

use super::classes::ClassList;
use super::error::{DatasetError, Listing};
use super::{Label, Task};

/// One label per image.
#[derive(Debug, Clone)]
pub(super) enum Labels {
    One(Vec<u32>),
    Many {
        /// Where each image's classes end in `classes`.
        ends: Vec<usize>,
        classes: Vec<u32>,
    },
}

impl Labels {
    pub(super) fn get(&self, index: usize) -> Label {
        match self {
            Self::One(labels) => Label::One(labels[index]),
            Self::Many { ends, classes } => {
                let start = index.checked_sub(1).map_or(0, |before| ends[before]);
                Label::Many(classes[start..ends[index]].to_vec())
            }
        }
    }

    /// The labels of these images, in this order.
    pub(super) fn select(&self, images: &[usize]) -> Self {
        match self {
            Self::One(labels) => Self::One(images.iter().map(|&image| labels[image]).collect()),
            Self::Many { .. } => {
                let (mut ends, mut classes) = (Vec::with_capacity(images.len()), Vec::new());
                for &image in images {
                    classes.extend_from_slice(self.get(image).classes());
                    ends.push(classes.len());
                }
                Self::Many { ends, classes }
            }
        }
    }

    pub(super) fn task(&self) -> Task {
        match self {
            Self::One(_) => Task::SingleLabel,
            Self::Many { .. } => Task::MultiLabel,
        }
    }
}

/// The classes that labels mean, and whether an image may have several.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    pub(super) classes: ClassList,
    pub(super) task: Task,
}

/// Collects labels as files spell them; each distinct spelling is kept once.
#[derive(Debug, Default)]
pub(super) struct Collector {
    spellings: Vec<String>,
    index: HashMap<String, u32>,
    ends: Vec<usize>,
    /// Indices into `spellings`.
    found: Vec<u32>,
    /// Whether a file says that an image may have several labels.
    several: bool,
}

impl Collector {
    /// The labels of the next image.
    pub(super) fn push<'a>(&mut self, labels: impl IntoIterator<Item = &'a str>) {
        for label in labels {
            let next = self.spellings.len() as u32;
            let id = match self.index.get(label) {
                Some(&id) => id,
                None => {
                    self.spellings.push(label.to_owned());
                    self.index.insert(label.to_owned(), next);
                    next
                }
            };
            self.found.push(id);
        }
        self.ends.push(self.found.len());
    }

    /// Says that images may have several labels, whether or not one has.
    pub(super) fn several(&mut self) {
        self.several = true;
    }

    /// The number of images.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn of(&self, image: usize) -> &[u32] {
        let start = image.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.found[start..self.ends[image]]
    }

    /// What the labels mean by themselves: the given list of classes or all that occur, in [`ClassList::sorted`]
    /// order; `task` or, without it, several labels where the files show several.
    pub(super) fn vocabulary(&self, list: Option<&ClassList>, task: Option<Task>) -> Vocabulary {
        let classes = list.cloned().unwrap_or_else(|| ClassList::sorted(self.spellings.clone()));
        let several = self.several || (0..self.ends.len()).any(|image| self.of(image).len() > 1);
        let task = task.unwrap_or(if several { Task::MultiLabel } else { Task::SingleLabel });
        Vocabulary { classes, task }
    }

    /// The labels as indices; `place` names an image in messages.
    pub(super) fn labels(
        &self,
        vocabulary: &Vocabulary,
        place: impl Fn(usize) -> String,
    ) -> Result<Labels, DatasetError> {
        let classes: Vec<Option<u32>> =
            self.spellings.iter().map(|label| vocabulary.classes.index_of(label)).collect();
        if let Some(unknown) = classes.iter().position(Option::is_none) {
            return Err(self.unknown_label(unknown as u32, vocabulary, place));
        }
        let class = |id: &u32| classes[*id as usize].unwrap_or_default();
        let images = 0..self.ends.len();
        if vocabulary.task == Task::SingleLabel {
            let wrong: Listing =
                images.clone().filter(|&image| self.of(image).len() != 1).map(&place).collect();
            if !wrong.is_empty() {
                return Err(DatasetError::NotOneLabel(wrong));
            }
            return Ok(Labels::One(self.found.iter().map(class).collect()));
        }
        let (mut ends, mut all) = (Vec::with_capacity(images.len()), Vec::with_capacity(self.found.len()));
        for image in images {
            let mut labels: Vec<u32> = self.of(image).iter().map(class).collect();
            labels.sort_unstable();
            labels.dedup();
            all.extend(labels);
            ends.push(all.len());
        }
        Ok(Labels::Many { ends, classes: all })
    }

    fn unknown_label(
        &self,
        id: u32,
        vocabulary: &Vocabulary,
        place: impl Fn(usize) -> String,
    ) -> DatasetError {
        let label = &self.spellings[id as usize];
        if label.parse::<i64>().is_err() {
            let unknown = self.spellings.iter().filter(|label| vocabulary.classes.index_of(label).is_none());
            let list = vocabulary.classes.origin().to_owned();
            return DatasetError::UnknownClasses { list, classes: unknown.cloned().collect() };
        }
        let image = (0..self.ends.len()).find(|&image| self.of(image).contains(&id)).unwrap_or_default();
        let classes = vocabulary.classes.names().len();
        DatasetError::LabelOutOfRange { place: place(image), label: label.clone(), classes }
    }
}
