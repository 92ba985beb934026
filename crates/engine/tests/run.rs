//! Compiled graphs against the plain loops of `reference`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_engine::graph::Graph;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::reference::{Tensor, evaluate};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa, passes};
use std::sync::Arc;

/// A residual block with a strided first convolution, split attention, an SE gate, pooling, blur and a classifier.
const NETWORK: &str = "\
graph mixed batch=free
input %x [1, 3, 33, 29]
const @conv1.weight [16, 3, 7, 7]
const @n1.weight [16]
const @n1.bias [16]
const @n1.mean [16]
const @n1.var [16]
const @conv2.weight [24, 8, 3, 3]
const @fc1.weight [8, 12, 1, 1]
const @fc1.bias [8]
const @fc2.weight [24, 8, 1, 1]
const @conv3.weight [16, 12, 1, 1]
const @dw.weight [16, 1, 3, 3]
const @se1.weight [4, 16, 1, 1]
const @se2.weight [16, 4, 1, 1]
const @fc.weight [10, 16]
const @fc.bias [10]
%0 = conv2d(%x, @conv1.weight) stride=2 padding=3  # conv1 -> [1, 16, 17, 15]
%1 = activated_norm(%0, @n1.weight, @n1.bias, @n1.mean, @n1.var) epsilon=0.00001 slope=0  # n1 -> [1, 16, 17, 15]
%2 = max_pool(%1) kernel=3 stride=2 padding=1  # pool -> [1, 16, 9, 8]
%3 = conv2d(%2, @conv2.weight) padding=1 groups=2 # conv2 -> [1, 24, 9, 8]
%4 = relu(%3)  # act -> [1, 24, 9, 8]
%5 = radix_pool(%4) radix=2  # gap -> [1, 12, 1, 1]
%6 = conv2d(%5, @fc1.weight, bias=@fc1.bias) # fc1 -> [1, 8, 1, 1]
%7 = relu(%6)  # fc1 -> [1, 8, 1, 1]
%8 = conv2d(%7, @fc2.weight) # fc2 -> [1, 24, 1, 1]
%9 = split_attention(%4, %8) radix=2 cardinality=1  # att -> [1, 12, 9, 8]
%10 = avg_pool(%9) kernel=3 padding=1 count_padding  # avd -> [1, 12, 9, 8]
%11 = conv2d(%10, @conv3.weight)  # conv3 -> [1, 16, 9, 8]
%12 = add(%11, %2)  # sum -> [1, 16, 9, 8]
%13 = leaky_relu(%12) slope=0.01  # sum -> [1, 16, 9, 8]
%14 = blur_pool(%13)  # blur -> [1, 16, 5, 4]
%15 = conv2d(%14, @dw.weight) padding=1 groups=16  # dw -> [1, 16, 5, 4]
%16 = silu(%15)  # dw -> [1, 16, 5, 4]
%17 = global_avg_pool(%16)  # se -> [1, 16, 1, 1]
%18 = conv2d(%17, @se1.weight)  # se1 -> [1, 4, 1, 1]
%19 = relu(%18)  # se1 -> [1, 4, 1, 1]
%20 = conv2d(%19, @se2.weight)  # se2 -> [1, 16, 1, 1]
%21 = gate(%16, %20)  # se -> [1, 16, 5, 4]
%22 = global_avg_pool(%21)  # pool -> [1, 16, 1, 1]
%23 = reshape(%22) shape=[1, 16]  # pool -> [1, 16]
%24 = linear(%23, @fc.weight, bias=@fc.bias)  # fc -> [1, 10]
output %24
";

fn input(images: usize, elements: usize) -> Vec<f32> {
    let hash = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..(images * elements) as u32).map(hash).collect()
}

fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    (difference / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

#[test]
fn a_compiled_network_computes_what_the_definition_does() {
    let graph = Graph::parse(NETWORK).unwrap();
    let optimized = passes::optimize(graph.clone()).unwrap().graph;
    for &isa in Isa::available() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::Bf16, 2e-2)] {
            for threads in 1..=4 {
                let options = Options { batch: 7, dtype, threads, isa };
                for graph in [&graph, &optimized] {
                    let plan = Plan::new(graph.clone(), &options).unwrap();
                    let mut session = Session::new(Arc::new(plan), false);
                    for images in [7, 1, 3] {
                        let x = input(images, 3 * 33 * 29);
                        let tensor = Tensor { shape: vec![images, 3, 33, 29], data: x.clone() };
                        let expected = evaluate(graph, &[tensor]).unwrap();
                        let found = session.run(&[&x]).unwrap().get(0).to_vec();
                        let error = relative_error(&found, &expected[0].data);
                        assert!(
                            error < tolerance,
                            "{isa} {} {threads} threads, {images} images: {error}",
                            dtype.name()
                        );
                    }
                }
            }
        }
    }
}
