//! Official TResNet: a convolution and its batch norm are entries 0 and 1 of a list, and a strided
//! convolution is itself entry 0 of a list whose entry 1 is the blur.
//!
//! `layer2.0.conv1.0.0.weight` -> `layer2.0.conv1.conv.weight`, `layer2.0.conv1.0.1.*` -> `...conv1.bn.*`,
//! `layer1.0.conv1.0.weight` -> `...conv1.conv.weight`, `layer1.0.conv1.1.*` -> `...conv1.bn.*`.

use super::{Converted, Naming, change_values, not_a, rename};
use crate::error::{Result, WeightsErrorKind};
use crate::tensor::NamedTensors;
use std::collections::HashSet;

/// In-place activated batch norm multiplies by `|gamma| + EPS`.
const EPS: f32 = 1e-5;

pub(super) fn to_timm(tensors: NamedTensors) -> Result<Converted> {
    let mut converted = rename(Naming::OfficialTResNet, tensors, timm_name)?;
    converted.tensors = change_values(converted.tensors, is_gamma, |_, gamma| Ok(gamma.abs() + EPS))?;
    Ok(converted)
}

pub(super) fn from_timm(tensors: NamedTensors) -> Result<Converted> {
    if !tensors.contains("body.conv1.conv.weight") {
        return not_a("TResNet", "body.conv1.conv.weight");
    }
    let strided = strided_convolutions(tensors.names());
    let tensors = change_values(tensors, is_gamma, inplace_gamma)?;
    rename(Naming::OfficialTResNet, tensors, |name| Some(official_name(name, &strided)))
}

fn is_gamma(timm_name: &str) -> bool {
    timm_name.ends_with("bn.weight")
}

fn inplace_gamma(name: &str, gamma: f32) -> Result<f32> {
    // Half a last digit less than EPS can be left over from the addition in `to_timm`.
    if gamma >= EPS * (1.0 - f32::EPSILON) {
        return Ok((gamma - EPS).max(0.0));
    }
    Err(WeightsErrorKind::Naming(format!(
        "'{name}' has a gamma of {gamma}, but in-place batch norm cannot express one below {EPS}"
    )))
}

fn timm_name(name: &str) -> Option<String> {
    if name.ends_with(".filt") {
        return None; // the blur's fixed filter
    }
    let parts: Vec<&str> = name.split('.').collect();
    for at in 0..parts.len() {
        let role = match parts[at + 1..] {
            ["0", "0", ..] if is_conv(parts[at]) => Some((3, "conv")),
            ["0", "1", ..] if is_conv(parts[at]) => Some((3, "bn")),
            ["0", ..] if is_conv(parts[at]) => Some((2, "conv")),
            ["1", ..] if is_conv(parts[at]) => Some((2, "bn")),
            _ => None,
        };
        if let Some((skip, role)) = role {
            return Some(joined(&parts[..=at], role, &parts[at + skip..]));
        }
        if let ["downsample", _, which @ ("0" | "1"), ..] = parts[at..] {
            let role = if which == "0" { "conv" } else { "bn" };
            return Some(joined(&parts[..=at + 1], role, &parts[at + 3..]));
        }
    }
    Some(name.to_owned())
}

/// The blocks' convolutions that are followed by a blur, such as `body.layer2.0.conv1`: in the first block
/// of stages 2 to 4 the first 3x3, which is `conv2` where the block has three convolutions.
fn strided_convolutions<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<String> {
    let names: HashSet<&str> = names.collect();
    let strided = (2..=4).map(|stage| {
        let block = format!("body.layer{stage}.0");
        let is_bottleneck = names.contains(format!("{block}.conv3.conv.weight").as_str());
        format!("{block}.conv{}", if is_bottleneck { 2 } else { 1 })
    });
    strided.collect()
}

fn official_name(name: &str, strided: &HashSet<String>) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let Some(at) = parts.iter().position(|part| matches!(*part, "conv" | "bn")) else {
        return name.to_owned();
    };
    let role = if parts[at] == "conv" { "0" } else { "1" };
    let role = if strided.contains(&parts[..at].join(".")) { format!("0.{role}") } else { role.to_owned() };
    joined(&parts[..at], &role, &parts[at + 1..])
}

fn joined(before: &[&str], role: &str, after: &[&str]) -> String {
    [before, &[role], after].concat().join(".")
}

/// `conv1`, `conv2`, ...
fn is_conv(part: &str) -> bool {
    part.strip_prefix("conv").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
