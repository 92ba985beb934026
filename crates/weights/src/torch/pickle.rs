//! The values of a pickle.
//!
//! Containers live in one arena and refer to each other by number. So a list that holds itself, or a
//! million lists inside each other, costs what its bytes cost and is freed without recursion.

use super::machine;
use crate::error::Result;
use crate::tensor::DType;

/// A Python value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// An index into the arena.
    Node(u32),
}

/// A Python value that needs memory of its own.
#[derive(Debug)]
pub(super) enum Node {
    Str(Box<str>),
    /// Bytes, or an integer of more than 64 bits; neither is looked into.
    Opaque,
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A class or function, as `module.name`. It is never called.
    Global(Box<str>),
    Storage(StorageRef),
    Tensor(Box<TensorRef>),
    /// The result of a call that is not interpreted, with what was put into it afterwards.
    Object {
        class: Value,
        items: Vec<(Value, Value)>,
        state: Value,
    },
}

/// A storage as a persistent id names it.
#[derive(Debug, Clone)]
pub(crate) struct StorageRef {
    pub(super) key: Box<str>,
    /// `None` for a storage of bytes, and for element types without a [`DType`] (complex, quantized).
    pub(super) dtype: Option<DType>,
    /// Bytes per element; 0 for a class that this reader has not heard of.
    pub(super) element_size: u64,
    /// In elements.
    pub(super) len: u64,
    /// Where a view of the storage starts, in elements; only files before PyTorch 0.4 have views.
    pub(super) offset: u64,
}

/// A tensor as a view of a storage, in elements.
#[derive(Debug)]
pub(crate) struct TensorRef {
    pub(super) storage: StorageRef,
    pub(super) dtype: DType,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) stride: Vec<u64>,
}

/// A parsed pickle.
pub(crate) struct Pickle {
    pub(super) nodes: Vec<Node>,
    /// The value that the pickle stands for.
    pub(crate) root: Value,
    /// Bytes up to and including its end mark.
    pub(super) len: usize,
}

/// Where `torch.nn.Module` keeps its tensors and children.
const MODULE_TABLES: [&str; 3] = ["_parameters", "_buffers", "_modules"];

impl Pickle {
    /// Parses the pickle that `bytes` begin with.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        machine::run(bytes)
    }

    pub(super) fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(at) => self.nodes.get(at as usize),
            _ => None,
        }
    }

    /// All storages that the pickle refers to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    pub(crate) fn text(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(&self, value: Value) -> Option<i64> {
        match value {
            Value::Int(n) => Some(n),
            _ => None,
        }
    }

    pub(crate) fn tensor(&self, value: Value) -> Option<&TensorRef> {
        match self.node(value)? {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The elements of a list or tuple.
    pub(crate) fn sequence(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dict, or of an object that was filled like one.
    pub(crate) fn entries(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            Node::Object { items, .. } if !items.is_empty() => Some(items),
            _ => None,
        }
    }

    /// The entry of a dict under a text key. As in Python, the last one counts.
    pub(crate) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let entries = self.entries(dict)?;
        entries.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// An attribute of an object (`args.model`), if its state is a plain dict.
    pub(crate) fn attribute(&self, object: Value, name: &str) -> Option<Value> {
        match self.node(object)? {
            Node::Object { state, .. } => self.get(*state, name),
            _ => None,
        }
    }

    /// The parameters, buffers and children of a saved `torch.nn.Module`, or `None` if it is not one.
    pub(crate) fn module_tables(&self, value: Value) -> Option<[Value; 3]> {
        let [parameters, buffers, modules] = MODULE_TABLES.map(|table| self.attribute(value, table));
        Some([parameters?, buffers?, modules?])
    }

    /// What a value is, for messages.
    pub(crate) fn kind(&self, value: Value) -> &str {
        match (value, self.node(value)) {
            (Value::None, _) => "None",
            (Value::Bool(_), _) => "bool",
            (Value::Int(_), _) => "int",
            (Value::Float(_), _) => "float",
            (_, Some(Node::Str(_))) => "str",
            (_, Some(Node::Tuple(_))) => "tuple",
            (_, Some(Node::List(_))) => "list",
            (_, Some(Node::Dict(_))) => "dict",
            (_, Some(Node::Global(name))) => name,
            (_, Some(Node::Storage(_))) => "storage",
            (_, Some(Node::Tensor(_))) => "tensor",
            (_, Some(Node::Object { class, .. })) => match self.node(*class) {
                Some(Node::Global(name)) => name,
                _ => "object",
            },
            (_, Some(Node::Opaque) | None) => "bytes",
        }
    }
}
