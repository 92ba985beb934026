//! Helpers: a graph with numbers, its tapes, and finite differences.

use crate::random::Dice;
use cardinal_engine::autodiff::reference::{State, StepSeed, backward, forward};
use cardinal_engine::autodiff::{Recompute, Settings, Tape, TapeOp, differentiate};
use cardinal_engine::graph::{Graph, Op, Unary, ValueId};
use cardinal_engine::{Activation, EngineError};

/// Half the distance of finite differences. What they leave out is its square, what they round a 2^-53 over it.
const STEP: f64 = 1e-5;

/// A graph, numbers for its inputs and parameters, and a loss: the sum of the outputs times fixed numbers.
pub(crate) struct Network {
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<Vec<f64>>,
    /// Of every constant, by its place among the values.
    pub(crate) parameters: Vec<Vec<f64>>,
    /// The gradients of the outputs.
    pub(crate) loss: Vec<Vec<f64>>,
    pub(crate) seed: StepSeed,
}

/// Gradients by parameter, in the order of the tape.
pub(crate) type Gradients = Vec<(String, Option<Vec<f64>>)>;

pub(crate) fn everything(_: &str) -> bool {
    true
}

impl Network {
    pub(crate) fn new(graph: Graph, batch: usize) -> Self {
        let mut dice = Dice(batch as u64);
        let mut numbers = |ids: &[ValueId]| -> Vec<Vec<f64>> {
            let floats = |id: &ValueId| dice.floats(batch * graph[*id].elements());
            ids.iter().map(floats).map(|floats| floats.into_iter().map(f64::from).collect()).collect()
        };
        let (inputs, loss) = (numbers(&graph.inputs), numbers(&graph.outputs));
        let constant = |data: &[f32]| data.iter().map(|&x| f64::from(x)).collect();
        let parameters =
            graph.values.iter().map(|value| value.constant().map_or(Vec::new(), |data| constant(data)));
        let seed = StepSeed { seed: 1, step: 2, drop_block: 0.2 };
        Self { parameters: parameters.collect(), graph, inputs, loss, seed }
    }

    pub(crate) fn tape(
        &self,
        recompute: Recompute,
        trained: &dyn Fn(&str) -> bool,
    ) -> Result<Tape, EngineError> {
        differentiate(&self.graph, &Settings { recompute, trained })
    }

    pub(crate) fn forward<'a>(&self, tape: &'a Tape) -> State<'a> {
        forward(tape, &|id| self.parameters[id.0].clone(), &self.inputs, self.seed).unwrap()
    }

    pub(crate) fn gradients(&self, tape: &Tape) -> Gradients {
        let mut state = self.forward(tape);
        backward(&mut state, &self.loss).unwrap();
        let gradient = |id: ValueId| {
            assert_eq!(tape.values[id.0].name.strip_prefix("gradient of ").map(str::is_empty), Some(false));
            state.value(id).unwrap().to_vec()
        };
        let parameter = |parameter: &cardinal_engine::autodiff::TapeParameter| {
            (tape.values[parameter.value.0].name.clone(), parameter.gradient.map(gradient))
        };
        tape.parameters.iter().map(parameter).collect()
    }

    /// The loss, and on which side of every kink the numbers are.
    pub(crate) fn loss(&self, tape: &Tape) -> (f64, Vec<usize>) {
        let state = self.forward(tape);
        let output = |(id, factors): (&ValueId, &Vec<f64>)| -> f64 {
            state.value(*id).unwrap().iter().zip(factors).map(|(y, factor)| y * factor).sum()
        };
        (tape.outputs.iter().zip(&self.loss).map(output).sum(), sides(&state, tape))
    }

    /// The slope of the loss where `shift` moves the parameters. None if there is a kink, or if steps of several lengths do not
    /// agree to a third of what a gradient must: behind a norm of values that are nearly equal rounding is magnified.
    pub(crate) fn slope(&mut self, tape: &Tape, step: f64, shift: impl Fn(&mut Self, f64)) -> Option<f64> {
        let (loss, middle) = self.loss(tape);
        let mut at = |distance: f64| {
            let before = self.parameters.clone();
            shift(self, distance);
            let result = self.loss(tape);
            self.parameters = before;
            result
        };
        let mut difference = |step: f64| {
            let ((left, left_sides), (right, right_sides)) = (at(-step), at(step));
            (left_sides == middle && right_sides == middle).then_some((right - left) / (2.0 * step))
        };
        let [slope, half, double] = [difference(step)?, difference(step / 2.0)?, difference(2.0 * step)?];
        let bound = (1e-6 * slope.abs() + 1e-7 * (1.0 + loss.abs())) / 3.0;
        [half, double].iter().all(|other| (slope - other).abs() <= bound).then_some(slope)
    }
}

/// Checks all gradients of `text`, with every choice of what is recomputed.
#[track_caller]
pub(crate) fn check(text: &str, batch: usize) {
    check_trained(text, batch, &everything);
}

/// [`check`] where only some parameters are trained.
#[track_caller]
pub(crate) fn check_trained(text: &str, batch: usize, trained: &dyn Fn(&str) -> bool) {
    let mut network = Network::new(Graph::parse(text).unwrap(), batch);
    crate::compiled::compare(&network, trained);
    let expected = differences(&mut network, trained);
    let largest =
        expected.iter().flat_map(|(_, list)| list).flatten().fold(0.0_f64, |max, x| max.max(x.abs()));
    for recompute in Recompute::ALL {
        let tape = network.tape(recompute, trained).unwrap();
        let found = network.gradients(&tape);
        assert_eq!(found.len(), expected.len());
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let found = found.as_ref().unwrap_or_else(|| panic!("{name} has no gradient\n{tape}"));
            for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
                let Some(expected) = expected else { continue };
                let off = (found - expected).abs();
                assert!(
                    off <= 1e-6 * expected.abs() + 1e-8 * largest,
                    "{recompute:?}, {name}[{i}]: {found} instead of {expected}\n{tape}"
                );
            }
        }
    }
}

/// The derivative for every number of every trained parameter; none where there is a kink, which is seldom.
fn differences(network: &mut Network, trained: &dyn Fn(&str) -> bool) -> Vec<(String, Vec<Option<f64>>)> {
    let tape = network.tape(Recompute::None, trained).unwrap();
    let mut all = Vec::new();
    for parameter in &tape.parameters {
        let place = parameter.value.0;
        let slope =
            |i| network.slope(&tape, STEP, |network, distance| network.parameters[place][i] += distance);
        let slopes: Vec<_> = (0..tape.values[place].elements()).map(slope).collect();
        all.push((tape.values[place].name.clone(), slopes));
    }
    let (known, count) = all.iter().fold((0, 0), |(known, count), (_, slopes)| {
        (known + slopes.iter().flatten().count(), count + slopes.len())
    });
    assert!(known * 10 >= count * 9, "kinks at {} of {count} parameters", count - known);
    all
}

/// For everything that has a kink the side of it: for activations the piece, for pooling the place of the maximum.
fn sides(state: &State<'_>, tape: &Tape) -> Vec<usize> {
    let mut sides = Vec::new();
    for node in &tape.nodes[..tape.forward] {
        let value = |id: ValueId| state.value(id).unwrap();
        let (x, y) = (value(node.inputs[0]), value(node.outputs[0]));
        match &node.op {
            TapeOp::Join { slope, .. } | TapeOp::Forward(Op::ActivatedNorm { slope, .. }) if *slope < 1.0 => {
                sides.extend(y.iter().map(|&y| usize::from(y > 0.0)));
            }
            TapeOp::Forward(Op::Unary(Unary::Activation(activation))) => {
                sides.extend(x.iter().map(|&x| piece(*activation, x)));
            }
            TapeOp::Forward(Op::Unary(Unary::Clamp(low, high))) => {
                let [low, high] = [f64::from(*low), f64::from(*high)];
                sides.extend(x.iter().map(|&x| usize::from(x > low) + usize::from(x > high)));
            }
            TapeOp::Forward(Op::Linear { activation, .. } | Op::SplitAttention { activation, .. }) => {
                sides.extend(y.iter().map(|&y| piece_of_output(*activation, y)));
            }
            TapeOp::Forward(Op::Gate { hard, activation, .. }) => {
                let of_logits = if *hard { Activation::HardSigmoid } else { Activation::Sigmoid };
                sides.extend(value(node.inputs[1]).iter().map(|&logit| piece(of_logits, logit)));
                sides.extend(y.iter().map(|&y| piece_of_output(*activation, y)));
            }
            TapeOp::Forward(Op::MaxPool(_)) => {
                let planes: usize = state.shape(node.outputs[0])[..2].iter().product();
                for (x, y) in x.chunks_exact(x.len() / planes).zip(y.chunks_exact(y.len() / planes)) {
                    sides.extend(y.iter().map(|y| x.iter().position(|x| x == y).unwrap_or(x.len())));
                }
            }
            _ => {}
        }
    }
    sides
}

/// Which piece of the activation an input is on.
fn piece(activation: Activation, x: f64) -> usize {
    let bounds: &[f64] = match activation {
        Activation::Relu | Activation::LeakyRelu(_) => &[0.0],
        Activation::Relu6 => &[0.0, 6.0],
        Activation::HardSigmoid | Activation::HardSwish => &[-3.0, 3.0],
        Activation::Identity | Activation::Sigmoid | Activation::Silu => &[],
    };
    bounds.iter().filter(|&&bound| x > bound).count()
}

/// Which piece of the activation an output is of.
fn piece_of_output(activation: Activation, y: f64) -> usize {
    let top = if activation == Activation::HardSigmoid { 1.0 } else { 6.0 };
    match activation {
        Activation::Relu | Activation::LeakyRelu(_) => usize::from(y > 0.0),
        Activation::Relu6 | Activation::HardSigmoid => usize::from(y > 0.0) + usize::from(y >= top),
        Activation::Identity | Activation::Sigmoid | Activation::Silu | Activation::HardSwish => 0,
    }
}
