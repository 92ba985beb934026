//! Convolution as a matrix product without a copy of the windows: any kernel, stride, dilation and grouping.
//!
//! With channels last, a row of a window is one run of memory, the same for every pixel but for where it starts. So
//! the product reads the windows where they are.

mod moments;
mod pack;
mod plan;
mod queue;
mod tile;
mod work;

use super::taken::Taken;
use super::weights::{FAR, Weights};
use super::{CONV, ConvIo, ConvSpec};
use crate::error::{at_least, same_format};
use crate::work::Out;
use crate::{Bf16, DType, Element, Isa, KernelError, Line, Part, Pool, share};
use moments::Moments;
use pack::{Pack, Piece};
use plan::{Panel, Plan};
use queue::Share;
use work::{Call, Work};

/// A convolution with packed weights.
#[derive(Debug)]
pub(crate) struct Direct {
    spec: ConvSpec,
    dtype: DType,
    isa: Isa,
    plan: Plan,
    pieces: Vec<Piece>,
    weights: Vec<Line>,
    /// One for each channel of each panel, padded like the panels.
    bias: Vec<f32>,
    /// The most pixels of a block.
    block: usize,
}

/// Bytes of input that a block may touch: half of a small second cache.
const BLOCK_BYTES: usize = 256 << 10;
/// The most pixels of a block, which the scratch memory is made for.
const BLOCK: usize = 240;

/// A worker's part of the scratch memory.
#[derive(Clone, Copy)]
struct Scratch {
    /// Where the windows of two blocks' pixels start.
    inputs: *mut usize,
    /// Where a block's pixels are in the output and the residual.
    outputs: *mut usize,
    residuals: *mut usize,
    /// Sums between slices: a block by a panel.
    sums: *mut f32,
    /// Sums over the pixels of the worker's first and last image.
    pooled: *mut f32,
}

impl Direct {
    /// Packs the weights of a convolution that was checked, with its bias.
    pub(crate) fn new(
        spec: &ConvSpec,
        weights: Weights<'_>,
        bias: Option<&[f32]>,
        dtype: DType,
        isa: Isa,
    ) -> Self {
        let plan = Plan::new(spec, dtype, isa);
        let packed = crate::zeroed(Line::count(plan.weights * dtype.bytes()));
        let padded = vec![0.0; plan.panels.len() * plan.tile.width()];
        let block = block(spec, dtype, plan.tile.rows);
        let pieces = pack::pieces(spec, &plan);
        let mut this =
            Self { spec: spec.clone(), dtype, isa, plan, pieces, weights: packed, bias: padded, block };
        let packed = Out::new(&mut this.weights);
        this.plan.panels.iter().for_each(|panel| this.pack(panel, weights, packed));
        this.set_bias(bias);
        this
    }

    pub(crate) fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Packs other weights and another bias.
    pub(crate) fn repack(&mut self, pool: &Pool, weights: Weights<'_>, bias: Option<&[f32]>) {
        let packed = Out::new(&mut self.weights);
        let this = &*self;
        pool.for_each(this.plan.panels.len(), |panel| this.pack(&this.plan.panels[panel], weights, packed));
        self.set_bias(bias);
    }

    /// Packs one panel; `packed` is the memory of all.
    fn pack(&self, panel: &Panel, weights: Weights<'_>, packed: Out<Line>) {
        let (spec, plan, pieces) = (&self.spec, &self.plan, &self.pieces[..]);
        let far = size_of_val(&self.weights[..]) >= FAR;
        // SAFETY: the memory was made for the plan; zeros are numbers of either format, and panels lie apart.
        unsafe {
            let packed = packed.at(0);
            match self.dtype {
                DType::F32 => {
                    let packed = packed.cast::<f32>();
                    self.isa.call(Pack { spec, plan, pieces, panel, weights, packed, far });
                }
                DType::Bf16 => {
                    let packed = packed.cast::<Bf16>();
                    self.isa.call(Pack { spec, plan, pieces, panel, weights, packed, far });
                }
            }
        }
    }

    fn set_bias(&mut self, bias: Option<&[f32]>) {
        for (panel, padded) in self.plan.panels.iter().zip(self.bias.chunks_exact_mut(self.plan.tile.width()))
        {
            match bias {
                Some(bias) => {
                    padded[..panel.width].copy_from_slice(&bias[panel.channel..][..panel.width]);
                }
                None => padded.fill(0.0),
            }
        }
    }

    /// Products of a pixel in vectors, padding included, and elements of the packed weights.
    pub(crate) fn size(spec: &ConvSpec, dtype: DType, isa: Isa) -> (usize, usize) {
        let plan = Plan::new(spec, dtype, isa);
        (plan.vectors(), plan.weights)
    }

    /// Lines of scratch memory for `threads` workers.
    pub(crate) fn scratch(&self, threads: usize) -> usize {
        threads * (1 + self.parts().iter().sum::<usize>())
    }

    /// Bytes of the packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.weights.len() * Line::BYTES
    }

    /// Pixels by output channels of the register tile.
    pub(crate) fn tile(&self) -> [usize; 2] {
        [self.plan.tile.rows, self.plan.tile.width()]
    }

    /// Computes `part`.
    pub(crate) fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        io: ConvIo<'_, T>,
    ) -> Result<(), KernelError> {
        self.run_with(pool, part, io, None)
    }

    /// Lines of scratch memory for [`run_with_statistics`](Self::run_with_statistics).
    pub(crate) fn statistics_scratch(&self, images: usize, threads: usize) -> usize {
        let pixels = images * self.spec.output.h * self.spec.output.w;
        let sums = Line::count(2 * self.spec.output.c * size_of::<f64>());
        self.scratch(threads) + Moments::lines(self, pixels, threads) + sums
    }

    /// Computes whole images, and the mean and biased variance of each output channel.
    pub(crate) fn run_with_statistics<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: ConvIo<'_, T>,
        statistics: [&mut [f32]; 2],
    ) -> Result<(), KernelError> {
        let scratch = self.statistics_scratch(images, pool.threads());
        at_least(CONV, "scratch", io.scratch.len(), scratch)?;
        for (operand, slice) in [("mean", &statistics[0]), ("variance", &statistics[1])] {
            at_least(CONV, operand, slice.len(), self.spec.output.c)?;
        }
        self.run_with(pool, &Part::whole(images, self.spec.output.h), io, Some(statistics))
    }

    /// Computes `part`; statistics are of whole images, and the scratch memory has room for them.
    fn run_with<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        io: ConvIo<'_, T>,
        statistics: Option<[&mut [f32]; 2]>,
    ) -> Result<(), KernelError> {
        self.spec.check_io(part, &io)?;
        same_format::<T>(CONV, self.dtype)?;
        at_least(CONV, "scratch", io.scratch.len(), self.scratch(pool.threads()))?;
        let ConvIo { input, output, residual, pooled, scratch } = io;
        let (scratch, more) = scratch.split_at_mut(self.scratch(pool.threads()));
        let channels = self.spec.output.c;
        let mut pooled =
            pooled.filter(|_| self.spec.pooled).map(|pooled| &mut pooled[..part.images * channels]);
        if let Some(pooled) = &mut pooled
            && part.rows.start == 0
        {
            pooled.fill(0.0);
        }
        let pixels = part.images * part.rows.len() * self.spec.output.w;
        if pixels > 0 {
            let grid = self.grid(pixels, pool.threads());
            let lines = scratch.as_mut_ptr();
            // SAFETY: the scratch memory was checked to hold a line for each worker beside the workers' parts.
            let (taken, scratch) =
                unsafe { (Taken::new(lines, pool.threads()), SharedScratch(lines.add(pool.threads()))) };
            let moments = statistics.is_some().then(|| Moments::new(self, &grid, pixels, more.as_mut_ptr()));
            let call = Call {
                direct: self,
                part,
                pixels,
                grid,
                taken,
                input: input.as_ptr(),
                output: output.as_mut_ptr(),
                residual: residual.filter(|_| self.spec.residual.is_some()).map(<[T]>::as_ptr),
                pooled: pooled.as_mut().map(|pooled| pooled.as_mut_ptr()),
                moments,
            };
            pool.run(|worker| {
                // SAFETY: the scratch memory was checked to hold every worker's part, and no two overlap.
                let scratch = unsafe { self.own_scratch(&scratch, worker) };
                // SAFETY: the slices were checked to hold every pixel of the part and its window, the level is the one
                // that the weights were packed for, and no other worker takes the same units.
                unsafe { self.isa.call(Work { call, worker, scratch }) }
            });
            if let Some(pooled) = &mut pooled {
                self.gather(pooled, pixels / part.images, &grid, pixels, &scratch);
            }
            if let (Some(moments), Some(statistics)) = (moments, statistics) {
                let shares: Vec<_> = (0..grid.pixels)
                    .map(|number| {
                        let pixels = share(pixels, grid.pixels, number);
                        let block = Share::new(self, pixels.clone(), 0..self.plan.panels.len()).block;
                        (pixels, block)
                    })
                    .collect();
                let lines = Moments::lines(self, pixels, pool.threads());
                // SAFETY: the workers are done; the blocks of a share are the same for whatever panels it has.
                unsafe { moments.finish(&shares, statistics, &mut more[lines..]) };
            }
        }
        if let Some(pooled) = pooled
            && part.rows.end == self.spec.output.h
            && pixels > 0
        {
            let scale = 1.0 / (self.spec.output.h * self.spec.output.w) as f32;
            pooled.iter_mut().for_each(|sum| *sum *= scale);
        }
        Ok(())
    }

    /// Lines of each part of a worker's scratch memory, in the order of [`Scratch`].
    fn parts(&self) -> [usize; 5] {
        let table = Line::count(BLOCK * size_of::<usize>());
        let sums = Line::count(BLOCK * self.plan.tile.width() * size_of::<f32>());
        let pooled =
            if self.spec.pooled { Line::count(2 * self.spec.output.c * size_of::<f32>()) } else { 0 };
        [2 * table, table, table, sums, pooled]
    }

    /// # Safety
    ///
    /// `scratch` holds the parts of all workers up to `worker`.
    unsafe fn own_scratch(&self, scratch: &SharedScratch, worker: usize) -> Scratch {
        let parts = self.parts();
        let mut at = worker * parts.iter().sum::<usize>();
        let starts = parts.map(|lines| {
            at += lines;
            // SAFETY: the same contract.
            unsafe { scratch.0.add(at - lines) }
        });
        let [inputs, outputs, residuals, sums, pooled] = starts;
        if self.spec.pooled {
            // SAFETY: the part holds two sums for each channel.
            unsafe { pooled.cast::<f32>().write_bytes(0, 2 * self.spec.output.c) };
        }
        Scratch {
            inputs: inputs.cast(),
            outputs: outputs.cast(),
            residuals: residuals.cast(),
            sums: sums.cast(),
            pooled: pooled.cast(),
        }
    }

    /// Adds the workers' sums over their first and last images to `pooled`, in the order of the workers.
    fn gather(&self, pooled: &mut [f32], image: usize, grid: &Grid, pixels: usize, scratch: &SharedScratch) {
        let channels = self.spec.output.c;
        for worker in 0..grid.len() {
            let Some((pixels, panels)) = grid.share(pixels, self.plan.panels.len(), worker) else { continue };
            let parts = self.parts();
            let at = (worker + 1) * parts.iter().sum::<usize>() - parts[4];
            let (first, last) = (pixels.start / image, (pixels.end - 1) / image);
            let panels = &self.plan.panels[panels];
            let channels_from = panels[0].channel;
            let channels_to = panels[panels.len() - 1].channel + panels[panels.len() - 1].width;
            for (slot, image) in (first..=last).step_by((last - first).max(1)).enumerate() {
                for channel in channels_from..channels_to {
                    // SAFETY: the workers are done, and each wrote zeros or sums for every channel to both slots.
                    let sum = unsafe { *scratch.0.add(at).cast::<f32>().add(slot * channels + channel) };
                    pooled[image * channels + channel] += sum;
                }
            }
        }
    }

    /// How a call's pixels and panels are split over `threads` workers.
    fn grid(&self, pixels: usize, threads: usize) -> Grid {
        let panels = self.plan.panels.len();
        let tile = self.plan.tile.rows;
        let depth = self.plan.weights / self.plan.panels.len().max(1);
        let cost = |grid: &Grid| {
            // A tile is cheaper with fewer pixels, but not by all of it.
            let pixels = pixels.div_ceil(grid.pixels);
            let tiles = pixels.div_ceil(tile);
            let work = (pixels + tiles) * panels.div_ceil(grid.panels) * depth;
            // Weights and inputs that each worker reads, against sixteen products a cycle.
            let weights = panels.div_ceil(grid.panels) * depth * pixels.div_ceil(self.block);
            let inputs = pixels * self.spec.input.c;
            work + 2 * (weights + inputs)
        };
        (1..=threads.min(panels))
            .map(|panels| Grid { pixels: (threads / panels).min(pixels), panels })
            .min_by_key(cost)
            .unwrap_or(Grid { pixels: 1, panels: 1 })
    }
}

/// The scratch memory of all workers.
struct SharedScratch(*mut Line);

// SAFETY: each worker derives pointers to its own part alone.
unsafe impl Sync for SharedScratch {}

/// A split of the pixels and of the panels; worker by worker, the panels vary first.
#[derive(Clone, Copy, Debug)]
struct Grid {
    pixels: usize,
    panels: usize,
}

impl Grid {
    /// How many shares there are.
    fn len(&self) -> usize {
        self.pixels * self.panels
    }

    /// The pixels and panels of `worker`, if there are any.
    fn share(
        &self,
        pixels: usize,
        panels: usize,
        worker: usize,
    ) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
        if worker >= self.len() {
            return None;
        }
        let pixels = share(pixels, self.pixels, worker / self.panels);
        let panels = share(panels, self.panels, worker % self.panels);
        (!pixels.is_empty() && !panels.is_empty()).then_some((pixels, panels))
    }
}

/// The pieces of a group's window that lie in one stretch of memory: offset and length of each, from the window's first
/// element on.
pub(super) fn window_runs(spec: &ConvSpec) -> Vec<(usize, usize)> {
    plan::runs(spec, spec.groups).iter().map(|run| (run.offset, run.len)).collect()
}

/// The most pixels of a block, a multiple of the tile's.
fn block(spec: &ConvSpec, dtype: DType, rows: usize) -> usize {
    // Windows overlap, and a stride may leave pixels out.
    let fresh: usize = (0..2).map(|axis| spec.stride[axis].min(spec.kernel[axis])).product();
    let pixel = fresh * spec.input.c * dtype.bytes();
    let fits = (BLOCK_BYTES / pixel).clamp(8 * rows, BLOCK);
    (fits / rows).max(1) * rows
}
