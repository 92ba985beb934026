//! The weights of split attention (`ResNeSt` equations 1 and 2) and of gates.

use super::View;
use super::activation::{hard_sigmoid, sigmoid};

/// How the splits of a map and their logits are laid out: splits are radix-major, logits cardinality-major.
#[derive(Clone, Copy)]
pub(super) struct Splits {
    pub(super) radix: usize,
    pub(super) cardinality: usize,
    /// Channels of one split.
    pub(super) c: usize,
}

impl Splits {
    /// Of a map with so many channels in all.
    pub(super) fn new([radix, cardinality]: [usize; 2], channels: usize) -> Self {
        Self { radix, cardinality, c: channels / radix }
    }

    /// The place of the logit of split `r` of channel `k`.
    pub(super) fn logit(self, image: usize, r: usize, k: usize) -> usize {
        let width = self.c / self.cardinality;
        let (group, k) = (k / width, k % width);
        image * self.radix * self.c + (group * self.radix + r) * width + k
    }

    /// The weights of the splits of a channel: a softmax over them, or the sigmoid if there is one split.
    pub(super) fn weights(self, logits: View<'_>, image: usize, k: usize) -> Vec<f64> {
        let logit = |r: usize| logits.data[self.logit(image, r, k)];
        if self.radix == 1 {
            return vec![sigmoid(logit(0))];
        }
        let max = (0..self.radix).map(logit).fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<_> = (0..self.radix).map(|r| (logit(r) - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.into_iter().map(|exp| exp / sum).collect()
    }
}

/// The weight of a channel.
pub(super) fn gate(hard: bool, logit: f64) -> f64 {
    if hard { hard_sigmoid(logit) } else { sigmoid(logit) }
}
