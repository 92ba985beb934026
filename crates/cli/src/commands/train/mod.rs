//! Training: `train` and its short form `finetune`.

mod batch;
mod display;
mod flags;
mod job;

pub(super) use flags::Overrides;
pub(super) use job::{Place, start};

use crate::exit::Usage;
use cardinal_train::checkpoint::Folder;
use cardinal_train::recipe::Recipe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal train                                              a small network of each family on the embedded digits
  cardinal train --data photos/ --recipe resnest --model resnest26d --epochs 90
  cardinal train --data photos/ --recipe transfer --set mixup=0.2 --set aa=rand-m9-mstd0.5
  cardinal train --data photos/ --model tresnet_m --batch auto --memory-limit 8GiB
  cardinal train --resume output/train/20260101-120000-resnest26d-224 --epochs 120

Ctrl-C stops after the step and writes 'last.safetensors', from which --resume continues; the exit code is then 130.
'docs/train.md' explains recipes, checkpoints and what a run leaves behind.";

/// Trains a network on labelled images, as a recipe says, and keeps checkpoints, metrics and a report in a folder.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Args {
    /// All settings: resnest, resnest-standard, tresnet, tresnet-finetune-448, transfer, fine-grained, multi-label,
    /// digits, or a .toml file [default: digits without --data, else the paper's of the network's family]
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// Continue the run in this folder (or from this checkpoint), in place and bit for bit; --epochs may be raised
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "experiment"])]
    resume: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    place: Place,
}

/// The small networks of the first run, one of each family.
const DIGITS: [&str; 2] = ["resnest14_digits", "tresnet_digits"];

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(path) = &self.resume {
            return self.resume(path);
        }
        let model = self.overrides.model();
        let name = match (&self.recipe, self.overrides.has_data()) {
            (Some(name), _) => name.as_str(),
            (None, false) => "digits",
            (None, true) if model.is_some_and(|model| model.starts_with("tresnet")) => "tresnet",
            (None, true) => "resnest",
        };
        let mut recipe = Recipe::load(name)?;
        self.overrides.apply(&mut recipe)?;
        let auto = self.overrides.wants_auto_batch();
        if self.recipe.is_some() || self.overrides.has_data() || model.is_some() {
            return start(recipe, auto, &self.place, None);
        }
        for model in DIGITS {
            recipe.model.model = model.into();
            let code = start(recipe.clone(), auto, &self.place, Some(model))?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn resume(&self, path: &Path) -> anyhow::Result<ExitCode> {
        let (folder, mut checkpoint) = Folder::resume(path)?;
        self.overrides.check_resume()?;
        self.overrides.apply(&mut checkpoint.recipe)?;
        let (done, epochs) = (checkpoint.progress.epoch, checkpoint.recipe.run_epochs());
        if epochs < done {
            return Err(
                Usage(format!("the run has done {done} epochs already, --epochs {epochs} is less")).into()
            );
        }
        job::resume(folder, checkpoint, &self.place)
    }
}
