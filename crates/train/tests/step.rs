//! The eager step: accumulation, frozen layers, restoring, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use burn::tensor::Device;
use cardinal_models::{Model, ModelOptions, registry};
use cardinal_train::TrainError;
use cardinal_train::loss::{Loss, LossKind};
use cardinal_train::optim::{Method, OptimizerSettings};
use cardinal_train::step::{EagerStep, Step, StepSettings};
use cardinal_weights::NamedTensors;
use common::{Images, SETTINGS, eager, settings};

#[test]
fn the_loss_falls_on_a_batch_that_comes_again_and_again() {
    let images = Images::new(8);
    let mut step = eager("tresnet_digits", |_| false);
    let losses: Vec<f64> = (0..12).map(|_| step.train(images.input(), &SETTINGS).unwrap().loss).collect();
    assert!(losses[11] < 0.5 * losses[0], "{losses:?}");
    assert_eq!(step.state().unwrap().updates, 12);
}

#[test]
fn a_batch_taken_twice_gives_the_update_of_one() {
    let images = Images::new(8);
    let (mut once, mut twice) = (eager("resnest14_digits", |_| false), eager("resnest14_digits", |_| false));
    let start = once.state().unwrap();
    twice.restore(&start).unwrap();
    let one = once.train(images.input(), &SETTINGS).unwrap();
    let first = twice.train(images.input(), &StepSettings { update: false, ..SETTINGS }).unwrap();
    let second = twice.train(images.input(), &SETTINGS).unwrap();
    assert_eq!((one.loss, first.gradient_norm), (first.loss, None));
    let (a, b) = (one.gradient_norm.unwrap(), second.gradient_norm.unwrap());
    assert!((a - b).abs() <= 1e-5 * a, "{a} {b}");
    let parameters = |state: &NamedTensors| -> Vec<f32> {
        state.iter().filter(|(name, _)| !name.contains("running")).flat_map(|(_, t)| t.to_f32()).collect()
    };
    let moved = parameters(&once.state().unwrap().model);
    for (a, b) in moved.iter().zip(parameters(&twice.state().unwrap().model)) {
        assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} {b}");
    }
    assert_ne!(moved, parameters(&start.model));
}

#[test]
fn frozen_layers_stay_as_they_are_with_their_statistics() {
    let images = Images::new(8);
    let frozen =
        |name: &str| name.starts_with("layer1.") || name.starts_with("conv1.") || name.starts_with("bn1.");
    let mut step = eager("resnest14_digits", frozen);
    let before = step.state().unwrap().model;
    for _ in 0..2 {
        step.train(images.input(), &SETTINGS).unwrap();
    }
    let after = step.state().unwrap().model;
    for (name, tensor) in before.iter() {
        let same = after.get(name) == Some(tensor);
        if frozen(name) {
            assert!(same, "{name} moved");
        } else if name.ends_with("running_mean") || name.starts_with("fc.") {
            assert!(!same, "{name} did not move");
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_changes_no_parameter() {
    let mut images = Images::new(8);
    images.pixels[7] = f32::NAN;
    let mut step = eager("tresnet_digits", |_| false);
    let before = step.state().unwrap();
    let output = step.train(images.input(), &SETTINGS).unwrap();
    assert!(output.loss.is_nan() && output.gradient_norm.is_none());
    let after = step.state().unwrap();
    assert_eq!((before.updates, &before.optimizer), (after.updates, &after.optimizer));
    let weight = "head.fc.weight";
    assert_eq!(before.model.get(weight), after.model.get(weight));
}

#[test]
fn states_of_something_else_are_refused() {
    let state = eager("resnest14_digits", |_| false).state().unwrap();
    let error = eager("tresnet_digits", |_| false).restore(&state).unwrap_err();
    assert!(matches!(error, TrainError::Model(_)) && error.to_string().contains("does not fit"), "{error}");
    let device = Device::flex().autodiff();
    let model = Model::new(registry::find("resnest14_digits").unwrap(), &options(), &device);
    let adam =
        OptimizerSettings { method: Method::Adam { betas: [0.9, 0.999], epsilon: 1e-8 }, ..settings() };
    let loss = Loss::from(LossKind::CrossEntropy);
    let mut other = EagerStep::new(model, &device, loss, adam, true, |_| false).unwrap();
    let error = other.restore(&state).unwrap_err();
    assert!(error.to_string().contains("another optimizer"), "{error}");
}

fn options() -> ModelOptions {
    ModelOptions::new().with_num_classes(4)
}

#[test]
fn images_of_a_size_that_the_network_cannot_take_are_an_error() {
    let images = Images::new(2);
    let mut step = eager("tresnet_digits", |_| false);
    let input = cardinal_train::step::StepInput { size: [8, 3, 16, 16], ..images.input() };
    assert!(step.train(input, &SETTINGS).unwrap_err().to_string().contains("at least 20"));
}
