//! Finds the operators of the papers in the arithmetic that plain modules record.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Binary, Node, Op, Unary, ValueId, Window};
use cardinal_kernels::Activation;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some(node) = rw.node(place) else { continue };
        if let Some((op, inputs)) = plain(rw, node) {
            log.done(op.name());
            let node = Node { op, inputs, ..node.clone() };
            rw.replace(place, node);
        } else if let Some(gate) = gate_behind_reshape(rw, node) {
            log.done("gate");
            gate.apply(rw, place);
        }
    }
    Ok(())
}

/// The operator that `node` is a part of, or another way to write, and its inputs.
fn plain(rw: &Rewrite, node: &Node) -> Option<(Op, Vec<ValueId>)> {
    let inputs = || node.inputs.clone();
    match &node.op {
        Op::Unary(unary) => {
            let (activation, x) = activation(rw, *unary, *node.inputs.first()?)?;
            Some((Op::Unary(Unary::Activation(activation)), vec![x]))
        }
        Op::Binary(Binary::Mul) => {
            let &[a, b] = node.inputs.as_slice() else { return None };
            swish(rw, a, b).or_else(|| swish(rw, b, a)).or_else(|| gate(rw, a, b)).or_else(|| gate(rw, b, a))
        }
        Op::AvgPool { window, .. } => covers(rw, window, node).then(|| (Op::GlobalAvgPool, inputs())),
        Op::RadixPool { radix: 1 } => Some((Op::GlobalAvgPool, inputs())),
        // The softmax over one split is defined as a sigmoid.
        Op::SplitAttention { radix: 1, activation, .. } => {
            Some((Op::Gate { hard: false, residual: false, activation: *activation }, inputs()))
        }
        Op::Binary(_)
        | Op::Conv2d(_)
        | Op::Linear { .. }
        | Op::ActivatedNorm { .. }
        | Op::MaxPool(_)
        | Op::GlobalAvgPool
        | Op::Softmax
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Concat
        | Op::SliceChannels { .. }
        | Op::Pad(_)
        | Op::RadixPool { .. }
        | Op::SplitAttention { .. }
        | Op::Gate { .. }
        | Op::BlurPool
        | Op::SpaceToDepth { .. }
        | Op::Drop { .. } => None,
    }
}

/// The activation that ends in `unary` of `x`, and what it reads.
fn activation(rw: &Rewrite, unary: Unary, x: ValueId) -> Option<(Activation, ValueId)> {
    match unary {
        Unary::Activation(Activation::LeakyRelu(0.0)) => Some((Activation::Relu, x)),
        Unary::Clamp(low, high) => hard_sigmoid(rw, low, high, x).or_else(|| Some((clamp(low, high)?, x))),
        Unary::MulScalar(s) if near(s, 1.0 / 6.0) => hard_sixths(rw, x),
        Unary::Recip => sigmoid(rw, x),
        Unary::Activation(_)
        | Unary::Neg
        | Unary::Exp
        | Unary::Sqrt
        | Unary::AddScalar(_)
        | Unary::MulScalar(_) => None,
    }
}

fn clamp(low: f32, high: f32) -> Option<Activation> {
    match (low, high) {
        (0.0, 6.0) => Some(Activation::Relu6),
        (0.0, f32::MAX | f32::INFINITY) => Some(Activation::Relu),
        _ => None,
    }
}

/// `clamp(x / 6 + 1 / 2, 0, 1)`.
fn hard_sigmoid(rw: &Rewrite, low: f32, high: f32, x: ValueId) -> Option<(Activation, ValueId)> {
    let (Unary::AddScalar(half), x) = unary(rw, x)? else { return None };
    let (Unary::MulScalar(sixth), x) = unary(rw, x)? else { return None };
    let fits = (low, high) == (0.0, 1.0) && near(half, 0.5) && near(sixth, 1.0 / 6.0);
    fits.then_some((Activation::HardSigmoid, x))
}

/// `clamp(x + 3, 0, 6) / 6` and `x * clamp(x + 3, 0, 6) / 6`, from what the last step divides.
fn hard_sixths(rw: &Rewrite, sixfold: ValueId) -> Option<(Activation, ValueId)> {
    if let Some(x) = shifted_relu6(rw, sixfold) {
        return Some((Activation::HardSigmoid, x));
    }
    let (_, Node { op: Op::Binary(Binary::Mul), inputs, .. }) = rw.writer(sixfold)? else { return None };
    let &[a, b] = inputs.as_slice() else { return None };
    let fits = |x, clamped| shifted_relu6(rw, clamped) == Some(x);
    let x = if fits(a, b) { a } else { b };
    (fits(a, b) || fits(b, a)).then_some((Activation::HardSwish, x))
}

/// The `x` of `clamp(x + 3, 0, 6)`.
fn shifted_relu6(rw: &Rewrite, id: ValueId) -> Option<ValueId> {
    // The clamp came earlier in the graph and has its name by now.
    let (Unary::Activation(Activation::Relu6), sum) = unary(rw, id)? else { return None };
    let (Unary::AddScalar(3.0), x) = unary(rw, sum)? else { return None };
    Some(x)
}

/// `1 / (1 + exp(-x))`, from what the last step inverts.
fn sigmoid(rw: &Rewrite, sum: ValueId) -> Option<(Activation, ValueId)> {
    let (Unary::AddScalar(1.0), exp) = unary(rw, sum)? else { return None };
    let (Unary::Exp, negative) = unary(rw, exp)? else { return None };
    let (Unary::Neg, x) = unary(rw, negative)? else { return None };
    Some((Activation::Sigmoid, x))
}

/// `x * sigmoid(x)` and its hard form.
fn swish(rw: &Rewrite, x: ValueId, gate: ValueId) -> Option<(Op, Vec<ValueId>)> {
    let activation = match unary(rw, gate)? {
        (Unary::Activation(Activation::Sigmoid), logits) if logits == x => Activation::Silu,
        (Unary::Activation(Activation::HardSigmoid), logits) if logits == x => Activation::HardSwish,
        _ => return None,
    };
    Some((Op::Unary(Unary::Activation(activation)), vec![x]))
}

/// A map times the sigmoid of one number for each channel.
fn gate(rw: &Rewrite, x: ValueId, gate: ValueId) -> Option<(Op, Vec<ValueId>)> {
    let (hard, logits) = sigmoid_of(rw, gate)?;
    is_gate(rw, x, logits).then(|| (gate_op(hard), vec![x, logits]))
}

fn gate_op(hard: bool) -> Op {
    Op::Gate { hard, residual: false, activation: Activation::Identity }
}

fn is_gate(rw: &Rewrite, x: ValueId, gate: ValueId) -> bool {
    let Some([n, c, _, _]) = rw.map(x) else { return false };
    // A constant is the same for all images, a map is not.
    rw.shape(gate) == [n, c, 1, 1] && rw.constant(x).is_none()
}

fn sigmoid_of(rw: &Rewrite, id: ValueId) -> Option<(bool, ValueId)> {
    match unary(rw, id)? {
        (Unary::Activation(Activation::Sigmoid), x) => Some((false, x)),
        (Unary::Activation(Activation::HardSigmoid), x) => Some((true, x)),
        _ => None,
    }
}

/// A gate whose sigmoid is computed on a vector `[n, c]`, as with linear layers: the reshape moves before the sigmoid.
struct GateBehindReshape {
    x: ValueId,
    logits: ValueId,
    hard: bool,
    reshape: usize,
}

fn gate_behind_reshape(rw: &Rewrite, node: &Node) -> Option<GateBehindReshape> {
    let Op::Binary(Binary::Mul) = node.op else { return None };
    let &[a, b] = node.inputs.as_slice() else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
        let (reshape, Node { op: Op::Reshape { .. }, inputs, .. }) = rw.sole_writer(gate).ok()? else {
            return None;
        };
        let (hard, logits) = sigmoid_of(rw, *inputs.first()?)?;
        is_gate(rw, x, gate).then_some(GateBehindReshape { x, logits, hard, reshape })
    })
}

impl GateBehindReshape {
    fn apply(self, rw: &mut Rewrite, place: usize) {
        let (Some(mut reshape), Some(mut node)) = (rw.take(self.reshape), rw.take(place)) else { return };
        reshape.inputs = vec![self.logits];
        node.op = gate_op(self.hard);
        node.inputs = vec![self.x, reshape.outputs[0]];
        rw.put(self.reshape, reshape);
        rw.put(place, node);
    }
}

/// Whether the one window of a pooling is the whole map.
fn covers(rw: &Rewrite, window: &Window, node: &Node) -> bool {
    let Some(&[_, _, h, w]) = node.inputs.first().map(|&x| rw.shape(x)) else { return false };
    window.kernel == [h, w] && window.padding == [0; 4] && window.dilation == [1; 2]
}

fn unary(rw: &Rewrite, id: ValueId) -> Option<(Unary, ValueId)> {
    match rw.writer(id)? {
        (_, Node { op: Op::Unary(unary), inputs, .. }) => Some((*unary, *inputs.first()?)),
        _ => None,
    }
}

/// Whether two scalars are the same but for their rounding.
fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 2.0 * f32::EPSILON * b.abs()
}
