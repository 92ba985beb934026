//! From map to map.

use crate::pointwise::{load, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_map, check_part};
use crate::{DType, Element, Isa, KernelError, Map, Part, Pool};

const COPY: &str = "copy";

/// Copies channels of one map to channels of another of the same height and width, between formats if need be: a
/// concatenation is a copy for each input, a slice is one copy, and so is a map with another halo.
#[derive(Clone, Debug)]
pub struct CopyMap {
    input: Map,
    first_input: usize,
    output: Map,
    first_output: usize,
    channels: usize,
    isa: Isa,
}

impl CopyMap {
    /// All channels of `input` to all channels of `output`.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub fn new(input: Map, output: Map, isa: Isa) -> Result<Self, KernelError> {
        crate::work::check_same(COPY, &input, &output)?;
        Self::channels(input, 0, output, 0, input.c, isa)
    }

    /// `count` channels of `input`, from `first_input`, to those of `output` from `first_output`.
    ///
    /// # Errors
    ///
    /// There are no such channels, or the heights or widths differ.
    pub fn channels(
        input: Map,
        first_input: usize,
        output: Map,
        first_output: usize,
        count: usize,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_map(COPY, &input)?;
        check_map(COPY, &output)?;
        if [input.h, input.w] != [output.h, output.w] {
            let sizes = format!("from {}x{} to {}x{}", input.h, input.w, output.h, output.w);
            return Err(KernelError::spec(COPY, sizes));
        }
        for (first, map) in [(first_input, input), (first_output, output)] {
            if first.checked_add(count).is_none_or(|end| end > map.c) {
                return Err(KernelError::spec(COPY, format!("{count} channels from {first} of {}", map.c)));
            }
        }
        Ok(Self { input, first_input, output, first_output, channels: count, isa })
    }

    /// Copies the rows of `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<A: Element, B: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: &[A],
        output: &mut [B],
    ) -> Result<(), KernelError> {
        check_part(COPY, part, self.output.h)?;
        check_length(COPY, "input", input.len(), part.images, self.input.image())?;
        check_length(COPY, "output", output.len(), part.images, self.output.image())?;
        let (x, y) = (In::new(input), Out::new(output));
        // Whole pixels follow one another.
        let whole = self.channels == self.input.c && self.channels == self.output.c;
        let work = Work::new(pool, part, &self.output, self.channels * (size_of::<A>() + size_of::<B>()));
        work.run(pool, |share| {
            for segment in share {
                let (spans, count) =
                    if whole { (1, segment.pixels * self.channels) } else { (segment.pixels, self.channels) };
                // SAFETY: the lengths were checked, so the channels of the segment lie in both slices, and each is
                // written by one worker.
                unsafe {
                    let x = x.at(segment.start(&self.input) + self.first_input);
                    let y = y.at(segment.start(&self.output) + self.first_output);
                    let steps = [self.input.c, self.output.c];
                    match B::DTYPE {
                        DType::F32 => A::to_f32s(self.isa, Spans { x, y: y.cast(), spans, count, steps }),
                        DType::Bf16 => A::to_bf16s(self.isa, Spans { x, y: y.cast(), spans, count, steps }),
                    }
                }
            }
        });
        Ok(())
    }
}

/// `spans` pieces of `count` numbers each.
pub struct Spans<A, B> {
    x: *const A,
    y: *mut B,
    spans: usize,
    count: usize,
    /// From one piece to the next, in `x` and in `y`.
    steps: [usize; 2],
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the pieces lie in their slices and that no
// other thread touches those of `y`; offsets into a piece are below `count` by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<A: Element, B: Element> Kernel for Spans<A, B> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in 0..self.spans {
            unsafe {
                let (x, y) = (self.x.add(i * self.steps[0]), self.y.add(i * self.steps[1]));
                if A::DTYPE == B::DTYPE {
                    std::ptr::copy_nonoverlapping(x.cast(), y, self.count);
                } else {
                    convert::<S, A, B>(x, y, self.count);
                }
            }
        }
    }
}

/// Converts `count` numbers.
///
/// # Safety
///
/// They are there, and the processor has the level of `S`.
#[inline(always)]
pub(super) unsafe fn convert<S: Simd, A: Element, B: Element>(x: *const A, y: *mut B, count: usize) {
    let mut k = 0;
    // SAFETY: every offset is below `count`.
    unsafe {
        while k + 2 * S::LANES <= count {
            let (a, b) = (A::load::<S>(x.add(k)), A::load::<S>(x.add(k + S::LANES)));
            B::store::<S>(y.add(k), a);
            B::store::<S>(y.add(k + S::LANES), b);
            k += 2 * S::LANES;
        }
        while k + S::LANES <= count {
            store::<S, B, true>(y.add(k), load::<S, A, true>(x.add(k), 0), 0);
            k += S::LANES;
        }
        if k < count {
            store::<S, B, false>(y.add(k), load::<S, A, false>(x.add(k), count - k), count - k);
        }
    }
}
