//! Removes nodes that change nothing, and joins runs of reshapes, concatenations and slices.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Node, Op, Source, Unary, ValueId, Window};
use cardinal_kernels::Activation;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    // What to read instead of each value. Nodes come in order, so an input's entry is final when it is read.
    let mut instead: Vec<ValueId> = (0..rw.graph().values.len()).map(ValueId).collect();
    for place in rw.places() {
        let Some(mut node) = rw.take(place) else { continue };
        for id in &mut node.inputs {
            *id = instead[id.0];
        }
        if let Some(joined) = join(rw, &node) {
            node = joined;
            log.done("run of reshapes, slices or concatenations joined");
        }
        if let Some(x) = same_as(rw, &node)
            && may_replace(rw, x, node.outputs[0])
        {
            instead[node.outputs[0].0] = x;
            log.done("node without effect removed");
        } else {
            rw.put(place, node);
        }
    }
    rw.move_outputs(&instead);
    Ok(())
}

/// Parts that a concatenation is joined to, so that a chain of thousands is not copied thousands of times.
const MAX_PARTS: usize = 256;

/// An output keeps its node if its name would have to go to a value that has one.
fn may_replace(rw: &Rewrite, x: ValueId, output: ValueId) -> bool {
    let value = rw.value(x);
    !rw.is_output(output) || (value.source == Source::Node && value.name.is_empty() && !rw.is_output(x))
}

/// The value that the node's output is equal to.
fn same_as(rw: &Rewrite, node: &Node) -> Option<ValueId> {
    let (&x, &output) = (node.inputs.first()?, node.outputs.first()?);
    let same = match &node.op {
        Op::Unary(unary) => is_identity(*unary),
        Op::MaxPool(window) | Op::AvgPool { window, .. } => is_pixel(window),
        Op::GlobalAvgPool | Op::RadixPool { radix: 1 } | Op::Reshape { .. } => {
            rw.shape(x) == rw.shape(output)
        }
        Op::Permute { order } => order.iter().copied().eq(0..order.len()),
        Op::Concat => node.inputs.len() == 1,
        Op::SliceChannels { .. } => rw.shape(x) == rw.shape(output),
        Op::Pad(padding) => *padding == [0; 4],
        Op::SpaceToDepth { block } => *block == 1,
        // What is compiled here runs, it does not train.
        Op::Drop { .. } => true,
        Op::Conv2d(_)
        | Op::Linear { .. }
        | Op::ActivatedNorm { .. }
        | Op::Binary(_)
        | Op::Softmax
        | Op::RadixPool { .. }
        | Op::SplitAttention { .. }
        | Op::Gate { .. }
        | Op::BlurPool => false,
    };
    same.then_some(x)
}

fn is_identity(unary: Unary) -> bool {
    match unary {
        Unary::Activation(activation) => {
            matches!(activation, Activation::Identity | Activation::LeakyRelu(1.0))
        }
        Unary::AddScalar(s) => s == 0.0,
        Unary::MulScalar(s) => s == 1.0,
        Unary::Clamp(low, high) => low == f32::NEG_INFINITY && high == f32::INFINITY,
        Unary::Neg | Unary::Exp | Unary::Sqrt | Unary::Recip => false,
    }
}

fn is_pixel(window: &Window) -> bool {
    window.kernel == [1; 2] && window.stride == [1; 2] && window.padding == [0; 4]
}

/// The node with the nodes before it in one.
fn join(rw: &Rewrite, node: &Node) -> Option<Node> {
    match &node.op {
        Op::Reshape { .. } => {
            let (_, before) = rw.writer(*node.inputs.first()?)?;
            let Op::Reshape { .. } = before.op else { return None };
            Some(Node { inputs: before.inputs.clone(), ..node.clone() })
        }
        Op::SliceChannels { start, end } => {
            let (_, before) = rw.writer(*node.inputs.first()?)?;
            let Op::SliceChannels { start: offset, .. } = before.op else { return None };
            let op = Op::SliceChannels { start: offset + start, end: offset + end };
            Some(Node { op, inputs: before.inputs.clone(), ..node.clone() })
        }
        Op::Concat => {
            // This node is out of its place, so a concatenation for it alone has no readers.
            let parts = |id: &ValueId| match rw.writer(*id) {
                Some((_, Node { op: Op::Concat, inputs, .. })) if rw.is_unread(*id) => inputs.clone(),
                _ => vec![*id],
            };
            let inputs: Vec<ValueId> = node.inputs.iter().flat_map(parts).collect();
            (inputs.len() > node.inputs.len() && inputs.len() <= MAX_PARTS)
                .then(|| Node { inputs, ..node.clone() })
        }
        Op::Conv2d(_)
        | Op::Linear { .. }
        | Op::ActivatedNorm { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::MaxPool(_)
        | Op::AvgPool { .. }
        | Op::GlobalAvgPool
        | Op::Softmax
        | Op::Permute { .. }
        | Op::Pad(_)
        | Op::RadixPool { .. }
        | Op::SplitAttention { .. }
        | Op::Gate { .. }
        | Op::BlurPool
        | Op::SpaceToDepth { .. }
        | Op::Drop { .. } => None,
    }
}
