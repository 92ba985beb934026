//! Class-activation maps and attention weights of small graphs, captured and optimized, interpreted and compiled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_engine::explain::{Attention, ClassMaps, normalise};
use cardinal_engine::graph::Graph;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::reference::{Tensor, evaluate};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa, passes};
use std::sync::Arc;

/// A split-attention block, a residual, dropout and a classifier.
const NETWORK: &str = "\
graph small batch=free
input %x [1, 3, 21, 17]
const @conv1.weight [8, 3, 3, 3]
const @conv2.weight [24, 4, 3, 3]
const @fc1.weight [8, 12, 1, 1]
const @fc2.weight [24, 8, 1, 1]
const @conv3.weight [10, 12, 1, 1]
const @down.weight [10, 8, 1, 1]
const @fc.weight [5, 10]
const @fc.bias [5]
%0 = conv2d(%x, @conv1.weight) stride=2 padding=1  # conv1
%1 = conv2d(%0, @conv2.weight) padding=1 groups=2  # conv2.conv
%2 = relu(%1)
%3 = radix_pool(%2) radix=2
%4 = conv2d(%3, @fc1.weight)  # conv2.fc1
%5 = relu(%4)
%6 = conv2d(%5, @fc2.weight)  # conv2.fc2
%7 = split_attention(%2, %6) radix=2 cardinality=3  # conv2
%8 = conv2d(%7, @conv3.weight)  # conv3
%9 = conv2d(%0, @down.weight)  # down
%10 = add(%8, %9)
%11 = relu(%10)
%12 = global_avg_pool(%11)  # pool
%13 = reshape(%12) shape=[1, 10]
%14 = drop(%13) rate=0.2
%15 = linear(%14, @fc.weight, bias=@fc.bias)  # fc
output %15
";

const IMAGE: usize = 3 * 21 * 17;

fn input(images: usize) -> Vec<f32> {
    let hash = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..(images * IMAGE) as u32).map(hash).collect()
}

fn assert_near(found: f32, expected: f32) {
    assert!((found - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{found} instead of {expected}");
}

/// The graph before and after the passes, explained before, and explained after.
fn explained() -> Vec<(Graph, ClassMaps, Vec<Attention>)> {
    let mut captured = Graph::parse(NETWORK).unwrap();
    let mut optimized = passes::optimize(captured.clone()).unwrap().graph;
    let (maps, units) = (ClassMaps::attach(&mut captured).unwrap(), Attention::attach(&mut captured));
    let kept = passes::optimize(captured.clone()).unwrap().graph;
    let (late_maps, late_units) =
        (ClassMaps::attach(&mut optimized).unwrap(), Attention::attach(&mut optimized));
    vec![(captured, maps.clone(), units.clone()), (kept, maps, units), (optimized, late_maps, late_units)]
}

#[test]
fn the_mean_of_a_map_and_the_bias_are_the_logit() {
    for (graph, maps, _) in explained() {
        graph.verify().unwrap();
        assert_eq!([maps.channels(), maps.height(), maps.width(), maps.classes()], [10, 11, 9, 5]);
        let x = Tensor::new([2, 3, 21, 17], input(2)).unwrap();
        let outputs = evaluate(&graph, &[x]).unwrap();
        assert_eq!(outputs[maps.output()].shape, [2, 10, 11, 9]);
        for (image, features) in outputs[maps.output()].data.chunks(10 * 11 * 9).enumerate() {
            for class in 0..5 {
                let map = maps.map(features, class).unwrap();
                let mean = map.iter().sum::<f32>() / map.len() as f32;
                assert_near(mean + maps.bias(class), outputs[0].data[image * 5 + class]);
            }
        }
    }
}

#[test]
fn compiled_maps_are_the_interpreted_ones() {
    let cases = explained();
    let (graph, maps, units) = &cases[0];
    let x = Tensor::new([3, 3, 21, 17], input(3)).unwrap();
    let expected = evaluate(graph, &[x]).unwrap();
    let expected_map = maps.map(&expected[maps.output()].data[990..1980], 3).unwrap();
    let expected_weights = units[0].weights(&expected[units[0].output].data[24..48]).unwrap();
    for (graph, maps, units) in &cases {
        for (dtype, bound) in [(DType::F32, 1e-4), (DType::Bf16, 5e-2)] {
            let options = Options { batch: 3, dtype, threads: 2, isa: Isa::best() };
            let plan = Plan::new(graph.clone(), &options).unwrap();
            let mut session = Session::new(Arc::new(plan), false);
            let outputs = session.run(&[&input(3)]).unwrap();
            let map = maps.map(&outputs.get(maps.output())[990..1980], 3).unwrap();
            let largest = expected_map.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for (found, expected) in map.iter().zip(&expected_map) {
                assert!((found - expected).abs() <= bound * largest, "{dtype:?}: {found} not {expected}");
            }
            let weights = units[0].weights(&outputs.get(units[0].output)[24..48]).unwrap();
            for (found, expected) in weights.iter().zip(&expected_weights) {
                assert!((found - expected).abs() <= bound, "{dtype:?}: {found} not {expected}");
            }
        }
    }
}

#[test]
fn attention_weights_are_those_that_the_unit_applies() {
    for (mut graph, _, units) in explained() {
        let [unit] = &units[..] else { panic!("{} units", units.len()) };
        assert_eq!((unit.place.as_str(), unit.radix, unit.cardinality, unit.channels), ("conv2", 2, 3, 12));
        // The unit's input and result, as further outputs.
        let node = graph.nodes.iter().find(|node| node.op.name() == "split_attention").unwrap();
        let (splits, result) = (node.inputs[0], node.outputs[0]);
        graph.output(splits);
        graph.output(result);
        let outputs = evaluate(&graph, &[Tensor::new([1, 3, 21, 17], input(1)).unwrap()]).unwrap();
        let weights = unit.weights(&outputs[unit.output].data).unwrap();
        let [.., splits, result] = &outputs[..] else { panic!("outputs") };
        let pixels = 11 * 9;
        for channel in 0..12 {
            assert_near(weights[channel] + weights[12 + channel], 1.0);
            for pixel in 0..pixels {
                let split = |split: usize| {
                    weights[split * 12 + channel] * splits.data[(split * 12 + channel) * pixels + pixel]
                };
                assert_near(split(0) + split(1), result.data[channel * pixels + pixel]);
            }
        }
    }
}

#[test]
fn one_split_has_a_sigmoid() {
    let unit = Attention { place: "a".into(), radix: 1, cardinality: 1, channels: 2, output: 0 };
    assert_eq!(unit.weights(&[0.0, 100.0]).unwrap(), [0.5, 1.0]);
    let error = unit.weights(&[0.0]).unwrap_err().to_string();
    assert_eq!(error, "input `a` has 1 numbers, one image's 2 is needed");
}

#[test]
fn a_map_is_scaled_to_what_speaks_for_the_class() {
    let mut map = [-3.0, 0.0, 1.0, 4.0, f32::NAN];
    normalise(&mut map);
    assert_eq!(map, [0.0, 0.0, 0.25, 1.0, 0.0]);
    let mut nothing = [-1.0, -2.0];
    normalise(&mut nothing);
    assert_eq!(nothing, [0.0, 0.0]);
}

fn refusal(text: &str) -> String {
    let mut graph = Graph::parse(text).unwrap();
    let before = graph.clone();
    let error = ClassMaps::attach(&mut graph).unwrap_err().to_string();
    assert_eq!(graph, before, "a refusal leaves the graph alone");
    error
}

const NEEDED: &str =
    "a class-activation map needs a network that ends in global average pooling and one linear layer";

#[test]
fn other_ends_are_refused_by_name() {
    let head = "input %x [1, 4, 5, 5]\nconst @w [4, 4, 1, 1]\nconst @fc [3, 4]\n%0 = global_avg_pool(%x)\n";
    let nonlinear = "%1 = conv2d(%0, @w)  # tail\n%2 = silu(%1) # act\n%3 = reshape(%2) shape=[1, 4]
        %4 = linear(%3, @fc) # fc\noutput %4";
    let text = refusal(&format!("{head}{nonlinear}"));
    assert_eq!(
        text,
        format!("act (silu): it stands between the pooling and the last linear layer; {NEEDED}")
    );
    // A second pooling, which changes nothing, hides nothing.
    let again = nonlinear.replace("%3 = reshape(%2)", "%5 = global_avg_pool(%2) # again\n%3 = reshape(%5)");
    let text = refusal(&format!("{head}{again}"));
    assert_eq!(
        text,
        format!("again (global_avg_pool): it stands between the pooling and the last linear layer; {NEEDED}")
    );
    let text = refusal(&format!("{head}output %0"));
    assert_eq!(text, format!("global_avg_pool: it makes the first output; {NEEDED}"));
    let activated = "%1 = reshape(%0) shape=[1, 4]\n%2 = linear(%1, @fc) activation=relu # fc\noutput %2";
    assert!(refusal(&format!("{head}{activated}")).starts_with("fc (linear): it makes the first output"));
    let flat = "input %x [1, 4, 5, 5]\nconst @fc [3, 100]\n%0 = reshape(%x) shape=[1, 100]
        %1 = linear(%0, @fc) # fc\noutput %1";
    assert!(refusal(flat).starts_with("fc (linear): it reads no feature map"), "{}", refusal(flat));
}

#[test]
fn a_map_of_one_pixel_is_a_map() {
    let text = "input %x [1, 4, 5, 5]\nconst @w [4, 4, 5, 5]\nconst @fc [3, 4]\n%0 = conv2d(%x, @w)
        %1 = global_avg_pool(%0)\n%2 = reshape(%1) shape=[1, 4]\n%3 = linear(%2, @fc)\noutput %3";
    let graph = Graph::parse(text).unwrap();
    for mut graph in [passes::optimize(graph.clone()).unwrap().graph, graph] {
        let maps = ClassMaps::attach(&mut graph).unwrap();
        assert_eq!([maps.channels(), maps.height(), maps.width()], [4, 1, 1]);
        graph.verify().unwrap();
    }
}

#[test]
fn classes_and_sizes_are_checked() {
    let (_, maps, _) = explained().remove(0);
    let error = maps.map(&[0.0; 990], 5).unwrap_err().to_string();
    assert_eq!(error, "input `class` has 5, one of 0 to 4 is needed");
    let error = maps.map(&[0.0; 989], 0).unwrap_err().to_string();
    assert_eq!(error, "input `features` has 989 numbers, one image's 990 is needed");
}

#[test]
fn a_map_that_is_an_output_already_is_used() {
    let mut graph = Graph::parse(NETWORK).unwrap();
    let first = ClassMaps::attach(&mut graph).unwrap();
    let outputs = graph.outputs.len();
    assert_eq!(ClassMaps::attach(&mut graph).unwrap().output(), first.output());
    assert_eq!(graph.outputs.len(), outputs);
}
