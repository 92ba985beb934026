//! The register tile: some outputs by some elements of the window, summed over the pixels of a block.

use crate::simd::{Kernel, Simd};
use std::sync::atomic::{Ordering, compiler_fence};

/// The shape of a level's register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Outputs.
    pub(super) rows: usize,
    /// Elements of the window.
    pub(super) width: usize,
}

/// Vectors of elements in a tile.
pub(super) const fn vectors<S: Simd>() -> usize {
    if S::LANES == 4 { 4 } else { 2 }
}

/// Outputs of a tile: as many as the registers hold beside the elements and one output.
pub(super) const fn rows<S: Simd>() -> usize {
    match (S::REGISTERS, S::LANES) {
        (8, _) => 2,
        (32, 4) => 6,
        (32, _) => 14,
        _ => 6,
    }
}

pub(super) struct Ask;

impl Kernel for Ask {
    type Output = Shape;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Shape {
        Shape { rows: rows::<S>(), width: vectors::<S>() * S::LANES }
    }
}

/// Adds a tile's products, or begins its sums with them: `[R][V vectors]` from gradients `[pixel][R]` and a panel
/// `[pixel][V vectors]`.
///
/// # Safety
///
/// The pointers hold so much, and the processor has the level of `S`.
#[inline(always)]
pub(super) unsafe fn sum<S: Simd>(
    grad: *const f32,
    panel: *const f32,
    pixels: usize,
    sums: *mut f32,
    add: bool,
) {
    const { assert!(matches!((rows::<S>(), vectors::<S>()), (2 | 6 | 14, 2) | (6, 4)), "a shape of a level") };
    // SAFETY: the same contract.
    unsafe {
        match const { (rows::<S>(), vectors::<S>()) } {
            (2, _) => S::outline(Tile::<2, 2> { grad, panel, pixels, sums, add }),
            (6, 2) => S::outline(Tile::<6, 2> { grad, panel, pixels, sums, add }),
            (6, _) => S::outline(Tile::<6, 4> { grad, panel, pixels, sums, add }),
            _ => S::outline(Tile::<14, 2> { grad, panel, pixels, sums, add }),
        }
    }
}

/// One tile, as a function of its own.
#[derive(Clone, Copy)]
struct Tile<const R: usize, const V: usize> {
    /// `[pixel][R]`
    grad: *const f32,
    /// `[pixel][V vectors]`
    panel: *const f32,
    pixels: usize,
    /// `[R][V vectors]`, added to or overwritten.
    sums: *mut f32,
    add: bool,
}

impl<const R: usize, const V: usize> Kernel for Tile<R, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        const UNROLL: usize = 4;
        let Self { mut grad, mut panel, pixels, sums, add } = self;
        // SAFETY: whoever made the tile promises that its pointers hold what the fields say, for the level of `S`.
        unsafe {
            let mut acc = [[S::splat(0.0); V]; R];
            for _ in 0..pixels / UNROLL {
                for u in 0..UNROLL {
                    step::<S, R, V>(&mut acc, grad.add(u * R), panel.add(u * V * S::LANES));
                    // The sums fill the registers: a load that moved up from the next step would push one of them out.
                    compiler_fence(Ordering::SeqCst);
                }
                grad = grad.add(UNROLL * R);
                panel = panel.add(UNROLL * V * S::LANES);
            }
            for _ in 0..pixels % UNROLL {
                step::<S, R, V>(&mut acc, grad, panel);
                grad = grad.add(R);
                panel = panel.add(V * S::LANES);
            }
            for (i, row) in acc.iter().enumerate() {
                for (j, &sum) in row.iter().enumerate() {
                    let at = sums.add((i * V + j) * S::LANES);
                    S::store(at, if add { S::add(S::load(at), sum) } else { sum });
                }
            }
        }
    }
}

/// # Safety
///
/// The processor has the level of `S`, and the pointers hold `R` outputs and `V` vectors.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const V: usize>(
    acc: &mut [[S::V; V]; R],
    grad: *const f32,
    panel: *const f32,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut b = [S::splat(0.0); V];
        for (j, b) in b.iter_mut().enumerate() {
            *b = S::load(panel.add(j * S::LANES));
        }
        for i in 0..R {
            let a = S::splat(*grad.add(i));
            for j in 0..V {
                acc[i][j] = S::fma(a, b[j], acc[i][j]);
            }
        }
    }
}
