//! FBNetV2 (arXiv:2004.05565) and SA-FBNetV2, which has split attention in place of squeeze-and-excitation (ResNeSt
//! section 4.2 and table 2).

use super::{Backbone, FeatureInfo, Head, LinearInit, Tap, feature_infos};
use crate::ModelOptions;
use crate::blocks::{InvertedResidual, MobileBlockConfig, MobileConvs, SplitInvertedResidual};
use crate::layers::{Activation, BatchNormConfig, Conv2d, Conv2dConfig, ConvNorm};
use crate::ops;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// The numbers of an FBNetV2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FbNetConfig {
    /// Channels of the first convolution.
    pub stem: usize,
    /// The blocks.
    pub blocks: &'static [FbNetBlock],
    /// Channels of the last convolution before and after pooling.
    pub tail: [usize; 2],
    /// Splits of the attention that replaces squeeze-and-excitation; `None` is plain FBNetV2.
    pub radix: Option<usize>,
}

/// A block of an FBNetV2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FbNetBlock {
    /// An inverted residual block. Without expansion if `mid` is the input's width.
    Conv {
        /// Side of the depthwise kernel.
        kernel: usize,
        /// Channels of the depthwise convolution.
        mid: usize,
        /// Channels of the output.
        out: usize,
        /// Stride of the depthwise convolution.
        stride: usize,
        /// Hidden channels of the squeeze-and-excitation; 0 leaves it out.
        se: usize,
        /// ReLU or hard swish.
        activation: Activation,
    },
    /// A 1x1 convolution with ReLU that changes the width.
    Skip {
        /// Channels of the output.
        out: usize,
    },
}

impl FbNetBlock {
    fn out_and_stride(&self) -> (usize, usize) {
        match *self {
            Self::Conv { out, stride, .. } => (out, stride),
            Self::Skip { out } => (out, 1),
        }
    }
}

const CONVS: MobileConvs = MobileConvs { same_padding: false, epsilon: 1e-5 };

impl FbNetConfig {
    /// Builds the network on `device`; parameters draw their values when they are first read.
    pub fn init(&self, options: &ModelOptions, device: &Device) -> FbNet {
        let mut inputs = self.stem;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let drop_path = options.drop_path_rate * index as f64 / self.blocks.len() as f64;
            blocks.push(self.block(block, inputs, drop_path, device));
            inputs = block.out_and_stride().0;
        }
        let stem = CONVS.conv([options.in_chans, self.stem], 3, 2, 1).bias();
        let [before, after] = self.tail;
        FbNet {
            conv_stem: ConvNorm::new(stem, CONVS.norm(self.stem, Activation::HardSwish), device),
            blocks,
            conv_head: conv_norm([inputs, before], Activation::HardSwish, device),
            conv_tail: Conv2dConfig::new(self.tail, 1).init(device),
            head: Head::new(after, options, LinearInit::Torch, device),
            taps: self.taps(),
            info: self.info().into_iter().flat_map(|info| [info.channels, info.reduction]).collect(),
        }
    }

    fn block(&self, block: &FbNetBlock, inputs: usize, drop_path: f64, device: &Device) -> Block {
        let &FbNetBlock::Conv { ref kernel, mid, out, stride, se, activation } = block else {
            let out = block.out_and_stride().0;
            return Block::Skip(conv_norm([inputs, out], Activation::Relu, device));
        };
        let config = MobileBlockConfig {
            convs: CONVS,
            channels: [inputs, mid, out],
            kernels: std::slice::from_ref(kernel),
            stride,
            parts: [usize::from(mid != inputs), 1],
            se_hidden: se,
            hard_gate: true,
            activation,
            zero_init: true,
            drop_path,
        };
        match self.radix {
            Some(radix) if se > 0 => Block::Split(SplitInvertedResidual::new(&config, radix, device)),
            _ => Block::InvertedResidual(InvertedResidual::new(&config, device)),
        }
    }

    /// The blocks whose output is a feature map: those before a stride, and the last.
    fn taps(&self) -> Vec<usize> {
        let strided = |i: usize| self.blocks.get(i).is_none_or(|block| block.out_and_stride().1 > 1);
        (0..self.blocks.len()).filter(|i| strided(i + 1)).collect()
    }

    fn info(&self) -> Vec<FeatureInfo> {
        let mut reduction = 2;
        let rows: Vec<(usize, usize)> = self
            .blocks
            .iter()
            .map(|block| {
                let (out, stride) = block.out_and_stride();
                reduction *= stride;
                (out, reduction)
            })
            .collect();
        feature_infos(self.taps().into_iter().map(|i| rows[i]))
    }
}

fn conv_norm(channels: [usize; 2], activation: Activation, device: &Device) -> ConvNorm {
    let norm = BatchNormConfig::new(channels[1]).activation(activation);
    ConvNorm::new(CONVS.conv(channels, 1, 1, 1), norm, device)
}

/// An FBNetV2 or SA-FBNetV2.
#[derive(Module, Debug)]
pub struct FbNet {
    conv_stem: ConvNorm,
    blocks: Vec<Block>,
    conv_head: ConvNorm,
    conv_tail: Conv2d,
    head: Head,
    taps: Vec<usize>,
    info: Vec<usize>,
}

#[derive(Module, Debug)]
enum Block {
    InvertedResidual(InvertedResidual),
    Split(SplitInvertedResidual),
    Skip(ConvNorm),
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::InvertedResidual(block) => block.forward(x),
            Self::Split(block) => block.forward(x),
            Self::Skip(conv) => conv.forward(x),
        }
    }
}

impl Backbone for FbNet {
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4> {
        let mut x = self.conv_stem.forward(x);
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if let Some(place) = self.taps.iter().position(|tapped| *tapped == index) {
                x = tap(place, x);
            }
        }
        x
    }

    fn last_conv(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv_head.forward(x)
    }

    fn feature_info(&self) -> Vec<FeatureInfo> {
        feature_infos(self.info.chunks_exact(2).map(|pair| (pair[0], pair[1])))
    }

    fn feature_names(&self) -> Vec<String> {
        self.taps.iter().map(|block| format!("blocks.{block}")).collect()
    }

    fn forward_head(&self, x: Tensor<4>, pre_logits: bool) -> Tensor<2> {
        // The last convolution comes after pooling, as in MobileNetV3.
        let pooled = self.conv_tail.forward(ops::global_avg_pool(x));
        self.head.forward(Activation::HardSwish.forward(pooled), pre_logits)
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}
