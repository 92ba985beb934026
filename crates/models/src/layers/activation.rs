use burn::tensor::{Tensor, activation};

/// The pointwise functions that the networks use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `x` for `x >= 0`, the slope times `x` below (TResNet section 2.1)
    LeakyRelu(f64),
    /// `x * sigmoid(x)`, also called swish
    Silu,
    /// `x * clamp(x / 6 + 1 / 2, 0, 1)`
    HardSwish,
}

impl Activation {
    /// Applies the function to every element.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match *self {
            Self::Identity => x,
            Self::Relu => activation::relu(x),
            Self::LeakyRelu(slope) => activation::leaky_relu(x, slope),
            Self::Silu => activation::silu(x),
            Self::HardSwish => x.clone() * activation::hard_sigmoid(x, 1.0 / 6.0, 0.5),
        }
    }

    /// The slope below zero if this is a leaky ReLU in the wide sense, which an activated norm can absorb.
    pub(crate) fn slope(&self) -> Option<f64> {
        match *self {
            Self::Identity => Some(1.0),
            Self::Relu => Some(0.0),
            Self::LeakyRelu(slope) => Some(slope),
            Self::Silu | Self::HardSwish => None,
        }
    }
}
