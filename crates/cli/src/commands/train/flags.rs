//! Flags that override keys of a recipe, with timm's names.

use crate::exit::Usage;
use cardinal_train::recipe::{Recipe, RecipeError};

macro_rules! overrides {
    ($($(#[$attribute:meta])* $field:ident = $key:literal, $value:literal;)*) => {
        /// Flags that each override one key of the recipe.
        #[derive(clap::Args)]
        struct Keys {
            $(
                $(#[$attribute])*
                #[arg(long, value_name = $value, help_heading = "Settings of the recipe")]
                $field: Option<String>,
            )*
        }

        impl Keys {
            /// The keys that were given, with their values.
            fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
                [$(($key, self.$field.as_deref())),*].into_iter().filter_map(|(key, value)| Some((key, value?)))
            }
        }
    };
}

overrides! {
    /// The data: a folder, a file or shards ('cardinal data check' says what it is) [default: the embedded digits]
    data = "data_dir", "FOLDER";
    /// The network
    model = "model", "NAME";
    /// Passes over the data
    epochs = "epochs", "N";
    /// Images in a step; 'auto' takes as many as fit into --memory-limit
    #[arg(short, visible_alias = "batch")]
    batch_size = "batch_size", "N|auto";
    /// Peak learning rate, whatever the batch [default: the recipe's lr_base, scaled by batch / 256]
    lr = "lr", "X";
    /// Seed of the weights, the order and the augmentation
    seed = "seed", "N";
    /// Threads that prepare images
    #[arg(short = 'j')]
    workers = "workers", "N";
    /// Side of the images that the network sees, in pixels
    img_size = "img_size", "PIXELS";
    /// The optimizer: sgd, sgdw, adam or adamw
    opt = "opt", "NAME";
    /// Momentum of SGD
    momentum = "momentum", "X";
    /// Weight decay
    weight_decay = "weight_decay", "X";
    /// The learning rate's schedule: cosine, onecycle, poly, step or constant
    sched = "sched", "NAME";
    /// The learning rate at the schedule's end
    min_lr = "min_lr", "X";
    /// Epochs of warm-up
    warmup_epochs = "warmup_epochs", "N";
    /// The loss: cross-entropy, bce or asymmetric
    loss = "loss", "NAME";
    /// Label smoothing
    smoothing = "smoothing", "X";
    /// Mixup's alpha; 0 for none
    mixup = "mixup", "X";
    /// CutMix's alpha; 0 for none
    cutmix = "cutmix", "X";
    /// AutoAugment or RandAugment: none, original, v0, cifar, rand-m9-mstd0.5, ...
    aa = "aa", "NAME";
    /// Brightness, contrast and saturation jitter
    color_jitter = "color_jitter", "X";
    /// Chance that random erasing blanks a rectangle
    reprob = "reprob", "X";
    /// Dropout before the classifier
    drop = "drop", "X";
    /// Stochastic depth's rate at the last block
    drop_path = "drop_path", "X";
    /// DropBlock's rate at the end of the run
    drop_block = "drop_block", "X";
    /// Batches whose gradients are averaged for one update
    grad_accum_steps = "grad_accum_steps", "N";
    /// The largest norm of the gradients
    clip_grad = "clip_grad", "X";
    /// Start from the weights in this file; the classifier may be another
    initial_checkpoint = "initial_checkpoint", "FILE";
    /// What the best checkpoint is best by: top1, loss, map, ...
    eval_metric = "eval_metric", "NAME";
    /// The split to train on
    train_split = "train_split", "NAME";
    /// The split to evaluate on
    val_split = "val_split", "NAME";
    /// What computes a step on the processor: compiled (the engine) or eager (Burn)
    step = "step", "NAME";
    /// The format of a compiled step's maps: f32 or bf16 [default: bf16 where the processor multiplies it]
    dtype = "dtype", "NAME";
    /// Class names, one on each line, in the order of the classes
    class_map = "class_map", "FILE";
}

/// Everything on the command line that changes the recipe.
#[derive(clap::Args)]
pub(crate) struct Overrides {
    #[command(flatten)]
    keys: Keys,
    /// Start from the network's published weights
    #[arg(long, help_heading = "Settings of the recipe")]
    pretrained: bool,
    /// Keep a moving average of the weights
    #[arg(long, help_heading = "Settings of the recipe")]
    model_ema: bool,
    /// Stop at the first image that cannot be read, instead of leaving it out
    #[arg(long, help_heading = "Settings of the recipe")]
    strict: bool,
    /// Any other key of the recipe, as 'key=value' or 'table.key=value'; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Settings of the recipe")]
    set: Vec<String>,
}

/// A batch size that is found.
const AUTO: &str = "auto";

/// What may change when a run continues: nothing that would change what its steps compute, rounding aside, but for how
/// long it goes on.
const WHEN_RESUMING: [&str; 5] = ["data_dir", "epochs", "workers", "step", "dtype"];

impl Overrides {
    /// The network, if it was named.
    pub(crate) fn model(&self) -> Option<&str> {
        self.keys.model.as_deref()
    }

    /// Whether there is data beside the embedded.
    pub(crate) fn has_data(&self) -> bool {
        self.keys.data.is_some()
    }

    /// Whether weights to start from were named.
    pub(crate) fn has_initial(&self) -> bool {
        self.keys.initial_checkpoint.is_some()
    }

    /// Whether the batch is to be as large as memory allows.
    pub(crate) fn wants_auto_batch(&self) -> bool {
        self.keys.batch_size.as_deref() == Some(AUTO)
    }

    /// Puts everything into the recipe, and checks that it holds together.
    pub(crate) fn apply(&self, recipe: &mut Recipe) -> Result<(), RecipeError> {
        for (key, value) in self.keys.given() {
            if !(key == "batch_size" && value == AUTO) {
                recipe.set(key, value)?;
            }
        }
        // What a flag says goes before what the recipe says to the side of it.
        if self.keys.epochs.is_some() {
            recipe.schedule.stop_epoch = 0;
        }
        if self.keys.opt.as_deref().is_some_and(|opt| !opt.starts_with("sgd")) {
            recipe.optimizer.nesterov = false;
        }
        if self.has_initial() {
            recipe.model.pretrained = false;
        }
        recipe.model.pretrained |= self.pretrained;
        recipe.ema.model_ema |= self.model_ema;
        recipe.data.strict |= self.strict;
        recipe.set_all(self.set.iter().map(String::as_str))?;
        recipe.check()
    }

    /// Refuses what a run that continues cannot change.
    pub(crate) fn check_resume(&self) -> Result<(), Usage> {
        let mut keys = self.keys.given().map(|(key, _)| key).filter(|key| !WHEN_RESUMING.contains(key));
        let other = keys.next().or((!self.set.is_empty()).then_some("set"));
        let other =
            other.or(self.pretrained.then_some("pretrained")).or(self.model_ema.then_some("model-ema"));
        match other {
            Some(key) => Err(Usage(format!(
                "--{} would change a run that is to continue as it was; with --resume only --epochs, --data, --workers, \
                 --strict, --step, --dtype, --threads and --device may be given",
                key.replace('_', "-")
            ))),
            None => Ok(()),
        }
    }
}
