mod inference;
mod train;

use crate::compute::Compute;
use crate::exit::Usage;
use cardinal_models::registry::{self, Variant, variants};
use glob::{MatchOptions, Pattern};
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal bench --model resnest50d
  cardinal bench --model 'tresnet*' --model resnet50 --batch 1 --batch 16 --threads 2
  cardinal bench --model tresnet_m --dtype bf16 --seconds 10 --json
  cardinal bench --model resnet50 --batch 8 --picture assets/chelsea.jpg
  cardinal bench --train --model tresnet_m --batch 16
  cardinal bench --train --model tresnet_m --max-batch --memory-limit 8GiB";

/// Measures how fast networks run or train: throughput (median and best) over repeated steps after a warm-up, with random
/// weights, which are as fast as any.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Networks: names of 'cardinal models' or wildcards; repeatable
    #[arg(short, long, value_name = "NAME", required = true)]
    model: Vec<String>,
    /// Images per step; repeatable
    #[arg(short, long, value_name = "N", default_values_t = [1], value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: Vec<u16>,
    /// Side of the square input in pixels [default: the network's]
    #[arg(short, long, value_name = "PIXELS", visible_alias = "img-size", value_parser = clap::value_parser!(u16).range(1..=8192))]
    size: Option<u16>,
    /// How long to measure each
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Make every image of a step of this picture: decoding, resizing and normalising count too, on all threads
    #[arg(long, value_name = "FILE", conflicts_with = "train")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    training: train::Flags,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON list of objects with timm's key names
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        check_seconds(self.seconds)?;
        let chosen = matching(&self.model)?;
        if self.training.train {
            self.train(&chosen)?;
        } else {
            self.infer(&chosen)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a time that nothing can be measured for.
pub(super) fn check_seconds(seconds: f64) -> anyhow::Result<()> {
    if seconds > 0.0 && seconds <= 86_400.0 {
        return Ok(());
    }
    Err(Usage("--seconds must be above 0 and at most a day".into()).into())
}

/// The networks that names and wildcards stand for.
pub(super) fn matching(names: &[String]) -> anyhow::Result<Vec<&'static Variant>> {
    let mut chosen: Vec<&'static Variant> = Vec::new();
    for name in names {
        let found: Vec<_> = if name.contains(['*', '?', '[']) {
            let pattern = Pattern::new(name)
                .map_err(|error| Usage(format!("'{name}' is not a valid wildcard: {error}")))?;
            variants().filter(|v| pattern.matches_with(v.name, MatchOptions::new())).collect()
        } else {
            vec![registry::find(name)?]
        };
        if found.is_empty() {
            let text = format!("no model matches '{name}'; 'cardinal models' lists all");
            return Err(Usage(text).into());
        }
        for variant in found {
            if !chosen.iter().any(|other| other.name == variant.name) {
                chosen.push(variant);
            }
        }
    }
    Ok(chosen)
}
