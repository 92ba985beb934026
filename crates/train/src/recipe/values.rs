//! The values of a recipe that are one of a few names.

use std::fmt;
use std::str::FromStr;

use cardinal_data::Policy;
use serde::{Deserialize, Serialize};

/// How a training crop is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropMode {
    /// Random resized crop: a random part of the image, of random shape, resized to the square.
    Rrc,
    /// The shorter side is resized to a random length, and a random square is cut out (ResNeSt section 4.1).
    ShorterSide,
    /// The whole image, stretched to the square (the code of TResNet's multi-label paper).
    Squash,
    /// The image resized to the square, padded, and a random square cut out (CIFAR, digits).
    Pad,
}

/// The resize filter of the training crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainInterpolation {
    /// Bilinear or bicubic, each with chance 0.5, as in timm.
    Random,
    /// Bilinear.
    Bilinear,
    /// Bicubic.
    Bicubic,
}

/// What random erasing fills its rectangle with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoveMode {
    /// The mean colour (0 behind the normalisation).
    Const,
    /// One random colour.
    Rand,
    /// A random colour for every pixel.
    Pixel,
}

/// Which image of the batch an image is mixed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixPairing {
    /// The one at the same place of the reversed batch (ResNeSt section 6.1, timm).
    Reversed,
    /// The one that a random permutation gives it.
    Permuted,
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Softmax and cross-entropy with soft targets.
    CrossEntropy,
    /// Binary cross-entropy, each class for itself.
    Bce,
    /// The focal loss with two gammas (TResNet section 4.2, arXiv:2009.14119).
    Asymmetric,
}

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// SGD with momentum, PyTorch's semantics.
    Sgd,
    /// The same with decoupled weight decay ("true weight decay").
    Sgdw,
    /// Adam, PyTorch's semantics.
    Adam,
    /// Adam with decoupled weight decay.
    Adamw,
}

impl Optimizer {
    /// Whether the weight decay acts on the weights themselves instead of the gradient.
    #[must_use]
    pub fn decoupled(self) -> bool {
        matches!(self, Self::Sgdw | Self::Adamw)
    }

    /// Whether it is one of Adam's.
    #[must_use]
    pub fn is_adam(self) -> bool {
        matches!(self, Self::Adam | Self::Adamw)
    }
}

/// How the learning rate grows with the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// By batch / `lr_base_size`.
    Linear,
    /// By its square root.
    Sqrt,
}

/// The shape of the learning rate over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine from the peak to `min_lr`.
    Cosine,
    /// Smith's one-cycle policy, as PyTorch's `OneCycleLR` has it.
    Onecycle,
    /// `(1 - progress)^power` from the peak to `min_lr`.
    Poly,
    /// Multiplied by `decay_rate` at each of `decay_milestones`.
    Step,
    /// The peak all along.
    Constant,
}

/// What the best checkpoint is the best in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvalMetric {
    /// The lowest loss on the evaluation split.
    Loss,
    /// The highest top-1 accuracy.
    Top1,
    /// The highest top-5 accuracy.
    Top5,
    /// The highest mean average precision.
    Map,
}

impl EvalMetric {
    /// Whether a smaller value is the better one.
    #[must_use]
    pub fn decreasing(self) -> bool {
        self == Self::Loss
    }
}

/// What computes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// The engine, which plans the whole step: on the processor. Other devices have `eager` alone.
    Compiled,
    /// Burn, operation by operation.
    Eager,
}

/// The format of a compiled step's feature maps and their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapFormat {
    /// 32 bits.
    F32,
    /// The upper 16 of them; weights, sums and statistics keep all.
    Bf16,
}

/// Where AutoAugment and RandAugment stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyPlace {
    /// Behind crop and flip, as in timm.
    After,
    /// Before the crop, on the whole image, as in ResNeSt's training code.
    Before,
}

/// One mixing share for the batch, or one for each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixMode {
    /// One for the batch (ResNeSt's code, timm's default).
    Batch,
    /// One for each image (ResNeSt section 5.2).
    Elem,
}

/// `aa`: AutoAugment or RandAugment by timm's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Augmentation {
    /// `none`.
    #[default]
    Off,
    /// `original`, `v0`, `gluon`, `cifar10`, ...: AutoAugment.
    Auto(Policy),
    /// `rand-m9-n2-mstd0.5-inc1`: RandAugment.
    Rand {
        /// Operations per image; timm's `n`, default 2.
        operations: u32,
        /// Their strength, 0 to 10; timm's `m`, default 10.
        magnitude: f64,
        /// Standard deviation of the strength; timm's `mstd`, default 0.
        deviation: f64,
        /// Whether a larger magnitude always means a stronger change; timm's `inc`, default no.
        increasing: bool,
        /// Chance of each operation; timm's `p`, default 0.5.
        probability: f64,
    },
}

/// AutoAugment's policies by name.
const POLICIES: [(&str, Policy); 7] = [
    ("original", Policy::Original),
    ("originalr", Policy::Originalr),
    ("v0", Policy::V0),
    ("v0r", Policy::V0r),
    ("gluon", Policy::Gluon),
    ("imagenet", Policy::Imagenet),
    ("cifar10", Policy::Cifar10),
];

impl FromStr for Augmentation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, policy)) = POLICIES.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Auto(*policy));
        }
        let mut parts = text.split('-');
        match parts.next().unwrap_or_default() {
            "none" | "" => Ok(Self::Off),
            "rand" => parse_rand(parts).ok_or_else(|| {
                format!("'{text}' is not RandAugment as timm writes it: rand-m9-n2-mstd0.5-inc1")
            }),
            _ => {
                let names = POLICIES.map(|(name, _)| name).join(", ");
                Err(format!("'{text}' is none of none, {names} (AutoAugment) and rand-m9-n2-mstd0.5-inc1"))
            }
        }
    }
}

fn parse_rand<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Augmentation> {
    let (mut operations, mut magnitude, mut deviation) = (2, 10.0, 0.0);
    let (mut increasing, mut probability) = (false, 0.5);
    for part in parts {
        let number = |name: &str| part.strip_prefix(name).and_then(|value| value.parse::<f64>().ok());
        if let Some(value) = number("mstd") {
            deviation = Some(value).filter(|value| (0.0..=100.0).contains(value))?;
        } else if let Some(value) = number("inc") {
            increasing = value != 0.0;
        } else if let Some(value) = number("m") {
            magnitude = Some(value).filter(|value| (0.0..=10.0).contains(value))?;
        } else if let Some(value) = number("p") {
            probability = Some(value).filter(|value| (0.0..=1.0).contains(value))?;
        } else {
            operations = part.strip_prefix('n')?.parse().ok().filter(|value| (1..=100).contains(value))?;
        }
    }
    Some(Augmentation::Rand { operations, magnitude, deviation, increasing, probability })
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("none"),
            Self::Auto(policy) => {
                let name = POLICIES.iter().find(|(_, known)| known == policy).map(|(name, _)| *name);
                f.write_str(name.unwrap_or_default())
            }
            Self::Rand { operations, magnitude, deviation, increasing, probability } => {
                let increasing = u8::from(*increasing);
                write!(f, "rand-m{magnitude}-n{operations}-mstd{deviation}-inc{increasing}-p{probability}")
            }
        }
    }
}

impl TryFrom<String> for Augmentation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Augmentation> for String {
    fn from(value: Augmentation) -> Self {
        value.to_string()
    }
}

/// `color_jitter` as a number or a list.
pub(super) mod color_jitter {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(f64),
        List(Vec<f64>),
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[f64; 4], D::Error> {
        let form = Form::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom("must be a number, or a list of 3 or 4 numbers"))?;
        match form {
            Form::One(all) => Ok([all, all, all, 0.0]),
            Form::List(list) => match *list.as_slice() {
                [brightness, contrast, saturation] => Ok([brightness, contrast, saturation, 0.0]),
                [brightness, contrast, saturation, hue] => Ok([brightness, contrast, saturation, hue]),
                _ => Err(serde::de::Error::custom("must be a number, or a list of 3 or 4 numbers")),
            },
        }
    }

    pub(in super::super) fn serialize<S: Serializer>(
        value: &[f64; 4],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}
