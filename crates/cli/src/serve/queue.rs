//! Images that wait for a network.
//!
//! The queue itself has no limit: whoever pushes holds a slot of the network, and there are only so many.

use super::worker::Answer;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// One image on its way.
pub(super) struct Job {
    /// Normalised, `[3, h, w]`.
    pub(super) input: Vec<f32>,
    /// Whether the last feature map is wanted.
    pub(super) features: bool,
    pub(super) queued: Instant,
    /// Nobody waits for it after that.
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Answer, String>>,
    /// Frees the slot when the image is done with.
    pub(super) slot: OwnedSemaphorePermit,
}

impl Job {
    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && Instant::now() < self.deadline
    }
}

/// First in, first out, in batches.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_one();
    }

    /// Lets the worker end once everything is answered.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Waits for an image, then for `batch` of them or until the first has waited for `delay`. False at the end.
    pub(super) fn wait(&self, batch: usize, delay: Duration) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        while state.jobs.len() < batch && !state.closed {
            let Some(first) = state.jobs.front() else { break };
            let left = (first.queued + delay).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !(state.jobs.is_empty() && state.closed)
    }

    /// Up to `batch` images that somebody still waits for; the others are dropped.
    pub(super) fn take(&self, batch: usize) -> Vec<Job> {
        let mut state = self.lock();
        let mut jobs = Vec::with_capacity(batch);
        while jobs.len() < batch
            && let Some(job) = state.jobs.pop_front()
        {
            if job.is_wanted() {
                jobs.push(job);
            }
        }
        jobs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    type Reply = oneshot::Receiver<Result<Answer, String>>;

    fn job(slots: &Arc<Semaphore>, seconds: u64) -> (Job, Reply) {
        let (reply, answer) = oneshot::channel();
        let slot = Arc::clone(slots).try_acquire_owned().unwrap();
        let queued = Instant::now();
        let deadline = queued + Duration::from_secs(seconds);
        (Job { input: vec![], features: false, queued, deadline, reply, slot }, answer)
    }

    #[test]
    fn a_batch_is_full_or_late() {
        let (queue, slots) = (Queue::default(), Arc::new(Semaphore::new(8)));
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (job, answer) = job(&slots, 60);
            queue.push(job);
            answers.push(answer);
        }
        let hour = Duration::from_secs(3600);
        assert!(queue.wait(2, hour));
        assert_eq!(queue.take(2).len(), 2);
        assert!(queue.wait(2, Duration::from_millis(1)));
        let taken = queue.take(2).len();
        assert_eq!((taken, slots.available_permits()), (1, 8));
        queue.close();
        assert!(!queue.wait(2, hour));
    }

    #[test]
    fn nobody_works_for_those_who_left() {
        let (queue, slots) = (Queue::default(), Arc::new(Semaphore::new(8)));
        let (left, _) = job(&slots, 60);
        let (late, _waiting) = job(&slots, 0);
        let (good, _answer) = job(&slots, 60);
        [left, late, good].into_iter().for_each(|job| queue.push(job));
        assert_eq!(queue.take(8).len(), 1);
        assert_eq!(slots.available_permits(), 8);
    }

    #[test]
    fn closing_answers_what_is_left_first() {
        let (queue, slots) = (Queue::default(), Arc::new(Semaphore::new(8)));
        let (job, _answer) = job(&slots, 60);
        queue.push(job);
        queue.close();
        assert!(queue.wait(8, Duration::from_secs(3600)));
        assert_eq!(queue.take(8).len(), 1);
        assert!(!queue.wait(8, Duration::ZERO));
    }
}
