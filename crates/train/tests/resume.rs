//! A run that is saved and continued takes the steps that it would have taken, bit for bit, with everything that draws
//! random numbers. One test to a process: Burn has one stream of random numbers for the processor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::ModelOptions;
use cardinal_train::checkpoint::{Checkpoint, Progress};
use cardinal_train::recipe::Recipe;
use cardinal_train::step::{EagerStep, Step, StepSettings};
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
    assert_eq!(read, checkpoint);
    let mut continued = step();
    continued.restore(&read.state).unwrap();
    assert_eq!(train(&mut continued, &images, 3..6), losses);
    assert_eq!(continued.state().unwrap(), whole.state().unwrap());
    // Another seed draws otherwise: the losses above are not equal by chance.
    let mut other = step();
    other.restore(&read.state).unwrap();
    assert_ne!(train(&mut other, &images, 4..7), losses);
}
