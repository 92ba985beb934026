//! The loops of a norm's gradients, in the order of memory: what is kept for a channel is loaded anew for every few
//! pixels, from the first cache.

use super::NormSource;
use crate::Element;
use crate::grad::{Write, put};
use crate::pointwise::{loads, store};
use crate::simd::{Kernel, Simd};

/// Numbers per channel that the loops read, one row each.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) base: *const f32,
    pub(super) stride: usize,
}

// SAFETY: nobody writes them while workers run.
unsafe impl Send for Rows {}
// SAFETY: the same.
unsafe impl Sync for Rows {}

pub(super) const CENTER: usize = 0;
pub(super) const SCALE: usize = 1;
pub(super) const BIAS: usize = 2;
pub(super) const MEAN_GRAD: usize = 3;
pub(super) const PER_DISTANCE: usize = 4;
pub(super) const ROWS: usize = 5;

/// Pixels that share one load of a channel's numbers.
const PIXELS: usize = 4;

/// Neighbouring pixels of all maps.
#[derive(Clone, Copy)]
pub(super) struct Pixels<T> {
    /// The norm's input or output.
    pub(super) x: *const T,
    pub(super) dy: *const T,
    /// The output of what followed, or null.
    pub(super) y: *const T,
    pub(super) dx: *mut T,
    pub(super) pixels: usize,
    pub(super) channels: usize,
    pub(super) rows: Rows,
    pub(super) source: NormSource,
    pub(super) slope: f32,
    pub(super) inverse_slope: f32,
    pub(super) output_slope: f32,
    pub(super) write: Write,
}

/// Adds `g` and `g` times the distance from the centre to sums `[2][channels]`.
pub struct GradMoments<T> {
    pub(super) pixels: Pixels<T>,
    pub(super) sums: *mut f32,
}

/// Writes the gradient of the input.
pub struct InputGrad<T> {
    pub(super) pixels: Pixels<T>,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the maps are valid for `pixels * channels`
// numbers, the rows and sums for `channels`, and that no other thread touches what is written; offsets stay below by the
// loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Pixels<T> {
    /// The gradient before the activation and the distance from the centre, of the `N` vectors at element `at`.
    #[inline(always)]
    unsafe fn load<S: Simd, const N: usize, const FULL: bool>(
        &self,
        at: usize,
        count: usize,
        [center, scale, bias]: [[S::V; N]; 3],
    ) -> ([S::V; N], [S::V; N]) {
        unsafe {
            let x = loads::<S, T, N, FULL>(self.x.add(at), count);
            let mut g = loads::<S, T, N, FULL>(self.dy.add(at), count);
            if !self.y.is_null() {
                let y = loads::<S, T, N, FULL>(self.y.add(at), count);
                for i in 0..N {
                    g[i] = S::where_positive(y[i], g[i], S::mul(g[i], S::splat(self.output_slope)));
                }
            }
            let mut distance = x;
            let slope = S::splat(self.slope);
            for i in 0..N {
                let sign = match self.source {
                    NormSource::Input => {
                        distance[i] = S::sub(x[i], center[i]);
                        S::fma(distance[i], scale[i], bias[i])
                    }
                    NormSource::Output => {
                        let u = S::where_positive(x[i], x[i], S::mul(x[i], S::splat(self.inverse_slope)));
                        distance[i] = S::sub(u, center[i]);
                        x[i]
                    }
                };
                g[i] = S::where_positive(sign, g[i], S::mul(g[i], slope));
            }
            (g, distance)
        }
    }

    /// Row `row` of the numbers per channel.
    #[inline(always)]
    unsafe fn row<S: Simd, const N: usize, const FULL: bool>(
        &self,
        row: usize,
        k: usize,
        count: usize,
    ) -> [S::V; N] {
        unsafe { loads::<S, f32, N, FULL>(self.rows.base.add(row * self.rows.stride + k), count) }
    }

    #[inline(always)]
    unsafe fn known<S: Simd, const N: usize, const FULL: bool>(
        &self,
        k: usize,
        count: usize,
    ) -> [[S::V; N]; 3] {
        unsafe {
            let center = self.row::<S, N, FULL>(CENTER, k, count);
            let scale = self.row::<S, N, FULL>(SCALE, k, count);
            [center, scale, self.row::<S, N, FULL>(BIAS, k, count)]
        }
    }
}

/// Calls `$self.step` for `$count` pixels from `$pixel` on and all their channels: two vectors at a time, then one, then
/// a part of one.
macro_rules! through_channels {
    ($self:ident, $pixel:expr, $count:literal, $channels:expr) => {{
        let mut k = 0;
        while k + 2 * S::LANES <= $channels {
            $self.step::<S, $count, 2, true>($pixel, k, 0);
            k += 2 * S::LANES;
        }
        while k + S::LANES <= $channels {
            $self.step::<S, $count, 1, true>($pixel, k, 0);
            k += S::LANES;
        }
        if k < $channels {
            $self.step::<S, $count, 1, false>($pixel, k, $channels - k);
        }
    }};
}

macro_rules! through_pixels {
    ($self:ident, $pixels:expr, $channels:expr) => {{
        let mut pixel = 0;
        while pixel + PIXELS <= $pixels {
            through_channels!($self, pixel, 4, $channels);
            pixel += PIXELS;
        }
        while pixel < $pixels {
            through_channels!($self, pixel, 1, $channels);
            pixel += 1;
        }
    }};
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for GradMoments<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_pixels!(self, self.pixels.pixels, self.pixels.channels) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> GradMoments<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const P: usize, const N: usize, const FULL: bool>(
        &self,
        pixel: usize,
        k: usize,
        count: usize,
    ) {
        unsafe {
            let known = self.pixels.known::<S, N, FULL>(k, count);
            let to = [self.sums.add(k), self.sums.add(self.pixels.channels + k)];
            let mut sum = loads::<S, f32, N, FULL>(to[0].cast_const(), count);
            let mut product = loads::<S, f32, N, FULL>(to[1].cast_const(), count);
            for p in 0..P {
                let at = (pixel + p) * self.pixels.channels + k;
                let (g, distance) = self.pixels.load::<S, N, FULL>(at, count, known);
                for i in 0..N {
                    sum[i] = S::add(sum[i], g[i]);
                    product[i] = S::fma(g[i], distance[i], product[i]);
                }
            }
            for i in 0..N {
                store::<S, f32, FULL>(to[0].add(i * S::LANES), sum[i], count);
                store::<S, f32, FULL>(to[1].add(i * S::LANES), product[i], count);
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for InputGrad<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_pixels!(self, self.pixels.pixels, self.pixels.channels) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> InputGrad<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const P: usize, const N: usize, const FULL: bool>(
        &self,
        pixel: usize,
        k: usize,
        count: usize,
    ) {
        unsafe {
            let known = self.pixels.known::<S, N, FULL>(k, count);
            let mean_grad = self.pixels.row::<S, N, FULL>(MEAN_GRAD, k, count);
            let per_distance = self.pixels.row::<S, N, FULL>(PER_DISTANCE, k, count);
            for p in 0..P {
                let at = (pixel + p) * self.pixels.channels + k;
                let (g, distance) = self.pixels.load::<S, N, FULL>(at, count, known);
                for i in 0..N {
                    let expected = S::fma(distance[i], per_distance[i], mean_grad[i]);
                    let dx = S::mul(S::sub(g[i], expected), known[1][i]);
                    put::<S, T, FULL>(self.pixels.dx.add(at + i * S::LANES), dx, count, self.pixels.write);
                }
            }
        }
    }
}
