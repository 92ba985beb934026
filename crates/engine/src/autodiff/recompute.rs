//! What the backward pass computes again instead of keeping it.

use super::{Gradient, Tape, TapeOp};
use crate::graph::{Conv2d, Op, ValueId};

/// How much is computed twice, to keep less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing, and norms keep their inputs beside their outputs, as frameworks do without in-place norms.
    None,
    /// What takes one pass over memory: norms with their activations, attention, average pooling, dropping. A norm with a
    /// leaky activation is inverted instead (TResNet section 2.1).
    Cheap,
    /// That, and convolutions of one pixel that widen their input twofold or more: they are a small part of the
    /// arithmetic and a large part of the memory.
    #[default]
    Expansions,
}

impl Recompute {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::None, Self::Cheap, Self::Expansions];

    /// Its name in flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cheap => "cheap",
            Self::Expansions => "expansions",
        }
    }

    /// Whether a norm is inverted from its output.
    pub(super) fn inverts(self, slope: f32) -> bool {
        self != Self::None && slope > 0.0 && slope < 1.0
    }

    /// Whether `value`, which the node `op` of `tape` wrote, is computed again where the backward pass reads it.
    pub(super) fn applies(self, tape: &Tape, value: ValueId, op: &TapeOp, inputs: &[ValueId]) -> bool {
        // Vectors are small, and everything that is not for each image is.
        if self == Self::None || !tape.is_map(value) {
            return false;
        }
        match op {
            TapeOp::Forward(Op::ActivatedNorm { slope, .. }) => !self.inverts(*slope),
            TapeOp::Forward(
                Op::Unary(_)
                | Op::AvgPool { .. }
                | Op::BlurPool
                | Op::SplitAttention { .. }
                | Op::Gate { residual: false, .. }
                | Op::SliceChannels { .. },
            )
            | TapeOp::Drop { .. } => true,
            TapeOp::Forward(Op::Conv2d(conv)) => {
                self == Self::Expansions && widens(tape, conv, inputs, value)
            }
            // The ends of blocks stay, so that nothing is computed through more than one block.
            TapeOp::Forward(_) | TapeOp::Join { .. } | TapeOp::Statistics | TapeOp::Gradient(_) => false,
        }
    }
}

fn widens(tape: &Tape, conv: &Conv2d, inputs: &[ValueId], output: ValueId) -> bool {
    let (weight, x, y) = (tape.shape(inputs[1]), tape.shape(inputs[0]), tape.shape(output));
    conv.stride == [1; 2] && weight[2..] == [1, 1] && y[1] >= 2 * x[1]
}

/// Where a map's gradient is that of its attention and that of its means, both in one operator: the map is large.
pub(super) fn fuse_means(tape: &mut Tape) {
    let mut readers = vec![0_usize; tape.values.len()];
    for node in &tape.nodes {
        node.inputs.iter().chain(&node.onto).for_each(|id| readers[id.0] += 1);
    }
    let writers = tape.writers();
    let mut gone = Vec::new();
    for index in tape.forward..tape.nodes.len() {
        let TapeOp::Gradient(Gradient::Means { radix }) = tape.nodes[index].op else { continue };
        let Some(first) = tape.nodes[index].onto.filter(|onto| readers[onto.0] == 1) else { continue };
        let Some(writer) = writers[first.0] else { continue };
        let fused = match tape.nodes[writer].op {
            TapeOp::Gradient(Gradient::SplitInput { radix: own, cardinality, means: false })
                if own == radix =>
            {
                Gradient::SplitInput { radix, cardinality, means: true }
            }
            TapeOp::Gradient(Gradient::GateInput { hard, means: false }) if radix == 1 => {
                Gradient::GateInput { hard, means: true }
            }
            _ => continue,
        };
        let (mut inputs, onto) = (tape.nodes[writer].inputs.clone(), tape.nodes[writer].onto);
        inputs.push(tape.nodes[index].inputs[0]);
        let node = &mut tape.nodes[index];
        (node.op, node.inputs, node.onto) = (TapeOp::Gradient(fused), inputs, onto);
        gone.push(writer);
    }
    let mut index = 0;
    tape.nodes.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}
