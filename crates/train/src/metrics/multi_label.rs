//! Any number of classes per image: mAP and the six numbers beside it (TResNet section 4.2, table 8).

use serde::Serialize;

use super::{f1, mean, percent};

/// A class counts as predicted where its probability is above this.
const THRESHOLD: f32 = 0.5;

/// The scores of a split; all in percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MultiLabelScores {
    /// Mean over the classes of the average precision.
    #[serde(rename = "mAP")]
    pub map: f64,
    /// Mean over the classes of the precision.
    #[serde(rename = "CP")]
    pub cp: f64,
    /// Mean over the classes of the recall.
    #[serde(rename = "CR")]
    pub cr: f64,
    /// Harmonic mean of CP and CR, as in the paper's table.
    #[serde(rename = "CF1")]
    pub cf1: f64,
    /// Precision over all predictions together.
    #[serde(rename = "OP")]
    pub op: f64,
    /// Recall over all labels together.
    #[serde(rename = "OR")]
    pub or: f64,
    /// Harmonic mean of OP and OR.
    #[serde(rename = "OF1")]
    pub of1: f64,
    /// Mean over the classes of their F1, which the authors' code prints as CF1 (scikit-learn's macro F1).
    pub macro_f1: f64,
    /// Average precision by class.
    pub average_precision: Vec<f64>,
    /// Classes without any image; they count as 0 in all means over classes, as in the authors' code and scikit-learn.
    pub absent: usize,
}

/// Collects probabilities and labels over any number of batches.
#[derive(Debug, Clone)]
pub struct MultiLabel {
    classes: usize,
    /// Per class: the probability of every image.
    scores: Vec<Vec<f32>>,
    /// Per class: whether the image shows it.
    labels: Vec<Vec<bool>>,
}

impl MultiLabel {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self { classes, scores: vec![Vec::new(); classes], labels: vec![Vec::new(); classes] }
    }

    /// Adds a batch: `probabilities` is `[labels.len(), classes]` (the logits' sigmoid), `labels` the classes of each
    /// image.
    pub fn update<'a>(&mut self, probabilities: &[f32], labels: impl IntoIterator<Item = &'a [u32]>) {
        for (row, shown) in probabilities.chunks_exact(self.classes.max(1)).zip(labels) {
            for (class, score) in row.iter().enumerate() {
                self.scores[class].push(*score);
                self.labels[class].push(shown.contains(&(class as u32)));
            }
        }
    }

    /// Images seen.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.scores.first().map_or(0, Vec::len)
    }

    /// The scores of all that was added.
    #[must_use]
    pub fn scores(&self) -> MultiLabelScores {
        let counts: Vec<Counts> =
            self.scores.iter().zip(&self.labels).map(|(scores, labels)| Counts::of(scores, labels)).collect();
        let average_precision: Vec<f64> = self
            .scores
            .iter()
            .zip(&self.labels)
            .map(|(scores, labels)| 100.0 * average_precision(scores, labels))
            .collect();
        let all = counts.iter().fold(Counts::default(), |all, class| all.and(class));
        let cp = mean(counts.iter().map(Counts::precision));
        let cr = mean(counts.iter().map(Counts::recall));
        MultiLabelScores {
            map: mean(average_precision.iter().copied()),
            cp,
            cr,
            cf1: f1(cp, cr),
            op: all.precision(),
            or: all.recall(),
            of1: f1(all.precision(), all.recall()),
            macro_f1: mean(counts.iter().map(|class| f1(class.precision(), class.recall()))),
            average_precision,
            absent: counts.iter().filter(|class| class.right + class.missed == 0).count(),
        }
    }
}

#[derive(Default)]
struct Counts {
    right: u64,
    wrong: u64,
    missed: u64,
}

impl Counts {
    fn of(scores: &[f32], labels: &[bool]) -> Self {
        let mut counts = Self::default();
        for (score, shown) in scores.iter().zip(labels) {
            let predicted = *score > THRESHOLD;
            counts.right += u64::from(predicted && *shown);
            counts.wrong += u64::from(predicted && !*shown);
            counts.missed += u64::from(!predicted && *shown);
        }
        counts
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            right: self.right + other.right,
            wrong: self.wrong + other.wrong,
            missed: self.missed + other.missed,
        }
    }

    fn precision(&self) -> f64 {
        percent(self.right as f64, (self.right + self.wrong) as f64)
    }

    fn recall(&self) -> f64 {
        percent(self.right as f64, (self.right + self.missed) as f64)
    }
}

/// The average precision of one class, 0 to 1: the mean over its images of the precision down to each, as the authors'
/// code and scikit-learn have it (no interpolation). Images of equal score count together, so their order does not matter;
/// a score that is not a number comes last.
#[must_use]
pub fn average_precision(scores: &[f32], labels: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    let key = |index: &usize| if scores[*index].is_nan() { f32::NEG_INFINITY } else { scores[*index] };
    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
    let (mut sum, mut seen, mut found) = (0.0, 0, 0);
    for group in order.chunk_by(|a, b| key(a) == key(b)) {
        let hits = group.iter().filter(|index| labels[**index]).count();
        seen += group.len();
        found += hits;
        sum += hits as f64 * found as f64 / seen as f64;
    }
    if found > 0 { sum / found as f64 } else { 0.0 }
}
