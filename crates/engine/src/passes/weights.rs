//! The constants of a convolution or linear layer.

use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Node, Op, ValueId};

/// The bias of a layer.
pub(super) fn bias(node: &Node) -> Option<ValueId> {
    match &node.op {
        Op::Conv2d(conv) if conv.bias => node.inputs.get(2).copied(),
        Op::Linear { bias: true, .. } => node.inputs.get(2).copied(),
        Op::Conv2d(_)
        | Op::Linear { .. }
        | Op::ActivatedNorm { .. }
        | Op::Unary(_)
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
        | Op::SplitAttention { .. }
        | Op::Gate { .. }
        | Op::BlurPool
        | Op::SpaceToDepth { .. }
        | Op::Drop { .. } => None,
    }
}

/// Whether the weight of a layer, and its bias if it has one, are known.
pub(super) fn are_known(rw: &Rewrite, node: &Node) -> bool {
    let known = |id: ValueId| rw.constant(id).is_some();
    node.inputs.get(1).is_some_and(|&weight| known(weight)) && bias(node).is_none_or(known)
}

/// Replaces the weight of a layer by one of the same name. The old one's memory is free if nothing reads it, which the
/// layer itself does as long as it is in its place.
pub(super) fn set_weight(
    rw: &mut Rewrite,
    node: &mut Node,
    shape: &[usize],
    data: Vec<f32>,
) -> Result<(), EngineError> {
    let name = rw.value(node.inputs[1]).name.clone();
    let new = rw.add_constant(name, shape, data)?;
    rw.forget(std::mem::replace(&mut node.inputs[1], new));
    Ok(())
}

/// Replaces the bias of a layer, or gives it one, named after the weight.
pub(super) fn set_bias(rw: &mut Rewrite, node: &mut Node, data: Vec<f32>) -> Result<(), EngineError> {
    let old = bias(node);
    let weight = &rw.value(node.inputs[1]).name;
    let name = match (old, weight.strip_suffix(".weight")) {
        (Some(old), _) => rw.value(old).name.clone(),
        (None, Some(module)) => format!("{module}.bias"),
        (None, None) => parameter(node, "bias"),
    };
    let shape = [data.len()];
    let new = rw.add_constant(name, &shape, data)?;
    if old.is_some() {
        node.inputs[2] = new;
        return Ok(());
    }
    // A residual comes after the bias.
    node.inputs.insert(2, new);
    if let Op::Conv2d(conv) = &mut node.op {
        conv.bias = true;
    } else if let Op::Linear { bias, .. } = &mut node.op {
        *bias = true;
    }
    Ok(())
}

/// The name of a parameter of `node`.
pub(super) fn parameter(node: &Node, name: &str) -> String {
    if node.name.is_empty() { name.into() } else { format!("{}.{name}", node.name) }
}
