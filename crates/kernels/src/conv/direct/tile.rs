//! The register tile: some pixels by some vectors of output channels.
//!
//! ```text
//! for each segment, for each k in it:
//!     for each pixel i, for each vector j:  sum[i][j] += input[start[i] + offset + k] * weight[k][j]
//! ```
//! One offset moves all pixels, so that the starts stay in registers. For bf16, k counts pairs.

use super::plan::Segment;
use crate::activation::Activation;
use crate::simd::{Kernel, Simd};
use crate::{Bf16, DType, Element, Line};
use std::sync::atomic::{Ordering, compiler_fence};

/// The tiles of one panel and one slice over a block of pixels.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a, T> {
    pub(super) segments: &'a [Segment],
    pub(super) weights: *const T,
    /// The first input channel of the panel, and where each pixel's window starts.
    pub(super) input: *const T,
    pub(super) inputs: *const usize,
    /// Sums of the slices so far, `[pixel][channel]` of the panel.
    pub(super) sums: *mut f32,
    /// Whether there are sums to add.
    pub(super) add: bool,
    /// What follows the last slice.
    pub(super) finish: Option<Finish<T>>,
}

/// What follows the sum; pointers are to the panel's first channel.
#[derive(Clone, Copy)]
pub(super) struct Finish<T> {
    /// Padded to whole vectors.
    pub(super) bias: *const f32,
    pub(super) activation: Activation,
    pub(super) output: *mut T,
    pub(super) outputs: *const usize,
    pub(super) residual: Option<*const T>,
    pub(super) residuals: *const usize,
    /// Output channels.
    pub(super) width: usize,
}

/// The tile of `R` pixels by `V` vectors from `pixel` on, as a function of its own.
pub(super) struct Tile<'a, 'b, T, const R: usize, const V: usize> {
    pub(super) tiles: &'a Tiles<'b, T>,
    pub(super) pixel: usize,
}

impl<T: Element, const R: usize, const V: usize> Kernel for Tile<'_, '_, T, R, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the same contract.
        unsafe { self.tiles.tile::<S, R, V>(self.pixel) }
    }
}

/// The end of a tile that goes through memory, as a function of its own.
pub(super) struct Rows<'a, 'b, T, const V: usize> {
    pub(super) tiles: &'a Tiles<'b, T>,
    pub(super) finish: &'a Finish<T>,
    pub(super) pixel: usize,
    pub(super) count: usize,
}

impl<T: Element, const V: usize> Kernel for Rows<'_, '_, T, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the same contract.
        unsafe { self.finish.rows::<S, V>(self.tiles.sums, self.pixel, self.count) }
    }
}

impl<T: Element> Tiles<'_, T> {
    /// The tile of `R` pixels from `pixel` on.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`; `inputs` holds `R` starts from `pixel` on, from each of which every segment
    /// can be read; `weights` holds `V` vectors for each element (for bf16, pair) of the segments; `sums` has room for
    /// `R` times `V` vectors from `pixel` on; and if `finish` is set, its pointers are valid for these pixels.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, pixel: usize) {
        // SAFETY: the same contract.
        unsafe {
            if let Some(finish) = &self.finish {
                finish.expect::<S, R, V>(pixel);
            }
            let mut acc = match T::DTYPE {
                DType::F32 => products::<S, R, V>(self.starts(pixel), self.segments, self.weights.cast()),
                DType::Bf16 => {
                    pair_products::<S, R, V>(self.starts(pixel), self.segments, self.weights.cast())
                }
            };
            let sums = self.sums.add(pixel * V * S::LANES);
            if self.add {
                for (i, row) in acc.iter_mut().enumerate() {
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum = S::add(*sum, S::load(sums.add((i * V + j) * S::LANES)));
                    }
                }
            }
            match &self.finish {
                Some(finish) if finish.in_registers::<S, V>() => finish.tile::<S, R, V>(&acc, pixel),
                _ => {
                    for (i, row) in acc.iter().enumerate() {
                        for (j, &sum) in row.iter().enumerate() {
                            S::store(sums.add((i * V + j) * S::LANES), sum);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Element> Tiles<'_, T> {
    /// Where the windows of `R` pixels start, with the type `E` that `T` is.
    ///
    /// # Safety
    ///
    /// As [`Tiles::tile`].
    #[inline(always)]
    unsafe fn starts<E, const R: usize>(&self, pixel: usize) -> [*const E; R] {
        let mut starts = [self.input.cast(); R];
        for (i, start) in starts.iter_mut().enumerate() {
            // SAFETY: the same contract.
            *start = unsafe { self.input.add(*self.inputs.add(pixel + i)).cast() };
        }
        starts
    }
}

impl<T: Element> Finish<T> {
    /// Whether the tile applies this itself. Whatever is longer goes through memory, where a loop does it: in
    /// registers its code would be repeated for every vector of every shape of tile.
    #[inline(always)]
    pub(super) fn in_registers<S: Simd, const V: usize>(&self) -> bool {
        T::DTYPE == DType::F32
            && self.width == V * S::LANES
            && matches!(self.activation, Activation::Identity | Activation::Relu)
    }

    /// # Safety
    ///
    /// As [`Tiles::tile`], and [`Finish::in_registers`].
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, acc: &[[S::V; V]; R], pixel: usize) {
        // SAFETY: the same contract.
        unsafe {
            let mut acc = *acc;
            for j in 0..V {
                let bias = S::load(self.bias.add(j * S::LANES));
                for i in 0..R {
                    acc[i][j] = S::add(acc[i][j], bias);
                }
            }
            if let Some(residual) = self.residual {
                for i in 0..R {
                    let from = residual.add(*self.residuals.add(pixel + i));
                    for j in 0..V {
                        acc[i][j] = S::add(acc[i][j], T::load::<S>(from.add(j * S::LANES)));
                    }
                }
            }
            if matches!(self.activation, Activation::Relu) {
                for i in 0..R {
                    for j in 0..V {
                        acc[i][j] = S::max(acc[i][j], S::splat(0.0));
                    }
                }
            }
            for i in 0..R {
                let to = self.output.add(*self.outputs.add(pixel + i));
                for j in 0..V {
                    T::store::<S>(to.add(j * S::LANES), acc[i][j]);
                }
            }
        }
    }

    /// Asks for the memory that the tile will write and add, which it needs only when its sums are complete.
    ///
    /// # Safety
    ///
    /// As [`Tiles::tile`].
    #[inline(always)]
    unsafe fn expect<S: Simd, const R: usize, const V: usize>(&self, pixel: usize) {
        let line = Line::BYTES / size_of::<T>();
        let lines = const { (V * S::LANES).div_ceil(Line::BYTES / size_of::<T>()) };
        // SAFETY: the same contract; a pointer that is only asked for need not be valid.
        unsafe {
            for i in 0..R {
                let to = self.output.add(*self.outputs.add(pixel + i));
                for part in 0..lines {
                    S::prefetch(to.wrapping_add(part * line).cast());
                }
            }
            if let Some(residual) = self.residual {
                for i in 0..R {
                    let from = residual.add(*self.residuals.add(pixel + i));
                    for part in 0..lines {
                        S::prefetch(from.wrapping_add(part * line).cast());
                    }
                }
            }
        }
    }

    /// What [`Finish::tile`] does, from memory, for `count` pixels from `pixel` on.
    ///
    /// # Safety
    ///
    /// As [`Tiles::tile`], with `sums` written.
    #[inline(always)]
    unsafe fn rows<S: Simd, const V: usize>(&self, sums: *const f32, pixel: usize, count: usize) {
        for i in pixel..pixel + count {
            for j in 0..V {
                let first = j * S::LANES;
                let width = self.width.saturating_sub(first).min(S::LANES);
                // SAFETY: the same contract; no more than the channels of the panel are read and written.
                unsafe {
                    let mut sum = S::load(sums.add(i * V * S::LANES + first));
                    sum = S::add(sum, S::load(self.bias.add(first)));
                    if let Some(residual) = self.residual {
                        let from = residual.add(*self.residuals.add(i) + first);
                        let residual = if width == S::LANES {
                            T::load::<S>(from)
                        } else {
                            T::load_part::<S>(from, width)
                        };
                        sum = S::add(sum, residual);
                    }
                    sum = self.activation.apply::<S>(sum);
                    let to = self.output.add(*self.outputs.add(i) + first);
                    if width == S::LANES {
                        T::store::<S>(to, sum);
                    } else {
                        T::store_part::<S>(to, sum, width);
                    }
                }
            }
        }
    }
}

/// # Safety
///
/// As [`Tiles::tile`].
#[inline(always)]
unsafe fn products<S: Simd, const R: usize, const V: usize>(
    starts: [*const f32; R],
    segments: &[Segment],
    mut weights: *const f32,
) -> [[S::V; V]; R] {
    const UNROLL: usize = 4;
    // SAFETY: the same contract.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; R];
        for segment in segments {
            let mut k = segment.offset;
            let end = k + segment.len;
            let unrolled = end - segment.len % UNROLL;
            while k != unrolled {
                for u in 0..UNROLL {
                    step::<S, R, V>(&mut acc, &starts, k + u, weights.add(u * V * S::LANES));
                    // The sums fill the registers: a load that the compiler moves up from the next step makes it keep
                    // one of them in memory, which costs a third of the speed.
                    compiler_fence(Ordering::SeqCst);
                }
                k += UNROLL;
                weights = weights.add(UNROLL * V * S::LANES);
            }
            while k != end {
                step::<S, R, V>(&mut acc, &starts, k, weights);
                k += 1;
                weights = weights.add(V * S::LANES);
            }
        }
        acc
    }
}

/// # Safety
///
/// As [`Tiles::tile`], for element `k` behind the starts and its weights.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const V: usize>(
    acc: &mut [[S::V; V]; R],
    starts: &[*const f32; R],
    k: usize,
    weights: *const f32,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut b = [S::splat(0.0); V];
        for (j, b) in b.iter_mut().enumerate() {
            *b = S::load(weights.add(j * S::LANES));
        }
        for i in 0..R {
            let a = S::splat(*starts[i].add(k));
            for j in 0..V {
                acc[i][j] = S::fma(a, b[j], acc[i][j]);
            }
        }
    }
}

/// # Safety
///
/// As [`Tiles::tile`].
#[inline(always)]
unsafe fn pair_products<S: Simd, const R: usize, const V: usize>(
    starts: [*const Bf16; R],
    segments: &[Segment],
    mut weights: *const Bf16,
) -> [[S::V; V]; R] {
    const UNROLL: usize = 2;
    // SAFETY: the same contract.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; R];
        for segment in segments {
            let mut k = segment.offset;
            let end = k + segment.len;
            let unrolled = end - segment.len % (2 * UNROLL);
            while k != unrolled {
                for u in 0..UNROLL {
                    let weights = weights.add(2 * u * V * S::LANES);
                    pair_step::<S, R, V, true>(&mut acc, &starts, k + 2 * u, weights);
                    compiler_fence(Ordering::SeqCst);
                }
                k += 2 * UNROLL;
                weights = weights.add(2 * UNROLL * V * S::LANES);
            }
            while k + 1 < end {
                pair_step::<S, R, V, true>(&mut acc, &starts, k, weights);
                k += 2;
                weights = weights.add(2 * V * S::LANES);
            }
            if k != end {
                pair_step::<S, R, V, false>(&mut acc, &starts, k, weights);
                weights = weights.add(2 * V * S::LANES);
            }
        }
        acc
    }
}

/// # Safety
///
/// As [`Tiles::tile`], for elements `k` and `k + 1` behind the starts and their weights; without `WHOLE` for `k` alone.
#[inline(always)]
unsafe fn pair_step<S: Simd, const R: usize, const V: usize, const WHOLE: bool>(
    acc: &mut [[S::V; V]; R],
    starts: &[*const Bf16; R],
    k: usize,
    weights: *const Bf16,
) {
    // SAFETY: the same contract.
    unsafe {
        for i in 0..R {
            let a = if WHOLE {
                S::splat_pair(starts[i].add(k))
            } else {
                // Beyond an odd end there may be nothing, or a number that is not finite, which the zero among the
                // weights would not silence.
                let single = [*starts[i].add(k), Bf16(0)];
                S::splat_pair(single.as_ptr())
            };
            for j in 0..V {
                // The compiler loads each of them once for all pixels.
                let b = S::load_pairs(weights.add(2 * j * S::LANES));
                acc[i][j] = S::dot_pair(acc[i][j], a, b);
            }
        }
    }
}
