//! What a run leaves to look at, all in its folder:
//!
//! | file | what |
//! |---|---|
//! | `recipe.toml` | the effective recipe |
//! | `metrics.jsonl` | a line per logged step and per epoch |
//! | `summary.csv` | a row per epoch, with timm's columns |
//! | `events.out.tfevents.*` | the same numbers and the first batch for TensorBoard |
//! | `curves.svg`, `confusion.svg` | pictures |
//! | `train-batch-0.png` | the first augmented batch |
//! | `report.html` | all of it on one page that needs nothing else |
//!
//! Files that change are written anew and renamed; the two logs grow by whole lines and records. An epoch is logged before
//! its checkpoint is written, and a run that is continued forgets what was logged behind its checkpoint: so wherever it
//! was stopped, each row is there once.

mod chart;
mod events;
mod file;
mod html;
mod observer;
mod picture;
mod record;
pub mod svg;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use file::ReportError;
pub use observer::Reporter;
pub use record::{EpochRow, StepRow, Values};

use crate::metrics::{Confusion, MultiLabelScores};
use chart::{Chart, Line};
use events::EventFile;
use file::write_atomically;
use picture::Picture;
use record::value;

/// A line per logged step and per epoch.
const LOG: &str = "metrics.jsonl";
/// The first augmented batch.
const PICTURE: &str = "train-batch-0.png";

/// What a run is, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The page's title.
    pub title: String,
    /// Names and texts for the top of the page.
    pub facts: Vec<(String, String)>,
    /// The classes' names.
    pub classes: Vec<String>,
}

/// What an evaluation found, class by class.
#[derive(Debug, Clone, PartialEq)]
pub enum Results {
    /// One class per image.
    Single(Confusion),
    /// Any number of classes per image.
    Multi(MultiLabelScores),
}

/// Writes the files of a run.
pub struct Report {
    folder: PathBuf,
    about: About,
    recipe: String,
    lines: File,
    events: EventFile,
    steps: Vec<StepRow>,
    epochs: Vec<EpochRow>,
    results: Option<Results>,
    picture: Option<Picture>,
    skipped: Vec<String>,
}

impl Report {
    /// Begins the report of a run in `folder`, which exists. For a run that is continued, `resumed` says after how many
    /// epochs and how many batches of the next one: what was logged up to there is kept.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn begin(
        folder: &Path,
        about: About,
        recipe: String,
        resumed: Option<(usize, usize)>,
    ) -> Result<Self, ReportError> {
        write_atomically(&folder.join("recipe.toml"), recipe.as_bytes())?;
        let log = folder.join(LOG);
        let (mut steps, mut epochs) = (Vec::new(), Vec::new());
        if resumed.is_some() && log.exists() {
            let text = std::fs::read(&log).map_err(|error| ReportError::new(&log, error))?;
            (steps, epochs) = record::read(&String::from_utf8_lossy(&text));
        }
        let (done, batches) = resumed.unwrap_or_default();
        steps.retain(|row| (row.epoch, row.batch) <= (done, batches));
        epochs.retain(|row| row.epoch < done);
        write_atomically(&log, log_of(&steps, &epochs).as_bytes())?;
        let lines = File::options().append(true).open(&log).map_err(|error| ReportError::new(&log, error))?;
        let resume_step = resumed.map(|_| steps.last().map_or(0, |row| row.step + 1));
        let (path, mut events) = begin_events(folder, resume_step)?;
        // An epoch's row has the step of the next epoch's first, so TensorBoard drops the last one too.
        if let (Some(step), Some(row)) = (resume_step, epochs.last())
            && row.step >= step
        {
            events.scalars(now(), row.step, &row.values).map_err(|error| ReportError::new(&path, error))?;
        }
        let picture = folder.join(PICTURE);
        let report = Self {
            folder: folder.to_owned(),
            about,
            recipe,
            lines,
            events,
            steps,
            epochs,
            results: None,
            picture: resumed.and_then(|_| Picture::read(&picture)),
            skipped: Vec::new(),
        };
        report.write_summary()?;
        // A page that is there shows an evaluation, which the log does not have: it stays until there is a newer one.
        if resumed.is_none() || !report.page().exists() {
            report.write_page()?;
        }
        Ok(report)
    }

    /// Keeps the first batch, `[n, 3, h, w]`, as a picture; `mean` and `std` are what it was normalised with.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn first_batch(
        &mut self,
        images: &[f32],
        size: [usize; 4],
        mean: [f32; 3],
        std: [f32; 3],
    ) -> Result<(), ReportError> {
        let Some(picture) = picture::grid(images, size, mean, std) else { return Ok(()) };
        write_atomically(&self.folder.join(PICTURE), &picture.png)?;
        self.events
            .picture(now(), "train_batch", (picture.height, picture.width), &picture.png)
            .map_err(|error| ReportError::new(&self.folder, error))?;
        self.picture = Some(picture);
        self.write_page()
    }

    /// Logs a step.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn step(&mut self, row: StepRow) -> Result<(), ReportError> {
        let tagged: Values =
            row.values.iter().map(|(name, value)| (format!("step/{name}"), *value)).collect();
        self.log(&record::line(&row), row.step, &tagged)?;
        self.steps.push(row);
        Ok(())
    }

    /// Logs an epoch, with what its evaluation found, and writes all pictures and pages anew.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn epoch(&mut self, row: EpochRow, results: Option<Results>) -> Result<(), ReportError> {
        self.log(&record::line(&row), row.step, &row.values)?;
        // On the disk before the checkpoint is, which would otherwise say after a power cut that the row is there.
        self.lines.sync_data().map_err(|error| ReportError::new(&self.folder.join(LOG), error))?;
        self.epochs.push(row);
        self.results = results.or(self.results.take());
        self.write_summary()?;
        let charts = self.charts();
        if !charts.is_empty() {
            write_atomically(&self.folder.join("curves.svg"), chart::charts(&charts, true).as_bytes())?;
        }
        if let Some(Results::Single(confusion)) = &self.results
            && let Some(svg) = chart::confusion(confusion, &self.about.classes, true)
        {
            write_atomically(&self.folder.join("confusion.svg"), svg.as_bytes())?;
        }
        self.write_page()
    }

    /// Notes an image that could not be read, for the page.
    pub fn skipped(&mut self, problem: String) {
        if !self.skipped.contains(&problem) {
            self.skipped.push(problem);
        }
    }

    /// The page's path.
    #[must_use]
    pub fn page(&self) -> PathBuf {
        self.folder.join("report.html")
    }

    /// The epochs so far.
    #[must_use]
    pub fn epochs(&self) -> &[EpochRow] {
        &self.epochs
    }

    fn log(&mut self, line: &str, step: u64, values: &Values) -> Result<(), ReportError> {
        let fail = |error| ReportError::new(&self.folder.join(LOG), error);
        self.lines.write_all(line.as_bytes()).map_err(fail)?;
        self.events
            .scalars(now(), step, values)
            .map_err(|error| ReportError::new(&self.folder.join("events.out.tfevents"), error))
    }

    fn write_summary(&self) -> Result<(), ReportError> {
        let path = self.folder.join("summary.csv");
        if self.epochs.is_empty() && !path.exists() {
            return Ok(());
        }
        write_atomically(&path, record::summary(&self.epochs).as_bytes())
    }

    fn write_page(&self) -> Result<(), ReportError> {
        let page = html::Page {
            about: &self.about,
            recipe: &self.recipe,
            epochs: &self.epochs,
            charts: &self.charts(),
            results: self.results.as_ref(),
            picture: self.picture.as_ref(),
            skipped: &self.skipped,
        };
        write_atomically(&self.page(), page.html().as_bytes())
    }

    fn charts(&self) -> Vec<Chart> {
        let epochs = |name: &'static str, value_name: &str| Line {
            name,
            points: self
                .epochs
                .iter()
                .filter_map(|row| Some((row.epoch as f64 + 1.0, value(&row.values, value_name)?)))
                .collect(),
        };
        // A step's place is known within its epoch once the longest epoch is.
        let batches = self.steps.iter().map(|row| row.batch).max().unwrap_or(1).max(1) as f64;
        let steps = |name: &'static str, value_name: &str| Line {
            name,
            points: self
                .steps
                .iter()
                .filter_map(|row| {
                    Some((row.epoch as f64 + row.batch as f64 / batches, value(&row.values, value_name)?))
                })
                .collect(),
        };
        let charts = [
            Chart {
                title: "Loss",
                unit: "",
                lines: vec![
                    steps("training", "loss"),
                    epochs("evaluation", "eval_loss"),
                    epochs("evaluation, EMA", "eval_ema_loss"),
                ],
            },
            Chart {
                title: "Accuracy",
                unit: "%",
                lines: vec![
                    epochs("training", "train_top1"),
                    epochs("top-1", "eval_top1"),
                    epochs("top-1, EMA", "eval_ema_top1"),
                    epochs("mAP", "eval_mAP"),
                    epochs("mAP, EMA", "eval_ema_mAP"),
                ],
            },
            Chart { title: "Learning rate", unit: "", lines: vec![steps("lr", "lr")] },
            Chart {
                title: "Throughput",
                unit: "images/s",
                lines: vec![steps("training", "images_per_second")],
            },
        ];
        charts.into_iter().filter_map(Chart::non_empty).collect()
    }
}

/// All rows in the order in which they were logged.
fn log_of(steps: &[StepRow], epochs: &[EpochRow]) -> String {
    let mut text = String::new();
    let mut steps = steps.iter().peekable();
    for epoch in epochs {
        while let Some(step) = steps.next_if(|step| step.epoch <= epoch.epoch) {
            text += &record::line(step);
        }
        text += &record::line(epoch);
    }
    steps.for_each(|step| text += &record::line(step));
    text
}

/// A new event file; runs that begin in the same second get different ones.
fn begin_events(folder: &Path, resume_step: Option<u64>) -> Result<(PathBuf, EventFile), ReportError> {
    let time = now();
    let mut number = 0;
    loop {
        let path = folder.join(format!("events.out.tfevents.{:010}.cardinal.{number}", time as u64));
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => {
                let begun = EventFile::begin(file, time, resume_step);
                return begun
                    .map(|events| (path.clone(), events))
                    .map_err(|error| ReportError::new(&path, error));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(ReportError::new(&path, error)),
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
