//! What every operator of a tape means, as plain loops over `[n, c, h, w]` in `f64`.
//!
//! Training plans are tested against this, and this against finite differences. It is written to be read, not to be fast.
//! Where an operator is linear, its loops are written once, as a list of what each output reads with which weight
//! (`taps`): the forward pass follows it in one direction, the gradient in the other.

mod activation;
mod attention;
mod drop;
mod forward;
mod gradient;
mod taps;

use super::{Origin, Tape, TapeNode, TapeOp};
use crate::EngineError;
use crate::graph::ValueId;
pub use crate::train::StepSeed;

/// A step on the way: every value that is known.
#[derive(Clone, Debug)]
pub struct State<'a> {
    tape: &'a Tape,
    seed: StepSeed,
    /// Sizes with those of the batch.
    shapes: Vec<Vec<usize>>,
    values: Vec<Option<Vec<f64>>>,
}

/// Numbers in a shape, row-major.
#[derive(Clone, Copy)]
struct View<'a> {
    shape: &'a [usize],
    data: &'a [f64],
}

/// Runs the forward pass of `tape` on `inputs`, in the tape's order, each `[n, ...]` row-major. `parameters` gives the
/// numbers of parameters and running statistics by the constants of the graph that have their first values.
///
/// # Errors
///
/// There are too few or too many numbers of something.
pub fn forward<'a>(
    tape: &'a Tape,
    parameters: &dyn Fn(ValueId) -> Vec<f64>,
    inputs: &[Vec<f64>],
    seed: StepSeed,
) -> Result<State<'a>, EngineError> {
    let batch = match (tape.inputs.first(), inputs.first()) {
        (Some(id), Some(input)) => input.len() / tape.values[id.0].elements().max(1),
        _ => 1,
    };
    let shape = |value: &super::TapeValue| {
        let mut shape = value.shape.clone();
        if let Some(first) = shape.first_mut().filter(|_| value.batched) {
            *first *= batch;
        }
        shape
    };
    let shapes = tape.values.iter().map(shape).collect();
    let mut state = State { tape, seed, shapes, values: vec![None; tape.values.len()] };
    state.give(&tape.inputs, inputs)?;
    for (index, value) in tape.values.iter().enumerate() {
        match &value.origin {
            Origin::Parameter(constant) => state.set(ValueId(index), parameters(*constant))?,
            Origin::Constant(data) => {
                state.set(ValueId(index), data.iter().map(|&x| f64::from(x)).collect())?;
            }
            Origin::Caller | Origin::Node => {}
        }
    }
    state.run(&tape.nodes[..tape.forward])?;
    Ok(state)
}

/// Runs the backward pass, given the gradients of the outputs.
///
/// # Errors
///
/// There are too few or too many numbers of something.
pub fn backward(state: &mut State<'_>, output_gradients: &[Vec<f64>]) -> Result<(), EngineError> {
    let tape = state.tape;
    state.give(&tape.output_gradients, output_gradients)?;
    state.run(&tape.nodes[tape.forward..])
}

impl State<'_> {
    /// The numbers of a value, row-major; none if it is not known yet.
    #[must_use]
    pub fn value(&self, id: ValueId) -> Option<&[f64]> {
        self.values.get(id.0)?.as_deref()
    }

    /// The sizes of a value, with that of the batch.
    #[must_use]
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.shapes[id.0]
    }

    /// Images.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.tape.inputs.first().map_or(1, |id| self.shapes[id.0][0])
    }

    /// What the running mean and variance of each norm become, in the order of the tape's statistics: they move by
    /// `momentum` towards the batch's mean and its unbiased variance, as in PyTorch.
    #[must_use]
    pub fn running(&self, momentum: f64) -> Vec<[Vec<f64>; 2]> {
        let moved = |statistics: &super::TapeStatistics| {
            let count = (self.batch() * statistics.pixels) as f64;
            [0, 1].map(|i| {
                let factor = if i == 1 && count > 1.0 { count / (count - 1.0) } else { 1.0 };
                let of = |id: ValueId| self.value(id).unwrap_or_default();
                let both = of(statistics.running[i]).iter().zip(of(statistics.batch[i]));
                both.map(|(old, new)| old + momentum * (factor * new - old)).collect()
            })
        };
        self.tape.statistics.iter().map(moved).collect()
    }

    fn give(&mut self, ids: &[ValueId], data: &[Vec<f64>]) -> Result<(), EngineError> {
        if ids.len() != data.len() {
            let (name, found) = (self.tape.name.clone(), format!("{} tensors", data.len()));
            return Err(EngineError::Input { name, found, expected: ids.len().to_string() });
        }
        ids.iter().zip(data).try_for_each(|(&id, data)| self.set(id, data.clone()))
    }

    fn set(&mut self, id: ValueId, data: Vec<f64>) -> Result<(), EngineError> {
        let shape = self.shape(id);
        if shape.iter().product::<usize>() != data.len() || data.is_empty() {
            return Err(EngineError::Input {
                name: self.tape.values[id.0].name.clone(),
                found: format!("{} numbers", data.len()),
                expected: format!("{shape:?}"),
            });
        }
        self.values[id.0] = Some(data);
        Ok(())
    }

    fn run(&mut self, nodes: &[TapeNode]) -> Result<(), EngineError> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &TapeNode) -> Result<(), EngineError> {
        let view = |id: &ValueId| match self.value(*id) {
            Some(data) => Ok(View { shape: self.shape(*id), data }),
            None => Err(EngineError::graph(&node.name, format!("value {} is not there", id.0))),
        };
        let inputs = node.inputs.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<_> = node.outputs.iter().map(|id| self.shape(*id)).collect();
        let mut outputs = match &node.op {
            TapeOp::Forward(op) => forward::evaluate(op, &inputs, &shapes),
            TapeOp::Statistics => forward::statistics(inputs[0]).into(),
            TapeOp::Join { epsilon, slope } => vec![forward::norm(*epsilon, *slope, &inputs)],
            TapeOp::Drop { what, rate, layer } => {
                vec![drop::drop(*what, f64::from(*rate), *layer, self.seed, inputs[0])]
            }
            TapeOp::Gradient(gradient) => gradient::evaluate(gradient, &inputs, &shapes),
        };
        if let Some(onto) = &node.onto {
            let before = view(onto)?;
            outputs[0].iter_mut().zip(before.data).for_each(|(sum, before)| *sum += before);
        }
        node.outputs.iter().zip(outputs).try_for_each(|(&id, output)| self.set(id, output))
    }
}

impl View<'_> {
    /// Images, channels, and pixels of a channel. A vector has one pixel.
    fn planes(&self) -> [usize; 3] {
        let rest = |from: usize| self.shape[from.min(self.shape.len())..].iter().product();
        [self.shape[0], self.shape.get(1).copied().unwrap_or(1), rest(2)]
    }

    /// The numbers one after the other, each with its image and its channel.
    fn with_channels(&self) -> impl Iterator<Item = (f64, [usize; 2])> {
        let [_, c, pixels] = self.planes();
        self.data.iter().enumerate().map(move |(i, &x)| (x, [i / pixels / c, i / pixels % c]))
    }
}

/// The sizes of a map.
fn map(shape: &[usize]) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}

/// All indices of a map of these sizes, in the order of its numbers.
fn indices([n, c, h, w]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..n * c * h * w).map(move |i| [i / (c * h * w), i / (h * w) % c, i / w % h, i % w])
}

/// The place of an index in a map of these sizes.
fn place([_, c, h, w]: [usize; 4], [n, k, y, x]: [usize; 4]) -> usize {
    ((n * c + k) * h + y) * w + x
}
