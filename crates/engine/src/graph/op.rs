//! The operators: a closed list, in the terms of the papers and of PyTorch.

use cardinal_kernels::Activation;

/// Extent before and after a map: top, left, bottom, right.
pub type Padding = [usize; 4];

/// A convolution with what follows it: `y = activation(conv(x, weight) + bias + residual)`.
///
/// Inputs: `x`, `weight` `[outputs, inputs / groups, rows, columns]`, then `bias` `[outputs]` if [`Conv2d::bias`], then
/// the residual (of the output's shape) if [`Conv2d::residual`]. Outputs: `y`, then, if [`Conv2d::pool`] is set, the
/// pooled means of `y`, `[n, c, 1, 1]` or `[n, c / radix, 1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: Padding,
    /// Rows and columns from one tap to the next.
    pub dilation: [usize; 2],
    /// Groups of channels that are convolved apart.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether another map is added before the activation.
    pub residual: bool,
    /// Applied last.
    pub activation: Activation,
    /// A pooling over all pixels of the output, computed beside it: the radix (1 is plain global average pooling).
    pub pool: Option<usize>,
}

impl Conv2d {
    /// A convolution with stride 1 and nothing else.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            stride: [1; 2],
            padding: [0; 4],
            dilation: [1; 2],
            groups: 1,
            bias: false,
            residual: false,
            activation: Activation::Identity,
            pool: None,
        }
    }
}

/// A window that slides over a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Pixels around the map; never the result of a maximum, and zeros in a mean that counts them.
    pub padding: Padding,
    /// Rows and columns from one tap to the next.
    pub dilation: [usize; 2],
    /// Whether a last window that sticks out of the padding is kept, clipped.
    pub ceil: bool,
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
}

/// A function of one number besides [`Activation`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// An activation.
    Activation(Activation),
    /// `-x`.
    Neg,
    /// `exp(x)`.
    Exp,
    /// The square root.
    Sqrt,
    /// `1 / x`.
    Recip,
    /// `x + s`.
    AddScalar(f32),
    /// `x * s`.
    MulScalar(f32),
    /// `min(max(x, low), high)`.
    Clamp(f32, f32),
}

/// What is dropped together, and set to zero, in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Each number by itself (dropout).
    Elements,
    /// All numbers of an image (stochastic depth, on the residual branch).
    Images,
    /// Squares of a map, the same in all images (`DropBlock`, `ResNeSt` section 5.2). Their rate is the schedule's; the
    /// node's is the one that the network was built with.
    Squares {
        /// Rows and columns of a square; those of the map, if it is smaller.
        side: usize,
    },
}

/// What a node computes. Each variant names its inputs in order; maps are `[n, c, h, w]`.
///
/// The operators after [`Op::Concat`] exist only in compiled graphs or in the papers' networks.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `x`, `weight`, then what [`Conv2d`] says.
    Conv2d(Conv2d),
    /// `x` `[.., k]`, `weight` `[m, k]`, `bias` `[m]` if `bias` -> `activation(x weightᵀ + bias)` `[.., m]`.
    Linear {
        /// Whether there is a bias.
        bias: bool,
        /// Applied last.
        activation: Activation,
    },
    /// `x`, `weight`, `bias`, `mean`, `var` (each `[c]`): batch norm with given statistics and leaky ReLU (slope 1 is
    /// none, 0 is ReLU). TResNet section 2.1.
    ActivatedNorm {
        /// Added to the variance.
        epsilon: f32,
        /// Slope of the leaky ReLU.
        slope: f32,
    },
    /// `x` -> `f(x)`.
    Unary(Unary),
    /// `a`, `b` with equal shapes or sizes of 1 that are repeated.
    Binary(Binary),
    /// `x` -> maxima.
    MaxPool(Window),
    /// `x` -> means.
    AvgPool {
        /// The window.
        window: Window,
        /// Whether padding counts in the divisor.
        count_padding: bool,
    },
    /// `x` -> its mean over all pixels, `[n, c, 1, 1]`.
    GlobalAvgPool,
    /// `x` `[n, k, h, w]` or `[n, k]` -> softmax over dimension 1.
    Softmax,
    /// `x` -> the same numbers in `shape`, whose first size is that of the batch.
    Reshape {
        /// The new shape.
        shape: Vec<usize>,
    },
    /// Constants only: the dimensions in another order.
    Permute {
        /// For each new dimension, the old one.
        order: Vec<usize>,
    },
    /// One or more maps, one after the other along the channels.
    Concat,
    /// `x` -> channels `start..end`.
    SliceChannels {
        /// The first channel.
        start: usize,
        /// After the last channel.
        end: usize,
    },
    /// `x` -> with zeros around it.
    Pad(Padding),
    /// `x` `[n, c, h, w]` -> the means of the `radix` splits, summed: `[n, c / radix, 1, 1]`. `ResNeSt` section 3.1.
    RadixPool {
        /// Splits.
        radix: usize,
    },
    /// `x` `[n, radix c, h, w]`, `logits` `[n, radix c, 1, 1]` (cardinality-major) -> `[n, c, h, w]`: the splits,
    /// weighted by the softmax over the radix (by the sigmoid, if it is 1), summed. `ResNeSt` equation 1 and 2.
    SplitAttention {
        /// Splits.
        radix: usize,
        /// Cardinal groups.
        cardinality: usize,
        /// Applied last.
        activation: Activation,
    },
    /// `x`, `logits` `[n, c, 1, 1]`, and the residual if `residual` -> `activation(x * sigmoid(logits) + residual)`.
    Gate {
        /// Hard sigmoid instead of sigmoid.
        hard: bool,
        /// Whether another map is added before the activation.
        residual: bool,
        /// Applied last.
        activation: Activation,
    },
    /// `x` -> 3x3 binomial filter with stride 2 and reflected border. TResNet section 2.1.
    BlurPool,
    /// `x` -> `[n, block² c, h / block, w / block]`; output channel `(row * block + column) * c + channel`.
    SpaceToDepth {
        /// Rows and columns of a block.
        block: usize,
    },
    /// `x` of any shape -> in training, with a share of it dropped and the rest scaled so that the mean stays; `x`
    /// everywhere else. Passes remove it.
    Drop {
        /// What is dropped together.
        what: Drop,
        /// The share that is dropped, in `[0, 1)`.
        rate: f32,
    },
}

impl Op {
    /// The operator's name in texts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "conv2d",
            Self::Linear { .. } => "linear",
            Self::ActivatedNorm { .. } => "activated_norm",
            Self::Unary(unary) => unary.name(),
            Self::Binary(Binary::Add) => "add",
            Self::Binary(Binary::Sub) => "sub",
            Self::Binary(Binary::Mul) => "mul",
            Self::Binary(Binary::Div) => "div",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool { .. } => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Softmax => "softmax",
            Self::Reshape { .. } => "reshape",
            Self::Permute { .. } => "permute",
            Self::Concat => "concat",
            Self::SliceChannels { .. } => "slice_channels",
            Self::Pad(_) => "pad",
            Self::RadixPool { .. } => "radix_pool",
            Self::SplitAttention { .. } => "split_attention",
            Self::Gate { .. } => "gate",
            Self::BlurPool => "blur_pool",
            Self::SpaceToDepth { .. } => "space_to_depth",
            Self::Drop { .. } => "drop",
        }
    }
}

impl Op {
    /// The shapes of the outputs for inputs of these shapes, or why the operator does not take them.
    pub(crate) fn infer(&self, inputs: &[&[usize]]) -> Result<Vec<Vec<usize>>, String> {
        super::shape::infer(self, inputs)
    }

    /// The operator for a batch of `count`: only a reshape names its batch.
    pub(crate) fn at_batch(&self, count: usize) -> Self {
        let mut op = self.clone();
        if let Self::Reshape { shape } = &mut op
            && let Some(first) = shape.first_mut()
        {
            *first = first.saturating_mul(count);
        }
        op
    }
}

impl Unary {
    /// The operator's name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Activation(activation) => activation.name(),
            Self::Neg => "neg",
            Self::Exp => "exp",
            Self::Sqrt => "sqrt",
            Self::Recip => "recip",
            Self::AddScalar(_) => "add_scalar",
            Self::MulScalar(_) => "mul_scalar",
            Self::Clamp(..) => "clamp",
        }
    }
}
