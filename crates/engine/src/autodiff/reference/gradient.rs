//! The gradients. Formulas are those of `cardinal_kernels`.

use super::activation::{slope_at_input, slope_at_output};
use super::attention::{Splits, gate};
use super::taps::{self, Linear};
use super::{View, indices, map, place};
use crate::Activation;
use crate::autodiff::{Gradient, Kept};

/// The numbers of each output, of these shapes.
pub(super) fn evaluate(gradient: &Gradient, inputs: &[View<'_>], shapes: &[&[usize]]) -> Vec<Vec<f64>> {
    let (first, shape) = (inputs[0], shapes[0]);
    let mut result = vec![0.0; shape.iter().product()];
    match gradient {
        Gradient::ConvInput(conv) => {
            let (dy, weight) = (first, inputs[1]);
            taps::conv(conv, [shape, weight.shape, dy.shape].map(map), |row| {
                let dx = result[row.from..].iter_mut().step_by(row.stride);
                dx.zip(&dy.data[row.to]).for_each(|(dx, dy)| *dx += weight.data[row.tap] * dy);
            });
        }
        Gradient::ConvWeight(conv) => {
            let (x, dy) = (first, inputs[1]);
            taps::conv(conv, [x.shape, shape, dy.shape].map(map), |row| {
                let x = x.data[row.from..].iter().step_by(row.stride);
                result[row.tap] += x.zip(&dy.data[row.to]).map(|(x, dy)| x * dy).sum::<f64>();
            });
        }
        Gradient::LinearInput => linear_input(first, inputs[1], &mut result),
        Gradient::LinearWeight => linear_weight(first, inputs[1], shape, &mut result),
        Gradient::Bias => first.with_channels().for_each(|(dy, [_, k])| result[k] += dy),
        Gradient::Norm { epsilon, slope, kept } => return norm(*epsilon, *slope, *kept, inputs).into(),
        Gradient::FixedNorm { epsilon, slope } => {
            let [dy, weight, var] = [1, 2, 4].map(|i| inputs[i].data);
            for (i, (y, [_, k])) in first.with_channels().enumerate() {
                let g = dy[i] * slope_at_input(Activation::LeakyRelu(*slope), y);
                result[i] = g * weight[k] / (var[k] + f64::from(*epsilon)).sqrt();
            }
        }
        Gradient::Activation { activation, kept } => {
            let slope = match kept {
                Kept::Input => slope_at_input,
                Kept::Output => slope_at_output,
            };
            let both = first.data.iter().zip(inputs[1].data);
            return vec![both.map(|(&kept, dy)| slope(*activation, kept) * dy).collect()];
        }
        Gradient::MaxPool(window) => {
            let places = taps::maxima(window, first, inputs[1].shape);
            for (place, dy) in places.iter().zip(inputs[1].data) {
                place.iter().for_each(|&place| result[place] += dy);
            }
        }
        Gradient::AvgPool { window, count_padding } => {
            return vec![Linear::AvgPool(window, *count_padding).transpose(first, shape)];
        }
        Gradient::Means { radix } => return vec![Linear::Means(*radix).transpose(first, shape)],
        Gradient::BlurPool => return vec![Linear::Blur.transpose(first, shape)],
        Gradient::SpaceToDepth { block } => return vec![Linear::Blocks(*block).transpose(first, shape)],
        Gradient::Pad(padding) => return vec![Linear::Pad(*padding).transpose(first, shape)],
        Gradient::SliceChannels { start } => return vec![Linear::Slice(*start).transpose(first, shape)],
        Gradient::SplitLogits { radix, cardinality } => {
            let splits = Splits::new([*radix, *cardinality], first.shape[1]);
            split_logits(splits, first, inputs[1], inputs[2], &mut result);
        }
        Gradient::SplitInput { radix, cardinality, means } => {
            let splits = Splits::new([*radix, *cardinality], shape[1]);
            for (i, [n, c, row, column]) in indices(map(shape)).enumerate() {
                let (r, k) = (c / splits.c, c % splits.c);
                let dy = first.data[place(map(first.shape), [n, k, row, column])];
                result[i] = splits.weights(inputs[1], n, k)[r] * dy;
            }
            add_means(means.then(|| inputs[2]), *radix, shape, &mut result);
        }
        Gradient::GateLogits { hard } => {
            let (dy, logits) = (inputs[1].data, inputs[2].data);
            let [_, _, pixels] = first.planes();
            for (i, (x, dy)) in first.data.iter().zip(dy).enumerate() {
                result[i / pixels] += x * dy * gate_slope(*hard, logits[i / pixels]);
            }
        }
        Gradient::GateInput { hard, means } => {
            let [_, _, pixels] = first.planes();
            for (i, dy) in first.data.iter().enumerate() {
                result[i] = dy * gate(*hard, inputs[1].data[i / pixels]);
            }
            add_means(means.then(|| inputs[2]), 1, shape, &mut result);
        }
    }
    vec![result]
}

/// `dx = dy weight`
fn linear_input(dy: View<'_>, weight: View<'_>, dx: &mut [f64]) {
    let (m, k) = (weight.shape[0], weight.shape[1]);
    for (dx, dy) in dx.chunks_exact_mut(k).zip(dy.data.chunks_exact(m)) {
        for (weights, dy) in weight.data.chunks_exact(k).zip(dy) {
            dx.iter_mut().zip(weights).for_each(|(dx, weight)| *dx += dy * weight);
        }
    }
}

/// `dweight = dyᵀ x`
fn linear_weight(x: View<'_>, dy: View<'_>, shape: &[usize], dweight: &mut [f64]) {
    let (m, k) = (shape[0], shape[1]);
    for (x, dy) in x.data.chunks_exact(k).zip(dy.data.chunks_exact(m)) {
        for (dweight, dy) in dweight.chunks_exact_mut(k).zip(dy) {
            dweight.iter_mut().zip(x).for_each(|(dweight, x)| *dweight += dy * x);
        }
    }
}

/// Of `kept, dy, weight, bias, mean, var`, with statistics of the batch that depend on the input:
///
/// ```text
/// normal = (x - mean) / sqrt(var + epsilon),  u = normal * weight + bias,  y = u > 0 ? u : slope * u
/// g = dy * (u > 0 ? 1 : slope),  dbias = sum g,  dweight = sum g * normal
/// dx = weight / sqrt(var + epsilon) * (g - (dbias + normal * dweight) / pixels)
/// ```
fn norm(epsilon: f32, slope: f32, kept: Kept, inputs: &[View<'_>]) -> [Vec<f64>; 3] {
    let [dy, weight, bias, mean, var] = [1, 2, 3, 4, 5].map(|i| inputs[i].data);
    let slope = f64::from(slope);
    let deviation: Vec<_> = var.iter().map(|var| (var + f64::from(epsilon)).sqrt()).collect();
    let normal = |(kept_number, [_, k]): (f64, [usize; 2])| match kept {
        Kept::Input => (kept_number - mean[k]) / deviation[k],
        Kept::Output => {
            let u = if kept_number > 0.0 { kept_number } else { kept_number / slope };
            (u - bias[k]) / weight[k]
        }
    };
    let normal: Vec<_> = inputs[0].with_channels().map(normal).collect();
    let g = |(i, (_, [_, k])): (usize, (f64, [usize; 2]))| {
        if normal[i] * weight[k] + bias[k] > 0.0 { dy[i] } else { slope * dy[i] }
    };
    let g: Vec<_> = inputs[0].with_channels().enumerate().map(g).collect();
    let [n, c, pixels] = inputs[0].planes();
    let (mut dbias, mut dweight) = (vec![0.0; c], vec![0.0; c]);
    for (i, (_, [_, k])) in inputs[0].with_channels().enumerate() {
        dbias[k] += g[i];
        dweight[k] += g[i] * normal[i];
    }
    let dx = |(i, (_, [_, k])): (usize, (f64, [usize; 2]))| {
        let through_statistics = (dbias[k] + normal[i] * dweight[k]) / (n * pixels) as f64;
        weight[k] / deviation[k] * (g[i] - through_statistics)
    };
    [inputs[0].with_channels().enumerate().map(dx).collect(), dweight, dbias]
}

/// With `p` the sums over pixels of a split times `dy`: `dlogits_r = w_r * (p_r - sum over s of w_s * p_s)`, and for a
/// single split, whose weight is a sigmoid, `w * (1 - w) * p`.
fn split_logits(splits: Splits, x: View<'_>, dy: View<'_>, logits: View<'_>, result: &mut [f64]) {
    let [n, channels, pixels] = x.planes();
    for (image, k) in (0..n).flat_map(|image| (0..splits.c).map(move |k| (image, k))) {
        let dy = &dy.data[(image * splits.c + k) * pixels..][..pixels];
        let product = |r: usize| -> f64 {
            let x = &x.data[(image * channels + r * splits.c + k) * pixels..][..pixels];
            x.iter().zip(dy).map(|(x, dy)| x * dy).sum()
        };
        let products: Vec<_> = (0..splits.radix).map(product).collect();
        let weights = splits.weights(logits, image, k);
        let mean: f64 = products.iter().zip(&weights).map(|(product, weight)| product * weight).sum();
        for (r, (weight, product)) in weights.iter().zip(&products).enumerate() {
            result[splits.logit(image, r, k)] = weight * (product - mean);
        }
    }
}

fn gate_slope(hard: bool, logit: f64) -> f64 {
    let activation = if hard { Activation::HardSigmoid } else { Activation::Sigmoid };
    slope_at_input(activation, logit)
}

/// Adds the gradient of the map whose splits' means have the gradient `means`.
fn add_means(means: Option<View<'_>>, radix: usize, shape: &[usize], result: &mut [f64]) {
    if let Some(means) = means {
        let spread = Linear::Means(radix).transpose(means, shape);
        result.iter_mut().zip(spread).for_each(|(result, spread)| *result += spread);
    }
}
