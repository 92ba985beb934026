//! The gradients of what averages or moves pixels: each output is a weighted sum of inputs, with a weight for the rows
//! and one for the columns.
//!
//! ```text
//! dx[y, x] = sum over the outputs (i, j) that read (y, x) of rows[y][i] * columns[x][j] * dy[i, j]
//! ```

use super::{Write, put};
use crate::pointwise::loads;
use crate::pooling::{PoolSpec, neighbours};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_map, check_same};
use crate::{AvgPool, BlurPool, Element, Isa, KernelError, Map, Part, Pool};

const NAME: &str = "spread gradient";

/// The gradient of an average pooling, of a blur pooling, or of zeros around a map.
#[derive(Clone, Debug)]
pub struct SpreadGrad {
    grad: Map,
    result: Map,
    rows: Readers,
    columns: Readers,
    isa: Isa,
}

/// For each input of one axis the outputs that read it, with their weights.
#[derive(Clone, Debug)]
struct Readers(Vec<Vec<(usize, f32)>>);

impl Readers {
    /// `reads` gives the inputs of each output, with their weights.
    fn new<I>(inputs: usize, outputs: usize, reads: impl Fn(usize) -> I) -> Self
    where
        I: Iterator<Item = (usize, f32)>,
    {
        let mut readers = vec![Vec::<(usize, f32)>::new(); inputs];
        for at in 0..outputs {
            for (place, weight) in reads(at) {
                match readers[place].last_mut() {
                    Some((last, sum)) if *last == at => *sum += weight,
                    _ => readers[place].push((at, weight)),
                }
            }
        }
        Self(readers)
    }
}

impl SpreadGrad {
    /// Of the [`AvgPool`] that follows `spec`, whose output has the halo of its gradient; the input's gradient is a
    /// `result`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn avg_pool(
        spec: &PoolSpec,
        include_padding: bool,
        result: Map,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_same(NAME, &spec.input, &result)?;
        AvgPool::new(spec.clone(), include_padding, isa)?;
        let axis = |axis: usize, inputs: usize, outputs: usize| {
            Readers::new(inputs, outputs, |at| {
                let taps = spec.taps(axis, at);
                let counted = if include_padding { spec.padded_taps(axis, at) } else { taps.len() };
                let (start, step) = (spec.start(axis, at), spec.dilation[axis]);
                taps.map(move |tap| ((start + (tap * step) as isize) as usize, 1.0 / counted as f32))
            })
        };
        let (rows, columns) = (axis(0, result.h, spec.output.h), axis(1, result.w, spec.output.w));
        Ok(Self { grad: spec.output, result, rows, columns, isa })
    }

    /// Of a [`BlurPool`], whose output's gradient is a `grad` and its input's a `result`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn blur_pool(grad: Map, result: Map, isa: Isa) -> Result<Self, KernelError> {
        BlurPool::new(result, grad, isa)?;
        let axis = |inputs: usize, outputs: usize| {
            Readers::new(inputs, outputs, |at| neighbours(at, inputs).into_iter().zip([0.25, 0.5, 0.25]))
        };
        let (rows, columns) = (axis(result.h, grad.h), axis(result.w, grad.w));
        Ok(Self { grad, result, rows, columns, isa })
    }

    /// Of zeros around a map, as many rows above it and columns to its left as `before` says: the gradient without its
    /// border.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn pad(grad: Map, result: Map, before: [usize; 2], isa: Isa) -> Result<Self, KernelError> {
        check_map(NAME, &grad)?;
        check_map(NAME, &result)?;
        let holds = |large: usize, before: usize, small: usize| {
            before.checked_add(small).is_some_and(|end| end <= large)
        };
        let fits = holds(grad.h, before[0], result.h) && holds(grad.w, before[1], result.w);
        if !fits || grad.c != result.c {
            let (a, b) = (grad, result);
            let sizes = format!("{}x{}x{} within {}x{}x{}", b.h, b.w, b.c, a.h, a.w, a.c);
            return Err(KernelError::spec(NAME, format!("{sizes} behind {before:?}")));
        }
        let axis = |count: usize, before: usize| {
            Readers((0..count).map(|place| vec![(place + before, 1.0)]).collect())
        };
        let (rows, columns) = (axis(result.h, before[0]), axis(result.w, before[1]));
        Ok(Self { grad, result, rows, columns, isa })
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
        grad: &[T],
        result: &mut [T],
        write: Write,
    ) -> Result<(), KernelError> {
        check_length(NAME, "gradient", grad.len(), images, self.grad.image())?;
        check_length(NAME, "result", result.len(), images, self.result.image())?;
        let (dy, dx) = (In::new(grad), Out::new(result));
        let c = self.result.c;
        let work = Work::new(pool, &Part::whole(images, self.result.h), &self.result, 2 * c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so the image lies in the gradient, with all outputs that read a
                // place, and the segment in the result, where one worker writes it.
                unsafe {
                    T::spread(
                        self.isa,
                        Spread {
                            dy: dy.at(segment.image * self.grad.image() + self.grad.at(0, 0)),
                            dx: dx.at(segment.start(&self.result)),
                            rows: &self.rows.0[segment.y],
                            columns: &self.columns.0[segment.x..segment.x + segment.pixels],
                            row: self.grad.row(),
                            c,
                            write,
                        },
                    );
                }
            }
        });
        Ok(())
    }
}

/// Neighbouring pixels of a row of the result.
pub struct Spread<'a, T> {
    /// Pixel 0 of row 0 of the image's gradient.
    dy: *const T,
    dx: *mut T,
    rows: &'a [(usize, f32)],
    /// For each pixel.
    columns: &'a [Vec<(usize, f32)>],
    /// Elements from one row of the gradient to the next.
    row: usize,
    c: usize,
    write: Write,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that all rows and columns named lie in the gradient,
// and that `dx` is valid for a pixel for each of `columns`, which no other thread touches; channels are below `c` by the
// loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Spread<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for pixel in 0..self.columns.len() {
            unsafe { through_channels!(self.step(pixel), self.c) }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Spread<'_, T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, pixel: usize, k: usize, count: usize) {
        unsafe {
            let mut sums = [S::splat(0.0); N];
            for &(row, above) in self.rows {
                for &(column, beside) in &self.columns[pixel] {
                    let dy = self.dy.add(row * self.row + column * self.c + k);
                    let dy = loads::<S, T, N, FULL>(dy, count);
                    for i in 0..N {
                        sums[i] = S::fma(dy[i], S::splat(above * beside), sums[i]);
                    }
                }
            }
            for i in 0..N {
                let to = self.dx.add(pixel * self.c + k + i * S::LANES);
                put::<S, T, FULL>(to, sums[i], count, self.write);
            }
        }
    }
}
