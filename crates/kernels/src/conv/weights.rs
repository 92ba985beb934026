//! Where a convolution's weights are: as a module has them, or turned around for the gradient of its input.

use super::ConvSpec;
use crate::simd::Simd;

/// Weights by group, output and input of the group, row and column, wherever each of them is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    numbers: &'a [f32],
    /// Where the first one is.
    start: usize,
    strides: Strides,
}

/// From one weight to the next, in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strides {
    pub(crate) group: usize,
    pub(crate) output: usize,
    pub(crate) input: usize,
    /// Below zero where taps come in the reverse order.
    pub(crate) row: isize,
    pub(crate) column: isize,
}

impl<'a> Weights<'a> {
    /// `[outputs, inputs / groups, rows, columns]`, whose length was checked.
    pub(crate) fn plain(spec: &ConvSpec, numbers: &'a [f32]) -> Self {
        let taps = spec.kernel[0] * spec.kernel[1];
        let output = spec.group_inputs() * taps;
        let strides = Strides {
            group: spec.group_outputs() * output,
            output,
            input: taps,
            row: spec.kernel[1] as isize,
            column: 1,
        };
        Self::new(spec, numbers, 0, strides)
    }

    /// Those of the convolution `spec`, the first of them at `start`.
    ///
    /// # Panics
    ///
    /// If one of them lies outside `numbers`.
    pub(crate) fn new(spec: &ConvSpec, numbers: &'a [f32], start: usize, strides: Strides) -> Self {
        let far = (spec.groups - 1) * strides.group
            + (spec.group_outputs() - 1) * strides.output
            + (spec.group_inputs() - 1) * strides.input;
        let [rows, columns] = spec.kernel.map(|size| size as isize - 1);
        let [row, column] = [rows * strides.row, columns * strides.column];
        let first = start as isize + row.min(0) + column.min(0);
        let last = (start + far) as isize + row.max(0) + column.max(0);
        assert!(first >= 0 && last < numbers.len() as isize, "weights of {spec:?} lie outside their memory");
        Self { numbers, start, strides }
    }

    pub(crate) fn strides(&self) -> Strides {
        self.strides
    }

    /// The address of a weight of the convolution that this was made for; it is valid for reading.
    #[inline(always)]
    pub(crate) fn at(&self, [group, output, input]: [usize; 3], [row, column]: [usize; 2]) -> *const f32 {
        let Strides { group: of_group, output: of_output, input: of_input, .. } = self.strides;
        let plain = self.start + group * of_group + output * of_output + input * of_input;
        let tap = row as isize * self.strides.row + column as isize * self.strides.column;
        self.numbers.as_ptr().wrapping_add(plain).wrapping_offset(tap)
    }
}

/// Bytes of packed weights that are not worth a place in the caches: they would push each other out.
pub(crate) const FAR: usize = 4 << 20;

/// Writes whole vectors of numbers, past the caches if `FAR`.
///
/// # Safety
///
/// `to` has room for them and is aligned to a vector, the processor has the level of `S`, and `S::fence` follows.
#[inline(always)]
pub(crate) unsafe fn write<S: Simd, const FAR: bool>(to: *mut f32, from: &[f32]) {
    for (i, vector) in from.chunks_exact(S::LANES).enumerate() {
        // SAFETY: the same contract.
        unsafe {
            let (to, vector) = (to.add(i * S::LANES), S::load(vector.as_ptr()));
            if FAR { S::stream(to, vector) } else { S::store(to, vector) }
        }
    }
}
