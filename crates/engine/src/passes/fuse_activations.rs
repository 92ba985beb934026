//! Activations are applied by what computes their input.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Node, Op, Unary, ValueId};
use cardinal_kernels::Activation;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some((activation, x)) = activation(rw.node(place)) else { continue };
        match takers(rw, x, activation) {
            Ok(takers) => {
                fuse(rw, place, x, &takers, activation);
                log.done(activation.name());
            }
            Err(reason) => log.missed(rw, place, reason),
        }
    }
    Ok(())
}

fn activation(node: Option<&Node>) -> Option<(Activation, ValueId)> {
    match node {
        Some(Node { op: Op::Unary(Unary::Activation(activation)), inputs, .. }) => {
            Some((*activation, *inputs.first()?))
        }
        _ => None,
    }
}

/// The places of the nodes that compute `x` and can apply `activation`: one, or those of each part of a concatenation.
pub(super) fn takers(rw: &Rewrite, x: ValueId, activation: Activation) -> Result<Vec<usize>, String> {
    let taker = |x: ValueId| -> Result<usize, String> {
        let (place, node) = rw.sole_writer(x)?;
        with_activation(&node.op, activation).map_err(|reason| format!("{} {reason}", node.place()))?;
        Ok(place)
    };
    match rw.sole_writer(x)? {
        (_, Node { op: Op::Concat, inputs, .. }) => {
            let in_part = |reason| format!("of a part of the concatenation before it: {reason}");
            inputs.iter().map(|&part| taker(part).map_err(in_part)).collect()
        }
        _ => Ok(vec![taker(x)?]),
    }
}

/// `op` with `new` applied to its result.
fn with_activation(op: &Op, new: Activation) -> Result<Op, &'static str> {
    let mut op = op.clone();
    let slot = match &mut op {
        Op::Conv2d(conv) if conv.pool.is_some() => return Err("has its mean taken before it"),
        Op::Conv2d(conv) => &mut conv.activation,
        Op::Linear { activation, .. }
        | Op::SplitAttention { activation, .. }
        | Op::Gate { activation, .. } => activation,
        Op::ActivatedNorm { slope, .. } => {
            match (*slope == 1.0, new) {
                (true, Activation::Relu) => *slope = 0.0,
                (true, Activation::LeakyRelu(new)) => *slope = new,
                _ => return Err("takes a leaky relu alone, and one of them"),
            }
            return Ok(op);
        }
        Op::Unary(_)
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
        | Op::SpaceToDepth { .. }
        | Op::Drop { .. } => return Err("before it applies no activations"),
    };
    if *slot != Activation::Identity {
        return Err("has an activation of its own");
    }
    *slot = new;
    Ok(op)
}

fn fuse(rw: &mut Rewrite, place: usize, x: ValueId, takers: &[usize], activation: Activation) {
    for &taker in takers {
        if let Some(mut node) = rw.take(taker) {
            node.op = with_activation(&node.op, activation).unwrap_or(node.op);
            rw.put(taker, node);
        }
    }
    let writer = rw.writer(x).map(|(place, _)| place);
    if let (Some(writer), Some(old)) = (writer, rw.take(place))
        && let Some(mut node) = rw.take(writer)
    {
        node.outputs[0] = old.outputs[0];
        rw.put(writer, node);
    }
}
