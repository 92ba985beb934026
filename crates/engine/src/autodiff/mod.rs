//! Reverse-mode differentiation of a captured graph, for training.
//!
//! [`differentiate`] turns the graph that inference compiles into a [`Tape`]: the forward pass with the batch's own
//! statistics, then the gradients of everything that is trained, as one list in which every value is written once. The
//! tape says what is computed again in the backward pass instead of being kept ([`Recompute`]); what lies where in memory,
//! and what is done in place, is the plan's business ([`crate::train`]).
//!
//! [`mod@reference`] says what every operator of a tape means, in `f64`.

mod backward;
mod forward;
mod print;
mod recompute;
pub mod reference;

pub use recompute::Recompute;

use crate::graph::{Conv2d, Drop, Graph, Op, Padding, ValueId, Window};
use crate::{Activation, EngineError};
use std::sync::Arc;

/// What to differentiate, and how.
pub struct Settings<'a> {
    /// What is computed twice rather than kept.
    pub recompute: Recompute,
    /// Whether the parameter of this name is trained. A norm whose weight is not trained uses its running statistics.
    pub trained: &'a dyn Fn(&str) -> bool,
}

/// Where a value of a tape comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The caller: images, or the gradient of an output.
    Caller,
    /// A parameter or running statistic: the constant of the graph that has its first value.
    Parameter(ValueId),
    /// Numbers that never change.
    Constant(Arc<[f32]>),
    /// A node.
    Node,
}

/// A value of a tape.
#[derive(Clone, Debug, PartialEq)]
pub struct TapeValue {
    /// The graph's name for it, or that of the parameter whose gradient it is; empty for intermediate results.
    pub name: String,
    /// Sizes; the first one is 1 where it is that of the batch.
    pub shape: Vec<usize>,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether there is one for each image.
    pub batched: bool,
    /// Whether it is one of the vectors of attention or of the classifier, or the gradient of one: they want the digits.
    pub vector: bool,
}

impl TapeValue {
    /// Numbers of one image, or of all if it is not batched.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What the backward pass of a function reads of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The function's input.
    Input,
    /// Its output: the function was done in place (TResNet section 2.1).
    Output,
}

/// An operator of a tape. Each variant names its inputs in order.
#[derive(Clone, Debug, PartialEq)]
pub enum TapeOp {
    /// An operator of the graph, with the same inputs. [`Op::ActivatedNorm`] reads statistics of the batch or running ones.
    Forward(Op),
    /// `x` -> the mean and the biased variance of each channel over the batch, `[c]` each.
    Statistics,
    /// `x`, `weight`, `bias`, `mean`, `var`, `skip` -> `leaky(norm(x) + skip)`: the end of a residual block.
    Join {
        /// Added to the variance.
        epsilon: f32,
        /// Slope of the leaky ReLU.
        slope: f32,
    },
    /// `x` -> with parts dropped. Its own gradient: the mask is a function of the step and the layer.
    Drop {
        /// What is dropped together.
        what: Drop,
        /// The share that is dropped. That of squares is given for each step.
        rate: f32,
        /// Which of the network's drops it is.
        layer: usize,
    },
    /// A gradient.
    Gradient(Gradient),
}

/// The gradient of an operator. `dy` is that of its output, and `kept` what [`Kept`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Gradient {
    /// `dy`, `weight` -> that of a convolution's input.
    ConvInput(Conv2d),
    /// `x`, `dy` -> that of a convolution's weight.
    ConvWeight(Conv2d),
    /// `dy`, `weight` -> that of a linear layer's input.
    LinearInput,
    /// `x`, `dy` -> that of a linear layer's weight.
    LinearWeight,
    /// `dy` -> its sums over images and pixels: that of a bias.
    Bias,
    /// `kept`, `dy`, `weight`, `bias`, `mean`, `var` -> those of the input, the weight and the bias of a norm with the
    /// batch's statistics.
    Norm {
        /// Added to the variance.
        epsilon: f32,
        /// Slope of the leaky ReLU.
        slope: f32,
        /// What was kept of it.
        kept: Kept,
    },
    /// `y`, `dy`, `weight`, `mean`, `var` -> that of the input of a norm with given statistics, from its output `y`.
    FixedNorm {
        /// Added to the variance.
        epsilon: f32,
        /// Slope of the leaky ReLU.
        slope: f32,
    },
    /// `kept`, `dy` -> that of an activation's input.
    Activation {
        /// The activation.
        activation: Activation,
        /// What was kept of it.
        kept: Kept,
    },
    /// `x`, `dy` -> that of what was pooled; it goes to the first maximum of each window.
    MaxPool(Window),
    /// `dy` -> that of what was averaged.
    AvgPool {
        /// The window.
        window: Window,
        /// Whether padding counted in the divisor.
        count_padding: bool,
    },
    /// `dy` `[n, c / radix, 1, 1]` -> that of the map whose splits' means were added.
    Means {
        /// Splits.
        radix: usize,
    },
    /// `dy` -> that of what was blurred.
    BlurPool,
    /// `dy` -> with its channels back in their pixels.
    SpaceToDepth {
        /// Rows and columns of a block.
        block: usize,
    },
    /// `dy` -> without its border.
    Pad(Padding),
    /// `dy` -> with zeros in the channels that were left out.
    SliceChannels {
        /// The first channel that was not.
        start: usize,
    },
    /// `x`, `dy`, `logits` -> that of the logits of a split attention.
    SplitLogits {
        /// Splits.
        radix: usize,
        /// Cardinal groups.
        cardinality: usize,
    },
    /// `dy`, `logits`, and the gradient of the means of the splits if `means` -> that of the input of a split attention.
    SplitInput {
        /// Splits.
        radix: usize,
        /// Cardinal groups.
        cardinality: usize,
        /// Whether the same map was also pooled, for which [`Gradient::Means`] is added.
        means: bool,
    },
    /// `x`, `dy`, `logits` -> that of the logits of a gate.
    GateLogits {
        /// Hard sigmoid instead of sigmoid.
        hard: bool,
    },
    /// `dy`, `logits`, and the gradient of the means of the channels if `means` -> that of the input of a gate.
    GateInput {
        /// Hard sigmoid instead of sigmoid.
        hard: bool,
        /// Whether the same map was also pooled, for which [`Gradient::Means`] is added.
        means: bool,
    },
}

/// One operator at one place of a tape.
#[derive(Clone, Debug, PartialEq)]
pub struct TapeNode {
    /// The path of the module that it belongs to.
    pub name: String,
    /// What it computes.
    pub op: TapeOp,
    /// What it reads, in the operator's order.
    pub inputs: Vec<ValueId>,
    /// A value that is added to the first output: a gradient that came before, where a value has several readers.
    pub onto: Option<ValueId>,
    /// What it writes.
    pub outputs: Vec<ValueId>,
}

/// A parameter that is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TapeParameter {
    /// The parameter.
    pub value: ValueId,
    /// Its gradient; none if no output depends on it.
    pub gradient: Option<ValueId>,
}

/// Running statistics that move towards those of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct TapeStatistics {
    /// The batch's mean and biased variance.
    pub batch: [ValueId; 2],
    /// The running mean and variance: constants of the graph.
    pub running: [ValueId; 2],
    /// Numbers of one channel of one image.
    pub pixels: usize,
}

/// A training step without its loss and update.
#[derive(Clone, Debug, PartialEq)]
pub struct Tape {
    /// The network.
    pub name: String,
    /// Every value.
    pub values: Vec<TapeValue>,
    /// The forward pass, then the backward pass.
    pub nodes: Vec<TapeNode>,
    /// Nodes of the forward pass.
    pub forward: usize,
    /// What the caller gives first.
    pub inputs: Vec<ValueId>,
    /// What the caller gets from the forward pass.
    pub outputs: Vec<ValueId>,
    /// The gradients of the outputs, which the caller gives before the backward pass.
    pub output_gradients: Vec<ValueId>,
    /// What is trained, in the order of the graph's constants.
    pub parameters: Vec<TapeParameter>,
    /// The norms' statistics.
    pub statistics: Vec<TapeStatistics>,
    /// How many drops there are.
    pub drops: usize,
}

/// The training step of `graph`, as it was captured: passes for inference must not have run on it.
///
/// # Errors
///
/// The graph contradicts itself, or an operator on the way to something trained has no gradient: the error names it.
pub fn differentiate(graph: &Graph, settings: &Settings<'_>) -> Result<Tape, EngineError> {
    graph.verify()?;
    let tape = forward::record(graph, settings)?;
    backward::extend(tape, settings)
}

impl Tape {
    /// Adds a value.
    pub(crate) fn value(
        &mut self,
        name: String,
        shape: Vec<usize>,
        origin: Origin,
        batched: bool,
    ) -> ValueId {
        self.values.push(TapeValue { name, shape, origin, batched, vector: false });
        ValueId(self.values.len() - 1)
    }

    /// A value of the shape and kind of `like`, written by a new node.
    fn push_like(
        &mut self,
        name: &str,
        op: TapeOp,
        inputs: Vec<ValueId>,
        onto: Option<ValueId>,
        like: ValueId,
    ) -> ValueId {
        let TapeValue { shape, batched, vector, .. } = self.values[like.0].clone();
        let output = self.push(name, op, inputs, onto, &[(&shape, batched)])[0];
        self.values[output.0].vector = vector;
        output
    }

    /// Adds a node with one output for each of `outputs`: its shape and whether it is batched.
    fn push(
        &mut self,
        name: &str,
        op: TapeOp,
        inputs: Vec<ValueId>,
        onto: Option<ValueId>,
        outputs: &[(&[usize], bool)],
    ) -> Vec<ValueId> {
        let outputs: Vec<_> = outputs
            .iter()
            .map(|(shape, batched)| self.value(String::new(), shape.to_vec(), Origin::Node, *batched))
            .collect();
        self.nodes.push(TapeNode { name: name.into(), op, inputs, onto, outputs: outputs.clone() });
        outputs
    }

    /// The sizes of a value.
    #[must_use]
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    /// Whether a value is a map with more than one pixel, for each image.
    pub(crate) fn is_map(&self, id: ValueId) -> bool {
        let value = &self.values[id.0];
        value.batched && matches!(value.shape[..], [_, _, h, w] if h * w > 1)
    }

    /// For each value the node that writes it.
    pub(crate) fn writers(&self) -> Vec<Option<usize>> {
        let mut writers = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|id| writers[id.0] = Some(index));
        }
        writers
    }
}

impl TapeOp {
    /// The operator's name in texts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(op) => op.name(),
            Self::Statistics => "statistics",
            Self::Join { .. } => "join",
            Self::Drop { .. } => "drop",
            Self::Gradient(gradient) => gradient.name(),
        }
    }
}

impl Gradient {
    /// The operator's name in texts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConvInput(_) => "conv2d_input_grad",
            Self::ConvWeight(_) => "conv2d_weight_grad",
            Self::LinearInput => "linear_input_grad",
            Self::LinearWeight => "linear_weight_grad",
            Self::Bias => "bias_grad",
            Self::Norm { .. } => "norm_grad",
            Self::FixedNorm { .. } => "fixed_norm_grad",
            Self::Activation { .. } => "activation_grad",
            Self::MaxPool(_) => "max_pool_grad",
            Self::AvgPool { .. } => "avg_pool_grad",
            Self::Means { .. } => "means_grad",
            Self::BlurPool => "blur_pool_grad",
            Self::SpaceToDepth { .. } => "space_to_depth_grad",
            Self::Pad(_) => "pad_grad",
            Self::SliceChannels { .. } => "slice_channels_grad",
            Self::SplitLogits { .. } => "split_logits_grad",
            Self::SplitInput { .. } => "split_input_grad",
            Self::GateLogits { .. } => "gate_logits_grad",
            Self::GateInput { .. } => "gate_input_grad",
        }
    }
}
