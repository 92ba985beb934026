//! Weights by the rule of `tools/parity.py`, and the golden values that it wrote.
#![allow(dead_code, reason = "each test file uses its own part")]

use cardinal_models::burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_models::weights::{Classifier, entries, load};
use cardinal_models::{Model, ModelOptions, create};
use cardinal_weights::{NamedTensors, Tensor as Stored};
use serde_json::Value;
use std::path::PathBuf;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// `[0, 1)` numbers that depend on the name and the index alone.
fn unit(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let key = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    (1..=count as u64).map(move |i| {
        let z = key.wrapping_add(i.wrapping_mul(GOLDEN));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    })
}

/// Numbers in `[-1, 1)`.
pub(crate) fn signed(name: &str, count: usize) -> Vec<f32> {
    unit(name, count).map(|r| 2.0 * r - 1.0).collect()
}

/// The rule's values for the state-dict entry `name`.
pub(crate) fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let r = unit(name, shape.iter().product());
    let fan_in: usize = shape.iter().skip(1).product();
    // In numpy the square root is taken in f64 and rounded once.
    let bound = (3.0 / fan_in as f64).sqrt() as f32;
    let signed = |r: f32| 2.0 * r - 1.0;
    if name.ends_with("running_var") || (shape.len() == 1 && name.ends_with("weight")) {
        r.map(|r| 0.75 + 0.5 * r).collect()
    } else if name.ends_with("running_mean") {
        r.map(|r| 0.1 * signed(r)).collect()
    } else if shape.len() == 1 {
        r.map(|r| 0.05 * signed(r)).collect()
    } else {
        r.map(|r| signed(r) * bound).collect()
    }
}

/// The rule's tensors for all of a model's entries.
pub(crate) fn rule_weights(model: &Model) -> NamedTensors {
    entries(model)
        .into_iter()
        .map(|entry| {
            let values = values(&golden_name(model, &entry.name), &entry.shape);
            (entry.name, Stored::from_f32(entry.shape, &values).unwrap())
        })
        .collect()
}

/// The name that timm gives a parameter, where ours is another: its legacy SENet has names of its own.
pub(crate) fn golden_name(model: &Model, name: &str) -> String {
    if model.variant().name != "legacy_senet154" {
        return name.to_owned();
    }
    let stem = [
        ("conv1.0", "conv1"),
        ("conv1.1", "bn1"),
        ("conv1.3", "conv2"),
        ("conv1.4", "bn2"),
        ("conv1.6", "conv3"),
    ];
    for (ours, legacy) in stem.into_iter().chain([("bn1", "bn3")]) {
        if let Some(rest) = name.strip_prefix(ours) {
            return format!("layer0.{legacy}{rest}");
        }
    }
    name.replace(".se.", ".se_module.")
        .replace("fc.weight", "last_linear.weight")
        .replace("fc.bias", "last_linear.bias")
}

/// `name` with the rule's weights.
pub(crate) fn rule_model(name: &str, options: &ModelOptions, device: &Device) -> Model {
    let model = create(name, options, device).unwrap();
    let weights = rule_weights(&model);
    load(model, &weights, Classifier::MustFit).unwrap().0
}

/// The rule's input batch.
pub(crate) fn rule_input(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let data = values("input", &shape);
    Tensor::from_data(TensorData::new(data, Shape::from(shape)), device)
}

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity").join(file)
}

/// A JSON file of `fixtures/parity`.
pub(crate) fn json(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(file)).unwrap()).unwrap()
}

/// A safetensors file of `fixtures/parity`.
pub(crate) fn tensors(file: &str) -> NamedTensors {
    cardinal_weights::read(&fixture(file)).unwrap().tensors
}

/// `|a - b| / |b|` over all elements.
pub(crate) fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm).sqrt()
}

pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}
