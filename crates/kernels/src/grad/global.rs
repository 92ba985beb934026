//! The gradient of a mean over all pixels.

use super::{Write, put};
use crate::pointwise::loads;
use crate::simd::{Kernel, Simd};
use crate::work::{Out, Work, check_length};
use crate::{Element, GlobalPool, Isa, KernelError, Map, Part, Pool};

const NAME: &str = "global pooling gradient";

/// The gradient of a [`GlobalPool`]: every pixel of every split gets an equal share.
#[derive(Clone, Debug)]
pub struct GlobalPoolGrad {
    result: Map,
    radix: usize,
    isa: Isa,
}

impl GlobalPoolGrad {
    /// For gradients of inputs that are a `result`, with `radix` splits.
    ///
    /// # Errors
    ///
    /// The channels are not a multiple of `radix`.
    pub fn new(result: Map, radix: usize, isa: Isa) -> Result<Self, KernelError> {
        GlobalPool::new(result, radix, isa)?;
        Ok(Self { result, radix, isa })
    }

    /// Computes the gradient of `images` images from that of the means, `[images, c / radix]`.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        grad: &[f32],
        result: &mut [T],
        write: Write,
    ) -> Result<(), KernelError> {
        let (map, channels) = (&self.result, self.result.c / self.radix);
        check_length(NAME, "gradient", grad.len(), images, channels)?;
        check_length(NAME, "result", result.len(), images, map.image())?;
        let dx = Out::new(result);
        let work = Work::new(pool, &Part::whole(images, map.h), map, map.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                let grad = &grad[segment.image * channels..][..channels];
                // SAFETY: the lengths were checked, and each segment is one worker's.
                unsafe {
                    T::broadcast(
                        self.isa,
                        Broadcast {
                            grad,
                            dx: dx.at(segment.start(map)),
                            pixels: segment.pixels * self.radix,
                            scale: 1.0 / (map.h * map.w) as f32,
                            write,
                        },
                    );
                }
            }
        });
        Ok(())
    }
}

/// Writes the same channels to neighbouring pixels; the splits of one pixel follow one another like pixels.
pub struct Broadcast<'a, T> {
    grad: &'a [f32],
    dx: *mut T,
    pixels: usize,
    scale: f32,
    write: Write,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `dx` is valid for `pixels` times as many numbers
// as `grad` has, which no other thread touches; channels are below that number by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Broadcast<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for pixel in 0..self.pixels {
            unsafe { through_channels!(self.step(pixel), self.grad.len()) }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Broadcast<'_, T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, pixel: usize, k: usize, count: usize) {
        unsafe {
            let grad = loads::<S, f32, N, FULL>(self.grad.as_ptr().add(k), count);
            let to = self.dx.add(pixel * self.grad.len() + k);
            for i in 0..N {
                let value = S::mul(grad[i], S::splat(self.scale));
                put::<S, T, FULL>(to.add(i * S::LANES), value, count, self.write);
            }
        }
    }
}
