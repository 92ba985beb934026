//! Random graphs: whatever is not refused has the right gradients.

use crate::check::{Network, everything};
use crate::random::{self, Dice};
use cardinal_engine::Activation;
use cardinal_engine::autodiff::Recompute;
use cardinal_engine::graph::{Batch, Binary, Conv2d, Drop, Graph, Op, Unary, ValueId, Window};
use proptest::prelude::*;

/// Compares the slope along some random directions with the gradients. Gives how many were compared.
fn check(graph: Graph, batch: usize, seed: u64) -> Result<usize, TestCaseError> {
    let mut network = Network::new(graph, batch);
    let Ok(tape) = network.tape(Recompute::None, &everything) else { return Ok(0) };
    let mut all = Vec::new();
    for recompute in Recompute::ALL {
        all.push(network.gradients(&network.tape(recompute, &everything).unwrap()));
    }
    let loss = network.loss(&tape).0;
    let finite = all.iter().flatten().flat_map(|(_, g)| g).flatten().all(|g| g.abs() < 1e6);
    if !finite || loss.abs() > 1e6 || loss.is_nan() {
        return Ok(0);
    }
    let mut dice = Dice(seed);
    let mut compared = 0;
    for _ in 0..3 {
        let direction: Vec<_> = tape
            .parameters
            .iter()
            .map(|parameter| (parameter.value.0, dice.floats(tape.values[parameter.value.0].elements())))
            .collect();
        let slope = network.slope(&tape, 1e-6, |network, distance| {
            for (place, direction) in &direction {
                let pairs = network.parameters[*place].iter_mut().zip(direction);
                pairs.for_each(|(parameter, direction)| *parameter += distance * f64::from(*direction));
            }
        });
        let Some(expected) = slope else { continue };
        compared += 1;
        for gradients in &all {
            let products = gradients.iter().zip(&direction).flat_map(|((_, gradient), (_, direction))| {
                let gradient = gradient.clone().unwrap_or_else(|| vec![0.0; direction.len()]);
                gradient.into_iter().zip(direction).map(|(g, d)| g * f64::from(*d))
            });
            let (sum, size) =
                products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + f64::abs(product)));
            let bound = 1e-6 * size + 1e-7 * (1.0 + loss.abs());
            prop_assert!((sum - expected).abs() <= bound, "{} instead of {}\n{}", sum, expected, tape);
        }
    }
    Ok(compared)
}

/// Grows a graph of the operators that networks are trained with; every constant is a parameter.
pub(crate) struct Builder {
    dice: Dice,
    graph: Graph,
    maps: Vec<ValueId>,
}

impl Builder {
    fn constant(&mut self, kind: &str, shape: &[usize]) -> ValueId {
        let inputs: usize = shape.iter().skip(1).product();
        let (shift, scale) = match kind {
            "weight" if shape.len() == 1 => (1.0, 0.5),
            "running_var" => (1.0, 0.5),
            "bias" | "running_mean" => (0.0, 0.5),
            _ => (0.0, (3.0 / inputs as f32).sqrt()),
        };
        let count = shape.iter().product();
        let data: Vec<_> = self.dice.floats(count).into_iter().map(|x| shift + scale * x).collect();
        let name = format!("p{}.{kind}", self.graph.values.len());
        self.graph.constant(name, shape, data).unwrap()
    }

    fn conv(&mut self, x: ValueId, outputs: usize, groups: usize, side: usize) -> Option<ValueId> {
        let c = self.graph.shape(x)[1];
        let weight = self.constant("weight", &[outputs, c / groups, side, side]);
        let bias = self.dice.below(2) == 1;
        let mut inputs = vec![x, weight];
        if bias {
            inputs.push(self.constant("bias", &[outputs]));
        }
        let pad = |dice: &mut Dice| dice.below(side);
        let conv = Conv2d {
            stride: if side > 1 { [1 + self.dice.below(2), 1 + self.dice.below(2)] } else { [1; 2] },
            padding: if side > 1 { [0; 4].map(|_| pad(&mut self.dice)) } else { [0; 4] },
            dilation: [1 + self.dice.below(2), 1 + self.dice.below(2)],
            groups,
            bias,
            ..Conv2d::plain()
        };
        self.graph.push("conv", Op::Conv2d(conv), &inputs).ok()
    }

    fn norm(&mut self, x: ValueId, slope: f32) -> Option<ValueId> {
        let c = [self.graph.shape(x)[1]];
        let kinds = ["weight", "bias", "running_mean", "running_var"];
        let inputs: Vec<_> = [x].into_iter().chain(kinds.map(|kind| self.constant(kind, &c))).collect();
        self.graph.push("norm", Op::ActivatedNorm { epsilon: 1e-3, slope }, &inputs).ok()
    }

    fn activation(&mut self) -> Activation {
        use Activation::{HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu};
        self.dice.pick(&[Relu, Relu, LeakyRelu(0.1), Relu6, Sigmoid, Silu, HardSigmoid, HardSwish])
    }

    fn window(&mut self) -> Window {
        let kernel = [1 + self.dice.below(3), 1 + self.dice.below(3)];
        Window {
            kernel,
            stride: [1 + self.dice.below(2), 1 + self.dice.below(2)],
            padding: [0, 1, 0, 1].map(|axis: usize| self.dice.below(kernel[axis] / 2 + 1)),
            dilation: [1; 2],
            ceil: self.dice.below(2) == 1,
        }
    }

    /// Logits for a map, from its means.
    fn logits(&mut self, x: ValueId, radix: usize) -> Option<ValueId> {
        let c = self.graph.shape(x)[1];
        let pooled = self.graph.push("pool", Op::RadixPool { radix }, &[x]).ok()?;
        let hidden = self.conv(pooled, 3, 1, 1)?;
        let hidden =
            self.graph.push("act", Op::Unary(Unary::Activation(Activation::Silu)), &[hidden]).ok()?;
        self.conv(hidden, c, 1, 1)
    }

    /// Adds an operator or some that belong together, if they fit.
    fn grow(&mut self) -> Option<ValueId> {
        let x = self.dice.pick(&self.maps);
        let other = self.dice.pick(&self.maps);
        let c = self.graph.shape(x)[1];
        let slope = self.dice.pick(&[1.0, 0.0, 0.01, 0.3]);
        let op = match self.dice.below(20) {
            0..3 => {
                let groups = if c.is_multiple_of(2) { 1 + self.dice.below(2) } else { 1 };
                let outputs = groups * (1 + self.dice.below(3));
                let side = 1 + self.dice.below(3);
                return self.conv(x, outputs, groups, side);
            }
            // A wide one.
            3 => return self.conv(x, 2 * c, 1, 1),
            4 | 5 => return self.norm(x, slope),
            6 => Op::Unary(Unary::Activation(self.activation())),
            7 => {
                let shape = self.graph.shape(x).to_vec();
                let branch = self.norm(other, 1.0)?;
                let fits = self.graph.shape(branch) == shape;
                let operands = if self.dice.below(2) == 1 { [x, branch] } else { [branch, x] };
                let sum = fits.then(|| self.graph.push("", Op::Binary(Binary::Add), &operands).ok())??;
                let end = self.dice.pick(&[Activation::Relu, Activation::LeakyRelu(0.1)]);
                return self.graph.push("end", Op::Unary(Unary::Activation(end)), &[sum]).ok();
            }
            8 => {
                let binary = self.dice.pick(&[Binary::Add, Binary::Sub, Binary::Mul]);
                return self.graph.push("", Op::Binary(binary), &[x, other]).ok();
            }
            9 => Op::MaxPool(self.window()),
            10 => Op::AvgPool { window: self.window(), count_padding: self.dice.below(2) == 1 },
            11 => Op::BlurPool,
            12 => Op::SpaceToDepth { block: 2 },
            13 => Op::SliceChannels { start: self.dice.below(2), end: 2 + self.dice.below(2) },
            14 => Op::Pad([0; 4].map(|_: usize| self.dice.below(2))),
            15 => return self.graph.push("", Op::Concat, &[x, other]).ok(),
            16 => {
                let radix = if c.is_multiple_of(2) { 2 } else { 1 };
                let logits = self.logits(x, radix)?;
                let activation = self.dice.pick(&[Activation::Identity, Activation::Relu]);
                let op = Op::SplitAttention { radix, cardinality: 1, activation };
                return self.graph.push("attention", op, &[x, logits]).ok();
            }
            17 => {
                let logits = self.logits(x, 1)?;
                let residual = self.dice.below(2) == 1;
                let hard = self.dice.below(2) == 1;
                let op = Op::Gate { hard, residual, activation: Activation::Identity };
                let inputs = [x, logits, other];
                return self.graph.push("gate", op, &inputs[..2 + usize::from(residual)]).ok();
            }
            18 => {
                let what = self.dice.pick(&[Drop::Elements, Drop::Images, Drop::Squares { side: 2 }]);
                Op::Drop { what, rate: 0.3 }
            }
            _ => Op::Unary(self.dice.pick(&[Unary::Neg, Unary::AddScalar(0.5), Unary::MulScalar(-1.5)])),
        };
        self.graph.push("", op, &[x]).ok()
    }

    pub(crate) fn build(seed: u64) -> Graph {
        let mut builder = Self { dice: Dice(seed), graph: Graph::new("random"), maps: Vec::new() };
        let sizes = [1, 1 + builder.dice.below(3), 5 + builder.dice.below(4), 5 + builder.dice.below(4)];
        let x = builder.graph.input("x", sizes);
        let stem = builder.conv(x, 4, 1, 1).unwrap();
        builder.maps = vec![stem];
        while builder.maps.len() < 9 {
            let before = (builder.graph.clone(), builder.dice.next());
            match builder.grow() {
                // Not ever wider.
                Some(value) if builder.graph[value].elements() < 500 => builder.maps.push(value),
                _ => builder.graph = before.0,
            }
        }
        let Self { mut dice, mut graph, maps, .. } = builder;
        graph.output(maps[8]);
        graph.output(dice.pick(&maps));
        graph
    }
}

proptest! {
    #[test]
    fn gradients_are_slopes(seed: u64) {
        let graph = Builder::build(seed);
        let batch = 2 + (seed % 2) as usize;
        prop_assume!(check(graph, batch, seed)? > 0);
    }

    /// Odd names, dead nodes, constants alone, operators without gradients.
    #[test]
    fn any_graph_is_refused_or_right(seed: u64) {
        let mut graph = random::graph(seed, 8);
        graph.batch = Batch::Free;
        check(graph, 2, seed)?;
    }
}
