//! How the sum over taps and channels is cut into steps of 32 products, and the weights packed to match.
//!
//! A window's numbers lie in runs: one of the group's channels for each tap or, where neighbouring taps touch, one of
//! all taps of a kernel row. Whole multiples of 32 numbers of a run are tiles that can be loaded as they lie. What is
//! left of each run is copied, end to end and padded with zeros, to gathered steps. A tile never holds numbers from
//! beyond its run: times a zero weight they add nothing, unless they are NaN or infinite.
//!
//! Groups narrower than a step may share a block: its inputs and outputs are those of all of them, and the weights
//! from one group to another are zero. So a NaN may reach the other groups' outputs, at pixels whose windows hold it.

use crate::conv::weights::Weights;
use crate::simd::{Kernel, Simd};
use crate::{Bf16, ConvSpec};

/// Products of one step: the bf16 numbers of a tile's row.
pub(super) const STEP: usize = 32;
/// Outputs of a tile of weights.
pub(super) const TILE: usize = 16;
/// Lines of a tile.
pub(super) const TILE_LINES: usize = 16;
/// Outputs of a panel: two tiles.
pub(super) const PANEL: usize = 2 * TILE;

/// A number of the window: the tap, and the channel among the block's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tap: [usize; 2],
    pub(super) channel: usize,
}

/// Numbers that are copied to a gathered step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) from: Place,
    pub(super) count: usize,
    /// The gathered step, and where in it.
    pub(super) step: usize,
    pub(super) at: usize,
}

/// The steps of one block of groups, the same for all.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// Groups of a block.
    pub(super) groups: usize,
    /// Inputs and outputs of a block.
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Steps that are loaded as they lie. Neighbouring taps of the same channels follow one another, so that a line of
    /// the input is read again while it is in L1.
    pub(super) direct: Vec<Place>,
    /// Steps that are gathered, after the others.
    pub(super) gathered: usize,
    /// In the order of the steps.
    pub(super) pieces: Vec<Piece>,
    /// Whether no run holds several taps.
    pub(super) within_taps: bool,
}

/// 16 outputs of a tile of pixels, over one step, by the nanosecond: what loads and products take alike.
pub(super) const STEP_NS: f64 = 5.9;
/// Copying one piece of one pixel.
pub(super) const PIECE_NS: f64 = 1.2;

impl Steps {
    /// The cheapest cut of a convolution.
    pub(super) fn new(spec: &ConvSpec) -> Self {
        let divisors = (1..=spec.groups).filter(|groups| spec.groups.is_multiple_of(*groups));
        let candidates = divisors.map(|groups| Self::of_block(spec, groups));
        let cost = |steps: &Self| steps.tile_ns() * (spec.groups / steps.groups) as f64;
        candidates.min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("one divides everything")
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.direct.len() + self.gathered
    }

    /// The time of one block for a tile of pixels.
    pub(super) fn tile_ns(&self) -> f64 {
        (self.len() * self.outputs.div_ceil(TILE)) as f64 * STEP_NS
            + (self.pieces.len() * 16) as f64 * PIECE_NS
    }

    fn of_block(spec: &ConvSpec, groups: usize) -> Self {
        let inputs = spec.group_inputs() * groups;
        let [rows, columns] = spec.kernel;
        let touching = groups == spec.groups && spec.dilation[1] == 1 && !inputs.is_multiple_of(STEP);
        let (runs, length) = if touching { (1, columns * inputs) } else { (columns, inputs) };
        let mut steps = Self {
            groups,
            inputs,
            outputs: spec.group_outputs() * groups,
            direct: Vec::new(),
            gathered: 0,
            pieces: Vec::new(),
            within_taps: !touching,
        };
        for (y, x) in (0..rows).flat_map(|y| (0..runs).map(move |x| (y, x))) {
            let place = |i: usize| Place { tap: [y, x + i / inputs], channel: i % inputs };
            let whole = length - length % STEP;
            steps.direct.extend((0..whole).step_by(STEP).map(place));
            steps.gather(length - whole, |i| place(whole + i));
        }
        steps.direct.sort_by_key(|place| (place.channel / STEP, place.tap));
        steps
    }

    /// Adds `count` numbers of a run to the gathered steps.
    fn gather(&mut self, count: usize, place: impl Fn(usize) -> Place) {
        let mut taken = 0;
        while taken < count {
            let end = self.pieces.last().map_or(0, |piece| piece.step * STEP + piece.at + piece.count);
            let (step, at) = (end / STEP, end % STEP);
            let part = (STEP - at).min(count - taken);
            self.pieces.push(Piece { from: place(taken), count: part, step, at });
            self.gathered = step + 1;
            taken += part;
        }
    }

    /// What each step multiplies, 32 entries for each; none where it is padding.
    pub(super) fn places(&self) -> Vec<Option<Place>> {
        let mut places = vec![None; self.len() * STEP];
        let gathered = self.pieces.iter();
        let gathered = gathered
            .map(|piece| ((self.direct.len() + piece.step) * STEP + piece.at, piece.count, piece.from));
        let direct = self.direct.iter().enumerate().map(|(step, from)| (step * STEP, STEP, *from));
        for (at, count, from) in direct.chain(gathered) {
            for i in 0..count {
                // A run of several taps goes on with the next one.
                let channel = from.channel + i;
                let tap = [from.tap[0], from.tap[1] + channel / self.inputs];
                places[at + i] = Some(Place { tap, channel: channel % self.inputs });
            }
        }
        places
    }
}

/// Up to 32 outputs of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub(super) block: usize,
    /// The first output, among all channels.
    pub(super) first: usize,
    pub(super) outputs: usize,
    /// Where its weights begin.
    pub(super) line: usize,
}

impl Panel {
    /// Tiles of weights for each step: one or two.
    pub(super) fn tiles(&self) -> usize {
        self.outputs.div_ceil(TILE)
    }
}

/// All panels, block by block.
pub(super) fn panels(spec: &ConvSpec, steps: &Steps) -> Vec<Panel> {
    let mut line = 0;
    let mut panels = Vec::new();
    for block in 0..spec.groups / steps.groups {
        for first in (0..steps.outputs).step_by(PANEL) {
            let outputs = PANEL.min(steps.outputs - first);
            let panel = Panel { block, first: block * steps.outputs + first, outputs, line };
            line += steps.len() * panel.tiles() * TILE_LINES;
            panels.push(panel);
        }
    }
    panels
}

/// Packs the weights of one panel as `[step][tile][pair][output][2]`; where there is none, the memory is zero already.
pub(super) struct Pack<'a> {
    pub(super) spec: &'a ConvSpec,
    pub(super) steps: &'a Steps,
    /// What each number of each step is.
    pub(super) places: &'a [Option<Place>],
    pub(super) panel: &'a Panel,
    pub(super) weights: Weights<'a>,
    pub(super) to: *mut Bf16,
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { spec, steps, panel, weights, .. } = self;
        let (inputs, outputs) = (spec.group_inputs(), spec.group_outputs());
        let per_output = weights.strides().output;
        let mut to = self.to;
        for places in self.places.chunks_exact(STEP) {
            for tile in 0..panel.tiles() {
                let tile_first = panel.first + tile * TILE;
                let tile_end = (tile_first + TILE).min(panel.first + panel.outputs);
                for (k, place) in places.iter().enumerate() {
                    let Some(Place { tap, channel }) = *place else { continue };
                    let group = panel.block * steps.groups + channel / inputs;
                    let first = (group * outputs).max(tile_first);
                    let end = ((group + 1) * outputs).min(tile_end);
                    if first >= end {
                        continue;
                    }
                    let mut from = weights.at([group, first - group * outputs, channel % inputs], tap);
                    let at = (k / 2 * TILE + first - tile_first) * 2 + k % 2;
                    for n in 0..end - first {
                        // SAFETY: the outputs are the group's, and the tile has room for 16 of them.
                        unsafe { *to.add(at + 2 * n) = Bf16::from_f32(*from) };
                        from = from.wrapping_add(per_output);
                    }
                }
                // SAFETY: the panel's memory holds every tile of every step.
                to = unsafe { to.add(TILE * STEP) };
            }
        }
    }
}
