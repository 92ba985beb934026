//! The compiled step against the eager one, and against itself where it is saved and continued.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "errors are shown beside their bounds")]

mod common;

use burn::tensor::Device;
use cardinal_data::Random;
use cardinal_engine::DType;
use cardinal_models::weights::{Entry, entries, set_values};
use cardinal_models::{Model, ModelOptions, registry};
use cardinal_train::TrainError;
use cardinal_train::loss::{Asymmetric, Loss, LossKind};
use cardinal_train::optim::{Method, OptimizerSettings};
use cardinal_train::schedule::Rates;
use cardinal_train::step::{
    CompiledOptions, CompiledStep, EagerStep, Step, StepInput, StepSettings, StepState,
};
use cardinal_weights::NamedTensors;
use common::{Images, SETTINGS, settings};

const NETWORKS: [&str; 2] = ["resnest14_digits", "tresnet_digits"];

/// What a pair of steps is made with.
struct Case {
    name: &'static str,
    options: ModelOptions,
    loss: Loss,
    optimizer: OptimizerSettings,
    frozen: fn(&str) -> bool,
    dtype: DType,
}

impl Case {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            // A residual branch that starts at zero has no gradient but in its last norm.
            options: ModelOptions::new().with_num_classes(4).with_zero_init_last(false),
            loss: Loss::from(LossKind::CrossEntropy),
            optimizer: settings(),
            frozen: |_| false,
            dtype: DType::F32,
        }
    }

    fn model(&self) -> (Model, Device) {
        let device = Device::flex().autodiff();
        let model = Model::new(registry::find(self.name).unwrap(), &self.options, &device);
        (drawn(model), device)
    }

    fn eager(&self) -> EagerStep {
        let (model, device) = self.model();
        EagerStep::new(model, &device, self.loss, self.optimizer, true, self.frozen).unwrap()
    }

    fn compiled(&self) -> CompiledStep {
        let (model, _) = self.model();
        let options = CompiledOptions { batch: 64, size: [3, 32, 32], dtype: self.dtype, threads: 2 };
        CompiledStep::new(model, self.loss, self.optimizer, true, self.frozen, &options).unwrap()
    }

    /// Both, with the same weights.
    fn pair(&self) -> (EagerStep, CompiledStep) {
        let (eager, mut compiled) = (self.eager(), self.compiled());
        compiled.restore(&eager.state().unwrap()).unwrap();
        (eager, compiled)
    }
}

/// The model with other values, the same each time: Burn has one stream of random numbers for all tests.
fn drawn(model: Model) -> Model {
    let entries = entries(&model).into_iter().filter(|entry| !entry.buffer);
    let draw = |(index, entry): (usize, Entry)| {
        let mut random = Random::new(index as u64, &[]);
        let (inputs, count): (usize, usize) =
            (entry.shape.iter().skip(1).product(), entry.shape.iter().product());
        let (low, high) = match entry.shape.len() {
            1 if entry.name.ends_with("weight") => (0.5, 1.5),
            1 => (-0.2, 0.2),
            _ => (-(6.0 / inputs as f64).sqrt(), (6.0 / inputs as f64).sqrt()),
        };
        (entry.name, (0..count).map(|_| random.uniform(low, high) as f32).collect())
    };
    let values: Vec<(String, Vec<f32>)> = entries.enumerate().map(draw).collect();
    set_values(model, values.iter().map(|(name, values)| (name.as_str(), values.as_slice())))
}

fn norm(numbers: impl Iterator<Item = f32>) -> f64 {
    numbers.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// The largest distance of two tensors of one name, as a share of the tensor's own size, where tensors smaller than a
/// hundredth of `size` count as that large: a bias before a norm has no gradient but rounding errors.
fn distance(ours: &NamedTensors, theirs: &NamedTensors, size: f64) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let apart = |(name, theirs): (&str, &cardinal_weights::Tensor)| {
        let (a, b) = (ours.get(name).unwrap().to_f32(), theirs.to_f32());
        norm(a.iter().zip(&b).map(|(a, b)| a - b)) / norm(b.into_iter()).max(0.01 * size)
    };
    theirs.iter().map(apart).fold(0.0, |worst, apart| if apart <= worst { worst } else { apart })
}

/// Steps of both from the same weights, and then another of the eager one from where the compiled one is: the largest
/// distance, as a share of what is allowed.
fn run(what: &str, case: &Case, steps: &[StepSettings], count: usize) -> f64 {
    let (mut eager, mut compiled) = case.pair();
    assert_eq!(compiled.state().unwrap(), eager.state().unwrap(), "{what}: the state goes through");
    let apart = |a: f64, b: f64| (a - b).abs() / b.abs().max(1e-3) / 1e-4;
    let mut worst: f64 = 0.0;
    for (index, step) in steps.iter().enumerate() {
        let images = Images::new(count + index);
        let theirs = eager.train(images.input(), step).unwrap();
        let ours = compiled.train(images.input(), step).unwrap();
        worst = worst.max(apart(ours.loss, theirs.loss));
        assert_eq!(
            (ours.gradient_norm.is_some(), theirs.gradient_norm.is_some()),
            (step.update, step.update)
        );
        if let (Some(ours), Some(theirs)) = (ours.gradient_norm, theirs.gradient_norm) {
            worst = worst.max(apart(ours, theirs));
        }
    }
    let (ours, theirs) = (compiled.state().unwrap(), eager.state().unwrap());
    assert_eq!(ours.updates, theirs.updates);
    let values = distance(&ours.model, &theirs.model, 0.0);
    let average = distance(ours.ema.as_ref().unwrap(), theirs.ema.as_ref().unwrap(), 0.0);
    let size = norm(theirs.optimizer.iter().flat_map(|(_, tensor)| tensor.to_f32()));
    let moments = distance(&ours.optimizer, &theirs.optimizer, size);
    println!(
        "{what}, {count} images: values {values:.1e}, average {average:.1e}, moments {moments:.1e}; losses and norms {:.1e}",
        1e-4 * worst
    );
    // Either continues what the other began.
    eager.restore(&ours).unwrap();
    let images = Images::new(count);
    let later = [&mut eager as &mut dyn Step, &mut compiled]
        .map(|s| s.train(images.input(), &SETTINGS).unwrap().loss);
    worst = worst.max(apart(later[0], later[1]));
    worst.max(values / 1e-4).max(average / 1e-4).max(moments / 1e-4)
}

/// Batches until one is free of what no two computations agree on: a ReLU whose input is within a rounding error of zero
/// has a gradient in one of them and none in the other. There are some 10,000 of them for an image.
fn check_steps(what: &str, case: &Case, steps: &[StepSettings]) {
    for count in [24, 33, 40, 48, 63] {
        let worst = run(what, case, steps, count);
        assert!(worst <= 1e3, "{what}, {count} images: {worst:.0} times what is allowed");
        if worst <= 1.0 {
            return;
        }
    }
    panic!("{what}: no batch agrees");
}

fn check(what: &str, case: &Case, step: &StepSettings) {
    check_steps(what, case, &[*step]);
}

#[test]
fn a_step_is_the_eager_one() {
    for name in NETWORKS {
        check(name, &Case::new(name), &SETTINGS);
    }
}

#[test]
fn every_optimizer_is_the_eager_one() {
    let adam = Method::Adam { betas: [0.9, 0.99], epsilon: 1e-3 };
    let plain = Method::Sgd { momentum: 0.0, nesterov: false };
    let with = |method, decoupled, clip_norm| OptimizerSettings {
        method,
        weight_decay: 0.05,
        decay_vectors: decoupled,
        decoupled,
        clip_norm,
    };
    for (what, optimizer) in [
        ("adamw, clipped", with(adam, true, Some(0.1))),
        ("adam", with(adam, false, None)),
        ("sgd without momentum", with(plain, false, Some(1e3))),
    ] {
        let rates = Rates { lr: 0.01, momentum: Some(0.8) };
        check(what, &Case { optimizer, ..Case::new("tresnet_digits") }, &StepSettings { rates, ..SETTINGS });
    }
}

#[test]
fn every_loss_is_the_eager_one() {
    for (what, kind) in [
        ("bce", LossKind::BinaryCrossEntropy { threshold: Some(0.2) }),
        ("asymmetric", LossKind::Asymmetric(Asymmetric { positive: 1.0, ..Asymmetric::default() })),
    ] {
        check(what, &Case { loss: kind.into(), ..Case::new("tresnet_digits") }, &SETTINGS);
    }
    let loss = Loss { kind: LossKind::CrossEntropy, triplet: 0.5 };
    check("triplet", &Case { loss, ..Case::new("tresnet_digits") }, &SETTINGS);
}

#[test]
fn frozen_layers_are_the_eager_ones() {
    let resnet: fn(&str) -> bool =
        |name| ["layer1.", "conv1.", "bn1."].iter().any(|part| name.starts_with(part));
    let frozen = resnet;
    let case = Case { frozen, ..Case::new("resnest14_digits") };
    check("frozen", &case, &SETTINGS);
    let mut step = case.compiled();
    let before = step.state().unwrap();
    step.train(Images::new(16).input(), &SETTINGS).unwrap();
    let after = step.state().unwrap();
    for (name, tensor) in before.model.iter() {
        let same = after.model.get(name) == Some(tensor);
        assert!(same == frozen(name) || name.ends_with("fc1.bias"), "{name}");
    }
    assert!(after.optimizer.iter().all(|(name, _)| !frozen(name.trim_start_matches("first."))));
}

#[test]
fn gradients_of_several_batches_are_averaged() {
    let waiting = StepSettings { update: false, ..SETTINGS };
    for name in NETWORKS {
        check_steps(name, &Case::new(name), &[waiting, SETTINGS]);
        check_steps(name, &Case::new(name), &[waiting, waiting, SETTINGS]);
    }
}

/// Everything that draws, in both formats.
fn drawing(dtype: DType) -> Case {
    let options = ModelOptions::new()
        .with_num_classes(4)
        .with_drop_rate(0.2)
        .with_drop_path_rate(0.2)
        .with_drop_block_rate(0.1);
    Case { options, dtype, ..Case::new("resnest14_digits") }
}

fn train(step: &mut CompiledStep, images: &Images, steps: std::ops::Range<u64>) -> Vec<f64> {
    let settings = |number| StepSettings { seed: 100 + number, drop_block: 0.05, ..SETTINGS };
    steps.map(|number| step.train(images.input(), &settings(number)).unwrap().loss).collect()
}

#[test]
fn a_continued_run_is_the_uninterrupted_one_bit_for_bit() {
    let images = Images::new(24);
    for dtype in [DType::F32, DType::Bf16] {
        let mut whole = drawing(dtype).compiled();
        train(&mut whole, &images, 0..3);
        let state = whole.state().unwrap();
        let losses = train(&mut whole, &images, 3..6);
        let mut continued = drawing(dtype).compiled();
        // What it did before does not matter, waiting gradients neither.
        let waiting = StepSettings { update: false, ..SETTINGS };
        continued.train(images.input(), &waiting).unwrap();
        continued.restore(&state).unwrap();
        assert_eq!(continued.state().unwrap(), state);
        assert_eq!(train(&mut continued, &images, 3..6), losses, "{dtype:?}");
        assert_eq!(continued.state().unwrap(), whole.state().unwrap());
        // Another seed draws otherwise: the losses above are not equal by chance.
        let mut other = drawing(dtype).compiled();
        other.restore(&state).unwrap();
        assert_ne!(train(&mut other, &images, 4..7), losses);
    }
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let mut images = Images::new(8);
    images.pixels[7] = f32::NAN;
    for name in NETWORKS {
        let mut step = Case::new(name).compiled();
        let before = step.state().unwrap();
        let output = step.train(images.input(), &SETTINGS).unwrap();
        // A ReLU may take what is no number for a negative one; then the gradient has it.
        let finite = output.loss.is_finite() && output.gradient_norm.is_some_and(f64::is_finite);
        assert!(!finite, "{name}: {} {:?}", output.loss, output.gradient_norm);
        assert_eq!(step.state().unwrap(), before);
    }
    // A gradient that overflows, of a loss that does not.
    let loss = Loss { kind: LossKind::CrossEntropy, triplet: 1e39 };
    let mut step = Case { loss, ..Case::new("tresnet_digits") }.compiled();
    let before = step.state().unwrap();
    let output = step.train(Images::new(8).input(), &SETTINGS).unwrap();
    assert!(output.loss.is_finite() && output.gradient_norm.is_some_and(|norm| !norm.is_finite()));
    assert_eq!(step.state().unwrap(), before);
}

#[test]
fn what_does_not_fit_is_refused() {
    let state = Case::new("resnest14_digits").compiled().state().unwrap();
    let error = Case::new("tresnet_digits").compiled().restore(&state).unwrap_err();
    assert!(error.to_string().contains("another network"), "{error}");
    let adam = Method::Adam { betas: [0.9, 0.999], epsilon: 1e-8 };
    let optimizer = OptimizerSettings { method: adam, ..settings() };
    let case = Case { optimizer, ..Case::new("resnest14_digits") };
    let error = case.compiled().restore(&state).unwrap_err();
    assert!(error.to_string().contains("another optimizer"), "{error}");
    let other = case.compiled().state().unwrap();
    let mut step = Case::new("resnest14_digits").compiled();
    assert!(step.restore(&other).unwrap_err().to_string().contains("another optimizer"));
    let without = StepState { ema: None, ..state };
    assert!(step.restore(&without).unwrap_err().to_string().contains("model_ema"));

    let images = Images::new(8);
    for (size, part) in
        [([8, 3, 16, 16], "[3, 32, 32]"), ([80, 3, 32, 32], "at most 64"), ([0, 3, 32, 32], "at most")]
    {
        let error = step.train(StepInput { size, ..images.input() }, &SETTINGS).unwrap_err();
        assert!(matches!(error, TrainError::DataFit(_)) && error.to_string().contains(part), "{error}");
    }
    let error = step.train(StepInput { targets: &[1.0], ..images.input() }, &SETTINGS).unwrap_err();
    assert!(error.to_string().contains("1 targets for 8 images of 4 classes"), "{error}");
}
