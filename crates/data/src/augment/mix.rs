//! Mixup and CutMix, on a batch and its soft targets.

use serde::{Deserialize, Serialize};

use crate::Random;

/// With which image of the batch an image is mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// The batch reversed, as in timm and in ResNeSt's paper (section 5.1) and Gluon code.
    #[default]
    Reversed,
    /// A random permutation, as in the paper of mixup and ResNeSt's torch code.
    Permuted,
}

/// How many shares a batch has; timm's `--mixup-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixMode {
    /// One for the batch, as in timm and all published code of ResNeSt.
    #[default]
    Batch,
    /// One for each image, as ResNeSt's paper says (section 5.1: "independently sampled").
    Elem,
}

/// Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of a batch, with the settings of timm's `Mixup`.
///
/// The default is ResNeSt's: mixup with Beta(0.2, 0.2), the batch reversed, no CutMix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// Mixup's share is drawn from Beta(this, this); 0 for no mixup. Default 0.2.
    pub mixup_alpha: f64,
    /// CutMix's share is drawn from Beta(this, this); 0 for no CutMix. Default 0.
    pub cutmix_alpha: f64,
    /// The probability that a batch (or an image) is mixed at all. Default 1.
    pub prob: f64,
    /// Where both are on, the probability of CutMix. Default 0.5.
    pub switch_prob: f64,
    /// The partner. Default the batch reversed.
    pub pairing: Pairing,
    /// One share per batch or per image. Default per batch.
    pub mode: MixMode,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            mixup_alpha: 0.2,
            cutmix_alpha: 0.0,
            prob: 1.0,
            switch_prob: 0.5,
            pairing: Pairing::Reversed,
            mode: MixMode::Batch,
        }
    }
}

/// What happens to one image.
#[derive(Debug, Clone, PartialEq)]
enum Blend {
    /// Nothing.
    Keep,
    /// This share of itself, the rest of its partner.
    Mixup(f64),
    /// Its partner's pixels in rows `top..bottom`, columns `left..right`.
    Cutmix { top: usize, bottom: usize, left: usize, right: usize },
}

impl Blend {
    /// The image's own share in the target: for CutMix by the area that is really covered.
    fn share(&self, [_, height, width]: [usize; 3]) -> f64 {
        match *self {
            Self::Keep => 1.0,
            Self::Mixup(share) => share,
            Self::Cutmix { top, bottom, left, right } => {
                1.0 - ((bottom - top) * (right - left)) as f64 / (height * width) as f64
            }
        }
    }
}

impl Mix {
    /// Mixes `images`, `[n, c, h, w]`, and their `targets`, `[n, classes]`, in place.
    ///
    /// An image may be its own partner (the middle one of an odd batch, or by chance); it then stays as it is.
    /// Slices whose lengths do not fit `n` and the shape are left alone beyond the last whole image.
    pub fn apply(
        &self,
        random: &mut Random,
        images: &mut [f32],
        n: usize,
        shape: [usize; 3],
        targets: &mut [f32],
    ) {
        let image_len: usize = shape.iter().product();
        if n == 0 || image_len == 0 {
            return;
        }
        let blends = self.draw(random, n, shape);
        if blends.iter().all(|blend| *blend == Blend::Keep) {
            return;
        }
        let partners: Vec<usize> = match self.pairing {
            Pairing::Reversed => (0..n).rev().collect(),
            Pairing::Permuted => random.permutation(n as u32).into_iter().map(|i| i as usize).collect(),
        };
        let classes = targets.len() / n;
        let as_target = |blend: &Blend| Blend::Mixup(blend.share(shape));
        let target_blends: Vec<Blend> = blends.iter().map(as_target).collect();
        mix_rows(targets, classes, [1, 1, classes], &partners, &target_blends);
        mix_rows(images, image_len, shape, &partners, &blends);
    }

    /// What to do with each image.
    fn draw(&self, random: &mut Random, n: usize, shape: [usize; 3]) -> Vec<Blend> {
        match self.mode {
            MixMode::Batch => vec![self.draw_one(random, shape); n],
            MixMode::Elem => (0..n).map(|_| self.draw_one(random, shape)).collect(),
        }
    }

    fn draw_one(&self, random: &mut Random, [_, height, width]: [usize; 3]) -> Blend {
        let (mixup, cutmix) = (self.mixup_alpha > 0.0, self.cutmix_alpha > 0.0);
        if !(mixup || cutmix) || !random.chance(self.prob) {
            return Blend::Keep;
        }
        if !cutmix || (mixup && !random.chance(self.switch_prob)) {
            return Blend::Mixup(random.beta(self.mixup_alpha, self.mixup_alpha));
        }
        let share = random.beta(self.cutmix_alpha, self.cutmix_alpha);
        let side = (1.0 - share).sqrt();
        let mut range = |size: usize| {
            let half = (size as f64 * side) as usize / 2;
            let center = random.below(size as u64) as usize;
            (center.saturating_sub(half), (center + half).min(size))
        };
        let ((top, bottom), (left, right)) = (range(height), range(width));
        Blend::Cutmix { top, bottom, left, right }
    }
}

/// Blends each row of length `len` with its partner's values from before.
fn mix_rows(values: &mut [f32], len: usize, shape: [usize; 3], partners: &[usize], blends: &[Blend]) {
    if len == 0 {
        return;
    }
    // A row is still needed until the last of those that have it for a partner is done: reversed pairs only
    // need each other, a permutation needs a copy of everything.
    let reversed = partners.iter().enumerate().all(|(i, &partner)| partners[partner] == i);
    if !reversed {
        let before = values.to_vec();
        for ((row, &partner), blend) in values.chunks_exact_mut(len).zip(partners).zip(blends) {
            mix_into(row, &before[partner * len..(partner + 1) * len], shape, blend);
        }
        return;
    }
    let mut before = vec![0.0; len];
    for (first, &second) in partners.iter().enumerate().filter(|&(first, &second)| first < second) {
        let (head, tail) = values.split_at_mut(second * len);
        let (first_row, second_row) = (&mut head[first * len..(first + 1) * len], &mut tail[..len]);
        before.copy_from_slice(first_row);
        mix_into(first_row, second_row, shape, &blends[first]);
        mix_into(second_row, &before, shape, &blends[second]);
    }
}

fn mix_into(own: &mut [f32], other: &[f32], [_, height, width]: [usize; 3], blend: &Blend) {
    match *blend {
        Blend::Keep => {}
        Blend::Mixup(share) => {
            let (share, rest) = (share as f32, (1.0 - share) as f32);
            for (own, other) in own.iter_mut().zip(other) {
                *own = *own * share + other * rest;
            }
        }
        Blend::Cutmix { top, bottom, left, right } => {
            let planes = own.chunks_exact_mut(height * width).zip(other.chunks_exact(height * width));
            for (own, other) in planes {
                for start in (top..bottom).map(|row| row * width) {
                    own[start + left..start + right].copy_from_slice(&other[start + left..start + right]);
                }
            }
        }
    }
}
