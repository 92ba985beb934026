//! Batch norm with leaky ReLU in training: statistics over a batch, and the gradients (TResNet section 2.1).
//!
//! ```text
//! u = (x - mean) * scale + bias,  scale = weight / sqrt(var + epsilon),  y = u > 0 ? u : slope * u
//! g = dy * (u > 0 ? 1 : slope)
//! dbias = sum g,  dweight = sum g * (x - mean) / sqrt(var + epsilon)
//! dx = scale * (g - (dbias + (x - mean) / sqrt(var + epsilon) * dweight) / pixels)
//! ```
//! The backward pass reads either the input `x` or, in place, the output `y` alone: a leaky ReLU with a slope above zero
//! and a norm with a weight that is not zero can be inverted, so nothing else of the layer need be kept.
//!
//! Sums over pixels are taken in `f32` for some hundred pixels at a time, and of these in `f64`.

mod apply;
mod grad;
mod gradients;
mod stats;

pub use apply::{NormApply, NormApplyIo, scale_shift};
pub use grad::{FixedNormGrad, FixedNormGradIo, NormGrad, NormGradIo, NormSource};
pub use stats::NormStats;

pub(crate) use gradients::{GradMoments, InputGrad};
pub(crate) use stats::Moments;

use crate::work::{Out, Share};
use crate::{Line, Map};

/// Pixels whose sums are kept in `f32`.
const FLUSH: usize = 256;

/// Two sums for each channel, for each worker: in `f32` what is new, in `f64` all before.
#[derive(Clone, Copy)]
struct Sums {
    c: usize,
    base: Out<Line>,
}

impl Sums {
    /// Lines for `threads` workers.
    fn scratch(c: usize, threads: usize) -> usize {
        threads * (Line::count(2 * c * size_of::<f32>()) + Line::count(2 * c * size_of::<f64>()))
    }

    /// The sums of a worker, `[2][c]` each.
    ///
    /// # Safety
    ///
    /// `base` holds [`Sums::scratch`] lines for more than `worker` workers.
    unsafe fn of(self, worker: usize) -> (*mut f32, *mut f64) {
        let new = Line::count(2 * self.c * size_of::<f32>());
        // SAFETY: the same contract.
        unsafe {
            let start = self.base.at(worker * Self::scratch(self.c, 1));
            (start.cast(), start.add(new).cast())
        }
    }

    /// Goes over the pixels of `share`: clears the sums, calls `add` with where pixels start in `map`, how many there are,
    /// and the sums to add to.
    ///
    /// # Safety
    ///
    /// As [`Sums::of`], by the worker itself.
    unsafe fn gather(self, share: Share, add: impl Fn(crate::work::Segment, *mut f32)) {
        // SAFETY: the sums are this worker's own.
        unsafe {
            let (new, all) = self.of(share.worker);
            new.write_bytes(0, 2 * self.c);
            all.write_bytes(0, 2 * self.c);
            let mut waiting = 0;
            for segment in share {
                add(segment, new);
                waiting += segment.pixels;
                if waiting >= FLUSH {
                    self.flush(new, all);
                    waiting = 0;
                }
            }
            self.flush(new, all);
        }
    }

    /// # Safety
    ///
    /// Both hold `2 * c` numbers.
    unsafe fn flush(self, new: *mut f32, all: *mut f64) {
        for i in 0..2 * self.c {
            // SAFETY: the same contract.
            unsafe {
                *all.add(i) += f64::from(*new.add(i));
                *new.add(i) = 0.0;
            }
        }
    }

    /// The sums of `workers` workers for channel `k`, in their order.
    ///
    /// # Safety
    ///
    /// All of them have gathered theirs, and are done.
    unsafe fn total(self, workers: usize, k: usize) -> [f64; 2] {
        let mut total = [0.0; 2];
        for worker in 0..workers {
            // SAFETY: the same contract.
            unsafe {
                let (_, all) = self.of(worker);
                total[0] += *all.add(k);
                total[1] += *all.add(self.c + k);
            }
        }
        total
    }
}

/// Pixels of a batch.
fn pixels(map: &Map, images: usize) -> usize {
    images * map.h * map.w
}
