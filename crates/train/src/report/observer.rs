//! The report as an observer of the loop.

use super::{About, EpochRow, Report, ReportError, Results, StepRow, Values};
use crate::TrainError;
use crate::evaluate::{Evaluation, Scores};
use crate::observe::{BatchReport, EpochReport, Event, Observer, Start};

/// Writes the report of the run that it observes; see [`Report`] for the files.
#[derive(Default)]
pub struct Reporter {
    report: Option<Report>,
    log_interval: usize,
}

impl Reporter {
    /// Waits for a run to begin.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The report, once the run has begun.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    fn start(&mut self, start: &Start<'_>) -> Result<(), ReportError> {
        let facts = [
            ("network", format!("{}, {:.2} million parameters", start.model, start.parameters as f64 / 1e6)),
            ("training data", format!("{}: {} images", start.train, start.train_images)),
            ("evaluation data", format!("{}: {} images", start.val, start.val_images)),
            ("classes", start.classes.len().to_string()),
            ("plan", format!("{} epochs of {} batches", start.epochs, start.batches)),
            ("seed", start.recipe.run.seed.to_string()),
            ("written by", format!("cardinal {}", env!("CARGO_PKG_VERSION"))),
        ];
        let about = About {
            title: format!("{} on {}", start.model, start.train),
            facts: facts.map(|(name, text)| (name.to_owned(), text)).into(),
            classes: start.classes.to_vec(),
        };
        self.log_interval = start.recipe.run.log_interval;
        self.report = Some(Report::begin(start.folder, about, start.recipe.to_toml(), start.resumed)?);
        Ok(())
    }
}

impl Observer for Reporter {
    fn event(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        if let Event::Start(start) = event {
            return Ok(self.start(start)?);
        }
        let Some(report) = &mut self.report else { return Ok(()) };
        match event {
            Event::FirstBatch { images, size, normalization: [mean, std] } => {
                report.first_batch(images, *size, *mean, *std)?;
            }
            Event::Batch(batch) => {
                if batch.batch.is_multiple_of(self.log_interval.max(1)) || batch.batch == batch.batches {
                    report.step(step_row(batch))?;
                }
            }
            Event::Skipped(error) => report.skipped(error.to_string()),
            Event::Epoch(epoch) => {
                let evaluation = epoch.evaluation.or(epoch.evaluation_ema);
                report.epoch(epoch_row(epoch), evaluation.map(results))?;
            }
            Event::Start(_) | Event::Evaluating { .. } | Event::Recovery { .. } => {}
        }
        Ok(())
    }
}

impl From<ReportError> for TrainError {
    fn from(error: ReportError) -> Self {
        Self::Io { path: error.path, error: error.error }
    }
}

fn named<const N: usize>(values: [(&str, f64); N]) -> Values {
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

fn step_row(batch: &BatchReport) -> StepRow {
    let seconds = batch.time.as_secs_f64().max(1e-9);
    let mut values = named([
        ("loss", batch.loss),
        ("lr", batch.lr),
        ("images_per_second", batch.images as f64 / seconds),
        ("step_time", seconds),
        ("data_time", batch.waited.as_secs_f64()),
    ]);
    values.extend(batch.gradient_norm.map(|norm| ("gradient_norm".to_owned(), norm)));
    StepRow { epoch: batch.epoch, batch: batch.batch, step: batch.step, values }
}

fn epoch_row(epoch: &EpochReport<'_>) -> EpochRow {
    let meter = &epoch.meter;
    let (images, seconds) = (meter.images.max(1) as f64, meter.seconds.max(1e-9));
    let mut values =
        named([("train_loss", meter.loss / images), ("train_top1", 100.0 * meter.correct as f64 / images)]);
    for (prefix, evaluation) in [("eval", epoch.evaluation), ("eval_ema", epoch.evaluation_ema)] {
        values.extend(
            evaluation.into_iter().flat_map(scores).map(|(name, value)| (format!("{prefix}_{name}"), value)),
        );
    }
    values.extend(named([
        ("lr", epoch.lr),
        ("images_per_second", images / seconds),
        ("seconds", meter.seconds),
        ("data_seconds", meter.waited),
        ("skipped", meter.skipped as f64),
    ]));
    EpochRow { epoch: epoch.epoch.saturating_sub(1), step: epoch.step, best: epoch.is_best, values }
}

fn scores(evaluation: &Evaluation) -> Values {
    let loss = ("loss", evaluation.loss);
    match &evaluation.scores {
        Scores::Single(scores) => named([loss, ("top1", scores.top1()), ("top5", scores.top5())]),
        Scores::Multi(scores) => named([
            loss,
            ("mAP", scores.map),
            ("CP", scores.cp),
            ("CR", scores.cr),
            ("CF1", scores.cf1),
            ("OP", scores.op),
            ("OR", scores.or),
            ("OF1", scores.of1),
        ]),
    }
}

fn results(evaluation: &Evaluation) -> Results {
    match &evaluation.scores {
        Scores::Single(scores) => Results::Single(scores.confusion().clone()),
        Scores::Multi(scores) => Results::Multi(scores.clone()),
    }
}
