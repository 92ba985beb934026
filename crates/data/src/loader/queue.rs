//! The threads, and the batches that they work on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::plan::{Job, OpenBatch, Plan, loader_error};
use super::{Batch, LoaderError};
use crate::DataError;

/// Threads that prepare batches ahead of the one who takes them.
pub(super) struct Queue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do, or the queue closes.
    work: Condvar,
    /// A batch is finished.
    ready: Condvar,
    limit: usize,
    batch_bytes: usize,
}

#[derive(Default)]
struct State {
    plan: Option<Arc<Plan>>,
    /// The next batch to open, and the one behind the last.
    next: usize,
    end: usize,
    /// Batches in their order: the first is the next to give away.
    open: VecDeque<Open>,
    most_open: usize,
    closed: bool,
}

struct Open {
    batch: Arc<OpenBatch>,
    /// How many of its images are someone's work.
    claimed: usize,
    finished: Option<Result<Batch, DataError>>,
}

impl Queue {
    pub(super) fn new(job: &Arc<Job>) -> Result<Self, DataError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            ready: Condvar::new(),
            limit: job.options.prefetch_bytes,
            batch_bytes: job.batch_bytes(),
        });
        let mut queue = Self { shared, threads: Vec::new() };
        for number in 0..job.options.workers {
            let shared = Arc::clone(&queue.shared);
            let thread = std::thread::Builder::new().name(format!("loader-{number}"));
            let handle = thread.spawn(move || shared.work_until_closed()).map_err(|error| {
                loader_error(&job.dataset.describe(), LoaderError::Threads(error.to_string()))
            })?;
            queue.threads.push(handle);
        }
        Ok(queue)
    }

    /// Drops what is open and starts on the batches `from..end` of `plan`.
    pub(super) fn start(&self, plan: Arc<Plan>, from: usize, end: usize) {
        let mut state = self.shared.lock();
        state.plan = Some(plan);
        (state.next, state.end) = (from, end);
        state.open.clear();
        drop(state);
        self.shared.work.notify_all();
    }

    /// Drops what is open; work in progress ends in nothing.
    pub(super) fn stop(&self) {
        let mut state = self.shared.lock();
        state.plan = None;
        state.end = 0;
        state.open.clear();
    }

    /// The next batch, once it is finished; `None` behind the last.
    pub(super) fn take(&self) -> Option<Result<Batch, DataError>> {
        let mut scratch = Vec::new();
        let mut state = self.shared.lock();
        loop {
            if state.open.front().is_some_and(|open| open.finished.is_some()) {
                let finished = state.open.pop_front().and_then(|open| open.finished);
                drop(state);
                self.shared.work.notify_all();
                return finished;
            }
            if state.open.is_empty() && state.next >= state.end {
                return None;
            }
            state = if self.threads.is_empty() {
                match self.shared.claim(&mut state) {
                    Some((batch, slot)) => {
                        drop(state);
                        self.shared.perform(&batch, slot, &mut scratch);
                        self.shared.lock()
                    }
                    None => return None,
                }
            } else {
                self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// The most bytes that open batches have taken at once.
    pub(super) fn peak_bytes(&self) -> usize {
        self.shared.lock().most_open.saturating_mul(self.shared.batch_bytes)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // Panics are caught inside; there is nothing to learn from the result.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock, so its contents are whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_until_closed(&self) {
        let mut scratch = Vec::new();
        let mut state = self.lock();
        while !state.closed {
            state = match self.claim(&mut state) {
                Some((batch, slot)) => {
                    drop(state);
                    self.perform(&batch, slot, &mut scratch);
                    self.lock()
                }
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The next image to prepare: of the first open batch that has one left, or of a new batch if that fits in memory.
    fn claim(&self, state: &mut State) -> Option<(Arc<OpenBatch>, usize)> {
        let open = state.open.iter_mut().find(|open| open.claimed < open.batch.images);
        if let Some(open) = open {
            open.claimed += 1;
            return Some((Arc::clone(&open.batch), open.claimed - 1));
        }
        let bytes = (state.open.len() + 1).saturating_mul(self.batch_bytes);
        if state.next >= state.end || (!state.open.is_empty() && bytes > self.limit) {
            return None;
        }
        let batch = Arc::new(state.plan.as_ref()?.open(state.next));
        state.next += 1;
        state.open.push_back(Open { batch: Arc::clone(&batch), claimed: 1, finished: None });
        state.most_open = state.most_open.max(state.open.len());
        Some((batch, 0))
    }

    fn perform(&self, batch: &Arc<OpenBatch>, slot: usize, scratch: &mut Vec<f32>) {
        let Some(finished) = batch.prepare(slot, scratch) else { return };
        let mut state = self.lock();
        // The epoch may have been left meanwhile: then nobody waits for this batch.
        if let Some(open) = state.open.iter_mut().find(|open| Arc::ptr_eq(&open.batch, batch)) {
            open.finished = Some(finished);
            drop(state);
            self.ready.notify_all();
        }
    }
}
