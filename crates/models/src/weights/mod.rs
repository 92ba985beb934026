//! A model's parameters by name: listed, loaded from and saved to named tensors, and recognised in a file.

mod names;
mod sniff;
mod train;

pub use sniff::{Sniffed, options_in, sniff};
pub use train::{freeze, set_values, take_gradients, values};

use crate::{Model, ModelError};
use burn::backend::ir::TensorId;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Shape, Tensor, TensorData};
use cardinal_weights::{NamedTensors, Tensor as Stored, compare};
use names::Path;

/// A parameter or buffer of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as in timm.
    pub name: String,
    /// Its shape, as in PyTorch.
    pub shape: Vec<usize>,
    /// A running statistic, which no gradient reaches and which does not count as a parameter.
    pub buffer: bool,
}

/// Lists a model's parameters and running statistics in module order, without drawing any value.
pub fn entries(model: &impl Module) -> Vec<Entry> {
    let mut list = List::default();
    model.visit(&mut list);
    list.entries
}

/// The name, as in timm, of the tensor that holds each parameter and statistic of a model on the capture device.
pub fn tensor_names(model: &impl Module) -> std::collections::HashMap<TensorId, String> {
    let mut names = std::collections::HashMap::new();
    visit_values(model, |name, tensor| drop(names.insert(tensor, name)));
    names
}

/// Calls `visit` with the name and the capture id of every parameter and statistic.
pub(crate) fn visit_values(model: &impl Module, visit: impl FnMut(String, TensorId)) {
    model.visit(&mut Values { path: Path::default(), visit });
}

struct Values<F> {
    path: Path,
    visit: F,
}

impl<F: FnMut(String, TensorId)> ModuleVisitor for Values<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        (self.visit)(self.path.name(), crate::summary::id(&param.val()));
    }
}

/// Number of trainable parameters; running statistics do not count.
pub fn parameter_count(model: &impl Module) -> usize {
    entries(model)
        .iter()
        .filter(|entry| !entry.buffer)
        .map(|entry| entry.shape.iter().product::<usize>())
        .sum()
}

#[derive(Default)]
struct List {
    path: Path,
    entries: Vec<Entry>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let shape: [usize; D] = param.lazy_shape().dims();
        self.entries.push(Entry { buffer: is_buffer(&name), name, shape: shape.into() });
    }
}

fn is_buffer(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

/// What loading did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors taken from the checkpoint.
    pub loaded: usize,
    /// `Some((classes in the checkpoint, classes in the model))` if the classifier was left as it was.
    pub new_classifier: Option<(usize, usize)>,
}

/// What to do with a checkpoint whose number of classes is not the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classifier {
    /// An error, as for every other difference.
    MustFit,
    /// Keep the model's own, and say so in the [`LoadReport`]: for fine-tuning.
    MayDiffer,
}

/// Replaces all of `model`'s parameters and statistics by those of `tensors`, which have timm's names.
///
/// `num_batches_tracked` may be absent or present; it is not used.
///
/// # Errors
///
/// [`ModelError::Mismatch`] lists the names that are missing, unexpected or of another shape. Nothing is loaded then.
pub fn load(
    model: Model,
    tensors: &NamedTensors,
    classifier: Classifier,
) -> Result<(Model, LoadReport), ModelError> {
    let mut expected: Vec<(String, Vec<usize>)> =
        entries(&model).into_iter().map(|entry| (entry.name, entry.shape)).collect();
    let counters = tensors.iter().filter(|(name, _)| name.ends_with("num_batches_tracked"));
    expected.extend(counters.map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())));
    let mut report = LoadReport::default();
    if classifier == Classifier::MayDiffer {
        report.new_classifier = accept_classifier(&model, &mut expected, tensors);
    }
    let comparison = compare(&expected, tensors);
    if !comparison.is_exact() {
        let model = model.variant().name.into();
        return Err(ModelError::Mismatch { model, comparison: Box::new(comparison) });
    }
    let mut apply = Apply { path: Path::default(), tensors, loaded: 0 };
    let model = model.map(&mut apply);
    report.loaded = apply.loaded;
    Ok((model, report))
}

/// Expects the checkpoint's classifier, or none, if it has another number of classes than the model's, and says both
/// numbers.
fn accept_classifier(
    model: &Model,
    expected: &mut Vec<(String, Vec<usize>)>,
    tensors: &NamedTensors,
) -> Option<(usize, usize)> {
    let prefix = model.variant().arch.classifier();
    let classes = tensors.get(&format!("{prefix}.weight")).and_then(|weight| weight.shape().first().copied());
    let classes = classes.unwrap_or(0);
    if classes == model.num_classes() {
        return None;
    }
    let belongs = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    expected.retain(|(name, _)| !belongs(name));
    let theirs = tensors.iter().filter(|(name, _)| belongs(name));
    expected.extend(theirs.map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())));
    Some((classes, model.num_classes()))
}

struct Apply<'a> {
    path: Path,
    tensors: &'a NamedTensors,
    loaded: usize,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Only a classifier of another size does not fit here: everything else was compared before.
        let shape: [usize; D] = param.lazy_shape().dims();
        let Some(stored) = self.tensors.get(&self.path.name()).filter(|stored| stored.shape() == shape)
        else {
            return param;
        };
        self.loaded += 1;
        let device = param.lazy_device();
        let data = TensorData::new(stored.to_f32(), Shape::from(stored.shape().to_vec()));
        let tensor = Tensor::from_data(data, (&device, DType::F32));
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

/// A model's parameters and statistics as f32 under timm's names, with `num_batches_tracked` at 0 for each norm, so
/// that timm loads them with `strict=True`.
///
/// # Errors
///
/// A tensor cannot be read back from its device.
pub fn state_dict(model: &Model) -> Result<NamedTensors, ModelError> {
    let mut collect = Collect { path: Path::default(), tensors: NamedTensors::new(), failed: None };
    model.visit(&mut collect);
    match collect.failed {
        Some(error) => Err(error),
        None => Ok(collect.tensors),
    }
}

struct Collect {
    path: Path,
    tensors: NamedTensors,
    failed: Option<ModelError>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let data = param.val().into_data().convert::<f32>();
        let shape: [usize; D] = param.lazy_shape().dims();
        let values = data.try_to_vec::<f32>().unwrap_or_default();
        match Stored::from_f32(shape.into(), &values) {
            Ok(tensor) => drop(self.tensors.insert(name.clone(), tensor)),
            Err(error) => self.failed = Some(error.into()),
        }
        if let Some(norm) = name.strip_suffix("running_var") {
            self.tensors.insert(format!("{norm}num_batches_tracked"), Stored::scalar_i64(0));
        }
    }
}
