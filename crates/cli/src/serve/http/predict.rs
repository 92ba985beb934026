//! `POST /predictions/{model}`: the classes of a picture; `POST /explain/{model}`: where the evidence for one lies.

use super::super::Server;
use super::super::live::Live;
use super::super::refusal::Refusal;
use super::super::submit::{Prepared, submit};
use super::super::worker::Answer;
use super::body::{self, Body};
use super::ids::RequestId;
use super::{Logged, json, picture};
use crate::classes::{Prediction, best, probabilities};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use cardinal_engine::explain::normalise;
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Reply<'a> {
    model: &'a str,
    version: u64,
    id: &'a str,
    /// Width and height of the picture, upright.
    image: [u32; 2],
    predictions: Vec<Prediction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Evidence>,
    timing: Timing,
}

/// Where the time went, in milliseconds.
#[derive(Serialize)]
pub(super) struct Timing {
    decode_ms: f64,
    queue_ms: f64,
    /// Of the whole batch.
    inference_ms: f64,
    total_ms: f64,
    batch: usize,
}

impl Timing {
    pub(super) fn new(start: Instant, input: Duration, answer: &Answer) -> Self {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            decode_ms: ms(input),
            queue_ms: ms(answer.queue),
            inference_ms: ms(answer.infer),
            total_ms: ms(start.elapsed()),
            batch: answer.batch,
        }
    }
}

/// Where the evidence for a class lies.
#[derive(Serialize)]
struct Evidence {
    class: usize,
    name: String,
    probability: f32,
    /// Rows of the map, from the top, scaled to [0, 1].
    map: Vec<Vec<f32>>,
    /// What the network saw, as shares of the picture's width and height: left, top, width, height.
    crop: [f64; 4],
}

pub(super) async fn post(
    State(server): State<Arc<Server>>,
    Path(model): Path<String>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refusal> {
    classify(&server, &model, &id, request, false).await
}

/// `POST /explain/{model}`: the same with the class-activation map of a class.
pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    Path(model): Path<String>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refusal> {
    classify(&server, &model, &id, request, true).await
}

async fn classify(
    server: &Server,
    model: &str,
    id: &RequestId,
    request: Request,
    explain: bool,
) -> Result<Response, Refusal> {
    let start = Instant::now();
    let live = server.slot(model)?.live();
    let deadline = start + server.limits.timeout;
    let work = async {
        if explain && live.maps.is_none() {
            let text = format!("'{model}' does not end in pooling and a linear layer: it has no class maps");
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let body = body::read(server, request, deadline).await?;
        let topk = number(&body, "topk", live.classes.len())?.unwrap_or(5).max(1);
        let class = number(&body, "class", live.classes.len() - 1)?;
        let pixels = server.limits.pixels;
        let done = submit(&live, deadline, move |live| {
            let file = picture::file(&body)?;
            let (image, input) = picture::input(live, pixels, &file)?;
            let size = [image.width(), image.height()];
            Ok(Prepared { inputs: vec![input], features: explain, rest: size })
        });
        let mut done = done.await?;
        let mut answer = done.answers.pop().ok_or_else(|| Refusal::internal("no answer"))?;
        let output = Instant::now();
        probabilities(&mut answer.logits, live.multi_label);
        let predictions = best(&answer.logits, &live.classes, topk);
        let class = class.unwrap_or(predictions[0].class);
        let reply = Reply {
            model,
            version: live.version,
            id: &id.0,
            image: done.rest,
            explanation: evidence(&live, &answer, class, done.rest)?,
            predictions,
            timing: Timing::new(start, done.input, &answer),
        };
        let mut response = json(&reply)?;
        live.counters.output.add(output.elapsed());
        response.extensions_mut().insert(Logged { model: model.into(), images: 1, batch: answer.batch });
        Ok(response)
    };
    timed(server, &live, start, work).await
}

/// The map of `class`, where the answer has the features for it.
fn evidence(
    live: &Live,
    answer: &Answer,
    class: usize,
    [width, height]: [u32; 2],
) -> Result<Option<Evidence>, Refusal> {
    let (Some(maps), Some(features)) = (&live.maps, &answer.features) else { return Ok(None) };
    let internal = |error: &dyn std::error::Error| Refusal::internal(error.to_string());
    let mut map = maps.map(features, class).map_err(|error| internal(&error))?;
    normalise(&mut map);
    let geometry = live.preprocess.geometry(width, height).map_err(|error| internal(&error))?;
    let (rows, columns) = (geometry.resized.0 as f64, geometry.resized.1 as f64);
    let (high, wide) = (f64::from(live.preprocess.size.0), f64::from(live.preprocess.size.1));
    let crop = [geometry.left as f64 / columns, geometry.top as f64 / rows, wide / columns, high / rows];
    Ok(Some(Evidence {
        class,
        name: live.classes[class].clone(),
        probability: answer.logits[class],
        map: map.chunks_exact(maps.width()).map(<[f32]>::to_vec).collect(),
        crop,
    }))
}

/// Ends `work` when the request's time is over, and counts how it went.
pub(in crate::serve) async fn timed(
    server: &Server,
    live: &Live,
    start: Instant,
    work: impl Future<Output = Result<Response, Refusal>>,
) -> Result<Response, Refusal> {
    let limit = server.limits.timeout;
    let result = tokio::time::timeout_at((start + limit).into(), work).await;
    let result = result.unwrap_or_else(|_| Err(Refusal::late(limit)));
    match &result {
        Ok(_) => live.counters.answered(start.elapsed()),
        Err(_) => _ = live.counters.failure.fetch_add(1, Relaxed),
    }
    result
}

/// A number of the query from 0 to `most`.
pub(super) fn number(body: &Body, name: &str, most: usize) -> Result<Option<usize>, Refusal> {
    let Some(text) = body.query(name) else { return Ok(None) };
    let number = text.parse::<usize>().ok().filter(|number| *number <= most);
    number
        .map(Some)
        .ok_or_else(|| Refusal::bad(format!("{name} must be a number up to {most}, not '{text}'")))
}
