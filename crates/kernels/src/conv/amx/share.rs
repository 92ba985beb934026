//! One worker's share of a pass: copies and products.

use super::epilogue::{Pending, Target};
use super::plan::Split;
use super::steps::{PANEL, Panel, STEP, TILE, TILE_LINES};
use super::walk::{Copied, ROWS, Spot, Walk};
use super::{Amx, share_of};
use crate::simd::{Kernel, Simd};
use crate::x86::amx::{LEFT, RIGHT, Shapes, Tiles};
use crate::{Bf16, ConvSpec, Line, Pool, as_bf16};
use std::marker::PhantomData;
use std::ops::Range;

/// The most tiles of a block of pixels.
pub(super) const SPOTS: usize = 64;
/// Accumulators of one pixel, and of a pair of tiles.
pub(super) const ACC_PIXEL: usize = PANEL;
const ACC: usize = 2 * ROWS * ACC_PIXEL;
/// Lines of the two buffers of accumulators.
pub(super) const BUFFERS: usize = 2 * ACC * size_of::<f32>() / Line::BYTES;
/// Bytes of a tile.
const TILE_BYTES: usize = TILE_LINES * Line::BYTES;

/// What all workers of one pass share.
pub(super) struct Job<'a> {
    pub(super) conv: &'a Amx,
    pub(super) walk: &'a Walk,
    pub(super) rows: Range<usize>,
    /// Bytes from a window's first number to each direct step, then to each piece.
    pub(super) offsets: &'a [usize],
    /// The memory of the pass's first image on.
    pub(super) input: *const Bf16,
    pub(super) output: *mut Bf16,
    pub(super) residual: Option<*const Bf16>,
    pub(super) pooled: Option<*mut f32>,
    /// `worker_lines` for each worker.
    pub(super) scratch: *mut Line,
    pub(super) split: Split,
    pub(super) threads: usize,
}

// SAFETY: the memory outlives the pass; workers write to different outputs and sums, each to its own scratch.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// The tiles of pixels and the panels of one worker.
    fn share(&self, worker: usize) -> [Range<usize>; 2] {
        let (tiles, panels) = (self.walk.tiles, self.conv.panels.len());
        if self.split.by_columns {
            return [0..tiles, share_of(panels, self.threads, worker)];
        }
        let pairs = share_of(tiles.div_ceil(2), self.threads, worker);
        [pairs.start * 2..(pairs.end * 2).min(tiles), 0..panels]
    }

    /// The sums of the worker's first and last image, `[2][channels]`: others may add to the same images.
    ///
    /// # Safety
    ///
    /// The scratch holds `worker_lines` for each worker.
    unsafe fn sums(&self, worker: usize) -> *mut f32 {
        let conv = self.conv;
        let lines = worker * conv.worker_lines() + BUFFERS + conv.gathered_lines();
        // SAFETY: the worker's memory ends with its sums.
        unsafe { self.scratch.add(lines).cast() }
    }

    /// Adds the workers' sums, in their order.
    ///
    /// # Safety
    ///
    /// The job's pointers are valid, and no worker is at work.
    pub(super) unsafe fn add_sums(&self) {
        let Some(pooled) = self.pooled else { return };
        if self.split.by_columns {
            return;
        }
        let channels = self.conv.spec.output.c;
        for worker in 0..self.threads {
            let [tiles, _] = self.share(worker);
            if tiles.is_empty() {
                continue;
            }
            let images = self.walk.images(&tiles);
            for (slot, image) in images.into_iter().enumerate() {
                for channel in 0..channels {
                    // SAFETY: the sums are `[2][channels]`, the means `[images, channels]`.
                    unsafe {
                        *pooled.add(image * channels + channel) +=
                            *self.sums(worker).add(slot * channels + channel);
                    }
                }
            }
        }
    }
}

/// Copies the input of a pass to `to`, and returns the copy.
pub(super) fn copy<'a>(
    pool: &Pool,
    spec: &ConvSpec,
    copied: &Copied,
    input: &[Bf16],
    to: &'a mut [Line],
) -> &'a [Bf16] {
    struct Target(*mut Bf16);
    // SAFETY: workers write to different pixels.
    unsafe impl Sync for Target {}
    let target = Target(to.as_mut_ptr().cast());
    let target = &target;
    let channels = spec.input.c;
    debug_assert!(copied.len() * size_of::<Bf16>() <= size_of_val(to));
    pool.for_each(copied.rows(), |row| {
        copied.each_pixel(&spec.input, row, |from, at| {
            let pixel = &input[from..][..channels];
            // SAFETY: pixels lie within the copy's length (`copy_lines`), and the input is other memory.
            unsafe { std::ptr::copy_nonoverlapping(pixel.as_ptr(), target.0.add(at), channels) };
        });
    });
    as_bf16(to)
}

/// One worker's part of a job.
pub(super) struct Share<'a, T> {
    pub(super) job: &'a Job<'a>,
    tiles: Range<usize>,
    panels: Range<usize>,
    /// The images whose sums go to scratch; the others' go to the output.
    pub(super) shared: [usize; 2],
    buffers: *mut f32,
    gathered: *mut u8,
    pub(super) sums: *mut f32,
    kind: PhantomData<T>,
}

/// One pair's operands of a product.
struct Operands<'a> {
    /// The first number of each tile's windows.
    windows: [*const u8; 2],
    /// Bytes from window to window.
    spacing: usize,
    /// Each tile's gathered steps.
    gathered: [*const u8; 2],
    steps: &'a [usize],
    gathered_steps: usize,
    weights: *const u8,
}

impl<'a, T: Tiles> Share<'a, T> {
    pub(super) fn new(job: &'a Job<'a>, worker: usize) -> Self {
        let conv = job.conv;
        let [tiles, panels] = job.share(worker);
        let shared =
            if job.split.by_columns || tiles.is_empty() { [usize::MAX; 2] } else { job.walk.images(&tiles) };
        // SAFETY: the scratch holds `worker_lines` for each worker: buffers, gathered steps, sums.
        unsafe {
            let memory = job.scratch.add(worker * conv.worker_lines());
            let (buffers, gathered) = (memory.cast(), memory.add(BUFFERS).cast());
            Self { job, tiles, panels, shared, buffers, gathered, sums: job.sums(worker), kind: PhantomData }
        }
    }
}

impl<T: Tiles> Kernel for Share<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (job, conv) = (self.job, self.job.conv);
        if self.tiles.is_empty() || self.panels.is_empty() {
            return;
        }
        // SAFETY: the caller promises valid pointers and the level of `S` and `T`; the memory of each call is argued
        // where it is addressed.
        unsafe {
            if job.pooled.is_some() && !job.split.by_columns {
                self.sums.write_bytes(0, 2 * conv.spec.output.c);
            }
            let mut tiles = T::default();
            tiles.configure(&Shapes::new(job.walk.tile));
            let mut spots = [Spot::default(); SPOTS];
            let mut targets = [Target::default(); SPOTS];
            let mut spot = job.walk.spot(self.tiles.start);
            let mut pending = None;
            let mut flip = 0;
            let mut first = self.tiles.start;
            // Blocks of even size, and of whole pairs.
            let blocks = self.tiles.len().div_ceil(job.split.block_tiles);
            let block_tiles = self.tiles.len().div_ceil(blocks).next_multiple_of(2);
            while first < self.tiles.end {
                let count = block_tiles.min(self.tiles.end - first);
                for i in 0..count {
                    spots[i] = spot;
                    targets[i] = self.target(spot.at);
                    if first + i + 1 < self.tiles.end {
                        spot = job.walk.spot_after(&spot, first + i + 1);
                    }
                }
                let mut block = usize::MAX;
                for panel in self.panels.clone() {
                    let weights = &conv.panels[panel];
                    if weights.block != block {
                        block = weights.block;
                        self.gather(&spots[..count], block);
                    }
                    let mut i = 0;
                    while i < count {
                        let pair = 2.min(count - i);
                        let (one, other) = (i, i + pair - 1);
                        self.multiply(&mut tiles, &spots[one..=other], i, weights);
                        // The last pair's epilogue, while this pair's products run.
                        if let Some(last) = &pending {
                            self.finish::<S>(last);
                        }
                        let acc = self.buffers.add(flip * ACC);
                        store(&mut tiles, acc, pair, weights.tiles());
                        let (spots, targets) = ([spots[one], spots[other]], [targets[one], targets[other]]);
                        pending = Some(Pending { spots, targets, count: pair, panel, acc });
                        flip ^= 1;
                        i += 2;
                    }
                }
                first += count;
            }
            if let Some(last) = &pending {
                self.finish::<S>(last);
            }
            tiles.release();
        }
    }
}

/// Writes a pair's accumulators, `[pixel][output]`, the second tile's pixels after 16.
///
/// # Safety
///
/// `acc` is one buffer.
#[inline(always)]
unsafe fn store<T: Tiles>(tiles: &mut T, acc: *mut f32, pair: usize, wide: usize) {
    // SAFETY: tiles have at most 16 rows of 64 bytes; a buffer has two of them beside and below one another.
    unsafe {
        let at = |row: usize, column: usize| acc.add(row * ACC_PIXEL + column).cast::<u8>();
        let row = ACC_PIXEL * size_of::<f32>();
        tiles.store::<0>(at(0, 0), row);
        if wide == 2 {
            tiles.store::<1>(at(0, TILE), row);
        }
        if pair == 2 {
            tiles.store::<2>(at(ROWS, 0), row);
            if wide == 2 {
                tiles.store::<3>(at(ROWS, TILE), row);
            }
        }
    }
}

impl<T: Tiles> Share<'_, T> {
    /// The products of one pair with one panel.
    ///
    /// # Safety
    ///
    /// The job's pointers are valid; `spots` are the walk's; `index` counts within the block that was gathered.
    #[inline(always)]
    unsafe fn multiply(&self, tiles: &mut T, spots: &[Spot], index: usize, panel: &Panel) {
        let (job, steps) = (self.job, &self.job.conv.steps);
        // SAFETY: a spot's window lies in the input, and the block's channels in its pixels; the panel's weights are
        // `steps` times its tiles long.
        unsafe {
            let pair = spots.len();
            let channel = panel.block * steps.inputs;
            let window = |spot: &Spot| job.input.add(spot.window + channel).cast::<u8>();
            let gathered = |i: usize| self.gathered.cast_const().add(i * steps.gathered * TILE_BYTES);
            let operands = Operands {
                windows: [window(&spots[0]), window(&spots[pair - 1])],
                spacing: job.walk.spacing * size_of::<Bf16>(),
                gathered: [gathered(index), gathered(index + pair - 1)],
                steps: &job.offsets[..steps.direct.len()],
                gathered_steps: steps.gathered,
                weights: job.conv.weight.as_ptr().add(panel.line).cast(),
            };
            match (pair, panel.tiles()) {
                (2, 2) => product::<T, true, true>(tiles, &operands),
                (2, _) => product::<T, true, false>(tiles, &operands),
                (_, 2) => product::<T, false, true>(tiles, &operands),
                _ => product::<T, false, false>(tiles, &operands),
            }
        }
    }

    /// Copies what the steps of a block of groups gather, for each of the tiles.
    ///
    /// # Safety
    ///
    /// The job's pointers are valid, and `spots` are the walk's, at most `block_tiles`.
    #[inline(always)]
    unsafe fn gather(&self, spots: &[Spot], block: usize) {
        let (job, steps) = (self.job, &self.job.conv.steps);
        if steps.gathered == 0 {
            return;
        }
        let offsets = &job.offsets[steps.direct.len()..];
        for (i, spot) in spots.iter().enumerate() {
            // SAFETY: pieces lie in the windows of the walk's pixels. Each copy writes 32 numbers, beyond its step's
            // row into the next: rows are written in order, and the last has a line behind it.
            unsafe {
                let window = job.input.add(spot.window + block * steps.inputs);
                let to = self.gathered.add(i * steps.gathered * TILE_BYTES);
                let mut piece = 0;
                for step in 0..steps.gathered {
                    let start = piece;
                    while piece < steps.pieces.len() && steps.pieces[piece].step == step {
                        piece += 1;
                    }
                    for row in 0..job.walk.tile {
                        let window = window.add(row * job.walk.spacing).cast::<u8>();
                        let to = to.add(step * TILE_BYTES + row * Line::BYTES).cast::<u16>();
                        for (part, offset) in steps.pieces[start..piece].iter().zip(&offsets[start..piece]) {
                            T::copy_padded(to.add(part.at), window.add(*offset).cast(), part.count);
                        }
                    }
                }
            }
        }
    }
}

/// Fills the accumulators of one or two tiles of pixels by one or two tiles of weights: 0 and 1 are the first tile's,
/// 2 and 3 the second's.
///
/// # Safety
///
/// The operands are valid for all steps; the tiles are configured.
#[inline(always)]
unsafe fn product<T: Tiles, const PAIR: bool, const WIDE: bool>(tiles: &mut T, operands: &Operands<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        tiles.zero::<0>();
        if WIDE {
            tiles.zero::<1>();
        }
        if PAIR {
            tiles.zero::<2>();
            if WIDE {
                tiles.zero::<3>();
            }
        }
        let mut weights = operands.weights;
        let [first, second] = operands.windows;
        for &step in operands.steps {
            let pixels = [first.add(step), second.add(step)];
            product_step::<T, PAIR, WIDE>(tiles, pixels, operands.spacing, weights);
            weights = weights.add(if WIDE { 2 * TILE_BYTES } else { TILE_BYTES });
        }
        let [first, second] = operands.gathered;
        for step in 0..operands.gathered_steps {
            let pixels = [first.add(step * TILE_BYTES), second.add(step * TILE_BYTES)];
            product_step::<T, PAIR, WIDE>(tiles, pixels, STEP * size_of::<Bf16>(), weights);
            weights = weights.add(if WIDE { 2 * TILE_BYTES } else { TILE_BYTES });
        }
    }
}

/// One step of [`product`].
///
/// # Safety
///
/// As there.
#[inline(always)]
unsafe fn product_step<T: Tiles, const PAIR: bool, const WIDE: bool>(
    tiles: &mut T,
    pixels: [*const u8; 2],
    spacing: usize,
    weights: *const u8,
) {
    const SECOND: u8 = LEFT + 1;
    const OTHER: u8 = RIGHT + 1;
    // SAFETY: the caller's promise.
    unsafe {
        tiles.load::<RIGHT>(weights, Line::BYTES);
        tiles.load::<LEFT>(pixels[0], spacing);
        tiles.dot::<0, LEFT, RIGHT>();
        if PAIR {
            tiles.load::<SECOND>(pixels[1], spacing);
            tiles.dot::<2, SECOND, RIGHT>();
        }
        if WIDE {
            tiles.load::<OTHER>(weights.add(TILE_BYTES), Line::BYTES);
            tiles.dot::<1, LEFT, OTHER>();
            if PAIR {
                tiles.dot::<3, SECOND, OTHER>();
            }
        }
    }
}
