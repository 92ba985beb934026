//! ResNeSt backbones of detectron2: `stem.conv1_N` and `resS.B`, with a batch norm inside its convolution.
//!
//! `res2.0.conv1.norm.*` -> `layer1.0.bn1.*`, `res2.0.shortcut.weight` -> `layer1.0.downsample.1.weight`.
//! The split-attention unit `conv2.{conv,bn0,fc1,bn1,fc2}` has the same names on both sides.

use super::{Converted, Naming, not_a, rename};
use crate::error::Result;
use crate::tensor::NamedTensors;

/// What a whole detector puts in front of its backbone's names.
pub(super) const PREFIX: &str = "backbone.bottom_up.";

/// Names before the parameter, detectron2 and timm. Longer names first, as they are tried in order.
const STEM: [(&str, &str); 6] = [
    ("stem.conv1_1.norm", "conv1.1"),
    ("stem.conv1_2.norm", "conv1.4"),
    ("stem.conv1_3.norm", "bn1"),
    ("stem.conv1_1", "conv1.0"),
    ("stem.conv1_2", "conv1.3"),
    ("stem.conv1_3", "conv1.6"),
];
const BLOCK: [(&str, &str); 5] = [
    ("conv1.norm", "bn1"),
    ("conv2.norm", "bn2"),
    ("conv3.norm", "bn3"),
    ("shortcut.norm", "downsample.2"),
    ("shortcut", "downsample.1"),
];

pub(super) fn to_timm(tensors: NamedTensors) -> Result<Converted> {
    let in_detector = tensors.names().any(|name| name.starts_with(PREFIX));
    rename(Naming::Detectron2ResNeSt, tensors, |name| {
        let name = if in_detector { name.strip_prefix(PREFIX)? } else { name };
        Some(timm_name(name))
    })
}

fn timm_name(name: &str) -> String {
    if let Some(new) = STEM.iter().find_map(|(old, new)| replace_start(name, old, new)) {
        return new;
    }
    if let Some(rest) = name.strip_prefix("linear.") {
        return format!("fc.{rest}");
    }
    let Some((stage, block, rest)) = block_of(name, "res") else { return name.to_owned() };
    let Some(stage) = stage.checked_sub(1) else { return name.to_owned() };
    let rest = BLOCK.iter().find_map(|(old, new)| replace_start(rest, old, new)).unwrap_or(rest.to_owned());
    format!("layer{stage}.{block}.{rest}")
}

pub(super) fn from_timm(tensors: NamedTensors) -> Result<Converted> {
    for name in ["conv1.6.weight", "layer1.0.conv2.fc1.weight"] {
        if !tensors.contains(name) {
            return not_a("ResNeSt", name);
        }
    }
    rename(Naming::Detectron2ResNeSt, tensors, |name| Some(detectron_name(name)))
}

fn detectron_name(name: &str) -> String {
    if let Some(new) = STEM.iter().find_map(|(old, new)| replace_start(name, new, old)) {
        return new;
    }
    if let Some(rest) = name.strip_prefix("fc.") {
        return format!("linear.{rest}");
    }
    let Some((stage, block, rest)) = block_of(name, "layer") else { return name.to_owned() };
    let rest = BLOCK.iter().find_map(|(old, new)| replace_start(rest, new, old)).unwrap_or(rest.to_owned());
    format!("res{}.{block}.{rest}", stage.saturating_add(1))
}

/// Splits `<stages><stage>.<block>.<rest>`.
fn block_of<'a>(name: &'a str, stages: &str) -> Option<(u32, u32, &'a str)> {
    let (stage, rest) = name.strip_prefix(stages)?.split_once('.')?;
    let (block, rest) = rest.split_once('.')?;
    Some((stage.parse().ok()?, block.parse().ok()?, rest))
}

/// Replaces whole leading parts of a dotted name.
fn replace_start(name: &str, old: &str, new: &str) -> Option<String> {
    let rest = name.strip_prefix(old)?;
    rest.starts_with('.').then(|| format!("{new}{rest}"))
}
