//! ResNet, ResNet-D, ResNeXt, SENet, SKNet and ResNeSt: one skeleton.

use super::{Backbone, FeatureInfo, Head, LinearInit, Tap, drop_path_rates, feature_infos};
use crate::ModelOptions;
use crate::blocks::{Attention, Block, BlockConfig, BlockKind, Shortcut};
use crate::layers::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Layer, Nothing, Pool, PoolKind,
};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// The numbers of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResNetConfig {
    /// The first convolutions.
    pub stem: Stem,
    /// Basic or bottleneck blocks.
    pub block: BlockKind,
    /// Blocks in each stage.
    pub layers: [usize; 4],
    /// Planes of the first stage; later stages double them.
    pub planes: usize,
    /// Groups of the 3x3 convolutions (K).
    pub cardinality: usize,
    /// Width of a group for 64 planes.
    pub base_width: usize,
    /// Divides the width of each block's first convolution.
    pub reduce_first: usize,
    /// The projections.
    pub shortcut: Shortcut,
    /// The attention in each block.
    pub attention: Attention,
    /// Start each block as the identity (ResNeSt section 5.2).
    pub zero_init: bool,
    /// Max pooling in the stem without padding, in ceil mode: the first SENets.
    pub ceil_pool: bool,
}

/// The first convolutions of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 7x7 with stride 2 to 64 channels.
    Conv7,
    /// Three 3x3, the first with stride 2, of this width, this width and twice this width (ResNet-D).
    Deep(usize),
}

impl Stem {
    fn channels(self) -> usize {
        match self {
            Self::Conv7 => 64,
            Self::Deep(width) => 2 * width,
        }
    }

    fn init(self, in_chans: usize, device: &Device) -> StemConv {
        let first = |width, kernel| Conv2dConfig::new([in_chans, width], kernel).stride(2).init(device);
        match self {
            Self::Conv7 => StemConv::Single(first(64, 7)),
            Self::Deep(width) => {
                let relu = BatchNormConfig::new(width).activation(Activation::Relu);
                let conv = |outputs| Layer::Conv(Conv2dConfig::new([width, outputs], 3).init(device));
                StemConv::Deep(vec![
                    Layer::Conv(first(width, 3)),
                    Layer::Norm(relu.init(device)),
                    Layer::Nothing(Nothing {}),
                    conv(width),
                    Layer::Norm(relu.init(device)),
                    Layer::Nothing(Nothing {}),
                    conv(2 * width),
                ])
            }
        }
    }
}

impl ResNetConfig {
    /// Builds the network on `device`; parameters draw their values when they are first read.
    pub fn init(&self, options: &ModelOptions, device: &Device) -> ResNet {
        let mut stages = self.stages(options, device).into_iter();
        let mut stage = || stages.next().expect("a ResNet has four stages");
        ResNet {
            conv1: self.stem.init(options.in_chans, device),
            bn1: BatchNormConfig::new(self.stem.channels()).activation(Activation::Relu).init(device),
            maxpool: Pool::new(if self.ceil_pool { PoolKind::MaxStemCeil } else { PoolKind::MaxStem }),
            layer1: stage(),
            layer2: stage(),
            layer3: stage(),
            layer4: stage(),
            head: Head::new(8 * self.planes * self.block.expansion(), options, LinearInit::Torch, device),
            channels: self.feature_channels().into(),
        }
    }

    fn feature_channels(&self) -> [usize; 5] {
        let expansion = self.block.expansion();
        let stage = |stage: usize| (self.planes << stage) * expansion;
        [self.stem.channels(), stage(0), stage(1), stage(2), stage(3)]
    }

    fn stages(&self, options: &ModelOptions, device: &Device) -> Vec<Vec<Block>> {
        let drop_path = drop_path_rates(options.drop_path_rate, self.layers.iter().sum());
        let (mut inputs, mut index) = (self.stem.channels(), 0);
        let mut stages = Vec::with_capacity(4);
        for (stage, count) in self.layers.into_iter().enumerate() {
            let mut blocks = Vec::with_capacity(count);
            for position in 0..count {
                let config = BlockConfig {
                    kind: self.block,
                    inputs,
                    planes: self.planes << stage,
                    stride: if position == 0 && stage > 0 { 2 } else { 1 },
                    cardinality: self.cardinality,
                    base_width: self.base_width,
                    reduce_first: self.reduce_first,
                    shortcut: self.shortcut,
                    attention: self.attention,
                    zero_init: self.zero_init && options.zero_init_last,
                    drop_path: drop_path(index),
                    // The last two stages only: ResNeSt section 5.2.
                    drop_block: if stage >= 2 { options.drop_block_rate } else { 0.0 },
                };
                blocks.push(config.init(device));
                inputs = config.outputs();
                index += 1;
            }
            stages.push(blocks);
        }
        stages
    }
}

/// A ResNet, ResNet-D, ResNeXt, SENet, SKNet or ResNeSt. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: StemConv,
    bn1: BatchNorm,
    maxpool: Pool,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    head: Head,
    channels: Vec<usize>,
}

#[derive(Module, Debug)]
enum StemConv {
    Single(Conv2d),
    Deep(Vec<Layer>),
}

impl ResNet {
    fn stem(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.conv1 {
            StemConv::Single(conv) => conv.forward(x),
            StemConv::Deep(layers) => Layer::forward_all(layers, x),
        };
        self.bn1.forward(x)
    }

    /// Sets the rate of every DropBlock.
    pub(crate) fn set_drop_block_rate(&mut self, rate: f64) {
        let stages = [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4];
        stages.into_iter().flatten().for_each(|block| block.set_drop_block_rate(rate));
    }

    fn layers(&self) -> [&[Block]; 4] {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
    }
}

impl Backbone for ResNet {
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4> {
        let mut x = self.maxpool.forward(tap(0, self.stem(x)));
        for (stage, blocks) in self.layers().into_iter().enumerate() {
            x = tap(stage + 1, blocks.iter().fold(x, |x, block| block.forward(x)));
        }
        x
    }

    fn feature_info(&self) -> Vec<FeatureInfo> {
        feature_infos(self.channels.iter().copied().zip([2, 4, 8, 16, 32]))
    }

    fn feature_names(&self) -> Vec<String> {
        ["bn1", "layer1", "layer2", "layer3", "layer4"].map(String::from).into()
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}
