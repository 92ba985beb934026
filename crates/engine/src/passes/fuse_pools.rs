//! The mean of a convolution's result is taken while the result is computed.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Conv2d, Node, Op, ValueId};

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some((radix, x)) = mean(rw.node(place)) else { continue };
        match convolution(rw, x) {
            Ok(conv) => {
                fuse(rw, place, conv, radix);
                log.done(if radix == 1 { "global average pool" } else { "radix pool" });
            }
            Err(reason) => log.missed(rw, place, reason),
        }
    }
    Ok(())
}

/// The radix and the input of a mean over all pixels.
fn mean(node: Option<&Node>) -> Option<(usize, ValueId)> {
    match node? {
        Node { op: Op::GlobalAvgPool, inputs, .. } => Some((1, *inputs.first()?)),
        Node { op: Op::RadixPool { radix }, inputs, .. } => Some((*radix, *inputs.first()?)),
        _ => None,
    }
}

/// The place of the convolution that computes `x`, which others may read too.
fn convolution(rw: &Rewrite, x: ValueId) -> Result<usize, String> {
    let (place, node) = rw.writer(x).ok_or("its input is given, not computed")?;
    match &node.op {
        Op::Conv2d(Conv2d { pool: Some(_), .. }) if node.outputs[0] == x => {
            Err(format!("{} has its mean taken already", node.place()))
        }
        Op::Conv2d(_) if node.outputs[0] == x => Ok(place),
        _ => Err(format!("{} before it takes no means", node.place())),
    }
}

fn fuse(rw: &mut Rewrite, place: usize, conv: usize, radix: usize) {
    let (Some(mean), Some(mut node)) = (rw.take(place), rw.take(conv)) else { return };
    if let Op::Conv2d(conv) = &mut node.op {
        conv.pool = Some(radix);
    }
    node.outputs.extend(mean.outputs);
    rw.put(conv, node);
}
