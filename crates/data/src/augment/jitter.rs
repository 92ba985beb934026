//! Colour jitter and the lighting noise of AlexNet.

use serde::{Deserialize, Serialize};

use super::color;
use crate::{Random, RgbImage};

/// torchvision's `ColorJitter` on PIL images: each change with a factor of its own, in a random order.
///
/// The default is 0.4 for brightness, contrast and saturation, no hue: timm's default, and what the ResNeSt
/// weights were trained with (paper, section 5.1: "color jittering").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColorJitter {
    /// Factors from `max(0, 1 - this)` to `1 + this`.
    pub brightness: f64,
    /// As brightness.
    pub contrast: f64,
    /// As brightness.
    pub saturation: f64,
    /// Turns of the hue from minus to plus this; at most 0.5.
    pub hue: f64,
}

impl Default for ColorJitter {
    fn default() -> Self {
        Self { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.0 }
    }
}

impl ColorJitter {
    /// Draws the order and the factors, and applies them.
    pub fn apply(&self, image: &mut RgbImage, random: &mut Random) {
        let mut order = [0, 1, 2, 3];
        random.shuffle(&mut order);
        let mut factor = |range: f64| random.uniform((1.0 - range).max(0.0), 1.0 + range);
        let (brightness, contrast) = (factor(self.brightness), factor(self.contrast));
        let saturation = factor(self.saturation);
        let hue = random.uniform(-self.hue, self.hue);
        for change in order {
            match change {
                0 if self.brightness > 0.0 => color::brightness(image, brightness),
                1 if self.contrast > 0.0 => color::contrast(image, contrast),
                2 if self.saturation > 0.0 => color::color(image, saturation),
                3 if self.hue > 0.0 => color::hue(image, hue),
                _ => {}
            }
        }
    }

    /// torchvision's `adjust_hue` of a PIL image, for a fixed turn of -0.5 to 0.5 of the circle. (The other
    /// three changes are [`Operation`](super::Operation)s.)
    pub fn turn_hue(image: &mut RgbImage, turn: f64) {
        color::hue(image, turn);
    }
}

/// Lighting noise of AlexNet (Krizhevsky et al. 2012, section 4.1): a shift along the principal components of
/// ImageNet's colours, the same for all pixels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PcaLighting {
    /// Standard deviation of the share of each component. Default 0.1, as in the paper and ResNeSt's code.
    pub std: f64,
}

impl Default for PcaLighting {
    fn default() -> Self {
        Self { std: 0.1 }
    }
}

impl PcaLighting {
    /// Variances of the components, for colours from 0 to 1.
    const EIGENVALUES: [f64; 3] = [0.2175, 0.0188, 0.0045];
    /// The components' shares of red, green and blue, by colour.
    const EIGENVECTORS: [[f64; 3]; 3] =
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]];

    /// What to add to red, green and blue, on the scale 0 to 1.
    #[must_use]
    pub fn draw(&self, random: &mut Random) -> [f32; 3] {
        Self::shift(std::array::from_fn(|_| self.std * random.normal()))
    }

    /// The shift for fixed shares of the three components.
    #[must_use]
    pub fn shift(shares: [f64; 3]) -> [f32; 3] {
        Self::EIGENVECTORS.map(|vector| {
            let parts = vector.iter().zip(Self::EIGENVALUES).zip(shares);
            parts.map(|((vector, value), share)| vector * value * share).sum::<f64>() as f32
        })
    }
}
