mod render;

pub(super) use render::{Outcome, read_names};

use crate::classes;
use crate::compute::{Compute, Runner};
use crate::exit::{SomeFailed, Usage};
use crate::network::{Choice, Loaded, preprocess};
use crate::progress;
use anyhow::Context;
use cardinal_data::{DataError, Decoder, Preprocess, RgbImage, Source, expand_sources, write_npy};
use cardinal_models::registry;
use clap::ValueEnum;
use render::Style;
use std::ffi::OsString;
use std::io::{Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal predict --model resnest50d assets/chelsea.jpg
  cardinal predict --checkpoint tresnet_m.pth --topk 1 --csv photos/ 'more/*.png'
  curl -s URL | cardinal predict --model tresnet_m -
  cardinal predict --model resnest50d --checkpoint w.safetensors --tensor in.npy --output out.npy

Images are JPEG, PNG, WebP, BMP or GIF. A bad one is reported and the others are classified; the exit code is then 3.";

/// Classifies images: files, folders, patterns, and '-' for standard input.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// Images, folders of images, patterns, or '-'
    #[arg(value_name = "IMAGE", required_unless_present = "tensor")]
    images: Vec<OsString>,
    /// How many classes to show for each image
    #[arg(short = 'k', long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    topk: u16,
    /// Class names: a text file with one on each line, in the order of the classes, or a JSON list
    #[arg(long, value_name = "FILE", visible_alias = "class-map")]
    class_file: Option<PathBuf>,
    /// Print one JSON list of objects
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values: file, rank, class, name, probability
    #[arg(long)]
    csv: bool,
    /// Images that go through the network together
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    preparation: Preparation,
    /// Instead of images: a NumPy file of normalised f32 [N, C, H, W], to check a deployment
    #[arg(long, value_name = "IN.npy", requires = "output", conflicts_with = "images")]
    tensor: Option<PathBuf>,
    /// Where to write the logits of --tensor: f32 [N, classes]
    #[arg(long, value_name = "OUT.npy", requires = "tensor")]
    output: Option<PathBuf>,
}

/// How an image becomes the network's input, where it should not be as the weights were made for.
#[derive(clap::Args)]
pub(super) struct Preparation {
    /// Side of the square that the network sees, in pixels [default: the weights']
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=8192))]
    img_size: Option<u32>,
    /// The crop's share of the resized image's side, in (0, 1] [default: the weights']
    #[arg(long, value_name = "SHARE")]
    crop_pct: Option<f64>,
    /// How the image becomes a square [default: the weights']
    #[arg(long, value_enum)]
    crop_mode: Option<CropMode>,
    /// The filter of the resize [default: the weights']
    #[arg(long, value_enum)]
    interpolation: Option<Interpolation>,
    /// Mean of red, green and blue in [0, 1] [default: the weights']
    #[arg(long, num_args = 3, value_names = ["R", "G", "B"])]
    mean: Option<Vec<f32>>,
    /// Deviation of red, green and blue [default: the weights']
    #[arg(long, num_args = 3, value_names = ["R", "G", "B"])]
    std: Option<Vec<f32>>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CropMode {
    /// Resize the shorter side, crop the centre
    Center,
    /// Resize both sides, whatever the proportions
    Squash,
    /// Resize the longer side, fill the border
    Border,
}

#[derive(Clone, Copy, ValueEnum)]
enum Interpolation {
    Bilinear,
    Bicubic,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        self.preparation.check()?;
        let names = self.class_file.as_deref().map(read_names).transpose()?;
        // What can be wrong with the input is found before weights are fetched and read.
        if let (Some(input), Some(output)) = (&self.tensor, &self.output) {
            let array = cardinal_data::read_npy(input)?;
            let loaded = self.choice.load()?;
            let [n, c, h, w] =
                loaded.network.check_input(&array.shape).with_context(|| input.display().to_string())?;
            let batch = n.min(usize::from(self.batch_size));
            let logits = self.compute.prepare(loaded.network, batch, [c, h, w])?.run(&array.data, n)?;
            write_npy(output, &[n, logits.len() / n], &logits)?;
            return Ok(ExitCode::SUCCESS);
        }
        let sources = expand_sources(&self.images);
        if sources.iter().all(Result::is_err) {
            return self.report(&[], sources.into_iter().filter_map(Result::err).collect());
        }
        let Loaded { network, preprocessing, classes, multi_label } = self.choice.load()?;
        let names = classes::names(names.or(classes), network.num_classes())?;
        let preprocess = self.preparation.over(&preprocessing);
        let (height, width) = preprocess.size;
        let batch = sources.len().min(usize::from(self.batch_size));
        let runner = self.compute.prepare(network, batch, [3, height as usize, width as usize])?;
        let (outcomes, failures) = self.classify(runner, &preprocess, sources, (&names, multi_label))?;
        self.report(&outcomes, failures)
    }

    fn classify(
        &self,
        mut runner: Runner,
        preprocess: &Preprocess,
        sources: Vec<Result<Source, DataError>>,
        classes: Classes<'_>,
    ) -> anyhow::Result<(Vec<Outcome>, Vec<DataError>)> {
        let bar = progress::items(sources.len(), "images");
        let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
        let mut batch = Batch::default();
        for source in sources {
            match source.and_then(|source| read(&source)) {
                Ok((file, image)) => {
                    let input = preprocess.run(&image).with_context(|| file.clone())?;
                    batch.push(file, input);
                }
                Err(error) => failures.push(error),
            }
            if batch.files.len() == usize::from(self.batch_size) {
                outcomes.extend(self.flush(&mut batch, &mut runner, classes)?);
            }
            bar.inc(1);
        }
        outcomes.extend(self.flush(&mut batch, &mut runner, classes)?);
        bar.finish_and_clear();
        Ok((outcomes, failures))
    }

    fn flush(
        &self,
        batch: &mut Batch,
        runner: &mut Runner,
        (names, multi_label): Classes<'_>,
    ) -> anyhow::Result<Vec<Outcome>> {
        let Batch { files, values } = std::mem::take(batch);
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let mut logits = runner.run(&values, files.len())?;
        let rows = files.into_iter().zip(logits.chunks_exact_mut(names.len()));
        Ok(rows
            .map(|(file, row)| {
                classes::probabilities(row, multi_label);
                Outcome::new(file, row, names, usize::from(self.topk))
            })
            .collect())
    }

    /// Prints the results, then the images that gave none.
    fn report(&self, outcomes: &[Outcome], failures: Vec<DataError>) -> anyhow::Result<ExitCode> {
        let style = match (self.json, self.csv) {
            (true, _) => Style::Json,
            (_, true) => Style::Csv,
            _ => Style::Text,
        };
        render::print(&mut stdout().lock(), style, outcomes, &failures)?;
        match failures.len() {
            0 => Ok(ExitCode::SUCCESS),
            1 if outcomes.is_empty() => {
                let error = failures.into_iter().next().context("there is one failure")?;
                Err(error.into())
            }
            failed => {
                for error in &failures {
                    writeln!(stderr(), "error: {error}")?;
                }
                Err(SomeFailed { failed, total: failed + outcomes.len() }.into())
            }
        }
    }
}

/// The classes' names, and whether an image may be of several.
type Classes<'a> = (&'a [String], bool);

/// Images that wait for each other.
#[derive(Default)]
struct Batch {
    files: Vec<String>,
    values: Vec<f32>,
}

impl Batch {
    fn push(&mut self, file: String, input: Vec<f32>) {
        self.files.push(file);
        self.values.extend(input);
    }
}

/// The picture of a source, and what it is called.
pub(super) fn read(source: &Source) -> Result<(String, RgbImage), DataError> {
    let decoder = Decoder::default();
    match source {
        Source::Stdin => Ok(("-".into(), decoder.decode_reader(stdin().lock(), "standard input")?)),
        Source::File(path) => Ok((path.display().to_string(), decoder.decode_file(path)?)),
    }
}

impl Preparation {
    /// Finds values that no image can be prepared with.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.crop_pct.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Err(Usage("--crop-pct must be in (0, 1]".into()).into());
        }
        if self.std.iter().flatten().any(|value| !(*value > 0.0 && value.is_finite())) {
            return Err(Usage("--std must be three numbers above 0".into()).into());
        }
        Ok(())
    }

    /// These settings, and the weights' where they say nothing.
    pub(super) fn over(&self, weights: &registry::Pretrained) -> Preprocess {
        let side = self.img_size.unwrap_or(weights.size as u32);
        let base = preprocess(weights, side);
        let triple = |given: &Option<Vec<f32>>, default: [f32; 3]| match given.as_deref() {
            Some(&[r, g, b]) => [r, g, b],
            _ => default,
        };
        Preprocess {
            crop_pct: self.crop_pct.unwrap_or(base.crop_pct),
            crop_mode: match self.crop_mode {
                Some(CropMode::Center) => cardinal_data::CropMode::Center,
                Some(CropMode::Squash) => cardinal_data::CropMode::Squash,
                Some(CropMode::Border) => cardinal_data::CropMode::Border,
                None => base.crop_mode,
            },
            interpolation: match self.interpolation {
                Some(Interpolation::Bilinear) => cardinal_data::Interpolation::Bilinear,
                Some(Interpolation::Bicubic) => cardinal_data::Interpolation::Bicubic,
                None => base.interpolation,
            },
            mean: triple(&self.mean, base.mean),
            std: triple(&self.std, base.std),
            ..base
        }
    }
}
