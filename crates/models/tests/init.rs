//! New networks start as timm's do: every parameter's distribution, by name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::tensor::Device;
use cardinal_models::weights::state_dict;
use cardinal_models::{ModelOptions, create};
use common::json;
use serde_json::Value;

#[test]
fn every_parameter_is_drawn_as_in_timm() {
    let golden = json("init.json");
    for (name, expected) in golden["models"].as_object().unwrap() {
        let device = Device::flex();
        device.seed(1);
        let model = create(name, &ModelOptions::default(), &device).unwrap();
        let state = state_dict(&model).unwrap();
        for (parameter, expected) in expected.as_object().unwrap() {
            let tensor = state.get(parameter).unwrap_or_else(|| panic!("{name} has no {parameter}"));
            check(&format!("{name}: {parameter}"), &tensor.to_f32(), expected);
        }
    }
}

fn check(what: &str, values: &[f32], expected: &Value) {
    if let Some(constant) = expected["constant"].as_f64() {
        assert!(values.iter().all(|v| f64::from(*v) == constant), "{what} is not {constant} everywhere");
        return;
    }
    let number = |key: &str| expected[key].as_f64().unwrap();
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let std =
        (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
    let wanted = number("std");
    // Both are samples. The mean's error is std / sqrt(n), the deviation's about std / sqrt(2 n); five of each, twice.
    let slack = 10.0 * wanted / n.sqrt();
    assert!((mean - number("mean")).abs() <= slack, "{what}: mean {mean}, timm {}", number("mean"));
    assert!((std - wanted).abs() <= slack, "{what}: deviation {std}, timm {wanted}");
    // A uniform distribution ends at 1.73 deviations, a normal one does not.
    let reach = |low: f64, high: f64| low.abs().max(high.abs()) / wanted;
    let (low, high) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(f64::from(*v)), high.max(f64::from(*v))));
    if n >= 1000.0 {
        let (ours, timm) = (reach(low, high), reach(number("min"), number("max")));
        assert_eq!(ours < 2.0, timm < 2.0, "{what}: reaches {ours} deviations, in timm {timm}");
    }
}
