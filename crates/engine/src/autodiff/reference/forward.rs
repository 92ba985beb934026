//! The operators of the forward pass.

use super::activation::value;
use super::attention::{Splits, gate};
use super::taps::{self, Linear};
use super::{View, indices, map, place};
use crate::graph::{Binary, Conv2d, Op, Unary};

/// The numbers of each output, of these shapes.
pub(super) fn evaluate(op: &Op, inputs: &[View<'_>], shapes: &[&[usize]]) -> Vec<Vec<f64>> {
    let (x, shape) = (inputs[0], shapes[0]);
    let mut y = match op {
        Op::Conv2d(conv) => return conv2d(conv, inputs, shapes),
        Op::Linear { .. } => linear(inputs),
        Op::ActivatedNorm { epsilon, slope } => norm(*epsilon, *slope, inputs),
        Op::Unary(f) => x.data.iter().map(|&x| unary(*f, x)).collect(),
        Op::Binary(f) => binary(*f, x, inputs[1], shape),
        Op::MaxPool(window) => {
            let number = |place: Option<usize>| place.map_or(f64::NEG_INFINITY, |place| x.data[place]);
            taps::maxima(window, x, shape).into_iter().map(number).collect()
        }
        Op::AvgPool { window, count_padding } => Linear::AvgPool(window, *count_padding).apply(x, shape),
        Op::GlobalAvgPool => Linear::Means(1).apply(x, shape),
        Op::Softmax => softmax(x),
        Op::Reshape { .. } | Op::Drop { .. } => x.data.to_vec(),
        Op::Permute { order } => permute(order, x, shape),
        Op::Concat => concat(inputs),
        Op::SliceChannels { start, .. } => Linear::Slice(*start).apply(x, shape),
        Op::Pad(padding) => Linear::Pad(*padding).apply(x, shape),
        Op::RadixPool { radix } => Linear::Means(*radix).apply(x, shape),
        Op::SplitAttention { radix, cardinality, .. } => {
            split_attention(Splits::new([*radix, *cardinality], x.shape[1]), x, inputs[1], shape)
        }
        Op::Gate { hard, .. } => gated(*hard, inputs),
        Op::BlurPool => Linear::Blur.apply(x, shape),
        Op::SpaceToDepth { block } => Linear::Blocks(*block).apply(x, shape),
    };
    if let Op::Linear { activation, .. }
    | Op::SplitAttention { activation, .. }
    | Op::Gate { activation, .. } = op
    {
        y.iter_mut().for_each(|y| *y = value(*activation, *y));
    }
    vec![y]
}

fn conv2d(conv: &Conv2d, inputs: &[View<'_>], shapes: &[&[usize]]) -> Vec<Vec<f64>> {
    let (x, weight) = (inputs[0], inputs[1]);
    let mut y = vec![0.0; shapes[0].iter().product()];
    taps::conv(conv, [x.shape, weight.shape, shapes[0]].map(map), |row| {
        let x = x.data[row.from..].iter().step_by(row.stride);
        y[row.to].iter_mut().zip(x).for_each(|(y, x)| *y += weight.data[row.tap] * x);
    });
    let residual = conv.residual.then(|| inputs[inputs.len() - 1].data);
    for (i, [_, k, ..]) in indices(map(shapes[0])).enumerate() {
        let bias = if conv.bias { inputs[2].data[k] } else { 0.0 };
        let residual = residual.map_or(0.0, |residual| residual[i]);
        y[i] = value(conv.activation, y[i] + bias + residual);
    }
    let pooled =
        conv.pool.map(|radix| Linear::Means(radix).apply(View { shape: shapes[0], data: &y }, shapes[1]));
    [y].into_iter().chain(pooled).collect()
}

fn linear(inputs: &[View<'_>]) -> Vec<f64> {
    let (x, weight) = (inputs[0], inputs[1]);
    let k = weight.shape[1];
    let output = |row: &[f64], (m, weights): (usize, &[f64])| {
        let sum: f64 = row.iter().zip(weights).map(|(x, weight)| x * weight).sum();
        sum + inputs.get(2).map_or(0.0, |bias| bias.data[m])
    };
    let rows = x.data.chunks_exact(k);
    rows.flat_map(|row| weight.data.chunks_exact(k).enumerate().map(move |weights| output(row, weights)))
        .collect()
}

/// The mean and the biased variance of each channel.
pub(super) fn statistics(x: View<'_>) -> [Vec<f64>; 2] {
    let [n, c, pixels] = x.planes();
    let count = (n * pixels) as f64;
    let mut mean = vec![0.0; c];
    x.with_channels().for_each(|(x, [_, k])| mean[k] += x / count);
    let mut var = vec![0.0; c];
    x.with_channels().for_each(|(x, [_, k])| var[k] += (x - mean[k]).powi(2) / count);
    [mean, var]
}

/// `leaky(norm(x) + skip)` of `x, weight, bias, mean, var` and perhaps `skip`.
pub(super) fn norm(epsilon: f32, slope: f32, inputs: &[View<'_>]) -> Vec<f64> {
    let [weight, bias, mean, var] = [1, 2, 3, 4].map(|i| inputs[i].data);
    let y = |(i, (x, [_, k])): (usize, (f64, [usize; 2]))| {
        let normal = (x - mean[k]) / (var[k] + f64::from(epsilon)).sqrt();
        let skip = inputs.get(5).map_or(0.0, |skip| skip.data[i]);
        let u = normal * weight[k] + bias[k] + skip;
        if u > 0.0 { u } else { f64::from(slope) * u }
    };
    inputs[0].with_channels().enumerate().map(y).collect()
}

fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Activation(activation) => value(activation, x),
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::AddScalar(scalar) => x + f64::from(scalar),
        Unary::MulScalar(scalar) => x * f64::from(scalar),
        Unary::Clamp(low, high) => x.max(f64::from(low)).min(f64::from(high)),
    }
}

fn binary(f: Binary, a: View<'_>, b: View<'_>, shape: &[usize]) -> Vec<f64> {
    let apply = |a: f64, b: f64| match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
    };
    (0..shape.iter().product()).map(|i| apply(repeated(a, shape, i), repeated(b, shape, i))).collect()
}

/// The number of `x`, repeated to `shape`, at place `i` there.
fn repeated(x: View<'_>, shape: &[usize], mut i: usize) -> f64 {
    let (mut place, mut step) = (0, 1);
    for (&own, &full) in x.shape.iter().zip(shape).rev() {
        place += if own == 1 { 0 } else { i % full * step };
        step *= own;
        i /= full;
    }
    x.data[place]
}

fn softmax(x: View<'_>) -> Vec<f64> {
    let [n, classes, pixels] = x.planes();
    let mut y = vec![0.0; x.data.len()];
    for (image, pixel) in (0..n).flat_map(|image| (0..pixels).map(move |pixel| (image, pixel))) {
        let places = (0..classes).map(|class| (image * classes + class) * pixels + pixel);
        let max = places.clone().map(|i| x.data[i]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = places.clone().map(|i| (x.data[i] - max).exp()).sum();
        places.for_each(|i| y[i] = (x.data[i] - max).exp() / sum);
    }
    y
}

fn permute(order: &[usize], x: View<'_>, shape: &[usize]) -> Vec<f64> {
    let mut steps = vec![1; order.len()];
    for axis in (1..order.len()).rev() {
        steps[axis - 1] = steps[axis] * x.shape[axis];
    }
    let old = |mut i: usize| {
        let mut place = 0;
        for (&axis, &size) in order.iter().zip(shape).rev() {
            place += i % size * steps[axis];
            i /= size;
        }
        place
    };
    (0..x.data.len()).map(|i| x.data[old(i)]).collect()
}

fn concat(inputs: &[View<'_>]) -> Vec<f64> {
    let n = inputs[0].shape[0];
    let image = |image: usize, input: &View<'_>| {
        let size = input.data.len() / n;
        input.data[image * size..][..size].to_vec()
    };
    (0..n).flat_map(|n| inputs.iter().flat_map(move |input| image(n, input))).collect()
}

fn split_attention(splits: Splits, x: View<'_>, logits: View<'_>, shape: &[usize]) -> Vec<f64> {
    let mut y = vec![0.0; shape.iter().product()];
    let [n, _, h, w] = map(x.shape);
    for (image, k) in (0..n).flat_map(|image| (0..splits.c).map(move |k| (image, k))) {
        for (r, weight) in splits.weights(logits, image, k).into_iter().enumerate() {
            for [_, _, row, column] in indices([1, 1, h, w]) {
                let from = place(map(x.shape), [image, r * splits.c + k, row, column]);
                y[place(map(shape), [image, k, row, column])] += weight * x.data[from];
            }
        }
    }
    y
}

fn gated(hard: bool, inputs: &[View<'_>]) -> Vec<f64> {
    let (x, logits) = (inputs[0], inputs[1].data);
    let [_, _, pixels] = x.planes();
    let y = |(i, &x): (usize, &f64)| {
        x * gate(hard, logits[i / pixels]) + inputs.get(2).map_or(0.0, |residual| residual.data[i])
    };
    x.data.iter().enumerate().map(y).collect()
}
