//! Channels back into squares of pixels.

use crate::work::{In, Out, Work, check_length};
use crate::{Element, KernelError, Map, Part, Pool, SpaceToDepth};

const NAME: &str = "depth to space";

/// The inverse of a [`SpaceToDepth`], which is its gradient too.
#[derive(Clone, Debug)]
pub struct DepthToSpace {
    grad: Map,
    result: Map,
    block: usize,
}

impl DepthToSpace {
    /// From maps of `grad` to maps of `result`, whose height and width are `block` times as large.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn new(grad: Map, result: Map, block: usize) -> Result<Self, KernelError> {
        SpaceToDepth::new(result, grad, block)?;
        Ok(Self { grad, result, block })
    }

    /// Computes `images` images.
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
    ) -> Result<(), KernelError> {
        check_length(NAME, "gradient", grad.len(), images, self.grad.image())?;
        check_length(NAME, "result", result.len(), images, self.result.image())?;
        let (dy, dx) = (In::new(grad), Out::new(result));
        // A row of a square is contiguous on both sides.
        let piece = self.block * self.result.c;
        let work =
            Work::new(pool, &Part::whole(images, self.grad.h), &self.grad, 2 * self.grad.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                for row in 0..self.block {
                    let y = (segment.y * self.block + row) as isize;
                    let to = self.result.at(y, (segment.x * self.block) as isize);
                    // SAFETY: the lengths were checked, so the segment lies in the gradient and its squares in the
                    // result, where one worker writes them.
                    unsafe {
                        let from = dy.at(segment.start(&self.grad) + row * piece);
                        let to = dx.at(segment.image * self.result.image() + to);
                        for i in 0..segment.pixels {
                            let (from, to) = (from.add(i * self.grad.c), to.add(i * piece));
                            std::ptr::copy_nonoverlapping(from, to, piece);
                        }
                    }
                }
            }
        });
        Ok(())
    }
}
