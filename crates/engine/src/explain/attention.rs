//! What split attention chose: the weights of the splits (ResNeSt equations 1 and 2).

use super::{attach, check_length};
use crate::EngineError;
use crate::graph::{Graph, Node, Op, ValueId};

/// One split-attention unit of a graph, whose logits are an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The module that it belongs to, such as `layer1.0.conv2`.
    pub place: String,
    /// Splits.
    pub radix: usize,
    /// Cardinal groups.
    pub cardinality: usize,
    /// Channels of a split.
    pub channels: usize,
    /// The logits' place among the graph's outputs.
    pub output: usize,
}

impl Attention {
    /// Makes the logits of every split-attention unit of `graph` further outputs, in the graph's order; none if there is
    /// no such unit. The graph may be captured or optimized.
    #[must_use]
    pub fn attach(graph: &mut Graph) -> Vec<Self> {
        let unit = |node: &Node| match node.op {
            Op::SplitAttention { radix, cardinality, .. } => {
                let (place, logits) = (place(graph, node)?, node.inputs[1]);
                Some((place, [radix, cardinality], logits))
            }
            _ => None,
        };
        let units: Vec<(String, [usize; 2], ValueId)> = graph.nodes.iter().filter_map(unit).collect();
        let attached = units.into_iter().map(|(place, [radix, cardinality], logits)| {
            let channels = graph[logits].elements() / radix;
            let output = attach(graph, logits, &format!("{place}.attention"));
            Self { place, radix, cardinality, channels, output }
        });
        attached.collect()
    }

    /// The weights that the unit gave its splits, `[radix, channels]`, from the logits of one image: the softmax over
    /// the splits, so that each channel's weights add up to 1; with one split, its sigmoid.
    ///
    /// # Errors
    ///
    /// `logits` is not one image's.
    pub fn weights(&self, logits: &[f32]) -> Result<Vec<f32>, EngineError> {
        check_length(&self.place, logits.len(), self.radix * self.channels)?;
        let width = self.channels / self.cardinality;
        // Logits are cardinality-major: [cardinality, radix, channels / cardinality].
        let logit = |split: usize, channel: usize| {
            let (group, channel) = (channel / width, channel % width);
            logits[(group * self.radix + split) * width + channel]
        };
        let mut weights = vec![0.0; logits.len()];
        for channel in 0..self.channels {
            if self.radix == 1 {
                weights[channel] = 1.0 / (1.0 + (-logit(0, channel)).exp());
                continue;
            }
            let largest =
                (0..self.radix).map(|split| logit(split, channel)).fold(f32::NEG_INFINITY, f32::max);
            let exp = |split: usize| (logit(split, channel) - largest).exp();
            let sum: f32 = (0..self.radix).map(exp).sum();
            (0..self.radix).for_each(|split| weights[split * self.channels + channel] = exp(split) / sum);
        }
        Ok(weights)
    }
}

/// The module of a unit: that of the layer which computes its logits, without the layer's own name. `None` if nothing
/// computes them.
fn place(graph: &Graph, unit: &Node) -> Option<String> {
    let layer = graph.nodes.iter().find(|node| node.outputs.contains(&unit.inputs[1]))?;
    Some(layer.name.rsplit_once('.').map_or(&unit.name[..], |(module, _)| module).to_owned())
}
