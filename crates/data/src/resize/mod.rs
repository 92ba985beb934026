//! Antialiased resizing, bit for bit as Pillow does it.
//!
//! The filter's support grows with the reduction; weights are normalised per output pixel and rounded to
//! 22 bits; each axis is a pass of its own, rounded to 8 bits. Because bicubic and Lanczos overshoot and
//! are clamped after the first pass, the order of the passes shows at hard edges, by several grey levels,
//! and so it is Pillow's too: see [`Plan::vertical_first`].
//!
//! Published weights were measured with these roundings. A faster resizer exists (`fast_image_resize`,
//! 15-bit weights); it lands up to two levels off after an enlargement, and decoding takes longer than
//! either.

mod passes;
mod weights;

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{PreprocessError, RgbImage};
use weights::Weights;

/// The largest side that [`resize`] and [`Preprocess`](crate::Preprocess) produce, in pixels.
pub(crate) const MAX_SIDE: u32 = 16_384;

/// How pixels between the pixels are computed: Pillow's filter of the same name, always antialiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest pixel; no filter.
    Nearest,
    /// Triangle filter, support 1.
    #[default]
    Bilinear,
    /// Cubic filter with a = -0.5, support 2.
    Bicubic,
    /// Windowed sinc, support 3.
    Lanczos,
}

impl Interpolation {
    /// Reads timm's name: `nearest`, `bilinear`, `bicubic` or `lanczos`; `None` for any other.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "nearest" => Self::Nearest,
            "bilinear" => Self::Bilinear,
            "bicubic" => Self::Bicubic,
            "lanczos" => Self::Lanczos,
            _ => return None,
        })
    }

    /// timm's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        }
    }
}

/// The part of an image to resize, in pixels of that image; edges may fall between pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceBox {
    /// Left edge.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Width, above 0.
    pub width: f64,
    /// Height, above 0.
    pub height: f64,
}

impl SourceBox {
    /// The whole of `image`.
    #[must_use]
    pub fn whole(image: &RgbImage) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(image.width()), height: f64::from(image.height()) }
    }

    fn fits(&self, image: &RgbImage) -> bool {
        let (w, h) = (f64::from(image.width()), f64::from(image.height()));
        self.left >= 0.0
            && self.top >= 0.0
            && self.width > 0.0
            && self.height > 0.0
            && self.left + self.width <= w
            && self.top + self.height <= h
    }
}

/// Resizes the whole image: Pillow's `image.resize((width, height), interpolation)`.
///
/// # Errors
/// If a side of the result is 0 or above 16384.
pub fn resize(
    image: &RgbImage,
    width: u32,
    height: u32,
    interpolation: Interpolation,
) -> Result<RgbImage, PreprocessError> {
    resize_box(image, SourceBox::whole(image), width, height, interpolation)
}

/// Resizes a part of the image: Pillow's `image.resize((width, height), interpolation, box)`.
///
/// As in Pillow, pixels just outside the box still count under the filter, so resizing a box equals
/// resizing everything at the same scale and cropping afterwards.
///
/// # Errors
/// If a side of the result is 0 or above 16384, or if the box is empty or leaves the image.
pub fn resize_box(
    image: &RgbImage,
    source: SourceBox,
    width: u32,
    height: u32,
    interpolation: Interpolation,
) -> Result<RgbImage, PreprocessError> {
    let size = (i64::from(width), i64::from(height));
    let vertical_first = Plan::vertical_first(image, size);
    Plan { source, width, height, interpolation, vertical_first }.run(image)
}

/// One resize, all choices made.
pub(crate) struct Plan {
    pub(crate) source: SourceBox,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) interpolation: Interpolation,
    pub(crate) vertical_first: bool,
}

impl Plan {
    /// Whether Pillow runs the vertical pass first: since version 13, if the height shrinks by more than
    /// twice as many pixels as the width. (Older ones never do. With the aspect ratio kept it takes an
    /// image more than twice as high as wide to tell them apart.)
    ///
    /// `resized` is the width and height of the whole image after the resize, crops not counted.
    pub(crate) fn vertical_first(image: &RgbImage, resized: (i64, i64)) -> bool {
        let lost_width = i64::from(image.width()).saturating_sub(resized.0);
        let lost_height = i64::from(image.height()).saturating_sub(resized.1);
        lost_height > 0 && lost_height > lost_width.saturating_mul(2)
    }

    pub(crate) fn run(&self, image: &RgbImage) -> Result<RgbImage, PreprocessError> {
        let (width, height, source) = (self.width, self.height, self.source);
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(PreprocessError::Size { height, width });
        }
        if !source.fits(image) {
            return Err(PreprocessError::SourceBox(source));
        }
        let columns = Axis { from: source.left, len: source.width, size: image.width(), target: width };
        let rows = Axis { from: source.top, len: source.height, size: image.height(), target: height };
        if self.interpolation == Interpolation::Nearest {
            let (columns, rows) = (columns.nearest(), rows.nearest());
            let pixel = |x, y| image.get(columns[x as usize], rows[y as usize]);
            return Ok(RgbImage::from_fn(width, height, |x: u32, y: u32| pixel(x, y)));
        }
        let columns = columns.weights(self.interpolation);
        let mut rows = rows.weights(self.interpolation);
        let image = Cow::Borrowed(image);
        let image = if self.vertical_first {
            let all = 0..self.height;
            across(columns.as_ref(), all, down(rows.as_ref(), image))
        } else {
            // Only the rows that the second pass will read.
            let used = match (&columns, &mut rows) {
                (Some(_), Some(rows)) => rows.rebase(),
                _ => 0..image.height(),
            };
            let narrow = across(columns.as_ref(), used, image);
            down(rows.as_ref(), narrow)
        };
        Ok(image.into_owned())
    }
}

fn across<'a>(columns: Option<&Weights>, rows: Range<u32>, image: Cow<'a, RgbImage>) -> Cow<'a, RgbImage> {
    match columns {
        Some(columns) => Cow::Owned(passes::horizontal(&image, rows, columns)),
        None => image,
    }
}

fn down<'a>(rows: Option<&Weights>, image: Cow<'a, RgbImage>) -> Cow<'a, RgbImage> {
    match rows {
        Some(rows) => Cow::Owned(passes::vertical(&image, rows)),
        None => image,
    }
}

/// One axis of a resize: `len` pixels of `size`, starting at `from`, become `target` pixels.
struct Axis {
    from: f64,
    len: f64,
    size: u32,
    target: u32,
}

impl Axis {
    /// `None` if nothing changes along this axis.
    fn weights(&self, interpolation: Interpolation) -> Option<Weights> {
        let unchanged = self.target == self.size && self.from == 0.0 && self.len == f64::from(self.size);
        (!unchanged).then(|| Weights::new(self, interpolation))
    }

    /// The pixel that each target pixel's middle falls into; added up in steps, as Pillow does.
    fn nearest(&self) -> Vec<u32> {
        let step = self.len / f64::from(self.target);
        let mut at = self.from + step * 0.5;
        let mut next = || {
            let index = at as u32;
            at += step;
            index.min(self.size - 1)
        };
        (0..self.target).map(|_| next()).collect()
    }
}
