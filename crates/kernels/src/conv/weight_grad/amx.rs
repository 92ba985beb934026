//! The gradient on tiles of bf16: a tile of gradients is 16 outputs by 32 pixels, transposed as it is packed, a tile of a
//! panel 16 pairs of pixels by 16 elements. What lies behind the last pixel of a block is zero in both.
//!
//! ```text
//! pack dY                          [block][tile of outputs][step of 32 pixels][16 outputs][32 pixels], once or twice
//! for each chunk of tiles, part of the stretch, panel of 32 elements:        whoever is free
//!     for each block of the part:
//!         pack X                   [step][once or twice][16 pairs][16 elements][2]
//!         for each tile:           acc[2][2] += dY[2] X[2]                   kept from block to block
//!     sums of the part += acc
//! ```
//!
//! The accumulators start anew with each stretch, which keeps the chains of additions short. Parts exist where there are so
//! few panels and tiles that many workers would have nothing to do; how many depends on the convolution alone, and so the
//! order of additions does not depend on the workers.

use super::call::{Call, Multiply, Stretch};
use super::tile::Shape;
use super::windows::{BLOCKS, ByWindows, Panel};
use super::work::Pixel;
use crate::conv::taken::Taken;
use crate::simd::{Kernel, Simd};
use crate::x86::amx::{LEFT, RIGHT, Shapes, TILE, Tiles, paired};
use crate::{ConvSpec, DType, Element, Line, share};
use std::marker::PhantomData;
use std::ops::Range;

/// Pixels that one product sums up.
pub(super) const STEP: usize = 32;

/// Outputs, or elements, of one tile register; a packed tile or a panel has one or two of them.
const SIDE: usize = 16;
const WIDTH: usize = 2 * SIDE;

/// Tiles of packed gradients that stay in the second cache beside their sums: up to 16 and 4 KiB each.
pub(super) const CACHED_TILES: usize = 32;

/// Items that are enough for many workers.
const ITEMS: usize = 64;

/// Bytes of a tile register, and from one row of accumulators to the next.
const TILE_BYTES: usize = TILE * size_of::<u16>();
const ACC_ROW: usize = WIDTH * size_of::<f32>();

pub(super) fn shape(spec: &ConvSpec) -> Shape {
    Shape { rows: if spec.group_outputs() > SIDE { 2 * SIDE } else { SIDE }, width: WIDTH }
}

/// Parts of a stretch, for so many tiles of all panels.
pub(super) fn parts(tiles: usize) -> usize {
    (ITEMS / tiles).clamp(1, BLOCKS)
}

/// The place of a panel's element among the sums of an output.
#[inline(always)]
pub(super) fn column(panel: &Panel, element: usize) -> usize {
    paired(element, panel.width > SIDE)
}

/// On tiles.
pub(super) struct OnTiles<K>(PhantomData<K>);

impl<T: Element, K: Tiles> Multiply<T> for OnTiles<K> {
    unsafe fn pack(call: &Call<'_, T>, worker: usize) {
        debug_assert_eq!(T::DTYPE, DType::Bf16);
        // SAFETY: the same contract, and each worker has its own pixels; a plan for tiles is called with bf16 alone, which
        // is a number of 16 bits.
        unsafe {
            let grads = Grads {
                plan: call.plan,
                stretch: &call.stretch,
                own: call.own_pixels(worker),
                grad: call.grad().cast(),
                starts: call.starts(),
                to: call.grads().cast(),
                tiles: PhantomData::<K>,
            };
            K::call(call.plan.isa, grads);
        }
    }

    unsafe fn multiply(call: &Call<'_, T>, worker: usize, owner: usize) {
        // SAFETY: as above, and each item has its own sums.
        unsafe {
            let products = Products {
                plan: call.plan,
                stretch: &call.stretch,
                chunks: call.chunks,
                own: call.own_items(owner),
                taken: (call.taken, owner),
                input: call.input().cast(),
                starts: call.starts(),
                grads: call.grads().cast(),
                panel: call.panel(worker).cast(),
                partial: call.partial(worker),
                sums: call.sums(),
                add: call.add,
                tiles: PhantomData::<K>,
            };
            K::call(call.plan.isa, products);
        }
    }
}

/// Packs the gradients of some steps, and notes where the windows of their pixels are. What stands behind the last output
/// of a group does not matter: its sums are not read.
struct Grads<'a, K> {
    plan: &'a ByWindows,
    stretch: &'a Stretch,
    /// Among the pixels of the stretch.
    own: Range<usize>,
    grad: *const u16,
    starts: *mut usize,
    to: *mut u16,
    tiles: PhantomData<K>,
}

impl<K: Tiles> Kernel for Grads<'_, K> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { plan, stretch, ref own, .. } = self;
        let spec = &plan.spec;
        if own.is_empty() {
            return;
        }
        let mut at = Pixel::new(&spec.output, stretch.pixels.start + own.start);
        let (mut index, mut block) = (0, stretch.block(0));
        for first in own.clone().step_by(STEP) {
            while first >= block.end {
                index += 1;
                block = stretch.block(index);
            }
            let count = STEP.min(own.end - first);
            let mut offsets = [0; STEP];
            for i in 0..count {
                offsets[i] = at.at(&spec.output);
                // SAFETY: the table holds every pixel of a stretch.
                unsafe { *self.starts.add(first + i) = at.window(spec) };
                at.advance(&spec.output);
            }
            let step = (first - block.start) / STEP * plan.shape.rows * STEP;
            // SAFETY: the packed gradients hold every step of every block, and the gradient the pixels.
            unsafe { self.step(&offsets, count, self.to.add(index * plan.grad_block() + step)) };
        }
    }
}

/// Where the rows of [`Grads::step`]'s copy begin.
const COPIED: [usize; STEP] = {
    let mut offsets = [0; STEP];
    let mut row = 0;
    while row < STEP {
        offsets[row] = row * (Line::BYTES / size_of::<u16>());
        row += 1;
    }
    offsets
};

impl<K: Tiles> Grads<'_, K> {
    /// Packs the gradients of a step's first `count` pixels for all tiles, the first of which is at `to`.
    ///
    /// # Safety
    ///
    /// The gradient holds the pixels at the offsets, and this step of every tile can be written.
    #[inline(always)]
    unsafe fn step(&self, offsets: &[usize; STEP], count: usize, to: *mut u16) {
        let plan = self.plan;
        let (c, outputs, rows) = (plan.spec.output.c, plan.spec.group_outputs(), plan.shape.rows);
        for tile in 0..plan.spec.groups * plan.tiles {
            let (group, first) = (tile / plan.tiles, tile % plan.tiles * rows);
            for output in (first..outputs.min(first + rows)).step_by(SIDE) {
                let channel = group * outputs + output;
                // SAFETY: the same contract; no more than the channels of a pixel are read, and no pixel that is not there.
                unsafe {
                    let to = to.add(tile * plan.grad_tile() + (output - first) * STEP);
                    let from = self.grad.wrapping_add(channel);
                    if count == STEP && channel + SIDE <= c {
                        K::transpose(to, from, offsets);
                    } else {
                        let mut copy = [Line::ZERO; STEP];
                        let numbers = SIDE.min(c - channel);
                        for i in 0..count {
                            K::copy_padded(copy[i..].as_mut_ptr().cast(), from.add(offsets[i]), numbers);
                        }
                        K::transpose(to, copy.as_ptr().cast(), &COPIED);
                    }
                }
            }
        }
    }
}

/// Items: chunks of tiles, by parts of the stretch, by panels.
struct Products<'a, K> {
    plan: &'a ByWindows,
    stretch: &'a Stretch,
    chunks: usize,
    own: Range<usize>,
    /// The counter, and whose share it counts.
    taken: (Taken, usize),
    input: *const u16,
    starts: *const usize,
    grads: *const u16,
    panel: *mut u16,
    /// `[tile of the chunk][output][element]`
    partial: *mut f32,
    sums: *mut f32,
    /// Whether there are sums to add to.
    add: bool,
    tiles: PhantomData<K>,
}

impl<K: Tiles> Kernel for Products<'_, K> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (taken, owner) = self.taken;
        // SAFETY: the counter has a line for the owner; an item is this worker's alone; tiles are configured before the
        // first and released after the last.
        unsafe {
            let mut item = self.own.start + taken.next(owner);
            if item >= self.own.end {
                return;
            }
            let mut tiles = K::default();
            tiles.configure(&Shapes::new(SIDE));
            while item < self.own.end {
                self.item::<S>(&mut tiles, item);
                item = self.own.start + taken.next(owner);
            }
            tiles.release();
        }
    }
}

impl<K: Tiles> Products<'_, K> {
    /// Computes one item.
    ///
    /// # Safety
    ///
    /// The gradients are packed, the item is one of the plan's and nobody else's, and the tiles are configured.
    #[inline(always)]
    unsafe fn item<S: Simd>(&self, tiles: &mut K, item: usize) {
        let plan = self.plan;
        let panels = plan.panels.len();
        // One chunk after the other, and one part after the other: their gradients stay in the second cache while all
        // panels go over them.
        let (index, rest) = (item % panels, item / panels);
        let (part, chunk) = (rest % plan.parts, rest / plan.parts);
        let (blocks, chunk) =
            (share(self.stretch.blocks, plan.parts, part), share(plan.tiles, self.chunks, chunk));
        let panel = &plan.panels[index];
        // SAFETY: each part has sums for every tile of every panel.
        unsafe {
            let sums = self.sums.add(part * plan.part_sums() + index * plan.panel_sums());
            if blocks.is_empty() && !self.add {
                sums.add(chunk.start * plan.tile_sums()).write_bytes(0, chunk.len() * plan.tile_sums());
            }
            for block in blocks.clone() {
                let last = block + 1 == blocks.end;
                // Where the next block's windows are: those of the next panel, after the last block.
                let ahead = if last { (panel_after(plan, index), blocks.start) } else { (panel, block + 1) };
                let pixels = self.stretch.block(block);
                let steps = pixels.len().div_ceil(STEP);
                self.pack::<S>(panel, pixels, ahead);
                for tile in chunk.clone() {
                    let grad = (panel.group * plan.tiles + tile) * plan.grad_tile();
                    let operands = Operands {
                        grad: self.grads.add(block * plan.grad_block() + grad).cast(),
                        grad_step: plan.shape.rows / SIDE * TILE_BYTES,
                        panel: self.panel.cast_const().cast(),
                        steps,
                        acc: self.partial.add((tile - chunk.start) * plan.tile_sums()),
                        zero: block == blocks.start,
                    };
                    let tall = plan.spec.group_outputs() > tile * plan.shape.rows + SIDE;
                    match (tall, panel.width > SIDE) {
                        (true, true) => product::<K, true, true>(tiles, &operands),
                        (true, false) => product::<K, true, false>(tiles, &operands),
                        (false, true) => product::<K, false, true>(tiles, &operands),
                        (false, false) => product::<K, false, false>(tiles, &operands),
                    }
                    if last {
                        let rows = if tall { 2 * SIDE } else { SIDE };
                        let columns = if panel.width > SIDE { WIDTH } else { SIDE };
                        self.finish::<S>(operands.acc, sums.add(tile * plan.tile_sums()), rows, columns);
                    }
                }
            }
        }
    }

    /// Adds the accumulators of a part of the stretch to the sums.
    ///
    /// # Safety
    ///
    /// Both are those of a tile; the processor has the level of `S`.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, acc: *const f32, sums: *mut f32, rows: usize, columns: usize) {
        for row in 0..rows {
            for column in (0..columns).step_by(S::LANES) {
                // SAFETY: the same contract; a vector divides the 16 columns of a register.
                unsafe {
                    let (acc, sums) = (acc.add(row * WIDTH + column), sums.add(row * WIDTH + column));
                    let value = S::load(acc);
                    S::store(sums, if self.add { S::add(S::load(sums), value) } else { value });
                }
            }
        }
    }

    /// Packs a panel for a block of pixels, with zeros behind the last element and the last pixel, and asks for the next
    /// panel and block.
    ///
    /// # Safety
    ///
    /// The starts and the panel lie inside the input, and there is memory for a panel.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, panel: &Panel, pixels: Range<usize>, (next, block): (&Panel, usize)) {
        // SAFETY: the same contract. The table has room for a block from where each block starts.
        unsafe {
            let windows = Windows {
                input: self.input.add(panel.offset),
                starts: self.starts.add(pixels.start),
                pixels: pixels.len(),
                width: panel.width,
                next: self.input.wrapping_add(next.offset),
                next_starts: self.starts.add(self.stretch.block(block).start),
                to: self.panel,
            };
            match (panel.width > SIDE, panel.width.is_multiple_of(SIDE)) {
                (true, true) => S::outline(PackWindows::<K, true, true>(windows, PhantomData)),
                (true, false) => S::outline(PackWindows::<K, true, false>(windows, PhantomData)),
                (false, true) => S::outline(PackWindows::<K, false, true>(windows, PhantomData)),
                (false, false) => S::outline(PackWindows::<K, false, false>(windows, PhantomData)),
            }
        }
    }
}

/// The panel whose items follow.
#[inline(always)]
fn panel_after(plan: &ByWindows, index: usize) -> &Panel {
    &plan.panels[if index + 1 < plan.panels.len() { index + 1 } else { 0 }]
}

/// The windows of a block's pixels, at a panel.
struct Windows {
    input: *const u16,
    starts: *const usize,
    pixels: usize,
    width: usize,
    next: *const u16,
    next_starts: *const usize,
    to: *mut u16,
}

/// Packs pairs of pixels, as a function of its own; `WIDE` for two tiles, `WHOLE` if their every column is an element.
struct PackWindows<K, const WIDE: bool, const WHOLE: bool>(Windows, PhantomData<K>);

impl<K: Tiles, const WIDE: bool, const WHOLE: bool> Kernel for PackWindows<K, WIDE, WHOLE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        const PAIRS: usize = STEP / 2;
        let Windows { input, mut starts, pixels, width, next, mut next_starts, mut to } = self.0;
        let columns = if WIDE { WIDTH } else { SIDE };
        let width = if WHOLE { columns } else { width };
        // SAFETY: whoever made the windows promises that they lie in the input, that both tables hold `pixels`, and that
        // there is room for the panel; the next panel's addresses need not be valid.
        unsafe {
            for _ in 0..pixels / STEP {
                for pair in 0..PAIRS {
                    let [one, other] = [2 * pair, 2 * pair + 1];
                    S::prefetch_l2(next.wrapping_add(*next_starts.add(one)).cast());
                    S::prefetch_l2(next.wrapping_add(*next_starts.add(other)).cast());
                    let rows = [input.add(*starts.add(one)), input.add(*starts.add(other))];
                    K::interleave::<WIDE>(to.add(pair * STEP), rows, [width, width]);
                }
                to = to.add(columns * STEP);
                starts = starts.add(STEP);
                next_starts = next_starts.add(STEP);
            }
            let left = pixels % STEP;
            if left > 0 {
                for pair in 0..PAIRS {
                    // Of a pixel that is not there nothing is read.
                    let (mut rows, mut counts) = ([input; 2], [0; 2]);
                    for i in 0..2 {
                        if 2 * pair + i < left {
                            rows[i] = input.add(*starts.add(2 * pair + i));
                            counts[i] = width;
                        }
                    }
                    K::interleave::<WIDE>(to.add(pair * STEP), rows, counts);
                }
            }
        }
    }
}

/// A tile of gradients and a panel, both packed.
struct Operands {
    grad: *const u8,
    /// Bytes from one step of it to the next.
    grad_step: usize,
    panel: *const u8,
    steps: usize,
    /// `[output][element]`
    acc: *mut f32,
    /// Whether the accumulators hold nothing yet.
    zero: bool,
}

/// Adds the products of all steps to the accumulators: 0 and 1 are the first 16 outputs', 2 and 3 those after them
/// (`TALL`); 1 and 3 belong to the panel's second tile (`WIDE`).
///
/// # Safety
///
/// The operands are valid for all steps; the tiles are configured.
#[inline(always)]
unsafe fn product<K: Tiles, const TALL: bool, const WIDE: bool>(tiles: &mut K, operands: &Operands) {
    const LOW: u8 = LEFT + 1;
    const OTHER: u8 = RIGHT + 1;
    let &Operands { mut grad, grad_step, mut panel, steps, acc, zero } = operands;
    // SAFETY: the caller's promise; the accumulators have as many rows and columns as the constants say.
    unsafe {
        let right = acc.add(SIDE).cast::<u8>();
        let [below, last] = [acc.add(SIDE * WIDTH).cast::<u8>(), acc.add(SIDE * WIDTH + SIDE).cast()];
        let acc = acc.cast::<u8>();
        if zero {
            tiles.zero::<0>();
            if WIDE {
                tiles.zero::<1>();
            }
            if TALL {
                tiles.zero::<2>();
            }
            if TALL && WIDE {
                tiles.zero::<3>();
            }
        } else {
            tiles.load::<0>(acc, ACC_ROW);
            if WIDE {
                tiles.load::<1>(right, ACC_ROW);
            }
            if TALL {
                tiles.load::<2>(below, ACC_ROW);
            }
            if TALL && WIDE {
                tiles.load::<3>(last, ACC_ROW);
            }
        }
        for _ in 0..steps {
            tiles.load::<RIGHT>(panel, Line::BYTES);
            tiles.load::<LEFT>(grad, Line::BYTES);
            tiles.dot::<0, LEFT, RIGHT>();
            if TALL {
                tiles.load::<LOW>(grad.add(TILE_BYTES), Line::BYTES);
                tiles.dot::<2, LOW, RIGHT>();
            }
            if WIDE {
                tiles.load::<OTHER>(panel.add(TILE_BYTES), Line::BYTES);
                tiles.dot::<1, LEFT, OTHER>();
                if TALL {
                    tiles.dot::<3, LOW, OTHER>();
                }
            }
            grad = grad.add(grad_step);
            panel = panel.add(if WIDE { 2 * TILE_BYTES } else { TILE_BYTES });
        }
        tiles.store::<0>(acc, ACC_ROW);
        if WIDE {
            tiles.store::<1>(right, ACC_ROW);
        }
        if TALL {
            tiles.store::<2>(below, ACC_ROW);
        }
        if TALL && WIDE {
            tiles.store::<3>(last, ACC_ROW);
        }
    }
}
