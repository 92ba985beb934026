//! A run on standard error: a bar where somebody looks, plain lines elsewhere.

use crate::progress;
use cardinal_train::TrainError;
use cardinal_train::evaluate::{Evaluation, Scores};
use cardinal_train::observe::{BatchReport, EpochReport, Event, Observer, Start};
use indicatif::ProgressBar;
use std::io::{Write, stderr};

/// Draws a run.
#[derive(Default)]
pub(super) struct Display {
    bar: Option<ProgressBar>,
    /// Batches between two plain lines.
    interval: usize,
}

impl Observer for Display {
    fn event(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        match event {
            Event::Start(start) => self.start(start),
            Event::Batch(report) => self.batch(report),
            Event::Skipped(error) => self.line(&format!("left out: {error}")),
            Event::Evaluating { done, total } => self.evaluating(*done, *total),
            Event::Epoch(report) => self.epoch(report),
            Event::Recovery { epoch, batch } => {
                tracing::info!("recovery checkpoint written in epoch {}, batch {batch}", epoch + 1);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Display {
    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A line above the bar; nothing is left to do if standard error is closed.
    fn line(&self, text: &str) {
        let write = || {
            if !progress::is_quiet() {
                let _ = writeln!(stderr(), "{text}");
            }
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn start(&mut self, start: &Start<'_>) {
        self.interval = start.recipe.run.log_interval;
        self.line(&format!(
            "{}, {:.2} M parameters, {} classes, {} px: {} images ({}) to train, {} ({}) to evaluate",
            start.model,
            start.parameters as f64 / 1e6,
            start.classes.len(),
            start.recipe.model.img_size,
            start.train_images,
            start.train,
            start.val_images,
            start.val,
        ));
        self.line(&format!("steps: {}; kept in {}", start.step, start.folder.display()));
        if let Some((epoch, batch)) = start.resumed {
            self.line(&format!("continued after {epoch} epochs and {batch} of {} batches", start.batches));
        }
    }

    fn batch(&mut self, report: &BatchReport) {
        let meter = &report.meter;
        let images = meter.images.max(1) as f64;
        let seconds = meter.seconds.max(1e-9);
        let text = format!(
            "loss {:.3}  top1 {:.1}  {:.0} img/s  data {:.0} %  lr {:.2e}",
            meter.loss / images,
            100.0 * meter.correct as f64 / images,
            images / seconds,
            100.0 * meter.waited / seconds,
            report.lr
        );
        if progress::is_drawn() {
            let bar = self.bar.get_or_insert_with(|| progress::training(report.batches));
            bar.set_length(report.batches as u64);
            bar.set_prefix(format!("{}/{}", report.epoch + 1, report.epochs));
            bar.set_message(text);
            bar.set_position(report.batch as u64);
        } else if report.batch.is_multiple_of(self.interval.max(1)) || report.batch == report.batches {
            let left = seconds / report.batch as f64 * (report.batches - report.batch) as f64;
            self.line(&format!(
                "Train: {:3} [{:4}/{}]  {text}  eta {left:.0} s",
                report.epoch + 1,
                report.batch,
                report.batches
            ));
        }
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("evaluating {done}/{total}"));
        }
    }

    fn epoch(&mut self, report: &EpochReport<'_>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let images = report.meter.images.max(1) as f64;
        let mut text = format!(
            "Epoch {:3}/{}  train loss {:.4} top1 {:.2}",
            report.epoch,
            report.epochs,
            report.meter.loss / images,
            100.0 * report.meter.correct as f64 / images,
        );
        for (name, evaluation) in [("eval", report.evaluation), ("ema", report.evaluation_ema)] {
            if let Some(evaluation) = evaluation {
                text += &format!("  {name} {}", scores(evaluation));
            }
        }
        let best = if report.is_best { "  *" } else { "" };
        let Some(seconds) = Some(report.meter.seconds).filter(|seconds| *seconds > 0.0) else {
            return self.line(&text);
        };
        self.line(&format!("{text}  {seconds:.1} s, {:.0} img/s{best}", images / seconds));
    }
}

fn scores(evaluation: &Evaluation) -> String {
    match &evaluation.scores {
        Scores::Single(scores) => format!("loss {:.4} top1 {:.2}", evaluation.loss, scores.top1()),
        Scores::Multi(scores) => {
            format!(
                "loss {:.4} mAP {:.2} CF1 {:.2} OF1 {:.2}",
                evaluation.loss, scores.map, scores.cf1, scores.of1
            )
        }
    }
}
