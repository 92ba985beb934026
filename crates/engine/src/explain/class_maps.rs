//! Class-activation maps (Zhou et al., arXiv:1512.04150): where the evidence for a class lies.
//!
//! A network that ends in global average pooling and a linear layer computes
//! `logit = bias + sum_c w[c] mean_yx F[c, y, x]`, so `sum_c w[c] F[c, y, x]` is what position (y, x) adds to it.

use super::{attach, check_length};
use crate::EngineError;
use crate::graph::{Constant, Conv2d, Graph, Node, Op, ValueId};
use cardinal_kernels::Activation;

/// The linear head of a graph on the graph's last feature map.
#[derive(Clone, Debug)]
pub struct ClassMaps {
    output: usize,
    channels: usize,
    height: usize,
    width: usize,
    weight: Constant,
    bias: Option<Constant>,
}

impl ClassMaps {
    /// Makes the last feature map of `graph` a further output. The first output must be the logits: a linear layer on
    /// the means of that map over all pixels. The graph may be captured or optimized.
    ///
    /// # Errors
    ///
    /// The graph ends in another way: the error names the node that is in the way.
    pub fn attach(graph: &mut Graph) -> Result<Self, EngineError> {
        let head = find(graph)?;
        let [_, channels, height, width] = head.size;
        let constant = |id: ValueId| {
            let data = graph.values.get(id.0).and_then(|value| value.constant()).cloned();
            data.map(|data| Constant { data }).ok_or_else(|| {
                EngineError::graph(&head.place, "a class-activation map needs weights that are constants")
            })
        };
        let (weight, bias) = (constant(head.weight)?, head.bias.map(constant).transpose()?);
        let output = attach(graph, head.map, "features");
        Ok(Self { output, channels, height, width, weight, bias })
    }

    /// The feature map's place among the graph's outputs; its shape is `[n, channels, height, width]`.
    #[must_use]
    pub fn output(&self) -> usize {
        self.output
    }

    /// Channels of the feature map.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rows of the feature map.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of the feature map.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many classes there are.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.weight.data.len() / self.channels
    }

    /// What the logit of `class` has besides the map's mean; 0 without a bias or without such a class.
    #[must_use]
    pub fn bias(&self, class: usize) -> f32 {
        self.bias.as_ref().and_then(|bias| bias.data.get(class)).copied().unwrap_or(0.0)
    }

    /// The class-activation map of `class`: `[height, width]`, row-major, from the feature map
    /// `[channels, height, width]` of one image. Its mean and [`ClassMaps::bias`] are the logit.
    ///
    /// # Errors
    ///
    /// There is no such class, or `features` is not one image's.
    pub fn map(&self, features: &[f32], class: usize) -> Result<Vec<f32>, EngineError> {
        let pixels = self.height * self.width;
        check_length("features", features.len(), self.channels * pixels)?;
        if class >= self.classes() {
            let expected = format!("one of 0 to {}", self.classes() - 1);
            return Err(EngineError::Input { name: "class".into(), found: class.to_string(), expected });
        }
        let weights = &self.weight.data[class * self.channels..][..self.channels];
        let mut map = vec![0.0_f64; pixels];
        for (weight, channel) in weights.iter().zip(features.chunks_exact(pixels)) {
            let add = |(sum, x): (&mut f64, &f32)| *sum += f64::from(*weight) * f64::from(*x);
            map.iter_mut().zip(channel).for_each(add);
        }
        Ok(map.into_iter().map(|sum| sum as f32).collect())
    }
}

/// Scales a map to [0, 1] for a picture: what speaks against the class becomes 0, the largest value 1. A map without a
/// positive number is all 0.
pub fn normalise(map: &mut [f32]) {
    let largest = map.iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max);
    let scale = |value: f32| if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
    map.iter_mut().for_each(|value| *value = if value.is_nan() { 0.0 } else { scale(*value) });
}

/// What `attach` looks for.
struct Head {
    /// The linear layer.
    place: String,
    weight: ValueId,
    bias: Option<ValueId>,
    map: ValueId,
    size: [usize; 4],
}

/// Walks back from the first output: linear layer, then what only changes shapes, then the mean over all pixels.
fn find(graph: &Graph) -> Result<Head, EngineError> {
    let wrong = |place: String, reason: &str| {
        let rest =
            "a class-activation map needs a network that ends in global average pooling and one linear layer";
        Err(EngineError::graph(place, format!("{reason}; {rest}")))
    };
    let Some((node, _)) = graph.outputs.first().and_then(|&output| computed(graph, output)) else {
        return wrong(graph.name.clone(), "the first output is not computed");
    };
    let (Op::Linear { bias, activation: Activation::Identity }, [x, weight, rest @ ..]) =
        (&node.op, &node.inputs[..])
    else {
        return wrong(node.place(), "it makes the first output");
    };
    let mut pooled = *x;
    let (map, writer) = loop {
        let Some((before, result)) = computed(graph, pooled) else {
            return wrong(node.place(), "it reads no feature map");
        };
        match (&before.op, result) {
            (Op::Reshape { .. } | Op::Drop { .. }, _) => pooled = before.inputs[0],
            (Op::GlobalAvgPool, _) => break (before.inputs[0], before),
            // In an optimized graph the mean is the second result of the convolution before it.
            (Op::Conv2d(Conv2d { pool: Some(1), .. }), 1) => break (before.outputs[0], before),
            // The mean of a map of one pixel is the map: the optimizer removes it.
            _ if matches!(graph.shape(pooled), [_, _, 1, 1]) => break (pooled, before),
            _ => return wrong(before.place(), "it stands before the last linear layer"),
        }
    };
    if is_mean(graph, map) {
        return wrong(writer.place(), "it stands between the pooling and the last linear layer");
    }
    let size: Result<[usize; 4], _> = graph.shape(map).try_into();
    match size {
        Ok(size @ [_, channels, ..]) if graph.shape(*weight).get(1) == Some(&channels) => {
            let bias = rest.first().copied().filter(|_| *bias);
            Ok(Head { place: node.place(), weight: *weight, bias, map, size })
        }
        _ => wrong(node.place(), "it does not read one number for each channel"),
    }
}

/// Whether a map of one pixel was computed from means over all pixels, and not from what a larger map was shrunk to.
fn is_mean(graph: &Graph, map: ValueId) -> bool {
    let pixels = |id: ValueId| graph.shape(id).iter().skip(2).product::<usize>();
    let mut id = map;
    while pixels(id) == 1
        && let Some((node, result)) = computed(graph, id)
    {
        if result == 1
            || (matches!(node.op, Op::GlobalAvgPool | Op::RadixPool { .. }) && pixels(node.inputs[0]) > 1)
        {
            return true;
        }
        id = node.inputs[0];
    }
    false
}

/// The node that computes a value, and which of its results that is.
fn computed(graph: &Graph, id: ValueId) -> Option<(&Node, usize)> {
    graph.nodes.iter().find_map(|node| Some((node, node.outputs.iter().position(|&output| output == id)?)))
}
