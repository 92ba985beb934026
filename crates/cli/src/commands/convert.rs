use crate::exit::Usage;
use crate::network::{build, read_weights};
use crate::package::{CLASSES, PREPROCESSING, PROBLEM_TYPE};
use anyhow::Context;
use cardinal_models::registry;
use cardinal_models::weights::state_dict;
use cardinal_weights::{
    names::{Naming, from_timm},
    write_safetensors,
};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing::warn;

const EXAMPLES: &str = "\
Examples:
  cardinal convert tresnet_m.pth tresnet_m.safetensors
  cardinal convert weights.safetensors backbone.safetensors --names detectron2-resnest";

/// Reads any file of weights that Cardinal knows, checks that it is complete for its network, and writes safetensors
/// in 32-bit floats. The file appears under its name when it is whole.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file to read: .safetensors, .pth, .pth.tar, .pt or .bin
    input: PathBuf,
    /// The file to write: .safetensors
    output: PathBuf,
    /// Whose parameter names to write
    #[arg(long, value_enum, default_value = "timm")]
    names: Names,
    /// Take the averaged weights of a training checkpoint
    #[arg(long)]
    use_ema: bool,
    /// The network, where the file fits several [default: what the file shows]
    #[arg(short, long, value_name = "NAME")]
    model: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Names {
    /// timm's, which are also those of the official ResNeSt
    Timm,
    /// Those of the official TResNet code
    OfficialTresnet,
    /// Those of the detectron2 ResNeSt backbones
    Detectron2Resnest,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.output.extension().is_none_or(|extension| extension != "safetensors") {
            let text = format!("'{}': only .safetensors files can be written", self.output.display());
            return Err(Usage(text).into());
        }
        let file = read_weights(&self.input, self.use_ema)?;
        if self.use_ema && !file.info.is_ema {
            let text = format!("'{}' has no averaged weights; leave --use-ema out", self.input.display());
            return Err(Usage(text).into());
        }
        let variant = match &self.model {
            Some(name) => registry::find(name)?,
            None => file.variant().with_context(|| self.input.display().to_string())?.0,
        };
        if !file.dropped.is_empty() {
            warn!(
                "{} tensors have no counterpart and are left out: {}",
                file.dropped.len(),
                file.dropped.join(", ")
            );
        }
        // Loading is the check that nothing is missing; what is written is what was loaded.
        let mut tensors = state_dict(&build(variant, &file.tensors, &self.input)?)?;
        let mut metadata = BTreeMap::from([("architecture".to_owned(), variant.name.to_owned())]);
        // What a training checkpoint says of its images and classes goes along.
        for key in [PREPROCESSING, CLASSES, PROBLEM_TYPE] {
            metadata.extend(file.info.metadata.get(key).map(|text| (key.to_owned(), text.clone())));
        }
        if let Some(naming) = self.names.naming() {
            tensors = from_timm(tensors, naming)?.tensors;
        }
        write_safetensors(&self.output, &tensors, &metadata)?;
        writeln!(stdout(), "{}: {}, {} tensors", self.output.display(), variant.name, tensors.len())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Names {
    /// `None` for timm's, which the tensors have already.
    fn naming(self) -> Option<Naming> {
        match self {
            Self::Timm => None,
            Self::OfficialTresnet => Some(Naming::OfficialTResNet),
            Self::Detectron2Resnest => Some(Naming::Detectron2ResNeSt),
        }
    }
}
