//! The forward pass of a tape: the graph with the batch's statistics in its norms, and the ends of blocks in one piece.

use super::{Origin, Settings, Tape, TapeOp, TapeParameter, TapeStatistics};
use crate::graph::{Binary, Graph, Node, Op, Source, Unary, ValueId};
use crate::{Activation, EngineError};

/// Values of the tape have the numbers of the graph's, as far as those go.
pub(super) fn record(graph: &Graph, settings: &Settings<'_>) -> Result<Tape, EngineError> {
    let mut recorder = Recorder { graph, settings, tape: empty(graph, settings), readers: readers(graph) };
    let joins = recorder.joins();
    for (index, node) in graph.nodes.iter().enumerate() {
        match joins[index] {
            Role::Alone => recorder.node(node)?,
            Role::Fused => {}
            Role::End(end) => recorder.join(node, end)?,
        }
    }
    let mut tape = recorder.tape;
    tape.forward = tape.nodes.len();
    mark_vectors(&mut tape);
    Ok(tape)
}

/// Finds the vectors: what poolings and linear layers make, and what is made of that alone.
fn mark_vectors(tape: &mut Tape) {
    for index in 0..tape.nodes.len() {
        let node = &tape.nodes[index];
        let vector = match &node.op {
            TapeOp::Forward(Op::GlobalAvgPool | Op::RadixPool { .. } | Op::Linear { .. } | Op::Softmax) => {
                true
            }
            TapeOp::Statistics => false,
            _ => node.inputs.first().is_some_and(|id| tape.values[id.0].vector),
        };
        for id in node.outputs.clone() {
            tape.values[id.0].vector = vector;
        }
    }
}

/// What becomes of a node.
#[derive(Clone, Copy)]
enum Role {
    /// It is recorded by itself.
    Alone,
    /// A later one does its work.
    Fused,
    /// An activation that does the work of the two before it.
    End(End),
}

/// A sum whose one operand is the result of `branch`, and the sum's activation.
#[derive(Clone, Copy)]
struct End {
    branch: usize,
    skip: ValueId,
    activation: Activation,
}

struct Recorder<'a> {
    graph: &'a Graph,
    settings: &'a Settings<'a>,
    tape: Tape,
    readers: Vec<usize>,
}

/// How often each value is read, by nodes and by the caller.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut readers = vec![0; graph.values.len()];
    let read = graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs);
    read.for_each(|id| readers[id.0] += 1);
    readers
}

/// The graph's values without nodes.
fn empty(graph: &Graph, settings: &Settings<'_>) -> Tape {
    let mut tape = Tape {
        name: graph.name.clone(),
        values: Vec::with_capacity(4 * graph.values.len()),
        nodes: Vec::new(),
        forward: 0,
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        output_gradients: Vec::new(),
        parameters: Vec::new(),
        statistics: Vec::new(),
        drops: 0,
    };
    let batched = graph.batched();
    for (index, value) in graph.values.iter().enumerate() {
        let origin = match &value.source {
            Source::Input => Origin::Caller,
            Source::Node => Origin::Node,
            // Only what has a name of the network's can be trained or saved.
            Source::Constant(_) if value.name.contains('.') => Origin::Parameter(ValueId(index)),
            Source::Constant(constant) => Origin::Constant(constant.data.clone()),
        };
        tape.value(value.name.clone(), value.shape.clone(), origin, batched[index]);
    }
    for (index, value) in tape.values.iter().enumerate() {
        let statistic = value.name.ends_with(".running_mean") || value.name.ends_with(".running_var");
        if matches!(value.origin, Origin::Parameter(_)) && !statistic && (settings.trained)(&value.name) {
            tape.parameters.push(TapeParameter { value: ValueId(index), gradient: None });
        }
    }
    tape
}

impl Recorder<'_> {
    /// The nodes that become parts of others.
    fn joins(&self) -> Vec<Role> {
        let nodes = &self.graph.nodes;
        let mut writer = vec![None; self.graph.values.len()];
        for (index, node) in nodes.iter().enumerate() {
            node.outputs.iter().for_each(|id| writer[id.0] = Some(index));
        }
        let mut roles = vec![Role::Alone; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let Op::Unary(Unary::Activation(activation)) = node.op else { continue };
            if leaky_slope(activation).is_none() || self.readers[node.inputs[0].0] != 1 {
                continue;
            }
            let Some(sum) = writer[node.inputs[0].0] else { continue };
            if nodes[sum].op != Op::Binary(Binary::Add) || roles[sum].is_fused() {
                continue;
            }
            let [a, b] = [nodes[sum].inputs[0], nodes[sum].inputs[1]];
            if self.graph.shape(a) != self.graph.shape(b) {
                continue;
            }
            let found = [(a, b), (b, a)].into_iter().find_map(|(branch, skip)| {
                let place = writer[branch.0]?;
                let fits = self.readers[branch.0] == 1
                    && !roles[place].is_fused()
                    && self.ends_branch(&nodes[place]);
                fits.then_some(End { branch: place, skip, activation })
            });
            if let Some(end) = found {
                (roles[end.branch], roles[sum], roles[index]) = (Role::Fused, Role::Fused, Role::End(end));
            }
        }
        roles
    }

    /// Whether the sum that follows `node` can be done in its place.
    fn ends_branch(&self, node: &Node) -> bool {
        let map = matches!(self.graph.shape(node.outputs[0])[..], [_, _, h, w] if h * w > 1);
        match &node.op {
            Op::ActivatedNorm { slope, .. } => map && *slope == 1.0 && self.trains_norm(node),
            Op::Gate { residual: false, activation: Activation::Identity, .. } => map,
            _ => false,
        }
    }

    /// Whether a norm takes the batch's statistics.
    fn trains_norm(&self, node: &Node) -> bool {
        let weight = &self.graph[node.inputs[1]];
        (self.settings.trained)(&weight.name)
    }

    fn node(&mut self, node: &Node) -> Result<(), EngineError> {
        match &node.op {
            Op::ActivatedNorm { .. } if self.trains_norm(node) => {
                let inputs = self.with_statistics(node)?;
                self.put(node, TapeOp::Forward(node.op.clone()), inputs);
            }
            Op::Drop { what, rate } => {
                let op = TapeOp::Drop { what: *what, rate: *rate, layer: self.tape.drops };
                self.tape.drops += 1;
                self.put(node, op, node.inputs.clone());
            }
            op => self.put(node, TapeOp::Forward(op.clone()), node.inputs.clone()),
        }
        Ok(())
    }

    /// The end of a block: `node` is the activation.
    fn join(&mut self, node: &Node, end: End) -> Result<(), EngineError> {
        let branch = &self.graph.nodes[end.branch];
        let (op, mut inputs) = match &branch.op {
            Op::ActivatedNorm { epsilon, .. } => {
                let slope = leaky_slope(end.activation).unwrap_or(1.0);
                (TapeOp::Join { epsilon: *epsilon, slope }, self.with_statistics(branch)?)
            }
            Op::Gate { hard, .. } => {
                let gate = Op::Gate { hard: *hard, residual: true, activation: end.activation };
                (TapeOp::Forward(gate), branch.inputs.clone())
            }
            _ => unreachable!("only these end a branch"),
        };
        inputs.push(end.skip);
        self.put(node, op, inputs);
        // The path of the layer that did the work, not of the sum behind it.
        if let Some(last) = self.tape.nodes.last_mut() {
            last.name = branch.name.clone();
        }
        Ok(())
    }

    /// The inputs of a norm, with the batch's statistics in the place of the running ones.
    fn with_statistics(&mut self, node: &Node) -> Result<Vec<ValueId>, EngineError> {
        let [x, weight, bias, mean, var] = node.inputs[..] else {
            return Err(EngineError::graph(node.place(), "a norm has five inputs"));
        };
        let shape = self.graph.shape(weight).to_vec();
        let outputs = [(shape.as_slice(), false), (shape.as_slice(), false)];
        let batch = self.tape.push(&node.name, TapeOp::Statistics, vec![x], None, &outputs);
        let pixels = self.graph.shape(x)[2..].iter().product();
        let batch = [batch[0], batch[1]];
        self.tape.statistics.push(TapeStatistics { batch, running: [mean, var], pixels });
        Ok(vec![x, weight, bias, batch[0], batch[1]])
    }

    /// Records `op`, which writes what `node` writes.
    fn put(&mut self, node: &Node, op: TapeOp, inputs: Vec<ValueId>) {
        let (name, outputs) = (node.name.clone(), node.outputs.clone());
        self.tape.nodes.push(super::TapeNode { name, op, inputs, onto: None, outputs });
    }
}

impl Role {
    fn is_fused(self) -> bool {
        !matches!(self, Self::Alone)
    }
}

/// The slope of a leaky ReLU, 0 for a plain one.
pub(super) fn leaky_slope(activation: Activation) -> Option<f32> {
    match activation {
        Activation::Relu => Some(0.0),
        Activation::LeakyRelu(slope) => Some(slope),
        _ => None,
    }
}
