//! A tape as text, for people.

use super::{Origin, Tape, TapeOp};
use crate::graph::ValueId;
use std::fmt;

impl fmt::Display for Tape {
    /// One line for each node: what it writes, what it computes, what it reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |id: &ValueId| {
            let value = &self.values[id.0];
            match (&value.origin, value.name.is_empty()) {
                (Origin::Parameter(_) | Origin::Constant(_), false) => format!("@{}", value.name),
                _ => format!("%{}", id.0),
            }
        };
        let list = |ids: &[ValueId]| ids.iter().map(label).collect::<Vec<_>>().join(", ");
        writeln!(f, "tape {} ({} nodes forward)", self.name, self.forward)?;
        for (index, node) in self.nodes.iter().enumerate() {
            if index == self.forward {
                writeln!(f, "backward from {}", list(&self.output_gradients))?;
            }
            write!(f, "{} = {}({})", list(&node.outputs), node.op.name(), list(&node.inputs))?;
            if let Some(onto) = &node.onto {
                write!(f, " + {}", label(onto))?;
            }
            if let TapeOp::Drop { rate, layer, .. } = &node.op {
                write!(f, " rate={rate} layer={layer}")?;
            }
            let shape = node.outputs.first().map(|id| self.shape(*id)).unwrap_or_default();
            writeln!(f, " {shape:?} # {}", node.name)?;
        }
        Ok(())
    }
}
