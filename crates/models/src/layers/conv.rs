use super::Init;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, module::conv2d, ops::ConvOptions};

/// Zero padding around the input of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// The same number of rows and columns on every side.
    Even(usize),
    /// TensorFlow's rule: as much as makes the output `ceil(input / stride)`, the odd row or column at the end.
    Same,
}

#[derive(Clone, Copy, Debug)]
enum Bias {
    None,
    TorchDefault,
    Init(Init),
}

/// Configuration of a [`Conv2d`]: a square kernel with `dilation * (kernel - 1) / 2` padding unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Conv2dConfig {
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
    padding: Option<Padding>,
    bias: Bias,
    init: Option<Init>,
}

impl Conv2dConfig {
    /// A convolution of `channels[0]` inputs to `channels[1]` outputs with stride 1 and no bias.
    pub fn new(channels: [usize; 2], kernel: usize) -> Self {
        Self {
            channels,
            kernel,
            stride: 1,
            dilation: 1,
            groups: 1,
            padding: None,
            bias: Bias::None,
            init: None,
        }
    }

    /// Sets the stride in both directions.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the spacing of the kernel's elements.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Splits the channels into groups that do not see each other.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Sets the padding.
    pub fn padding(self, padding: Padding) -> Self {
        Self { padding: Some(padding), ..self }
    }

    /// Adds a bias, drawn as PyTorch does by default.
    pub fn bias(self) -> Self {
        Self { bias: Bias::TorchDefault, ..self }
    }

    /// Adds a bias, drawn as given.
    pub fn bias_init(self, init: Init) -> Self {
        Self { bias: Bias::Init(init), ..self }
    }

    /// Sets how the weight is drawn. Default: [`Init::kaiming_fan_out`].
    pub fn init_with(self, init: Init) -> Self {
        Self { init: Some(init), ..self }
    }

    /// Builds the layer.
    ///
    /// # Panics
    ///
    /// If `groups` does not divide both numbers of channels.
    pub fn init(self, device: &Device) -> Conv2d {
        let Self { channels: [inputs, outputs], kernel, groups, .. } = self;
        assert!(
            inputs % groups == 0 && outputs % groups == 0,
            "{groups} groups do not divide {inputs} input and {outputs} output channels"
        );
        let area = [kernel, kernel];
        let fan_in = inputs / groups * kernel * kernel;
        let init = self.init.unwrap_or_else(|| Init::kaiming_fan_out(outputs, area));
        let bias = match self.bias {
            Bias::None => None,
            Bias::TorchDefault => Some(Init::torch_default(fan_in)),
            Bias::Init(init) => Some(init),
        };
        Conv2d {
            weight: init.param([outputs, inputs / groups, kernel, kernel], device),
            bias: bias.map(|init| init.param([outputs], device)),
            padding: self.padding.unwrap_or(Padding::Even(self.dilation * (kernel - 1) / 2)),
            kernel,
            stride: self.stride,
            dilation: self.dilation,
            groups,
        }
    }
}

/// A 2-D convolution. `weight` is `[out, in / groups, kernel, kernel]`, `bias` is `[out]`, as in PyTorch.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    padding: Padding,
    kernel: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
}

impl Conv2d {
    /// # Shapes
    ///
    /// - `x`: `[n, in, h, w]`
    /// - output: `[n, out, h', w']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let mut options = ConvOptions::new([self.stride; 2], [0; 2], [self.dilation; 2], self.groups);
        options.padding = match self.padding {
            Padding::Even(p) => [(p, p); 2],
            Padding::Same => [h, w].map(|size| same_padding(size, self.kernel, self.stride, self.dilation)),
        };
        conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), options)
    }

    /// Number of input channels.
    pub fn in_channels(&self) -> usize {
        self.weight.lazy_shape()[1] * self.groups
    }

    /// Number of output channels.
    pub fn out_channels(&self) -> usize {
        self.weight.lazy_shape()[0]
    }
}

/// Rows to add before and after an input of `size` rows by TensorFlow's "same" rule.
fn same_padding(size: usize, kernel: usize, stride: usize, dilation: usize) -> (usize, usize) {
    let covered = (size.div_ceil(stride) - 1) * stride + dilation * (kernel - 1) + 1;
    let total = covered.saturating_sub(size);
    (total / 2, total - total / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_row_at_the_end() {
        assert_eq!(same_padding(224, 3, 2, 1), (0, 1));
        assert_eq!(same_padding(225, 3, 2, 1), (1, 1));
        assert_eq!(same_padding(7, 5, 1, 1), (2, 2));
        assert_eq!(same_padding(1, 1, 2, 1), (0, 0));
    }

    #[test]
    fn a_grouped_dilated_convolution_keeps_the_size() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([4, 6], 3).groups(2).dilation(2).bias().init(&device);
        assert_eq!(conv.forward(Tensor::ones([1, 4, 9, 7], &device)).dims(), [1, 6, 9, 7]);
        assert_eq!(conv.out_channels(), 6);
    }

    #[test]
    #[should_panic(expected = "3 groups do not divide 4 input")]
    fn groups_must_divide() {
        Conv2dConfig::new([4, 6], 3).groups(3).init(&Device::flex());
    }
}
