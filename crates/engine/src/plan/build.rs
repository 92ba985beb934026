//! Chooses and packs a kernel for each task.

use super::kernel::{Kernel, Side};
use super::lower::{Buffer, BufferId, Lowered, Task, Work};
use super::tune::Tuner;
use crate::EngineError;
use crate::graph::{self, Graph, Node, Op, Unary, ValueId, Window};
use cardinal_kernels::{
    self as k, Activation, Binary, Conv, ConvSpec, DType, Isa, KernelError, Map, PoolSpec,
};

/// What the choice depends on besides the graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) isa: Isa,
    pub(super) threads: usize,
    /// Images that a step runs for at once.
    pub(super) images: usize,
}

/// A kernel and what is to be said of it.
pub(super) struct Built {
    pub(super) kernel: Kernel,
    pub(super) label: String,
    pub(super) macs: usize,
}

/// The task's kernel; its first result is the buffer that `task.writes` names first.
pub(super) fn build(
    graph: &Graph,
    lowered: &Lowered,
    task: &Task,
    target: &Target,
    tuner: Option<&mut Tuner>,
) -> Result<Built, EngineError> {
    let buffer = |id: &BufferId| lowered.buffers[id.0];
    let reads: Vec<_> = task.reads.iter().map(buffer).collect();
    let writes: Vec<_> = task.writes.iter().map(buffer).collect();
    let mut builder = Builder { graph, isa: target.isa, target, tuner, reads, writes };
    match task.work {
        Work::Node(index) => {
            let node = &graph.nodes[index];
            let wrap = |source| EngineError::Kernel { place: node.place(), source };
            builder.node(node).map_err(|error| match error {
                Refused::Kernel(source) => wrap(source),
                Refused::Reason(reason) => EngineError::graph(node.place(), reason),
            })
        }
        _ => builder
            .glue(&task.work)
            .map_err(|source| EngineError::Kernel { place: glue_name(&task.work).into(), source }),
    }
}

/// What a task that is no node is called in tables.
pub(super) fn glue_name(work: &Work) -> &'static str {
    match work {
        Work::Input(_) => "input",
        Work::Output(_) => "output",
        Work::Halo => "halo",
        Work::Cast => "cast",
        Work::SumSplits(_) => "sum_splits",
        Work::Node(_) => "node",
    }
}

/// Why there is no kernel.
enum Refused {
    Kernel(KernelError),
    Reason(String),
}

impl From<KernelError> for Refused {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    isa: Isa,
    target: &'a Target,
    tuner: Option<&'a mut Tuner>,
    reads: Vec<Buffer>,
    writes: Vec<Buffer>,
}

impl<'a> Builder<'a> {
    fn built(&self, kernel: Kernel) -> Built {
        Built { kernel, label: self.isa.to_string(), macs: 0 }
    }

    fn glue(&self, work: &Work) -> Result<Built, KernelError> {
        let isa = self.isa;
        let kernel = match *work {
            Work::Input(index) => Kernel::Input(k::FromNchw::new(self.writes[0].map, isa)?, index),
            Work::Output(index) => Kernel::Output(k::ToNchw::new(self.reads[0].map, isa)?, index),
            Work::Halo => Kernel::Halo(k::FillHalo::new(self.writes[0].map)?),
            Work::Cast => {
                let (from, to) = (self.reads[0], self.writes[0]);
                let copy = k::CopyMap::new(from.map, to.map, isa)?;
                if from.dtype == to.dtype { Kernel::Copy(vec![copy]) } else { Kernel::Cast(copy) }
            }
            Work::SumSplits(radix) => {
                Kernel::GlobalPool(k::GlobalPool::new(self.reads[0].map, radix, isa)?, 1)
            }
            Work::Node(_) => unreachable!("nodes are built elsewhere"),
        };
        Ok(self.built(kernel))
    }

    fn node(&mut self, node: &Node) -> Result<Built, Refused> {
        let isa = self.isa;
        let output = self.writes[0].map;
        // Nodes whose inputs are all constants were refused before; every other reads a buffer.
        let input = self.reads[0].map;
        let kernel = match &node.op {
            Op::Conv2d(conv) => return self.conv(node, conv),
            Op::Linear { bias, activation } => return self.linear(node, *bias, *activation),
            Op::ActivatedNorm { epsilon, slope } => {
                let (scale, shift) = self.norm(node, *epsilon)?;
                let activation = leaky(*slope);
                Kernel::Affine(k::Affine::new(input, output, &scale, &shift, activation, isa)?)
            }
            Op::Unary(unary) => self.unary(*unary, input, output)?,
            Op::Binary(binary) => self.binary(node, *binary, output)?,
            Op::MaxPool(window) => Kernel::MaxPool(k::MaxPool::new(pool(window, input, output), isa)?),
            Op::AvgPool {
                window: Window { padding: [top, left, bottom, right], .. },
                count_padding: true,
            } if (top, left) != (bottom, right) => {
                let reason =
                    format!("padding {:?} that counts in means is not even", [top, left, bottom, right]);
                return Err(Refused::Reason(reason));
            }
            Op::AvgPool { window, count_padding } => {
                Kernel::AvgPool(k::AvgPool::new(pool(window, input, output), *count_padding, isa)?)
            }
            Op::GlobalAvgPool => Kernel::GlobalPool(k::GlobalPool::new(input, 1, isa)?, input.h),
            Op::RadixPool { radix } => Kernel::GlobalPool(k::GlobalPool::new(input, *radix, isa)?, input.h),
            Op::Softmax
                if self.reads[0].dtype == DType::F32
                    && input == output
                    && output.halo == k::Halo::default() =>
            {
                Kernel::Softmax(k::Softmax::new(output.c, isa)?, output)
            }
            Op::Softmax => return Err(Refused::Reason("softmax runs in f32 on maps without padding".into())),
            Op::Concat => {
                let mut first = 0;
                let mut copies = Vec::with_capacity(self.reads.len());
                for read in &self.reads {
                    copies.push(k::CopyMap::channels(read.map, 0, output, first, read.map.c, isa)?);
                    first += read.map.c;
                }
                Kernel::Copy(copies)
            }
            Op::SliceChannels { start, end } => {
                Kernel::Copy(vec![k::CopyMap::channels(input, *start, output, 0, end - start, isa)?])
            }
            Op::SplitAttention { radix, cardinality, activation } => Kernel::SplitAttention(
                k::SplitAttention::new(input, output, *radix, *cardinality, *activation, isa)?,
            ),
            Op::Gate { hard, residual, activation } => {
                let residual = residual.then(|| self.reads.last().map(|read| read.map)).flatten();
                Kernel::Gate(k::Gate::new(input, output, residual, *hard, *activation, isa)?)
            }
            // Passes remove it, but where it stands between an input and an output.
            Op::Drop { .. } => Kernel::Copy(vec![k::CopyMap::new(input, output, isa)?]),
            Op::BlurPool => Kernel::BlurPool(k::BlurPool::new(input, output, isa)?),
            Op::SpaceToDepth { block } => Kernel::SpaceToDepth(k::SpaceToDepth::new(input, output, *block)?),
            Op::Pad(_) | Op::Reshape { .. } | Op::Permute { .. } => {
                return Err(Refused::Reason("the runtime has no kernel for it".into()));
            }
        };
        Ok(self.built(kernel))
    }

    fn constant(&self, id: ValueId) -> Result<&'a [f32], Refused> {
        let missing = || Refused::Reason("its weights must be constants".into());
        self.graph[id].constant().map(AsRef::as_ref).ok_or_else(missing)
    }

    fn conv(&mut self, node: &Node, conv: &graph::Conv2d) -> Result<Built, Refused> {
        let [_, _, rows, columns] = *self.graph.shape(node.inputs[1]) else {
            return Err(Refused::Reason("the weight has no rows and columns".into()));
        };
        let spec = ConvSpec {
            input: self.reads[0].map,
            output: self.writes[0].map,
            kernel: [rows, columns],
            stride: conv.stride,
            dilation: conv.dilation,
            padding: [conv.padding[0], conv.padding[1]],
            groups: conv.groups,
            activation: conv.activation,
            residual: if conv.residual { self.reads.last().map(|read| read.map) } else { None },
            pooled: conv.pool.is_some(),
        };
        let weight = self.constant(node.inputs[1])?;
        let bias = if conv.bias { Some(self.constant(node.inputs[2])?) } else { None };
        self.packed(&spec, weight, bias)
    }

    /// A linear layer is a convolution of one pixel.
    fn linear(&mut self, node: &Node, bias: bool, activation: Activation) -> Result<Built, Refused> {
        let (input, output) = (self.reads[0].map, self.writes[0].map);
        let spec = ConvSpec {
            input,
            output,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0, 0],
            groups: 1,
            activation,
            residual: None,
            pooled: false,
        };
        let weight = self.constant(node.inputs[1])?;
        let bias = if bias { Some(self.constant(node.inputs[2])?) } else { None };
        self.packed(&spec, weight, bias)
    }

    fn packed(&mut self, spec: &ConvSpec, weight: &[f32], bias: Option<&[f32]>) -> Result<Built, Refused> {
        let (dtype, isa) = (self.reads[0].dtype, self.isa);
        let Target { images, threads, .. } = *self.target;
        let method = match &mut self.tuner {
            Some(tuner) => tuner.choose((spec, weight, bias), dtype, isa, images, threads)?,
            None => Conv::choose(spec, dtype, isa, images, threads),
        };
        let conv = Conv::new(spec, weight, bias, dtype, isa, method)?;
        Ok(Built { label: conv.label(), macs: spec.macs(), kernel: Kernel::Conv(Box::new(conv)) })
    }

    /// The scale and shift of a batch norm.
    fn norm(&self, node: &Node, epsilon: f32) -> Result<(Vec<f32>, Vec<f32>), Refused> {
        let [weight, bias, mean, var] = [1, 2, 3, 4].map(|i| self.constant(node.inputs[i]));
        let (weight, bias, mean, var) = (weight?, bias?, mean?, var?);
        let scale: Vec<f32> = weight
            .iter()
            .zip(var)
            .map(|(w, v)| (f64::from(*w) / (f64::from(*v) + f64::from(epsilon)).sqrt()) as f32)
            .collect();
        let shift = bias.iter().zip(mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok((scale, shift))
    }

    fn unary(&self, unary: Unary, input: Map, output: Map) -> Result<Kernel, Refused> {
        let isa = self.isa;
        let affine = |scale: f32, shift: f32| {
            let (scale, shift) = (vec![scale; input.c], vec![shift; input.c]);
            k::Affine::new(input, output, &scale, &shift, Activation::Identity, isa)
        };
        Ok(match unary {
            Unary::Activation(activation) => {
                Kernel::Activate(k::Activate::new(input, output, activation, isa)?)
            }
            Unary::Neg => Kernel::Affine(affine(-1.0, 0.0)?),
            Unary::AddScalar(shift) => Kernel::Affine(affine(1.0, shift)?),
            Unary::MulScalar(scale) => Kernel::Affine(affine(scale, 0.0)?),
            Unary::Exp | Unary::Sqrt | Unary::Recip | Unary::Clamp(..) => {
                return Err(Refused::Reason(format!(
                    "the runtime has no kernel for {} of a map",
                    unary.name()
                )));
            }
        })
    }

    fn binary(&self, node: &Node, binary: graph::Binary, output: Map) -> Result<Kernel, Refused> {
        let kind = match binary {
            graph::Binary::Add => Binary::Add,
            graph::Binary::Sub => Binary::Sub,
            graph::Binary::Mul => Binary::Mul,
            graph::Binary::Div => return Err(Refused::Reason("the runtime does not divide maps".into())),
        };
        let mut sides = [Side::Constant; 2];
        let mut operands = [k::Side::Scalar(0.0), k::Side::Scalar(0.0)];
        let mut next = 0;
        for (i, &id) in node.inputs.iter().enumerate() {
            if let Some(data) = self.graph[id].constant() {
                operands[i] = match data.len() {
                    1 => k::Side::Scalar(data[0]),
                    c if c == output.c => k::Side::PerChannel(data.to_vec()),
                    _ => return Err(Refused::Reason("a constant with a number for each pixel".into())),
                };
                continue;
            }
            let map = self.reads[next].map;
            let same = [map.h, map.w, map.c] == [output.h, output.w, output.c];
            (operands[i], sides[i]) = match same {
                true => (k::Side::Map(map), Side::Map(next)),
                false if map.h * map.w == 1 && map.c == output.c => (k::Side::PerImage, Side::Vector(next)),
                false => return Err(Refused::Reason("operands of different sizes".into())),
            };
            next += 1;
        }
        let [left, right] = operands;
        Ok(Kernel::Binary(k::Map2::new(kind, left, right, output, Activation::Identity, self.isa)?, sides))
    }
}

fn leaky(slope: f32) -> Activation {
    match slope {
        1.0 => Activation::Identity,
        0.0 => Activation::Relu,
        slope => Activation::LeakyRelu(slope),
    }
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
