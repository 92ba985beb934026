//! The whole transform of a training image, as settings.

use serde::{Deserialize, Serialize};

use super::crop::random_resized;
use super::erase::PixelBox;
use super::{AutoAugment, Canvas, ColorJitter, Crop, Cutout, PcaLighting, RandAugment, RandomErasing};
use crate::preprocess::Normalizer;
use crate::resize::MAX_SIDE;
use crate::{
    DataError, DataErrorKind, Decoder, Interpolation, Picture, Preprocess, PreprocessError, Random, RgbImage,
    resize,
};

/// The filter of a training image's resize; timm's `--train-interpolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropFilter {
    /// The nearest pixel.
    Nearest,
    /// Triangle.
    #[default]
    Bilinear,
    /// Cubic.
    Bicubic,
    /// Windowed sinc.
    Lanczos,
    /// Bilinear or bicubic, drawn per use.
    Random,
}

impl CropFilter {
    fn draw(self, random: &mut Random) -> Interpolation {
        match self {
            Self::Nearest => Interpolation::Nearest,
            Self::Bilinear => Interpolation::Bilinear,
            Self::Bicubic => Interpolation::Bicubic,
            Self::Lanczos => Interpolation::Lanczos,
            Self::Random if random.chance(0.5) => Interpolation::Bilinear,
            Self::Random => Interpolation::Bicubic,
        }
    }
}

/// When AutoAugment and RandAugment run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyPlace {
    /// On the cropped, flipped image, as in timm and torchvision: the cheaper one.
    #[default]
    AfterCrop,
    /// On the whole image, as in ResNeSt's Gluon code.
    BeforeCrop,
}

/// From an image to a network's input, in training: timm's `create_transform(..., is_training=True)` and what
/// the papers add to it, in this order.
///
/// Policy (if it goes first), crop and resize, flips, Cutout, policy, colour jitter, lighting, normalisation,
/// random erasing. What is `None` is off. The default is ResNet's: 224 x 224, random resized crop, bilinear,
/// flip, ImageNet's mean and standard deviation, nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainTransform {
    /// Height and width of the network's input, in pixels.
    pub size: (u32, u32),
    /// How the image is brought to that size.
    pub crop: Crop,
    /// The filter for that, and for what policies turn and shear.
    pub interpolation: CropFilter,
    /// The probability of a left-right flip. Default 0.5.
    pub hflip: f64,
    /// The probability of an upside-down flip. Default 0.
    pub vflip: f64,
    /// When the two policies run.
    pub policy_place: PolicyPlace,
    /// AutoAugment.
    pub auto_augment: Option<AutoAugment>,
    /// RandAugment.
    pub rand_augment: Option<RandAugment>,
    /// Cutout.
    pub cutout: Option<Cutout>,
    /// Brightness, contrast, saturation and hue.
    pub color_jitter: Option<ColorJitter>,
    /// AlexNet's lighting noise.
    pub pca_lighting: Option<PcaLighting>,
    /// Random erasing.
    pub random_erasing: Option<RandomErasing>,
    /// Mean of red, green, blue, on the scale 0 to 1. TResNet: zeros.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue, on the scale 0 to 1. TResNet: ones.
    pub std: [f32; 3],
}

impl Default for TrainTransform {
    fn default() -> Self {
        let Preprocess { size, mean, std, .. } = Preprocess::default();
        Self {
            size,
            crop: Crop::default(),
            interpolation: CropFilter::Bilinear,
            hflip: 0.5,
            vflip: 0.0,
            policy_place: PolicyPlace::AfterCrop,
            auto_augment: None,
            rand_augment: None,
            cutout: None,
            color_jitter: None,
            pca_lighting: None,
            random_erasing: None,
            mean,
            std,
        }
    }
}

impl TrainTransform {
    /// Checks the settings alone; [`TrainTransform::apply`] does so too.
    ///
    /// # Errors
    /// Names the setting that cannot be used.
    pub fn check(&self) -> Result<(), PreprocessError> {
        let evaluation =
            Preprocess { size: self.size, mean: self.mean, std: self.std, ..Preprocess::default() };
        evaluation.check()?;
        let setting = |good: bool, name: &'static str, rule: &'static str| {
            if good { Ok(()) } else { Err(PreprocessError::Setting { name, rule }) }
        };
        let probability = |name, value: f64| setting((0.0..=1.0).contains(&value), name, "between 0 and 1");
        probability("hflip", self.hflip)?;
        probability("vflip", self.vflip)?;
        match self.crop {
            Crop::RandomResized { scale: [from, to], ratio: [narrow, wide] } => {
                setting(0.0 < from && from <= to && to <= 1.0, "crop.scale", "from above 0 up to at most 1")?;
                setting(
                    0.0 < narrow && narrow <= wide && wide.is_finite(),
                    "crop.ratio",
                    "from above 0 up to a number",
                )?;
            }
            Crop::ShorterSide { min, max } => {
                let side = self.size.0.max(self.size.1);
                setting(side <= min, "crop.min", "at least the sides of the size")?;
                setting(min <= max && max <= MAX_SIDE, "crop.max", "from crop.min to 16384")?;
            }
            Crop::Squash => {}
            Crop::Pad { padding } => setting(padding <= MAX_SIDE, "crop.padding", "at most 16384")?,
        }
        if let Some(ColorJitter { brightness, contrast, saturation, hue }) = self.color_jitter {
            let range = [brightness, contrast, saturation].iter().all(|range| (0.0..=100.0).contains(range));
            setting(range, "color_jitter", "from 0 to 100")?;
            setting((0.0..=0.5).contains(&hue), "color_jitter.hue", "from 0 to 0.5")?;
        }
        if let Some(PcaLighting { std }) = self.pca_lighting {
            setting((0.0..=100.0).contains(&std), "pca_lighting.std", "from 0 to 100")?;
        }
        if let Some(Cutout { factor, .. }) = self.cutout {
            setting((0.0..=2.0).contains(&factor), "cutout.factor", "from 0 to 2")?;
        }
        if let Some(AutoAugment { magnitude_std, .. }) = self.auto_augment {
            setting(magnitude_std >= 0.0, "auto_augment.magnitude_std", "at least 0")?;
        }
        if let Some(rand) = &self.rand_augment {
            probability("rand_augment.probability", rand.probability)?;
            setting((0.0..=30.0).contains(&rand.magnitude), "rand_augment.magnitude", "from 0 to 30")?;
            setting(
                (0.0..=30.0).contains(&rand.magnitude_max),
                "rand_augment.magnitude_max",
                "from 0 to 30",
            )?;
            setting(rand.magnitude_std >= 0.0, "rand_augment.magnitude_std", "at least 0")?;
            setting(rand.layers <= 100, "rand_augment.layers", "at most 100")?;
        }
        if let Some(erasing) = &self.random_erasing {
            probability("random_erasing.probability", erasing.probability)?;
            let area =
                0.0 <= erasing.min_area && erasing.min_area <= erasing.max_area && erasing.max_area <= 1.0;
            setting(area, "random_erasing.max_area", "from random_erasing.min_area to 1")?;
            let aspect = 0.0 < erasing.min_aspect && erasing.min_aspect <= 1.0;
            setting(aspect, "random_erasing.min_aspect", "above 0, at most 1")?;
        }
        Ok(())
    }

    /// How many values one image becomes: `3 * height * width`.
    #[must_use]
    pub fn output_len(&self) -> usize {
        3 * self.size.0 as usize * self.size.1 as usize
    }

    /// Decodes, transforms and normalises one image into `out`, `[3, height, width]`.
    ///
    /// # Errors
    /// As [`Decoder::decode_bytes`], for unusable settings, or if `out` has another length than
    /// [`TrainTransform::output_len`].
    pub fn apply(
        &self,
        picture: &Picture,
        random: &mut Random,
        decoder: &Decoder,
        out: &mut [f32],
    ) -> Result<(), DataError> {
        let name = picture.name();
        let unusable = |error| DataError::new(name, DataErrorKind::Transform(error));
        self.check().map_err(unusable)?;
        let expected = self.output_len();
        if out.len() != expected {
            return Err(unusable(PreprocessError::OutputLength { expected, found: out.len() }));
        }
        let (image, flip) = self.pixels(picture, random, decoder)?;
        let shift = self.pca_lighting.map_or([0.0; 3], |lighting| lighting.draw(random));
        Normalizer::new(self.mean, self.std, shift).run(&image, flip, out);
        if let Some(erasing) = &self.random_erasing {
            erasing.apply(out, self.size, random);
        }
        Ok(())
    }

    /// The picture before lighting, normalisation and random erasing: `height` by `width` pixels.
    ///
    /// # Errors
    /// As [`TrainTransform::apply`].
    pub fn augment(
        &self,
        picture: &Picture,
        random: &mut Random,
        decoder: &Decoder,
    ) -> Result<RgbImage, DataError> {
        self.check().map_err(|error| DataError::new(picture.name(), DataErrorKind::Transform(error)))?;
        let (mut image, flip) = self.pixels(picture, random, decoder)?;
        if flip {
            image.flip_horizontal();
        }
        Ok(image)
    }

    /// The picture, and whether a left-right flip is left to do (the normalisation does it on the way).
    fn pixels(
        &self,
        picture: &Picture,
        random: &mut Random,
        decoder: &Decoder,
    ) -> Result<(RgbImage, bool), DataError> {
        let mut image = match self.policy_place {
            PolicyPlace::AfterCrop => self.crop(picture, random, decoder)?,
            PolicyPlace::BeforeCrop => {
                let mut image = picture.decode(decoder)?.into_owned();
                self.apply_policies(&mut image, random);
                self.crop(&Picture::Pixels(image), random, decoder)?
            }
        };
        let (flip, turn) = (random.chance(self.hflip), random.chance(self.vflip));
        if turn {
            image.flip_vertical();
        }
        // Colour jitter does not care which side is left; what follows a policy may.
        let policies = self.auto_augment.is_some() || self.rand_augment.is_some();
        let flip_now = flip && policies && self.policy_place == PolicyPlace::AfterCrop;
        if flip_now {
            image.flip_horizontal();
        }
        if let Some(cutout) = &self.cutout {
            cutout.apply(&mut image, self.mean_color(), random);
        }
        if self.policy_place == PolicyPlace::AfterCrop {
            self.apply_policies(&mut image, random);
        }
        if let Some(jitter) = &self.color_jitter {
            jitter.apply(&mut image, random);
        }
        Ok((image, flip && !flip_now))
    }

    fn apply_policies(&self, image: &mut RgbImage, random: &mut Random) {
        let mut canvas =
            || Canvas { fill: self.mean_color(), interpolation: self.interpolation.draw(random) };
        let canvas = canvas();
        if let Some(policy) = &self.auto_augment {
            policy.apply(image, &canvas, random);
        }
        if let Some(policy) = &self.rand_augment {
            policy.apply(image, &canvas, random);
        }
    }

    /// The mean as a colour; timm fills with it.
    fn mean_color(&self) -> [u8; 3] {
        self.mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even() as u8)
    }

    /// Crops and resizes to the size.
    fn crop(&self, picture: &Picture, random: &mut Random, decoder: &Decoder) -> Result<RgbImage, DataError> {
        let (height, width) = self.size;
        let unusable = |error| DataError::new(picture.name(), DataErrorKind::Transform(error));
        match self.crop {
            Crop::RandomResized { scale, ratio } => {
                let part = picture.decode_part(decoder, |size| {
                    let PixelBox { left, top, width, height } = random_resized(size, scale, ratio, random);
                    [left, top, width, height]
                })?;
                resize(&part, width, height, self.interpolation.draw(random)).map_err(unusable)
            }
            Crop::ShorterSide { min, max } => {
                let image = picture.decode(decoder)?;
                let side = min + random.below(u64::from(max - min) + 1) as u32;
                let interpolation = self.interpolation.draw(random);
                Preprocess::resize_and_crop(&image, side, self.size, interpolation, |spare| {
                    random.below(u64::from(spare) + 1) as u32
                })
                .map_err(unusable)
            }
            Crop::Squash => {
                let image = picture.decode(decoder)?;
                resize(&image, width, height, self.interpolation.draw(random)).map_err(unusable)
            }
            Crop::Pad { padding } => {
                let image = picture.decode(decoder)?;
                let image =
                    resize(&image, width, height, self.interpolation.draw(random)).map_err(unusable)?;
                let mut offset = || random.below(2 * u64::from(padding) + 1) as i64 - i64::from(padding);
                let (top, left) = (offset(), offset());
                Ok(RgbImage::from_fn(width, height, |x, y| {
                    let (x, y) = (i64::from(x) + left, i64::from(y) + top);
                    let inside = (0..i64::from(width)).contains(&x) && (0..i64::from(height)).contains(&y);
                    if inside { image.get(x as u32, y as u32) } else { [0; 3] }
                }))
            }
        }
    }
}
