mod notes;
mod onnx;

use crate::classes;
use crate::commands::predict::read_names;
use crate::exit::Usage;
use crate::network::{Choice, Loaded, Network, compiled_metadata, package};
use anyhow::Context;
use cardinal_engine::graph::Batch;
use cardinal_models::weights::state_dict;
use cardinal_weights::write_safetensors;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal export --model resnest50d --output resnest50d.onnx --check
  cardinal export --checkpoint runs/best.safetensors --output net.onnx --batch 1 --img-size 320
  cardinal export --model tresnet_l --output net.onnx --dynamic-size --external-data
  cardinal export --model resnest50d --format engine --output net.safetensors --img-size 224 --img-size 320
  cardinal export --checkpoint weights.pth --output weights.safetensors

An ONNX file runs wherever ONNX does (docs/onnx.md); an engine's file with 'cardinal predict --compiled FILE'; safetensors
are weights for Cardinal and timm.";

/// Writes a network for other programs, or for this one: ONNX, the engine's compiled graph, or weights alone. The file
/// appears under its name when it is whole.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What to write [default: onnx for .onnx, safetensors for .safetensors]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Side of the square input in pixels [default: the weights']; repeatable for --format engine
    #[arg(long, value_name = "PIXELS", visible_alias = "size", value_parser = clap::value_parser!(u16).range(1..=8192))]
    img_size: Vec<u16>,
    /// Class names that go along: a text file with one on each line, or a JSON list [default: the weights']
    #[arg(long, value_name = "FILE", visible_alias = "class-map")]
    class_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    onnx: onnx::Flags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A standard graph with the weights, for ONNX Runtime, OpenVINO, tract, rten and others
    Onnx,
    /// What 'cardinal compile' writes: the optimized graph with its weights, for any processor
    Engine,
    /// The weights alone, under timm's names
    Safetensors,
}

/// What was written: lines for people, and an object.
struct Written {
    lines: Vec<String>,
    json: Value,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let format = self.format()?;
        if let (true, Some(flag)) = (format != Format::Onnx, self.onnx.given()) {
            return Err(Usage(format!("{flag} is for --format onnx")).into());
        }
        if format == Format::Safetensors && !self.img_size.is_empty() {
            return Err(Usage("weights alone have no size; leave --img-size out".into()).into());
        }
        if format == Format::Onnx && self.img_size.len() > 1 {
            return Err(Usage("an ONNX file has one size, or any with --dynamic-size".into()).into());
        }
        let given = self.class_file.as_deref().map(read_names).transpose()?;
        let mut loaded = self.choice.load()?;
        if let Some(given) = given {
            loaded.classes = Some(classes::names(Some(given), loaded.network.num_classes())?);
        }
        let source = self.choice.published(&loaded);
        let sizes = match self.img_size.as_slice() {
            [] => vec![loaded.preprocessing.size],
            sizes => sizes.iter().map(|&size| usize::from(size)).collect(),
        };
        let written = match format {
            Format::Onnx => onnx::write(loaded, source, sizes[0], &self.onnx, &self.output)?,
            Format::Engine => engine(&loaded, &sizes, &self.output)?,
            Format::Safetensors => weights(loaded, &self.output)?,
        };
        let mut out = stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&written.json)?)?;
        } else {
            written.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The format that was asked for, or that the file's name ends in.
    fn format(&self) -> anyhow::Result<Format> {
        let ending = self.output.extension().and_then(|ending| ending.to_str());
        match (self.format, ending) {
            (Some(format), _) => Ok(format),
            (None, Some("onnx")) => Ok(Format::Onnx),
            (None, Some("safetensors")) => Ok(Format::Safetensors),
            _ => {
                let text = format!("'{}' does not say what to write; add --format", self.output.display());
                Err(Usage(text).into())
            }
        }
    }
}

/// As `cardinal compile --output` does.
fn engine(loaded: &Loaded, sizes: &[usize], path: &Path) -> anyhow::Result<Written> {
    let in_chans = loaded.network.in_chans();
    let captured = sizes.iter().map(|&size| loaded.network.clone().optimized([in_chans, size, size]));
    let package = package(loaded, captured.collect::<Result<Vec<_>, _>>()?);
    let model = package.graphs[0].name.clone();
    package.save(path)?;
    let bytes = length(path)?;
    let sides: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    Ok(Written {
        lines: vec![format!(
            "{}: {model}, compiled for {}, {}",
            path.display(),
            sides.join(", "),
            mebibytes(bytes)
        )],
        json: json!({
            "model": model, "format": "engine", "output": path, "bytes": bytes, "img_size": sizes,
        }),
    })
}

/// As `cardinal convert` does.
fn weights(loaded: Loaded, path: &Path) -> anyhow::Result<Written> {
    let mut metadata = compiled_metadata(&loaded, None);
    let Network::Module(model) = loaded.network else {
        return Err(Usage(
            "a compiled file's weights are folded; export those of the file that it was made of".into(),
        )
        .into());
    };
    let name = model.variant().name;
    metadata.insert("architecture".into(), name.into());
    let tensors = state_dict(&model)?;
    write_safetensors(path, &tensors, &metadata)?;
    let bytes = length(path)?;
    Ok(Written {
        lines: vec![format!("{}: {name}, {} tensors, {}", path.display(), tensors.len(), mebibytes(bytes))],
        json: json!({
            "model": name, "format": "safetensors", "output": path, "bytes": bytes, "tensors": tensors.len(),
        }),
    })
}

fn length(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// `dynamic`, or how many images.
fn batch(text: &str) -> Result<Batch, String> {
    match (text, text.parse::<u16>()) {
        ("dynamic", _) => Ok(Batch::Free),
        (_, Ok(count @ 1..)) => Ok(Batch::Fixed(count.into())),
        _ => Err("a number of images, or 'dynamic'".into()),
    }
}
