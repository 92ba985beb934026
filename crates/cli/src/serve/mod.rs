//! The server: networks over HTTP.
//!
//! ```text
//! connection ─► body ─► a slot ─► decode, resize ─► queue ─► worker: batch ─► session ─► answer
//!  (one thread of I/O)   or 503    (pool of threads)          (a thread per network)
//! ```
//!
//! A request that gets a slot keeps the network that it started with, so a reload takes nothing away from it; what is
//! queued is bounded by the slots, what is in memory by the slots and the budget of bodies.
//!
//! *Invariant:* nothing here needs Burn but `source.rs`, and only where the build has it.

mod args;
mod counters;

mod http;
mod live;
mod probe;
mod queue;
mod refusal;
mod source;
mod submit;
mod turn;
mod v2;
mod watch;
mod worker;

pub(crate) use args::Args;

use live::Slot;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What all requests share.
struct Server {
    /// In the order of the command line.
    models: Vec<Slot>,
    limits: Limits,
    /// Digest of the token that requests must bear.
    token: Option<http::auth::Digest>,
    /// Set when the process was asked to end: answers then close their connections.
    draining: AtomicBool,
    bodies: http::body::Budget,
    page: http::page::Page,
    ids: http::ids::Ids,
    started: Instant,
}

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes of one request's body.
    body: usize,
    /// Pixels of one picture.
    pixels: u64,
    /// From the head of a request to its answer.
    timeout: Duration,
}

impl Server {
    /// The network of that name.
    fn slot(&self, name: &str) -> Result<&Slot, refusal::Refusal> {
        self.models.iter().find(|slot| slot.name == name).ok_or_else(|| {
            let names: Vec<_> = self.models.iter().map(|slot| slot.name.as_str()).collect();
            refusal::Refusal::not_found(format!("there is no model '{name}'; there are {}", names.join(", ")))
        })
    }
}
