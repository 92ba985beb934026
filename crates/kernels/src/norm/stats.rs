//! Mean and variance of each channel over a batch.

use super::{Sums, pixels};
use crate::error::at_least;
use crate::pointwise::loads;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_map};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool};

const NAME: &str = "batch statistics";
/// Pixels that are summed on their own, before their sums join the others': rounding grows with the length of a sum, the
/// faster the more alike its terms are, and a variance is what is left of two large numbers.
const NEAR: usize = 16;

/// Mean and biased variance of each channel over all pixels of a batch.
#[derive(Clone, Debug)]
pub struct NormStats {
    map: Map,
    isa: Isa,
}

impl NormStats {
    /// Over maps of `map`.
    ///
    /// # Errors
    ///
    /// The map is empty or too large.
    pub fn new(map: Map, isa: Isa) -> Result<Self, KernelError> {
        check_map(NAME, &map)?;
        Ok(Self { map, isa })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Self::scratch_of(self.map.c, threads)
    }

    /// The same for maps of `channels` channels.
    pub(crate) fn scratch_of(channels: usize, threads: usize) -> usize {
        Sums::scratch(channels, threads)
    }

    /// Writes the mean and the variance of `images` images, at least one.
    ///
    /// # Errors
    ///
    /// A slice is too short, or there is no image.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        input: &[T],
        [mean, var]: [&mut [f32]; 2],
        scratch: &mut [Line],
    ) -> Result<(), KernelError> {
        let Map { h, w, c, .. } = self.map;
        if images == 0 {
            return Err(KernelError::spec(NAME, "no images"));
        }
        check_length(NAME, "input", input.len(), images, self.map.image())?;
        at_least(NAME, "mean", mean.len(), c)?;
        at_least(NAME, "variance", var.len(), c)?;
        at_least(NAME, "scratch", scratch.len(), self.scratch(pool.threads()))?;
        // The squares of distances from any one pixel: those from zero would drown the variance where the mean is large.
        let first = self.map.at(0, 0);
        for (mean, x) in mean.iter_mut().zip(&input[first..first + c]) {
            *mean = x.to_f32();
        }
        let (x, base) = (In::new(input), In::new(&mean[..c]));
        let sums = Sums { c, base: Out::new(scratch) };
        let work = Work::new(pool, &Part::whole(images, h), &self.map, c * size_of::<T>());
        work.run(pool, |share| {
            // SAFETY: the scratch memory and the input are long enough.
            unsafe {
                sums.gather(share, |segment, sums| {
                    let x = x.at(segment.start(&self.map));
                    T::moments(
                        self.isa,
                        Moments { x, base: base.at(0), pixels: segment.pixels, channels: c, sums },
                    );
                });
            }
        });
        let count = pixels(&self.map, images) as f64;
        debug_assert_eq!(count, (images * h * w) as f64);
        for (k, (mean, var)) in mean[..c].iter_mut().zip(var).enumerate() {
            // SAFETY: the workers are done.
            let [sum, square] = unsafe { sums.total(work.workers(), k) };
            let shift = sum / count;
            *mean = (f64::from(*mean) + shift) as f32;
            *var = (square / count - shift * shift).max(0.0) as f32;
        }
        Ok(())
    }
}

/// Adds `x - base` and its square to sums `[2][channels]`.
pub struct Moments<T> {
    pub(super) x: *const T,
    pub(super) base: *const f32,
    pub(super) pixels: usize,
    pub(super) channels: usize,
    pub(super) sums: *mut f32,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `x` is valid for `pixels * channels` numbers, the
// others for their channels, and that no other thread touches the sums; offsets stay below by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Moments<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut k = 0;
        unsafe {
            while k + 4 * S::LANES <= self.channels {
                self.step::<S, 4, true>(k, 0);
                k += 4 * S::LANES;
            }
            while k + S::LANES <= self.channels {
                self.step::<S, 1, true>(k, 0);
                k += S::LANES;
            }
            if k < self.channels {
                self.step::<S, 1, false>(k, self.channels - k);
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Moments<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, k: usize, count: usize) {
        unsafe {
            let base = loads::<S, f32, N, FULL>(self.base.add(k), count);
            let to = [self.sums.add(k), self.sums.add(self.channels + k)];
            let mut sum = loads::<S, f32, N, FULL>(to[0], count);
            let mut square = loads::<S, f32, N, FULL>(to[1], count);
            for start in (0..self.pixels).step_by(NEAR) {
                let mut near = [S::splat(0.0); N];
                let mut near_square = near;
                for pixel in start..(start + NEAR).min(self.pixels) {
                    let x = loads::<S, T, N, FULL>(self.x.add(pixel * self.channels + k), count);
                    for i in 0..N {
                        let d = S::sub(x[i], base[i]);
                        near[i] = S::add(near[i], d);
                        near_square[i] = S::fma(d, d, near_square[i]);
                    }
                }
                for i in 0..N {
                    sum[i] = S::add(sum[i], near[i]);
                    square[i] = S::add(square[i], near_square[i]);
                }
            }
            for i in 0..N {
                crate::pointwise::store::<S, f32, FULL>(to[0].add(i * S::LANES), sum[i], count);
                crate::pointwise::store::<S, f32, FULL>(to[1].add(i * S::LANES), square[i], count);
            }
        }
    }
}
