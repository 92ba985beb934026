//! The products: for each point a matrix of tiles x inputs times one of inputs x outputs.

#![expect(clippy::needless_range_loop, reason = "indices of rows and vectors, which are also offsets")]

use super::transform::Layout;
use crate::simd::{Kernel, Simd};

/// The size of the register tile at one level: `rows` tiles times `vectors` of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub rows: usize,
    /// Outputs of a panel of weights.
    pub outputs: usize,
    /// Numbers in a vector.
    pub lanes: usize,
}

/// Asks a level for its [`Shape`].
pub(super) struct Ask;

impl Kernel for Ask {
    type Output = Shape;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Shape {
        let (rows, vectors) = tile::<S>();
        Shape { rows, outputs: vectors * S::LANES, lanes: S::LANES }
    }
}

/// Rows and vectors of the register tile: accumulators, one row of weights and one input fit the registers.
const fn tile<S: Simd>() -> (usize, usize) {
    match (S::REGISTERS, S::LANES) {
        (..32, _) => (6, 2),
        // Panels of 32: of 64 they would leave more outputs over.
        (_, 16) => (12, 2),
        _ => (6, 4),
    }
}

/// Multiplies a block of tiles with some panels of weights, point by point.
pub(super) struct Products {
    /// How many points.
    pub points: usize,
    pub tiles: usize,
    pub inputs: usize,
    pub panels: usize,
    /// The transformed input.
    pub v: *const f32,
    pub v_layout: Layout,
    /// The weights: `[panel, point, input, output of the panel]`.
    pub u: *const f32,
    /// The products; a row holds all panels.
    pub m: *mut f32,
    pub m_layout: Layout,
}

impl Kernel for Products {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (max, vectors) = tile::<S>();
        let width = vectors * S::LANES;
        let panel = self.inputs * width;
        let parts = self.tiles.div_ceil(max);
        for p in 0..self.points {
            for n in 0..self.panels {
                for part in 0..parts {
                    // Even parts: seven rows as 4 + 3, since a part of one row waits for its own sums.
                    let rows = crate::share(self.tiles, parts, part);
                    // SAFETY: the panel, the rows and their products lie in the three blocks, as promised by the
                    // fields.
                    unsafe {
                        let (v, m) = (self.v_layout, self.m_layout);
                        let block = Block {
                            a: self.v.add(p * v.point + rows.start * v.tile),
                            lda: v.tile,
                            b: self.u.add((n * self.points + p) * panel),
                            k: self.inputs,
                            c: self.m.add(p * m.point + rows.start * m.tile + n * width),
                            ldc: m.tile,
                            ahead: self.ahead(p, n, part, parts, panel),
                        };
                        match (max, vectors) {
                            (6, 2) => block.rows_up_to_6::<S, 2>(rows.len()),
                            (6, 4) => block.rows_up_to_6::<S, 4>(rows.len()),
                            _ => block.rows_up_to_12::<S, 2>(rows.len()),
                        }
                    }
                }
            }
        }
    }
}

impl Products {
    /// What a part of the rows asks for while it runs, half a panel's bytes: the first two parts the panel that comes
    /// next, the others tiles of the next point. Both come from beyond the second cache, in pieces too short for the
    /// processor to notice by itself; without this the products take up to twice the time.
    #[inline(always)]
    fn ahead(&self, p: usize, n: usize, part: usize, parts: usize, panel: usize) -> *const f32 {
        let piece = panel / 2;
        if part < 2 {
            let next = if n + 1 < self.panels { (n + 1) * self.points + p } else { p + 1 };
            self.u.wrapping_add(next * panel + part * piece)
        } else {
            let piece = (n * (parts - 2) + part - 2) * piece;
            self.v.wrapping_add((p + 1) * self.v_layout.point + piece.min(self.v_layout.point))
        }
    }
}

/// Some rows of `a` times one panel `b`.
struct Block {
    /// `lda` from one row to the next.
    a: *const f32,
    lda: usize,
    /// `k` rows of a panel.
    b: *const f32,
    k: usize,
    c: *mut f32,
    ldc: usize,
    /// Asked for on the way; need not be valid.
    ahead: *const f32,
}

macro_rules! by_rows {
    ($name:ident, $($rows:literal)+) => {
        /// # Safety
        ///
        /// As for [`Block::multiply`].
        #[inline(always)]
        unsafe fn $name<S: Simd, const N: usize>(&self, rows: usize) {
            // SAFETY: the same contract.
            unsafe {
                match rows {
                    $($rows => self.multiply::<S, $rows, N>(),)+
                    _ => {}
                }
            }
        }
    };
}

impl Block {
    by_rows!(rows_up_to_6, 6 5 4 3 2 1);
    by_rows!(rows_up_to_12, 12 11 10 9 8 7 6 5 4 3 2 1);

    /// `c = a b` for `R` rows and panels of `N` vectors.
    ///
    /// # Safety
    ///
    /// The three blocks may be used as described; the processor has the level of `S`.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const R: usize, const N: usize>(&self) {
        // SAFETY: the same contract.
        unsafe {
            let mut sums = [[S::splat(0.0); N]; R];
            let width = N * S::LANES;
            let mut ahead = self.ahead.cast::<u8>();
            let mut i = 0;
            while i + 4 <= self.k {
                // Half of what four steps read.
                for line in 0..2 * width / 16 {
                    S::prefetch(ahead.wrapping_add(line * 64));
                }
                ahead = ahead.wrapping_add(2 * width * size_of::<f32>());
                for step in i..i + 4 {
                    add::<S, R, N>(self.a.add(step), self.lda, self.b.add(step * width), &mut sums);
                }
                i += 4;
            }
            while i < self.k {
                add::<S, R, N>(self.a.add(i), self.lda, self.b.add(i * width), &mut sums);
                i += 1;
            }
            for r in 0..R {
                for n in 0..N {
                    S::store(self.c.add(r * self.ldc + n * S::LANES), sums[r][n]);
                }
            }
        }
    }
}

/// Adds the products of one input to all sums.
///
/// # Safety
///
/// As for [`Block::multiply`].
#[inline(always)]
unsafe fn add<S: Simd, const R: usize, const N: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    sums: &mut [[S::V; N]; R],
) {
    // SAFETY: the same contract.
    unsafe {
        let mut weights = [S::splat(0.0); N];
        for n in 0..N {
            weights[n] = S::load(b.add(n * S::LANES));
        }
        for r in 0..R {
            let x = S::splat(*a.add(r * lda));
            for n in 0..N {
                sums[r][n] = S::fma(x, weights[n], sums[r][n]);
            }
        }
    }
}
