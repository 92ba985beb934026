//! From the graph's operators to steps over buffers: which value lies where, in which format and with which halo.

use crate::EngineError;
use crate::graph::{Conv2d, Graph, Node, Op, ValueId};
use cardinal_kernels::{DType, Halo, Map};

/// A buffer, by its place in [`Lowered::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BufferId(pub(crate) usize);

/// Memory for one value of every image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) map: Map,
    pub(crate) dtype: DType,
}

impl Buffer {
    /// Bytes of one image.
    pub(crate) fn bytes(&self) -> usize {
        self.map.image() * self.dtype.bytes()
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Takes the caller's images in: the input's index.
    Input(usize),
    /// Hands results out: the output's index.
    Output(usize),
    /// Zeros the halo of what it writes.
    Halo,
    /// Converts between formats, or copies.
    Cast,
    /// Adds the means of the splits: the radix.
    SumSplits(usize),
    /// Runs a node of the graph.
    Node(usize),
}

/// One step before a kernel is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) work: Work,
    pub(crate) reads: Vec<BufferId>,
    pub(crate) writes: Vec<BufferId>,
}

/// A graph as steps over buffers.
#[derive(Debug, Default)]
pub(crate) struct Lowered {
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) tasks: Vec<Task>,
}

/// Lowers `graph` with feature maps in `dtype`. Vectors (`[n, c]` and `[n, c, 1, 1]`) are always `f32`: they are
/// small, and attention and logits want the digits.
pub(crate) fn lower(graph: &Graph, dtype: DType) -> Result<Lowered, EngineError> {
    let mut lowering =
        Lowering { graph, lowered: Lowered::default(), of_value: vec![None; graph.values.len()] };
    let halos = halos(graph)?;
    for node in &graph.nodes {
        lowering.alias(node)?;
    }
    for id in (0..graph.values.len()).map(ValueId) {
        lowering.allocate(id, dtype, &halos)?;
    }
    for (index, &id) in graph.inputs.iter().enumerate() {
        let buffer = lowering.buffer(id);
        lowering.emit(Work::Input(index), vec![], vec![buffer]);
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        lowering.node(index, node)?;
    }
    for (index, &id) in graph.outputs.iter().enumerate() {
        let buffer = lowering.buffer(id);
        lowering.emit(Work::Output(index), vec![buffer], vec![]);
    }
    Ok(lowering.lowered)
}

struct Lowering<'a> {
    graph: &'a Graph,
    lowered: Lowered,
    of_value: Vec<Option<Place>>,
}

#[derive(Clone, Copy)]
enum Place {
    Buffer(BufferId),
    /// The same memory as an earlier value.
    Alias(ValueId),
}

impl Lowering<'_> {
    /// A reshape between forms of a vector moves nothing; any other would mix channels and pixels.
    fn alias(&mut self, node: &Node) -> Result<(), EngineError> {
        if !matches!(node.op, Op::Reshape { .. }) {
            return Ok(());
        }
        let (from, to) = (node.inputs[0], node.outputs[0]);
        let (a, b) = (map_of(self.graph, from)?, map_of(self.graph, to)?);
        if (a.h * a.w, b.h * b.w) != (1, 1) || a.c != b.c {
            let shapes = format!("{:?} to {:?}", self.graph.shape(from), self.graph.shape(to));
            return Err(EngineError::graph(node.place(), format!("the runtime cannot reshape {shapes}")));
        }
        self.of_value[to.0] = Some(Place::Alias(from));
        Ok(())
    }

    fn allocate(&mut self, id: ValueId, dtype: DType, halos: &[Halo]) -> Result<(), EngineError> {
        if self.graph[id].constant().is_some() || self.of_value[id.0].is_some() {
            return Ok(());
        }
        let map = map_of(self.graph, id)?;
        let dtype = if map.h * map.w == 1 { DType::F32 } else { dtype };
        let buffer = self.new_buffer(Buffer { map: map.with_halo(halos[id.0]), dtype });
        self.of_value[id.0] = Some(Place::Buffer(buffer));
        Ok(())
    }

    fn new_buffer(&mut self, buffer: Buffer) -> BufferId {
        self.lowered.buffers.push(buffer);
        BufferId(self.lowered.buffers.len() - 1)
    }

    fn buffer(&self, mut id: ValueId) -> BufferId {
        loop {
            match self.of_value[id.0] {
                Some(Place::Alias(other)) => id = other,
                Some(Place::Buffer(buffer)) => return buffer,
                None => unreachable!("only values that are not constant are asked for, and each has a place"),
            }
        }
    }

    fn emit(&mut self, work: Work, reads: Vec<BufferId>, writes: Vec<BufferId>) {
        self.lowered.tasks.push(Task { work, reads, writes: writes.clone() });
        for buffer in writes {
            if self.lowered.buffers[buffer.0].map.halo != Halo::default() {
                self.lowered.tasks.push(Task { work: Work::Halo, reads: vec![], writes: vec![buffer] });
            }
        }
    }

    fn node(&mut self, index: usize, node: &Node) -> Result<(), EngineError> {
        if matches!(node.op, Op::Reshape { .. }) {
            return Ok(());
        }
        let maps = node.inputs.iter().filter(|&&id| self.graph[id].constant().is_none());
        let reads: Vec<_> = maps.map(|&id| self.buffer(id)).collect();
        let Some(&first) = reads.first() else {
            return Err(EngineError::graph(
                node.place(),
                "all its inputs are constants: optimize the graph first",
            ));
        };
        let mut writes: Vec<_> = node.outputs.iter().map(|&id| self.buffer(id)).collect();
        let computes = self.lowered.buffers[first.0].dtype;
        let mut after = Vec::new();
        // Kernels read and write one format; what they pool is f32.
        let target = self.lowered.buffers[writes[0].0];
        if target.dtype != computes && !matches!(node.op, Op::GlobalAvgPool | Op::RadixPool { .. }) {
            let other =
                self.new_buffer(Buffer { map: target.map.with_halo(Halo::default()), dtype: computes });
            after.push((Work::Cast, other, writes[0]));
            writes[0] = other;
        }
        if let Op::Conv2d(Conv2d { pool: Some(radix @ 2..), .. }) = node.op {
            let map = Map::new(1, 1, target.map.c);
            let means = self.new_buffer(Buffer { map, dtype: DType::F32 });
            after.push((Work::SumSplits(radix), means, writes[1]));
            writes[1] = means;
        }
        // Operands of another format than the first are converted, except vectors beside a map.
        let mut converted = Vec::with_capacity(reads.len());
        for read in reads {
            let buffer = self.lowered.buffers[read.0];
            let vector = buffer.map.h * buffer.map.w == 1 && buffer.dtype == DType::F32;
            if buffer.dtype == computes || vector {
                converted.push(read);
            } else {
                let other = self.new_buffer(Buffer { dtype: computes, ..buffer });
                self.emit(Work::Cast, vec![read], vec![other]);
                converted.push(other);
            }
        }
        self.emit(Work::Node(index), converted, writes);
        for (work, from, to) in after {
            self.emit(work, vec![from], vec![to]);
        }
        Ok(())
    }
}

/// The map that a value of shape `[1, c, h, w]` or `[1, c]` is.
pub(crate) fn map_of(graph: &Graph, id: ValueId) -> Result<Map, EngineError> {
    match *graph.shape(id) {
        [1, c, h, w] => Ok(Map::new(h, w, c)),
        [1, c] => Ok(Map::new(1, 1, c)),
        ref shape => {
            let name = format!("value {} {:?}", id.0, graph[id].name);
            Err(EngineError::graph(name, format!("the runtime has no place for the shape {shape:?}")))
        }
    }
}

/// The halo that each value's readers need: the padding of every convolution.
fn halos(graph: &Graph) -> Result<Vec<Halo>, EngineError> {
    let mut halos = vec![Halo::default(); graph.values.len()];
    for node in &graph.nodes {
        if let Op::Conv2d(conv) = &node.op {
            let input = node.inputs[0];
            let (from, to) = (map_of(graph, input)?, map_of(graph, node.outputs[0])?);
            let kernel = &graph.shape(node.inputs[1])[2..];
            halos[input.0] = halos[input.0].union(conv_halo(conv, kernel, from, to));
        }
    }
    // A reshaped vector has the halo of neither: its readers have windows of one pixel.
    Ok(halos)
}

/// What the windows of a convolution cover around its input.
pub(crate) fn conv_halo(conv: &Conv2d, kernel: &[usize], from: Map, to: Map) -> Halo {
    let [top, left, ..] = conv.padding;
    let end = |out: usize, axis: usize| {
        (out - 1) * conv.stride[axis] + (kernel[axis] - 1) * conv.dilation[axis] + 1
    };
    Halo {
        top,
        left,
        bottom: end(to.h, 0).saturating_sub(top + from.h),
        right: end(to.w, 1).saturating_sub(left + from.w),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn strided() -> Graph {
        let mut graph = Graph::new("strided");
        let x = graph.input("x", [1, 3, 9, 8]);
        let weight = graph.constant("w", [4, 3, 3, 3], vec![0.0; 108]).unwrap();
        let conv = Conv2d { stride: [2, 2], padding: [1; 4], ..Conv2d::plain() };
        let y = graph.push("conv", Op::Conv2d(conv), &[x, weight]).unwrap();
        let pooled = graph.push("pool", Op::GlobalAvgPool, &[y]).unwrap();
        let flat = graph.push("flat", Op::Reshape { shape: vec![1, 4] }, &[pooled]).unwrap();
        graph.output(flat);
        graph
    }

    #[test]
    fn a_halo_is_what_the_windows_reach() {
        let lowered = lower(&strided(), DType::Bf16).unwrap();
        // 9 rows take 5 windows, which end on the padding below; 8 columns take 4, which end on the last column.
        let halo = Halo { top: 1, left: 1, bottom: 1, right: 0 };
        assert_eq!(lowered.buffers[0], Buffer { map: Map::new(9, 8, 3).with_halo(halo), dtype: DType::Bf16 });
        let works: Vec<_> = lowered.tasks.iter().map(|task| task.work.clone()).collect();
        assert_eq!(works, [Work::Input(0), Work::Halo, Work::Node(0), Work::Node(1), Work::Output(0)]);
    }

    #[test]
    fn vectors_are_f32_and_reshapes_move_nothing() {
        let lowered = lower(&strided(), DType::Bf16).unwrap();
        let last = lowered.tasks.last().unwrap().reads[0];
        assert_eq!(lowered.tasks[3].writes, [last]);
        assert_eq!(lowered.buffers[last.0].dtype, DType::F32);
    }

    #[test]
    fn a_reshape_of_pixels_is_refused() {
        let mut graph = Graph::new("flatten");
        let x = graph.input("x", [1, 3, 2, 2]);
        let flat = graph.push("flat", Op::Reshape { shape: vec![1, 12] }, &[x]).unwrap();
        graph.output(flat);
        let error = lower(&graph, DType::F32).unwrap_err().to_string();
        assert!(error.contains("flat (reshape)") && error.contains("[1, 12]"), "{error}");
    }
}
