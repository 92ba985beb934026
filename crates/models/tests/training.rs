//! One eager training step against PyTorch's in f64: loss, every gradient's norm, every running statistic's norm.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::module::{Module, ModuleVisitor, Param};
use cardinal_models::burn::tensor::activation::log_softmax;
use cardinal_models::burn::tensor::{Device, Gradients, Int, Tensor};
use cardinal_models::weights::{entries, state_dict};
use cardinal_models::{Backbone, Model, ModelOptions};
use common::{json, rule_input, rule_model};
use serde_json::Value;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| json("parity.json"));

/// Gradient norms in the order of the float parameters; the names come from `entries`, which has the same order.
struct GradientNorms<'a> {
    gradients: &'a Gradients,
    norms: Vec<Option<f64>>,
}

impl ModuleVisitor for GradientNorms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let norm = param.val().grad(self.gradients).map(|gradient| {
            let values = gradient.into_data().try_to_vec::<f32>().unwrap();
            values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
        });
        self.norms.push(norm);
    }
}

fn cross_entropy(logits: Tensor<2>) -> Tensor<1> {
    let [n, _] = logits.dims();
    let labels = Tensor::<1, Int>::arange(1..n as i64 + 1, &logits.device()).reshape([n, 1]);
    -log_softmax(logits, 1).gather(1, labels).mean()
}

/// `|a - b| <= 1e-2 b + 1e-5 total`: tighter than the bound of `tools/parity.py`, where PyTorch's own f32 strays further.
fn close(ours: f64, golden: f64, total: f64) -> bool {
    (ours - golden).abs() <= 1e-2 * golden + 1e-5 * total
}

fn check(name: &str) {
    let golden = &GOLDEN["models"][name];
    let number = |key: &str| golden[key].as_f64().unwrap();
    let (batch, size) = (number("train_batch") as usize, number("train_size") as usize);
    let device = Device::flex().autodiff();
    let model = rule_model(name, &ModelOptions::default(), &device);
    let loss = cross_entropy(model.forward(rule_input([batch, 3, size, size], &device)));
    let gradients = loss.backward();
    let loss = f64::from(loss.into_data().try_to_vec::<f32>().unwrap()[0]);
    assert!((loss - number("train_loss")).abs() <= 1e-4 * number("train_loss"), "loss {loss}");
    check_gradients(&model, &gradients, golden);
    check_statistics(&model, golden);
}

fn check_gradients(model: &Model, gradients: &Gradients, golden: &Value) {
    let mut visitor = GradientNorms { gradients, norms: Vec::new() };
    model.visit(&mut visitor);
    let total = golden["grad_norm"].as_f64().unwrap();
    let mut square = 0.0;
    let mut compared = 0;
    for (entry, norm) in entries(model).iter().zip(visitor.norms).filter(|(entry, _)| !entry.buffer) {
        let norm = norm.unwrap_or_else(|| panic!("{} has no gradient", entry.name));
        let expected = golden["grad_norms"][&entry.name].as_f64().unwrap();
        assert!(close(norm, expected, total), "{}: gradient norm {norm}, PyTorch {expected}", entry.name);
        square += norm * norm;
        compared += 1;
    }
    assert_eq!(compared, golden["grad_norms"].as_object().unwrap().len());
    // The stated bound for one gradient, halved: errors of many parameters average out.
    assert!((square.sqrt() - total).abs() <= 5e-3 * total, "total {} PyTorch {total}", square.sqrt());
}

fn check_statistics(model: &Model, golden: &Value) {
    let state = state_dict(model).unwrap();
    for key in ["running_mean_norms", "running_var_norms"] {
        let norms = golden[key].as_object().unwrap();
        assert!(!norms.is_empty());
        for (name, expected) in norms {
            let values = state.get(name).unwrap().to_f32();
            let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let expected = expected.as_f64().unwrap();
            assert!((norm - expected).abs() <= 1e-3 * expected, "{name}: norm {norm}, PyTorch {expected}");
        }
    }
}

macro_rules! training {
    (quick: [$($name:ident)*] full: [$($slow:ident)*]) => {
        $(#[test] fn $name() { check(stringify!($name)); })*
        $(#[test] #[ignore = "the full set: --include-ignored"] fn $slow() { check(stringify!($slow)); })*

        #[test]
        fn every_golden_step_is_checked() {
            let golden = GOLDEN["models"].as_object().unwrap();
            let golden: Vec<&str> =
                golden.iter().filter(|(_, m)| m.get("train_loss").is_some()).map(|(name, _)| name.as_str()).collect();
            let mut tested = vec![$(stringify!($name),)* $(stringify!($slow),)*];
            tested.sort_unstable();
            assert_eq!(tested, golden);
        }
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
