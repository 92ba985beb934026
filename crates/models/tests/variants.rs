//! Other input sizes, channels and numbers of classes, against timm.

mod common;

use cardinal_models::Backbone;
use cardinal_models::ModelOptions;
use cardinal_models::burn::tensor::Device;
use common::{json, numbers, relative_error, rule_input, rule_model, tensors};
use serde_json::Value;

#[test]
fn other_sizes_channels_and_classes_agree_with_timm() {
    let golden = json("variants.json");
    let logits = tensors("variants.safetensors");
    let variants = golden["models"].as_object().expect("a table of variants");
    assert!(variants.len() >= 40);
    for (key, variant) in variants {
        let error = error_of(variant, &logits.get(&format!("{key}/logits")).unwrap().to_f32());
        println!("{key}: relative L2 error {error:.1e}");
        assert!(error <= 1e-4, "{key}: relative L2 error {error}");
    }
}

fn error_of(variant: &Value, expected: &[f32]) -> f64 {
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let [h, w] = [number(&variant["height"]), number(&variant["width"])];
    let (batch, in_chans) = (number(&variant["batch"]), number(&variant["in_chans"]));
    let options =
        ModelOptions::new().with_in_chans(in_chans).with_num_classes(number(&variant["num_classes"]));
    let device = Device::flex();
    let model = rule_model(variant["model"].as_str().unwrap(), &options, &device);
    let logits = model.forward(rule_input([batch, in_chans, h, w], &device));
    relative_error(&numbers(logits), expected)
}
