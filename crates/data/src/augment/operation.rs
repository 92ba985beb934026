//! One operation of AutoAugment's search space with its argument, and how policies name its strength.

use serde::{Deserialize, Serialize};

use super::{affine, color};
use crate::{Interpolation, RgbImage};

/// What geometric operations fill the uncovered part with, and how they interpolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    /// The colour of pixels that come from outside the image.
    pub fill: [u8; 3],
    /// The filter. Lanczos counts as bicubic, as in Pillow's transforms.
    pub interpolation: Interpolation,
}

impl Default for Canvas {
    /// timm's defaults: mid grey, bicubic.
    fn default() -> Self {
        Self { fill: [128; 3], interpolation: Interpolation::Bicubic }
    }
}

/// An operation of AutoAugment's search space (arXiv:1805.09501, table 6) or RandAugment's, with Pillow's
/// results. The sixteenth, SamplePairing, needs a second image: [`sample_pairing`](super::sample_pairing).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Leaves the image as it is.
    Identity,
    /// Slants along x by this many columns per row; -0.3 to 0.3 in the papers.
    ShearX(f64),
    /// Slants along y by this many rows per column; -0.3 to 0.3 in the papers.
    ShearY(f64),
    /// Moves the image to the left by this many pixels.
    TranslateX(f64),
    /// Moves the image up by this many pixels.
    TranslateY(f64),
    /// Turns anticlockwise by degrees; -30 to 30 in the papers.
    Rotate(f64),
    /// Stretches each channel to the full range.
    AutoContrast,
    /// Inverts every level.
    Invert,
    /// Makes each channel's histogram flat.
    Equalize,
    /// Inverts levels from this threshold on; 256 changes nothing.
    Solarize(f64),
    /// Adds this to levels below 128.
    SolarizeAdd(u8),
    /// Keeps this many high bits; 8 changes nothing, 0 is black.
    Posterize(u8),
    /// 0 is grey, 1 changes nothing.
    Contrast(f64),
    /// Saturation: 0 is grey, 1 changes nothing.
    Color(f64),
    /// 0 is black, 1 changes nothing.
    Brightness(f64),
    /// 0 is smoothed, 1 changes nothing, 2 is sharpened.
    Sharpness(f64),
    /// Fills a box with the canvas' colour.
    Cutout {
        /// First column; the box may leave the image.
        left: i64,
        /// First row.
        top: i64,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl Operation {
    /// Changes the image, whose size stays.
    pub fn apply(self, image: &mut RgbImage, canvas: &Canvas) {
        match self {
            Self::Identity => {}
            Self::ShearX(factor) => affine::shear_x(image, factor, canvas),
            Self::ShearY(factor) => affine::shear_y(image, factor, canvas),
            Self::TranslateX(pixels) => affine::translate(image, pixels, 0.0, canvas),
            Self::TranslateY(pixels) => affine::translate(image, 0.0, pixels, canvas),
            Self::Rotate(degrees) => affine::rotate(image, degrees, canvas),
            Self::AutoContrast => color::auto_contrast(image),
            Self::Invert => color::invert(image),
            Self::Equalize => color::equalize(image),
            Self::Solarize(threshold) => color::solarize(image, threshold),
            Self::SolarizeAdd(add) => color::solarize_add(image, add),
            Self::Posterize(bits) => color::posterize(image, bits),
            Self::Contrast(factor) => color::contrast(image, factor),
            Self::Color(factor) => color::color(image, factor),
            Self::Brightness(factor) => color::brightness(image, factor),
            Self::Sharpness(factor) => color::sharpness(image, factor),
            Self::Cutout { left, top, width, height } => cutout(image, (left, top), (width, height), canvas),
        }
    }
}

fn cutout(image: &mut RgbImage, (left, top): (i64, i64), (width, height): (u32, u32), canvas: &Canvas) {
    let clip = |start: i64, len: u32, size: u32| {
        let size = i64::from(size);
        let end = start.saturating_add(i64::from(len)).clamp(0, size);
        start.clamp(0, size) as usize..end as usize
    };
    let columns = clip(left, width, image.width());
    let rows = clip(top, height, image.height());
    let stride = image.width() as usize * 3;
    for row in image.pixels_mut().chunks_exact_mut(stride).take(rows.end).skip(rows.start) {
        for pixel in row[columns.start * 3..columns.end.max(columns.start) * 3].as_chunks_mut::<3>().0 {
            *pixel = canvas.fill;
        }
    }
}
