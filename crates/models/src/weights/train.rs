//! What a training step needs of a model: values and gradients by name, and parts that stay as they are.

use super::is_buffer;
use super::names::Path;
use crate::{Model, ModelError};
use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use std::iter::Peekable;

/// Every parameter, or every running statistic (`buffers`), in module order: its name and its values.
///
/// # Errors
///
/// A tensor cannot be read back from its device.
pub fn values(model: &Model, buffers: bool) -> Result<Vec<(String, Vec<f32>)>, ModelError> {
    let mut read = Read { path: Path::default(), buffers, found: Vec::new(), failed: None };
    model.visit(&mut read);
    read.failed.map_or(Ok(read.found), Err)
}

/// Replaces the parameters that `values` names, in module order; others stay as they are.
///
/// # Panics
///
/// If a value has another length than its parameter, or names none.
pub fn set_values<'a>(model: Model, values: impl IntoIterator<Item = (&'a str, &'a [f32])>) -> Model {
    let mut write = Write { path: Path::default(), values: values.into_iter().peekable() };
    let model = model.map(&mut write);
    assert!(write.values.next().is_none(), "every value belongs to a parameter, in module order");
    model
}

/// Takes the gradient of every parameter out of `gradients`, in module order; `None` for a parameter that has none,
/// because it is frozen or the loss does not depend on it.
///
/// # Errors
///
/// A tensor cannot be read back from its device.
pub fn take_gradients(model: &Model, gradients: &mut Gradients) -> Result<Vec<Option<Vec<f32>>>, ModelError> {
    let mut take = Take { path: Path::default(), gradients, found: Vec::new(), failed: None };
    model.visit(&mut take);
    take.failed.map_or(Ok(take.found), Err)
}

/// Freezes the layers whose parameters' names `frozen` accepts: no gradient, and a norm uses its running statistics
/// and leaves them as they are.
///
/// The name of a layer's switch is the layer's own with `.training` behind it (`layer1.0.bn1.training`), so a test
/// by prefix catches both.
pub fn freeze(model: Model, frozen: impl Fn(&str) -> bool) -> Model {
    model.map(&mut Freeze { path: Path::default(), frozen })
}

struct Read {
    path: Path,
    buffers: bool,
    found: Vec<(String, Vec<f32>)>,
    failed: Option<ModelError>,
}

impl ModuleVisitor for Read {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if is_buffer(&name) != self.buffers {
            return;
        }
        match read(param.val()) {
            Ok(values) => self.found.push((name, values)),
            Err(reason) => self.failed = Some(ModelError::Read { name, reason }),
        }
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data().map_err(|error| error.to_string())?;
    data.convert::<f32>().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))
}

struct Write<I: Iterator> {
    path: Path,
    values: Peekable<I>,
}

impl<'a, I: Iterator<Item = (&'a str, &'a [f32])>> ModuleMapper for Write<I> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some((_, values)) = self.values.next_if(|(next, _)| *next == name) else {
            return param;
        };
        let data = TensorData::new(values.to_vec(), param.lazy_shape());
        let tensor = Tensor::from_data(data, (&param.lazy_device(), DType::F32));
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

struct Take<'a> {
    path: Path,
    gradients: &'a mut Gradients,
    found: Vec<Option<Vec<f32>>>,
    failed: Option<ModelError>,
}

impl ModuleVisitor for Take<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if is_buffer(&name) {
            return;
        }
        match param.val().grad_remove(self.gradients).map(read).transpose() {
            Ok(gradient) => self.found.push(gradient),
            Err(reason) => self.failed = Some(ModelError::Read { name, reason }),
        }
    }
}

struct Freeze<F> {
    path: Path,
    frozen: F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Freeze<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        if !is_buffer(&name) && (self.frozen)(&name) { param.set_require_grad(false) } else { param }
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        if (self.frozen)(&self.path.name()) { flag.with_value(false) } else { flag }
    }
}
