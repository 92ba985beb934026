//! Into and out of the domain in which a convolution is a product, one vector of channels at a time.
//!
//! F(m, 3) evaluates polynomials at m + 1 finite points and at infinity. Exact products do not care which points; their
//! rounding does. For m = 4 the usual points 0, ±1, ±2 have twice the error of 0, ±5/8, ±3/2, which are the best among
//! those whose matrices are exact in `f32` (squares, cubes and products of short binary fractions), so that input and
//! output transform fit the weights, which are transformed in `f64`. With fused multiply-add they cost no more.

#![expect(clippy::needless_range_loop, reason = "indices of rows and columns, which are also offsets")]

use super::Job;
use crate::simd::{Kernel, Simd};
use std::ops::Range;

/// The finite points of F(4, 3) beside 0: ±A and ±B.
const A: f32 = 0.625;
const B: f32 = 1.5;

/// Rows and columns of an input tile that fits every variant.
pub(in crate::conv) const MAX: usize = 6;

/// Numbers of a cache line.
const LINE: usize = 16;

/// `Bᵀ d`: 6 numbers to 6 for `M == 4`, 4 to 4 for `M == 2`.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
pub(in crate::conv) unsafe fn forward<S: Simd, const M: usize>(d: [S::V; MAX]) -> [S::V; MAX] {
    // SAFETY: the same contract.
    unsafe {
        let mut v = d;
        if M == 2 {
            v[0] = S::sub(d[0], d[2]);
            v[1] = S::add(d[1], d[2]);
            v[2] = S::sub(d[2], d[1]);
            v[3] = S::sub(d[3], d[1]);
            return v;
        }
        // The rows are the coefficients of M(x) / (x - p) for each point p, M(x) = x (x² - A²) (x² - B²).
        let sum = S::splat(-(A * A + B * B));
        let product = S::splat(A * A * B * B);
        let (a2, b2) = (S::splat(-A * A), S::splat(-B * B));
        let (a, b) = (S::splat(A), S::splat(B));
        v[0] = S::fma(product, d[0], S::fma(sum, d[2], d[4]));
        v[5] = S::fma(product, d[1], S::fma(sum, d[3], d[5]));
        let (even, odd) = (S::fma(b2, d[2], d[4]), S::mul(a, S::fma(b2, d[1], d[3])));
        v[1] = S::add(even, odd);
        v[2] = S::sub(even, odd);
        let (even, odd) = (S::fma(a2, d[2], d[4]), S::mul(b, S::fma(a2, d[1], d[3])));
        v[3] = S::add(even, odd);
        v[4] = S::sub(even, odd);
        v
    }
}

/// `Aᵀ m`: 6 numbers to 4 for `M == 4`, 4 to 2 for `M == 2`.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn backward<S: Simd, const M: usize>(m: [S::V; MAX]) -> [S::V; 4] {
    // SAFETY: the same contract.
    unsafe {
        let (s, d) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        if M == 2 {
            return [S::add(m[0], s), S::add(d, m[3]), s, s];
        }
        let (t, e) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(m[0], S::add(s, t)),
            S::fma(S::splat(B), e, S::mul(S::splat(A), d)),
            S::fma(S::splat(B * B), t, S::mul(S::splat(A * A), s)),
            S::fma(S::splat(B * B * B), e, S::fma(S::splat(A * A * A), d, m[5])),
        ]
    }
}

/// `A y`, the transpose of [`backward`] for `M == 4`: 4 numbers to 6.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
pub(in crate::conv) unsafe fn spread<S: Simd>(y: [S::V; MAX]) -> [S::V; MAX] {
    // SAFETY: the same contract.
    unsafe {
        let even = S::fma(S::splat(A * A), y[2], y[0]);
        let odd = S::fma(S::splat(A * A * A), y[3], S::mul(S::splat(A), y[1]));
        let far_even = S::fma(S::splat(B * B), y[2], y[0]);
        let far_odd = S::fma(S::splat(B * B * B), y[3], S::mul(S::splat(B), y[1]));
        [
            y[0],
            S::add(even, odd),
            S::sub(even, odd),
            S::add(far_even, far_odd),
            S::sub(far_even, far_odd),
            y[3],
        ]
    }
}

/// `G`, which takes three weights to `m + 2`: the points' powers over the products of their distances.
pub(in crate::conv) fn weight_matrix(m: usize) -> [[f64; 3]; MAX] {
    let points: &[f64] =
        if m == 2 { &[0.0, 1.0, -1.0] } else { &[0.0, A as f64, -A as f64, B as f64, -B as f64] };
    let mut g = [[0.0; 3]; MAX];
    for (i, &p) in points.iter().enumerate() {
        let distances: f64 = points.iter().filter(|&&q| q != p).map(|q| p - q).product();
        g[i] = [1.0, p, p * p].map(|power| power / distances);
    }
    g[points.len()][2] = 1.0;
    if m == 2 {
        // `forward` of this size takes the point 0 with the opposite sign, which saves it nothing but reads better.
        g[0] = g[0].map(|x| -x);
    }
    g
}

/// Where a block's transformed numbers lie: point `p`, tile `t` of the block, channel `c` at `p * point + t * tile + c`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub point: usize,
    pub tile: usize,
}

impl Layout {
    /// `tiles` rows of `channels`. An odd number of cache lines from one point to the next spreads the points, which
    /// are written at the same time, over all sets of the cache.
    pub(super) fn new(tiles: usize, channels: usize) -> Self {
        Self { point: ((tiles * channels).div_ceil(LINE) | 1) * LINE, tile: channels }
    }
}

/// Transforms input tiles.
pub(super) struct Input<'a, const M: usize> {
    pub job: &'a Job<'a>,
    /// Tiles to transform, counted through all images.
    pub tiles: Range<usize>,
    /// The first input channel.
    pub channel: usize,
    /// How many channels.
    pub channels: usize,
    /// Where tile `tiles.start` goes: room for `tiles` in this layout, rows padded to whole vectors.
    pub to: *mut f32,
    pub layout: Layout,
}

impl<const M: usize> Kernel for Input<'_, M> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { job, layout, .. } = self;
        let (width, row) = (job.plan.spec.input.c, job.plan.spec.input.row());
        for (slot, tile) in self.tiles.enumerate() {
            let at = job.tile(tile);
            let mut c = 0;
            // SAFETY: `at` lies in the input, of which `at.rows` x `at.columns` pixels belong to this call's windows,
            // and `to` has room by the promise on its field.
            unsafe {
                let from = job.input.add(at.input + self.channel);
                let to = self.to.add(slot * layout.tile);
                if at.rows == M + 2 && at.columns == M + 2 {
                    while c + S::LANES <= self.channels {
                        if c % LINE == 0 {
                            fetch::<S>(from.add(c), row, width, M + 2, M + 2..2 * M + 2);
                        }
                        forward_tile::<S, M>(from.add(c), row, width, to.add(c), layout.point);
                        c += S::LANES;
                    }
                }
                while c < self.channels {
                    let count = S::LANES.min(self.channels - c);
                    let edge = [at.rows, at.columns, count];
                    forward_edge::<S, M>(from.add(c), row, width, edge, to.add(c), layout.point);
                    c += S::LANES;
                }
            }
        }
    }
}

/// Asks for pixels of the next tile: its first `rows` rows and these columns, at the same channels.
///
/// # Safety
///
/// The processor has the level of `S`; the addresses need not be valid.
#[inline(always)]
unsafe fn fetch<S: Simd>(from: *const f32, row: usize, width: usize, rows: usize, columns: Range<usize>) {
    for i in 0..rows {
        for j in columns.clone() {
            // SAFETY: the same contract.
            unsafe { S::prefetch(from.wrapping_add(i * row + j * width).cast()) }
        }
    }
}

/// `V = Bᵀ d B` of one tile and one vector of channels.
///
/// # Safety
///
/// All pixels may be read and all points written; the processor has the level of `S`.
#[inline(always)]
unsafe fn forward_tile<S: Simd, const M: usize>(
    from: *const f32,
    row: usize,
    width: usize,
    to: *mut f32,
    point: usize,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut half = [[S::splat(0.0); MAX]; MAX];
        for j in 0..M + 2 {
            let mut d = [S::splat(0.0); MAX];
            for i in 0..M + 2 {
                d[i] = S::load(from.add(i * row + j * width));
            }
            let v = forward::<S, M>(d);
            for i in 0..M + 2 {
                half[i][j] = v[i];
            }
        }
        for i in 0..M + 2 {
            let v = forward::<S, M>(half[i]);
            for j in 0..M + 2 {
                S::store(to.add((i * (M + 2) + j) * point), v[j]);
            }
        }
    }
}

/// The same where only `[rows, columns, channels]` may be read; the rest counts as zero.
///
/// # Safety
///
/// As for [`forward_tile`], but for the pixels.
#[inline(always)]
unsafe fn forward_edge<S: Simd, const M: usize>(
    from: *const f32,
    row: usize,
    width: usize,
    [rows, columns, count]: [usize; 3],
    to: *mut f32,
    point: usize,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut half = [[S::splat(0.0); MAX]; MAX];
        for j in 0..columns.min(M + 2) {
            let mut d = [S::splat(0.0); MAX];
            for i in 0..M + 2 {
                if i < rows {
                    let pixel = from.add(i * row + j * width);
                    d[i] = if count == S::LANES { S::load(pixel) } else { S::load_part(pixel, count) };
                }
            }
            let v = forward::<S, M>(d);
            for i in 0..M + 2 {
                half[i][j] = v[i];
            }
        }
        for i in 0..M + 2 {
            let v = forward::<S, M>(half[i]);
            for j in 0..M + 2 {
                S::store(to.add((i * (M + 2) + j) * point), v[j]);
            }
        }
    }
}

/// Where a worker adds up its outputs: the first and the last image of its share may belong to other workers too.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// `[images, channels]`; null where no means are wanted.
    pub all: *mut f32,
    pub first: usize,
    pub first_sums: *mut f32,
    pub last: usize,
    pub last_sums: *mut f32,
}

impl Sums {
    /// One row of sums per image.
    pub(super) fn direct(all: *mut f32) -> Self {
        let no = std::ptr::null_mut();
        Self { all, first: usize::MAX, first_sums: no, last: usize::MAX, last_sums: no }
    }

    /// # Safety
    ///
    /// `all` is not null and has `channels` numbers for `image`.
    #[inline(always)]
    unsafe fn of(&self, image: usize, channels: usize) -> *mut f32 {
        if image == self.first {
            self.first_sums
        } else if image == self.last {
            self.last_sums
        } else {
            // SAFETY: the same contract.
            unsafe { self.all.add(image * channels) }
        }
    }
}

/// Transforms products back, and finishes the outputs.
pub(super) struct Output<'a, const M: usize> {
    pub job: &'a Job<'a>,
    pub tiles: Range<usize>,
    /// The first output channel.
    pub channel: usize,
    /// How many channels.
    pub channels: usize,
    /// The products of tile `tiles.start`, rows padded to whole vectors.
    pub from: *const f32,
    pub layout: Layout,
    /// The bias of the first channel, padded likewise.
    pub bias: *const f32,
    pub sums: Sums,
}

impl<const M: usize> Kernel for Output<'_, M> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { job, layout, .. } = self;
        let spec = &job.plan.spec;
        let width = spec.output.c;
        for (slot, tile) in self.tiles.enumerate() {
            let at = job.tile(tile);
            let mut c = 0;
            // SAFETY: the tile's valid pixels lie in this call's rows of the output, which no other worker writes for
            // these channels; the residual has the same pixels; the products are those of this tile.
            unsafe {
                let from = self.from.add(slot * layout.tile);
                let mut to = Pixels {
                    output: job.output.add(at.output + self.channel),
                    output_row: spec.output.row(),
                    residual: job.residual,
                    residual_row: 0,
                    width,
                    sums: std::ptr::null_mut(),
                    rows: (at.rows - 2).min(M),
                    columns: (at.columns - 2).min(M),
                };
                if let Some(residual) = &spec.residual {
                    to.residual = job.residual.add(at.residual + self.channel);
                    to.residual_row = residual.row();
                }
                if !self.sums.all.is_null() {
                    to.sums = self.sums.of(at.image, width).add(self.channel);
                }
                if to.rows == M && to.columns == M {
                    while c + S::LANES <= self.channels {
                        if c % LINE == 0 {
                            fetch::<S>(to.output.add(c), to.output_row, width, M, M..2 * M);
                        }
                        backward_tile::<S, M, false>(
                            job,
                            from.add(c),
                            layout.point,
                            self.bias.add(c),
                            to,
                            c,
                            S::LANES,
                        );
                        c += S::LANES;
                    }
                }
                while c < self.channels {
                    let count = S::LANES.min(self.channels - c);
                    backward_tile::<S, M, true>(
                        job,
                        from.add(c),
                        layout.point,
                        self.bias.add(c),
                        to,
                        c,
                        count,
                    );
                    c += S::LANES;
                }
            }
        }
    }
}

/// The outputs of one tile.
#[derive(Clone, Copy)]
struct Pixels {
    output: *mut f32,
    output_row: usize,
    /// Null where there is none.
    residual: *const f32,
    residual_row: usize,
    /// From one pixel to the next.
    width: usize,
    /// Null where no means are wanted.
    sums: *mut f32,
    rows: usize,
    columns: usize,
}

/// `Y = Aᵀ m A` of one tile and the vector of channels at `c`, and the epilogue. With `EDGE` only `to.rows` x
/// `to.columns` pixels and `count` channels are touched.
///
/// # Safety
///
/// The pixels of `to` may be written, and its residual and sums used; the processor has the level of `S`.
#[inline(always)]
unsafe fn backward_tile<S: Simd, const M: usize, const EDGE: bool>(
    job: &Job<'_>,
    from: *const f32,
    point: usize,
    bias: *const f32,
    to: Pixels,
    c: usize,
    count: usize,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut half = [[S::splat(0.0); MAX]; 4];
        for j in 0..M + 2 {
            let mut m = [S::splat(0.0); MAX];
            for i in 0..M + 2 {
                m[i] = S::load(from.add((i * (M + 2) + j) * point));
            }
            let y = backward::<S, M>(m);
            for i in 0..M {
                half[i][j] = y[i];
            }
        }
        let bias = S::load(bias);
        let whole = !EDGE || count == S::LANES;
        let (rows, columns) = if EDGE { (to.rows, to.columns) } else { (M, M) };
        let mut sum = S::splat(0.0);
        for i in 0..rows {
            let mut y = backward::<S, M>(half[i]);
            for j in 0..M {
                y[j] = S::add(y[j], bias);
            }
            if !to.residual.is_null() {
                for j in 0..M {
                    if j < columns {
                        let at = to.residual.add(i * to.residual_row + j * to.width + c);
                        let residual = if whole { S::load(at) } else { S::load_part(at, count) };
                        y[j] = S::add(y[j], residual);
                    }
                }
            }
            for j in 0..M {
                y[j] = job.plan.spec.activation.apply::<S>(y[j]);
            }
            for j in 0..M {
                if j < columns {
                    let at = to.output.add(i * to.output_row + j * to.width + c);
                    if whole {
                        S::store(at, y[j]);
                    } else {
                        S::store_part(at, y[j], count);
                    }
                    sum = S::add(sum, y[j]);
                }
            }
        }
        if !to.sums.is_null() {
            let at = to.sums.add(c);
            if whole {
                S::store(at, S::add(S::load(at), sum));
            } else {
                S::store_part(at, S::add(S::load_part(at, count), sum), count);
            }
        }
    }
}
