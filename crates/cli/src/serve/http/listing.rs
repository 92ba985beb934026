//! `GET /models`: what is served, for the page and for people.

use super::super::Server;
use super::super::live::Slot;
use super::super::refusal::Refusal;
use super::json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn get(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    json(&json!({ "models": server.models.iter().map(describe).collect::<Vec<_>>() }))
}

fn describe(slot: &Slot) -> Value {
    let live = slot.live();
    let options = live.plan.options();
    json!({
        "name": slot.name,
        "version": live.version,
        "architecture": live.architecture,
        "classes": live.classes.len(),
        "input_size": [3, live.preprocess.size.0, live.preprocess.size.1],
        "param_count": live.param_count,
        "macs": live.macs,
        "file_bytes": live.file_bytes,
        "weight_bytes": live.plan.weight_bytes(),
        "memory_bytes": live.plan.memory_bytes(),
        "class_maps": live.maps.is_some(),
        "max_batch": options.batch,
        "dtype": options.dtype.name(),
        "kernels": options.isa.to_string(),
        "threads": options.threads,
    })
}
