//! What a client gets: tensors in JSON, or behind it.

use super::super::live::Live;
use super::super::refusal::Refusal;
use super::request::{HEADER_LENGTH, Outputs};
use crate::classes;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub(super) const LOGITS: &str = "logits";
pub(super) const PROBABILITIES: &str = "probabilities";

/// The outputs of an answer.
pub(super) struct Wanted(Vec<Want>);

struct Want {
    name: &'static str,
    binary: bool,
    /// Instead of numbers, the likeliest classes.
    classes: Option<usize>,
}

impl Wanted {
    /// Checks a client's list against what there is.
    pub(super) fn new(outputs: Outputs, classes: usize) -> Result<Self, Refusal> {
        let Outputs { list, binary } = outputs;
        let Some(list) = list else {
            let all = [LOGITS, PROBABILITIES].map(|name| Want { name, binary, classes: None });
            return Ok(Self(all.into()));
        };
        let want = |output: super::request::Output| {
            let name = [LOGITS, PROBABILITIES].into_iter().find(|name| **name == *output.name);
            let name = name.ok_or_else(|| {
                let name: String = output.name.chars().take(64).collect();
                Refusal::bad(format!("there is no output '{name}'; there are {LOGITS} and {PROBABILITIES}"))
            })?;
            let count = output.parameters.classification.filter(|count| *count > 0);
            let binary = output.parameters.binary_data.unwrap_or(binary);
            Ok(Want { name, binary, classes: count.map(|count| count.min(classes)) })
        };
        list.into_iter().map(want).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output>,
}

#[derive(Serialize)]
struct Output {
    name: &'static str,
    datatype: &'static str,
    shape: [usize; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Values>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    Numbers(Vec<f32>),
    Texts(Vec<String>),
}

impl Values {
    /// Little-endian numbers; texts behind their lengths.
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Numbers(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Texts(texts) => {
                let text = |text: &String| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
                texts.iter().flat_map(text).collect()
            }
        }
    }
}

/// The answer for images with these `logits`.
pub(super) fn reply(
    model: &str,
    live: &Live,
    id: Option<&str>,
    wanted: &Wanted,
    logits: &[Vec<f32>],
) -> Result<Response, Refusal> {
    let images = logits.len();
    let probabilities: Vec<_> = logits
        .iter()
        .map(|row| {
            let mut row = row.clone();
            classes::probabilities(&mut row, live.multi_label);
            row
        })
        .collect();
    let mut behind = Vec::new();
    let outputs = wanted.0.iter().map(|want| {
        let rows = if want.name == LOGITS { logits } else { &probabilities };
        let (datatype, length, values) = match want.classes {
            None => ("FP32", live.classes.len(), Values::Numbers(rows.concat())),
            Some(count) => {
                let label = |p: classes::Prediction| format!("{}:{}:{}", p.probability, p.class, p.name);
                let rows = rows.iter().flat_map(|row| classes::best(row, &live.classes, count)).map(label);
                ("BYTES", count, Values::Texts(rows.collect()))
            }
        };
        let shape = [images, length];
        if want.binary {
            let bytes = values.to_bytes();
            let parameters = Some(Parameters { binary_data_size: bytes.len() });
            behind.extend(bytes);
            return Output { name: want.name, datatype, shape, parameters, data: None };
        }
        Output { name: want.name, datatype, shape, parameters: None, data: Some(values) }
    });
    let outputs = outputs.collect();
    let reply = Reply { model_name: model, model_version: live.version.to_string(), id, outputs };
    let json = serde_json::to_vec(&reply).map_err(|error| Refusal::internal(error.to_string()))?;
    if behind.is_empty() {
        return Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response());
    }
    let length = json.len().to_string();
    let body = [json, behind].concat();
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response();
    let length = length.parse().map_err(|_| Refusal::internal("a length is no header"))?;
    response.headers_mut().insert(HEADER_LENGTH, length);
    Ok(response)
}
