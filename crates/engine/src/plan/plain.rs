//! A step of inference's kind in a plan of another kind: over the whole batch, with memory that the other plan gives.

use super::build::{Target, build};
use super::lower::{Lowered, Task};
use super::step::{Region, Step};
use crate::EngineError;
use crate::graph::Graph;
use cardinal_kernels::{DType, Isa, KernelError, Line, Map, Pool};
use std::ops::Range;

/// A step over the whole batch.
#[derive(Debug)]
pub(crate) struct Plain {
    step: Step,
    threads: usize,
}

/// The step for `task`, for `images` images on `threads` threads. It has no place in memory yet.
pub(crate) fn plain(
    graph: &Graph,
    lowered: &Lowered,
    task: &Task,
    (isa, threads, images): (Isa, usize, usize),
) -> Result<Plain, EngineError> {
    let built = build(graph, lowered, task, &Target { isa, threads, images }, None)?;
    let buffer = |id: &super::lower::BufferId| lowered.buffers[id.0];
    let result = task.writes.first().or(task.reads.first()).map(buffer);
    let region =
        |id: &super::lower::BufferId| Region { lines: 0..0, image: buffer(id).map.image(), whole: true };
    let step = Step {
        name: String::new(),
        operator: "",
        label: built.label,
        output: result.map_or(Map::new(1, 1, 1), |buffer| buffer.map),
        macs: built.macs,
        map_bytes: 0,
        dtype: task.reads.first().or(task.writes.first()).map_or(DType::F32, |id| buffer(id).dtype),
        kernel: built.kernel,
        reads: task.reads.iter().map(region).collect(),
        writes: task.writes.iter().map(region).collect(),
        scratch: 0..0,
    };
    Ok(Plain { step, threads })
}

impl Plain {
    /// The kernel that was chosen.
    pub(crate) fn label(&self) -> &str {
        &self.step.label
    }

    /// Lines of scratch memory for `threads` workers.
    pub(crate) fn scratch(&self, threads: usize) -> usize {
        self.step.kernel.scratch(threads)
    }

    /// Says which lines of the arena it reads and writes.
    pub(crate) fn place(&mut self, reads: &[Range<usize>], writes: &[Range<usize>], scratch: Range<usize>) {
        for (region, lines) in
            self.step.reads.iter_mut().zip(reads).chain(self.step.writes.iter_mut().zip(writes))
        {
            region.lines = lines.clone();
        }
        self.step.scratch = scratch;
    }

    /// Runs it for `images` images.
    pub(crate) fn run(
        &self,
        pool: &Pool,
        arena: &mut [Line],
        inputs: &[&[f32]],
        outputs: &mut [Vec<f32>],
        images: usize,
    ) -> Result<(), KernelError> {
        debug_assert!(pool.threads() <= self.threads, "scratch memory is for fewer workers");
        let run = self.step.run(pool, arena, inputs, outputs, (0..images, images));
        run.map_err(|error| match error {
            EngineError::Kernel { source, .. } => source,
            _ => KernelError::Overlap { range: 0..0 },
        })
    }
}
