//! A small network and images that it can learn.
#![allow(dead_code, reason = "each test file uses its own part")]

use burn::tensor::Device;
use cardinal_data::Random;
use cardinal_models::{Model, ModelOptions, registry};
use cardinal_train::loss::{Loss, LossKind};
use cardinal_train::optim::{Method, OptimizerSettings};
use cardinal_train::schedule::Rates;
use cardinal_train::step::{EagerStep, StepInput, StepSettings};

/// How steps are taken here.
pub(crate) const SETTINGS: StepSettings = StepSettings {
    rates: Rates { lr: 0.05, momentum: None },
    ema_decay: 0.9,
    drop_block: 0.0,
    seed: 1,
    update: true,
};

/// SGD with Nesterov's momentum and weight decay.
pub(crate) fn settings() -> OptimizerSettings {
    let method = Method::Sgd { momentum: 0.9, nesterov: true };
    OptimizerSettings { method, weight_decay: 1e-4, decay_vectors: false, decoupled: false, clip_norm: None }
}

/// The network called `name` with four classes and a moving average.
pub(crate) fn eager(name: &str, frozen: impl Fn(&str) -> bool) -> EagerStep {
    with_options(name, &ModelOptions::new().with_num_classes(4), frozen)
}

/// The same with other options.
pub(crate) fn with_options(name: &str, options: &ModelOptions, frozen: impl Fn(&str) -> bool) -> EagerStep {
    let device = Device::flex().autodiff();
    let model = Model::new(registry::find(name).unwrap(), options, &device);
    EagerStep::new(model, &device, Loss::from(LossKind::CrossEntropy), settings(), true, frozen).unwrap()
}

/// Random images of 32 x 32 with labels out of four classes.
pub(crate) struct Images {
    pub(crate) pixels: Vec<f32>,
    targets: Vec<f32>,
    labels: Vec<u32>,
}

impl Images {
    pub(crate) fn new(count: usize) -> Self {
        let mut random = Random::new(count as u64, &[]);
        let labels: Vec<u32> = (0..count as u32).map(|i| i % 4).collect();
        let targets = labels.iter().flat_map(|&l| (0..4).map(move |c| f32::from(u8::from(c == l)))).collect();
        let pixels = (0..count * 3 * 32 * 32).map(|_| random.uniform(-1.0, 1.0) as f32).collect();
        Self { pixels, targets, labels }
    }

    pub(crate) fn input(&self) -> StepInput<'_> {
        let size = [self.labels.len(), 3, 32, 32];
        StepInput { images: &self.pixels, size, targets: &self.targets, labels: &self.labels }
    }
}
