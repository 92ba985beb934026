//! Parameters, multiply-adds and activations of a network, layer by layer.
//!
//! The network runs once on Burn's capture device, which computes nothing: what it records is what is counted, so no
//! second description of a network can drift from the first.

use crate::weights::{entries, tensor_names};
use crate::{Backbone, Model, ModelError, ModelOptions, registry::Variant};
use burn::backend::Capture;
use burn::backend::ir::{
    BaseOperationIr, Conv2dOpIr, FloatOperationIr, MatmulOpIr, ModuleOperationIr, NumericOperationIr,
    OperationIr, ShapeOpIr, SwapDimsOpIr, TensorId, TensorIr,
};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::HashMap;

/// One operator that a reader would call a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The module's path, as in parameter names; empty for operators without parameters.
    pub name: String,
    /// What it does, such as `conv 3x3 /2 g32` or `split_attention`.
    pub kind: String,
    /// Shape of the output.
    pub output: Vec<usize>,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-adds of convolutions and linear layers; other operators count none.
    pub macs: usize,
}

/// A network at one input size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Shape of the input: `[1, channels, height, width]`.
    pub input: [usize; 4],
    /// The layers in the order of execution.
    pub layers: Vec<Layer>,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-adds of convolutions and linear layers for one image.
    pub macs: usize,
    /// Elements that convolutions and linear layers write for one image, as timm's `macts`.
    pub activations: usize,
}

/// Summarises `variant` for one image of `[height, width]`.
///
/// # Errors
///
/// The network cannot take that size, or the graph could not be recorded.
pub fn summarize(
    variant: &'static Variant,
    options: &ModelOptions,
    [h, w]: [usize; 2],
) -> Result<Summary, ModelError> {
    let device = Device::capture();
    let mut names = HashMap::new();
    let mut checked = Ok([1, options.in_chans, h, w]);
    let captured = device.capture_scope(|scope| {
        let model = Model::new(variant, options, &device);
        checked = model.check_input(&[1, options.in_chans, h, w]);
        let input = match checked {
            Ok(shape) => shape,
            Err(_) => [1, options.in_chans, 0, 0],
        };
        let x = Tensor::<4>::from_data(TensorData::zeros::<f32, _>(input), &device);
        let x_id = id(&x);
        if checked.is_err() {
            return scope.complete([x_id], [x_id]);
        }
        names = tensor_names(&model);
        let y = model.forward(x);
        let y_id = id(&y);
        scope.complete([x_id], [y_id])
    });
    let input = checked?;
    let graph = captured
        .map_err(|error| ModelError::Capture { model: variant.name.into(), reason: error.to_string() })?
        .graph;
    let layers = layers(&graph.operations, names);
    let model = Model::new(variant, options, &Device::flex());
    let params =
        entries(&model).iter().filter(|e| !e.buffer).map(|e| e.shape.iter().product::<usize>()).sum();
    let macs = layers.iter().map(|layer| layer.macs).sum();
    let weighty = layers.iter().filter(|layer| layer.macs > 0);
    let activations = weighty.map(|layer| layer.output.iter().product::<usize>()).sum();
    Ok(Summary { input, layers, params, macs, activations })
}

/// The recorded tensor's id. Only called on capture tensors.
pub(crate) fn id<const D: usize>(tensor: &Tensor<D>) -> TensorId {
    tensor.clone().try_into_primitive::<Capture>().expect("the tensor was made on the capture device").id()
}

fn layers(operations: &[OperationIr], mut names: HashMap<TensorId, String>) -> Vec<Layer> {
    let mut layers = Vec::new();
    for operation in operations {
        match operation {
            OperationIr::Module(ModuleOperationIr::Conv2d(conv)) => layers.push(conv_layer(conv, &names)),
            OperationIr::Float(_, FloatOperationIr::Matmul(matmul)) => {
                layers.push(linear_layer(matmul, &names));
            }
            OperationIr::Module(ModuleOperationIr::MaxPool2d(pool)) => {
                layers.push(plain("max_pool", &pool.out));
            }
            OperationIr::Module(ModuleOperationIr::AvgPool2d(pool)) => {
                layers.push(plain("avg_pool", &pool.out));
            }
            OperationIr::Custom(op) => {
                let named: Vec<_> =
                    op.inputs.iter().filter_map(|input| Some((input, names.get(&input.id)?))).collect();
                let trained = named.iter().filter(|(_, name)| !name.contains(".running_"));
                layers.push(Layer {
                    name: named.first().map_or(String::new(), |(_, name)| module(name)),
                    params: trained.map(|(input, _)| elements(input)).sum(),
                    ..plain(&op.id, &op.outputs[0])
                });
            }
            // A transposed weight and a reshaped bias keep their names.
            OperationIr::BaseFloat(BaseOperationIr::SwapDims(SwapDimsOpIr { input, out, .. }))
            | OperationIr::BaseFloat(BaseOperationIr::Reshape(ShapeOpIr { input, out })) => {
                if let Some(name) = names.get(&input.id).cloned() {
                    names.insert(out.id, name);
                }
            }
            // The bias of a linear layer is added after the product.
            OperationIr::NumericFloat(_, NumericOperationIr::Add(add)) if names.contains_key(&add.rhs.id) => {
                if let Some(layer) = layers.last_mut() {
                    layer.params += elements(&add.rhs);
                }
            }
            _ => {}
        }
    }
    layers
}

fn plain(kind: &str, out: &TensorIr) -> Layer {
    Layer { name: String::new(), kind: kind.into(), output: out.shape.to_vec(), params: 0, macs: 0 }
}

fn conv_layer(conv: &Conv2dOpIr, names: &HashMap<TensorId, String>) -> Layer {
    let [_, inputs, kh, kw] = conv.weight.shape.dims();
    let options = &conv.options;
    let mut kind = format!("conv {kh}x{kw}");
    if options.stride[0] > 1 {
        kind += &format!(" /{}", options.stride[0]);
    }
    if options.dilation[0] > 1 {
        kind += &format!(" d{}", options.dilation[0]);
    }
    if options.groups > 1 {
        kind += &format!(" g{}", options.groups);
    }
    Layer {
        name: names.get(&conv.weight.id).map_or(String::new(), |name| module(name)),
        params: elements(&conv.weight) + conv.bias.as_ref().map_or(0, elements),
        macs: elements(&conv.out) * inputs * kh * kw,
        ..plain(&kind, &conv.out)
    }
}

fn linear_layer(matmul: &MatmulOpIr, names: &HashMap<TensorId, String>) -> Layer {
    Layer {
        name: names.get(&matmul.rhs.id).map_or(String::new(), |name| module(name)),
        params: elements(&matmul.rhs),
        macs: elements(&matmul.rhs) * matmul.out.shape[0],
        ..plain("linear", &matmul.out)
    }
}

fn elements(tensor: &TensorIr) -> usize {
    tensor.shape.num_elements()
}

/// The path of the module that a parameter belongs to.
fn module(parameter: &str) -> String {
    parameter.rsplit_once('.').map_or(String::new(), |(module, _)| module.into())
}
