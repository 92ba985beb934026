//! A scale and shift per channel before a convolution goes into its weights, unless padding is in the way.
//!
//! This is the other side of `fold_norms`: normalised images, and norms without activation after a sum.

use super::affine::{self, Chain};
use super::remark::Log;
use super::rewrite::Rewrite;
use super::weights;
use crate::EngineError;
use crate::graph::{Node, Op};

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some(node) = rw.node(place) else { continue };
        let Some(padded) = is_padded(&node.op) else { continue };
        let Some((before, scale)) = node.inputs.first().and_then(|&x| rw.writer(x)) else { continue };
        if affine::affine_of(rw, scale).is_none_or(|(_, affine)| affine.slope != 1.0) {
            continue;
        }
        match scales(rw, node, before, padded) {
            Ok(chain) => {
                fold(rw, place, &chain)?;
                log.done("scale into the weights after it");
            }
            Err(reason) => log.missed(rw, before, reason),
        }
    }
    Ok(())
}

/// Whether a layer with weights reads zeros around its input; none for other operators.
fn is_padded(op: &Op) -> Option<bool> {
    match op {
        Op::Conv2d(conv) => Some(conv.padding != [0; 4]),
        Op::Linear { .. } => Some(false),
        Op::ActivatedNorm { .. }
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

/// The scales and shifts that end at the place `before` and can go into `node`.
fn scales(rw: &Rewrite, node: &Node, before: usize, padded: bool) -> Result<Chain, String> {
    if rw.sole_writer(node.inputs[0]).is_err() {
        return Err(format!("its result is used by more than {}", node.place()));
    }
    if !weights::are_known(rw, node) {
        return Err(format!("{} computes its weights", node.place()));
    }
    let vectors = matches!(node.op, Op::Linear { .. }) && rw.shape(node.inputs[0]).len() == 2;
    if rw.map(node.inputs[0]).is_none() && !vectors {
        return Err(format!("{} is not of vectors", node.place()));
    }
    let chain = affine::chain(rw, before).ok_or("it is no scale")?;
    if padded && chain.affine.shift.iter().any(|&shift| shift != 0.0) {
        return Err(format!("{} pads with zeros, which its shift would change", node.place()));
    }
    if !chain.affine.is_finite() {
        return Err("its numbers are not finite".into());
    }
    Ok(chain)
}

/// `w (s x + t) + b = (s w) x + (w t + b)`.
fn fold(rw: &mut Rewrite, place: usize, chain: &Chain) -> Result<(), EngineError> {
    let Some(mut node) = rw.node(place).cloned() else { return Ok(()) };
    let Some(weight) = rw.constant(node.inputs[1]).cloned() else { return Ok(()) };
    let shape = rw.shape(node.inputs[1]).to_vec();
    let old = weights::bias(&node).and_then(|id| rw.constant(id)).cloned();
    let groups = if let Op::Conv2d(conv) = &node.op { conv.groups } else { 1 };
    let (outputs, inputs) = (shape[0], shape[1]);
    let taps: usize = shape[2..].iter().product();
    let mut scaled = Vec::with_capacity(weight.len());
    let mut bias = Vec::with_capacity(outputs);
    for (output, row) in weight.chunks_exact(inputs * taps).enumerate() {
        let group = output / (outputs / groups);
        let mut sum = old.as_ref().map_or(0.0, |old| f64::from(old[output]));
        for (input, taps) in row.chunks_exact(taps).enumerate() {
            let channel = group * inputs + input;
            let (scale, shift) = (chain.affine.scale[channel], chain.affine.shift[channel]);
            scaled.extend(taps.iter().map(|&w| (f64::from(w) * scale) as f32));
            sum += taps.iter().map(|&w| f64::from(w)).sum::<f64>() * shift;
        }
        bias.push(sum as f32);
    }
    weights::set_weight(rw, &mut node, &shape, scaled)?;
    if old.is_some() || bias.iter().any(|&b| b != 0.0) {
        weights::set_bias(rw, &mut node, bias)?;
    }
    node.inputs[0] = chain.input;
    rw.replace(place, node);
    for &place in &chain.places {
        rw.take(place);
    }
    Ok(())
}
