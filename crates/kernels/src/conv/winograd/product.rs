//! The products: for each point a matrix of tiles x inputs times one of inputs x outputs.

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
                        let a = self.v.add(p * self.v_layout.point + rows.start * self.v_layout.tile);
                        let b = self.u.add((n * self.points + p) * panel);
                        let c =
                            self.m.add(p * self.m_layout.point + rows.start * self.m_layout.tile + n * width);
                        let (k, lda, ldc) = (self.inputs, self.v_layout.tile, self.m_layout.tile);
                        // What the next products need: the first two parts fetch the next panel, the others some of
                        // the next point's tiles.
                        let piece = k * width / 2;
                        let ahead = if part < 2 {
                            let next = if n + 1 < self.panels { (n + 1) * self.points + p } else { p + 1 };
                            self.u.wrapping_add(next * panel + part * piece)
                        } else {
                            let nth = n * (parts - 2) + part - 2;
                            let at = (nth * piece).min(self.v_layout.point);
                            self.v.wrapping_add((p + 1) * self.v_layout.point + at)
                        };
                        match (max, vectors) {
                            (6, 2) => rows_up_to_6::<S, 2>(rows.len(), a, lda, b, k, c, ldc, ahead),
                            (6, 4) => rows_up_to_6::<S, 4>(rows.len(), a, lda, b, k, c, ldc, ahead),
                            _ => rows_up_to_12::<S, 2>(rows.len(), a, lda, b, k, c, ldc, ahead),
                        }
                    }
                }
            }
        }
    }
}

macro_rules! by_rows {
    ($name:ident, $($rows:literal)+) => {
        /// # Safety
        ///
        /// As for [`block`].
        #[inline(always)]
        unsafe fn $name<S: Simd, const N: usize>(
            rows: usize,
            a: *const f32,
            lda: usize,
            b: *const f32,
            k: usize,
            c: *mut f32,
            ldc: usize,
            ahead: *const f32,
        ) {
            // SAFETY: the same contract.
            unsafe {
                match rows {
                    $($rows => block::<S, $rows, N>(a, lda, b, k, c, ldc, ahead),)+
                    _ => {}
                }
            }
        }
    };
}

by_rows!(rows_up_to_6, 6 5 4 3 2 1);
by_rows!(rows_up_to_12, 12 11 10 9 8 7 6 5 4 3 2 1);

/// `c = a b`: `R` rows of `a`, `k` long and `lda` apart, times `k` rows of `N` vectors.
///
/// # Safety
///
/// The three blocks may be used as described; the processor has the level of `S`.
#[inline(always)]
unsafe fn block<S: Simd, const R: usize, const N: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    k: usize,
    c: *mut f32,
    ldc: usize,
    ahead: *const f32,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; R];
        let mut i = 0;
        let mut ahead = ahead.cast::<u8>();
        while i + 4 <= k {
            for line in 0..2 * N * S::LANES / 16 {
                S::prefetch(ahead.wrapping_add(line * 64));
            }
            ahead = ahead.wrapping_add(2 * N * S::LANES * 4);
            for step in 0..4 {
                step_of::<S, R, N>(a.add(i + step), lda, b.add((i + step) * N * S::LANES), &mut sums);
            }
            i += 4;
        }
        while i < k {
            step_of::<S, R, N>(a.add(i), lda, b.add(i * N * S::LANES), &mut sums);
            i += 1;
        }
        for r in 0..R {
            for n in 0..N {
                S::store(c.add(r * ldc + n * S::LANES), sums[r][n]);
            }
        }
    }
}

/// Adds the products of one input to all sums.
///
/// # Safety
///
/// As for [`block`].
#[inline(always)]
unsafe fn step_of<S: Simd, const R: usize, const N: usize>(
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
