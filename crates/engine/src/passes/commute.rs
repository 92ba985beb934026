//! Swaps neighbours whose order does not matter to the result, but to its cost.

use super::fuse_activations::takers;
use super::remark::Log;
use super::rewrite::Rewrite;
use super::weights;
use crate::EngineError;
use crate::graph::{Conv2d, Node, Op, Unary, ValueId};
use cardinal_kernels::Activation;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some(node) = rw.node(place) else { continue };
        if let Some(pool) = pool_before(rw, node) {
            swap(rw, [pool, place])?;
            log.done("activation before maximum");
            continue;
        }
        let Some(first) = mean_after(rw, node) else { continue };
        match refusal(rw, first, node) {
            None => {
                swap(rw, [first, place])?;
                log.done("mean before 1x1 convolution");
            }
            // A mean after anything but a 1x1 convolution is where it should be; a blur is a convolution, and one
            // might expect the two to be one.
            Some(reason) if node.op == Op::BlurPool || is_pointwise(rw, first) => {
                log.missed(rw, place, reason);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The place of the maximum that `node`, an increasing function, is applied to: it may as well be applied before, where
/// a convolution does it for nothing.
fn pool_before(rw: &Rewrite, node: &Node) -> Option<usize> {
    let Op::Unary(Unary::Activation(activation)) = node.op else { return None };
    let (place, pool) = rw.sole_writer(*node.inputs.first()?).ok()?;
    let Op::MaxPool(window) = &pool.op else { return None };
    let free = takers(rw, *pool.inputs.first()?, activation).is_ok();
    // A window with gaps may lie in the padding alone, and the maximum of nothing is no result of an activation.
    (free && is_increasing(activation) && window.dilation == [1; 2]).then_some(place)
}

fn is_increasing(activation: Activation) -> bool {
    match activation {
        Activation::Identity
        | Activation::Relu
        | Activation::Relu6
        | Activation::Sigmoid
        | Activation::LeakyRelu(_)
        | Activation::HardSigmoid => true,
        Activation::Silu | Activation::HardSwish => false,
    }
}

/// The place of the convolution whose result `node` takes means of.
fn mean_after(rw: &Rewrite, node: &Node) -> Option<usize> {
    if !matches!(node.op, Op::AvgPool { .. } | Op::GlobalAvgPool | Op::BlurPool) {
        return None;
    }
    let (place, first) = rw.writer(*node.inputs.first()?)?;
    matches!(first.op, Op::Conv2d(_)).then_some(place)
}

fn is_pointwise(rw: &Rewrite, place: usize) -> bool {
    let Some(Node { op: Op::Conv2d(conv), inputs, .. }) = rw.node(place) else { return false };
    let one = |id: &ValueId| rw.map(*id).is_some_and(|[_, _, rows, columns]| [rows, columns] == [1; 2]);
    conv.stride == [1; 2] && conv.padding == [0; 4] && inputs.get(1).is_some_and(one)
}

/// Why `mean` should not come before the convolution.
fn refusal(rw: &Rewrite, place: usize, mean: &Node) -> Option<String> {
    let (place, conv) = match rw.sole_writer(mean.inputs[0]) {
        Ok(_) => (place, rw.node(place)?),
        Err(reason) => return Some(reason),
    };
    let Op::Conv2d(Conv2d { activation, residual, pool, .. }) = &conv.op else { return None };
    let reason = if *activation != Activation::Identity {
        format!("activation between it and {}", conv.place())
    } else if *residual || pool.is_some() {
        format!("{} does more than convolve", conv.place())
    } else if !is_pointwise(rw, place) {
        format!("{} and its border do not commute", conv.place())
    } else if counts_zeros(&mean.op) && weights::bias(conv).is_some() {
        "zeros in its mean, which would get a bias".into()
    } else if pixels(rw, mean.outputs[0]) >= pixels(rw, mean.inputs[0]) {
        "it would save nothing: it leaves as many pixels".into()
    } else {
        return None;
    };
    Some(reason)
}

fn counts_zeros(op: &Op) -> bool {
    matches!(op, Op::AvgPool { window, count_padding: true } if window.padding != [0; 4])
}

fn pixels(rw: &Rewrite, id: ValueId) -> usize {
    rw.map(id).map_or(0, |[_, _, h, w]| h * w)
}

/// Swaps two nodes, of which the second reads nothing but the first.
fn swap(rw: &mut Rewrite, [first, last]: [usize; 2]) -> Result<(), EngineError> {
    let (Some(mut a), Some(mut b)) = (rw.take(first), rw.take(last)) else { return Ok(()) };
    b.inputs[0] = a.inputs[0];
    let shape = rw.graph().infer(&b)?.swap_remove(0);
    let between = rw.add_value(&shape);
    a.inputs[0] = between;
    a.outputs = std::mem::replace(&mut b.outputs, vec![between]);
    rw.put(first, b);
    rw.put(last, a);
    Ok(())
}
