//! The gradients of split attention (ResNeSt equations 1 and 2) and of gates (squeeze-and-excitation).
//!
//! ```text
//! w = softmax over the splits of the logits (of one split: their sigmoid),  y = sum over r of w_r * x_r
//! p_r = sum over pixels of x_r * dy,  dlogits_r = w_r * (p_r - sum over s of w_s * p_s),  dx_r = w_r * dy
//! ```
//!
//! In the network the logits come from the means of `x`, so the backward pass goes from the logits' gradient to that of
//! the means before it can finish `dx`; the second pass over the map therefore adds the means' gradient too, if given.

use super::factor::Before;
use super::{FactorGrad, FactorGradIo, Write, put};
use crate::attention::{SplitWeights, Weights, split_weights};
use crate::pointwise::loads;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_same};
use crate::{Activation, Element, Isa, KernelError, Line, Map, Part, Pool, arena};
use std::ptr::null;

const NAME: &str = "attention gradient";

/// The gradients of a [`SplitAttention`](crate::SplitAttention) or a [`Gate`](crate::Gate) without a residual.
#[derive(Clone, Debug)]
pub struct AttentionGrad {
    factors: FactorGrad,
    result: Map,
    cardinality: usize,
    hard: bool,
}

/// The memory of [`AttentionGrad::logits`].
#[derive(Debug)]
pub struct LogitsGradIo<'a, T> {
    /// The images that were weighed, `radix * c` channels.
    pub input: &'a [T],
    /// The gradient of the output, `c` channels.
    pub grad: &'a [T],
    /// The output, if the kernel was built for it.
    pub output: Option<&'a [T]>,
    /// `[images, radix * c]`, in the order of the forward pass.
    pub logits: &'a [f32],
    /// Their gradient, which is overwritten.
    pub result: &'a mut [f32],
    /// Memory for sums and weights; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

/// The memory of [`AttentionGrad::input`].
#[derive(Debug)]
pub struct InputGradIo<'a, T> {
    /// The gradient of the output; without it that is what `result` holds, for which both maps must be equal.
    pub grad: Option<&'a [T]>,
    /// The output, if the kernel was built for it.
    pub output: Option<&'a [T]>,
    /// `[images, radix * c]`
    pub logits: &'a [f32],
    /// The gradient of the input's means (a [`GlobalPool`](crate::GlobalPool) with as many splits), `[images, c]`.
    pub means: Option<&'a [f32]>,
    /// The gradient of the input.
    pub result: &'a mut [T],
    /// Whether to add to `result`.
    pub write: Write,
    /// Memory for weights; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

impl AttentionGrad {
    /// Of split attention on maps of `input`; the gradient of its output is a `grad`, and that of its input a `result`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn split(
        [input, grad, result]: [Map; 3],
        radix: usize,
        cardinality: usize,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let factors = FactorGrad::new(input, grad, radix, isa)?;
        check_same(NAME, &input, &result)?;
        if cardinality == 0 || !grad.c.is_multiple_of(cardinality) {
            let reason = format!("{} channels are not a multiple of {cardinality} groups", grad.c);
            return Err(KernelError::spec(NAME, reason));
        }
        Ok(Self { factors, result, cardinality, hard: false })
    }

    /// Of a gate, with the sigmoid or with `min(max(v + 3, 0), 6) / 6`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn gate(maps: [Map; 3], hard: bool, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { hard, ..Self::split(maps, 1, 1, isa)? })
    }

    /// The same where the operator ended in a leaky ReLU; see [`FactorGrad::with_output`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_output(self, map: Map, slope: f32) -> Result<Self, KernelError> {
        Ok(Self { factors: self.factors.with_output(map, slope)?, ..self })
    }

    /// Lines of scratch memory for either gradient with `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        self.factors.scratch(threads) + 2 * self.row()
    }

    /// Lines of one row of weights.
    fn row(&self) -> usize {
        Line::count(size_of::<f32>() * self.result.c)
    }

    /// Computes the gradient of the logits of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short or missing.
    pub fn logits<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: LogitsGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let LogitsGradIo { input, grad, output, logits, result, scratch } = io;
        let count = self.result.c;
        check_length(NAME, "logits", logits.len(), images, count)?;
        check_length(NAME, "scratch", scratch.len(), 1, self.scratch(pool.threads()))?;
        let (rows, scratch) = scratch.split_at_mut(2 * self.row());
        self.factors.run(
            pool,
            images,
            FactorGradIo { input, grad, output, result: &mut *result, scratch },
        )?;
        let (weights, sums) = rows.split_at_mut(self.row());
        let (weights, sums) =
            (&mut arena::as_f32_mut(weights)[..count], &mut arena::as_f32_mut(sums)[..count]);
        for (logits, result) in logits.chunks_exact(count).zip(result.chunks_exact_mut(count)).take(images) {
            sums.copy_from_slice(result);
            // SAFETY: there are as many weights as logits.
            unsafe { self.weigh(logits.as_ptr(), weights.as_mut_ptr()) };
            self.differentiate(logits, weights, sums, result);
        }
        Ok(())
    }

    /// Computes the weights of one image, split by split.
    ///
    /// # Safety
    ///
    /// Both pointers are valid for a number per channel of the input.
    unsafe fn weigh(&self, logits: *const f32, weights: *mut f32) {
        let FactorGrad { radix, grad, isa, .. } = self.factors;
        let (cardinality, group) = (self.cardinality, grad.c / self.cardinality);
        // SAFETY: the same contract.
        unsafe {
            if self.hard {
                for k in 0..grad.c {
                    weights.add(k).write(Activation::HardSigmoid.eval(*logits.add(k)));
                }
            } else {
                split_weights(isa, SplitWeights { logits, weights, radix, cardinality, group });
            }
        }
    }

    /// From the gradients `sums` of the weights to those of the logits, of one image.
    fn differentiate(&self, logits: &[f32], weights: &[f32], sums: &[f32], result: &mut [f32]) {
        let (radix, c) = (self.factors.radix, self.factors.grad.c);
        let group = c / self.cardinality;
        for k in 0..c {
            let logit = |r: usize| (k / group * radix + r) * group + k % group;
            if self.hard {
                let slope = if logits[k].abs() < 3.0 { 1.0 / 6.0 } else { 0.0 };
                result[k] = sums[k] * slope;
            } else if radix == 1 {
                result[k] = sums[k] * weights[k] * (1.0 - weights[k]);
            } else {
                let mean: f32 = (0..radix).map(|r| weights[r * c + k] * sums[r * c + k]).sum();
                for r in 0..radix {
                    result[logit(r)] = weights[r * c + k] * (sums[r * c + k] - mean);
                }
            }
        }
    }

    /// Computes the gradient of the input of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short or missing.
    pub fn input<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: InputGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let InputGradIo { grad, output, logits, means, result, write, scratch } = io;
        let FactorGrad { grad: map, radix, isa, kept, .. } = self.factors;
        let (channels, to) = (map.c, &self.result);
        check_length(NAME, "logits", logits.len(), images, to.c)?;
        check_length(NAME, "means", means.map_or(usize::MAX, <[f32]>::len), images, channels)?;
        check_length(NAME, "result", result.len(), images, to.image())?;
        check_length(NAME, "scratch", scratch.len(), 1, self.scratch(pool.threads()))?;
        let dx = Out::new(result);
        let dy = match grad {
            Some(grad) => {
                check_length(NAME, "gradient", grad.len(), images, map.image())?;
                In::new(grad)
            }
            None if map == *to && write == Write::Replace => In::of(dx),
            None => return Err(KernelError::spec(NAME, "in place with another map, or in addition")),
        };
        let before = Before::new(NAME, map, kept, dy, output, images)?;
        let weights = Weights::new(scratch, to.c);
        let work = Work::new(pool, &Part::whole(images, to.h), to, to.c * size_of::<T>());
        work.run(pool, |share| {
            // SAFETY: the scratch memory holds a row for each worker, and there is a row of logits for each image.
            let compute = |image: usize, weights: *mut f32| unsafe {
                self.weigh(logits[image * to.c..].as_ptr(), weights);
            };
            weights.for_each(share, compute, |segment, weights| {
                // SAFETY: the lengths were checked, so every segment lies in each slice, and each is written by one
                // worker.
                unsafe {
                    T::attention_grad(
                        isa,
                        Weigh {
                            before: before.at(&segment),
                            dx: dx.at(segment.start(to)),
                            weights,
                            means: means.map_or(null(), |means| means[segment.image * channels..].as_ptr()),
                            scale: 1.0 / (to.h * to.w) as f32,
                            pixels: segment.pixels,
                            channels,
                            radix,
                            write,
                        },
                    );
                }
            });
        });
        Ok(())
    }
}

/// Neighbouring pixels of a row, in the order of memory.
pub struct Weigh<T> {
    before: super::factor::Gradient<T>,
    dx: *mut T,
    weights: *const f32,
    /// For each channel of the gradient; or null.
    means: *const f32,
    scale: f32,
    pixels: usize,
    /// Of the gradient.
    channels: usize,
    radix: usize,
    write: Write,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the gradient is valid for `pixels * channels`
// numbers, `dx` for `radix` times as many, which no other thread touches, and `weights` for `radix * channels`; every
// offset is below these by the loops' bounds. In place, a number is read before it is written.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Weigh<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for pixel in 0..self.pixels {
            unsafe { through_channels!(self.step(pixel), self.channels) }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Weigh<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, pixel: usize, k: usize, count: usize) {
        unsafe {
            let g = self.before.load::<S, N, FULL>(pixel * self.channels + k, count);
            let mut means = [S::splat(0.0); N];
            if !self.means.is_null() {
                means = loads::<S, f32, N, FULL>(self.means.add(k), count);
            }
            for r in 0..self.radix {
                let weights = loads::<S, f32, N, FULL>(self.weights.add(r * self.channels + k), count);
                let to = self.dx.add((pixel * self.radix + r) * self.channels + k);
                for i in 0..N {
                    let value = S::fma(g[i], weights[i], S::mul(means[i], S::splat(self.scale)));
                    put::<S, T, FULL>(to.add(i * S::LANES), value, count, self.write);
                }
            }
        }
    }
}
