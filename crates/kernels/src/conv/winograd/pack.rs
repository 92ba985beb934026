//! The weights' transform.

use super::product::Shape;
use super::transform::{MAX, weight_matrix};
use super::{Tile, panels};
use crate::conv::ConvSpec;
use crate::{Line, as_f32_mut};

/// `U = G g G^T`, in `f64` and then rounded, as `[group, panel, point, input, output of the panel]`; outputs that fill
/// the last panel of a group are zero.
pub(super) fn pack(spec: &ConvSpec, tile: Tile, shape: Shape, weight: &[f32]) -> Vec<Line> {
    let (inputs, outputs, width) = (spec.group_inputs(), spec.group_outputs(), shape.outputs);
    let panel = tile.points() * inputs * width;
    let count = spec.groups * panels(spec, shape) * panel;
    let mut lines = crate::zeroed(Line::count(count * size_of::<f32>()));
    let side = tile.size() + 2;
    let g = &weight_matrix(tile.size())[..side];
    let groups = weight[..spec.weights()].chunks_exact(outputs * inputs * 9);
    let panels = groups.flat_map(|group| group.chunks(width * inputs * 9));
    for (panel, kernels) in as_f32_mut(&mut lines).chunks_exact_mut(panel).zip(panels) {
        for input in 0..inputs {
            // One row of the panel at a time, since its points lie far apart.
            for (output, kernels) in kernels.chunks_exact(inputs * 9).enumerate() {
                let u = transform(g, &kernels[input * 9..][..9]);
                for (point, u) in u.into_iter().take(side * side).enumerate() {
                    panel[(point * inputs + input) * width + output] = u;
                }
            }
        }
    }
    lines
}

/// `G k G^T` of one kernel, row by row.
fn transform(g: &[[f64; 3]], kernel: &[f32]) -> [f32; MAX * MAX] {
    let mut u = [0.0; MAX * MAX];
    for (i, row) in g.iter().enumerate() {
        let half: [f64; 3] =
            std::array::from_fn(|x| (0..3).map(|y| row[y] * f64::from(kernel[3 * y + x])).sum());
        for (j, column) in g.iter().enumerate() {
            u[i * g.len() + j] = half.iter().zip(column).map(|(a, b)| a * b).sum::<f64>() as f32;
        }
    }
    u
}
