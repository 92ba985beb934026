//! From a Burn module to a graph of the engine.

use crate::names;
use crate::translate::Translator;
use burn::backend::Capture;
use burn::backend::ir::TensorId;
use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use cardinal_engine::EngineError;
use cardinal_engine::graph::Graph;
use std::collections::HashMap;

/// Parameter names by the tensor that holds the parameter.
pub type Names = HashMap<TensorId, String>;

/// Why a module is not a graph.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The engine has no such operator.
    #[error("{place}: the engine has no operator for {operator}")]
    Operator {
        /// The nearest module path.
        place: String,
        /// What Burn recorded.
        operator: String,
    },
    /// The operator exists, but not in this form.
    #[error(transparent)]
    Graph(#[from] EngineError),
    /// Burn could not record the module.
    #[error("the module could not be recorded: {0}")]
    Record(String),
}

/// Records `forward` of `module` on one image of `[1, channels, height, width]`, with the module's values as
/// constants.
///
/// The module is taken apart on the way, so that its values are not there twice; clone it to keep it. The graph holds
/// for any batch. Batch norms are recorded with their running statistics, and what training drops as
/// [`Op::Drop`](cardinal_engine::graph::Op::Drop), unless the module is frozen or was made one that infers by `valid`.
/// `names` says what the parameters are called; [`module_names`] calls them by their
/// path of fields, and `cardinal_models::weights::tensor_names` as timm does.
///
/// # Errors
///
/// [`CaptureError::Operator`] names an operator that the engine lacks and where it stands.
///
/// # Panics
///
/// If `forward` does.
pub fn capture<M: Module, const D: usize>(
    name: &str,
    module: M,
    input: [usize; 4],
    names: impl FnOnce(&M) -> Names,
    forward: impl FnOnce(&M, Tensor<4>) -> Tensor<D>,
) -> Result<Graph, CaptureError> {
    capture_all(name, module, input, names, |module, x| [forward(module, x)])
}

/// [`capture`] of a `forward` with several results, which are the graph's outputs in this order.
///
/// # Errors
///
/// [`CaptureError::Operator`] names an operator that the engine lacks and where it stands.
///
/// # Panics
///
/// If `forward` does.
pub fn capture_all<M: Module, const D: usize, const N: usize>(
    name: &str,
    module: M,
    input: [usize; 4],
    names: impl FnOnce(&M) -> Names,
    forward: impl FnOnce(&M, Tensor<4>) -> [Tensor<D>; N],
) -> Result<Graph, CaptureError> {
    // Values that are drawn when they are first read must be drawn where there are numbers.
    module.visit(&mut Draw);
    // A clone shares its running statistics with the original, which must not move with it.
    let mut switches = Switches::default();
    module.visit(&mut switches);
    let own = module.valid().map(&mut switches);
    drop(module);
    let device = Device::capture();
    let mut found = Names::new();
    let captured = device.capture_scope(|scope| {
        let module = own.to_device(&device);
        found = names(&module);
        let x = Tensor::<4>::from_data(TensorData::zeros::<f32, _>(input), &device);
        let x_id = tensor_id(&x);
        let results = forward(&module, x);
        scope.complete([x_id], results.each_ref().map(tensor_id))
    });
    let captured = captured.map_err(|error| CaptureError::Record(error.to_string()))?;
    let mut graph = Translator::new(name, captured.values, found).translate(&captured.graph)?;
    names::inherit(&mut graph);
    Ok(graph)
}

/// The recorded tensor's id. Only called on capture tensors.
fn tensor_id<const D: usize>(tensor: &Tensor<D>) -> TensorId {
    tensor.clone().try_into_primitive::<Capture>().expect("the tensor was made on the capture device").id()
}

/// Names parameters by the fields that lead to them, such as `layer1.0.conv1.weight`.
pub fn module_names(module: &impl Module) -> Names {
    let mut visitor = Paths::default();
    module.visit(&mut visitor);
    visitor.names
}

/// The switches between training and inference, by which regularisers know whether they are frozen. `valid` turns all
/// of them off; this turns them back.
#[derive(Default)]
struct Switches(HashMap<ParamId, bool>);

impl ModuleVisitor for Switches {
    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.insert(flag.id, flag.is_enabled());
    }
}

impl ModuleMapper for Switches {
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        let enabled = self.0.get(&flag.id).copied().unwrap_or_default();
        flag.with_value(enabled)
    }
}

struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        drop(param.val());
    }
}

#[derive(Default)]
struct Paths {
    path: Vec<String>,
    names: Names,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.names.insert(tensor_id(&param.val()), self.path.join("."));
    }
}
