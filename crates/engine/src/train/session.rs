//! The state of a training run, and its steps.

use super::StepSeed;
use super::kernel::Call;
use super::parameters::Parameter;
use super::plan::TrainPlan;
use crate::EngineError;
use crate::run::StepTime;
use cardinal_kernels::{
    Decay, Line, Pool, Update, UpdateIo, UpdateRule, clip_scale, grad_norm, grad_norm_scratch, zeroed,
};
use std::ops::Range;
use std::time::{Duration, Instant};

/// What the running statistics take from each batch, as in all networks here.
const MOMENTUM: f32 = 0.1;

/// Parameters, gradients, the optimizer's state and the memory of a step.
#[derive(Debug)]
pub struct TrainSession {
    plan: TrainPlan,
    pool: Pool,
    arena: Vec<Line>,
    outputs: Vec<Vec<f32>>,
    values: Vec<f32>,
    /// In the places of running statistics: those of the batch.
    gradients: Vec<f32>,
    /// Gradients that wait for an update, and of how many batches.
    waiting: (Vec<f32>, usize),
    first: Vec<f32>,
    second: Vec<f32>,
    average: Vec<f32>,
    /// Whether values have changed since they were packed.
    stale: bool,
    seed: StepSeed,
    /// Images of the forward pass that the backward pass belongs to.
    images: usize,
    scratch: Vec<Line>,
    times: Option<Vec<Duration>>,
}

/// A vector with a number for each one of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// Parameters and running statistics.
    Values,
    /// The gradients of the last backward pass.
    Gradients,
    /// The momentum, or Adam's first moment.
    First,
    /// Adam's second moment.
    Second,
    /// The moving average of [`Vector::Values`].
    Average,
}

/// An update of all parameters.
#[derive(Clone, Copy, Debug)]
pub struct UpdateSettings {
    /// The rule.
    pub rule: UpdateRule,
    /// The learning rate.
    pub lr: f64,
    /// Weight decay.
    pub decay: Decay,
    /// Whether the weights of norms and biases decay too.
    pub decay_vectors: bool,
    /// Gradients are scaled down to this norm, over all parameters together, if it is exceeded.
    pub clip_norm: Option<f64>,
    /// The share of the moving average that is kept.
    pub average: f64,
}

impl TrainSession {
    /// Memory and threads for `plan`, with the values that its graph was captured with. With `pin`, the threads stay on one
    /// core each.
    #[must_use]
    pub fn new(plan: TrainPlan, pin: bool) -> Self {
        let mut plan = plan;
        let values = std::mem::take(&mut plan.initial);
        let outputs = plan.outputs().iter().map(|output| vec![0.0; output.elements * plan.batch]).collect();
        Self {
            pool: Pool::new(plan.threads, pin),
            arena: zeroed(plan.lines),
            outputs,
            gradients: vec![0.0; values.len()],
            values,
            waiting: (Vec::new(), 0),
            first: Vec::new(),
            second: Vec::new(),
            average: Vec::new(),
            stale: true,
            seed: StepSeed::default(),
            images: 0,
            scratch: Vec::new(),
            times: None,
            plan,
        }
    }

    /// The plan that this session runs.
    #[must_use]
    pub fn plan(&self) -> &TrainPlan {
        &self.plan
    }

    /// Parameters and running statistics, in the order of the graph's constants.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        self.plan.parameters()
    }

    /// The threads that a loss may use between the passes.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What `vector` holds for parameter `index`; empty if there is no such vector.
    #[must_use]
    pub fn get(&self, vector: Vector, index: usize) -> &[f32] {
        let range = self.parameters()[index].range.clone();
        let vector = match vector {
            Vector::Values => &self.values,
            Vector::Gradients => &self.gradients,
            Vector::First => &self.first,
            Vector::Second => &self.second,
            Vector::Average => &self.average,
        };
        vector.get(range).unwrap_or_default()
    }

    /// Replaces what `vector` holds for parameter `index`, and makes the vector of zeros first if there is none.
    ///
    /// # Errors
    ///
    /// `numbers` has another length than the parameter.
    pub fn set(&mut self, vector: Vector, index: usize, numbers: &[f32]) -> Result<(), EngineError> {
        let Parameter { name, range, .. } = self.parameters()[index].clone();
        if numbers.len() != range.len() {
            let (found, expected) = (format!("{} numbers", numbers.len()), range.len().to_string());
            return Err(EngineError::Input { name, found, expected });
        }
        let length = self.values.len();
        self.stale |= vector == Vector::Values;
        let vector = self.vector(vector);
        vector.resize(length, 0.0);
        vector[range].copy_from_slice(numbers);
        Ok(())
    }

    fn vector(&mut self, vector: Vector) -> &mut Vec<f32> {
        match vector {
            Vector::Values => &mut self.values,
            Vector::Gradients => &mut self.gradients,
            Vector::First => &mut self.first,
            Vector::Second => &mut self.second,
            Vector::Average => &mut self.average,
        }
    }

    /// Starts the moving average with the values as they are.
    pub fn start_average(&mut self) {
        self.average.clone_from(&self.values);
    }

    /// The forward pass of training on 1 to [`TrainPlan::batch`] images: a slice for each input, row-major
    /// `[images, c, h, w]`. Gives the outputs, `[images, ..]` each.
    ///
    /// # Errors
    ///
    /// An input that is missing, too large or no whole number of images.
    pub fn forward(&mut self, inputs: &[&[f32]], seed: StepSeed) -> Result<Vec<&[f32]>, EngineError> {
        self.images = self.count(inputs)?;
        self.seed = seed;
        if self.stale {
            for step in &mut self.plan.steps {
                let packed = step.kernel.pack(&self.pool, &self.values);
                packed.map_err(|source| EngineError::Kernel { place: step.name().into(), source })?;
            }
            self.stale = false;
        }
        self.run(0..self.plan.forward, inputs)?;
        let images = self.images;
        let outputs = self.outputs.iter().zip(self.plan.outputs());
        Ok(outputs.map(|(numbers, port)| &numbers[..images * port.elements]).collect())
    }

    /// The backward pass: from the gradient of each output, as long as the outputs, to those of the parameters. Afterwards
    /// [`TrainSession::keep_statistics`] moves the running statistics.
    ///
    /// # Errors
    ///
    /// A gradient of another length than its output.
    pub fn backward(&mut self, gradients: &[&[f32]]) -> Result<(), EngineError> {
        let expected: Vec<_> =
            self.plan.outputs().iter().map(|port| (port.name.clone(), port.elements * self.images)).collect();
        for (index, (name, expected)) in expected.into_iter().enumerate() {
            let found = gradients.get(index).map_or(0, |gradient| gradient.len());
            if found != expected || expected == 0 {
                let (found, expected) = (format!("{found} gradients"), expected.to_string());
                return Err(EngineError::Input { name, found, expected });
            }
        }
        self.run(self.plan.forward..self.plan.steps.len(), gradients)
    }

    /// Moves the running statistics towards those of the last batch.
    pub fn keep_statistics(&mut self) {
        for (ranges, pixels) in &self.plan.statistics {
            let count = (pixels * self.images) as f32;
            // PyTorch's running variance follows the unbiased one.
            for (range, scale) in ranges.iter().zip([1.0, count / (count - 1.0).max(1.0)]) {
                let batch = &self.gradients[range.clone()];
                for (value, batch) in self.values[range.clone()].iter_mut().zip(batch) {
                    *value = *value * (1.0 - MOMENTUM) + batch * scale * MOMENTUM;
                }
            }
        }
        // Norms that use running statistics read them at every step; nothing of them is packed.
    }

    /// Adds the gradients to those that wait for an update.
    pub fn wait(&mut self) {
        let (sums, count) = &mut self.waiting;
        sums.resize(self.plan.parameters.gradients, 0.0);
        sums.iter_mut().zip(&self.gradients).for_each(|(sum, gradient)| *sum += gradient);
        *count += 1;
    }

    /// Forgets the gradients that wait.
    pub fn forget(&mut self) {
        self.waiting = (Vec::new(), 0);
    }

    /// Updates all trained parameters with the mean of the last gradients and those that wait, and the moving average if
    /// there is one; gives the norm of all gradients together before clipping. If that is not finite, nothing is updated.
    ///
    /// # Errors
    ///
    /// Never for settings of an optimizer: the kernel checks its vectors.
    pub fn update(&mut self, settings: &UpdateSettings) -> Result<f64, EngineError> {
        let wrap = |source| EngineError::Kernel { place: "update".into(), source };
        let (matrices, vectors) =
            (self.plan.parameters.matrices.clone(), self.plan.parameters.vectors.clone());
        let all = matrices.start..vectors.end;
        let (sums, count) = &mut self.waiting;
        if *count > 0 {
            let share = 1.0 / (*count + 1) as f32;
            for (gradient, sum) in self.gradients.iter_mut().zip(sums.iter_mut()) {
                *gradient = (*gradient + *sum) * share;
                *sum = 0.0;
            }
            *count = 0;
        }
        self.scratch.resize(grad_norm_scratch(all.len()).max(self.scratch.len()), Line::ZERO);
        let isa = self.plan.isa;
        let norm = grad_norm(&self.pool, isa, &self.gradients[all], &mut self.scratch).map_err(wrap)?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let grad_scale = settings.clip_norm.map_or(1.0, |limit| clip_scale(norm, limit));
        let length = self.values.len();
        match settings.rule {
            UpdateRule::Sgd { momentum: 0.0, .. } => {}
            UpdateRule::Sgd { .. } => self.first.resize(length, 0.0),
            UpdateRule::Adam { .. } => {
                self.first.resize(length, 0.0);
                self.second.resize(length, 0.0);
            }
        }
        let unkept = if settings.decay_vectors { settings.decay } else { Decay::None };
        for (range, decay) in [(matrices, settings.decay), (vectors.clone(), unkept)] {
            let UpdateSettings { rule, lr, average, .. } = *settings;
            let update = Update { rule, lr, decay, grad_scale, average };
            let io = UpdateIo {
                values: &mut self.values[range.clone()],
                grad: &self.gradients[range.clone()],
                first: part(&mut self.first, &range),
                second: part(&mut self.second, &range),
                average: part(&mut self.average, &range),
            };
            update.run(&self.pool, isa, io).map_err(wrap)?;
        }
        // What is not trained is averaged as well: the statistics move.
        let share = (1.0 - settings.average) as f32;
        for (average, value) in self.average.iter_mut().zip(&self.values).skip(vectors.end) {
            *average += share * (value - *average);
        }
        self.stale = true;
        Ok(norm)
    }

    /// Measures every step from now on, or no longer; see [`TrainSession::times`].
    pub fn observe(&mut self, on: bool) {
        self.times = on.then(|| vec![Duration::ZERO; self.plan.steps.len()]);
    }

    /// The time of every step, since it was asked for; of all runs together.
    #[must_use]
    pub fn times(&self) -> Vec<StepTime> {
        let times = self.times.iter().flatten().enumerate();
        times.map(|(step, &time)| StepTime { step, time }).collect()
    }

    fn run(&mut self, steps: Range<usize>, inputs: &[&[f32]]) -> Result<(), EngineError> {
        for index in steps {
            let start = self.times.is_some().then(Instant::now);
            let step = &self.plan.steps[index];
            let call = Call {
                pool: &self.pool,
                images: self.images,
                inputs,
                outputs: &mut self.outputs,
                values: &self.values,
                gradients: &mut self.gradients,
                seed: self.seed,
            };
            let run = step.kernel.run(&step.places, &mut self.arena, call);
            run.map_err(|source| {
                let place = format!("{} ({})", step.name(), step.operator());
                EngineError::Kernel { place, source }
            })?;
            if let (Some(start), Some(times)) = (start, &mut self.times) {
                times[index] += start.elapsed();
            }
        }
        Ok(())
    }

    /// How many images the inputs hold.
    fn count(&self, inputs: &[&[f32]]) -> Result<usize, EngineError> {
        let mut images = None;
        for (index, port) in self.plan.inputs().iter().enumerate() {
            let found = inputs.get(index).map_or(0, |input| input.len());
            let count = found / port.elements;
            let fits = count * port.elements == found && (1..=self.plan.batch).contains(&count);
            if !fits || images.is_some_and(|images| images != count) {
                let expected =
                    format!("{} numbers for each of 1 to {} images", port.elements, self.plan.batch);
                let (name, found) = (port.name.clone(), format!("{found} numbers"));
                return Err(EngineError::Input { name, found, expected });
            }
            images = Some(count);
        }
        Ok(images.unwrap_or(1))
    }
}

/// A part of a vector, or nothing of one that is not there.
fn part<'a>(vector: &'a mut [f32], range: &Range<usize>) -> &'a mut [f32] {
    if vector.is_empty() { &mut [] } else { &mut vector[range.clone()] }
}
