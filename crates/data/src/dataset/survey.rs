//! Reading all of a dataset once: what is broken, and what the pixels are like.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Dataset;
use crate::{DataError, Decoder, RgbImage};

/// What reading and decoding every image found.
#[derive(Debug, Default)]
pub struct Survey {
    /// The images that could not be read or decoded, by index.
    pub broken: BTreeMap<usize, DataError>,
    /// How many whole images have each width and height.
    pub sizes: BTreeMap<(u32, u32), u64>,
    /// Sums per channel over all pixels of all whole images.
    sums: [u128; 3],
    squares: [u128; 3],
    pixels: u128,
}

impl Survey {
    /// The mean of red, green and blue in [0, 1], over all pixels of all images at their own sizes: large images count
    /// for more. 0 without any image.
    #[must_use]
    pub fn mean(&self) -> [f64; 3] {
        self.sums.map(|sum| sum as f64 / (255.0 * self.pixels.max(1) as f64))
    }

    /// The standard deviation of red, green and blue in [0, 1], of all pixels around [`Survey::mean`].
    #[must_use]
    pub fn std(&self) -> [f64; 3] {
        // In whole numbers up to here: the difference of two large numbers would lose its digits.
        let variance = |channel: usize| {
            let (n, sum) = (self.pixels.max(1), self.sums[channel]);
            (n * self.squares[channel] - sum * sum) as f64 / (n as f64 * n as f64)
        };
        [0, 1, 2].map(|channel| variance(channel).sqrt() / 255.0)
    }

    /// The number of whole images.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.sizes.values().sum()
    }

    fn add(&mut self, image: &RgbImage) {
        *self.sizes.entry((image.width(), image.height())).or_default() += 1;
        let (mut sums, mut squares) = ([0_u64; 3], [0_u64; 3]);
        for pixel in image.pixels().as_chunks::<3>().0 {
            for channel in 0..3 {
                let value = u64::from(pixel[channel]);
                sums[channel] += value;
                squares[channel] += value * value;
            }
        }
        for channel in 0..3 {
            self.sums[channel] += u128::from(sums[channel]);
            self.squares[channel] += u128::from(squares[channel]);
        }
        self.pixels += u128::from(image.width()) * u128::from(image.height());
    }

    fn merge(&mut self, other: Self) {
        self.broken.extend(other.broken);
        for (size, count) in other.sizes {
            *self.sizes.entry(size).or_default() += count;
        }
        for channel in 0..3 {
            self.sums[channel] += other.sums[channel];
            self.squares[channel] += other.squares[channel];
        }
        self.pixels += other.pixels;
    }
}

/// Reads and decodes every image with so many threads; `done` is called after each, from any of them. The result does
/// not depend on their number.
#[must_use]
pub fn survey(
    dataset: &dyn Dataset,
    decoder: &Decoder,
    workers: NonZeroUsize,
    done: &(dyn Fn() + Sync),
) -> Survey {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut survey = Survey::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= dataset.len() {
                return survey;
            }
            let sample = dataset.read(index);
            let image = sample.and_then(|sample| Ok(sample.picture.decode(decoder)?.into_owned()));
            match image {
                Ok(image) => survey.add(&image),
                Err(error) => drop(survey.broken.insert(index, error)),
            }
            done();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.get().min(dataset.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().fold(Survey::default(), |mut all, thread| {
            all.merge(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            all
        })
    })
}
