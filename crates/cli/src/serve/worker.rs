//! The thread that owns a network's session: takes batches from the queue and answers them.

use super::counters::Counters;
use super::queue::{Job, Queue};
use super::turn::Turns;
use cardinal_engine::plan::Plan;
use cardinal_engine::run::{Outputs, Session};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::error;

/// What the network said of one image.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) logits: Vec<f32>,
    /// The last feature map, `[channels, h, w]`, where it was wanted.
    pub(super) features: Option<Vec<f32>>,
    /// From the queue to the start of the run.
    pub(super) queue: Duration,
    /// Of the whole batch.
    pub(super) infer: Duration,
    /// Images of the batch.
    pub(super) batch: usize,
}

pub(super) struct Worker {
    pub(super) plan: Arc<Plan>,
    /// The last feature map's place among the outputs.
    pub(super) features: Option<usize>,
    pub(super) queue: Arc<Queue>,
    pub(super) counters: Arc<Counters>,
    pub(super) turns: Arc<Turns>,
    /// How long the first image of a batch waits for others.
    pub(super) delay: Duration,
}

impl Worker {
    /// Works until the queue is closed and empty.
    pub(super) fn run(self, mut session: Session) {
        let batch = self.plan.batch();
        let elements = self.plan.inputs()[0].elements;
        let mut input = Vec::with_capacity(batch * elements);
        while self.queue.wait(batch, self.delay) {
            let turn = self.turns.take();
            let jobs = self.queue.take(batch);
            if jobs.is_empty() {
                continue;
            }
            input.clear();
            jobs.iter().for_each(|job| input.extend_from_slice(&job.input));
            let start = Instant::now();
            // A panic here would be ours, but one batch should not take the server down.
            let result = catch_unwind(AssertUnwindSafe(|| session.run(&[&input]).map(drop)));
            drop(turn);
            let time = start.elapsed();
            match result {
                Ok(Ok(())) => self.answer(session.outputs(), jobs, start, time),
                Ok(Err(error)) => fail(jobs, &error.to_string()),
                Err(_) => {
                    fail(jobs, "the network failed on this batch");
                    session = Session::new(Arc::clone(&self.plan), true);
                }
            }
        }
    }

    fn answer(&self, outputs: &Outputs, jobs: Vec<Job>, start: Instant, time: Duration) {
        self.counters.ran(jobs.len(), time);
        self.counters.infer.add(time);
        let logits = outputs.get(0);
        let batch = jobs.len();
        let classes = logits.len() / batch;
        for (image, (job, logits)) in jobs.into_iter().zip(logits.chunks_exact(classes)).enumerate() {
            let features = self.features.filter(|_| job.features).map(|output| {
                let length = outputs.get(output).len() / batch;
                outputs.get(output)[image * length..][..length].to_vec()
            });
            let queue = start - job.queued;
            self.counters.queue.add(queue);
            let Job { reply, slot, .. } = job;
            drop(slot);
            // Who left no longer wants it.
            let _ = reply.send(Ok(Answer { logits: logits.to_vec(), features, queue, infer: time, batch }));
        }
    }
}

fn fail(jobs: Vec<Job>, text: &str) {
    error!("{text}");
    for job in jobs {
        // Who left no longer wants it.
        let _ = job.reply.send(Err(text.to_owned()));
    }
}
