//! TResNet, and the steps of its ablation from plain ResNet-50 (arXiv:2003.13630, tables 2 and 4).

use super::{Backbone, FeatureInfo, Head, LinearInit, Tap, drop_path_rates, feature_infos};
use crate::ModelOptions;
use crate::blocks::{BlockKind, SqueezeExcite};
use crate::layers::{
    Activation, BatchNormConfig, Conv2dConfig, ConvNorm, Layer, Pool, PoolKind, StochasticDepth,
};
use crate::ops;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// The numbers of a TResNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TResNetConfig {
    /// The first convolution.
    pub stem: TResNetStem,
    /// Block type of each stage.
    pub blocks: [BlockKind; 4],
    /// Blocks in each stage.
    pub layers: [usize; 4],
    /// Channels of the stem and planes of the first stage; later stages double them.
    pub width: usize,
    /// Slope of the leaky ReLU in the stem.
    pub stem_slope: f64,
    /// Slope of the leaky ReLU in the blocks.
    pub slope: f64,
    /// Squeeze-and-excitation in the first three stages, and how it is reduced.
    pub squeeze: SqueezeRule,
    /// Downsample by stride 1, then a blur filter, with an average pool on the shortcut; otherwise by strided
    /// convolutions.
    pub anti_alias: bool,
}

/// The first convolution of a TResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TResNetStem {
    /// Space-to-depth by 4, then a convolution with this kernel: 3 in the weights, 1 in the paper's figure 1.
    SpaceToDepth {
        /// Side of the kernel.
        kernel: usize,
    },
    /// ResNet's 7x7 with stride 2 and max pooling.
    Conv7,
}

/// Hidden channels of the squeeze-and-excitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqueezeRule {
    /// No squeeze-and-excitation.
    None,
    /// A quarter of the planes in basic blocks and half in bottlenecks, but at least 64: the published weights.
    Weights,
    /// A quarter in basic blocks and an eighth in bottlenecks: the paper's section 2.1.
    Paper,
}

impl SqueezeRule {
    fn hidden(self, kind: BlockKind, planes: usize) -> Option<usize> {
        match (self, kind) {
            (Self::None, _) => None,
            (Self::Weights, BlockKind::Basic) => Some((planes / 4).max(64)),
            (Self::Weights, BlockKind::Bottleneck) => Some((planes / 2).max(64)),
            (Self::Paper, BlockKind::Basic) => Some(planes / 4),
            (Self::Paper, BlockKind::Bottleneck) => Some(planes / 8),
        }
    }
}

impl TResNetConfig {
    /// Builds the network on `device`; parameters draw their values when they are first read.
    pub fn init(&self, options: &ModelOptions, device: &Device) -> TResNet {
        let features = self.stage_outputs(3);
        TResNet {
            body: self.body(options, device),
            head: Head::new(features, options, LinearInit::Normal { zero_bias: false }, device),
            channels: (0..4).map(|stage| self.stage_outputs(stage)).collect(),
        }
    }

    fn stage_outputs(&self, stage: usize) -> usize {
        (self.width << stage) * self.blocks[stage].expansion()
    }

    fn body(&self, options: &ModelOptions, device: &Device) -> Body {
        let mut stages = self.stages(options, device).into_iter();
        let mut stage = || stages.next().expect("a TResNet has four stages");
        let stem = BatchNormConfig::new(self.width).activation(Activation::LeakyRelu(self.stem_slope));
        let (conv, maxpool) = match self.stem {
            TResNetStem::SpaceToDepth { kernel } => {
                (Conv2dConfig::new([16 * options.in_chans, self.width], kernel), None)
            }
            TResNetStem::Conv7 => {
                let conv = Conv2dConfig::new([options.in_chans, self.width], 7).stride(2);
                (conv, Some(Pool::new(PoolKind::MaxStem)))
            }
        };
        Body {
            conv1: ConvNorm::new(conv, stem, device),
            maxpool,
            layer1: stage(),
            layer2: stage(),
            layer3: stage(),
            layer4: stage(),
        }
    }

    fn stages(&self, options: &ModelOptions, device: &Device) -> Vec<Vec<TResNetBlock>> {
        let drop_path = drop_path_rates(options.drop_path_rate, self.layers.iter().sum());
        let (mut inputs, mut index) = (self.width, 0);
        let mut stages = Vec::with_capacity(4);
        for stage in 0..4 {
            let mut blocks = Vec::with_capacity(self.layers[stage]);
            for position in 0..self.layers[stage] {
                let stride = if position == 0 && stage > 0 { 2 } else { 1 };
                blocks.push(self.block(
                    stage,
                    inputs,
                    stride,
                    drop_path(index),
                    options.zero_init_last,
                    device,
                ));
                inputs = self.stage_outputs(stage);
                index += 1;
            }
            stages.push(blocks);
        }
        stages
    }

    fn block(
        &self,
        stage: usize,
        inputs: usize,
        stride: usize,
        drop_path: f64,
        zero_init: bool,
        device: &Device,
    ) -> TResNetBlock {
        let (kind, planes, outputs) = (self.blocks[stage], self.width << stage, self.stage_outputs(stage));
        let hidden = if stage < 3 { self.squeeze.hidden(kind, planes) } else { None };
        let leaky = BatchNormConfig::new(planes).activation(Activation::LeakyRelu(self.slope));
        let last = BatchNormConfig::new(outputs).zero_gamma(zero_init);
        let step = if self.anti_alias { 1 } else { stride };
        let conv = |conv: Conv2dConfig, norm| ConvNorm::new(conv, norm, device);
        let first = Conv2dConfig::new([inputs, planes], 3).stride(step);
        let (conv1, conv2, conv3) = match kind {
            BlockKind::Basic => {
                let second = Conv2dConfig::new([planes, planes], 3);
                (conv(first, leaky), conv(second, last), None)
            }
            BlockKind::Bottleneck => {
                let middle = Conv2dConfig::new([planes, planes], 3).stride(step);
                let third = conv(Conv2dConfig::new([planes, outputs], 1), last);
                (conv(Conv2dConfig::new([inputs, planes], 1), leaky), conv(middle, leaky), Some(third))
            }
        };
        TResNetBlock {
            conv1,
            conv2,
            conv3,
            se: hidden.map(|hidden| SqueezeExcite::new(planes, hidden, device)),
            downsample: self.downsample([inputs, outputs], stride, device),
            drop_path: StochasticDepth::new(drop_path),
            blur: self.anti_alias && stride == 2,
        }
    }

    fn downsample(&self, channels: [usize; 2], stride: usize, device: &Device) -> Option<Vec<Layer>> {
        if stride == 1 && channels[0] == channels[1] {
            return None;
        }
        let pooled = self.anti_alias && stride == 2;
        let conv = Conv2dConfig::new(channels, 1).stride(if pooled { 1 } else { stride });
        let conv = Layer::ConvNorm(ConvNorm::new(conv, BatchNormConfig::new(channels[1]), device));
        let pool = || Layer::Pool(Pool::new(PoolKind::AverageShortcut { stride }));
        Some(if pooled { vec![pool(), conv] } else { vec![conv] })
    }
}

/// A TResNet. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct TResNet {
    body: Body,
    head: Head,
    channels: Vec<usize>,
}

#[derive(Module, Debug)]
struct Body {
    conv1: ConvNorm,
    maxpool: Option<Pool>,
    layer1: Vec<TResNetBlock>,
    layer2: Vec<TResNetBlock>,
    layer3: Vec<TResNetBlock>,
    layer4: Vec<TResNetBlock>,
}

impl Body {
    fn stem(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.maxpool {
            Some(maxpool) => maxpool.forward(self.conv1.forward(x)),
            None => self.conv1.forward(ops::space_to_depth(x, 4)),
        }
    }

    fn layers(&self) -> [&[TResNetBlock]; 4] {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
    }
}

/// The basic block and the bottleneck of figure 3. The activation after the sum is plain ReLU, as in the weights.
#[derive(Module, Debug)]
struct TResNetBlock {
    conv1: ConvNorm,
    conv2: ConvNorm,
    /// A bottleneck's last convolution.
    conv3: Option<ConvNorm>,
    se: Option<SqueezeExcite>,
    downsample: Option<Vec<Layer>>,
    drop_path: StochasticDepth,
    blur: bool,
}

impl TResNetBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branch = match &self.conv3 {
            None => {
                let y = self.blur(self.conv1.forward(x.clone()));
                self.squeeze(self.conv2.forward(y))
            }
            Some(conv3) => {
                let y = self.conv2.forward(self.conv1.forward(x.clone()));
                conv3.forward(self.squeeze(self.blur(y)))
            }
        };
        let shortcut = match &self.downsample {
            Some(layers) => Layer::forward_all(layers, x),
            None => x,
        };
        Activation::Relu.forward(self.drop_path.forward(branch) + shortcut)
    }

    fn blur(&self, x: Tensor<4>) -> Tensor<4> {
        if self.blur { ops::blur_pool(x) } else { x }
    }

    fn squeeze(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.se {
            Some(se) => se.forward(x),
            None => x,
        }
    }
}

impl Backbone for TResNet {
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4> {
        let mut x = self.body.stem(x);
        for (stage, blocks) in self.body.layers().into_iter().enumerate() {
            x = tap(stage, blocks.iter().fold(x, |x, block| block.forward(x)));
        }
        x
    }

    fn feature_info(&self) -> Vec<FeatureInfo> {
        feature_infos(self.channels.iter().copied().zip([4, 8, 16, 32]))
    }

    fn feature_names(&self) -> Vec<String> {
        ["body.layer1", "body.layer2", "body.layer3", "body.layer4"].map(String::from).into()
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}
