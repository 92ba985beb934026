//! The gradient of a 3x3 weight by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.
//!
//! The forward pass computes each tile as `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` (`conv/winograd`), so
//!
//! ```text
//! dg = Gᵀ [sum over tiles of (A dY Aᵀ) ⊙ (Bᵀ d B)] G
//! ```
//! and each of the 36 points is a matrix product over the tiles. For each stretch of tiles:
//!
//! ```text
//! V[point][group][panel][tile][W] = Bᵀ d B                all workers, then they meet
//! D[point][group][slice][tile][R] = A dY Aᵀ
//! for each point, for each panel:                         whoever is free
//!     for each slice of R outputs:    P[point][group][panel][slice][R][W] += Dᵀ V     in registers
//! ```
//! and at the end `dg = Gᵀ P G`. Each sum has one owner and a fixed order: the result does not depend on the number of
//! threads.

#![expect(clippy::needless_range_loop, reason = "indices of points and taps, which are also offsets")]

use super::WeightGradIo;
use super::tile::{self, Shape};
use super::windows::BLOCK;
use crate::conv::ConvSpec;
use crate::conv::cost::{BANDWIDTH, lanes, rate};
use crate::conv::taken::Taken;
use crate::conv::winograd::{MAX, forward, spread, weight_matrix};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out};
use crate::{Element, Isa, Line, Pool, as_f32_mut, share};
use std::ops::Range;

/// Outputs per axis of a tile, and inputs.
const M: usize = 4;
const N: usize = M + 2;
const POINTS: usize = N * N;

/// Bytes of transformed maps of a stretch, and the fewest tiles of one: measured with 512 KiB of second-level cache. More
/// leave the caches and the tables of pages, fewer read the sums more often.
const STRETCH: usize = 2 << 20;
const FEWEST: usize = 32;

/// Of the peak: products here, and those by windows with all that they need. Measured on Zen 3.
const REACHED: f64 = 0.8;
const WINDOWS_REACHED: f64 = 0.72;
/// Seconds to transform one tile and one vector of channels; most of it waits for memory.
const TRANSFORM: f64 = 200e-9;
/// The way by tiles.
#[derive(Debug)]
pub(super) struct Winograd {
    spec: ConvSpec,
    isa: Isa,
    shape: Shape,
    /// Vectors of inputs, W wide, and slices of R outputs, of one group.
    panels: usize,
    slices: usize,
    /// The most tiles of a stretch.
    tiles: usize,
}

/// Numbers from one part of the scratch memory to the next.
#[derive(Clone, Copy)]
struct Layout {
    panel: usize,
    v_point: usize,
    slice: usize,
    d_point: usize,
    sums: usize,
    p_point: usize,
}

impl Layout {
    /// Numbers of all parts.
    fn end(&self) -> usize {
        POINTS * (self.v_point + self.d_point + self.p_point)
    }
}

/// Where a tile lies.
struct Place {
    /// Offsets of its first pixel.
    input: usize,
    grad: usize,
    /// Rows and columns of inputs that count; two less are outputs.
    rows: usize,
    columns: usize,
}

impl Winograd {
    /// For a convolution that is [supported](crate::conv::winograd::Winograd::supports).
    pub(super) fn new(spec: &ConvSpec, isa: Isa) -> Self {
        // SAFETY: this kernel promises nothing.
        let shape = unsafe { isa.call(tile::Ask) };
        let panels = spec.group_inputs().div_ceil(shape.width);
        let slices = spec.group_outputs().div_ceil(shape.rows);
        let numbers = POINTS * spec.groups * (panels * shape.width + slices * shape.rows);
        let tiles = (STRETCH / size_of::<f32>() / numbers).clamp(FEWEST, BLOCK);
        Self { spec: spec.clone(), isa, shape, panels, slices, tiles }
    }

    /// Seconds of one thread for whole images, here and by windows: enough to choose between them.
    pub(super) fn seconds(&self, images: usize) -> [f64; 2] {
        let Shape { rows, width } = self.shape;
        let tiles = (images * self.per_image()) as f64;
        let groups = self.spec.groups as f64;
        let lanes = lanes(self.isa);
        let vectors = |outputs: usize| groups * (self.panels * width * outputs) as f64 / lanes;
        let outputs = self.slices * rows;
        let products = tiles * POINTS as f64 * vectors(outputs);
        let transformed = tiles * (vectors(1) + groups * self.slices as f64 * (rows as f64 / lanes).ceil());
        let sums = POINTS as f64 * vectors(outputs) * lanes * size_of::<f32>() as f64;
        let stretches = (tiles / self.tiles as f64).ceil();
        let here = products / rate(self.isa) / REACHED
            + transformed * TRANSFORM
            + (2.0 * stretches + 1.0) * sums / BANDWIDTH;
        let pixels = images * self.spec.output.h * self.spec.output.w;
        let by_windows = (pixels * 9) as f64 * vectors(outputs) / rate(self.isa) / WINDOWS_REACHED;
        [here, by_windows]
    }

    fn per_image(&self) -> usize {
        self.spec.output.h.div_ceil(M) * self.spec.output.w.div_ceil(M)
    }

    /// Lines of scratch memory for `threads` workers.
    pub(super) fn scratch(&self, threads: usize) -> usize {
        threads + Line::count(self.layout().end() * size_of::<f32>())
    }

    fn layout(&self) -> Layout {
        let Shape { rows, width } = self.shape;
        let line = Line::BYTES / size_of::<f32>();
        // An odd number of lines from one point to the next spreads the points over the sets of the cache.
        let odd = |numbers: usize| (numbers.div_ceil(line) | 1) * line;
        let panel = self.tiles * width;
        // Vectors are written whole, also the last ones.
        let slice = self.tiles * rows + line;
        let sums = rows * width;
        let groups = self.spec.groups;
        Layout {
            panel,
            v_point: odd(groups * self.panels * panel),
            slice,
            d_point: odd(groups * self.slices * slice),
            sums,
            p_point: odd(groups * self.panels * self.slices * sums),
        }
    }

    #[inline(always)]
    fn place(&self, tile: usize) -> Place {
        let ConvSpec { input, output, padding, .. } = &self.spec;
        let across = output.w.div_ceil(M);
        let (image, tile) = (tile / self.per_image(), tile % self.per_image());
        let (y, x) = (tile / across * M, tile % across * M);
        let (top, left) = (y as isize - padding[0] as isize, x as isize - padding[1] as isize);
        Place {
            input: image * input.image() + input.at(top, left),
            grad: image * output.image() + output.at(y as isize, x as isize),
            rows: (output.h + 2 - y).min(N),
            columns: (output.w + 2 - x).min(N),
        }
    }

    /// Computes the gradient; the slices were checked, and there are pixels.
    pub(super) fn gradient<T: Element>(&self, pool: &Pool, images: usize, io: WeightGradIo<'_, T>) {
        let WeightGradIo { input, grad, weight, scratch } = io;
        let (threads, layout) = (pool.threads(), self.layout());
        let (lines, numbers) = scratch.split_at_mut(threads);
        let (v, rest) = as_f32_mut(numbers).split_at_mut(POINTS * layout.v_point);
        let (d, rest) = rest.split_at_mut(POINTS * layout.d_point);
        let (v, d, p) = (Out::new(v), Out::new(d), Out::new(rest));
        let (input, grad, lines) = (In::new(input), In::new(grad), Out::new(lines));
        let all = images * self.per_image();
        let stretches = all.div_ceil(self.tiles);
        let items = POINTS * self.spec.groups * self.panels;
        for index in 0..stretches {
            let tiles = share(all, stretches, index);
            pool.run(|worker| {
                let own = share(tiles.len(), threads, worker);
                // SAFETY: the slices hold every tile, and each worker has its own.
                unsafe {
                    self.isa.call(Transform {
                        plan: self,
                        layout,
                        tiles: tiles.clone(),
                        own,
                        input: input.at(0),
                        grad: grad.at(0),
                        v: v.at(0),
                        d: d.at(0),
                    });
                }
            });
            // SAFETY: there is a line for each worker.
            let taken = unsafe { Taken::new(lines.at(0), threads) };
            pool.run(|worker| {
                for owner in (0..threads).map(|step| (worker + step) % threads) {
                    // SAFETY: all is transformed, and each item has its own sums.
                    unsafe {
                        self.isa.call(Items {
                            plan: self,
                            layout,
                            own: share(items, threads, owner),
                            taken: (taken, owner),
                            tiles: tiles.len(),
                            v: v.at(0),
                            d: d.at(0),
                            p: p.at(0),
                            add: index > 0,
                        });
                    }
                }
            });
        }
        let weight = Out::new(&mut weight[..self.spec.weights()]);
        pool.for_each(self.spec.groups * self.panels * self.slices, |slice| {
            // SAFETY: the workers are done with the sums, and each slice of a panel has weights of its own.
            unsafe {
                self.isa.call(Finish {
                    plan: self,
                    slice,
                    p: p.at(slice * layout.sums),
                    point: layout.p_point,
                    weight: weight.at(0),
                });
            }
        });
    }
}

/// Transforms tiles of the maps.
struct Transform<'a, T> {
    plan: &'a Winograd,
    layout: Layout,
    /// The stretch, counted through all images.
    tiles: Range<usize>,
    /// Which of them.
    own: Range<usize>,
    input: *const T,
    grad: *const T,
    v: *mut f32,
    d: *mut f32,
}

impl<T: Element> Kernel for Transform<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for slot in self.own.clone() {
            let at = self.plan.place(self.tiles.start + slot);
            // Vectors are written whole, into the next gradients, which come after; unless they are another worker's.
            let rows = self.plan.shape.rows;
            let reach = rows.next_multiple_of(S::LANES);
            let shared = (self.own.end - slot) * rows < reach && self.own.end < self.tiles.len();
            // SAFETY: the tile lies in the maps, and its slot in the scratch memory.
            unsafe {
                if at.rows == N && at.columns == N {
                    self.inputs::<S, true>(&at, slot);
                    self.grads::<S, true>(&at, slot, shared);
                } else {
                    self.inputs::<S, false>(&at, slot);
                    self.grads::<S, false>(&at, slot, shared);
                }
            }
        }
    }
}

impl<T: Element> Transform<'_, T> {
    /// `V = Bᵀ d B` of all channels, with zeros behind a group's last.
    ///
    /// # Safety
    ///
    /// The tile can be read, all of it if it is `WHOLE`, and its slot written.
    #[inline(always)]
    unsafe fn inputs<S: Simd, const WHOLE: bool>(&self, at: &Place, slot: usize) {
        let Self { plan, layout, .. } = self;
        let (spec, width) = (&plan.spec, plan.shape.width);
        let (inputs, strides) = (spec.group_inputs(), [spec.input.row(), spec.input.c]);
        for panel in 0..spec.groups * plan.panels {
            let (group, first) = (panel / plan.panels, panel % plan.panels * width);
            for lane in (0..width).step_by(S::LANES) {
                let count = inputs.saturating_sub(first + lane).min(S::LANES);
                let from = self.input.wrapping_add(at.input + group * inputs + first + lane);
                // SAFETY: the same contract; no more than the channels of the group are read.
                unsafe {
                    let to = self.v.add(panel * layout.panel + slot * width + lane);
                    let to = Points { to, stride: layout.v_point, count: S::LANES };
                    if WHOLE && count == S::LANES {
                        transform::<S, T, N, true>(from, strides, [N, N, count], to);
                    } else {
                        transform::<S, T, N, false>(from, strides, [at.rows, at.columns, count], to);
                    }
                }
            }
        }
    }

    /// `D = A dY Aᵀ` of all channels. What stands behind a group's last one does not matter: its sums are not read.
    ///
    /// # Safety
    ///
    /// As [`Transform::inputs`]; what follows the slot is not written if it is `shared`.
    #[inline(always)]
    unsafe fn grads<S: Simd, const WHOLE: bool>(&self, at: &Place, slot: usize, shared: bool) {
        let Self { plan, layout, .. } = self;
        let (spec, rows) = (&plan.spec, plan.shape.rows);
        let (outputs, strides) = (spec.group_outputs(), [spec.output.row(), spec.output.c]);
        for slice in 0..spec.groups * plan.slices {
            let channel = slice / plan.slices * outputs + slice % plan.slices * rows;
            for lane in (0..rows).step_by(S::LANES) {
                let count = spec.output.c.saturating_sub(channel + lane).min(S::LANES);
                let from = self.grad.wrapping_add(at.grad + channel + lane);
                // SAFETY: the same contract; no more than the channels of the pixel are read.
                unsafe {
                    let to = self.d.add(slice * layout.slice + slot * rows + lane);
                    let own = if shared { (rows - lane).min(S::LANES) } else { S::LANES };
                    let to = Points { to, stride: layout.d_point, count: own };
                    if WHOLE && count == S::LANES {
                        transform::<S, T, M, true>(from, strides, [M, M, count], to);
                    } else {
                        transform::<S, T, M, false>(from, strides, [at.rows - 2, at.columns - 2, count], to);
                    }
                }
            }
        }
    }
}

/// Where the points of a vector go, and how many of its numbers.
#[derive(Clone, Copy)]
struct Points {
    to: *mut f32,
    stride: usize,
    count: usize,
}

/// The 36 points of one vector of channels, from `SIDE` x `SIDE` pixels: of the input (6) or of the output's gradient (4).
/// If it is not `WHOLE`, only `[rows, columns, channels]` are read; the rest counts as zero.
///
/// # Safety
///
/// The pixels can be read and the points written; the processor has the level of `S`.
#[inline(always)]
unsafe fn transform<S: Simd, T: Element, const SIDE: usize, const WHOLE: bool>(
    from: *const T,
    [row, width]: [usize; 2],
    [rows, columns, count]: [usize; 3],
    to: Points,
) {
    // SAFETY: the same contract.
    unsafe {
        let mut half = [[S::splat(0.0); MAX]; MAX];
        for j in 0..if WHOLE { SIDE } else { columns } {
            let mut d = [S::splat(0.0); MAX];
            for i in 0..SIDE {
                if WHOLE || i < rows {
                    let pixel = from.wrapping_add(i * row + j * width);
                    d[i] = if WHOLE || count == S::LANES {
                        T::load::<S>(pixel)
                    } else {
                        T::load_part::<S>(pixel, count)
                    };
                }
            }
            let v = points::<S, SIDE>(d);
            for i in 0..N {
                half[i][j] = v[i];
            }
        }
        for i in 0..N {
            let v = points::<S, SIDE>(half[i]);
            for j in 0..N {
                let to_point = to.to.add((i * N + j) * to.stride);
                if to.count == S::LANES {
                    S::store(to_point, v[j]);
                } else {
                    S::store_part(to_point, v[j], to.count);
                }
            }
        }
    }
}

/// `Bᵀ d` of six numbers or `A y` of four.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn points<S: Simd, const SIDE: usize>(d: [S::V; MAX]) -> [S::V; MAX] {
    // SAFETY: the same contract.
    unsafe { if SIDE == N { forward::<S, M>(d) } else { spread::<S>(d) } }
}

/// Items: points by panels.
struct Items<'a> {
    plan: &'a Winograd,
    layout: Layout,
    own: Range<usize>,
    /// The counter, and whose share it counts.
    taken: (Taken, usize),
    tiles: usize,
    v: *const f32,
    d: *const f32,
    p: *mut f32,
    /// Whether there are sums to add to.
    add: bool,
}

impl Kernel for Items<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { plan, layout, tiles, add, .. } = self;
        let (taken, owner) = self.taken;
        let panels = plan.spec.groups * plan.panels;
        loop {
            // SAFETY: the counter has a line for the owner.
            let item = self.own.start + unsafe { taken.next(owner) };
            if item >= self.own.end {
                return;
            }
            // One point and group after the other: its gradients stay in the second cache while all panels go over them.
            let (point, panel) = (item / panels, item % panels);
            let first = panel / plan.panels * plan.slices;
            for slice in 0..plan.slices {
                // SAFETY: the scratch memory holds every part, and the item is this worker's alone.
                unsafe {
                    let grad = self.d.add(point * layout.d_point + (first + slice) * layout.slice);
                    let sums = (panel * plan.slices + slice) * layout.sums;
                    let sums = self.p.add(point * layout.p_point + sums);
                    let panel = self.v.add(point * layout.v_point + panel * layout.panel);
                    tile::sum::<S>(grad, panel, tiles, sums, add);
                }
            }
        }
    }
}

/// `Gᵀ P G` of a slice of a panel.
struct Finish<'a> {
    plan: &'a Winograd,
    /// Counted through panels and groups.
    slice: usize,
    /// Its first point.
    p: *const f32,
    point: usize,
    weight: *mut f32,
}

/// Lanes of the widest vectors.
const WIDEST: usize = 16;

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { plan, slice, p, point, weight } = self;
        let Shape { rows, width } = plan.shape;
        let (inputs, outputs) = (plan.spec.group_inputs(), plan.spec.group_outputs());
        let (panel, slice) = (slice / plan.slices, slice % plan.slices);
        let (group, first) = (panel / plan.panels, panel % plan.panels * width);
        let g = weight_matrix(M).map(|row| row.map(|x| x as f32));
        for row in 0..rows.min(outputs - slice * rows) {
            let output = group * outputs + slice * rows + row;
            for lane in (0..width.min(inputs - first)).step_by(S::LANES) {
                let count = (inputs - first - lane).min(S::LANES);
                // SAFETY: the sums of this slice are there, and the weights of these outputs and inputs are its own.
                unsafe {
                    let from = p.add(row * width + lane);
                    let mut half = [[S::splat(0.0); MAX]; 3];
                    for j in 0..N {
                        let mut u = [S::splat(0.0); MAX];
                        for i in 0..N {
                            u[i] = S::load(from.add((i * N + j) * point));
                        }
                        let taps = taps::<S>(&g, u);
                        for i in 0..3 {
                            half[i][j] = taps[i];
                        }
                    }
                    let mut all = [[0.0_f32; WIDEST]; 9];
                    for i in 0..3 {
                        let taps = taps::<S>(&g, half[i]);
                        for j in 0..3 {
                            S::store(all[3 * i + j].as_mut_ptr(), taps[j]);
                        }
                    }
                    let to = weight.add((output * inputs + first + lane) * 9);
                    for k in 0..count {
                        for tap in 0..9 {
                            *to.add(k * 9 + tap) = all[tap][k];
                        }
                    }
                }
            }
        }
    }
}

/// `Gᵀ u`: 6 numbers to 3. The rows of `G` for two points p and -p differ in the sign of their middle.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn taps<S: Simd>(g: &[[f32; 3]; MAX], u: [S::V; MAX]) -> [S::V; 3] {
    // SAFETY: the same contract.
    unsafe {
        let (s, d) = (S::add(u[1], u[2]), S::sub(u[1], u[2]));
        let (t, e) = (S::add(u[3], u[4]), S::sub(u[3], u[4]));
        [
            S::fma(S::splat(g[0][0]), u[0], S::fma(S::splat(g[1][0]), s, S::mul(S::splat(g[3][0]), t))),
            S::fma(S::splat(g[1][1]), d, S::mul(S::splat(g[3][1]), e)),
            S::fma(S::splat(g[1][2]), s, S::fma(S::splat(g[3][2]), t, u[5])),
        ]
    }
}
