//! How good a network is: top-k, confusion, and the multi-label set. All shares are in percent, as timm prints them.

mod confusion;
mod multi_label;
mod single_label;

pub use confusion::{ClassScore, Confusion};
pub use multi_label::{MultiLabel, MultiLabelScores, average_precision};
pub use single_label::{Mean, SingleLabel, rank};

/// `100 * part / whole`, and 0 where there is no whole.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// The harmonic mean of a precision and a recall.
fn f1(precision: f64, recall: f64) -> f64 {
    let sum = precision + recall;
    if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}
