//! `GET /metrics`: counters in Prometheus' text format, under Triton's names where it has one.

use super::super::Server;
use super::super::counters::{Counters, Histogram, IMAGES, SECONDS};
use super::super::live::{Live, Slot};
use crate::machine;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

type Read = fn(&Slot, &Live) -> u64;

/// Name, type, help, value.
const ROWS: [(&str, &str, &str, Read); 17] = [
    ("nv_inference_request_success", "counter", "Requests that were answered", |_, l| {
        l.counters.success.load(Relaxed)
    }),
    ("nv_inference_request_failure", "counter", "Requests that were refused or failed", |_, l| {
        l.counters.failure.load(Relaxed)
    }),
    ("nv_inference_count", "counter", "Images that went through the network", |_, l| {
        l.counters.images.load(Relaxed)
    }),
    ("nv_inference_exec_count", "counter", "Runs of the network, each with a batch of images", |_, l| {
        l.counters.runs.load(Relaxed)
    }),
    ("nv_inference_request_duration_us", "counter", "Microseconds of answered requests, whole", |_, l| {
        l.counters.request.micros()
    }),
    ("nv_inference_queue_duration_us", "counter", "Microseconds that images waited", |_, l| {
        l.counters.queue.micros()
    }),
    ("nv_inference_compute_input_duration_us", "counter", "Microseconds of decoding and resizing", |_, l| {
        l.counters.input.micros()
    }),
    ("nv_inference_compute_infer_duration_us", "counter", "Microseconds of runs of the network", |_, l| {
        l.counters.infer.micros()
    }),
    ("nv_inference_compute_output_duration_us", "counter", "Microseconds of making answers", |_, l| {
        l.counters.output.micros()
    }),
    ("nv_inference_pending_request_count", "gauge", "Images that wait for the network", |_, l| {
        l.queue.len() as u64
    }),
    ("cardinal_rejected_total", "counter", "Requests that found no free place (503)", |_, l| {
        l.counters.rejected.load(Relaxed)
    }),
    ("cardinal_inflight_images", "gauge", "Images in preparation, waiting or in the network", |_, l| {
        l.pending() as u64
    }),
    ("cardinal_model_version", "gauge", "Version that answers", |_, l| l.version),
    ("cardinal_model_weight_bytes", "gauge", "Bytes of packed weights", |_, l| l.plan.weight_bytes() as u64),
    ("cardinal_model_memory_bytes", "gauge", "Bytes of feature maps", |_, l| l.plan.memory_bytes() as u64),
    ("cardinal_model_reloads_total", "counter", "Changed files that were taken", |s, _| {
        s.reloads.load(Relaxed)
    }),
    ("cardinal_model_failed_reloads_total", "counter", "Changed files that were refused", |s, _| {
        s.failed_reloads.load(Relaxed)
    }),
];

pub(super) async fn get(State(server): State<Arc<Server>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&server)).into_response()
}

fn text(server: &Server) -> String {
    let models: Vec<_> = server.models.iter().map(|slot| (slot, slot.live())).collect();
    let mut out = String::new();
    for (name, kind, help, read) in ROWS {
        head(&mut out, name, kind, help);
        for (slot, live) in &models {
            _ = writeln!(out, "{name}{{{}}} {}", labels(slot, live), read(slot, live));
        }
    }
    let latency = ("cardinal_request_duration_seconds", "Answered requests, from head to answer");
    histogram(&mut out, latency, &models, &SECONDS, |counters| &counters.latency);
    let batches = ("cardinal_batch_size", "Images of a run");
    histogram(&mut out, batches, &models, &IMAGES, |counters| &counters.batches);
    let start = server.started.elapsed().as_secs_f64();
    head(&mut out, "cardinal_uptime_seconds", "gauge", "Since the start");
    _ = writeln!(out, "cardinal_uptime_seconds {start:.3}");
    if let Some(bytes) = machine::held_memory() {
        head(&mut out, "process_resident_memory_bytes", "gauge", "Memory that the process holds");
        _ = writeln!(out, "process_resident_memory_bytes {bytes}");
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Names are free of what would have to be escaped.
fn labels(slot: &Slot, live: &Live) -> String {
    format!("model=\"{}\",version=\"{}\"", slot.name, live.version)
}

fn histogram<const N: usize>(
    out: &mut String,
    (name, help): (&str, &str),
    models: &[(&Slot, Arc<Live>)],
    bounds: &[f64; N],
    of: fn(&Counters) -> &Histogram<N>,
) {
    head(out, name, "histogram", help);
    for (slot, live) in models {
        let labels = labels(slot, live);
        let (buckets, count, sum) = of(&live.counters).read();
        for (bound, value) in bounds.iter().zip(buckets) {
            _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {value}");
        }
        _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }
}
