//! Every network computes what timm computes, from the same weights.
//!
//! One test for each network that timm has: names, shapes, parameter count, stage statistics and logits at 224x224.
//! `fixtures/parity/README.md` says how the golden values were made.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::tensor::{Device, Tensor};
use cardinal_models::registry::find;
use cardinal_models::summary::summarize;
use cardinal_models::weights::{entries, parameter_count};
use cardinal_models::{Backbone, ModelOptions};
use common::{golden_name, json, numbers, relative_error, rule_input, rule_model, tensors};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| json("parity.json"));
static NAMES: LazyLock<HashMap<String, (usize, String)>> = LazyLock::new(names);

/// What a model's logits may differ by: the sums of f32 in another order.
const LOGITS: f64 = 1e-4;

/// Count and digest of each model's state dict.
fn names() -> HashMap<String, (usize, String)> {
    let table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/keys.tsv"));
    let table = table.unwrap();
    let rows = table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    rows.map(|row| (row[0].to_owned(), (row[1].parse().unwrap(), row[2].to_owned()))).collect()
}

/// FNV-1a of the sorted lines `name [d0, d1]`, the statistics included and the counters left out.
fn digest(mut lines: Vec<String>) -> String {
    lines.sort();
    let text = lines.join("\n");
    let hash = text
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    format!("{hash:016x}")
}

/// Checks everything about a network and gives the error of its logits.
fn check(name: &str) -> f64 {
    let device = Device::flex();
    let model = rule_model(name, &ModelOptions::default(), &device);
    let golden = &GOLDEN["models"][name];
    assert_eq!(parameter_count(&model) as u64, golden["params"].as_u64().unwrap(), "parameters");
    let lines: Vec<String> =
        entries(&model).iter().map(|e| format!("{} {:?}", golden_name(&model, &e.name), e.shape)).collect();
    assert_eq!((lines.len(), digest(lines)), NAMES[name], "names and shapes");

    let size = golden["size"].as_u64().unwrap() as usize;
    let batch = golden["batch"].as_u64().unwrap() as usize;
    let x = rule_input([batch, 3, size, size], &device);
    check_features(&model.features(x.clone()), &model.feature_info(), &golden["features"], size);
    let logits = numbers(model.forward(x));
    let expected = tensors("parity.safetensors").get(&format!("{name}/logits")).unwrap().to_f32();
    let error = relative_error(&logits, &expected);
    assert!(error <= LOGITS, "relative L2 error {error}");
    error
}

/// Writes docs/parity.md if `CARDINAL_PARITY_TABLE` names it: `just parity-table`.
fn write_table(names: &[&str]) {
    let Some(path) = std::env::var_os("CARDINAL_PARITY_TABLE") else {
        return;
    };
    let mut text = format!(
        "# Parity with timm\n\nWritten by `just parity-table`. Both sides have the same weights (the rule of \
         `tools/parity.py`) and the same batch of two\nimages of 224x224; the error is the relative L2 difference of the \
         logits in 32-bit floats, Cardinal's eager path against\ntimm {} on PyTorch {}. Names and shapes of all \
         parameters agree too.\n\n| model | parameters (M) | GMACs | error |\n|---|---:|---:|---:|\n",
        GOLDEN["timm"].as_str().unwrap(),
        GOLDEN["torch"].as_str().unwrap(),
    );
    for name in names {
        let summary = summarize(find(name).unwrap(), &ModelOptions::default(), [224; 2]).unwrap();
        let (params, macs) = (summary.params as f64 / 1e6, summary.macs as f64 / 1e9);
        text += &format!("| {name} | {params:.2} | {macs:.3} | {:.1e} |\n", check(name));
    }
    std::fs::write(path, text).unwrap();
}

fn check_features(maps: &[Tensor<4>], info: &[cardinal_models::FeatureInfo], golden: &Value, size: usize) {
    let golden = golden.as_array().unwrap();
    assert_eq!(maps.len(), golden.len());
    for ((map, info), golden) in maps.iter().zip(info).zip(golden) {
        let shape: Vec<u64> = map.dims().iter().map(|d| *d as u64).collect();
        let expected: Vec<u64> =
            golden["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        assert_eq!(shape, expected);
        assert_eq!(map.dims()[1..], [info.channels, size / info.reduction, size / info.reduction]);
        let values = numbers(map.clone());
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
        let std = (square / (values.len() - 1) as f64).sqrt();
        let (golden_mean, golden_std) = (golden["mean"].as_f64().unwrap(), golden["std"].as_f64().unwrap());
        assert!((mean - golden_mean).abs() <= 1e-4 * golden_std, "mean {mean}, timm {golden_mean}");
        assert!((std - golden_std).abs() <= 1e-4 * golden_std, "deviation {std}, timm {golden_std}");
    }
}

macro_rules! parity {
    (quick: [$($name:ident)*] full: [$($slow:ident)*]) => {
        $(#[test] fn $name() { check(stringify!($name)); })*
        $(#[test] #[ignore = "the full set: --include-ignored"] fn $slow() { check(stringify!($slow)); })*

        /// No golden value is left out.
        #[test]
        fn every_golden_model_is_checked() {
            let mut tested = vec![$(stringify!($name),)* $(stringify!($slow),)*];
            let mut golden: Vec<&str> = GOLDEN["models"].as_object().unwrap().keys().map(String::as_str).collect();
            tested.sort_unstable();
            write_table(&tested);
            tested.sort_unstable();
            golden.sort_unstable();
            assert_eq!(tested, golden);
        }
    };
}

parity! {
    quick: [
        resnest14d resnest26d resnest50d resnest50d_1s4x24d resnest50d_4s2x40d resnest101e tresnet_m
        tresnet_l tresnet_v2_l resnet18 resnet34 resnet50 resnet50d resnet101 resnext50_32x4d seresnet50
        seresnext50_32x4d skresnet50 skresnext50_32x4d regnety_040 efficientnet_b0 efficientnet_b1
        efficientnet_b2 efficientnet_b3 tf_efficientnet_b0 mixnet_s mixnet_l resnet18d skresnet18
        skresnet50d tf_efficientnet_b1 tf_mixnet_s
    ]
    full: [
        resnest200e resnest269e tresnet_xl resnet101d resnet152 resnext101_32x8d senet154 efficientnet_b4
        efficientnet_b5 efficientnet_b6 efficientnet_b7 tf_efficientnet_b4 mixnet_m resnet26 resnet26d
        resnet34d resnet152d resnext101_32x4d seresnet101 seresnext101_32x4d skresnet34 legacy_senet154
        tf_efficientnet_b2 tf_efficientnet_b3 tf_efficientnet_b5 tf_efficientnet_b6 tf_efficientnet_b7
        tf_mixnet_m tf_mixnet_l regnety_032 regnety_080 regnety_160
    ]
}
