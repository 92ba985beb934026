//! The gradient of a factor for each image and channel, which attention is made of.

use crate::pointwise::{loads, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Means, Segment, Work, check_length, check_map, check_same};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool};
use std::ptr::null;

const NAME: &str = "factor gradient";

/// The gradient of the factors `f` in `y = sum over the splits r of f_r * x_r`: the sum over pixels of `x_r * dy`.
///
/// Split `r` of `x` is its channels `r * c .. (r + 1) * c`, where `c` are the output's channels; a product of a map and
/// a number per image and channel has one split.
#[derive(Clone, Debug)]
pub struct FactorGrad {
    pub(super) input: Map,
    pub(super) grad: Map,
    pub(super) radix: usize,
    pub(super) kept: Option<Kept>,
    pub(super) isa: Isa,
}

/// A leaky ReLU behind what a gradient is taken of, known by its output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) map: Map,
    pub(super) slope: f32,
}

/// The memory of one call of [`FactorGrad`].
#[derive(Debug)]
pub struct FactorGradIo<'a, T> {
    /// The images `x`, `radix * c` channels.
    pub input: &'a [T],
    /// The gradient of `y`.
    pub grad: &'a [T],
    /// `y` itself, if the kernel was built for it.
    pub output: Option<&'a [T]>,
    /// The gradient of the factors, `[images, radix * c]`, which is overwritten.
    pub result: &'a mut [f32],
    /// Memory for sums; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

impl FactorGrad {
    /// For maps of `input` and gradients of `grad`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn new(input: Map, grad: Map, radix: usize, isa: Isa) -> Result<Self, KernelError> {
        check_map(NAME, &input)?;
        if radix == 0 || Some(input.c) != grad.c.checked_mul(radix) {
            let reason = format!("{} channels are not {radix} splits of {}", input.c, grad.c);
            return Err(KernelError::spec(NAME, reason));
        }
        check_same(NAME, &Map { c: grad.c, ..input }, &grad)?;
        Ok(Self { input, grad, radix, kept: None, isa })
    }

    /// The same where `y` went through a leaky ReLU (with slope 0, ReLU), whose output, a `map`, is read to tell where
    /// it was positive.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together, or the slope is negative: the sign would be lost.
    pub fn with_output(self, map: Map, slope: f32) -> Result<Self, KernelError> {
        check_same(NAME, &map, &self.grad)?;
        if slope < 0.0 || slope.is_nan() {
            return Err(KernelError::spec(NAME, format!("a slope of {slope}")));
        }
        Ok(Self { kept: Some(Kept { map, slope }), ..self })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Means::scratch(self.input.c, threads)
    }

    /// Computes the gradient of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short or missing.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: FactorGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let FactorGradIo { input, grad, output, result, scratch } = io;
        let map = &self.input;
        check_length(NAME, "input", input.len(), images, map.image())?;
        check_length(NAME, "gradient", grad.len(), images, self.grad.image())?;
        check_length(NAME, "result", result.len(), images, map.c)?;
        check_length(NAME, "scratch", scratch.len(), 1, self.scratch(pool.threads()))?;
        let before = Before::new(NAME, self.grad, self.kept, In::new(grad), output, images)?;
        let x = In::new(input);
        let part = Part::whole(images, map.h);
        let sums = Means::new(map.c, &part, result, scratch);
        let work = Work::new(pool, &part, map, map.c * size_of::<T>());
        work.run(pool, |share| {
            // SAFETY: the scratch memory is long enough.
            unsafe { sums.begin(&share) };
            for segment in share.clone() {
                // SAFETY: the lengths were checked, so every segment lies in its slices; nobody else touches the sums.
                unsafe {
                    let (pixels, channels, radix) = (segment.pixels, self.grad.c, self.radix);
                    let (x, before) = (x.at(segment.start(map)), before.at(&segment));
                    let sums = sums.at(&share, segment.image);
                    T::factor_grad(self.isa, Products { x, before, pixels, channels, radix, sums });
                }
            }
        });
        // With a last row that is never reached the sums stay sums.
        // SAFETY: the workers are done.
        unsafe { sums.finish(&work, usize::MAX) };
        Ok(())
    }
}

/// The gradient before a leaky ReLU, or the gradient itself.
#[derive(Clone, Copy)]
pub(super) struct Before<T> {
    grad: Map,
    kept: Option<Kept>,
    dy: In<T>,
    y: In<T>,
}

impl<T: Element> Before<T> {
    /// Whose gradient's length was checked.
    pub(super) fn new(
        kernel: &'static str,
        grad: Map,
        kept: Option<Kept>,
        dy: In<T>,
        output: Option<&[T]>,
        images: usize,
    ) -> Result<Self, KernelError> {
        let output = output.unwrap_or(&[]);
        if let Some(Kept { map, .. }) = &kept {
            check_length(kernel, "output", output.len(), images, map.image())?;
        }
        Ok(Self { grad, kept, dy, y: In::new(output) })
    }

    /// Where a segment begins.
    ///
    /// # Safety
    ///
    /// It lies in the slices.
    pub(super) unsafe fn at(&self, segment: &Segment) -> Gradient<T> {
        // SAFETY: the same contract.
        unsafe {
            let dy = self.dy.at(segment.start(&self.grad));
            let (y, slope) = match &self.kept {
                Some(Kept { map, slope }) => (self.y.at(segment.start(map)), *slope),
                None => (null(), 1.0),
            };
            Gradient { dy, y, slope }
        }
    }
}

/// Neighbouring numbers of a gradient, and of the leaky ReLU's output unless that is null.
#[derive(Clone, Copy)]
pub(crate) struct Gradient<T> {
    dy: *const T,
    y: *const T,
    slope: f32,
}

impl<T: Element> Gradient<T> {
    /// The gradient before the leaky ReLU from number `at`.
    ///
    /// # Safety
    ///
    /// The numbers are there, and the processor has the level of `S`.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd, const N: usize, const FULL: bool>(
        &self,
        at: usize,
        count: usize,
    ) -> [S::V; N] {
        // SAFETY: the same contract.
        unsafe {
            let mut g = loads::<S, T, N, FULL>(self.dy.add(at), count);
            if !self.y.is_null() {
                let y = loads::<S, T, N, FULL>(self.y.add(at), count);
                for i in 0..N {
                    g[i] = S::where_positive(y[i], g[i], S::mul(g[i], S::splat(self.slope)));
                }
            }
            g
        }
    }
}

/// Adds the products of neighbouring pixels to sums.
pub struct Products<T> {
    x: *const T,
    before: Gradient<T>,
    pixels: usize,
    /// Of the gradient.
    channels: usize,
    radix: usize,
    sums: *mut f32,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `x` is valid for `pixels * radix * channels`
// numbers, the gradient for `pixels * channels`, and `sums` for `radix * channels` that no other thread touches; offsets
// are below these by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Products<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for r in 0..self.radix {
            unsafe { through_channels!(self.step(r), self.channels) }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Products<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, r: usize, k: usize, count: usize) {
        let split = r * self.channels + k;
        unsafe {
            // Of these pixels alone first: fewer roundings.
            let mut sums = [S::splat(0.0); N];
            for pixel in 0..self.pixels {
                let x = self.x.add(pixel * self.radix * self.channels + split);
                let x = loads::<S, T, N, FULL>(x, count);
                let g = self.before.load::<S, N, FULL>(pixel * self.channels + k, count);
                for i in 0..N {
                    sums[i] = S::fma(x[i], g[i], sums[i]);
                }
            }
            let to = self.sums.add(split);
            let before = loads::<S, f32, N, FULL>(to.cast_const(), count);
            for i in 0..N {
                store::<S, f32, FULL>(to.add(i * S::LANES), S::add(before[i], sums[i]), count);
            }
        }
    }
}
