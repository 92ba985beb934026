//! The kernel of each task.

use super::kernel::{Base, Kernel};
use super::lower::{Job, Lowered, Slot, Task, conv_spec};
use super::parameters::Parameters;
use crate::EngineError;
use crate::autodiff::{Gradient, Kept, Tape, TapeNode, TapeOp};
use crate::graph::{Conv2d, Drop, Graph, Op, Source, Value, ValueId, Window};
use crate::plan::{Buffer, BufferId, Plain, plain};
use crate::plan::{Lowered as PlainLowered, Task as PlainTask, Work};
use cardinal_kernels::{
    self as k, ActivationSource, Conv, DType, Dropped, Isa, KernelError, Map, NormSource, PoolSpec,
};

/// What kernels are built for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) isa: Isa,
    pub(super) threads: usize,
    pub(super) images: usize,
}

/// A kernel and what is to be said of it.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) kernel: Kernel,
    pub(super) operator: &'static str,
    pub(super) label: String,
    /// Multiply-adds for one image.
    pub(super) macs: usize,
}

pub(super) struct Builder<'a> {
    pub(super) tape: &'a Tape,
    pub(super) lowered: &'a Lowered,
    pub(super) parameters: &'a Parameters,
    pub(super) target: Target,
}

impl Builder<'_> {
    /// The task's kernel.
    pub(super) fn build(&self, task: &Task) -> Result<Built, EngineError> {
        let place = match task.job {
            Job::Node(index) => self.tape.nodes[index].name.clone(),
            _ => String::new(),
        };
        let wrap = |source| EngineError::Kernel { place: place.clone(), source };
        let slots = |ids: &[usize]| ids.iter().map(|&id| self.lowered.slots[id]).collect::<Vec<_>>();
        let (reads, writes) = (slots(&task.reads), slots(&task.writes));
        let isa = self.target.isa;
        let glue = |work: Work, operator: &'static str| {
            let plain = self.plain(&Graph::default(), work, &reads, &writes)?;
            Ok(Built { kernel: Kernel::Plain(Box::new(plain)), operator, label: isa.to_string(), macs: 0 })
        };
        match task.job {
            Job::Input(index) => glue(Work::Input(index), "input"),
            Job::OutputGradient(index) => glue(Work::Input(index), "output_grad"),
            Job::Output(index) => glue(Work::Output(index), "output"),
            Job::Halo => glue(Work::Halo, "halo"),
            Job::Copy => glue(Work::Cast, "copy"),
            Job::Sum => {
                let (from, to) = (reads[0].map, writes[0].map);
                let kernel = k::AddChannels::new((from, 0), (to, 0), to.c, isa).map_err(wrap)?;
                Ok(Built { kernel: Kernel::Sum(kernel), operator: "sum", label: isa.to_string(), macs: 0 })
            }
            Job::Node(index) => self.node(&self.tape.nodes[index], task, &reads, &writes),
        }
    }

    /// A kernel of inference's plans.
    fn plain(
        &self,
        graph: &Graph,
        work: Work,
        reads: &[Slot],
        writes: &[Slot],
    ) -> Result<Plain, EngineError> {
        let mut lowered = PlainLowered::default();
        let mut ids = |slots: &[Slot]| -> Vec<BufferId> {
            let id = |slot: &Slot| {
                lowered.buffers.push(Buffer { map: slot.map, dtype: slot.dtype });
                BufferId(lowered.buffers.len() - 1)
            };
            slots.iter().map(id).collect()
        };
        let (reads, writes) = (ids(reads), ids(writes));
        let task = PlainTask { work, reads, writes };
        let Target { isa, threads, images } = self.target;
        plain(graph, &lowered, &task, (isa, threads, images))
    }

    /// A kernel of inference's plans for an operator without parameters.
    fn forward(
        &self,
        op: &Op,
        node: &TapeNode,
        reads: &[Slot],
        writes: &[Slot],
    ) -> Result<Built, EngineError> {
        let mut graph = Graph::default();
        let mut value = |id: &ValueId| {
            let value = &self.tape.values[id.0];
            let source = match &value.origin {
                crate::autodiff::Origin::Constant(data) => {
                    Source::Constant(crate::graph::Constant { data: data.clone() })
                }
                _ => Source::Node,
            };
            graph.value(Value { name: String::new(), shape: value.shape.clone(), source })
        };
        let inputs = node.inputs.iter().map(&mut value).collect();
        let outputs = node.outputs.iter().map(&mut value).collect();
        let name = node.name.clone();
        graph.nodes.push(crate::graph::Node { name, op: op.clone(), inputs, outputs });
        let plain = self.plain(&graph, Work::Node(0), reads, writes)?;
        let label = plain.label().to_owned();
        Ok(Built { kernel: Kernel::Plain(Box::new(plain)), operator: op.name(), label, macs: 0 })
    }

    fn node(
        &self,
        node: &TapeNode,
        task: &Task,
        reads: &[Slot],
        writes: &[Slot],
    ) -> Result<Built, EngineError> {
        let wrap = |source| EngineError::Kernel { place: node.name.clone(), source };
        let isa = self.target.isa;
        let range = |at: usize| self.parameters.range(self.tape, node.inputs[at], &node.name);
        let (mut macs, mut label) = (0, isa.to_string());
        let kernel = match &node.op {
            TapeOp::Forward(Op::Conv2d(conv)) => {
                let spec = conv_spec(conv, self.tape.shape(node.inputs[1]), reads[0].map, writes[0].map);
                let bias = conv.bias.then(|| range(2)).transpose()?;
                let kernel = self.conv(&spec, reads[0].dtype).map_err(wrap)?;
                (macs, label) = (spec.macs(), kernel.label());
                let statistics = task.statistics.map(|index| self.statistics_ranges(&self.tape.nodes[index]));
                let (rows, statistics) = (spec.output.h, statistics.transpose()?);
                Kernel::Conv { conv: Box::new(kernel), rows, weight: range(1)?, bias, statistics }
            }
            TapeOp::Forward(Op::Linear { bias, activation }) => {
                let mut spec = linear(self.tape.shape(node.inputs[1]), reads[0].map, writes[0].map);
                spec.activation = *activation;
                let bias = bias.then(|| range(2)).transpose()?;
                let kernel = self.conv(&spec, reads[0].dtype).map_err(wrap)?;
                (macs, label) = (spec.macs(), kernel.label());
                let rows = spec.output.h;
                Kernel::Conv { conv: Box::new(kernel), rows, weight: range(1)?, bias, statistics: None }
            }
            TapeOp::Forward(Op::ActivatedNorm { epsilon, slope }) => {
                self.norm(node, task, reads, writes, (*epsilon, *slope), None)?
            }
            TapeOp::Join { epsilon, slope } => {
                let skip = reads.last().map(|slot| slot.map);
                self.norm(node, task, reads, writes, (*epsilon, *slope), skip)?
            }
            TapeOp::Forward(op) => return self.forward(op, node, reads, writes),
            TapeOp::Statistics => {
                let stats = k::NormStats::new(reads[0].map, isa).map_err(wrap)?;
                Kernel::Statistics { stats, to: self.statistics_ranges(node)? }
            }
            TapeOp::Drop { what, rate, layer } => {
                let dropped = match what {
                    Drop::Elements => Dropped::Numbers,
                    Drop::Images => Dropped::Images,
                    Drop::Squares { side } => Dropped::Squares(*side),
                };
                let input = reads.first().map_or(writes[0].map, |slot| slot.map);
                let drop = k::RandomDrop::new(input, writes[0].map, dropped, isa).map_err(wrap)?;
                let rate = (!matches!(what, Drop::Squares { .. })).then_some(f64::from(*rate));
                Kernel::Drop { drop, rate, layer: *layer as u64 }
            }
            TapeOp::Gradient(gradient) => {
                let (kernel, own, name) = self.gradient(gradient, node, task, reads, writes)?;
                (macs, label) = (own, name.unwrap_or(label));
                kernel
            }
        };
        Ok(Built { kernel, operator: node.op.name(), label, macs })
    }

    fn conv(&self, spec: &k::ConvSpec, dtype: DType) -> Result<Conv, KernelError> {
        let Target { isa, threads, images } = self.target;
        let method = Conv::choose_in_training(spec, dtype, isa, images, threads);
        Conv::new(spec, &vec![0.0; spec.weights()], None, dtype, isa, method)
    }

    /// The forward pass of a norm, whose statistics are in slots if they are the batch's.
    fn norm(
        &self,
        node: &TapeNode,
        task: &Task,
        reads: &[Slot],
        writes: &[Slot],
        (epsilon, slope): (f32, f32),
        skip: Option<Map>,
    ) -> Result<Kernel, EngineError> {
        let output = writes[0].map;
        let input = if task.in_place == Some(0) { output } else { reads[0].map };
        let apply = k::NormApply::new(input, output, slope, self.target.isa);
        let apply = match skip {
            Some(map) => apply.and_then(|apply| apply.with_residual(map)),
            None => apply,
        };
        let apply = apply.map_err(|source| EngineError::Kernel { place: node.name.clone(), source })?;
        let range = |at: usize| self.parameters.range(self.tape, node.inputs[at], &node.name);
        let fixed = super::lower::parameter(self.tape, node.inputs[3]).is_some();
        let running = if fixed { Some([range(3)?, range(4)?]) } else { None };
        let base = Base { weight: range(1)?, bias: range(2)?, running, epsilon };
        Ok(Kernel::Norm { apply, base, join: skip.is_some() })
    }

    /// The kernel, its multiply-adds and its name.
    fn gradient(
        &self,
        gradient: &Gradient,
        node: &TapeNode,
        task: &Task,
        reads: &[Slot],
        writes: &[Slot],
    ) -> Result<(Kernel, usize, Option<String>), EngineError> {
        let wrap = |source| EngineError::Kernel { place: node.name.clone(), source };
        let isa = self.target.isa;
        let range = |at: usize| self.parameters.range(self.tape, node.inputs[at], &node.name);
        // Where the gradient of the parameter goes whose shape output `at` has.
        let to = |at: usize| self.gradient_range(node, at);
        let map = |at: usize| reads[at].map;
        // An operator that was done in place reads its gradient where it writes.
        let (result, dy) = (writes.first().map(|slot| slot.map), |at: usize| {
            if task.in_place == Some(at) { writes[0].map } else { reads[at].map }
        });
        let result = || result.ok_or_else(|| EngineError::graph(&node.name, "a gradient has no place"));
        let kernel = match gradient {
            Gradient::ConvInput(conv) => {
                let weight = self.tape.shape(node.inputs[1]);
                let input = result()?;
                let spec = k::ConvSpec { input, ..conv_spec(conv, weight, input, map(0)) };
                return self.conv_input(&spec, range(1)?, reads[0].dtype).map_err(wrap);
            }
            Gradient::LinearInput => {
                let spec = linear(self.tape.shape(node.inputs[1]), result()?, map(0));
                return self.conv_input(&spec, range(1)?, reads[0].dtype).map_err(wrap);
            }
            Gradient::ConvWeight(conv) => {
                let spec = conv_spec(conv, self.tape.shape(node.outputs[0]), map(0), map(1));
                return self.conv_weight(&spec, to(0)?, reads[0].dtype).map_err(wrap);
            }
            Gradient::LinearWeight => {
                let spec = linear(self.tape.shape(node.outputs[0]), map(0), map(1));
                return self.conv_weight(&spec, to(0)?, reads[0].dtype).map_err(wrap);
            }
            Gradient::Bias => Kernel::Bias { grad: k::BiasGrad::new(map(0), isa).map_err(wrap)?, to: to(0)? },
            Gradient::Norm { epsilon, slope, kept } => {
                let source = match kept {
                    Kept::Input => NormSource::Input,
                    Kept::Output => NormSource::Output,
                };
                let maps = [map(0), dy(1), result()?];
                let grad = k::NormGrad::new(maps, source, *slope, isa).map_err(wrap)?;
                let base = Base { weight: range(2)?, bias: range(3)?, running: None, epsilon: *epsilon };
                Kernel::NormGrad { grad, base, to: [to(1)?, to(2)?] }
            }
            Gradient::FixedNorm { epsilon, slope } => {
                let grad = k::FixedNormGrad::new([map(0), dy(1), result()?], NormSource::Output, *slope, isa)
                    .map_err(wrap)?;
                let running = Some([range(3)?, range(4)?]);
                let base = Base { weight: range(2)?, bias: range(2)?, running, epsilon: *epsilon };
                Kernel::FixedNormGrad { grad, base }
            }
            Gradient::Activation { activation, kept } => {
                let source = match kept {
                    Kept::Input => ActivationSource::Input,
                    Kept::Output => ActivationSource::Output,
                };
                let maps = [map(0), dy(1), result()?];
                Kernel::Activation(k::ActivationGrad::new(maps, *activation, source, isa).map_err(wrap)?)
            }
            Gradient::MaxPool(window) => {
                let spec = pool(window, map(0), map(1));
                Kernel::MaxPool(k::MaxPoolGrad::new(spec, result()?, isa).map_err(wrap)?)
            }
            Gradient::AvgPool { window, count_padding } => {
                let result = result()?;
                let spec = pool(window, result, map(0));
                Kernel::Spread(k::SpreadGrad::avg_pool(&spec, *count_padding, result, isa).map_err(wrap)?)
            }
            Gradient::BlurPool => {
                Kernel::Spread(k::SpreadGrad::blur_pool(map(0), result()?, isa).map_err(wrap)?)
            }
            Gradient::Pad([top, left, ..]) => {
                Kernel::Spread(k::SpreadGrad::pad(map(0), result()?, [*top, *left], isa).map_err(wrap)?)
            }
            Gradient::Means { radix } => {
                Kernel::Means(k::GlobalPoolGrad::new(result()?, *radix, isa).map_err(wrap)?)
            }
            Gradient::SpaceToDepth { block } => {
                Kernel::DepthToSpace(k::DepthToSpace::new(map(0), result()?, *block).map_err(wrap)?)
            }
            Gradient::SliceChannels { start } => {
                let (from, to) = (map(0), result()?);
                let copy = k::CopyMap::channels(from, 0, to, *start, from.c, isa).map_err(wrap)?;
                Kernel::Slice(copy, from.h)
            }
            Gradient::SplitLogits { radix, cardinality } => {
                let maps = [map(0), map(1), map(0)];
                Kernel::Logits(k::AttentionGrad::split(maps, *radix, *cardinality, isa).map_err(wrap)?)
            }
            Gradient::GateLogits { hard } => {
                let maps = [map(0), map(1), map(0)];
                Kernel::Logits(k::AttentionGrad::gate(maps, *hard, isa).map_err(wrap)?)
            }
            Gradient::SplitInput { radix, cardinality, means } => {
                let result = result()?;
                let maps = [result, map(0), result];
                let grad = k::AttentionGrad::split(maps, *radix, *cardinality, isa).map_err(wrap)?;
                Kernel::Weighted(grad, *means)
            }
            Gradient::GateInput { hard, means } => {
                let result = result()?;
                let maps = [result, dy(0), result];
                Kernel::Weighted(k::AttentionGrad::gate(maps, *hard, isa).map_err(wrap)?, *means)
            }
        };
        Ok((kernel, 0, None))
    }

    fn conv_input(
        &self,
        spec: &k::ConvSpec,
        weight: std::ops::Range<usize>,
        dtype: DType,
    ) -> Result<(Kernel, usize, Option<String>), KernelError> {
        let Target { isa, threads, images } = self.target;
        let grad = k::DataGrad::new(spec, &vec![0.0; spec.weights()], dtype, isa, images, threads)?;
        let label = grad.label();
        Ok((Kernel::ConvInput { grad: Box::new(grad), weight }, spec.macs(), Some(label)))
    }

    fn conv_weight(
        &self,
        spec: &k::ConvSpec,
        to: std::ops::Range<usize>,
        dtype: DType,
    ) -> Result<(Kernel, usize, Option<String>), KernelError> {
        let grad = k::WeightGrad::new(spec, dtype, self.target.isa, self.target.images)?;
        let label = grad.label();
        Ok((Kernel::ConvWeight { grad: Box::new(grad), to }, spec.macs(), Some(label)))
    }

    /// The places of the running statistics that follow those of `node`.
    fn statistics_ranges(&self, node: &TapeNode) -> Result<[std::ops::Range<usize>; 2], EngineError> {
        let found = self.tape.statistics.iter().find(|statistics| statistics.batch[0] == node.outputs[0]);
        let running = found.map(|statistics| statistics.running.map(|id| self.parameters.of(id)));
        match running {
            Some([Some(mean), Some(var)]) => Ok([mean.range.clone(), var.range.clone()]),
            _ => Err(EngineError::graph(&node.name, "a norm without running statistics cannot be trained")),
        }
    }

    /// The place of the gradient of the parameter that is output `at` of `node`.
    fn gradient_range(&self, node: &TapeNode, at: usize) -> Result<std::ops::Range<usize>, EngineError> {
        let gradient = node.outputs[at];
        let found = self.tape.parameters.iter().find(|parameter| parameter.gradient == Some(gradient));
        match found {
            Some(parameter) => self.parameters.range(self.tape, parameter.value, &node.name),
            // A norm whose bias alone is frozen: its gradient goes where nothing reads it.
            None if at > 0 => self.parameters.range(self.tape, node.inputs[1 + at], &node.name),
            None => {
                Err(EngineError::graph(&node.name, "a parameter that several layers share cannot be trained"))
            }
        }
    }
}

/// A linear layer is a convolution of one pixel.
fn linear(weight: &[usize], input: Map, output: Map) -> k::ConvSpec {
    conv_spec(&Conv2d::plain(), &[weight[0], weight[1], 1, 1], input, output)
}

fn pool(window: &Window, input: Map, output: Map) -> PoolSpec {
    PoolSpec {
        input,
        output,
        kernel: window.kernel,
        stride: window.stride,
        dilation: window.dilation,
        padding: [window.padding[0], window.padding[1]],
    }
}
