//! What a network has done since it was loaded: counters that never fall.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Of one version of one network.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) success: AtomicU64,
    pub(super) failure: AtomicU64,
    /// Failures for want of a slot; they count as failures too.
    pub(super) rejected: AtomicU64,
    /// Images that went through the network.
    pub(super) images: AtomicU64,
    /// Runs of the network.
    pub(super) runs: AtomicU64,
    pub(super) request: Time,
    pub(super) queue: Time,
    pub(super) input: Time,
    pub(super) infer: Time,
    pub(super) output: Time,
    pub(super) latency: Histogram<14>,
    pub(super) batches: Histogram<9>,
    /// Microseconds that an image takes of a run: a moving average.
    pace: AtomicU64,
}

/// Upper bounds of the latency's buckets, in seconds.
pub(super) const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the batches' buckets, in images.
pub(super) const IMAGES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

impl Counters {
    /// Adds a run of `images` images.
    pub(super) fn ran(&self, images: usize, time: Duration) {
        self.runs.fetch_add(1, Relaxed);
        self.images.fetch_add(images as u64, Relaxed);
        self.batches.add(&IMAGES, images as f64);
        let micros = time.as_micros() as u64 / images.max(1) as u64;
        let before = self.pace.load(Relaxed);
        self.pace.store(if before == 0 { micros } else { (7 * before + micros) / 8 }, Relaxed);
    }

    /// Adds a request that was answered after `time`.
    pub(super) fn answered(&self, time: Duration) {
        self.success.fetch_add(1, Relaxed);
        self.request.add(time);
        self.latency.add(&SECONDS, time.as_secs_f64());
    }

    /// How long `images` images take here, by what the last ones took.
    pub(super) fn expected(&self, images: usize) -> Duration {
        Duration::from_micros(self.pace.load(Relaxed).saturating_mul(images as u64))
    }
}

/// A sum of durations.
#[derive(Debug, Default)]
pub(super) struct Time(AtomicU64);

impl Time {
    pub(super) fn add(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Relaxed);
    }

    pub(super) fn micros(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many values are at most each bound.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    /// Not cumulative; values above the last bound are in none.
    buckets: [AtomicU64; N],
    count: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { buckets, count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&self, bounds: &[f64; N], value: f64) {
        if let Some(bucket) = bounds.iter().position(|bound| value <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Relaxed);
    }

    /// Values at most each bound, all values, and their sum.
    pub(super) fn read(&self) -> ([u64; N], u64, f64) {
        let mut total = 0;
        let cumulative = std::array::from_fn(|bucket| {
            total += self.buckets[bucket].load(Relaxed);
            total
        });
        // Buckets are written before the count, and read before it.
        (cumulative, self.count.load(Relaxed).max(total), self.sum.load(Relaxed) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let counters = Counters::default();
        for images in [1, 1, 3, 8, 300] {
            counters.ran(images, Duration::from_micros(100 * images as u64));
        }
        let (buckets, count, sum) = counters.batches.read();
        assert_eq!((buckets, count, sum), ([2, 2, 3, 4, 4, 4, 4, 4, 4], 5, 313.0));
        assert_eq!(counters.expected(10), Duration::from_millis(1));
    }
}
