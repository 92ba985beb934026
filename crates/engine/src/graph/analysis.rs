//! What a graph costs: parameters, multiply-adds, operations and activations, node by node, for one image.

use super::{Batch, Graph, Node, Op, Unary, ValueId};
use cardinal_kernels::{Activation, DType};

/// What a node, or a whole graph, costs for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Numbers in constants that training would change. A constant that several nodes read counts for the first.
    pub parameters: u64,
    /// Multiply-adds of convolutions and linear layers; other operators count none, as is usual.
    pub macs: u64,
    /// Floating-point operations of every operator: two for a multiply-add, one for any other step of arithmetic,
    /// four for an exponential function.
    pub flops: u64,
    /// Bytes of all results.
    pub activation_bytes: u64,
    /// Bytes of all constants and inputs that are read, and of all results: what would go through the memory bus if
    /// nothing stayed in a cache.
    pub traffic_bytes: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.parameters, other.parameters);
        sum(&mut self.macs, other.macs);
        sum(&mut self.flops, other.flops);
        sum(&mut self.activation_bytes, other.activation_bytes);
        sum(&mut self.traffic_bytes, other.traffic_bytes);
    }
}

/// One node in a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The module path; may be empty.
    pub path: String,
    /// The operator and its key attributes, such as `conv2d 3×3 · stride 2 · relu`.
    pub operator: String,
    /// The first result's sizes.
    pub shape: Vec<usize>,
    /// What it costs.
    pub cost: Cost,
}

/// What a graph costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// The nodes in order.
    pub rows: Vec<Row>,
    /// Their sum.
    pub total: Cost,
    /// Bytes of the results that are needed at once, at the worst point: no plan can do with less, unless it computes
    /// several nodes together.
    pub live_bytes: u64,
    /// How results and constants were counted.
    pub dtype: DType,
    /// The graph's own batch; costs are for one image all the same.
    pub batch: Batch,
}

impl Graph {
    /// Counts what the graph costs with its numbers in `dtype`.
    #[must_use]
    pub fn analyze(&self, dtype: DType) -> Analysis {
        let mut counted = vec![false; self.values.len()];
        let mut total = Cost::default();
        let mut rows = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let cost = self.cost(node, dtype, &mut counted);
            total.add(cost);
            let shape = node.outputs.first().map(|&id| self.sizes(id).to_vec()).unwrap_or_default();
            rows.push(Row { path: node.name.clone(), operator: self.describe(node), shape, cost });
        }
        Analysis { rows, total, live_bytes: self.live_bytes(dtype), dtype, batch: self.batch }
    }

    /// The sizes of a value, if there is one: a graph that is analysed need not be verified.
    fn sizes(&self, id: ValueId) -> &[usize] {
        self.values.get(id.0).map_or(&[], |value| &value.shape)
    }

    fn elements(&self, id: ValueId) -> u64 {
        self.sizes(id).iter().fold(1, |product, &size| product.saturating_mul(size as u64))
    }

    fn cost(&self, node: &Node, dtype: DType, counted: &mut [bool]) -> Cost {
        let results: u64 = node.outputs.iter().map(|&id| self.elements(id)).sum();
        let read: u64 = node.inputs.iter().map(|&id| self.elements(id)).sum();
        let mut parameters = 0;
        for (place, &id) in node.inputs.iter().enumerate() {
            let Some(value) = self.values.get(id.0) else { continue };
            // Running statistics are not trained.
            let trained = !matches!(node.op, Op::ActivatedNorm { .. }) || place < 3;
            if value.constant().is_some() && trained && !std::mem::replace(&mut counted[id.0], true) {
                parameters += self.elements(id);
            }
        }
        let (macs, steps) = self.operations(node);
        let bytes = dtype.bytes() as u64;
        Cost {
            parameters,
            macs,
            flops: macs.saturating_mul(2).saturating_add(steps),
            activation_bytes: results.saturating_mul(bytes),
            traffic_bytes: results.saturating_add(read).saturating_mul(bytes),
        }
    }

    /// Multiply-adds, and other steps of arithmetic.
    fn operations(&self, node: &Node) -> (u64, u64) {
        let input = |place: usize| node.inputs.get(place).copied();
        let read = input(0).map_or(0, |id| self.elements(id));
        let written = node.outputs.first().map_or(0, |&id| self.elements(id));
        let weights = || input(1).map_or(0, |id| self.sizes(id).iter().skip(1).map(|&s| s as u64).product());
        let per_result = |steps: u64| (0, written.saturating_mul(steps));
        match &node.op {
            Op::Conv2d(conv) => {
                let steps = u64::from(conv.bias) + u64::from(conv.residual) + u64::from(conv.pool.is_some());
                let steps = steps + activation_steps(conv.activation);
                (written.saturating_mul(weights()), written.saturating_mul(steps))
            }
            Op::Linear { bias, activation } => {
                let steps = u64::from(*bias) + activation_steps(*activation);
                (written.saturating_mul(weights()), written.saturating_mul(steps))
            }
            Op::ActivatedNorm { slope, .. } => per_result(if *slope == 1.0 { 2 } else { 4 }),
            Op::Unary(unary) => per_result(match unary {
                Unary::Activation(activation) => activation_steps(*activation),
                Unary::Exp => 4,
                Unary::Clamp(..) => 2,
                Unary::Neg | Unary::Sqrt | Unary::Recip | Unary::AddScalar(_) | Unary::MulScalar(_) => 1,
            }),
            Op::Binary(_) => per_result(1),
            Op::MaxPool(window) | Op::AvgPool { window, .. } => {
                per_result((window.kernel[0] as u64).saturating_mul(window.kernel[1] as u64))
            }
            Op::GlobalAvgPool | Op::RadixPool { .. } => (0, read),
            Op::Softmax => per_result(7),
            // A multiplication and an addition for each split.
            Op::SplitAttention { activation, .. } => {
                (0, (2 * read).saturating_add(written * activation_steps(*activation)))
            }
            Op::Gate { residual, activation, .. } => {
                per_result(1 + u64::from(*residual) + activation_steps(*activation))
            }
            // Two passes of three taps.
            Op::BlurPool => per_result(2 * 5),
            Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Concat
            | Op::SliceChannels { .. }
            | Op::Pad(_)
            | Op::SpaceToDepth { .. }
            | Op::Drop { .. } => (0, 0),
        }
    }

    /// The largest sum of results that are needed at the same time.
    fn live_bytes(&self, dtype: DType) -> u64 {
        let mut last_use = vec![0; self.values.len()];
        let mut see = |id: &ValueId, place: usize| {
            if let Some(last) = last_use.get_mut(id.0) {
                *last = place;
            }
        };
        for (place, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().chain(&node.outputs).for_each(|id| see(id, place));
        }
        self.outputs.iter().for_each(|id| see(id, self.nodes.len()));

        let variable = |id: &&ValueId| self.values.get(id.0).is_some_and(|value| value.constant().is_none());
        let mut ends = vec![0_u64; self.nodes.len() + 1];
        let (mut live, mut peak) = (0_u64, 0_u64);
        for id in self.inputs.iter().filter(variable) {
            live = live.saturating_add(self.elements(*id));
            ends[last_use[id.0]] += self.elements(*id);
        }
        for (place, node) in self.nodes.iter().enumerate() {
            for id in node.outputs.iter().filter(variable) {
                live = live.saturating_add(self.elements(*id));
                ends[last_use[id.0]] = ends[last_use[id.0]].saturating_add(self.elements(*id));
            }
            peak = peak.max(live);
            live = live.saturating_sub(ends[place]);
        }
        peak.saturating_mul(dtype.bytes() as u64)
    }

    /// `conv2d 3×3 · stride 2 · relu`: the operator with the attributes that tell it from others in a table.
    #[must_use]
    pub fn describe(&self, node: &Node) -> String {
        let mut text = node.op.name().to_owned();
        if let (Op::Conv2d(_), Some(&[_, _, h, w])) = (&node.op, node.inputs.get(1).map(|&id| self.sizes(id)))
        {
            text += &format!(" {h}×{w}");
        }
        for (key, value) in super::text::attributes(&node.op) {
            match key {
                // They follow from the sizes, or say nothing about what is computed.
                "padding" | "epsilon" | "shape" => {}
                "slope" if value == "0" => text += " · relu",
                "slope" => text += &format!(" · leaky_relu({value})"),
                "activation" => text += &format!(" · {value}"),
                "kernel" if !value.starts_with('[') => text += &format!(" {value}×{value}"),
                _ if value.is_empty() => text += &format!(" · {key}"),
                _ => text += &format!(" · {key} {value}"),
            }
        }
        if matches!(&node.op, Op::Conv2d(conv) if conv.residual)
            || matches!(node.op, Op::Gate { residual: true, .. })
        {
            text += " · + residual";
        }
        text
    }
}

fn activation_steps(activation: Activation) -> u64 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::LeakyRelu(_) | Activation::Relu6 => 2,
        Activation::Sigmoid => 6,
        Activation::Silu => 7,
        Activation::HardSigmoid => 4,
        Activation::HardSwish => 5,
    }
}
