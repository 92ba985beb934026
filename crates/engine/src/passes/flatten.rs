//! A linear layer on all numbers of a map becomes a convolution with a kernel of the map's size, because maps are kept
//! channels last and the layer's weights are not.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Conv2d, Node, Op};
use cardinal_kernels::Activation;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some((bias, activation)) = linear(rw.node(place)) else { continue };
        let Some((reshape, [_, c, h, w])) = flattened(rw, place) else { continue };
        match refusal(rw, place) {
            None => {
                fold(rw, [reshape, place], [c, h, w], Conv2d { bias, activation, ..Conv2d::plain() })?;
                log.done("linear layer on a map into convolution");
            }
            Some(reason) => log.missed(rw, place, reason),
        }
    }
    Ok(())
}

fn linear(node: Option<&Node>) -> Option<(bool, Activation)> {
    match node?.op {
        Op::Linear { bias, activation } => Some((bias, activation)),
        _ => None,
    }
}

/// The place of the reshape that the node at `place` reads, and the map that it flattens. A map of one pixel has the
/// same order either way.
fn flattened(rw: &Rewrite, place: usize) -> Option<(usize, [usize; 4])> {
    let x = *rw.node(place)?.inputs.first()?;
    let (reshape, Node { op: Op::Reshape { .. }, inputs, .. }) = rw.writer(x)? else { return None };
    let map = rw.map(*inputs.first()?)?;
    let [n, c, h, w] = map;
    (h * w > 1 && rw.shape(x) == [n, c * h * w]).then_some((reshape, map))
}

fn refusal(rw: &Rewrite, place: usize) -> Option<String> {
    let node = rw.node(place)?;
    if let Err(reason) = rw.sole_writer(node.inputs[0]) {
        return Some(reason);
    }
    rw.constant(node.inputs[1]).is_none().then(|| "its weights are computed".into())
}

/// Puts the convolution in the place of the reshape, and a reshape of one pixel in the place of the layer.
fn fold(
    rw: &mut Rewrite,
    [reshape, linear]: [usize; 2],
    [c, h, w]: [usize; 3],
    conv: Conv2d,
) -> Result<(), EngineError> {
    let (Some(before), Some(mut layer)) = (rw.take(reshape), rw.take(linear)) else { return Ok(()) };
    let shape = rw.shape(layer.outputs[0]).to_vec();
    let (n, outputs) = (shape[0], shape[1]);
    let weight = layer.inputs[1];
    if let Some(data) = rw.constant(weight).cloned() {
        let name = rw.value(weight).name.clone();
        layer.inputs[1] = rw.add_constant(name, &[outputs, c, h, w], data)?;
    }
    layer.inputs[0] = before.inputs[0];
    let pixel = rw.add_value(&[n, outputs, 1, 1]);
    let after = Node {
        name: layer.name.clone(),
        op: Op::Reshape { shape },
        inputs: vec![pixel],
        outputs: layer.outputs,
    };
    rw.put(reshape, Node { op: Op::Conv2d(conv), outputs: vec![pixel], ..layer });
    rw.put(linear, after);
    Ok(())
}
