//! Optimizers over plain vectors, with PyTorch's semantics, and the running average of weights.
//!
//! Parameters, gradients and state live on the host in `f32`, so an update is the same on every device and a resumed
//! run continues bit for bit. Scalars are worked out in `f64` and rounded once, as Python does.

use crate::recipe::Recipe;
use crate::schedule::Rates;

/// A trainable parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name, as in timm.
    pub name: String,
    /// Its shape, as in PyTorch.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

impl Parameter {
    /// Whether it is the weight of a norm or a bias: all vectors are, and nothing else.
    pub fn is_vector(&self) -> bool {
        self.shape.len() <= 1
    }
}

/// The rule of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Stochastic gradient descent: `b = momentum b + g`, `p -= lr b`; with Nesterov `p -= lr (g + momentum b)`.
    /// PyTorch's form, without dampening: the learning rate is not inside the momentum.
    Sgd {
        /// Share of the last direction that is kept, in `[0, 1)`.
        momentum: f64,
        /// Step from where the momentum leads.
        nesterov: bool,
    },
    /// Adam with bias correction.
    Adam {
        /// Shares of the old first and second moment that are kept.
        betas: [f64; 2],
        /// Added to the square root of the second moment.
        epsilon: f64,
    },
}

/// What an optimizer does with gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// The rule.
    pub method: Method,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decay the weights of norms and biases too.
    pub decay_vectors: bool,
    /// Shrink the weights by `lr * weight_decay` beside the update (AdamW, "true weight decay") instead of adding
    /// `weight_decay * p` to the gradient.
    pub decoupled: bool,
    /// Scale gradients down to this norm, over all parameters together, if it is exceeded.
    pub clip_norm: Option<f64>,
}

impl OptimizerSettings {
    /// Those of a recipe.
    pub fn from_recipe(recipe: &Recipe) -> Self {
        let table = &recipe.optimizer;
        let method = if table.opt.is_adam() {
            Method::Adam { betas: table.opt_betas, epsilon: table.opt_eps }
        } else {
            Method::Sgd { momentum: table.momentum, nesterov: table.nesterov }
        };
        Self {
            method,
            weight_decay: table.weight_decay,
            decay_vectors: !table.filter_bias_and_bn,
            decoupled: table.opt.decoupled(),
            clip_norm: table.clip_grad,
        }
    }
}

/// An optimizer and its state.
#[derive(Clone, Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    state: OptimizerState,
}

/// What an optimizer remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Updates done.
    pub updates: u64,
    /// For each parameter the momentum (SGD) or first moment (Adam); empty for plain SGD.
    pub first: Vec<Vec<f32>>,
    /// For each parameter the second moment; empty for SGD.
    pub second: Vec<Vec<f32>>,
}

impl Optimizer {
    /// An optimizer that has seen nothing, for `parameters`.
    pub fn new(settings: OptimizerSettings, parameters: &[Parameter]) -> Self {
        let zeros = || parameters.iter().map(|p| vec![0.0; p.values.len()]).collect();
        let (first, second) = match settings.method {
            Method::Sgd { momentum: 0.0, .. } => (Vec::new(), Vec::new()),
            Method::Sgd { .. } => (zeros(), Vec::new()),
            Method::Adam { .. } => (zeros(), zeros()),
        };
        Self { settings, state: OptimizerState { updates: 0, first, second } }
    }

    /// What it remembers.
    pub fn state(&self) -> &OptimizerState {
        &self.state
    }

    /// Continues from a state.
    ///
    /// # Errors
    ///
    /// The state belongs to another method or to other parameters; says which.
    pub fn set_state(&mut self, state: OptimizerState) -> Result<(), String> {
        let lengths = |list: &[Vec<f32>]| list.iter().map(Vec::len).collect::<Vec<_>>();
        for (ours, theirs) in [(&self.state.first, &state.first), (&self.state.second, &state.second)] {
            if lengths(ours) != lengths(theirs) {
                return Err("its optimizer state belongs to another optimizer or other parameters".into());
            }
        }
        self.state = state;
        Ok(())
    }

    /// Updates `parameters` with `gradients` in the same order, which are clipped in place; gives the norm of all
    /// gradients together before clipping. Where that is not finite, nothing is updated. A momentum in `rates` takes
    /// the place of the settings' momentum or first beta.
    ///
    /// # Panics
    ///
    /// If the lengths differ from those the optimizer was made for.
    pub fn update(&mut self, parameters: &mut [Parameter], gradients: &mut [Vec<f32>], rates: Rates) -> f64 {
        assert_eq!(parameters.len(), gradients.len(), "one gradient for each parameter");
        let norm = global_norm(gradients);
        if !norm.is_finite() {
            return norm;
        }
        if let Some(limit) = self.settings.clip_norm {
            clip(gradients, norm, limit);
        }
        self.state.updates += 1;
        let lr = rates.lr;
        for (index, (parameter, gradient)) in parameters.iter_mut().zip(gradients).enumerate() {
            self.decay(parameter, gradient, lr);
            match self.settings.method {
                Method::Sgd { momentum, nesterov } => {
                    let momentum = rates.momentum.unwrap_or(momentum);
                    let buffer = self.state.first.get_mut(index);
                    sgd(&mut parameter.values, gradient, buffer, lr, momentum, nesterov);
                }
                Method::Adam { betas: [beta1, beta2], epsilon } => {
                    let betas = [rates.momentum.unwrap_or(beta1), beta2];
                    let moments = [&mut self.state.first[index], &mut self.state.second[index]];
                    adam(&mut parameter.values, gradient, moments, lr, betas, epsilon, self.state.updates);
                }
            }
        }
        norm
    }

    fn decay(&self, parameter: &mut Parameter, gradient: &mut [f32], lr: f64) {
        let rate = self.settings.weight_decay;
        if rate == 0.0 || (parameter.is_vector() && !self.settings.decay_vectors) {
            return;
        }
        if self.settings.decoupled {
            let keep = (1.0 - lr * rate) as f32;
            parameter.values.iter_mut().for_each(|p| *p *= keep);
        } else {
            let rate = rate as f32;
            gradient.iter_mut().zip(&parameter.values).for_each(|(g, p)| *g += rate * p);
        }
    }
}

fn sgd(
    values: &mut [f32],
    gradient: &[f32],
    buffer: Option<&mut Vec<f32>>,
    lr: f64,
    momentum: f64,
    nesterov: bool,
) {
    let (lr, momentum) = (lr as f32, momentum as f32);
    let Some(buffer) = buffer else {
        values.iter_mut().zip(gradient).for_each(|(p, g)| *p -= lr * g);
        return;
    };
    for ((p, g), b) in values.iter_mut().zip(gradient).zip(buffer) {
        *b = momentum * *b + g;
        *p -= lr * if nesterov { g + momentum * *b } else { *b };
    }
}

fn adam(
    values: &mut [f32],
    gradient: &[f32],
    [first, second]: [&mut Vec<f32>; 2],
    lr: f64,
    [beta1, beta2]: [f64; 2],
    epsilon: f64,
    updates: u64,
) {
    let power = |beta: f64| 1.0 - beta.powf(updates as f64);
    let step = (lr / power(beta1)) as f32;
    let root = power(beta2).sqrt() as f32;
    let (new1, keep2, new2, epsilon) =
        ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32, epsilon as f32);
    for (((p, g), m), v) in values.iter_mut().zip(gradient).zip(first).zip(second) {
        *m += new1 * (g - *m);
        *v = keep2 * *v + new2 * g * g;
        *p -= step * (*m / (v.sqrt() / root + epsilon));
    }
}

/// The Euclidean norm of all gradients together.
pub fn global_norm(gradients: &[Vec<f32>]) -> f64 {
    let square = |list: &Vec<f32>| list.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    gradients.iter().map(square).sum::<f64>().sqrt()
}

/// Scales `gradients`, whose norm is `norm`, to `limit` if they exceed it; PyTorch's `clip_grad_norm_`.
fn clip(gradients: &mut [Vec<f32>], norm: f64, limit: f64) {
    let scale = limit / (norm + 1e-6);
    if scale < 1.0 {
        let scale = scale as f32;
        gradients.iter_mut().flatten().for_each(|v| *v *= scale);
    }
}

/// The exponential moving average of parameters and running statistics.
#[derive(Clone, Debug)]
pub struct Ema {
    values: Vec<Vec<f32>>,
}

impl Ema {
    /// An average that starts at `values`.
    pub fn new(values: Vec<Vec<f32>>) -> Self {
        Self { values }
    }

    /// Keeps the share `decay` of the old average, and takes the rest from `values`, in the order it was made with.
    /// [`Recipe::ema_decay`](crate::recipe::Recipe::ema_decay) has the share of each update.
    ///
    /// # Panics
    ///
    /// If the lengths differ from those it was made with.
    pub fn update<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a [f32]>, decay: f64) {
        assert_eq!(values.len(), self.values.len(), "as many values as are averaged");
        let share = (1.0 - decay) as f32;
        for (average, values) in self.values.iter_mut().zip(values) {
            assert_eq!(average.len(), values.len(), "values of the averaged length");
            average.iter_mut().zip(values).for_each(|(a, v)| *a += share * (v - *a));
        }
    }

    /// The average.
    pub fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// Continues from an average.
    pub fn set_values(&mut self, values: Vec<Vec<f32>>) {
        self.values = values;
    }
}
