//! The gradient of the maximum of each window.
//!
//! ```text
//! for each row of the input:
//!     for each output row whose windows have a row of taps there, for each of its windows:
//!         find the first largest tap; if it lies in this row, add the gradient to its sum
//!     write the sums
//! ```
//!
//! So a window is searched once for each of its rows, in the first cache, and nothing need be kept of the forward pass.

use super::{Write, put};
use crate::pointwise::{loads, store};
use crate::pooling::PoolSpec;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Segment, Work, check_length, check_same};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool, arena};
use std::ops::Range;

const NAME: &str = "max pooling gradient";

/// The gradient of a [`MaxPool`](crate::MaxPool), which goes to the first maximum of each window, row by row, as in
/// PyTorch.
#[derive(Clone, Debug)]
pub struct MaxPoolGrad {
    spec: PoolSpec,
    result: Map,
    isa: Isa,
}

/// The memory of one call of [`MaxPoolGrad`].
#[derive(Debug)]
pub struct MaxPoolGradIo<'a, T> {
    /// What was pooled.
    pub input: &'a [T],
    /// The gradient of the pooling's output.
    pub grad: &'a [T],
    /// The gradient of its input.
    pub result: &'a mut [T],
    /// Whether to add to `result`.
    pub write: Write,
    /// Memory for sums; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

impl MaxPoolGrad {
    /// Of the pooling that follows `spec`, whose output has the halo of its gradient; the input's gradient is a `result`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn new(spec: PoolSpec, result: Map, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        check_same(NAME, &spec.input, &result)?;
        Ok(Self { spec, result, isa })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Line::count(self.result.w * self.result.c * size_of::<f32>()) * threads
    }

    /// Computes the gradient of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: MaxPoolGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let MaxPoolGradIo { input, grad, result, write, scratch } = io;
        check_length(NAME, "input", input.len(), images, self.spec.input.image())?;
        check_length(NAME, "gradient", grad.len(), images, self.spec.output.image())?;
        check_length(NAME, "result", result.len(), images, self.result.image())?;
        check_length(NAME, "scratch", scratch.len(), 1, self.scratch(pool.threads()))?;
        let c = self.result.c;
        let (x, dy, dx) = (In::new(input), In::new(grad), Out::new(result));
        let rows = Out::new(arena::as_f32_mut(scratch));
        let stride = self.scratch(1) * Line::BYTES / size_of::<f32>();
        // A window is read for each of its rows.
        let bytes = c * size_of::<T>() * (2 + self.spec.kernel[0] * self.spec.kernel[1]);
        let work = Work::new(pool, &Part::whole(images, self.result.h), &self.result, bytes);
        work.run(pool, |share| {
            // SAFETY: the scratch memory has a row for each worker.
            let sums = unsafe { rows.at(share.worker * stride) };
            for segment in share {
                // SAFETY: the row holds a segment; the lengths were checked, windows are clipped to the input, and each
                // number of the result is one worker's.
                unsafe {
                    sums.write_bytes(0, segment.pixels * c);
                    for at in self.spec.readers(0, segment.y) {
                        T::max_pool_grad(self.isa, self.windows(x, dy, sums, &segment, at));
                    }
                    let to = dx.at(segment.start(&self.result));
                    T::put_sums(self.isa, Sums { sums, to, count: segment.pixels * c, write });
                }
            }
        });
        Ok(())
    }

    /// The windows of output row `at` that have taps in `segment`.
    ///
    /// # Safety
    ///
    /// The slices hold the segment's image.
    unsafe fn windows<T>(
        &self,
        x: In<T>,
        dy: In<T>,
        sums: *mut f32,
        segment: &Segment,
        at: usize,
    ) -> MaxGrad<'_, T> {
        let spec = &self.spec;
        let (rows, step) = (spec.taps(0, at), spec.dilation[0]);
        let top = spec.start(0, at) + (rows.start * step) as isize;
        let (first, last) = (spec.reach(1, segment.x), spec.reach(1, segment.x + segment.pixels - 1));
        // SAFETY: the tap at the top lies inside the input, and the row in the output.
        let (x, dy) = unsafe {
            let x = x.at(segment.image * spec.input.image() + spec.input.at(top, 0));
            (x, dy.at(segment.image * spec.output.image() + spec.output.at(at as isize, 0)))
        };
        MaxGrad {
            spec,
            x,
            dy,
            sums,
            rows: rows.len(),
            mine: (segment.y as isize - top) as usize / step,
            row: step * spec.input.row(),
            windows: first.start..last.end,
            columns: segment.x..segment.x + segment.pixels,
            c: spec.input.c,
        }
    }
}

impl PoolSpec {
    /// The outputs whose windows reach over input `place`, with a tap there or not.
    fn reach(&self, axis: usize, place: usize) -> Range<usize> {
        let end = place + self.padding[axis];
        let extent = (self.kernel[axis] - 1) * self.dilation[axis];
        let count = [self.output.h, self.output.w][axis];
        let first = end.saturating_sub(extent).div_ceil(self.stride[axis]);
        let last = end / self.stride[axis] + 1;
        first.min(count)..last.min(count)
    }

    /// The outputs whose windows have a tap at input `place`.
    fn readers(&self, axis: usize, place: usize) -> impl Iterator<Item = usize> {
        let (stride, dilation, end) = (self.stride[axis], self.dilation[axis], place + self.padding[axis]);
        self.reach(axis, place).filter(move |at| (end - at * stride).is_multiple_of(dilation))
    }
}

/// Adds the gradients of windows whose maximum lies in one row of the input.
pub struct MaxGrad<'a, T> {
    spec: &'a PoolSpec,
    /// Column 0 of the windows' first row inside the input.
    x: *const T,
    /// Output 0 of their row.
    dy: *const T,
    /// For each channel of each of `columns`.
    sums: *mut f32,
    /// Rows of the windows inside the input.
    rows: usize,
    /// Which of them the sums are for.
    mine: usize,
    /// Elements from one row of taps to the next.
    row: usize,
    windows: Range<usize>,
    columns: Range<usize>,
    c: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the clipped windows lie in the input and their
// gradients in the other slice, and that there are `columns * c` sums that no other thread touches. Taps are clipped,
// columns are compared, and channels are below `c` by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for MaxGrad<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for at in self.windows.clone() {
            let taps = self.spec.taps(1, at);
            let left = (self.spec.start(1, at) + (taps.start * self.spec.dilation[1]) as isize) as usize;
            unsafe { through_channels!(self.step(at, left, taps.len()), self.c) }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> MaxGrad<'_, T> {
    /// `N` vectors of channels from `k` of the window of output `at`, whose `columns` columns begin at `left`.
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(
        &self,
        at: usize,
        left: usize,
        columns: usize,
        k: usize,
        count: usize,
    ) {
        let step = self.spec.dilation[1];
        unsafe {
            let x = self.x.add(left * self.c + k);
            let mut largest = loads::<S, T, N, FULL>(x, count);
            // One more than the column of the largest number, or zero where that lies in another row.
            let mut place = [S::splat(if self.mine == 0 { 1.0 } else { 0.0 }); N];
            for r in 0..self.rows {
                for j in usize::from(r == 0)..columns {
                    let tap = loads::<S, T, N, FULL>(x.add(r * self.row + j * step * self.c), count);
                    let here = S::splat(if r == self.mine { (j + 1) as f32 } else { 0.0 });
                    for i in 0..N {
                        let more = S::sub(tap[i], largest[i]);
                        largest[i] = S::where_positive(more, tap[i], largest[i]);
                        place[i] = S::where_positive(more, here, place[i]);
                    }
                }
            }
            let dy = loads::<S, T, N, FULL>(self.dy.add(at * self.c + k), count);
            for j in 0..columns {
                let column = left + j * step;
                if !self.columns.contains(&column) {
                    continue;
                }
                let to = self.sums.add((column - self.columns.start) * self.c + k);
                let sums = loads::<S, f32, N, FULL>(to.cast_const(), count);
                for i in 0..N {
                    let off = S::sub(place[i], S::splat((j + 1) as f32));
                    let near = S::sub(S::splat(0.5), S::mul(off, off));
                    let sum = S::add(sums[i], S::where_positive(near, dy[i], S::splat(0.0)));
                    store::<S, f32, FULL>(to.add(i * S::LANES), sum, count);
                }
            }
        }
    }
}

/// Rounds neighbouring sums to a map's format.
pub struct Sums<T> {
    sums: *const f32,
    to: *mut T,
    count: usize,
    write: Write,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that both pointers are valid for `count` numbers and
// that no other thread touches those of `to`; offsets are below `count` by the loop's bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Sums<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_channels!(self.step(), self.count) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Sums<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, k: usize, count: usize) {
        unsafe {
            let sums = loads::<S, f32, N, FULL>(self.sums.add(k), count);
            for i in 0..N {
                put::<S, T, FULL>(self.to.add(k + i * S::LANES), sums[i], count, self.write);
            }
        }
    }
}
