//! The definition of right: every kernel's result in plain loops, which tests compare with.

use crate::{ConvSpec, Element};

/// The result of a convolution, without halos: `[images, rows, columns, channels]`.
#[derive(Clone, Debug)]
pub struct Convolved {
    /// The output.
    pub output: Vec<f64>,
    /// For each output the sum of the magnitudes of all that was added up, which rounding errors are relative to.
    pub magnitude: Vec<f64>,
    /// The mean of each channel, `[images, channels]`.
    pub pooled: Vec<f64>,
    /// The mean of `magnitude`, likewise.
    pub pooled_magnitude: Vec<f64>,
}

/// Convolves `images` images in `f64`. `weight` is `[outputs, inputs / groups, rows, columns]`; it is rounded to the
/// format of the maps first, as kernels do when they pack it.
///
/// # Panics
///
/// If the specification contradicts itself or a slice is too short.
#[must_use]
pub fn convolve<T: Element>(
    spec: &ConvSpec,
    weight: &[f32],
    bias: Option<&[f32]>,
    images: usize,
    input: &[T],
    residual: Option<&[T]>,
) -> Convolved {
    let (h, w, c) = (spec.output.h, spec.output.w, spec.output.c);
    let weight: Vec<f64> = weight.iter().map(|&x| f64::from(T::from_f32(x).to_f32())).collect();
    let mut result = Convolved {
        output: Vec::with_capacity(images * h * w * c),
        magnitude: Vec::with_capacity(images * h * w * c),
        pooled: vec![0.0; images * c],
        pooled_magnitude: vec![0.0; images * c],
    };
    for image in 0..images {
        let input = &input[image * spec.input.image()..];
        for y in 0..h {
            for x in 0..w {
                for channel in 0..c {
                    let (mut sum, mut magnitude) = window(spec, &weight, input, y, x, channel);
                    let bias = bias.map_or(0.0, |bias| f64::from(bias[channel]));
                    let residual = spec.residual.zip(residual).map_or(0.0, |(map, residual)| {
                        let at = image * map.image() + map.at(y as isize, x as isize) + channel;
                        f64::from(residual[at].to_f32())
                    });
                    sum += bias + residual;
                    magnitude += bias.abs() + residual.abs();
                    let sum = f64::from(spec.activation.eval(sum as f32));
                    result.output.push(sum);
                    result.magnitude.push(magnitude);
                    result.pooled[image * c + channel] += sum / (h * w) as f64;
                    result.pooled_magnitude[image * c + channel] += magnitude / (h * w) as f64;
                }
            }
        }
    }
    result
}

/// One output's sum of products and of their magnitudes.
fn window<T: Element>(
    spec: &ConvSpec,
    weight: &[f64],
    input: &[T],
    y: usize,
    x: usize,
    channel: usize,
) -> (f64, f64) {
    let inputs = spec.group_inputs();
    let group = channel / spec.group_outputs();
    let [rows, columns] = spec.kernel;
    let place = |axis: usize, at: usize, tap: usize| {
        (at * spec.stride[axis] + tap * spec.dilation[axis]) as isize - spec.padding[axis] as isize
    };
    let (mut sum, mut magnitude) = (0.0, 0.0);
    for row in 0..rows {
        for column in 0..columns {
            let pixel = spec.input.at(place(0, y, row), place(1, x, column));
            for k in 0..inputs {
                let a = f64::from(input[pixel + group * inputs + k].to_f32());
                let product = a * weight[((channel * inputs + k) * rows + row) * columns + column];
                sum += product;
                magnitude += product.abs();
            }
        }
    }
    (sum, magnitude)
}
