//! Gradients that meet: sums over slices of channels, and the gradient of a bias.

use super::{Write, put};
use crate::pointwise::loads;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length};
use crate::{CopyMap, Element, GlobalPool, Isa, KernelError, Line, Map, Part, Pool, arena};

const ADD: &str = "sum of gradients";

/// Adds channels of one map to channels of another of the same height and width. Where several operators read a value,
/// its gradient is the sum of theirs; that of a slice is added to the channels it was cut from. The gradient of a
/// concatenation needs no sum: it is a [`CopyMap`] for each input.
#[derive(Clone, Debug)]
pub struct AddChannels {
    input: Map,
    first_input: usize,
    output: Map,
    first_output: usize,
    channels: usize,
    isa: Isa,
}

impl AddChannels {
    /// `count` channels of `input`, from `first_input`, to those of `output` from `first_output`.
    ///
    /// # Errors
    ///
    /// There are no such channels, or the heights or widths differ.
    pub fn new(
        (input, first_input): (Map, usize),
        (output, first_output): (Map, usize),
        count: usize,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        CopyMap::channels(input, first_input, output, first_output, count, isa)?;
        Ok(Self { input, first_input, output, first_output, channels: count, isa })
    }

    /// Adds those of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        input: &[T],
        output: &mut [T],
    ) -> Result<(), KernelError> {
        check_length(ADD, "input", input.len(), images, self.input.image())?;
        check_length(ADD, "output", output.len(), images, self.output.image())?;
        let (x, y) = (In::new(input), Out::new(output));
        // Whole pixels follow one another.
        let whole = self.channels == self.input.c && self.channels == self.output.c;
        let bytes = 3 * self.channels * size_of::<T>();
        let work = Work::new(pool, &Part::whole(images, self.output.h), &self.output, bytes);
        work.run(pool, |share| {
            for segment in share {
                let (spans, count) =
                    if whole { (1, segment.pixels * self.channels) } else { (segment.pixels, self.channels) };
                // SAFETY: the lengths were checked, so the channels of the segment lie in both slices, and each is
                // written by one worker.
                unsafe {
                    let x = x.at(segment.start(&self.input) + self.first_input);
                    let y = y.at(segment.start(&self.output) + self.first_output);
                    T::add_spans(self.isa, Sum { x, y, spans, count, steps: [self.input.c, self.output.c] });
                }
            }
        });
        Ok(())
    }
}

/// `spans` pieces of `count` numbers each.
pub struct Sum<T> {
    x: *const T,
    y: *mut T,
    spans: usize,
    count: usize,
    /// From one piece to the next, in `x` and in `y`.
    steps: [usize; 2],
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the pieces lie in their slices and that no
// other thread touches those of `y`; offsets into a piece are below `count` by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Sum<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for span in 0..self.spans {
            unsafe { through_channels!(self.step(span), self.count) }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Sum<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, span: usize, k: usize, count: usize) {
        unsafe {
            let x = loads::<S, T, N, FULL>(self.x.add(span * self.steps[0] + k), count);
            let y = self.y.add(span * self.steps[1] + k);
            for i in 0..N {
                put::<S, T, FULL>(y.add(i * S::LANES), x[i], count, Write::Add);
            }
        }
    }
}

const BIAS: &str = "bias gradient";

/// The gradient of a bias: for each channel the sum over the pixels of all images, those of each image in `f32` and these
/// in `f64`.
#[derive(Clone, Debug)]
pub struct BiasGrad {
    grad: Map,
    means: GlobalPool,
}

impl BiasGrad {
    /// Of gradients of `grad`; those of a linear layer have one pixel.
    ///
    /// # Errors
    ///
    /// The map is empty or too large.
    pub fn new(grad: Map, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { grad, means: GlobalPool::new(grad, 1, isa)? })
    }

    /// Lines of scratch memory for `images` images and `threads` workers.
    #[must_use]
    pub fn scratch(&self, images: usize, threads: usize) -> usize {
        Line::count(images * self.grad.c * size_of::<f32>()) + self.means.scratch(threads)
    }

    /// Computes the gradient, `[c]`, from that of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        grad: &[T],
        result: &mut [f32],
        scratch: &mut [Line],
    ) -> Result<(), KernelError> {
        let Map { h, w, c, .. } = self.grad;
        check_length(BIAS, "gradient", grad.len(), images, self.grad.image())?;
        check_length(BIAS, "result", result.len(), 1, c)?;
        check_length(BIAS, "scratch", scratch.len(), 1, self.scratch(images, pool.threads()))?;
        let (means, scratch) = scratch.split_at_mut(Line::count(images * c * size_of::<f32>()));
        let means = arena::as_f32_mut(means);
        self.means.run(pool, &Part::whole(images, h), grad, means, scratch)?;
        for (k, result) in result[..c].iter_mut().enumerate() {
            let sum: f64 = (0..images).map(|image| f64::from(means[image * c + k])).sum();
            *result = (sum * (h * w) as f64) as f32;
        }
        Ok(())
    }
}
