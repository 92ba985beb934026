//! 3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 3x3), in `f32`.
//!
//! The output is cut into tiles of m x m pixels. A tile's (m + 2) x (m + 2) input pixels and the kernel are transformed
//! (both at `(m + 2)²` points), multiplied point by point, summed over input channels, and transformed back: 36
//! multiplications for 16 outputs (m = 4) or 16 for 4 (m = 2), where the definition has 144 and 36.
//!
//! ```text
//! for each block of tiles (of all images in turn), for each group:
//!     V[point][tile][input channel]   = Bᵀ d B                    of each tile
//!     for each chunk of panels of output channels:
//!         M[point][tile][output channel] = V[point] U[point]      a small matrix product
//!         Y = Aᵀ M A, bias, residual, activation, store           of each tile
//! ```
//!
//! Transforms work on vectors of channels. `V` and `M` of a block stay in the cache, the weights `U` stream through it
//! once per block. Where there are many tiles, each worker has its own; where there are few, or `U` is large, the
//! workers share `V` and divide the panels, so that each weight is read by one of them alone.

mod cost;
mod pack;
mod product;
mod transform;

use super::taken::Taken;
use super::weights::{FAR, Weights};
use super::{ConvIo, ConvSpec};
use crate::error::at_least;
use crate::work::Out;
use crate::{Isa, KernelError, Line, Part, Pool, as_f32, as_f32_mut, share};
use pack::Pack;
use product::{Ask, Products, Shape};
use std::ops::Range;
use transform::{Input, Layout, Output, Sums};

pub(in crate::conv) use transform::{MAX, forward, spread, weight_matrix};

const NAME: &str = "winograd convolution";

/// Outputs per axis of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tile {
    /// F(2x2, 3x3): 2.25 times fewer multiplications; the weights grow 1.8 times.
    Two,
    /// F(4x4, 3x3): 4 times fewer; the weights grow 4 times.
    Four,
}

impl Tile {
    fn size(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    fn points(self) -> usize {
        (self.size() + 2).pow(2)
    }
}

/// A 3x3 convolution with its transformed weights.
#[derive(Debug)]
pub struct Winograd {
    spec: ConvSpec,
    tile: Tile,
    isa: Isa,
    shape: Shape,
    /// `[group, panel, point, input, output of the panel]`.
    weight: Vec<Line>,
    /// Per group, padded to whole panels.
    bias: Vec<f32>,
    blocking: Blocking,
}

/// How many tiles and panels are worked on at a time: measured with 512 KiB of second-level cache.
#[derive(Clone, Copy, Debug)]
struct Blocking {
    /// Tiles of a worker's own block. Fewer read the weights more often, more leave the cache.
    own: usize,
    /// Tiles of a block that the workers share.
    shared: usize,
    /// Panels in a chunk: 64 outputs, so that the products of a block stay in the cache and whole lines are written.
    panels: usize,
}

/// One call.
struct Job<'a> {
    plan: &'a Winograd,
    input: *const f32,
    output: *mut f32,
    residual: *const f32,
    rows: Range<usize>,
    /// Tiles side by side.
    across: usize,
    /// Tiles of an image.
    per_image: usize,
}

// SAFETY: the pointers come from slices of the caller of `Winograd::run`, which returns after all workers; the input
// and the residual are only read, and each output is written by one worker.
unsafe impl Sync for Job<'_> {}

/// Where a tile lies.
struct Place {
    image: usize,
    /// Offsets of its first pixel.
    input: usize,
    output: usize,
    residual: usize,
    /// Input rows and columns that belong to this call's windows; two less are outputs.
    rows: usize,
    columns: usize,
}

impl Job<'_> {
    fn tile(&self, tile: usize) -> Place {
        let ConvSpec { input, output, residual, padding, .. } = &self.plan.spec;
        let m = self.plan.tile.size();
        let (image, tile) = (tile / self.per_image, tile % self.per_image);
        let (y, x) = (self.rows.start + tile / self.across * m, tile % self.across * m);
        let (top, left) = (y as isize - padding[0] as isize, x as isize - padding[1] as isize);
        let (row, column) = (y as isize, x as isize);
        Place {
            image,
            input: image * input.image() + input.at(top, left),
            output: image * output.image() + output.at(row, column),
            residual: residual.map_or(0, |map| image * map.image() + map.at(row, column)),
            rows: (self.rows.end + 2 - y).min(m + 2),
            columns: (output.w + 2 - x).min(m + 2),
        }
    }
}

/// A pointer into the scratch memory that workers share.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: each use states which part of the memory belongs to which worker.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    ///
    /// The memory reaches that far.
    unsafe fn add(&self, count: usize) -> *mut f32 {
        // SAFETY: the same contract.
        unsafe { self.0.add(count) }
    }
}

impl Winograd {
    /// Whether the method can compute this convolution.
    #[must_use]
    pub fn supports(spec: &ConvSpec) -> bool {
        spec.kernel == [3, 3] && spec.stride == [1, 1] && spec.dilation == [1, 1]
    }

    /// Transforms the weight `[outputs, inputs / groups, 3, 3]`, with the larger tile.
    ///
    /// # Errors
    ///
    /// The description is inconsistent or not [supported](Self::supports), or a slice is too short.
    pub fn new(spec: &ConvSpec, weight: &[f32], bias: Option<&[f32]>, isa: Isa) -> Result<Self, KernelError> {
        Self::with_tile(spec, Tile::Four, weight, bias, isa)
    }

    /// The size of its tiles.
    pub(crate) fn tile(&self) -> Tile {
        self.tile
    }

    /// The same with a chosen size of tiles.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_tile(
        spec: &ConvSpec,
        tile: Tile,
        weight: &[f32],
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        spec.check()?;
        if !Self::supports(spec) {
            return Err(KernelError::spec(NAME, "not a 3x3 kernel of stride and dilation 1"));
        }
        at_least(NAME, "weight", weight.len(), spec.weights())?;
        if let Some(bias) = bias {
            at_least(NAME, "bias", bias.len(), spec.output.c)?;
        }
        Ok(Self::of(spec, tile, Weights::plain(spec, weight), bias, isa))
    }

    /// The same for a convolution that was checked, with its bias.
    pub(crate) fn of(
        spec: &ConvSpec,
        tile: Tile,
        weights: Weights<'_>,
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Self {
        // SAFETY: this kernel promises nothing.
        let shape = unsafe { isa.call(Ask) };
        let blocking = Blocking::new(spec, shape);
        let width = panels(spec, shape) * shape.outputs;
        let numbers = spec.groups * width * tile.points() * spec.group_inputs();
        let weight = crate::zeroed(Line::count(numbers * size_of::<f32>()));
        let padded = vec![0.0; spec.groups * width];
        let mut this = Self { spec: spec.clone(), tile, isa, shape, weight, bias: padded, blocking };
        let packed = Out::new(as_f32_mut(&mut this.weight));
        (0..spec.groups * this.panels()).for_each(|panel| this.pack(panel, weights, packed));
        this.set_bias(bias);
        this
    }

    pub(crate) fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Transforms other weights, with another bias.
    pub(crate) fn repack(&mut self, pool: &Pool, weights: Weights<'_>, bias: Option<&[f32]>) {
        let packed = Out::new(as_f32_mut(&mut self.weight));
        let this = &*self;
        pool.for_each(this.spec.groups * this.panels(), |panel| this.pack(panel, weights, packed));
        self.set_bias(bias);
    }

    /// Transforms the weights of one panel, counted through the groups; `packed` is the memory of all.
    fn pack(&self, panel: usize, weights: Weights<'_>, packed: Out<f32>) {
        let Shape { outputs: width, .. } = self.shape;
        let (inputs, outputs) = (self.spec.group_inputs(), self.spec.group_outputs());
        let (group, first) = (panel / self.panels(), panel % self.panels() * width);
        let count = (outputs - first).min(width);
        let far = size_of_val(&self.weight[..]) >= FAR;
        // SAFETY: the memory holds every panel, and panels lie apart; the outputs are among the group's.
        unsafe {
            let to = packed.at(panel * self.tile.points() * inputs * width);
            match self.tile {
                Tile::Two => {
                    self.isa.call(Pack::<2> { weights, group, first, count, inputs, width, to, far });
                }
                Tile::Four => {
                    self.isa.call(Pack::<4> { weights, group, first, count, inputs, width, to, far });
                }
            }
        }
    }

    fn set_bias(&mut self, bias: Option<&[f32]>) {
        let (outputs, width) = (self.spec.group_outputs(), self.panels() * self.shape.outputs);
        match bias {
            Some(bias) => {
                for (padded, bias) in self.bias.chunks_mut(width).zip(bias.chunks(outputs)) {
                    padded[..bias.len()].copy_from_slice(bias);
                }
            }
            None => self.bias.fill(0.0),
        }
    }

    /// Bytes of the transformed weights.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        size_of_val(self.weight.as_slice())
    }

    /// Lines of scratch memory that [`run`](Self::run) needs with so many threads.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        let own = threads * (self.v(self.blocking.own) + self.m(self.blocking.own) + 2 * self.sums());
        let shared = self.spec.groups * self.v(self.blocking.shared) + threads * self.m(self.blocking.shared);
        threads + Line::count(own.max(shared) * size_of::<f32>())
    }

    /// Numbers of the transformed inputs of one group of a block.
    fn v(&self, tiles: usize) -> usize {
        self.tile.points() * self.v_layout(tiles).point
    }

    fn v_layout(&self, tiles: usize) -> Layout {
        Layout::new(tiles, self.spec.group_inputs().next_multiple_of(self.shape.lanes))
    }

    /// Numbers of the products of one chunk of a block.
    fn m(&self, tiles: usize) -> usize {
        self.tile.points() * self.m_layout(tiles).point
    }

    fn m_layout(&self, tiles: usize) -> Layout {
        Layout::new(tiles, self.blocking.panels * self.shape.outputs)
    }

    /// Numbers of one row of partial sums: whole cache lines.
    fn sums(&self) -> usize {
        self.spec.output.c.next_multiple_of(16)
    }

    fn panels(&self) -> usize {
        panels(&self.spec, self.shape)
    }

    /// Computes one part.
    ///
    /// # Errors
    ///
    /// A slice is missing or too short, or the part does not lie in the output.
    pub fn run(&self, pool: &Pool, part: &Part, io: ConvIo<'_, f32>) -> Result<(), KernelError> {
        self.spec.check_io(part, &io)?;
        let threads = pool.threads();
        at_least(NAME, "scratch", io.scratch.len(), self.scratch(threads))?;
        if part.images == 0 || part.rows.is_empty() {
            return Ok(());
        }
        let m = self.tile.size();
        let across = self.spec.output.w.div_ceil(m);
        let job = Job {
            plan: self,
            input: io.input.as_ptr(),
            output: io.output.as_mut_ptr(),
            residual: io.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            rows: part.rows.clone(),
            across,
            per_image: across * part.rows.len().div_ceil(m),
        };
        let pooled = match io.pooled {
            Some(pooled) if self.spec.pooled => &mut pooled[..part.images * self.spec.output.c],
            _ => &mut [],
        };
        if part.rows.start == 0 {
            pooled.fill(0.0);
        }
        let tiles = part.images * job.per_image;
        let (lines, scratch) = io.scratch.split_at_mut(threads);
        let scratch = (lines, as_f32_mut(scratch));
        if Blocking::share(tiles, threads) {
            self.run_shared(pool, &job, tiles, scratch, pooled);
        } else {
            self.run_own(pool, &job, tiles, scratch, pooled);
        }
        if part.rows.end == self.spec.output.h {
            let pixels = (self.spec.output.h * self.spec.output.w) as f32;
            pooled.iter_mut().for_each(|sum| *sum /= pixels);
        }
        Ok(())
    }

    /// Each worker has its own tiles, and reads all weights.
    fn run_own(
        &self,
        pool: &Pool,
        job: &Job<'_>,
        tiles: usize,
        (lines, scratch): (&mut [Line], &mut [f32]),
        pooled: &mut [f32],
    ) {
        let threads = pool.threads();
        // SAFETY: there is a line for each worker.
        let taken = unsafe { Taken::new(lines.as_mut_ptr(), threads) };
        // Means are gathered worker by worker, so there nobody helps.
        let reached = if pooled.is_empty() { threads } else { 1 };
        let (v_len, m_len, sums_len) = (self.v(self.blocking.own), self.m(self.blocking.own), self.sums());
        let each = v_len + m_len + 2 * sums_len;
        let base = Shared(scratch.as_mut_ptr());
        let all = Shared(if pooled.is_empty() { std::ptr::null_mut() } else { pooled.as_mut_ptr() });
        pool.run(|worker| {
            let own = share(tiles, threads, worker);
            if own.is_empty() {
                return;
            }
            // SAFETY: `scratch` holds `each` numbers for every worker. The blocks are as long as their layouts say; of
            // the means, a worker writes those of images that are all its own.
            unsafe {
                let v = base.add(worker * each);
                let m = v.add(v_len);
                let first_sums = m.add(m_len);
                let last_sums = first_sums.add(sums_len);
                std::ptr::write_bytes(first_sums, 0, 2 * sums_len);
                let (first, last) = (own.start / job.per_image, (own.end - 1) / job.per_image);
                let sums = Sums { all: all.add(0), first, first_sums, last, last_sums };
                for owner in (0..reached).map(|step| (worker + step) % threads) {
                    let own = share(tiles, threads, owner);
                    let blocks = own.len().div_ceil(self.blocking.own);
                    let units = self.spec.groups * blocks;
                    // Groups outside: the weights of one may stay in the cache while all tiles pass.
                    while let Some(unit) = Some(taken.next(owner)).filter(|&unit| unit < units) {
                        let (group, block) = (unit / blocks, share(own.len(), blocks, unit % blocks));
                        let block = own.start + block.start..own.start + block.end;
                        self.input(job, block.clone(), block.len(), group, v);
                        self.panels_of(job, block, group, 0..self.panels(), v, m, sums);
                    }
                }
            }
        });
        if pooled.is_empty() {
            return;
        }
        for worker in 0..threads {
            let own = share(tiles, threads, worker);
            if own.is_empty() {
                continue;
            }
            let at = worker * each + v_len + m_len;
            for (image, at) in [own.start / job.per_image, (own.end - 1) / job.per_image]
                .into_iter()
                .zip([at, at + sums_len])
            {
                let outputs = self.spec.output.c;
                let partial = &scratch[at..at + outputs];
                pooled[image * outputs..][..outputs].iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
            }
        }
    }

    /// The workers transform a block of tiles together, then divide the panels.
    fn run_shared(
        &self,
        pool: &Pool,
        job: &Job<'_>,
        tiles: usize,
        (lines, scratch): (&mut [Line], &mut [f32]),
        pooled: &mut [f32],
    ) {
        let threads = pool.threads();
        // Several chunks of panels for each worker, so that they end together.
        let even = (4 * threads).div_ceil(self.spec.groups).min(self.panels());
        let chunks = self.panels().div_ceil(self.blocking.panels).max(even);
        let (v_len, m_len) = (self.v(self.blocking.shared), self.m(self.blocking.shared));
        let base = Shared(scratch.as_mut_ptr());
        let all = Shared(if pooled.is_empty() { std::ptr::null_mut() } else { pooled.as_mut_ptr() });
        let blocks = tiles.div_ceil(self.blocking.shared);
        for block in 0..blocks {
            let block = share(tiles, blocks, block);
            pool.run(|worker| {
                let own = share(block.len(), threads, worker);
                for group in 0..self.spec.groups {
                    let layout = self.v_layout(block.len());
                    // SAFETY: `scratch` begins with a block for each group; of each, a worker writes its own tiles.
                    unsafe {
                        let v = base.add(group * v_len + own.start * layout.tile);
                        let own = block.start + own.start..block.start + own.end;
                        self.input(job, own, block.len(), group, v);
                    }
                }
            });
            // SAFETY: there is a line for each worker.
            let taken = unsafe { Taken::new(lines.as_mut_ptr(), threads) };
            pool.run(|worker| {
                for owner in (0..threads).map(|step| (worker + step) % threads) {
                    let own = share(self.spec.groups * chunks, threads, owner);
                    // SAFETY: the share is one of those.
                    let next = || Some(own.start + unsafe { taken.next(owner) });
                    while let Some(unit) = next().filter(|&unit| unit < own.end) {
                        let (group, chunk) = (unit / chunks, unit % chunks);
                        // SAFETY: after the groups' blocks there is one for each worker's products; nobody writes `v`
                        // now, and outputs and means of a chunk of panels are written by who took it.
                        unsafe {
                            let m = base.add(self.spec.groups * v_len + worker * m_len);
                            let v = base.add(group * v_len);
                            let sums = Sums::direct(all.add(0));
                            let panels = share(self.panels(), chunks, chunk);
                            self.panels_of(job, block.clone(), group, panels, v, m, sums);
                        }
                    }
                }
            });
        }
    }

    /// Transforms `tiles`, which are all or some of a block of `block`, for `group`.
    ///
    /// # Safety
    ///
    /// `v` is the place of the first tile in a block that this worker may write for these tiles.
    unsafe fn input(&self, job: &Job<'_>, tiles: Range<usize>, block: usize, group: usize, v: *mut f32) {
        let channels = self.spec.group_inputs();
        let (channel, layout) = (group * channels, self.v_layout(block));
        // SAFETY: the same contract.
        unsafe {
            match self.tile {
                Tile::Two => self.isa.call(Input::<2> { job, tiles, channel, channels, to: v, layout }),
                Tile::Four => self.isa.call(Input::<4> { job, tiles, channel, channels, to: v, layout }),
            }
        }
    }

    /// Multiplies a block with these panels of a group and finishes their outputs.
    ///
    /// # Safety
    ///
    /// `v` holds the transformed tiles, `m` has room for a chunk of products, and no other worker writes these outputs.
    #[expect(clippy::too_many_arguments, reason = "a part of two callers, with their variables")]
    unsafe fn panels_of(
        &self,
        job: &Job<'_>,
        tiles: Range<usize>,
        group: usize,
        panels: Range<usize>,
        v: *const f32,
        m: *mut f32,
        sums: Sums,
    ) {
        let (inputs, outputs) = (self.spec.group_inputs(), self.spec.group_outputs());
        let weight = as_f32(&self.weight);
        let panel = self.tile.points() * inputs * self.shape.outputs;
        let mut next = panels.start;
        while next < panels.end {
            let first = next;
            next = panels.end.min(first + self.blocking.panels);
            let in_group = first * self.shape.outputs;
            let layout = self.m_layout(tiles.len());
            let products = Products {
                points: self.tile.points(),
                tiles: tiles.len(),
                inputs,
                panels: next - first,
                v,
                v_layout: self.v_layout(tiles.len()),
                u: weight[(group * self.panels() + first) * panel..].as_ptr(),
                m,
                m_layout: layout,
            };
            let bias = self.bias[group * self.panels() * self.shape.outputs + in_group..].as_ptr();
            let channel = group * outputs + in_group;
            let channels = outputs.min(next * self.shape.outputs) - in_group;
            let tiles = tiles.clone();
            // SAFETY: the weights hold these panels, the rest is the same contract.
            unsafe {
                self.isa.call(products);
                match self.tile {
                    Tile::Two => {
                        self.isa.call(Output::<2> {
                            job,
                            tiles,
                            channel,
                            channels,
                            from: m,
                            layout,
                            bias,
                            sums,
                        });
                    }
                    Tile::Four => {
                        self.isa.call(Output::<4> {
                            job,
                            tiles,
                            channel,
                            channels,
                            from: m,
                            layout,
                            bias,
                            sums,
                        });
                    }
                }
            }
        }
    }
}

/// Panels of a group.
fn panels(spec: &ConvSpec, shape: Shape) -> usize {
    spec.group_outputs().div_ceil(shape.outputs)
}

impl Blocking {
    fn new(spec: &ConvSpec, shape: Shape) -> Self {
        Self { own: 24, shared: 48, panels: panels(spec, shape).min((64 / shape.outputs).max(1)) }
    }

    /// Whether the workers share their blocks.
    fn share(tiles: usize, threads: usize) -> bool {
        threads > 1 && tiles < threads * 16
    }
}
