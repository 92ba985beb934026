//! The mean over all pixels, for where it was not taken while a convolution wrote them.

use crate::pointwise::load;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Means, Work, check_length, check_map, check_part};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool};

const GLOBAL: &str = "global pooling";

/// The mean of each channel, `[images, c / radix]`: channel `k` of the result is the sum over the `radix` splits `r` of
/// the means of channel `r * (c / radix) + k`.
#[derive(Clone, Debug)]
pub struct GlobalPool {
    input: Map,
    radix: usize,
    isa: Isa,
}

impl GlobalPool {
    /// Over maps of `input`.
    ///
    /// # Errors
    ///
    /// The channels are not a multiple of `radix`.
    pub fn new(input: Map, radix: usize, isa: Isa) -> Result<Self, KernelError> {
        check_map(GLOBAL, &input)?;
        if radix == 0 || !input.c.is_multiple_of(radix) {
            return Err(KernelError::spec(GLOBAL, format!("{} channels in {radix} splits", input.c)));
        }
        Ok(Self { input, radix, isa })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Means::scratch(self.input.c / self.radix, threads)
    }

    /// Takes in the rows of `part`; `output` is complete after the last row.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: &[T],
        output: &mut [f32],
        scratch: &mut [Line],
    ) -> Result<(), KernelError> {
        let channels = self.input.c / self.radix;
        check_part(GLOBAL, part, self.input.h)?;
        check_length(GLOBAL, "input", input.len(), part.images, self.input.image())?;
        check_length(GLOBAL, "output", output.len(), part.images, channels)?;
        check_length(GLOBAL, "scratch", scratch.len(), 1, self.scratch(pool.threads()))?;
        let x = In::new(input);
        let means = Means::new(channels, part, output, scratch);
        let work = Work::new(pool, part, &self.input, self.input.c * size_of::<T>());
        work.run(pool, |share| {
            // SAFETY: the scratch memory is long enough.
            unsafe { means.begin(&share) };
            for segment in share.clone() {
                // SAFETY: the lengths were checked, so every segment lies in the input; nobody else touches the sums.
                unsafe {
                    T::add(
                        self.isa,
                        Add {
                            x: x.at(segment.start(&self.input)),
                            pixels: segment.pixels,
                            channels,
                            radix: self.radix,
                            sums: means.at(&share, segment.image),
                        },
                    );
                }
            }
        });
        // SAFETY: the workers are done.
        unsafe { means.finish(&work, self.input.h) };
        Ok(())
    }
}

/// Adds neighbouring pixels to sums, eight at a time, so that each sum is loaded once for eight.
pub struct Add<T> {
    x: *const T,
    pixels: usize,
    /// Of the result.
    channels: usize,
    radix: usize,
    sums: *mut f32,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `x` is valid for `pixels * radix * channels`
// numbers, and `sums` for `channels` that no other thread touches; offsets are below these by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Add<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut pixel = 0;
        unsafe {
            while pixel + 8 <= self.pixels {
                self.through_channels::<S, 8>(pixel);
                pixel += 8;
            }
            while pixel < self.pixels {
                self.through_channels::<S, 1>(pixel);
                pixel += 1;
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Add<T> {
    #[inline(always)]
    unsafe fn through_channels<S: Simd, const N: usize>(&self, pixel: usize) {
        for r in 0..self.radix {
            let mut k = 0;
            unsafe {
                let x = self.x.add((pixel * self.radix + r) * self.channels);
                while k + S::LANES <= self.channels {
                    let sum = S::add(S::load(self.sums.add(k)), self.sum::<S, N, true>(x.add(k), 0));
                    S::store(self.sums.add(k), sum);
                    k += S::LANES;
                }
                if k < self.channels {
                    let count = self.channels - k;
                    let sum = self.sum::<S, N, false>(x.add(k), count);
                    let sum = S::add(S::load_part(self.sums.add(k), count), sum);
                    S::store_part(self.sums.add(k), sum, count);
                }
            }
        }
    }

    /// The sum over `N` pixels of one vector of channels, in pairs.
    #[inline(always)]
    unsafe fn sum<S: Simd, const N: usize, const FULL: bool>(&self, x: *const T, count: usize) -> S::V {
        let pitch = self.radix * self.channels;
        unsafe {
            let mut v = [S::splat(0.0); N];
            for i in 0..N {
                v[i] = load::<S, T, FULL>(x.add(i * pitch), count);
            }
            let mut width = N;
            while width > 1 {
                width /= 2;
                for i in 0..width {
                    v[i] = S::add(v[i], v[i + width]);
                }
            }
            v[0]
        }
    }
}
