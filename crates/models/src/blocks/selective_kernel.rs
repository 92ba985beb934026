use super::round_channels;
use crate::layers::{Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvNorm};
use crate::ops;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// Configuration of a [`SelectiveKernel`] unit.
#[derive(Clone, Copy, Debug)]
pub struct SelectiveKernelConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Stride of both paths.
    pub stride: usize,
    /// Groups of both convolutions.
    pub groups: usize,
    /// Each path reads one half of the input channels instead of all.
    pub split_input: bool,
    /// The attention's width is this share of the output channels ...
    pub reduction: f64,
    /// ... rounded to a multiple of this.
    pub divisor: usize,
}

/// The unit of SKNet: two 3x3 convolutions, one of them dilated, and softmax attention that weighs them per channel.
///
/// It is split attention over two paths, and uses the same operators.
#[derive(Module, Debug)]
pub struct SelectiveKernel {
    paths: Vec<ConvNorm>,
    attn: SelectiveAttention,
    split_input: bool,
}

#[derive(Module, Debug)]
struct SelectiveAttention {
    fc_reduce: Conv2d,
    bn: BatchNorm,
    fc_select: Conv2d,
}

impl SelectiveKernelConfig {
    /// Builds the unit.
    pub fn init(&self, device: &Device) -> SelectiveKernel {
        let [inputs, outputs] = self.channels;
        let path_inputs = if self.split_input { inputs / 2 } else { inputs };
        let path = |dilation| {
            let conv = Conv2dConfig::new([path_inputs, outputs], 3).stride(self.stride).dilation(dilation);
            let norm = BatchNormConfig::new(outputs).activation(Activation::Relu);
            ConvNorm::new(conv.groups(self.groups), norm, device)
        };
        let hidden = round_channels(outputs as f64 * self.reduction, self.divisor, self.divisor, 0.9);
        let attn = SelectiveAttention {
            fc_reduce: Conv2dConfig::new([outputs, hidden], 1).init(device),
            bn: BatchNormConfig::new(hidden).activation(Activation::Relu).init(device),
            fc_select: Conv2dConfig::new([hidden, 2 * outputs], 1).init(device),
        };
        SelectiveKernel { paths: [1, 2].map(path).into(), attn, split_input: self.split_input }
    }
}

impl SelectiveKernel {
    /// # Shapes
    ///
    /// - `x`: `[n, in, h, w]`
    /// - output: `[n, out, h', w']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inputs = if self.split_input { x.chunk(2, 1) } else { vec![x.clone(), x] };
        let outputs = self.paths.iter().zip(inputs).map(|(path, x)| path.forward(x)).collect();
        let paths = Tensor::cat(outputs, 1);
        let hidden = self.attn.fc_reduce.forward(ops::radix_pool(paths.clone(), 2));
        let logits = self.attn.fc_select.forward(self.attn.bn.forward(hidden));
        ops::split_attention(paths, logits, 2, 1)
    }
}
