//! AutoAugment and RandAugment: which operations, how likely, how strong.

use serde::{Deserialize, Serialize};

use super::level::{self, Kind};
use super::policies;
use super::{Canvas, Operation};
use crate::{Interpolation, Random, RgbImage};

/// A published AutoAugment policy (arXiv:1805.09501): sub-policies of two operations, of which one is drawn
/// per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The paper's ImageNet policy (its appendix) as timm's `original` has it.
    #[default]
    Original,
    /// The same with the research code's posterize; timm's `originalr`.
    Originalr,
    /// EfficientNet's ImageNet policy; timm's `v0`.
    V0,
    /// The same with the research code's posterize; timm's `v0r`.
    V0r,
    /// The ImageNet policy as the published ResNeSt weights were trained with, in Gluon: other numbers than
    /// the paper's in one place (Color 0 for Color 2), and levels 0 to 10 where solarize grows stronger.
    Gluon,
    /// torchvision's ImageNet policy.
    Imagenet,
    /// torchvision's CIFAR-10 policy, which serves CIFAR-100 too.
    Cifar10,
}

impl Policy {
    /// Reads the name that recipes use: `original`, `originalr`, `v0`, `v0r`, `gluon`, `imagenet`,
    /// `cifar10`; `None` for any other.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "original" => Self::Original,
            "originalr" => Self::Originalr,
            "v0" => Self::V0,
            "v0r" => Self::V0r,
            "gluon" => Self::Gluon,
            "imagenet" => Self::Imagenet,
            "cifar10" => Self::Cifar10,
            _ => return None,
        })
    }

    fn sub_policies(self) -> Vec<policies::SubPolicy> {
        let posterize = |sub: &policies::SubPolicy, posterize: Kind| {
            sub.map(|(kind, probability, level)| match kind {
                Kind::Posterize => (posterize, probability, level),
                kind => (kind, probability, level),
            })
        };
        match self {
            Self::Original => policies::PAPER.iter().map(|s| posterize(s, Kind::PosterizeOriginal)).collect(),
            Self::Originalr => {
                policies::PAPER.iter().map(|s| posterize(s, Kind::PosterizeIncreasing)).collect()
            }
            Self::V0 => policies::EFFICIENTNET.to_vec(),
            Self::V0r => {
                policies::EFFICIENTNET.iter().map(|s| posterize(s, Kind::PosterizeIncreasing)).collect()
            }
            Self::Gluon => policies::gluon(),
            Self::Imagenet => policies::PAPER.to_vec(),
            Self::Cifar10 => policies::CIFAR10.to_vec(),
        }
    }

    fn is_torchvisions(self) -> bool {
        matches!(self, Self::Imagenet | Self::Cifar10)
    }
}

/// AutoAugment: one sub-policy per image, each of its operations with its own probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoAugment {
    /// The policy. Default: the paper's.
    pub policy: Policy,
    /// Standard deviation of noise on the level, 0 for none; timm's `mstd`. Not for torchvision's policies.
    pub magnitude_std: f64,
}

impl Default for AutoAugment {
    fn default() -> Self {
        Self { policy: Policy::Original, magnitude_std: 0.0 }
    }
}

impl AutoAugment {
    /// The operations for one image of this width and height.
    #[must_use]
    pub fn draw(&self, size: (u32, u32), random: &mut Random) -> Vec<Operation> {
        /// torchvision's policies count levels in tenths of the range, 0 to 9.
        const BINS: u32 = 10;
        let sub_policies = self.policy.sub_policies();
        let sub = sub_policies[random.below(sub_policies.len() as u64) as usize];
        let mut operations = Vec::new();
        for (kind, probability, level) in sub {
            if !random.chance(probability) {
                continue;
            }
            operations.push(if self.policy.is_torchvisions() {
                level::torchvision(kind, (level, BINS), size, random)
            } else {
                let level = noisy(f64::from(level), self.magnitude_std, 10.0, random);
                level::timm(kind, level, size, random)
            });
        }
        operations
    }

    /// Draws and applies.
    pub fn apply(&self, image: &mut RgbImage, canvas: &Canvas, random: &mut Random) {
        let canvas = match self.policy {
            Policy::Imagenet | Policy::Cifar10 => TORCHVISION,
            Policy::Gluon => Canvas::default(),
            Policy::Original | Policy::Originalr | Policy::V0 | Policy::V0r => *canvas,
        };
        for operation in self.draw((image.width(), image.height()), random) {
            operation.apply(image, &canvas);
        }
    }
}

/// torchvision's defaults for both methods.
const TORCHVISION: Canvas = Canvas { fill: [0; 3], interpolation: Interpolation::Nearest };

/// Whose list of operations and whose strengths [`RandAugment`] uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RandAugmentStyle {
    /// timm's 15 operations, each skipped with a probability; magnitude 0 to 10.
    #[default]
    Timm,
    /// torchvision's 14 operations, never skipped; magnitude 0 to 30, and only that is used of the settings.
    Torchvision,
}

/// RandAugment (arXiv:1909.13719): a few operations drawn at random, all with one magnitude.
///
/// The default is timm's `rand-m9-mstd0.5-inc1`, which TResNet's published command names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// Operations per image; N in the paper. Default 2.
    pub layers: u32,
    /// Strength; M in the paper. Default 9.
    pub magnitude: f64,
    /// Standard deviation of the strength, drawn anew for each operation; infinite for a uniform draw from 0
    /// to the magnitude. Default 0.5.
    pub magnitude_std: f64,
    /// The largest strength that the noise may lead to. Default 10.
    pub magnitude_max: f64,
    /// Whether a larger magnitude is a stronger change for every operation; timm's `inc1`. Default true.
    pub increasing: bool,
    /// The probability that a drawn operation is applied. Default 0.5.
    pub probability: f64,
    /// Whose scale. Default timm's.
    pub style: RandAugmentStyle,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            layers: 2,
            magnitude: 9.0,
            magnitude_std: 0.5,
            magnitude_max: 10.0,
            increasing: true,
            probability: 0.5,
            style: RandAugmentStyle::Timm,
        }
    }
}

impl RandAugment {
    /// The operations for one image of this width and height.
    #[must_use]
    pub fn draw(&self, size: (u32, u32), random: &mut Random) -> Vec<Operation> {
        /// torchvision's number of strengths.
        const BINS: u32 = 31;
        let kinds: &[Kind] = match self.style {
            RandAugmentStyle::Timm if self.increasing => &policies::RAND_INCREASING,
            RandAugmentStyle::Timm => &policies::RAND,
            RandAugmentStyle::Torchvision => &policies::RAND_TORCHVISION,
        };
        let mut operations = Vec::new();
        for _ in 0..self.layers {
            let kind = kinds[random.below(kinds.len() as u64) as usize];
            match self.style {
                RandAugmentStyle::Torchvision => {
                    let level = (self.magnitude as u32, BINS);
                    operations.push(level::torchvision(kind, level, size, random));
                }
                RandAugmentStyle::Timm => {
                    if random.chance(self.probability) {
                        let level = noisy(self.magnitude, self.magnitude_std, self.magnitude_max, random);
                        operations.push(level::timm(kind, level, size, random));
                    }
                }
            }
        }
        operations
    }

    /// Draws and applies.
    pub fn apply(&self, image: &mut RgbImage, canvas: &Canvas, random: &mut Random) {
        let canvas = match self.style {
            RandAugmentStyle::Timm => *canvas,
            RandAugmentStyle::Torchvision => TORCHVISION,
        };
        for operation in self.draw((image.width(), image.height()), random) {
            operation.apply(image, &canvas);
        }
    }
}

fn noisy(level: f64, std: f64, max: f64, random: &mut Random) -> f64 {
    let level = if std == f64::INFINITY {
        random.uniform(0.0, level)
    } else if std > 0.0 {
        level + std * random.normal()
    } else {
        level
    };
    level.min(max).max(0.0)
}
