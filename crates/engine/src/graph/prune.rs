//! Leaves out what no output needs.

use super::{Graph, Node, ValueId};

impl Graph {
    /// Leaves out the nodes and values that no output needs. All inputs stay: they are the caller's side of the graph.
    /// Values are renumbered as in a text: inputs, constants, then results in the order of the nodes.
    ///
    /// # Panics
    ///
    /// An id is no value's; [`Graph::verify`] finds this.
    pub fn prune(&mut self) {
        let mut needed = vec![false; self.values.len()];
        let need = |needed: &mut Vec<bool>, ids: &[ValueId]| ids.iter().for_each(|id| needed[id.0] = true);
        need(&mut needed, &self.inputs);
        need(&mut needed, &self.outputs);
        let mut live = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|id| needed[id.0]) {
                need(&mut needed, &node.inputs);
                need(&mut needed, &node.outputs);
                live.push(node);
            }
        }

        let constants = (0..self.values.len()).map(ValueId);
        let constants = constants.filter(|&id| needed[id.0] && self[id].constant().is_some());
        let results = live.iter().rev().flat_map(|node| node.outputs.iter().copied());
        let order: Vec<_> = self.inputs.iter().copied().chain(constants).chain(results).collect();
        let mut places = vec![ValueId(0); self.values.len()];
        order.iter().enumerate().for_each(|(place, id)| places[id.0] = ValueId(place));

        let map = |ids: &[ValueId]| ids.iter().map(|id| places[id.0]).collect::<Vec<_>>();
        let renumber = |node: &&Node| Node {
            name: node.name.clone(),
            op: node.op.clone(),
            inputs: map(&node.inputs),
            outputs: map(&node.outputs),
        };
        *self = Self {
            name: self.name.clone(),
            batch: self.batch,
            values: order.iter().map(|&id| self[id].clone()).collect(),
            nodes: live.iter().rev().map(renumber).collect(),
            inputs: map(&self.inputs),
            outputs: map(&self.outputs),
        };
    }
}
