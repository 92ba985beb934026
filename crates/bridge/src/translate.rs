//! From Burn's record of operations to the engine's operators, one by one.

use crate::capture::{CaptureError, Names};
use burn::backend::ir::{
    ActivationOperationIr as Activate, BaseOperationIr as Base, Conv2dOpIr, CustomOpIr,
    FloatOperationIr as Float, GraphIr, ModuleOperationIr as Layer, NumericOperationIr as Numeric,
    OperationIr, PadModeIr, ScalarIr, TensorId, TensorIr,
};
use burn::tensor::TensorData;
use cardinal_engine::Activation;
use cardinal_engine::graph::{Binary, Conv2d, Drop, Graph, Op, Unary, ValueId, Window};
use std::collections::{BTreeMap, HashMap};

type Done = Result<(), CaptureError>;

pub(crate) struct Translator {
    graph: Graph,
    /// What each recorded tensor is in the graph.
    values: HashMap<TensorId, ValueId>,
    /// Transposed matrices and reshaped constants that nothing has read yet: what makes them, and what of. A linear layer
    /// takes the parameter behind them.
    views: HashMap<TensorId, (Op, ValueId)>,
    /// Numbers that were known when the record began.
    data: BTreeMap<TensorId, TensorData>,
    names: Names,
    /// The module path of the last parameter that was read.
    place: String,
}

impl Translator {
    pub(crate) fn new(name: &str, data: BTreeMap<TensorId, TensorData>, names: Names) -> Self {
        Self {
            graph: Graph::new(name),
            values: HashMap::new(),
            views: HashMap::new(),
            data,
            names,
            place: String::new(),
        }
    }

    pub(crate) fn translate(mut self, record: &GraphIr) -> Result<Graph, CaptureError> {
        for &id in &record.inputs {
            let shape = self.data.remove(&id).map(|data| data.shape().to_vec()).unwrap_or_default();
            let value = self.graph.input("input", shape);
            self.values.insert(id, value);
        }
        for operation in &record.operations {
            self.operation(operation)?;
        }
        for id in &record.outputs {
            let Some(&value) = self.values.get(id) else {
                return Err(CaptureError::Record(format!("the output {id} was not computed")));
            };
            self.graph.output(value);
        }
        Ok(self.graph)
    }

    fn operation(&mut self, operation: &OperationIr) -> Done {
        match operation {
            OperationIr::Module(layer) => self.layer(layer),
            OperationIr::Custom(op) => self.custom(op),
            OperationIr::Activation(activation) => self.activation(activation),
            OperationIr::NumericFloat(_, numeric) => self.numeric(numeric),
            OperationIr::Float(_, float) => self.float(float),
            OperationIr::BaseFloat(base) => self.base(base),
            OperationIr::Init(_) | OperationIr::Drop(_) => Ok(()),
            other => Err(self.unknown(other)),
        }
    }

    fn layer(&mut self, layer: &Layer) -> Done {
        match layer {
            Layer::Conv2d(conv) => self.conv2d(conv),
            Layer::Linear(linear) => {
                let weight = self.read_transposed(&linear.weight)?;
                let mut inputs = vec![self.read(&linear.x)?, weight];
                if let Some(bias) = &linear.bias {
                    inputs.push(self.read(bias)?);
                }
                let op = Op::Linear { bias: linear.bias.is_some(), activation: Activation::Identity };
                self.node(op, &inputs, &linear.out)
            }
            Layer::BatchNorm(norm) => {
                let inputs = [&norm.x, &norm.gamma, &norm.beta, &norm.mean, &norm.variance];
                let op = Op::ActivatedNorm { epsilon: scalar(norm.epsilon), slope: 1.0 };
                self.read_all(op, &inputs, &norm.out)
            }
            Layer::MaxPool2d(pool) => {
                let window = Window {
                    kernel: pool.kernel_size,
                    stride: pool.stride,
                    padding: even(pool.padding),
                    dilation: pool.dilation,
                    ceil: pool.ceil_mode,
                };
                self.read_all(Op::MaxPool(window), &[&pool.x], &pool.out)
            }
            Layer::AvgPool2d(pool) => {
                let window = Window {
                    kernel: pool.kernel_size,
                    stride: pool.stride,
                    padding: even(pool.padding),
                    dilation: [1; 2],
                    ceil: pool.ceil_mode,
                };
                let op = Op::AvgPool { window, count_padding: pool.count_include_pad };
                self.read_all(op, &[&pool.x], &pool.out)
            }
            Layer::AdaptiveAvgPool2d(pool) => {
                let (size, count) = ([pool.x.shape[2], pool.x.shape[3]], pool.output_size);
                match (count, size) {
                    ([1, 1], _) => self.read_all(Op::GlobalAvgPool, &[&pool.x], &pool.out),
                    ([rows, columns], [h, w]) if h % rows == 0 && w % columns == 0 => {
                        let op = tiles([h / rows, w / columns]);
                        self.read_all(op, &[&pool.x], &pool.out)
                    }
                    _ => {
                        Err(self
                            .unsupported(format!("adaptive average pooling of {size:?} to {count:?} pixels")))
                    }
                }
            }
            other => Err(self.unsupported(first_word(other))),
        }
    }

    fn conv2d(&mut self, conv: &Conv2dOpIr) -> Done {
        let options = &conv.options;
        let [(top, bottom), (left, right)] = options.padding;
        let op = Op::Conv2d(Conv2d {
            stride: options.stride,
            padding: [top, left, bottom, right],
            dilation: options.dilation,
            groups: options.groups,
            bias: conv.bias.is_some(),
            ..Conv2d::plain()
        });
        // The weight last, so that the node is called after it.
        let x = self.read(&conv.x)?;
        let bias = conv.bias.as_ref().map(|bias| self.read(bias)).transpose()?;
        let weight = self.read(&conv.weight)?;
        let inputs: Vec<_> = [x, weight].into_iter().chain(bias).collect();
        self.node(op, &inputs, &conv.out)
    }

    /// The papers' operators, as `cardinal_models::ops` records them: scalars in the order of the arguments.
    fn custom(&mut self, custom: &CustomOpIr) -> Done {
        let float = |i: usize| custom.scalars.get(i).copied().map(scalar).unwrap_or_default();
        let int = |i: usize| custom.scalars.get(i).map(|s| s.elem::<u32>() as usize).unwrap_or_default();
        let op = match custom.id.as_str() {
            "activated_norm" => Op::ActivatedNorm { epsilon: float(0), slope: float(1) },
            "global_avg_pool" => Op::GlobalAvgPool,
            "radix_pool" => Op::RadixPool { radix: int(0) },
            "split_attention" => {
                Op::SplitAttention { radix: int(0), cardinality: int(1), activation: Activation::Identity }
            }
            "gate" => Op::Gate { hard: int(0) != 0, residual: false, activation: Activation::Identity },
            "blur_pool" => Op::BlurPool,
            "space_to_depth" => Op::SpaceToDepth { block: int(0) },
            "drop_elements" => Op::Drop { what: Drop::Elements, rate: float(0) },
            "drop_samples" => Op::Drop { what: Drop::Images, rate: float(0) },
            "drop_squares" => Op::Drop { what: Drop::Squares { side: int(1) }, rate: float(0) },
            "activated_norm_train" | "drop_block" => {
                return Err(self.unsupported(format!("`{}`, which only training has", custom.id)));
            }
            other => return Err(self.unsupported(format!("the custom operator `{other}`"))),
        };
        let inputs: Vec<_> = custom.inputs.iter().collect();
        match custom.outputs.as_slice() {
            [out] => self.read_all(op, &inputs, out),
            _ => Err(self.unsupported(format!("`{}` with several outputs", custom.id))),
        }
    }

    fn activation(&mut self, activation: &Activate) -> Done {
        let unary = |activation| Op::Unary(Unary::Activation(activation));
        match activation {
            Activate::Relu(op) => self.read_all(unary(Activation::Relu), &[&op.input], &op.out),
            Activate::Sigmoid(op) => self.read_all(unary(Activation::Sigmoid), &[&op.input], &op.out),
            Activate::LeakyRelu(op) => {
                let slope = scalar(op.rhs);
                if !(0.0..=1.0).contains(&slope) {
                    return Err(self.unsupported(format!("leaky ReLU with the slope {slope}")));
                }
                self.read_all(unary(Activation::LeakyRelu(slope)), &[&op.lhs], &op.out)
            }
            Activate::HardSigmoid(op) => {
                let (alpha, beta) = (scalar(op.alpha), scalar(op.beta));
                if (alpha - 1.0 / 6.0).abs() > 1e-6 || (beta - 0.5).abs() > 1e-6 {
                    return Err(self.unsupported(format!("hard sigmoid with {alpha} x + {beta}")));
                }
                self.read_all(unary(Activation::HardSigmoid), &[&op.tensor], &op.out)
            }
            Activate::Softmax(op) if op.axis == 1 => self.read_all(Op::Softmax, &[&op.input], &op.out),
            other => Err(self.unsupported(first_word(other))),
        }
    }

    fn numeric(&mut self, numeric: &Numeric) -> Done {
        let unary = |unary| Op::Unary(unary);
        match numeric {
            Numeric::Add(op) if self.joins_linear(&op.lhs, &op.rhs) => self.bias_of_linear(&op.rhs, &op.out),
            Numeric::Add(op) => self.read_all(Op::Binary(Binary::Add), &[&op.lhs, &op.rhs], &op.out),
            Numeric::Sub(op) => self.read_all(Op::Binary(Binary::Sub), &[&op.lhs, &op.rhs], &op.out),
            Numeric::Mul(op) => self.read_all(Op::Binary(Binary::Mul), &[&op.lhs, &op.rhs], &op.out),
            Numeric::Div(op) => self.read_all(Op::Binary(Binary::Div), &[&op.lhs, &op.rhs], &op.out),
            Numeric::AddScalar(op) => {
                self.read_all(unary(Unary::AddScalar(scalar(op.rhs))), &[&op.lhs], &op.out)
            }
            Numeric::SubScalar(op) => {
                self.read_all(unary(Unary::AddScalar(-scalar(op.rhs))), &[&op.lhs], &op.out)
            }
            Numeric::MulScalar(op) => {
                self.read_all(unary(Unary::MulScalar(scalar(op.rhs))), &[&op.lhs], &op.out)
            }
            Numeric::DivScalar(op) => {
                self.read_all(unary(Unary::MulScalar(1.0 / scalar(op.rhs))), &[&op.lhs], &op.out)
            }
            Numeric::Neg(op) => self.read_all(unary(Unary::Neg), &[&op.input], &op.out),
            Numeric::Clamp(op) => {
                let clamp = Unary::Clamp(scalar(op.min), scalar(op.max));
                self.read_all(unary(clamp), &[&op.tensor], &op.out)
            }
            Numeric::ClampMin(op) => {
                self.read_all(unary(Unary::Clamp(scalar(op.rhs), f32::MAX)), &[&op.lhs], &op.out)
            }
            Numeric::ClampMax(op) => {
                self.read_all(unary(Unary::Clamp(f32::MIN, scalar(op.rhs))), &[&op.lhs], &op.out)
            }
            // A mean over rows or columns is a pooling with windows as long as the axis.
            Numeric::MeanDim(op) if op.input.shape.num_dims() == 4 && op.axis >= 2 => {
                let mut kernel = [1; 2];
                kernel[op.axis - 2] = op.input.shape[op.axis];
                self.read_all(tiles(kernel), &[&op.input], &op.out)
            }
            Numeric::Pad(op) => match (op.padding.as_slice(), &op.mode) {
                ([(0, 0), (0, 0), (top, bottom), (left, right)], PadModeIr::Constant(value))
                    if scalar(*value) == 0.0 =>
                {
                    self.read_all(Op::Pad([*top, *left, *bottom, *right]), &[&op.input], &op.out)
                }
                (padding, mode) => Err(self.unsupported(format!("padding {padding:?} ({mode:?})"))),
            },
            Numeric::Full(op) => self.filled(&op.out, scalar(op.value)),
            other => Err(self.unsupported(first_word(other))),
        }
    }

    fn float(&mut self, float: &Float) -> Done {
        match float {
            Float::Matmul(op) => {
                if op.rhs.shape.num_dims() != 2 || op.lhs.shape.num_dims() != 2 {
                    return Err(
                        self.unsupported(format!("a product of {:?} and {:?}", op.lhs.shape, op.rhs.shape))
                    );
                }
                let x = self.read(&op.lhs)?;
                let weight = self.read_transposed(&op.rhs)?;
                self.node(Op::Linear { bias: false, activation: Activation::Identity }, &[x, weight], &op.out)
            }
            Float::Exp(op) => self.read_all(Op::Unary(Unary::Exp), &[&op.input], &op.out),
            Float::Sqrt(op) => self.read_all(Op::Unary(Unary::Sqrt), &[&op.input], &op.out),
            Float::Recip(op) => self.read_all(Op::Unary(Unary::Recip), &[&op.input], &op.out),
            other => Err(self.unsupported(first_word(other))),
        }
    }

    fn base(&mut self, base: &Base) -> Done {
        match base {
            Base::Reshape(op) => {
                let reshape = Op::Reshape { shape: op.out.shape.to_vec() };
                let input = self.read(&op.input)?;
                if self.graph[input].constant().is_none() {
                    return self.node(reshape, &[input], &op.out);
                }
                self.views.insert(op.out.id, (reshape, input));
                Ok(())
            }
            Base::SwapDims(op) if op.input.shape.num_dims() == 2 && op.dim1 != op.dim2 => {
                let matrix = self.read(&op.input)?;
                self.views.insert(op.out.id, (Op::Permute { order: vec![1, 0] }, matrix));
                Ok(())
            }
            Base::SwapDims(op) => {
                let mut order: Vec<_> = (0..op.input.shape.num_dims()).collect();
                order.swap(op.dim1, op.dim2);
                self.read_all(Op::Permute { order }, &[&op.input], &op.out)
            }
            Base::Permute(op) => self.read_all(Op::Permute { order: op.axes.clone() }, &[&op.input], &op.out),
            Base::Cat(op) if op.dim == 1 => {
                let inputs: Vec<_> = op.tensors.iter().collect();
                self.read_all(Op::Concat, &inputs, &op.out)
            }
            Base::RepeatDim(op) if op.dim == 1 => {
                let inputs = vec![&op.tensor; op.times];
                self.read_all(Op::Concat, &inputs, &op.out)
            }
            Base::Slice(op) => {
                let shape = &op.tensor.shape;
                let mut channels = None;
                for (axis, slice) in op.ranges.iter().enumerate() {
                    let range = slice.to_range(shape[axis]);
                    match axis {
                        _ if slice.step == 1 && range == (0..shape[axis]) => {}
                        1 if slice.step == 1 => channels = Some(range),
                        _ => return Err(self.unsupported(format!("the slice {slice:?} of axis {axis}"))),
                    }
                }
                let range = channels.unwrap_or(0..shape[1]);
                let op_slice = Op::SliceChannels { start: range.start, end: range.end };
                self.read_all(op_slice, &[&op.tensor], &op.out)
            }
            Base::Zeros(op) => self.filled(&op.out, 0.0),
            Base::Ones(op) => self.filled(&op.out, 1.0),
            other => Err(self.unsupported(first_word(other))),
        }
    }

    /// Whether `rhs` is the bias of the linear layer that has just been recorded with the result `lhs`.
    fn joins_linear(&self, lhs: &TensorIr, rhs: &TensorIr) -> bool {
        let last = self.graph.nodes.iter().rev().find(|node| !matches!(node.op, Op::Reshape { .. }));
        let outputs = lhs.shape.to_vec().last().copied();
        last.is_some_and(|node| {
            matches!(node.op, Op::Linear { bias: false, .. })
                && self.values.get(&lhs.id) == node.outputs.first()
                && Some(rhs.shape.num_elements()) == outputs
        })
    }

    fn bias_of_linear(&mut self, bias: &TensorIr, out: &TensorIr) -> Done {
        let elements = bias.shape.num_elements();
        let mut value = match self.views.get(&bias.id) {
            Some(&(Op::Reshape { .. }, of)) if self.graph.shape(of) == [elements] => of,
            _ => self.read(bias)?,
        };
        if self.graph.shape(value) != [elements] {
            value = self.graph.push("", Op::Reshape { shape: vec![elements] }, &[value])?;
        }
        // The bias must stand before the layer that reads it, so the layer is recorded again.
        let is_linear = |op: &Op| matches!(op, Op::Linear { .. });
        let index = self.graph.nodes.iter().rposition(|node| is_linear(&node.op));
        let mut linear = self.graph.nodes.remove(index.expect("`joins_linear` found it"));
        linear.op = Op::Linear { bias: true, activation: Activation::Identity };
        linear.inputs.push(value);
        self.values.insert(out.id, linear.outputs[0]);
        self.graph.nodes.push(linear);
        Ok(())
    }

    fn filled(&mut self, out: &TensorIr, number: f32) -> Done {
        let shape = out.shape.to_vec();
        let data = vec![number; shape.iter().product()];
        let value = self.graph.constant(format!("constant_{}", self.graph.values.len()), shape, data)?;
        self.values.insert(out.id, value);
        Ok(())
    }

    fn read_all(&mut self, op: Op, inputs: &[&TensorIr], out: &TensorIr) -> Done {
        let inputs: Result<Vec<_>, _> = inputs.iter().map(|input| self.read(input)).collect();
        self.node(op, &inputs?, out)
    }

    /// Adds a node, called after the parameters that it reads.
    fn node(&mut self, op: Op, inputs: &[ValueId], out: &TensorIr) -> Done {
        let parameter =
            inputs.iter().map(|&id| self.graph[id].name.as_str()).find_map(|n| n.rsplit_once('.'));
        let name = parameter.map_or_else(String::new, |(module, _)| module.into());
        let value = self.graph.push(name, op, inputs)?;
        let expected = out.shape.to_vec();
        if self.graph.shape(value) != expected {
            let shape = self.graph.shape(value);
            return Err(CaptureError::Record(format!("{}: {shape:?} instead of {expected:?}", self.place())));
        }
        // What is computed from one parameter alone is still that parameter.
        if let [one] = inputs
            && self.graph[*one].constant().is_some()
        {
            self.graph.values[value.0].name = self.graph[*one].name.clone();
        }
        self.values.insert(out.id, value);
        Ok(())
    }

    /// The transpose of a recorded matrix. Burn keeps the weight of a linear layer as [inputs, outputs]; where a module
    /// transposes its weight for that, this is the parameter itself.
    fn read_transposed(&mut self, tensor: &TensorIr) -> Result<ValueId, CaptureError> {
        if let Some(&(Op::Permute { .. }, matrix)) = self.views.get(&tensor.id) {
            return Ok(matrix);
        }
        let matrix = self.read(tensor)?;
        Ok(self.graph.push("", Op::Permute { order: vec![1, 0] }, &[matrix])?)
    }

    /// The value of a recorded tensor; a constant when it is first read.
    fn read(&mut self, tensor: &TensorIr) -> Result<ValueId, CaptureError> {
        if let Some(&value) = self.values.get(&tensor.id) {
            return Ok(value);
        }
        if let Some((op, of)) = self.views.remove(&tensor.id) {
            self.node(op, &[of], tensor)?;
            return Ok(self.values[&tensor.id]);
        }
        let Some(data) = self.data.remove(&tensor.id) else {
            return Err(CaptureError::Record(format!("{}: {} has no value", self.place(), tensor.id)));
        };
        let name = match self.names.remove(&tensor.id) {
            Some(name) => {
                self.place = name.rsplit_once('.').map_or_else(|| name.clone(), |(module, _)| module.into());
                name
            }
            None => format!("constant_{}", self.graph.values.len()),
        };
        let shape = data.shape().to_vec();
        let numbers = data
            .convert::<f32>()
            .try_into_vec::<f32>()
            .map_err(|error| CaptureError::Record(format!("{name}: {error:?}")))?;
        let value = self.graph.constant(name, shape, numbers)?;
        self.values.insert(tensor.id, value);
        Ok(value)
    }

    fn place(&self) -> String {
        if self.place.is_empty() { "at the start".into() } else { format!("after {}", self.place) }
    }

    fn unsupported(&self, operator: impl Into<String>) -> CaptureError {
        CaptureError::Operator { place: self.place(), operator: operator.into() }
    }

    fn unknown(&self, operation: &OperationIr) -> CaptureError {
        self.unsupported(first_word(operation))
    }
}

/// Means over windows that tile the map.
fn tiles(kernel: [usize; 2]) -> Op {
    let window = Window { kernel, stride: kernel, padding: [0; 4], dilation: [1; 2], ceil: false };
    Op::AvgPool { window, count_padding: true }
}

fn even([rows, columns]: [usize; 2]) -> [usize; 4] {
    [rows, columns, rows, columns]
}

fn scalar(value: ScalarIr) -> f32 {
    value.elem()
}

/// Burn's name of an operation: the innermost variant's, without its fields.
fn first_word(operation: &impl std::fmt::Debug) -> String {
    let text = format!("{operation:?}");
    // `Float(Sin(UnaryOpIr { .. }))`: the variant stands before the last parenthesis.
    let head = text.split("OpIr").next().unwrap_or_default();
    let variant = head.rsplit_once('(').map_or(head, |(variants, _)| variants);
    let word = variant.rsplit(['(', ' ']).next().filter(|word| !word.is_empty());
    format!("Burn's `{}`", word.unwrap_or("operation"))
}
