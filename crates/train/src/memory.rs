//! How much memory a compiled step takes, known before it runs: for the largest batch that fits.

use crate::TrainError;
use crate::loss::Loss;
use crate::optim::{Method, OptimizerSettings};
use crate::recipe::Recipe;
use crate::step::captured;
use crate::{network, pipeline};
use burn::tensor::Device;
use cardinal_engine::graph::Graph;
use cardinal_engine::train::{Recompute, TrainOptions, TrainPlan};
use cardinal_engine::{DType, Isa};
use cardinal_models::registry::Variant;
use cardinal_models::weights::freeze;

/// Batches that the loader has ready, at least, and the one that is being trained on.
const BATCHES: usize = 2;

/// The memory of a recipe's step, by its batch size.
pub struct StepMemory {
    graph: Graph,
    frozen: Box<dyn Fn(&str) -> bool>,
    dtype: DType,
    threads: usize,
    /// Vectors as long as all parameters, beside values and gradients.
    states: usize,
    images: usize,
}

impl StepMemory {
    /// For the network and the data of `recipe`, whose batch size does not matter.
    ///
    /// # Errors
    ///
    /// The data is not there, or the network cannot be compiled.
    pub fn new(
        recipe: &Recipe,
        variant: &'static Variant,
        dtype: DType,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let train = pipeline::dataset(recipe, &recipe.data.train_split)?;
        let classes = recipe.model.num_classes.unwrap_or(train.classes().len());
        // On a device that trains, drops are recorded.
        let model = network::build(recipe, variant, classes, None, &Device::flex().autodiff())?;
        let frozen: Box<dyn Fn(&str) -> bool> = Box::new(network::frozen(recipe, variant));
        let side = recipe.model.img_size;
        let size = [model.in_chans(), side, side];
        let graph = captured(freeze(model, &frozen), size, &Loss::from_recipe(recipe))
            .map_err(|error| not_compiled(variant, &error))?;
        let moments = match OptimizerSettings::from_recipe(recipe).method {
            Method::Sgd { momentum: 0.0, .. } => 0,
            Method::Sgd { .. } => 1,
            Method::Adam { .. } => 2,
        };
        let waiting = usize::from(recipe.optimizer.grad_accum_steps > 1);
        let states = moments + waiting + usize::from(recipe.ema.model_ema);
        Ok(Self { graph, frozen, dtype, threads, states, images: train.len() })
    }

    /// Training images, and so the largest batch that makes sense.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Bytes of a step with `batch` images: the plan's maps, weights, gradients and optimizer, and the images themselves.
    ///
    /// # Errors
    ///
    /// The network has an operator that cannot be trained.
    pub fn bytes(&self, batch: usize) -> Result<usize, TrainError> {
        let options = TrainOptions {
            batch,
            dtype: self.dtype,
            threads: self.threads,
            isa: Isa::best(),
            recompute: Recompute::default(),
            trained: &|name| !(self.frozen)(name),
        };
        let plan = TrainPlan::new(&self.graph, &options)?;
        let ports = plan.inputs().iter().map(|port| port.elements * BATCHES);
        // A loss needs targets and gradients beside the outputs.
        let ports = ports.chain(plan.outputs().iter().map(|port| port.elements * (BATCHES + 2)));
        Ok(plan.memory_bytes(self.states) + batch * ports.sum::<usize>() * size_of::<f32>())
    }
}

fn not_compiled(variant: &Variant, error: &dyn std::error::Error) -> TrainError {
    TrainError::NotCompiled { model: variant.name.into(), reason: error.to_string() }
}
