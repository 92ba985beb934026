//! Each operator of the engine in ONNX's.

use super::build::{Attribute, Builder};
use cardinal_engine::Activation;
use cardinal_engine::graph::{Binary, Conv2d, Node, Op, Padding, Unary, ValueId, Window};

use Attribute::{Float, Int, Ints, Text};

/// Why an operator cannot be written.
type Result<T> = std::result::Result<T, String>;

/// Writes a node of the graph.
pub(super) fn node(b: &mut Builder<'_>, index: usize) -> Result<()> {
    let graph = b.graph;
    let node = &graph.nodes[index];
    let inputs = node.inputs.iter().map(|&id| b.read(id)).collect::<Result<Vec<_>>>()?;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let x = *inputs.first().ok_or("it reads nothing")?;
    let output = match &node.op {
        Op::Conv2d(conv) => {
            let y = conv2d(b, index, conv, &inputs);
            if let (Some(radix), Some(&pooled)) = (conv.pool, node.outputs.get(1)) {
                let means = radix_pool(b, &y, radix, channels(b, node.outputs[0])?);
                b.bind(pooled, means);
            }
            y
        }
        Op::Linear { bias, activation } => {
            let y = linear(b, node, *bias, &inputs);
            activate(b, *activation, y)
        }
        Op::ActivatedNorm { epsilon, slope } => {
            let y = b.add("BatchNormalization", &inputs, &[("epsilon", Float(*epsilon))]);
            match *slope {
                1.0 => y,
                0.0 => b.add("Relu", &[&y], &[]),
                slope => b.add("LeakyRelu", &[&y], &[("alpha", Float(slope))]),
            }
        }
        Op::Unary(f) => unary(b, *f, x),
        Op::Binary(f) => b.add(binary(*f), &inputs, &[]),
        Op::MaxPool(window) => max_pool(b, node, window, x)?,
        Op::AvgPool { window, count_padding } => avg_pool(b, node, window, *count_padding, x)?,
        Op::GlobalAvgPool => b.add("GlobalAveragePool", &[x], &[]),
        Op::Softmax => b.add("Softmax", &[x], &[("axis", Int(1))]),
        Op::Reshape { shape } => reshape(b, node, shape, x)?,
        Op::Permute { order } => b.add("Transpose", &[x], &[("perm", Ints(order))]),
        Op::Concat => b.add("Concat", &inputs, &[("axis", Int(1))]),
        Op::SliceChannels { start, end } => slice(b, *start, *end, x),
        Op::Pad(padding) => pad(b, *padding, "constant", x),
        Op::RadixPool { radix } => radix_pool(b, x, *radix, channels(b, node.inputs[0])?),
        Op::SplitAttention { radix, cardinality, activation } => {
            let y = split_attention(b, node, [*radix, *cardinality], &inputs)?;
            activate(b, *activation, y)
        }
        Op::Gate { hard, activation, .. } => {
            let function = if *hard { Activation::HardSigmoid } else { Activation::Sigmoid };
            let weights = activate(b, function, inputs[1].into());
            let mut y = b.add("Mul", &[x, &weights], &[]);
            if let Some(residual) = inputs.get(2) {
                y = b.add("Add", &[&y, residual], &[]);
            }
            activate(b, *activation, y)
        }
        Op::BlurPool => blur_pool(b, channels(b, node.inputs[0])?, x),
        Op::SpaceToDepth { block } => space_to_depth(b, node, *block, x)?,
        // What training drops is whole everywhere else.
        Op::Drop { .. } => x.to_owned(),
    };
    b.bind(node.outputs[0], output);
    Ok(())
}

fn channels(b: &Builder<'_>, id: ValueId) -> Result<usize> {
    b.graph.shape(id).get(1).copied().ok_or_else(|| "its input has no channels".into())
}

fn activate(b: &mut Builder<'_>, activation: Activation, x: String) -> String {
    match activation {
        Activation::Identity => x,
        Activation::Relu => b.add("Relu", &[&x], &[]),
        Activation::LeakyRelu(slope) => b.add("LeakyRelu", &[&x], &[("alpha", Float(slope))]),
        Activation::Relu6 => clip(b, 0.0, 6.0, &x),
        Activation::Sigmoid => b.add("Sigmoid", &[&x], &[]),
        Activation::Silu => {
            let sigmoid = b.add("Sigmoid", &[&x], &[]);
            b.add("Mul", &[&x, &sigmoid], &[])
        }
        // ONNX's own default slope is 0.2.
        Activation::HardSigmoid => {
            b.add("HardSigmoid", &[&x], &[("alpha", Float(1.0 / 6.0)), ("beta", Float(0.5))])
        }
        Activation::HardSwish => b.add("HardSwish", &[&x], &[]),
    }
}

/// Bounds that bound nothing are left out.
fn clip(b: &mut Builder<'_>, low: f32, high: f32, x: &str) -> String {
    let low = if low > f32::MIN { b.scalar(low) } else { String::new() };
    let high = if high < f32::MAX { b.scalar(high) } else { String::new() };
    let inputs = [x, &low, &high];
    let count = inputs.iter().rposition(|name| !name.is_empty()).map_or(1, |last| last + 1);
    b.add("Clip", &inputs[..count], &[])
}

fn unary(b: &mut Builder<'_>, f: Unary, x: &str) -> String {
    match f {
        Unary::Activation(Activation::Identity) => b.add("Identity", &[x], &[]),
        Unary::Activation(activation) => activate(b, activation, x.into()),
        Unary::Neg => b.add("Neg", &[x], &[]),
        Unary::Exp => b.add("Exp", &[x], &[]),
        Unary::Sqrt => b.add("Sqrt", &[x], &[]),
        Unary::Recip => b.add("Reciprocal", &[x], &[]),
        Unary::AddScalar(number) => {
            let number = b.scalar(number);
            b.add("Add", &[x, &number], &[])
        }
        Unary::MulScalar(number) => {
            let number = b.scalar(number);
            b.add("Mul", &[x, &number], &[])
        }
        Unary::Clamp(low, high) => clip(b, low, high, x),
    }
}

fn binary(f: Binary) -> &'static str {
    match f {
        Binary::Add => "Add",
        Binary::Sub => "Sub",
        Binary::Mul => "Mul",
        Binary::Div => "Div",
    }
}

fn conv2d(b: &mut Builder<'_>, index: usize, conv: &Conv2d, inputs: &[&str]) -> String {
    let weight = b.graph.nodes[index].inputs[1];
    let kernel = &b.graph.shape(weight)[2..];
    // Both sides first, then both others: our order.
    let padding =
        if b.free.is_same(index) { ("auto_pad", Text("SAME_UPPER")) } else { ("pads", Ints(&conv.padding)) };
    let attributes = [
        ("dilations", Ints(&conv.dilation)),
        ("group", Int(conv.groups)),
        ("kernel_shape", Ints(kernel)),
        padding,
        ("strides", Ints(&conv.stride)),
    ];
    let count = 2 + usize::from(conv.bias);
    let mut y = b.add("Conv", &inputs[..count], &attributes);
    if let (true, Some(residual)) = (conv.residual, inputs.get(count)) {
        y = b.add("Add", &[&y, residual], &[]);
    }
    activate(b, conv.activation, y)
}

fn linear(b: &mut Builder<'_>, node: &Node, bias: bool, inputs: &[&str]) -> String {
    if b.graph.shape(node.inputs[0]).len() == 2 {
        return b.add("Gemm", inputs, &[("transB", Int(1))]);
    }
    // Gemm takes matrices only.
    let weight = b.add("Transpose", &[inputs[1]], &[("perm", Ints(&[1, 0]))]);
    let y = b.add("MatMul", &[inputs[0], &weight], &[]);
    if bias { b.add("Add", &[&y, inputs[2]], &[]) } else { y }
}

fn reshape(b: &mut Builder<'_>, node: &Node, shape: &[usize], x: &str) -> Result<String> {
    let (input, output) = (node.inputs[0], node.outputs[0]);
    let rank = b.graph.shape(input).len();
    let is_flat = shape.len() == 2 && b.is_batched(input);
    if is_flat && rank > 1 {
        return Ok(b.add("Flatten", &[x], &[("axis", Int(1))]));
    }
    let mut sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    // 0 keeps the input's size, -1 is what is left.
    if b.is_batched(input) {
        sizes[0] = 0;
    }
    let free: Vec<_> = (0..shape.len()).filter(|&axis| b.free.varies(output, axis)).collect();
    match free.as_slice() {
        [] => {}
        [one] => sizes[*one] = -1,
        _ => return Err(format!("the new shape {shape:?} has two sizes that depend on the image's")),
    }
    let sizes = b.ints(&sizes);
    Ok(b.add("Reshape", &[x, &sizes], &[]))
}

fn slice(b: &mut Builder<'_>, start: usize, end: usize, x: &str) -> String {
    let [start, end, axis] = [start, end, 1].map(|number| b.ints(&[number as i64]));
    b.add("Slice", &[x, &start, &end, &axis], &[])
}

fn pad(b: &mut Builder<'_>, [top, left, bottom, right]: Padding, mode: &str, x: &str) -> String {
    let pads = b.ints(&[0, 0, top as i64, left as i64, 0, 0, bottom as i64, right as i64]);
    b.add("Pad", &[x, &pads], &[("mode", Text(mode))])
}

/// The padding with which all windows of a ceil mode lie inside, so that no reader has to agree about the last one.
fn whole(b: &Builder<'_>, node: &Node, window: &Window) -> Padding {
    let mut padding = window.padding;
    for axis in 0..2 {
        let size = b.graph.shape(node.inputs[0])[2 + axis];
        let count = b.graph.shape(node.outputs[0])[2 + axis];
        let extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
        let reached = (count - 1) * window.stride[axis] + extent;
        padding[2 + axis] = padding[2 + axis].max(reached.saturating_sub(size + padding[axis]));
    }
    padding
}

/// The attributes of a pooling: at a free size, ONNX's own ceil mode.
fn pool(
    b: &mut Builder<'_>,
    node: &Node,
    op: &str,
    window: &Window,
    extra: &[(&'static str, usize)],
    x: &str,
) -> Result<String> {
    let is_free = b.free.varies(node.inputs[0], 2) || b.free.varies(node.inputs[0], 3);
    let keeps_ceil = window.ceil && is_free;
    if keeps_ceil
        && (0..2).any(|axis| window.padding[2 + axis] > 0 || window.kernel[axis] < window.stride[axis])
    {
        // Whether a window that starts in the last padding counts is where readers differ.
        return Err("a padded pooling in ceil mode means the same to all readers only at a fixed size".into());
    }
    let padding = if window.ceil && !keeps_ceil { whole(b, node, window) } else { window.padding };
    let mut attributes = vec![
        ("kernel_shape", Ints(&window.kernel)),
        ("pads", Ints(&padding)),
        ("strides", Ints(&window.stride)),
    ];
    if window.dilation != [1; 2] {
        attributes.push(("dilations", Ints(&window.dilation)));
    }
    if keeps_ceil {
        attributes.push(("ceil_mode", Int(1)));
    }
    attributes.extend(extra.iter().map(|&(name, value)| (name, Int(value))));
    Ok(b.add(op, &[x], &attributes))
}

fn max_pool(b: &mut Builder<'_>, node: &Node, window: &Window, x: &str) -> Result<String> {
    pool(b, node, "MaxPool", window, &[], x)
}

fn avg_pool(
    b: &mut Builder<'_>,
    node: &Node,
    window: &Window,
    count_padding: bool,
    x: &str,
) -> Result<String> {
    if window.dilation != [1; 2] && b.options.opset < 19 {
        return Err("a mean over a dilated window needs opset 19".into());
    }
    // What sticks out of the padding never counts; in ONNX all that is padding does.
    if count_padding && window.ceil && whole(b, node, window) != window.padding {
        return Err(
            "a mean that counts padding, with a last window that sticks out of it, is not in ONNX".into()
        );
    }
    let counts = count_padding && window.padding != [0; 4];
    pool(b, node, "AveragePool", window, if counts { &[("count_include_pad", 1)] } else { &[] }, x)
}

/// Means over the pixels first, so that the sum over the splits is one of few numbers.
fn radix_pool(b: &mut Builder<'_>, x: &str, radix: usize, channels: usize) -> String {
    let means = b.add("GlobalAveragePool", &[x], &[]);
    if radix == 1 {
        return means;
    }
    let split = (channels / radix) as i64;
    let shape = b.ints(&[0, radix as i64, split, 1]);
    let splits = b.add("Reshape", &[&means, &shape], &[]);
    let axis = b.ints(&[1]);
    let sum = b.add("ReduceSum", &[&splits, &axis], &[("keepdims", Int(0))]);
    let shape = b.ints(&[0, split, 1, 1]);
    b.add("Reshape", &[&sum, &shape], &[])
}

/// The logits are cardinality-major, the map's channels radix-major; softmax runs over the radix.
fn split_attention(
    b: &mut Builder<'_>,
    node: &Node,
    [radix, groups]: [usize; 2],
    inputs: &[&str],
) -> Result<String> {
    let (x, logits) = (inputs[0], inputs[1]);
    let all = channels(b, node.inputs[0])?;
    if radix == 1 {
        let weights = b.add("Sigmoid", &[logits], &[]);
        return Ok(b.add("Mul", &[x, &weights], &[]));
    }
    let split = all / radix;
    let shape = b.ints(&[0, groups as i64, radix as i64, (split / groups) as i64]);
    let mut weights = b.add("Reshape", &[logits, &shape], &[]);
    weights = b.add("Transpose", &[&weights], &[("perm", Ints(&[0, 2, 1, 3]))]);
    weights = b.add("Softmax", &[&weights], &[("axis", Int(1))]);
    let shape = b.ints(&[0, all as i64, 1, 1]);
    weights = b.add("Reshape", &[&weights, &shape], &[]);
    let weighted = b.add("Mul", &[x, &weights], &[]);
    // Four dimensions throughout: with a fifth, the map's two sizes could not both be free.
    let sizes = b.ints(&vec![split as i64; radix]);
    let splits = b.add_all("Split", &[&weighted, &sizes], &[("axis", Int(1))], radix);
    let mut rest = splits.iter();
    let first = rest.next().cloned().unwrap_or_default();
    Ok(rest.fold(first, |sum, split| b.add("Add", &[&sum, split], &[])))
}

fn blur_pool(b: &mut Builder<'_>, channels: usize, x: &str) -> String {
    let taps = [1.0, 2.0, 1.0];
    let filter: Vec<f32> = taps.iter().flat_map(|row| taps.map(|column| row * column / 16.0)).collect();
    let kernel = b.floats("blur_kernel", &[channels, 1, 3, 3], &filter.repeat(channels));
    let padded = pad(b, [1; 4], "reflect", x);
    let attributes = [
        ("dilations", Ints(&[1, 1])),
        ("group", Int(channels)),
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[0, 0, 0, 0])),
        ("strides", Ints(&[2, 2])),
    ];
    b.add("Conv", &[&padded, &kernel], &attributes)
}

/// ONNX has the operator, with our order of channels, but not every reader has it: at a fixed size it is written in
/// reshapes.
fn space_to_depth(b: &mut Builder<'_>, node: &Node, block: usize, x: &str) -> Result<String> {
    let input = node.inputs[0];
    if b.free.varies(input, 2) || b.free.varies(input, 3) {
        return Ok(b.add("SpaceToDepth", &[x], &[("blocksize", Int(block))]));
    }
    let &[_, c, h, w] = b.graph.shape(input) else { return Err("its input is no map".into()) };
    let [c, rows, columns, side] = [c, h / block, w / block, block].map(|size| size as i64);
    let shape = b.ints(&[0, c, rows, side, columns, side]);
    let blocks = b.add("Reshape", &[x, &shape], &[]);
    let blocks = b.add("Transpose", &[&blocks], &[("perm", Ints(&[0, 3, 5, 1, 2, 4]))]);
    let shape = b.ints(&[0, side * side * c, rows, columns]);
    Ok(b.add("Reshape", &[&blocks, &shape], &[]))
}
