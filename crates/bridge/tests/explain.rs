//! Class-activation maps and attention of the registry's networks, captured, optimized and compiled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../models/tests/common/mod.rs"]
mod common;

use burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_bridge::capture;
use cardinal_engine::explain::{Attention, ClassMaps};
use cardinal_engine::graph::Graph;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa, passes};
use cardinal_models::registry::variants;
use cardinal_models::{Backbone, Model, ModelOptions, weights};
use common::{numbers, relative_error, rule_model, signed};

const CLASSES: usize = 7;
const SIZE: usize = 64;

fn graph(model: &Model) -> Graph {
    let forward = |model: &Model, x| model.forward(x);
    let input = [1, model.in_chans(), SIZE, SIZE];
    capture(model.variant().name, model.clone(), input, weights::tensor_names, forward).unwrap()
}

/// The compiled map's mean is the logit, and its features are those of the module.
fn check(name: &str, early: bool) {
    let options = ModelOptions::new().with_num_classes(CLASSES);
    let model = rule_model(name, &options, &Device::flex());
    let image = signed(name, 3 * SIZE * SIZE);
    let x = Tensor::<4>::from_data(
        TensorData::new(image.clone(), Shape::from([1, 3, SIZE, SIZE])),
        &Device::flex(),
    );
    let (features, logits) = (model.forward_features(x.clone()), numbers(model.forward(x)));
    let [_, c, h, w] = features.dims();
    let mut graph = graph(&model);
    let attach = |graph: &mut Graph| ClassMaps::attach(graph).unwrap();
    let (graph, maps) = if early {
        let maps = attach(&mut graph);
        (passes::optimize(graph).unwrap().graph, maps)
    } else {
        let mut graph = passes::optimize(graph).unwrap().graph;
        let maps = attach(&mut graph);
        (graph, maps)
    };
    assert_eq!([maps.channels(), maps.height(), maps.width(), maps.classes()], [c, h, w, CLASSES]);
    let options = Options { batch: 1, dtype: DType::F32, threads: 2, isa: Isa::best() };
    let mut session = Session::new(Plan::new(graph, &options).unwrap().into(), false);
    let outputs = session.run(&[&image]).unwrap();
    let found = outputs.get(maps.output());
    let error = relative_error(found, &numbers(features));
    assert!(error <= 1e-4, "{name}: features differ by {error:e}");
    let sums: Vec<f32> = (0..CLASSES)
        .map(|class| {
            let map = maps.map(found, class).unwrap();
            map.iter().sum::<f32>() / map.len() as f32 + maps.bias(class)
        })
        .collect();
    let error = relative_error(&sums, &logits);
    assert!(error <= 1e-4, "{name}: {sums:?} are not the logits {logits:?}");
}

#[test]
fn maps_of_each_kind_add_up_to_the_logits() {
    for name in
        ["resnet18", "resnest14d", "skresnet18", "tresnet_m", "regnety_032", "efficientnet_b0", "mixnet_s"]
    {
        check(name, true);
        check(name, false);
    }
}

#[test]
fn a_layer_after_the_pooling_is_named() {
    let options = ModelOptions::new().with_num_classes(CLASSES);
    let model = rule_model("fbnetv2_f1", &options, &Device::flex());
    let optimized = passes::optimize(graph(&model)).unwrap().graph;
    for mut graph in [graph(&model), optimized] {
        let error = ClassMaps::attach(&mut graph).unwrap_err().to_string();
        assert!(error.contains("it stands between the pooling and the last linear layer"), "{error}");
    }
}

#[test]
fn every_split_attention_of_a_network_is_found() {
    let units = |name: &str| {
        let model = rule_model(name, &ModelOptions::new().with_num_classes(CLASSES), &Device::flex());
        let mut captured = graph(&model);
        let before = Attention::attach(&mut captured);
        captured.verify().unwrap();
        let mut optimized = passes::optimize(graph(&model)).unwrap().graph;
        let after = Attention::attach(&mut optimized);
        assert_eq!(before, after, "{name}");
        before
    };
    let units_of_50 = units("resnest50d");
    assert_eq!(units_of_50.len(), 16);
    assert!(units_of_50.iter().all(|unit| unit.radix == 2 && unit.cardinality == 1));
    let places: Vec<_> = units_of_50.iter().map(|unit| (unit.place.as_str(), unit.channels)).collect();
    assert_eq!(places[0], ("layer1.0.conv2", 64));
    assert_eq!(places[15], ("layer4.2.conv2", 512));
    let fast = units("resnest50d_4s2x40d");
    assert!(fast.iter().all(|unit| unit.radix == 4 && unit.cardinality == 2));
    assert!(units("resnet18").is_empty());
}

/// Every network but those with a layer between pooling and classifier. Minutes.
#[test]
#[ignore = "all networks: run with --include-ignored"]
fn maps_of_every_network_add_up_to_the_logits() {
    for variant in variants().filter(|variant| !variant.name.contains("fbnet")) {
        check(variant.name, true);
    }
}
