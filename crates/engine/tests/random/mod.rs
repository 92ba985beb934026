//! Random graphs with every operator and attribute.

use cardinal_engine::Activation;
use cardinal_engine::graph::{Batch, Binary, Conv2d, Drop, Graph, Op, Unary, ValueId, Window};

/// Choices that follow from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn activation(&mut self) -> Activation {
        use Activation::{HardSigmoid, HardSwish, Identity, LeakyRelu, Relu, Relu6, Sigmoid, Silu};
        let slope = self.float().abs();
        self.pick(&[Identity, Identity, Relu, LeakyRelu(slope), Relu6, Sigmoid, Silu, HardSigmoid, HardSwish])
    }

    fn window(&mut self) -> Window {
        Window {
            kernel: [1 + self.below(3), 1 + self.below(3)],
            stride: [1 + self.below(2), 1 + self.below(2)],
            padding: [self.below(2), self.below(2), self.below(2), self.below(2)],
            dilation: [1 + self.below(2), 1],
            ceil: self.flag(),
        }
    }

    fn name(&mut self) -> String {
        let odd = [
            "",
            "layer1.0.conv1",
            "head",
            "7",
            "a b",
            "quote\"d\\",
            "line\nbreak",
            "größe",
            "#",
            "-> [1]",
            "%x",
        ];
        self.pick(&odd).to_owned()
    }
}

/// A graph of about `count` nodes, verified. Dead nodes and odd names are among them.
pub(crate) fn graph(seed: u64, count: usize) -> Graph {
    let mut dice = Dice(seed);
    let mut graph = Graph::new(dice.name());
    graph.batch = if dice.flag() { Batch::Free } else { Batch::Fixed(1 + dice.below(4)) };
    let side = 4 + dice.below(4);
    let x = graph.input(dice.name(), [1, 1 + dice.below(4), side, 3 + dice.below(5)]);
    let mut values = vec![x];
    while values.len() < count {
        let before = graph.clone();
        let mut op = random_op(&mut dice);
        let inputs = inputs(&mut dice, &mut graph, &values, &op);
        if let Op::Reshape { shape } = &mut op {
            *shape = vec![1, graph[inputs[0]].elements()];
        }
        match graph.push_all(dice.name(), op, &inputs) {
            // What depends on constants alone is no input to others here: few of them could take it.
            Ok(outputs) if inputs.iter().any(|id| graph.batched()[id.0]) => values.extend(outputs),
            Ok(_) => {}
            Err(_) => graph = before,
        }
    }
    graph.output(dice.pick(&values));
    graph.output(values[values.len() - 1]);
    let named = dice.pick(&values[1..]);
    graph.values[named.0].name = "lo gits".into();
    graph.verify().unwrap();
    graph
}

fn random_op(dice: &mut Dice) -> Op {
    match dice.below(21) {
        0..4 => Op::Conv2d(Conv2d {
            stride: [1 + dice.below(2), 1 + dice.below(2)],
            padding: [dice.below(3), dice.below(3), dice.below(2), dice.below(2)],
            dilation: [1, 1 + dice.below(2)],
            groups: 1 + dice.below(2),
            bias: dice.flag(),
            residual: dice.below(4) == 0,
            activation: dice.activation(),
            pool: dice.pick(&[None, Some(1), Some(2)]),
        }),
        4 => Op::Linear { bias: dice.flag(), activation: dice.activation() },
        5 => {
            Op::ActivatedNorm { epsilon: dice.pick(&[1e-5, 0.001, 0.0]), slope: dice.pick(&[1.0, 0.0, 0.01]) }
        }
        6 => {
            let number = dice.float();
            let activation = dice.activation();
            Op::Unary(dice.pick(&[
                Unary::Activation(activation),
                Unary::Neg,
                Unary::Exp,
                Unary::Sqrt,
                Unary::Recip,
                Unary::AddScalar(number),
                Unary::MulScalar(number * 1e-20),
                Unary::Clamp(number, f32::INFINITY),
            ]))
        }
        7 => Op::Binary(dice.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Div])),
        8 => Op::MaxPool(dice.window()),
        9 => Op::AvgPool { window: dice.window(), count_padding: dice.flag() },
        10 => match dice.below(3) {
            0 => Op::GlobalAvgPool,
            1 => Op::Softmax,
            _ => Op::BlurPool,
        },
        11 => Op::Reshape { shape: Vec::new() },
        12 => Op::Concat,
        13 => Op::SliceChannels { start: dice.below(2), end: 2 + dice.below(3) },
        14 => Op::Pad([dice.below(3), dice.below(2), 1, 1]),
        15 => Op::RadixPool { radix: 1 + dice.below(2) },
        16 => Op::SplitAttention {
            radix: 1 + dice.below(2),
            cardinality: 1 + dice.below(2),
            activation: dice.activation(),
        },
        17 => Op::Gate { hard: dice.flag(), residual: dice.flag(), activation: dice.activation() },
        18 => Op::SpaceToDepth { block: 1 + dice.below(2) },
        19 => Op::Drop {
            what: dice.pick(&[Drop::Elements, Drop::Images, Drop::Squares { side: 3 }]),
            rate: dice.pick(&[0.0, 0.25, 0.9]),
        },
        _ => Op::Permute { order: vec![1, 0] },
    }
}

/// Inputs that `op` may take; whether it does is left to the graph.
fn inputs(dice: &mut Dice, graph: &mut Graph, values: &[ValueId], op: &Op) -> Vec<ValueId> {
    let x = dice.pick(values);
    let shape = graph.shape(x).to_vec();
    let c = shape.get(1).copied().unwrap_or(1);
    let mut constant = |dice: &mut Dice, shape: &[usize]| {
        let name = if dice.flag() { String::new() } else { format!("p{}.weight", graph.values.len()) };
        let data = dice.floats(shape.iter().product());
        graph.constant(name, shape, data).unwrap()
    };
    match op {
        Op::Conv2d(conv) => {
            let m = conv.groups * (1 + dice.below(3));
            let weight = [m, c / conv.groups.min(c), 1 + dice.below(3), 1 + dice.below(3)];
            let mut inputs = vec![x, constant(dice, &weight)];
            inputs.extend(conv.bias.then(|| constant(dice, &[m])));
            inputs.extend(conv.residual.then(|| dice.pick(values)));
            inputs
        }
        Op::Linear { bias, .. } => {
            let (m, k) = (1 + dice.below(4), shape.last().copied().unwrap_or(1));
            let mut inputs = vec![x, constant(dice, &[m, k])];
            inputs.extend(bias.then(|| constant(dice, &[m])));
            inputs
        }
        Op::ActivatedNorm { .. } => [x].into_iter().chain((0..4).map(|_| constant(dice, &[c]))).collect(),
        Op::Binary(_) if dice.flag() => vec![x, constant(dice, &[1, c, 1, 1])],
        Op::Binary(_) => vec![x, dice.pick(values)],
        Op::Concat => (0..1 + dice.below(2)).map(|_| dice.pick(values)).collect(),
        Op::Gate { residual, .. } => {
            let logits = graph.push("", Op::GlobalAvgPool, &[x]).unwrap_or(x);
            if *residual { vec![x, logits, x] } else { vec![x, logits] }
        }
        Op::SplitAttention { .. } => vec![x, graph.push("", Op::GlobalAvgPool, &[x]).unwrap_or(x)],
        Op::Permute { .. } => vec![constant(dice, &[2, 3])],
        _ => vec![x],
    }
}
