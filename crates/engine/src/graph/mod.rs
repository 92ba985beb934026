//! The graph: what to compute, one node after the other.
//!
//! Every value is written once, by an input, a constant or a node, and nodes stand in an order in which they can run.
//! A graph is captured for a batch of one and holds for any batch: the first size of every value that depends on an
//! input is the batch, and is 1 here ([`Graph::batch`] says whether a file fixes it).

mod analysis;
mod file;
mod op;
mod prune;
mod shape;
mod svg;
mod text;
mod verify;

pub use analysis::{Analysis, Cost, Row};
pub use file::Package;
pub use op::{Binary, Conv2d, Drop, Op, Padding, Unary, Window};

use crate::EngineError;
use std::sync::Arc;

/// A value of a graph, by its place in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub usize);

/// Numbers that are known before the graph runs.
#[derive(Clone, PartialEq)]
pub struct Constant {
    /// The numbers, row-major. Shared: cloning a graph copies no weights.
    pub data: Arc<[f32]>,
}

impl std::fmt::Debug for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Constant({} numbers)", self.data.len())
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The caller.
    Input,
    /// The graph.
    Constant(Constant),
    /// A node.
    Node,
}

/// A tensor of `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// A parameter's name, as timm has it; an input's or output's name; empty for intermediate results.
    pub name: String,
    /// Sizes; `[1, c, h, w]` for maps.
    pub shape: Vec<usize>,
    /// Where it comes from.
    pub source: Source,
}

impl Value {
    /// How many numbers it has.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The numbers of a constant.
    #[must_use]
    pub fn constant(&self) -> Option<&Arc<[f32]>> {
        match &self.source {
            Source::Constant(constant) => Some(&constant.data),
            Source::Input | Source::Node => None,
        }
    }
}

/// One operator at one place of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The path of the module that it belongs to, such as `layer1.0.conv1`; may be empty.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// What it reads, in the operator's order.
    pub inputs: Vec<ValueId>,
    /// What it writes.
    pub outputs: Vec<ValueId>,
}

impl Node {
    /// `layer1.0.conv1 (conv2d)`, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        if self.name.is_empty() {
            self.op.name().into()
        } else {
            format!("{} ({})", self.name, self.op.name())
        }
    }
}

/// How many images a graph takes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batch {
    /// Any number.
    #[default]
    Free,
    /// This many.
    Fixed(usize),
}

/// A network, or a part of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// What it is called, such as `resnest50d`.
    pub name: String,
    /// How many images it takes.
    pub batch: Batch,
    /// Every value.
    pub values: Vec<Value>,
    /// The nodes in an order in which they can run.
    pub nodes: Vec<Node>,
    /// Values that the caller gives.
    pub inputs: Vec<ValueId>,
    /// Values that the caller gets.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds an input; the first size of `shape` is 1, the batch.
    pub fn input(&mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> ValueId {
        let id = self.value(Value { name: name.into(), shape: shape.into(), source: Source::Input });
        self.inputs.push(id);
        id
    }

    /// Adds a constant of `shape`, row-major.
    ///
    /// # Errors
    ///
    /// `data` has another number of elements.
    pub fn constant(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        data: impl Into<Arc<[f32]>>,
    ) -> Result<ValueId, EngineError> {
        let (name, shape, data) = (name.into(), shape.into(), data.into());
        let elements: usize = shape.iter().product();
        if elements != data.len() {
            return Err(EngineError::graph(name, format!("{} numbers for shape {shape:?}", data.len())));
        }
        Ok(self.value(Value { name, shape, source: Source::Constant(Constant { data }) }))
    }

    /// Adds a node whose outputs' shapes follow from its inputs, and returns its first output.
    ///
    /// # Errors
    ///
    /// The operator does not take these inputs.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[ValueId],
    ) -> Result<ValueId, EngineError> {
        let outputs = self.push_all(name, op, inputs)?;
        Ok(outputs[0])
    }

    /// [`Graph::push`] for operators with several outputs.
    ///
    /// # Errors
    ///
    /// The operator does not take these inputs.
    pub fn push_all(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[ValueId],
    ) -> Result<Vec<ValueId>, EngineError> {
        let mut node = Node { name: name.into(), op, inputs: inputs.to_vec(), outputs: Vec::new() };
        let shapes = self.infer(&node)?;
        for shape in shapes {
            node.outputs.push(self.value(Value { name: String::new(), shape, source: Source::Node }));
        }
        let outputs = node.outputs.clone();
        self.nodes.push(node);
        Ok(outputs)
    }

    /// Makes `value` an output.
    pub fn output(&mut self, value: ValueId) {
        self.outputs.push(value);
    }

    /// Adds a value.
    pub(crate) fn value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() - 1)
    }

    /// The sizes of a value.
    #[must_use]
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    /// For each value, whether it depends on an input, so that its first size is the batch.
    #[must_use]
    pub fn batched(&self) -> Vec<bool> {
        let mut batched: Vec<_> = self.values.iter().map(|value| value.source == Source::Input).collect();
        for node in &self.nodes {
            if node.inputs.iter().any(|id| batched[id.0]) {
                node.outputs.iter().for_each(|id| batched[id.0] = true);
            }
        }
        batched
    }

    /// The shapes of a node's outputs.
    ///
    /// # Errors
    ///
    /// The operator does not take the node's inputs.
    pub fn infer(&self, node: &Node) -> Result<Vec<Vec<usize>>, EngineError> {
        let count = self.values.len();
        if let Some(id) = node.inputs.iter().find(|id| id.0 >= count) {
            return Err(EngineError::graph(node.place(), format!("there is no value {}", id.0)));
        }
        let inputs: Vec<_> = node.inputs.iter().map(|&id| self.shape(id)).collect();
        node.op.infer(&inputs).map_err(|reason| EngineError::graph(node.place(), reason))
    }
}

impl std::ops::Index<ValueId> for Graph {
    type Output = Value;

    fn index(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }
}
