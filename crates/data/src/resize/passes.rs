//! The two passes: weighted sums along rows, and along columns.
//!
//! Plain loops over arrays, compiled once for every level of the processor's instructions: `pulp` picks the
//! level at run time, and the compiler turns the arrays into its vectors.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::weights::{BITS, Weights};
use crate::RgbImage;

/// Half a grey level, so that the shift at the end rounds.
const HALF: i32 = 1 << (BITS - 1);

#[inline(always)]
fn to_level(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Resizes the given rows to as many columns as there are weights.
pub(super) fn horizontal(image: &RgbImage, rows: Range<u32>, columns: &Weights) -> RgbImage {
    let (width, height) = (columns.len(), rows.len() as u32);
    let stride = image.width() as usize * 3;
    let source = &image.pixels()[rows.start as usize * stride..rows.end as usize * stride];
    let mut target = vec![0; width as usize * height as usize * 3];
    Arch::new().dispatch(Horizontal { source, stride, columns, target: &mut target });
    RgbImage::from_pixels(width, height, target)
}

struct Horizontal<'a> {
    source: &'a [u8],
    stride: usize,
    columns: &'a Weights,
    target: &'a mut [u8],
}

impl WithSimd for Horizontal<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _level: S) {
        // Bilinear enlargements have 2 or 3 weights per pixel, the usual reductions up to 6.
        match self.columns.most() {
            0..=2 => self.run::<2>(),
            3 => self.run::<3>(),
            4 => self.run::<4>(),
            5 => self.run::<5>(),
            6 => self.run::<6>(),
            _ => self.run_any(),
        }
    }
}

impl Horizontal<'_> {
    /// With at most `K` weights per pixel.
    #[inline(always)]
    fn run<const K: usize>(self) {
        let Some(columns) = self.columns.padded::<K>(self.stride / 3) else {
            return self.run_any();
        };
        // A pixel is read with the byte behind it, so a row needs a byte more; and the sum of those bytes is
        // kept to the end, though no one wants it: four lanes are a vector, three are not.
        let mut row = vec![0; self.stride + 1];
        let mut sums = vec![[0; 4]; columns.len()];
        let mut levels = vec![[0; 4]; columns.len()];
        let width = columns.len() * 3;
        for (source, target) in self.source.chunks_exact(self.stride).zip(self.target.chunks_exact_mut(width))
        {
            row[..self.stride].copy_from_slice(source);
            for (sums, (start, weights)) in sums.iter_mut().zip(&columns) {
                let pixels = &row[start * 3..start * 3 + K * 3 + 1];
                *sums = [HALF; 4];
                for (k, weight) in weights.iter().enumerate() {
                    for (sum, &level) in sums.iter_mut().zip(&pixels[k * 3..k * 3 + 4]) {
                        *sum += i32::from(level) * weight;
                    }
                }
            }
            for (level, &sum) in levels.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *level = to_level(sum);
            }
            for (target, &[r, g, b, _]) in target.as_chunks_mut::<3>().0.iter_mut().zip(&levels) {
                *target = [r, g, b];
            }
        }
    }

    #[inline(always)]
    fn run_any(self) {
        let width = self.columns.len() as usize * 3;
        for (row, target) in self.source.chunks_exact(self.stride).zip(self.target.chunks_exact_mut(width)) {
            let row = row.as_chunks::<3>().0;
            for (target, (start, weights)) in
                target.as_chunks_mut::<3>().0.iter_mut().zip(self.columns.iter())
            {
                let mut sums = [HALF; 3];
                for (pixel, &weight) in row[start..start + weights.len()].iter().zip(weights) {
                    for (sum, &level) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(level) * weight;
                    }
                }
                *target = sums.map(to_level);
            }
        }
    }
}

/// Resizes all columns to as many rows as there are weights.
pub(super) fn vertical(image: &RgbImage, rows: &Weights) -> RgbImage {
    let stride = image.width() as usize * 3;
    let mut target = vec![0; stride * rows.len() as usize];
    Arch::new().dispatch(Vertical { source: image.pixels(), stride, rows, target: &mut target });
    RgbImage::from_pixels(image.width(), rows.len(), target)
}

struct Vertical<'a> {
    source: &'a [u8],
    stride: usize,
    rows: &'a Weights,
    target: &'a mut [u8],
}

impl WithSimd for Vertical<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _level: S) {
        /// Sums held at a time: few enough for registers.
        const LANES: usize = 32;
        let stride = self.stride;
        for (target, (start, weights)) in self.target.chunks_exact_mut(stride).zip(self.rows.iter()) {
            let source = &self.source[start * stride..];
            let (blocks, tail) = target.as_chunks_mut::<LANES>();
            for (block, target) in blocks.iter_mut().enumerate() {
                *target = weighted_sum::<LANES>(&source[block * LANES..], stride, weights);
            }
            let done = blocks.len() * LANES;
            for (lane, target) in tail.iter_mut().enumerate() {
                [*target] = weighted_sum::<1>(&source[done + lane..], stride, weights);
            }
        }
    }
}

/// `N` neighbouring values of consecutive rows, weighted row by row.
#[inline(always)]
fn weighted_sum<const N: usize>(source: &[u8], stride: usize, weights: &[i32]) -> [u8; N] {
    let mut sums = [HALF; N];
    for (k, &weight) in weights.iter().enumerate() {
        let Some(row) = source.get(k * stride..).and_then(|rest| rest.first_chunk::<N>()) else {
            break;
        };
        for (sum, &level) in sums.iter_mut().zip(row) {
            *sum += i32::from(level) * weight;
        }
    }
    sums.map(to_level)
}
