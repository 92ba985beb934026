//! The tables: published policies as rows of (operation, probability, level).

use super::level::Kind::{
    self, AutoContrast, Brightness, BrightnessIncreasing, Color, ColorIncreasing, Contrast,
    ContrastIncreasing, Equalize, Identity, Invert, Posterize, PosterizeIncreasing, Rotate, Sharpness,
    SharpnessIncreasing, ShearX, ShearY, Solarize, SolarizeAdd, SolarizeIncreasing, TranslateX, TranslateY,
};

/// Two operations, one after the other.
pub(super) type SubPolicy = [(Kind, f64, u32); 2];

/// AutoAugment's ImageNet policy (arXiv:1805.09501, appendix); 25 rows, 20 of them different.
pub(super) const PAPER: [SubPolicy; 25] = [
    [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 5)],
    [(Equalize, 0.8, 8), (Equalize, 0.6, 3)],
    [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
    [(Equalize, 0.4, 7), (Solarize, 0.2, 4)],
    [(Equalize, 0.4, 4), (Rotate, 0.8, 8)],
    [(Solarize, 0.6, 3), (Equalize, 0.6, 7)],
    [(Posterize, 0.8, 5), (Equalize, 1.0, 2)],
    [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
    [(Equalize, 0.6, 8), (Posterize, 0.4, 6)],
    [(Rotate, 0.8, 8), (Color, 0.4, 0)],
    [(Rotate, 0.4, 9), (Equalize, 0.6, 2)],
    [(Equalize, 0.0, 7), (Equalize, 0.8, 8)],
    [(Invert, 0.6, 4), (Equalize, 1.0, 8)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Rotate, 0.8, 8), (Color, 1.0, 2)],
    [(Color, 0.8, 8), (Solarize, 0.8, 7)],
    [(Sharpness, 0.4, 7), (Invert, 0.6, 8)],
    [(ShearX, 0.6, 5), (Equalize, 1.0, 9)],
    [(Color, 0.4, 0), (Equalize, 0.6, 3)],
    [(Equalize, 0.4, 7), (Solarize, 0.2, 4)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 5)],
    [(Invert, 0.6, 4), (Equalize, 1.0, 8)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Equalize, 0.8, 8), (Equalize, 0.6, 3)],
];

/// The paper's policy as Gluon's training script has it: one level differs, and solarize and posterize grow
/// stronger with the level.
pub(super) fn gluon() -> Vec<SubPolicy> {
    let stronger = |sub: SubPolicy| {
        sub.map(|(kind, probability, level)| match kind {
            Solarize => (SolarizeIncreasing, probability, level),
            Posterize => (PosterizeIncreasing, probability, level),
            Color if level == 2 => (Color, probability, 0),
            kind => (kind, probability, level),
        })
    };
    PAPER.map(stronger).to_vec()
}

/// EfficientNet's ImageNet policy.
pub(super) const EFFICIENTNET: [SubPolicy; 25] = [
    [(Equalize, 0.8, 1), (ShearY, 0.8, 4)],
    [(Color, 0.4, 9), (Equalize, 0.6, 3)],
    [(Color, 0.4, 1), (Rotate, 0.6, 8)],
    [(Solarize, 0.8, 3), (Equalize, 0.4, 7)],
    [(Solarize, 0.4, 2), (Solarize, 0.6, 2)],
    [(Color, 0.2, 0), (Equalize, 0.8, 8)],
    [(Equalize, 0.4, 8), (SolarizeAdd, 0.8, 3)],
    [(ShearX, 0.2, 9), (Rotate, 0.6, 8)],
    [(Color, 0.6, 1), (Equalize, 1.0, 2)],
    [(Invert, 0.4, 9), (Rotate, 0.6, 0)],
    [(Equalize, 1.0, 9), (ShearY, 0.6, 3)],
    [(Color, 0.4, 7), (Equalize, 0.6, 0)],
    [(Posterize, 0.4, 6), (AutoContrast, 0.4, 7)],
    [(Solarize, 0.6, 8), (Color, 0.6, 9)],
    [(Solarize, 0.2, 4), (Rotate, 0.8, 9)],
    [(Rotate, 1.0, 7), (TranslateY, 0.8, 9)],
    [(ShearX, 0.0, 0), (Solarize, 0.8, 4)],
    [(ShearY, 0.8, 0), (Color, 0.6, 4)],
    [(Color, 1.0, 0), (Rotate, 0.6, 2)],
    [(Equalize, 0.8, 4), (Equalize, 0.0, 8)],
    [(Equalize, 1.0, 4), (AutoContrast, 0.6, 2)],
    [(ShearY, 0.4, 7), (SolarizeAdd, 0.6, 7)],
    [(Posterize, 0.8, 2), (Solarize, 0.6, 10)],
    [(Solarize, 0.6, 8), (Equalize, 0.6, 1)],
    [(Color, 0.8, 6), (Rotate, 0.4, 5)],
];

/// AutoAugment's CIFAR-10 policy (arXiv:1805.09501, appendix).
pub(super) const CIFAR10: [SubPolicy; 25] = [
    [(Invert, 0.1, 0), (Contrast, 0.2, 6)],
    [(Rotate, 0.7, 2), (TranslateX, 0.3, 9)],
    [(Sharpness, 0.8, 1), (Sharpness, 0.9, 3)],
    [(ShearY, 0.5, 8), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.5, 0), (Equalize, 0.9, 0)],
    [(ShearY, 0.2, 7), (Posterize, 0.3, 7)],
    [(Color, 0.4, 3), (Brightness, 0.6, 7)],
    [(Sharpness, 0.3, 9), (Brightness, 0.7, 9)],
    [(Equalize, 0.6, 0), (Equalize, 0.5, 0)],
    [(Contrast, 0.6, 7), (Sharpness, 0.6, 5)],
    [(Color, 0.7, 7), (TranslateX, 0.5, 8)],
    [(Equalize, 0.3, 0), (AutoContrast, 0.4, 0)],
    [(TranslateY, 0.4, 3), (Sharpness, 0.2, 6)],
    [(Brightness, 0.9, 6), (Color, 0.2, 8)],
    [(Solarize, 0.5, 2), (Invert, 0.0, 0)],
    [(Equalize, 0.2, 0), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.2, 0), (Equalize, 0.6, 0)],
    [(Color, 0.9, 9), (Equalize, 0.6, 0)],
    [(AutoContrast, 0.8, 0), (Solarize, 0.2, 8)],
    [(Brightness, 0.1, 3), (Color, 0.7, 0)],
    [(Solarize, 0.4, 5), (AutoContrast, 0.9, 0)],
    [(TranslateY, 0.9, 9), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.9, 0), (Solarize, 0.8, 3)],
    [(Equalize, 0.8, 0), (Invert, 0.1, 0)],
    [(TranslateY, 0.7, 9), (AutoContrast, 0.9, 0)],
];

/// timm's operations for RandAugment.
pub(super) const RAND: [Kind; 15] = [
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
];

/// The same where a larger magnitude is always a stronger change.
pub(super) const RAND_INCREASING: [Kind; 15] = [
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    PosterizeIncreasing,
    SolarizeIncreasing,
    SolarizeAdd,
    ColorIncreasing,
    ContrastIncreasing,
    BrightnessIncreasing,
    SharpnessIncreasing,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
];

/// torchvision's operations for RandAugment.
pub(super) const RAND_TORCHVISION: [Kind; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];
