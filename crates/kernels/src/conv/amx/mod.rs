//! Convolution of bf16 on tile registers.
//!
//! ```text
//! for block of pixels (fits L2):                     one pair where the weights fit L2
//!   for panel of 32 outputs:                         its weights are one contiguous stream
//!     for pair of tiles of 16 pixels:
//!       acc[2][2] = 0                                16 pixels x 16 outputs each, f32
//!       for step of 32 products: acc += pixels[2] x weights[2]
//!       bias, residual, activation, bf16, sums for the mean
//! ```
//!
//! 1. A tile of pixels is loaded straight from the channels-last input ([`walk`]), 32 channels of a tap at a time; what
//!    is left of narrow or odd channel counts is copied to scratch, once for all panels ([`steps`]).
//! 2. The accumulators of one pair are written out while the products of the next are under way: the epilogue of a
//!    pair runs after the next pair's products were issued.
//! 3. Every output is computed by one worker, in the same order whatever the number of threads. Only the sums for the
//!    means depend on it.

mod epilogue;
mod plan;
mod share;
#[cfg(test)]
pub(super) mod software;
mod steps;
#[cfg(test)]
pub(super) mod tests;
mod walk;

use self::plan::Plan;
use self::share::{BUFFERS, Job, Share};
use self::steps::{PANEL, Panel, Place, Steps, TILE_LINES};
use self::walk::{Copied, Walk};
use super::weights::Weights;
use crate::error::at_least;
use crate::work::Out;
use crate::x86::amx::{Hardware, Tiles};
use crate::{Bf16, ConvIo, ConvSpec, Isa, KernelError, Level, Line, Part, Pool, share as share_of};
use std::ops::Range;

const AMX: &str = "convolution on tiles";

/// A convolution with packed weights.
#[derive(Debug)]
pub struct Amx {
    spec: ConvSpec,
    steps: Steps,
    /// What each number of each step is.
    places: Vec<Option<Place>>,
    panels: Vec<Panel>,
    weight: Vec<Line>,
    /// 32 numbers for each panel.
    bias: Vec<f32>,
    isa: Isa,
}

impl Amx {
    /// Packs `weight` (`[outputs, inputs / groups, rows, columns]`).
    ///
    /// # Errors
    ///
    /// The specification does not hold together, `isa` is not [`Level::Amx`], or an operand is too short.
    pub fn new(spec: &ConvSpec, weight: &[f32], bias: Option<&[f32]>, isa: Isa) -> Result<Self, KernelError> {
        if isa.level() != Level::Amx {
            return Err(KernelError::spec(AMX, format!("needs {}, not {isa}", Level::Amx)));
        }
        Self::pack(spec, weight, bias, isa)
    }

    fn pack(spec: &ConvSpec, weight: &[f32], bias: Option<&[f32]>, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        at_least(AMX, "weight", weight.len(), spec.weights())?;
        if let Some(bias) = bias {
            at_least(AMX, "bias", bias.len(), spec.output.c)?;
        }
        Ok(Self::of(spec, Weights::plain(spec, weight), bias, isa))
    }

    /// The same for a convolution that was checked, with its bias.
    pub(crate) fn of(spec: &ConvSpec, weights: Weights<'_>, bias: Option<&[f32]>, isa: Isa) -> Self {
        let steps = Steps::new(spec);
        let panels = steps::panels(spec, &steps);
        let places = steps.places();
        let lines = panels.iter().map(|panel| steps.len() * panel.tiles() * TILE_LINES).sum();
        let padded = vec![0.0; panels.len() * PANEL];
        let weight = crate::zeroed(lines);
        let mut this = Self { spec: spec.clone(), steps, places, panels, weight, bias: padded, isa };
        let packed = Out::new(&mut this.weight);
        this.panels.iter().for_each(|panel| this.pack_panel(panel, weights, packed));
        this.set_bias(bias);
        this
    }

    pub(crate) fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Packs other weights and another bias.
    pub(crate) fn repack(&mut self, pool: &Pool, weights: Weights<'_>, bias: Option<&[f32]>) {
        let packed = Out::new(&mut self.weight);
        let this = &*self;
        pool.for_each(this.panels.len(), |panel| this.pack_panel(&this.panels[panel], weights, packed));
        self.set_bias(bias);
    }

    /// Packs one panel; `packed` is the memory of all.
    fn pack_panel(&self, panel: &Panel, weights: Weights<'_>, packed: Out<Line>) {
        let (spec, steps, places) = (&self.spec, &self.steps, &self.places[..]);
        // SAFETY: the memory was made for these panels, which lie apart.
        unsafe {
            let to = packed.at(panel.line).cast();
            self.isa.call(steps::Pack { spec, steps, places, panel, weights, to });
        }
    }

    fn set_bias(&mut self, bias: Option<&[f32]>) {
        for (panel, to) in self.panels.iter().zip(self.bias.chunks_exact_mut(PANEL)) {
            match bias {
                Some(bias) => to[..panel.outputs].copy_from_slice(&bias[panel.first..][..panel.outputs]),
                None => to.fill(0.0),
            }
        }
    }

    /// Whether tiles can compute this: any convolution that holds together.
    #[must_use]
    pub fn supports(spec: &ConvSpec) -> bool {
        spec.check().is_ok()
    }

    /// Bytes of the packed weights and the bias.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }

    /// Lines of scratch that [`run`](Self::run) needs on a pool of `threads`.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        self.table_lines() + self.copy_lines() + threads * self.worker_lines()
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the rows are not the output's.
    pub fn run(&self, pool: &Pool, part: &Part, io: ConvIo<'_, Bf16>) -> Result<(), KernelError> {
        self.run_on::<Hardware>(pool, part, io)
    }

    /// Estimates the seconds that [`run`](Self::run) takes for whole images.
    ///
    /// Measured: a tile load and a product each take 5.9 ns whatever the rows, and hide each other; 3x3 layers whose
    /// weights and pixels both come from L2 reach 1.5 of 2.75 TFLOP/s; two cores read 75 to 17 GB/s, the less the
    /// more. Guessed: the epilogue of a panel and a pair of tiles takes about 40 ns, handing work to the threads 2 us.
    #[must_use]
    pub fn cost(spec: &ConvSpec, images: usize, threads: usize) -> f64 {
        let steps = Steps::new(spec);
        let plan = Plan::new(spec, &steps, images.max(1), &(0..spec.output.h));
        let passes = images.max(1).div_ceil(plan.images);
        let panels = (spec.groups / steps.groups * steps.outputs.div_ceil(PANEL)) as f64;
        let from_l1 = steps.len() * 4 * TILE_LINES * Line::BYTES <= 40 << 10;
        let products = plan.nanoseconds(spec, &steps) * if from_l1 { 1.0 } else { 1.8 };
        let pass_ns = products + panels * 20.0 * plan.walk.tiles as f64;
        let compute = pass_ns * passes as f64 / threads.max(1) as f64;
        let maps = spec.input.image() + spec.output.image() * if spec.residual.is_some() { 2 } else { 1 };
        let bytes = (images * maps * 2 + spec.weights() * 2) as f64;
        let bandwidth = match bytes {
            ..1e6 => 75.0,
            ..8e6 => 33.0,
            ..64e6 => 24.0,
            _ => 17.0,
        };
        (compute.max(bytes / bandwidth) + 2000.0) * 1e-9
    }

    /// Lines of the offsets of steps and pieces.
    fn table_lines(&self) -> usize {
        Line::count((self.steps.direct.len() + self.steps.pieces.len()) * size_of::<usize>())
    }

    fn copy_lines(&self) -> usize {
        let images = plan::copy_images(&self.spec, &self.steps);
        if images == 0 {
            return 0;
        }
        Line::count(Copied::new(&self.spec, &(0..self.spec.output.h), images).len() * size_of::<Bf16>())
    }

    /// Lines of one worker: accumulators, gathered steps with room for the last piece's padding, sums of two images.
    fn worker_lines(&self) -> usize {
        BUFFERS + self.gathered_lines() + self.sum_lines() * 2
    }

    fn gathered_lines(&self) -> usize {
        match self.steps.gathered {
            0 => 0,
            gathered => self.gathered_tiles() * gathered * TILE_LINES + 1,
        }
    }

    fn sum_lines(&self) -> usize {
        if self.spec.pooled { Line::count(self.spec.output.c * size_of::<f32>()) } else { 0 }
    }

    fn run_on<T: Tiles>(
        &self,
        pool: &Pool,
        part: &Part,
        mut io: ConvIo<'_, Bf16>,
    ) -> Result<(), KernelError> {
        self.spec.check_io(part, &io)?;
        at_least(AMX, "scratch", io.scratch.len(), self.scratch(pool.threads()))?;
        if part.images == 0 || part.rows.is_empty() {
            return Ok(());
        }
        let means = part.images * self.spec.output.c;
        if let Some(pooled) = &mut io.pooled
            && self.spec.pooled
            && part.rows.start == 0
        {
            pooled[..means].fill(0.0);
        }
        let plan = Plan::new(&self.spec, &self.steps, part.images, &part.rows);
        for first in (0..part.images).step_by(plan.images) {
            let images = plan.images.min(part.images - first);
            self.pass::<T>(pool, first..first + images, &part.rows, &plan, &mut io);
        }
        if let Some(pooled) = io.pooled
            && self.spec.pooled
            && part.rows.end == self.spec.output.h
        {
            let scale = 1.0 / (self.spec.output.h * self.spec.output.w) as f32;
            pooled[..means].iter_mut().for_each(|sum| *sum *= scale);
        }
        Ok(())
    }

    /// Computes the rows of these images.
    fn pass<T: Tiles>(
        &self,
        pool: &Pool,
        images: Range<usize>,
        rows: &Range<usize>,
        plan: &Plan,
        io: &mut ConvIo<'_, Bf16>,
    ) {
        let spec = &self.spec;
        let input = &io.input[images.start * spec.input.image()..images.end * spec.input.image()];
        let (tables, scratch) = io.scratch.split_at_mut(self.table_lines());
        let (copy, scratch) = scratch.split_at_mut(self.copy_lines());
        // The last pass may have fewer images.
        let smaller;
        let plan = if images.len() == plan.images {
            plan
        } else {
            smaller = Plan::of_pass(spec, images.len(), rows, plan.copied.is_some());
            &smaller
        };
        let input = match &plan.copied {
            Some(copied) => share::copy(pool, spec, copied, input, copy),
            None => input,
        };
        let offsets = self.offsets(&plan.walk, tables);
        let pooled = if spec.pooled { io.pooled.as_deref_mut() } else { None };
        let threads = pool.threads();
        let job = Job {
            conv: self,
            walk: &plan.walk,
            rows: rows.clone(),
            offsets,
            input: input.as_ptr(),
            output: io.output[images.start * spec.output.image()..].as_mut_ptr(),
            residual: spec
                .residual
                .and_then(|map| io.residual.map(|residual| residual[images.start * map.image()..].as_ptr())),
            pooled: pooled.map(|pooled| pooled[images.start * spec.output.c..].as_mut_ptr()),
            scratch: scratch.as_mut_ptr(),
            split: self.split(plan, threads),
            threads,
        };
        pool.run(|worker| {
            let share = Share::<T>::new(&job, worker);
            // SAFETY: `check_io` and the length of the scratch were checked, so that every pointer of the job is valid
            // for what its walk visits; `T` is the processor's or plain Rust; shares write to different outputs.
            unsafe { T::call(self.isa, share) }
        });
        // SAFETY: as above; every worker is done.
        unsafe { job.add_sums() };
    }

    /// The bytes from a window's first number to each step, then to each piece.
    fn offsets<'a>(&self, walk: &Walk, tables: &'a mut [Line]) -> &'a [usize] {
        let places = self.steps.direct.iter().chain(self.steps.pieces.iter().map(|piece| &piece.from));
        let count = self.steps.direct.len() + self.steps.pieces.len();
        debug_assert!(count * size_of::<usize>() <= size_of_val(tables));
        // SAFETY: lines are initialised bytes, aligned for `usize`, and there are enough of them (`table_lines`).
        let table = unsafe { std::slice::from_raw_parts_mut(tables.as_mut_ptr().cast::<usize>(), count) };
        for (to, place) in table.iter_mut().zip(places) {
            *to = walk.view.offset(&self.spec, *place) * size_of::<Bf16>();
        }
        table
    }
}
