//! The plan of a training step.

use super::TrainOptions;
use super::build::{Builder, Built, Target};
use super::kernel::{Kernel, Places};
use super::lower::{Job, Lowered, lower};
use super::parameters::{Parameter, Parameters};
use crate::EngineError;
use crate::autodiff::{Recompute, Settings, Tape, differentiate};
use crate::graph::{Graph, ValueId};
use crate::plan::{Port, Request, lower_bound, place};
use cardinal_kernels::{DType, Isa, Line};

/// A training step, ready for a [`TrainSession`](super::TrainSession).
#[derive(Debug)]
pub struct TrainPlan {
    name: String,
    pub(super) batch: usize,
    dtype: DType,
    pub(super) threads: usize,
    pub(super) isa: Isa,
    recompute: Recompute,
    pub(super) steps: Vec<TrainStep>,
    /// Steps of the forward pass.
    pub(super) forward: usize,
    pub(super) parameters: Parameters,
    /// The values that the graph was captured with.
    pub(super) initial: Vec<f32>,
    /// For each norm its running mean and variance among the parameters' values, and the pixels of one image.
    pub(super) statistics: Vec<([std::ops::Range<usize>; 2], usize)>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    pub(super) lines: usize,
    least_lines: usize,
    live: Vec<usize>,
}

/// One step of a plan.
#[derive(Debug)]
pub struct TrainStep {
    name: String,
    operator: &'static str,
    label: String,
    macs: usize,
    map_bytes: usize,
    pub(super) kernel: Kernel,
    pub(super) places: Places,
}

/// How much is in memory during a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The step's module and operator.
    pub step: String,
    /// Whether it belongs to the backward pass.
    pub backward: bool,
    /// Bytes of maps and vectors that are needed during the step or after it.
    pub bytes: usize,
}

impl TrainPlan {
    /// Plans the training of `graph`, as it was captured: passes for inference must not have run on it.
    ///
    /// # Errors
    ///
    /// An operator without a gradient or a kernel: the error names it and its place.
    pub fn new(graph: &Graph, options: &TrainOptions<'_>) -> Result<Self, EngineError> {
        let settings = Settings { recompute: options.recompute, trained: options.trained };
        let tape = differentiate(graph, &settings)?;
        let lowered = lower(&tape, options.dtype)?;
        let parameters = Parameters::new(graph, &tape);
        let batch = options.batch.max(1);
        let target = Target { isa: options.isa, threads: options.threads, images: batch };
        let builder = Builder { tape: &tape, lowered: &lowered, parameters: &parameters, target };
        let built = lowered.tasks.iter().map(|task| builder.build(task)).collect::<Result<Vec<_>, _>>()?;
        let mut requests = requests(&lowered, batch);
        requests.extend(built.iter().enumerate().map(|(step, built)| Request {
            lines: built.kernel.scratch(batch, options.threads),
            first: step,
            last: step,
        }));
        let (offsets, lines) = place(&requests);
        let region = |at: usize| offsets[at]..offsets[at] + requests[at].lines;
        let mut steps = Vec::with_capacity(built.len());
        for (index, (task, built)) in lowered.tasks.iter().zip(built).enumerate() {
            let Built { mut kernel, operator, label, macs } = built;
            let slots = |ids: &[usize]| ids.iter().map(|&id| lowered.slots[id]).collect::<Vec<_>>();
            let (read, written) = (slots(&task.reads), slots(&task.writes));
            let dtype = kernel.format(&read, &written);
            let reads: Vec<_> = task.reads.iter().map(|&id| region(id)).collect();
            let writes: Vec<_> = task.writes.iter().map(|&id| region(id)).collect();
            let scratch = region(lowered.slots.len() + index);
            if let Kernel::Plain(plain) = &mut kernel {
                plain.place(&reads, &writes, scratch.clone());
            }
            let touched = read.iter().chain(&written).filter(|slot| slot.batched);
            let (in_place, add) = (task.in_place.is_some(), task.add);
            let name = match task.job {
                Job::Node(node) => tape.nodes[node].name.clone(),
                _ => String::new(),
            };
            steps.push(TrainStep {
                name,
                operator,
                label,
                macs,
                map_bytes: if task.job == Job::Halo { 0 } else { touched.map(|slot| slot.bytes(1)).sum() },
                kernel,
                places: Places { dtype, reads, writes, scratch, in_place, add },
            });
        }
        let port = |id: &ValueId| Port {
            name: graph[*id].name.clone(),
            elements: graph[*id].elements(),
            shape: graph[*id].shape.clone(),
        };
        Ok(Self {
            name: graph.name.clone(),
            batch,
            dtype: options.dtype,
            threads: options.threads,
            isa: options.isa,
            recompute: options.recompute,
            steps,
            forward: lowered.forward,
            initial: initial(graph, &tape, &parameters),
            statistics: statistics(&tape, &parameters),
            parameters,
            inputs: graph.inputs.iter().map(port).collect(),
            outputs: graph.outputs.iter().map(port).collect(),
            lines,
            least_lines: lower_bound(&requests),
            live: live(&requests, lowered.tasks.len()),
        })
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most images of one step.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Format of feature maps and their gradients.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Threads that share the work.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the backward pass computes again.
    #[must_use]
    pub fn recompute(&self) -> Recompute {
        self.recompute
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[TrainStep] {
        &self.steps
    }

    /// How many of the steps are the forward pass.
    #[must_use]
    pub fn forward_steps(&self) -> usize {
        self.forward
    }

    /// Parameters and running statistics, in the order of the graph's constants.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters.list
    }

    /// What the caller gives to the forward pass.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What the caller gets from it.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Bytes of the arena: all maps, gradients of maps and scratch memory of a step.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        self.lines * Line::BYTES
    }

    /// Bytes that no placement could go below.
    #[must_use]
    pub fn least_arena_bytes(&self) -> usize {
        self.least_lines * Line::BYTES
    }

    /// Bytes of packed weights.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.kernel.weight_bytes()).sum()
    }

    /// Bytes of the parameters, their gradients and `states` vectors of an optimizer: 1 for SGD with momentum, 2 for Adam,
    /// and 1 more for a moving average.
    #[must_use]
    pub fn parameter_bytes(&self, states: usize) -> usize {
        self.parameters.values * (2 + states) * size_of::<f32>()
    }

    /// Bytes of everything that a session takes.
    #[must_use]
    pub fn memory_bytes(&self, states: usize) -> usize {
        self.arena_bytes() + self.packed_bytes() + self.parameter_bytes(states)
    }

    /// What is in the arena during each step.
    #[must_use]
    pub fn memory_over_steps(&self) -> Vec<Live> {
        let live = |(index, (step, &lines)): (usize, (&TrainStep, &usize))| Live {
            step: if step.name.is_empty() {
                step.operator.into()
            } else {
                format!("{} {}", step.name, step.operator)
            },
            backward: index >= self.forward,
            bytes: lines * Line::BYTES,
        };
        self.steps.iter().zip(&self.live).enumerate().map(live).collect()
    }
}

impl TrainStep {
    /// The path of the module that the step belongs to; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator's name.
    #[must_use]
    pub fn operator(&self) -> &'static str {
        self.operator
    }

    /// The kernel that was chosen.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.label
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
}

/// Every slot lives from the first task that touches it to the last.
fn requests(lowered: &Lowered, batch: usize) -> Vec<Request> {
    let mut requests: Vec<_> = lowered
        .slots
        .iter()
        .map(|slot| Request { lines: Line::count(slot.bytes(batch)), first: usize::MAX, last: 0 })
        .collect();
    for (step, task) in lowered.tasks.iter().enumerate() {
        for &slot in task.reads.iter().chain(&task.writes) {
            let request = &mut requests[slot];
            (request.first, request.last) = (request.first.min(step), request.last.max(step));
        }
    }
    for request in &mut requests {
        if request.first == usize::MAX {
            *request = Request { lines: 0, first: 0, last: 0 };
        }
    }
    requests
}

/// Lines that are needed during each step.
fn live(requests: &[Request], steps: usize) -> Vec<usize> {
    let mut change = vec![0_isize; steps + 1];
    for request in requests {
        change[request.first] += request.lines as isize;
        change[request.last + 1] -= request.lines as isize;
    }
    let mut lines = 0;
    change[..steps]
        .iter()
        .map(|change| {
            lines += change;
            lines.unsigned_abs()
        })
        .collect()
}

/// The graph's values of all parameters.
fn initial(graph: &Graph, tape: &Tape, parameters: &Parameters) -> Vec<f32> {
    let mut values = vec![0.0; parameters.values];
    for (index, _) in tape.values.iter().enumerate().take(graph.values.len()) {
        if let (Some(parameter), Some(data)) = (parameters.of(ValueId(index)), graph.values[index].constant())
        {
            values[parameter.range.clone()].copy_from_slice(data);
        }
    }
    values
}

fn statistics(tape: &Tape, parameters: &Parameters) -> Vec<([std::ops::Range<usize>; 2], usize)> {
    let ranges = |statistics: &crate::autodiff::TapeStatistics| {
        let [mean, var] = statistics.running.map(|id| parameters.of(id).map(|p| p.range.clone()));
        Some(([mean?, var?], statistics.pixels))
    };
    tape.statistics.iter().filter_map(ranges).collect()
}
