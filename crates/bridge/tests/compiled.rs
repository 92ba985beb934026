//! Networks of the registry: captured, optimized and compiled, against the eager Burn modules, with rule weights.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "errors are shown beside their bounds")]

#[path = "../../models/tests/common/mod.rs"]
mod common;

use burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_bridge::capture;
use cardinal_engine::graph::Graph;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa, passes};
use cardinal_models::registry::variants;
use cardinal_models::{Backbone, Model, ModelOptions, weights};
use common::{relative_error, rule_model, signed};
use std::sync::Arc;

fn graph(model: &Model, [h, w]: [usize; 2]) -> Graph {
    let input = [1, model.in_chans(), h, w];
    capture(model.variant().name, model.clone(), input, weights::tensor_names, |model, x| model.forward(x))
        .unwrap()
}

/// Layers with weights on the longest path, near enough: what "times depth" means for the error.
fn depth(graph: &Graph) -> f64 {
    graph.nodes.iter().filter(|node| matches!(node.op.name(), "conv2d" | "linear")).count() as f64
}

fn eager(model: &Model, input: &[f32], shape: [usize; 4]) -> Vec<f32> {
    let x = Tensor::<4>::from_data(TensorData::new(input.to_vec(), Shape::from(shape)), &Device::flex());
    model.forward(x).into_data().try_to_vec::<f32>().unwrap()
}

fn compiled(graph: &Graph, input: &[f32], batch: usize, dtype: DType, threads: usize) -> Vec<f32> {
    let options = Options { batch, dtype, threads, isa: Isa::best() };
    let plan = Plan::new(graph.clone(), &options).unwrap();
    Session::new(Arc::new(plan), false).run(&[input]).unwrap().get(0).to_vec()
}

/// One network in both formats, a batch of `images` of `[h, w]`.
fn check(name: &str, [h, w]: [usize; 2], images: usize) {
    let model = rule_model(name, &ModelOptions::new().with_num_classes(37), &Device::flex());
    let shape = [images, 3, h, w];
    let input = signed(&format!("{name} {h} {w}"), shape.iter().product());
    let expected = eager(&model, &input, shape);
    let captured = graph(&model, [h, w]);
    let optimized = passes::optimize(captured).unwrap().graph;
    let bound = (1e-5 * depth(&optimized)).min(1e-4);
    let error = relative_error(&compiled(&optimized, &input, images, DType::F32, 2), &expected);
    println!("{name} {h}x{w} x{images}: f32 {error:.1e} (bound {bound:.0e})");
    if error > bound {
        // Some very deep networks with these weights magnify any rounding; then the answers can agree no better than
        // eager's own do when its input moves by some roundings.
        let moved: Vec<f32> = input.iter().map(|x| x * (1.0 + 1e-5)).collect();
        let own = relative_error(&eager(&model, &moved, shape), &expected);
        println!("{name} {h}x{w} x{images}: eager moves by {own:.1e} if its input does by 1e-5");
        assert!(own > bound && error <= own, "{name} f32: {error:e} > {bound:e}, and eager moves by {own:e}");
        return;
    }
    let error = relative_error(&compiled(&optimized, &input, images, DType::Bf16, 2), &expected);
    println!("{name} {h}x{w} x{images}: bf16 {error:.1e}");
    assert!(error <= 2e-2, "{name} bf16: {error:e}");
}

#[test]
fn a_network_of_each_kind_computes_what_eager_does() {
    check("resnet18", [64, 64], 2);
    check("resnet50d", [65, 47], 1);
    check("resnest14d", [64, 80], 3);
    check("resnest50d_1s4x24d", [61, 64], 1);
    check("resnext50_32x4d", [64, 64], 1);
    check("skresnet18", [64, 64], 1);
    check("tresnet_m", [64, 96], 2);
    check("tresnet_l", [64, 64], 1);
    check("mixnet_s", [64, 64], 1);
    check("sa_fbnetv2_f1", [64, 64], 1);
    check("efficientnet_b0", [64, 64], 1);
    check("tf_efficientnet_b0", [63, 64], 1);
}

#[test]
fn batches_of_every_size_and_thread_counts_agree() {
    let model = rule_model("resnest14d", &ModelOptions::new().with_num_classes(5), &Device::flex());
    let optimized = passes::optimize(graph(&model, [48, 48])).unwrap().graph;
    let one = 3 * 48 * 48;
    let input = signed("batches", 33 * one);
    let single: Vec<f32> =
        input.chunks(one).flat_map(|image| compiled(&optimized, image, 1, DType::F32, 1)).collect();
    for batch in [1, 2, 3, 5, 8, 16, 31, 33] {
        for threads in 1..=4 {
            let found = compiled(&optimized, &input[..batch * one], batch, DType::F32, threads);
            let error = relative_error(&found, &single[..batch * 5]);
            assert!(error <= 1e-5, "{batch} images on {threads} threads: {error:e}");
        }
    }
}

#[test]
fn what_is_captured_from_a_clone_leaves_the_module_alone() {
    let model = rule_model("resnest14d", &ModelOptions::new().with_num_classes(5), &Device::flex());
    let input = signed("alone", 3 * 32 * 32);
    let before = eager(&model, &input, [1, 3, 32, 32]);
    let first = graph(&model, [32, 32]);
    assert_eq!(eager(&model, &input, [1, 3, 32, 32]), before);
    assert_eq!(graph(&model, [32, 32]), first);
}

#[test]
fn the_same_run_gives_the_same_bits() {
    let model = rule_model("tresnet_m", &ModelOptions::new().with_num_classes(5), &Device::flex());
    let optimized = passes::optimize(graph(&model, [64, 64])).unwrap().graph;
    let input = signed("same", 2 * 3 * 64 * 64);
    for dtype in [DType::F32, DType::Bf16] {
        let plan = Arc::new(
            Plan::new(optimized.clone(), &Options { batch: 2, dtype, threads: 2, isa: Isa::best() }).unwrap(),
        );
        let first = Session::new(Arc::clone(&plan), false).run(&[&input]).unwrap().get(0).to_vec();
        // Sessions share a plan and run at the same time.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut session = Session::new(Arc::clone(&plan), false);
                    for _ in 0..3 {
                        assert_eq!(session.run(&[&input]).unwrap().get(0), first);
                    }
                });
            }
        });
    }
}

/// Every network at its own size. Minutes.
#[test]
#[ignore = "all networks at full size: run with --include-ignored"]
fn every_network_computes_what_eager_does() {
    for variant in variants() {
        check(variant.name, [variant.size; 2], 1);
    }
}

#[test]
fn an_operator_that_the_engine_lacks_is_named_with_its_place() {
    let model = rule_model("resnet18", &ModelOptions::new(), &Device::flex());
    let error =
        capture("cut", model, [1, 3, 32, 32], weights::tensor_names, |model, x| model.forward(x).sin());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("after fc") && text.contains("Sin"), "{text}");
}
