//! `POST /v2/models/{model}/infer`.

use super::super::Server;
use super::super::http::{Logged, body, predict};
use super::super::live::Live;
use super::super::refusal::Refusal;
use super::super::submit::{Prepared, submit};
use super::reply::{Wanted, reply};
use super::request::{self, Inference};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

pub(super) async fn post(
    State(server): State<Arc<Server>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    infer(&server, &model, None, request).await
}

pub(super) async fn post_to(
    State(server): State<Arc<Server>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    infer(&server, &model, Some(&version), request).await
}

async fn infer(
    server: &Server,
    model: &str,
    version: Option<&str>,
    request: Request,
) -> Result<Response, Refusal> {
    let start = Instant::now();
    let live = super::find(server, model, version)?;
    let deadline = start + server.limits.timeout;
    let pixels = server.limits.pixels;
    let work = async {
        let body = body::read(server, request, deadline).await?;
        let prepare = move |live: &Live| {
            let Inference { id, images, outputs } = request::read(&body, live, pixels)?;
            let wanted = Wanted::new(outputs, live.classes.len())?;
            Ok(Prepared { inputs: images, features: false, rest: (id, wanted) })
        };
        let done = submit(&live, deadline, prepare).await?;
        let output = Instant::now();
        let (id, wanted) = done.rest;
        let (images, batch) = (done.answers.len(), done.answers.iter().map(|a| a.batch).max().unwrap_or(0));
        let logits: Vec<_> = done.answers.into_iter().map(|answer| answer.logits).collect();
        let mut response = reply(model, &live, id.as_deref(), &wanted, &logits)?;
        live.counters.output.add(output.elapsed());
        response.extensions_mut().insert(Logged { model: model.to_owned(), images, batch });
        Ok(response)
    };
    predict::timed(server, &live, start, work).await
}
