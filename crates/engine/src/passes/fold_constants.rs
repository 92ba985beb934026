//! Evaluates what depends on constants alone, such as an eager batch norm's `sqrt(var + epsilon)` or a transposed
//! weight.

use super::remark::Log;
use super::rewrite::Rewrite;
use crate::EngineError;
use crate::graph::{Constant, Node, Op, Source, ValueId};
use crate::reference::{self, View};
use std::sync::Arc;

pub(super) fn run(rw: &mut Rewrite, log: &mut Log) -> Result<(), EngineError> {
    for place in rw.places() {
        let Some(node) = rw.node(place).filter(|node| is_constant(rw, node)) else { continue };
        let results = evaluate(rw, node)?;
        let name = name(rw, node);
        let Some(node) = rw.take(place) else { continue };
        for (id, data) in node.outputs.into_iter().zip(results) {
            rw.make_constant(id, name.clone(), Source::Constant(Constant { data }));
        }
        log.done("constant node evaluated");
    }
    Ok(())
}

fn is_constant(rw: &Rewrite, node: &Node) -> bool {
    !node.inputs.is_empty() && node.inputs.iter().all(|&id| rw.constant(id).is_some())
}

fn evaluate(rw: &Rewrite, node: &Node) -> Result<Vec<Arc<[f32]>>, EngineError> {
    if let (Op::Reshape { .. }, [x]) = (&node.op, node.inputs.as_slice())
        && let Some(data) = rw.constant(*x)
    {
        return Ok(vec![data.clone()]);
    }
    let view = |&id: &ValueId| Some(View { shape: rw.shape(id), data: rw.constant(id)? });
    let inputs: Vec<_> = node.inputs.iter().filter_map(view).collect();
    let results = reference::evaluate_op(&node.op, &inputs);
    let results = results.map_err(|reason| EngineError::graph(node.place(), reason))?;
    Ok(results.into_iter().map(|tensor| tensor.data.into()).collect())
}

/// The name of the first input that has one: a transposed weight is still that weight.
fn name(rw: &Rewrite, node: &Node) -> String {
    let names = node.inputs.iter().map(|&id| &rw.value(id).name);
    names.chain([&node.name]).find(|name| !name.is_empty()).cloned().unwrap_or_default()
}
