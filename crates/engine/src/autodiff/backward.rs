//! The backward pass of a tape: the forward pass from its end, each operator by its rule.

use super::forward::leaky_slope;
use super::{Gradient, Kept, Origin, Settings, Tape, TapeNode, TapeOp};
use crate::graph::{Binary, Op, Unary, ValueId};
use crate::{Activation, EngineError};
use std::collections::HashMap;

/// Adds the gradients of everything that is trained.
pub(super) fn extend(tape: Tape, settings: &Settings<'_>) -> Result<Tape, EngineError> {
    let wanted = wanted(&tape);
    let writers = tape.writers();
    let gradients = vec![None; tape.values.len()];
    let mut builder =
        Builder { tape, settings, wanted, writers, gradients, again: HashMap::new(), name: String::new() };
    for output in builder.tape.outputs.clone() {
        let value = &builder.tape.values[output.0];
        let (name, shape) = (format!("gradient of {}", value.name), value.shape.clone());
        let vector = value.vector;
        let gradient = builder.tape.value(name, shape, Origin::Caller, true);
        builder.tape.values[gradient.0].vector = vector;
        builder.tape.output_gradients.push(gradient);
        builder.pass(output, gradient);
    }
    for index in (0..builder.tape.forward).rev() {
        let node = builder.tape.nodes[index].clone();
        if node.outputs.iter().any(|id| builder.gradients[id.0].is_some()) {
            builder.name.clone_from(&node.name);
            builder.node(&node)?;
        }
    }
    let Builder { mut tape, gradients, .. } = builder;
    for parameter in &mut tape.parameters {
        parameter.gradient = gradients[parameter.value.0];
        if let Some(gradient) = parameter.gradient {
            tape.values[gradient.0].name = format!("gradient of {}", tape.values[parameter.value.0].name);
        }
    }
    super::recompute::fuse_means(&mut tape);
    Ok(tape)
}

/// For each value whether something trained goes into it.
fn wanted(tape: &Tape) -> Vec<bool> {
    let mut wanted = vec![false; tape.values.len()];
    tape.parameters.iter().for_each(|parameter| wanted[parameter.value.0] = true);
    for node in &tape.nodes {
        let any = node.inputs.iter().any(|id| wanted[id.0]);
        // Statistics carry no gradient of their own: the norm's has theirs in it.
        if any && node.op != TapeOp::Statistics {
            node.outputs.iter().for_each(|id| wanted[id.0] = true);
        }
    }
    wanted
}

const FUSED: &str = "what it was fused with has no gradient: differentiate the graph as captured";

fn refuse(node: &TapeNode, reason: &str) -> Result<(), EngineError> {
    let op = node.op.name();
    let place = if node.name.is_empty() { op.into() } else { format!("{} ({op})", node.name) };
    Err(EngineError::graph(place, reason))
}

struct Builder<'a> {
    tape: Tape,
    settings: &'a Settings<'a>,
    /// Of the values of the forward pass.
    wanted: Vec<bool>,
    writers: Vec<Option<usize>>,
    /// The sum so far.
    gradients: Vec<Option<ValueId>>,
    /// Values that were computed again.
    again: HashMap<ValueId, ValueId>,
    /// The module path of the node at hand.
    name: String,
}

impl Builder<'_> {
    /// A forward value where the backward pass may read it.
    fn kept(&mut self, id: ValueId) -> ValueId {
        if let Some(&copy) = self.again.get(&id) {
            return copy;
        }
        let Some(writer) = self.writers.get(id.0).copied().flatten() else { return id };
        let node = &self.tape.nodes[writer];
        if !self.settings.recompute.applies(&self.tape, id, &node.op, &node.inputs) {
            return id;
        }
        let (name, op, inputs) = (node.name.clone(), node.op.clone(), node.inputs.clone());
        let inputs = inputs.into_iter().map(|input| self.kept(input)).collect();
        let copy = self.tape.push_like(&name, op, inputs, None, id);
        self.again.insert(id, copy);
        copy
    }

    /// Adds `gradient`, which exists already, to that of `id`.
    fn pass(&mut self, id: ValueId, gradient: ValueId) {
        self.gradients[id.0] = match self.gradients[id.0] {
            None => Some(gradient),
            Some(before) => {
                let add = TapeOp::Forward(Op::Binary(Binary::Add));
                Some(self.tape.push_like(&self.name, add, vec![before, gradient], None, id))
            }
        };
    }

    /// Adds what `op` computes from `inputs` to the gradient of `id`, if anything wants that.
    fn give(&mut self, id: ValueId, op: TapeOp, inputs: Vec<ValueId>) {
        if !self.wanted[id.0] {
            return;
        }
        let onto = self.gradients[id.0];
        self.gradients[id.0] = Some(self.tape.push_like(&self.name, op, inputs, onto, id));
    }

    fn gradient(&mut self, id: ValueId, gradient: Gradient, inputs: Vec<ValueId>) {
        self.give(id, TapeOp::Gradient(gradient), inputs);
    }

    fn node(&mut self, node: &TapeNode) -> Result<(), EngineError> {
        if !node.inputs.iter().any(|id| self.wanted[id.0]) {
            return Ok(());
        }
        // Only what was fused has another output that could be the one that is used.
        let Some(dy) = self.gradients[node.outputs[0].0] else { return refuse(node, FUSED) };
        let x = node.inputs[0];
        match &node.op {
            TapeOp::Forward(op) => return self.operator(op, node, dy),
            TapeOp::Join { epsilon, slope } => {
                let [.., skip] = node.inputs[..] else { unreachable!("a join has six inputs") };
                let dy = self.masked(Activation::LeakyRelu(*slope), node.outputs[0], dy);
                self.norm(&node.inputs, node.outputs[0], dy, *epsilon, 1.0);
                if self.wanted[skip.0] {
                    self.pass(skip, dy);
                }
            }
            TapeOp::Drop { .. } => self.give(x, node.op.clone(), vec![dy]),
            TapeOp::Statistics | TapeOp::Gradient(_) => unreachable!("they have no gradients to pass on"),
        }
        Ok(())
    }

    /// The gradient of an activation's input, as a value of its own.
    fn masked(&mut self, activation: Activation, output: ValueId, dy: ValueId) -> ValueId {
        if matches!(activation, Activation::Identity | Activation::LeakyRelu(1.0)) {
            return dy;
        }
        let activation = if activation == Activation::LeakyRelu(0.0) { Activation::Relu } else { activation };
        let y = self.kept(output);
        let op = TapeOp::Gradient(Gradient::Activation { activation, kept: Kept::Output });
        self.tape.push_like(&self.name, op, vec![y, dy], None, output)
    }

    /// The gradients of a norm with inputs `x, weight, bias, mean, var` and output `y`.
    fn norm(&mut self, inputs: &[ValueId], y: ValueId, dy: ValueId, epsilon: f32, slope: f32) {
        let [x, weight, bias, mean, var, ..] = *inputs else { unreachable!("a norm has five inputs") };
        let of_batch = matches!(self.tape.values[mean.0].origin, Origin::Node);
        if !of_batch {
            if self.wanted[bias.0] {
                let g = self.masked(Activation::LeakyRelu(slope), y, dy);
                self.gradient(bias, Gradient::Bias, vec![g]);
            }
            let y = if slope == 1.0 { x } else { y };
            let y = self.kept(y);
            self.gradient(x, Gradient::FixedNorm { epsilon, slope }, vec![y, dy, weight, mean, var]);
            return;
        }
        let (kept, value) =
            if self.settings.recompute.inverts(slope) { (Kept::Output, y) } else { (Kept::Input, x) };
        let value = self.kept(value);
        let onto = self.gradients[x.0];
        let (shape, channels) = (self.tape.shape(x).to_vec(), self.tape.shape(weight).to_vec());
        let outputs = self.tape.push(
            &self.name,
            TapeOp::Gradient(Gradient::Norm { epsilon, slope, kept }),
            vec![value, dy, weight, bias, mean, var],
            onto,
            &[(&shape, true), (&channels, false), (&channels, false)],
        );
        self.tape.values[outputs[0].0].vector = self.tape.values[x.0].vector;
        self.gradients[x.0] = Some(outputs[0]);
        self.pass(weight, outputs[1]);
        self.pass(bias, outputs[2]);
    }

    fn operator(&mut self, op: &Op, node: &TapeNode, dy: ValueId) -> Result<(), EngineError> {
        let x = node.inputs[0];
        match op {
            Op::Conv2d(conv)
                if conv.residual || conv.pool.is_some() || conv.activation != Activation::Identity =>
            {
                return refuse(node, FUSED);
            }
            // Their slope does not follow from the output, and the input was never there.
            Op::Linear { activation, .. }
            | Op::SplitAttention { activation, .. }
            | Op::Gate { activation, .. }
                if matches!(activation, Activation::Silu | Activation::HardSwish) =>
            {
                return refuse(node, FUSED);
            }
            Op::Linear { .. } if self.tape.shape(x).len() != 2 => {
                return refuse(node, &format!("there is no gradient of a layer on {:?}", self.tape.shape(x)));
            }
            Op::Conv2d(conv) => {
                let weight = node.inputs[1];
                if self.wanted[weight.0] {
                    let x = self.kept(x);
                    self.gradient(weight, Gradient::ConvWeight(conv.clone()), vec![x, dy]);
                }
                if conv.bias {
                    self.gradient(node.inputs[2], Gradient::Bias, vec![dy]);
                }
                self.gradient(x, Gradient::ConvInput(conv.clone()), vec![dy, weight]);
            }
            Op::Linear { bias, activation } => {
                let dy = self.masked(*activation, node.outputs[0], dy);
                let weight = node.inputs[1];
                if self.wanted[weight.0] {
                    let x = self.kept(x);
                    self.gradient(weight, Gradient::LinearWeight, vec![x, dy]);
                }
                if *bias {
                    self.gradient(node.inputs[2], Gradient::Bias, vec![dy]);
                }
                self.gradient(x, Gradient::LinearInput, vec![dy, weight]);
            }
            Op::ActivatedNorm { epsilon, slope } => {
                self.norm(&node.inputs, node.outputs[0], dy, *epsilon, *slope);
            }
            Op::Unary(Unary::Activation(activation)) => {
                let output = leaky_slope(*activation).is_some()
                    || matches!(
                        activation,
                        Activation::Sigmoid | Activation::HardSigmoid | Activation::Relu6
                    );
                let (kept, value) = if output { (Kept::Output, node.outputs[0]) } else { (Kept::Input, x) };
                let value = self.kept(value);
                self.gradient(x, Gradient::Activation { activation: *activation, kept }, vec![value, dy]);
            }
            Op::Unary(Unary::AddScalar(_)) => self.pass_wanted(x, dy),
            Op::Unary(unary @ (Unary::Neg | Unary::MulScalar(_))) => {
                self.give(x, TapeOp::Forward(Op::Unary(*unary)), vec![dy]);
            }
            Op::Binary(binary) => return self.binary(*binary, node, dy),
            Op::MaxPool(window) => {
                let kept = self.kept(x);
                self.gradient(x, Gradient::MaxPool(window.clone()), vec![kept, dy]);
            }
            Op::AvgPool { window, count_padding } => {
                let op = Gradient::AvgPool { window: window.clone(), count_padding: *count_padding };
                self.gradient(x, op, vec![dy]);
            }
            Op::GlobalAvgPool => self.gradient(x, Gradient::Means { radix: 1 }, vec![dy]),
            Op::RadixPool { radix } => self.gradient(x, Gradient::Means { radix: *radix }, vec![dy]),
            Op::Reshape { .. } => {
                let shape = self.tape.shape(x).to_vec();
                self.give(x, TapeOp::Forward(Op::Reshape { shape }), vec![dy]);
            }
            Op::Concat => {
                let mut start = 0;
                for &input in &node.inputs {
                    let end = start + self.tape.shape(input)[1];
                    self.give(input, TapeOp::Forward(Op::SliceChannels { start, end }), vec![dy]);
                    start = end;
                }
            }
            Op::SliceChannels { start, .. } => {
                self.gradient(x, Gradient::SliceChannels { start: *start }, vec![dy]);
            }
            Op::Pad(padding) => self.gradient(x, Gradient::Pad(*padding), vec![dy]),
            Op::SplitAttention { radix, cardinality, activation } => {
                let dy = self.masked(*activation, node.outputs[0], dy);
                let (radix, cardinality, logits) = (*radix, *cardinality, node.inputs[1]);
                let (kept, weights) = (self.kept(x), self.kept(logits));
                self.gradient(
                    x,
                    Gradient::SplitInput { radix, cardinality, means: false },
                    vec![dy, weights],
                );
                self.gradient(logits, Gradient::SplitLogits { radix, cardinality }, vec![kept, dy, weights]);
            }
            Op::Gate { hard, residual, activation } => {
                let dy = self.masked(*activation, node.outputs[0], dy);
                let (hard, logits) = (*hard, node.inputs[1]);
                let (kept, weights) = (self.kept(x), self.kept(logits));
                self.gradient(x, Gradient::GateInput { hard, means: false }, vec![dy, weights]);
                self.gradient(logits, Gradient::GateLogits { hard }, vec![kept, dy, weights]);
                if *residual {
                    self.pass_wanted(node.inputs[2], dy);
                }
            }
            Op::BlurPool => self.gradient(x, Gradient::BlurPool, vec![dy]),
            Op::SpaceToDepth { block } => {
                self.gradient(x, Gradient::SpaceToDepth { block: *block }, vec![dy]);
            }
            Op::Drop { .. } => unreachable!("drops are recorded as such"),
            Op::Softmax | Op::Permute { .. } | Op::Unary(_) => return refuse(node, "it has no gradient"),
        }
        Ok(())
    }

    fn pass_wanted(&mut self, id: ValueId, gradient: ValueId) {
        if self.wanted[id.0] {
            self.pass(id, gradient);
        }
    }

    /// Operands for each image of equal sizes, or one that is no function of anything trained.
    fn binary(&mut self, binary: Binary, node: &TapeNode, dy: ValueId) -> Result<(), EngineError> {
        let [a, b] = [node.inputs[0], node.inputs[1]];
        let shape = self.tape.shape(dy).to_vec();
        for (id, other, second) in [(a, b, false), (b, a, true)] {
            if !self.wanted[id.0] {
                continue;
            }
            let equal = self.tape.shape(id) == shape.as_slice() && self.tape.values[id.0].batched;
            match binary {
                Binary::Add if equal => self.pass(id, dy),
                Binary::Sub if equal && !second => self.pass(id, dy),
                Binary::Sub if equal => self.give(id, TapeOp::Forward(Op::Unary(Unary::Neg)), vec![dy]),
                Binary::Mul if equal => {
                    let other = self.kept(other);
                    self.give(id, TapeOp::Forward(Op::Binary(Binary::Mul)), vec![dy, other]);
                }
                _ => {
                    return refuse(node, &format!("the operand {:?} has no gradient", self.tape.shape(id)));
                }
            }
        }
        Ok(())
    }
}
