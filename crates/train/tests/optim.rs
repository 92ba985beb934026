//! Optimizers and averages step by step against PyTorch and timm (`tools/train_fixtures.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_train::optim::{Ema, Method, Optimizer, OptimizerSettings, Parameter};
use cardinal_train::recipe::Recipe;
use cardinal_train::schedule::Rates;
use serde_json::Value;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../fixtures/train/optim.json")).unwrap());

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn lists(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

fn parameters() -> Vec<Parameter> {
    let shapes = [vec![3, 4], vec![4]];
    let named = lists(&GOLDEN["start"]).into_iter().zip(shapes).zip(["weight", "bias"]);
    named.map(|((values, shape), name)| Parameter { name: name.into(), shape, values }).collect()
}

/// Six roundings of values of order 1 stay within 2e-6.
fn assert_close(ours: &[f32], golden: &[f32], what: &str) {
    assert_eq!(ours.len(), golden.len());
    for (a, b) in ours.iter().zip(golden) {
        assert!((a - b).abs() <= 2e-6 * b.abs().max(1.0), "{what}: {a}, PyTorch {b}");
    }
}

fn check(name: &str, settings: OptimizerSettings) {
    let golden = &GOLDEN[name];
    let mut parameters = parameters();
    let mut optimizer = Optimizer::new(settings, &parameters);
    let gradients = GOLDEN["gradients"].as_array().unwrap();
    for (step, gradient) in gradients.iter().enumerate() {
        // Halfway, the run stops and a new optimizer continues from the state.
        if step == 3 {
            let state = optimizer.state().clone();
            optimizer = Optimizer::new(settings, &parameters);
            optimizer.set_state(state).unwrap();
        }
        let lr = GOLDEN["rates"][step].as_f64().unwrap();
        let norm = optimizer.update(&mut parameters, &mut lists(gradient), Rates { lr, momentum: None });
        if let Some(golden) = golden["norms"][step].as_f64() {
            assert!((norm - golden).abs() < 1e-5, "{name}: norm {norm}, PyTorch {golden}");
        }
        for (parameter, golden) in parameters.iter().zip(lists(&golden["steps"][step])) {
            assert_close(&parameter.values, &golden, &format!("{name}, step {step}, {}", parameter.name));
        }
    }
    assert_eq!(optimizer.state().updates, 6);
}

fn sgd(momentum: f64, nesterov: bool, weight_decay: f64) -> OptimizerSettings {
    let method = Method::Sgd { momentum, nesterov };
    OptimizerSettings { method, weight_decay, decay_vectors: false, decoupled: false, clip_norm: None }
}

#[test]
fn every_optimizer_follows_pytorch() {
    check("sgd", sgd(0.0, false, 0.0));
    check("momentum", sgd(0.9, false, 0.05));
    check("nesterov", sgd(0.9, true, 0.05));
    check("nesterov_decoupled", OptimizerSettings { decoupled: true, ..sgd(0.9, true, 0.05) });
    check("clipped", OptimizerSettings { clip_norm: Some(1.5), ..sgd(0.9, false, 0.05) });
    let adam = OptimizerSettings {
        method: Method::Adam { betas: [0.9, 0.999], epsilon: 1e-8 },
        ..sgd(0.0, false, 0.05)
    };
    check("adam", adam);
    check("adamw", OptimizerSettings { decoupled: true, ..adam });
}

#[test]
fn averages_follow_timm() {
    for (name, warmup) in [("ema", false), ("ema_warmup", true)] {
        let start = lists(&GOLDEN["start"])[..1].to_vec();
        let mut recipe = Recipe::default();
        (recipe.ema.model_ema_decay, recipe.ema.model_ema_warmup) = (0.7, warmup);
        let mut ema = Ema::new(start);
        for (step, gradient) in GOLDEN["gradients"].as_array().unwrap().iter().enumerate() {
            let values = &lists(gradient)[..1];
            ema.update(values.iter().map(Vec::as_slice), recipe.ema_decay(step as u64));
            assert_close(&ema.values()[0], &floats(&GOLDEN[name][step]), name);
        }
    }
}

#[test]
fn what_is_not_finite_updates_nothing() {
    let mut parameters = parameters();
    let before = parameters.clone();
    let mut optimizer = Optimizer::new(sgd(0.9, true, 0.05), &parameters);
    let mut gradients = vec![vec![1.0; 12], vec![f32::NAN; 4]];
    assert!(optimizer.update(&mut parameters, &mut gradients, Rates { lr: 0.1, momentum: None }).is_nan());
    assert_eq!((parameters, optimizer.state().updates), (before, 0));
}

#[test]
fn a_state_of_another_optimizer_is_refused() {
    let parameters = parameters();
    let plain = Optimizer::new(sgd(0.0, false, 0.0), &parameters);
    let mut momentum = Optimizer::new(sgd(0.9, false, 0.0), &parameters);
    assert!(momentum.set_state(plain.state().clone()).is_err());
}
