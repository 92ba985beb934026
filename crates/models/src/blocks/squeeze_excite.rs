use crate::layers::{Activation, Conv2d, Conv2dConfig, Init};
use crate::ops;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// Squeeze-and-excitation: scales each channel by a number that two 1x1 convolutions find from the channel means.
#[derive(Module, Debug)]
pub struct SqueezeExcite {
    fc1: Conv2d,
    fc2: Conv2d,
}

impl SqueezeExcite {
    /// `channels` inputs and outputs with `hidden` channels between; ReLU and sigmoid.
    pub fn new(channels: usize, hidden: usize, device: &Device) -> Self {
        Self {
            fc1: Conv2dConfig::new([channels, hidden], 1).bias().init(device),
            fc2: Conv2dConfig::new([hidden, channels], 1).bias().init(device),
        }
    }

    /// The same with the biases at zero, as RegNet starts them.
    pub fn new_zero_bias(channels: usize, hidden: usize, device: &Device) -> Self {
        let conv = |channels| Conv2dConfig::new(channels, 1).bias_init(Init::Constant(0.0)).init(device);
        Self { fc1: conv([channels, hidden]), fc2: conv([hidden, channels]) }
    }

    /// `[n, c, h, w]`; the output has the input's shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = Activation::Relu.forward(self.fc1.forward(ops::global_avg_pool(x.clone())));
        ops::gate(x, self.fc2.forward(hidden), false)
    }
}

/// [`SqueezeExcite`] as the mobile networks have it: their activation inside and, in some, a hard sigmoid.
#[derive(Module, Debug)]
pub struct MobileSqueezeExcite {
    conv_reduce: Conv2d,
    conv_expand: Conv2d,
    #[module(skip)]
    activation: Activation,
    hard: bool,
}

impl MobileSqueezeExcite {
    /// `channels` inputs and outputs with `hidden` channels between.
    pub fn new(channels: usize, hidden: usize, activation: Activation, hard: bool, device: &Device) -> Self {
        let conv = |channels| Conv2dConfig::new(channels, 1).bias_init(Init::Constant(0.0)).init(device);
        Self {
            conv_reduce: conv([channels, hidden]),
            conv_expand: conv([hidden, channels]),
            activation,
            hard,
        }
    }

    /// `[n, c, h, w]`; the output has the input's shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = self.activation.forward(self.conv_reduce.forward(ops::global_avg_pool(x.clone())));
        ops::gate(x, self.conv_expand.forward(hidden), self.hard)
    }
}
