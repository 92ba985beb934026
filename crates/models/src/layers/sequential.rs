use super::{BatchNorm, Conv2d, ConvNorm, Pool};
use burn::module::Module;
use burn::tensor::Tensor;

/// A layer of a sequence. Sequences are `Vec<Layer>`, so that a layer's index is its name in a checkpoint.
#[derive(Module, Debug)]
pub enum Layer {
    /// A convolution.
    Conv(Conv2d),
    /// A batch norm with its activation.
    Norm(BatchNorm),
    /// A convolution with its norm.
    ConvNorm(ConvNorm),
    /// A pooling layer.
    Pool(Pool),
    /// Nothing: the place that PyTorch's sequence gives to an activation, which here belongs to the norm before it.
    Nothing(Nothing),
}

/// A layer that does nothing.
#[derive(Module, Debug)]
pub struct Nothing {}

impl Layer {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(layer) => layer.forward(x),
            Self::Norm(layer) => layer.forward(x),
            Self::ConvNorm(layer) => layer.forward(x),
            Self::Pool(layer) => layer.forward(x),
            Self::Nothing(Nothing {}) => x,
        }
    }

    /// Applies `layers` in order.
    pub fn forward_all(layers: &[Self], x: Tensor<4>) -> Tensor<4> {
        layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}
