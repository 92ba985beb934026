//! One class per image: top-1 and top-5 accuracy, with the confusion matrix.

use super::{Confusion, percent};

/// How many classes score higher than `class`, which is 0 for a top-1 hit; of equal scores the first counts as higher.
/// `usize::MAX` for a score that is not a number and a class that has none: never a hit.
#[must_use]
pub fn rank(scores: &[f32], class: u32) -> usize {
    let class = class as usize;
    let Some(own) = scores.get(class).copied().filter(|score| !score.is_nan()) else {
        return usize::MAX;
    };
    let before = scores[..class].iter().filter(|score| **score >= own).count();
    before + scores[class + 1..].iter().filter(|score| **score > own).count()
}

/// Accuracy over any number of batches.
#[derive(Debug, Clone, PartialEq)]
pub struct SingleLabel {
    confusion: Confusion,
    seen: u64,
    top1: u64,
    top5: u64,
}

impl SingleLabel {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self { confusion: Confusion::new(classes), seen: 0, top1: 0, top5: 0 }
    }

    /// Counts a batch: `scores` is `[labels.len(), classes]`, logits or probabilities.
    pub fn update(&mut self, scores: &[f32], labels: &[u32]) {
        for (row, &label) in scores.chunks_exact(self.confusion.classes().max(1)).zip(labels) {
            let rank = rank(row, label);
            self.seen += 1;
            self.top1 += u64::from(rank < 1);
            self.top5 += u64::from(rank < 5);
            let best = if rank == 0 { label } else { largest(row) };
            self.confusion.add(label, best);
        }
    }

    /// Images counted.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Images whose class scores highest, in percent.
    #[must_use]
    pub fn top1(&self) -> f64 {
        percent(self.top1 as f64, self.seen as f64)
    }

    /// Images whose class is among the five highest, in percent.
    #[must_use]
    pub fn top5(&self) -> f64 {
        percent(self.top5 as f64, self.seen as f64)
    }

    /// Which class was taken for which.
    #[must_use]
    pub fn confusion(&self) -> &Confusion {
        &self.confusion
    }
}

fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (class, score) in row.iter().enumerate() {
        if *score > row[best] || row[best].is_nan() {
            best = class;
        }
    }
    best as u32
}

/// A mean of values with weights: the loss of an epoch from those of its batches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// Counts `value`, `weight` times.
    pub fn add(&mut self, value: f64, weight: usize) {
        self.sum += value * weight as f64;
        self.weight += weight as f64;
    }

    /// The mean so far; 0 before the first value.
    #[must_use]
    pub fn value(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}
