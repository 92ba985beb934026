//! Compiled training as 'bench' and 'profile' run it: a network with random weights on one batch of noise.

use crate::compute::{Compute, Path};
use crate::exit::Usage;
use crate::network::Network;
use anyhow::Context;
use cardinal_engine::graph::Graph;
use cardinal_engine::train::{
    Decay, LogitLoss, LossIo, LossRule, Recompute, StepSeed, TrainOptions, TrainPlan, TrainSession,
    UpdateRule, UpdateSettings,
};
use cardinal_models::burn::tensor::Device;
use cardinal_models::registry::Variant;
use cardinal_models::{Model, ModelOptions};

/// Vectors that SGD with momentum keeps.
const STATES: usize = 1;
const SMOOTHING: f32 = 0.1;

/// A name of [`Recompute`].
pub(crate) fn recompute(text: &str) -> Result<Recompute, String> {
    Recompute::ALL.into_iter().find(|choice| choice.name() == text).ok_or_else(|| {
        let names: Vec<_> = Recompute::ALL.iter().map(|choice| choice.name()).collect();
        format!("the choices are {}", names.join(", "))
    })
}

/// A network to plan training steps of.
pub(crate) struct Subject {
    graph: Graph,
    size: usize,
    recompute: Recompute,
}

impl Subject {
    /// Captures `variant` for square images of `size` pixels.
    ///
    /// # Errors
    ///
    /// The size is none for the network, or `compute` asks for what training does not have.
    pub(crate) fn new(
        variant: &'static Variant,
        size: usize,
        recompute: Recompute,
        compute: &Compute,
    ) -> anyhow::Result<Self> {
        if compute.path != Path::Compiled {
            return Err(Usage("--train times the compiled step: leave --path out".into()).into());
        }
        if compute.tune {
            return Err(Usage("--tune is for inference".into()).into());
        }
        let device = Device::flex();
        device.seed(0);
        let model = Model::new(variant, &ModelOptions::new(), &device);
        let graph = Network::Module(Box::new(model)).graph([3, size, size])?;
        Ok(Self { graph, size, recompute })
    }

    /// The plan of a step with up to `batch` images.
    ///
    /// # Errors
    ///
    /// An operator that cannot be trained.
    pub(crate) fn plan(&self, batch: usize, compute: &Compute) -> anyhow::Result<TrainPlan> {
        self.plan_with(self.recompute, batch, compute)
    }

    /// The same with another recomputation.
    ///
    /// # Errors
    ///
    /// An operator that cannot be trained.
    pub(crate) fn plan_with(
        &self,
        recompute: Recompute,
        batch: usize,
        compute: &Compute,
    ) -> anyhow::Result<TrainPlan> {
        let options = TrainOptions {
            batch,
            dtype: compute.format(),
            threads: compute.threads(),
            isa: compute.isa()?,
            recompute,
            trained: &|_| true,
        };
        TrainPlan::new(&self.graph, &options).with_context(|| self.graph.name.clone())
    }

    /// Bytes that a step of `plan` takes: the plan's own, and the batch with its targets.
    pub(crate) fn memory(&self, plan: &TrainPlan) -> usize {
        plan.memory_bytes(STATES) + plan.batch() * self.numbers(plan) * size_of::<f32>()
    }

    /// Numbers of an image, its target and its gradient.
    fn numbers(&self, plan: &TrainPlan) -> usize {
        3 * self.size * self.size + 2 * classes(plan)
    }
}

fn classes(plan: &TrainPlan) -> usize {
    plan.outputs().first().map_or(0, |output| output.elements)
}

/// Steps of SGD with momentum on one batch of noise.
pub(crate) struct Trainer {
    session: TrainSession,
    loss: LogitLoss,
    images: Vec<f32>,
    targets: Vec<f32>,
    losses: Vec<f32>,
    gradient: Vec<f32>,
    steps: u64,
}

impl Trainer {
    /// A session of `plan`, with noise as images and one class for each.
    ///
    /// # Errors
    ///
    /// The network has no classes.
    pub(crate) fn new(plan: TrainPlan) -> anyhow::Result<Self> {
        let (batch, classes) = (plan.batch(), classes(&plan));
        let pixels = plan.inputs().first().map_or(0, |input| input.elements);
        let mut targets = vec![SMOOTHING / classes as f32; batch * classes];
        for (image, target) in targets.chunks_mut(classes.max(1)).enumerate() {
            target[image * 7 % classes] += 1.0 - SMOOTHING;
        }
        Ok(Self {
            loss: LogitLoss::new(LossRule::CrossEntropy, classes)?,
            images: crate::compute::noise(batch * pixels),
            targets,
            losses: vec![0.0; batch],
            gradient: vec![0.0; batch * classes],
            steps: 0,
            session: TrainSession::new(plan, true),
        })
    }

    /// Takes a step: forward, loss, backward and update. Gives the mean loss.
    ///
    /// # Errors
    ///
    /// The loss is not finite.
    pub(crate) fn step(&mut self) -> anyhow::Result<f64> {
        let batch = self.losses.len();
        let seed = StepSeed { seed: 0, step: self.steps, drop_block: 0.0 };
        let logits = self.session.forward(&[&self.images], seed)?;
        let logits = logits.first().context("the network has an output")?.to_vec();
        let io = LossIo {
            logits: &logits,
            targets: &self.targets,
            scale: 1.0 / batch as f64,
            losses: &mut self.losses,
            grad: &mut self.gradient,
        };
        let loss = self.loss.run(self.session.pool(), batch, io)? / batch as f64;
        anyhow::ensure!(loss.is_finite(), "the loss is {loss} after {} steps", self.steps);
        self.session.backward(&[&self.gradient])?;
        self.session.keep_statistics();
        self.session.update(&UpdateSettings {
            rule: UpdateRule::Sgd { momentum: 0.9, nesterov: false },
            lr: 1e-3,
            decay: Decay::Coupled(1e-4),
            decay_vectors: true,
            clip_norm: None,
            average: 0.0,
        })?;
        self.steps += 1;
        Ok(loss)
    }

    /// The session, with its plan and its times.
    pub(crate) fn session(&mut self) -> &mut TrainSession {
        &mut self.session
    }
}
