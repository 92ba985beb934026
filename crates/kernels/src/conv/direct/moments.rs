//! Batch statistics of what a convolution writes, taken block by block while the outputs are in the first cache.
//!
//! A block's sums do not depend on who computes it, so workers can help each other and the bits stay the same.

use super::plan::Panel;
use super::work::{Block, Work};
use super::{Direct, Grid};
use crate::simd::Simd;
use crate::{Element, Line};
use std::ops::Range;

/// What is summed for each channel of a block: the first pixel, the distances from it, and their squares.
const KINDS: usize = 3;
/// Pixels that are summed side by side, to keep the adders busy.
const LANES: usize = 4;

/// Where the sums of each block lie.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    base: *mut f32,
    channels: usize,
    /// Blocks of each share of the pixels, at most.
    blocks: usize,
}

impl Moments {
    /// Lines for `pixels` pixels on `threads` workers, whatever the split.
    pub(super) fn lines(direct: &Direct, pixels: usize, threads: usize) -> usize {
        let blocks = pixels.div_ceil(direct.block) + 2 * threads;
        Line::count(blocks * KINDS * direct.spec.output.c * size_of::<f32>())
    }

    /// In `lines`, which holds [`Moments::lines`].
    pub(super) fn new(direct: &Direct, grid: &Grid, pixels: usize, lines: *mut Line) -> Self {
        let blocks = pixels.div_ceil(grid.pixels).div_ceil(direct.block);
        Self { base: lines.cast(), channels: direct.spec.output.c, blocks }
    }

    /// The sums of block `block` of the share of the pixels with number `share`.
    ///
    /// # Safety
    ///
    /// Both are among the call's.
    #[inline(always)]
    unsafe fn at(&self, share: usize, block: usize) -> *mut f32 {
        // SAFETY: the same contract.
        unsafe { self.base.add((share * self.blocks + block) * KINDS * self.channels) }
    }

    /// Writes the mean and the biased variance of each channel from the sums of all blocks, in their order; `shares` are
    /// the shares of the pixels, each with the pixels of its blocks.
    ///
    /// # Safety
    ///
    /// The workers are done with every block.
    pub(super) unsafe fn finish(
        &self,
        shares: &[(Range<usize>, usize)],
        [mean, var]: [&mut [f32]; 2],
        sums: &mut [Line],
    ) {
        let c = self.channels;
        assert!(size_of_val(sums) >= 2 * c * size_of::<f64>(), "there is room for two sums of each channel");
        // SAFETY: there is, lines are aligned for any number, and any bits are numbers.
        let sums = unsafe { std::slice::from_raw_parts_mut(sums.as_mut_ptr().cast::<f64>(), 2 * c) };
        let (sum, square) = sums.split_at_mut(c);
        sum.fill(0.0);
        square.fill(0.0);
        // SAFETY: there is a first block, and every block has its sums.
        let first = unsafe { std::slice::from_raw_parts(self.at(0, 0), c) };
        let mut count = 0;
        for (number, (pixels, block)) in shares.iter().enumerate() {
            for (index, start) in pixels.clone().step_by(*block).enumerate() {
                let len = (*block).min(pixels.end - start);
                // SAFETY: as above.
                let all = unsafe { std::slice::from_raw_parts(self.at(number, index), KINDS * c) };
                let (base, rest) = all.split_at(c);
                let (near, near_square) = rest.split_at(c);
                let pixels = len as f64;
                for k in 0..c {
                    // From distances to the block's own first pixel to those from the first of all.
                    let shift = f64::from(base[k]) - f64::from(first[k]);
                    let own = f64::from(near[k]);
                    sum[k] += own + pixels * shift;
                    square[k] += f64::from(near_square[k]) + shift * (2.0 * own + pixels * shift);
                }
                count += len;
            }
        }
        let count = count as f64;
        for k in 0..c {
            let shift = sum[k] / count;
            mean[k] = (f64::from(first[k]) + shift) as f32;
            var[k] = (square[k] / count - shift * shift).max(0.0) as f32;
        }
    }
}

impl<T: Element> Work<'_, T> {
    /// Sums the outputs of a panel over the pixels of a block.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`, the panel was computed for the block, which is not empty, and `share` is the
    /// number of its share of the pixels.
    #[inline(always)]
    pub(super) unsafe fn moments<S: Simd>(
        &self,
        share: usize,
        block: &Block,
        panel: &Panel,
        moments: &Moments,
    ) {
        // SAFETY: outputs lie where the table says, and sums have a place for each channel.
        unsafe {
            let to = moments.at(share, block.index);
            for channel in (0..panel.width).step_by(S::LANES) {
                let width = (panel.width - channel).min(S::LANES);
                let at = panel.channel + channel;
                if width == S::LANES {
                    self.moments_of::<S, true>(block.len, at, width, to, moments.channels);
                } else {
                    self.moments_of::<S, false>(block.len, at, width, to, moments.channels);
                }
            }
        }
    }

    /// # Safety
    ///
    /// As [`Work::moments`], for the `width` channels from `at` on; `FULL` if they are a vector.
    #[inline(always)]
    unsafe fn moments_of<S: Simd, const FULL: bool>(
        &self,
        pixels: usize,
        at: usize,
        width: usize,
        to: *mut f32,
        channels: usize,
    ) {
        // SAFETY: the same contract.
        unsafe {
            let load = |pixel: usize| {
                let from = self.call.output.add(*self.scratch.outputs.add(pixel) + at);
                if FULL { T::load::<S>(from) } else { T::load_part::<S>(from, width) }
            };
            let base = load(0);
            let mut sums = [S::splat(0.0); LANES];
            let mut squares = sums;
            let whole = pixels / LANES * LANES;
            for pixel in (0..whole).step_by(LANES) {
                for i in 0..LANES {
                    let d = S::sub(load(pixel + i), base);
                    sums[i] = S::add(sums[i], d);
                    squares[i] = S::fma(d, d, squares[i]);
                }
            }
            for pixel in whole..pixels {
                let d = S::sub(load(pixel), base);
                sums[0] = S::add(sums[0], d);
                squares[0] = S::fma(d, d, squares[0]);
            }
            let total = |v: [S::V; LANES]| S::add(S::add(v[0], v[1]), S::add(v[2], v[3]));
            for (kind, value) in [base, total(sums), total(squares)].into_iter().enumerate() {
                S::store_part(to.add(kind * channels + at), value, width);
            }
        }
    }
}
