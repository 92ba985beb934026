//! What of a graph depends on the size of the image, from captures at several sizes.

use super::OnnxError;
use cardinal_engine::graph::{Conv2d, Graph, Node, Op, Padding, ValueId};

/// Which sizes and paddings of a graph are not the same for all images.
pub(super) struct Free {
    /// For each value, the axes whose size differs.
    axes: Vec<Vec<bool>>,
    /// For each node, whether it is a convolution whose padding follows the rule of TensorFlow's `SAME`.
    same: Vec<bool>,
}

impl Free {
    /// A graph for one size.
    pub(super) fn none(graph: &Graph) -> Self {
        let axes = graph.values.iter().map(|value| vec![false; value.shape.len()]).collect();
        Self { axes, same: vec![false; graph.nodes.len()] }
    }

    /// What differs between `graph` and `others`, which are captures of the same network.
    pub(super) fn compare(graph: &Graph, others: &[Graph]) -> Result<Self, OnnxError> {
        let mut free = Self::none(graph);
        let wrong = |reason: &str| OnnxError::Size { place: graph.name.clone(), reason: reason.into() };
        if others.len() < 2 {
            return Err(wrong("captures at two other sizes are needed to tell"));
        }
        for other in others {
            if other.nodes.len() != graph.nodes.len() || other.values.len() != graph.values.len() {
                return Err(wrong("it has other operators at another size"));
            }
            free.compare_values(graph, other)?;
            for (index, (node, counterpart)) in graph.nodes.iter().zip(&other.nodes).enumerate() {
                match difference(node, counterpart) {
                    None => {}
                    Some(Difference::Padding) => free.same[index] = true,
                    Some(Difference::Other(reason)) => {
                        return Err(OnnxError::Size { place: node.place(), reason });
                    }
                }
            }
        }
        for (index, node) in graph.nodes.iter().enumerate().filter(|&(index, _)| free.same[index]) {
            for graph in [graph].into_iter().chain(others) {
                if !is_same(graph, index) {
                    let reason = "its padding follows no rule that ONNX knows".into();
                    return Err(OnnxError::Size { place: node.place(), reason });
                }
            }
        }
        Ok(free)
    }

    fn compare_values(&mut self, graph: &Graph, other: &Graph) -> Result<(), OnnxError> {
        for (index, (a, b)) in graph.values.iter().zip(&other.values).enumerate() {
            let wrong = |reason: &str| {
                let place = if a.name.is_empty() { format!("value {index}") } else { a.name.clone() };
                Err(OnnxError::Size { place, reason: reason.into() })
            };
            if a.shape.len() != b.shape.len() {
                return wrong("it has other dimensions at another size");
            }
            match (a.constant(), b.constant()) {
                (None, None) => {}
                (Some(x), Some(y)) if a.shape == b.shape && equal(x, y) => {}
                _ => return wrong("its numbers are others at another size"),
            }
            let sizes = a.shape.iter().zip(&b.shape);
            self.axes[index].iter_mut().zip(sizes).for_each(|(varies, (a, b))| *varies |= a != b);
        }
        Ok(())
    }

    /// Whether a value's size on this axis depends on the image's.
    pub(super) fn varies(&self, id: ValueId, axis: usize) -> bool {
        self.axes[id.0].get(axis).copied().unwrap_or(false)
    }

    /// Whether a node's padding is `SAME_UPPER`.
    pub(super) fn is_same(&self, index: usize) -> bool {
        self.same[index]
    }
}

enum Difference {
    /// Of a convolution, the padding alone.
    Padding,
    Other(String),
}

fn difference(a: &Node, b: &Node) -> Option<Difference> {
    if a.inputs != b.inputs || a.outputs != b.outputs {
        return Some(Difference::Other("it reads other values at another size".into()));
    }
    match (&a.op, &b.op) {
        (a, b) if a == b => None,
        // The new shape is that of the output, whose sizes are compared.
        (Op::Reshape { .. }, Op::Reshape { .. }) => None,
        (Op::Conv2d(x), Op::Conv2d(y)) if *x == (Conv2d { padding: x.padding, ..y.clone() }) => {
            Some(Difference::Padding)
        }
        (a, b) => Some(Difference::Other(format!("it is {a:?} at one size and {b:?} at another"))),
    }
}

/// Whether the padding of a convolution is what TensorFlow's rule gives for the size of its input.
fn is_same(graph: &Graph, index: usize) -> bool {
    let Node { op: Op::Conv2d(conv), inputs, .. } = &graph.nodes[index] else { return false };
    let (size, kernel) = (&graph.shape(inputs[0])[2..], &graph.shape(inputs[1])[2..]);
    let mut padding: Padding = [0; 4];
    for axis in 0..2 {
        let extent = (kernel[axis] - 1) * conv.dilation[axis] + 1;
        let count = size[axis].div_ceil(conv.stride[axis]);
        let total = ((count - 1) * conv.stride[axis] + extent).saturating_sub(size[axis]);
        (padding[axis], padding[2 + axis]) = (total / 2, total - total / 2);
    }
    padding == conv.padding
}

/// Equal bit for bit, so that a NaN is itself.
fn equal(a: &[f32], b: &[f32]) -> bool {
    std::ptr::eq(a, b) || (a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()))
}
