//! What every operator means, as plain loops over `[n, c, h, w]` in `f32`, with sums in `f64`.
//!
//! Passes and kernels are tested against this file, and constants are folded with it. It is written to be read, not to
//! be fast. Where an operator contains an activation, the number before it is rounded to `f32` first.

mod ops;

use crate::EngineError;
use crate::graph::{Batch, Graph, Node, Op, ValueId};
use std::sync::Arc;

/// Numbers in a shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: Vec<f32>,
}

impl Tensor {
    /// A tensor of `shape`.
    ///
    /// # Errors
    ///
    /// `data` has another number of elements.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self, EngineError> {
        let shape = shape.into();
        if shape.iter().product::<usize>() != data.len() {
            return Err(EngineError::graph("tensor", format!("{} numbers for shape {shape:?}", data.len())));
        }
        Ok(Self { shape, data })
    }

    /// The tensor, borrowed.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { shape: &self.shape, data: &self.data }
    }
}

/// A borrowed [`Tensor`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View<'a> {
    /// Sizes.
    pub shape: &'a [usize],
    /// The numbers, row-major.
    pub data: &'a [f32],
}

/// Computes the outputs of `graph` for `inputs`, in the graph's order. The first size of the inputs is the batch.
///
/// # Errors
///
/// The graph contradicts itself, or the inputs have other shapes than it takes.
pub fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
    graph.verify()?;
    let batch = batch(graph, inputs)?;
    let mut values: Vec<Option<Tensor>> = vec![None; graph.values.len()];
    for (id, input) in graph.inputs.iter().zip(inputs) {
        values[id.0] = Some(input.clone());
    }
    let batched = graph.batched();
    for node in &graph.nodes {
        let place = |reason: String| EngineError::graph(node.place(), reason);
        let view = |&id: &ValueId| match (graph[id].constant(), &values[id.0]) {
            (Some(data), _) => Ok(View { shape: graph.shape(id), data }),
            (None, Some(tensor)) => Ok(tensor.view()),
            (None, None) => Err(place(format!("value {} is not there", id.0))),
        };
        let inputs = node.inputs.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        let scale = if node.outputs.iter().any(|id| batched[id.0]) { batch } else { 1 };
        let outputs = evaluate_op(&node.op.at_batch(scale), &inputs).map_err(place)?;
        for (id, output) in node.outputs.iter().zip(outputs) {
            values[id.0] = Some(output);
        }
    }
    let output = |id: &ValueId| {
        values[id.0].clone().ok_or_else(|| EngineError::graph(&graph.name, "an output is missing"))
    };
    graph.outputs.iter().map(output).collect()
}

/// The batch of the inputs, which must be those of the graph.
fn batch(graph: &Graph, inputs: &[Tensor]) -> Result<usize, EngineError> {
    let wrong = |name: &str, found: String, expected: String| {
        Err(EngineError::Input { name: name.to_owned(), found, expected })
    };
    if inputs.len() != graph.inputs.len() {
        return wrong(&graph.name, format!("{} inputs", inputs.len()), graph.inputs.len().to_string());
    }
    let batch = match graph.batch {
        Batch::Fixed(batch) => batch,
        Batch::Free => inputs.first().and_then(|input| input.shape.first()).copied().unwrap_or(1),
    };
    for (&id, input) in graph.inputs.iter().zip(inputs) {
        let mut shape = graph.shape(id).to_vec();
        shape.iter_mut().take(1).for_each(|first| *first = batch);
        if batch == 0 || input.shape != shape || input.data.len() != shape.iter().product::<usize>() {
            let found = format!("shape {:?} and {} numbers", input.shape, input.data.len());
            return wrong(&graph[id].name, found, format!("{shape:?}"));
        }
    }
    Ok(batch)
}

/// Computes a node whose inputs are all constants.
///
/// # Errors
///
/// An input is no constant, or the operator does not take it.
pub fn evaluate_node(graph: &Graph, node: &Node) -> Result<Vec<Arc<[f32]>>, EngineError> {
    let view = |&id: &ValueId| match graph.values.get(id.0).map(|value| (&value.shape, value.constant())) {
        Some((shape, Some(data))) => Ok(View { shape, data }),
        _ => Err(EngineError::graph(node.place(), format!("value {} is no constant", id.0))),
    };
    let inputs = node.inputs.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let outputs =
        evaluate_op(&node.op, &inputs).map_err(|reason| EngineError::graph(node.place(), reason))?;
    Ok(outputs.into_iter().map(|output| output.data.into()).collect())
}

/// Computes one operator.
///
/// # Errors
///
/// The operator does not take these inputs.
pub fn evaluate_op(op: &Op, inputs: &[View<'_>]) -> Result<Vec<Tensor>, String> {
    let shapes: Vec<_> = inputs.iter().map(|input| input.shape).collect();
    let shapes = op.infer(&shapes)?;
    if let Some(input) = inputs.iter().find(|input| input.data.len() != input.shape.iter().product::<usize>())
    {
        return Err(format!("{} numbers for shape {:?}", input.data.len(), input.shape));
    }
    let data = ops::evaluate(op, inputs, &shapes);
    Ok(shapes.into_iter().zip(data).map(|(shape, data)| Tensor { shape, data }).collect())
}
