//! The weights' transform.

#![expect(clippy::needless_range_loop, reason = "indices of lanes, rows and columns, which are also offsets")]

use super::transform::{MAX, weight_matrix};
use crate::conv::weights::{Strides, Weights, write};
use crate::simd::{Kernel, Simd};

/// `U = G g Gᵀ` of one panel, in `f64` and then rounded, as `[point, input, output of the panel]`.
///
/// A point of all inputs is far from the next one, so some inputs are transformed apart before they are written.
pub(super) struct Pack<'a, const M: usize> {
    pub weights: Weights<'a>,
    pub group: usize,
    /// The first output of the panel, and how many there are; the rest of the panel becomes zero.
    pub first: usize,
    pub count: usize,
    pub inputs: usize,
    /// Outputs of a panel, padding included.
    pub width: usize,
    /// Aligned to a line.
    pub to: *mut f32,
    /// Whether all panels together are too large for the caches.
    pub far: bool,
}

/// Outputs that are transformed at once.
const LANES: usize = 8;
/// Inputs times outputs that are transformed apart, of which 36 points fit the first cache.
const APART: usize = 128;

type Lanes = [f64; LANES];

impl<const M: usize> Kernel for Pack<'_, M> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { inputs, width, .. } = self;
        let matrix = weight_matrix(M);
        let points = (M + 2) * (M + 2);
        let mut apart = [0.0_f32; MAX * MAX * APART];
        let most = APART / width;
        for first in (0..inputs).step_by(most) {
            let count = most.min(inputs - first);
            for input in 0..count {
                for lane in (0..width).step_by(LANES) {
                    let kernels = self.kernels(first + input, lane);
                    transform::<M>(&matrix, &kernels, &mut apart[input * width + lane..]);
                }
            }
            for (point, apart) in apart.chunks_exact(APART).take(points).enumerate() {
                // SAFETY: the panel's memory holds every point of every input.
                unsafe {
                    let to = self.to.add((point * inputs + first) * width);
                    let apart = &apart[..count * width];
                    if self.far { write::<S, true>(to, apart) } else { write::<S, false>(to, apart) }
                }
            }
        }
        // SAFETY: the processor has the level of `S`.
        unsafe { S::fence() };
    }
}

impl<const M: usize> Pack<'_, M> {
    /// The kernels of some outputs from `lane` on, by row and column; zeros behind the last.
    #[inline(always)]
    fn kernels(&self, input: usize, lane: usize) -> [[Lanes; 3]; 3] {
        let mut kernels = [[[0.0; LANES]; 3]; 3];
        let Strides { output, row, column, .. } = self.weights.strides();
        if lane >= self.count {
            return kernels;
        }
        let from = self.weights.at([self.group, self.first + lane, input], [0, 0]);
        for o in 0..LANES.min(self.count - lane) {
            let from = from.wrapping_add(o * output);
            for y in 0..3 {
                for x in 0..3 {
                    let from = from.wrapping_offset(y as isize * row + x as isize * column);
                    // SAFETY: it is one of the convolution's weights.
                    kernels[y][x][o] = f64::from(unsafe { *from });
                }
            }
        }
        kernels
    }
}

/// `G k Gᵀ` of some kernels; each point goes `APART` numbers behind the one before.
#[inline(always)]
fn transform<const M: usize>(matrix: &[[f64; 3]; MAX], kernels: &[[Lanes; 3]; 3], to: &mut [f32]) {
    let mut half = [[[0.0; LANES]; 3]; MAX];
    for x in 0..3 {
        let column = spread::<M>(matrix, [&kernels[0][x], &kernels[1][x], &kernels[2][x]]);
        for i in 0..M + 2 {
            half[i][x] = column[i];
        }
    }
    for i in 0..M + 2 {
        let row = spread::<M>(matrix, [&half[i][0], &half[i][1], &half[i][2]]);
        for j in 0..M + 2 {
            let to = &mut to[(i * (M + 2) + j) * APART..][..LANES];
            for lane in 0..LANES {
                to[lane] = row[j][lane] as f32;
            }
        }
    }
}

/// `G` times three numbers: those of the points `p` and `-p` are a sum and a difference of the same two terms.
#[inline(always)]
fn spread<const M: usize>(matrix: &[[f64; 3]; MAX], k: [&Lanes; 3]) -> [Lanes; MAX] {
    let mut all = [[0.0; LANES]; MAX];
    for lane in 0..LANES {
        all[0][lane] = matrix[0][0] * k[0][lane];
        all[M + 1][lane] = k[2][lane];
    }
    for pair in 0..M / 2 {
        let row = 1 + 2 * pair;
        for lane in 0..LANES {
            let even = matrix[row][0] * k[0][lane] + matrix[row][2] * k[2][lane];
            let odd = matrix[row][1] * k[1][lane];
            all[row][lane] = even + odd;
            all[row + 1][lane] = even - odd;
        }
    }
    all
}
