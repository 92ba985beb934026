//! `cardinal explain`: where in a picture the evidence for a class lies.

mod attention;
mod canvas;
mod choice;
mod network;
mod overlay;
mod page;
mod sheet;

use super::predict::{Outcome, Preparation, read, read_names};
use crate::classes;
use crate::compute::{Compute, Path as Way};
use crate::exit::{SomeFailed, Usage};
use crate::network::{Choice, Loaded};
use crate::output::write_file;
use crate::progress;
use anyhow::Context;
use attention::Unit;
use cardinal_data::{DataError, Preprocess, RgbImage, Source, expand_sources};
use network::{Explainer, Map, Method};
use overlay::{Crop, Heat, overlay, shown};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
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
    /// The picture at the size in which it is shown, and how many of its pixels one of the original's is.
    shown: RgbImage,
    factor: f64,
    /// The map over it, `[height, width, 3]`.
    overlay: Vec<u8>,
}

impl Explanation {
    /// The crop in the shown picture.
    fn shown_crop(&self) -> Crop {
        self.crop.scaled(self.factor)
    }

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

/// What to write.
enum Target {
    Nothing,
    Folder(PathBuf),
    Png(PathBuf),
    Page(PathBuf),
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
        let target = self.target(sources.len())?;
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
        let bar = progress::items(sources.len(), "images");
        let (mut explanations, mut failures) = (Vec::new(), Vec::new());
        for source in sources {
            match source.and_then(|source: Source| read(&source)) {
                Ok((file, image)) => {
                    let explanation = self.explain(&mut explainer, &settings, file.clone(), &image);
                    let explanation = explanation.with_context(|| file)?;
                    explanations.push(explanation);
                }
                Err(error) => failures.push(error),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let written = self.write(&target, &preprocessing.model, &explanations)?;
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
        let (shown, factor) = shown(image)?;
        let heat = Heat { rows: map.rows, columns: map.columns, values: &map.values };
        let overlay = overlay(&shown, &crop.scaled(factor), &heat);
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
            shown,
            factor,
            overlay,
        })
    }

    /// What `--output` asks for, by its extension.
    fn target(&self, pictures: usize) -> anyhow::Result<Target> {
        let Some(path) = &self.output else {
            let folder = Target::Folder("explained".into());
            return Ok(if self.json { Target::Nothing } else { folder });
        };
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        match extension.as_deref() {
            Some("png") if pictures == 1 => Ok(Target::Png(path.clone())),
            Some("png") => {
                let text = format!(
                    "{} can hold one picture, not {pictures}: give a folder or a .html file",
                    path.display()
                );
                Err(Usage(text).into())
            }
            Some("html" | "htm") => Ok(Target::Page(path.clone())),
            Some(other @ ("jpg" | "jpeg" | "webp" | "gif" | "svg" | "pdf" | "json")) => {
                let text = format!("--output writes .png, .html or a folder, not .{other}");
                Err(Usage(text).into())
            }
            _ if path.is_file() => {
                Err(Usage(format!("{} is a file; --output needs a folder, .png or .html", path.display()))
                    .into())
            }
            _ => Ok(Target::Folder(path.clone())),
        }
    }

    /// Writes what was asked for; the files.
    fn write(
        &self,
        target: &Target,
        model: &str,
        explanations: &[Explanation],
    ) -> anyhow::Result<Vec<PathBuf>> {
        if explanations.is_empty() {
            return Ok(Vec::new());
        }
        let page = |path: &Path| {
            let title = format!("{model} explained");
            let what = match self.method {
                Method::Cam => {
                    "Class-activation maps: what each place of the last feature map adds to the class's logit."
                }
                Method::Gradcam => {
                    "Grad-CAM: the feature map, its channels weighted by the mean gradient of the class's logit."
                }
            };
            let how = "Negative evidence is not shown; each map is scaled to its own largest value.";
            let html = page::draw(&title, &[what.into(), how.into()], explanations)?;
            write_file(path, html.as_bytes())
        };
        match target {
            Target::Nothing => Ok(Vec::new()),
            Target::Png(path) => {
                write_file(path, &sheet::draw(&explanations[0])?)?;
                Ok(vec![path.clone()])
            }
            Target::Page(path) => {
                page(path)?;
                Ok(vec![path.clone()])
            }
            Target::Folder(folder) => {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                let mut written = Vec::new();
                let mut taken = HashSet::new();
                for explanation in explanations {
                    let path = folder.join(file_name(&explanation.outcome.file, &mut taken));
                    write_file(&path, &sheet::draw(explanation)?)?;
                    written.push(path);
                }
                let index = folder.join("index.html");
                page(&index)?;
                written.push(index);
                Ok(written)
            }
        }
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

/// A name for the explanation of `file` that is not taken: `photo.png`, `photo-2.png`.
fn file_name(file: &str, taken: &mut HashSet<String>) -> String {
    let stem = Path::new(file).file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
    let stem = if stem == "-" { "stdin".into() } else { stem };
    let mut name = format!("{stem}.png");
    let mut number = 1;
    while !taken.insert(name.to_lowercase()) {
        number += 1;
        name = format!("{stem}-{number}.png");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_one_name_get_files_of_their_own() {
        let mut taken = HashSet::new();
        let names = ["a/cat.jpg", "b/cat.png", "c/CAT.jpg", "-"].map(|file| file_name(file, &mut taken));
        assert_eq!(names, ["cat.png", "cat-2.png", "CAT-3.png", "stdin.png"]);
    }
}
