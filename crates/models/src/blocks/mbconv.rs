//! The blocks of EfficientNet, MixNet and FBNetV2.

use super::split_attention::SplitConv;
use super::{MobileSqueezeExcite, SplitAttention, SplitAttentionConfig};
use crate::layers::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Init, Padding, StochasticDepth,
};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// How a mobile network pads and normalises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MobileConvs {
    /// TensorFlow's "same" padding.
    pub same_padding: bool,
    /// Added to the variance in batch norm.
    pub epsilon: f64,
}

impl MobileConvs {
    /// A convolution padded by this style's rule and drawn as these networks do: by the fan-out of one group.
    pub fn conv(&self, channels: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Conv2dConfig {
        let padding = if self.same_padding { Padding::Same } else { Padding::Even((kernel - 1) / 2) };
        let init = Init::kaiming_fan_out(channels[1] / groups, [kernel, kernel]);
        Conv2dConfig::new(channels, kernel).stride(stride).groups(groups).padding(padding).init_with(init)
    }

    /// A norm with this style's epsilon.
    pub fn norm(&self, channels: usize, activation: Activation) -> BatchNormConfig {
        BatchNormConfig::new(channels).epsilon(self.epsilon).activation(activation)
    }

    /// A convolution that mixes kernels: each takes an equal slice of the channels in order, and the first also the
    /// remainder. One kernel is a plain convolution.
    pub fn mixed(
        &self,
        channels: [usize; 2],
        kernels: &[usize],
        stride: usize,
        depthwise: bool,
        device: &Device,
    ) -> ChannelConv {
        let parts = kernels.len();
        let conv = |i: usize| {
            let share = |total: usize| total / parts + if i == 0 { total % parts } else { 0 };
            let [inputs, outputs] = channels.map(share);
            self.conv([inputs, outputs], kernels[i], stride, if depthwise { inputs } else { 1 }).init(device)
        };
        match parts {
            1 => ChannelConv::Single(conv(0)),
            _ => ChannelConv::Mixed((0..parts).map(conv).collect()),
        }
    }
}

/// A convolution, or several on consecutive slices of the channels (MixNet's mixed depthwise convolution and its
/// split 1x1).
#[derive(Module, Debug)]
pub enum ChannelConv {
    /// One convolution of all channels.
    Single(Conv2d),
    /// One for each slice, their outputs joined in order.
    Mixed(Vec<Conv2d>),
}

impl ChannelConv {
    /// `[n, in, h, w]` -> `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Single(conv) => conv.forward(x),
            Self::Mixed(convs) => {
                let sizes = convs.iter().map(Conv2d::in_channels).collect();
                let slices = x.split_with_sizes(sizes, 1);
                Tensor::cat(convs.iter().zip(slices).map(|(conv, x)| conv.forward(x)).collect(), 1)
            }
        }
    }
}

/// Configuration of a mobile block.
#[derive(Clone, Copy, Debug)]
pub struct MobileBlockConfig<'a> {
    /// Padding and norm.
    pub convs: MobileConvs,
    /// Channels of the input, of the depthwise convolution and of the output.
    pub channels: [usize; 3],
    /// Kernels of the depthwise convolution.
    pub kernels: &'a [usize],
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Parts of the expanding and of the projecting 1x1 convolution; 0 parts leave the expansion out.
    pub parts: [usize; 2],
    /// Hidden channels of the squeeze-and-excitation; 0 leaves it out.
    pub se_hidden: usize,
    /// Hard sigmoid in the squeeze-and-excitation.
    pub hard_gate: bool,
    /// The activation.
    pub activation: Activation,
    /// Start as the identity where there is a skip.
    pub zero_init: bool,
    /// Probability of dropping the residual branch.
    pub drop_path: f64,
}

impl MobileBlockConfig<'_> {
    fn has_skip(&self) -> bool {
        self.stride == 1 && self.channels[0] == self.channels[2]
    }

    fn pointwise(&self, channels: [usize; 2], parts: usize, device: &Device) -> ChannelConv {
        self.convs.mixed(channels, &vec![1; parts], 1, false, device)
    }

    fn depthwise(&self, device: &Device) -> ChannelConv {
        let mid = self.channels[1];
        self.convs.mixed([mid, mid], self.kernels, self.stride, true, device)
    }

    fn norm(&self, channels: usize, device: &Device) -> BatchNorm {
        self.convs.norm(channels, self.activation).init(device)
    }

    fn last_norm(&self, device: &Device) -> BatchNorm {
        let norm = self.convs.norm(self.channels[2], Activation::Identity);
        norm.zero_gamma(self.zero_init && self.has_skip()).init(device)
    }

    fn squeeze_excite(&self, device: &Device) -> Option<MobileSqueezeExcite> {
        let (mid, hidden) = (self.channels[1], self.se_hidden);
        (hidden > 0).then(|| MobileSqueezeExcite::new(mid, hidden, self.activation, self.hard_gate, device))
    }

    fn skip(&self) -> Option<StochasticDepth> {
        self.has_skip().then(|| StochasticDepth::new(self.drop_path))
    }
}

/// Depthwise, then 1x1 without activation: EfficientNet's first stage.
#[derive(Module, Debug)]
pub struct DepthwiseSeparable {
    conv_dw: ChannelConv,
    bn1: BatchNorm,
    se: Option<MobileSqueezeExcite>,
    conv_pw: ChannelConv,
    bn2: BatchNorm,
    skip: Option<StochasticDepth>,
}

impl DepthwiseSeparable {
    /// Builds the block. There is no expansion: the depthwise convolution has the input's channels.
    pub fn new(config: &MobileBlockConfig, device: &Device) -> Self {
        let [_, mid, outputs] = config.channels;
        Self {
            conv_dw: config.depthwise(device),
            bn1: config.norm(mid, device),
            se: config.squeeze_excite(device),
            conv_pw: config.pointwise([mid, outputs], config.parts[1], device),
            bn2: config.last_norm(device),
            skip: config.skip(),
        }
    }

    /// `[n, in, h, w]` -> `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.bn1.forward(self.conv_dw.forward(x.clone()));
        let y = squeeze(&self.se, y);
        add(&self.skip, x, self.bn2.forward(self.conv_pw.forward(y)))
    }
}

/// The inverted residual block (MBConv): 1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    conv_pw: Option<ChannelConv>,
    bn1: Option<BatchNorm>,
    conv_dw: ChannelConv,
    bn2: BatchNorm,
    se: Option<MobileSqueezeExcite>,
    conv_pwl: ChannelConv,
    bn3: BatchNorm,
    skip: Option<StochasticDepth>,
}

impl InvertedResidual {
    /// Builds the block.
    pub fn new(config: &MobileBlockConfig, device: &Device) -> Self {
        let [inputs, mid, outputs] = config.channels;
        let [expand, project] = config.parts;
        Self {
            conv_pw: (expand > 0).then(|| config.pointwise([inputs, mid], expand, device)),
            bn1: (expand > 0).then(|| config.norm(mid, device)),
            conv_dw: config.depthwise(device),
            bn2: config.norm(mid, device),
            se: config.squeeze_excite(device),
            conv_pwl: config.pointwise([mid, outputs], project, device),
            bn3: config.last_norm(device),
            skip: config.skip(),
        }
    }

    /// `[n, in, h, w]` -> `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = expand(&self.conv_pw, &self.bn1, x.clone());
        let y = squeeze(&self.se, self.bn2.forward(self.conv_dw.forward(y)));
        add(&self.skip, x, self.bn3.forward(self.conv_pwl.forward(y)))
    }
}

/// An inverted residual block with split attention in place of depthwise convolution and squeeze-and-excitation:
/// SA-FBNetV2 (ResNeSt section 4.2).
#[derive(Module, Debug)]
pub struct SplitInvertedResidual {
    conv_pw: Option<ChannelConv>,
    bn1: Option<BatchNorm>,
    attn: SplitAttention,
    conv_pwl: ChannelConv,
    bn3: BatchNorm,
    skip: Option<StochasticDepth>,
}

impl SplitInvertedResidual {
    /// Builds the block with `radix` splits.
    pub fn new(config: &MobileBlockConfig, radix: usize, device: &Device) -> Self {
        let [inputs, mid, outputs] = config.channels;
        let [expand, project] = config.parts;
        let conv = SplitConv::Depthwise { kernel: config.kernels[0], stride: config.stride };
        let activation = config.activation;
        let attn = SplitAttentionConfig { channels: mid, radix, cardinality: 1, conv, activation };
        Self {
            conv_pw: (expand > 0).then(|| config.pointwise([inputs, mid], expand, device)),
            bn1: (expand > 0).then(|| config.norm(mid, device)),
            attn: attn.init(device),
            conv_pwl: config.pointwise([mid, outputs], project, device),
            bn3: config.last_norm(device),
            skip: config.skip(),
        }
    }

    /// `[n, in, h, w]` -> `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.attn.forward(expand(&self.conv_pw, &self.bn1, x.clone()));
        add(&self.skip, x, self.bn3.forward(self.conv_pwl.forward(y)))
    }
}

fn expand(conv: &Option<ChannelConv>, norm: &Option<BatchNorm>, x: Tensor<4>) -> Tensor<4> {
    match (conv, norm) {
        (Some(conv), Some(norm)) => norm.forward(conv.forward(x)),
        _ => x,
    }
}

fn squeeze(se: &Option<MobileSqueezeExcite>, x: Tensor<4>) -> Tensor<4> {
    match se {
        Some(se) => se.forward(x),
        None => x,
    }
}

fn add(skip: &Option<StochasticDepth>, x: Tensor<4>, branch: Tensor<4>) -> Tensor<4> {
    match skip {
        Some(drop_path) => drop_path.forward(branch) + x,
        None => branch,
    }
}
