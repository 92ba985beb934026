use super::Init;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, module::linear};

/// Configuration of a [`Linear`] layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearConfig {
    inputs: usize,
    outputs: usize,
    weight: Option<Init>,
    bias: Option<Init>,
}

impl LinearConfig {
    /// A layer with bias; both are drawn as PyTorch does by default.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, weight: None, bias: None }
    }

    /// Sets how the weight is drawn.
    pub fn weight(self, init: Init) -> Self {
        Self { weight: Some(init), ..self }
    }

    /// Sets how the bias is drawn.
    pub fn bias(self, init: Init) -> Self {
        Self { bias: Some(init), ..self }
    }

    /// Builds the layer.
    pub fn init(self, device: &Device) -> Linear {
        let default = Init::torch_default(self.inputs);
        Linear {
            weight: self.weight.unwrap_or(default).param([self.outputs, self.inputs], device),
            bias: self.bias.unwrap_or(default).param([self.outputs], device),
        }
    }
}

/// `x weight^T + bias`. `weight` is `[out, in]` as in PyTorch (Burn's own layer keeps the transpose).
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Linear {
    /// # Shapes
    ///
    /// - `x`: `[n, in]`
    /// - output: `[n, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val().transpose(), Some(self.bias.val()))
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.weight.lazy_shape()[0]
    }
}
