//! A training checkpoint: one safetensors file with all that a run needs to continue, bit for bit.
//!
//! Tensors: `state_dict.NAME` (parameters and running statistics), `state_dict_ema.NAME` (their moving average),
//! `optimizer.first.NAME` and `optimizer.second.NAME`. Text entries: `cardinal_training` ([`Progress`] as JSON),
//! `recipe` (TOML), and what describes the network to whoever only wants its weights (`arch`, `num_classes`,
//! `label_names`, `pretrained_cfg`). All randomness is a function of the recipe's seed and of the counters in
//! [`Progress`], so there is no other state of random numbers to keep.
//!
//! The file is written under a temporary name, synced and renamed: a crash or a full disk leaves the old one.

mod exact;
mod folder;

pub use folder::{BEST, Folder, LAST};

use crate::TrainError;
use crate::recipe::Recipe;
use crate::step::StepState;
use cardinal_weights::{NamedTensors, TRAINING_KEY, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A run at one point between two updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The network, its average, the optimizer.
    pub state: StepState,
    /// How far the run is.
    pub progress: Progress,
    /// The settings.
    pub recipe: Recipe,
    /// What the network is.
    pub about: About,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done.
    pub epoch: usize,
    /// Batches done in the epoch that has begun.
    pub batch: usize,
    /// Batches in an epoch: a check that the data is the same.
    pub batches_per_epoch: usize,
    /// Images in the training data: another.
    pub images: usize,
    /// Seconds of training.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// The best evaluation so far.
    pub best: Option<Score>,
    /// The checkpoints that are kept, the best first.
    pub kept: Vec<Score>,
    /// What was counted in the epoch that has begun.
    pub meter: Meter,
}

/// An evaluation's result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Epochs done when it was reached.
    pub epoch: usize,
    /// The metric.
    #[serde(with = "exact")]
    pub value: f64,
    /// Whether the moving average reached it.
    pub averaged: bool,
}

/// Sums over the batches of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    /// Images seen.
    pub images: usize,
    /// Loss, summed over the images.
    #[serde(with = "exact")]
    pub loss: f64,
    /// Images whose likeliest class is the target's.
    pub correct: usize,
    /// Images that could not be read.
    pub skipped: usize,
    /// Seconds spent.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// Seconds of them spent waiting for data.
    #[serde(with = "exact")]
    pub waited: f64,
}

/// What a checkpoint says of its network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// The network's name.
    pub model: String,
    /// The classes' names, by index.
    pub classes: Vec<String>,
    /// Whether an image has any number of labels, so that each class has a probability of its own.
    pub multi_label: bool,
    /// How images are prepared, as JSON in timm's terms.
    pub preprocessing: String,
}

impl Checkpoint {
    /// Writes the file.
    ///
    /// # Errors
    ///
    /// The disk refuses; the old file, if there is one, is as it was.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let StepState { model, ema, optimizer, updates } = &self.state;
        let mut tensors = NamedTensors::new();
        let sections =
            [("state_dict", Some(model)), ("state_dict_ema", ema.as_ref()), ("optimizer", Some(optimizer))];
        for (section, list) in sections {
            for (name, tensor) in list.into_iter().flat_map(NamedTensors::iter) {
                tensors.insert(format!("{section}.{name}"), tensor.clone());
            }
        }
        let saved = Saved { version: VERSION, updates: *updates, progress: self.progress.clone() };
        let json = |error: serde_json::Error| TrainError::State(error.to_string());
        let mut texts = BTreeMap::from([
            (TRAINING_KEY.to_owned(), serde_json::to_string(&saved).map_err(json)?),
            ("recipe".to_owned(), self.recipe.to_toml()),
            ("arch".to_owned(), self.about.model.clone()),
            ("epoch".to_owned(), self.progress.epoch.to_string()),
            ("num_classes".to_owned(), self.about.classes.len().to_string()),
            ("label_names".to_owned(), serde_json::to_string(&self.about.classes).map_err(json)?),
            ("pretrained_cfg".to_owned(), self.about.preprocessing.clone()),
        ]);
        if self.about.multi_label {
            texts.insert(PROBLEM_TYPE.to_owned(), MULTI_LABEL.to_owned());
        }
        write_safetensors(path, &tensors, &texts).map_err(|error| TrainError::Save(error.to_string()))
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is damaged, or is no training checkpoint.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let (tensors, texts) = read_safetensors(path)?;
        let fail = |reason: String| TrainError::Checkpoint { path: path.into(), reason };
        let text = |key: &str| texts.get(key).map(String::as_str).unwrap_or_default();
        let Some(saved) = texts.get(TRAINING_KEY) else {
            return Err(fail(
                "holds weights, but no run to continue; start from them with '--initial-checkpoint FILE'"
                    .into(),
            ));
        };
        let saved: Saved = serde_json::from_str(saved)
            .map_err(|error| fail(format!("its progress cannot be read: {error}")))?;
        if saved.version != VERSION {
            return Err(fail(format!("was written by another version (format {})", saved.version)));
        }
        let mut state = StepState { updates: saved.updates, ..StepState::default() };
        for (name, tensor) in tensors {
            let Some((section, name)) = name.split_once('.') else { continue };
            let section = match section {
                "state_dict" => &mut state.model,
                "state_dict_ema" => state.ema.get_or_insert_default(),
                _ => &mut state.optimizer,
            };
            section.insert(name, tensor);
        }
        let recipe = Recipe::parse(text("recipe"), &format!("{}: recipe", path.display()))?;
        let classes = serde_json::from_str(text("label_names"))
            .map_err(|error| fail(format!("its classes cannot be read: {error}")))?;
        let about = About {
            model: text("arch").into(),
            classes,
            multi_label: text(PROBLEM_TYPE) == MULTI_LABEL,
            preprocessing: text("pretrained_cfg").into(),
        };
        Ok(Self { state, progress: saved.progress, recipe, about })
    }
}

/// The key under which a file says what its classes mean to each other, in the terms of Hugging Face's configurations,
/// and what it says where an image has any number of labels.
const PROBLEM_TYPE: &str = "problem_type";
const MULTI_LABEL: &str = "multi_label_classification";

/// The form of the file that this code writes and reads.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    updates: u64,
    #[serde(flatten)]
    progress: Progress,
}
