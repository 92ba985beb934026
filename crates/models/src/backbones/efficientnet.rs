//! EfficientNet (arXiv:1905.11946) and MixNet (arXiv:1907.09595).

use super::{Backbone, FeatureInfo, Head, LinearInit, Tap, feature_infos};
use crate::ModelOptions;
use crate::blocks::{DepthwiseSeparable, InvertedResidual, MobileBlockConfig, MobileConvs, round_channels};
use crate::layers::{Activation, BatchNorm, Conv2d};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// The numbers of an EfficientNet or MixNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EfficientNetConfig {
    /// The stages before scaling.
    pub stages: &'static [&'static [MobileStage]],
    /// Multiplies all channels but the head's of MixNet.
    pub width: f64,
    /// Multiplies the repeats.
    pub depth: f64,
    /// Channels of the first convolution before scaling.
    pub stem: usize,
    /// Channels of the last convolution.
    pub head: usize,
    /// Scale the last convolution's channels too.
    pub scale_head: bool,
    /// The activation of the first and the last convolution.
    pub activation: Activation,
    /// Padding and norm: PyTorch's or TensorFlow's.
    pub convs: MobileConvs,
}

/// A run of equal blocks. A stage is one or two runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MobileStage {
    /// The block.
    pub kind: StageKind,
    /// How many, before scaling.
    pub repeats: usize,
    /// Kernels of the depthwise convolution.
    pub kernels: &'static [usize],
    /// Stride of the first block.
    pub stride: usize,
    /// Channels of the depthwise convolution for each channel of the input.
    pub expand: usize,
    /// Parts of the expanding and of the projecting 1x1 convolution.
    pub parts: [usize; 2],
    /// Channels of the output before scaling.
    pub out: usize,
    /// Hidden channels of squeeze-and-excitation for each channel of the block's input; 0 for none.
    pub se: f64,
    /// The activation.
    pub activation: Activation,
}

/// The two blocks of these networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Depthwise and 1x1.
    DepthwiseSeparable,
    /// MBConv.
    InvertedResidual,
}

impl EfficientNetConfig {
    fn scaled(&self, channels: usize) -> usize {
        round_channels(channels as f64 * self.width, 8, 8, 0.9)
    }

    fn repeats(&self, stage: &MobileStage) -> usize {
        // A hair less than the product, so that 5 * 1.4 = 7.000000000000001 stays 7.
        (stage.repeats as f64 * self.depth - 1e-9).ceil() as usize
    }

    /// Builds the network on `device`; parameters draw their values when they are first read.
    pub fn init(&self, options: &ModelOptions, device: &Device) -> EfficientNet {
        let stem = self.scaled(self.stem);
        let features = if self.scale_head { self.scaled(self.head) } else { self.head };
        let (blocks, last) = self.blocks(stem, options, device);
        EfficientNet {
            conv_stem: self.convs.conv([options.in_chans, stem], 3, 2, 1).init(device),
            bn1: self.convs.norm(stem, self.activation).init(device),
            blocks,
            conv_head: self.convs.conv([last, features], 1, 1, 1).init(device),
            bn2: self.convs.norm(features, self.activation).init(device),
            head: Head::new(features, options, LinearInit::FanOut, device),
            taps: self.taps(),
            info: self.info().into_iter().flat_map(|info| [info.channels, info.reduction]).collect(),
        }
    }

    fn blocks(&self, stem: usize, options: &ModelOptions, device: &Device) -> (Vec<Vec<MobileBlock>>, usize) {
        let count: usize = self.stages.iter().flat_map(|runs| runs.iter()).map(|run| self.repeats(run)).sum();
        let (mut inputs, mut index) = (stem, 0);
        let mut stages = Vec::with_capacity(self.stages.len());
        for runs in self.stages {
            let mut blocks = Vec::new();
            for run in *runs {
                for position in 0..self.repeats(run) {
                    let drop_path = options.drop_path_rate * index as f64 / count as f64;
                    let stride = if position == 0 { run.stride } else { 1 };
                    blocks.push(self.block(run, inputs, stride, drop_path, device));
                    inputs = self.scaled(run.out);
                    index += 1;
                }
            }
            stages.push(blocks);
        }
        (stages, inputs)
    }

    fn block(
        &self,
        run: &MobileStage,
        inputs: usize,
        stride: usize,
        drop_path: f64,
        device: &Device,
    ) -> MobileBlock {
        let mid = round_channels((inputs * run.expand) as f64, 8, 8, 0.9);
        let depthwise_only = run.kind == StageKind::DepthwiseSeparable;
        let config = MobileBlockConfig {
            convs: self.convs,
            channels: [inputs, if depthwise_only { inputs } else { mid }, self.scaled(run.out)],
            kernels: run.kernels,
            stride,
            parts: run.parts,
            se_hidden: (run.se * inputs as f64).round_ties_even() as usize,
            hard_gate: false,
            activation: run.activation,
            zero_init: false,
            drop_path,
        };
        if depthwise_only {
            MobileBlock::DepthwiseSeparable(DepthwiseSeparable::new(&config, device))
        } else {
            MobileBlock::InvertedResidual(InvertedResidual::new(&config, device))
        }
    }

    /// The stages whose output is a feature map: those before a stride, and the last.
    fn taps(&self) -> Vec<usize> {
        let strides: Vec<usize> = self.stages.iter().map(|runs| runs[0].stride).collect();
        (0..strides.len()).filter(|&stage| strides.get(stage + 1).is_none_or(|stride| *stride > 1)).collect()
    }

    fn info(&self) -> Vec<FeatureInfo> {
        let mut reduction = 2;
        let mut all = Vec::new();
        for runs in self.stages {
            reduction *= runs[0].stride;
            all.push((self.scaled(runs[runs.len() - 1].out), reduction));
        }
        feature_infos(self.taps().into_iter().map(|stage| all[stage]))
    }
}

/// An EfficientNet or MixNet. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct EfficientNet {
    conv_stem: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<Vec<MobileBlock>>,
    conv_head: Conv2d,
    bn2: BatchNorm,
    head: Head,
    taps: Vec<usize>,
    info: Vec<usize>,
}

#[derive(Module, Debug)]
enum MobileBlock {
    DepthwiseSeparable(DepthwiseSeparable),
    InvertedResidual(InvertedResidual),
}

impl MobileBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::DepthwiseSeparable(block) => block.forward(x),
            Self::InvertedResidual(block) => block.forward(x),
        }
    }
}

impl Backbone for EfficientNet {
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4> {
        let mut x = self.bn1.forward(self.conv_stem.forward(x));
        for (stage, blocks) in self.blocks.iter().enumerate() {
            x = blocks.iter().fold(x, |x, block| block.forward(x));
            if let Some(place) = self.taps.iter().position(|tapped| *tapped == stage) {
                x = tap(place, x);
            }
        }
        x
    }

    fn last_conv(&self, x: Tensor<4>) -> Tensor<4> {
        self.bn2.forward(self.conv_head.forward(x))
    }

    fn feature_info(&self) -> Vec<FeatureInfo> {
        feature_infos(self.info.chunks_exact(2).map(|pair| (pair[0], pair[1])))
    }

    fn feature_names(&self) -> Vec<String> {
        self.taps.iter().map(|stage| format!("blocks.{stage}")).collect()
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}
