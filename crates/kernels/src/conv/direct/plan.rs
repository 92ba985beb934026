//! What is fixed when a direct convolution is built: the order of its sums and the panels of its outputs.

use crate::simd::{Kernel, Simd};
use crate::{ConvSpec, DType, Isa};
use std::ops::Range;

/// Input elements that lie one after the other for every output pixel, from its window's first element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Segments whose weights stay in the first cache while the pixels of a block go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) segments: Range<usize>,
    /// Its rows of a packed panel.
    pub(super) rows: Range<usize>,
}

/// Neighbouring output channels that are computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panel {
    /// The first input channel of its group.
    pub(super) input: usize,
    /// Its first output channel.
    pub(super) channel: usize,
    /// Output channels, without padding.
    pub(super) width: usize,
    /// Vectors that hold them.
    pub(super) vectors: usize,
    /// Elements of the packed weights before it.
    pub(super) weights: usize,
}

/// The shape of a level's register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileShape {
    /// `f32` per vector.
    pub(super) lanes: usize,
    /// Vectors of output channels.
    pub(super) vectors: usize,
    /// Pixels of a tile of `vectors` vectors.
    pub(super) rows: usize,
}

/// Vectors of output channels in the widest tile of a level.
pub(super) const fn widest<S: Simd>() -> usize {
    if S::LANES == 4 { 4 } else { 2 }
}

/// Pixels of a tile of `vectors` vectors: as many as the registers hold beside the weights and one input. The products
/// of bf16 need both halves of the weights and inputs at once where there is no instruction for the pair.
pub(super) const fn rows<S: Simd>(dtype: DType, vectors: usize) -> usize {
    let full = match (S::REGISTERS, S::LANES, dtype) {
        (8, ..) => 2,
        (32, 4, DType::F32) => 6,
        (32, 4, DType::Bf16) => 4,
        (32, _, DType::F32) => 14,
        (32, _, DType::Bf16) => 12,
        (_, _, DType::F32) => 6,
        (_, _, DType::Bf16) => 4,
    };
    // Eight sums in flight hide the latency of the multiply-add, and there are no more registers for starts.
    if vectors == widest::<S>() || full < 4 || full > 8 { full } else { 8 }
}

struct Shape(DType);

impl Kernel for Shape {
    type Output = TileShape;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> TileShape {
        let vectors = widest::<S>();
        TileShape { lanes: S::LANES, vectors, rows: rows::<S>(self.0, vectors) }
    }
}

impl TileShape {
    pub(super) fn of(isa: Isa, dtype: DType) -> Self {
        // SAFETY: the kernel's fields promise nothing.
        unsafe { isa.call(Shape(dtype)) }
    }

    /// Output channels of the widest tile.
    pub(super) fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Vectors for `channels` output channels, a power of two.
    fn vectors_for(&self, channels: usize) -> usize {
        channels.div_ceil(self.lanes).next_power_of_two().min(self.vectors)
    }
}

/// The order of the sums, the same for every pixel and group.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) tile: TileShape,
    pub(super) segments: Vec<Segment>,
    pub(super) slices: Vec<Slice>,
    pub(super) panels: Vec<Panel>,
    /// Elements of the packed weights.
    pub(super) weights: usize,
    /// Elements in a row of packed weights that belong to one output channel: two for pairs of bf16.
    pub(super) unit: usize,
}

/// Bytes of weights that stay in the first cache (32 KiB or more), beside the inputs that pass by.
const SLICE: usize = 16 << 10;

impl Plan {
    pub(super) fn new(spec: &ConvSpec, dtype: DType, isa: Isa) -> Self {
        let tile = TileShape::of(isa, dtype);
        let unit = 4 / dtype.bytes();
        let groups = spec.groups / merged(spec, &tile);
        let (inputs, outputs) = (spec.input.c / groups, spec.output.c / groups);
        let limit = (SLICE / (tile.width() * 4)).max(1) * unit;
        let (segments, slices) = cut(&runs(spec, groups), limit, unit);
        let depth: usize = segments.iter().map(|segment| segment.len.div_ceil(unit)).sum();
        let mut panels = Vec::new();
        let mut weights = 0;
        for group in 0..groups {
            for first in (0..outputs).step_by(tile.width()) {
                let width = (outputs - first).min(tile.width());
                let vectors = tile.vectors_for(width);
                let channel = group * outputs + first;
                panels.push(Panel { input: group * inputs, channel, width, vectors, weights });
                weights += depth * vectors * tile.lanes * unit;
            }
        }
        Self { tile, segments, slices, panels, weights, unit }
    }

    /// Rows of a packed panel.
    pub(super) fn rows(&self) -> usize {
        self.slices.last().map_or(0, |slice| slice.rows.end)
    }

    /// Multiply-adds per pixel over all panels, counted in vectors: the padding is paid for like the rest.
    pub(super) fn vectors(&self) -> usize {
        let depth: usize = self.segments.iter().map(|segment| segment.len).sum();
        self.panels.iter().map(|panel| panel.vectors).sum::<usize>() * depth
    }
}

/// How many groups share a panel, with zeros for each other's inputs: a group with few outputs leaves most of a vector
/// empty, and then some products with zero are cheaper.
fn merged(spec: &ConvSpec, tile: &TileShape) -> usize {
    let (inputs, outputs) = (spec.group_inputs(), spec.group_outputs());
    let cost = |merge: usize| {
        let full = merge * outputs / tile.width() * tile.vectors;
        let rest = merge * outputs % tile.width();
        let vectors = full + if rest == 0 { 0 } else { tile.vectors_for(rest) };
        // Beside the products, a tile has a fixed cost, about that of twenty elements.
        (spec.groups / merge) * vectors * (merge * inputs * spec.kernel[0] * spec.kernel[1] + 20)
    };
    (1..=spec.groups)
        .filter(|&merge| spec.groups.is_multiple_of(merge) && (merge == 1 || merge * outputs <= tile.width()))
        .min_by_key(|&merge| cost(merge))
        .unwrap_or(1)
}

/// The contiguous pieces of a window, in the order of the kernel's taps.
pub(super) fn runs(spec: &ConvSpec, groups: usize) -> Vec<Segment> {
    let [rows, columns] = spec.kernel;
    let (inputs, c) = (spec.input.c / groups, spec.input.c);
    // A row of taps next to each other with all channels is one piece.
    let whole = groups == 1 && (spec.dilation[1] == 1 || columns == 1);
    let (pieces, len) = if whole { (1, columns * c) } else { (columns, inputs) };
    let tap = |row: usize, piece: usize| Segment {
        offset: row * spec.dilation[0] * spec.input.row() + piece * spec.dilation[1] * c,
        len,
    };
    (0..rows).flat_map(|row| (0..pieces).map(move |piece| tap(row, piece))).collect()
}

/// Cuts and gathers runs into slices of at most about `limit` elements.
fn cut(runs: &[Segment], limit: usize, unit: usize) -> (Vec<Segment>, Vec<Slice>) {
    let total: usize = runs.iter().map(|run| run.len).sum();
    let count = total.div_ceil(limit).max(1);
    let target = total.div_ceil(count);
    let mut segments = Vec::new();
    let mut slices = Vec::new();
    let (mut first, mut filled, mut row, mut start) = (0, 0, 0, 0);
    for run in runs {
        // Long runs are cut into equal parts, short ones are kept whole.
        let parts = run.len.div_ceil(target).max(1);
        let part = run.len.div_ceil(parts).next_multiple_of(unit);
        for offset in (0..run.len).step_by(part) {
            let len = part.min(run.len - offset);
            if filled > 0 && filled + len > target + target / 8 {
                slices.push(Slice { segments: first..segments.len(), rows: start..row });
                (first, filled, start) = (segments.len(), 0, row);
            }
            segments.push(Segment { offset: run.offset + offset, len });
            filled += len;
            row += len.div_ceil(unit);
        }
    }
    slices.push(Slice { segments: first..segments.len(), rows: start..row });
    (segments, slices)
}
