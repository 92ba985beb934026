//! Tiles in plain Rust, number for number what the instructions do, so that any machine can test the rest.

use crate::simd::Kernel;
use crate::x86::amx::{Shapes, TILE, Tiles, paired};
use crate::{Bf16, Isa};

/// Eight registers and their shapes.
#[derive(Default)]
pub(in crate::conv) struct Software {
    tiles: [[[u32; 16]; 16]; 8],
    shapes: Option<Shapes>,
}

/// Denormals as zero, keeping the sign.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// `a * b + sum`, rounded once: in `f64` the product of two bf16 is exact, and their precisions are so far apart that
/// rounding the sum twice is rounding it once.
#[inline(always)]
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    flush((f64::from(a) * f64::from(b) + f64::from(sum)) as f32)
}

/// The two numbers of a pair.
#[inline(always)]
pub(super) fn pair(bits: u32) -> [f32; 2] {
    [bits as u16, (bits >> 16) as u16].map(|half| flush(Bf16(half).to_f32()))
}

impl Software {
    fn shape(&self, tile: u8) -> (usize, usize) {
        let shapes = self.shapes.as_ref().expect("tiles were used without a configuration");
        let (rows, bytes) = (shapes.rows[usize::from(tile)], shapes.bytes[usize::from(tile)]);
        assert!((1..=16).contains(&rows) && (4..=64).contains(&bytes) && bytes % 4 == 0);
        (usize::from(rows), usize::from(bytes) / 4)
    }
}

// SAFETY of every block: the caller vouches for the memory of every row.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Tiles for Software {
    #[inline(always)]
    unsafe fn call<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        unsafe { isa.call(kernel) }
    }

    unsafe fn configure(&mut self, shapes: &Shapes) {
        *self = Self { tiles: Default::default(), shapes: Some(*shapes) };
    }

    unsafe fn release(&mut self) {
        *self = Self::default();
    }

    unsafe fn zero<const T: u8>(&mut self) {
        self.shape(T);
        self.tiles[usize::from(T)] = Default::default();
    }

    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        let (rows, columns) = self.shape(T);
        let tile = &mut self.tiles[usize::from(T)];
        *tile = Default::default();
        for (r, row) in tile.iter_mut().enumerate().take(rows) {
            for (c, value) in row.iter_mut().enumerate().take(columns) {
                *value = unsafe { from.add(r * stride + c * 4).cast::<u32>().read_unaligned() };
            }
        }
    }

    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        let (rows, columns) = self.shape(T);
        for (r, row) in self.tiles[usize::from(T)].iter().enumerate().take(rows) {
            for (c, value) in row.iter().enumerate().take(columns) {
                unsafe { to.add(r * stride + c * 4).cast::<u32>().write_unaligned(*value) };
            }
        }
    }

    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self) {
        let ((m, n), (a_rows, k), (b_rows, b_columns)) = (self.shape(C), self.shape(A), self.shape(B));
        assert_eq!((a_rows, b_rows, b_columns), (m, k, n), "the shapes do not fit");
        for row in 0..m {
            // The first and the second numbers of the pairs are summed apart, then added to the accumulator.
            let mut sums = [[0.0_f32; 16]; 2];
            for step in 0..k {
                let a = pair(self.tiles[usize::from(A)][row][step]);
                let b = &self.tiles[usize::from(B)][step];
                for column in 0..n {
                    let b = pair(b[column]);
                    sums[0][column] = multiply_add(a[0], b[0], sums[0][column]);
                    sums[1][column] = multiply_add(a[1], b[1], sums[1][column]);
                }
            }
            for (column, acc) in self.tiles[usize::from(C)][row].iter_mut().enumerate().take(n) {
                let sum = flush(sums[0][column] + sums[1][column]);
                *acc = flush(flush(f32::from_bits(*acc)) + sum).to_bits();
            }
        }
    }

    unsafe fn copy_padded(to: *mut u16, from: *const u16, count: usize) {
        for i in 0..32 {
            let value = if i < count { unsafe { from.add(i).read_unaligned() } } else { 0 };
            unsafe { to.add(i).write_unaligned(value) };
        }
    }

    unsafe fn interleave<const WIDE: bool>(to: *mut u16, rows: [*const u16; 2], counts: [usize; 2]) {
        for pair in 0..if WIDE { 32 } else { 16 } {
            let column = paired(pair, WIDE);
            let to = to.wrapping_add(column / 16 * TILE + column % 16 * 2);
            for i in 0..2 {
                let value = if pair < counts[i] { unsafe { rows[i].add(pair).read_unaligned() } } else { 0 };
                unsafe { to.add(i).write_unaligned(value) };
            }
        }
    }

    unsafe fn transpose(to: *mut u16, from: *const u16, offsets: &[usize; 32]) {
        for (row, offset) in offsets.iter().enumerate() {
            for column in 0..16 {
                unsafe { *to.add(column * 32 + row) = from.add(offset + column).read_unaligned() };
            }
        }
    }
}
