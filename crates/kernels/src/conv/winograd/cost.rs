//! What a convolution costs this way, roughly: enough to choose between methods and sizes of tiles.

use super::{Blocking, Tile, Winograd};
use crate::Isa;
use crate::conv::ConvSpec;
use crate::conv::cost::rate;

/// Measured on Zen 3: the products' share of the peak once the weights are cached.
const REACHED: f64 = 0.85;

/// Bytes of maps that stay in the last cache between two layers.
const CACHE: usize = 16 << 20;

/// Bytes per second at which weights come from memory: one thread, and several.
const BANDWIDTH: [f64; 2] = [20e9, 30e9];

impl Tile {
    /// Seconds to transform one tile and one vector of channels, there and back; most of it waits for memory.
    fn seconds(self) -> [f64; 2] {
        match self {
            Self::Two => [60e-9, 40e-9],
            Self::Four => [150e-9, 100e-9],
        }
    }
}

impl Winograd {
    /// Seconds for whole images, with weights that are not in the cache.
    #[must_use]
    pub fn cost(spec: &ConvSpec, tile: Tile, images: usize, threads: usize, isa: Isa) -> f64 {
        // SAFETY: this kernel promises nothing.
        let shape = unsafe { isa.call(super::Ask) };
        let threads = threads.max(1);
        let across = |size: usize| size.div_ceil(tile.size());
        let tiles = images * across(spec.output.h) * across(spec.output.w);
        let vectors = |channels: usize| (spec.groups * channels.div_ceil(shape.lanes)) as f64;
        let [forward, backward] = tile.seconds();
        let transforms = tiles as f64
            * (forward * vectors(spec.group_inputs()) + backward * vectors(spec.group_outputs()));
        let panels = super::panels(spec, shape);
        let weights = (spec.groups * panels * shape.outputs * spec.group_inputs() * tile.points()) as f64;
        let products = tiles as f64 * weights / shape.lanes as f64 / rate(isa) / REACHED;
        // The largest share: of the panels, or of the tiles.
        let largest = |count: usize| count.div_ceil(threads) as f64 / count.max(1) as f64;
        let products =
            products * largest(if Blocking::share(tiles, threads) { spec.groups * panels } else { tiles });
        // Maps that fit the last cache are there already; of others, each line of the output moves twice.
        let maps = 4 * images * (spec.input.image() + 2 * spec.output.image());
        let moved = 4.0 * weights + if maps > CACHE { maps as f64 } else { 0.0 };
        products + transforms * largest(tiles) + moved / BANDWIDTH[usize::from(threads > 1)]
    }
}
