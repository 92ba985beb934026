use std::sync::OnceLock;

/// Published weights, and how images are prepared for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrained {
    /// The network.
    pub model: String,
    /// Which weights; empty where none are published.
    pub tag: String,
    /// Side of the square input, in pixels.
    pub size: usize,
    /// Side that gave the best published accuracy, where it differs.
    pub test_size: Option<usize>,
    /// The crop's side as a share of the resized image's.
    pub crop_pct: f64,
    /// The same for `test_size`.
    pub test_crop_pct: Option<f64>,
    /// How the image becomes a square.
    pub crop_mode: CropMode,
    /// The filter of the resize.
    pub interpolation: Interpolation,
    /// Subtracted from red, green and blue in [0, 1].
    pub mean: [f32; 3],
    /// Divides the difference.
    pub std: [f32; 3],
    /// Classes of the classifier; 0 for weights without one.
    pub num_classes: usize,
}

/// How an image becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropMode {
    /// Resize the shorter side, crop the centre.
    Center,
    /// Resize both sides, whatever the proportions.
    Squash,
    /// Resize the longer side, fill the border.
    Border,
}

/// The filter of a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// A triangle.
    Bilinear,
    /// A cubic with a = -0.5.
    Bicubic,
}

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

impl Pretrained {
    /// The id on the Hugging Face hub.
    pub fn hub_id(&self) -> String {
        format!("timm/{}.{}", self.model, self.tag)
    }

    /// The preparation for a network without published weights: `unit` range as in TResNet, or ImageNet statistics.
    pub(super) fn unpublished(model: &str, size: usize, unit: bool) -> Self {
        let (mean, std) = if unit { ([0.0; 3], [1.0; 3]) } else { (IMAGENET_MEAN, IMAGENET_STD) };
        Self {
            model: model.into(),
            tag: String::new(),
            size,
            test_size: None,
            crop_pct: 0.875,
            test_crop_pct: None,
            crop_mode: CropMode::Center,
            interpolation: Interpolation::Bilinear,
            mean,
            std,
            num_classes: 1000,
        }
    }

    /// Reads a line of the table; `None` if it is not of its form.
    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[model, tag, size, test_size, crop_pct, test_crop_pct, crop_mode, filter, mean, std, classes] =
            columns.as_slice()
        else {
            return None;
        };
        let optional = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
        Some(Self {
            model: model.into(),
            tag: tag.into(),
            size: size.parse().ok()?,
            test_size: optional(test_size)?.map(|size: f64| size as usize),
            crop_pct: crop_pct.parse().ok()?,
            test_crop_pct: optional(test_crop_pct)?,
            crop_mode: match crop_mode {
                "center" => CropMode::Center,
                "squash" => CropMode::Squash,
                "border" => CropMode::Border,
                _ => return None,
            },
            interpolation: match filter {
                "bilinear" => Interpolation::Bilinear,
                "bicubic" => Interpolation::Bicubic,
                _ => return None,
            },
            mean: triple(mean)?,
            std: triple(std)?,
            num_classes: classes.parse().ok()?,
        })
    }
}

fn triple(text: &str) -> Option<[f32; 3]> {
    let values: Vec<f32> = text.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    values.try_into().ok()
}

/// All published weights; of each network the default ones first.
pub(super) fn all() -> &'static [Pretrained] {
    static TABLE: OnceLock<Vec<Pretrained>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("pretrained.tsv").lines().filter(|line| !line.starts_with('#'));
        // A malformed line would be a mistake in this repository, which the test below finds.
        lines.filter_map(Pretrained::parse).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_well_formed() {
        let lines = include_str!("pretrained.tsv").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let row = Pretrained::parse(line).unwrap_or_else(|| panic!("malformed: {line}"));
            assert!(row.size > 0 && row.crop_pct > 0.0 && row.crop_pct <= 1.0, "{row:?}");
        }
        assert!(all().len() > 50);
    }
}
