//! The plan: kernels, and a place in memory for everything, chosen before anything runs.

mod build;
mod kernel;
mod lower;
mod machine;
mod memory;
mod plain;
mod segment;
mod step;
mod tune;

pub(crate) use kernel::Lines;
pub(crate) use lower::{Buffer, BufferId, Lowered, Task, Work, conv_halo};
pub(crate) use memory::{Request, lower_bound, place};
pub(crate) use plain::{Plain, plain};

pub use machine::Caches;
pub use segment::Segment;
pub use step::Step;
pub use tune::Tuner;

use crate::EngineError;
use crate::graph::{Batch, Graph, Source};
use build::{Target, build, glue_name};
use cardinal_kernels::{DType, Isa, Line};
use lower::lower;
use segment::segments;
use std::collections::BTreeMap;
use std::sync::Arc;
use step::Region;

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most images of one run.
    pub batch: usize,
    /// Format of feature maps; vectors and sums are `f32`.
    pub dtype: DType,
    /// Threads that share the work of a step. A session may have fewer or more; the choice of kernels is for these.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
}

/// An input or output of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The graph's name for it.
    pub name: String,
    /// Numbers of one image.
    pub elements: usize,
    /// The shape for one image.
    pub shape: Vec<usize>,
}

/// A compiled network: steps with packed weights, and their places in one arena.
#[derive(Debug)]
pub struct Plan {
    name: String,
    options: Options,
    fixed: Option<usize>,
    steps: Vec<Step>,
    segments: Vec<Segment>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    lines: usize,
    least_lines: usize,
}

impl Plan {
    /// Plans `graph`, which should be optimized ([`crate::passes::optimize`]). Its weights are given back to the system
    /// as they are packed; a clone of a graph shares them.
    ///
    /// # Errors
    ///
    /// An operator that the runtime has no kernel for: the error names it and its place.
    pub fn new(graph: Graph, options: &Options) -> Result<Self, EngineError> {
        Self::make(graph, options, None)
    }

    /// The same with kernels chosen by measuring instead of by the cost model. Earlier measurements count.
    ///
    /// # Errors
    ///
    /// As [`Plan::new`].
    pub fn tuned(graph: Graph, options: &Options, tuner: &mut Tuner) -> Result<Self, EngineError> {
        Self::make(graph, options, Some(tuner))
    }

    fn make(mut graph: Graph, options: &Options, mut tuner: Option<&mut Tuner>) -> Result<Self, EngineError> {
        graph.verify()?;
        let fixed = match graph.batch {
            Batch::Free => None,
            Batch::Fixed(images) => Some(images),
        };
        let options = Options { batch: fixed.unwrap_or(options.batch).max(1), ..*options };
        let lowered = lower(&graph, options.dtype)?;
        let mut readers = readers(&graph);
        let segments = segments(&traffic(&lowered), options.batch, budget(Caches::detect()));
        let mut built = Vec::with_capacity(lowered.tasks.len());
        for segment in &segments {
            let target = Target { isa: options.isa, threads: options.threads, images: segment.images };
            for index in segment.steps.clone() {
                let tuner = tuner.as_deref_mut();
                let task = &lowered.tasks[index];
                built.push(build(&graph, &lowered, task, &target, tuner)?);
                if let Work::Node(node) = task.work {
                    release(&mut graph, node, &mut readers);
                }
            }
        }
        let uses = uses(&lowered, &segments, options.batch);
        let mut requests: Vec<_> = uses.iter().map(|usage| usage.request).collect();
        // Scratch memory lives as long as its step.
        requests.extend(built.iter().enumerate().map(|(step, built)| Request {
            lines: built.kernel.scratch(options.threads),
            first: step,
            last: step,
        }));
        let (offsets, lines) = place(&requests);
        let least_lines = lower_bound(&requests);
        let region = |id: &BufferId| {
            let usage = &uses[id.0];
            let lines = offsets[id.0]..offsets[id.0] + usage.request.lines;
            Region { lines, image: lowered.buffers[id.0].map.image(), whole: usage.whole }
        };
        let mut steps = Vec::with_capacity(built.len());
        for (index, (task, built)) in lowered.tasks.iter().zip(built).enumerate() {
            let buffer = |id: &BufferId| lowered.buffers[id.0];
            let (name, operator) = match task.work {
                Work::Node(node) => (graph.nodes[node].name.clone(), graph.nodes[node].op.name()),
                ref work => (String::new(), glue_name(work)),
            };
            let scratch = &requests[uses.len() + index];
            let scratch_start = offsets[uses.len() + index];
            let results = task.writes.first().or(task.reads.first()).map(buffer);
            steps.push(Step {
                name,
                operator,
                label: built.label,
                output: results.map_or(cardinal_kernels::Map::new(1, 1, 1), |buffer| buffer.map),
                macs: built.macs,
                map_bytes: step_bytes(&lowered, index),
                dtype: task
                    .reads
                    .first()
                    .or(task.writes.first())
                    .map_or(options.dtype, |id| buffer(id).dtype),
                kernel: built.kernel,
                reads: task.reads.iter().map(region).collect(),
                writes: task.writes.iter().map(region).collect(),
                scratch: scratch_start..scratch_start + scratch.lines,
            });
        }
        let port = |id: &crate::graph::ValueId| Port {
            name: graph[*id].name.clone(),
            elements: graph[*id].elements(),
            shape: graph[*id].shape.clone(),
        };
        Ok(Self {
            name: graph.name.clone(),
            options,
            fixed,
            steps,
            segments,
            inputs: graph.inputs.iter().map(port).collect(),
            outputs: graph.outputs.iter().map(port).collect(),
            lines,
            least_lines,
        })
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the plan was made for.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The most images of one run.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.options.batch
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many images go through which steps together.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the caller gives.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What the caller gets.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Bytes of the arena: all feature maps and scratch memory of a session.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.lines * Line::BYTES
    }

    /// Bytes that no placement could go below.
    #[must_use]
    pub fn least_memory_bytes(&self) -> usize {
        self.least_lines * Line::BYTES
    }

    /// Bytes of packed weights, which sessions share.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.steps.iter().map(Step::weight_bytes).sum()
    }

    /// One line for people: steps, kernels, memory.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut kernels: BTreeMap<&str, usize> = BTreeMap::new();
        for step in self.steps.iter().filter(|step| step.macs() > 0) {
            *kernels.entry(step.kernel()).or_default() += 1;
        }
        let kernels: Vec<_> = kernels.iter().map(|(kernel, count)| format!("{count} {kernel}")).collect();
        let groups: Vec<_> = self.segments.iter().map(|segment| segment.images.to_string()).collect();
        format!(
            "{} steps, {}; {} in groups of {} images; {:.1} MiB of maps, {:.1} MiB of weights",
            self.steps.len(),
            kernels.join(", "),
            self.options.dtype.name(),
            groups.join(", "),
            self.memory_bytes() as f64 / (1 << 20) as f64,
            self.weight_bytes() as f64 / (1 << 20) as f64,
        )
    }

    /// Lines of memory that a session needs.
    pub(crate) fn arena_lines(&self) -> usize {
        self.lines
    }

    /// How many images the inputs hold.
    pub(crate) fn check_inputs(&self, inputs: &[&[f32]]) -> Result<usize, EngineError> {
        let wrong = |port: &Port, found: String, expected: String| {
            Err(EngineError::Input { name: port.name.clone(), found, expected })
        };
        if inputs.len() != self.inputs.len() {
            let names: Vec<_> = self.inputs.iter().map(|port| port.name.as_str()).collect();
            let found = format!("{} inputs", inputs.len());
            let expected = format!("one for each of {}", names.join(", "));
            return Err(EngineError::Input { name: self.name.clone(), found, expected });
        }
        let mut images = None;
        for (input, port) in inputs.iter().zip(&self.inputs) {
            let count = input.len() / port.elements;
            let whole = count * port.elements == input.len() && (1..=self.batch()).contains(&count);
            let allowed =
                whole && images.is_none_or(|images| images == count) && self.fixed.is_none_or(|n| n == count);
            if !allowed {
                let expected = match self.fixed.or(images) {
                    Some(n) => format!("{n} x {} numbers", port.elements),
                    None => format!("{} numbers for each of 1 to {} images", port.elements, self.batch()),
                };
                return wrong(port, format!("{} numbers", input.len()), expected);
            }
            images = Some(count);
        }
        Ok(images.unwrap_or(1))
    }
}

/// How many nodes read each value.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut readers = vec![0; graph.values.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|input| readers[input.0] += 1);
    readers
}

/// Gives back the memory of the constants that only `node` still read: the weights and their packed copies would
/// otherwise be there together.
fn release(graph: &mut Graph, node: usize, readers: &mut [usize]) {
    let Graph { nodes, values, .. } = graph;
    for input in &nodes[node].inputs {
        readers[input.0] -= 1;
        if readers[input.0] == 0
            && let Source::Constant(constant) = &mut values[input.0].source
        {
            constant.data = Arc::default();
        }
    }
}

/// Bytes of maps that a task reads and writes for one image.
fn step_bytes(lowered: &Lowered, task: usize) -> usize {
    let task = &lowered.tasks[task];
    if task.work == Work::Halo {
        // Only the border.
        return 0;
    }
    task.reads.iter().chain(&task.writes).map(|id| lowered.buffers[id.0].bytes()).sum()
}

fn traffic(lowered: &Lowered) -> Vec<usize> {
    (0..lowered.tasks.len()).map(|task| step_bytes(lowered, task)).collect()
}

/// Bytes of maps that a group of images may touch in a step: a good part of the last cache, which is shared with the
/// weights and with other programs.
fn budget(caches: Caches) -> usize {
    (caches.last / 4).max(caches.l2)
}

/// When a buffer is needed and how much of it.
struct Usage {
    request: Request,
    whole: bool,
}

/// A buffer that only one segment touches holds one group of images, during the steps that touch it; one that goes
/// from segment to segment holds the batch, during all steps of those.
fn uses(lowered: &Lowered, segments: &[Segment], batch: usize) -> Vec<Usage> {
    let segment_of = |step: usize| segments.iter().position(|s| s.steps.contains(&step)).unwrap_or(0);
    let mut touched: Vec<Option<(usize, usize)>> = vec![None; lowered.buffers.len()];
    for (step, task) in lowered.tasks.iter().enumerate() {
        for id in task.reads.iter().chain(&task.writes) {
            let first = touched[id.0].map_or(step, |(first, _)| first);
            touched[id.0] = Some((first, step));
        }
    }
    let usage = |(buffer, touched): (&Buffer, Option<(usize, usize)>)| {
        let (first, last) = touched.unwrap_or((0, 0));
        let (from, to) = (&segments[segment_of(first)], &segments[segment_of(last)]);
        let whole = from != to;
        let images = if whole { batch } else { from.images };
        let (first, last) = if whole { (from.steps.start, to.steps.end - 1) } else { (first, last) };
        Usage { request: Request { lines: Line::count(buffer.bytes() * images), first, last }, whole }
    };
    lowered.buffers.iter().zip(touched).map(usage).collect()
}
