//! Names, constants and nodes of an ONNX graph while it is written.

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use super::sizes::Free;
use super::{OnnxModel, Options, name_of};
use cardinal_engine::graph::{Batch, Graph, Node, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The value of an attribute.
pub(super) enum Attribute<'a> {
    Int(usize),
    Ints(&'a [usize]),
    Float(f32),
    Text(&'a str),
}

pub(super) struct Builder<'a> {
    pub(super) graph: &'a Graph,
    pub(super) options: &'a Options,
    pub(super) free: &'a Free,
    batched: Vec<bool>,
    /// What each value of the graph is called in the file, once it is there.
    names: Vec<Option<String>>,
    /// Constants that have no value in the graph, by their numbers.
    constants: HashMap<Vec<u8>, String>,
    /// Names of values, and of nodes.
    taken: [HashSet<String>; 2],
    /// The module path of the node that is being written.
    path: String,
    proto: GraphProto,
    weights: Vec<(usize, Arc<[f32]>)>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(graph: &'a Graph, options: &'a Options, free: &'a Free) -> Self {
        let mut builder = Self {
            graph,
            options,
            free,
            batched: graph.batched(),
            names: vec![None; graph.values.len()],
            constants: HashMap::new(),
            taken: Default::default(),
            path: String::new(),
            proto: GraphProto { name: graph.name.clone(), ..GraphProto::default() },
            weights: Vec::new(),
        };
        for &id in &graph.inputs {
            let given = graph[id].name.as_str();
            let name = builder.unique(0, if given.is_empty() { "input" } else { given });
            let doc = options.input_doc.clone();
            let info = ValueInfoProto { doc_string: doc, ..builder.value_info(id, &name) };
            builder.proto.input.push(info);
            builder.names[id.0] = Some(name);
        }
        // Outputs have the names that were asked for, so nothing else may take them.
        for &id in &graph.outputs {
            builder.taken[0].insert(name_of(graph, id, &options.outputs));
        }
        builder
    }

    /// Begins a node of the graph.
    pub(super) fn start(&mut self, node: &Node) {
        self.path.clone_from(&node.name);
    }

    /// The name of a value of the graph; a constant becomes an initializer when it is first read.
    pub(super) fn read(&mut self, id: ValueId) -> Result<String, String> {
        if let Some(name) = &self.names[id.0] {
            return Ok(name.clone());
        }
        let value = &self.graph[id];
        let data = value.constant().ok_or_else(|| format!("value {} is read before it is written", id.0))?;
        let name = self.unique(0, if value.name.is_empty() { "constant" } else { &value.name });
        self.weights.push((self.proto.initializer.len(), Arc::clone(data)));
        self.proto.initializer.push(TensorProto {
            dims: signed(&value.shape),
            data_type: DataType::Float as i32,
            name: name.clone(),
            ..TensorProto::default()
        });
        self.names[id.0] = Some(name.clone());
        Ok(name)
    }

    /// Whether a value's first size is the batch.
    pub(super) fn is_batched(&self, id: ValueId) -> bool {
        self.batched[id.0]
    }

    /// A constant of whole numbers: a shape, axes.
    pub(super) fn ints(&mut self, numbers: &[i64]) -> String {
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant("shape", DataType::Int64, &[numbers.len()], data)
    }

    /// A constant without dimensions.
    pub(super) fn scalar(&mut self, number: f32) -> String {
        self.constant("scalar", DataType::Float, &[], number.to_le_bytes().to_vec())
    }

    /// A constant of `shape`, called `name` or after it.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> String {
        let data = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(name, DataType::Float, shape, data)
    }

    fn constant(&mut self, name: &str, kind: DataType, shape: &[usize], data: Vec<u8>) -> String {
        let sizes = shape.iter().flat_map(|size| size.to_le_bytes());
        let key: Vec<u8> = [kind as u8].into_iter().chain(sizes).chain(data.iter().copied()).collect();
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.unique(0, name);
        self.constants.insert(key, name.clone());
        self.proto.initializer.push(TensorProto {
            dims: signed(shape),
            data_type: kind as i32,
            name: name.clone(),
            raw_data: data,
            ..TensorProto::default()
        });
        name
    }

    /// Adds a node with one output, and returns that.
    pub(super) fn add(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        let mut outputs = self.add_all(op, inputs, attributes, 1);
        outputs.pop().unwrap_or_default()
    }

    /// Adds a node, and returns its outputs, which are called after it.
    pub(super) fn add_all(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
        outputs: usize,
    ) -> Vec<String> {
        let name = if self.path.is_empty() { op.to_owned() } else { format!("{}/{op}", self.path) };
        let name = self.unique(1, &name);
        let outputs: Vec<_> = (0..outputs)
            .map(|i| self.unique(0, &if outputs == 1 { name.clone() } else { format!("{name}.{i}") }))
            .collect();
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: outputs.clone(),
            name,
            op_type: op.into(),
            domain: String::new(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        });
        outputs
    }

    /// Says that the value `id` of the graph is what was written as `name`.
    pub(super) fn bind(&mut self, id: ValueId, name: String) {
        let mut name = name;
        if self.graph.outputs.contains(&id) {
            name = self.rename(&name, name_of(self.graph, id, &self.options.outputs));
        } else {
            let info = self.value_info(id, &name);
            if !self.proto.value_info.iter().rev().any(|other| other.name == name) {
                self.proto.value_info.push(info);
            }
        }
        self.names[id.0] = Some(name);
    }

    /// Gives the value `name` another one: the node that wrote it, if it is no other value of the graph, or a copy's.
    fn rename(&mut self, name: &str, to: String) -> String {
        let is_shared = self.names.iter().flatten().any(|other| other == name);
        let writes = |node: &NodeProto| node.output.iter().any(|output| output == name);
        match self.proto.node.iter().rposition(writes) {
            Some(place) if !is_shared => {
                for node in &mut self.proto.node[place..] {
                    let values = node.input.iter_mut().chain(&mut node.output);
                    values.filter(|value| *value == name).for_each(|value| value.clone_from(&to));
                }
            }
            _ => self.copy(name, &to),
        }
        to
    }

    fn copy(&mut self, name: &str, to: &str) {
        self.add("Identity", &[name], &[]);
        if let Some(node) = self.proto.node.last_mut() {
            node.output = vec![to.to_owned()];
        }
    }

    /// `name`, or the first of `name_1`, `name_2` … that is not taken among values (0) or nodes (1).
    fn unique(&mut self, space: usize, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 0;
        while !self.taken[space].insert(unique.clone()) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        unique
    }

    /// The type and sizes of a value of the graph.
    fn value_info(&self, id: ValueId, name: &str) -> ValueInfoProto {
        let is_input = self.graph.inputs.contains(&id);
        // In between a free size has no name: tract would take it for another size than the one that it is given.
        let is_outside = is_input || self.graph.outputs.contains(&id);
        let size = |(axis, &size): (usize, &usize)| {
            let named = |name: &str| Some(dimension::Value::DimParam(name.into()));
            let fixed = |size: usize| Some(dimension::Value::DimValue(size as i64));
            let value = match (axis, self.options.batch) {
                (0, Batch::Free) if self.batched[id.0] => {
                    if is_outside {
                        named("batch")
                    } else {
                        None
                    }
                }
                (0, Batch::Fixed(count)) if self.batched[id.0] => fixed(size * count),
                _ if !self.free.varies(id, axis) => fixed(size),
                (2, _) if is_input => named("height"),
                (3, _) if is_input => named("width"),
                _ => None,
            };
            Dimension { value }
        };
        let dim = self.graph.shape(id).iter().enumerate().map(size).collect();
        let shape = Some(TensorShapeProto { dim });
        let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }),
            doc_string: String::new(),
        }
    }

    pub(super) fn finish(mut self) -> OnnxModel {
        for (place, &id) in self.graph.outputs.iter().enumerate() {
            let mut name = name_of(self.graph, id, &self.options.outputs);
            if self.graph.outputs[..place].contains(&id) {
                let again =
                    self.options.outputs.get(place).cloned().unwrap_or_else(|| format!("output_{place}"));
                let again = self.unique(0, &again);
                self.copy(&name, &again);
                name = again;
            } else if self.graph.inputs.contains(&id) {
                let from = self.names[id.0].clone().unwrap_or_default();
                self.copy(&from, &name);
            }
            let info = self.value_info(id, &name);
            self.proto.output.push(info);
        }
        let entry = |(key, value): &(String, String)| StringStringEntryProto {
            key: key.clone(),
            value: value.clone(),
        };
        let proto = ModelProto {
            // The version of the format that came with each opset: readers refuse what is newer than they are.
            ir_version: match self.options.opset {
                ..=18 => 8,
                19 | 20 => 9,
                _ => 10,
            },
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: self.options.opset.into(),
            }],
            producer_name: "cardinal".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: self.options.doc.clone(),
            graph: Some(self.proto),
            metadata_props: self.options.metadata.iter().map(entry).collect(),
        };
        OnnxModel { proto, weights: self.weights }
    }
}

fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| size as i64).collect()
}

fn attribute(name: &str, value: &Attribute<'_>) -> AttributeProto {
    let empty = AttributeProto { name: name.into(), ..AttributeProto::default() };
    match *value {
        Attribute::Int(i) => AttributeProto { r#type: AttributeType::Int.into(), i: i as i64, ..empty },
        Attribute::Ints(ints) => {
            AttributeProto { r#type: AttributeType::Ints.into(), ints: signed(ints), ..empty }
        }
        Attribute::Float(f) => AttributeProto { r#type: AttributeType::Float.into(), f, ..empty },
        Attribute::Text(text) => {
            AttributeProto { r#type: AttributeType::String.into(), s: text.as_bytes().to_vec(), ..empty }
        }
    }
}
