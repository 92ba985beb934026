//! Weights in the order in which tiles read them.

use super::plan::{Panel, Plan};
use crate::{Bf16, ConvSpec, DType, Line, as_bf16_mut, as_f32_mut};

/// `weight` is `[outputs, inputs / groups, rows, columns]`; the result is `[panel][segment][k][channel]`, for bf16
/// `[panel][segment][k / 2][channel][2]`, with zeros where there is no weight.
pub(super) fn pack(spec: &ConvSpec, plan: &Plan, weight: &[f32], dtype: DType) -> Vec<Line> {
    let mut packed = crate::zeroed(Line::count(plan.weights * dtype.bytes()));
    for panel in &plan.panels {
        let mut row = 0;
        for segment in &plan.segments {
            for k in 0..segment.len {
                let at = panel.weights
                    + (row + k / plan.unit) * panel.vectors * plan.tile.lanes * plan.unit
                    + k % plan.unit;
                let tap = Tap::of(spec, panel, segment.offset + k);
                for channel in 0..panel.width {
                    let Some(index) = tap.weight(spec, panel.channel + channel) else { continue };
                    let index_packed = at + channel * plan.unit;
                    match dtype {
                        DType::F32 => as_f32_mut(&mut packed)[index_packed] = weight[index],
                        DType::Bf16 => as_bf16_mut(&mut packed)[index_packed] = Bf16::from_f32(weight[index]),
                    }
                }
            }
            row += segment.len.div_ceil(plan.unit);
        }
    }
    packed
}

/// An element of the window.
struct Tap {
    row: usize,
    column: usize,
    channel: usize,
}

impl Tap {
    /// The element `offset` behind the first one of the panel's window.
    fn of(spec: &ConvSpec, panel: &Panel, offset: usize) -> Self {
        let input = &spec.input;
        // The panel's first channel is added last: it never carries over into the next pixel.
        let (row, rest) = (offset / input.row(), offset % input.row());
        let (column, channel) = (rest / input.c, rest % input.c);
        Self {
            row: row / spec.dilation[0],
            column: column / spec.dilation[1],
            channel: panel.input + channel,
        }
    }

    /// Where the weight for output channel `output` is, if the two belong to one group.
    fn weight(&self, spec: &ConvSpec, output: usize) -> Option<usize> {
        let (inputs, outputs) = (spec.group_inputs(), spec.group_outputs());
        let [rows, columns] = spec.kernel;
        (self.channel / inputs == output / outputs)
            .then(|| ((output * inputs + self.channel % inputs) * rows + self.row) * columns + self.column)
    }
}
