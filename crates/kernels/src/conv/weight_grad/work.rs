//! What a worker does: packs gradients, then takes panels and multiplies them.

use super::call::Stretch;
use super::tile::{self, rows, vectors};
use super::windows::{BLOCK, ByWindows};
use crate::conv::taken::Taken;
use crate::simd::{Kernel, Simd};
use crate::{ConvSpec, Element, Map};
use std::ops::Range;

/// A pixel of the output, on the way through all images.
#[derive(Clone, Copy)]
pub(super) struct Pixel {
    image: usize,
    y: usize,
    x: usize,
}

impl Pixel {
    /// Pixel number `index`.
    #[inline(always)]
    pub(super) fn new(output: &Map, index: usize) -> Self {
        let (row, x) = (index / output.w, index % output.w);
        Self { image: row / output.h, y: row % output.h, x }
    }

    /// On to the next one.
    #[inline(always)]
    pub(super) fn advance(&mut self, output: &Map) {
        self.x += 1;
        if self.x == output.w {
            (self.x, self.y) = (0, self.y + 1);
            if self.y == output.h {
                (self.y, self.image) = (0, self.image + 1);
            }
        }
    }

    /// Where it is in the output images.
    #[inline(always)]
    pub(super) fn at(&self, output: &Map) -> usize {
        self.image * output.image() + output.at(self.y as isize, self.x as isize)
    }

    /// Where its window begins in the input images: the first ones start in the halo, which is at least as wide as the
    /// padding.
    #[inline(always)]
    pub(super) fn window(&self, spec: &ConvSpec) -> usize {
        let ConvSpec { input, stride, padding, .. } = spec;
        self.image * input.image()
            + (self.y * stride[0] + input.halo.top - padding[0]) * input.row()
            + (self.x * stride[1] + input.halo.left - padding[1]) * input.c
    }
}

/// Packs the gradients of some pixels as `[block][tile][pixel][R]`, and notes where their windows are. What stands behind
/// the last output of a group does not matter: its sums are not read.
pub(super) struct PackGrads<'a, T> {
    pub(super) plan: &'a ByWindows,
    pub(super) stretch: &'a Stretch,
    /// Among the pixels of the stretch.
    pub(super) own: Range<usize>,
    pub(super) grad: *const T,
    pub(super) starts: *mut usize,
    pub(super) to: *mut f32,
}

impl<T: Element> Kernel for PackGrads<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { plan, stretch, own, grad, starts, to } = self;
        let output = &plan.spec.output;
        if own.is_empty() {
            return;
        }
        let mut at = Pixel::new(output, stretch.pixels.start + own.start);
        for block in 0..stretch.blocks {
            let all = stretch.block(block);
            for pixel in all.start.max(own.start)..all.end.min(own.end) {
                // SAFETY: the table and the packed gradients hold every pixel of a stretch, and the gradient this one.
                unsafe {
                    *starts.add(pixel) = at.window(&plan.spec);
                    let to = to.add(block * plan.grad_block() + (pixel - all.start) * rows::<S>());
                    let reach = const { rows::<S>().next_multiple_of(S::LANES) };
                    let shared = (own.end - pixel) * rows::<S>() < reach && own.end < all.end;
                    pixel_tiles::<S, T>(plan, grad.add(at.at(output)), to, shared);
                }
                at.advance(output);
            }
        }
    }
}

/// Packs the gradients of one pixel for all tiles. Vectors are written whole, into the next pixels, which come after;
/// unless one of these is `shared`, another worker's.
///
/// # Safety
///
/// The pixel can be read, and its place in every tile and what follows it written; the processor has the level of `S`.
#[inline(always)]
unsafe fn pixel_tiles<S: Simd, T: Element>(plan: &ByWindows, from: *const T, to: *mut f32, shared: bool) {
    let (c, outputs, rows) = (plan.spec.output.c, plan.spec.group_outputs(), rows::<S>());
    let mut to = to;
    for group in 0..plan.spec.groups {
        let first = group * outputs;
        for channel in (first..first + outputs).step_by(rows) {
            for lane in (0..rows).step_by(S::LANES) {
                // SAFETY: the same contract; no more than the channels of the pixel are read.
                unsafe {
                    let left = c.saturating_sub(channel + lane);
                    let value = if left >= S::LANES {
                        T::load::<S>(from.add(channel + lane))
                    } else {
                        T::load_part::<S>(from.wrapping_add(channel + lane), left)
                    };
                    if shared {
                        S::store_part(to.add(lane), value, (rows - lane).min(S::LANES));
                    } else {
                        S::store(to.add(lane), value);
                    }
                }
            }
            to = to.wrapping_add(plan.grad_tile());
        }
    }
}

/// Items: chunks of tiles by panels.
pub(super) struct Items<'a, T> {
    pub(super) plan: &'a ByWindows,
    pub(super) stretch: &'a Stretch,
    pub(super) chunks: usize,
    pub(super) own: Range<usize>,
    /// The counter, and whose share it counts.
    pub(super) taken: (Taken, usize),
    pub(super) input: *const T,
    pub(super) starts: *const usize,
    pub(super) grads: *const f32,
    pub(super) panel: *mut f32,
    pub(super) sums: *mut f32,
    /// Whether there are sums to add to.
    pub(super) add: bool,
}

impl<T: Element> Kernel for Items<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (taken, owner) = self.taken;
        loop {
            // SAFETY: the counter has a line for the owner.
            let item = self.own.start + unsafe { taken.next(owner) };
            if item >= self.own.end {
                return;
            }
            // One chunk of tiles after the other: it stays in the second cache while all panels go over it.
            let (panel, chunk) = (item % self.plan.panels.len(), item / self.plan.panels.len());
            let tiles = crate::share(self.plan.tiles, self.chunks, chunk);
            for block in 0..self.stretch.blocks {
                // SAFETY: the same contract as this kernel's; the item is this worker's alone.
                unsafe {
                    self.pack::<S>(panel, block);
                    self.multiply::<S>(panel, block, tiles.clone());
                }
            }
        }
    }
}

impl<T: Element> Items<'_, T> {
    /// Packs a panel for a block of pixels, `[pixel][V vectors]`, with zeros behind its last element.
    ///
    /// # Safety
    ///
    /// The starts and the panel lie inside the input, and there is memory for a panel.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, index: usize, block: usize) {
        let panel = &self.plan.panels[index];
        let pixels = self.stretch.block(block);
        // SAFETY: the same contract.
        unsafe {
            // The lines of the next block come from far, one of each pixel: too scattered for the processor to notice.
            let next = self.next_pack(index, block);
            let input = self.input.add(panel.offset);
            let starts = self.starts.add(pixels.start);
            match vectors::<S>() {
                2 if panel.width == 2 * S::LANES => {
                    pack::<S, T, 2>(input, starts, pixels.len(), next, self.panel);
                }
                4 if panel.width == 4 * S::LANES => {
                    pack::<S, T, 4>(input, starts, pixels.len(), next, self.panel);
                }
                _ => pack_part::<S, T>(input, starts, pixels.len(), panel.width, self.panel),
            }
        }
    }

    /// Where the panel of the block after this one begins, and its starts: of the same panel, or of the next one.
    ///
    /// # Safety
    ///
    /// As [`Items::pack`].
    #[inline(always)]
    unsafe fn next_pack(&self, index: usize, block: usize) -> (*const T, *const usize) {
        let (panel, block) = if block + 1 < self.stretch.blocks {
            (index, block + 1)
        } else {
            ((index + 1).min(self.plan.panels.len() - 1), 0)
        };
        // SAFETY: the same contract. Blocks differ by one pixel at most, and the table has room behind them.
        unsafe {
            let starts = self.starts.add(self.stretch.block(block).start);
            (self.input.add(self.plan.panels[panel].offset), starts)
        }
    }

    /// Adds the products of a packed panel with `tiles` of its group.
    ///
    /// # Safety
    ///
    /// The tiles are packed, and nobody else has these sums.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, panel: usize, block: usize, tiles: Range<usize>) {
        let plan = self.plan;
        let group = plan.panels[panel].group;
        let size = plan.tile_sums();
        let pixels = self.stretch.block(block).len().min(BLOCK);
        let add = self.add || block > 0;
        for tile in tiles {
            // SAFETY: the same contract.
            unsafe {
                let grad = block * plan.grad_block() + (group * plan.tiles + tile) * plan.grad_tile();
                let grad = self.grads.add(grad);
                let sums = self.sums.add(panel * plan.panel_sums() + tile * size);
                tile::sum::<S>(grad, self.panel, pixels, sums, add);
            }
        }
    }
}

/// Packs a whole panel, and asks for the next one.
///
/// # Safety
///
/// The panel can be read at every start, `to` has room for it, and the processor has the level of `S`.
#[inline(always)]
unsafe fn pack<S: Simd, T: Element, const V: usize>(
    input: *const T,
    starts: *const usize,
    pixels: usize,
    next: (*const T, *const usize),
    to: *mut f32,
) {
    for pixel in 0..pixels {
        // SAFETY: the same contract; the next panel's addresses need not be valid.
        unsafe {
            S::prefetch_l2(next.0.wrapping_add(*next.1.add(pixel)).cast());
            let from = input.add(*starts.add(pixel));
            let to = to.add(pixel * V * S::LANES);
            for v in 0..V {
                S::store(to.add(v * S::LANES), T::load::<S>(from.add(v * S::LANES)));
            }
        }
    }
}

/// Packs a panel of `width` elements, with zeros behind them.
///
/// # Safety
///
/// As [`pack`].
#[inline(always)]
unsafe fn pack_part<S: Simd, T: Element>(
    input: *const T,
    starts: *const usize,
    pixels: usize,
    width: usize,
    to: *mut f32,
) {
    let all = vectors::<S>() * S::LANES;
    for lane in (0..all).step_by(S::LANES) {
        let count = width.saturating_sub(lane).min(S::LANES);
        for pixel in 0..pixels {
            // SAFETY: the same contract; no more than the elements of the panel are read.
            unsafe {
                let from = input.wrapping_add(*starts.add(pixel) + lane);
                let value = if count == S::LANES {
                    T::load::<S>(from)
                } else if count == 0 {
                    S::splat(0.0)
                } else {
                    T::load_part::<S>(from, count)
                };
                S::store(to.add(pixel * all + lane), value);
            }
        }
    }
}
