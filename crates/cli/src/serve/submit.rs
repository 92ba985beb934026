//! A request's way through a network: a slot, preparation in the pool of threads, the queue, the answer.

use super::live::Live;
use super::queue::Job;
use super::refusal::Refusal;
use super::worker::Answer;
use axum::http::StatusCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What came of a request's body.
pub(super) struct Prepared<T> {
    /// Normalised images, `[3, h, w]` each.
    pub(super) inputs: Vec<Vec<f32>>,
    /// Whether the last feature maps are wanted.
    pub(super) features: bool,
    /// What else the answer needs.
    pub(super) rest: T,
}

/// What the network said, and how long it took.
pub(super) struct Done<T> {
    pub(super) answers: Vec<Answer>,
    pub(super) rest: T,
    /// Decoding and the like.
    pub(super) input: Duration,
}

/// Runs `prepare` on a thread of the pool and its images through the network.
///
/// # Errors
///
/// No slot is free, `prepare` refuses, or the network fails. The caller limits the time.
pub(super) async fn submit<T: Send + 'static>(
    live: &Arc<Live>,
    deadline: Instant,
    prepare: impl FnOnce(&Live) -> Result<Prepared<T>, Refusal> + Send + 'static,
) -> Result<Done<T>, Refusal> {
    let slot = live.admit(1)?;
    let live = Arc::clone(live);
    // The pool works through its list even for those who left; this tells it not to.
    let (gone, _here) = oneshot::channel::<()>();
    let prepared = tokio::task::spawn_blocking(move || {
        if gone.is_closed() {
            return Err(Refusal::internal("the connection is gone"));
        }
        let start = Instant::now();
        let Prepared { inputs, features, rest } = prepare(&live)?;
        let input = start.elapsed();
        live.counters.input.add(input);
        let mut slots = vec![slot];
        if inputs.len() > 1 {
            let mut more = live.admit(inputs.len() - 1)?;
            slots.extend((1..inputs.len()).filter_map(|_| more.split(1)));
        }
        let queue = |(image, slot)| {
            let (reply, answer) = oneshot::channel();
            live.queue.push(Job { input: image, features, queued: Instant::now(), deadline, reply, slot });
            answer
        };
        Ok((inputs.into_iter().zip(slots).map(queue).collect::<Vec<_>>(), rest, input))
    });
    let (receivers, rest, input) =
        prepared.await.map_err(|_| Refusal::internal("the request made its preparation fail"))??;
    let mut answers = Vec::with_capacity(receivers.len());
    for receiver in receivers {
        match receiver.await {
            Ok(Ok(answer)) => answers.push(answer),
            Ok(Err(text)) => return Err(Refusal::internal(text)),
            // The worker lets go of an image without an answer only when its time is over.
            Err(_) => {
                return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the time is over; see --timeout"));
            }
        }
    }
    Ok(Done { answers, rest, input })
}
