//! Writes the text form.

use super::{attributes, is_plain, sample};
use crate::graph::{Batch, Graph, Node, Op, Source, Value, ValueId};
use std::fmt::Write;

/// Constants of up to this many numbers are printed with them.
const LISTED: usize = 16;

/// The text of `graph`, with `data` behind each constant.
pub(super) fn print(graph: &Graph, data: &dyn Fn(ValueId) -> String) -> String {
    let names = Names::of(graph);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = Printer { graph, names: &names, text: &mut text }.graph(data);
    text
}

/// The numbers of a constant where the text form has them: `` or ` = 0.5` or ` = [1, 2]`.
pub(super) fn numbers(value: &Value) -> String {
    let Some(data) = value.constant() else { return String::new() };
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
    match data.first() {
        Some(&first) if data.len() > 1 && data.iter().all(|&x| same(x, first)) => format!(" = {first}"),
        Some(_) if data.len() <= LISTED => {
            let sampled = sample::numbers(&value.name, &value.shape);
            if sampled.len() == data.len() && sampled.iter().zip(data.iter()).all(|(&a, &b)| same(a, b)) {
                return String::new();
            }
            let list: Vec<_> = data.iter().map(f32::to_string).collect();
            format!(" = [{}]", list.join(", "))
        }
        _ => String::new(),
    }
}

/// A name as it stands behind `%` or `@`.
pub(super) fn name(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { quoted(name) }
}

/// A string in quotes, as Rust writes it.
pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// What each value is called in the text.
struct Names(Vec<String>);

impl Names {
    fn of(graph: &Graph) -> Self {
        let mut names = vec![String::new(); graph.values.len()];
        let mut results = 0..;
        let mut constants = 0..;
        for id in order(graph) {
            let (Some(value), Some(place)) = (graph.values.get(id.0), names.get_mut(id.0)) else { continue };
            let (sigil, counter) = match value.source {
                Source::Constant(_) => ('@', &mut constants),
                Source::Input | Source::Node => ('%', &mut results),
            };
            *place = match (value.name.is_empty(), counter) {
                (true, counter) => format!("{sigil}{}", counter.next().unwrap_or(0_usize)),
                (false, _) => format!("{sigil}{}", name(&value.name)),
            };
        }
        Self(names)
    }

    /// A graph that is not verified may speak of values that it does not have, or that nothing writes.
    fn get(&self, id: ValueId) -> String {
        match self.0.get(id.0) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("%?{}", id.0),
        }
    }
}

/// Inputs, then constants, then results in the order of their nodes: the order in which the text has them.
fn order(graph: &Graph) -> impl Iterator<Item = ValueId> {
    let results = graph.nodes.iter().flat_map(|node| node.outputs.iter().copied());
    graph.inputs.iter().copied().chain(constants(graph)).chain(results)
}

fn constants(graph: &Graph) -> impl Iterator<Item = ValueId> {
    (0..graph.values.len()).map(ValueId).filter(|&id| graph[id].constant().is_some())
}

struct Printer<'a> {
    graph: &'a Graph,
    names: &'a Names,
    text: &'a mut String,
}

impl Printer<'_> {
    fn graph(&mut self, data: &dyn Fn(ValueId) -> String) -> std::fmt::Result {
        let batch = match self.graph.batch {
            Batch::Free => "free".to_owned(),
            Batch::Fixed(count) => count.to_string(),
        };
        writeln!(self.text, "graph {} batch={batch}", name(&self.graph.name))?;
        for &id in &self.graph.inputs {
            writeln!(self.text, "input {} {}", self.names.get(id), self.shape(id))?;
        }
        for id in constants(self.graph) {
            writeln!(self.text, "const {} {}{}", self.names.get(id), self.shape(id), data(id))?;
        }
        for node in &self.graph.nodes {
            self.node(node)?;
        }
        for &id in &self.graph.outputs {
            writeln!(self.text, "output {}", self.names.get(id))?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node) -> std::fmt::Result {
        let outputs: Vec<_> = node.outputs.iter().map(|&id| self.names.get(id)).collect();
        let inputs: Vec<_> = node
            .inputs
            .iter()
            .zip(labels(&node.op, node.inputs.len()))
            .map(|(&id, label)| format!("{label}{}", self.names.get(id)))
            .collect();
        write!(self.text, "{} = {}({})", outputs.join(", "), node.op.name(), inputs.join(", "))?;
        for (key, value) in attributes(&node.op) {
            match value.as_str() {
                "" => write!(self.text, " {key}")?,
                _ => write!(self.text, " {key}={value}")?,
            }
        }
        let shapes: Vec<_> = node.outputs.iter().map(|&id| self.shape(id)).collect();
        let path = if node.name.is_empty() { String::new() } else { format!("{} ", name(&node.name)) };
        writeln!(self.text, "  # {path}-> {}", shapes.join(", "))
    }

    fn shape(&self, id: ValueId) -> String {
        self.graph.values.get(id.0).map_or_else(|| "[?]".into(), |value| attributes::sizes(&value.shape))
    }
}

/// What stands before each input: the bias and the residual are called by name, since either may be missing.
fn labels(op: &Op, count: usize) -> Vec<&'static str> {
    let (bias, residual) = match op {
        Op::Conv2d(conv) => (conv.bias, conv.residual),
        Op::Linear { bias, .. } => (*bias, false),
        Op::Gate { residual, .. } => (false, *residual),
        _ => (false, false),
    };
    let mut labels = vec![""; 2.min(count)];
    labels.extend(bias.then_some("bias="));
    labels.extend(residual.then_some("residual="));
    labels.resize(count, "");
    labels
}
