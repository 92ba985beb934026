//! One worker: it takes the units of its share, blocks of pixels by some panels, and then what others have left.
//!
//! ```text
//! for each unit, for each panel, for each slice of the sum, for each tile of the block
//! ```
//! The weights of a slice stay in the first cache and the inputs of a block in the second.

use super::moments::Moments;
use super::plan::{self, Panel};
use super::queue::Share;
use super::tile::{Finish, Rows, Tile, Tiles};
use super::{BLOCK, Direct, Grid, Scratch};
use crate::conv::taken::Taken;
use crate::simd::{Kernel, Simd};
use crate::{Element, Line, Map, Part};

/// The memory of a call, shared by its workers: each writes its own pixels and channels.
pub(super) struct Call<'a, T> {
    pub(super) direct: &'a Direct,
    pub(super) part: &'a Part,
    /// Output pixels, counted over the rows of all images.
    pub(super) pixels: usize,
    pub(super) grid: Grid,
    pub(super) taken: Taken,
    pub(super) input: *const T,
    pub(super) output: *mut T,
    pub(super) residual: Option<*const T>,
    pub(super) pooled: Option<*mut f32>,
    pub(super) moments: Option<Moments>,
}

impl<T> Clone for Call<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Call<'_, T> {}

// SAFETY: the workers' units do not overlap, and the slices behind the pointers outlive the call.
unsafe impl<T> Sync for Call<'_, T> {}

/// What a worker does for a call.
pub(super) struct Work<'a, T> {
    pub(super) call: Call<'a, T>,
    pub(super) worker: usize,
    pub(super) scratch: Scratch,
}

/// Some pixels of a share.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) index: usize,
    start: usize,
    pub(super) len: usize,
    /// Where its windows start.
    inputs: *mut usize,
}

impl<T: Element> Kernel for Work<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Call { direct, grid, pixels, taken, pooled, .. } = self.call;
        let shares = grid.len();
        // Means are gathered worker by worker, so there nobody helps.
        let reached = if pooled.is_some() { 1 } else { shares };
        for step in 0..reached {
            let owner = if step == 0 { self.worker } else { (self.worker + step) % shares };
            let Some((pixels, panels)) = grid.share(pixels, direct.plan.panels.len(), owner) else {
                continue;
            };
            // SAFETY: the share is one of the grid's.
            unsafe {
                let number = owner / grid.panels;
                self.share::<S>(&Share::new(direct, pixels, panels), number, || taken.next(owner));
            }
        }
    }
}

/// Input of the next block, which is asked for little by little while this one is computed.
struct Ahead<T> {
    input: *const T,
    /// The pixels left.
    inputs: *const usize,
    pixels: usize,
    /// Pixels for each tile.
    step: usize,
    /// The part of a window that its neighbours above and to the left do not have: offsets of its rows, and the bytes
    /// of each.
    rows: [usize; 2],
    row: usize,
    bytes: usize,
}

impl<T: Element> Ahead<T> {
    #[inline(always)]
    fn new(work: &Work<'_, T>, share: &Share, block: &Block, next: &Block) -> Self {
        let Direct { spec, plan, .. } = work.call.direct;
        let tiles = share.panels.len() * plan.slices.len() * block.len.div_ceil(plan.tile.rows);
        let fresh = |axis: usize| spec.kernel[axis].min(spec.stride[axis]);
        let row = spec.input.row() * spec.dilation[0];
        let column = (spec.kernel[1] - fresh(1)) * spec.dilation[1] * spec.input.c;
        let first = spec.kernel[0] - fresh(0);
        Self {
            input: work.call.input.wrapping_add(column),
            inputs: next.inputs,
            pixels: next.len,
            step: next.len.div_ceil(tiles.max(1)),
            rows: [first, spec.kernel[0]],
            row,
            bytes: fresh(1) * spec.input.c * size_of::<T>(),
        }
    }

    /// # Safety
    ///
    /// The processor has the level of `S`, and the next block is located.
    #[inline(always)]
    unsafe fn step<S: Simd>(&mut self) {
        for _ in 0..self.step.min(self.pixels) {
            // SAFETY: there is a pixel left.
            let start = unsafe { *self.inputs };
            self.inputs = self.inputs.wrapping_add(1);
            self.pixels -= 1;
            for row in self.rows[0]..self.rows[1] {
                let from = self.input.wrapping_add(start + row * self.row).cast::<u8>();
                for byte in (0..self.bytes).step_by(Line::BYTES) {
                    // SAFETY: the processor has the level.
                    unsafe { S::prefetch_l2(from.wrapping_add(byte)) };
                }
            }
        }
    }
}

impl<T: Element> Work<'_, T> {
    /// Computes the units of `share` that are left; `number` counts the shares of the pixels.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`, and the pixels and panels are among those of the call.
    #[inline(always)]
    unsafe fn share<S: Simd>(&self, share: &Share, number: usize, take: impl Fn() -> usize) {
        let Some(first) = share.unit(take()) else { return };
        // SAFETY: the pixels are among those of the part, whose slices were checked, and a block fits the scratch.
        unsafe {
            let mut block = self.block(share, first.block);
            let (mut following, mut ahead) = self.begin(share, &block);
            let mut next = Some(first);
            while let Some(unit) = next {
                if unit.block != block.index {
                    block =
                        if unit.block == following.index { following } else { self.block(share, unit.block) };
                    (following, ahead) = self.begin(share, &block);
                }
                for index in unit.panels {
                    let panel = self.call.direct.plan.panels[index];
                    match panel.vectors {
                        1 => self.panel::<S, 1>(&block, index, &panel, &mut ahead),
                        2 => self.panel::<S, 2>(&block, index, &panel, &mut ahead),
                        _ if plan::widest::<S>() == 4 => {
                            self.panel::<S, 4>(&block, index, &panel, &mut ahead);
                        }
                        _ => {}
                    }
                    if let Some(pooled) = self.call.pooled {
                        self.pool::<S>(share, &block, &panel, pooled);
                    }
                    if let Some(moments) = &self.call.moments {
                        self.moments::<S>(number, &block, &panel, moments);
                    }
                }
                next = share.unit(take());
            }
        }
    }

    /// Locates the outputs of `block`, and the block after it to ask for its inputs.
    ///
    /// # Safety
    ///
    /// As [`Work::block`].
    #[inline(always)]
    unsafe fn begin(&self, share: &Share, block: &Block) -> (Block, Ahead<T>) {
        // SAFETY: the same contract.
        unsafe {
            self.locate_outputs(block);
            let following = self.block(share, block.index + 1);
            (following, Ahead::new(self, share, block, &following))
        }
    }

    /// Block `index` of a share, with its windows located; empty after the last one.
    ///
    /// # Safety
    ///
    /// The scratch memory was made for blocks of this size.
    #[inline(always)]
    unsafe fn block(&self, share: &Share, index: usize) -> Block {
        let spec = &self.call.direct.spec;
        let input = &spec.input;
        let Share { pixels, block: size, .. } = share;
        let start = (pixels.start + index * size).min(pixels.end);
        let len = (*size).min(pixels.end - start);
        // Two tables take turns.
        let inputs = self.scratch.inputs.wrapping_add(index % 2 * BLOCK);
        let mut place = self.place(start);
        for i in 0..len {
            // The first window starts in the halo, which is at least as wide as the padding.
            let (image, y, x) = place;
            let start = image * input.image()
                + (y * spec.stride[0] + input.halo.top - spec.padding[0]) * input.row()
                + (x * spec.stride[1] + input.halo.left - spec.padding[1]) * input.c;
            // SAFETY: the table holds a block.
            unsafe { *inputs.add(i) = start };
            place = self.after(place);
        }
        Block { index, start, len, inputs }
    }

    /// Writes where the pixels of `block` are in the output and the residual.
    ///
    /// # Safety
    ///
    /// As [`Work::block`].
    #[inline(always)]
    unsafe fn locate_outputs(&self, block: &Block) {
        let spec = &self.call.direct.spec;
        let mut place = self.place(block.start);
        for i in 0..block.len {
            // SAFETY: the tables hold a block.
            unsafe {
                *self.scratch.outputs.add(i) = element(&spec.output, place);
                if let Some(residual) = &spec.residual {
                    *self.scratch.residuals.add(i) = element(residual, place);
                }
            }
            place = self.after(place);
        }
    }

    /// The image, row and column of output pixel `pixel`.
    #[inline(always)]
    fn place(&self, pixel: usize) -> (usize, usize, usize) {
        let (rows, w) = (&self.call.part.rows, self.call.direct.spec.output.w);
        let (line, x) = (pixel / w, pixel % w);
        (line / rows.len(), rows.start + line % rows.len(), x)
    }

    /// The pixel after this one.
    #[inline(always)]
    fn after(&self, (image, y, x): (usize, usize, usize)) -> (usize, usize, usize) {
        let rows = &self.call.part.rows;
        if x + 1 < self.call.direct.spec.output.w {
            (image, y, x + 1)
        } else if y + 1 < rows.end {
            (image, y + 1, 0)
        } else {
            (image + 1, rows.start, 0)
        }
    }

    /// Computes a panel of `V` vectors for the pixels of a block.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`, the block was located, and the panel has `V` vectors.
    #[inline(always)]
    unsafe fn panel<S: Simd, const V: usize>(
        &self,
        block: &Block,
        index: usize,
        panel: &Panel,
        ahead: &mut Ahead<T>,
    ) {
        let Call { direct, input, output, residual, .. } = self.call;
        let plan = &direct.plan;
        // SAFETY: the packed weights and biases hold every panel; offsets to channels stay inside a pixel.
        unsafe {
            let weights = direct.weights.as_ptr().cast::<T>().add(panel.weights);
            let finish = Finish {
                bias: direct.bias.as_ptr().add(index * plan.tile.width()),
                activation: direct.spec.activation,
                output: output.add(panel.channel),
                outputs: self.scratch.outputs,
                residual: residual.map(|residual| residual.add(panel.channel)),
                residuals: self.scratch.residuals,
                width: panel.width,
            };
            for (number, slice) in plan.slices.iter().enumerate() {
                let row = V * S::LANES * plan.unit;
                let tiles = Tiles {
                    segments: &plan.segments[slice.segments.clone()],
                    weights: weights.add(slice.rows.start * row),
                    input: input.add(panel.input),
                    inputs: block.inputs,
                    sums: self.scratch.sums,
                    add: number > 0,
                    finish: (number + 1 == plan.slices.len()).then_some(finish),
                };
                Self::slice::<S, V>(&tiles, block.len, slice.rows.len() * row * size_of::<T>(), ahead);
            }
        }
    }

    /// Goes over the tiles of a slice, whose weights are `bytes` long. The tiles differ by at most one pixel, the larger
    /// ones first.
    ///
    /// # Safety
    ///
    /// As [`Tiles::tile`], for `len` pixels.
    #[inline(always)]
    unsafe fn slice<S: Simd, const V: usize>(
        tiles: &Tiles<'_, T>,
        len: usize,
        bytes: usize,
        ahead: &mut Ahead<T>,
    ) {
        let count = len.div_ceil(plan::rows::<S>(T::DTYPE, V));
        let (size, larger) = (len / count, len % count);
        // The weights that come next follow in memory.
        let mut weights = tiles.weights.cast::<u8>().wrapping_add(bytes);
        // A few tiles pass over them too fast for that to help.
        let lines = if count < 4 { 0 } else { Line::count(bytes).div_ceil(count) };
        let mut pixel = 0;
        for number in 0..count {
            let rows = size + usize::from(number < larger);
            // SAFETY: the same contract.
            unsafe {
                for _ in 0..lines {
                    S::prefetch_l2(weights);
                    weights = weights.wrapping_add(Line::BYTES);
                }
                ahead.step::<S>();
                macro_rules! tile {
                    ($($r:literal)*) => {
                        match rows {
                            $($r if $r <= const { plan::rows::<S>(T::DTYPE, V) } => {
                                S::outline(Tile::<T, $r, V> { tiles, pixel });
                            })*
                            _ => {}
                        }
                    };
                }
                tile!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                if let Some(finish) = &tiles.finish
                    && !finish.in_registers::<S, V>()
                {
                    S::outline(Rows::<T, V> { tiles, finish, pixel, count: rows });
                }
            }
            pixel += rows;
        }
    }

    /// Adds the outputs of a panel over the pixels of a block to the sums of their images.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`, and the panel was computed for the block.
    #[inline(always)]
    unsafe fn pool<S: Simd>(&self, share: &Share, block: &Block, panel: &Panel, pooled: *mut f32) {
        let spec = &self.call.direct.spec;
        let pixels = self.call.part.rows.len() * spec.output.w;
        let (first, last) = (share.pixels.start / pixels, (share.pixels.end - 1) / pixels);
        let mut from = 0;
        while from < block.len {
            let image = (block.start + from) / pixels;
            let to = block.len.min((image + 1) * pixels - block.start);
            // SAFETY: `pooled` and the worker's own sums hold all channels; an image that is neither the first nor the
            // last of this worker is no other's.
            unsafe {
                let sums = match image {
                    _ if image == first => self.scratch.pooled,
                    _ if image == last => self.scratch.pooled.add(spec.output.c),
                    _ => pooled.add(image * spec.output.c),
                };
                for channel in (0..panel.width).step_by(S::LANES) {
                    let width = (panel.width - channel).min(S::LANES);
                    let at = panel.channel + channel;
                    let mut sum = S::load_part(sums.add(at), width);
                    for pixel in from..to {
                        let value = self.call.output.add(*self.scratch.outputs.add(pixel) + at);
                        let value = if width == S::LANES {
                            T::load::<S>(value)
                        } else {
                            T::load_part::<S>(value, width)
                        };
                        sum = S::add(sum, value);
                    }
                    S::store_part(sums.add(at), sum, width);
                }
            }
            from = to;
        }
    }
}

/// The element of a pixel inside the map.
#[inline(always)]
fn element(map: &Map, (image, y, x): (usize, usize, usize)) -> usize {
    image * map.image() + (map.halo.top + y) * map.row() + (map.halo.left + x) * map.c
}
