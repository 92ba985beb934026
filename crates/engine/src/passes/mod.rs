//! The optimizer: passes that rewrite a graph into fewer and larger operators.
//!
//! Each pass is a file. [`PASSES`] run in order, again and again until none changes anything, and then [`LAST`], which
//! open no new opportunities. The graph is verified after every pass.

mod affine;
mod commute;
mod flatten;
mod fold_constants;
mod fold_norms;
mod fold_scales;
mod fold_stem;
mod fuse_activations;
mod fuse_pools;
mod fuse_residuals;
mod merge_pads;
mod recognise;
mod remark;
mod remove_identities;
mod rewrite;
mod weights;

pub use remark::Remark;

use crate::EngineError;
use crate::graph::Graph;
use remark::Log;
use rewrite::Rewrite;

/// One kind of rewriting.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Its name in remarks.
    pub name: &'static str,
    run: fn(&mut Rewrite, &mut Log) -> Result<(), EngineError>,
}

/// The passes, in an order in which each finds what the ones before it prepare.
pub const PASSES: &[Pass] = &[
    Pass { name: "fold_constants", run: fold_constants::run },
    Pass { name: "remove_identities", run: remove_identities::run },
    // Names for arithmetic, before any part of it is fused into something else.
    Pass { name: "recognise", run: recognise::run },
    Pass { name: "merge_pads", run: merge_pads::run },
    // A convolution takes norms only while it has no activation and no residual.
    Pass { name: "fold_norms", run: fold_norms::run },
    Pass { name: "fold_scales", run: fold_scales::run },
    Pass { name: "fold_stem", run: fold_stem::run },
    Pass { name: "commute", run: commute::run },
    // The activation follows the sum.
    Pass { name: "fuse_residuals", run: fuse_residuals::run },
    Pass { name: "fuse_activations", run: fuse_activations::run },
    Pass { name: "flatten", run: flatten::run },
];

/// The passes that close a node to all others: a convolution's second output is the mean of its final result.
pub const LAST: &[Pass] = &[Pass { name: "fuse_pools", run: fuse_pools::run }];

/// The passes that take out what capturing leaves behind and name what plain modules record as arithmetic; layers stay as
/// the module has them, batch norms too.
pub const TIDY: &[Pass] = &[
    Pass { name: "fold_constants", run: fold_constants::run },
    Pass { name: "remove_identities", run: remove_identities::run },
    Pass { name: "recognise", run: recognise::run },
    Pass { name: "merge_pads", run: merge_pads::run },
];

/// More rounds than any network needs; a graph made to take more is still correct after these.
const ROUNDS: usize = 32;

/// An optimized graph.
#[derive(Clone, Debug)]
pub struct Optimized {
    /// It computes what the given one did, up to rounding.
    pub graph: Graph,
    /// What was done, and what was not and why.
    pub remarks: Vec<Remark>,
}

/// Rewrites a graph into fewer and larger operators.
///
/// # Errors
///
/// The graph contradicts itself.
pub fn optimize(graph: Graph) -> Result<Optimized, EngineError> {
    let (mut graph, mut remarks) = repeat(PASSES, graph)?;
    run(LAST, &mut graph, &mut remarks)?;
    Ok(Optimized { graph, remarks })
}

/// Rewrites a captured graph into the network as its module describes it, layer by layer, for inference: the form in
/// which other programs expect it. The passes are [`TIDY`].
///
/// # Errors
///
/// The graph contradicts itself.
pub fn tidy(graph: Graph) -> Result<Graph, EngineError> {
    Ok(repeat(TIDY, graph)?.0)
}

/// Runs passes until none changes anything.
fn repeat(passes: &[Pass], mut graph: Graph) -> Result<(Graph, Vec<Remark>), EngineError> {
    graph.verify()?;
    let mut remarks = Vec::new();
    for _ in 0..ROUNDS {
        // What an earlier round missed, a later one may have done.
        remarks.retain(|remark| matches!(remark, Remark::Done { .. }));
        if !run(passes, &mut graph, &mut remarks)? {
            break;
        }
    }
    Ok((graph, remarks))
}

impl Pass {
    /// Runs this pass alone, once.
    ///
    /// # Errors
    ///
    /// The graph contradicts itself.
    pub fn apply(&self, mut graph: Graph) -> Result<Optimized, EngineError> {
        graph.verify()?;
        let mut remarks = Vec::new();
        run(&[*self], &mut graph, &mut remarks)?;
        Ok(Optimized { graph, remarks })
    }
}

/// Runs passes one after the other; whether any of them changed the graph.
fn run(passes: &[Pass], graph: &mut Graph, remarks: &mut Vec<Remark>) -> Result<bool, EngineError> {
    let mut changed = false;
    for pass in passes {
        let mut log = Log::new(pass.name);
        let mut rewrite = Rewrite::new(std::mem::take(graph));
        (pass.run)(&mut rewrite, &mut log)?;
        *graph = rewrite.finish();
        graph
            .verify()
            .map_err(|error| EngineError::graph(format!("after {}", pass.name), error.to_string()))?;
        changed |= log.changed();
        for remark in log.into_remarks() {
            remark::add(remarks, remark);
        }
    }
    Ok(changed)
}
