//! How one call goes: whether the input is copied, how the workers share it, and what stays in the caches.

use super::Amx;
use super::share::SPOTS;
use super::steps::{Panel, STEP_NS, Steps, TILE_LINES};
use super::walk::{Copied, View, Walk};
use crate::{Bf16, ConvSpec, Line};
use std::ops::Range;

/// Weights that may stay in a core's L2 while pixels stream by, and pixels that may while weights do: half of 2 MiB.
pub(super) const RESIDENT: usize = 1 << 20;
/// Memory for gathered steps of a block of pixels.
const GATHERED: usize = 256 << 10;
/// A copy of the input is made for maps of at most this width, and of at most this many images and bytes at once.
const COPY_WIDTH: usize = 12;
pub(super) const COPY_IMAGES: usize = 16;
const COPY_BYTES: usize = 3 << 19;
/// Bytes per nanosecond that one core reads from beyond its L2, and copies.
const FAR: f64 = 12.0;
const COPY: f64 = 8.0;

/// How the images of one pass over the weights are read.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) walk: Walk,
    pub(super) copied: Option<Copied>,
    /// Images of one pass.
    pub(super) images: usize,
}

/// The images that are copied at once; none where a copy cannot pay.
pub(super) fn copy_images(spec: &ConvSpec, steps: &Steps) -> usize {
    if !steps.within_taps || spec.output.w > COPY_WIDTH {
        return 0;
    }
    let one = Copied::new(spec, &(0..spec.output.h), 1).len() * size_of::<Bf16>();
    (COPY_BYTES / one).min(COPY_IMAGES)
}

impl Plan {
    /// The cheaper of reading the input as it lies, in one pass, and copying it.
    pub(super) fn new(spec: &ConvSpec, steps: &Steps, images: usize, rows: &Range<usize>) -> Self {
        let direct = Self::of_pass(spec, images, rows, false);
        let most = copy_images(spec, steps);
        if most == 0 {
            return direct;
        }
        // Passes of even size.
        let passes = images.div_ceil(most);
        let copied = Self::of_pass(spec, images.div_ceil(passes), rows, true);
        let quicker = copied.nanoseconds(spec, steps) * (passes as f64) < direct.nanoseconds(spec, steps);
        if quicker { copied } else { direct }
    }

    /// One pass over `images`, with or without a copy.
    pub(super) fn of_pass(spec: &ConvSpec, images: usize, rows: &Range<usize>, copy: bool) -> Self {
        let copied = copy.then(|| Copied::new(spec, rows, images));
        let view = copied.as_ref().map_or_else(|| View::direct(spec, rows.start), Copied::view);
        let walk = Walk::new(view, rows.len(), spec.output.w, images);
        Self { walk, copied, images }
    }

    /// The time of products and copies of one pass on one thread.
    pub(super) fn nanoseconds(&self, spec: &ConvSpec, steps: &Steps) -> f64 {
        let copied = self.copied.as_ref().map_or(0, Copied::len) * size_of::<Bf16>();
        let tile = steps.tile_ns() * (spec.groups / steps.groups) as f64;
        self.walk.tiles as f64 * tile + copied as f64 / COPY
    }
}

/// How workers share a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Whether they share the panels, each with all pixels, instead of the pixels, each with all weights.
    pub(super) by_columns: bool,
    /// The most tiles of a block of pixels: two where a worker's weights stay in L2, else as many as stay there.
    pub(super) block_tiles: usize,
}

impl Amx {
    /// The quicker split, by the evenness of the shares and what they read from beyond L2.
    pub(super) fn split(&self, plan: &Plan, threads: usize) -> Split {
        let columns = self.split_by(plan, threads, true);
        // Interleaved images would need a sum for each at the ends of the shares.
        if threads == 1 || (self.spec.pooled && plan.walk.view.images > 1) {
            return columns.0;
        }
        let rows = self.split_by(plan, threads, false);
        if columns.1 < rows.1 { columns.0 } else { rows.0 }
    }

    /// One of the splits, and its time in nanoseconds.
    fn split_by(&self, plan: &Plan, threads: usize, by_columns: bool) -> (Split, f64) {
        let walk = &plan.walk;
        let share = |count: usize, wanted: bool| match wanted {
            true => count.div_ceil(threads) as f64 / count as f64,
            false => 1.0,
        };
        let panels = share(self.panels.len(), by_columns);
        let tiles = 2.0 * walk.tiles.div_ceil(2) as f64 * share(walk.tiles.div_ceil(2), !by_columns);
        let tile_bytes = walk.tile * walk.spacing * self.spec.stride[0] * size_of::<Bf16>();
        let weights = size_of_val(&self.weight[..]) as f64 * panels;
        let pixels = tiles * tile_bytes as f64;
        let block_tiles = match (weights <= RESIDENT as f64, &plan.copied) {
            (true, _) => 2,
            // A copy is small enough by itself.
            (false, Some(_)) => self.gathered_tiles(),
            (false, None) => self.gathered_tiles().min(RESIDENT / tile_bytes).max(2) / 2 * 2,
        };
        // Weights that do not stay are read again for each block.
        let blocks = if block_tiles == 2 { 1.0 } else { (tiles / block_tiles as f64).ceil() };
        let products = self.panels.iter().map(Panel::tiles).sum::<usize>() * self.steps.len();
        let nanoseconds = tiles * panels * products as f64 * STEP_NS + (pixels + weights * blocks) / FAR;
        (Split { by_columns, block_tiles }, nanoseconds)
    }

    /// The most tiles of a block for which there is memory to gather steps; an even number.
    pub(super) fn gathered_tiles(&self) -> usize {
        if size_of_val(&self.weight[..]) <= RESIDENT {
            return 2;
        }
        let bytes = self.steps.gathered * TILE_LINES * Line::BYTES;
        (GATHERED / bytes.max(1)).clamp(2, SPOTS) / 2 * 2
    }
}
