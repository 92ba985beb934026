//! Norms, and other arithmetic per channel, go into the weights of the convolution or linear layer before them.
//!
//! What cannot go there (after a concatenation or a sum, say) becomes one activated norm, which is one kernel.

use super::affine::{self, Affine, Chain};
use super::remark::Log;
use super::rewrite::Rewrite;
use super::weights;
use crate::EngineError;
use crate::graph::{Node, Op, ValueId};
use cardinal_kernels::Activation;
use std::ops::Range;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    // The parts of a chain that stays: none of them alone fares better.
    let mut stay = vec![false; rw.places().len()];
    // From the end, so that a chain is met whole and its weights are rounded once.
    for place in rw.places().rev() {
        if stay[place] {
            continue;
        }
        let Some(chain) = affine::chain(rw, place) else { continue };
        match layers(rw, &chain) {
            Ok(layers) => {
                fold(rw, &chain, &layers)?;
                log.done("norm into convolution or linear layer");
            }
            Err(reason) => {
                if rw.node(place).is_some_and(|node| reads_constants(rw, node)) {
                    log.missed(rw, place, reason);
                }
                if is_worth_joining(rw, &chain) {
                    join(rw, &chain)?;
                    log.done("arithmetic per channel into activated norm");
                }
                chain.places.iter().for_each(|&place| stay[place] = true);
            }
        }
    }
    Ok(())
}

/// A layer that a norm can go into, and the channels of the norm that are this layer's outputs.
type Layer = (usize, Range<usize>);

/// The layers that compute what the chain reads: one, or one for each part of a concatenation.
fn layers(rw: &Rewrite, chain: &Chain) -> Result<Vec<Layer>, String> {
    if !chain.affine.is_finite() {
        return Err("its numbers are not finite".into());
    }
    let (place, node) = rw.sole_writer(chain.input)?;
    if node.op != Op::Concat {
        accepts(rw, node)?;
        return Ok(vec![(place, 0..chain.affine.scale.len())]);
    }
    let mut layers = Vec::new();
    let mut start = 0;
    for &part in &node.inputs {
        let in_part = |reason| format!("of a part of the concatenation before it: {reason}");
        let (place, node) = rw.sole_writer(part).map_err(in_part)?;
        accepts(rw, node).map_err(in_part)?;
        let end = start + rw.shape(part)[1];
        layers.push((place, start..end));
        start = end;
    }
    Ok(layers)
}

/// Whether the outputs of `node` can be scaled and shifted by changing its constants.
fn accepts(rw: &Rewrite, node: &Node) -> Result<(), String> {
    let refuse = |reason: &str| Err(format!("{} {reason}", node.place()));
    let activation = match &node.op {
        Op::Conv2d(conv) if conv.residual => return refuse("adds a residual"),
        Op::Conv2d(conv) if conv.pool.is_some() => return refuse("has its mean taken"),
        Op::Conv2d(conv) => conv.activation,
        Op::Linear { activation, .. } => *activation,
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
        | Op::Drop { .. } => return refuse("before it has no weights"),
    };
    if activation != Activation::Identity {
        return refuse("has an activation");
    }
    if matches!(node.op, Op::Linear { .. }) && rw.shape(node.outputs[0]).len() != 2 {
        return refuse("is not of vectors");
    }
    if !weights::are_known(rw, node) {
        return refuse("computes its weights");
    }
    Ok(())
}

/// The activation that is leaky ReLU of this slope.
fn activation(slope: f32) -> Activation {
    match slope {
        1.0 => Activation::Identity,
        0.0 => Activation::Relu,
        slope => Activation::LeakyRelu(slope),
    }
}

fn fold(rw: &mut Rewrite, chain: &Chain, layers: &[Layer]) -> Result<(), EngineError> {
    let output = result(rw, chain);
    for (place, channels) in layers {
        let Some(node) = rw.take(*place) else { continue };
        let node = scaled(rw, node, &chain.affine.slice(channels.clone()))?;
        rw.put(*place, node);
    }
    // The concatenation, or the one layer, now writes what the chain wrote.
    let last = rw.writer(chain.input).map(|(place, _)| place);
    for &place in &chain.places {
        rw.take(place);
    }
    if let (Some(last), Some(output)) = (last, output)
        && let Some(mut node) = rw.take(last)
    {
        node.outputs[0] = output;
        rw.put(last, node);
    }
    Ok(())
}

fn result(rw: &Rewrite, chain: &Chain) -> Option<ValueId> {
    rw.node(chain.places[0]).map(|node| node.outputs[0])
}

/// The layer with its outputs scaled, shifted and activated: `s (w x + b) + t = (s w) x + (s b + t)`.
fn scaled(rw: &mut Rewrite, mut node: Node, affine: &Affine) -> Result<Node, EngineError> {
    let old = weights::bias(&node).and_then(|id| rw.constant(id)).cloned();
    let bias: Vec<f32> = (0..affine.scale.len())
        .map(|i| old.as_ref().map_or(0.0, |old| f64::from(old[i])) * affine.scale[i] + affine.shift[i])
        .map(|bias| bias as f32)
        .collect();
    let weight = node.inputs[1];
    if let Some(data) = rw.constant(weight).filter(|_| affine.scale.iter().any(|&s| s != 1.0)) {
        let row = data.len() / affine.scale.len();
        let mut scaled = Vec::with_capacity(data.len());
        for (row, &s) in data.chunks_exact(row).zip(&affine.scale) {
            scaled.extend(row.iter().map(|&w| (f64::from(w) * s) as f32));
        }
        let shape = rw.shape(weight).to_vec();
        weights::set_weight(rw, &mut node, &shape, scaled)?;
    }
    if old.is_some() || bias.iter().any(|&b| b != 0.0) {
        weights::set_bias(rw, &mut node, bias)?;
    }
    set_activation(&mut node.op, activation(affine.slope));
    Ok(node)
}

fn set_activation(op: &mut Op, new: Activation) {
    if let Op::Conv2d(conv) = op {
        conv.activation = new;
    } else if let Op::Linear { activation, .. } = op {
        *activation = new;
    }
}

/// Whether a node is worth a remark: a negation, say, was never meant as a norm.
fn reads_constants(rw: &Rewrite, node: &Node) -> bool {
    node.inputs.iter().any(|&id| rw.constant(id).is_some())
}

/// Whether the chain is not one kernel yet, and can be.
fn is_worth_joining(rw: &Rewrite, chain: &Chain) -> bool {
    let arithmetic = |&place: &usize| matches!(rw.node(place), Some(Node { op: Op::Binary(_), .. }));
    rw.map(chain.input).is_some()
        && chain.affine.is_finite()
        && (chain.places.len() > 1 || chain.places.iter().any(arithmetic))
}

/// Puts one norm with mean 0 and variance 1 in the place of the chain's last node.
fn join(rw: &mut Rewrite, chain: &Chain) -> Result<(), EngineError> {
    let (Some(output), Some(node)) = (result(rw, chain), rw.node(chain.places[0])) else { return Ok(()) };
    let (node, channels) = (node.clone(), chain.affine.scale.len());
    let single = |numbers: &[f64]| -> Vec<f32> { numbers.iter().map(|&v| v as f32).collect() };
    let parameters = [
        ("weight", single(&chain.affine.scale)),
        ("bias", single(&chain.affine.shift)),
        ("running_mean", vec![0.0; channels]),
        ("running_var", vec![1.0; channels]),
    ];
    let mut inputs = vec![chain.input];
    for (name, data) in parameters {
        inputs.push(rw.add_constant(weights::parameter(&node, name), &[channels], data)?);
    }
    for &place in &chain.places {
        rw.take(place);
    }
    let op = Op::ActivatedNorm { epsilon: 0.0, slope: chain.affine.slope };
    rw.put(chain.places[0], Node { name: node.name, op, inputs, outputs: vec![output] });
    Ok(())
}
