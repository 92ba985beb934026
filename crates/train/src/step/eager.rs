//! The step that Burn computes, operation by operation, on whatever device it has.
//!
//! The parameters' masters live on the host, where the optimizer updates them; the device gets a copy after each
//! update. So the update is the same on every device, and the state is plain vectors.

use super::{Step, StepInput, StepOutput, StepSettings, StepState};
use crate::TrainError;
use crate::loss::{Loss, LossInput};
use crate::optim::{Ema, Optimizer, OptimizerSettings, OptimizerState, Parameter};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_models::weights::{
    Classifier, Entry, entries, freeze, load, set_values, take_gradients, values,
};
use cardinal_models::{Backbone, Model};
use cardinal_weights::{NamedTensors, Tensor as Stored};

/// Training by Burn's autodiff.
pub struct EagerStep {
    /// On an autodiff device; absent only while it is being replaced.
    model: Option<Model>,
    device: Device,
    loss: Loss,
    entries: Vec<Entry>,
    parameters: Vec<Parameter>,
    optimizer: Optimizer,
    gradients: Vec<Vec<f32>>,
    /// Batches whose gradients wait.
    waiting: usize,
    ema: Option<Ema>,
}

impl EagerStep {
    /// A step for `model`, which lies on the autodiff device `device`. Layers whose parameters' names `frozen` accepts
    /// stay as they are.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn new(
        model: Model,
        device: &Device,
        loss: Loss,
        optimizer: OptimizerSettings,
        average: bool,
        frozen: impl Fn(&str) -> bool,
    ) -> Result<Self, TrainError> {
        let model = freeze(model, &frozen);
        let entries = entries(&model);
        let shapes = entries.iter().filter(|entry| !entry.buffer);
        let parameters: Vec<Parameter> = values(&model, false)?
            .into_iter()
            .zip(shapes)
            .filter(|((name, _), _)| !frozen(name))
            .map(|((name, values), entry)| Parameter { name, shape: entry.shape.clone(), values })
            .collect();
        let mut step = Self {
            device: device.clone(),
            loss,
            entries,
            optimizer: Optimizer::new(optimizer, &parameters),
            gradients: parameters.iter().map(|p| vec![0.0; p.values.len()]).collect(),
            parameters,
            waiting: 0,
            ema: None,
            model: Some(model),
        };
        if average {
            let start = step.all_values()?.into_iter().map(|(_, values)| values).collect();
            step.ema = Some(Ema::new(start));
        }
        Ok(step)
    }

    /// The network as it is.
    pub fn model(&self) -> &Model {
        self.model.as_ref().expect("the model is always put back")
    }

    /// Parameters and running statistics with their names, in module order.
    fn all_values(&self) -> Result<Vec<(String, Vec<f32>)>, TrainError> {
        let mut parameters = values(self.model(), false)?.into_iter();
        let mut buffers = values(self.model(), true)?.into_iter();
        let next = |entry: &Entry| if entry.buffer { buffers.next() } else { parameters.next() };
        Ok(self.entries.iter().filter_map(next).collect())
    }

    fn named(&self, values: impl IntoIterator<Item = impl AsRef<[f32]>>) -> Result<NamedTensors, TrainError> {
        let mut tensors = NamedTensors::new();
        for (entry, values) in self.entries.iter().zip(values) {
            tensors.insert(entry.name.clone(), Stored::from_f32(entry.shape.clone(), values.as_ref())?);
        }
        Ok(tensors)
    }

    /// Adds the batch's gradients to those that wait.
    fn accumulate(&mut self, gradients: Vec<Option<Vec<f32>>>) {
        let trainable = self.entries.iter().filter(|entry| !entry.buffer).zip(gradients);
        let mut index = 0;
        for (entry, gradient) in trainable {
            if self.parameters.get(index).is_none_or(|parameter| parameter.name != entry.name) {
                continue; // frozen
            }
            if let Some(gradient) = gradient {
                let sum = &mut self.gradients[index];
                if self.waiting == 0 {
                    *sum = gradient;
                } else {
                    sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                }
            }
            index += 1;
        }
        self.waiting += 1;
    }

    /// Updates the masters and the device's copy; gives the norm of the gradients.
    fn update(&mut self, settings: &StepSettings) -> Result<f64, TrainError> {
        if self.waiting > 1 {
            let share = 1.0 / self.waiting as f32;
            self.gradients.iter_mut().flatten().for_each(|g| *g *= share);
        }
        self.waiting = 0;
        let norm = self.optimizer.update(&mut self.parameters, &mut self.gradients, settings.rates);
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.upload();
        if self.ema.is_some() {
            let current = self.all_values()?;
            if let Some(ema) = &mut self.ema {
                ema.update(current.iter().map(|(_, values)| values.as_slice()), settings.ema_decay);
            }
        }
        Ok(norm)
    }

    /// Gives the device the masters.
    fn upload(&mut self) {
        let model = self.model.take().expect("the model is always put back");
        let named = self.parameters.iter().map(|p| (p.name.as_str(), p.values.as_slice()));
        self.model = Some(set_values(model, named));
    }
}

impl Step for EagerStep {
    fn train(&mut self, batch: StepInput<'_>, settings: &StepSettings) -> Result<StepOutput, TrainError> {
        self.model().check_input(&batch.size)?;
        if let Some(model) = &mut self.model {
            model.set_drop_block_rate(settings.drop_block);
        }
        self.device.seed(settings.seed);
        let images = TensorData::new(batch.images.to_vec(), Shape::from(batch.size));
        let images = Tensor::<4>::from_data(images, &self.device);
        let n = batch.size[0];
        let targets = TensorData::new(batch.targets.to_vec(), [n, batch.targets.len() / n]);
        let targets = Tensor::<2>::from_data(targets, &self.device);
        let model = self.model();
        let features = model.forward_features(images);
        let embeddings = self.loss.needs_embeddings().then(|| model.forward_head(features.clone(), true));
        let logits = model.forward_head(features, false);
        let input = LossInput { logits: logits.clone(), targets, embeddings, labels: batch.labels };
        let loss = self.loss.forward(input);
        let value = f64::from(read(loss.clone())?.first().copied().unwrap_or(f32::NAN));
        let logits = read(logits)?;
        if !value.is_finite() {
            return Ok(StepOutput { loss: value, logits, gradient_norm: None });
        }
        let gradients = take_gradients(model, &mut loss.backward())?;
        self.accumulate(gradients);
        let gradient_norm = settings.update.then(|| self.update(settings)).transpose()?;
        Ok(StepOutput { loss: value, logits, gradient_norm })
    }

    fn describe(&self) -> String {
        "eager, f32".into()
    }

    fn state(&self) -> Result<StepState, TrainError> {
        let model = self.named(self.all_values()?.into_iter().map(|(_, values)| values))?;
        let ema = self.ema.as_ref().map(|ema| self.named(ema.values())).transpose()?;
        let mut optimizer = NamedTensors::new();
        let state = self.optimizer.state();
        for (kind, moments) in [("first", &state.first), ("second", &state.second)] {
            for (parameter, values) in self.parameters.iter().zip(moments) {
                let tensor = Stored::from_f32(parameter.shape.clone(), values)?;
                optimizer.insert(format!("{kind}.{}", parameter.name), tensor);
            }
        }
        Ok(StepState { model, ema, optimizer, updates: state.updates })
    }

    fn restore(&mut self, state: &StepState) -> Result<(), TrainError> {
        let model = self.model.take().expect("the model is always put back");
        let (model, _) = load(model, &state.model, Classifier::MustFit)?;
        self.model = Some(model);
        for parameter in &mut self.parameters {
            let stored = state.model.get(&parameter.name);
            parameter.values = stored.map(Stored::to_f32).unwrap_or_default();
        }
        let moments = |kind: &str| {
            let of = |p: &Parameter| state.optimizer.get(&format!("{kind}.{}", p.name)).map(Stored::to_f32);
            self.parameters.iter().filter_map(of).collect()
        };
        let moments =
            OptimizerState { updates: state.updates, first: moments("first"), second: moments("second") };
        self.optimizer.set_state(moments).map_err(TrainError::State)?;
        self.gradients = self.parameters.iter().map(|p| vec![0.0; p.values.len()]).collect();
        self.waiting = 0;
        match (&mut self.ema, &state.ema) {
            (None, _) => {}
            (Some(_), None) => return Err(TrainError::State("it has no moving average (model_ema)".into())),
            (Some(ema), Some(stored)) => {
                let of = |entry: &Entry| stored.get(&entry.name).map(Stored::to_f32).unwrap_or_default();
                let values: Vec<_> = self.entries.iter().map(of).collect();
                let fits = values.iter().zip(ema.values()).all(|(new, old)| new.len() == old.len());
                if !fits {
                    return Err(TrainError::State("its moving average belongs to another network".into()));
                }
                ema.set_values(values);
            }
        }
        Ok(())
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    let data = tensor.try_into_data().map_err(|error| TrainError::Device(error.to_string()))?;
    data.convert::<f32>().try_to_vec::<f32>().map_err(|error| TrainError::Device(format!("{error:?}")))
}
