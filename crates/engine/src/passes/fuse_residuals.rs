//! The sum at the end of a residual block is part of the convolution or the gate that computes one of its sides.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Binary, Conv2d, Node, Op, ValueId};
use cardinal_kernels::Activation;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some([a, b]) = sum(rw, place) else { continue };
        // The side that is computed last: the other one is there when it runs.
        let order = |id: ValueId| rw.writer(id).map(|(place, _)| place);
        let [first, last] = if order(a) > order(b) { [b, a] } else { [a, b] };
        match taker(rw, last).map(|taker| (taker, first)) {
            Ok((taker, other)) => fuse(rw, place, taker, other, log),
            Err(reason) => match taker(rw, first) {
                Ok(taker) => fuse(rw, place, taker, last, log),
                Err(other) => {
                    let reason = if other == reason { reason } else { format!("{reason}; {other}") };
                    log.missed(rw, place, reason);
                }
            },
        }
    }
    Ok(())
}

/// The two maps that the node at `place` adds.
fn sum(rw: &Rewrite, place: usize) -> Option<[ValueId; 2]> {
    let Some(Node { op: Op::Binary(Binary::Add), inputs, .. }) = rw.node(place) else { return None };
    let &[a, b] = inputs.as_slice() else { return None };
    // A constant is the same for all images, a residual is not.
    let constant = rw.constant(a).is_some() || rw.constant(b).is_some();
    (rw.map(a).is_some() && rw.shape(a) == rw.shape(b) && !constant).then_some([a, b])
}

/// The place of the node that computes `id` and can add the other side.
fn taker(rw: &Rewrite, id: ValueId) -> Result<usize, String> {
    let (place, node) = rw.sole_writer(id)?;
    with_residual(&node.op).map_err(|reason| format!("{} {reason}", node.place()))?;
    Ok(place)
}

/// `op` with a residual as its last input.
fn with_residual(op: &Op) -> Result<Op, &'static str> {
    let (residual, activation) = match op {
        Op::Conv2d(conv) if conv.pool.is_some() => return Err("has its mean taken before the sum"),
        Op::Conv2d(conv) => (conv.residual, conv.activation),
        Op::Gate { residual, activation, .. } => (*residual, *activation),
        Op::Linear { .. }
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
        | Op::BlurPool
        | Op::SpaceToDepth { .. }
        | Op::Drop { .. } => return Err("adds no residuals"),
    };
    if residual {
        return Err("has a residual already");
    }
    if activation != Activation::Identity {
        return Err("has an activation before the sum");
    }
    Ok(match op {
        Op::Conv2d(conv) => Op::Conv2d(Conv2d { residual: true, ..conv.clone() }),
        Op::Gate { hard, .. } => Op::Gate { hard: *hard, residual: true, activation },
        other => other.clone(),
    })
}

/// Lets the node at `taker` do the sum at `place`, and at that place: the other side may come after the taker.
fn fuse(rw: &mut Rewrite, place: usize, taker: usize, other: ValueId, log: &mut Log) {
    let (Some(mut node), Some(sum)) = (rw.take(taker), rw.take(place)) else { return };
    if let Ok(op) = with_residual(&node.op) {
        log.done(if matches!(op, Op::Gate { .. }) { "sum into gate" } else { "sum into convolution" });
        node.op = op;
    }
    node.inputs.push(other);
    node.outputs = sum.outputs;
    rw.put(place, node);
}
