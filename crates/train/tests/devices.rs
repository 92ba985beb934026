//! Steps on a graphics card are those on the processor, but for rounding. Built with `--features vulkan` only, and left
//! out, with a line that says so, where there is no Vulkan device.
#![cfg(feature = "vulkan")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::{Model, ModelOptions, registry};
use cardinal_train::device::DeviceKind;
use cardinal_train::loss::{Loss, LossKind};
use cardinal_train::step::{EagerStep, Step};
use cardinal_weights::NamedTensors;
use common::{Images, SETTINGS, eager, settings};

#[test]
fn vulkan_takes_the_steps_that_the_processor_takes() {
    let device = match DeviceKind::Vulkan.open() {
        Ok(device) => device.autodiff(),
        Err(error) => return println!("left out: {error}"),
    };
    let images = Images::new(8);
    for name in ["resnest14_digits", "tresnet_digits"] {
        let mut ours = eager(name, |_| false);
        let options = ModelOptions::new().with_num_classes(4);
        let model = Model::new(registry::find(name).unwrap(), &options, &device);
        let loss = Loss::from(LossKind::CrossEntropy);
        let mut theirs = EagerStep::new(model, &device, loss, settings(), true, |_| false).unwrap();
        theirs.restore(&ours.state().unwrap()).unwrap();
        for step in 0..3 {
            let a = ours.train(images.input(), &SETTINGS).unwrap().loss;
            let b = theirs.train(images.input(), &SETTINGS).unwrap().loss;
            // The first loss is a forward pass; what an update's rounding becomes in the next is some hundred times that.
            let limit = if step == 0 { 1e-5 } else { 1e-2 };
            assert!((a - b).abs() <= limit * a, "{name}, step {step}: {a} and {b}");
            if step == 0 {
                same_statistics(&ours.state().unwrap().model, &theirs.state().unwrap().model);
            }
        }
    }
}

/// The running statistics of norms come from the forward pass: rounding alone parts them.
fn same_statistics(ours: &NamedTensors, theirs: &NamedTensors) {
    let statistics = ours.iter().filter(|(name, _)| name.contains("running_"));
    let mut compared = 0;
    for (name, a) in statistics {
        let (a, b) = (a.to_f32(), theirs.get(name).unwrap().to_f32());
        let apart = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let size = a.iter().map(|a| a.powi(2)).sum::<f32>().sqrt();
        assert!(apart <= 1e-4 * size, "{name}: {apart} of {size}");
        compared += 1;
    }
    assert!(compared > 10, "{compared} running statistics");
}
