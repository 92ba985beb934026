//! Which class was taken for which.

use serde::Serialize;

use super::{f1, mean, percent};

/// A confusion matrix: counts of (true class, predicted class).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[true, predicted]`.
    counts: Vec<u64>,
}

/// How well one class is recognised, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassScore {
    /// Of the images taken for it, those that are; 0 where none was.
    pub precision: f64,
    /// Of its images, those taken for it; 0 where there are none.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// Images of the class.
    pub support: u64,
}

impl Confusion {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts an image; classes out of range are left out.
    pub fn add(&mut self, actual: u32, predicted: u32) {
        let (actual, predicted) = (actual as usize, predicted as usize);
        if actual < self.classes && predicted < self.classes {
            self.counts[actual * self.classes + predicted] += 1;
        }
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many images of `actual` were taken for `predicted`; 0 for classes out of range.
    #[must_use]
    pub fn count(&self, actual: usize, predicted: usize) -> u64 {
        if actual < self.classes && predicted < self.classes {
            self.counts[actual * self.classes + predicted]
        } else {
            0
        }
    }

    /// The counts of one true class, by predicted class.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.counts.chunks_exact(self.classes.max(1))
    }

    /// Precision, recall and F1 of every class.
    #[must_use]
    pub fn scores(&self) -> Vec<ClassScore> {
        let mut predicted = vec![0; self.classes];
        for row in self.rows() {
            for (sum, count) in predicted.iter_mut().zip(row) {
                *sum += count;
            }
        }
        let score = |(class, row): (usize, &[u64])| {
            let (right, support) = (row[class] as f64, row.iter().sum::<u64>());
            let precision = percent(right, predicted[class] as f64);
            let recall = percent(right, support as f64);
            ClassScore { precision, recall, f1: f1(precision, recall), support }
        };
        self.rows().enumerate().map(score).collect()
    }

    /// The plain means over all classes of precision, recall and F1 (timm's and scikit-learn's `macro`).
    #[must_use]
    pub fn macro_average(&self) -> ClassScore {
        let scores = self.scores();
        let average = |value: fn(&ClassScore) -> f64| mean(scores.iter().map(value));
        ClassScore {
            precision: average(|score| score.precision),
            recall: average(|score| score.recall),
            f1: average(|score| score.f1),
            support: scores.iter().map(|score| score.support).sum(),
        }
    }

    /// The most frequent mistakes: (true class, predicted class, count), at most `most`.
    #[must_use]
    pub fn worst(&self, most: usize) -> Vec<(usize, usize, u64)> {
        let mut mistakes: Vec<(usize, usize, u64)> = (0..self.classes)
            .flat_map(|actual| (0..self.classes).map(move |predicted| (actual, predicted)))
            .filter(|(actual, predicted)| actual != predicted)
            .map(|(actual, predicted)| (actual, predicted, self.count(actual, predicted)))
            .filter(|(.., count)| *count > 0)
            .collect();
        mistakes.sort_by_key(|(actual, predicted, count)| (u64::MAX - count, *actual, *predicted));
        mistakes.truncate(most);
        mistakes
    }
}
