//! A run that is saved and continued takes the steps that it would have taken, bit for bit, with everything that draws
//! random numbers. One test to a process: Burn has one stream of random numbers for the processor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::ModelOptions;
use cardinal_train::checkpoint::{Checkpoint, Progress};
use cardinal_train::recipe::Recipe;
use cardinal_train::step::{EagerStep, Step, StepSettings, StepState};
use cardinal_weights::{NamedTensors, Tensor};
use common::{Images, SETTINGS, with_options};

fn step() -> EagerStep {
    let options = ModelOptions::new()
        .with_num_classes(4)
        .with_drop_rate(0.2)
        .with_drop_path_rate(0.2)
        .with_drop_block_rate(0.1);
    with_options("resnest14_digits", &options, |_| false)
}

fn train(step: &mut EagerStep, images: &Images, steps: std::ops::Range<u64>) -> Vec<f64> {
    let settings = |number| StepSettings { seed: 100 + number, drop_block: 0.05, ..SETTINGS };
    steps.map(|number| step.train(images.input(), &settings(number)).unwrap().loss).collect()
}

/// The names of tensors that are not the same in both, whatever their order.
fn differences(a: &StepState, b: &StepState) -> Vec<String> {
    assert_eq!(a.updates, b.updates);
    let all = |state: &StepState| -> Vec<(String, Tensor)> {
        let ema = state.ema.clone().unwrap();
        let named = |prefix: &'static str, list: NamedTensors| {
            list.into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
        };
        let mut all: Vec<_> = named("", state.model.clone())
            .chain(named("ema.", ema))
            .chain(named("optimizer.", state.optimizer.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let (a, b) = (all(a), all(b));
    assert_eq!(a.len(), b.len());
    a.into_iter().zip(b).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
}

#[test]
fn a_continued_run_is_the_uninterrupted_one() {
    let images = Images::new(8);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    let mut whole = step();
    train(&mut whole, &images, 0..3);
    let state = whole.state().unwrap();
    let checkpoint = Checkpoint {
        state,
        progress: Progress { epoch: 1, batch: 2, ..Progress::default() },
        recipe: Recipe::default(),
        about: Default::default(),
    };
    checkpoint.write(&path).unwrap();
    let losses = train(&mut whole, &images, 3..6);
    let read = Checkpoint::read(&path).unwrap();
    assert_eq!((&read.progress, &read.recipe), (&checkpoint.progress, &checkpoint.recipe));
    assert_eq!(differences(&read.state, &checkpoint.state), [""; 0]);
    let mut continued = step();
    continued.restore(&read.state).unwrap();
    assert_eq!(train(&mut continued, &images, 3..6), losses);
    assert_eq!(differences(&continued.state().unwrap(), &whole.state().unwrap()), [""; 0]);
    // Another seed draws otherwise: the losses above are not equal by chance.
    let mut other = step();
    other.restore(&read.state).unwrap();
    assert_ne!(train(&mut other, &images, 4..7), losses);
}
