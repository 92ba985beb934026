//! Anti-aliased halving: the binomial filter `[1, 2, 1] / 4` in both directions with stride 2.

use crate::pointwise::{loads, store};
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
fn neighbours(at: usize, size: usize) -> [usize; 3] {
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

/// Outputs that share the sums of their columns; as few as for the windows of [`MaxPool`](super::MaxPool).
const N: usize = 1;

// SAFETY of the blocks below: the caller of `Kernel::run` promises that each of `rows` is valid for `w * c` numbers,
// and that the outputs are `pixels` of a row of half as many columns that no other thread touches. `inner` is given
// outputs whose columns need no mirror, and `neighbours` mirrors those of the others.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Blur<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let end = self.first + self.pixels;
        let mut at = self.first;
        unsafe {
            while at < end {
                // The last of N outputs reads up to column 2 (at + N - 1) + 1.
                if at > 0 && at + N <= end && 2 * (at + N) <= self.w {
                    let columns = std::array::from_fn::<usize, { 2 * N + 1 }, _>(|j| 2 * at - 1 + j);
                    self.outputs::<S, N, { 2 * N + 1 }>(at, columns);
                    at += N;
                } else {
                    self.outputs::<S, 1, 3>(at, neighbours(at, self.w));
                    at += 1;
                }
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Blur<T> {
    /// All channels of `OUT` outputs from `at`, which read these columns.
    #[inline(always)]
    unsafe fn outputs<S: Simd, const OUT: usize, const IN: usize>(&self, at: usize, columns: [usize; IN]) {
        let mut k = 0;
        unsafe {
            let y = self.y.add((at - self.first) * self.c);
            while k + 4 * S::LANES <= self.c {
                self.step::<S, OUT, IN, 4, true>(&columns, y, k, 0);
                k += 4 * S::LANES;
            }
            while k + S::LANES <= self.c {
                self.step::<S, OUT, IN, 1, true>(&columns, y, k, 0);
                k += S::LANES;
            }
            if k < self.c {
                self.step::<S, OUT, IN, 1, false>(&columns, y, k, self.c - k);
            }
        }
    }

    /// `V` vectors of channels from `k`; whole ones, or `count` lanes of one.
    #[inline(always)]
    unsafe fn step<S: Simd, const OUT: usize, const IN: usize, const V: usize, const FULL: bool>(
        &self,
        columns: &[usize; IN],
        y: *mut T,
        k: usize,
        count: usize,
    ) {
        unsafe {
            let two = S::splat(2.0);
            let mut sums = [[two; V]; IN];
            for j in 0..IN {
                let at = columns[j] * self.c + k;
                let above = loads::<S, T, V, FULL>(self.rows[0].add(at), count);
                let middle = loads::<S, T, V, FULL>(self.rows[1].add(at), count);
                let below = loads::<S, T, V, FULL>(self.rows[2].add(at), count);
                for v in 0..V {
                    sums[j][v] = S::fma(middle[v], two, S::add(above[v], below[v]));
                }
                // What the next outputs need of the two rows that the row of outputs above has not read.
                if j + 2 * OUT >= IN {
                    let next = at + 2 * OUT * self.c;
                    S::prefetch(self.rows[1].wrapping_add(next).cast());
                    S::prefetch(self.rows[2].wrapping_add(next).cast());
                }
            }
            for i in 0..OUT {
                for v in 0..V {
                    let ends = S::add(sums[2 * i][v], sums[2 * i + 2][v]);
                    let sum = S::mul(S::fma(sums[2 * i + 1][v], two, ends), S::splat(1.0 / 16.0));
                    store::<S, T, FULL>(y.add(i * self.c + k + v * S::LANES), sum, count);
                }
            }
        }
    }
}
