//! The maximum or the mean of each window.
//!
//! ```text
//! for each output row: for each few neighbouring outputs: for each vector of channels:
//!     column[j] = combine over the window's rows of x[row, j]       the windows share these
//!     y[i] = combine over the window's columns of column[i * stride + column]
//! ```
//!
//! Windows are clipped to the map, so padding needs no halo. Outputs whose windows are clipped to the left or right, or
//! whose windows have no code of their own, run in a loop of their own, one at a time.

use crate::pointwise::{load, loads, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, LARGEST, Out, Segment, Work, check_length, check_map, check_part};
use crate::{Element, Isa, KernelError, Map, Part, Pool};
use std::ops::Range;

const POOL: &str = "pooling";

/// The windows of a pooling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// The input; its halo is not read.
    pub input: Map,
    /// The output; its halo is left alone. Its size says how many windows there are, and the last ones may reach
    /// beyond the input (`ceil_mode`).
    pub output: Map,
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns from one tap to the next.
    pub dilation: [usize; 2],
    /// Rows above and columns left of the input that the first window starts at.
    pub padding: [usize; 2],
}

impl PoolSpec {
    /// Checks that every window has a tap inside the input.
    fn check(&self) -> Result<(), KernelError> {
        check_map(POOL, &self.input)?;
        check_map(POOL, &self.output)?;
        let fail = |reason: String| Err(KernelError::spec(POOL, reason));
        if self.input.c != self.output.c {
            return fail(format!("from {} to {} channels", self.input.c, self.output.c));
        }
        for axis in 0..2 {
            let steps = [self.kernel[axis], self.stride[axis], self.dilation[axis]];
            if steps.contains(&0) || steps.iter().chain([&self.padding[axis]]).any(|&step| step >= LARGEST) {
                return fail("a size is zero or too large".into());
            }
            let count = [self.output.h, self.output.w][axis];
            if (0..count).any(|at| self.taps(axis, at).is_empty()) {
                return fail(format!("a window lies outside the input on axis {axis}"));
            }
        }
        Ok(())
    }

    /// Where the window of output `at` starts.
    fn start(&self, axis: usize, at: usize) -> isize {
        (at * self.stride[axis]) as isize - self.padding[axis] as isize
    }

    /// The taps inside the input of the window of output `at`.
    fn taps(&self, axis: usize, at: usize) -> Range<usize> {
        let size = [self.input.h, self.input.w][axis] as isize;
        let (start, step) = (self.start(axis, at), self.dilation[axis]);
        let first = if start < 0 { start.unsigned_abs().div_ceil(step) } else { 0 };
        let end = if start < size { (size - start).unsigned_abs().div_ceil(step) } else { 0 };
        first..end.min(self.kernel[axis])
    }

    /// Taps of the window of output `at` that lie inside the input or its padding, which is as wide on both sides.
    fn padded_taps(&self, axis: usize, at: usize) -> usize {
        let size = ([self.input.h, self.input.w][axis] + self.padding[axis]) as isize;
        let room = (size - self.start(axis, at)).max(1).unsigned_abs();
        room.div_ceil(self.dilation[axis]).min(self.kernel[axis])
    }

    /// The outputs of a row whose windows lie wholly between the first and the last column.
    fn inner(&self) -> Range<usize> {
        let whole = |&x: &usize| self.taps(1, x) == (0..self.kernel[1]);
        let first = (0..self.output.w).find(whole).unwrap_or(self.output.w);
        let end = (first..self.output.w).find(|x| !whole(x)).unwrap_or(self.output.w);
        first..end
    }
}

/// The maximum of each window, of what lies inside the map.
#[derive(Clone, Debug)]
pub struct MaxPool(Windows);

impl MaxPool {
    /// Follows `spec`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together, or a window lies outside the map.
    pub fn new(spec: PoolSpec, isa: Isa) -> Result<Self, KernelError> {
        Windows::new(spec, Mean::None, isa).map(Self)
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
        self.0.run::<T, true>(pool, part, input, output)
    }
}

/// The mean of each window.
#[derive(Clone, Debug)]
pub struct AvgPool(Windows);

impl AvgPool {
    /// Follows `spec`. With `include_padding` the sum is divided by the taps inside the map and its padding (which
    /// is taken to be as wide on both sides), otherwise by those inside the map.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together, or a window lies outside the map.
    pub fn new(spec: PoolSpec, include_padding: bool, isa: Isa) -> Result<Self, KernelError> {
        let mean = if include_padding { Mean::Padded } else { Mean::Inside };
        Windows::new(spec, mean, isa).map(Self)
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
        self.0.run::<T, false>(pool, part, input, output)
    }
}

/// What a sum is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mean {
    None,
    Inside,
    Padded,
}

#[derive(Clone, Debug)]
struct Windows {
    spec: PoolSpec,
    mean: Mean,
    /// The outputs of a row whose windows are not clipped to the left or right.
    inner: Range<usize>,
    isa: Isa,
}

impl Windows {
    fn new(spec: PoolSpec, mean: Mean, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        let inner = spec.inner();
        Ok(Self { spec, mean, inner, isa })
    }

    fn run<T: Element, const MAX: bool>(
        &self,
        pool: &Pool,
        part: &Part,
        input: &[T],
        output: &mut [T],
    ) -> Result<(), KernelError> {
        let spec = &self.spec;
        check_part(POOL, part, spec.output.h)?;
        check_length(POOL, "input", input.len(), part.images, spec.input.image())?;
        check_length(POOL, "output", output.len(), part.images, spec.output.image())?;
        let (x, y) = (In::new(input), Out::new(output));
        // Most of the traffic is what the windows read.
        let bytes = spec.output.c * size_of::<T>() * (1 + spec.stride[0] * spec.stride[1]);
        let work = Work::new(pool, part, &spec.output, bytes);
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, the windows of every segment are clipped to the input, and each
                // output is written by one worker.
                unsafe {
                    if MAX {
                        T::largest(self.isa, self.segment(x, y, segment));
                    } else {
                        T::mean(self.isa, self.segment(x, y, segment));
                    }
                }
            }
        });
        Ok(())
    }

    fn segment<T, const MAX: bool>(&self, x: In<T>, y: Out<T>, segment: Segment) -> Windowed<'_, T, MAX> {
        let rows = self.spec.taps(0, segment.y);
        let top = self.spec.start(0, segment.y) + (rows.start * self.spec.dilation[0]) as isize;
        let counted = match self.mean {
            Mean::Padded => self.spec.padded_taps(0, segment.y),
            Mean::None | Mean::Inside => rows.len(),
        };
        // SAFETY: the tap at the top lies inside the input, and the segment in the output.
        let (x, y) = unsafe {
            let row = segment.image * self.spec.input.image() + self.spec.input.at(top, 0);
            (x.at(row), y.at(segment.start(&self.spec.output)))
        };
        let row = self.spec.dilation[0] * self.spec.input.row();
        let (c, stride) = (self.spec.input.c, self.spec.stride[0]);
        let (first, pixels) = (segment.x, segment.pixels);
        Windowed { windows: self, x, y, rows: rows.len(), counted, first, pixels, row, stride, c }
    }
}

/// Outputs that share the sums of their columns, whose vectors all stay in registers. More would share more, but read
/// from so many pixels at once that their cache lines, often a power of two apart, push each other out.
const N: usize = 1;

/// Neighbouring outputs of a row, with what the loops need by value: they would load it anew after every store.
pub struct Windowed<'a, T, const MAX: bool> {
    windows: &'a Windows,
    /// Column 0 of the first row that the windows read.
    x: *const T,
    /// The first output.
    y: *mut T,
    /// Rows that the windows read.
    rows: usize,
    /// Rows that a mean counts.
    counted: usize,
    /// The column of the first output.
    first: usize,
    pixels: usize,
    /// Elements from one row of taps to the next.
    row: usize,
    /// Rows from one window to the next.
    stride: usize,
    c: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the clipped windows of the outputs lie in the
// input and that no other thread touches the outputs. `columns` is given unclipped windows alone, and `one` taps that
// are clipped.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element, const MAX: bool> Kernel for Windowed<'_, T, MAX> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let spec = &self.windows.spec;
        let end = self.first + self.pixels;
        let inner =
            self.windows.inner.start.clamp(self.first, end)..self.windows.inner.end.clamp(self.first, end);
        unsafe {
            for x in self.first..inner.start {
                self.one::<S>(x);
            }
            let mut x = inner.start;
            if spec.dilation[1] == 1 {
                x = match (spec.kernel[1], spec.stride[1]) {
                    (3, 2) => self.columns::<S, 3, 2>(inner.clone()),
                    (3, 1) => self.columns::<S, 3, 1>(inner.clone()),
                    (2, 2) => self.columns::<S, 2, 2>(inner.clone()),
                    (2, 1) => self.columns::<S, 2, 1>(inner.clone()),
                    _ => x,
                };
            }
            while x < end {
                self.one::<S>(x);
                x += 1;
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element, const MAX: bool> Windowed<'_, T, MAX> {
    #[inline(always)]
    unsafe fn combine<S: Simd>(a: S::V, b: S::V) -> S::V {
        unsafe { if MAX { S::max(a, b) } else { S::add(a, b) } }
    }

    /// What the sum over a window of `columns` counted columns is multiplied by.
    #[inline(always)]
    fn scale(&self, columns: usize) -> f32 {
        1.0 / (self.counted * columns) as f32
    }

    /// As many of `outputs` as are multiples of `N`; returns the first that is left.
    #[inline(always)]
    unsafe fn columns<S: Simd, const KERNEL: usize, const STRIDE: usize>(
        &self,
        outputs: Range<usize>,
    ) -> usize {
        let (c, padding) = (self.c, self.windows.spec.padding[1]);
        let mut at = outputs.start;
        while at + N <= outputs.end {
            unsafe {
                let x = self.x.add((at * STRIDE - padding) * c);
                let y = self.y.add((at - self.first) * c);
                let mut k = 0;
                while k + 4 * S::LANES <= c {
                    self.step::<S, KERNEL, STRIDE, 4, true>(x.add(k), y.add(k), 0);
                    k += 4 * S::LANES;
                }
                while k + S::LANES <= c {
                    self.step::<S, KERNEL, STRIDE, 1, true>(x.add(k), y.add(k), 0);
                    k += S::LANES;
                }
                if k < c {
                    self.step::<S, KERNEL, STRIDE, 1, false>(x.add(k), y.add(k), c - k);
                }
            }
            at += N;
        }
        at
    }

    /// `V` vectors of channels of `N` outputs.
    #[inline(always)]
    unsafe fn step<S: Simd, const KERNEL: usize, const STRIDE: usize, const V: usize, const FULL: bool>(
        &self,
        x: *const T,
        y: *mut T,
        count: usize,
    ) {
        let (c, row) = (self.c, self.row);
        unsafe {
            // Room for the columns of any instance; those beyond the last are never used.
            let mut column = [[S::splat(0.0); V]; 5];
            let columns = const { (N - 1) * STRIDE + KERNEL };
            for j in 0..columns {
                column[j] = loads::<S, T, V, FULL>(x.add(j * c), count);
            }
            let mut x = x;
            for r in 1..self.rows {
                x = x.add(row);
                for j in 0..columns {
                    let loaded = loads::<S, T, V, FULL>(x.add(j * c), count);
                    for v in 0..V {
                        column[j][v] = Self::combine::<S>(column[j][v], loaded[v]);
                    }
                }
                // The rows that the next row of outputs does not share come from far: what the next outputs need of them.
                if r + self.stride >= self.rows {
                    for j in columns..columns + N * STRIDE {
                        S::prefetch(x.wrapping_add(j * c).cast());
                    }
                }
            }
            let scale = S::splat(self.scale(KERNEL));
            for i in 0..N {
                for v in 0..V {
                    let mut sum = column[i * STRIDE][v];
                    for j in 1..KERNEL {
                        sum = Self::combine::<S>(sum, column[i * STRIDE + j][v]);
                    }
                    if !MAX {
                        sum = S::mul(sum, scale);
                    }
                    store::<S, T, FULL>(y.add(i * c + v * S::LANES), sum, count);
                }
            }
        }
    }

    /// The output of column `at`, with any window.
    #[inline(always)]
    unsafe fn one<S: Simd>(&self, at: usize) {
        let spec = &self.windows.spec;
        let c = self.c;
        let taps = spec.taps(1, at);
        let left = (spec.start(1, at) + (taps.start * spec.dilation[1]) as isize) as usize;
        let counted = if self.windows.mean == Mean::Padded { spec.padded_taps(1, at) } else { taps.len() };
        let scale = self.scale(counted);
        unsafe {
            let (x, y) = (self.x.add(left * c), self.y.add((at - self.first) * c));
            let mut k = 0;
            while k + S::LANES <= c {
                self.vector::<S, true>(x.add(k), y.add(k), taps.len(), scale, 0);
                k += S::LANES;
            }
            if k < c {
                self.vector::<S, false>(x.add(k), y.add(k), taps.len(), scale, c - k);
            }
        }
    }

    #[inline(always)]
    unsafe fn vector<S: Simd, const FULL: bool>(
        &self,
        x: *const T,
        y: *mut T,
        columns: usize,
        scale: f32,
        count: usize,
    ) {
        let spec = &self.windows.spec;
        let (row, column) = (self.row, spec.dilation[1] * self.c);
        unsafe {
            let mut v = load::<S, T, FULL>(x, count);
            for r in 0..self.rows {
                for j in usize::from(r == 0)..columns {
                    v = Self::combine::<S>(v, load::<S, T, FULL>(x.add(r * row + j * column), count));
                }
            }
            if !MAX {
                v = S::mul(v, S::splat(scale));
            }
            store::<S, T, FULL>(y, v, count);
        }
    }
}
