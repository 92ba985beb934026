//! One run, from a checked recipe to what is printed at its end.

use super::batch;
use super::display::Display;
use crate::exit::Usage;
use crate::machine;
use crate::memory::parse_size;
use crate::network;
use cardinal_models::{ModelError, registry};
use cardinal_train::TrainError;
use cardinal_train::checkpoint::{BEST, Checkpoint, Folder, LAST};
use cardinal_train::device::DeviceKind;
use cardinal_train::evaluate::Scores;
use cardinal_train::observe::Observer;
use cardinal_train::recipe::Recipe;
use cardinal_train::report::Reporter;
use cardinal_train::run::{Outcome, RunOptions, run};
use serde::Serialize;
use std::io::{Write, stderr, stdout};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a run is computed and kept.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Where the folders of runs are made
    #[arg(long, value_name = "DIR", default_value = "output/train")]
    output: PathBuf,
    /// Name of the run's folder [default: time in UTC, model and size, as 20261122-130507-resnest14d-224]
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Where steps are computed: cpu, vulkan or cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(super) device: DeviceKind,
    /// Memory that --batch auto may plan a step for, as 8GiB; prepared images (prefetch_mib) and the evaluation come on top
    /// [default: four fifths of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) memory_limit: Option<usize>,
    /// Threads of the evaluation [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
}

/// Stopped by Ctrl-C, or asked to end.
const INTERRUPTED: u8 = 130;
static STOP: AtomicBool = AtomicBool::new(false);

/// A switch that Ctrl-C turns on; a second Ctrl-C ends the program at once.
fn interrupted() -> &'static AtomicBool {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // Without a handler Ctrl-C ends the program at once, which a run survives too.
        let _ = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(INTERRUPTED));
            }
            let _ = writeln!(stderr(), "stopping after this step; again to stop at once");
        });
    });
    &STOP
}

/// Begins a run, with `auto_batch` with the largest batch that fits. `suffix` tells runs of one experiment apart.
pub(crate) fn start(
    mut recipe: Recipe,
    auto_batch: bool,
    place: &Place,
    suffix: Option<&str>,
) -> anyhow::Result<ExitCode> {
    if auto_batch {
        batch::choose(&mut recipe, place)?;
    }
    let (variant, published) = registry::find_pretrained(&recipe.model.model)?;
    let published = published.cloned().unwrap_or_else(|| variant.preprocessing());
    place.device.open()?;
    // A relative path would mean another file where the run is continued from another folder.
    if let Some(data) = &mut recipe.data.data_dir {
        let absolute = std::path::absolute(&*data)?;
        *data = absolute.to_string_lossy().into_owned();
    }
    let initial = match &recipe.model.initial_checkpoint {
        Some(file) => Some(network::read_weights(Path::new(file), true)?.tensors),
        None if recipe.model.pretrained => Some(network::published_weights(&recipe.model.model)?),
        None => None,
    };
    let folder = place.folder(variant.name, recipe.model.img_size, suffix)?;
    let options = RunOptions {
        recipe,
        folder: Folder::create(&folder)?,
        resume: None,
        variant,
        published,
        initial,
        device: place.device,
        threads: place.threads(),
        stop: interrupted(),
    };
    let from = options.recipe.model.initial_checkpoint.clone();
    let outcome = place.run(options).map_err(|error| match (error.downcast_ref::<TrainError>(), from) {
        (Some(TrainError::Model(ModelError::Mismatch { .. })), Some(file)) => error.context(file),
        _ => error,
    });
    if outcome.is_err() {
        // A run that could not begin leaves nothing behind; one that has written something keeps it.
        let _ = std::fs::remove_dir(&folder);
    }
    outcome
}

/// Continues a run where it stopped.
pub(super) fn resume(folder: Folder, checkpoint: Checkpoint, place: &Place) -> anyhow::Result<ExitCode> {
    let recipe = checkpoint.recipe.clone();
    let (variant, published) = registry::find_pretrained(&recipe.model.model)?;
    let published = published.cloned().unwrap_or_else(|| variant.preprocessing());
    place.run(RunOptions {
        recipe,
        folder,
        resume: Some(checkpoint),
        variant,
        published,
        initial: None,
        device: place.device,
        threads: place.threads(),
        stop: interrupted(),
    })
}

impl Place {
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.map_or_else(cores, usize::from)
    }

    /// The folder of a new run.
    fn folder(&self, model: &str, size: usize, suffix: Option<&str>) -> anyhow::Result<PathBuf> {
        let name = match (&self.experiment, suffix) {
            (Some(name), Some(suffix)) => format!("{name}-{suffix}"),
            (Some(name), None) => name.clone(),
            (None, _) => format!("{}-{model}-{size}", timestamp(SystemTime::now())),
        };
        let folder = self.output.join(name);
        if folder.join(LAST).exists() {
            let text = "holds a run already: continue it with --resume, or name another --experiment";
            return Err(Usage(format!("{} {text}", folder.display())).into());
        }
        Ok(folder)
    }

    fn run(&self, options: RunOptions<'_>) -> anyhow::Result<ExitCode> {
        let (folder, variant) = (options.folder.path().to_owned(), options.variant);
        let recipe = options.recipe.clone();
        let (mut display, mut reporter) = (Display::default(), Reporter::new());
        let mut observers: Vec<&mut dyn Observer> = vec![&mut display, &mut reporter];
        let outcome = run(options, &mut observers);
        display.finish();
        let outcome = outcome?;
        for text in &outcome.skipped {
            writeln!(stderr(), "could not be read: {text}")?;
        }
        if outcome.stopped {
            writeln!(
                stderr(),
                "stopped in epoch {} after {} batches; continue with: cardinal train --resume {}",
                outcome.progress.epoch + 1,
                outcome.progress.batch,
                folder.display()
            )?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let summary = Summary::new(variant.name, &recipe, &folder, &outcome);
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string_pretty(&summary)?)?;
        } else {
            summary.print(&mut stdout().lock())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What is printed at the end.
#[derive(Serialize)]
struct Summary {
    model: String,
    epochs: usize,
    metric: f64,
    best_epoch: usize,
    best_averaged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1_ema: Option<f64>,
    skipped: usize,
    seconds: f64,
    folder: String,
    checkpoint: String,
}

impl Summary {
    fn new(model: &str, recipe: &Recipe, folder: &Path, outcome: &Outcome) -> Self {
        let top1 = |index: usize| match outcome.evaluations.get(index).map(|evaluation| &evaluation.scores) {
            Some(Scores::Single(scores)) => Some(scores.top1()),
            _ => None,
        };
        let best = outcome.progress.best;
        Self {
            model: model.into(),
            epochs: recipe.run_epochs(),
            metric: best.map_or(f64::NAN, |best| best.value),
            best_epoch: best.map_or(0, |best| best.epoch),
            best_averaged: best.is_some_and(|best| best.averaged),
            top1: top1(0),
            top1_ema: top1(1),
            skipped: outcome.skipped.len(),
            seconds: outcome.progress.seconds,
            folder: folder.display().to_string(),
            checkpoint: folder.join(BEST).display().to_string(),
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let averaged = if self.best_averaged { ", averaged weights" } else { "" };
        if let Some(top1) = self.top1 {
            write!(out, "{}: top-1 {top1:.2} %", self.model)?;
            if let Some(ema) = self.top1_ema {
                write!(out, " ({ema:.2} % averaged)")?;
            }
            writeln!(out, " after {} epochs in {:.0} s of training", self.epochs, self.seconds)?;
        }
        if self.skipped > 0 {
            writeln!(out, "{} images could not be read", self.skipped)?;
        }
        writeln!(out, "*** Best metric: {:.3} (epoch {}{averaged})", self.metric, self.best_epoch)?;
        writeln!(out, "{}", self.checkpoint)
    }
}

/// `20260131-235959`, in UTC.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = machine::civil(days);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_civil_dates() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101-000000");
        assert_eq!(at(951_782_399), "20000228-235959");
        assert_eq!(at(951_782_400), "20000229-000000");
        assert_eq!(at(1_798_761_599), "20261231-235959");
    }
}
