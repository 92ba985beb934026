//! What a worker does: packs gradients, then takes panels and multiplies them.

use super::tile::{Tile, rows, vectors};
use super::{BLOCK, WeightGrad};
use crate::Element;
use crate::conv::taken::Taken;
use crate::simd::{Kernel, Simd};
use std::ops::Range;

/// Packs tiles of the gradient, `[tile][pixel][R]`, with zeros behind the last output of a group.
pub(super) struct PackGrads<'a, T> {
    pub(super) plan: &'a WeightGrad,
    pub(super) tiles: Range<usize>,
    pub(super) grad: *const T,
    pub(super) starts: *const usize,
    pub(super) pixels: usize,
    pub(super) to: *mut f32,
}

impl<T: Element> Kernel for PackGrads<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { plan, tiles, grad, starts, pixels, to } = self;
        let outputs = plan.spec.group_outputs();
        let rows = rows::<S>();
        for tile in tiles {
            let first = tile % plan.tiles * rows;
            let width = rows.min(outputs - first);
            let channel = tile / plan.tiles * outputs + first;
            // Whole vectors as far as they stay inside the pixel: masked stores take many times as long on some processors.
            let reach = rows.next_multiple_of(S::LANES);
            let whole = width == rows && channel + reach <= plan.spec.output.c;
            // SAFETY: `to` holds every tile; each pixel's start was located inside the gradient, whose channels reach as
            // far as `width` says, and a vector further if `whole`.
            unsafe {
                let to = to.add(tile * plan.grad_tile());
                for pixel in 0..pixels {
                    let from = grad.add(*starts.add(pixel) + channel);
                    let to = to.add(pixel * rows);
                    // What runs into the next pixels is written over when these follow.
                    let follows = (pixels - pixel) * rows >= reach;
                    for lane in (0..rows).step_by(S::LANES) {
                        let here = S::LANES.min(rows - lane);
                        let value = if whole {
                            T::load::<S>(from.add(lane))
                        } else {
                            T::load_part::<S>(from.add(lane.min(width)), width.saturating_sub(lane).min(here))
                        };
                        if follows {
                            S::store(to.add(lane), value);
                        } else {
                            S::store_part(to.add(lane), value, here);
                        }
                    }
                }
            }
        }
    }
}

/// Items: panels by chunks of tiles.
pub(super) struct Items<'a, T> {
    pub(super) plan: &'a WeightGrad,
    pub(super) chunks: usize,
    pub(super) own: Range<usize>,
    /// The counter, and whose share it counts.
    pub(super) taken: (Taken, usize),
    pub(super) input: *const T,
    pub(super) starts: *const usize,
    pub(super) pixels: usize,
    pub(super) grads: *const f32,
    pub(super) panel: *mut f32,
    pub(super) sums: *mut f32,
}

impl<T: Element> Kernel for Items<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (taken, owner) = self.taken;
        let panels = self.plan.panels.len();
        loop {
            // SAFETY: the counter has a line for the owner.
            let item = self.own.start + unsafe { taken.next(owner) };
            if item >= self.own.end {
                return;
            }
            // One chunk of tiles after the other: it stays in the second cache while all panels go over it.
            let (panel, chunk) = (item % panels, item / panels);
            // SAFETY: the same contract as this kernel's; the item is this worker's alone.
            unsafe {
                let tiles = crate::share(self.plan.tiles, self.chunks, chunk);
                let blocks = self.pixels.div_ceil(BLOCK);
                for block in 0..blocks {
                    let pixels = crate::share(self.pixels, blocks, block);
                    self.pack::<S>(panel, &pixels);
                    if const { vectors::<S>() == 4 } {
                        self.multiply::<S, 4>(panel, tiles.clone(), &pixels);
                    } else {
                        self.multiply::<S, 2>(panel, tiles.clone(), &pixels);
                    }
                }
            }
        }
    }
}

impl<T: Element> Items<'_, T> {
    /// Packs `pixels` of a panel, `[pixel][V vectors]`, with zeros behind its last element.
    ///
    /// # Safety
    ///
    /// The starts and the panel lie inside the input, and there is memory for a panel.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, panel: usize, pixels: &Range<usize>) {
        let panel = &self.plan.panels[panel];
        let all = vectors::<S>() * S::LANES;
        // SAFETY: the same contract.
        unsafe {
            for (place, pixel) in pixels.clone().enumerate() {
                let from = self.input.add(*self.starts.add(pixel) + panel.offset);
                let to = self.panel.add(place * all);
                for lane in (0..all).step_by(S::LANES) {
                    let value = if panel.width == all {
                        T::load::<S>(from.add(lane))
                    } else {
                        T::load_part::<S>(
                            from.add(lane.min(panel.width)),
                            panel.width.saturating_sub(lane).min(S::LANES),
                        )
                    };
                    S::store(to.add(lane), value);
                }
            }
        }
    }

    /// Adds the products of a packed panel with `tiles` of its group.
    ///
    /// # Safety
    ///
    /// The tiles are packed, and nobody else has these sums.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const V: usize>(
        &self,
        panel: usize,
        tiles: Range<usize>,
        pixels: &Range<usize>,
    ) {
        let plan = self.plan;
        let group = plan.panels[panel].group;
        let size = plan.shape.rows * plan.shape.width;
        for tile in tiles {
            // SAFETY: the same contract.
            unsafe {
                let grad = self
                    .grads
                    .add((group * plan.tiles + tile) * plan.grad_tile() + pixels.start * plan.shape.rows);
                let sums = self.sums.add((panel * plan.tiles + tile) * size);
                let (panel, pixels) = (self.panel.cast_const(), pixels.len());
                if const { rows::<S>() == 2 } {
                    S::outline(Tile::<2, V> { grad, panel, pixels, sums });
                } else if const { rows::<S>() == 6 } {
                    S::outline(Tile::<6, V> { grad, panel, pixels, sums });
                } else {
                    S::outline(Tile::<14, V> { grad, panel, pixels, sums });
                }
            }
        }
    }
}
