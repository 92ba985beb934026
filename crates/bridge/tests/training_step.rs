//! One compiled training step of the registry's networks against PyTorch's in f64: loss, every gradient's norm, every
//! running statistic's norm; with everything that may be computed again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "errors are shown beside their bounds")]

#[path = "../../models/tests/common/mod.rs"]
mod common;

use burn::tensor::Device;
use cardinal_bridge::capture;
use cardinal_engine::graph::Graph;
use cardinal_engine::train::{
    LogitLoss, LossIo, LossRule, Recompute, Role, StepSeed, TrainOptions, TrainPlan, TrainSession, Vector,
};
use cardinal_engine::{DType, Isa};
use cardinal_models::{Backbone, ModelOptions, weights};
use common::{json, rule_input, rule_model};
use serde_json::Value;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| json("parity.json"));

/// The bound of `tools/parity.py`: a ReLU that flips moves early layers.
fn close(ours: f64, golden: f64, total: f64) -> bool {
    (ours - golden).abs() <= 3e-2 * golden + 1e-5 * total
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// The loss and the session after a backward pass.
fn step(graph: &Graph, images: &[f32], batch: usize, recompute: Recompute) -> (f64, TrainSession) {
    let options = TrainOptions {
        batch,
        dtype: DType::F32,
        threads: 2,
        isa: Isa::best(),
        recompute,
        trained: &|_| true,
    };
    let mut session = TrainSession::new(TrainPlan::new(graph, &options).unwrap(), false);
    let classes = session.plan().outputs()[0].elements;
    let logits = session.forward(&[images], StepSeed::default()).unwrap()[0].to_vec();
    let targets: Vec<f32> =
        (0..batch * classes).map(|i| f32::from(u8::from(i % classes == i / classes + 1))).collect();
    let (mut losses, mut gradient) = (vec![0.0; batch], vec![0.0; batch * classes]);
    let io = LossIo {
        logits: &logits,
        targets: &targets,
        scale: 1.0 / batch as f64,
        losses: &mut losses,
        grad: &mut gradient,
    };
    let loss = LogitLoss::new(LossRule::CrossEntropy, classes).unwrap();
    let loss = loss.run(session.pool(), batch, io).unwrap() / batch as f64;
    session.backward(&[&gradient]).unwrap();
    session.keep_statistics();
    (loss, session)
}

fn check(name: &str) {
    let golden = &GOLDEN["models"][name];
    let number = |key: &str| golden[key].as_f64().unwrap();
    let (batch, size) = (number("train_batch") as usize, number("train_size") as usize);
    let device = Device::flex();
    let model = rule_model(name, &ModelOptions::default(), &device);
    let images = rule_input([batch, 3, size, size], &device).into_data().try_to_vec::<f32>().unwrap();
    let input = [1, 3, size, size];
    let graph = capture(name, model, input, weights::tensor_names, |model, x| model.forward(x)).unwrap();
    for recompute in [Recompute::None, Recompute::Expansions] {
        let (loss, session) = step(&graph, &images, batch, recompute);
        let expected = number("train_loss");
        assert!((loss - expected).abs() <= 1e-4 * expected, "loss {loss}, PyTorch {expected}");
        let total = number("grad_norm");
        let (mut square, mut compared, mut worst) = (0.0, 0, 0.0_f64);
        for (index, parameter) in session.parameters().iter().enumerate() {
            let (key, vector) = match parameter.role {
                Role::Trained => ("grad_norms", Vector::Gradients),
                _ if parameter.name.ends_with("mean") => ("running_mean_norms", Vector::Values),
                _ => ("running_var_norms", Vector::Values),
            };
            let (norm, name) = (norm(session.get(vector, index)), &parameter.name);
            let expected = golden[key][name].as_f64().unwrap();
            if parameter.role == Role::Trained {
                assert!(close(norm, expected, total), "{name}: gradient norm {norm}, PyTorch {expected}");
                worst = worst.max((norm - expected).abs() / (expected + 1e-3 * total));
                square += norm * norm;
            } else {
                assert!(
                    (norm - expected).abs() <= 2e-5 * expected,
                    "{name}: norm {norm}, PyTorch {expected}"
                );
            }
            compared += 1;
        }
        let keys = ["grad_norms", "running_mean_norms", "running_var_norms"];
        assert_eq!(compared, keys.iter().map(|key| golden[key].as_object().unwrap().len()).sum::<usize>());
        assert!((square.sqrt() - total).abs() <= 5e-3 * total, "total {} PyTorch {total}", square.sqrt());
        println!(
            "{name} {}: loss {:.1e}, gradients {worst:.1e}",
            recompute.name(),
            (loss - expected).abs() / expected
        );
    }
}

macro_rules! training {
    (quick: [$($name:ident)*] full: [$($slow:ident)*]) => {
        $(#[test] fn $name() { check(stringify!($name)); })*
        $(#[test] #[ignore = "the full set: --include-ignored"] fn $slow() { check(stringify!($slow)); })*
    };
}

training! {
    quick: [
        resnest14d resnest50d_4s2x40d tresnet_m resnet18 seresnext50_32x4d skresnet18 regnety_040
        efficientnet_b0 tf_mixnet_s
    ]
    full: [
        resnest26d resnest50d resnest50d_1s4x24d tresnet_l tresnet_v2_l resnet50 resnet50d seresnet50
        skresnext50_32x4d tf_efficientnet_b0 mixnet_s
    ]
}
