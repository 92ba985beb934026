//! One step of a plan: a kernel and the memory that it works on.

use super::kernel::Kernel;
use crate::EngineError;
use cardinal_kernels::{DType, Line, Map, Pool, Views};
use std::ops::Range;

/// A buffer's place in the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// All its images.
    pub(super) lines: Range<usize>,
    /// Numbers of one image.
    pub(super) image: usize,
    /// Whether it holds the whole batch, or just the group of images that is under way.
    pub(super) whole: bool,
}

impl Region {
    /// Where the numbers of the group that starts with image `first` begin.
    pub(super) fn start(&self, first: usize) -> usize {
        if self.whole { first * self.image } else { 0 }
    }
}

/// One step of a plan.
#[derive(Debug)]
pub struct Step {
    pub(super) name: String,
    pub(super) operator: &'static str,
    pub(super) label: String,
    pub(super) output: Map,
    pub(super) macs: usize,
    pub(super) map_bytes: usize,
    pub(super) kernel: Kernel,
    /// The format of what the kernel reads.
    pub(super) dtype: DType,
    pub(super) reads: Vec<Region>,
    pub(super) writes: Vec<Region>,
    pub(super) scratch: Range<usize>,
}

impl Step {
    /// The path of the module that the step computes; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator's name.
    #[must_use]
    pub fn operator(&self) -> &'static str {
        self.operator
    }

    /// The kernel that was chosen, such as `direct 6x16 avx2`.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.label
    }

    /// Channels, rows and columns of the result.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 3] {
        [self.output.c, self.output.h, self.output.w]
    }

    /// Multiply-adds for one image.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.macs
    }

    /// Bytes of feature maps that are read and written for one image.
    #[must_use]
    pub fn map_bytes(&self) -> usize {
        self.map_bytes
    }

    /// Bytes of packed weights.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.kernel.weight_bytes()
    }

    /// Runs the step for the images `group` of `images`, on the memory given.
    pub(crate) fn run(
        &self,
        pool: &Pool,
        arena: &mut [Line],
        inputs: &[&[f32]],
        outputs: &mut [Vec<f32>],
        (group, images): (Range<usize>, usize),
    ) -> Result<(), EngineError> {
        let lines = |region: Option<&Region>| region.map_or(0..0, |region| region.lines.clone());
        let written = [lines(self.writes.first()), lines(self.writes.get(1)), self.scratch.clone()];
        let views = Views::new(arena, &written).map_err(|source| self.error(source))?;
        let rows = 0..self.output.h;
        let call = Call { step: self, pool, views, inputs, outputs, group, images, rows };
        self.kernel.run(call, self.dtype).map_err(|source| self.error(source))
    }

    fn error(&self, source: cardinal_kernels::KernelError) -> EngineError {
        let place = if self.name.is_empty() {
            self.operator.into()
        } else {
            format!("{} ({})", self.name, self.operator)
        };
        EngineError::Kernel { place, source }
    }
}

/// What one call of a step works on.
pub(super) struct Call<'a> {
    pub(super) step: &'a Step,
    pub(super) pool: &'a Pool,
    pub(super) views: Views<'a, 3>,
    pub(super) inputs: &'a [&'a [f32]],
    pub(super) outputs: &'a mut [Vec<f32>],
    /// The images of this call among all.
    pub(super) group: Range<usize>,
    /// All images of the run.
    pub(super) images: usize,
    /// Rows of the result.
    pub(super) rows: Range<usize>,
}
