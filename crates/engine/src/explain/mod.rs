//! What a network looked at: further outputs of a graph, and what they say.
//!
//! Attach to a graph before or after [`crate::passes::optimize`], which keeps outputs; then plan and run it as ever. The
//! network's own outputs keep their places. Pictures (scaling a map to an image's size, colours) are the caller's.
//!
//! ```
//! use cardinal_engine::explain::{ClassMaps, normalise};
//! # use cardinal_engine::graph::Graph;
//! # let mut graph = Graph::parse("input %x [1, 2, 4, 4]
//! #     const @w [3, 2]
//! #     %0 = global_avg_pool(%x)
//! #     %1 = reshape(%0) shape=[1, 2]
//! #     %2 = linear(%1, @w)
//! #     output %2")?;
//! # let pixels = vec![0.5; 32];
//! use cardinal_engine::{DType, Isa, plan::{Options, Plan}, passes, run::Session};
//!
//! let maps = ClassMaps::attach(&mut graph)?;
//! let graph = passes::optimize(graph)?.graph;
//! let options = Options { batch: 1, dtype: DType::F32, threads: 1, isa: Isa::best() };
//! let mut session = Session::new(Plan::new(graph, &options)?.into(), false);
//! let outputs = session.run(&[&pixels])?;
//! let mut map = maps.map(outputs.get(maps.output()), 2)?;
//! normalise(&mut map);
//! assert_eq!(map.len(), maps.height() * maps.width());
//! # Ok::<(), cardinal_engine::EngineError>(())
//! ```

mod attention;
mod class_maps;

pub use attention::Attention;
pub use class_maps::{ClassMaps, normalise};

use crate::EngineError;
use crate::graph::{Graph, ValueId};

/// Makes `value` an output called `name`, if it is none; its place among the outputs. An output of another name keeps
/// that.
fn attach(graph: &mut Graph, value: ValueId, name: &str) -> usize {
    if let Some(place) = graph.outputs.iter().position(|&output| output == value) {
        return place;
    }
    let taken = graph.values.iter().any(|value| value.constant().is_none() && value.name == name);
    let value_name = &mut graph.values[value.0].name;
    if value_name.is_empty() && !taken {
        name.clone_into(value_name);
    }
    graph.output(value);
    graph.outputs.len() - 1
}

/// An error unless there are as many numbers as one image has.
fn check_length(name: &str, found: usize, expected: usize) -> Result<(), EngineError> {
    if found == expected {
        return Ok(());
    }
    Err(EngineError::Input {
        name: name.into(),
        found: format!("{found} numbers"),
        expected: format!("one image's {expected}"),
    })
}
