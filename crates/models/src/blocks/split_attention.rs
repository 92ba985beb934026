use crate::layers::{Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Init};
use crate::ops;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// Configuration of a [`SplitAttention`] unit.
#[derive(Clone, Copy, Debug)]
pub struct SplitAttentionConfig {
    /// Channels of the input and of the output: the group width times the cardinality.
    pub channels: usize,
    /// Splits within a cardinal group (R). 1 makes the attention a sigmoid gate.
    pub radix: usize,
    /// Cardinal groups (K); the groups of the attention's 1x1 convolutions.
    pub cardinality: usize,
    /// The convolution that makes the splits.
    pub conv: SplitConv,
    /// The activation after the convolution's norm and inside the attention.
    pub activation: Activation,
}

/// The convolution of a [`SplitAttention`] unit.
#[derive(Clone, Copy, Debug)]
pub enum SplitConv {
    /// 3x3 with one group for each split of each cardinal group, as in ResNeSt.
    PerSplit,
    /// 3x3 with this many groups in each split and a stride: RegNet-SA, whose convolution groups are not its
    /// attention heads.
    Grouped {
        /// Groups in each split.
        groups: usize,
        /// Stride in both directions.
        stride: usize,
    },
    /// Each split is a depthwise convolution of the whole input: SA-FBNetV2.
    Depthwise {
        /// Side of the kernel.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
    },
}

impl SplitAttentionConfig {
    /// The unit of ResNeSt.
    pub fn new(channels: usize, radix: usize, cardinality: usize) -> Self {
        Self { channels, radix, cardinality, conv: SplitConv::PerSplit, activation: Activation::Relu }
    }

    /// Width of the attention: a quarter of the split channels, but at least 32.
    pub fn attention_channels(&self) -> usize {
        (self.channels * self.radix / 4).max(32)
    }

    /// Builds the unit.
    pub fn init(&self, device: &Device) -> SplitAttention {
        let Self { channels, radix, cardinality, activation, .. } = *self;
        let (split, hidden) = (channels * radix, self.attention_channels());
        let conv = match self.conv {
            SplitConv::PerSplit => Conv2dConfig::new([channels, split], 3).groups(cardinality * radix),
            SplitConv::Grouped { groups, stride } => {
                Conv2dConfig::new([channels, split], 3).groups(groups * radix).stride(stride)
            }
            SplitConv::Depthwise { kernel, stride } => Conv2dConfig::new([split, split], kernel)
                .groups(split)
                .stride(stride)
                .init_with(Init::kaiming_fan_out(1, [kernel, kernel])),
        };
        let fc = |channels| Conv2dConfig::new(channels, 1).groups(cardinality).bias();
        SplitAttention {
            conv: conv.init(device),
            bn0: BatchNormConfig::new(split).activation(activation).init(device),
            fc1: fc([channels, hidden]).init(device),
            bn1: BatchNormConfig::new(hidden).activation(activation).init(device),
            fc2: fc([hidden, split]).init(device),
            radix,
            cardinality,
            repeat: if matches!(self.conv, SplitConv::Depthwise { .. }) { radix } else { 1 },
        }
    }
}

/// The split-attention unit (ResNeSt section 3, equations 1 to 3), in the radix-major layout of its supplement.
///
/// `fc1` and `fc2` have a bias, as in the published weights.
#[derive(Module, Debug)]
pub struct SplitAttention {
    conv: Conv2d,
    bn0: BatchNorm,
    fc1: Conv2d,
    bn1: BatchNorm,
    fc2: Conv2d,
    radix: usize,
    cardinality: usize,
    repeat: usize,
}

impl SplitAttention {
    /// # Shapes
    ///
    /// - `x`: `[n, channels, h, w]`
    /// - output: `[n, channels, h', w']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.repeat > 1 { x.repeat_dim(1, self.repeat) } else { x };
        let splits = self.bn0.forward(self.conv.forward(x));
        let pooled = ops::radix_pool(splits.clone(), self.radix);
        let hidden = self.bn1.forward(self.fc1.forward(pooled));
        ops::split_attention(splits, self.fc2.forward(hidden), self.radix, self.cardinality)
    }
}
