//! The two passes: weighted sums along rows, and along columns.

use std::ops::Range;

use super::weights::{BITS, Weights};
use crate::RgbImage;

/// Half a grey level, so that the shift at the end rounds.
const HALF: i32 = 1 << (BITS - 1);

fn to_level(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Resizes the given rows to as many columns as there are weights.
pub(super) fn horizontal(image: &RgbImage, rows: Range<u32>, columns: &Weights) -> RgbImage {
    let stride = image.width() as usize * 3;
    let (width, height) = (columns.len(), rows.len() as u32);
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    let source = &image.pixels()[rows.start as usize * stride..rows.end as usize * stride];
    for row in source.chunks_exact(stride) {
        let row = row.as_chunks::<3>().0;
        for (start, weights) in columns.iter() {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in row[start..start + weights.len()].iter().zip(weights) {
                for (sum, &level) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(level) * weight;
                }
            }
            pixels.extend_from_slice(&sums.map(to_level));
        }
    }
    RgbImage::from_pixels(width, height, pixels)
}

/// Resizes all columns to as many rows as there are weights.
pub(super) fn vertical(image: &RgbImage, rows: &Weights) -> RgbImage {
    /// Sums held at a time: few enough for registers.
    const LANES: usize = 32;
    let stride = image.width() as usize * 3;
    let mut pixels = vec![0; stride * rows.len() as usize];
    for (target, (start, weights)) in pixels.chunks_exact_mut(stride).zip(rows.iter()) {
        let source = &image.pixels()[start * stride..];
        let (blocks, tail) = target.as_chunks_mut::<LANES>();
        for (block, target) in blocks.iter_mut().enumerate() {
            *target = weighted_sum::<LANES>(&source[block * LANES..], stride, weights);
        }
        let done = blocks.len() * LANES;
        for (lane, target) in tail.iter_mut().enumerate() {
            [*target] = weighted_sum::<1>(&source[done + lane..], stride, weights);
        }
    }
    RgbImage::from_pixels(image.width(), rows.len(), pixels)
}

/// `N` neighbouring values of consecutive rows, weighted row by row.
fn weighted_sum<const N: usize>(source: &[u8], stride: usize, weights: &[i32]) -> [u8; N] {
    let mut sums = [HALF; N];
    for (row, &weight) in source.chunks(stride).zip(weights) {
        for (sum, &level) in sums.iter_mut().zip(row) {
            *sum += i32::from(level) * weight;
        }
    }
    sums.map(to_level)
}
