//! A picture out of a request's body, and what the network sees of it.

use super::super::live::Live;
use super::super::refusal::Refusal;
use super::body::Body;
use super::multipart;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cardinal_data::{DataError, Decoder, RgbImage};
use serde::Deserialize;
use std::borrow::Cow;

/// `{"image": "base64"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
}

/// The picture's file, from a raw body, a form or JSON.
pub(super) fn file(body: &Body) -> Result<Cow<'_, [u8]>, Refusal> {
    match body.kind().as_str() {
        "multipart/form-data" => {
            let content_type = body.content_type().unwrap_or_default();
            multipart::file(content_type, &body.bytes).map(Cow::Borrowed).map_err(Refusal::bad)
        }
        "application/json" => {
            let json: Json = serde_json::from_slice(&body.bytes).map_err(|error| {
                Refusal::bad(format!("not {{\"image\": \"base64 of a picture\"}}: {error}"))
            })?;
            base64(&json.image).map(Cow::Owned)
        }
        _ if body.bytes.is_empty() => {
            Err(Refusal::bad("the body is empty; send a picture: JPEG, PNG, WebP, BMP or GIF"))
        }
        _ => Ok(Cow::Borrowed(&body.bytes)),
    }
}

/// The bytes that `text` stands for; the beginning of a data URL is skipped.
pub(in crate::serve) fn base64(text: &str) -> Result<Vec<u8>, Refusal> {
    let text = text.strip_prefix("data:").and_then(|url| url.split_once(";base64,")).map_or(text, |(_, d)| d);
    STANDARD.decode(text.trim()).map_err(|error| Refusal::bad(format!("the picture is no base64: {error}")))
}

/// Decodes a picture within the limits, and makes the network's input of it.
pub(in crate::serve) fn input(
    live: &Live,
    pixels: u64,
    bytes: &[u8],
) -> Result<(RgbImage, Vec<f32>), Refusal> {
    let decoder = Decoder { max_pixels: pixels, ..Decoder::default() };
    let image =
        decoder.decode_bytes(bytes, "the picture").map_err(|error: DataError| Refusal::from(error))?;
    let input = live.preprocess.run(&image).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok((image, input))
}
