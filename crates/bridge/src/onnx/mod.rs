//! ONNX files from the engine's graphs.
//!
//! Every operator becomes standard ones of opset 17, with constant shapes: split attention is Reshape, Softmax, Mul and
//! Split; blur pool is a Pad that reflects and a depthwise Conv. Parameters keep their names, nodes are called after
//! their module and operator (`layer1.0.conv1/Conv`), and a value after the node that writes it.
//!
//! A graph is captured at one size. Whether the file may take others is not visible in it: a mean over all pixels, or
//! the padding of a TensorFlow-like convolution, is a number there. So [`Sizes::Free`] takes captures of the same
//! network at other sizes, and what differs between them either has a form that holds for all sizes or is an error.

mod build;
pub mod check;
mod file;
mod nodes;
pub mod proto;
pub mod run;
mod sizes;

pub use file::{Saved, data_path, decode, read};

use build::Builder;
use cardinal_engine::EngineError;
use cardinal_engine::graph::{Batch, Graph, Source, ValueId};
use std::path::PathBuf;
use std::sync::Arc;

/// The operator sets that files may ask for. What is written here means the same in all of them.
pub const OPSETS: std::ops::RangeInclusive<u16> = 17..=21;

/// Why a graph is not an ONNX file.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// An opset that is not among [`OPSETS`].
    #[error("opset {0}: files are written for opsets {first} to {last}", first = OPSETS.start(), last = OPSETS.end())]
    Opset(u16),
    /// An operator that cannot be said in ONNX, or not in this opset.
    #[error("{place}: {reason}")]
    Node {
        /// The node: module path and operator.
        place: String,
        /// What is in the way.
        reason: String,
    },
    /// The graph depends on the input's size.
    #[error("{place} depends on the size of the image, so the size cannot be free: {reason}")]
    Size {
        /// The node: module path and operator.
        place: String,
        /// What differs.
        reason: String,
    },
    /// The graph contradicts itself.
    #[error(transparent)]
    Graph(#[from] EngineError),
    /// The file format allows 2 GiB.
    #[error(
        "the file would have {0} bytes, and 2 GiB is the most a protobuf can have: write the weights beside it"
    )]
    TooLarge(u64),
    /// The disk refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what was to be written.
    #[error("{0}")]
    Damaged(String),
}

/// Which sizes of images a file takes.
#[derive(Clone, Debug, Default)]
pub enum Sizes {
    /// That of the graph.
    #[default]
    Fixed,
    /// Any. Captures of the same network at other sizes show what depends on the size: at least two, of which one has
    /// odd sides, height and width not equal.
    Free(Vec<Graph>),
}

/// What is written, beside the graph.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator set, one of [`OPSETS`].
    pub opset: u16,
    /// Images at a time.
    pub batch: Batch,
    /// Sizes of the images.
    pub sizes: Sizes,
    /// What the outputs are called, in the graph's order; `output`, `output_1` … where the list ends.
    pub outputs: Vec<String>,
    /// `metadata_props`: what the graph does not say, such as class names and preprocessing.
    pub metadata: Vec<(String, String)>,
    /// What the network is, for people.
    pub doc: String,
    /// What the input must be, for people.
    pub input_doc: String,
}

impl Default for Options {
    /// Opset 17, free batch, fixed size, no metadata.
    fn default() -> Self {
        Self {
            opset: *OPSETS.start(),
            batch: Batch::Free,
            sizes: Sizes::Fixed,
            outputs: Vec::new(),
            metadata: Vec::new(),
            doc: String::new(),
            input_doc: String::new(),
        }
    }
}

/// An ONNX model whose weights are still those of the graph, not copied.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    /// The file's content. Initializers in `weights` have no data here.
    pub(crate) proto: proto::ModelProto,
    /// The numbers of initializers, by their place in the graph's list.
    pub(crate) weights: Vec<(usize, Arc<[f32]>)>,
}

/// Writes `graph` in ONNX's terms. [`cardinal_engine::passes::tidy`] gives a captured graph the form that users of a
/// file expect; an optimized graph can be written as well.
///
/// # Errors
///
/// The graph contradicts itself or has an operator that the opset cannot say; or the sizes are to be free and something
/// depends on them.
pub fn export(graph: &Graph, options: &Options) -> Result<OnnxModel, OnnxError> {
    if !OPSETS.contains(&options.opset) {
        return Err(OnnxError::Opset(options.opset));
    }
    graph.verify()?;
    let sizes = match &options.sizes {
        Sizes::Fixed => sizes::Free::none(graph),
        Sizes::Free(others) => sizes::Free::compare(graph, others)?,
    };
    let mut builder = Builder::new(graph, options, &sizes);
    for (index, node) in graph.nodes.iter().enumerate() {
        builder.start(node);
        nodes::node(&mut builder, index).map_err(|reason| OnnxError::Node { place: node.place(), reason })?;
    }
    Ok(builder.finish())
}

/// The name of a value in the file, where it has one: outputs have those that were asked for.
fn name_of(graph: &Graph, id: ValueId, names: &[String]) -> String {
    let given = graph[id].name.as_str();
    match graph.outputs.iter().position(|&output| output == id) {
        Some(place) => match names.get(place) {
            Some(name) => name.clone(),
            None if !given.is_empty() && graph[id].source != Source::Input => given.into(),
            None if place == 0 => "output".into(),
            None => format!("output_{place}"),
        },
        None => given.into(),
    }
}
