use super::train::{Overrides, Place, start};
use crate::exit::Usage;
use cardinal_train::recipe::Recipe;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal finetune --data flowers/ --model resnest50d --epochs 20
  cardinal finetune --data flowers/ --model tresnet_m --freeze 5 --lr 1e-3     only the classifier learns
  cardinal finetune --data flowers/ --model tresnet_m --initial-checkpoint mine.safetensors

It is 'cardinal train --recipe transfer --pretrained' in short: published weights, a new classifier for the data's
classes, and, with --freeze, stages that stay as they are.";

/// Trains published weights on other data, with a new classifier.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Args {
    /// How many parts of the network stay as they are, from the input on: 1 is the stem, 2 the first stage too, 5 all but
    /// the classifier
    #[arg(long, value_name = "PARTS", value_parser = clap::value_parser!(u8).range(0..=5))]
    freeze: Option<u8>,
    /// All other settings
    #[arg(long, value_name = "NAME|FILE", default_value = "transfer")]
    recipe: String,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if !self.overrides.has_data() {
            return Err(Usage("name the images to learn from: --data FOLDER".into()).into());
        }
        let mut recipe = Recipe::load(&self.recipe)?;
        recipe.model.pretrained = recipe.model.initial_checkpoint.is_none();
        if let Some(parts) = self.freeze {
            recipe.model.freeze = usize::from(parts);
        }
        self.overrides.apply(&mut recipe)?;
        start(recipe, self.overrides.wants_auto_batch(), &self.place, None)
    }
}
