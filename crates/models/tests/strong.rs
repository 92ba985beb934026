//! Inputs that move the logits, at other sizes, channels and numbers of classes, against timm in f64.
//!
//! The batches of `parity.rs` are so small that the logits depend on the parameters more than on the image; these are
//! uniform in [-1, 1), and the weights of the mobile networks are amplified until the image shows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_models::weights::{Classifier, load};
use cardinal_models::{Backbone, Model, ModelOptions, create};
use cardinal_weights::{NamedTensors, Tensor as Stored};
use common::{json, numbers, relative_error, rule_weights, signed, tensors};
use serde_json::Value;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| json("strong.json"));

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// The rule's weights, those of convolutions and linear layers times `gain`.
fn amplified(model: &Model, gain: f32) -> NamedTensors {
    let amplify = |(name, tensor): (String, Stored)| {
        if tensor.shape().len() < 2 {
            return (name, tensor);
        }
        let values: Vec<f32> = tensor.to_f32().into_iter().map(|value| value * gain).collect();
        let tensor = Stored::from_f32(tensor.shape().to_vec(), &values).unwrap();
        (name, tensor)
    };
    rule_weights(model).into_iter().map(amplify).collect()
}

/// The relative L2 error of a golden entry's logits.
fn error_of(key: &str, golden: &Value, logits: &NamedTensors) -> f64 {
    let [n, c, h, w] = ["batch", "in_chans", "height", "width"].map(|name| number(&golden[name]));
    let options = ModelOptions::new().with_in_chans(c).with_num_classes(number(&golden["num_classes"]));
    let device = Device::flex();
    let model = create(golden["model"].as_str().unwrap(), &options, &device).unwrap();
    let weights = amplified(&model, golden["weight_gain"].as_f64().unwrap() as f32);
    let (model, _) = load(model, &weights, Classifier::MustFit).unwrap();
    let input = TensorData::new(signed("input", n * c * h * w), Shape::from([n, c, h, w]));
    let ours = numbers(model.forward(Tensor::<4>::from_data(input, &device)));
    relative_error(&ours, &logits.get(&format!("{key}/logits")).unwrap().to_f32())
}

/// Checks every `step`-th entry from `start`: the first third is the quick set.
fn check(start: usize, step: usize) {
    let logits = tensors("strong.safetensors");
    let models = GOLDEN["models"].as_object().unwrap();
    assert!(models.len() >= 100);
    for (key, golden) in models.iter().skip(start).step_by(step) {
        let error = error_of(key, golden, &logits);
        assert!(error <= 1e-4, "{key}: relative L2 error {error}");
    }
}

#[test]
fn first_third_agrees_with_timm() {
    check(0, 3);
}

#[test]
#[ignore = "the full set: --include-ignored"]
fn second_third_agrees_with_timm() {
    check(1, 3);
}

#[test]
#[ignore = "the full set: --include-ignored"]
fn last_third_agrees_with_timm() {
    check(2, 3);
}
