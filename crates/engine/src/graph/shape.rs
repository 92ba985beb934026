//! The shapes of an operator's outputs.

use super::{Conv2d, Drop, Op, Padding, Window};

type Shapes = Result<Vec<Vec<usize>>, String>;

/// The output shapes of `op` on inputs of the shapes given, or why it does not take them. Never panics, whatever the
/// numbers: graphs come from files.
pub(super) fn infer(op: &Op, inputs: &[&[usize]]) -> Shapes {
    let one = |shape: Vec<usize>| Ok(vec![shape]);
    if let Some(shape) = inputs.iter().find(|shape| elements(shape).is_none()) {
        return Err(format!("{shape:?} has a size of zero, or too many elements or dimensions"));
    }
    let outputs = match op {
        Op::Conv2d(conv) => conv2d(conv, inputs),
        Op::Linear { bias, .. } => linear(*bias, inputs),
        Op::ActivatedNorm { .. } => {
            let [x, weight, bias, mean, var] = exactly(inputs)?;
            let [_, c, _, _] = map(x)?;
            if [weight, bias, mean, var].iter().any(|v| **v != [c]) {
                return Err(format!("weight, bias, mean and var must be [{c}]"));
            }
            one(x.to_vec())
        }
        Op::Unary(_) | Op::Drop { what: Drop::Elements | Drop::Images, .. } => {
            let [x] = exactly(inputs)?;
            one(x.to_vec())
        }
        Op::Drop { what: Drop::Squares { .. }, .. } => {
            let [x] = exactly(inputs)?;
            one(map(x)?.to_vec())
        }
        Op::Binary(_) => {
            let [a, b] = exactly(inputs)?;
            one(broadcast(a, b)?)
        }
        Op::MaxPool(window) | Op::AvgPool { window, .. } => {
            let [x] = exactly(inputs)?;
            let [n, c, h, w] = map(x)?;
            half_padded(window)?;
            let [h, w] = windows(window, [h, w])?;
            one(vec![n, c, h, w])
        }
        Op::GlobalAvgPool => {
            let [x] = exactly(inputs)?;
            let [n, c, _, _] = map(x)?;
            one(vec![n, c, 1, 1])
        }
        Op::Softmax => {
            let [x] = exactly(inputs)?;
            if x.len() < 2 {
                return Err(format!("{x:?} has no dimension 1"));
            }
            one(x.to_vec())
        }
        Op::Reshape { shape } => {
            let [x] = exactly(inputs)?;
            if elements(shape) != elements(x) {
                return Err(format!("{x:?} has other elements than {shape:?}"));
            }
            one(shape.clone())
        }
        Op::Permute { order } => {
            let [x] = exactly(inputs)?;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..x.len()) {
                return Err(format!("{order:?} is no order of the dimensions of {x:?}"));
            }
            one(order.iter().map(|&i| x[i]).collect())
        }
        Op::Concat => concat(inputs),
        Op::SliceChannels { start, end } => {
            let [x] = exactly(inputs)?;
            let [n, c, h, w] = map(x)?;
            if start >= end || *end > c {
                return Err(format!("there are no channels {start}..{end} of {c}"));
            }
            one(vec![n, end - start, h, w])
        }
        Op::Pad(padding) => {
            let [x] = exactly(inputs)?;
            let [n, c, h, w] = map(x)?;
            let [h, w] = padded(*padding, [h, w])?;
            one(vec![n, c, h, w])
        }
        Op::RadixPool { radix } => {
            let [x] = exactly(inputs)?;
            let [n, c, _, _] = map(x)?;
            one(vec![n, split(c, *radix)?, 1, 1])
        }
        Op::SplitAttention { radix, cardinality, .. } => {
            let [x, logits] = exactly(inputs)?;
            let [n, c, h, w] = map(x)?;
            let split = split(c, *radix)?;
            if *logits != [n, c, 1, 1] {
                return Err(format!("logits {logits:?} for a map of {c} channels"));
            }
            if *cardinality == 0 || !split.is_multiple_of(*cardinality) {
                return Err(format!("{split} channels in {cardinality} groups"));
            }
            one(vec![n, split, h, w])
        }
        Op::Gate { residual, .. } => gate(*residual, inputs),
        Op::BlurPool => {
            let [x] = exactly(inputs)?;
            let [n, c, h, w] = map(x)?;
            if h < 2 || w < 2 {
                return Err(format!("a map of {h}x{w} cannot be reflected"));
            }
            one(vec![n, c, h.div_ceil(2), w.div_ceil(2)])
        }
        Op::SpaceToDepth { block } => {
            let [x] = exactly(inputs)?;
            let [n, c, h, w] = map(x)?;
            let size = block.checked_mul(*block).and_then(|square| square.checked_mul(c));
            match size {
                Some(channels) if *block > 0 && h % block == 0 && w % block == 0 => {
                    one(vec![n, channels, h / block, w / block])
                }
                _ => Err(format!("{h}x{w} pixels in blocks of {block}")),
            }
        }
    }?;
    match outputs.iter().find(|shape| elements(shape).is_none()) {
        Some(shape) => {
            Err(format!("the output {shape:?} has a size of zero, or too many elements or dimensions"))
        }
        None => Ok(outputs),
    }
}

/// Dimensions, at most: graphs come from files, which must not make long shapes multiply.
const MAX_RANK: usize = 8;

/// Elements of one image's map, at most (8 GiB of `f32`): a file must not ask for more memory than any network needs.
const MAX_ELEMENTS: usize = 1 << 31;

/// The number of elements: none if a size is zero, or there are too many of them.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    (count > 0 && count <= MAX_ELEMENTS && shape.len() <= MAX_RANK).then_some(count)
}

fn exactly<'a, const N: usize>(inputs: &[&'a [usize]]) -> Result<[&'a [usize]; N], String> {
    inputs.try_into().map_err(|_| format!("{} inputs instead of {N}", inputs.len()))
}

fn map(shape: &[usize]) -> Result<[usize; 4], String> {
    shape.try_into().map_err(|_| format!("{shape:?} is not a map [n, c, h, w]"))
}

fn split(channels: usize, radix: usize) -> Result<usize, String> {
    if radix == 0 || !channels.is_multiple_of(radix) {
        return Err(format!("{channels} channels in {radix} splits"));
    }
    Ok(channels / radix)
}

fn padded(padding: Padding, [h, w]: [usize; 2]) -> Result<[usize; 2], String> {
    let [top, left, bottom, right] = padding;
    let sum = |size: usize, a: usize, b: usize| size.checked_add(a)?.checked_add(b);
    match (sum(h, top, bottom), sum(w, left, right)) {
        // Kernels lay the padding out in memory.
        (Some(h), Some(w)) if elements(&[h, w]).is_some() => Ok([h, w]),
        _ => Err(format!("padding {padding:?}")),
    }
}

/// As in PyTorch, a pooling window may stick out of the map by half at most, so that none lies in the padding alone.
fn half_padded(window: &Window) -> Result<(), String> {
    let Window { kernel, padding, dilation, .. } = window;
    let fits = |side: usize| {
        let axis = side % 2;
        let extent = kernel[axis].saturating_sub(1).saturating_mul(dilation[axis]).saturating_add(1);
        padding[side] <= extent / 2
    };
    if (0..4).all(fits) { Ok(()) } else { Err(format!("padding {padding:?} for a window of {kernel:?}")) }
}

/// How many windows fit on each axis.
fn windows(window: &Window, size: [usize; 2]) -> Result<[usize; 2], String> {
    let Window { kernel, stride, padding, dilation, ceil } = window;
    let space = padded(*padding, size)?;
    let mut counts = [0; 2];
    for axis in 0..2 {
        let (k, s, d) = (kernel[axis], stride[axis], dilation[axis]);
        let extent = k.checked_sub(1).and_then(|steps| steps.checked_mul(d)).and_then(|e| e.checked_add(1));
        let Some(free) = extent.filter(|_| s > 0 && d > 0).and_then(|extent| space[axis].checked_sub(extent))
        else {
            return Err(format!("a window of {kernel:?} in {} x {} pixels", space[0], space[1]));
        };
        counts[axis] = free / s + 1;
        // As in PyTorch, a window that only ceil mode keeps must start inside the map or the padding before it.
        let before = padding[axis];
        if *ceil && free % s > 0 && counts[axis].saturating_mul(s) < size[axis] + before {
            counts[axis] += 1;
        }
    }
    Ok(counts)
}

fn conv2d(conv: &Conv2d, inputs: &[&[usize]]) -> Shapes {
    let count = 2 + usize::from(conv.bias) + usize::from(conv.residual);
    if inputs.len() != count {
        return Err(format!("{} inputs instead of {count}", inputs.len()));
    }
    let [n, c, h, w] = map(inputs[0])?;
    let [m, k, kh, kw] = map(inputs[1])?;
    let groups = conv.groups;
    if groups == 0 || !m.is_multiple_of(groups) || k.checked_mul(groups) != Some(c) {
        return Err(format!("weight {:?} in {groups} groups for {c} channels", inputs[1]));
    }
    let window = Window {
        kernel: [kh, kw],
        stride: conv.stride,
        padding: conv.padding,
        dilation: conv.dilation,
        ceil: false,
    };
    let [h, w] = windows(&window, [h, w])?;
    let output = vec![n, m, h, w];
    if conv.bias && *inputs[2] != [m] {
        return Err(format!("bias {:?} for {m} channels", inputs[2]));
    }
    if conv.residual && inputs[count - 1] != output {
        return Err(format!("residual {:?} for {output:?}", inputs[count - 1]));
    }
    match conv.pool {
        None => Ok(vec![output]),
        Some(radix) => Ok(vec![output, vec![n, split(m, radix)?, 1, 1]]),
    }
}

fn linear(bias: bool, inputs: &[&[usize]]) -> Shapes {
    let count = 2 + usize::from(bias);
    if inputs.len() != count {
        return Err(format!("{} inputs instead of {count}", inputs.len()));
    }
    let (x, weight) = (inputs[0], inputs[1]);
    match (x, weight) {
        ([batch @ .., k], [m, columns]) if k == columns => {
            if bias && *inputs[2] != [*m] {
                return Err(format!("bias {:?} for {m} outputs", inputs[2]));
            }
            Ok(vec![batch.iter().chain([m]).copied().collect()])
        }
        _ => Err(format!("weight {weight:?} for {x:?}")),
    }
}

fn gate(residual: bool, inputs: &[&[usize]]) -> Shapes {
    let count = 2 + usize::from(residual);
    if inputs.len() != count {
        return Err(format!("{} inputs instead of {count}", inputs.len()));
    }
    let [n, c, _, _] = map(inputs[0])?;
    if *inputs[1] != [n, c, 1, 1] {
        return Err(format!("logits {:?} for {c} channels", inputs[1]));
    }
    if residual && inputs[2] != inputs[0] {
        return Err(format!("residual {:?} for {:?}", inputs[2], inputs[0]));
    }
    Ok(vec![inputs[0].to_vec()])
}

fn concat(inputs: &[&[usize]]) -> Shapes {
    let first = inputs.first().ok_or("no inputs")?;
    let [n, _, h, w] = map(first)?;
    let mut channels = 0_usize;
    for input in inputs {
        let [other_n, c, other_h, other_w] = map(input)?;
        if [other_n, other_h, other_w] != [n, h, w] {
            return Err(format!("{input:?} beside {first:?}"));
        }
        channels = channels.checked_add(c).ok_or("too many channels")?;
    }
    Ok(vec![vec![n, channels, h, w]])
}

fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let fit = |(&a, &b): (&usize, &usize)| match (a, b) {
        (a, b) if a == b => Some(a),
        (1, size) | (size, 1) => Some(size),
        _ => None,
    };
    (a.len() == b.len())
        .then(|| a.iter().zip(b).map(fit).collect())
        .flatten()
        .ok_or_else(|| format!("{a:?} and {b:?} do not broadcast"))
}
