//! `y = scale * x + shift`, channel by channel: what a batch norm is once its statistics are known, and what plain
//! arithmetic with constants is too.

use super::rewrite::Rewrite;
use crate::graph::{Binary, Node, Op, Unary, ValueId};

/// A scale and a shift for every channel, in the precision in which they are put together, and a slope below zero.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
    /// 1 is no activation, 0 is ReLU.
    pub(super) slope: f32,
}

/// A run of affine nodes of which each reads nothing but the one before.
#[derive(Debug)]
pub(super) struct Chain {
    /// Their places, the last node first.
    pub(super) places: Vec<usize>,
    /// What they read.
    pub(super) input: ValueId,
    /// What they compute together.
    pub(super) affine: Affine,
}

impl Affine {
    /// The channels `range` alone.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> Self {
        Self {
            scale: self.scale[range.clone()].to_vec(),
            shift: self.shift[range].to_vec(),
            slope: self.slope,
        }
    }

    /// This one after `first`, which must have no activation.
    fn after(&self, first: &Self) -> Self {
        let both = || self.scale.iter().zip(&self.shift);
        let scale = self.scale.iter().zip(&first.scale).map(|(a, b)| a * b).collect();
        let shift = both().zip(&first.shift).map(|((scale, shift), x)| scale * x + shift).collect();
        Self { scale, shift, slope: self.slope }
    }

    /// Whether every number can be a weight.
    pub(super) fn is_finite(&self) -> bool {
        self.scale.iter().chain(&self.shift).all(|&v| (v as f32).is_finite())
    }
}

/// The longest chain that ends at `place`; none if the node there is not affine.
pub(super) fn chain(rw: &Rewrite, place: usize) -> Option<Chain> {
    let (input, affine) = affine_of(rw, rw.node(place)?)?;
    let mut chain = Chain { places: vec![place], input, affine };
    while let Ok((place, node)) = rw.sole_writer(chain.input) {
        match affine_of(rw, node) {
            Some((input, first)) if first.slope == 1.0 => {
                chain.affine = chain.affine.after(&first);
                chain.input = input;
                chain.places.push(place);
            }
            _ => break,
        }
    }
    Some(chain)
}

/// What an affine node reads and computes.
pub(super) fn affine_of(rw: &Rewrite, node: &Node) -> Option<(ValueId, Affine)> {
    let (&first, &output) = (node.inputs.first()?, node.outputs.first()?);
    let channels = *rw.shape(output).get(1)?;
    let uniform = |scale: f32, shift: f32| Affine {
        scale: vec![scale.into(); channels],
        shift: vec![shift.into(); channels],
        slope: 1.0,
    };
    match node.op {
        Op::ActivatedNorm { epsilon, slope } => {
            let [x, parameters @ ..] = node.inputs.as_slice() else { return None };
            Some((*x, norm(rw, parameters, epsilon, slope)?))
        }
        Op::Binary(op) => binary(rw, op, &node.inputs, output),
        Op::Unary(Unary::Neg) => Some((first, uniform(-1.0, 0.0))),
        Op::Unary(Unary::AddScalar(s)) => Some((first, uniform(1.0, s))),
        Op::Unary(Unary::MulScalar(s)) => Some((first, uniform(s, 0.0))),
        Op::Unary(_)
        | Op::Conv2d(_)
        | Op::Linear { .. }
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

fn norm(rw: &Rewrite, parameters: &[ValueId], epsilon: f32, slope: f32) -> Option<Affine> {
    let [weight, bias, mean, var] = parameters else { return None };
    let [weight, bias, mean, var] =
        [rw.constant(*weight)?, rw.constant(*bias)?, rw.constant(*mean)?, rw.constant(*var)?];
    let scale: Vec<f64> = weight
        .iter()
        .zip(var.iter())
        .map(|(&weight, &var)| f64::from(weight) / (f64::from(var) + f64::from(epsilon)).sqrt())
        .collect();
    let shift = bias.iter().zip(mean.iter()).zip(&scale);
    let shift = shift.map(|((&bias, &mean), scale)| f64::from(bias) - f64::from(mean) * scale).collect();
    Some(Affine { scale, shift, slope })
}

/// Arithmetic with a constant that is the same at all pixels.
fn binary(rw: &Rewrite, op: Binary, inputs: &[ValueId], output: ValueId) -> Option<(ValueId, Affine)> {
    let &[a, b] = inputs else { return None };
    let (x, vector, constant_first) = match (per_channel(rw, a), per_channel(rw, b)) {
        (None, Some(vector)) => (a, vector, false),
        (Some(vector), None) => (b, vector, true),
        _ => return None,
    };
    let shape = rw.shape(output);
    if rw.shape(x) != shape || !(vector.len() == 1 || vector.len() == shape[1]) {
        return None;
    }
    let vector: Vec<f64> = (0..shape[1]).map(|i| vector[i % vector.len()].into()).collect();
    let same = |value: f64| vec![value; shape[1]];
    let (scale, shift) = match (op, constant_first) {
        (Binary::Add, _) => (same(1.0), vector),
        (Binary::Sub, false) => (same(1.0), vector.iter().map(|v| -v).collect()),
        (Binary::Sub, true) => (same(-1.0), vector),
        (Binary::Mul, _) => (vector, same(0.0)),
        (Binary::Div, false) => (vector.iter().map(|v| 1.0 / v).collect(), same(0.0)),
        (Binary::Div, true) => return None,
    };
    Some((x, Affine { scale, shift, slope: 1.0 }))
}

/// The numbers of a constant of shape `[1, c, 1, ..]`.
fn per_channel(rw: &Rewrite, id: ValueId) -> Option<&[f32]> {
    let data = rw.constant(id)?;
    let [batch, _, pixels @ ..] = rw.shape(id) else { return None };
    (*batch == 1 && pixels.iter().all(|&size| size == 1)).then_some(data)
}
