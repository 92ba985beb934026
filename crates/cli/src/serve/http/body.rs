//! Bodies, within limits: one request's, and all together's.

use super::super::Server;
use super::super::refusal::Refusal;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes that all bodies together may have at a time.
pub(in crate::serve) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// A part of the budget, until it is dropped.
struct Reserved {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    pub(in crate::serve) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    fn take(&self, bytes: usize) -> Option<Reserved> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Reserved { used: Arc::clone(&self.used), bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// A whole body.
pub(in crate::serve) struct Body {
    pub(in crate::serve) bytes: Bytes,
    pub(in crate::serve) headers: HeaderMap,
    pub(in crate::serve) query: Option<String>,
    _reserved: Reserved,
}

impl Body {
    /// The content type, without its parameters, in lower case; empty if there is none.
    pub(in crate::serve) fn kind(&self) -> String {
        let value = self.content_type().unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub(in crate::serve) fn content_type(&self) -> Option<&str> {
        self.headers.get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// The value of `name` in the query.
    pub(in crate::serve) fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Reads the body to its end.
///
/// # Errors
///
/// It is over the limit, breaks off, takes until `deadline`, or the other bodies leave no room.
pub(in crate::serve) async fn read(
    server: &Server,
    request: Request,
    deadline: Instant,
) -> Result<Body, Refusal> {
    let limit = server.limits.body;
    let too_large =
        || Refusal::too_large(format!("the body has more than {limit} bytes, the limit; see --body-limit"));
    let (parts, body) = request.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok());
    let expected = match length {
        Some(length) if length > limit as u64 => return Err(too_large()),
        Some(length) => length as usize,
        None => limit,
    };
    let full = || Refusal::busy("too many bodies are on their way; try again", Duration::from_secs(1));
    let reserved = server.bodies.take(expected).ok_or_else(full)?;
    let bytes = tokio::time::timeout_at(deadline.into(), to_bytes(body, limit)).await;
    let slow =
        || Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive; see --timeout");
    let bytes = bytes.map_err(|_| slow())?.map_err(|error| {
        let cause = std::error::Error::source(&error);
        if cause.is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>()) {
            too_large()
        } else {
            Refusal::bad(format!("the body breaks off: {error}"))
        }
    })?;
    let query = parts.uri.query().map(str::to_owned);
    Ok(Body { bytes, headers: parts.headers, query, _reserved: reserved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.take(7).unwrap();
        assert!(budget.take(4).is_none());
        let second = budget.take(3).unwrap();
        drop(first);
        assert!(budget.take(8).is_none() && budget.take(usize::MAX).is_none());
        drop(second);
        assert!(budget.take(10).is_some());
    }
}
