//! SENets of `pretrained-models.pytorch`: the stem is `layer0`, the attention `se_module`, the classifier
//! `last_linear`.

use super::{Converted, Naming, not_a, rename};
use crate::error::{Result, WeightsErrorKind};
use crate::tensor::NamedTensors;

/// Stem of three 3x3 convolutions (SENet-154), legacy and timm.
const DEEP_STEM: [(&str, &str); 6] = [
    ("layer0.conv1.", "conv1.0."),
    ("layer0.bn1.", "conv1.1."),
    ("layer0.conv2.", "conv1.3."),
    ("layer0.bn2.", "conv1.4."),
    ("layer0.conv3.", "conv1.6."),
    ("layer0.bn3.", "bn1."),
];
/// Stem of one 7x7 convolution (SE-ResNeXt).
const PLAIN_STEM: [(&str, &str); 2] = [("layer0.conv1.", "conv1."), ("layer0.bn1.", "bn1.")];

const NOTE: &str = "the legacy networks max-pool after the stem without padding (rounding up), timm's with padding 1: \
                    results agree closely, not exactly";

pub(super) fn to_timm(tensors: NamedTensors) -> Result<Converted> {
    let deep = tensors.contains("layer0.conv2.weight");
    if !deep && is_legacy_resnet(&tensors) {
        return Err(WeightsErrorKind::Naming(
            "a legacy SE-ResNet takes its stride in the first 1x1 convolution, which timm's seresnet does not; \
             use the seresnet weights of timm"
                .to_owned(),
        ));
    }
    let stem: &[_] = if deep { &DEEP_STEM } else { &PLAIN_STEM };
    let mut converted = rename(Naming::LegacySenet, tensors, |name| {
        let in_stem = stem.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
        Some(in_stem.unwrap_or_else(|| name.replace(".se_module.", ".se.").replace("last_linear.", "fc.")))
    })?;
    converted.note = Some(NOTE);
    Ok(converted)
}

pub(super) fn from_timm(tensors: NamedTensors) -> Result<Converted> {
    let deep = tensors.contains("conv1.6.weight");
    if !tensors.contains("layer1.0.se.fc1.weight") {
        return not_a("SENet", "layer1.0.se.fc1.weight");
    }
    let stem: &[_] = if deep { &DEEP_STEM } else { &PLAIN_STEM };
    rename(Naming::LegacySenet, tensors, |name| {
        let in_stem = stem.iter().find_map(|(old, new)| Some(format!("{old}{}", name.strip_prefix(new)?)));
        let elsewhere = || match name.strip_prefix("fc.") {
            Some(rest) => format!("last_linear.{rest}"),
            None => name.replace(".se.", ".se_module."),
        };
        Some(in_stem.unwrap_or_else(elsewhere))
    })
}

/// Whether the blocks are bottlenecks with an ungrouped 3x3 (SE-ResNet-50/101/152).
fn is_legacy_resnet(tensors: &NamedTensors) -> bool {
    let dim = |name: &str, axis: usize| tensors.get(name).and_then(|t| t.shape().get(axis).copied());
    let (input, group) = (dim("layer1.0.conv1.weight", 0), dim("layer1.0.conv2.weight", 1));
    tensors.contains("layer1.0.conv3.weight") && input.is_some() && input == group
}
