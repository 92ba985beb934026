//! Answers that are none: a status, and one sentence that names what is wrong.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cardinal_data::{DataError, DataErrorKind};
use serde_json::json;
use std::time::Duration;

/// Why a request was not answered; `{"error": "..."}`, as the Open Inference Protocol has it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    text: String,
    retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after: None }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    pub(super) fn too_large(text: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    pub(super) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// There is no room now, but there will be in about `wait`.
    pub(super) fn busy(text: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().clamp(1.0, 120.0) as u64;
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    pub(super) fn late(limit: Duration) -> Self {
        let text = format!("no answer within {} s; see --timeout", limit.as_secs_f64());
        Self::new(StatusCode::GATEWAY_TIMEOUT, text)
    }
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Self {
        let status = match error.kind {
            DataErrorKind::TooManyPixels { .. } | DataErrorKind::FileTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            DataErrorKind::UnknownFormat { .. } | DataErrorKind::Unsupported { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            DataErrorKind::Empty => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.text }).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
