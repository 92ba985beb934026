//! Recipes: all settings of a run, as TOML.
//!
//! ```
//! use cardinal_train::recipe::Recipe;
//!
//! let mut recipe = Recipe::load("resnest")?; // a name, or a file
//! recipe.set("lr", "0.05")?; // a plain key ...
//! recipe.set("augment.mixup", "0")?; // ... or one with its table
//! recipe.check()?;
//! assert_eq!(recipe.optimizer.lr, Some(0.05));
//! # Ok::<(), cardinal_train::recipe::RecipeError>(())
//! ```
//!
//! A file names only what differs from the defaults; an unknown key is an error. [`Recipe::to_toml`] writes all of
//! them, which is what a run keeps.

mod builtin;
mod check;
mod error;
mod keys;
mod tables;
mod values;

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use builtin::{BUILTIN, Builtin};
pub use error::RecipeError;
pub use keys::tables;
pub use tables::{
    AugmentTable, DataTable, EmaTable, LossTable, ModelTable, OptimizerTable, RegularizationTable, RunTable,
    ScheduleTable,
};
pub use values::{
    Augmentation, CropMode, EvalMetric, Loss, MapFormat, MixMode, MixPairing, Optimizer, PolicyPlace,
    RemoveMode, Scaling, Schedule, StepKind, TrainInterpolation,
};

/// All settings of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Which network.
    pub model: ModelTable,
    /// Which images.
    pub data: DataTable,
    /// What happens to them.
    pub augment: AugmentTable,
    /// What keeps the network from overfitting.
    pub regularization: RegularizationTable,
    /// What is minimised.
    pub loss: LossTable,
    /// How a step is taken.
    pub optimizer: OptimizerTable,
    /// How long, with which learning rate.
    pub schedule: ScheduleTable,
    /// The moving average.
    pub ema: EmaTable,
    /// Seeds, logs, checkpoints.
    pub run: RunTable,
}

impl Recipe {
    /// The recipe called `name`, or in the file of that path (anything with a `/`, a `\` or the ending `.toml`).
    ///
    /// # Errors
    /// If there is none, or it cannot be parsed. Its values are not checked yet, see [`Recipe::check`].
    pub fn load(name: &str) -> Result<Self, RecipeError> {
        if let Some(builtin) = BUILTIN.iter().find(|builtin| builtin.name == name) {
            return Self::parse(builtin.text, &format!("recipe '{name}'"));
        }
        if !name.ends_with(".toml") && !name.contains(['/', '\\']) && !Path::new(name).is_file() {
            return Err(unknown_recipe(name));
        }
        let text = std::fs::read_to_string(name)
            .map_err(|error| RecipeError::Io { path: name.to_owned(), error })?;
        Self::parse(&text, name)
    }

    /// Reads a recipe from TOML; `origin` stands for the file in errors.
    ///
    /// # Errors
    /// For text that is not TOML, unknown keys (with the nearest known one) and values of another type.
    pub fn parse(text: &str, origin: &str) -> Result<Self, RecipeError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            RecipeError::Syntax { origin: origin.into(), line, message: one_line(error.message()) }
        })?;
        let mut recipe = Self::default();
        for (name, keys) in table {
            let Value::Table(keys) = keys else {
                return Err(outside_a_table(&name, origin));
            };
            if !tables().iter().any(|(known, _)| *known == name) {
                let known = tables().iter().map(|(name, _)| format!("[{name}]")).collect::<Vec<_>>();
                return Err(RecipeError::UnknownTable {
                    origin: origin.into(),
                    nearest: keys::nearest_table(&name).map(str::to_owned),
                    table: name,
                    known: known.join(", "),
                });
            }
            for (key, value) in keys {
                recipe.assign(&format!("{name}.{key}"), Some(value), origin)?;
            }
        }
        Ok(recipe)
    }

    /// Overrides one key, given with its table (`optimizer.lr`) or without it (`lr`), by a value as TOML writes it; the
    /// quotes of a text may be left out. `none` takes a key that need not be there away.
    ///
    /// # Errors
    /// For an unknown key (with the nearest known one) and a value of another type; the recipe stays as it was.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), RecipeError> {
        const ORIGIN: &str = "--set";
        let text = || Value::String(value.to_owned());
        if value.trim() == "none" && self.assign(key, None, ORIGIN).is_ok() {
            return Ok(());
        }
        let parsed = format!("value = {value}").parse::<Table>().ok().filter(|table| table.len() == 1);
        match parsed.and_then(|mut table| table.remove("value")) {
            // A name may look like a number (a folder called 2012), so what fails as a number may do as a text.
            Some(number) if !number.is_str() => self
                .assign(key, Some(number), ORIGIN)
                .or_else(|error| self.assign(key, Some(text()), ORIGIN).map_err(|_| error)),
            Some(quoted) => self.assign(key, Some(quoted), ORIGIN),
            None => self.assign(key, Some(text()), ORIGIN),
        }
    }

    /// Overrides keys by `key=value` texts, in their order.
    ///
    /// # Errors
    /// As [`Recipe::set`], and for a text without `=`.
    pub fn set_all<'a>(&mut self, assignments: impl IntoIterator<Item = &'a str>) -> Result<(), RecipeError> {
        for assignment in assignments {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(RecipeError::Value {
                    origin: "--set".into(),
                    key: assignment.into(),
                    message: "needs a value: --set key=value".into(),
                });
            };
            self.set(key, value)?;
        }
        Ok(())
    }

    /// All settings as TOML, defaults included, which [`Recipe::parse`] reads back to the same recipe.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Tables of numbers, texts and lists: nothing that TOML could not hold.
        toml::to_string(self).unwrap_or_default()
    }

    /// Puts `value` under `key`, or takes it away.
    fn assign(&mut self, key: &str, value: Option<Value>, origin: &str) -> Result<(), RecipeError> {
        let (table, leaf) = keys::locate(key).ok_or_else(|| RecipeError::UnknownKey {
            origin: origin.into(),
            key: key.into(),
            nearest: keys::nearest(key),
        })?;
        let fail = |message: &str| RecipeError::Value {
            origin: origin.into(),
            key: format!("{table}.{leaf}"),
            message: one_line(message),
        };
        let mut all = Table::try_from(&*self).map_err(|error| fail(&error.to_string()))?;
        let Some(Value::Table(keys)) = all.get_mut(table) else { return Err(fail("is not in a table")) };
        match value {
            Some(value) => {
                keys.insert(leaf.into(), value);
            }
            None if is_optional(table, leaf) => {
                keys.remove(leaf);
            }
            None => return Err(fail("needs a value")),
        }
        *self = all.try_into().map_err(|error: toml::de::Error| fail(error.message()))?;
        Ok(())
    }
}

/// Whether a key may be absent: then the defaults leave it out.
fn is_optional(table: &str, key: &str) -> bool {
    Table::try_from(Recipe::default())
        .is_ok_and(|all| all.get(table).and_then(|table| table.get(key)).is_none())
}

fn outside_a_table(key: &str, origin: &str) -> RecipeError {
    match keys::locate(key) {
        Some((table, leaf)) => RecipeError::Value {
            origin: origin.into(),
            key: leaf.into(),
            message: format!("belongs into the table [{table}]"),
        },
        None => {
            RecipeError::UnknownKey { origin: origin.into(), key: key.into(), nearest: keys::nearest(key) }
        }
    }
}

fn unknown_recipe(name: &str) -> RecipeError {
    let likeness = |known: &str| strsim::jaro_winkler(known, &name.to_lowercase());
    let names: Vec<&str> = BUILTIN.iter().map(|builtin| builtin.name).collect();
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    RecipeError::Unknown {
        name: name.into(),
        nearest: nearest.filter(|known| likeness(known) > 0.75).map(|known| (*known).to_owned()),
        known: names.join(", "),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
