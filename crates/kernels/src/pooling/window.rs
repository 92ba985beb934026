//! The maximum or the mean of each window.
//!
//! ```text
//! for each output: for each few vectors of channels:
//!     y = combine over the window's rows and columns of x
//! ```
//!
//! Windows are clipped to the map, so padding needs no halo. Neighbouring windows share nothing but the cache: with few
//! channels of several outputs at a time, the cache lines that are read together are often a power of two apart and push
//! each other out, which costs more than loading a number twice.

use crate::pointwise::{STEP, loads, prefetch, store};
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
    pub(crate) fn check(&self) -> Result<(), KernelError> {
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
    pub(crate) fn start(&self, axis: usize, at: usize) -> isize {
        (at * self.stride[axis]) as isize - self.padding[axis] as isize
    }

    /// The taps inside the input of the window of output `at`.
    pub(crate) fn taps(&self, axis: usize, at: usize) -> Range<usize> {
        let size = [self.input.h, self.input.w][axis] as isize;
        let (start, step) = (self.start(axis, at), self.dilation[axis]);
        let first = if start < 0 { start.unsigned_abs().div_ceil(step) } else { 0 };
        let end = if start < size { (size - start).unsigned_abs().div_ceil(step) } else { 0 };
        first..end.min(self.kernel[axis])
    }

    /// Taps of the window of output `at` that lie inside the input or its padding, which is as wide on both sides.
    pub(crate) fn padded_taps(&self, axis: usize, at: usize) -> usize {
        let size = ([self.input.h, self.input.w][axis] + self.padding[axis]) as isize;
        let room = (size - self.start(axis, at)).max(1).unsigned_abs();
        room.div_ceil(self.dilation[axis]).min(self.kernel[axis])
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
    isa: Isa,
}

impl Windows {
    fn new(spec: PoolSpec, mean: Mean, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        Ok(Self { spec, mean, isa })
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
        let (c, stride) = (self.spec.input.c, self.spec.stride);
        let (first, pixels, column) = (segment.x, segment.pixels, self.spec.dilation[1] * c);
        Windowed { windows: self, x, y, rows: rows.len(), counted, first, pixels, row, column, stride, c }
    }
}

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
    /// Elements from one column of taps to the next.
    column: usize,
    stride: [usize; 2],
    c: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the clipped windows of the outputs lie in the
// input and that no other thread touches the outputs. Taps are clipped, and channels are below `c` by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element, const MAX: bool> Kernel for Windowed<'_, T, MAX> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let spec = &self.windows.spec;
        let c = self.c;
        for i in 0..self.pixels {
            let at = self.first + i;
            let taps = spec.taps(1, at);
            let left = (spec.start(1, at) + (taps.start * spec.dilation[1]) as isize) as usize;
            let counted =
                if self.windows.mean == Mean::Padded { spec.padded_taps(1, at) } else { taps.len() };
            let scale = 1.0 / (self.counted * counted) as f32;
            unsafe {
                let (x, y) = (self.x.add(left * c), self.y.add(i * c));
                let mut k = 0;
                while k + STEP * S::LANES <= c {
                    self.step::<S, STEP, true>(x.add(k), y.add(k), taps.len(), scale, 0);
                    k += STEP * S::LANES;
                }
                while k + S::LANES <= c {
                    self.step::<S, 1, true>(x.add(k), y.add(k), taps.len(), scale, 0);
                    k += S::LANES;
                }
                if k < c {
                    self.step::<S, 1, false>(x.add(k), y.add(k), taps.len(), scale, c - k);
                }
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element, const MAX: bool> Windowed<'_, T, MAX> {
    /// `N` vectors of one output; whole ones, or `count` lanes of one.
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(
        &self,
        x: *const T,
        y: *mut T,
        columns: usize,
        scale: f32,
        count: usize,
    ) {
        unsafe {
            let mut all = loads::<S, T, N, FULL>(x, count);
            for r in 0..self.rows {
                let row = x.add(r * self.row);
                for j in usize::from(r == 0)..columns {
                    let tap = loads::<S, T, N, FULL>(row.add(j * self.column), count);
                    for i in 0..N {
                        all[i] = if MAX { S::max(all[i], tap[i]) } else { S::add(all[i], tap[i]) };
                    }
                }
                // The rows that the row of outputs above has not read come from far: the taps in them of the next output
                // that are not this one's.
                if r + self.stride[0] >= self.rows {
                    let next = row.wrapping_add(self.stride[1] * self.c);
                    for j in columns - columns.min(self.stride[1])..columns {
                        prefetch::<S, T, N>(next.wrapping_add(j * self.column));
                    }
                }
            }
            for i in 0..N {
                if !MAX {
                    all[i] = S::mul(all[i], S::splat(scale));
                }
                store::<S, T, FULL>(y.add(i * S::LANES), all[i], count);
            }
        }
    }
}
