//! Whether a graph is one: checked after every pass and for every graph that comes from a file.

use super::{Batch, Drop, Graph, Node, Op, Source, Unary, ValueId, shape};
use crate::{Activation, EngineError};
use std::collections::HashSet;

type Checked = Result<(), EngineError>;

/// Images that a graph may be fixed to.
const MAX_BATCH: usize = 1 << 20;

impl Graph {
    /// Checks everything that passes, the planner and the reference rely on:
    ///
    /// - every id is one of a value; every value that is read was written before, and none is written twice;
    /// - shapes are as inferred, and constants have as many numbers as their shape;
    /// - what depends on an input has a first size of 1, and every node would take another batch as well;
    /// - names are unique among constants, and among inputs and results; attributes are finite;
    /// - there is an output, and every output depends on an input.
    ///
    /// Nodes and values that nothing reads are allowed.
    ///
    /// # Errors
    ///
    /// The first contradiction.
    pub fn verify(&self) -> Checked {
        self.verify_values()?;
        let mut states = self.verify_inputs()?;
        for node in &self.nodes {
            self.verify_node(node, &mut states).map_err(|reason| EngineError::graph(node.place(), reason))?;
        }
        self.verify_outputs(&states)
    }

    fn verify_values(&self) -> Checked {
        let (mut constants, mut others) = (HashSet::new(), HashSet::new());
        for (index, value) in self.values.iter().enumerate() {
            let error = |reason: String| Err(EngineError::graph(self.label(ValueId(index)), reason));
            let Some(elements) = shape::elements(&value.shape) else {
                return error(format!("the shape {:?} is empty or too large", value.shape));
            };
            let names = match &value.source {
                Source::Constant(constant) if constant.data.len() != elements => {
                    return error(format!("{} numbers for shape {:?}", constant.data.len(), value.shape));
                }
                Source::Constant(_) => &mut constants,
                Source::Input | Source::Node => &mut others,
            };
            if !value.name.is_empty() && !names.insert(value.name.as_str()) {
                return error("there are two values of this name".into());
            }
        }
        Ok(())
    }

    /// Returns the state of every value before the first node.
    fn verify_inputs(&self) -> Result<Vec<State>, EngineError> {
        if self.batch == Batch::Fixed(0) || matches!(self.batch, Batch::Fixed(count) if count > MAX_BATCH) {
            return Err(EngineError::graph(&self.name, format!("a batch of {:?}", self.batch)));
        }
        let start = |source: &Source| match source {
            Source::Constant(_) => State::Known,
            Source::Input | Source::Node => State::Unwritten,
        };
        let mut states: Vec<_> = self.values.iter().map(|value| start(&value.source)).collect();
        for &id in &self.inputs {
            let error = |reason: &str| Err(EngineError::graph(self.label(id), reason));
            match self.values.get(id.0) {
                Some(value) if value.source != Source::Input => {
                    return error("is listed as an input and is none");
                }
                Some(value) if value.shape.first() != Some(&1) => {
                    return error("an input's first size is the batch, which is 1 in a graph");
                }
                Some(_) if states[id.0] != State::Unwritten => return error("is listed as an input twice"),
                Some(_) => states[id.0] = State::Batched,
                None => return error("there is no such value"),
            }
        }
        let listed = |(value, state): (&super::Value, &State)| {
            value.source != Source::Input || *state == State::Batched
        };
        match self.values.iter().zip(&states).position(|pair| !listed(pair)) {
            Some(index) => {
                Err(EngineError::graph(self.label(ValueId(index)), "is an input and not listed as one"))
            }
            None => Ok(states),
        }
    }

    fn verify_node(&self, node: &Node, states: &mut [State]) -> Result<(), String> {
        verify_attributes(&node.op)?;
        for &id in &node.inputs {
            match states.get(id.0) {
                Some(State::Known | State::Batched) => {}
                Some(State::Unwritten) => {
                    return Err(format!("{} is read before it is written", self.label(id)));
                }
                None => return Err(format!("there is no value {}", id.0)),
            }
        }
        let batched = node.inputs.iter().any(|id| states[id.0] == State::Batched);
        if batched && matches!(node.op, Op::Permute { .. }) {
            return Err("only constants are permuted".into());
        }
        let shapes = self.infer_at(node, states, 1)?;
        if shapes.len() != node.outputs.len() {
            return Err(format!("{} outputs instead of {}", node.outputs.len(), shapes.len()));
        }
        for (&id, shape) in node.outputs.iter().zip(&shapes) {
            match self.values.get(id.0) {
                Some(value) if value.source != Source::Node => {
                    return Err(format!("{} is no result", self.label(id)));
                }
                Some(_) if states[id.0] != State::Unwritten => {
                    return Err(format!("{} is written twice", self.label(id)));
                }
                Some(value) if value.shape != *shape => {
                    return Err(format!("the result is {shape:?}, the graph says {:?}", value.shape));
                }
                Some(_) => states[id.0] = if batched { State::Batched } else { State::Known },
                None => return Err(format!("there is no value {}", id.0)),
            }
        }
        if batched { self.verify_batch(node, states, shapes) } else { Ok(()) }
    }

    /// Infers the node's results for two images: they are those for one with a first size of 2, or the node mixes the
    /// batch with something else.
    fn verify_batch(&self, node: &Node, states: &[State], mut shapes: Vec<Vec<usize>>) -> Result<(), String> {
        for shape in &mut shapes {
            match shape.first_mut() {
                Some(batch) if *batch == 1 => *batch = 2,
                _ => return Err(format!("the first size of {shape:?} is not the batch, 1")),
            }
        }
        match self.infer_at(node, states, 2) {
            Ok(doubled) if doubled == shapes => Ok(()),
            Ok(doubled) => Err(format!("two images give {doubled:?}, not {shapes:?}")),
            Err(reason) => Err(format!("does not take two images: {reason}")),
        }
    }

    /// The shapes of the results for `batch` images.
    fn infer_at(&self, node: &Node, states: &[State], batch: usize) -> Result<Vec<Vec<usize>>, String> {
        let at_batch = |&id: &ValueId| {
            let mut shape = self.shape(id).to_vec();
            if let (State::Batched, Some(first)) = (states[id.0], shape.first_mut()) {
                *first *= batch;
            }
            shape
        };
        let inputs: Vec<_> = node.inputs.iter().map(at_batch).collect();
        let inputs: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
        node.op.at_batch(batch).infer(&inputs)
    }

    fn verify_outputs(&self, states: &[State]) -> Checked {
        if self.outputs.is_empty() {
            return Err(EngineError::graph(&self.name, "the graph has no output"));
        }
        for &id in &self.outputs {
            let reason = match states.get(id.0) {
                Some(State::Batched) => continue,
                Some(State::Known) => "is an output and depends on no input",
                Some(State::Unwritten) => "is an output and never written",
                None => "is an output and no value",
            };
            return Err(EngineError::graph(self.label(id), reason));
        }
        Ok(())
    }

    /// A value in messages.
    fn label(&self, id: ValueId) -> String {
        match self.values.get(id.0) {
            Some(value) if !value.name.is_empty() => format!("`{}`", value.name),
            _ => format!("value {}", id.0),
        }
    }
}

/// What is known of a value while the nodes are walked through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing wrote it yet.
    Unwritten,
    /// It depends on constants alone.
    Known,
    /// It depends on an input, so that its first size is the batch.
    Batched,
}

fn verify_attributes(op: &Op) -> Result<(), String> {
    let finite = |name: &str, number: f32| {
        if number.is_finite() { Ok(()) } else { Err(format!("{name} is {number}")) }
    };
    match op {
        Op::Conv2d(conv) => verify_activation(conv.activation),
        Op::Linear { activation, .. }
        | Op::SplitAttention { activation, .. }
        | Op::Gate { activation, .. } => verify_activation(*activation),
        Op::ActivatedNorm { epsilon, slope } => {
            if !(epsilon.is_finite() && *epsilon >= 0.0) {
                return Err(format!("epsilon is {epsilon}"));
            }
            verify_activation(Activation::LeakyRelu(*slope))
        }
        Op::Unary(unary) => match *unary {
            Unary::Activation(activation) => verify_activation(activation),
            Unary::AddScalar(scalar) | Unary::MulScalar(scalar) => finite("scalar", scalar),
            // Infinite bounds are how a clamp on one side is written.
            Unary::Clamp(low, high) if low <= high => Ok(()),
            Unary::Clamp(low, high) => Err(format!("the bounds are {low} and {high}")),
            Unary::Neg | Unary::Exp | Unary::Sqrt | Unary::Recip => Ok(()),
        },
        Op::Drop { what: Drop::Squares { side: 0 }, .. } => Err("its squares have no pixels".into()),
        Op::Drop { rate, .. } if !(0.0..1.0).contains(rate) => {
            Err(format!("the rate {rate} is not in [0, 1)"))
        }
        Op::Drop { .. }
        | Op::Binary(_)
        | Op::MaxPool(_)
        | Op::AvgPool { .. }
        | Op::GlobalAvgPool
        | Op::Softmax
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Concat
        | Op::SliceChannels { .. }
        | Op::Pad(_)
        | Op::RadixPool { .. }
        | Op::BlurPool
        | Op::SpaceToDepth { .. } => Ok(()),
    }
}

fn verify_activation(activation: Activation) -> Result<(), String> {
    match activation {
        Activation::LeakyRelu(slope) if !(0.0..=1.0).contains(&slope) => {
            Err(format!("the slope {slope} is not between 0 and 1"))
        }
        _ => Ok(()),
    }
}
