//! What a network's attention chose for an image, unit by unit.

use cardinal_engine::explain::Attention;
use serde::Serialize;

/// Parts of [0, 1] in a histogram.
pub(super) const BINS: usize = 10;

/// The weights that one split-attention unit gave its splits.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Unit {
    /// `layer1` of `layer1.0.conv2`.
    pub(super) stage: String,
    /// The module.
    pub(super) module: String,
    pub(super) radix: usize,
    pub(super) cardinality: usize,
    pub(super) channels: usize,
    /// For each split, the mean of its weights over the channels. They add up to 1, unless there is one split.
    pub(super) mean: Vec<f32>,
    /// For each split, how many channels have a weight in each tenth of [0, 1].
    pub(super) histogram: Vec<[usize; BINS]>,
}

impl Unit {
    /// Sums up `weights`, `[radix, channels]`.
    pub(super) fn new(unit: &Attention, weights: &[f32]) -> Self {
        let splits = || weights.chunks_exact(unit.channels);
        let bin = |weight: &f32| ((weight * BINS as f32) as usize).min(BINS - 1);
        let count = |split: &[f32]| {
            let mut counts = [0; BINS];
            split.iter().for_each(|weight| counts[bin(weight)] += 1);
            counts
        };
        Self {
            stage: unit.place.split('.').next().unwrap_or_default().into(),
            module: unit.place.clone(),
            radix: unit.radix,
            cardinality: unit.cardinality,
            channels: unit.channels,
            mean: splits().map(|split| split.iter().sum::<f32>() / unit.channels as f32).collect(),
            histogram: splits().map(count).collect(),
        }
    }
}

/// A column of the chart: one split of one unit.
pub(super) struct Column<'a> {
    pub(super) unit: &'a Unit,
    pub(super) split: usize,
    /// Shares of the channels in each tenth, from 0 up.
    pub(super) shares: [f32; BINS],
    /// Whether a stage begins here.
    pub(super) starts_stage: bool,
}

/// The chart's columns: of two splits the second one says nothing that the first does not.
pub(super) fn columns(units: &[Unit]) -> Vec<Column<'_>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for unit in units {
        let shown = if unit.radix == 2 { 1 } else { unit.radix };
        for split in 0..shown {
            let starts_stage = columns.last().is_none_or(|last| last.unit.stage != unit.stage);
            let shares = unit.histogram[split].map(|count| count as f32 / unit.channels as f32);
            columns.push(Column { unit, split, shares, starts_stage });
        }
    }
    columns
}

/// What the chart shows, in a line.
pub(super) fn caption(units: &[Unit]) -> String {
    match units.first().map(|unit| unit.radix) {
        Some(1) => "Attention of each block: how many channels get which weight, 0 to 1".into(),
        Some(2) => "Attention of each block: how many channels give split 1 of 2 which weight, 0 to 1".into(),
        Some(radix) => {
            format!(
                "Attention of each block and split (1 to {radix}): how many channels give it which weight, 0 to 1"
            )
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_counted_by_split() {
        let unit =
            Attention { place: "layer1.0.conv2".into(), radix: 2, cardinality: 1, channels: 3, output: 1 };
        let found = Unit::new(&unit, &[0.0, 0.55, 1.0, 1.0, 0.45, 0.0]);
        assert_eq!(found.stage, "layer1");
        assert!(
            (found.mean[0] - 0.516_666_7).abs() < 1e-6 && (found.mean[0] + found.mean[1] - 1.0).abs() < 1e-6
        );
        assert_eq!(found.histogram[0], [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(columns(std::slice::from_ref(&found)).len(), 1);
    }
}
