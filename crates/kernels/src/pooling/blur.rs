//! Anti-aliased halving: the binomial filter `[1, 2, 1] / 4` in both directions with stride 2.

use crate::pointwise::{STEP, loads, prefetch, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_map, check_part};
use crate::{Element, Isa, KernelError, Map, Part, Pool};

const BLUR: &str = "blur pooling";

/// `y[i, j] = sum over (a, b) of f[a] * f[b] * x[2 i + a - 1, 2 j + b - 1]` with `f = [1, 2, 1] / 4`, where indices
/// outside the map are mirrored about its edge pixels.
#[derive(Clone, Debug)]
pub struct BlurPool {
    input: Map,
    output: Map,
    isa: Isa,
}

impl BlurPool {
    /// From maps of `input`, at least 2x2, to maps of `output`, half the size, rounded up. No halo is read or written.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn new(input: Map, output: Map, isa: Isa) -> Result<Self, KernelError> {
        check_map(BLUR, &input)?;
        check_map(BLUR, &output)?;
        let expected = [input.h.div_ceil(2), input.w.div_ceil(2), input.c];
        if input.h < 2 || input.w < 2 || [output.h, output.w, output.c] != expected {
            let (a, b) = (input, output);
            let sizes = format!("from {}x{}x{} to {}x{}x{}", a.h, a.w, a.c, b.h, b.w, b.c);
            return Err(KernelError::spec(BLUR, sizes));
        }
        Ok(Self { input, output, isa })
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: &[T],
        output: &mut [T],
    ) -> Result<(), KernelError> {
        check_part(BLUR, part, self.output.h)?;
        check_length(BLUR, "input", input.len(), part.images, self.input.image())?;
        check_length(BLUR, "output", output.len(), part.images, self.output.image())?;
        let (x, y) = (In::new(input), Out::new(output));
        let work = Work::new(pool, part, &self.output, self.output.c * size_of::<T>() * 5);
        work.run(pool, |share| {
            for segment in share {
                let row = |r: usize| segment.image * self.input.image() + self.input.at(r as isize, 0);
                let rows = neighbours(segment.y, self.input.h);
                // SAFETY: the lengths were checked, so the rows lie in the input and the segment in the output, which
                // one worker writes.
                unsafe {
                    T::blur(
                        self.isa,
                        Blur {
                            rows: [x.at(row(rows[0])), x.at(row(rows[1])), x.at(row(rows[2]))],
                            y: y.at(segment.start(&self.output)),
                            first: segment.x,
                            pixels: segment.pixels,
                            w: self.input.w,
                            c: self.input.c,
                        },
                    );
                }
            }
        });
        Ok(())
    }
}

/// The three inputs of output `at`, of `size`.
#[inline(always)]
pub(crate) fn neighbours(at: usize, size: usize) -> [usize; 3] {
    let middle = 2 * at;
    [
        if middle == 0 { 1 } else { middle - 1 },
        middle,
        if middle + 1 == size { middle - 1 } else { middle + 1 },
    ]
}

/// Neighbouring outputs of a row.
pub struct Blur<T> {
    /// Column 0 of the rows above, at and below.
    rows: [*const T; 3],
    y: *mut T,
    /// The column of the first output.
    first: usize,
    pixels: usize,
    /// Columns of the input.
    w: usize,
    c: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that each of `rows` is valid for `w * c` numbers,
// and that the outputs are `pixels` of a row of half as many columns that no other thread touches. `neighbours` mirrors
// the columns that lie outside.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Blur<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in 0..self.pixels {
            let columns = neighbours(self.first + i, self.w);
            let mut k = 0;
            unsafe {
                let y = self.y.add(i * self.c);
                while k + STEP * S::LANES <= self.c {
                    self.step::<S, STEP, true>(columns, y, k, 0);
                    k += STEP * S::LANES;
                }
                while k + S::LANES <= self.c {
                    self.step::<S, 1, true>(columns, y, k, 0);
                    k += S::LANES;
                }
                if k < self.c {
                    self.step::<S, 1, false>(columns, y, k, self.c - k);
                }
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Blur<T> {
    /// `N` vectors of channels from `k`; whole ones, or `count` lanes of one.
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(
        &self,
        columns: [usize; 3],
        y: *mut T,
        k: usize,
        count: usize,
    ) {
        unsafe {
            let two = S::splat(2.0);
            // The outer columns count once and the middle one twice, as the rows do.
            let mut outer = [S::splat(0.0); N];
            let mut middle = [S::splat(0.0); N];
            for j in 0..3 {
                let at = columns[j] * self.c + k;
                let above = loads::<S, T, N, FULL>(self.rows[0].add(at), count);
                let beside = loads::<S, T, N, FULL>(self.rows[1].add(at), count);
                let below = loads::<S, T, N, FULL>(self.rows[2].add(at), count);
                for i in 0..N {
                    let sum = S::fma(beside[i], two, S::add(above[i], below[i]));
                    if j == 1 {
                        middle[i] = sum;
                    } else {
                        outer[i] = S::add(outer[i], sum);
                    }
                }
                // What the next output needs of the two rows that the row of outputs above has not read.
                if j > 0 {
                    prefetch::<S, T, N>(self.rows[1].wrapping_add(at + 2 * self.c));
                    prefetch::<S, T, N>(self.rows[2].wrapping_add(at + 2 * self.c));
                }
            }
            for i in 0..N {
                let sum = S::mul(S::fma(middle[i], two, outer[i]), S::splat(1.0 / 16.0));
                store::<S, T, FULL>(y.add(k + i * S::LANES), sum, count);
            }
        }
    }
}
