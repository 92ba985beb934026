//! Squares of pixels into channels.

use crate::work::{In, Out, Work, check_length, check_map, check_part};
use crate::{Element, KernelError, Map, Part, Pool};

const DEPTH: &str = "space to depth";

/// Moves each `block` x `block` square of pixels into channels: channel `(dy * block + dx) * c + k` of an output pixel
/// is channel `k` at offset `(dy, dx)` of its square, where `c` are the input's channels.
#[derive(Clone, Debug)]
pub struct SpaceToDepth {
    input: Map,
    output: Map,
    block: usize,
}

impl SpaceToDepth {
    /// From maps of `input` to maps of `output`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn new(input: Map, output: Map, block: usize) -> Result<Self, KernelError> {
        check_map(DEPTH, &input)?;
        check_map(DEPTH, &output)?;
        let fits = |large: usize, small: usize| Some(large) == small.checked_mul(block);
        let depth = fits(input.h, output.h)
            && fits(input.w, output.w)
            && block.checked_mul(block).and_then(|square| square.checked_mul(input.c)) == Some(output.c);
        if !depth {
            let (a, b) = (input, output);
            let sizes = format!("from {}x{}x{} to {}x{}x{}", a.h, a.w, a.c, b.h, b.w, b.c);
            return Err(KernelError::spec(DEPTH, format!("{sizes} by {block}")));
        }
        Ok(Self { input, output, block })
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
        check_part(DEPTH, part, self.output.h)?;
        check_length(DEPTH, "input", input.len(), part.images, self.input.image())?;
        check_length(DEPTH, "output", output.len(), part.images, self.output.image())?;
        let (x, y) = (In::new(input), Out::new(output));
        // A row of a square is contiguous on both sides.
        let piece = self.block * self.input.c;
        let work = Work::new(pool, part, &self.output, self.output.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                for dy in 0..self.block {
                    let row = (segment.y * self.block + dy) as isize;
                    let from = self.input.at(row, (segment.x * self.block) as isize);
                    // SAFETY: the lengths were checked, so the squares lie in the input and the segment in the output,
                    // which one worker writes.
                    unsafe {
                        let x = x.at(segment.image * self.input.image() + from);
                        let y = y.at(segment.start(&self.output) + dy * piece);
                        for i in 0..segment.pixels {
                            let (x, y) = (x.add(i * piece), y.add(i * self.output.c));
                            std::ptr::copy_nonoverlapping(x, y, piece);
                        }
                    }
                }
            }
        });
        Ok(())
    }
}
