//! Space-to-depth before a convolution goes into the convolution's addressing: a kernel of `block` times the size that
//! steps over the image itself reads the same numbers.

use super::remark::Log;
use super::rewrite::Rewrite;
use super::weights;
use crate::EngineError;
use crate::graph::{Conv2d, Node, Op, ValueId};

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some((node, block, x)) = reader(rw, place) else { continue };
        match merged(rw, node, block) {
            Ok(conv) => {
                fold(rw, place, block, x, conv)?;
                log.done("space-to-depth into convolution");
            }
            Err(reason) => log.missed(rw, place, reason),
        }
    }
    Ok(())
}

/// The node at `place`, if it reads the result of space-to-depth; its block, and the image.
fn reader(rw: &Rewrite, place: usize) -> Option<(&Node, usize, ValueId)> {
    let node = rw.node(place)?;
    let (_, before) = rw.writer(*node.inputs.first()?)?;
    let Op::SpaceToDepth { block } = before.op else { return None };
    Some((node, block, *before.inputs.first()?))
}

/// The convolution on the image.
fn merged(rw: &Rewrite, node: &Node, block: usize) -> Result<Conv2d, &'static str> {
    let Op::Conv2d(conv) = &node.op else {
        return Err("it reads the result of space-to-depth and is no conv2d");
    };
    if conv.groups != 1 {
        return Err("its groups of channels are rows and columns of the image before space-to-depth");
    }
    if conv.dilation != [1; 2] {
        return Err("its kernel on the image would have gaps");
    }
    if !weights::are_known(rw, node) {
        return Err("its weights are computed");
    }
    let times = |size: usize| size.checked_mul(block);
    let all = |sizes: [usize; 4]| -> Option<[usize; 4]> {
        Some([times(sizes[0])?, times(sizes[1])?, times(sizes[2])?, times(sizes[3])?])
    };
    let ([sy, sx], Some(padding)) = (conv.stride, all(conv.padding)) else {
        return Err("its padding is too large");
    };
    let (Some(sy), Some(sx)) = (times(sy), times(sx)) else { return Err("its stride is too large") };
    Ok(Conv2d { stride: [sy, sx], padding, ..conv.clone() })
}

fn fold(
    rw: &mut Rewrite,
    place: usize,
    block: usize,
    image: ValueId,
    conv: Conv2d,
) -> Result<(), EngineError> {
    let Some(mut node) = rw.take(place) else { return Ok(()) };
    if let (&[m, k, rows, columns], Some(old)) = (rw.shape(node.inputs[1]), rw.constant(node.inputs[1])) {
        let channels = k / (block * block);
        let shape = [m, channels, rows * block, columns * block];
        let mut weight = Vec::with_capacity(old.len());
        for output in 0..m {
            for channel in 0..channels {
                for y in 0..shape[2] {
                    for x in 0..shape[3] {
                        let split = (y % block * block + x % block) * channels + channel;
                        weight.push(old[((output * k + split) * rows + y / block) * columns + x / block]);
                    }
                }
            }
        }
        weights::set_weight(rw, &mut node, &shape, weight)?;
    }
    node.op = Op::Conv2d(conv);
    node.inputs[0] = image;
    rw.put(place, node);
    Ok(())
}
