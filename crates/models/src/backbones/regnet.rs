//! RegNetY, and RegNet-SA: split attention in its design space (ResNeSt section 4.1 and table 1).

use super::{Backbone, FeatureInfo, Head, LinearInit, Tap, drop_path_rates, feature_infos};
use crate::ModelOptions;
use crate::blocks::{SplitAttention, SplitAttentionConfig, SplitConv, SqueezeExcite};
use crate::layers::{Activation, BatchNormConfig, Conv2dConfig, ConvNorm, Init, StochasticDepth};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// The numbers of a RegNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegNetConfig {
    /// Channels of each stage.
    pub widths: [usize; 4],
    /// Blocks in each stage.
    pub depths: [usize; 4],
    /// Groups of the 3x3 convolution in each stage.
    pub groups: [usize; 4],
    /// The attention after it.
    pub attention: RegNetAttention,
}

/// The attention of a RegNet's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegNetAttention {
    /// Squeeze-and-excitation to a quarter of the block's input channels: the published weights.
    SqueezeInput,
    /// Squeeze-and-excitation to a quarter of the block's own channels: what reproduces the ResNeSt paper's counts.
    SqueezeWidth,
    /// Split attention of radix 1 with this many heads in each stage: RegNet-SA.
    Heads([usize; 4]),
}

const STEM_CHANNELS: usize = 32;

impl RegNetConfig {
    /// Builds the network on `device`; parameters draw their values when they are first read.
    pub fn init(&self, options: &ModelOptions, device: &Device) -> RegNet {
        let conv = grouped([options.in_chans, STEM_CHANNELS], 3, 1).stride(2);
        let mut stages = self.stages(options, device).into_iter();
        let mut stage = || stages.next().expect("a RegNet has four stages");
        RegNet {
            stem: ConvNorm::new(conv, relu(STEM_CHANNELS), device),
            s1: stage(),
            s2: stage(),
            s3: stage(),
            s4: stage(),
            head: Head::new(self.widths[3], options, LinearInit::Normal { zero_bias: true }, device),
            channels: [STEM_CHANNELS].into_iter().chain(self.widths).collect(),
        }
    }

    fn stages(&self, options: &ModelOptions, device: &Device) -> Vec<Stage> {
        let drop_path = drop_path_rates(options.drop_path_rate, self.depths.iter().sum());
        let (mut inputs, mut index) = (STEM_CHANNELS, 0);
        let mut stages = Vec::with_capacity(4);
        for stage in 0..4 {
            let mut b = Vec::with_capacity(self.depths[stage]);
            for _ in 0..self.depths[stage] {
                b.push(self.block(stage, inputs, drop_path(index), device));
                inputs = self.widths[stage];
                index += 1;
            }
            stages.push(Stage { b });
        }
        stages
    }

    fn block(&self, stage: usize, inputs: usize, drop_path: f64, device: &Device) -> RegNetBlock {
        let (width, groups) = (self.widths[stage], self.groups[stage]);
        // The first block of a stage changes the width in every RegNet, and takes the stride.
        let first = inputs != width;
        let stride = if first { 2 } else { 1 };
        let quarter = |channels: usize| (channels as f64 / 4.0).round_ties_even() as usize;
        let squeeze = |hidden| Some(SqueezeExcite::new_zero_bias(width, hidden, device));
        let conv2 = || {
            Middle::Conv(ConvNorm::new(
                grouped([width, width], 3, groups).stride(stride),
                relu(width),
                device,
            ))
        };
        let (conv2, se) = match self.attention {
            RegNetAttention::SqueezeInput => (conv2(), squeeze(quarter(inputs))),
            RegNetAttention::SqueezeWidth => (conv2(), squeeze(quarter(width))),
            RegNetAttention::Heads(heads) => {
                let conv = SplitConv::Grouped { groups, stride };
                let unit = SplitAttentionConfig { conv, ..SplitAttentionConfig::new(width, 1, heads[stage]) };
                (Middle::Split(unit.init(device)), None)
            }
        };
        let last = BatchNormConfig::new(width);
        let downsample = || ConvNorm::new(grouped([inputs, width], 1, 1).stride(stride), last, device);
        RegNetBlock {
            conv1: ConvNorm::new(grouped([inputs, width], 1, 1), relu(width), device),
            conv2,
            se,
            conv3: ConvNorm::new(grouped([width, width], 1, 1), last.zero_gamma(true), device),
            downsample: first.then(downsample),
            drop_path: StochasticDepth::new(drop_path),
        }
    }
}

/// A convolution drawn by the fan-out of one group, as RegNets are.
fn grouped(channels: [usize; 2], kernel: usize, groups: usize) -> Conv2dConfig {
    let init = Init::kaiming_fan_out(channels[1] / groups, [kernel, kernel]);
    Conv2dConfig::new(channels, kernel).groups(groups).init_with(init)
}

fn relu(channels: usize) -> BatchNormConfig {
    BatchNormConfig::new(channels).activation(Activation::Relu)
}

/// A RegNet. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct RegNet {
    stem: ConvNorm,
    s1: Stage,
    s2: Stage,
    s3: Stage,
    s4: Stage,
    head: Head,
    channels: Vec<usize>,
}

/// The blocks of a stage, which checkpoints call `b1`, `b2` and so on.
#[derive(Module, Debug)]
struct Stage {
    b: Vec<RegNetBlock>,
}

/// The Y block: bottleneck ratio 1 with an attention after the 3x3.
#[derive(Module, Debug)]
struct RegNetBlock {
    conv1: ConvNorm,
    conv2: Middle,
    se: Option<SqueezeExcite>,
    conv3: ConvNorm,
    downsample: Option<ConvNorm>,
    drop_path: StochasticDepth,
}

#[derive(Module, Debug)]
enum Middle {
    Conv(ConvNorm),
    Split(SplitAttention),
}

impl RegNetBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(x.clone());
        let y = match &self.conv2 {
            Middle::Conv(conv) => conv.forward(y),
            Middle::Split(unit) => unit.forward(y),
        };
        let y = match &self.se {
            Some(se) => se.forward(y),
            None => y,
        };
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x),
            None => x,
        };
        Activation::Relu.forward(self.drop_path.forward(self.conv3.forward(y)) + shortcut)
    }
}

impl RegNet {
    fn parts(&self) -> [&Stage; 4] {
        [&self.s1, &self.s2, &self.s3, &self.s4]
    }
}

impl Backbone for RegNet {
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4> {
        let mut x = tap(0, self.stem.forward(x));
        for (stage, part) in self.parts().into_iter().enumerate() {
            x = tap(stage + 1, part.b.iter().fold(x, |x, block| block.forward(x)));
        }
        x
    }

    fn feature_info(&self) -> Vec<FeatureInfo> {
        feature_infos(self.channels.iter().copied().zip([2, 4, 8, 16, 32]))
    }

    fn feature_names(&self) -> Vec<String> {
        ["stem", "s1", "s2", "s3", "s4"].map(String::from).into()
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}
