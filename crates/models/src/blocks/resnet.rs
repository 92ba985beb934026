//! The residual blocks of ResNet, ResNet-D, ResNeXt, SENet, SKNet and ResNeSt.

use super::{
    SelectiveKernel, SelectiveKernelConfig, SplitAttention, SplitAttentionConfig, SqueezeExcite,
    round_channels,
};
use crate::layers::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvNorm, DropBlock, Layer, Pool, PoolKind,
    StochasticDepth,
};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// The two shapes of residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 and 1x1, the last with four times the planes.
    Bottleneck,
}

impl BlockKind {
    /// Output channels for each plane.
    pub const fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// The attention of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attention {
    /// None.
    None,
    /// Squeeze-and-excitation on the block's output, reduced by 16 and rounded to a multiple of 8.
    SqueezeExcite,
    /// Selective kernels in place of the 3x3 convolution: [`SelectiveKernelConfig`]'s input split, reduction and
    /// divisor.
    SelectiveKernel {
        /// Each path reads one half of the channels.
        split_input: bool,
        /// The attention's share of the channels.
        reduction: f64,
        /// The attention's channels are a multiple of this.
        divisor: usize,
    },
    /// Split attention in place of the 3x3 convolution, with stride by average pooling (ResNeSt).
    Split {
        /// Splits in each cardinal group.
        radix: usize,
        /// The pooling comes before the unit: the "fast" variants.
        avd_first: bool,
    },
}

/// The projection on the shortcut of a stage's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// A strided convolution with this kernel (1 where the stride is 1).
    Strided {
        /// Side of the kernel.
        kernel: usize,
    },
    /// Average pooling, then a 1x1 convolution: ResNet-D.
    Pooled,
}

/// Configuration of a [`Block`].
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Basic or bottleneck.
    pub kind: BlockKind,
    /// Channels of the input.
    pub inputs: usize,
    /// Base channels; the output has `planes * kind.expansion()`.
    pub planes: usize,
    /// Stride of the block.
    pub stride: usize,
    /// Groups of the 3x3 convolution (K).
    pub cardinality: usize,
    /// Width of a group for 64 planes.
    pub base_width: usize,
    /// Divides the width of a bottleneck's first convolution.
    pub reduce_first: usize,
    /// The projection, where one is needed.
    pub shortcut: Shortcut,
    /// The attention.
    pub attention: Attention,
    /// Start as the identity, with the last norm's weight at zero.
    pub zero_init: bool,
    /// Probability of dropping the residual branch.
    pub drop_path: f64,
    /// DropBlock's rate; 0 leaves it out.
    pub drop_block: f64,
}

impl BlockConfig {
    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.planes * self.kind.expansion()
    }

    /// Channels of the 3x3 convolution in a bottleneck.
    fn width(&self) -> usize {
        self.planes * self.base_width / 64 * self.cardinality
    }

    /// Builds the block.
    pub fn init(&self, device: &Device) -> Block {
        match (self.kind, self.attention) {
            (BlockKind::Basic, Attention::SelectiveKernel { .. }) => {
                Block::SelectiveBasic(SelectiveBasic::new(self, device))
            }
            (BlockKind::Basic, _) => Block::Basic(Basic::new(self, device)),
            (BlockKind::Bottleneck, Attention::SelectiveKernel { .. }) => {
                Block::SelectiveBottleneck(SelectiveBottleneck::new(self, device))
            }
            (BlockKind::Bottleneck, _) => Block::Bottleneck(Bottleneck::new(self, device)),
        }
    }

    fn downsample(&self, device: &Device) -> Option<Vec<Layer>> {
        if self.stride == 1 && self.inputs == self.outputs() {
            return None;
        }
        let conv = |kernel, stride| {
            Layer::Conv(Conv2dConfig::new([self.inputs, self.outputs()], kernel).stride(stride).init(device))
        };
        let norm = Layer::Norm(BatchNormConfig::new(self.outputs()).init(device));
        Some(match self.shortcut {
            Shortcut::Strided { kernel } => {
                vec![conv(if self.stride == 1 { 1 } else { kernel }, self.stride), norm]
            }
            Shortcut::Pooled => {
                let pool = Pool::new(PoolKind::AverageShortcut { stride: self.stride });
                vec![Layer::Pool(pool), conv(1, 1), norm]
            }
        })
    }

    fn squeeze_excite(&self, device: &Device) -> Option<SqueezeExcite> {
        let outputs = self.outputs();
        let hidden = round_channels(outputs as f64 / 16.0, 8, 8, 0.0);
        (self.attention == Attention::SqueezeExcite).then(|| SqueezeExcite::new(outputs, hidden, device))
    }

    fn selective_kernel(&self, channels: [usize; 2], device: &Device) -> SelectiveKernel {
        let Attention::SelectiveKernel { split_input, reduction, divisor } = self.attention else {
            unreachable!("only blocks with selective kernels ask for one");
        };
        let (stride, groups) = (self.stride, self.cardinality);
        SelectiveKernelConfig { channels, stride, groups, split_input, reduction, divisor }.init(device)
    }

    fn residual(&self, device: &Device) -> Residual {
        Residual {
            downsample: self.downsample(device),
            drop_path: StochasticDepth::new(self.drop_path),
            drop_block: (self.drop_block > 0.0).then(|| DropBlock::new(self.drop_block, 3)),
        }
    }

    fn last_norm(&self) -> BatchNormConfig {
        BatchNormConfig::new(self.outputs()).zero_gamma(self.zero_init)
    }
}

/// A residual block; the variants differ in their parameters' names.
#[derive(Module, Debug)]
pub enum Block {
    /// Two 3x3 convolutions.
    Basic(Basic),
    /// A bottleneck.
    Bottleneck(Bottleneck),
    /// A basic block with selective kernels.
    SelectiveBasic(SelectiveBasic),
    /// A bottleneck with selective kernels.
    SelectiveBottleneck(SelectiveBottleneck),
}

impl Block {
    /// `[n, in, h, w]` -> `[n, out, ceil(h / stride), ceil(w / stride)]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Basic(block) => block.forward(x),
            Self::Bottleneck(block) => block.forward(x),
            Self::SelectiveBasic(block) => block.forward(x),
            Self::SelectiveBottleneck(block) => block.forward(x),
        }
    }

    /// Sets DropBlock's rate, if the block has one.
    pub(crate) fn set_drop_block_rate(&mut self, rate: f64) {
        let residual = match self {
            Self::Basic(block) => &mut block.residual,
            Self::Bottleneck(block) => &mut block.residual,
            Self::SelectiveBasic(block) => &mut block.residual,
            Self::SelectiveBottleneck(block) => &mut block.residual,
        };
        if let Some(drop_block) = &mut residual.drop_block {
            drop_block.set_rate(rate);
        }
    }
}

/// What all blocks share: the shortcut and the regularisers. Its fields carry the shortcut's name only.
#[derive(Module, Debug)]
struct Residual {
    downsample: Option<Vec<Layer>>,
    drop_path: StochasticDepth,
    drop_block: Option<DropBlock>,
}

impl Residual {
    fn add(&self, x: Tensor<4>, branch: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(layers) => Layer::forward_all(layers, x),
            None => x,
        };
        Activation::Relu.forward(self.drop_path.forward(branch) + shortcut)
    }

    fn drop_block(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.drop_block {
            Some(drop) => drop.forward(x),
            None => x,
        }
    }

    /// `norm` with DropBlock between it and its activation.
    fn norm(&self, norm: &BatchNorm, x: Tensor<4>) -> Tensor<4> {
        match &self.drop_block {
            Some(drop) => norm.forward_with(x, |x| drop.forward(x)),
            None => norm.forward(x),
        }
    }
}

/// Two 3x3 convolutions with an optional squeeze-and-excitation.
#[derive(Module, Debug)]
pub struct Basic {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    se: Option<SqueezeExcite>,
    residual: Residual,
}

impl Basic {
    fn new(config: &BlockConfig, device: &Device) -> Self {
        let planes = config.planes;
        let relu = BatchNormConfig::new(planes).activation(Activation::Relu);
        Self {
            conv1: Conv2dConfig::new([config.inputs, planes], 3).stride(config.stride).init(device),
            bn1: relu.init(device),
            conv2: Conv2dConfig::new([planes, planes], 3).init(device),
            bn2: config.last_norm().init(device),
            se: config.squeeze_excite(device),
            residual: config.residual(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.residual.norm(&self.bn1, self.conv1.forward(x.clone()));
        let y = self.residual.norm(&self.bn2, self.conv2.forward(y));
        self.residual.add(x, squeeze(&self.se, y))
    }
}

/// 1x1, 3x3 (plain or split attention) and 1x1.
#[derive(Module, Debug)]
pub struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Middle,
    bn2: Option<BatchNorm>,
    conv3: Conv2d,
    bn3: BatchNorm,
    se: Option<SqueezeExcite>,
    residual: Residual,
    avd: Option<Pool>,
    avd_first: bool,
}

/// The 3x3 of a bottleneck.
#[derive(Module, Debug)]
enum Middle {
    Conv(Conv2d),
    Split(SplitAttention),
}

impl Bottleneck {
    fn new(config: &BlockConfig, device: &Device) -> Self {
        let (width, cardinality) = (config.width(), config.cardinality);
        let first = width / config.reduce_first;
        let relu = |channels| BatchNormConfig::new(channels).activation(Activation::Relu).init(device);
        let (conv2, bn2, avd_first) = match config.attention {
            Attention::Split { radix, avd_first } => {
                let unit = SplitAttentionConfig::new(width, radix, cardinality);
                (Middle::Split(unit.init(device)), None, avd_first)
            }
            _ => {
                let conv = Conv2dConfig::new([first, width], 3).stride(config.stride).groups(cardinality);
                (Middle::Conv(conv.init(device)), Some(relu(width)), false)
            }
        };
        let pooled = bn2.is_none() && config.stride > 1;
        Self {
            conv1: Conv2dConfig::new([config.inputs, first], 1).init(device),
            bn1: relu(first),
            conv2,
            bn2,
            conv3: Conv2dConfig::new([width, config.outputs()], 1).init(device),
            bn3: config.last_norm().init(device),
            se: config.squeeze_excite(device),
            residual: config.residual(device),
            avd: pooled.then(|| Pool::new(PoolKind::AverageDown { stride: config.stride })),
            avd_first,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.residual.norm(&self.bn1, self.conv1.forward(x.clone()));
        let y = self.middle(self.pool(y, true));
        let y = self.residual.norm(&self.bn3, self.conv3.forward(self.pool(y, false)));
        self.residual.add(x, squeeze(&self.se, y))
    }

    fn middle(&self, x: Tensor<4>) -> Tensor<4> {
        match (&self.conv2, &self.bn2) {
            (Middle::Conv(conv), Some(bn2)) => self.residual.norm(bn2, conv.forward(x)),
            (Middle::Conv(conv), None) => conv.forward(x),
            (Middle::Split(unit), _) => self.residual.drop_block(unit.forward(x)),
        }
    }

    /// The average pooling, if it belongs on this side of the 3x3.
    fn pool(&self, x: Tensor<4>, before: bool) -> Tensor<4> {
        match &self.avd {
            Some(pool) if self.avd_first == before => pool.forward(x),
            _ => x,
        }
    }
}

fn squeeze(se: &Option<SqueezeExcite>, x: Tensor<4>) -> Tensor<4> {
    match se {
        Some(se) => se.forward(x),
        None => x,
    }
}

/// A basic block whose first convolution is a selective kernel unit.
#[derive(Module, Debug)]
pub struct SelectiveBasic {
    conv1: SelectiveKernel,
    conv2: ConvNorm,
    residual: Residual,
}

impl SelectiveBasic {
    fn new(config: &BlockConfig, device: &Device) -> Self {
        let planes = config.planes;
        Self {
            conv1: config.selective_kernel([config.inputs, planes], device),
            conv2: ConvNorm::new(Conv2dConfig::new([planes, planes], 3), config.last_norm(), device),
            residual: config.residual(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.residual.drop_block(self.conv1.forward(x.clone()));
        self.residual.add(x, self.residual.drop_block(self.conv2.forward(y)))
    }
}

/// A bottleneck whose 3x3 is a selective kernel unit.
#[derive(Module, Debug)]
pub struct SelectiveBottleneck {
    conv1: ConvNorm,
    conv2: SelectiveKernel,
    conv3: ConvNorm,
    residual: Residual,
}

impl SelectiveBottleneck {
    fn new(config: &BlockConfig, device: &Device) -> Self {
        let width = config.width();
        let first = width / config.reduce_first;
        let relu = BatchNormConfig::new(first).activation(Activation::Relu);
        let last = Conv2dConfig::new([width, config.outputs()], 1);
        Self {
            conv1: ConvNorm::new(Conv2dConfig::new([config.inputs, first], 1), relu, device),
            conv2: config.selective_kernel([first, width], device),
            conv3: ConvNorm::new(last, config.last_norm(), device),
            residual: config.residual(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.residual.drop_block(self.conv2.forward(self.conv1.forward(x.clone())));
        self.residual.add(x, self.residual.drop_block(self.conv3.forward(y)))
    }
}
