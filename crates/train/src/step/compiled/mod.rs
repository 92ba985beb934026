//! The step that the engine plans whole: forward, backward and update in one block of memory, on the processor.
//!
//! The network is captured once. From then on its values live in the engine's session, under the names that the graph
//! has for them, and the state that is saved is the same as that of [`EagerStep`](super::EagerStep): either can continue
//! what the other began.

mod objective;
mod triplet;

use super::{Step, StepInput, StepOutput, StepSettings, StepState};
use crate::TrainError;
use crate::loss::Loss;
use crate::optim::{Method, OptimizerSettings};
use crate::recipe::{MapFormat, Recipe};
use cardinal_bridge::{CaptureError, capture, capture_all};
use cardinal_engine::graph::Graph;
use cardinal_engine::train::{
    Decay, Recompute, Role, StepSeed, TrainOptions, TrainPlan, TrainSession, UpdateRule, UpdateSettings,
    Vector,
};
use cardinal_engine::{DType, Isa};
use cardinal_models::weights::{Entry, entries, freeze, tensor_names};
use cardinal_models::{Backbone, Model};
use cardinal_weights::{NamedTensors, Tensor as Stored};
use objective::Objective;
use std::collections::HashMap;

/// What a step is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompiledOptions {
    /// The most images of a batch.
    pub batch: usize,
    /// Channels, rows and columns of an image.
    pub size: [usize; 3],
    /// The format of feature maps and their gradients; weights, vectors and sums are `f32`.
    pub dtype: DType,
    /// Threads. The last bits of the results depend on their number.
    pub threads: usize,
}

/// The faster format that loses little: bf16 where the processor multiplies it, else `f32`.
pub fn best_dtype() -> DType {
    use cardinal_engine::Level;
    match Isa::best().level() {
        Level::Amx | Level::Avx512Bf16 => DType::Bf16,
        Level::Portable | Level::Neon | Level::Avx2 | Level::Avx512 => DType::F32,
    }
}

/// The format that a recipe asks for, or the [best](best_dtype).
pub fn dtype(recipe: &Recipe) -> DType {
    recipe.run.dtype.map_or_else(best_dtype, |format| match format {
        MapFormat::F32 => DType::F32,
        MapFormat::Bf16 => DType::Bf16,
    })
}

/// Training by the engine.
pub struct CompiledStep {
    session: TrainSession,
    objective: Objective,
    size: [usize; 3],
    /// Parameters and running statistics in module order, and where the session has them.
    entries: Vec<(Entry, usize)>,
    optimizer: OptimizerSettings,
    updates: u64,
    average: bool,
}

impl CompiledStep {
    /// A step for `model`. Layers whose parameters' names `frozen` accepts stay as they are.
    ///
    /// # Errors
    ///
    /// The images do not fit the network, or it has an operator that cannot be trained this way; says which.
    pub fn new(
        model: Model,
        loss: Loss,
        optimizer: OptimizerSettings,
        average: bool,
        frozen: impl Fn(&str) -> bool,
        options: &CompiledOptions,
    ) -> Result<Self, TrainError> {
        let name = model.variant().name;
        let fail = |reason: String| TrainError::NotCompiled { model: name.into(), reason };
        let [c, h, w] = options.size;
        model.check_input(&[1, c, h, w])?;
        let objective = Objective::new(loss, model.num_classes())?;
        let model = freeze(model, &frozen);
        let entries = entries(&model);
        let graph = captured(model, options.size, &loss).map_err(|error| fail(error.to_string()))?;
        let options = TrainOptions {
            batch: options.batch,
            dtype: options.dtype,
            threads: options.threads,
            isa: Isa::best(),
            recompute: Recompute::default(),
            trained: &|name| !frozen(name),
        };
        let plan = TrainPlan::new(&graph, &options).map_err(|error| fail(error.to_string()))?;
        drop(graph);
        let mut session = TrainSession::new(plan, false);
        let places: HashMap<&str, usize> =
            session.parameters().iter().enumerate().map(|(index, p)| (p.name.as_str(), index)).collect();
        let place = |entry: Entry| match places.get(entry.name.as_str()) {
            Some(&index) => Ok((entry, index)),
            None => Err(fail(format!("its graph does not read {}", entry.name))),
        };
        let entries: Vec<_> = entries.into_iter().map(place).collect::<Result<_, _>>()?;
        if average {
            session.start_average();
        }
        let mut step = Self { session, objective, size: [c, h, w], entries, optimizer, updates: 0, average };
        let zero = |entry: &Entry| vec![0.0; entry.shape.iter().product()];
        for (_, vector) in step.moments() {
            for (index, zeros) in
                step.trained().map(|(entry, index)| (index, zero(entry))).collect::<Vec<_>>()
            {
                step.session.set(*vector, index, &zeros)?;
            }
        }
        Ok(step)
    }

    /// The session, for its plan and its times.
    pub fn session(&self) -> &TrainSession {
        &self.session
    }

    /// Bytes of a step: maps, gradients, weights, and the optimizer's and the average's vectors.
    pub fn memory_bytes(&self) -> usize {
        self.session.plan().memory_bytes(self.moments().len() + usize::from(self.average))
    }

    /// The parameters that are trained, and where the session has them.
    fn trained(&self) -> impl Iterator<Item = (&Entry, usize)> {
        let trained = |index: usize| self.session.parameters()[index].role == Role::Trained;
        self.entries.iter().map(|(entry, index)| (entry, *index)).filter(move |(_, index)| trained(*index))
    }

    /// What the optimizer remembers, by the names of checkpoints.
    fn moments(&self) -> &'static [(&'static str, Vector)] {
        match self.optimizer.method {
            Method::Sgd { momentum: 0.0, .. } => &[],
            Method::Sgd { .. } => &MOMENTS[..1],
            Method::Adam { .. } => &MOMENTS,
        }
    }

    fn check(&self, batch: &StepInput<'_>) -> Result<(), TrainError> {
        let [n, image @ ..] = batch.size;
        let most = self.session.plan().batch();
        if image != self.size || !(1..=most).contains(&n) {
            let [c, h, w] = self.size;
            return Err(TrainError::DataFit(format!(
                "a batch of shape {:?} for a step that was compiled for at most {most} images of [{c}, {h}, {w}]",
                batch.size
            )));
        }
        let classes = self.session.plan().outputs()[0].elements;
        if batch.targets.len() != n * classes {
            return Err(TrainError::DataFit(format!(
                "{} targets for {n} images of {classes} classes",
                batch.targets.len()
            )));
        }
        if self.objective.needs_labels() && batch.labels.len() != n {
            return Err(TrainError::DataFit(format!("{} labels for {n} images", batch.labels.len())));
        }
        Ok(())
    }

    /// Updates the parameters with the gradients; gives their norm.
    fn update(&mut self, settings: &StepSettings) -> Result<f64, TrainError> {
        let OptimizerSettings { method, weight_decay, decay_vectors, decoupled, clip_norm } = self.optimizer;
        let rates = settings.rates;
        let rule = match method {
            // Without memory there is no momentum to change.
            Method::Sgd { momentum: 0.0, nesterov } => UpdateRule::Sgd { momentum: 0.0, nesterov },
            Method::Sgd { momentum, nesterov } => {
                UpdateRule::Sgd { momentum: rates.momentum.unwrap_or(momentum), nesterov }
            }
            Method::Adam { betas: [beta1, beta2], epsilon } => UpdateRule::Adam {
                betas: [rates.momentum.unwrap_or(beta1), beta2],
                epsilon,
                updates: self.updates + 1,
            },
        };
        let decay = match (weight_decay, decoupled) {
            (0.0, _) => Decay::None,
            (rate, true) => Decay::Decoupled(rate),
            (rate, false) => Decay::Coupled(rate),
        };
        let average = settings.ema_decay;
        let update = UpdateSettings { rule, lr: rates.lr, decay, decay_vectors, clip_norm, average };
        let norm = self.session.update(&update)?;
        self.updates += u64::from(norm.is_finite());
        Ok(norm)
    }

    /// The running statistics, to have them back.
    fn statistics(&self) -> Vec<(usize, Vec<f32>)> {
        let buffers = self.entries.iter().filter(|(entry, _)| entry.buffer);
        buffers.map(|&(_, index)| (index, self.session.get(Vector::Values, index).to_vec())).collect()
    }

    fn named(&self, vector: Vector) -> Result<NamedTensors, TrainError> {
        let mut tensors = NamedTensors::new();
        for (entry, index) in &self.entries {
            let values = Stored::from_f32(entry.shape.clone(), self.session.get(vector, *index))?;
            tensors.insert(entry.name.clone(), values);
        }
        Ok(tensors)
    }

    /// All that `state` has for this network, and where it goes.
    fn read(&self, state: &StepState) -> Result<Vec<(Vector, usize, Vec<f32>)>, TrainError> {
        let mut found = Vec::new();
        let other = |what: &str| TrainError::State(format!("{what} belongs to another network"));
        let mut values = |vector, tensors: &NamedTensors, what: &str| -> Result<(), TrainError> {
            for (entry, index) in &self.entries {
                let tensor = tensors.get(&entry.name).filter(|tensor| tensor.shape() == entry.shape);
                found.push((vector, *index, tensor.ok_or_else(|| other(what))?.to_f32()));
            }
            Ok(())
        };
        values(Vector::Values, &state.model, "it")?;
        if self.average {
            let none = || TrainError::State("it has no moving average (model_ema)".into());
            values(Vector::Average, state.ema.as_ref().ok_or_else(none)?, "its moving average")?;
        }
        let ours = self.moments();
        for moment in &MOMENTS {
            for (entry, index) in self.trained() {
                let tensor = state.optimizer.get(&format!("{}.{}", moment.0, entry.name));
                match (tensor.filter(|tensor| tensor.shape() == entry.shape), ours.contains(moment)) {
                    (Some(tensor), true) => found.push((moment.1, index, tensor.to_f32())),
                    (None, false) if tensor.is_none() => {}
                    _ => {
                        let text = "its optimizer state belongs to another optimizer or other parameters";
                        return Err(TrainError::State(text.into()));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The optimizer's vectors by the names that they have in checkpoints.
const MOMENTS: [(&str, Vector); 2] = [("first", Vector::First), ("second", Vector::Second)];

/// The graph of the network's logits, and of its embeddings if the loss reads them.
pub(crate) fn captured(model: Model, [c, h, w]: [usize; 3], loss: &Loss) -> Result<Graph, CaptureError> {
    let (name, input) = (model.variant().name, [1, c, h, w]);
    if !loss.needs_embeddings() {
        return capture(name, model, input, tensor_names, |model: &Model, x| model.forward(x));
    }
    capture_all(name, model, input, tensor_names, |model: &Model, x| {
        let features = model.forward_features(x);
        [model.forward_head(features.clone(), false), model.forward_head(features, true)]
    })
}

impl Step for CompiledStep {
    fn train(&mut self, batch: StepInput<'_>, settings: &StepSettings) -> Result<StepOutput, TrainError> {
        self.check(&batch)?;
        let seed = StepSeed { seed: settings.seed, step: 0, drop_block: settings.drop_block };
        let outputs = self.session.forward(&[batch.images], seed)?;
        let mut outputs: Vec<Vec<f32>> = outputs.into_iter().map(<[f32]>::to_vec).collect();
        let loss = self.objective.run(self.session.pool(), &outputs, batch)?;
        let logits = outputs.swap_remove(0);
        if !loss.is_finite() {
            return Ok(StepOutput { loss, logits, gradient_norm: None });
        }
        self.session.backward(&self.objective.gradients())?;
        if !settings.update {
            self.session.keep_statistics();
            self.session.wait();
            return Ok(StepOutput { loss, logits, gradient_norm: None });
        }
        // The moving average takes in the statistics of this batch.
        let before = self.statistics();
        self.session.keep_statistics();
        let norm = self.update(settings)?;
        if !norm.is_finite() {
            for (index, values) in before {
                self.session.set(Vector::Values, index, &values)?;
            }
        }
        Ok(StepOutput { loss, logits, gradient_norm: Some(norm) })
    }

    fn describe(&self) -> String {
        let plan = self.session.plan();
        let mebibytes = self.memory_bytes() as f64 / (1 << 20) as f64;
        format!("compiled for {}, {}, {mebibytes:.0} MiB", plan.isa(), plan.dtype().name())
    }

    fn state(&self) -> Result<StepState, TrainError> {
        let mut optimizer = NamedTensors::new();
        for (kind, vector) in self.moments() {
            for (entry, index) in self.trained() {
                let tensor = Stored::from_f32(entry.shape.clone(), self.session.get(*vector, index))?;
                optimizer.insert(format!("{kind}.{}", entry.name), tensor);
            }
        }
        Ok(StepState {
            model: self.named(Vector::Values)?,
            ema: self.average.then(|| self.named(Vector::Average)).transpose()?,
            optimizer,
            updates: self.updates,
        })
    }

    fn restore(&mut self, state: &StepState) -> Result<(), TrainError> {
        for (vector, index, values) in self.read(state)? {
            self.session.set(vector, index, &values)?;
        }
        self.session.forget();
        self.updates = state.updates;
        Ok(())
    }
}
