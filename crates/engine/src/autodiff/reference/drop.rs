//! Dropout, stochastic depth and `DropBlock`: the masks of `cardinal_kernels::RandomDrop`.

use super::{StepSeed, View, indices, map, place};
use crate::graph::Drop;
use cardinal_kernels::DropKey;

/// `x` with parts dropped and the rest scaled: its own gradient.
pub(super) fn drop(what: Drop, rate: f64, layer: usize, seed: StepSeed, x: View<'_>) -> Vec<f64> {
    let key = DropKey::new(seed.seed, seed.step, layer as u64);
    let [_, channels, pixels] = x.planes();
    // Kernels count channels last.
    let number = |i: usize| {
        let [image, k, pixel] = [i / pixels / channels, i / pixels % channels, i % pixels];
        (image * pixels + pixel) * channels + k
    };
    let scale = |dropped: bool| if dropped { 0.0 } else { 1.0 / (1.0 - rate) };
    let numbers = x.data.iter().enumerate();
    match what {
        Drop::Elements => numbers.map(|(i, x)| x * scale(key.below(number(i) as u64, rate))).collect(),
        Drop::Images => {
            let image = |i: usize| i / pixels / channels;
            numbers.map(|(i, x)| x * scale(key.below(image(i) as u64, rate))).collect()
        }
        Drop::Squares { side } => {
            let mask = squares(side, seed.drop_block, key, map(x.shape));
            numbers.map(|(i, x)| x * mask[i % mask.len()]).collect()
        }
    }
}

/// The factors of one image, `[c, h, w]`, which are those of all. A square of side `b` around row `y` has the rows from
/// `y - (b - 1) / 2` to `y + b / 2` that the map has.
fn squares(side: usize, rate: f64, key: DropKey, [_, c, h, w]: [usize; 4]) -> Vec<f64> {
    let side = side.min(h).min(w);
    let places = (h - side + 1) * (w - side + 1);
    let probability = rate * (h * w) as f64 / (side * side * places) as f64;
    let span = |at: usize, size: usize| at.saturating_sub((side - 1) / 2)..size.min(at + side / 2 + 1);
    let mut mask = vec![1.0; c * h * w];
    for [_, k, y, x] in indices([1, c, h, w]) {
        if key.below(((y * w + x) * c + k) as u64, probability) {
            for (y, x) in span(y, h).flat_map(|y| span(x, w).map(move |x| (y, x))) {
                mask[place([1, c, h, w], [0, k, y, x])] = 0.0;
            }
        }
    }
    let kept = mask.iter().sum::<f64>() / mask.len() as f64;
    mask.iter().map(|mask| mask / kept.max(1e-7)).collect()
}
