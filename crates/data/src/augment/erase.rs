//! Parts taken away: Cutout on pixels, random erasing on normalised values.

use serde::{Deserialize, Serialize};

use super::{Canvas, Operation};
use crate::{Random, RgbImage};

/// What fills the box of [`Cutout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutoutFill {
    /// One random colour per image, as in the public code of TResNet's authors.
    #[default]
    Random,
    /// The mean colour, which normalises to zero, as in the paper of Cutout.
    Mean,
}

/// Cutout (DeVries and Taylor, arXiv:1708.04552): a box about a random point of the image, cut at the border.
///
/// TResNet's paper (section 4.1) uses it without saying its size; the default is the size and the colour of
/// the same authors' later public code.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cutout {
    /// The box's sides as shares of the image's. Default 0.5.
    pub factor: f64,
    /// Its colour. Default random.
    pub fill: CutoutFill,
}

impl Default for Cutout {
    fn default() -> Self {
        Self { factor: 0.5, fill: CutoutFill::Random }
    }
}

impl Cutout {
    /// Draws the box and the colour, and fills it. `mean` is the colour for [`CutoutFill::Mean`].
    pub fn apply(&self, image: &mut RgbImage, mean: [u8; 3], random: &mut Random) {
        let side = |side: u32| (self.factor * f64::from(side) + 0.5) as u32;
        let (width, height) = (side(image.width()), side(image.height()));
        let mut start = |len: u32, cut: u32| random.below(u64::from(len)) as i64 - i64::from(cut / 2);
        let (top, left) = (start(image.height(), height), start(image.width(), width));
        let fill = match self.fill {
            CutoutFill::Mean => mean,
            CutoutFill::Random => std::array::from_fn(|_| random.below(256) as u8),
        };
        let canvas = Canvas { fill, ..Canvas::default() };
        Operation::Cutout { left, top, width, height }.apply(image, &canvas);
    }
}

/// What random erasing writes; timm's `--remode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EraseMode {
    /// Zero, the mean colour.
    Const,
    /// One normal value per channel and box.
    Rand,
    /// A normal value per pixel and channel.
    #[default]
    Pixel,
}

/// Random erasing (Zhong et al., arXiv:1708.04896) as timm does it, on normalised values.
///
/// The default is that of TResNet's published timm command: probability 0.4, per pixel. (timm's own default
/// for the probability is 0.)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomErasing {
    /// How likely an image is changed; timm's `--reprob`. Default 0.4.
    pub probability: f64,
    /// What is written. Default per pixel.
    pub mode: EraseMode,
    /// The most boxes per image, which share the area; their number is drawn. timm's `--recount`. Default 1.
    pub count: u32,
    /// The least share of the image's area. Default 0.02.
    pub min_area: f64,
    /// The largest share of the image's area. Default 1/3.
    pub max_area: f64,
    /// The least ratio of height to width; its inverse is the largest. Default 0.3.
    pub min_aspect: f64,
}

impl Default for RandomErasing {
    fn default() -> Self {
        Self {
            probability: 0.4,
            mode: EraseMode::Pixel,
            count: 1,
            min_area: 0.02,
            max_area: 1.0 / 3.0,
            min_aspect: 0.3,
        }
    }
}

/// A box of an image in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PixelBox {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl RandomErasing {
    /// Draws whether, where and what, and writes it into `values`, `[3, height, width]`.
    pub fn apply(&self, values: &mut [f32], (height, width): (u32, u32), random: &mut Random) {
        if !random.chance(self.probability) {
            return;
        }
        let count = 1 + random.below(u64::from(self.count.max(1)));
        for _ in 0..count {
            if let Some(part) = self.draw((height, width), count as f64, random) {
                self.fill(values, (height, width), part, random);
            }
        }
    }

    /// A box, or `None` if ten tries give none that fits.
    fn draw(&self, (height, width): (u32, u32), count: f64, random: &mut Random) -> Option<PixelBox> {
        let area = f64::from(height) * f64::from(width);
        let aspect = self.min_aspect.ln();
        (0..10).find_map(|_| {
            let target = random.uniform(self.min_area, self.max_area) * area / count;
            let ratio = random.uniform(aspect, -aspect).exp();
            let h = (target * ratio).sqrt().round_ties_even() as u32;
            let w = (target / ratio).sqrt().round_ties_even() as u32;
            (h < height && w < width).then(|| PixelBox {
                top: random.below(u64::from(height - h) + 1) as u32,
                left: random.below(u64::from(width - w) + 1) as u32,
                width: w,
                height: h,
            })
        })
    }

    fn fill(&self, values: &mut [f32], (height, width): (u32, u32), part: PixelBox, random: &mut Random) {
        let (stride, left) = (width as usize, part.left as usize);
        let rows = part.top as usize..(part.top + part.height) as usize;
        for plane in values.chunks_exact_mut((stride * height as usize).max(1)) {
            let color = if self.mode == EraseMode::Rand { random.normal() as f32 } else { 0.0 };
            for row in plane.chunks_exact_mut(stride).take(rows.end).skip(rows.start) {
                let row = &mut row[left..left + part.width as usize];
                match self.mode {
                    EraseMode::Const | EraseMode::Rand => row.fill(color),
                    EraseMode::Pixel => row.fill_with(|| random.normal() as f32),
                }
            }
        }
    }
}
