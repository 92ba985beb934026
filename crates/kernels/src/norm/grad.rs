//! The gradients of a batch norm with leaky ReLU.

use super::{Sums, pixels};
use crate::error::at_least;
use crate::pointwise::{loads, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_same};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool};

const NAME: &str = "norm gradient";

/// What the backward pass reads of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormSource {
    /// The norm's input.
    Input,
    /// Its output, from which the input is rebuilt: the slope must be above zero and no weight zero.
    Output,
}

/// The gradients of a batch norm with leaky ReLU.
#[derive(Clone, Debug)]
pub struct NormGrad {
    kept: Map,
    grad: Map,
    source: NormSource,
    slope: f32,
    isa: Isa,
}

/// The memory of one call; everything that is not a map has one number per channel.
#[derive(Debug)]
pub struct NormGradIo<'a, T> {
    /// The norm's input or output.
    pub kept: &'a [T],
    /// The gradient of the output; becomes that of the input.
    pub grad: &'a mut [T],
    /// The norm's weight.
    pub weight: &'a [f32],
    /// The norm's bias.
    pub bias: &'a [f32],
    /// The batch's means; not read if the output was kept.
    pub mean: &'a [f32],
    /// The batch's biased variances.
    pub var: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// The weight's gradient, which is overwritten.
    pub weight_grad: &'a mut [f32],
    /// The bias's gradient, which is overwritten.
    pub bias_grad: &'a mut [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

/// Numbers per channel that the loops read, one row each.
#[derive(Clone, Copy)]
struct Rows {
    base: *const f32,
    stride: usize,
}

// SAFETY: nobody writes them while workers run.
unsafe impl Send for Rows {}
// SAFETY: the same.
unsafe impl Sync for Rows {}

const CENTER: usize = 0;
const SCALE: usize = 1;
const BIAS: usize = 2;
const MEAN_GRAD: usize = 3;
const PER_DISTANCE: usize = 4;
const ROWS: usize = 5;

impl NormGrad {
    /// For a map that was kept and a gradient of the same size; their halos are not read.
    ///
    /// # Errors
    ///
    /// The sizes differ, or the output cannot be inverted because the slope is not above zero.
    pub fn new(kept: Map, grad: Map, source: NormSource, slope: f32, isa: Isa) -> Result<Self, KernelError> {
        check_same(NAME, &kept, &grad)?;
        if source == NormSource::Output && (slope <= 0.0 || !slope.is_finite()) {
            return Err(KernelError::spec(NAME, format!("an output with slope {slope} has no inverse")));
        }
        Ok(Self { kept, grad, source, slope, isa })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Sums::scratch(self.kept.c, threads) + ROWS * Line::count(self.kept.c * size_of::<f32>())
    }

    /// Computes all gradients for `images` images, at least one.
    ///
    /// # Errors
    ///
    /// A slice is too short, or there is no image.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: NormGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let NormGradIo { kept, grad, weight, bias, mean, var, epsilon, weight_grad, bias_grad, scratch } = io;
        let c = self.kept.c;
        if images == 0 {
            return Err(KernelError::spec(NAME, "no images"));
        }
        check_length(NAME, "kept map", kept.len(), images, self.kept.image())?;
        check_length(NAME, "gradient", grad.len(), images, self.grad.image())?;
        for (operand, len) in [("weight", weight), ("bias", bias), ("mean", mean), ("variance", var)] {
            at_least(NAME, operand, len.len(), c)?;
        }
        at_least(NAME, "gradient of the weight", weight_grad.len(), c)?;
        at_least(NAME, "gradient of the bias", bias_grad.len(), c)?;
        at_least(NAME, "scratch", scratch.len(), self.scratch(pool.threads()))?;
        let (sums, rows) = scratch.split_at_mut(Sums::scratch(c, pool.threads()));
        let stride = Line::count(c * size_of::<f32>()) * Line::BYTES / size_of::<f32>();
        let values = crate::as_f32_mut(rows);
        let inverse_std = |k: usize| 1.0 / (f64::from(var[k]) + f64::from(epsilon)).sqrt();
        for k in 0..c {
            values[CENTER * stride + k] = if self.source == NormSource::Input { mean[k] } else { bias[k] };
            values[SCALE * stride + k] = (f64::from(weight[k]) * inverse_std(k)) as f32;
            values[BIAS * stride + k] = bias[k];
        }
        let (x, dy) = (In::new(kept), Out::new(grad));
        let sums = Sums { c, base: Out::new(sums) };
        let rows = Rows { base: values.as_ptr(), stride };
        let work = Work::new(pool, &Part::whole(images, self.grad.h), &self.grad, 2 * c * size_of::<T>());
        let source = self.source;
        let inverse_slope = 1.0 / self.slope;
        work.run(pool, |share| {
            // SAFETY: the scratch memory and the maps are long enough.
            unsafe {
                sums.gather(share, |segment, sums| {
                    let pixels = Pixels {
                        x: x.at(segment.start(&self.kept)),
                        dy: dy.at(segment.start(&self.grad)),
                        pixels: segment.pixels,
                        channels: c,
                        rows: { rows },
                        source,
                        slope: self.slope,
                        inverse_slope,
                    };
                    T::grad_moments(self.isa, GradMoments { pixels, sums });
                });
            }
        });
        let count = pixels(&self.grad, images) as f64;
        for k in 0..c {
            // SAFETY: the workers are done.
            let [sum, product] = unsafe { sums.total(work.workers(), k) };
            // From distances to normalised values.
            let unit = match self.source {
                NormSource::Input => inverse_std(k),
                NormSource::Output => 1.0 / f64::from(weight[k]),
            };
            bias_grad[k] = sum as f32;
            weight_grad[k] = (product * unit) as f32;
            values[MEAN_GRAD * stride + k] = (sum / count) as f32;
            values[PER_DISTANCE * stride + k] = (product * unit * unit / count) as f32;
        }
        let rows = Rows { base: values.as_ptr(), stride };
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the maps are long enough, and each pixel is one worker's.
                unsafe {
                    let pixels = Pixels {
                        x: x.at(segment.start(&self.kept)),
                        dy: dy.at(segment.start(&self.grad)),
                        pixels: segment.pixels,
                        channels: c,
                        rows: { rows },
                        source,
                        slope: self.slope,
                        inverse_slope,
                    };
                    T::norm_grad(self.isa, InputGrad { pixels });
                }
            }
        });
        Ok(())
    }
}

/// Neighbouring pixels of both maps.
#[derive(Clone, Copy)]
struct Pixels<T> {
    x: *const T,
    dy: *mut T,
    pixels: usize,
    channels: usize,
    rows: Rows,
    source: NormSource,
    slope: f32,
    inverse_slope: f32,
}

/// Adds `g` and `g` times the distance from the centre to sums `[2][channels]`.
pub struct GradMoments<T> {
    pixels: Pixels<T>,
    sums: *mut f32,
}

/// Replaces the gradient of the output by that of the input.
pub struct InputGrad<T> {
    pixels: Pixels<T>,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the maps are valid for `pixels * channels`
// numbers, the rows and sums for `channels`, and that no other thread touches what is written; offsets stay below by the
// loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Pixels<T> {
    /// The gradient before the activation and the distance from the centre, of `N` vectors of pixel `pixel`.
    #[inline(always)]
    unsafe fn load<S: Simd, const N: usize, const FULL: bool>(
        &self,
        pixel: usize,
        k: usize,
        count: usize,
        [center, scale, bias]: [[S::V; N]; 3],
    ) -> ([S::V; N], [S::V; N]) {
        unsafe {
            let at = pixel * self.channels + k;
            let x = loads::<S, T, N, FULL>(self.x.add(at), count);
            let mut g = loads::<S, T, N, FULL>(self.dy.add(at).cast_const(), count);
            let mut distance = x;
            let slope = S::splat(self.slope);
            for i in 0..N {
                let sign = match self.source {
                    NormSource::Input => {
                        distance[i] = S::sub(x[i], center[i]);
                        S::fma(distance[i], scale[i], bias[i])
                    }
                    NormSource::Output => {
                        let u = S::where_positive(x[i], x[i], S::mul(x[i], S::splat(self.inverse_slope)));
                        distance[i] = S::sub(u, center[i]);
                        x[i]
                    }
                };
                g[i] = S::where_positive(sign, g[i], S::mul(g[i], slope));
            }
            (g, distance)
        }
    }

    /// Row `row` of the numbers per channel.
    #[inline(always)]
    unsafe fn row<S: Simd, const N: usize, const FULL: bool>(
        &self,
        row: usize,
        k: usize,
        count: usize,
    ) -> [S::V; N] {
        unsafe { loads::<S, f32, N, FULL>(self.rows.base.add(row * self.rows.stride + k), count) }
    }

    #[inline(always)]
    unsafe fn known<S: Simd, const N: usize, const FULL: bool>(
        &self,
        k: usize,
        count: usize,
    ) -> [[S::V; N]; 3] {
        unsafe {
            [CENTER, SCALE, BIAS].map(
                #[inline(always)]
                |row| self.row::<S, N, FULL>(row, k, count),
            )
        }
    }
}

/// Calls `$self.step` for all channels: two vectors at a time, then one, then a part of one.
macro_rules! through_channels {
    ($self:ident, $channels:expr) => {{
        let mut k = 0;
        while k + 2 * S::LANES <= $channels {
            $self.step::<S, 2, true>(k, 0);
            k += 2 * S::LANES;
        }
        while k + S::LANES <= $channels {
            $self.step::<S, 1, true>(k, 0);
            k += S::LANES;
        }
        if k < $channels {
            $self.step::<S, 1, false>(k, $channels - k);
        }
    }};
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for GradMoments<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_channels!(self, self.pixels.channels) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> GradMoments<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, k: usize, count: usize) {
        unsafe {
            let known = self.pixels.known::<S, N, FULL>(k, count);
            let to = [self.sums.add(k), self.sums.add(self.pixels.channels + k)];
            let mut sum = loads::<S, f32, N, FULL>(to[0].cast_const(), count);
            let mut product = loads::<S, f32, N, FULL>(to[1].cast_const(), count);
            for pixel in 0..self.pixels.pixels {
                let (g, distance) = self.pixels.load::<S, N, FULL>(pixel, k, count, known);
                for i in 0..N {
                    sum[i] = S::add(sum[i], g[i]);
                    product[i] = S::fma(g[i], distance[i], product[i]);
                }
            }
            for i in 0..N {
                store::<S, f32, FULL>(to[0].add(i * S::LANES), sum[i], count);
                store::<S, f32, FULL>(to[1].add(i * S::LANES), product[i], count);
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for InputGrad<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_channels!(self, self.pixels.channels) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> InputGrad<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, k: usize, count: usize) {
        unsafe {
            let known = self.pixels.known::<S, N, FULL>(k, count);
            let mean_grad = self.pixels.row::<S, N, FULL>(MEAN_GRAD, k, count);
            let per_distance = self.pixels.row::<S, N, FULL>(PER_DISTANCE, k, count);
            for pixel in 0..self.pixels.pixels {
                let (g, distance) = self.pixels.load::<S, N, FULL>(pixel, k, count, known);
                let to = self.pixels.dy.add(pixel * self.pixels.channels + k);
                for i in 0..N {
                    let expected = S::fma(distance[i], per_distance[i], mean_grad[i]);
                    let dx = S::mul(S::sub(g[i], expected), known[1][i]);
                    store::<S, T, FULL>(to.add(i * S::LANES), dx, count);
                }
            }
        }
    }
}
