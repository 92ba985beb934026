//! One file per family. A family is a row of numbers (its config) that builds a module.

mod efficientnet;
mod fbnet;
mod regnet;
mod resnet;
mod tresnet;

pub use efficientnet::{EfficientNet, EfficientNetConfig, MobileStage, StageKind};
pub use fbnet::{FbNet, FbNetBlock, FbNetConfig};
pub use regnet::{RegNet, RegNetAttention, RegNetConfig};
pub use resnet::{ResNet, ResNetConfig, Stem};
pub use tresnet::{SqueezeRule, TResNet, TResNetConfig, TResNetStem};

use crate::ModelOptions;
use crate::layers::{Dropout, Init, Linear, LinearConfig};
use crate::ops;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// What may look at the output of each stage, or replace it: see [`Backbone::stages`].
pub type Tap<'a> = &'a mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>;

/// What every network offers, under timm's names.
pub trait Backbone {
    /// Runs the stages, `[n, in, h, w]` -> `[n, c, h', w']`: the output of each goes through `tap` with its place in
    /// [`feature_info`](Self::feature_info) before the next stage reads it. So a caller may look at a map, or put
    /// another in its place.
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4>;

    /// What stands between the last stage and the pooling: the last convolution of mobile networks, nothing elsewhere.
    fn last_conv(&self, x: Tensor<4>) -> Tensor<4> {
        x
    }

    /// The output of every stage, largest map first, as detectors and segmenters want them. See
    /// [`feature_info`](Self::feature_info).
    fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut features = Vec::new();
        self.stages(x, &mut |_, map| {
            features.push(map.clone());
            map
        });
        features
    }

    /// Channels and reduction of each of [`features`](Self::features).
    fn feature_info(&self) -> Vec<FeatureInfo>;

    /// The names of [`features`](Self::features): the modules that compute them, as in a checkpoint.
    fn feature_names(&self) -> Vec<String>;

    /// The last feature map before pooling: `[n, in, h, w]` -> `[n, c, h', w']`.
    fn forward_features(&self, x: Tensor<4>) -> Tensor<4> {
        self.last_conv(self.stages(x, &mut |_, map| map))
    }

    /// The classifier's module.
    fn head(&self) -> &Head;

    /// The classifier's module.
    fn head_mut(&mut self) -> &mut Head;

    /// Pooling, dropout and classifier: `[n, c, h, w]` -> `[n, classes]`; with `pre_logits`, the pooled embedding.
    fn forward_head(&self, x: Tensor<4>, pre_logits: bool) -> Tensor<2> {
        self.head().forward(x, pre_logits)
    }

    /// `[n, in, h, w]` -> `[n, classes]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.forward_head(self.forward_features(x), false)
    }
}

/// A stage's output: how many channels, and the stride against the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureInfo {
    /// Channels.
    pub channels: usize,
    /// Input rows (and columns) for each row of the map.
    pub reduction: usize,
}

/// Builds [`FeatureInfo`]s from `(channels, reduction)`.
fn feature_infos(rows: impl IntoIterator<Item = (usize, usize)>) -> Vec<FeatureInfo> {
    rows.into_iter().map(|(channels, reduction)| FeatureInfo { channels, reduction }).collect()
}

/// The classifier: global average pooling, dropout and one linear layer.
///
/// The layer's name in a checkpoint is the network's: `fc`, `head.fc` or `classifier`.
#[derive(Module, Debug)]
pub struct Head {
    fc: Option<Linear>,
    dropout: Dropout,
    features: usize,
}

impl Head {
    /// A head for `features` channels; no classes leave the linear layer out.
    pub(crate) fn new(features: usize, options: &ModelOptions, linear: LinearInit, device: &Device) -> Self {
        let classes = options.num_classes;
        Self {
            fc: (classes > 0).then(|| linear.config(features, classes).init(device)),
            dropout: Dropout::new(options.drop_rate),
            features,
        }
    }

    fn forward(&self, x: Tensor<4>, pre_logits: bool) -> Tensor<2> {
        let pooled = ops::global_avg_pool(x).flatten::<2>(1, 3);
        match &self.fc {
            Some(fc) if !pre_logits => fc.forward(self.dropout.forward(pooled)),
            _ => pooled,
        }
    }

    /// Replaces the linear layer by a new one of `classes` outputs with PyTorch's default initialisation; none for 0.
    pub fn reset(&mut self, classes: usize, device: &Device) {
        self.fc = (classes > 0).then(|| LinearConfig::new(self.features, classes).init(device));
    }

    /// Length of the pooled embedding.
    pub fn embedding_len(&self) -> usize {
        self.features
    }

    /// Number of classes; 0 without a linear layer.
    pub fn classes(&self) -> usize {
        self.fc.as_ref().map_or(0, Linear::outputs)
    }
}

/// How a family draws its classifier.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinearInit {
    /// PyTorch's default.
    Torch,
    /// Normal with deviation 0.01; the bias is zero or PyTorch's default.
    Normal { zero_bias: bool },
    /// Uniform within `1 / sqrt(classes)`, bias zero: the mobile networks.
    FanOut,
}

impl LinearInit {
    fn config(self, features: usize, classes: usize) -> LinearConfig {
        let linear = LinearConfig::new(features, classes);
        match self {
            Self::Torch => linear,
            Self::Normal { zero_bias: false } => linear.weight(Init::Normal(0.01)),
            Self::Normal { zero_bias: true } => linear.weight(Init::Normal(0.01)).bias(Init::Constant(0.0)),
            Self::FanOut => linear.weight(Init::torch_default(classes)).bias(Init::Constant(0.0)),
        }
    }
}

/// Rates of stochastic depth for `count` blocks, rising linearly from 0 to `rate` at the last.
fn drop_path_rates(rate: f64, count: usize) -> impl Fn(usize) -> f64 {
    move |block| rate * block as f64 / (count.max(2) - 1) as f64
}
