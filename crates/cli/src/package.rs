//! What a compiled file says beside its graphs, in timm's terms; read without Burn.

use anyhow::Context;
use cardinal_data::{CropMode, Interpolation, Preprocess};
use cardinal_engine::graph::Package;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// How images are prepared.
pub(crate) const PREPROCESSING: &str = "pretrained_cfg";
/// Class names, a JSON list.
pub(crate) const CLASSES: &str = "label_names";
/// In the terms of Hugging Face's configurations.
pub(crate) const PROBLEM_TYPE: &str = "problem_type";
pub(crate) const MULTI_LABEL: &str = "multi_label_classification";
/// [`Facts`] as JSON.
pub(crate) const FACTS: &str = "facts";

/// What the network was before it was compiled: folding changes the counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Parameters, all sizes share them.
    pub(crate) param_count: u64,
    /// Multiply-adds of one image, for each of the graphs.
    pub(crate) macs: Vec<u64>,
}

/// A compiled file's notes.
#[derive(Debug)]
pub(crate) struct Notes {
    /// The size is that of the file's first graph.
    pub(crate) preprocess: Preprocess,
    pub(crate) classes: Option<Vec<String>>,
    pub(crate) facts: Option<Facts>,
    /// Whether an image may be of several classes.
    pub(crate) multi_label: bool,
}

/// How images are prepared, under timm's names, as far as it is used.
#[derive(Deserialize, Default)]
pub(crate) struct Config {
    #[cfg(feature = "networks")]
    pub(crate) tag: Option<String>,
    #[cfg(feature = "networks")]
    pub(crate) input_size: Option<[usize; 3]>,
    pub(crate) mean: Option<[f32; 3]>,
    pub(crate) std: Option<[f32; 3]>,
    pub(crate) crop_pct: Option<f64>,
    pub(crate) crop_mode: Option<String>,
    pub(crate) interpolation: Option<String>,
}

/// Reads a file that 'cardinal compile' wrote.
///
/// # Errors
///
/// It cannot be read, is damaged or something else, or its notes make no sense.
pub(crate) fn read(path: &Path) -> anyhow::Result<(Package, Notes)> {
    let package = Package::load(path)?;
    let notes = notes(&package)
        .with_context(|| format!("{}: not a network that 'cardinal compile' wrote", path.display()))?;
    Ok((package, notes))
}

fn notes(package: &Package) -> anyhow::Result<Notes> {
    let metadata = &package.metadata;
    let config: Config = parse(metadata, PREPROCESSING)?.unwrap_or_default();
    let base = Preprocess::default();
    let graph = package.graphs.first().context("it has no graph")?;
    let size = match *graph.shape(*graph.inputs.first().context("its graph has no input")?) {
        [_, _, h, w] => (u32::try_from(h)?, u32::try_from(w)?),
        _ => anyhow::bail!("its input is no image"),
    };
    let preprocess = Preprocess {
        size,
        crop_pct: config.crop_pct.unwrap_or(base.crop_pct),
        crop_mode: config.crop_mode.as_deref().and_then(CropMode::from_name).unwrap_or(base.crop_mode),
        interpolation: match config.interpolation.as_deref() {
            Some("bicubic") => Interpolation::Bicubic,
            Some("bilinear") => Interpolation::Bilinear,
            _ => base.interpolation,
        },
        mean: config.mean.unwrap_or(base.mean),
        std: config.std.unwrap_or(base.std),
    };
    preprocess.check()?;
    let (classes, facts) = (parse(metadata, CLASSES)?, parse(metadata, FACTS)?);
    Ok(Notes { preprocess, classes, facts, multi_label: is_multi_label(metadata) })
}

/// Whether metadata say that an image may have several labels.
pub(crate) fn is_multi_label(metadata: &BTreeMap<String, String>) -> bool {
    metadata.get(PROBLEM_TYPE).is_some_and(|text| text == MULTI_LABEL)
}

fn parse<T: for<'a> Deserialize<'a>>(
    metadata: &BTreeMap<String, String>,
    key: &str,
) -> anyhow::Result<Option<T>> {
    metadata.get(key).map(|text| serde_json::from_str(text).context(key.to_owned())).transpose()
}
