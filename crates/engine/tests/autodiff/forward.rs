//! The forward pass of a tape: the graph's own numbers, the batch's statistics, and masks.

use crate::check::Network;
use crate::random;
use cardinal_engine::autodiff::reference::{backward, forward};
use cardinal_engine::autodiff::{Recompute, TapeOp};
use cardinal_engine::graph::{Batch, Graph, Op};
use cardinal_engine::reference::{Tensor, evaluate};
use proptest::prelude::*;

/// With running statistics and without drops a tape computes what the graph does, every operator of it.
fn check_forward(seed: u64) -> Result<(), TestCaseError> {
    let mut graph = random::graph(seed, 10);
    graph.batch = Batch::Free;
    graph.nodes.iter_mut().for_each(|node| {
        if let Op::Drop { rate, .. } = &mut node.op {
            *rate = 0.0;
        }
    });
    let mut network = Network::new(graph, 3);
    network.seed.drop_block = 0.0;
    let Ok(tape) = network.tape(Recompute::None, &|_| false) else {
        return Err(TestCaseError::fail("nothing is trained, and yet it is refused"));
    };
    let state = network.forward(&tape);
    let input = |(id, data): (&_, &Vec<f64>)| {
        Tensor::new(state.shape(*id), data.iter().map(|&x| x as f32).collect()).unwrap()
    };
    let inputs: Vec<_> = network.graph.inputs.iter().zip(&network.inputs).map(input).collect();
    let outputs = evaluate(&network.graph, &inputs).unwrap();
    for (id, expected) in tape.outputs.iter().zip(&outputs) {
        prop_assert_eq!(state.shape(*id), expected.shape.as_slice());
        let largest = expected.data.iter().fold(0.0_f64, |max, &x| max.max(f64::from(x).abs()));
        for (&found, &expected) in state.value(*id).unwrap().iter().zip(&expected.data) {
            let expected = f64::from(expected);
            // Roots of negative numbers, quotients by zero, and what is rounded to zero or beyond the largest `f32`.
            if largest.is_finite()
                && (1e-30..1e30).contains(&largest)
                && found.is_finite()
                && expected.is_finite()
            {
                prop_assert!((found - expected).abs() <= 1e-3 * largest, "{} instead of {}", found, expected);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_tape_computes_what_its_graph_does(seed: u64) {
        check_forward(seed)?;
    }
}

const NORM: &str = "input %x [1, 2, 1, 2]\nconst @n.weight [2] = [2, 1]\nconst @n.bias [2] = [1, 0]\n\
                    const @n.running_mean [2] = [10, 0]\nconst @n.running_var [2] = [1, 3]\n\
                    %y = activated_norm(%x, @n.weight, @n.bias, @n.running_mean, @n.running_var) epsilon=0 slope=0.5\noutput %y";

#[test]
fn norms_take_the_statistics_of_the_batch() {
    let mut network = Network::new(Graph::parse(NORM).unwrap(), 2);
    // Channel 0 has 1, 3, 5, 7: a mean of 4 and a variance of 5. Channel 1 has 0, 0, 2, 2: of 1 and 1.
    network.inputs = vec![vec![1.0, 3.0, 0.0, 0.0, 5.0, 7.0, 2.0, 2.0]];
    let tape = network.tape(Recompute::default(), &|_| true).unwrap();
    let state = network.forward(&tape);
    let [mean, var] = tape.statistics[0].batch.map(|id| state.value(id).unwrap());
    assert_eq!((mean, var), ([4.0, 1.0].as_slice(), [5.0, 1.0].as_slice()));
    assert_eq!(tape.statistics[0].pixels, 2);
    let root = 5.0_f64.sqrt();
    let expected = [
        0.5 * (1.0 - 6.0 / root),
        1.0 - 2.0 / root,
        -0.5,
        -0.5,
        1.0 + 2.0 / root,
        1.0 + 6.0 / root,
        1.0,
        1.0,
    ];
    let expected = expected.map(|y: f64| if y == 1.0 - 2.0 / root { y.max(0.5 * y) } else { y });
    for (y, expected) in state.value(tape.outputs[0]).unwrap().iter().zip(expected) {
        assert!((y - expected).abs() < 1e-12, "{y} instead of {expected}");
    }
    // The running variance takes the unbiased one: 5 * 4 / 3 and 1 * 4 / 3.
    let running = &state.running(0.1)[0];
    let expected = [[9.0 + 0.4, 0.1], [0.9 + 2.0 / 3.0, 2.7 + 0.4 / 3.0]];
    for (found, expected) in running.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }
}

/// Shares that are dropped, and that the mean stays: over many numbers.
#[test]
fn drops_keep_the_mean() {
    for (text, drop, rate) in [
        ("[1, 8, 20, 20]", "rate=0.25", 0.25),
        ("[1, 1000]", "rate=0.25", 0.25),
        ("[1, 2, 1, 2]", "images rate=0.4", 0.4),
        ("[1, 40, 12, 12]", "squares=3 rate=0.5", 0.2),
    ] {
        let graph = Graph::parse(&format!("input %x {text}\n%y = drop(%x) {drop}\noutput %y")).unwrap();
        let batch = if drop.contains("images") { 3000 } else { 3 };
        let mut network = Network::new(graph, batch);
        network.inputs[0].fill(1.0);
        let tape = network.tape(Recompute::None, &|_| true).unwrap();
        let state = network.forward(&tape);
        let y = state.value(tape.outputs[0]).unwrap();
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
        assert!((mean - 1.0).abs() < 0.05, "{drop}: a mean of {mean}");
        assert!((dropped - rate).abs() < 0.05, "{drop}: {dropped} dropped");
        if drop.contains("squares") {
            let image = y.len() / batch;
            assert!(y.chunks(image).all(|other| *other == y[..image]), "the same in all images");
        }
        // Another step, another mask.
        network.seed.step += 1;
        assert_ne!(network.forward(&tape).value(tape.outputs[0]).unwrap(), y);
    }
}

#[test]
fn layers_have_masks_of_their_own() {
    for drop in ["rate=0.5", "images rate=0.5", "squares=1 rate=0.5"] {
        let text = format!(
            "input %x [1, 4, 5, 5]\n%a = drop(%x) {drop}\n%b = drop(%x) {drop}\noutput %a\noutput %b"
        );
        let mut network = Network::new(Graph::parse(&text).unwrap(), 40);
        network.seed.drop_block = 0.5;
        let tape = network.tape(Recompute::None, &|_| true).unwrap();
        let state = network.forward(&tape);
        assert_ne!(state.value(tape.outputs[0]), state.value(tape.outputs[1]));
    }
}

#[test]
fn wrong_numbers_are_refused() {
    let network = Network::new(Graph::parse(NORM).unwrap(), 2);
    let tape = network.tape(Recompute::default(), &|_| true).unwrap();
    let run = |inputs: &[Vec<f64>]| {
        let parameters = |id: cardinal_engine::graph::ValueId| network.parameters[id.0].clone();
        forward(&tape, &parameters, inputs, network.seed).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(run(&[vec![0.0; 5]]).unwrap_err(), "input `x` has 5 numbers, [1, 2, 1, 2] is needed");
    assert_eq!(run(&[vec![0.0; 3]]).unwrap_err(), "input `x` has 3 numbers, [0, 2, 1, 2] is needed");
    assert!(run(&[]).is_err());
    let mut state = network.forward(&tape);
    assert!(backward(&mut state, &[]).is_err());
    assert!(backward(&mut state, &[vec![1.0; 4]]).is_err());
    assert!(tape.nodes.iter().any(|node| node.op == TapeOp::Statistics));
}
