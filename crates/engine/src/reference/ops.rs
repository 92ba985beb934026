//! The operators. Shapes were checked by inference before anything here runs.

use super::View;
use crate::Activation;
use crate::graph::{Binary, Conv2d, Op, Padding, Unary, Window};
use std::ops::Range;

/// The numbers of each output.
pub(super) fn evaluate(op: &Op, inputs: &[View<'_>], shapes: &[Vec<usize>]) -> Vec<Vec<f32>> {
    let (x, shape) = (inputs[0], shapes[0].as_slice());
    let output = match op {
        Op::Conv2d(conv) => {
            let y = conv2d(conv, inputs, map(shape));
            let pooled = conv.pool.map(|radix| means(View { shape, data: &y }, radix));
            return [y].into_iter().chain(pooled).collect();
        }
        Op::Linear { activation, .. } => linear(*activation, inputs),
        Op::ActivatedNorm { epsilon, slope } => activated_norm(*epsilon, *slope, inputs),
        Op::Unary(f) => x.data.iter().map(|&x| unary(*f, x)).collect(),
        Op::Binary(f) => binary(*f, x, inputs[1], shape),
        Op::MaxPool(window) => max_pool(window, x, shape),
        Op::AvgPool { window, count_padding } => avg_pool(window, *count_padding, x, shape),
        Op::GlobalAvgPool => means(x, 1),
        Op::Softmax => softmax(x),
        Op::Reshape { .. } | Op::Drop { .. } => x.data.to_vec(),
        Op::Permute { order } => permute(order, x, shape),
        Op::Concat => concat(inputs),
        Op::SliceChannels { start, end } => slice_channels(*start, *end, x),
        Op::Pad(padding) => pad(*padding, x, shape),
        Op::RadixPool { radix } => means(x, *radix),
        Op::SplitAttention { radix, cardinality, activation } => {
            split_attention([*radix, *cardinality], *activation, x, inputs[1].data)
        }
        Op::Gate { hard, activation, .. } => gate(*hard, *activation, inputs),
        Op::BlurPool => blur_pool(x, shape),
        Op::SpaceToDepth { block } => space_to_depth(*block, x, shape),
    };
    vec![output]
}

/// The sizes of a map.
fn map(shape: &[usize]) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}

/// All indices of a map of these sizes, in the order of its numbers.
fn indices([n, c, h, w]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..n * c * h * w).map(move |i| [i / (c * h * w), i / (h * w) % c, i / w % h, i % w])
}

impl View<'_> {
    /// The number at an index of a map.
    fn at(&self, [n, c, y, x]: [usize; 4]) -> f32 {
        let [_, channels, h, w] = map(self.shape);
        self.data[((n * channels + c) * h + y) * w + x]
    }
}

/// A position that is counted from the padding's start, in the map; none if it is in the padding.
fn inside(position: usize, before: usize, size: usize) -> Option<usize> {
    position.checked_sub(before).filter(|&position| position < size)
}

/// The windows, of `count`, whose tap at `offset` lies in the map.
fn reached(offset: usize, stride: usize, before: usize, size: usize, count: usize) -> Range<usize> {
    let first = before.saturating_sub(offset).div_ceil(stride);
    let end = (before + size).saturating_sub(offset).div_ceil(stride).min(count);
    first.min(end)..end
}

// One plane of outputs at a time, tap by tap: the inner loop runs along a row of both maps.
fn conv2d(conv: &Conv2d, inputs: &[View<'_>], [n, m, oh, ow]: [usize; 4]) -> Vec<f32> {
    let (x, weight) = (inputs[0], inputs[1]);
    let [_, channels, h, w] = map(x.shape);
    let [_, k, kh, kw] = map(weight.shape);
    let bias = conv.bias.then(|| inputs[2].data);
    let residual = conv.residual.then(|| inputs[inputs.len() - 1].data);
    let ([sy, sx], [dy, dx], [top, left, ..]) = (conv.stride, conv.dilation, conv.padding);
    let mut y = Vec::with_capacity(n * m * oh * ow);
    let mut sums = vec![0.0_f64; oh * ow];
    for (image, output) in (0..n).flat_map(|image| (0..m).map(move |output| (image, output))) {
        sums.fill(bias.map_or(0.0, |bias| f64::from(bias[output])));
        let first = output / (m / conv.groups) * k;
        for [_, i, ky, kx] in indices([1, k, kh, kw]) {
            let tap = f64::from(weight.at([output, i, ky, kx]));
            let plane = &x.data[(image * channels + first + i) * h * w..][..h * w];
            let columns = reached(kx * dx, sx, left, w, ow);
            let start = columns.start * sx + kx * dx;
            for (oy, sums) in sums.chunks_exact_mut(ow).enumerate() {
                let Some(iy) = inside(oy * sy + ky * dy, top, h) else { continue };
                let sums = &mut sums[columns.clone()];
                let Some(ix) = inside(start, left, w).filter(|_| !sums.is_empty()) else { continue };
                let row = &plane[iy * w + ix..(iy + 1) * w];
                let add = |(sum, &x): (&mut f64, &f32)| *sum += tap * f64::from(x);
                match sx {
                    1 => sums.iter_mut().zip(row).for_each(add),
                    _ => sums.iter_mut().zip(row.iter().step_by(sx)).for_each(add),
                }
            }
        }
        let start = y.len();
        y.extend(sums.iter().enumerate().map(|(i, &sum)| {
            let residual = residual.map_or(0.0, |residual| f64::from(residual[start + i]));
            conv.activation.eval((sum + residual) as f32)
        }));
    }
    y
}

fn linear(activation: Activation, inputs: &[View<'_>]) -> Vec<f32> {
    let (x, weight) = (inputs[0], inputs[1]);
    let k = weight.shape[1];
    let output = |row: &[f32], (m, weights): (usize, &[f32])| {
        let products = row.iter().zip(weights).map(|(&a, &b)| f64::from(a) * f64::from(b));
        let bias = inputs.get(2).map_or(0.0, |bias| f64::from(bias.data[m]));
        activation.eval((products.sum::<f64>() + bias) as f32)
    };
    let rows = x.data.chunks_exact(k);
    rows.flat_map(|row| weight.data.chunks_exact(k).enumerate().map(move |weights| output(row, weights)))
        .collect()
}

fn activated_norm(epsilon: f32, slope: f32, inputs: &[View<'_>]) -> Vec<f32> {
    let [x, weight, bias, mean, var] = [0, 1, 2, 3, 4].map(|i| inputs[i]);
    let of = |values: View<'_>, channel: usize| f64::from(values.data[channel]);
    let channel = |c: usize| {
        let scale = of(weight, c) / (of(var, c) + f64::from(epsilon)).sqrt();
        (scale, of(bias, c) - of(mean, c) * scale)
    };
    let [n, c, h, w] = map(x.shape);
    let channels: Vec<_> = (0..c).map(channel).collect();
    let y = |(&x, [_, c, ..]): (&f32, [usize; 4])| {
        let (scale, shift) = channels[c];
        Activation::LeakyRelu(slope).eval((f64::from(x) * scale + shift) as f32)
    };
    x.data.iter().zip(indices([n, c, h, w])).map(y).collect()
}

fn unary(f: Unary, x: f32) -> f32 {
    match f {
        Unary::Activation(activation) => activation.eval(x),
        Unary::Neg => -x,
        Unary::Exp => f64::from(x).exp() as f32,
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::AddScalar(scalar) => x + scalar,
        Unary::MulScalar(scalar) => x * scalar,
        Unary::Clamp(low, high) => x.max(low).min(high),
    }
}

fn binary(f: Binary, a: View<'_>, b: View<'_>, shape: &[usize]) -> Vec<f32> {
    let apply = |a: f32, b: f32| match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
    };
    (0..shape.iter().product()).map(|i| apply(repeated(a, shape, i), repeated(b, shape, i))).collect()
}

/// The number of `x`, repeated to `shape`, at place `i` there.
fn repeated(x: View<'_>, shape: &[usize], mut i: usize) -> f32 {
    let (mut place, mut step) = (0, 1);
    for (&own, &full) in x.shape.iter().zip(shape).rev() {
        place += if own == 1 { 0 } else { i % full * step };
        step *= own;
        i /= full;
    }
    x.data[place]
}

/// For each output, the numbers of its window inside the map, and how many taps lie in the map or its padding.
fn windows(
    window: &Window,
    x: View<'_>,
    shape: &[usize],
    mut reduce: impl FnMut(&[f32], usize) -> f32,
) -> Vec<f32> {
    let Window {
        kernel: [kh, kw],
        stride: [sy, sx],
        padding: [top, left, bottom, right],
        dilation: [dy, dx],
        ..
    } = *window;
    let [_, _, h, w] = map(x.shape);
    let mut taps = Vec::new();
    let output = |[n, c, oy, ox]: [usize; 4]| {
        taps.clear();
        let mut padded = 0;
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (py, px) = (oy * sy + ky * dy, ox * sx + kx * dx);
            padded += usize::from(py < top + h + bottom && px < left + w + right);
            if let (Some(iy), Some(ix)) = (inside(py, top, h), inside(px, left, w)) {
                taps.push(x.at([n, c, iy, ix]));
            }
        }
        reduce(&taps, padded)
    };
    indices(map(shape)).map(output).collect()
}

fn max_pool(window: &Window, x: View<'_>, shape: &[usize]) -> Vec<f32> {
    windows(window, x, shape, |taps, _| taps.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

// A dilated window may have no tap in a small map: its mean is 0.
fn avg_pool(window: &Window, count_padding: bool, x: View<'_>, shape: &[usize]) -> Vec<f32> {
    windows(window, x, shape, |taps, padded| {
        let sum: f64 = taps.iter().copied().map(f64::from).sum();
        (sum / (if count_padding { padded } else { taps.len() }).max(1) as f64) as f32
    })
}

/// The means over all pixels of the `radix` splits of the channels, summed.
fn means(x: View<'_>, radix: usize) -> Vec<f32> {
    let [n, c, h, w] = map(x.shape);
    let (pixels, split) = (h * w, c / radix);
    let plane = |n: usize, c: usize| -> f64 {
        x.data[(n * map(x.shape)[1] + c) * pixels..][..pixels].iter().copied().map(f64::from).sum()
    };
    let mean = |i: usize| {
        let sum: f64 = (0..radix).map(|r| plane(i / split, r * split + i % split)).sum();
        (sum / pixels as f64) as f32
    };
    (0..n * split).map(mean).collect()
}

fn softmax(x: View<'_>) -> Vec<f32> {
    let classes = x.shape[1];
    let inner: usize = x.shape[2..].iter().product();
    let mut y = vec![0.0; x.data.len()];
    for start in
        (0..x.data.len()).step_by(classes * inner).flat_map(|image| (0..inner).map(move |i| image + i))
    {
        let places = (0..classes).map(|class| start + class * inner);
        let max = places.clone().map(|i| x.data[i]).fold(f32::NEG_INFINITY, f32::max);
        let exp = |i: usize| (f64::from(x.data[i]) - f64::from(max)).exp();
        let sum: f64 = places.clone().map(exp).sum();
        places.for_each(|i| y[i] = (exp(i) / sum) as f32);
    }
    y
}

fn permute(order: &[usize], x: View<'_>, shape: &[usize]) -> Vec<f32> {
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

fn concat(inputs: &[View<'_>]) -> Vec<f32> {
    let image = |input: &View<'_>, n: usize| {
        let size = input.data.len() / input.shape[0];
        input.data[n * size..][..size].to_vec()
    };
    (0..inputs[0].shape[0]).flat_map(|n| inputs.iter().flat_map(move |input| image(input, n))).collect()
}

fn slice_channels(start: usize, end: usize, x: View<'_>) -> Vec<f32> {
    let [n, c, h, w] = map(x.shape);
    let image = |n: usize| &x.data[(n * c + start) * h * w..(n * c + end) * h * w];
    (0..n).flat_map(image).copied().collect()
}

fn pad([top, left, ..]: Padding, x: View<'_>, shape: &[usize]) -> Vec<f32> {
    let [_, _, h, w] = map(x.shape);
    let output = |[n, c, py, px]: [usize; 4]| match (inside(py, top, h), inside(px, left, w)) {
        (Some(iy), Some(ix)) => x.at([n, c, iy, ix]),
        _ => 0.0,
    };
    indices(map(shape)).map(output).collect()
}

/// The splits of `x` are radix-major, the logits cardinality-major.
fn split_attention(
    [radix, groups]: [usize; 2],
    activation: Activation,
    x: View<'_>,
    logits: &[f32],
) -> Vec<f32> {
    let [n, channels, h, w] = map(x.shape);
    let c = channels / radix;
    let logit = |n: usize, r: usize, i: usize| {
        let (group, i) = (i / (c / groups), i % (c / groups));
        f64::from(logits[n * channels + (group * radix + r) * (c / groups) + i])
    };
    let weights = |n: usize, i: usize| -> Vec<f64> {
        if radix == 1 {
            return vec![1.0 / (1.0 + (-logit(n, 0, i)).exp())];
        }
        let max = (0..radix).map(|r| logit(n, r, i)).fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<_> = (0..radix).map(|r| (logit(n, r, i) - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.into_iter().map(|exp| exp / sum).collect()
    };
    let weights: Vec<_> = (0..n * c).map(|i| weights(i / c, i % c)).collect();
    let output = |[n, i, y, column]: [usize; 4]| {
        let split = |(r, weight): (usize, &f64)| weight * f64::from(x.at([n, r * c + i, y, column]));
        activation.eval(weights[n * c + i].iter().enumerate().map(split).sum::<f64>() as f32)
    };
    indices([n, c, h, w]).map(output).collect()
}

fn gate(hard: bool, activation: Activation, inputs: &[View<'_>]) -> Vec<f32> {
    let (x, logits) = (inputs[0], inputs[1].data);
    let weight = |logit: f32| {
        let logit = f64::from(logit);
        if hard { (logit / 6.0 + 0.5).clamp(0.0, 1.0) } else { 1.0 / (1.0 + (-logit).exp()) }
    };
    let weights: Vec<_> = logits.iter().map(|&logit| weight(logit)).collect();
    let [_, _, h, w] = map(x.shape);
    let output = |(i, &x): (usize, &f32)| {
        let residual = inputs.get(2).map_or(0.0, |residual| f64::from(residual.data[i]));
        activation.eval((f64::from(x) * weights[i / (h * w)] + residual) as f32)
    };
    x.data.iter().enumerate().map(output).collect()
}

fn blur_pool(x: View<'_>, shape: &[usize]) -> Vec<f32> {
    let [_, _, h, w] = map(x.shape);
    let taps = [1.0, 2.0, 1.0];
    // Position -1 is pixel 1, and position `size` is pixel `size - 2`.
    let reflected = |position: usize, size: usize| match position {
        0 => 1,
        p if p == size + 1 => size - 2,
        p => p - 1,
    };
    let output = |[n, c, oy, ox]: [usize; 4]| {
        let tap = |[_, _, ky, kx]: [usize; 4]| {
            let (iy, ix) = (reflected(2 * oy + ky, h), reflected(2 * ox + kx, w));
            taps[ky] * taps[kx] * f64::from(x.at([n, c, iy, ix]))
        };
        (indices([1, 1, 3, 3]).map(tap).sum::<f64>() / 16.0) as f32
    };
    indices(map(shape)).map(output).collect()
}

fn space_to_depth(block: usize, x: View<'_>, shape: &[usize]) -> Vec<f32> {
    let channels = x.shape[1];
    let output = |[n, k, y, column]: [usize; 4]| {
        let (offset, c) = (k / channels, k % channels);
        x.at([n, c, y * block + offset / block, column * block + offset % block])
    };
    indices(map(shape)).map(output).collect()
}
