//! What the cores can do at most: multiply-adds from registers and caches, and reading memory.
//!
//! A kernel's speed means little beside another machine's; beside these, measured in the same run, it does.

use crate::simd::{Kernel, Simd};
use crate::{Isa, Line, Pool, as_f32};
use std::fmt;
use std::time::{Duration, Instant};

/// Rates of some threads together.
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    /// Threads that ran at once.
    pub threads: usize,
    /// Multiply-adds of `f32` without memory, in GFLOP/s (two for each).
    pub fma: f64,
    /// The same with one operand of each from 16 KiB, in GFLOP/s.
    pub fma_l1: f64,
    /// The same from 256 KiB, in GFLOP/s.
    pub fma_l2: f64,
    /// Reading 1, 8, 64 and 512 MB (each thread its share), in GB/s.
    pub read: [f64; 4],
}

impl fmt::Display for Roofline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.read;
        write!(
            f,
            "{} thread(s): fma {:.1} GFLOP/s from registers, {:.1} from L1, {:.1} from L2; \
             reads {a:.1} GB/s in 1 MB, {b:.1} in 8 MB, {c:.1} in 64 MB, {d:.1} in 512 MB",
            self.threads, self.fma, self.fma_l1, self.fma_l2
        )
    }
}

impl Roofline {
    /// The better of two measurements of the same processor: other programs can only slow it down.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let mut read = self.read;
        read.iter_mut().zip(other.read).for_each(|(best, rate)| *best = best.max(rate));
        Self {
            threads: self.threads,
            fma: self.fma.max(other.fma),
            fma_l1: self.fma_l1.max(other.fma_l1),
            fma_l2: self.fma_l2.max(other.fma_l2),
            read,
        }
    }
}

/// Measures for about half a second.
#[must_use]
pub fn measure(isa: Isa, threads: usize) -> Roofline {
    let pool = Pool::new(threads, true);
    let data = vec![Line::ZERO; Line::count(512 << 20)];
    let data = as_f32(&data);
    let part = |bytes: usize| data.len().min(bytes / 4);
    // Each thread has memory of its own, as long as that fits the private caches.
    let own = |bytes: usize, rate: fn(Isa, &[f32]) -> f64| {
        best(&pool, &|worker| rate(isa, &data[part(worker * bytes)..part((worker + 1) * bytes)]))
    };
    let read = |bytes: usize| {
        best(&pool, &|worker| read(isa, &data[part(bytes / threads * worker)..][..part(bytes / threads)]))
    };
    Roofline {
        threads,
        fma: best(&pool, &|_| registers(isa)),
        fma_l1: own(16 << 10, from_memory),
        fma_l2: own(256 << 10, from_memory),
        read: [1 << 20, 8 << 20, 64 << 20, 512 << 20].map(read),
    }
}

/// The best of several rates (operations per call over seconds, in billions), summed over the workers.
fn best(pool: &Pool, operations: &(dyn Fn(usize) -> f64 + Sync)) -> f64 {
    let begin = Instant::now();
    let mut best = 0.0_f64;
    let mut runs = 0;
    while runs < 3 || begin.elapsed() < Duration::from_millis(60) {
        let counts = std::sync::Mutex::new(0.0);
        let start = Instant::now();
        pool.run(|worker| {
            let count = operations(worker);
            *counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += count;
        });
        let seconds = start.elapsed().as_secs_f64();
        best = best.max(counts.into_inner().unwrap_or_default() / seconds / 1e9);
        runs += 1;
    }
    best
}

fn registers(isa: Isa) -> f64 {
    // SAFETY: the kernel reads no memory.
    unsafe { isa.call(Registers) }
}

fn from_memory(isa: Isa, data: &[f32]) -> f64 {
    // SAFETY: the kernel reads the slice alone.
    unsafe { isa.call(FromMemory(data)) }
}

fn read(isa: Isa, data: &[f32]) -> f64 {
    // SAFETY: the kernel reads the slice alone.
    unsafe { isa.call(Read(data)) }
}

/// Sums in flight: enough to hide the latency, few enough for any level's registers.
const SUMS: usize = 12;

struct Registers;

impl Kernel for Registers {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        const TURNS: usize = 200_000;
        // SAFETY: no memory is touched.
        unsafe {
            let (a, b) = (S::splat(std::hint::black_box(0.5)), S::splat(std::hint::black_box(0.25)));
            let mut sums = [S::splat(0.0); SUMS];
            for _ in 0..TURNS {
                for sum in &mut sums {
                    *sum = S::fma(a, b, *sum);
                }
            }
            keep::<S>(&sums);
        }
        (TURNS * SUMS * S::LANES * 2) as f64
    }
}

struct FromMemory<'a>(&'a [f32]);

impl Kernel for FromMemory<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        const TURNS: usize = 1 << 21;
        let chunk = SUMS * S::LANES;
        let chunks = self.0.len() / chunk;
        let rounds = TURNS / self.0.len().max(1) + 1;
        // SAFETY: the chunks lie in the slice.
        unsafe {
            let b = S::splat(std::hint::black_box(0.25));
            let mut sums = [S::splat(0.0); SUMS];
            for _ in 0..rounds {
                let mut from = self.0.as_ptr();
                for _ in 0..chunks {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = S::fma(S::load(from.add(i * S::LANES)), b, *sum);
                    }
                    from = from.add(chunk);
                }
            }
            keep::<S>(&sums);
        }
        (rounds * chunks * chunk * 2) as f64
    }
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let chunk = SUMS * S::LANES;
        let chunks = self.0.len() / chunk;
        // Small slices several times over, so that starting the threads does not show.
        let rounds = (4 << 20) / self.0.len().max(1) + 1;
        // SAFETY: the chunks lie in the slice.
        unsafe {
            let mut sums = [S::splat(0.0); SUMS];
            for _ in 0..rounds {
                let mut from = self.0.as_ptr();
                for _ in 0..chunks {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = S::add(S::load(from.add(i * S::LANES)), *sum);
                    }
                    from = from.add(chunk);
                }
            }
            keep::<S>(&sums);
        }
        (rounds * chunks * chunk * 4) as f64
    }
}

/// Keeps the compiler from leaving the sums out.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn keep<S: Simd>(sums: &[S::V; SUMS]) {
    let mut total = 0.0;
    for &sum in sums {
        // SAFETY: the same contract.
        total += unsafe { S::sum(sum) };
    }
    std::hint::black_box(total);
}
