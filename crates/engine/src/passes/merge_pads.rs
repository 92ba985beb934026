//! Zeros around a map become the padding of the convolution or the mean that reads it.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Conv2d, Node, Op, Padding, ValueId, Window};

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some((node, padding, x)) = padded_reader(rw, place) else { continue };
        match merge(&node.op, padding) {
            Ok(op) => {
                let mut inputs = node.inputs.clone();
                inputs[0] = x;
                let node = Node { op, inputs, ..node.clone() };
                rw.replace(place, node);
                log.done("pad into what reads it");
            }
            Err(reason) => log.missed(rw, place, reason),
        }
    }
    Ok(())
}

/// The node at `place`, if its first input is a padded map; the zeros around it, and the map.
fn padded_reader(rw: &Rewrite, place: usize) -> Option<(&Node, Padding, ValueId)> {
    let node = rw.node(place)?;
    let (_, Node { op: Op::Pad(padding), inputs, .. }) = rw.writer(*node.inputs.first()?)? else {
        return None;
    };
    Some((node, *padding, *inputs.first()?))
}

fn merge(op: &Op, zeros: Padding) -> Result<Op, &'static str> {
    match op {
        Op::Conv2d(conv) => Ok(Op::Conv2d(Conv2d { padding: sum(conv.padding, zeros)?, ..conv.clone() })),
        Op::Pad(padding) => Ok(Op::Pad(sum(*padding, zeros)?)),
        Op::AvgPool { window, count_padding } => {
            let window = average(window, *count_padding, zeros)?;
            Ok(Op::AvgPool { window, count_padding: true })
        }
        Op::MaxPool(_) => Err("the zeros before it are candidates for the maximum, padding is not"),
        Op::Linear { .. }
        | Op::ActivatedNorm { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::GlobalAvgPool
        | Op::Softmax
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Concat
        | Op::SliceChannels { .. }
        | Op::RadixPool { .. }
        | Op::SplitAttention { .. }
        | Op::Gate { .. }
        | Op::BlurPool
        | Op::SpaceToDepth { .. }
        | Op::Drop { .. } => Err("it has no padding that the zeros before it could become"),
    }
}

/// The window of a mean with `zeros` in its padding, which must then count.
fn average(window: &Window, count_padding: bool, zeros: Padding) -> Result<Window, &'static str> {
    if !count_padding && window.padding != [0; 4] {
        return Err("the zeros before it count in its mean, its own padding does not");
    }
    if window.ceil {
        return Err("which last windows it keeps depends on what is padding");
    }
    let padding = sum(window.padding, zeros)?;
    let half = [window.kernel[0] / 2, window.kernel[1] / 2, window.kernel[0] / 2, window.kernel[1] / 2];
    if padding.iter().zip(half).any(|(&size, half)| size > half) {
        return Err("padding may be half of a window at most");
    }
    Ok(Window { padding, ..window.clone() })
}

fn sum(a: Padding, b: Padding) -> Result<Padding, &'static str> {
    let mut sum = [0; 4];
    for (side, size) in sum.iter_mut().enumerate() {
        *size = a[side].checked_add(b[side]).ok_or("the padding is too large")?;
    }
    Ok(sum)
}
