//! Properties of the optimizer on random graphs.

use crate::check::difference;
use cardinal_engine::Activation;
use cardinal_engine::graph::{Binary, Conv2d, Drop, Graph, Op, Unary, ValueId, Window};
use cardinal_engine::passes::optimize;
use proptest::prelude::*;

/// Grows a graph node by node: each instruction is an operator, two choices and an operand.
struct Builder {
    graph: Graph,
    values: Vec<ValueId>,
}

type Instruction = [u8; 4];

const ACTIVATIONS: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu(0.25),
    Activation::LeakyRelu(1.0),
    Activation::Relu6,
    Activation::Sigmoid,
    Activation::Silu,
    Activation::HardSigmoid,
    Activation::HardSwish,
];

impl Builder {
    fn new() -> Self {
        let mut graph = Graph::new("random");
        let x = graph.input("x", [1, 4, 6, 5]);
        Self { graph, values: vec![x] }
    }

    /// The last value mostly, so that chains form, or an earlier one.
    fn operand(&self, choice: u8) -> ValueId {
        let count = self.values.len();
        let back = if choice < 160 { 0 } else { usize::from(choice) % count };
        self.values[count - 1 - back]
    }

    fn constant(&mut self, name: &str, shape: &[usize], low: f32, high: f32) -> ValueId {
        let count: usize = shape.iter().product();
        let seed = self.graph.values.len() as u32;
        let data: Vec<f32> = (0..count as u32)
            .map(|i| {
                ((i + 1).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 8) as f32
            })
            .map(|bits| low + (high - low) * bits / 16_777_216.0)
            .collect();
        self.graph.constant(format!("{name}{seed}"), shape, data).unwrap()
    }

    /// Adds a node, if the operator takes these inputs.
    fn push(&mut self, op: Op, inputs: &[ValueId]) {
        let name = format!("node{}", self.graph.nodes.len());
        if let Ok(value) = self.graph.push(name, op, inputs) {
            self.values.push(value);
        }
    }

    fn step(&mut self, [op, a, b, operand]: Instruction) {
        let x = self.operand(operand);
        let other = self.operand(b);
        let shape = self.graph.shape(x).to_vec();
        let &[_, c, h, w] = shape.as_slice() else { return self.step_vector(x, a, shape[1]) };
        match op % 20 {
            0..4 => self.conv(x, c, a, b),
            4 | 5 => self.norm(x, c, a),
            6 | 7 => {
                let activation = ACTIVATIONS[usize::from(a) % ACTIVATIONS.len()];
                self.push(Op::Unary(Unary::Activation(activation)), &[x]);
            }
            8 => self.scalar(x, a),
            9 => self.with_constant(x, c, a, b),
            10 | 11 => self
                .push(Op::Binary([Binary::Add, Binary::Sub, Binary::Mul][usize::from(a) % 3]), &[x, other]),
            12 => self.pool(x, [h, w], a, b),
            13 => self.push(if a < 128 { Op::GlobalAvgPool } else { Op::RadixPool { radix: 2 } }, &[x]),
            14 => {
                let parts: Vec<_> = [x, other, x].into_iter().take(1 + usize::from(a) % 3).collect();
                self.push(Op::Concat, &parts);
            }
            15 => {
                let start = usize::from(a) % c;
                self.push(Op::SliceChannels { start, end: start + 1 + usize::from(b) % (c - start) }, &[x]);
            }
            16 => self.push(Op::Pad([a, b, a / 2, b / 2].map(|side| usize::from(side) % 3)), &[x]),
            17 => self.attention(x, other, c, a),
            18 if a < 128 => self.push(Op::BlurPool, &[x]),
            _ if a >= 224 => {
                self.push(Op::Drop { what: Drop::Squares { side: 1 + usize::from(b) }, rate: 0.5 }, &[x]);
            }
            18 => self.push(Op::SpaceToDepth { block: 1 + usize::from(a) % 2 }, &[x]),
            _ if a < 64 => self.push(Op::Reshape { shape: vec![1, c * h, w, 1] }, &[x]),
            _ => self.push(Op::Reshape { shape: vec![1, c * h * w] }, &[x]),
        }
    }

    /// What is done to vectors `[n, k]`.
    fn step_vector(&mut self, x: ValueId, a: u8, k: usize) {
        match a % 4 {
            0 => self.push(Op::Reshape { shape: vec![1, k, 1, 1] }, &[x]),
            1 => self.push(Op::Unary(Unary::Activation(ACTIVATIONS[usize::from(a / 4) % 9])), &[x]),
            2 => {
                let vector = self.constant("vector", &[1, k], 0.5, 1.5);
                self.push(Op::Binary(if a < 128 { Binary::Mul } else { Binary::Add }), &[vector, x]);
            }
            _ => {
                let bound = 1.0 / (k as f32).sqrt();
                let (weight, bias) =
                    (self.constant("fc", &[4, k], -bound, bound), self.constant("b", &[4], -1.0, 1.0));
                self.push(Op::Linear { bias: true, activation: Activation::Identity }, &[x, weight, bias]);
            }
        }
    }

    fn conv(&mut self, x: ValueId, c: usize, a: u8, b: u8) {
        let kernel = if a % 2 == 1 { 3 } else { 1 };
        let groups = if a % 8 < 6 { 1 } else { c };
        let outputs = if b % 2 == 1 { 4 } else { c };
        let outputs = if groups == 1 { outputs } else { c };
        let bound = 1.0 / ((c / groups * kernel * kernel) as f32).sqrt();
        let mut inputs =
            vec![x, self.constant("weight", &[outputs, c / groups, kernel, kernel], -bound, bound)];
        let bias = b % 3 == 1;
        if bias {
            inputs.push(self.constant("bias", &[outputs], -1.0, 1.0));
        }
        let stride = [1 + usize::from(a) / 16 % 2; 2];
        let padding = if a / 32 % 2 == 1 { [0; 4] } else { [kernel / 2; 4] };
        self.push(Op::Conv2d(Conv2d { stride, padding, groups, bias, ..Conv2d::plain() }), &inputs);
    }

    fn norm(&mut self, x: ValueId, c: usize, a: u8) {
        let parameters = [(0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 1.5)];
        let parameters = parameters.map(|(low, high)| self.constant("norm", &[c], low, high));
        let slope = [1.0, 0.0, 0.25][usize::from(a) % 3];
        let inputs: Vec<_> = [x].into_iter().chain(parameters).collect();
        self.push(Op::ActivatedNorm { epsilon: 1e-5, slope }, &inputs);
    }

    fn scalar(&mut self, x: ValueId, a: u8) {
        let unary = [
            Unary::Neg,
            Unary::AddScalar(0.5),
            Unary::AddScalar(0.0),
            Unary::MulScalar(1.5),
            Unary::MulScalar(1.0),
            Unary::Clamp(0.0, 6.0),
            Unary::Clamp(0.0, f32::INFINITY),
        ];
        self.push(Op::Unary(unary[usize::from(a) % unary.len()]), &[x]);
    }

    fn with_constant(&mut self, x: ValueId, c: usize, a: u8, b: u8) {
        let vector = self.constant("vector", &[1, if a < 200 { c } else { 1 }, 1, 1], 0.5, 1.5);
        let op = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div][usize::from(a) % 4];
        let inputs = if b < 128 || op == Binary::Div { [x, vector] } else { [vector, x] };
        self.push(Op::Binary(op), &inputs);
    }

    fn pool(&mut self, x: ValueId, size: [usize; 2], a: u8, b: u8) {
        let side = 1 + usize::from(a) % 3;
        let kernel = if a > 220 { size } else { [side; 2] };
        let padding = if b % 2 == 1 && side == 3 { [1; 4] } else { [0; 4] };
        let stride = [1 + usize::from(b) / 2 % 2; 2];
        let window = Window { kernel, stride, padding, dilation: [1; 2], ceil: b % 8 == 7 };
        let count_padding = b % 16 < 8;
        self.push(if a % 2 == 1 { Op::MaxPool(window) } else { Op::AvgPool { window, count_padding } }, &[x]);
    }

    fn attention(&mut self, x: ValueId, source: ValueId, c: usize, a: u8) {
        let activation = Activation::Identity;
        if let Ok(logits) = self.graph.push("logits", Op::GlobalAvgPool, &[source]) {
            let radix = 1 + usize::from(a / 4) % 2;
            let sigmoid = Op::Unary(Unary::Activation(ACTIVATIONS[if a < 128 { 5 } else { 7 }]));
            match a % 4 {
                0 => self.push(
                    Op::SplitAttention { radix, cardinality: 1 + c / radix % 2, activation },
                    &[x, logits],
                ),
                1 => self.push(Op::Gate { hard: a < 128, residual: false, activation }, &[x, logits]),
                _ => {
                    let gate = self.graph.push("sigmoid", sigmoid, &[logits]).unwrap();
                    let inputs = if a % 4 == 2 { [x, gate] } else { [gate, x] };
                    self.push(Op::Binary(Binary::Mul), &inputs);
                }
            }
        }
    }
}

fn build(instructions: &[Instruction], extra: u8) -> Graph {
    let mut builder = Builder::new();
    instructions.iter().for_each(|&instruction| builder.step(instruction));
    let Builder { mut graph, values } = builder;
    graph.output(values[values.len() - 1]);
    // An output in the middle is in the way of fusions.
    let second = values[usize::from(extra) % values.len()];
    if extra < 128 && second != values[values.len() - 1] {
        graph.output(second);
    }
    graph
}

proptest! {
    #[test]
    fn results_stay_and_a_second_time_changes_nothing(
        instructions in proptest::collection::vec(any::<Instruction>(), 1..24),
        extra in any::<u8>(),
    ) {
        let before = build(&instructions, extra);
        prop_assert!(before.verify().is_ok());
        let after = optimize(before.clone()).unwrap().graph;
        // Results may cancel each other; rounding is relative to what they were before.
        let results = before.nodes.iter().flat_map(|node| &node.outputs);
        let values: Vec<_> = before.inputs.iter().chain(results).copied().collect();
        let error = difference(&before, &after, &values);
        prop_assert!(error <= 1e-5, "off by {error}\n{before}\n{after}");
        let text = after.to_text();
        prop_assert_eq!(optimize(after).unwrap().graph.to_text(), text);
    }
}
