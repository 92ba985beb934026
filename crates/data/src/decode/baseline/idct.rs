//! The inverse DCT, with the roundings of libjpeg's "islow": Loeffler, Ligtenberg and Moschytz's algorithm in
//! 13-bit fixed point, columns first.

use std::num::Wrapping;

type Int = Wrapping<i32>;

/// Bits behind the point of the constants.
const BITS: usize = 13;
/// Extra bits that the first pass keeps.
const EXTRA: usize = 2;

const fn fixed(value: f64) -> Int {
    Wrapping((value * (1 << BITS) as f64 + 0.5) as i32)
}

/// Writes 8 rows of 8 samples at `stride`, from coefficients and their quantisation in natural order.
#[inline(always)]
pub(super) fn idct(coefficients: &[i16; 64], quantization: &[i16; 64], samples: &mut [u8], stride: usize) {
    let mut block = [[Wrapping(0); 8]; 8];
    let factors = coefficients.iter().zip(quantization);
    for (value, (coefficient, factor)) in block.as_flattened_mut().iter_mut().zip(factors) {
        *value = Wrapping(i32::from(coefficient.wrapping_mul(*factor)));
    }
    pass::<{ BITS - EXTRA }>(&mut block);
    transpose(&mut block);
    pass::<{ BITS + EXTRA + 3 }>(&mut block);
    let mut levels = [[0_u8; 8]; 8];
    for (level, value) in levels.as_flattened_mut().iter_mut().zip(block.as_flattened()) {
        *level = (*value + Wrapping(128)).0.clamp(0, 255) as u8;
    }
    for (row, samples) in transpose_bytes(levels).into_iter().zip(samples.chunks_mut(stride)) {
        if let Some(samples) = samples.first_chunk_mut::<8>() {
            *samples = row;
        }
    }
}

/// The same for a block with nothing but a DC coefficient.
#[inline(always)]
pub(super) fn flat(dc: i16, samples: &mut [u8], stride: usize) {
    let level = (((i32::from(dc) + 4) >> 3) + 128).clamp(0, 255) as u8;
    for samples in samples.chunks_mut(stride).take(8) {
        if let Some(samples) = samples.first_chunk_mut::<8>() {
            *samples = [level; 8];
        }
    }
}

#[inline(always)]
fn transpose(block: &mut [[Int; 8]; 8]) {
    let old = *block;
    for (i, row) in block.iter_mut().enumerate() {
        *row = std::array::from_fn(|j| old[j][i]);
    }
}

/// Swaps ever larger off-diagonal squares of the bytes, eight rows as eight numbers.
#[inline(always)]
fn transpose_bytes(bytes: [[u8; 8]; 8]) -> [[u8; 8]; 8] {
    let mut rows = bytes.map(u64::from_le_bytes);
    for (distance, mask) in [(1, 0x00FF_00FF_00FF_00FF), (2, 0x0000_FFFF_0000_FFFF), (4, 0xFFFF_FFFF)] {
        let old = rows;
        for (i, row) in rows.iter_mut().enumerate() {
            let (shift, other) = (8 * distance, old[i ^ distance]);
            *row = if i & distance == 0 {
                old[i] & mask | (other & mask) << shift
            } else {
                old[i] & !mask | (other & !mask) >> shift
            };
        }
    }
    rows.map(u64::to_le_bytes)
}

/// The transform of every column, rounded by `SHIFT` bits.
#[allow(clippy::needless_range_loop, reason = "a column is an index into all rows; so written, it is a lane")]
#[inline(always)]
fn pass<const SHIFT: usize>(block: &mut [[Int; 8]; 8]) {
    for i in 0..8 {
        let [c0, c1, c2, c3, c4, c5, c6, c7] = std::array::from_fn(|row| block[row][i]);
        // Even part.
        let z1 = (c2 + c6) * const { fixed(0.541_196_100) };
        let t2 = z1 - c6 * const { fixed(1.847_759_065) };
        let t3 = z1 + c2 * const { fixed(0.765_366_865) };
        let (t0, t1) = ((c0 + c4) << BITS, (c0 - c4) << BITS);
        let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
        // Odd part.
        let z5 = (c7 + c3 + c5 + c1) * const { fixed(1.175_875_602) };
        let z1 = (c7 + c1) * const { fixed(0.899_976_223) };
        let z2 = (c5 + c3) * const { fixed(2.562_915_447) };
        let z3 = z5 - (c7 + c3) * const { fixed(1.961_570_560) };
        let z4 = z5 - (c5 + c1) * const { fixed(0.390_180_644) };
        let odd = [
            c1 * const { fixed(1.501_321_110) } - z1 + z4,
            c3 * const { fixed(3.072_711_026) } - z2 + z3,
            c5 * const { fixed(2.053_119_869) } - z2 + z4,
            c7 * const { fixed(0.298_631_336) } - z1 + z3,
        ];
        let half = Wrapping(1 << (SHIFT - 1));
        for (k, (even, odd)) in even.into_iter().zip(odd).enumerate() {
            block[k][i] = (even + odd + half) >> SHIFT;
            block[7 - k][i] = (even - odd + half) >> SHIFT;
        }
    }
}
