//! How a worker's share is cut into units, which others take over when they are done with their own.

use super::Direct;
use std::ops::Range;

/// A range of pixels by a range of panels, in units: block by block, the panels vary first.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) pixels: Range<usize>,
    pub(super) panels: Range<usize>,
    /// Pixels of a block.
    pub(super) block: usize,
    /// Panels of a unit, and units of a block.
    chunk: usize,
    chunks: usize,
    units: usize,
}

/// A block of pixels by some panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) block: usize,
    pub(super) panels: Range<usize>,
}

/// Units that a share should have, so that it can be evened out, and the least products of a pixel with a row of a panel
/// that make one worth its overhead.
const UNITS: usize = 12;
const LEAST: usize = 30_000;

impl Share {
    pub(super) fn new(direct: &Direct, pixels: Range<usize>, panels: Range<usize>) -> Self {
        // Blocks of equal size, in whole tiles where there is more than one.
        let count = pixels.len().div_ceil(direct.block);
        let tile = direct.plan.tile.rows;
        let block =
            if count > 1 { pixels.len().div_ceil(count).next_multiple_of(tile) } else { pixels.len() };
        let blocks = pixels.len().div_ceil(block.max(1));
        let panel = (block * direct.plan.rows()).max(1);
        let chunks = UNITS.div_ceil(blocks.max(1));
        let chunk = (panels.len() / chunks).max(LEAST.div_ceil(panel)).clamp(1, panels.len().max(1));
        let chunks = panels.len().div_ceil(chunk);
        Self { pixels, panels, block, chunk, chunks, units: blocks * chunks }
    }

    /// Unit `unit`, if there are so many.
    pub(super) fn unit(&self, unit: usize) -> Option<Unit> {
        (unit < self.units).then(|| {
            let start = self.panels.start + unit % self.chunks * self.chunk;
            Unit { block: unit / self.chunks, panels: start..(start + self.chunk).min(self.panels.end) }
        })
    }
}
