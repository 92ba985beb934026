//! How good a network is on a split.

mod frozen;

pub use frozen::Frozen;

use crate::TrainError;
use crate::device::DeviceKind;
use crate::metrics::{Mean, MultiLabel, MultiLabelScores, SingleLabel};
use crate::pipeline;
use crate::recipe::{EvalMetric, Recipe};
use cardinal_data::{DataError, Dataset, Label, Loader, Preprocess, Task};
use cardinal_models::registry::Variant;
use cardinal_weights::NamedTensors;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answers of one set of weights to one split.
#[derive(Debug)]
pub struct Evaluation {
    /// Images that were seen.
    pub images: usize,
    /// Images that could not be read.
    pub skipped: Vec<DataError>,
    /// Cross-entropy with the labels; for several labels an image, the binary one. Averaged over the images.
    pub loss: f64,
    /// What was counted.
    pub scores: Scores,
    /// How long it took, compilation and data included.
    pub time: Duration,
}

/// What is counted, by what the labels are.
#[derive(Debug)]
pub enum Scores {
    /// One class an image: top-1, top-5, confusion.
    Single(SingleLabel),
    /// Any number of classes an image.
    Multi(MultiLabelScores),
}

impl Evaluation {
    /// The value of a metric, if these labels have it.
    pub fn metric(&self, metric: EvalMetric) -> Option<f64> {
        match (metric, &self.scores) {
            (EvalMetric::Loss, _) => Some(self.loss),
            (EvalMetric::Top1, Scores::Single(scores)) => Some(scores.top1()),
            (EvalMetric::Top5, Scores::Single(scores)) => Some(scores.top5()),
            (EvalMetric::Map, Scores::Multi(scores)) => Some(scores.map),
            _ => None,
        }
    }
}

/// The metric that says which checkpoint is the best: the recipe's, or what suits the labels.
///
/// # Errors
///
/// The recipe's metric does not suit the labels.
pub fn best_metric(recipe: &Recipe, task: Task) -> Result<EvalMetric, TrainError> {
    let fits = |metric| match task {
        Task::SingleLabel => metric != EvalMetric::Map,
        Task::MultiLabel => matches!(metric, EvalMetric::Map | EvalMetric::Loss),
    };
    match (recipe.run.eval_metric, task) {
        (Some(metric), _) if fits(metric) => Ok(metric),
        (None, Task::SingleLabel) => Ok(EvalMetric::Top1),
        (None, Task::MultiLabel) => Ok(EvalMetric::Map),
        (Some(_), Task::SingleLabel) => Err(TrainError::DataFit(
            "run.eval_metric 'map' is for data with several labels an image; use loss, top1 or top5".into(),
        )),
        (Some(_), Task::MultiLabel) => Err(TrainError::DataFit(
            "run.eval_metric must be loss or map for data with several labels an image".into(),
        )),
    }
}

/// A split and the network that is evaluated on it.
pub struct Evaluator {
    variant: &'static Variant,
    dataset: Arc<dyn Dataset>,
    loader: Loader,
    classes: usize,
    batch: usize,
    size: [usize; 3],
    device: DeviceKind,
    threads: usize,
}

impl Evaluator {
    /// Gets `dataset` ready for a network of `classes` outputs.
    ///
    /// # Errors
    ///
    /// The data has more classes than the network.
    pub fn new(
        recipe: &Recipe,
        variant: &'static Variant,
        dataset: Arc<dyn Dataset>,
        preprocess: &Preprocess,
        classes: usize,
        device: DeviceKind,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let loader = pipeline::eval_loader(recipe, Arc::clone(&dataset), preprocess, classes)?;
        let batch = recipe.data.validation_batch_size.unwrap_or(recipe.data.batch_size).min(dataset.len());
        let (height, width) = preprocess.size;
        let size = [3, height as usize, width as usize];
        Ok(Self { variant, dataset, loader, classes, batch, size, device, threads })
    }

    /// The split.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// Evaluates the network with `weights`; tells `progress` how many images are done.
    ///
    /// # Errors
    ///
    /// The weights are not the network's, the data or the device fails, or no image can be read.
    pub fn evaluate(
        &mut self,
        weights: &NamedTensors,
        mut progress: impl FnMut(usize) -> Result<(), TrainError>,
    ) -> Result<Evaluation, TrainError> {
        let start = Instant::now();
        let mut network =
            Frozen::new(self.variant, weights, self.batch, self.size, self.device, self.threads)?;
        let mut counts = Counts::new(self.dataset.task(), self.classes);
        let mut skipped = Vec::new();
        let mut done = 0;
        for batch in self.loader.epoch(0, 0) {
            let batch = batch?;
            done += batch.labels.len() + batch.skipped.len();
            if !batch.labels.is_empty() {
                counts.add(&network.run(&batch.images)?, &batch.labels);
            }
            skipped.extend(batch.skipped);
            progress(done)?;
        }
        let images = done - skipped.len();
        if images == 0
            && let Some(first) = skipped.first()
        {
            return Err(TrainError::DataFit(format!(
                "none of the {done} images to evaluate on ({}) can be read, the first because: {first}; 'cardinal data \
                 check' names all",
                self.dataset.describe()
            )));
        }
        let (loss, scores) = (counts.loss.value(), counts.scores());
        Ok(Evaluation { images, skipped, loss, scores, time: start.elapsed() })
    }
}

/// Sums over the batches.
struct Counts {
    classes: usize,
    loss: Mean,
    kind: CountsKind,
}

enum CountsKind {
    Single(SingleLabel),
    Multi(MultiLabel),
}

impl Counts {
    fn new(task: Task, classes: usize) -> Self {
        let kind = match task {
            Task::SingleLabel => CountsKind::Single(SingleLabel::new(classes)),
            Task::MultiLabel => CountsKind::Multi(MultiLabel::new(classes)),
        };
        Self { classes, loss: Mean::default(), kind }
    }

    fn add(&mut self, logits: &[f32], labels: &[Label]) {
        let rows = logits.chunks_exact(self.classes).zip(labels);
        match &mut self.kind {
            CountsKind::Single(counts) => {
                let class = |label: &Label| label.classes().first().copied().unwrap_or(0);
                rows.for_each(|(row, label)| self.loss.add(cross_entropy(row, class(label)), 1));
                counts.update(logits, &labels.iter().map(class).collect::<Vec<_>>());
            }
            CountsKind::Multi(counts) => {
                rows.for_each(|(row, label)| self.loss.add(binary_cross_entropy(row, label.classes()), 1));
                let probabilities: Vec<f32> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
                counts.update(&probabilities, labels.iter().map(Label::classes));
            }
        }
    }

    fn scores(self) -> Scores {
        match self.kind {
            CountsKind::Single(counts) => Scores::Single(counts),
            CountsKind::Multi(counts) => Scores::Multi(counts.scores()),
        }
    }
}

/// `-log softmax(row)[class]`.
fn cross_entropy(row: &[f32], class: u32) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
    sum.ln() - f64::from(row.get(class as usize).copied().unwrap_or(f32::NAN) - largest)
}

/// Averaged over the classes.
fn binary_cross_entropy(row: &[f32], shown: &[u32]) -> f64 {
    let term = |(class, x): (usize, &f32)| {
        let x = f64::from(if shown.contains(&(class as u32)) { -*x } else { *x });
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    };
    row.iter().enumerate().map(term).sum::<f64>() / row.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_a_row_are_those_of_the_formula() {
        let row = [2.0f32, -1.0, 0.5];
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        assert!((cross_entropy(&row, 2) - (sum.ln() - 0.5)).abs() < 1e-12);
        let s = |x: f64| 1.0 / (1.0 + (-x).exp());
        let expected = -(s(2.0).ln() + (1.0 - s(-1.0)).ln() + s(0.5).ln()) / 3.0;
        assert!((binary_cross_entropy(&row, &[0, 2]) - expected).abs() < 1e-12);
        assert!(binary_cross_entropy(&[1000.0], &[0]).abs() < 1e-12, "large logits do not overflow");
    }
}
