//! What a training step needs of a captured graph: every value under its name, and marks for what is dropped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn::module::Module;
use burn::tensor::Device;
use cardinal_bridge::capture;
use cardinal_engine::graph::{Drop, Graph, Op};
use cardinal_engine::passes;
use cardinal_models::registry::variants;
use cardinal_models::{Backbone, Model, ModelOptions, create, weights};
use std::collections::{BTreeMap, BTreeSet};

fn graph(model: &Model, side: usize) -> Graph {
    let name = model.variant().name;
    let input = [1, model.in_chans(), side, side];
    capture(name, model.clone(), input, weights::tensor_names, |model, x| model.forward(x)).unwrap()
}

fn dropping() -> ModelOptions {
    ModelOptions::new()
        .with_num_classes(10)
        .with_drop_rate(0.25)
        .with_drop_path_rate(0.125)
        .with_drop_block_rate(0.0625)
}

fn drops(graph: &Graph) -> Vec<(Drop, f32)> {
    let drop = |op: &Op| match op {
        Op::Drop { what, rate } => Some((*what, *rate)),
        _ => None,
    };
    graph.nodes.iter().filter_map(|node| drop(&node.op)).collect()
}

fn count(graph: &Graph, wanted: impl Fn(Drop) -> bool) -> usize {
    drops(graph).into_iter().filter(|(what, _)| wanted(*what)).count()
}

#[test]
fn what_training_drops_is_marked_until_a_network_is_optimized() {
    let device = Device::flex().autodiff();
    let model = create("resnest50d", &dropping(), &device).unwrap();
    let captured = graph(&model, 64);
    assert_eq!(drops(&captured).last(), Some(&(Drop::Elements, 0.25)));
    assert_eq!(count(&captured, |what| what == Drop::Elements), 1);
    // 16 blocks; the first of them has a rate of 0.
    assert_eq!(count(&captured, |what| what == Drop::Images), 15);
    // Three in each of the last nine blocks.
    assert_eq!(count(&captured, |what| what == Drop::Squares { side: 3 }), 27);
    assert!(drops(&captured).contains(&(Drop::Images, 0.125)), "the last block's rate");

    let plain = graph(&create("resnest50d", &ModelOptions::new(), &device).unwrap(), 64);
    assert!(drops(&plain).is_empty());
    let optimized = passes::optimize(captured).unwrap().graph;
    assert!(drops(&optimized).is_empty());
    assert_eq!(optimized.nodes.len(), passes::optimize(plain).unwrap().graph.nodes.len());
}

#[test]
fn drop_block_is_marked_while_its_rate_is_zero() {
    let mut model = create("resnest14d", &dropping(), &Device::flex().autodiff()).unwrap();
    model.set_drop_block_rate(0.0);
    let captured = graph(&model, 64);
    assert!(drops(&captured).contains(&(Drop::Squares { side: 3 }, 0.0)));
}

#[test]
fn frozen_layers_and_inference_drop_nothing() {
    let model = create("resnest14d", &dropping(), &Device::flex().autodiff()).unwrap();
    assert!(drops(&graph(&model.valid(), 64)).is_empty());
    let all = graph(&model, 64);
    let part = graph(&weights::freeze(model, |name| name.starts_with("layer3")), 64);
    // The third stage has one block: stochastic depth and three DropBlocks.
    assert_eq!(drops(&part).len() + 4, drops(&all).len());
}

/// Every parameter and running statistic is a constant of its own name and shape, and the numbers are the model's.
#[test]
fn a_captured_graph_has_every_value_under_its_name() {
    let own =
        ["resnet18", "resnest14d", "tresnet_m", "skresnet18", "regnety_040", "efficientnet_b0", "mixnet_s"];
    for name in own.into_iter().chain(variants().map(|v| v.name).filter(|name| name.contains("digits"))) {
        let model = create(name, &dropping(), &Device::flex().autodiff()).unwrap();
        let captured = graph(&model, 64);
        let constants: BTreeMap<&str, &[usize]> = captured
            .values
            .iter()
            .filter(|value| value.constant().is_some())
            .map(|value| (value.name.as_str(), value.shape.as_slice()))
            .collect();
        let entries = weights::entries(&model);
        for entry in &entries {
            let found = constants.get(entry.name.as_str());
            assert_eq!(found, Some(&entry.shape.as_slice()), "{name}: {}", entry.name);
        }
        let known: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        for constant in constants.keys() {
            assert!(known.contains(constant), "{name}: the constant {constant} is no value of the model");
        }
        // What reads a parameter reads it as it is.
        for node in &captured.nodes {
            let constant = captured[node.inputs[0]].constant().is_some();
            assert!(!constant, "{name}: {} is computed from a parameter alone", node.place());
        }
    }
}

/// Writes the graphs of the digits networks to the folder that `CARDINAL_GRAPHS` names.
#[test]
#[ignore = "writes files for reading"]
fn write_the_graphs_of_the_digits_networks() {
    let folder = std::path::PathBuf::from(std::env::var_os("CARDINAL_GRAPHS").unwrap());
    for name in ["resnest14_digits", "tresnet_digits"] {
        let model = create(name, &dropping(), &Device::flex().autodiff()).unwrap();
        let size = model.variant().size;
        std::fs::write(folder.join(format!("{name}.txt")), graph(&model, size).to_text()).unwrap();
    }
}
