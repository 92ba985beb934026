//! From a name, a file or a hub id to a network with its weights, the way its images are prepared and its classes.

use crate::exit::Usage;
use crate::hub::Hub;
use crate::package::{
    CLASSES, Config, FACTS, Facts, MULTI_LABEL, PREPROCESSING, PROBLEM_TYPE, is_multi_label,
};
use crate::progress;
use anyhow::Context;
use cardinal_bridge::capture;
use cardinal_data::Preprocess;
use cardinal_engine::DType;
use cardinal_engine::graph::{Cost, Graph, Package};
use cardinal_engine::passes::{self, Optimized};
use cardinal_models::burn::tensor::Device;
use cardinal_models::registry::{self, CropMode, Interpolation, Pretrained, Variant};
use cardinal_models::weights::{self, Classifier};
use cardinal_models::{Backbone, Model, ModelOptions};
use cardinal_weights::{CheckpointInfo, NamedTensors, ReadOptions, names::Naming};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// Which network and which weights.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// The network: a name of 'cardinal models', 'NAME.TAG' for chosen published weights, or 'hf-hub:OWNER/REPO'.
    /// May be left out if the checkpoint tells
    #[arg(short, long, value_name = "NAME", required_unless_present_any = ["checkpoint", "compiled"])]
    model: Option<String>,
    /// Weights from a file: .safetensors, or PyTorch's .pth, .pth.tar, .pt or .bin. Without it published weights are
    /// fetched from the Hugging Face hub into its standard cache
    #[arg(short, long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Take the averaged weights of a training checkpoint
    #[arg(long, requires = "checkpoint")]
    use_ema: bool,
    /// Take random weights, to try things without any; the classes that it names mean nothing
    #[arg(long, conflicts_with = "checkpoint")]
    untrained: bool,
    /// A network that 'cardinal compile --output FILE' wrote, with its weights
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "checkpoint", "untrained"])]
    compiled: Option<PathBuf>,
}

/// A network that is ready to run.
pub(crate) struct Loaded {
    pub(crate) network: Network,
    pub(crate) preprocessing: Pretrained,
    /// Class names that came with the weights.
    pub(crate) classes: Option<Vec<String>>,
    /// Whether an image may be of several classes, or of none: each then has a probability of its own.
    pub(crate) multi_label: bool,
}

/// What runs: a module, or graphs that were captured from one before.
#[derive(Clone)]
pub(crate) enum Network {
    Module(Box<Model>),
    /// One for each input size.
    Graphs(Vec<Graph>),
}

impl Network {
    /// Classes of the classifier.
    pub(crate) fn num_classes(&self) -> usize {
        match self {
            Self::Module(model) => model.num_classes(),
            Self::Graphs(graphs) => {
                let output = graphs.first().and_then(|graph| Some(graph.shape(*graph.outputs.first()?)));
                output.and_then(|shape| shape.last().copied()).unwrap_or(0)
            }
        }
    }

    /// Channels of the input image.
    pub(crate) fn in_chans(&self) -> usize {
        match self {
            Self::Module(model) => model.in_chans(),
            Self::Graphs(graphs) => graphs.first().and_then(input_size).map_or(3, |[c, _, _]| c),
        }
    }

    /// Whether images of `[n, c, h, w]` can go through; the sizes.
    pub(crate) fn check_input(&self, shape: &[usize]) -> anyhow::Result<[usize; 4]> {
        match self {
            Self::Module(model) => Ok(model.check_input(shape)?),
            Self::Graphs(graphs) => {
                let sizes: Vec<_> = graphs.iter().filter_map(input_size).collect();
                match *shape {
                    [n, c, h, w] if n > 0 && sizes.contains(&[c, h, w]) => Ok([n, c, h, w]),
                    _ => {
                        let sizes: Vec<_> = sizes.iter().map(|size| crate::output::shape(size)).collect();
                        let given = crate::output::shape(shape);
                        let text =
                            format!("the file was compiled for images of {}, not {given}", sizes.join(", "));
                        Err(Usage(text).into())
                    }
                }
            }
        }
    }

    /// The graph for images of `[channels, height, width]`, with its weights. A clone of the network shares them, but
    /// then they are in memory twice for a while.
    pub(crate) fn graph(self, size @ [c, h, w]: [usize; 3]) -> anyhow::Result<Graph> {
        self.check_input(&[1, c, h, w])?;
        match self {
            Self::Module(model) => {
                let name = model.variant().name;
                let forward = |model: &Model, x| model.forward(x);
                capture(name, *model, [1, c, h, w], weights::tensor_names, forward).context(name)
            }
            Self::Graphs(graphs) => {
                let found = graphs.into_iter().find(|graph| input_size(graph) == Some(size));
                found.context("the file has a graph for that size")
            }
        }
    }

    /// The same, folded and fused.
    pub(crate) fn optimized(self, size: [usize; 3]) -> anyhow::Result<Captured> {
        let graph = self.graph(size)?;
        let (nodes, cost) = (graph.nodes.len(), graph.analyze(DType::F32).total);
        Ok(Captured { optimized: passes::optimize(graph)?, nodes, cost })
    }
}

/// A network's graph as it runs, and what it was before it was optimized.
#[derive(Clone)]
pub(crate) struct Captured {
    pub(crate) optimized: Optimized,
    pub(crate) nodes: usize,
    /// Of one image.
    pub(crate) cost: Cost,
}

/// Channels, height and width of a graph's images.
fn input_size(graph: &Graph) -> Option<[usize; 3]> {
    match *graph.shape(*graph.inputs.first()?) {
        [_, c, h, w] => Some([c, h, w]),
        _ => None,
    }
}

/// The state dict of a file under timm's names, and what else the file says.
pub(crate) struct WeightsFile {
    pub(crate) tensors: NamedTensors,
    pub(crate) naming: Naming,
    pub(crate) dropped: Vec<String>,
    pub(crate) info: CheckpointInfo,
    note: Option<&'static str>,
}

/// Reads a file of weights and gives it timm's names; where the file has both, `ema` chooses the averaged ones.
pub(crate) fn read_weights(path: &Path, ema: bool) -> anyhow::Result<WeightsFile> {
    let checkpoint = cardinal_weights::read_with(path, &ReadOptions { ema, key: None })?;
    let info = checkpoint.info.clone();
    let converted = checkpoint.into_timm()?;
    info!("{}: {} tensors, {} names", path.display(), converted.tensors.len(), converted.naming);
    let cardinal_weights::names::Converted { naming, tensors, dropped, note } = converted;
    Ok(WeightsFile { tensors, naming, dropped, info, note })
}

impl WeightsFile {
    /// How images are prepared: as the file says, and where it is silent as `base`.
    pub(crate) fn preprocessing(&self, base: Pretrained) -> Pretrained {
        let own = self.info.metadata.get(PREPROCESSING).and_then(|text| serde_json::from_str(text).ok());
        own.map_or(base.clone(), |own: Config| own.over(base))
    }

    /// The network that the file is for.
    pub(crate) fn variant(&self) -> anyhow::Result<(&'static Variant, Vec<&'static Variant>)> {
        let candidates = weights::sniff(&self.tensors)?.candidates;
        let says = |name: &str| candidates.iter().find(|variant| variant.name == name).copied();
        let by_arch =
            self.info.arch.as_deref().and_then(|arch| registry::find(arch).ok()).and_then(|v| says(v.name));
        let by_naming = (self.naming == Naming::LegacySenet).then(|| says("legacy_senet154")).flatten();
        Ok((by_arch.or(by_naming).unwrap_or(candidates[0]), candidates))
    }
}

impl Choice {
    /// A network by name with published weights, a file's, or random ones.
    #[cfg(feature = "serve")]
    pub(crate) fn new(model: Option<String>, checkpoint: Option<PathBuf>, untrained: bool) -> Self {
        Self { model, checkpoint, use_ema: false, untrained, compiled: None }
    }

    /// Where published weights come from, such as `timm/resnest50d.in1k`; `None` for a file's and for random ones.
    pub(crate) fn published(&self, loaded: &Loaded) -> Option<String> {
        if self.checkpoint.is_some() || self.compiled.is_some() || self.untrained {
            return None;
        }
        let name = self.model.as_deref()?;
        let repository = name.strip_prefix("hf-hub:").or(name.strip_prefix("hf_hub:"));
        Some(repository.map_or_else(|| loaded.preprocessing.hub_id(), str::to_owned))
    }

    /// Finds, fetches, reads and checks everything.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        if let Some(file) = &self.checkpoint {
            return self.read_file(file);
        }
        if let Some(file) = &self.compiled {
            return read_compiled(file);
        }
        let name = self.model.as_deref().unwrap_or_default();
        if self.untrained {
            let variant = registry::find(name)?;
            warn!("{} has random weights: the classes that it names mean nothing", variant.name);
            let device = Device::flex();
            device.seed(0);
            let model = Model::new(variant, &ModelOptions::new(), &device);
            return Ok(Loaded::new(model, variant.preprocessing(), None));
        }
        match name.strip_prefix("hf-hub:").or(name.strip_prefix("hf_hub:")) {
            Some(repo) => from_hub(repo),
            None => from_registry(name),
        }
    }

    fn read_file(&self, file: &Path) -> anyhow::Result<Loaded> {
        let weights = read_weights(file, self.use_ema)?;
        if self.use_ema && !weights.info.is_ema {
            return Err(
                Usage(format!("{} has no averaged weights; leave --use-ema out", file.display())).into()
            );
        }
        let (variant, preprocessing) = match self.model.as_deref() {
            Some(name) => {
                let (variant, published) = registry::find_pretrained(name)?;
                (variant, published.cloned().unwrap_or_else(|| variant.preprocessing()))
            }
            None => {
                let (variant, candidates) = weights.variant().with_context(|| file.display().to_string())?;
                say_which(file, variant, &candidates);
                (variant, variant.preprocessing())
            }
        };
        // legacy_senet154 is the one network here that has the pooling which the note is about.
        if let Some(note) = weights.note.filter(|_| variant.name != "legacy_senet154") {
            warn!("{}: {note}", file.display());
        }
        let classes = weights.info.classes.clone();
        let preprocessing = weights.preprocessing(preprocessing);
        let multi_label = is_multi_label(&weights.info.metadata);
        let model = build(variant, &weights.tensors, file)?;
        Ok(Loaded { multi_label, ..Loaded::new(model, preprocessing, classes) })
    }
}

impl Loaded {
    fn new(model: Model, preprocessing: Pretrained, classes: Option<Vec<String>>) -> Self {
        Self { network: Network::Module(Box::new(model)), preprocessing, classes, multi_label: false }
    }
}

/// A compiled file of a network for one or more input sizes.
pub(crate) fn package(loaded: &Loaded, sizes: impl IntoIterator<Item = Captured>) -> Package {
    let (mut graphs, mut facts) = (Vec::new(), Facts::default());
    for Captured { optimized, cost, .. } in sizes {
        facts.param_count = cost.parameters;
        facts.macs.push(cost.macs);
        graphs.push(optimized.graph);
    }
    Package { graphs, metadata: compiled_metadata(loaded, Some(&facts)) }
}

/// A compiled file's metadata: what its graphs do not say, in timm's terms; weights alone have no facts.
pub(crate) fn compiled_metadata(loaded: &Loaded, facts: Option<&Facts>) -> BTreeMap<String, String> {
    let config = &loaded.preprocessing;
    let crop_mode = match config.crop_mode {
        CropMode::Center => "center",
        CropMode::Squash => "squash",
        CropMode::Border => "border",
    };
    let interpolation = match config.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    };
    let config = serde_json::json!({
        "architecture": config.model,
        "tag": config.tag,
        "input_size": [3, config.size, config.size],
        "mean": config.mean,
        "std": config.std,
        "crop_pct": config.crop_pct,
        "crop_mode": crop_mode,
        "interpolation": interpolation,
    });
    let mut metadata = BTreeMap::from([(PREPROCESSING.to_owned(), config.to_string())]);
    if let Some(facts) = facts {
        metadata.insert(FACTS.to_owned(), serde_json::json!(facts).to_string());
    }
    if let Some(classes) = &loaded.classes {
        metadata.insert(CLASSES.to_owned(), serde_json::json!(classes).to_string());
    }
    if loaded.multi_label {
        metadata.insert(PROBLEM_TYPE.to_owned(), MULTI_LABEL.to_owned());
    }
    metadata
}

/// Reads a file that 'cardinal compile' wrote.
fn read_compiled(path: &Path) -> anyhow::Result<Loaded> {
    let Package { graphs, metadata } = Package::load(path)?;
    let bad = || format!("{}: not a network that 'cardinal compile' wrote", path.display());
    let size = graphs.first().and_then(input_size).with_context(bad)?[1];
    let config: Config = match metadata.get(PREPROCESSING) {
        Some(text) => serde_json::from_str(text).with_context(bad)?,
        None => Config::default(),
    };
    let classes =
        metadata.get(CLASSES).map(|text| serde_json::from_str(text)).transpose().with_context(bad)?;
    let name = graphs[0].name.clone();
    let base = match registry::find(&name) {
        Ok(variant) => variant.preprocessing(),
        Err(_) => registry::find("resnet50")?.preprocessing(),
    };
    info!("{}: {name} for {} input sizes", path.display(), graphs.len());
    let preprocessing = Pretrained { size, ..config.over(base) };
    let multi_label = is_multi_label(&metadata);
    Ok(Loaded { network: Network::Graphs(graphs), preprocessing, classes, multi_label })
}

/// How images of `side` pixels are prepared for these weights.
pub(crate) fn preprocess(weights: &Pretrained, side: u32) -> Preprocess {
    Preprocess {
        size: (side, side),
        crop_pct: weights.crop_pct,
        crop_mode: match weights.crop_mode {
            CropMode::Center => cardinal_data::CropMode::Center,
            CropMode::Squash => cardinal_data::CropMode::Squash,
            CropMode::Border => cardinal_data::CropMode::Border,
        },
        interpolation: match weights.interpolation {
            Interpolation::Bilinear => cardinal_data::Interpolation::Bilinear,
            Interpolation::Bicubic => cardinal_data::Interpolation::Bicubic,
        },
        mean: weights.mean,
        std: weights.std,
    }
}

fn say_which(file: &Path, variant: &Variant, candidates: &[&'static Variant]) {
    let others: Vec<_> = candidates.iter().filter(|v| v.name != variant.name).map(|v| v.name).collect();
    if others.is_empty() {
        info!("{} holds a {}", file.display(), variant.name);
    } else {
        let others = others.join(", ");
        warn!(
            "{} is taken for a {}; its parameters also fit {others}: say which with --model",
            file.display(),
            variant.name
        );
    }
}

/// `variant` with the classes and channels that `tensors` show, and with their values.
pub(crate) fn build(variant: &'static Variant, tensors: &NamedTensors, from: &Path) -> anyhow::Result<Model> {
    let options = weights::options_in(variant, tensors);
    let model = Model::new(variant, &options, &Device::flex());
    let (model, report) =
        weights::load(model, tensors, Classifier::MustFit).with_context(|| from.display().to_string())?;
    info!("{}: {} tensors loaded, {} classes", variant.name, report.loaded, model.num_classes());
    Ok(model)
}

fn from_registry(name: &str) -> anyhow::Result<Loaded> {
    let (variant, published) = registry::find_pretrained(name)?;
    let Some(published) = published else {
        let text =
            format!("no weights are published for {}; give --checkpoint FILE or --untrained", variant.name);
        return Err(Usage(text).into());
    };
    let file = fetch(&published.hub_id())?;
    let model = build(variant, &read_weights(&file, false)?.tensors, &file)?;
    Ok(Loaded::new(model, published.clone(), None))
}

/// The published weights of `name`, which are fetched if need be.
pub(crate) fn published_weights(name: &str) -> anyhow::Result<NamedTensors> {
    let (variant, published) = registry::find_pretrained(name)?;
    let Some(published) = published else {
        let text = format!(
            "no weights are published for {}; start from a file with --initial-checkpoint FILE, or from random weights \
             with --set pretrained=false",
            variant.name
        );
        return Err(Usage(text).into());
    };
    Ok(read_weights(&fetch(&published.hub_id())?, false)?.tensors)
}

fn fetch(repo: &str) -> anyhow::Result<PathBuf> {
    let bar = std::cell::OnceCell::new();
    let file = Hub::from_env()?.fetch(
        repo,
        "main",
        &["model.safetensors", "pytorch_model.bin"],
        &mut |done, total| {
            bar.get_or_init(|| progress::bytes(total.unwrap_or(0), repo)).set_position(done);
        },
    )?;
    if let Some(bar) = bar.get() {
        bar.finish_and_clear();
    }
    Ok(file)
}

/// `config.json` of a repository in timm's format, as far as it is used.
#[derive(Deserialize)]
struct HubConfig {
    architecture: String,
    #[serde(default)]
    pretrained_cfg: Config,
    #[serde(default)]
    label_names: Option<Vec<String>>,
}

/// A repository of the hub: one of the registry's, or any in timm's format.
fn from_hub(repo: &str) -> anyhow::Result<Loaded> {
    if let Some(name) = repo.strip_prefix("timm/")
        && let Ok((_, Some(_))) = registry::find_pretrained(name)
    {
        return from_registry(name);
    }
    let config = Hub::from_env()?.fetch(repo, "main", &["config.json"], &mut |_, _| {})?;
    let text = std::fs::read(&config).with_context(|| config.display().to_string())?;
    let config: HubConfig = serde_json::from_slice(&text)
        .with_context(|| format!("{}: not a model's configuration in timm's format", config.display()))?;
    let variant = registry::find(&config.architecture)
        .with_context(|| format!("{repo} holds a '{}'", config.architecture))?;
    let file = fetch(repo)?;
    let model = build(variant, &read_weights(&file, false)?.tensors, &file)?;
    Ok(Loaded::new(model, config.pretrained_cfg.over(variant.preprocessing()), config.label_names))
}

impl Config {
    /// These settings, and `base` where they say nothing.
    fn over(self, base: Pretrained) -> Pretrained {
        Pretrained {
            tag: self.tag.unwrap_or_default(),
            size: self.input_size.map_or(base.size, |[_, h, _]| h),
            test_size: None,
            test_crop_pct: None,
            crop_pct: self.crop_pct.unwrap_or(base.crop_pct),
            crop_mode: match self.crop_mode.as_deref() {
                Some("squash") => CropMode::Squash,
                Some("border") => CropMode::Border,
                Some("center") => CropMode::Center,
                _ => base.crop_mode,
            },
            interpolation: match self.interpolation.as_deref() {
                Some("bicubic") => Interpolation::Bicubic,
                Some("bilinear") => Interpolation::Bilinear,
                _ => base.interpolation,
            },
            mean: self.mean.unwrap_or(base.mean),
            std: self.std.unwrap_or(base.std),
            ..base
        }
    }
}
