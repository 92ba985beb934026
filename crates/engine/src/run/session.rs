use crate::EngineError;
use crate::plan::{Plan, Step};
use cardinal_kernels::{Line, Pool, zeroed};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A plan with memory and threads of its own.
///
/// Sessions of one plan share its weights; each runs one batch at a time. For calls from several threads, make a
/// session for each and divide the cores among them.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    pool: Pool,
    arena: Vec<Line>,
    outputs: Outputs,
}

/// What a run computed.
#[derive(Debug, Default)]
pub struct Outputs {
    buffers: Vec<Vec<f32>>,
    /// Numbers per output that the last run wrote.
    lengths: Vec<usize>,
}

impl Outputs {
    /// Output `index` of the graph: row-major, `[images, ..]`.
    ///
    /// # Panics
    ///
    /// The graph has no such output.
    #[must_use]
    pub fn get(&self, index: usize) -> &[f32] {
        &self.buffers[index][..self.lengths[index]]
    }

    /// How many outputs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }
}

/// How long a step took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The place of the step in [`Plan::steps`].
    pub step: usize,
    /// All its groups of images together; the median over the runs.
    pub time: Duration,
}

impl Session {
    /// Memory and threads for `plan`: as many as it was made for, the caller's included. With `pin`, the others stay on
    /// one core each.
    #[must_use]
    pub fn new(plan: Arc<Plan>, pin: bool) -> Self {
        let pool = Pool::new(plan.options().threads, pin);
        let arena = zeroed(plan.arena_lines());
        let sizes = plan.outputs().iter().map(|output| output.elements * plan.batch());
        let buffers: Vec<_> = sizes.map(|size| vec![0.0; size]).collect();
        let outputs = Outputs { lengths: vec![0; buffers.len()], buffers };
        Self { plan, pool, arena, outputs }
    }

    /// The plan that this session runs.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the last run computed; nothing before the first.
    #[must_use]
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Runs the network on 1 to [`Plan::batch`] images: a slice for each input, row-major `[images, c, h, w]`. Nothing
    /// is allocated.
    ///
    /// # Errors
    ///
    /// An input that is missing, too large or no whole number of images.
    pub fn run(&mut self, inputs: &[&[f32]]) -> Result<&Outputs, EngineError> {
        self.run_observed(inputs, |_, _| {})?;
        Ok(&self.outputs)
    }

    /// Runs `runs` times and says how long each step took.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn profile(&mut self, inputs: &[&[f32]], runs: usize) -> Result<Vec<StepTime>, EngineError> {
        let steps = self.plan.steps().len();
        let mut times = vec![Vec::with_capacity(runs); steps];
        for _ in 0..runs.max(1) {
            let mut sums = vec![Duration::ZERO; steps];
            self.run_observed(inputs, |step, time| sums[step] += time)?;
            times.iter_mut().zip(sums).for_each(|(times, sum)| times.push(sum));
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        Ok(times
            .into_iter()
            .enumerate()
            .map(|(step, times)| StepTime { step, time: median(times) })
            .collect())
    }

    fn run_observed(
        &mut self,
        inputs: &[&[f32]],
        mut observe: impl FnMut(usize, Duration),
    ) -> Result<(), EngineError> {
        let images = self.plan.check_inputs(inputs)?;
        for (length, output) in self.outputs.lengths.iter_mut().zip(self.plan.outputs()) {
            *length = output.elements * images;
        }
        for segment in self.plan.segments() {
            let mut first = 0;
            while first < images {
                let count = segment.images.min(images - first);
                for index in segment.steps.clone() {
                    let step: &Step = &self.plan.steps()[index];
                    let start = Instant::now();
                    let group = first..first + count;
                    step.run(
                        &self.pool,
                        &mut self.arena,
                        inputs,
                        &mut self.outputs.buffers,
                        (group, images),
                    )?;
                    observe(index, start.elapsed());
                }
                first += count;
            }
        }
        Ok(())
    }
}
