//! Weights in the order in which tiles read them.
//!
//! ```text
//! packed[panel][segment][k][channel]                 f32
//! packed[panel][segment][k / 2][channel][k % 2]      bf16
//! ```
//! with zeros where there is no weight. Packing is a transposition of pieces small enough for the first cache, whose
//! places are worked out once, when the convolution is built.

use super::plan::{Panel, Plan};
use crate::conv::weights::{Weights, write};
use crate::simd::{Kernel, Simd};
use crate::{ConvSpec, DType, Element};

/// Neighbouring input channels of one tap and one group, and where they are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    tap: [usize; 2],
    /// The group among those that share a panel, and the first channel of it.
    group: usize,
    channel: usize,
    len: usize,
    /// The row of the packed panel, and the place of the pair.
    row: usize,
    place: usize,
    /// Whether it is the last one of its segment: nothing else is in its last pair.
    last: bool,
}

/// The most channels of a piece, and the widest panel of any level.
const LEN: usize = 32;
const WIDEST: usize = 32;

/// The pieces of a window, ordered by where the weights are.
pub(super) fn pieces(spec: &ConvSpec, plan: &Plan) -> Vec<Piece> {
    let (input, inputs) = (&spec.input, spec.group_inputs());
    let mut pieces = Vec::new();
    let mut row = 0;
    for segment in &plan.segments {
        let mut k = 0;
        while k < segment.len {
            // The panel's first channel is added later: it never carries over into the next pixel.
            let (y, rest) = ((segment.offset + k) / input.row(), (segment.offset + k) % input.row());
            let (x, all) = (rest / input.c, rest % input.c);
            let channel = all % inputs;
            let len = (segment.len - k).min(inputs - channel).min(LEN - channel % LEN);
            pieces.push(Piece {
                tap: [y / spec.dilation[0], x / spec.dilation[1]],
                group: all / inputs,
                channel,
                len,
                row: row + k / plan.unit,
                place: k % plan.unit,
                last: k + len == segment.len,
            });
            k += len;
        }
        row += segment.len.div_ceil(plan.unit);
    }
    // The taps of a few channels lie together.
    pieces.sort_by_key(|piece| (piece.group, piece.channel / LEN, piece.tap));
    pieces
}

/// Writes the weights of one panel.
pub(super) struct Pack<'a, T> {
    pub(super) spec: &'a ConvSpec,
    pub(super) plan: &'a Plan,
    pub(super) pieces: &'a [Piece],
    pub(super) panel: &'a Panel,
    pub(super) weights: Weights<'a>,
    /// All packed weights, aligned to a line.
    pub(super) packed: *mut T,
    /// Whether they are too large for the caches.
    pub(super) far: bool,
}

impl<T: Element> Kernel for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { spec, plan, panel, weights, .. } = self;
        let (inputs, outputs) = (spec.group_inputs(), spec.group_outputs());
        let unit = plan.unit;
        let row = panel.vectors * plan.tile.lanes * unit;
        let mut apart = [0.0; LEN * WIDEST];
        for piece in self.pieces {
            let group = panel.input / inputs + piece.group;
            let first = (group * outputs).max(panel.channel);
            let end = ((group + 1) * outputs).min(panel.channel + panel.width);
            if first >= end {
                continue;
            }
            let from = weights.at([group, first - group * outputs, piece.channel], piece.tap);
            let start = panel.weights + piece.row * row + (first - panel.channel) * unit;
            // SAFETY: the packed weights hold every row of the panel.
            let to = unsafe { self.packed.add(start) };
            let (output, input) = (weights.strides().output, weights.strides().input);
            let (outputs, inputs) = (end - first, piece.len);
            let block = Block { from, output, input, outputs, inputs, to, row, place: piece.place };
            // Whole rows go through the first cache, everything else straight to its place.
            let whole =
                outputs * unit == row && piece.place == 0 && (inputs.is_multiple_of(unit) || piece.last);
            // SAFETY: the outputs and channels are among those of the convolution, and each has its place in the panel.
            unsafe {
                match (unit, whole) {
                    (1, true) => block.rows::<S, 1>(&mut apart, self.far),
                    (1, false) => block.transpose::<T, 1>(to),
                    (_, true) => block.rows::<S, 2>(&mut apart, self.far),
                    (_, false) => block.transpose::<T, 2>(to),
                }
            }
        }
        // SAFETY: the processor has the level of `S`.
        unsafe { S::fence() };
    }
}

/// Weights of some outputs and inputs, and where they go.
struct Block<T> {
    from: *const f32,
    /// From one output and from one input to the next.
    output: usize,
    input: usize,
    outputs: usize,
    inputs: usize,
    to: *mut T,
    /// From one row of packed weights to the next.
    row: usize,
    /// The place of the first input in its pair.
    place: usize,
}

// SAFETY of the blocks below: the caller promises that the weights can be read and that their places can be written.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Block<T> {
    /// Where input `k` of the first output goes.
    #[inline(always)]
    unsafe fn place<E, const UNIT: usize>(&self, to: *mut E, k: usize) -> *mut E {
        let k = self.place + k;
        unsafe { to.add(k / UNIT * self.row + k % UNIT) }
    }

    /// Writes whole rows.
    ///
    /// # Safety
    ///
    /// As [`Block::transpose`]; the rows hold nothing else.
    #[inline(always)]
    unsafe fn rows<S: Simd, const UNIT: usize>(&self, apart: &mut [f32; LEN * WIDEST], far: bool) {
        let count = self.inputs.div_ceil(UNIT) * self.row;
        if !self.inputs.is_multiple_of(UNIT) {
            apart[count - self.row..count].fill(0.0);
        }
        unsafe {
            self.transpose::<f32, UNIT>(apart.as_mut_ptr());
            let apart = &apart[..count];
            match (T::DTYPE, far) {
                (DType::F32, true) => write::<S, true>(self.to.cast(), apart),
                (DType::F32, false) => write::<S, false>(self.to.cast(), apart),
                (DType::Bf16, _) => {
                    for (i, vector) in apart.chunks_exact(S::LANES).enumerate() {
                        T::store::<S>(self.to.add(i * S::LANES), S::load(vector.as_ptr()));
                    }
                }
            }
        }
    }

    /// Writes each number to its place behind `to`.
    ///
    /// # Safety
    ///
    /// The weights can be read and their places written.
    #[inline(always)]
    unsafe fn transpose<E: Element, const UNIT: usize>(&self, to: *mut E) {
        unsafe {
            if self.output == 1 {
                for k in 0..self.inputs {
                    let (from, to) = (self.from.add(k * self.input), self.place::<E, UNIT>(to, k));
                    for o in 0..self.outputs {
                        *to.add(o * UNIT) = E::from_f32(*from.add(o));
                    }
                }
            } else if self.input < self.output {
                for o in 0..self.outputs {
                    let from = self.from.add(o * self.output);
                    for k in 0..self.inputs {
                        *self.place::<E, UNIT>(to, k).add(o * UNIT) = E::from_f32(*from.add(k * self.input));
                    }
                }
            } else {
                for k in 0..self.inputs {
                    let (from, to) = (self.from.add(k * self.input), self.place::<E, UNIT>(to, k));
                    for o in 0..self.outputs {
                        *to.add(o * UNIT) = E::from_f32(*from.add(o * self.output));
                    }
                }
            }
        }
    }
}
