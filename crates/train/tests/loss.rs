//! Losses and their gradients against PyTorch (`tools/train_fixtures.py`) and finite differences.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn::tensor::{Device, Tensor, TensorData};
use cardinal_train::loss::{Asymmetric, Loss, LossInput, LossKind, triplet};
use serde_json::Value;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../fixtures/train/losses.json")).unwrap());

fn floats(key: &str) -> Vec<f32> {
    GOLDEN[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn labels() -> Vec<u32> {
    GOLDEN["labels"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn tensor(values: Vec<f32>, columns: usize) -> Tensor<2> {
    let rows = values.len() / columns;
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex().autodiff())
}

type OfInput<'a> = &'a dyn Fn(Tensor<2>) -> Tensor<1>;

fn value(of: OfInput<'_>, input: &[f32], columns: usize) -> f64 {
    f64::from(of(tensor(input.to_vec(), columns)).into_data().try_to_vec::<f32>().unwrap()[0])
}

/// Loss and gradient at `input`, compared with PyTorch's and, where it can be, with differences.
fn check(name: &str, of: OfInput<'_>, input: &[f32], columns: usize, differences: bool) {
    let golden = &GOLDEN[name];
    let x = tensor(input.to_vec(), columns).require_grad();
    let loss = of(x.clone());
    let gradient = x.grad(&loss.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
    let loss = f64::from(loss.into_data().try_to_vec::<f32>().unwrap()[0]);
    let expected = golden["loss"].as_f64().unwrap();
    assert!((loss - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{name}: {loss}, PyTorch {expected}");
    for (i, ours) in gradient.into_iter().map(f64::from).enumerate() {
        let expected = golden["gradient"][i].as_f64().unwrap();
        assert!((ours - expected).abs() <= 1e-5, "{name}[{i}]: {ours}, PyTorch {expected}");
        if differences {
            let moved = |by: f32| {
                let mut input = input.to_vec();
                input[i] += by;
                value(of, &input, columns)
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            // The f32 loss carries 1e-6, which the step of 0.02 makes 5e-5; the rest is the third derivative.
            assert!((ours - slope).abs() <= 5e-4, "{name}[{i}]: {ours}, difference {slope}");
        }
    }
}

const BINARY: LossKind = LossKind::BinaryCrossEntropy { threshold: None };

fn check_logits(name: &str, kind: LossKind, targets: &str, differences: bool) {
    let targets = tensor(floats(targets), 5);
    let loss = Loss::from(kind);
    let of =
        |logits| loss.forward(LossInput { logits, targets: targets.clone(), embeddings: None, labels: &[] });
    check(name, &of, &floats("logits"), 5, differences);
}

#[test]
fn losses_on_logits_follow_pytorch() {
    check_logits("cross_entropy", LossKind::CrossEntropy, "soft", true);
    check_logits("binary_cross_entropy", BINARY, "many", true);
    let settings = Asymmetric { positive: 1.0, ..Asymmetric::default() };
    check_logits("asymmetric", LossKind::Asymmetric(settings), "many", false);
    check_logits("asymmetric_default", LossKind::Asymmetric(Asymmetric::default()), "many", false);
}

#[test]
fn a_threshold_makes_targets_hard() {
    let loss = |kind: LossKind, targets| {
        let (logits, targets) = (tensor(floats("logits"), 5), tensor(targets, 5));
        Loss::from(kind).forward(LossInput { logits, targets, embeddings: None, labels: &[] }).into_data()
    };
    let soft: Vec<f32> = floats("many").into_iter().map(|t| 0.1 + 0.6 * t).collect();
    assert_eq!(
        loss(LossKind::BinaryCrossEntropy { threshold: Some(0.2) }, soft),
        loss(BINARY, floats("many"))
    );
}

#[test]
fn without_focus_the_asymmetric_loss_is_the_binary_one() {
    let plain = Asymmetric { positive: 0.0, negative: 0.0, margin: 0.0 };
    let of = |kind: LossKind| {
        let input = |key| tensor(floats(key), 5);
        let input =
            LossInput { logits: input("logits"), targets: input("many"), embeddings: None, labels: &[] };
        Loss::from(kind).forward(input).into_data().try_to_vec::<f32>().unwrap()[0]
    };
    let (asymmetric, binary) = (of(LossKind::Asymmetric(plain)), of(BINARY) * 30.0);
    assert!((asymmetric - binary).abs() < 1e-4 * binary, "{asymmetric} {binary}");
}

#[test]
fn the_triplet_loss_follows_pytorch() {
    let labels = labels();
    check("triplet", &|x| triplet(x, &labels), &floats("embeddings"), 4, false);
}

#[test]
fn the_triplet_loss_has_the_slope_of_its_differences() {
    // With one positive and one negative for each image the weights are 1.
    let of = |x| triplet(x, &[0, 0, 1]);
    let input = &floats("embeddings")[..12];
    let x = tensor(input.to_vec(), 4).require_grad();
    let gradient = x.grad(&of(x.clone()).backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
    for (i, ours) in gradient.into_iter().enumerate() {
        let moved = |by: f32| {
            let mut input = input.to_vec();
            input[i] += by;
            value(&of, &input, 4)
        };
        let slope = (moved(0.01) - moved(-0.01)) / 0.02;
        assert!((f64::from(ours) - slope).abs() <= 5e-4, "[{i}]: {ours}, difference {slope}");
    }
}

#[test]
fn a_batch_without_triplets_costs_nothing() {
    for labels in [[3; 6], [0, 1, 2, 3, 4, 5]] {
        assert_eq!(value(&|x| triplet(x, &labels), &floats("embeddings"), 4), 0.0, "{labels:?}");
    }
}

#[test]
fn cross_entropy_and_triplet_add_up() {
    let input = |key, columns| tensor(floats(key), columns);
    let (logits, targets, embeddings) = (input("logits", 5), input("soft", 5), input("embeddings", 4));
    let labels = labels();
    let both = Loss { kind: LossKind::CrossEntropy, triplet: 0.5 };
    assert!(both.needs_embeddings());
    let loss = both.forward(LossInput { logits, targets, embeddings: Some(embeddings), labels: &labels });
    let loss = f64::from(loss.into_data().try_to_vec::<f32>().unwrap()[0]);
    let golden = |name: &str| GOLDEN[name]["loss"].as_f64().unwrap();
    assert!((loss - golden("cross_entropy") - 0.5 * golden("triplet")).abs() < 1e-5, "{loss}");
}
