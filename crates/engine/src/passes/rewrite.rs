//! A graph while a pass changes it.

use crate::EngineError;
use crate::graph::{Graph, Node, Source, Value, ValueId};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// A graph whose readers and writers of every value are known and kept up to date.
///
/// Nodes keep their places while a pass runs: a node that goes leaves a gap, and a fused node takes the place of one
/// that it replaces, so that no order has to be found again.
pub(super) struct Rewrite {
    graph: Graph,
    nodes: Vec<Option<Node>>,
    writer: Vec<Option<usize>>,
    readers: Vec<usize>,
}

impl Rewrite {
    pub(super) fn new(mut graph: Graph) -> Self {
        let nodes = std::mem::take(&mut graph.nodes);
        let values = graph.values.len();
        let gaps = nodes.iter().map(|_| None).collect();
        let mut this = Self { graph, nodes: gaps, writer: vec![None; values], readers: vec![0; values] };
        for id in &this.graph.outputs {
            this.readers[id.0] += 1;
        }
        for (place, node) in nodes.into_iter().enumerate() {
            this.put(place, node);
        }
        this
    }

    /// The graph without gaps, values that nothing needs, and constants of equal names.
    pub(super) fn finish(mut self) -> Graph {
        self.graph.nodes = self.nodes.into_iter().flatten().collect();
        self.graph.prune();
        sort_constants(&mut self.graph);
        name_constants(&mut self.graph);
        self.graph
    }

    /// The places of nodes, gaps included.
    pub(super) fn places(&self) -> Range<usize> {
        0..self.nodes.len()
    }

    /// The node at a place.
    pub(super) fn node(&self, place: usize) -> Option<&Node> {
        self.nodes[place].as_ref()
    }

    /// Takes the node out of its place.
    pub(super) fn take(&mut self, place: usize) -> Option<Node> {
        let node = self.nodes[place].take()?;
        for id in &node.inputs {
            self.readers[id.0] -= 1;
        }
        for id in &node.outputs {
            self.writer[id.0] = None;
        }
        Some(node)
    }

    /// Puts a node into an empty place.
    pub(super) fn put(&mut self, place: usize, node: Node) {
        for id in &node.inputs {
            self.readers[id.0] += 1;
        }
        for id in &node.outputs {
            self.writer[id.0] = Some(place);
        }
        self.nodes[place] = Some(node);
    }

    /// Puts `node` in the place of another.
    pub(super) fn replace(&mut self, place: usize, node: Node) {
        self.take(place);
        self.put(place, node);
    }

    /// The place of the node that writes `id`, and the node.
    pub(super) fn writer(&self, id: ValueId) -> Option<(usize, &Node)> {
        let place = self.writer[id.0]?;
        Some((place, self.nodes[place].as_ref()?))
    }

    /// The node that writes `id`, if nothing but the asking node reads it; otherwise why not.
    pub(super) fn sole_writer(&self, id: ValueId) -> Result<(usize, &Node), String> {
        let (place, node) = self.writer(id).ok_or("its input is given, not computed")?;
        if self.is_output(id) {
            return Err(format!("the result of {} is also an output of the graph", node.place()));
        }
        if self.readers[id.0] > 1 {
            return Err(format!("the result of {} is used elsewhere too", node.place()));
        }
        Ok((place, node))
    }

    /// Whether nothing reads a value.
    pub(super) fn is_unread(&self, id: ValueId) -> bool {
        self.readers[id.0] == 0
    }

    /// Whether a value is one of the graph's outputs.
    pub(super) fn is_output(&self, id: ValueId) -> bool {
        self.graph.outputs.contains(&id)
    }

    /// A value.
    pub(super) fn value(&self, id: ValueId) -> &Value {
        &self.graph[id]
    }

    /// The sizes of a value.
    pub(super) fn shape(&self, id: ValueId) -> &[usize] {
        self.graph.shape(id)
    }

    /// The sizes of a feature map.
    pub(super) fn map(&self, id: ValueId) -> Option<[usize; 4]> {
        self.shape(id).try_into().ok()
    }

    /// The numbers of a constant.
    pub(super) fn constant(&self, id: ValueId) -> Option<&Arc<[f32]>> {
        self.graph[id].constant()
    }

    /// The graph, for evaluation; its list of nodes is empty.
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Adds a constant. Equal names are told apart in the end.
    pub(super) fn add_constant(
        &mut self,
        name: String,
        shape: &[usize],
        data: impl Into<Arc<[f32]>>,
    ) -> Result<ValueId, EngineError> {
        let id = self.graph.constant(name, shape, data)?;
        self.writer.push(None);
        self.readers.push(0);
        Ok(id)
    }

    /// Lets go of a constant's numbers if no node reads them any more: two sets of weights are a lot of memory.
    pub(super) fn forget(&mut self, id: ValueId) {
        if self.readers[id.0] == 0
            && let Source::Constant(constant) = &mut self.graph.values[id.0].source
        {
            constant.data = Arc::new([]);
        }
    }

    /// Adds a value that a node will write.
    pub(super) fn add_value(&mut self, shape: &[usize]) -> ValueId {
        self.writer.push(None);
        self.readers.push(0);
        self.graph.value(Value { name: String::new(), shape: shape.to_vec(), source: Source::Node })
    }

    /// Turns a node's result into a constant.
    pub(super) fn make_constant(&mut self, id: ValueId, name: String, source: Source) {
        let value = &mut self.graph.values[id.0];
        value.source = source;
        value.name = name;
        self.writer[id.0] = None;
    }

    /// Lets the graph's outputs follow `new`; a new output takes the old one's name.
    pub(super) fn move_outputs(&mut self, new: &[ValueId]) {
        for i in 0..self.graph.outputs.len() {
            let (old, new) = (self.graph.outputs[i], new[self.graph.outputs[i].0]);
            if old != new {
                self.graph.values[new.0].name = std::mem::take(&mut self.graph.values[old.0].name);
                self.graph.outputs[i] = new;
                self.readers[old.0] -= 1;
                self.readers[new.0] += 1;
            }
        }
    }
}

/// Gives every constant a name of its own. The first to have a name keeps it, so that parameters keep timm's.
fn name_constants(graph: &mut Graph) {
    let mut taken = HashSet::new();
    // The number to try next for each name, or a thousand equal names would take a million steps.
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for value in graph.values.iter_mut().filter(|value| value.constant().is_some()) {
        if value.name.is_empty() {
            value.name = "constant".into();
        }
        let mut name = value.name.clone();
        while !taken.insert(name.clone()) {
            let number = numbers.entry(value.name.clone()).or_insert(1);
            *number += 1;
            name = format!("{}.{number}", value.name);
        }
        value.name = name;
    }
}

/// Puts the constants of a pruned graph in the order in which nodes read them.
fn sort_constants(graph: &mut Graph) {
    let mut place = vec![usize::MAX; graph.values.len()];
    for (order, id) in graph.nodes.iter().flat_map(|node| &node.inputs).enumerate() {
        place[id.0] = place[id.0].min(order);
    }
    let kind = |value: &Value| match value.source {
        Source::Input => 0,
        Source::Constant(_) => 1,
        Source::Node => 2,
    };
    let mut sorted: Vec<usize> = (0..graph.values.len()).collect();
    sorted.sort_by_key(|&id| match kind(&graph.values[id]) {
        1 => (1, place[id]),
        kind => (kind, id),
    });
    let mut new = vec![ValueId(0); sorted.len()];
    sorted.iter().enumerate().for_each(|(place, &id)| new[id] = ValueId(place));
    let nodes = graph.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
    for id in nodes.chain(&mut graph.inputs).chain(&mut graph.outputs) {
        *id = new[id.0];
    }
    graph.values = sorted.iter().map(|&id| graph.values[id].clone()).collect();
}
