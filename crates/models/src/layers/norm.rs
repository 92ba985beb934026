use super::{Activation, Conv2d, Conv2dConfig, Init};
use crate::ops;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`BatchNorm`].
#[derive(Clone, Copy, Debug)]
pub struct BatchNormConfig {
    channels: usize,
    activation: Activation,
    gamma: f64,
    epsilon: f64,
    momentum: f64,
}

impl BatchNormConfig {
    /// Batch norm without activation, with PyTorch's epsilon (1e-5) and momentum (0.1).
    pub fn new(channels: usize) -> Self {
        Self { channels, activation: Activation::Identity, gamma: 1.0, epsilon: 1e-5, momentum: 0.1 }
    }

    /// Sets the activation that follows.
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Starts the weight at zero, so that a residual block starts as the identity (ResNeSt section 5.2).
    pub fn zero_gamma(self, zero: bool) -> Self {
        Self { gamma: if zero { 0.0 } else { self.gamma }, ..self }
    }

    /// Sets the number added to the variance.
    pub fn epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    /// Builds the layer.
    pub fn init(self, device: &Device) -> BatchNorm {
        BatchNorm {
            weight: Init::Constant(self.gamma).param([self.channels], device),
            bias: Init::Constant(0.0).param([self.channels], device),
            running_mean: RunningState::new(Tensor::zeros([self.channels], device)),
            running_var: RunningState::new(Tensor::ones([self.channels], device)),
            training: Param::from_bool(true),
            activation: self.activation,
            epsilon: self.epsilon,
            momentum: self.momentum,
        }
    }
}

/// Batch norm and the activation that follows it (activated batch norm, TResNet section 2.1).
///
/// It follows PyTorch where Burn's own layer does not: the running variance is fed the unbiased variance. It trains,
/// that is, takes the batch's statistics and updates the running ones, when the input is on an autodiff device and
/// the layer is not frozen.
#[derive(Module, Debug)]
pub struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
    training: Param<Flag>,
    #[module(skip)]
    activation: Activation,
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm {
    /// Normalises and activates.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[n, channels, h, w]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self.activation.slope() {
            Some(slope) => self.leaky(x, slope),
            None => self.activation.forward(self.leaky(x, 1.0)),
        }
    }

    /// [`forward`](Self::forward) with `between` applied after the norm and before the activation, where DropBlock
    /// goes.
    pub fn forward_with(&self, x: Tensor<4>, between: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        self.activation.forward(between(self.leaky(x, 1.0)))
    }

    fn leaky(&self, x: Tensor<4>, slope: f64) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if x.device().is_autodiff() && self.training.is_enabled() {
            let [n, _, h, w] = x.dims();
            let (y, mean, var) = ops::activated_norm_train(x, weight, bias, self.epsilon, slope);
            self.update(mean, var, n * h * w);
            y
        } else {
            let device = x.device();
            let mean = self.running_mean.value_sync().to_device(&device);
            let var = self.running_var.value_sync().to_device(&device);
            ops::activated_norm(x, weight, bias, mean, var, self.epsilon, slope)
        }
    }

    /// Moves the running statistics towards those of a batch of `count` values per channel.
    fn update(&self, mean: Tensor<1>, biased_var: Tensor<1>, count: usize) {
        let unbiased = biased_var * (count as f64 / count.saturating_sub(1).max(1) as f64);
        for (running, batch) in [(&self.running_mean, mean), (&self.running_var, unbiased)] {
            let old = running.value_sync().to_device(&batch.device());
            running.update((old * (1.0 - self.momentum) + batch.detach() * self.momentum).detach());
            // Burn keeps an update aside until the next one; whoever saves the model now must see it.
            running.value_sync();
        }
    }
}

/// A convolution without bias, then [`BatchNorm`]; the pair that timm calls `conv` and `bn`.
#[derive(Module, Debug)]
pub struct ConvNorm {
    conv: Conv2d,
    bn: BatchNorm,
}

impl ConvNorm {
    /// Builds the pair.
    pub fn new(conv: Conv2dConfig, norm: BatchNormConfig, device: &Device) -> Self {
        Self { conv: conv.init(device), bn: norm.init(device) }
    }

    /// # Shapes
    ///
    /// - `x`: `[n, in, h, w]`
    /// - output: `[n, out, h', w']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.bn.forward(self.conv.forward(x))
    }
}
