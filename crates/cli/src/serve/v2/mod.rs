//! The Open Inference Protocol, version 2: health, metadata, inference.
//!
//! <https://github.com/kserve/open-inference-protocol>, `specification/protocol/inference_rest.md`; the binary tensors,
//! `classification` and the repository's index are Triton's extensions.

mod infer;
mod reply;
mod request;

use super::Server;
use super::live::Live;
use super::refusal::Refusal;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What needs no token.
pub(super) fn health() -> Router<Arc<Server>> {
    Router::new().route("/v2/health/live", get(live)).route("/v2/health/ready", get(ready))
}

/// The rest.
pub(super) fn models() -> Router<Arc<Server>> {
    Router::new()
        .route("/v2", get(about))
        .route("/v2/repository/index", post(index).get(index))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/versions/{version}", get(metadata_of))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready_of))
        .route("/v2/models/{model}/infer", post(infer::post))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::post_to))
}

fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn live() -> Response {
    answer(StatusCode::OK, &json!({ "live": true }))
}

async fn ready(State(server): State<Arc<Server>>) -> Response {
    let ready = !server.draining.load(Relaxed);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &json!({ "ready": ready }))
}

async fn about() -> Response {
    let about = json!({
        "name": "cardinal",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "classification", "model_repository"],
    });
    answer(StatusCode::OK, &about)
}

async fn index(State(server): State<Arc<Server>>) -> Response {
    let row = |slot: &super::live::Slot| json!({ "name": slot.name, "version": slot.live().version.to_string(), "state": "READY", "reason": "" });
    answer(StatusCode::OK, &server.models.iter().map(row).collect())
}

/// The model, if that version of it is there.
fn find(server: &Server, model: &str, version: Option<&str>) -> Result<Arc<Live>, Refusal> {
    let live = server.slot(model)?.live();
    match version {
        Some(version) if version != live.version.to_string() => Err(Refusal::not_found(format!(
            "model '{model}' has no version {version}; version {} answers",
            live.version
        ))),
        _ => Ok(live),
    }
}

async fn metadata(State(server): State<Arc<Server>>, Path(model): Path<String>) -> Result<Response, Refusal> {
    describe(&server, &model, None)
}

async fn metadata_of(
    State(server): State<Arc<Server>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    describe(&server, &model, Some(&version))
}

fn describe(server: &Server, model: &str, version: Option<&str>) -> Result<Response, Refusal> {
    let live = find(server, model, version)?;
    let (height, width) = live.preprocess.size;
    let classes = live.classes.len();
    let output = |name: &str| json!({ "name": name, "datatype": "FP32", "shape": [-1, classes] });
    let metadata = json!({
        "name": model,
        "versions": [live.version.to_string()],
        "platform": "cardinal",
        "inputs": [{ "name": request::TENSOR, "datatype": "FP32", "shape": [-1, 3, height, width] }],
        "outputs": [output(reply::LOGITS), output(reply::PROBABILITIES)],
    });
    Ok(answer(StatusCode::OK, &metadata))
}

async fn model_ready(
    State(server): State<Arc<Server>>,
    Path(model): Path<String>,
) -> Result<Response, Refusal> {
    model_state(&server, &model, None)
}

async fn model_ready_of(
    State(server): State<Arc<Server>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    model_state(&server, &model, Some(&version))
}

fn model_state(server: &Server, model: &str, version: Option<&str>) -> Result<Response, Refusal> {
    find(server, model, version)?;
    Ok(answer(StatusCode::OK, &json!({ "name": model, "ready": true })))
}
