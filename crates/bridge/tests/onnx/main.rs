//! ONNX files: what each operator becomes and computes, names, sizes that are free, and what is on the disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod files;
mod operators;
mod sizes;

use cardinal_bridge::onnx::proto::ModelProto;
use cardinal_bridge::onnx::{Options, check, decode, export, run};
use cardinal_engine::graph::{Conv2d, Graph, Op, ValueId};
use cardinal_engine::reference::{self, Tensor};

/// Numbers in [-1, 1) that look random.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn constant(graph: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
    let data = numbers(name.len() as u64 + shape.len() as u64, shape.iter().product());
    graph.constant(name, shape, data).unwrap()
}

/// Of one convolution of 3x3 with stride 2, `channels` to 4, on a map of `[h, w]`.
fn conv_graph(channels: usize, [h, w]: [usize; 2]) -> Graph {
    let mut graph = Graph::new("net");
    let x = graph.input("input", [1, channels, h, w]);
    let weight = constant(&mut graph, "stem.conv.weight", &[4, channels, 3, 3]);
    let conv = Conv2d { stride: [2; 2], padding: [1; 4], ..Conv2d::plain() };
    let y = graph.push("stem.conv", Op::Conv2d(conv), &[x, weight]).unwrap();
    graph.output(y);
    graph
}

fn written(graph: &Graph, options: &Options) -> ModelProto {
    let model = decode(&export(graph, options).unwrap().encode().unwrap()).unwrap();
    check::structure(&model).unwrap();
    model
}

/// The file of `graph`, after a run of it and of the graph on `images` images gave the same.
fn same(graph: &Graph, options: &Options, images: usize) -> ModelProto {
    let model = written(graph, options);
    let shape = [&[images], &graph.shape(graph.inputs[0])[1..]].concat();
    let x = numbers(7, shape.iter().product());
    let expected = reference::evaluate(graph, &[Tensor::new(shape.clone(), x.clone()).unwrap()]).unwrap();
    let found = run::evaluate(&model, run::Tensor::new(shape, x).unwrap(), 1).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.shape, expected.shape);
        for (a, b) in found.floats().unwrap().iter().zip(&expected.data) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} and {b}");
        }
    }
    model
}

/// The operators of a file, in order.
fn operators(model: &ModelProto) -> Vec<&str> {
    model.graph.as_ref().unwrap().node.iter().map(|node| node.op_type.as_str()).collect()
}
