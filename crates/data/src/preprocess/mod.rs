//! From an image to a network's input: timm's evaluation transform.
//!
//! timm resizes the whole image and crops afterwards. Here [`Geometry`] works out that crop first and
//! only its pixels are computed, from the box of the source that they cover: the same numbers, less
//! work, and no huge intermediate for an image of a million by one pixels.

mod geometry;
mod normalize;

use thiserror::Error;

pub use geometry::Geometry;
pub(crate) use normalize::Normalizer;

use crate::resize::{MAX_SIDE, Plan};
use crate::{Interpolation, RgbImage, SourceBox};

/// How the image is brought to the network's size; timm's `crop_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CropMode {
    /// Keep the aspect ratio, fill the frame, cut off what stands out.
    #[default]
    Center,
    /// Stretch to the frame: nothing lost, aspect ratio not kept.
    Squash,
    /// Keep the aspect ratio, fit inside the frame, fill the rest with the mean colour.
    Border,
}

impl CropMode {
    /// Reads timm's name: `center`, `squash` or `border`; `None` for any other.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "center" => Self::Center,
            "squash" => Self::Squash,
            "border" => Self::Border,
            _ => return None,
        })
    }

    /// timm's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Center => "center",
            Self::Squash => "squash",
            Self::Border => "border",
        }
    }
}

/// Why a [`Preprocess`] or a resize cannot run. Any image does; only the settings can be wrong.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// A side of the result is out of range.
    #[error("{height} x {width} (height x width) is not a usable size: each side must be 1 to {MAX_SIDE}")]
    Size {
        /// Rows asked for.
        height: u32,
        /// Columns asked for.
        width: u32,
    },
    /// The share of the resized image that the crop keeps is out of range.
    #[error("crop_pct {0} is out of range: it must lie between 0.01 and 10 (usually 0.8 to 1)")]
    CropPct(f64),
    /// A mean is not finite, or a standard deviation is not above 0.
    #[error("mean {mean:?} and std {std:?} must be finite, and std above 0")]
    Normalization {
        /// The means.
        mean: [f32; 3],
        /// The standard deviations.
        std: [f32; 3],
    },
    /// The slice to write into has the wrong length.
    #[error("the output holds {found} values, but {expected} are needed")]
    OutputLength {
        /// Values that the images need.
        expected: usize,
        /// Values that the slice holds.
        found: usize,
    },
    /// A setting of a training transform is out of range.
    #[error("{name} is out of range: it must be {rule}")]
    Setting {
        /// The setting, as in a recipe.
        name: &'static str,
        /// The values that work.
        rule: &'static str,
    },
    /// The box to resize is empty or leaves the image.
    #[error("{0:?} is empty or leaves the image")]
    SourceBox(SourceBox),
}

/// timm's evaluation transform (`create_transform(..., is_training=False)`), as plain settings.
///
/// The default is ResNet's: 224 x 224, `crop_pct` 0.875, bilinear, centre crop, ImageNet's mean and
/// standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// Height and width of the network's input, in pixels.
    pub size: (u32, u32),
    /// The share of the resized image's side that the crop keeps, as the decimal that the model's
    /// settings give (0.875). An `f64`, as in Python: 224 / 0.8 is 280, but 279.99 from an `f32`.
    pub crop_pct: f64,
    /// What happens to images of another aspect ratio.
    pub crop_mode: CropMode,
    /// The resize filter.
    pub interpolation: Interpolation,
    /// Mean of red, green, blue, on the scale 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue, on the scale 0 to 1.
    pub std: [f32; 3],
}

impl Default for Preprocess {
    fn default() -> Self {
        Self {
            size: (224, 224),
            crop_pct: 0.875,
            crop_mode: CropMode::Center,
            interpolation: Interpolation::Bilinear,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

impl Preprocess {
    /// Checks the settings alone; every other method does so too.
    ///
    /// # Errors
    /// If the size, `crop_pct`, mean or std cannot be used.
    pub fn check(&self) -> Result<(), PreprocessError> {
        let (height, width) = self.size;
        if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
            return Err(PreprocessError::Size { height, width });
        }
        if !(0.01..=10.0).contains(&self.crop_pct) {
            return Err(PreprocessError::CropPct(self.crop_pct));
        }
        let finite = self.mean.iter().chain(&self.std).all(|value| value.is_finite());
        if !finite || self.std.iter().any(|&std| std <= 0.0) {
            return Err(PreprocessError::Normalization { mean: self.mean, std: self.std });
        }
        Ok(())
    }

    /// How many values one image becomes: `3 * height * width`.
    #[must_use]
    pub fn output_len(&self) -> usize {
        3 * self.size.0 as usize * self.size.1 as usize
    }

    /// Resizes, crops and normalises one image: `[3, height, width]`.
    ///
    /// # Errors
    /// Only for unusable settings, see [`Preprocess::check`].
    pub fn run(&self, image: &RgbImage) -> Result<Vec<f32>, PreprocessError> {
        self.check()?;
        let mut output = vec![0.0; self.output_len()];
        self.run_into(image, &mut output)?;
        Ok(output)
    }

    /// As [`Preprocess::run`], into `output` of length [`Preprocess::output_len`].
    ///
    /// # Errors
    /// For unusable settings or another length.
    pub fn run_into(&self, image: &RgbImage, output: &mut [f32]) -> Result<(), PreprocessError> {
        self.expect_len(output.len(), 1)?;
        let cropped = self.crop(image)?;
        Normalizer::new(self.mean, self.std, [0.0; 3]).run(&cropped, false, output);
        Ok(())
    }

    /// Fills `output`, `[images, 3, height, width]`, with the images in their order.
    ///
    /// # Errors
    /// For unusable settings or another length.
    pub fn run_batch_into(&self, images: &[&RgbImage], output: &mut [f32]) -> Result<(), PreprocessError> {
        self.expect_len(output.len(), images.len())?;
        for (image, output) in images.iter().zip(output.chunks_exact_mut(self.output_len().max(1))) {
            self.run_into(image, output)?;
        }
        Ok(())
    }

    /// The picture that the network sees, before normalisation: `height` by `width` pixels.
    ///
    /// # Errors
    /// Only for unusable settings, see [`Preprocess::check`].
    pub fn crop(&self, image: &RgbImage) -> Result<RgbImage, PreprocessError> {
        self.check()?;
        let (height, width) = self.size;
        let geometry = self.geometry(image.width(), image.height())?;
        let (part, columns, rows) = resized_part(image, &geometry, self.size, self.interpolation)?;
        if (part.width(), part.height()) == (width, height) {
            return Ok(part);
        }
        let fill = self.fill();
        Ok(RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (x.wrapping_sub(columns.offset), y.wrapping_sub(rows.offset));
            if x < columns.count && y < rows.count { part.get(x, y) } else { fill }
        }))
    }

    /// Where an image of this size is resized to and cropped.
    ///
    /// # Errors
    /// Only for unusable settings, see [`Preprocess::check`].
    pub fn geometry(&self, width: u32, height: u32) -> Result<Geometry, PreprocessError> {
        self.check()?;
        Ok(Geometry::of(self, (height.max(1), width.max(1))))
    }

    /// The colour around an image that does not fill the frame: the mean, or black as torchvision has it.
    fn fill(&self) -> [u8; 3] {
        match self.crop_mode {
            CropMode::Border => self.mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even() as u8),
            CropMode::Center | CropMode::Squash => [0; 3],
        }
    }

    /// Resizes so that the shorter side becomes `side`, and crops to `size`, height and width, of which neither
    /// is above `side`. `offset` chooses the first row and the first column, given how many there are to spare.
    pub(crate) fn resize_and_crop(
        image: &RgbImage,
        side: u32,
        size: (u32, u32),
        interpolation: Interpolation,
        mut offset: impl FnMut(u32) -> u32,
    ) -> Result<RgbImage, PreprocessError> {
        let resized = geometry::shortest_edge((image.height(), image.width()), i64::from(side));
        let mut start =
            |resized: i64, size: u32| i64::from(offset((resized - i64::from(size)).max(0) as u32));
        let (top, left) = (start(resized.0, size.0), start(resized.1, size.1));
        Ok(resized_part(image, &Geometry { resized, top, left }, size, interpolation)?.0)
    }

    fn expect_len(&self, found: usize, images: usize) -> Result<(), PreprocessError> {
        self.check()?;
        let expected = self.output_len().saturating_mul(images);
        if found == expected { Ok(()) } else { Err(PreprocessError::OutputLength { expected, found }) }
    }
}

/// The visible part of a resized image, and where it lies in the crop of `size`, height and width.
fn resized_part(
    image: &RgbImage,
    geometry: &Geometry,
    (height, width): (u32, u32),
    interpolation: Interpolation,
) -> Result<(RgbImage, Visible, Visible), PreprocessError> {
    let columns = visible(geometry.left, width, geometry.resized.1, image.width());
    let rows = visible(geometry.top, height, geometry.resized.0, image.height());
    let source = SourceBox { left: columns.start, top: rows.start, width: columns.len, height: rows.len };
    let part = Plan {
        source,
        width: columns.count,
        height: rows.count,
        interpolation,
        vertical_first: Plan::vertical_first(image, (geometry.resized.1, geometry.resized.0)),
    }
    .run(image)?;
    Ok((part, columns, rows))
}

/// One axis of the crop: which of its pixels the resized image covers, and from where in the source.
struct Visible {
    /// Padding before the image, in pixels of the crop.
    offset: u32,
    /// Pixels of the crop that the image covers.
    count: u32,
    /// Start in the source, in its pixels.
    start: f64,
    /// Length in the source, in its pixels.
    len: f64,
}

/// `origin` is the crop's first pixel on the resized axis; it is negative where the crop is the larger.
fn visible(origin: i64, crop: u32, resized: i64, source: u32) -> Visible {
    let first = origin.max(0);
    let count = (origin + i64::from(crop)).min(resized) - first;
    let whole = f64::from(source);
    let scale = whole / resized as f64;
    // Rounding may put the end an ulp outside the source.
    let start = (first as f64 * scale).min(whole);
    let len = (count as f64 * scale).min(whole - start);
    Visible { offset: (first - origin) as u32, count: count as u32, start, len }
}
