//! Every network as a row of numbers with its source, and the published weights.

mod mobile;
mod pretrained;
mod resnest;
mod resnet;
mod tresnet;

pub use pretrained::{CropMode, Interpolation, Pretrained};

use crate::ModelError;
use crate::backbones::{
    EfficientNetConfig, FbNetConfig, RegNetConfig, ResNetConfig, Stem, TResNetConfig, TResNetStem,
};

/// A network: its name, its numbers and where they come from.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// timm's name, or one of the same pattern where timm has no such network.
    pub name: &'static str,
    /// The family and its numbers.
    pub arch: Arch,
    /// Side of the input image that it was made for.
    pub size: usize,
    /// Where the numbers come from.
    pub source: &'static str,
}

/// A family with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arch {
    /// ResNet, ResNet-D, ResNeXt, SENet, SKNet, ResNeSt.
    ResNet(ResNetConfig),
    /// TResNet.
    TResNet(TResNetConfig),
    /// RegNetY and RegNet-SA.
    RegNet(RegNetConfig),
    /// EfficientNet and MixNet.
    EfficientNet(EfficientNetConfig),
    /// FBNetV2 and SA-FBNetV2.
    FbNet(FbNetConfig),
}

impl Arch {
    /// Name of the classifier in a checkpoint.
    pub fn classifier(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "fc",
            Self::TResNet(_) | Self::RegNet(_) => "head.fc",
            Self::EfficientNet(_) | Self::FbNet(_) => "classifier",
        }
    }

    /// Name of the first convolution's weight, and how many of its inputs each image channel has.
    pub(crate) fn first_conv(&self) -> (&'static str, usize) {
        match self {
            Self::ResNet(ResNetConfig { stem: Stem::Conv7, .. }) => ("conv1.weight", 1),
            Self::ResNet(ResNetConfig { stem: Stem::Deep(_), .. }) => ("conv1.0.weight", 1),
            Self::TResNet(TResNetConfig { stem: TResNetStem::Conv7, .. }) => ("body.conv1.conv.weight", 1),
            Self::TResNet(_) => ("body.conv1.conv.weight", 16),
            Self::RegNet(_) => ("stem.conv.weight", 1),
            Self::EfficientNet(_) => ("conv_stem.weight", 1),
            Self::FbNet(_) => ("conv_stem.conv.weight", 1),
        }
    }

    /// What divides the sides of the input, and the least that they can be.
    pub(crate) fn input_sizes(&self) -> (usize, usize) {
        match self {
            // Blur pooling mirrors a row, so each of the three downsampled maps needs two.
            Self::TResNet(TResNetConfig { anti_alias: true, .. }) => (4, 20),
            Self::TResNet(TResNetConfig { stem: TResNetStem::SpaceToDepth { .. }, .. }) => (4, 4),
            Self::ResNet(ResNetConfig { ceil_pool: true, .. }) => (1, 5),
            _ => (1, 1),
        }
    }
}

impl Variant {
    /// Side of the smallest change in the input's sides that the network can take.
    pub fn size_multiple(&self) -> usize {
        self.arch.input_sizes().0
    }

    /// The published weights, the default first.
    pub fn pretrained(&self) -> impl Iterator<Item = &'static Pretrained> {
        let name = self.name;
        pretrained::all().iter().filter(move |row| row.model == name)
    }

    /// How images are prepared for the default weights, or, where none are published, as the family's are.
    pub fn preprocessing(&self) -> Pretrained {
        self.pretrained().next().cloned().unwrap_or_else(|| {
            let unit = matches!(self.arch, Arch::TResNet(_));
            Pretrained::unpublished(self.name, self.size, unit)
        })
    }
}

/// All networks, family by family.
pub fn variants() -> impl Iterator<Item = &'static Variant> {
    [resnest::VARIANTS, tresnet::VARIANTS, resnet::VARIANTS, mobile::VARIANTS].into_iter().flatten()
}

/// Other names: the authors' own.
const ALIASES: [(&str, &str); 14] = [
    ("resnest14", "resnest14d"),
    ("resnest26", "resnest26d"),
    ("resnest50", "resnest50d"),
    ("resnest101", "resnest101e"),
    ("resnest200", "resnest200e"),
    ("resnest269", "resnest269e"),
    ("resnest50_fast_4s2x40d", "resnest50d_4s2x40d"),
    ("resnest50_fast_1s4x24d", "resnest50d_1s4x24d"),
    ("resnest50_fast", "resnest50_fast_2s1x64d"),
    ("resnest50_fast_0s1x64d", "resnet50d"),
    ("senet50", "seresnext50_32x4d"),
    ("sknet50", "skresnext50_32x4d"),
    ("regnety_4gf", "regnety_040"),
    ("tresnet_l_v2", "tresnet_v2_l"),
];

/// The network called `name`: a row's name, an alias, or either with a tag behind a dot.
///
/// # Errors
///
/// [`ModelError::Unknown`] with the most similar names.
pub fn find(name: &str) -> Result<&'static Variant, ModelError> {
    let (plain, _) = split_tag(name);
    let plain = ALIASES.iter().find(|(alias, _)| *alias == plain).map_or(plain, |(_, target)| target);
    variants()
        .find(|variant| variant.name == plain)
        .ok_or_else(|| ModelError::Unknown { name: name.into(), nearest: nearest(plain) })
}

/// The network and the published weights that `name` (`model` or `model.tag`) stands for; without a tag, the default
/// weights, if any are published.
///
/// # Errors
///
/// The model or its tag is unknown.
pub fn find_pretrained(name: &str) -> Result<(&'static Variant, Option<&'static Pretrained>), ModelError> {
    let variant = find(name)?;
    let (_, tag) = split_tag(name);
    let Some(tag) = tag else {
        return Ok((variant, variant.pretrained().next()));
    };
    match variant.pretrained().find(|row| row.tag == tag) {
        Some(row) => Ok((variant, Some(row))),
        None => Err(ModelError::UnknownTag {
            model: variant.name.into(),
            tag: tag.into(),
            known: variant.pretrained().map(|row| row.tag.clone()).collect(),
        }),
    }
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.split_once('.') {
        Some((model, tag)) => (model, Some(tag)),
        None => (name, None),
    }
}

/// The names most like `name`, at most three, none that is unlike it.
fn nearest(name: &str) -> Vec<&'static str> {
    let mut scored: Vec<(f64, &'static str)> = variants()
        .map(|variant| variant.name)
        .chain(ALIASES.map(|(alias, _)| alias))
        .map(|known| (strsim::jaro_winkler(known, &name.to_lowercase()), known))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_aliases_lead_to_them() {
        let names: HashSet<_> = variants().map(|variant| variant.name).collect();
        assert_eq!(names.len(), variants().count());
        for (alias, target) in ALIASES {
            assert!(!names.contains(alias), "{alias} is a name already");
            assert_eq!(find(alias).unwrap().name, target);
        }
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let error = find("resnest50e").unwrap_err().to_string();
        assert!(error.contains("unknown model 'resnest50e'; did you mean 'resnest50"), "{error}");
        assert!(find("zzz").unwrap_err().to_string().contains("cardinal models"));
    }

    #[test]
    fn tags_choose_published_weights() {
        let (variant, weights) = find_pretrained("resnest50d.in1k").unwrap();
        assert_eq!((variant.name, weights.unwrap().tag.as_str()), ("resnest50d", "in1k"));
        let error = find_pretrained("resnest50d.in22k").unwrap_err().to_string();
        assert!(error.contains("no published weights 'in22k'; it has 'in1k'"), "{error}");
        assert!(find_pretrained("tresnet_ablation_se").unwrap().1.is_none());
    }

    #[test]
    fn every_published_row_belongs_to_a_network() {
        let names: HashSet<_> = variants().map(|variant| variant.name).collect();
        for row in pretrained::all() {
            assert!(names.contains(row.model.as_str()), "{} has weights but no row", row.model);
        }
        let defaults: Vec<_> = variants().filter_map(|variant| variant.pretrained().next()).collect();
        assert!(defaults.len() > 50 && defaults.iter().all(|row| row.num_classes > 0));
    }
}
