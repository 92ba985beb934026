use burn::module::{Param, ParamId};
use burn::tensor::{Device, Distribution, Shape, Tensor};

/// How the values of a new parameter are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element has this value.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in `[-bound, bound]`.
    Uniform(f64),
}

impl Init {
    /// Kaiming's initialisation for ReLU by fan-out: normal with variance `2 / (kernel area * out channels)`.
    ///
    /// As in PyTorch the fan of a grouped convolution counts all output channels.
    pub fn kaiming_fan_out(out_channels: usize, kernel: [usize; 2]) -> Self {
        Self::Normal((2.0 / (out_channels * kernel[0] * kernel[1]) as f64).sqrt())
    }

    /// PyTorch's default for the weights and biases of convolutions and linear layers: uniform within
    /// `1 / sqrt(fan_in)`.
    pub fn torch_default(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in as f64).sqrt())
    }

    /// A parameter that draws its values when it is first read, so that loading weights draws nothing.
    pub(crate) fn param<const D: usize>(self, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
        let draw = move |device: &Device, require_grad: bool| {
            let tensor = match self {
                Self::Constant(value) => Tensor::full(shape, value, device),
                Self::Normal(std) => Tensor::random(shape, Distribution::Normal(0.0, std), device),
                Self::Uniform(bound) => Tensor::random(shape, Distribution::Uniform(-bound, bound), device),
            };
            if require_grad { tensor.require_grad() } else { tensor }
        };
        Param::uninitialized(ParamId::new(), draw, device.clone(), true, Shape::from(shape))
    }
}
