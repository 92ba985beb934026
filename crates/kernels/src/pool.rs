//! Worker threads that a session keeps.
//!
//! A network is some hundred short steps one after the other, so handing a step to the workers must cost about a
//! microsecond: they watch a counter for a while before they sleep. On a machine with other work, a worker may come
//! late by some milliseconds, more than most steps take; the caller does then what nobody has begun.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it gives its core away: about 50 microseconds.
const SPINS: u32 = 20_000;

type Task = dyn Fn(usize) + Sync;

/// Threads that run one task at a time, each with its own index.
///
/// The thread that calls [`Pool::run`] is worker 0, and any other worker that its thread is too late for; a pool of
/// one has no threads of its own.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    // One task at a time, whoever calls.
    turn: Mutex<()>,
}

struct Shared {
    /// Counts tasks; [`STOP`] ends the workers.
    epoch: AtomicU64,
    /// For each worker but the caller, the last task that some thread began in its name.
    begun: Box<[Begun]>,
    running: AtomicUsize,
    /// Workers that wait for `wake`; changes under the lock of `task`, and saves a system call where it is zero.
    sleeping: AtomicUsize,
    task: Mutex<Option<TaskPointer>>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Alone in its line: a worker begins without a look at its neighbours.
#[repr(align(64))]
struct Begun(AtomicU64);

impl Shared {
    /// Whether the calling thread is the one to do the part of `worker` (one or more) in task `epoch`.
    fn begins(&self, worker: usize, epoch: u64) -> bool {
        // Every part of a task is begun before the next task, so this counter is at `epoch` or just before.
        let begun = &self.begun[worker - 1].0;
        begun.compare_exchange(epoch - 1, epoch, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

const STOP: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct TaskPointer(*const Task);

// SAFETY: the task is `Sync`, and `Pool::run` keeps it alive until every worker is done with it.
unsafe impl Send for TaskPointer {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` (at least one) workers, the caller included. With `pin`, the others stay on one core each,
    /// in the order of the cores that the process may use; where the system refuses, they float.
    #[must_use]
    pub fn new(threads: usize, pin: bool) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            begun: (1..threads).map(|_| Begun(AtomicU64::new(0))).collect(),
            running: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            task: Mutex::new(None),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let cores = if pin { allowed_cores() } else { Vec::new() };
        let workers = (1..threads.max(1))
            .map(|index| {
                let shared = Arc::clone(&shared);
                let core = cores.get(index % cores.len().max(1)).copied();
                std::thread::Builder::new()
                    .name(format!("cardinal-{index}"))
                    .spawn(move || {
                        if let Some(core) = core {
                            pin_to(core);
                        }
                        work(&shared, index);
                    })
                    .expect("the system starts another thread")
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// How many workers there are, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task` once for each worker with the worker's index, and returns when all are done. The caller's thread
    /// takes the indices that no thread has begun when it is done with its own, so parts must not wait for each other.
    ///
    /// # Panics
    ///
    /// If `task` does, after every worker has ended.
    pub fn run(&self, task: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            return task(0);
        }
        let _turn = lock(&self.turn);
        let task: &(dyn Fn(usize) + Sync) = &task;
        // SAFETY: only the lifetime changes, and this function does not return, nor unwind, before every worker is
        // done with the task.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Task>(task) };
        self.shared.running.store(self.workers.len(), Ordering::Relaxed);
        let epoch = {
            let mut slot = lock(&self.shared.task);
            *slot = Some(TaskPointer(task));
            let epoch = self.shared.epoch.fetch_add(1, Ordering::Release) + 1;
            if self.shared.sleeping.load(Ordering::Relaxed) > 0 {
                self.shared.wake.notify_all();
            }
            epoch
        };
        let mut own = catch_unwind(AssertUnwindSafe(|| task(0)));
        for worker in 1..self.threads() {
            if self.shared.begins(worker, epoch) {
                own = own.and(catch_unwind(AssertUnwindSafe(|| task(worker))));
                self.shared.running.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let mut spins = 0;
        while self.shared.running.load(Ordering::Acquire) > 0 {
            relax(&mut spins);
        }
        let theirs = lock(&self.shared.panic).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Runs `item` for every index below `count`, spread over the workers in contiguous shares.
    pub fn for_each(&self, count: usize, item: impl Fn(usize) + Sync) {
        let threads = self.threads().min(count.max(1));
        if threads == 1 {
            return (0..count).for_each(item);
        }
        self.run(|worker| {
            if worker < threads {
                share(count, threads, worker).for_each(&item);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _slot = lock(&self.shared.task);
            self.shared.epoch.store(STOP, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker never unwinds: its task is caught.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// The part of `0..count` that belongs to `worker` of `threads`: contiguous, and no two differ by more than one.
#[must_use]
pub fn share(count: usize, threads: usize, worker: usize) -> std::ops::Range<usize> {
    count * worker / threads..count * (worker + 1) / threads
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen && spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        }
        if spins == SPINS {
            let mut slot = lock(&shared.task);
            while shared.epoch.load(Ordering::Acquire) == seen {
                shared.sleeping.fetch_add(1, Ordering::Relaxed);
                slot = shared.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
                shared.sleeping.fetch_sub(1, Ordering::Relaxed);
            }
        }
        seen = shared.epoch.load(Ordering::Acquire);
        if seen == STOP {
            return;
        }
        if !shared.begins(index, seen) {
            continue;
        }
        // Now that a part of it has begun, this task stays until that part is done.
        let task = *lock(&shared.task);
        if let Some(TaskPointer(task)) = task {
            // SAFETY: this thread has begun a part of the task, and `Pool::run` waits for `running` to fall to zero
            // before the task goes away.
            let task = unsafe { &*task };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(index))) {
                *lock(&shared.panic) = Some(panic);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        // More threads than cores: let the others get there.
        std::thread::yield_now();
    }
}

/// The cores that this process may run on, in order.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the set is plain data that zeros are valid for.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer and the size are those of `set`; 0 names this thread.
        let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if result == 0 {
            return (0..libc::CPU_SETSIZE as usize)
                // SAFETY: the index is below the size of the set.
                .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
                .collect();
        }
    }
    (0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).collect()
}

/// Keeps the calling thread on `core`; does nothing where the system refuses or has no such call.
pub fn pin_to(core: usize) {
    #[cfg(target_os = "linux")]
    if core < libc::CPU_SETSIZE as usize {
        // SAFETY: the set is plain data that zeros are valid for.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the index is below the size of the set.
        unsafe { libc::CPU_SET(core, &mut set) };
        // SAFETY: the pointer and the size are those of `set`; 0 names this thread.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn every_worker_runs_once_per_task() {
        // More workers than most machines have cores, and parts from nothing to some microseconds.
        for threads in [3, 17] {
            let pool = Pool::new(threads, true);
            let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=500 {
                pool.run(|worker| {
                    (0..(round * worker) % 7 * 100).for_each(|_| std::hint::spin_loop());
                    counts[worker].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts.iter().all(|count| count.load(Ordering::Relaxed) == round),
                    "{round}: {counts:?}"
                );
            }
        }
    }

    #[test]
    fn the_caller_does_what_nobody_has_begun() {
        let pool = Pool::new(2, false);
        let caller = std::thread::current().id();
        let start = Instant::now();
        let taken = AtomicUsize::new(0);
        while taken.load(Ordering::Relaxed) == 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "a worker that sleeps was always faster");
            std::thread::sleep(Duration::from_millis(5));
            pool.run(|worker| {
                taken.fetch_add(
                    usize::from(worker == 1 && std::thread::current().id() == caller),
                    Ordering::Relaxed,
                );
            });
        }
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(5));
            let panic = catch_unwind(AssertUnwindSafe(|| pool.run(|worker| assert_ne!(worker, 1, "stop"))));
            assert!(panic.is_err());
        }
        pool.run(|_| {});
    }

    #[test]
    fn workers_that_slept_wake_up() {
        let pool = Pool::new(2, false);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.for_each(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2, false);
        let panic = catch_unwind(AssertUnwindSafe(|| pool.run(|worker| assert_ne!(worker, 1, "stop"))));
        assert!(panic.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }

    #[test]
    fn shares_cover_everything_once() {
        for (count, threads) in [(0, 3), (2, 3), (10, 3), (33, 4)] {
            let all: Vec<_> = (0..threads).flat_map(|worker| share(count, threads, worker)).collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
