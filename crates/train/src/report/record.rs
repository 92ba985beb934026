//! What a run measured: rows of named numbers, as JSON lines and as timm's summary.csv.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// Numbers with names, in the order in which they are shown.
pub type Values = Vec<(String, f64)>;

/// A batch that was trained on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepRow {
    /// Epochs done.
    pub epoch: usize,
    /// Batches done in this epoch, this one included.
    pub batch: usize,
    /// Updates done before it.
    pub step: u64,
    /// `loss`, `lr`, `images_per_second`, `data_time` (seconds waited for this batch), ...
    pub values: Values,
}

/// An epoch that is over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EpochRow {
    /// Its number, from 0, as timm counts.
    pub epoch: usize,
    /// Updates done.
    pub step: u64,
    /// Whether it is the best so far.
    pub best: bool,
    /// `train_loss`, `eval_loss`, `eval_top1`, `eval_top5`, `lr`, ...: timm's columns first.
    pub values: Values,
}

/// Looks a value up by its name.
pub(super) fn value(values: &Values, name: &str) -> Option<f64> {
    values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}

impl Serialize for StepRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "step")?;
        map.serialize_entry("epoch", &self.epoch)?;
        map.serialize_entry("batch", &self.batch)?;
        map.serialize_entry("step", &self.step)?;
        self.values.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl Serialize for EpochRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "epoch")?;
        map.serialize_entry("epoch", &self.epoch)?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("best", &self.best)?;
        self.values.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// One line, as it stands in the file.
pub(super) fn line(row: &impl Serialize) -> String {
    // Names and numbers: nothing that JSON could not hold (what is not finite becomes null).
    serde_json::to_string(row).unwrap_or_default() + "\n"
}

/// The rows of a file of lines; a last line that was cut off is left out.
pub(super) fn read(text: &str) -> (Vec<StepRow>, Vec<EpochRow>) {
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    for mut row in text.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok()) {
        let mut number = |name: &str| row.remove(name).and_then(|value| value.as_u64()).unwrap_or_default();
        let (epoch, batch, step) = (number("epoch") as usize, number("batch") as usize, number("step"));
        let kind = row.remove("kind");
        let best = row.remove("best").and_then(|value| value.as_bool()).unwrap_or_default();
        let values =
            row.into_iter().map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN))).collect();
        match kind.as_ref().and_then(Value::as_str) {
            Some("step") => steps.push(StepRow { epoch, batch, step, values }),
            Some("epoch") => epochs.push(EpochRow { epoch, step, best, values: in_order(values) }),
            _ => {}
        }
    }
    (steps, epochs)
}

/// timm's columns first, in its order.
fn in_order(mut values: Values) -> Values {
    const FIRST: [&str; 5] = ["train_loss", "train_top1", "eval_loss", "eval_top1", "eval_top5"];
    let place = |name: &str| FIRST.iter().position(|known| *known == name).unwrap_or(FIRST.len());
    values.sort_by_key(|(name, _)| place(name));
    values
}

/// timm's `summary.csv`: `epoch`, the rows' values by name, a row per epoch. A value that an epoch lacks stays empty.
pub(super) fn summary(rows: &[EpochRow]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.values) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let mut text =
        std::iter::once("epoch").chain(columns.iter().copied()).collect::<Vec<_>>().join(",") + "\n";
    for row in rows {
        text += &row.epoch.to_string();
        for column in &columns {
            text.push(',');
            text += &value(&row.values, column).map(|value| value.to_string()).unwrap_or_default();
        }
        text.push('\n');
    }
    text
}
