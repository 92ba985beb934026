//! Whether a file is what the format asks for: names, order, operators, sizes of constants. [`super::run`] computes it.

use super::OPSETS;
use super::proto::tensor_proto::DataType;
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use std::collections::{BTreeMap, HashSet};

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The operator set.
    pub opset: u16,
    /// How often each operator stands in it.
    pub operators: BTreeMap<String, usize>,
    /// Parameters and other constants.
    pub initializers: usize,
    /// Values whose sizes are noted.
    pub noted: usize,
}

impl Report {
    /// Nodes, of all operators.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.operators.values().sum()
    }
}

/// Checks a file that [`super::read`] read: operators are ones that Cardinal writes, with as many inputs as they take;
/// names are there and unique; every value is written once, before it is read; constants have as many bytes as their
/// shape says; what is noted of a value is noted once.
///
/// # Errors
///
/// The first contradiction, with the name of the node or value.
pub fn structure(model: &ModelProto) -> Result<Report, String> {
    let graph = model.graph.as_ref().ok_or("the file has no graph")?;
    let [set] = model.opset_import.as_slice() else {
        return Err("the file needs other operator sets than ONNX's".into());
    };
    let opset =
        u16::try_from(set.version).ok().filter(|version| OPSETS.contains(version) && set.domain.is_empty());
    let opset = opset.ok_or_else(|| format!("operator set `{}` {}", set.domain, set.version))?;
    let mut keys = HashSet::new();
    if let Some(entry) = model.metadata_props.iter().find(|entry| !keys.insert(&entry.key)) {
        return Err(format!("the metadata has `{}` twice", entry.key));
    }
    let values = values(graph)?;
    let mut noted = HashSet::new();
    for info in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
        is_described(info)?;
        if !values.contains(info.name.as_str()) {
            return Err(format!("`{}` is described and nothing writes it", info.name));
        }
        if !noted.insert(&info.name) {
            return Err(format!("`{}` is described twice", info.name));
        }
    }
    let mut operators = BTreeMap::new();
    graph.node.iter().for_each(|node| *operators.entry(node.op_type.clone()).or_default() += 1);
    Ok(Report { opset, operators, initializers: graph.initializer.len(), noted: noted.len() })
}

/// The names of all values.
fn values(graph: &GraphProto) -> Result<HashSet<&str>, String> {
    let mut values = HashSet::new();
    graph.initializer.iter().try_for_each(has_its_bytes)?;
    let known = graph
        .input
        .iter()
        .map(|input| &input.name)
        .chain(graph.initializer.iter().map(|tensor| &tensor.name));
    for name in known {
        if name.is_empty() || !values.insert(name.as_str()) {
            return Err(format!("there are two values `{name}`"));
        }
    }
    let mut names = HashSet::new();
    for node in &graph.node {
        if node.name.is_empty() || !names.insert(&node.name) {
            return Err(format!("there are two nodes `{}`", node.name));
        }
        takes(node)?;
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            if !values.contains(name.as_str()) {
                return Err(format!("{}: nothing before it writes `{name}`", node.name));
            }
        }
        for name in &node.output {
            if name.is_empty() || !values.insert(name) {
                return Err(format!("{}: `{name}` is written twice", node.name));
            }
        }
    }
    if graph.output.is_empty() {
        return Err("the graph has no output".into());
    }
    Ok(values)
}

/// Whether a node is one that is written here, with as many inputs and outputs as it takes.
fn takes(node: &NodeProto) -> Result<(), String> {
    let (inputs, outputs) = match node.op_type.as_str() {
        "Conv" | "Gemm" => (2..=3, 1..=1),
        "BatchNormalization" => (5..=5, 1..=1),
        "Relu" | "LeakyRelu" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Identity" | "Neg" | "Exp"
        | "Sqrt" | "Reciprocal" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "Softmax" | "Flatten"
        | "Transpose" | "SpaceToDepth" => (1..=1, 1..=1),
        "Add" | "Sub" | "Mul" | "Div" | "MatMul" | "Reshape" | "Pad" | "ReduceSum" => (2..=2, 1..=1),
        "Clip" => (1..=3, 1..=1),
        "Slice" => (4..=4, 1..=1),
        "Concat" => (1..=usize::MAX, 1..=1),
        "Split" => (2..=2, 1..=usize::MAX),
        other => return Err(format!("{}: the operator `{other}` is none that is written here", node.name)),
    };
    if !node.domain.is_empty() {
        return Err(format!("{}: the operator is of the set `{}`", node.name, node.domain));
    }
    if !inputs.contains(&node.input.len()) || !outputs.contains(&node.output.len()) {
        let counts = format!("{} inputs and {} outputs", node.input.len(), node.output.len());
        return Err(format!("{}: {} with {counts}", node.name, node.op_type));
    }
    Ok(())
}

fn has_its_bytes(tensor: &TensorProto) -> Result<(), String> {
    let size: usize = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => 4,
        Ok(DataType::Int64) => 8,
        _ => {
            return Err(format!(
                "{}: the data type {} is none that is written here",
                tensor.name, tensor.data_type
            ));
        }
    };
    let grown =
        |product: usize, &size: &i64| usize::try_from(size).ok().and_then(|size| product.checked_mul(size));
    let bytes = tensor.dims.iter().try_fold(size, grown);
    if bytes != Some(tensor.raw_data.len()) {
        return Err(format!(
            "{}: {} bytes for the shape {:?}",
            tensor.name,
            tensor.raw_data.len(),
            tensor.dims
        ));
    }
    Ok(())
}

fn is_described(info: &ValueInfoProto) -> Result<(), String> {
    let tensor = match info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor,
        None => return Err(format!("`{}` has no type", info.name)),
    };
    if tensor.elem_type != DataType::Float as i32 || tensor.shape.is_none() {
        return Err(format!("`{}` has no shape of 32-bit floats", info.name));
    }
    Ok(())
}
