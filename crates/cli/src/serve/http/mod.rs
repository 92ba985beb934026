//! HTTP: connections, routes, and what every request goes through.

mod accept;
pub(super) mod auth;
pub(super) mod body;
pub(super) mod ids;
mod listing;
mod log;
mod metrics;
mod multipart;
pub(super) mod page;
pub(super) mod picture;
pub(super) mod predict;

pub(super) use accept::{Connections, serve};
pub(super) use log::{AccessLog, Logged};

use super::refusal::Refusal;
use super::{Server, v2};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Everything that is answered.
pub(super) fn router(server: Arc<Server>, access: AccessLog) -> Router {
    let open = Router::new().route("/", get(page::get)).merge(v2::health());
    let guarded = Router::new()
        .route("/models", get(listing::get))
        .route("/metrics", get(metrics::get))
        .route("/predictions/{model}", post(predict::post))
        .route("/explain/{model}", post(predict::explain))
        .merge(v2::models())
        .layer(from_fn_with_state(Arc::clone(&server), auth::check));
    open.merge(guarded)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        // Bodies have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state((Arc::clone(&server), access), around))
        .with_state(server)
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}; see docs/serve.md", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

/// Gives every request an id, every answer its headers, and the log a line.
async fn around(
    State((server, access)): State<(Arc<Server>, AccessLog)>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let id = server.ids.of(request.headers());
    request.extensions_mut().insert(id.clone());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let line = log::Line::of(&request, &id, peer);
    let mut response = next.run(request).await.into_response();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if server.draining.load(Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    access.write(&line, &response, start.elapsed());
    response
}

/// A JSON answer.
fn json(value: &impl serde::Serialize) -> Result<Response, Refusal> {
    let text = serde_json::to_vec(value).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
