//! `cardinal explain`: where in a picture the evidence for a class lies.

mod attention;
mod canvas;
mod choice;
mod files;
mod network;
mod overlay;
mod page;
mod sheet;

use super::predict::{Outcome, Preparation, read, read_names};
use crate::classes;
use crate::compute::{Compute, Path as Way};
use crate::exit::{SomeFailed, Usage};
use crate::network::{Choice, Loaded};
use crate::progress;
use anyhow::Context;
use attention::Unit;
use cardinal_data::{DataError, Preprocess, RgbImage, Source, expand_sources};
use files::{Files, Target};
use network::{Explainer, Map, Method};
use overlay::{Crop, Heat, overlay, shown};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal explain --model resnest50d assets/chelsea.jpg
  cardinal explain --model resnest50d --class lynx assets/chelsea.jpg --output lynx.png
  cardinal explain --checkpoint weights.pth photos/ --output photos.html
  cardinal explain --model tresnet_m --method gradcam --layer layer3 photos/ --output maps/
  cardinal explain --compiled net.safetensors photo.jpg --json

A folder gets a PNG for each picture and a page of all, index.html. The page needs no other file. With --json alone
nothing is written but the JSON.";

/// Shows where in a picture the evidence for a class lies (class-activation maps, Grad-CAM), beside the prediction; for
/// split attention also which weights it chose.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// Images, folders of images, patterns, or '-'
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<OsString>,
    /// How the map is made
    #[arg(long, value_enum, default_value_t = Method::Cam)]
    method: Method,
    /// The class to explain: its name, one of its synonyms, or its number [default: each picture's likeliest]
    #[arg(long, value_name = "NAME|INDEX")]
    class: Option<String>,
    /// The stage whose output --method gradcam explains, such as layer3 [default: last, the map that is pooled]
    #[arg(long, value_name = "STAGE")]
    layer: Option<String>,
    /// Where to write: a folder, FILE.png for one picture, or FILE.html for a page [default: the folder explained,
    /// unless --json is given]
    #[arg(short, long, value_name = "DIR|FILE")]
    output: Option<PathBuf>,
    /// How many classes to show for each image
    #[arg(short = 'k', long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    topk: u16,
    /// Class names: a text file with one on each line, in the order of the classes, or a JSON list
    #[arg(long, value_name = "FILE", visible_alias = "class-map")]
    class_file: Option<PathBuf>,
    /// Print one JSON list of objects, maps and attention included
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    preparation: Preparation,
}

/// A picture, what the network says of it, and why.
struct Explanation {
    /// Its classes, the likeliest first.
    outcome: Outcome,
    /// The class that is explained.
    class: usize,
    name: String,
    probability: f32,
    logit: f32,
    method: Method,
    layer: String,
    size: [u32; 2],
    crop: Crop,
    map: Map,
    attention: Vec<Unit>,
}

/// What is drawn of an explanation.
struct Picture {
    /// The picture at the size in which it is shown.
    shown: RgbImage,
    /// What the network saw of it.
    crop: Crop,
    /// The map over it, `[height, width, 3]`.
    overlay: Vec<u8>,
}

impl Picture {
    fn new(image: &RgbImage, explanation: &Explanation) -> anyhow::Result<Self> {
        let (shown, factor) = shown(image)?;
        let crop = explanation.crop.scaled(factor);
        let Map { rows, columns, values, .. } = &explanation.map;
        let overlay = overlay(&shown, &crop, &Heat { rows: *rows, columns: *columns, values });
        Ok(Self { shown, crop, overlay })
    }
}

impl Explanation {
    fn title(&self) -> String {
        let likeliest = self.outcome.predictions.first();
        let answer = likeliest.map_or_else(String::new, |prediction| {
            format!(": {} ({:.1} %)", prediction.name, prediction.probability * 100.0)
        });
        format!("{}{answer}", self.outcome.file)
    }

    fn subtitle(&self) -> String {
        let layer = if self.layer == choice::LAST { String::new() } else { format!(" at {}", self.layer) };
        let none = self.map.values.iter().all(|&value| value == 0.0);
        let nothing = if none { ": nothing speaks for it" } else { "" };
        format!("{}{layer} for '{}'{nothing}", self.method.title(), self.name)
    }

    fn as_json(&self) -> Value {
        json!({
            "file": self.outcome.file,
            "width": self.size[0],
            "height": self.size[1],
            "crop": self.crop,
            "method": self.method.name(),
            "layer": self.layer,
            "class": self.class,
            "name": self.name,
            "probability": self.probability,
            "logit": self.logit,
            "predictions": self.outcome.predictions,
            "map": { "rows": self.map.rows, "columns": self.map.columns, "values": self.map.raw },
            "attention": self.attention,
        })
    }
}

/// What holds for every picture.
#[derive(Clone, Copy)]
struct Settings<'a> {
    preprocess: &'a Preprocess,
    names: &'a [String],
    /// The class to explain, if it is not each picture's likeliest.
    class: Option<usize>,
    /// Whether a picture may be of several classes.
    multi_label: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        self.preparation.check()?;
        if self.compute.path == Way::Eager {
            let text = "explain runs the compiled network; leave --path out (Grad-CAM takes its gradients from Burn)";
            return Err(Usage(text.into()).into());
        }
        if self.method == Method::Cam && self.layer.is_some() {
            let text = "--layer is for --method gradcam: a class-activation map is always of the last map";
            return Err(Usage(text.into()).into());
        }
        let names = self.class_file.as_deref().map(read_names).transpose()?;
        let sources = expand_sources(&self.images);
        let target = Target::new(self.output.as_deref(), self.json, sources.len())?;
        if sources.iter().all(Result::is_err) {
            return self.finish(&[], sources.into_iter().filter_map(Result::err).collect());
        }
        let Loaded { network, preprocessing, classes, multi_label } = self.choice.load()?;
        let names = classes::names(names.or(classes), network.num_classes())?;
        let class = self.class.as_deref().map(|text| choice::class(text, &names)).transpose()?;
        let preprocess = self.preparation.over(&preprocessing);
        let (height, width) = preprocess.size;
        let (options, size) = (self.compute.options(1)?, [3, height as usize, width as usize]);
        let mut explainer = Explainer::new(network, size, self.method, self.layer.as_deref(), &options)?;
        let settings = Settings { preprocess: &preprocess, names: &names, class, multi_label };
        let mut files = Files::new(target, &preprocessing.model, self.method);
        let bar = progress::items(sources.len(), "images");
        let (mut explanations, mut failures) = (Vec::new(), Vec::new());
        for source in sources {
            match source.and_then(|source: Source| read(&source)) {
                Ok((file, image)) => {
                    let explanation = self.explain(&mut explainer, &settings, file.clone(), &image);
                    let explanation = explanation.with_context(|| file)?;
                    files.add(&explanation, &image)?;
                    explanations.push(explanation);
                }
                Err(error) => failures.push(error),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let written = files.finish()?;
        if !self.json {
            self.say(&explanations, &written)?;
        }
        self.finish(&explanations, failures)
    }

    fn explain(
        &self,
        explainer: &mut Explainer,
        settings: &Settings<'_>,
        file: String,
        image: &RgbImage,
    ) -> anyhow::Result<Explanation> {
        let Settings { preprocess, names, class, multi_label } = *settings;
        let input = preprocess.run(image)?;
        let (logits, attention) = explainer.look(&input)?;
        let mut probabilities = logits.clone();
        classes::probabilities(&mut probabilities, multi_label);
        let outcome = Outcome::new(file, &probabilities, names, usize::from(self.topk));
        let likeliest = outcome.predictions.first().map(|prediction| prediction.class);
        let class = class.or(likeliest).context("the network has no classes")?;
        let map = explainer.map(&input, class)?;
        let crop = Crop::of(preprocess, image.width(), image.height())?;
        Ok(Explanation {
            outcome,
            class,
            name: names[class].clone(),
            probability: probabilities[class],
            logit: logits[class],
            method: self.method,
            layer: explainer.layer.clone(),
            size: [image.width(), image.height()],
            crop,
            map,
            attention,
        })
    }

    fn say(&self, explanations: &[Explanation], written: &[PathBuf]) -> anyhow::Result<()> {
        let mut out = stdout().lock();
        for explanation in explanations {
            writeln!(out, "{}", explanation.outcome.file)?;
            for prediction in &explanation.outcome.predictions {
                let mark = if prediction.class == explanation.class { "*" } else { " " };
                writeln!(out, "{mark} {:6.2} %  {}", prediction.probability * 100.0, prediction.name)?;
            }
            if explanation.outcome.predictions.iter().all(|prediction| prediction.class != explanation.class)
            {
                writeln!(out, "* {:6.2} %  {}", explanation.probability * 100.0, explanation.name)?;
            }
        }
        for path in written {
            writeln!(out, "written: {}", path.display())?;
        }
        Ok(())
    }

    /// Prints the JSON, then the images that could not be read.
    fn finish(&self, explanations: &[Explanation], failures: Vec<DataError>) -> anyhow::Result<ExitCode> {
        if self.json {
            let failed = |error: &DataError| json!({ "file": error.path.display().to_string(), "error": error.kind.to_string() });
            let list: Vec<Value> =
                explanations.iter().map(Explanation::as_json).chain(failures.iter().map(failed)).collect();
            writeln!(stdout().lock(), "{}", serde_json::to_string_pretty(&list)?)?;
        }
        match failures.len() {
            0 => Ok(ExitCode::SUCCESS),
            1 if explanations.is_empty() => {
                let error = failures.into_iter().next().context("there is one failure")?;
                Err(error.into())
            }
            failed => {
                for error in &failures {
                    writeln!(stderr(), "error: {error}")?;
                }
                Err(SomeFailed { failed, total: failed + explanations.len() }.into())
            }
        }
    }
}
