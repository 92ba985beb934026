use crate::exit::Usage;
use crate::network::{WeightsFile, build, read_weights};
use crate::progress;
use anyhow::Context;
use cardinal_data::Preprocess;
use cardinal_models::registry::{self, Variant};
use cardinal_models::weights::parameter_count;
use cardinal_train::device::DeviceKind;
use cardinal_train::evaluate::{Evaluation, Evaluator, Scores};
use cardinal_train::metrics::MultiLabelScores;
use cardinal_train::pipeline;
use cardinal_train::recipe::Recipe;
use serde::Serialize;
use std::io::{Write, stderr, stdout};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal eval --checkpoint output/train/RUN/model_best.safetensors
  cardinal eval --checkpoint resnest50.pth --data /data/imagenet --split val --json";

/// Says how well a network does on a split of labelled images: top-1 and top-5, or mAP and the six numbers beside it
/// where images have several labels.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The weights: a checkpoint of 'cardinal train', .safetensors, or PyTorch's .pth, .pth.tar, .pt or .bin
    #[arg(short, long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// The network, where the file does not tell
    #[arg(short, long, value_name = "NAME")]
    model: Option<String>,
    /// The data [default: what the checkpoint was trained on, else the embedded digits]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// The split [default: the one that training evaluated, else val]
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Class names, one on each line, in the order of the network's outputs
    #[arg(long, value_name = "FILE")]
    class_map: Option<String>,
    /// Take the averaged weights of a training checkpoint
    #[arg(long)]
    use_ema: bool,
    /// Side of the images that the network sees [default: the weights']
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=8192))]
    img_size: Option<u32>,
    /// The crop's share of the resized image's side [default: the weights']
    #[arg(long, value_name = "SHARE")]
    crop_pct: Option<f64>,
    /// Images that go through the network together
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Threads that prepare images
    #[arg(short = 'j', long, value_name = "N")]
    workers: Option<usize>,
    /// Where the network runs: cpu, vulkan or cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceKind,
    /// Threads of the network [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Stop at the first image that cannot be read, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Print one JSON object with timm's keys
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let file = read_weights(&self.checkpoint, self.use_ema)?;
        if self.use_ema && !file.info.is_ema {
            let text = format!("{} has no averaged weights; leave --use-ema out", self.checkpoint.display());
            return Err(Usage(text).into());
        }
        let variant = match &self.model {
            Some(name) => registry::find(name)?,
            None => file.variant().with_context(|| self.checkpoint.display().to_string())?.0,
        };
        // That the weights are the network's is found before the data is.
        let model = build(variant, &file.tensors, &self.checkpoint)?;
        let (classes, parameters) = (model.num_classes(), parameter_count(&model));
        drop(model);
        let recipe = self.recipe(&file)?;
        let preprocess = self.preprocess(&recipe, variant, &file)?;
        let dataset = pipeline::dataset(&recipe, &recipe.data.val_split)?;
        check_classes(&file, dataset.classes())?;
        let threads = self
            .threads
            .map_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get), usize::from);
        let total = dataset.len();
        let mut evaluator =
            Evaluator::new(&recipe, variant, dataset, &preprocess, classes, self.device, threads)?;
        let bar = progress::items(total, "images");
        let evaluation = evaluator.evaluate(&file.tensors, |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        for error in &evaluation.skipped {
            writeln!(stderr(), "left out: {error}")?;
        }
        let result = Report::new(variant, parameters, &preprocess, &evaluation);
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string_pretty(&result)?)?;
        } else {
            result.print(&mut stdout().lock(), &evaluation)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The recipe of a training checkpoint, or the default, with what the command line says about data.
    fn recipe(&self, file: &WeightsFile) -> anyhow::Result<Recipe> {
        let mut recipe = match file.info.metadata.get("recipe") {
            Some(text) => Recipe::parse(text, &format!("{}: recipe", self.checkpoint.display()))?,
            None => Recipe::default(),
        };
        if self.data.is_some() {
            // The splits' names belong to the data.
            recipe.data.data_dir.clone_from(&self.data);
            recipe.data.val_split = "val".into();
            recipe.data.class_map = None;
        }
        if let Some(split) = &self.split {
            recipe.data.val_split.clone_from(split);
        }
        if self.class_map.is_some() {
            recipe.data.class_map.clone_from(&self.class_map);
        }
        recipe.data.validation_batch_size = Some(usize::from(self.batch_size));
        recipe.data.workers = self.workers;
        recipe.data.strict = self.strict;
        Ok(recipe)
    }

    /// How the images are prepared: as the file says, else as the network's published weights want.
    fn preprocess(
        &self,
        recipe: &Recipe,
        variant: &Variant,
        file: &WeightsFile,
    ) -> anyhow::Result<Preprocess> {
        let own = file.preprocessing(variant.preprocessing());
        let mut recipe = recipe.clone();
        recipe.model.img_size = self.img_size.map_or(own.size, |side| side as usize);
        if self.crop_pct.is_some() {
            recipe.data.crop_pct = self.crop_pct;
        }
        let preprocess = pipeline::preprocess(&recipe, &own)?;
        preprocess.check().map_err(|error| Usage(error.to_string()))?;
        Ok(preprocess)
    }
}

/// Whether the data's classes are those that the network was trained for, in their order.
fn check_classes(file: &WeightsFile, classes: &[String]) -> anyhow::Result<()> {
    let Some(known) = &file.info.classes else { return Ok(()) };
    if known == classes {
        return Ok(());
    }
    let other = classes.iter().zip(known).find(|(a, b)| a != b);
    let where_ = match other {
        Some((a, b)) => format!("'{a}' stands where the network has '{b}'"),
        None => format!("there are {} instead of {}", classes.len(), known.len()),
    };
    let text = format!("the data's classes are not the network's: {where_}; give them with --class-map FILE");
    Err(cardinal_train::TrainError::DataFit(text).into())
}

/// The result in timm's terms; percent, millions and pixels.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    scores: Numbers,
    loss: f64,
    model: &'static str,
    images: usize,
    skipped: usize,
    param_count: f64,
    img_size: u32,
    crop_pct: f64,
    interpolation: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Single { top1: f64, top1_err: f64, top5: f64, top5_err: f64 },
    Multi(MultiLabelScores),
}

impl Report {
    fn new(
        variant: &'static Variant,
        parameters: usize,
        preprocess: &Preprocess,
        evaluation: &Evaluation,
    ) -> Self {
        let round = |value: f64, digits: f64| (value * digits).round() / digits;
        let scores = match &evaluation.scores {
            Scores::Single(scores) => {
                let (top1, top5) = (round(scores.top1(), 1e4), round(scores.top5(), 1e4));
                let error = |value: f64| round(100.0 - value, 1e4);
                Numbers::Single { top1, top1_err: error(top1), top5, top5_err: error(top5) }
            }
            Scores::Multi(scores) => Numbers::Multi(scores.clone()),
        };
        Self {
            scores,
            loss: evaluation.loss,
            model: variant.name,
            images: evaluation.images,
            skipped: evaluation.skipped.len(),
            param_count: round(parameters as f64 / 1e6, 100.0),
            img_size: preprocess.size.0,
            crop_pct: preprocess.crop_pct,
            interpolation: format!("{:?}", preprocess.interpolation).to_lowercase(),
        }
    }

    fn print(&self, out: &mut impl Write, evaluation: &Evaluation) -> std::io::Result<()> {
        match &self.scores {
            Numbers::Single { top1, top5, .. } => writeln!(out, "top-1 {top1:.2} %, top-5 {top5:.2} %")?,
            Numbers::Multi(s) => writeln!(
                out,
                "mAP {:.2}  CP {:.2}  CR {:.2}  CF1 {:.2}  OP {:.2}  OR {:.2}  OF1 {:.2}",
                s.map, s.cp, s.cr, s.cf1, s.op, s.or, s.of1
            )?,
        }
        writeln!(
            out,
            "{}, {} images of {} px, loss {:.4}, {:.1} s ({:.0} images/s)",
            self.model,
            self.images,
            self.img_size,
            self.loss,
            evaluation.time.as_secs_f64(),
            self.images as f64 / evaluation.time.as_secs_f64().max(1e-9)
        )?;
        if self.skipped > 0 {
            writeln!(out, "{} images could not be read", self.skipped)?;
        }
        Ok(())
    }
}
