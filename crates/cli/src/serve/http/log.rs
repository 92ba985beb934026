//! The access log: a line of JSON per request on standard output, written by a thread of its own.

use super::ids::RequestId;
use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::Response;
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines that may wait for a slow reader; beyond, they are dropped and counted, so that no request waits for one.
const WAITING: usize = 4096;

/// What a handler tells the log, in its answer's extensions.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Logged {
    pub(in crate::serve) model: String,
    pub(in crate::serve) images: usize,
    pub(in crate::serve) batch: usize,
}

/// Where lines go; nowhere with `--quiet`.
#[derive(Clone)]
pub(in crate::serve) struct AccessLog(Option<Sink>);

#[derive(Clone)]
struct Sink {
    /// `None` is the end.
    lines: SyncSender<Option<String>>,
    dropped: Arc<AtomicU64>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// The part of a line that the request knows.
pub(super) struct Line {
    id: String,
    peer: Option<SocketAddr>,
    method: Method,
    path: String,
    bytes: Option<u64>,
}

impl Line {
    pub(super) fn of(request: &Request, id: &RequestId, peer: Option<SocketAddr>) -> Self {
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        Self {
            id: id.0.clone(),
            peer,
            method: request.method().clone(),
            // Without the query: it may hold what should not be logged.
            path: request.uri().path().chars().take(256).collect(),
            bytes: length.and_then(|text| text.parse().ok()),
        }
    }
}

impl AccessLog {
    pub(in crate::serve) fn none() -> Self {
        Self(None)
    }

    /// Starts the writing thread.
    pub(in crate::serve) fn start() -> std::io::Result<Self> {
        let (lines, receiver) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("log".into());
        let writer = thread.spawn(move || write_all(&receiver, &counter))?;
        Ok(Self(Some(Sink { lines, dropped, writer: Arc::new(Mutex::new(Some(writer))) })))
    }

    /// Waits until everything is written.
    pub(in crate::serve) fn finish(&self) {
        let Some(sink) = &self.0 else { return };
        let writer = sink.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if sink.lines.send(None).is_ok()
            && let Some(writer) = writer
        {
            // It writes and ends; there is nothing to learn from it.
            let _ = writer.join();
        }
    }

    pub(super) fn write(&self, line: &Line, response: &Response, time: Duration) {
        let Some(sink) = &self.0 else { return };
        let logged = response.extensions().get::<Logged>();
        let text = json!({
            "time": timestamp(SystemTime::now()),
            "id": line.id,
            "peer": line.peer.map(|peer| peer.to_string()),
            "method": line.method.as_str(),
            "path": line.path,
            "status": response.status().as_u16(),
            "bytes_in": line.bytes,
            "ms": (time.as_secs_f64() * 1e6).round() / 1e3,
            "model": logged.map(|logged| logged.model.as_str()),
            "images": logged.map(|logged| logged.images),
            "batch": logged.map(|logged| logged.batch),
        });
        if sink.lines.try_send(Some(text.to_string())).is_err() {
            sink.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn write_all(lines: &Receiver<Option<String>>, dropped: &AtomicU64) {
    while let Ok(Some(line)) = lines.recv() {
        let mut out = std::io::stdout().lock();
        let missing = dropped.swap(0, Relaxed);
        let mut write = || -> std::io::Result<()> {
            if missing > 0 {
                writeln!(out, "{}", json!({ "dropped_lines": missing }))?;
            }
            writeln!(out, "{line}")
        };
        // A reader that closed the pipe wants no log; the server goes on.
        let _ = write();
    }
}

/// `2026-01-31T12:34:56.789Z`.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = crate::machine::civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let milliseconds = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| timestamp(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.007Z");
        assert_eq!(at(1_735_689_600), "2025-01-01T00:00:00.007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.007Z");
    }
}
