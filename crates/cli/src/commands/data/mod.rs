//! `cardinal data`: what a dataset holds, before a training run finds out.

mod report;
mod sheet;

use crate::exit::{Broken, Usage};
use crate::progress;
use anyhow::Context;
use cardinal_data::{DataError, Dataset, Decoder, OpenOptions, Split, Survey, Task, open, splits, survey};
use report::Report;
use std::io::{Write, stderr, stdout};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal data check photos/                          read and decode every image of every split
  cardinal data stats photos/ --split train            its mean and deviation, for --mean and --std
  cardinal data stats photos/ --picture sheet.svg      some images of each class in one picture
  cardinal data check 'shards/train-{000..127}.tar'    tar shards
  cardinal data stats                                  the digits that Cardinal brings along

docs/data.md shows the layouts. The exit code is 3 if any image is broken.";

/// Read a dataset: what is broken in it, what it holds
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read and decode every image: the broken ones by name, images per class
    #[command(after_help = EXAMPLES)]
    Check(Common),
    /// The same, and mean, deviation and sizes of the images
    #[command(after_help = EXAMPLES)]
    Stats(Stats),
}

#[derive(clap::Args)]
struct Stats {
    #[command(flatten)]
    common: Common,
    /// Draw some images of each class of the first split
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Common {
    /// The dataset: a folder, a table of labels, tar shards (braces and wildcards too) [default: the embedded digits]
    #[arg(value_name = "PATH")]
    data: Option<PathBuf>,
    /// Only this split (train, val, test, all, or another's name) [default: each that there is]
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Threads that read and decode [default: the processor's]
    #[arg(short = 'j', long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    #[command(flatten)]
    source: Source,
}

/// What cannot be told from the files alone.
#[derive(clap::Args)]
struct Source {
    /// The list of classes: a name on each line, or JSON [default: classes.txt in the dataset's folder]
    #[arg(long, value_name = "FILE", visible_alias = "class-file")]
    class_map: Option<PathBuf>,
    /// A table (CSV, TSV, JSON-lines) with the images' labels [default: labels.csv, metadata.csv, train.csv, ...]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// A text file with the names of the split's images [default: train.txt, val.txt, ...]
    #[arg(long, value_name = "FILE", conflicts_with = "labels")]
    split_file: Option<PathBuf>,
    /// The table's column of images [default: the first of image, file_name, filename, ...]
    #[arg(long, value_name = "NAME")]
    image_column: Option<String>,
    /// The table's column of labels [default: the first of label, labels, class, ...]
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// What stands between several labels in a cell [default: | or ;]
    #[arg(long, value_name = "CHAR")]
    label_separator: Option<char>,
    /// Several labels per image, even where every image has one
    #[arg(long)]
    multi_label: bool,
}

impl Source {
    fn options(&self) -> OpenOptions {
        OpenOptions {
            class_map: self.class_map.clone(),
            labels: self.labels.clone(),
            split_file: self.split_file.clone(),
            image_column: self.image_column.clone(),
            label_column: self.label_column.clone(),
            label_separator: self.label_separator,
            task: self.multi_label.then_some(Task::MultiLabel),
            ..OpenOptions::default()
        }
    }
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check(common) => common.run(false, None),
            Command::Stats(stats) => {
                let picture = stats.picture.as_deref();
                if picture.is_some_and(|path| path.extension().is_none_or(|extension| extension != "svg")) {
                    return Err(
                        Usage("--picture draws an SVG: give it a name that ends in .svg".into()).into()
                    );
                }
                stats.common.run(true, picture)
            }
        }
    }
}

impl Common {
    fn run(&self, pixels: bool, picture: Option<&Path>) -> anyhow::Result<ExitCode> {
        // All are opened before one is read: a wrong label in the last should not take an hour to find.
        let sets = self.open()?;
        let mut reports = Vec::with_capacity(sets.len());
        for (split, set) in &sets {
            reports.push(Report::new(split, set.as_ref(), self.read(set.as_ref())));
        }
        if let (Some(path), Some((_, set))) = (picture, sets.first()) {
            let text = sheet::draw(set.as_ref())?;
            write(path, &text).with_context(|| format!("writing {}", path.display()))?;
        }
        let mut out = stdout().lock();
        if self.json {
            report::json(&mut out, self.data.as_deref(), &reports, pixels)?;
        } else {
            report::text(&mut out, &reports, pixels)?;
        }
        out.flush()?;
        let broken: Vec<&DataError> =
            reports.iter().flat_map(|report| report.survey.broken.values()).collect();
        for error in &broken {
            writeln!(stderr(), "error: {error}")?;
        }
        match broken.len() {
            0 => Ok(ExitCode::SUCCESS),
            broken => Err(Broken { broken, total: sets.iter().map(|(_, set)| set.len()).sum() }.into()),
        }
    }

    fn open(&self) -> anyhow::Result<Vec<(String, Box<dyn Dataset>)>> {
        let (data, options) = (self.data.as_deref(), self.source.options());
        let names = match &self.split {
            Some(name) => vec![name.clone()],
            None => {
                let found = splits(data, &options)?;
                if found.is_empty() { vec!["all".into()] } else { found }
            }
        };
        // A split alone is all of it here; what a training run would hold out is read as well.
        let options = OpenOptions { hold_out: self.split.is_some(), ..options };
        let opened = |name: String| Ok((name.clone(), open(data, &Split::from_name(&name), &options)?));
        names.into_iter().map(opened).collect()
    }

    fn read(&self, set: &dyn Dataset) -> Survey {
        let bar = progress::items(set.len(), "images");
        let workers =
            self.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let survey = survey(set, &Decoder::default(), workers, &|| bar.inc(1));
        bar.finish_and_clear();
        survey
    }
}

/// Writes the whole file or none of it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let unfinished = path.with_added_extension("tmp");
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        // What is left of it is of no use; perhaps there is nothing.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}
