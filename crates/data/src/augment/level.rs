//! From a policy's strength ("level") to an operation's argument.
//!
//! Code bases share the names and differ in the numbers, so the scale is part of a policy.

use super::Operation;
use crate::Random;

/// An operation without its argument, by timm's names.
///
/// The variants of one operation differ in how a level becomes an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    AutoContrast,
    Invert,
    Equalize,
    /// Fewer levels are inverted as the level falls: threshold 256 at 10.
    Solarize,
    /// More levels are inverted as the level grows: threshold 0 at 10.
    SolarizeIncreasing,
    SolarizeAdd,
    /// 0 bits at level 0, 4 at 10 (EfficientNet's TPU code).
    Posterize,
    /// 4 bits at level 0, 0 at 10 (the research code).
    PosterizeIncreasing,
    /// 4 bits at level 0, 8 at 10 (the paper).
    PosterizeOriginal,
    Contrast,
    ContrastIncreasing,
    Color,
    ColorIncreasing,
    Brightness,
    BrightnessIncreasing,
    Sharpness,
    SharpnessIncreasing,
}

/// timm's argument for a level, usually 0 to 10, on an image of this width and height.
///
/// Signs are drawn here. Translation is relative: at most 0.45 of the side (timm's `TranslateXRel`).
pub(super) fn timm(kind: Kind, level: f64, (width, height): (u32, u32), random: &mut Random) -> Operation {
    let share = level / 10.0;
    let mut either = |value: f64| if random.chance(0.5) { -value } else { value };
    let enhance = share * 1.8 + 0.1;
    match kind {
        Kind::Identity => Operation::Identity,
        Kind::ShearX => Operation::ShearX(either(share * 0.3)),
        Kind::ShearY => Operation::ShearY(either(share * 0.3)),
        Kind::TranslateX => Operation::TranslateX(either(share * 0.45) * f64::from(width)),
        Kind::TranslateY => Operation::TranslateY(either(share * 0.45) * f64::from(height)),
        Kind::Rotate => Operation::Rotate(either(share * 30.0)),
        Kind::AutoContrast => Operation::AutoContrast,
        Kind::Invert => Operation::Invert,
        Kind::Equalize => Operation::Equalize,
        Kind::Solarize => Operation::Solarize((share * 256.0).trunc().min(256.0)),
        Kind::SolarizeIncreasing => Operation::Solarize(256.0 - (share * 256.0).trunc().min(256.0)),
        Kind::SolarizeAdd => Operation::SolarizeAdd((share * 110.0).min(128.0) as u8),
        Kind::Posterize => Operation::Posterize((share * 4.0) as u8),
        Kind::PosterizeIncreasing => Operation::Posterize(4_u8.saturating_sub((share * 4.0) as u8)),
        Kind::PosterizeOriginal => Operation::Posterize((share * 4.0) as u8 + 4),
        Kind::Contrast => Operation::Contrast(enhance),
        Kind::ContrastIncreasing => Operation::Contrast((1.0 + either(share * 0.9)).max(0.1)),
        Kind::Color => Operation::Color(enhance),
        Kind::ColorIncreasing => Operation::Color((1.0 + either(share * 0.9)).max(0.1)),
        Kind::Brightness => Operation::Brightness(enhance),
        Kind::BrightnessIncreasing => Operation::Brightness((1.0 + either(share * 0.9)).max(0.1)),
        Kind::Sharpness => Operation::Sharpness(enhance),
        Kind::SharpnessIncreasing => Operation::Sharpness((1.0 + either(share * 0.9)).max(0.1)),
    }
}

/// torchvision's argument for bin `level` of `bins`, on an image of this width and height.
///
/// There is one scale for each operation there, so the variants of a kind count alike. Its magnitudes are
/// `f32`, which shows in rounded degrees.
pub(super) fn torchvision(
    kind: Kind,
    (level, bins): (u32, u32),
    (width, height): (u32, u32),
    random: &mut Random,
) -> Operation {
    let level = level.min(bins - 1);
    let mut signed = |end: f64| {
        let value = f64::from(linspace(end as f32, level, bins));
        if random.chance(0.5) { -value } else { value }
    };
    let pixels = |side: u32| 150.0 / 331.0 * f64::from(side);
    match kind {
        Kind::Identity => Operation::Identity,
        Kind::ShearX => Operation::ShearX(signed(0.3)),
        Kind::ShearY => Operation::ShearY(signed(0.3)),
        Kind::TranslateX => Operation::TranslateX(signed(pixels(width)).trunc()),
        Kind::TranslateY => Operation::TranslateY(signed(pixels(height)).trunc()),
        Kind::Rotate => Operation::Rotate(signed(30.0)),
        Kind::AutoContrast => Operation::AutoContrast,
        Kind::Invert => Operation::Invert,
        Kind::Equalize => Operation::Equalize,
        Kind::Solarize | Kind::SolarizeIncreasing => {
            Operation::Solarize(255.0 - f64::from(linspace(255.0, level, bins)))
        }
        Kind::SolarizeAdd => Operation::Identity,
        Kind::Posterize | Kind::PosterizeIncreasing | Kind::PosterizeOriginal => {
            let lost = f64::from(level) / (f64::from(bins - 1) / 4.0);
            Operation::Posterize(8 - lost.round_ties_even() as u8)
        }
        Kind::Contrast | Kind::ContrastIncreasing => Operation::Contrast(1.0 + signed(0.9)),
        Kind::Color | Kind::ColorIncreasing => Operation::Color(1.0 + signed(0.9)),
        Kind::Brightness | Kind::BrightnessIncreasing => Operation::Brightness(1.0 + signed(0.9)),
        Kind::Sharpness | Kind::SharpnessIncreasing => Operation::Sharpness(1.0 + signed(0.9)),
    }
}

/// Entry `index` of PyTorch's `linspace(0, end, count)`: it steps from both ends.
fn linspace(end: f32, index: u32, count: u32) -> f32 {
    let step = end / (count - 1) as f32;
    if index < count / 2 { step * index as f32 } else { end - step * (count - 1 - index) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every argument that a level can become, signs included.
    fn arguments(kind: Kind, level: f64) -> Vec<Operation> {
        let mut random = Random::new(0, &[]);
        let mut found = Vec::new();
        for _ in 0..40 {
            let operation = timm(kind, level, (224, 200), &mut random);
            if !found.contains(&operation) {
                found.push(operation);
            }
        }
        found.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        found
    }

    #[test]
    fn levels_are_timms() {
        assert_eq!(arguments(Kind::Rotate, 9.0), [Operation::Rotate(-27.0), Operation::Rotate(27.0)]);
        assert_eq!(arguments(Kind::Posterize, 6.0), [Operation::Posterize(2)]);
        assert_eq!(arguments(Kind::PosterizeIncreasing, 8.0), [Operation::Posterize(1)]);
        assert_eq!(arguments(Kind::PosterizeOriginal, 7.0), [Operation::Posterize(6)]);
        assert_eq!(arguments(Kind::Solarize, 5.0), [Operation::Solarize(128.0)]);
        assert_eq!(arguments(Kind::SolarizeIncreasing, 9.0), [Operation::Solarize(26.0)]);
        assert_eq!(arguments(Kind::SolarizeAdd, 3.0), [Operation::SolarizeAdd(33)]);
        assert_eq!(arguments(Kind::Color, 4.0), [Operation::Color(0.820_000_000_000_000_1)]);
        assert_eq!(
            arguments(Kind::ContrastIncreasing, 9.0),
            [Operation::Contrast(0.18999999999999995), Operation::Contrast(1.81)]
        );
        assert_eq!(
            arguments(Kind::TranslateY, 10.0),
            [Operation::TranslateY(-90.0), Operation::TranslateY(90.0)]
        );
    }

    #[test]
    fn bins_are_torchvisions() {
        let mut random = Random::new(0, &[]);
        let mut of = |kind, level| torchvision(kind, level, (331, 331), &mut random);
        assert_eq!(of(Kind::Posterize, (9, 31)), Operation::Posterize(7));
        assert_eq!(of(Kind::Posterize, (5, 10)), Operation::Posterize(6));
        assert!(matches!(of(Kind::TranslateX, (9, 10)), Operation::TranslateX(x) if x.abs() == 150.0));
        assert_eq!(of(Kind::Solarize, (0, 10)), Operation::Solarize(255.0));
        assert_eq!(of(Kind::Solarize, (30, 31)), Operation::Solarize(0.0));
    }
}
