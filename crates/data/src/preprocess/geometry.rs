//! The sizes and offsets of timm's evaluation transform, rounding included.
//!
//! timm composes them from torchvision parts that round differently: `Resize` truncates the long side,
//! `ResizeKeepRatio` rounds both (half to even, Python's `round`), and `CenterCrop` rounds the offset
//! (half to even) when it cuts but floors it when it pads.

use super::{CropMode, Preprocess};

/// Where an image goes: its size after the resize, and the crop's corner in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the whole image after the resize.
    pub resized: (i64, i64),
    /// The crop's first row; negative where the image is lower than the crop, which is then padded.
    pub top: i64,
    /// The crop's first column; negative where the image is narrower than the crop.
    pub left: i64,
}

impl Geometry {
    /// `image` is height and width.
    pub(super) fn of(preprocess: &Preprocess, image: (u32, u32)) -> Self {
        let (height, width) = preprocess.size;
        let target = (scaled(height, preprocess.crop_pct), scaled(width, preprocess.crop_pct));
        let resized = match preprocess.crop_mode {
            CropMode::Squash => target,
            CropMode::Border => keep_ratio(image, target, f64::max),
            CropMode::Center if target.0 == target.1 => shortest_edge(image, target.0),
            CropMode::Center => keep_ratio(image, target, f64::min),
        };
        Self { resized, top: center(resized.0, height), left: center(resized.1, width) }
    }
}

/// The size to resize to, so that the crop is `crop_pct` of it. At least 1, where Python would fail.
fn scaled(size: u32, crop_pct: f64) -> i64 {
    ((f64::from(size) / crop_pct).floor() as i64).max(1)
}

/// torchvision's `Resize(int)`: the short side becomes `target`, the long one is truncated.
pub(super) fn shortest_edge((height, width): (u32, u32), target: i64) -> (i64, i64) {
    let (short, long) = (height.min(width), height.max(width));
    let long = (target as f64 * f64::from(long) / f64::from(short)) as i64;
    if width <= height { (long, target) } else { (target, long) }
}

/// timm's `ResizeKeepRatio`: fill the target (`pick` is min) or fit inside it (max).
fn keep_ratio(image: (u32, u32), target: (i64, i64), pick: fn(f64, f64) -> f64) -> (i64, i64) {
    let (height, width) = (f64::from(image.0), f64::from(image.1));
    let ratio = pick(height / target.0 as f64, width / target.1 as f64);
    // At least 1: for a line of pixels timm computes 0 here, and Pillow then refuses.
    let side = |length: f64| ((length / ratio).round_ties_even() as i64).max(1);
    (side(height), side(width))
}

/// The first row or column of a centred crop; negative for padding.
fn center(image: i64, crop: u32) -> i64 {
    let spare = image - i64::from(crop);
    if spare >= 0 { (spare as f64 / 2.0).round_ties_even() as i64 } else { -(-spare / 2) }
}
