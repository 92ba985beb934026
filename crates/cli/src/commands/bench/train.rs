//! Training: how long a whole step takes (forward, loss, backward and update), how much memory, and the largest batch.

use super::Args;
use crate::exit::Usage;
use crate::machine;
use crate::memory::{MOST_IMAGES, largest_batch, limit_or_free, mebibytes, parse_size};
use crate::output::{Align, table};
use crate::training::{Subject, Trainer, recompute};
use cardinal_engine::train::{Recompute, TrainPlan};
use cardinal_engine::trim_heap;
use cardinal_models::ModelOptions;
use cardinal_models::registry::Variant;
use cardinal_models::summary::summarize;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

/// What to do about training.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// Time whole steps of training: forward, loss, backward and update by SGD with momentum
    #[arg(long)]
    pub(super) train: bool,
    /// What the backward pass computes again to save memory: none, cheap (norms, attention, pooling) or expansions (1x1
    /// convolutions that widen their input too)
    #[arg(long, value_name = "WHAT", default_value = "expansions", value_parser = recompute, requires = "train")]
    recompute: Recompute,
    /// Find the largest batch that fits into --memory-limit, and confirm it by a step
    #[arg(long, requires = "train", conflicts_with = "batch")]
    max_batch: bool,
    /// Memory of the largest batch, as 8GiB or 512MiB [default: four fifths of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "max_batch")]
    memory_limit: Option<usize>,
    /// Plan, but take no step
    #[arg(long, requires = "train")]
    dry_run: bool,
}

impl Args {
    /// Measures training of each of `chosen`, and prints it.
    pub(super) fn train(&self, chosen: &[&'static Variant]) -> anyhow::Result<()> {
        let mut results = Vec::new();
        for variant in chosen {
            if self.training.max_batch {
                results.push(self.measure_training(variant, None)?);
            } else {
                for &batch in &self.batch {
                    results.push(self.measure_training(variant, Some(usize::from(batch)))?);
                }
            }
        }
        let mut out = stdout().lock();
        if self.json {
            let list: Vec<_> = results.iter().map(|result| self.trained_as_json(result)).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
            return Ok(());
        }
        let head = [
            ("model", Align::Left),
            ("batch", Align::Right),
            ("size", Align::Right),
            ("images/s", Align::Right),
            ("best", Align::Right),
            ("ms per step", Align::Right),
            ("GFLOP/s", Align::Right),
            ("planned MiB", Align::Right),
            ("maps MiB", Align::Right),
            ("peak MiB", Align::Right),
        ];
        let rows: Vec<_> = results.iter().map(Trained::as_row).collect();
        table(&mut out, &head, &rows)?;
        writeln!(out, "\n{}", self.training_setting()?)?;
        Ok(())
    }

    /// Measures one network at one batch size, or at the largest that fits.
    fn measure_training(&self, variant: &'static Variant, batch: Option<usize>) -> anyhow::Result<Trained> {
        let size = self.size.map_or(variant.size, usize::from);
        let params = summarize(variant, &ModelOptions::new(), [size; 2])?.params;
        // Nothing of the network before counts.
        trim_heap();
        machine::reset_peak_memory();
        // The program itself counts against the limit too.
        let held = machine::held_memory().unwrap_or(0);
        let start = Instant::now();
        let subject = Subject::new(variant, size, self.training.recompute, &self.compute)?;
        let batch = match batch {
            Some(batch) => batch,
            None => self.largest(&subject, held, variant.name)?,
        };
        let plan = subject.plan(batch, &self.compute)?;
        let mut trained = Trained {
            variant,
            batch,
            size,
            params,
            macs: plan.steps().iter().map(cardinal_engine::train::TrainStep::macs).sum(),
            planned: subject.memory(&plan),
            arena: plan.arena_bytes(),
            least_arena: plan.least_arena_bytes(),
            compile: start.elapsed(),
            steps: Vec::new(),
            peak: None,
        };
        drop(subject);
        trim_heap();
        if !self.training.dry_run {
            trained.steps = self.time_training(plan)?;
            trained.peak = machine::peak_memory();
        }
        Ok(trained)
    }

    /// The largest batch within the limit, in a process that holds `held` bytes already.
    fn largest(&self, subject: &Subject, held: usize, name: &str) -> anyhow::Result<usize> {
        let limit = limit_or_free(self.training.memory_limit)?;
        let memory = |batch| Ok(held + subject.memory(&subject.plan(batch, &self.compute)?));
        let found = largest_batch(limit, MOST_IMAGES, memory)?;
        found.ok_or_else(|| {
            let text = format!("{name}: not even one image fits into {:.0} MiB", mebibytes(limit));
            Usage(text).into()
        })
    }

    /// Times steps for as long as was asked for, sorted; after a warm-up of one. The largest batch takes one step more.
    fn time_training(&self, plan: TrainPlan) -> anyhow::Result<Vec<Duration>> {
        let mut trainer = Trainer::new(plan)?;
        trainer.step()?;
        let start = Instant::now();
        let mut steps = Vec::new();
        let seconds = if self.training.max_batch { 0.0 } else { self.seconds };
        while steps.is_empty() || start.elapsed().as_secs_f64() < seconds {
            let step = Instant::now();
            trainer.step()?;
            steps.push(step.elapsed());
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn trained_as_json(&self, result: &Trained) -> Value {
        let per_second = |step: Duration| result.batch as f64 / step.as_secs_f64();
        json!({
            "model": result.variant.name,
            "train_samples_per_sec": result.median().map(per_second),
            "train_samples_per_sec_best": result.best().map(per_second),
            "train_step_time": result.median().map(|step| step.as_secs_f64() * 1e3),
            "train_batch_size": result.batch,
            "train_img_size": result.size,
            "train_gmacs": result.macs as f64 / 1e9,
            "param_count": result.params as f64 / 1e6,
            "steps": result.steps.len(),
            "dtype": self.dtype(),
            "threads": self.compute.threads(),
            "recompute": self.training.recompute.name(),
            "device": machine::cpu_name(),
            "kernels": self.compute.isa().map_or_else(|_| String::new(), |isa| isa.to_string()),
            "compile_seconds": result.compile.as_secs_f64(),
            "planned_memory_mib": mebibytes(result.planned),
            "arena_mib": mebibytes(result.arena),
            "least_arena_mib": mebibytes(result.least_arena),
            "peak_memory_mib": result.peak.map(mebibytes),
            "max_batch": self.training.max_batch,
            "memory_limit_mib": self.training.memory_limit.map(mebibytes),
        })
    }

    /// What was measured, in one line.
    fn training_setting(&self) -> anyhow::Result<String> {
        let (dtype, isa, threads) = (self.dtype(), self.compute.isa()?, self.compute.threads());
        let recompute = self.training.recompute.name();
        Ok(format!(
            "{}; training, {dtype}, {isa}, {threads} threads, recompute {recompute}",
            machine::cpu_name()
        ))
    }
}

/// The training steps of one network at one batch size.
struct Trained {
    variant: &'static Variant,
    batch: usize,
    size: usize,
    params: usize,
    /// Of a step, for one image.
    macs: usize,
    /// Bytes, known before the first step.
    planned: usize,
    arena: usize,
    least_arena: usize,
    compile: Duration,
    /// Sorted; none without a step.
    steps: Vec<Duration>,
    peak: Option<usize>,
}

impl Trained {
    fn median(&self) -> Option<Duration> {
        self.steps.get(self.steps.len() / 2).copied()
    }

    fn best(&self) -> Option<Duration> {
        self.steps.first().copied()
    }

    fn as_row(&self) -> Vec<String> {
        let cell =
            |value: Option<f64>, digits: usize| value.map_or_else(|| "-".into(), |v| format!("{v:.digits$}"));
        let (median, best) =
            (self.median().map(|step| step.as_secs_f64()), self.best().map(|step| step.as_secs_f64()));
        let batch = self.batch as f64;
        vec![
            self.variant.name.into(),
            self.batch.to_string(),
            self.size.to_string(),
            cell(median.map(|step| batch / step), 2),
            cell(best.map(|step| batch / step), 2),
            cell(median.map(|step| step * 1e3), 1),
            cell(median.map(|step| 2.0 * self.macs as f64 * batch / step / 1e9), 0),
            format!("{:.0}", mebibytes(self.planned)),
            format!("{:.0}", mebibytes(self.arena)),
            cell(self.peak.map(mebibytes), 0),
        ]
    }
}
