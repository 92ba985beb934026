//! What has windows, channels or pixels.

use super::{Call, Result, Tensor};
use cardinal_engine::graph::{Conv2d, Graph, Op};
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa};
use std::sync::Arc;

/// Rows and columns of a window: its sizes, steps, and the zeros around the map (top, left, bottom, right).
struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: [usize; 4],
}

impl Window {
    /// From one tap of the first window to the last.
    fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// How many windows there are on an axis of `size`.
    fn count(&self, axis: usize, size: usize, ceil: bool) -> Result<usize> {
        let space = size + self.pads[axis] + self.pads[2 + axis];
        let free = space.checked_sub(self.extent(axis)).ok_or("a window larger than the map")?;
        let stride = self.stride[axis];
        let mut count = free / stride + 1;
        // A window that starts in the padding after the map is none.
        if ceil && !free.is_multiple_of(stride) && count * stride < size + self.pads[axis] {
            count += 1;
        }
        Ok(count)
    }
}

impl Call<'_> {
    fn window(&self, kernel: [usize; 2], size: [usize; 2]) -> Result<Window> {
        let (stride, dilation) = (self.pair("strides")?, self.pair("dilations")?);
        let mut window = Window { kernel, stride, dilation, pads: [0; 4] };
        match self.text("auto_pad", "NOTSET").as_str() {
            "NOTSET" => {
                if let Some(pads) = self.attribute("pads") {
                    let pads =
                        pads.ints.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
                    window.pads = pads.and_then(|pads| pads.try_into().ok()).ok_or("its pads")?;
                }
            }
            "SAME_UPPER" => {
                for axis in 0..2 {
                    let last = (size[axis].div_ceil(stride[axis]) - 1) * stride[axis];
                    let total = (last + window.extent(axis)).saturating_sub(size[axis]);
                    window.pads[axis] = total / 2;
                    window.pads[2 + axis] = total - total / 2;
                }
            }
            other => return Err(format!("the padding `{other}`")),
        }
        Ok(window)
    }

    pub(super) fn conv(&self) -> Result<Tensor> {
        let (x, weight) = (self.input(0)?, self.input(1)?);
        let ([n, c, h, w], [_, _, rows, columns]) = (x.map_shape()?, weight.map_shape()?);
        if self.pair("kernel_shape")? != [rows, columns] {
            return Err("its kernel_shape is not that of its weight".into());
        }
        let Window { stride, dilation, pads, .. } = self.window([rows, columns], [h, w])?;
        let bias = self.inputs.get(2).and_then(|bias| bias.as_deref());
        let groups = usize::try_from(self.int("group", 1)).unwrap_or(0);
        let conv =
            Conv2d { stride, padding: pads, dilation, groups, bias: bias.is_some(), ..Conv2d::plain() };
        self.engine(Op::Conv2d(conv), [n, c, h, w].as_slice(), [Some(weight), bias])
    }

    pub(super) fn gemm(&self) -> Result<Tensor> {
        if self.int("transB", 0) != 1 || self.int("transA", 0) != 0 {
            return Err("another Gemm than x times the transpose of the weight".into());
        }
        let bias = self.inputs.get(2).and_then(|bias| bias.as_deref());
        let op = Op::Linear { bias: bias.is_some(), activation: cardinal_engine::Activation::Identity };
        self.engine(op, &self.input(0)?.shape, [Some(self.input(1)?), bias])
    }

    pub(super) fn matmul(&self) -> Result<Tensor> {
        let (x, weight) = (self.input(0)?, self.input(1)?);
        let (&[k, m], Some(&last)) = (weight.shape.as_slice(), x.shape.last()) else {
            return Err(format!("the product of {:?} and {:?}", x.shape, weight.shape));
        };
        if last != k {
            return Err(format!("the product of {:?} and {:?}", x.shape, weight.shape));
        }
        let weight = weight.floats()?;
        let column = |row: &[f32], j: usize| -> f64 {
            row.iter().enumerate().map(|(i, &x)| f64::from(x) * f64::from(weight[i * m + j])).sum()
        };
        let rows = x.floats()?.chunks_exact(k);
        let data = rows.flat_map(|row| (0..m).map(move |j| column(row, j) as f32)).collect();
        Tensor::new([&x.shape[..x.shape.len() - 1], &[m]].concat(), data)
    }

    /// One operator with constants, compiled.
    fn engine(&self, op: Op, shape: &[usize], constants: [Option<&Tensor>; 2]) -> Result<Tensor> {
        let text = |error: cardinal_engine::EngineError| error.to_string();
        let batch = shape[0];
        let mut graph = Graph::new("");
        let one = [&[1], &shape[1..]].concat();
        let mut inputs = vec![graph.input("x", one)];
        for tensor in constants.into_iter().flatten() {
            inputs.push(graph.constant("", tensor.shape.clone(), tensor.floats()?.to_vec()).map_err(text)?);
        }
        let y = graph.push("", op, &inputs).map_err(text)?;
        graph.output(y);
        let shape = [&[batch], &graph.shape(y)[1..]].concat();
        let options = Options { batch, dtype: DType::F32, threads: self.threads, isa: Isa::best() };
        let plan = Plan::new(graph, &options).map_err(text)?;
        let mut session = Session::new(Arc::new(plan), false);
        let outputs = session.run(&[self.input(0)?.floats()?]).map_err(text)?;
        Tensor::new(shape, outputs.get(0).to_vec())
    }

    pub(super) fn batch_norm(&self) -> Result<Tensor> {
        let x = self.input(0)?;
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| self.input(i).and_then(|input| input.floats()));
        let (scale, bias, mean, var) = (scale?, bias?, mean?, var?);
        let [_, c, h, w] = x.map_shape()?;
        if [scale, bias, mean, var].iter().any(|numbers| numbers.len() != c) {
            return Err(format!("its parameters are not for {c} channels"));
        }
        let epsilon = self.float("epsilon", 1e-5);
        let y = |(i, &x): (usize, &f32)| {
            let c = i / (h * w) % c;
            let [scale, bias, mean, var] = [scale[c], bias[c], mean[c], var[c]].map(f64::from);
            ((f64::from(x) - mean) / (var + epsilon).sqrt() * scale + bias) as f32
        };
        Tensor::new(x.shape.clone(), x.floats()?.iter().enumerate().map(y).collect())
    }

    pub(super) fn max_pool(&self) -> Result<Tensor> {
        self.pool(|taps, _| taps.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    pub(super) fn average_pool(&self) -> Result<Tensor> {
        let counts_all = self.int("count_include_pad", 0) != 0;
        self.pool(|taps, padded| {
            let sum: f64 = taps.iter().copied().map(f64::from).sum();
            (sum / if counts_all { padded } else { taps.len() } as f64) as f32
        })
    }

    /// `reduce` gets the taps inside the map, and how many are inside the map or its padding.
    fn pool(&self, reduce: impl Fn(&[f32], usize) -> f32) -> Result<Tensor> {
        let x = self.input(0)?;
        let [n, c, h, w] = x.map_shape()?;
        let window = self.window(self.pair("kernel_shape")?, [h, w])?;
        let ceil = self.int("ceil_mode", 0) != 0;
        let (rows, columns) = (window.count(0, h, ceil)?, window.count(1, w, ceil)?);
        let [top, left, bottom, right] = window.pads;
        let mut data = Vec::with_capacity(n * c * rows * columns);
        let mut taps = Vec::new();
        for plane in x.floats()?.chunks_exact(h * w) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                taps.clear();
                let mut padded = 0;
                for (i, j) in (0..window.kernel[0]).flat_map(|i| (0..window.kernel[1]).map(move |j| (i, j))) {
                    let y = row * window.stride[0] + i * window.dilation[0];
                    let x = column * window.stride[1] + j * window.dilation[1];
                    padded += usize::from(y < top + h + bottom && x < left + w + right);
                    if (top..top + h).contains(&y) && (left..left + w).contains(&x) {
                        taps.push(plane[(y - top) * w + x - left]);
                    }
                }
                data.push(reduce(&taps, padded));
            }
        }
        Tensor::new([n, c, rows, columns], data)
    }
}

impl Tensor {
    pub(super) fn global_mean(&self) -> Result<Self> {
        let [n, c, h, w] = self.map_shape()?;
        let mean =
            |plane: &[f32]| (plane.iter().copied().map(f64::from).sum::<f64>() / (h * w) as f64) as f32;
        Self::new([n, c, 1, 1], self.floats()?.chunks_exact(h * w).map(mean).collect())
    }

    /// Pads the two last axes of a map with zeros or its reflection.
    pub(super) fn pad(&self, pads: &[i64], mode: &str) -> Result<Self> {
        let [n, c, h, w] = self.map_shape()?;
        let &[0, 0, top, left, 0, 0, bottom, right] = pads else {
            return Err(format!("the padding {pads:?}"));
        };
        let from = |position: usize, before: i64, size: usize| -> Option<usize> {
            let (position, last) = (position as i64 - before, size as i64 - 1);
            match mode {
                "reflect" if position < 0 => usize::try_from(-position).ok(),
                "reflect" if position > last => usize::try_from(2 * last - position).ok(),
                _ => usize::try_from(position).ok().filter(|&position| position < size),
            }
        };
        let grown =
            |size: usize, a: i64, b: i64| usize::try_from(size as i64 + a + b).map_err(|_| "a negative size");
        let (rows, columns) = (grown(h, top, bottom)?, grown(w, left, right)?);
        if !matches!(mode, "constant" | "reflect") {
            return Err(format!("the mode `{mode}`"));
        }
        let mut data = Vec::with_capacity(n * c * rows * columns);
        for plane in self.floats()?.chunks_exact(h * w) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let place = from(row, top, h).zip(from(column, left, w));
                data.push(place.map_or(0.0, |(y, x)| plane.get(y * w + x).copied().unwrap_or(0.0)));
            }
        }
        Self::new([n, c, rows, columns], data)
    }

    /// By the specification: reshape to blocks, then `[0, 3, 5, 1, 2, 4]`.
    pub(super) fn space_to_depth(&self, block: usize) -> Result<Self> {
        let [n, c, h, w] = self.map_shape()?;
        if block == 0 || h % block > 0 || w % block > 0 {
            return Err(format!("{h}x{w} pixels in blocks of {block}"));
        }
        let sizes = [n, c, h / block, block, w / block, block].map(|size| size as i64);
        let blocks = self.reshape(&sizes)?.transpose(&[0, 3, 5, 1, 2, 4])?;
        blocks.reshape(&[n, block * block * c, h / block, w / block].map(|size| size as i64))
    }
}
